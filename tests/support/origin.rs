//! Programs from the distribution as origins of the test internet.

use super::world::World;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    fs,
    io::{BufRead, BufReader, pipe},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// After which a program that says nothing counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where scripts/test has installed the packages of tests/data/python.
pub fn python_modules() -> String {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-python");
    assert!(modules.exists(), "{} is missing: scripts/test makes it", modules.display());
    modules.display().to_string()
}

/// A program that serves; it ends with this handle.
pub struct Origin {
    child: Child,
    said: mpsc::Receiver<String>,
}

impl Origin {
    /// Starts `program` and waits until a line of its output contains `ready`.
    pub fn start(world: &World, program: &mut Command, ready: &str) -> Self {
        let (output, writer) = pipe().unwrap();
        program.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer).process_group(0);
        let child = world.internet.spawn(program);
        // The command keeps its copies of the pipe, which would hide the program's end.
        program.stdout(Stdio::null()).stderr(Stdio::null());
        let (sender, said) = mpsc::channel();
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        thread::spawn(move || lines.for_each(|line| drop(sender.send(line))));
        let origin = Self { child, said };
        origin.said_until(ready);
        origin
    }

    /// A Python program of tests/data/origins, which says `ready` once it listens; its arguments are certificate and key of
    /// `programs.acme.test`, and `arguments`.
    pub fn python(world: &World, script: &str, arguments: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/origins").join(script);
        let mut program = world.command(&["/usr/bin/python3", "-uB"]);
        program.arg(script).arg(world.path("programs.pem")).arg(world.path("programs.key")).args(arguments);
        Self::start(world, &mut program, "ready")
    }

    /// nginx for `programs.acme.test` with what `server` says of it, over HTTP/1.1 and HTTP/2.
    pub fn nginx(world: &World, server: &str) -> Self {
        let path = |name: &str| world.path(name).display().to_string();
        let (pid, certificate, key, file) = (path("nginx.pid"), path("programs.pem"), path("programs.key"), path("nginx.conf"));
        let listen = "listen 203.0.113.14:443 ssl http2; listen [2001:db8:113::14]:443 ssl http2";
        let tls = format!("{listen}; ssl_certificate {certificate}; ssl_certificate_key {key}");
        let text = format!(
            "daemon off; user root; worker_processes 1; pid {pid}; error_log stderr notice; events {{}}
             http {{ access_log off; server {{ {tls}; server_name programs.acme.test; {server} }} }}"
        );
        fs::write(&file, text).unwrap();
        Self::start(world, &mut world.command(&["nginx", "-e", "stderr", "-c", &file]), "start worker process")
    }

    /// What it has said since it was asked last, up to a line that contains `last`, for which this waits.
    pub fn said_until(&self, last: &str) -> Vec<String> {
        let mut taken = Vec::new();
        while let Ok(line) = self.said.recv_timeout(PATIENCE) {
            let is_last = line.contains(last);
            taken.push(line);
            if is_last {
                return taken;
            }
        }
        panic!("{last:?} was not said: {taken:?}");
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
