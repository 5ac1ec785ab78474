//! The host part of an `api_url`: one host, or a regular expression that cannot claim a stranger's.

use std::{fmt, str::FromStr};

use psl::Psl;
use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::literal::{ExtractKind, Extractor, Literal};

use crate::host::{Host, HostError};

/// Bytes of compiled automaton; a pattern over names of 253 octets needs far less.
const SIZE_LIMIT: usize = 256 * 1024;

/// Public suffixes below which no customer's server answers, for all that customers' files lie there.
const OF_ONE_OWNER: [&str; 2] = ["githubusercontent.com", "googleapis.com"];

/// Which hosts a provider claims.
#[derive(Debug, Clone)]
pub enum HostPattern {
    Exact(Host),
    Regex(Pattern),
}

/// A regular expression every match of which ends in `.suffix` or is `suffix`.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
    /// Every host it matches is one of these or below one.
    domains: Vec<Host>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("`{pattern}` is not a regular expression: {reason}")]
    Syntax { pattern: String, reason: String },
    /// It would also claim hosts of strangers.
    #[error("`{pattern}` also matches hosts of strangers, such as `{stranger}`; {}", suggest(suggestion.as_deref()))]
    Unsafe { pattern: String, stranger: String, suggestion: Option<String> },
    #[error("`{pattern}` matches whatever is below `{suffix}`, where anybody may have a name; end it in the provider's own, as in `regex:{}`", below(&format!("acme.{suffix}")))]
    PublicSuffix { pattern: String, suffix: Host },
}

/// What in a pattern is no domain of one owner's.
enum Boundless {
    /// The end of every match, at no label boundary.
    End(String),
    PublicSuffix(Host),
}

fn suggest(suggestion: Option<&str>) -> String {
    suggestion
        .map_or_else(|| r"end it in a domain, as in `regex:(.+\.)?acme\.test`".to_owned(), |pattern| format!("write `regex:{pattern}`"))
}

impl HostPattern {
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exact(exact), host) => exact == host,
            (Self::Regex(pattern), Host::Name(name)) => pattern.regex.is_match(name.as_str().as_bytes()),
            (Self::Regex(_), Host::Ip(_)) => false,
        }
    }

    /// Every host it matches is one of these or below one.
    pub(super) fn domains(&self) -> &[Host] {
        match self {
            Self::Exact(host) => std::slice::from_ref(host),
            Self::Regex(pattern) => &pattern.domains,
        }
    }

    /// `pattern` without the `regex:` in front.
    pub fn regex(pattern: &str) -> Result<Self, HostPatternError> {
        let syntax = |reason: String| HostPatternError::Syntax { pattern: pattern.to_owned(), reason };
        let regex = RegexBuilder::new(&whole(pattern))
            .case_insensitive(true)
            // Names are ASCII (RFC 5890 §2.3.2.1).
            .unicode(false)
            .size_limit(SIZE_LIMIT)
            .build()
            .map_err(|error| syntax(error.to_string()))?;
        let mut parser = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build();
        let hir = parser.parse(pattern).map_err(|error| syntax(error.to_string()))?;
        let suffixes = Extractor::new().kind(ExtractKind::Suffix).extract(&hir);
        let literals = suffixes.literals().filter(|literals| !literals.is_empty()).ok_or_else(|| Boundless::End(String::new()));
        match literals.and_then(|literals| literals.iter().map(domain).collect()) {
            Ok(domains) => Ok(Self::Regex(Pattern { text: pattern.to_owned(), regex, domains })),
            Err(Boundless::PublicSuffix(suffix)) => Err(HostPatternError::PublicSuffix { pattern: pattern.to_owned(), suffix }),
            Err(Boundless::End(suffix)) => Err(HostPatternError::Unsafe {
                pattern: pattern.to_owned(),
                stranger: stranger_of(&suffix),
                suggestion: safe_pattern(pattern, &suffix),
            }),
        }
    }
}

fn whole(pattern: &str) -> String {
    format!("^(?:{pattern})$")
}

