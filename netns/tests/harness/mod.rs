//! Runs cases as root, as root in a user namespace, and as an unprivileged user.
//!
//! Not libtest: `spawn` refuses a process with threads. As root, the cases of the unprivileged user run in a copy of this program with that uid.
//! Where the kernel forbids namespaces a case is ignored with the reason; NETNS_REQUIRE=1 makes that a failure.

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use netns::spawn::{Ids, Namespaces, spawn};
use std::{
    env,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

/// nobody, on every distribution.
const NOBODY: u32 = 65534;

pub type Case = fn(Namespaces);

pub fn main(cases: &[(&str, Case)]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // On this thread, then.
    arguments.test_threads = Some(1);
    let root = Ids::current().uid == 0;
    let mut trials = Vec::new();
    for &(name, case) in cases {
        let (alone, user) = (Namespaces { user: None }, Namespaces { user: Some(Ids::current()) });
        trials.push(Trial::ignorable_test(format!("root::{name}"), move || run(root, alone, case)));
        trials.push(Trial::ignorable_test(format!("root_userns::{name}"), move || run(root, user, case)));
        let name = format!("user::{name}");
        trials.push(Trial::ignorable_test(name.clone(), move || if root { as_nobody(&name) } else { run(true, user, case) }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run(privileged: bool, namespaces: Namespaces, case: Case) -> Result<Completion, Failed> {
    let closed = if privileged { spawn(namespaces, |_| 0).err().map(|error| error.to_string()) } else { Some("needs root".into()) };
    match closed {
        None => {
            case(namespaces);
            Ok(Completion::Completed)
        }
        Some(reason) if env::var_os("NETNS_REQUIRE").is_some() => Err(reason.into()),
        Some(reason) => Ok(Completion::ignored_with(reason)),
    }
}

/// Through /proc/self/exe, since nobody need not reach the build directory.
fn as_nobody(name: &str) -> Result<Completion, Failed> {
    let output = Command::new("/proc/self/exe").args(["--exact", name]).uid(NOBODY).gid(NOBODY).current_dir("/").output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match () {
        () if !output.status.success() => Err(text.into()),
        () if text.contains("1 ignored") => Ok(Completion::ignored_with(text)),
        () if text.contains("1 passed") => Ok(Completion::Completed),
        () => Err(format!("no such case as nobody: {text}").into()),
    }
}

/// What `read` says inside.
pub fn inside(namespaces: Namespaces, read: impl FnOnce() -> String) -> String {
    let child = spawn(namespaces, |channel| u8::from(channel.send(read().as_bytes(), &[]).is_err())).unwrap();
    let (bytes, _) = child.channel.recv().unwrap().expect("an answer");
    String::from_utf8(bytes).unwrap()
}
