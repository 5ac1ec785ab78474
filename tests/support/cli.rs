//! Runs the real command in a home of its own, with nothing of the developer's environment.
use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};
use tempfile::TempDir;

/// A provider with one key, whose form is checked.
const ACME: &str = r#"{
  "schema_version": 1, "name": "acme", "display_name": "Acme", "auth_type": "api_key", "flow": "api_key",
  "api_url": "https://api.acme.test",
  "api_key": {"header_name": "Authorization", "header_prefix": "Bearer", "env_var": "ACME_KEY", "key_pattern": "^ak-[a-z0-9']+$"},
  "export": {"ACME_API_KEY": "API_TOKEN"}
}"#;

/// One with two values, of which one is no secret.
const DUO: &str = r#"{
  "schema_version": 1, "name": "duo", "display_name": "Duo", "auth_type": "api_key", "flow": "api_key",
  "api_url": "https://api.duo.test",
  "fields": {"api_key": {"label": "Auth token"}, "sid": {"label": "Account SID", "secret": false}},
  "inject": [{"basic": {"username": "{sid}", "password": "{api_key}"}}],
  "export": {"env": {"api_key": "DUO_TOKEN", "sid": "DUO_SID"}}
}"#;

/// One that needs a flow of OAuth.
const WIDE: &str = r#"{
  "schema_version": 1, "name": "wide", "display_name": "Wide", "auth_type": "oauth2", "flow": "pkce",
  "api_url": "https://api.wide.test",
  "oauth": {"authorization_url": "https://auth.wide.test/authorize", "token_url": "https://auth.wide.test/token", "scopes": ["read"], "pkce": true},
  "export": {"WIDE_TOKEN": "ACCESS_TOKEN"}
}"#;

pub struct Home {
    root: TempDir,
    variables: Vec<(String, String)>,
}

impl Home {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let home = Self { root, variables: Vec::new() };
        fs::create_dir_all(home.path("providers")).unwrap();
        fs::set_permissions(home.path(""), fs::Permissions::from_mode(0o700)).unwrap();
        for (name, text) in [("acme", ACME), ("duo", DUO), ("wide", WIDE)] {
            fs::write(home.path(&format!("providers/{name}.json")), text).unwrap();
        }
        home
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A path below AUTHSOME_HOME.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("home").join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        self.clean(Command::new(env!("CARGO_BIN_EXE_authsome")), arguments)
    }

    /// Any program, in the same environment.
    pub fn clean(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").env("AUTHSOME_HOME", self.path(""));
        command.envs(self.variables.iter().cloned()).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Told {
        self.told(self.command(arguments).output().unwrap())
    }

    pub fn feed(&self, input: &str, arguments: &[&str]) -> Told {
        let child = self.spawn(input, arguments);
        self.told(child.wait_with_output().unwrap())
    }

    /// Started, and given all of its input.
    pub fn spawn(&self, input: &str, arguments: &[&str]) -> Child {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        // A command that fails before it reads closes the pipe.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child
    }

    pub fn told(&self, output: Output) -> Told {
        let home = self.path("").display().to_string();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(home.trim_end_matches('/'), "HOME");
        Told { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Everything a command told; `HOME` stands for its home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// `None`: ended by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Told {
    #[track_caller]
    pub fn is(&self, code: i32, stdout: &str, stderr: &str) {
        assert_eq!((self.code, self.stdout.as_str(), self.stderr.as_str()), (Some(code), stdout, stderr));
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
