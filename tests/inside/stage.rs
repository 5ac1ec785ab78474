//! Entering a sandbox in steps, each a new execution of this program: `unshare` namespaces, then be their first process.

use std::{
    env, fs,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output},
};

use authsome::run::{
    harden::{self, Rule},
    mask::{self, Survey, User},
    trust::{Authority, Trust},
};
use caps::{CapSet, Capability};
use clap::ValueEnum;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid, getegid, geteuid, setgroups, setresgid, setresuid},
};
use serde::{Deserialize, Serialize};

/// Says which step this execution is; the scenario follows as JSON.
const STEP: &str = "--sandbox-step";

/// The user CMD runs as when the tests run as root: any that is not root.
const OTHER_USER: u32 = 1000;

/// One sandbox and the shell script that looks around in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scenario {
    pub script: String,
    /// With a user namespace, as an unprivileged user; otherwise as root that gives itself up.
    pub rootless: bool,
    /// Whether the kernel interface is locked down, and which rules are left out.
    pub lock_down: bool,
    pub allow: Vec<String>,
    /// Whether masks and trust are put in force.
    pub masks: bool,
    pub keep: Vec<PathBuf>,
    pub authority: Option<(String, String)>,
    pub variables: Vec<(String, String)>,
    /// The user's home directory; AUTHSOME_HOME is `.authsome` in it.
    pub home: PathBuf,
    pub key_file: Option<PathBuf>,
    /// Bind mounts (from, to) that are there before the survey.
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// Whether something else is mounted over AUTHSOME_HOME before the masks are complete.
    pub disturbed: bool,
}

impl Scenario {
    pub fn new(script: &str) -> Self {
        Self {
            script: script.to_owned(),
            rootless: true,
            lock_down: false,
            allow: Vec::new(),
            masks: false,
            keep: Vec::new(),
            authority: None,
            variables: Vec::new(),
            home: "/nonexistent".into(),
            key_file: None,
            binds: Vec::new(),
            disturbed: false,
        }
    }

    /// Runs the script in the sandbox and waits for its end.
    pub fn output(&self) -> Output {
        self.step("enter").output().expect("run this program again")
    }

    /// As [`output`](Self::output), as a child of a perl program.
    pub fn output_below(&self, perl: &str) -> Output {
        let step = self.step("enter");
        let mut command = Command::new("perl");
        command
            .args(["-e", &format!("{perl}; exec @ARGV")])
            .arg(step.get_program())
            .args(step.get_args())
            .current_dir("/")
            .env_remove("XDG_RUNTIME_DIR");
        if geteuid().is_root() {
            command.uid(OTHER_USER).gid(OTHER_USER);
        }
        command.output().expect("run perl")
    }

    /// What the script printed; panics with all it said if it failed.
    pub fn text(&self) -> String {
        let output = self.output();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?}\n{text}\n{errors}", output.status);
        text.trim_end().to_owned()
    }

    fn step(&self, name: &str) -> Command {
        let mut command = Command::new(env::current_exe().expect("own path"));
        command.args([STEP, name]).arg(serde_json::to_string(self).expect("a scenario is plain data"));
        command
            .current_dir("/")
            .env_clear()
            .envs(["PATH", "LLVM_PROFILE_FILE"].into_iter().filter_map(|name| Some((name, env::var_os(name)?))));
        command.envs(self.variables.iter().cloned()).env("HOME", &self.home);
        if name == "enter" && self.rootless && geteuid().is_root() {
            command.uid(OTHER_USER).gid(OTHER_USER);
        }
        command
    }
}

/// The ids of the user inside.
pub fn user() -> (u32, u32) {
    if geteuid().is_root() { (OTHER_USER, OTHER_USER) } else { (geteuid().as_raw(), getegid().as_raw()) }
}

pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Why no sandbox can be made here, if so.
pub fn closed_gate() -> Option<String> {
    let output = Scenario::new("true").output();
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = env::args().skip(1);
    (arguments.next().as_deref() == Some(STEP)).then_some(())?;
    let step = arguments.next()?;
    let scenario: Scenario = serde_json::from_str(&arguments.next()?).ok()?;
    let done = if step == "enter" { enter(&scenario) } else { inside(&scenario) };
    Some(done.unwrap_or_else(|error| {
        eprintln!("{step}: {error}");
        ExitCode::FAILURE
    }))
}

