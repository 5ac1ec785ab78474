//! Apple's configuration profile with a root certificate: payload type `com.apple.security.root` (Apple, "Certificates payload settings").
//!
//! Written by hand: a fixed document with seven values in it, for which no writer of property lists is needed.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};

/// The profile, an XML property list. Its identifiers follow from the certificate: installed a second time it replaces itself.
pub fn profile(common_name: &str, certificate: &[u8]) -> String {
    let name = escaped(common_name);
    let (root, profile) = (uuid("root", certificate), uuid("profile", certificate));
    let encoded = STANDARD.encode(certificate);
    let root_id = root.to_ascii_lowercase();
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>PayloadContent</key>
  <array>
    <dict>
      <key>PayloadCertificateFileName</key>
      <string>authsome-ca.cer</string>
      <key>PayloadContent</key>
      <data>{encoded}</data>
      <key>PayloadDescription</key>
      <string>Adds the certificate authority {name}</string>
      <key>PayloadDisplayName</key>
      <string>{name}</string>
      <key>PayloadIdentifier</key>
      <string>com.apple.security.root.{root_id}</string>
      <key>PayloadType</key>
      <string>com.apple.security.root</string>
      <key>PayloadUUID</key>
      <string>{root}</string>
      <key>PayloadVersion</key>
      <integer>1</integer>
    </dict>
  </array>
  <key>PayloadDescription</key>
  <string>Lets this device trust the connections that your authsome opens.</string>
  <key>PayloadDisplayName</key>
  <string>{name}</string>
  <key>PayloadIdentifier</key>
  <string>authsome.ca.{root_id}</string>
  <key>PayloadRemovalDisallowed</key>
  <false/>
  <key>PayloadType</key>
  <string>Configuration</string>
  <key>PayloadUUID</key>
  <string>{profile}</string>
  <key>PayloadVersion</key>
  <integer>1</integer>
</dict>
</plist>
"#
    )
}

/// Characters with a meaning in XML and HTML, as text or in a quoted attribute.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A UUID of version 8 (RFC 9562 §5.8): the first octets of a SHA-256.
fn uuid(purpose: &str, certificate: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, &[purpose.as_bytes(), certificate].concat());
    let mut octets = [0; 16];
    octets.iter_mut().zip(digest.as_ref()).for_each(|(octet, &from)| *octet = from);
    octets[6] = octets[6] & 0x0f | 0x80;
    octets[8] = octets[8] & 0x3f | 0x80;
    let hex: String = octets.iter().map(|octet| format!("{octet:02X}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_identifiers_stable() {
        let profile = |name| super::profile(name, b"der");
        assert!(profile("a <b> & \"c\"").contains("<string>a &lt;b&gt; &amp; &quot;c&quot;</string>"));
        assert_eq!(profile("n"), profile("n"));
        assert_ne!(uuid("root", b"a"), uuid("root", b"b"));
        assert_eq!(uuid("root", b"a").as_bytes()[14], b'8');
    }
}