/// A whole host, or a suffix that begins at a label boundary and has one owner.
fn domain(literal: &Literal) -> Result<Host, Boundless> {
    let text = text(literal);
    let (label, host) = if literal.is_exact() { ("", text.as_str()) } else { text.split_once('.').unwrap_or((&text, "")) };
    match host.parse() {
        Ok(host) if literal.is_exact() || !is_public_suffix(&host) => Ok(host),
        Ok(host) if label.is_empty() => Err(Boundless::PublicSuffix(host)),
        _ => Err(Boundless::End(text)),
    }
}

/// Whether anybody may have names below it: by the Public Suffix List, where a name that it does not know is one if it has no dot. A name further up, such as
/// amazonaws.com, is its owner's there, though some that are below are not.
fn is_public_suffix(host: &Host) -> bool {
    let Host::Name(name) = host else { return false };
    let name = name.as_str();
    let is_suffix = |name: &str| psl::List.suffix(name.as_bytes()).is_some_and(|suffix| suffix.as_bytes() == name.as_bytes());
    // A rule may be about whatever is one label further down.
    !OF_ONE_OWNER.contains(&name) && (is_suffix(name) || is_suffix(&format!("a.{name}")))
}

/// `(.+\.)?acme\.test`
fn below(domain: &str) -> String {
    format!(r"(.+\.)?{}", regex_syntax::escape(domain))
}

fn text(literal: &Literal) -> String {
    String::from_utf8_lossy(literal.as_bytes()).to_ascii_lowercase()
}

/// A host the pattern would also claim, to show why it is refused.
fn stranger_of(suffix: &str) -> String {
    let own = suffix.trim_start_matches('.');
    if own.contains('.') { format!("evil{own}") } else { "evil.test".to_owned() }
}

/// The pattern that was probably meant: any label in front of the suffix, or a host whose dots were not escaped.
fn safe_pattern(pattern: &str, suffix: &str) -> Option<String> {
    let own = suffix.trim_start_matches('.');
    if let Some((label, _)) = own.split_once('.') {
        // The analysis may have lost the beginning of the name, and what is left would be a stranger's.
        let is_owned = own.parse().is_ok_and(|own| !is_public_suffix(&own));
        return (is_label_of(label, &pattern.to_ascii_lowercase()) && is_owned).then(|| below(own));
    }
    let plain = pattern.trim_start_matches('^').trim_end_matches('$');
    (plain.contains('.') && plain.parse::<Host>().is_ok()).then(|| regex_syntax::escape(plain))
}

