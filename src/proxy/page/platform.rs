//! Which system a browser runs on, by what it says of itself.

use http::{HeaderMap, header};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    MacOs,
    Windows,
    Linux,
    Ios,
    Android,
}

/// What stands in a `User-Agent`. The first that is found decides: an iPhone also says Mac OS X, and Android also says Linux.
const AGENTS: [(&str, Platform); 8] = [
    ("iPhone", Platform::Ios),
    ("iPad", Platform::Ios),
    ("iPod", Platform::Ios),
    ("Android", Platform::Android),
    ("Windows", Platform::Windows),
    ("Macintosh", Platform::MacOs),
    ("Mac OS X", Platform::MacOs),
    ("Darwin", Platform::MacOs),
];

impl Platform {
    pub const ALL: [Self; 5] = [Self::MacOs, Self::Windows, Self::Linux, Self::Ios, Self::Android];

    /// By the client hint where there is one (`Sec-CH-UA-Platform`), else by `User-Agent`. What says nothing is taken for Linux, where runs are.
    pub fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match text("sec-ch-ua-platform").trim_matches('"') {
            "macOS" => return Self::MacOs,
            "Windows" => return Self::Windows,
            "Linux" | "Chrome OS" | "Chromium OS" => return Self::Linux,
            "iOS" => return Self::Ios,
            "Android" => return Self::Android,
            _ => {}
        }
        let agent = text(header::USER_AGENT.as_str());
        AGENTS.iter().find(|(word, _)| agent.contains(word)).map_or(Self::Linux, |(_, platform)| *platform)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::MacOs => "macOS",
            Self::Windows => "Windows",
            Self::Linux => "Linux",
            Self::Ios => "iPhone and iPad",
            Self::Android => "Android",
        }
    }

    /// HTML: the download and what to do with it.
    pub fn steps(self) -> &'static str {
        match self {
            Self::MacOs => include_str!("steps/macos.html"),
            Self::Windows => include_str!("steps/windows.html"),
            Self::Linux => include_str!("steps/linux.html"),
            Self::Ios => include_str!("steps/ios.html"),
            Self::Android => include_str!("steps/android.html"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn browsers_are_told_apart() {
        for (agent, hint, want) in [
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/17.0 Safari/605.1.15", "", Platform::MacOs),
            ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36", "", Platform::Windows),
            ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "", Platform::Linux),
            ("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36", "", Platform::Linux),
            ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15", "", Platform::Ios),
            ("Mozilla/5.0 (iPad; CPU OS 16_0 like Mac OS X) AppleWebKit/605.1.15", "", Platform::Ios),
            ("Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36", "", Platform::Android),
            ("Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36", "\"Windows\"", Platform::Windows),
            ("Mozilla/5.0 (Windows NT 10.0)", "\"Haiku\"", Platform::Windows),
            ("curl/8.14.1", "", Platform::Linux),
            ("", "", Platform::Linux),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
            headers.insert("sec-ch-ua-platform", HeaderValue::from_static(hint));
            assert_eq!(Platform::of(&headers), want, "{agent} {hint}");
        }
        assert_eq!(Platform::of(&HeaderMap::new()), Platform::Linux);
    }
}
