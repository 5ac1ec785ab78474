//! What is done to a store: planned, shown, then carried out.

use std::{
    env,
    ffi::OsString,
    fmt,
    fs::{self, DirBuilder},
    io::Write,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::Error;

/// Where programs of the system are, whatever PATH says: sudo may keep the user's, and `/usr/sbin` is in few users'.
const SYSTEM_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of what a failed program said is told.
const SAID: usize = 500;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A new file or a new content, for everybody to read.
    Write {
        path: PathBuf,
        text: String,
    },
    Remove {
        path: PathBuf,
    },
    /// A directory that only its owner may enter, and those above it.
    Directory {
        path: PathBuf,
    },
    Run {
        program: &'static str,
        arguments: Vec<OsString>,
    },
}

impl Step {
    /// A program and its first arguments.
    pub fn run<'a>(words: impl IntoIterator<Item = &'a &'static str>) -> Self {
        let mut words = words.into_iter().copied();
        let program = words.next().unwrap_or_default();
        Self::Run { program, arguments: words.map(Into::into).collect() }
    }

    /// The same with paths after them.
    pub fn with<'a>(mut self, paths: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        if let Self::Run { arguments, .. } = &mut self {
            arguments.extend(paths.into_iter().map(|path| path.clone().into_os_string()));
        }
        self
    }

    pub fn carry_out(&self) -> Result<(), Error> {
        match self {
            Self::Write { path, text } => write(path, text).map_err(Error::file("write", path)),
            Self::Remove { path } => fs::remove_file(path).map_err(Error::file("remove", path)),
            Self::Directory { path } => DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::file("create", path)),
            Self::Run { program, arguments } => {
                let output = command(program, arguments).output().map_err(|source| Error::Start { program: (*program).into(), source })?;
                if output.status.success() {
                    return Ok(());
                }
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                let start = said.char_indices().rev().nth(SAID).map_or(0, |(index, _)| index);
                Err(Error::Program { program: (*program).into(), status: output.status, said: said[start..].to_owned() })
            }
        }
    }
}

/// As a shell would have it, where that is short.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { path, .. } => write!(f, "write {}", path.display()),
            Self::Remove { path } => write!(f, "rm {}", path.display()),
            Self::Directory { path } => write!(f, "mkdir -p -m 700 {}", path.display()),
            Self::Run { program, arguments } => {
                write!(f, "{program}")?;
                for argument in arguments {
                    let argument = argument.to_string_lossy();
                    let plain = !argument.is_empty() && argument.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:,=+@%".contains(&b));
                    if plain { write!(f, " {argument}")? } else { write!(f, " '{}'", argument.replace('\'', r"'\''"))? }
                }
                Ok(())
            }
        }
    }
}

/// What a program prints, `None` if it fails: some say "there is none" by that.
pub fn ask(program: &'static str, arguments: impl IntoIterator<Item = OsString>) -> Result<Option<Vec<u8>>, Error> {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let output = command(program, &arguments).output().map_err(|source| Error::Start { program: program.into(), source })?;
    Ok(output.status.success().then_some(output.stdout))
}

/// The program's file: the system's own first.
pub fn find(program: &str) -> Option<PathBuf> {
    let of_user = if nix::unistd::geteuid().is_root() { OsString::new() } else { env::var_os("PATH").unwrap_or_default() };
    let directories: Vec<_> = env::split_paths(SYSTEM_PATH).chain(env::split_paths(&of_user)).collect();
    directories.into_iter().map(|directory| directory.join(program)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn command(program: &'static str, arguments: &[OsString]) -> Command {
    let mut command = Command::new(find(program).unwrap_or_else(|| program.into()));
    command.args(arguments).stdin(Stdio::null()).env("PATH", SYSTEM_PATH).env("LC_ALL", "C");
    command
}

/// Whole or not at all, and readable whatever the umask.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let mut file = tempfile::Builder::new().prefix(".authsome-").permissions(fs::Permissions::from_mode(0o644)).tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_shown_as_commands() {
        let step = Step::run(&["certutil", "-A", "-t", "C,,", "-n"]).with([&PathBuf::from("a b'c"), &PathBuf::from("/x.pem")]);
        assert_eq!(step.to_string(), r"certutil -A -t C,, -n 'a b'\''c' /x.pem");
        assert_eq!(Step::Write { path: "/a".into(), text: String::new() }.to_string(), "write /a");
    }

    #[test]
    fn a_failed_program_says_why() {
        let failed = Step::run(&["ls", "/no/such/file"]).carry_out().unwrap_err().to_string();
        assert!(failed.starts_with("ls failed (exit status: 2): ") && failed.contains("/no/such/file"), "{failed}");
        assert!(matches!(Step::run(&["no-such-program"]).carry_out(), Err(Error::Start { .. })));
    }
}