/// Whether `label` stands in the pattern with no letter, digit or hyphen of a longer one in front.
fn is_label_of(label: &str, pattern: &str) -> bool {
    let continues = |at: usize| pattern[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
    pattern.match_indices(label).any(|(at, _)| !continues(at))
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    /// `api.acme.test` or `regex:(.+\.)?acme\.test`.
    fn from_str(text: &str) -> Result<Self, HostPatternError> {
        match text.strip_prefix("regex:") {
            Some(pattern) => Self::regex(pattern),
            None => Ok(Self::Exact(text.parse()?)),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => write!(f, "{host}"),
            Self::Regex(pattern) => write!(f, "regex:{}", pattern.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(text: &str) -> Host {
        text.parse().unwrap()
    }

    #[test]
    fn patterns_that_end_in_a_domain_are_accepted() {
        for (pattern, yes, no) in [
            (
                r"(.+\.)?acme\.test",
                &["acme.test", "api.acme.test", "a.b.acme.test"][..],
                &["evilacme.test", "acme.test.evil.test", "acmextest.evil.test"][..],
            ),
            (r".*\.linear\.acme\.test", &["api.linear.acme.test"], &["linear.acme.test", "evillinear.acme.test"]),
            (r"^(www\.acme\.test|acme\.test)$", &["www.acme.test", "acme.test"], &["x.acme.test", "wwwxacme.test"]),
            (r"us[0-9]+\.api\.acme\.test", &["us21.api.acme.test"], &["us.api.acme.test", "us1xapi.acme.test"]),
            (r"API\.ACME\.TEST", &["api.acme.test"], &["x.test"]),
        ] {
            let pattern = HostPattern::regex(pattern).unwrap();
            for name in yes {
                assert!(pattern.matches(&host(name)), "{pattern} {name}");
            }
            for name in no {
                assert!(!pattern.matches(&host(name)), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn patterns_that_claim_strangers_are_refused_with_what_was_meant() {
        for (pattern, suggestion) in [
            (r".*githubusercontent\.com$", Some(r"(.+\.)?githubusercontent\.com")),
            (r".*googleapis.*", None),
            (r".*", None),
            (r"", None),
            (r".*co\.uk", None),
            (r"api.acme.test", Some(r"api\.acme\.test")),
            (r"(api\.acme\.test|.*)", None),
            (r"acme\.test|.*evil\.test", Some(r"(.+\.)?evil\.test")),
            (r"[a-z]+acme\.test", Some(r"(.+\.)?acme\.test")),
            (r".*acme\.(test|com)", Some(r"(.+\.)?acme\.test")),
            (r"(?x) api\.acme\.test # .*", None),
            (r"(?i)api\.acme\.test", None),
        ] {
            let error = HostPattern::regex(pattern).map(|accepted| accepted.to_string()).expect_err(pattern);
            match (&error, suggestion) {
                (HostPatternError::Unsafe { suggestion: None, .. } | HostPatternError::Syntax { .. }, None) => {}
                (HostPatternError::Unsafe { suggestion: Some(given), .. }, Some(wanted)) => {
                    assert_eq!(given, wanted);
                    HostPattern::regex(given).unwrap();
                }
                _ => panic!("{pattern}: {error:?}"),
            }
        }
    }

    #[test]
    fn patterns_over_what_anybody_may_register_below_are_refused() {
        for (pattern, suffix) in [
            (r".*\.com", "com"),
            (r".+\.test", "test"),
            (r".*\.co\.uk", "co.uk"),
            (r"(.+\.)?CO\.UK", "co.uk"),
            (r"[a-z]+\.co\.uk", "co.uk"),
            (r"api\.acme\.test|.*\.co\.uk", "co.uk"),
            (r".*\.acme\.(test|co\.uk)|.*\.herokuapp\.com", "herokuapp.com"),
            (r".*\.s3\.amazonaws\.com", "s3.amazonaws.com"),
            // The list says `*.kawasaki.jp`.
            (r".*\.kawasaki\.jp", "kawasaki.jp"),
            (r".*\.acme\.kawasaki\.jp", "acme.kawasaki.jp"),
            (r".*\.xn--55qx5d\.cn", "xn--55qx5d.cn"),
        ] {
            match HostPattern::regex(pattern).map(|accepted| accepted.to_string()).expect_err(pattern) {
                HostPatternError::PublicSuffix { suffix: found, .. } => assert_eq!(found.to_string(), suffix, "{pattern}"),
                error => panic!("{pattern}: {error}"),
            }
        }
        let said = HostPattern::regex(r".*\.co\.uk").unwrap_err().to_string();
        assert_eq!(
            said,
            r"`.*\.co\.uk` matches whatever is below `co.uk`, where anybody may have a name; end it in the provider's own, as in `regex:(.+\.)?acme\.co\.uk`"
        );
        // One name is one owner's, whatever it is; and these have one.
        for accepted in [r"regex:acme\.co\.uk", r"regex:co\.uk", "co.uk", r"regex:.*\.acme\.co\.uk", r"regex:(.+\.)?googleapis\.com"] {
            accepted.parse::<HostPattern>().unwrap_or_else(|error| panic!("{accepted}: {error}"));
        }
    }

    #[test]
    fn addresses_match_no_pattern() {
        assert!(!HostPattern::regex(r"(.+\.)?acme\.test").unwrap().matches(&host("203.0.113.7")));
    }

    proptest! {
        /// Whatever is accepted forces its suffix: no name outside of it ever matches.
        #[test]
        fn an_accepted_pattern_never_leaves_its_domain(head in r"(\.\*|\.\+|\(\.\+\\\.\)\?|[a-z]{1,3}|\[a-z\]\+|\\\.|\|){0,4}", name in "[a-z]{1,8}(\\.[a-z]{1,8}){0,2}") {
            if let Ok(pattern) = HostPattern::regex(&format!(r"{head}\.acme\.test"))
                && let Ok(name) = name.parse::<Host>()
                && pattern.matches(&name)
            {
                let text = name.to_string();
                let alternatives: Vec<&str> = head.split('|').collect();
                prop_assert!(text.ends_with(".acme.test") || alternatives.len() > 1, "{} matches {}", pattern, text);
            }
        }
    }
}
