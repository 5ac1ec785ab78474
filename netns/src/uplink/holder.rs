//! The process that holds an uplink, known again by more than its number.

use std::{fmt, fs, str::FromStr};

/// As text, `PID STARTTIME PIDNS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pid: u32,
    /// In clock ticks since boot (field 22 of proc_pid_stat(5)): another process of that number began at another time.
    started: u64,
    /// `pid:[4026531836]`: the number means this process in this PID namespace alone (pid_namespaces(7)).
    namespace: String,
}

impl Holder {
    /// The calling process; `None` where /proc does not tell.
    pub fn this() -> Option<Self> {
        let pid = std::process::id();
        Some(Self { pid, started: started(pid)?, namespace: namespace()? })
    }

    /// Whether it may still be there: one in a namespace we do not see counts as alive.
    pub fn is_alive(&self) -> bool {
        namespace().is_none_or(|ours| ours != self.namespace) || started(self.pid) == Some(self.started)
    }
}

fn namespace() -> Option<String> {
    Some(fs::read_link("/proc/self/ns/pid").ok()?.to_str()?.to_owned())
}

/// `None`: there is no such process, or it has ended and nobody has waited for it yet.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok())?
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.pid, self.started, self.namespace)
    }
}

impl FromStr for Holder {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [pid, started, namespace] = words[..] else { return Err(()) };
        Ok(Self { pid: pid.parse().map_err(drop)?, started: started.parse().map_err(drop)?, namespace: namespace.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_an_ended_one_is_not() {
        let this = Holder::this().unwrap();
        assert!(this.is_alive());
        assert_eq!(this.to_string().parse(), Ok(this.clone()));
        assert!(!Holder { started: this.started + 1, ..this.clone() }.is_alive(), "the same number at another time");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let its = Holder { pid: child.id(), started: started(child.id()).unwrap(), ..this.clone() };
        assert!(its.is_alive());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!its.is_alive());
        assert!(Holder { namespace: "pid:[1]".into(), ..its }.is_alive(), "who is out of sight may be alive");
    }
}
