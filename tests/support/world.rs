//! A host on the test internet with one user, who has logged in to two providers and runs clients with and without the command.

use super::internet::Internet;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use std::{
    cell::OnceCell,
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};
use tempfile::TempDir;

/// The user; no such account needs to exist, the world has its own /etc/passwd.
pub const USER: &str = "agent";
pub const UID: u32 = 4242;
pub const GID: u32 = 4243;
/// A second user of the same host.
pub const NEIGHBOUR: &str = "neighbour";
const NEIGHBOUR_ID: u32 = 4250;
/// What every client finds in the place of a key.
pub const PLACEHOLDER: &str = "authsome-proxy-managed";
pub const OPENAI_KEY: &str = "sk-0123456789abcdefghijKEY";
pub const ACME_KEY: &str = "acme-0123456789abcdefghijKEY";
/// Seconds after which a client counts as hung, unless AUTHSOME_TEST_PATIENCE says another number. Nothing waits for it to pass unless the test
/// fails.
const PATIENCE: &str = "60";

/// A provider on the reserved names, whose upstream certificates are bad on purpose for some.
const ACME: &str = r#"{"schema_version": 1, "name": "acme", "display_name": "Acme", "auth_type": "api_key", "flow": "api_key",
  "api_url": ["api.acme.test", "h1.acme.test", "programs.acme.test", "inner.acme.test", "expired.acme.test", "wronghost.acme.test", "unknown.acme.test"],
  "api_key": {"header_name": "X-Api-Key", "header_prefix": null, "env_var": "ACME_KEY"}, "export": {"ACME_KEY": "API_TOKEN"}}"#;

/// The programs that clients are made of, by the name they have in the user's home.
const CLIENTS: &[(&str, &str)] = &[
    ("with_urllib.py", include_str!("../data/clients/with_urllib.py")),
    ("with_requests.py", include_str!("../data/clients/with_requests.py")),
    ("with_httpx.py", include_str!("../data/clients/with_httpx.py")),
    ("fetch.mjs", include_str!("../data/clients/fetch.mjs")),
    ("Client.java", include_str!("../data/clients/Client.java")),
    ("with_aiohttp.py", include_str!("../data/clients/with_aiohttp.py")),
    ("https.mjs", include_str!("../data/clients/https.mjs")),
    ("information.mjs", include_str!("../data/clients/information.mjs")),
    ("client.rb", include_str!("../data/clients/client.rb")),
    ("curl.php", include_str!("../data/clients/curl.php")),
    ("stream.php", include_str!("../data/clients/stream.php")),
    ("lwp.pl", include_str!("../data/clients/lwp.pl")),
    ("client.go", include_str!("../data/clients/client.go")),
    ("static.c", include_str!("../data/clients/static.c")),
    ("ask_dns.py", include_str!("../data/clients/ask_dns.py")),
    ("broken.py", include_str!("../data/clients/broken.py")),
    ("many.py", include_str!("../data/clients/many.py")),
    ("grpc_calls.py", include_str!("../data/clients/grpc_calls.py")),
    ("grpc_calls.cjs", include_str!("../data/clients/grpc_calls.cjs")),
    ("ws_conformance.cjs", include_str!("../data/clients/ws_conformance.cjs")),
    ("ws_aiohttp.py", include_str!("../data/clients/ws_aiohttp.py")),
    ("ws_echo.py", include_str!("../data/clients/ws_echo.py")),
    ("probe.py", include_str!("../data/clients/probe.py")),
    ("hostile.py", include_str!("../data/clients/hostile.py")),
    ("load.py", include_str!("../data/clients/load.py")),
    ("odd.py", include_str!("../data/clients/odd.py")),
    ("shapes.py", include_str!("../data/clients/shapes.py")),
];

/// Who starts the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The user, without any privilege.
    Rootless,
    /// Root, as sudo does it for the user.
    Sudo,
}

pub struct World {
    pub internet: Internet,
    pub mode: Mode,
    dir: TempDir,
    logged_in: OnceCell<()>,
}