type Done = Result<ExitCode, Box<dyn std::error::Error>>;

fn enter(scenario: &Scenario) -> Done {
    let (uid, gid) = (geteuid(), getegid());
    let common = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
    if scenario.rootless {
        unshare(common | CloneFlags::CLONE_NEWUSER)?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
        // The sandbox's first process is not executed but cloned; here it must keep its capabilities over an execution.
        let held = caps::read(None, CapSet::Permitted)?;
        caps::set(None, CapSet::Inheritable, &held)?;
        caps::set(None, CapSet::Ambient, &held)?;
    } else {
        unshare(common)?;
    }
    finish(&mut scenario.step("inside"))
}

fn inside(scenario: &Scenario) -> Done {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    for (from, to) in &scenario.binds {
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    let mut command = Command::new("sh");
    command.args(["-c", &scenario.script]);
    if scenario.masks {
        for (name, value) in mask(scenario)? {
            command.env(name, value);
        }
    } else {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mask::mount_proc()?;
    }
    if !scenario.rootless {
        setgroups(&[])?;
        let (uid, gid) = (Uid::from_raw(OTHER_USER), Gid::from_raw(OTHER_USER));
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
    } else {
        // As an execution without ambient capabilities does; lock_down must not depend on it.
        assert!(caps::has_cap(None, CapSet::Ambient, Capability::CAP_SYS_ADMIN)?);
    }
    if scenario.lock_down {
        let allow = scenario.allow.iter().map(|name| Rule::from_str(name, false)).collect::<Result<_, _>>()?;
        let core = harden::lock_down(&harden::Options { allow })?;
        core.restore()?;
    }
    finish(&mut command)
}

fn mask(scenario: &Scenario) -> Result<Vec<(&'static str, std::ffi::OsString)>, Box<dyn std::error::Error>> {
    let (uid, gid) = if scenario.rootless { (geteuid().as_raw(), getegid().as_raw()) } else { (OTHER_USER, OTHER_USER) };
    let lookup = |name: &str| env::var_os(name);
    let user = User { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), home: scenario.home.clone() };
    let survey = Survey::take(&mask::Request {
        authsome_home: &scenario.home.join(".authsome"),
        key_file: scenario.key_file.as_deref(),
        user: user.clone(),
        run_id: "run-1",
        keep: &scenario.keep,
        env: &lookup,
    })?;
    // After the survey: the sockets of the machine are those of its network namespace.
    unshare(CloneFlags::CLONE_NEWNET)?;
    mask::mount_proc()?;
    let covered = survey.apply()?;
    let mut variables = Vec::new();
    if let Some((pem, common_name)) = &scenario.authority {
        let authority = Authority { pem, common_name };
        let mut trust = Trust::write(covered.home(), authority, &lookup)?;
        trust.mount()?;
        variables = trust.variables().to_vec();
    }
    if scenario.disturbed {
        mask::mount::private_tmpfs(covered.home(), user.uid, user.gid)?;
    }
    covered.finish()?;
    Ok(variables)
}

fn finish(command: &mut Command) -> Done {
    let status = command.status()?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(code as u8))
}

/// A home directory for the user inside, and around it a directory that goes away with this value.
pub struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        let fixture = Self { directory: tempfile::tempdir().expect("temporary directory") };
        allow_all(fixture.directory.path());
        fixture.make_directory("home");
        fixture.make_directory("home/.authsome");
        fixture.make_directory("home/.authsome/vault");
        fixture.write("home/.authsome/vault/secret", "do-not-find-me");
        fixture
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn home(&self) -> PathBuf {
        self.path("home")
    }

    pub fn make_directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("create directory");
        own(&path);
        path
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("write file");
        own(&path);
        path
    }

    /// A sandbox with masks around this home.
    pub fn masked(&self, script: &str) -> Scenario {
        Scenario { masks: true, home: self.home(), ..Scenario::new(script) }
    }
}

fn allow_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("set permissions");
}

pub fn own(path: &Path) {
    let (uid, gid) = user();
    std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("change owner");
}
