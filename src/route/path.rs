//! Path prefixes on segment boundaries, and the paths that match none because servers may read them in more than one way.

use std::fmt;

use percent_encoding::percent_decode_str;

/// `/v1/me`: matches itself and everything below, never `/v1/mess`. Empty: every path.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathPrefix(String);

impl PathPrefix {
    /// `None` where the text is no prefix that could match: dot segments, empty segments, a query or a fragment.
    pub fn new(text: &str) -> Option<Self> {
        let bare = text.trim_end_matches('/');
        let shaped = bare.is_empty() || (bare.starts_with('/') && !bare.contains(['?', '#']) && is_canonical(bare));
        shaped.then(|| Self(bare.to_owned()))
    }

    /// `path` as the client sent it, without query. Percent-encoding is not undone: a server that does may disagree with the route.
    pub fn matches(&self, path: &str) -> bool {
        self.is_any()
            || (is_canonical(path) && path.strip_prefix(self.0.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }

    /// Whether some server could take `path` for this prefix or what is below it, however it decodes, cuts and resolves the path.
    /// For what must not be reached, where [`matches`](Self::matches) is for what may be.
    pub fn could_match(&self, path: &str) -> bool {
        let own = layers(&self.0).last().map(|text| resolved(&text)).unwrap_or_default();
        let is_below = |text: String| resolved(&text).strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        layers(path).any(is_below)
    }

    pub fn is_any(&self) -> bool {
        self.0.is_empty()
    }

    /// In octets; the longer prefix is the more specific.
    pub fn specificity(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether every server reads this path alike: no `.` or `..` segment and no empty one, also not behind percent-encoding (twice, too), a backslash or
/// an encoded slash (RFC 3986 §3.3, §5.2.4, §6.2.2).
pub fn is_canonical(path: &str) -> bool {
    layers(path).all(|text| is_plain(&text))
}

/// The path as it is, decoded, and decoded twice: intermediaries and servers each take one layer.
fn layers(path: &str) -> impl Iterator<Item = String> {
    let decoded = |text: &String| {
        let decoded = percent_decode_str(text).decode_utf8_lossy().into_owned();
        (decoded != *text).then_some(decoded)
    };
    std::iter::successors(Some(path.to_owned()), decoded).take(3)
}

/// Dot segments resolved (RFC 3986 §5.2.4), empty segments and path parameters dropped, in lower case: the most lenient reading.
fn resolved(path: &str) -> String {
    let unified = path.replace('\\', "/").to_ascii_lowercase();
    let mut segments = Vec::new();
    for segment in unified.split('/').filter_map(|segment| segment.split(';').next()) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    segments.iter().flat_map(|segment| ["/", segment]).collect()
}

fn is_plain(path: &str) -> bool {
    let unified = path.replace('\\', "/");
    let body = unified.strip_prefix('/').unwrap_or(&unified);
    let body = body.strip_suffix('/').unwrap_or(body);
    // Path parameters (`..;x`) are cut by some servers before dots are resolved.
    let segment_is_plain = |segment: &str| !matches!(segment.split(';').next(), Some("" | "." | ".."));
    body.is_empty() && !unified.starts_with("//") || !body.is_empty() && body.split('/').all(segment_is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_at_segments() {
        let prefix = PathPrefix::new("/v1/me/").unwrap();
        for (path, want) in
            [("/v1/me", true), ("/v1/me/", true), ("/v1/me/x", true), ("/v1/mess", false), ("/v1", false), ("/v1/ME", false), ("/", false)]
        {
            assert_eq!(prefix.matches(path), want, "{path}");
        }
        let any = PathPrefix::new("/").unwrap();
        assert!(any.is_any() && any.matches("/x/../y"), "a claim on the whole host needs no path");
        for text in ["/v1/../x", "/v1//x", "v1", "/v1?x", "/v1#x"] {
            assert_eq!(PathPrefix::new(text), None, "{text}");
        }
    }

    #[test]
    fn what_servers_read_in_two_ways_matches_no_prefix() {
        let prefix = PathPrefix::new("/api").unwrap();
        for path in [
            "/api/../admin",
            "/api/./x",
            "/api//x",
            "//api/x",
            "/api/%2e%2e/x",
            "/api/%2E./x",
            "/api/.%2e/x",
            "/api/%2e/x",
            "/api/%252e%252e/x",
            "/api%2f..%2fx",
            "/api/%2fx",
            "/api/..;/x",
            "/api/..;a=b/x",
            "/api/..%3b/x",
            "/api\\..\\x",
            "/api/%5c..%5cx",
            "/api/x/..",
            "/api/..",
            "/api/x//",
        ] {
            assert!(!prefix.matches(path), "{path}");
        }
        for path in ["/api/...", "/api/..x", "/api/x..", "/api/.well-known/x", "/api/%20x", "/api/x;v=1", "/api/x/"] {
            assert!(prefix.matches(path), "{path}");
        }
    }
}