impl World {
    /// Moves the calling thread into namespaces of its own. They, and every mount made here, end with the thread.
    pub fn new(mode: Mode) -> Self {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC).expect("unshare mount and IPC namespaces");
        bind_flags("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        let dir = tempfile::tempdir().unwrap();
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).expect("mount a tmpfs");
        let world = Self { internet: Internet::new(), mode, dir, logged_in: OnceCell::new() };
        world.prepare_files();
        world
    }

    /// A path in the world's own directory, which everybody may read.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn home(&self) -> PathBuf {
        self.path(USER)
    }

    /// A POSIX message queue that everybody may use, `/NAME` to mq_open(3); its path in a mount of the queues.
    pub fn make_queue(&self, name: &str) -> PathBuf {
        let queues = self.path("queues");
        fs::create_dir(&queues).unwrap();
        mount(Some("mqueue"), &queues, Some("mqueue"), MsFlags::empty(), None::<&str>).expect("mount the message queues");
        let queue = queues.join(name);
        fs::File::create(&queue).unwrap().set_permissions(fs::Permissions::from_mode(0o666)).unwrap();
        queue
    }

    /// The client as the user, inside `authsome run --transparent`, in the user's home.
    pub fn inside(&self, client: &[&str]) -> Output {
        self.run(&[], client)
    }

    /// As [`Self::inside`], with more options of `run`.
    pub fn run(&self, options: &[&str], client: &[&str]) -> Output {
        finish(&mut self.authsome(options, client))
    }

    /// The same client as the same user without the command: the negative control.
    pub fn outside(&self, client: &[&str]) -> Output {
        let root = self.path("root.pem");
        let mut command = self.patiently();
        for name in [
            "SSL_CERT_FILE",
            "CURL_CA_BUNDLE",
            "REQUESTS_CA_BUNDLE",
            "NODE_EXTRA_CA_CERTS",
            "GIT_SSL_CAINFO",
            "CLIENT_ROOT",
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
            "PIP_CERT",
            "npm_config_cafile",
        ] {
            command.env(name, &root);
        }
        command.env("WGETRC", self.path("wgetrc")).envs([("OPENAI_API_KEY", PLACEHOLDER), ("ACME_KEY", PLACEHOLDER)]);
        finish(as_user(command.args(client)))
    }

    /// Where Node finds the packages of tests/data/npm.
    pub fn npm_modules(&self) -> String {
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-npm/node_modules");
        assert!(installed.exists(), "{} is missing: scripts/test makes it", installed.display());
        let modules = self.path("node_modules");
        if modules.exists() {
            return modules.display().to_string();
        }
        fs::create_dir(&modules).unwrap();
        bind(&installed, &modules);
        // The world's directory is deleted at the end, through every mount that lets it.
        bind_flags(modules.to_str().unwrap(), MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
        modules.display().to_string()
    }

    /// The client without the command and in either mode of it, each with the name of the way.
    pub fn every_way(&self, client: &[&str]) -> [(&'static str, Output); 3] {
        [
            ("outside", self.outside(client)),
            ("transparent", self.inside(client)),
            ("environment", finish(&mut self.by_environment(&[], client))),
        ]
    }

    /// `authsome run … -- client`, not yet started.
    pub fn by_environment(&self, options: &[&str], client: &[&str]) -> Command {
        self.start_as_mode(self.environment_run(options, client))
    }

    /// As [`Self::by_environment`] by plain root, who logs in here.
    pub fn by_environment_of_root(&self, options: &[&str], client: &[&str]) -> Command {
        let home = self.path("root");
        if !home.exists() {
            fs::create_dir(&home).unwrap();
            self.login_as(0, 0, &home, "openai", OPENAI_KEY);
        }
        let mut command = self.environment_run(options, client);
        // The account's own directory is this machine's.
        command.env("AUTHSOME_HOME", home.join(".authsome"));
        command
    }

    fn environment_run(&self, options: &[&str], client: &[&str]) -> Command {
        let mut command = self.patiently();
        command.arg(self.path("authsome")).args(["run", "--upstream-ca"]).arg(self.path("root.pem"));
        // Also the client's own: what is not opened is verified by it.
        command.env("SSL_CERT_FILE", self.path("root.pem")).env("CURL_CA_BUNDLE", self.path("root.pem"));
        command.args(options).arg("--").args(client);
        command
    }

    /// `authsome run --transparent … -- client`, not yet started.
    pub fn authsome(&self, options: &[&str], client: &[&str]) -> Command {
        let mut command = self.patiently();
        command.arg(self.path("authsome")).args(["run", "--transparent", "--upstream-ca"]).arg(self.path("root.pem"));
        command.args(options).arg("--").args(client);
        self.start_as_mode(command)
    }

    /// As [`Self::authsome`] for the second user, who logs in here; `None` is the first.
    pub fn authsome_for(&self, user: Option<&str>, options: &[&str], client: &[&str]) -> Command {
        let mut command = self.authsome(options, client);
        if let Some(name) = user {
            let home = self.path(name);
            if !home.exists() {
                fs::create_dir(&home).unwrap();
                chown(&home, Some(NEIGHBOUR_ID), Some(NEIGHBOUR_ID)).unwrap();
                let config = fs::read(self.home().join(".authsome/config.toml"));
                self.login_as(NEIGHBOUR_ID, NEIGHBOUR_ID, &home, "openai", OPENAI_KEY);
                config.into_iter().for_each(|config| fs::write(home.join(".authsome/config.toml"), config).unwrap());
            }
            let id = NEIGHBOUR_ID.to_string();
            command.env("HOME", &home).env("USER", name).current_dir(&home);
            match self.mode {
                Mode::Rootless => {
                    command.uid(NEIGHBOUR_ID).gid(NEIGHBOUR_ID);
                }
                Mode::Sudo => {
                    command.envs([("SUDO_UID", id.as_str()), ("SUDO_GID", &id), ("SUDO_USER", name)]);
                }
            }
        }
        command
    }

    /// The given command with the world's environment, started by root or by the user, who has logged in.
    pub fn start_as_mode(&self, mut command: Command) -> Command {
        self.log_in();
        match self.mode {
            Mode::Rootless => {
                as_user(&mut command);
            }
            Mode::Sudo => {
                command.envs([("SUDO_UID", UID.to_string()), ("SUDO_GID", GID.to_string()), ("SUDO_USER", USER.into())]);
            }
        }
        command
    }

    /// Both of the first user's connections are there from the first call on.
    pub fn log_in(&self) {
        self.logged_in
            .get_or_init(|| [("openai", OPENAI_KEY), ("acme", ACME_KEY)].iter().for_each(|(provider, key)| self.login(provider, key)));
    }

    /// A command that ends the one it starts when that hangs.
    fn patiently(&self) -> Command {
        let mut command = self.command(&["timeout", "--foreground", "-k", "5"]);
        command.arg(std::env::var_os("AUTHSOME_TEST_PATIENCE").unwrap_or(PATIENCE.into()));
        command
    }

    pub fn command(&self, program: &[&str]) -> Command {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).current_dir(self.home()).env_clear();
        command
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.home())
            .envs([("LANG", "C.UTF-8"), ("USER", USER)]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn login(&self, provider: &str, key: &str) {
        self.login_as(UID, GID, &self.home(), provider, key);
    }

    fn login_as(&self, uid: u32, gid: u32, home: &Path, provider: &str, key: &str) {
        let mut command = self.command(&[self.path("authsome").to_str().unwrap(), "login", provider, "--stdin"]);
        command.env("HOME", home).current_dir(home).uid(uid).gid(gid);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(key.as_bytes());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "login {provider}: {}", show(&output));
    }

    fn prepare_files(&self) {
        let own = |path: &Path| chown(path, Some(UID), Some(GID)).unwrap();
        for name in ["", "/.authsome", "/.authsome/providers"] {
            let path = self.path(&format!("{USER}{name}"));
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
            own(&path);
        }
        let write = |path: PathBuf, text: &str| {
            fs::write(&path, text).unwrap();
            path
        };
        own(&write(self.home().join(".authsome/providers/acme.json"), ACME));
        // The whole suite can be tried with another way out than the default one.
        if let Ok(egress) = std::env::var("AUTHSOME_TEST_EGRESS") {
            own(&write(self.home().join(".authsome/config.toml"), &format!("[run]\negress = \"{egress}\"\n")));
        }
        CLIENTS.iter().for_each(|(name, text)| own(&write(self.home().join(name), text)));
        let root = write(self.path("root.pem"), &self.internet.pki.root);
        let (certificate, key) = &self.internet.pki.programs;
        write(self.path("programs.pem"), certificate);
        own(&write(self.path("programs.key"), key));
        write(self.path("wgetrc"), &format!("ca_certificate={}\n", root.display()));
        let etc = |name: &str, text: &str| bind(&write(self.path(name), text), Path::new("/etc").join(name));
        etc("resolv.conf", "nameserver 203.0.113.53\nsearch corp.test\n");
        etc("hosts", "127.0.0.1 localhost\n::1 localhost\n");
        etc("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n");
        etc(
            "passwd",
            &format!(
                "root:x:0:0:root:/root:/bin/sh\n{USER}:x:{UID}:{GID}::{}:/bin/sh\n{NEIGHBOUR}:x:{NEIGHBOUR_ID}:{NEIGHBOUR_ID}::{}:/bin/sh\n",
                self.home().display(),
                self.path(NEIGHBOUR).display()
            ),
        );
        etc("group", &format!("root:x:0:\n{USER}:x:{GID}:\n{NEIGHBOUR}:x:{NEIGHBOUR_ID}:\n"));
        // The checkout may be where the user cannot look.
        bind(Path::new(env!("CARGO_BIN_EXE_authsome")), write(self.path("authsome"), ""));
    }
}

/// Waits for the end; both streams are captured.
pub fn finish(command: &mut Command) -> Output {
    let child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    child.wait_with_output().unwrap()
}

/// Gives `input` to a started child and waits for its end.
pub fn feed(mut child: Child, input: &[u8]) -> Output {
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// What a failed assertion shows.
pub fn show(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n--- stdout\n{}\n--- stderr\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

#[track_caller]
pub fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", show(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The user has no supplementary groups: without a call to `groups`, std empties them.
fn as_user(command: &mut Command) -> &mut Command {
    command.uid(UID).gid(GID)
}

fn bind(file: &Path, over: impl AsRef<OsStr>) {
    let over = Path::new(&over);
    mount(Some(file), over, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .unwrap_or_else(|errno| panic!("bind over {}: {errno}", over.display()));
}

fn bind_flags(path: &str, flags: MsFlags) {
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).unwrap_or_else(|errno| panic!("change the mount {path}: {errno}"));
}
