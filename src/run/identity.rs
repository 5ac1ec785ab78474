//! Who the command runs as: the invoking user, also under sudo.

use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid};

use super::RunError;

#[cfg_attr(not(target_os = "linux"), path = "identity/rights_elsewhere.rs")]
mod rights;

/// A user with everything a login would give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub uid: Uid,
    pub gid: Gid,
    pub home: PathBuf,
    /// Set where privileges are to be given up: every group of the user (getgrouplist(3)).
    pub groups: Option<Vec<Gid>>,
}

impl Identity {
    /// The invoking user; `user` is `--user NAME`. As root somebody must be named, by sudo or by the flag.
    pub fn resolve(user: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, RunError> {
        if !geteuid().is_root() {
            if user.is_some() {
                return Err(RunError::UserNeedsRoot);
            }
            return Ok(Self::unprivileged());
        }
        Self::of_root(user, env)
    }

    /// Whoever runs this process, whether or not the user database knows them.
    fn unprivileged() -> Self {
        let (uid, gid) = (geteuid(), getegid());
        let entry = User::from_uid(uid).ok().flatten();
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let (name, dir) = entry.map_or_else(|| (uid.to_string(), PathBuf::from("/")), |user| (user.name, user.dir));
        Self { name, uid, gid, home: home.unwrap_or(dir), groups: None }
    }

    pub fn is_root(&self) -> bool {
        self.uid.is_root()
    }

    /// `alice (1000:1000)`, for `--dry-run`.
    pub fn describe(&self) -> String {
        let group = Group::from_gid(self.gid).ok().flatten().map_or_else(|| self.gid.to_string(), |group| group.name);
        format!("{}:{group} ({}:{})", self.name, self.uid, self.gid)
    }
}
