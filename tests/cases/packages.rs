//! Tools that fetch and publish through HTTP do the same with the command as without, on a host that is opened and injected.

use crate::{
    Case,
    support::{
        origin::Origin,
        world::{ACME_KEY, GID, UID, World, succeeded},
    },
};
use std::{os::unix::process::CommandExt, process::Command};

pub const CASES: &[Case] = &[("git_clone_and_push", git_clone_and_push), ("pip_install", pip_install)];

const HOST: &str = "programs.acme.test";

/// A shell script as the user, outside the network of the command.
fn prepare(world: &World, script: &str) {
    let mut shell: Command = world.command(&["sh", "-euc", script]);
    succeeded(&shell.uid(UID).gid(GID).output().unwrap());
}

/// git's own server side; more than a mebibyte goes up, which git sends in chunks.
fn git_clone_and_push(world: &World) {
    prepare(
        world,
        "git init -q --bare -b main served/project.git; git -C served/project.git config http.receivepack true
         git init -q -b main first; cd first; git config user.email a@acme.test; git config user.name a
         head -c 3000000 /dev/urandom > large; git add large; git commit -qm first; git push -q ../served/project.git main",
    );
    let origin = Origin::python(world, "git_http.py", &[world.home().join("served").to_str().unwrap()]);
    for (way, output) in world.every_way(&[
        "sh",
        "-euc",
        &format!(
            "rm -rf work; git clone -q https://{HOST}/project.git work; cd work; git config user.email b@acme.test; git config user.name b
             head -c 2000000 /dev/urandom > more; git add more; git commit -qm more; git push -q origin main 2>&1
             git fetch -q; git status -sb; git fsck --strict 2>&1; test $(git rev-parse main) = $(git -C ../served/project.git rev-parse main)"
        ),
    ]) {
        assert_eq!(succeeded(&output), "## main...origin/main\n", "{way}");
    }
    // One more from outside ends what was said.
    succeeded(&world.outside(&["curl", "-fsS", &format!("https://{HOST}/project.git/HEAD")]));
    let mut seen = origin.said_until("/project.git/HEAD");
    seen.retain(|line| line.starts_with("POST"));
    let (with, without): (Vec<_>, Vec<_>) = seen.iter().partition(|line| line.ends_with(ACME_KEY));
    // Two of the three ways are injected.
    assert!(with.len() == 2 * without.len() && without.iter().all(|line| line.ends_with("None")), "{seen:?}");
}

fn pip_install(world: &World) {
    let wheel = "import zipfile, hashlib, base64
name = 'index/greeting/greeting-1.0-py3-none-any.whl'
files = {'greeting.py': 'print(\"hello from the wheel\")', 'greeting-1.0.dist-info/METADATA': 'Metadata-Version: 2.1\\nName: greeting\\nVersion: 1.0\\n',
  'greeting-1.0.dist-info/WHEEL': 'Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'}
files['greeting-1.0.dist-info/RECORD'] = ''.join(f'{file},,\\n' for file in files) + 'greeting-1.0.dist-info/RECORD,,\\n'
with zipfile.ZipFile(name, 'w') as archive:
    for file, text in files.items():
        archive.writestr(file, text)";
    prepare(world, &format!("mkdir -p index/greeting; /usr/bin/python3 -c '{}'", wheel.replace('\'', "'\\''")));
    let _origin = Origin::python(world, "files.py", &[world.home().join("index").to_str().unwrap()]);
    for (way, output) in world.every_way(&[
        "sh",
        "-euc",
        &format!(
            "rm -rf got; /usr/bin/python3 -m pip install -q --disable-pip-version-check --no-cache-dir --no-input --index-url https://{HOST}/ --target got greeting
             cd got; /usr/bin/python3 -m greeting"
        ),
    ]) {
        assert_eq!(succeeded(&output), "hello from the wheel\n", "{way}");
    }
}
