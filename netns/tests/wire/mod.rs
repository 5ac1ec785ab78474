//! Two machines that share a wire.

use netns::testing::{Host, Lan, TestingError};

/// A server with two addresses of IPv4, and a client; `None` where this user may have no namespaces.
pub fn machines() -> Option<(Lan, Host, Host)> {
    let build = || {
        let lan = Lan::new()?;
        let server = lan.host("server", &["203.0.113.7/24", "203.0.113.8/24", "2001:db8:113::7/64"])?;
        let client = lan.host("client", &["203.0.113.9/24", "2001:db8:113::9/64"])?;
        Ok((lan, server, client))
    };
    match build() {
        Ok(machines) => Some(machines),
        Err(TestingError::Kernel(error)) if std::env::var_os("NETNS_REQUIRE").is_none() => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
