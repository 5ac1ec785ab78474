//! Forwarding between links, and how it was before.

use std::{collections::BTreeMap, fs, io::ErrorKind, path::PathBuf};

use crate::error::{Context, Result};

const V4: &str = "net/ipv4/ip_forward";
const V6: &str = "net/ipv6/conf/all/forwarding";

/// Values to go back to, by path below /proc/sys (sysctl(8) takes these names too). In the order they are written in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Journal(Vec<(String, String)>);

impl Journal {
    /// What switching on will change, the side effects included.
    pub fn of_switching_on(v6: bool) -> Result<Self> {
        let mut entries = Vec::new();
        if read(V4)?.is_some_and(|value| value == "0") {
            entries.push((V4.to_owned(), "0".to_owned()));
            // The kernel resets these with the switch (inet_forward_change, net/ipv4/devinet.c).
            entries.extend(others("net/ipv4/conf", "forwarding", "1")?);
            let redirects = "net/ipv4/conf/all/accept_redirects";
            entries.extend(read(redirects)?.filter(|value| value != "1").map(|value| (redirects.to_owned(), value)));
        }
        if v6 && read(V6)?.is_some_and(|value| value == "0") {
            entries.push((V6.to_owned(), "0".to_owned()));
            entries.extend(others("net/ipv6/conf", "forwarding", "1")?);
            // A router takes no advertisements unless told twice (accept_ra, kernel's ip-sysctl.rst), and the host may live on them.
            entries.extend(others("net/ipv6/conf", "accept_ra", "1")?);
        }
        Ok(Self(entries))
    }

    /// Switches on.
    pub fn apply(&self) -> Result<()> {
        for (path, _) in self.0.iter().filter(|(path, _)| path.ends_with("/accept_ra")) {
            // Only what still is as it was read: a second uplink has the first one's journal.
            if read(path)?.is_some_and(|value| value == "1") {
                write(path, "2")?;
            }
        }
        for path in [V4, V6] {
            if self.0.iter().any(|(changed, _)| changed == path) && read(path)?.is_some_and(|value| value == "0") {
                write(path, "1")?;
            }
        }
        Ok(())
    }

    /// Goes back; what `kept` names stays.
    pub fn restore(&self, kept: &Self) -> Result<()> {
        let wanted = self.0.iter().filter(|(path, _)| !kept.names(path));
        let written = wanted.map(|(path, value)| match read(path)? {
            Some(now) if now != *value => write(path, value),
            _ => Ok(()),
        });
        super::all(written)
    }

    /// Both; of two values for one path the own is right, being the older.
    pub fn merge(&mut self, newer: Self) {
        let new: Vec<_> = newer.0.into_iter().filter(|(path, _)| !self.names(path)).collect();
        self.0.extend(new);
    }

    fn names(&self, path: &str) -> bool {
        self.0.iter().any(|(other, _)| other == path)
    }

    /// `net/ipv4/ip_forward=0 …`, in pieces of at most `limit` octets, at least one.
    pub fn pieces(&self, limit: usize) -> Vec<String> {
        let mut pieces = vec![String::new()];
        for (path, value) in &self.0 {
            let entry = format!("{path}={value}");
            match pieces.last_mut() {
                Some(last) if last.is_empty() => *last = entry,
                Some(last) if last.len() + 1 + entry.len() <= limit => *last = format!("{last} {entry}"),
                _ => pieces.push(entry),
            }
        }
        pieces
    }

    /// Anything that is not a value below net/ipv4 or net/ipv6 is left out.
    pub fn parse(&mut self, piece: &str) {
        let inside = |path: &str| (path.starts_with("net/ipv4/") || path.starts_with("net/ipv6/")) && !path.contains("/..");
        let entries = piece.split_whitespace().filter_map(|entry| entry.rsplit_once('='));
        self.0.extend(entries.filter(|(path, _)| inside(path)).map(|(path, value)| (path.to_owned(), value.to_owned())));
    }
}

/// The link-local address that the kernel gives a link is usable at once: nobody else is on this wire to have the same, and looking for them takes a
/// second, at whose end programs that watch the network (browsers) take it for another and break off what they do.
pub(super) fn trust_own_addresses(link: &str) -> Result<()> {
    let path = format!("net/ipv6/conf/{link}/accept_dad");
    if read(&path)?.is_some_and(|value| value != "0") { write(&path, "0") } else { Ok(()) }
}

/// The links whose `setting` is `value`. Our own are not among them: theirs end with them.
fn others(directory: &str, setting: &str, value: &str) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let listed = fs::read_dir(file(directory)).context(|| format!("list /proc/sys/{directory}"))?;
    for name in listed.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let path = format!("{directory}/{name}/{setting}");
        if name != "all" && !super::is_ours(&name) && read(&path)?.is_some_and(|now| now == value) {
            found.insert(path, value.to_owned());
        }
    }
    Ok(found)
}

/// `None` where there is none: no IPv6, or the link is gone.
fn read(path: &str) -> Result<Option<String>> {
    match fs::read_to_string(file(path)) {
        Ok(value) => Ok(Some(value.trim().to_owned())),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(error).context(|| format!("read /proc/sys/{path}")),
    }
}

fn write(path: &str, value: &str) -> Result<()> {
    fs::write(file(path), value).context(|| format!("set /proc/sys/{path} to {value}"))
}

fn file(path: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(path)
}
