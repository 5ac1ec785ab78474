//! Ordinary programs work in the locked-down sandbox.

use libtest_mimic::Trial;

use crate::stage::{Fixture, Scenario};

/// Name, script, what it prints. A program that is not installed is skipped by name.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("sh", "echo $((6 * 7)) | cat", "42"),
    (
        "git",
        "cd \"$HOME\" && git init -q r && cd r && git -c user.name=a -c user.email=a@b.test commit -q --allow-empty -m m && git log --format=%s",
        "m",
    ),
    (
        "node",
        "node -e 'require(\"fs\").promises.readFile(\"/dev/null\").then(() => console.log(require(\"os\").networkInterfaces() ? 1 : 0))'",
        "1",
    ),
    (
        "python3",
        "python3 -c 'import socket, ssl, subprocess; print(subprocess.check_output([\"echo\", \"hi\"]).decode().strip(), len(socket.if_nameindex()))'",
        "hi 1",
    ),
    ("gdb", "gdb -q -batch -ex 'break main' -ex run -ex 'print 40+2' /bin/true 2>/dev/null | grep '^\\$1'", "$1 = 42"),
    ("bwrap", "bwrap --unshare-all --dev-bind / / echo nested", "nested"),
    ("unshare", "unshare --user --map-root-user --net --mount id -u", "0"),
];

pub fn trials() -> Vec<Trial> {
    PROGRAMS
        .iter()
        .map(|&(program, script, printed)| Trial::test(format!("programs::{program}"), move || works(program, script, printed)))
        .collect()
}

fn works(program: &str, script: &str, printed: &str) -> Result<(), libtest_mimic::Failed> {
    let fixture = Fixture::new();
    let scenario = |script: &str| Scenario { lock_down: true, ..fixture.masked(script) };
    if !scenario(&format!("command -v {program}")).output().status.success() {
        eprintln!("{program} is not installed for the user inside");
        return Ok(());
    }
    assert_eq!(scenario(script).text(), printed);
    Ok(())
}
