//! Root's rights: whom they are given up for, for good or for a while.

use std::ffi::CString;

use caps::{CapSet, Capability, CapsHashSet};
use nix::{
    errno::Errno,
    sys::prctl,
    unistd::{Gid, Uid, User, getgrouplist, getgroups, setegid, seteuid, setfsgid, setfsuid, setgroups, setresgid, setresuid},
};

use super::{Identity, RunError};

impl Identity {
    /// Whom root runs this for.
    pub(super) fn of_root(user: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, RunError> {
        let entry = match (user, env("SUDO_UID")) {
            (Some(name), _) => User::from_name(name).ok().flatten().ok_or_else(|| RunError::UnknownUser(name.to_owned()))?,
            (None, Some(uid)) => {
                let known = uid.parse().ok().and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
                known.ok_or(RunError::UnknownUser(uid))?
            }
            (None, None) => return Err(RunError::UserRequired),
        };
        let name = CString::new(entry.name.as_str()).map_err(|_| RunError::UnknownUser(entry.name.clone()))?;
        let groups = getgrouplist(&name, entry.gid).map_err(|_| RunError::UnknownUser(entry.name.clone()))?;
        Ok(Self { name: entry.name, uid: entry.uid, gid: entry.gid, home: entry.dir, groups: Some(groups) })
    }

    /// Becomes this user for good: groups, gid, uid, in the order that still has the right to (setresuid(2)). Nothing when it already is.
    pub fn assume(&self) -> nix::Result<()> {
        let Some(groups) = &self.groups else { return Ok(()) };
        setgroups(groups)?;
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)
    }

    /// Runs `work` with this user's rights over files, and root's again afterwards (setresuid(2) of the effective ids).
    pub fn acting<T>(&self, work: impl FnOnce() -> T) -> Result<T, RunError> {
        let Some(groups) = &self.groups else { return Ok(work()) };
        let system = |what| move |errno| RunError::System(what, errno);
        let before = getgroups().map_err(system("read the groups"))?;
        setgroups(groups).map_err(system("take the user's groups"))?;
        setegid(self.gid).map_err(system("take the user's group"))?;
        seteuid(self.uid).map_err(system("act as the user"))?;
        let result = work();
        seteuid(Uid::from_raw(0)).map_err(system("act as root again"))?;
        setegid(Gid::from_raw(0)).map_err(system("take root's group again"))?;
        setgroups(&before).map_err(system("take root's groups again"))?;
        Ok(result)
    }

    /// From here on files are opened with this user's rights alone, while those over mounts stay root's (setfsuid(2)): whatever a path is made
    /// to lead to meanwhile, the user could have written there as well.
    pub fn assume_for_files(&self) -> nix::Result<()> {
        let Some(groups) = &self.groups else { return Ok(()) };
        setgroups(groups)?;
        setfsgid(self.gid);
        setfsuid(self.uid);
        // Neither tells of a failure; each answers with the id that was in force, and an invalid one changes nothing.
        let in_force = (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX)));
        if in_force == (self.uid, self.gid) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// The supervisor becomes this user for good; of root's rights it keeps CAP_NET_ADMIN where an uplink must be undone.
    pub fn assume_keeping(&self, undo: bool) -> Result<(), RunError> {
        if self.groups.is_none() {
            return Ok(());
        }
        let system = |what| move |errno| RunError::System(what, errno);
        prctl::set_keepcaps(true).map_err(system("keep capabilities over the change of user"))?;
        self.assume().map_err(system("become the invoking user"))?;
        prctl::set_keepcaps(false).map_err(system("keep capabilities over the change of user"))?;
        let kept = undo.then_some(Capability::CAP_NET_ADMIN).into_iter().collect();
        for (set, value) in [(CapSet::Effective, &kept), (CapSet::Inheritable, &CapsHashSet::new()), (CapSet::Permitted, &kept)] {
            caps::set(None, set, value).map_err(|error| RunError::Capabilities(error.to_string()))?;
        }
        Ok(())
    }
}
