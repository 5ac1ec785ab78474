//! The host part of an `api_url`: one host, or a regular expression that cannot claim a stranger's.

use std::{fmt, str::FromStr};

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::literal::{ExtractKind, Extractor, Literal};

use crate::host::{Host, HostError};

/// Bytes of compiled automaton; a pattern over names of 253 octets needs far less.
const SIZE_LIMIT: usize = 256 * 1024;

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
}

fn suggest(suggestion: Option<&str>) -> String {
    suggestion
        .map_or_else(|| r"end it in a domain, as in `regex:(.+\.)?acme\.test`".to_owned(), |pattern| format!("write `regex:{pattern}`"))
}

impl HostPattern {
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exact(exact), host) => exact == host,
            (Self::Regex(pattern), Host::Name(name)) => pattern.regex.is_match(name.as_str()),
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
            .size_limit(SIZE_LIMIT)
            .build()
            .map_err(|error| syntax(error.to_string()))?;
        let hir = regex_syntax::parse(pattern).map_err(|error| syntax(error.to_string()))?;
        let suffixes = Extractor::new().kind(ExtractKind::Suffix).extract(&hir);
        let literals = suffixes.literals().filter(|literals| !literals.is_empty()).ok_or_else(String::new);
        let domains = literals.and_then(|literals| literals.iter().map(|literal| domain(literal).ok_or_else(|| text(literal))).collect());
        match domains {
            Ok(domains) => Ok(Self::Regex(Pattern { text: pattern.to_owned(), regex, domains })),
            Err(suffix) => Err(HostPatternError::Unsafe {
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

/// A whole host, or a suffix that begins at a label boundary and has at least two labels: nobody else can register below that.
fn domain(literal: &Literal) -> Option<Host> {
    let text = text(literal);
    if literal.is_exact() {
        return text.parse().ok();
    }
    let (_, suffix) = text.split_once('.')?;
    suffix.contains('.').then(|| suffix.parse().ok())?
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
        let is_whole = is_label_of(label, &pattern.to_ascii_lowercase()) && own.parse::<Host>().is_ok();
        return is_whole.then(|| format!(r"(.+\.)?{}", regex_syntax::escape(own)));
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
            (r".*\.com", None),
            (r".+\.test", None),
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
