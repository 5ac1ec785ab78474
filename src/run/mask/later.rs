//! Files that shells, login sessions and timers run later, outside.

use std::{
    fs, iter,
    path::{Path, PathBuf},
};

use super::Request;

/// Shells and login sessions run these of the user's home later, outside.
const RUN_LATER: &[&str] = &[
    ".bashrc",
    ".bash_aliases",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".profile",
    ".zshrc",
    ".zprofile",
    ".zshenv",
    ".zlogin",
    ".zlogout",
    ".kshrc",
    ".mkshrc",
    ".cshrc",
    ".tcshrc",
    ".login",
    ".logout",
    ".xprofile",
    ".xsessionrc",
    ".xinitrc",
    ".ssh",
    ".config/fish/config.fish",
    ".config/fish/conf.d",
    ".config/fish/functions",
    ".config/nushell/config.nu",
    ".config/nushell/env.nu",
    ".config/systemd",
    ".config/environment.d",
    ".config/autostart",
    ".local/share/systemd",
];

/// The users' crontabs (Debian, Fedora and SUSE, in this order) and at jobs.
const SPOOLS: &[&str] = &["/var/spool/cron", "/var/spool/atjobs", "/var/spool/at"];

/// What of `~/.ssh` makes something run: other files there are no danger where the program makes the directory, as ssh(1) does.
const SSH: &[&str] = &[".ssh/authorized_keys", ".ssh/authorized_keys2", ".ssh/config", ".ssh/rc", ".ssh/environment"];

/// A name that leads to no file yet, and what was there: nothing, or a symbolic link to this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    path: PathBuf,
    link: Option<PathBuf>,
}

impl Name {
    fn at(path: PathBuf) -> Self {
        Self { link: fs::read_link(&path).ok(), path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether something else is there now; an empty directory is nothing. Links are not followed.
    pub(super) fn is_made(&self) -> bool {
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) if metadata.is_symlink() => fs::read_link(&self.path).ok() != self.link,
            Ok(metadata) if metadata.is_dir() => fs::read_dir(&self.path).is_ok_and(|mut entries| entries.next().is_some()),
            Ok(_) => true,
            Err(_) => false,
        }
    }
}

/// What the user has no file for yet and CMD could make one for, by `is_open`.
pub(super) fn unmade(request: &Request<'_>, is_open: impl Fn(&Path) -> bool) -> Vec<Name> {
    of_user(request)
        .filter(|path| !path.ends_with(".ssh"))
        .chain(SSH.iter().map(|name| request.user.home.join(name)))
        .filter(|path| !path.exists())
        .flat_map(links_from)
        .filter(|path| is_open(path))
        .map(Name::at)
        .collect()
}

/// The start-up files in the home, and zsh's where the user has them elsewhere.
fn of_user<'a>(request: &'a Request<'_>) -> impl Iterator<Item = PathBuf> + 'a {
    let zsh = (request.env)("ZDOTDIR").map(PathBuf::from);
    let of_zsh =
        zsh.into_iter().flat_map(|directory| [".zshrc", ".zprofile", ".zshenv", ".zlogin", ".zlogout"].map(|name| directory.join(name)));
    RUN_LATER.iter().map(|name| request.user.home.join(name)).chain(of_zsh)
}

/// The name, and where it is a symbolic link that leads nowhere, each name on the way.
fn links_from(path: PathBuf) -> impl Iterator<Item = PathBuf> {
    let next = |name: &PathBuf| Some(name.parent()?.join(fs::read_link(name).ok()?));
    iter::successors(Some(path), next).take(MOST_LINKS)
}

/// The kernel, too, gives up after so many (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// What exists of the files that run later: our own program, start-up files, timers.
pub(super) fn existing(request: &Request<'_>) -> Vec<PathBuf> {
    let own_program = fs::read_link("/proc/self/exe").ok();
    own_program
        .into_iter()
        .chain(of_user(request))
        .chain(SPOOLS.iter().map(PathBuf::from))
        .filter(|path| path.exists())
        .flat_map(|path| names_of(&path))
        .filter(|path| !path.starts_with("/proc"))
        .collect()
}

/// The name, and where it is a symbolic link to a file, each further name on the way to that file: whoever writes to one writes to all.
fn names_of(path: &Path) -> Vec<PathBuf> {
    let next = |name: &PathBuf| real_name(&name.parent()?.join(fs::read_link(name).ok()?)).filter(|path| path.is_file());
    iter::successors(real_name(path), next).take(MOST_LINKS).collect()
}

/// The path with symbolic links resolved but for the last name: what that name shows is to stay, be it a link or a file. A directory
/// cannot be mounted over a link, so of a linked directory only the contents stay.
fn real_name(path: &Path) -> Option<PathBuf> {
    if path.is_dir() { path.canonicalize().ok() } else { Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?)) }
}
