//! TEMPORARY shim until the real one lands.
use std::{fmt, io::Write, process::{Command, Stdio}};
use crate::error::{Context, Result};
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset { pub text: String }
impl fmt::Display for Ruleset { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.text) } }
impl Ruleset {
    pub fn shim(relay: bool, ports: Option<&[u16]>, listener: u16, dns: u16) -> Self {
        let which = match ports { Some(ports) if !relay => format!("tcp dport {{ {} }}", ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")), _ => "meta l4proto tcp".into() };
        let rest = if relay { "meta l4proto != tcp reject with icmpx admin-prohibited" } else { "" };
        Self { text: format!("table inet sandbox {{\n chain nat {{ type nat hook output priority -100; policy accept;\n meta l4proto {{ tcp, udp }} th dport 53 redirect to :{dns}\n fib daddr type local accept\n {which} redirect to :{listener}\n }}\n chain filter {{ type filter hook output priority 0; policy accept;\n fib daddr type local accept\n udp dport 443 reject with icmpx admin-prohibited\n {rest}\n }}\n}}\n") }
    }
    pub fn load(&self) -> Result<()> {
        if self.text.is_empty() { return Ok(()) }
        let mut child = Command::new("/usr/sbin/nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().context(|| "run nft".into())?;
        child.stdin.take().map(|mut i| i.write_all(self.text.as_bytes()));
        let ok = child.wait().context(|| "run nft".into())?.success();
        if ok { Ok(()) } else { Err(crate::Error { action: "load rules".into(), source: nix::errno::Errno::EINVAL }) }
    }
}
