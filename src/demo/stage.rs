//! The stage: namespaces that play the machine and the internet.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    os::{
        fd::AsFd,
        unix::{fs::chown, process::CommandExt},
    },
    path::Path,
    process::{Command, Output, Stdio},
    sync::PoisonError,
};

use netns::{
    NetNs,
    link::{self, IpNet},
    ruleset::Ruleset,
    spawn::{self, Ids, Namespaces},
    userns,
};
use nix::{
    mount::{MsFlags, mount},
    unistd::{User, getegid, geteuid},
};
use serde::Deserialize;

use super::{DemoError, Evidence, HOST, KEY_PREFIX, client::Account, origin};
use crate::run::mask;

/// TEST-NET-3 (RFC 5737): never an address of the real internet.
const MACHINE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

const PROVIDER: &str = r#"{
  "schema_version": 1, "name": "demo", "display_name": "Demo", "auth_type": "api_key", "flow": "api_key",
  "api_url": "https://api.demo.test",
  "api_key": {"header_name": "Authorization", "header_prefix": "Bearer"},
  "export": {"DEMO_API_KEY": "API_TOKEN"}
}"#;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub fn run() -> Result<Evidence, DemoError> {
    let user = performer()?;
    let directory = tempfile::Builder::new().prefix("authsome-demo-").tempdir().map_err(io("make a temporary directory"))?;
    let owner = user.as_ref().map(|user| (user.uid.as_raw(), user.gid.as_raw()));
    if let Some((uid, gid)) = owner {
        chown(directory.path(), Some(uid), Some(gid)).map_err(io("give the temporary directory away"))?;
    }
    let ids = Ids { uid: geteuid().as_raw(), gid: getegid().as_raw() };
    let namespaces = Namespaces { user: user.is_none().then_some(ids) };
    let child = match spawn::spawn(namespaces, |channel| {
        let message = play(directory.path(), user.as_ref()).map_err(|error| error.to_string());
        serde_json::to_vec(&message).is_ok_and(|bytes| channel.send(&bytes, &[]).is_ok()).into()
    }) {
        Ok(child) => child,
        Err(error) => return Err(userns::probe(namespaces, &Ruleset::default()).map_or_else(DemoError::Gate, |()| error.into())),
    };
    let (bytes, _) =
        child.channel.recv().map_err(io("hear from the stage"))?.ok_or_else(|| DemoError::Failed("the stage went silent".into()))?;
    child.wait()?;
    serde_json::from_slice::<Result<Evidence, String>>(&bytes)
        .map_err(|error| DemoError::Failed(error.to_string()))?
        .map_err(DemoError::Failed)
}

fn io(what: &str) -> impl FnOnce(std::io::Error) -> DemoError {
    move |error| DemoError::Io(what.to_owned(), error)
}

/// As root the demonstration runs as somebody without rights; everyone else performs themselves.
fn performer() -> Result<Option<User>, DemoError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let name = std::env::var("SUDO_USER").unwrap_or_else(|_| "nobody".into());
    let user = User::from_name(&name).map_err(|errno| io("look up the user")(errno.into()))?;
    user.map(Some).ok_or_else(|| DemoError::Failed(format!("there is no user `{name}`")))
}

/// Runs as the first process of the machine's namespaces.
fn play(directory: &Path, user: Option<&User>) -> Result<Evidence, BoxError> {
    mask::mount_proc()?;
    let internet = build()?;
    let resolv = directory.join("resolv.conf");
    fs::write(&resolv, format!("nameserver {INTERNET}\n"))?;
    let system = fs::canonicalize("/etc/resolv.conf")?;
    mount(Some(&resolv), &system, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    let identity = origin::identity()?;
    let root = directory.join("root.pem");
    fs::write(&root, &identity.root_pem)?;
    let (https, dns) =
        internet.run(|| Ok::<_, std::io::Error>((TcpListener::bind((INTERNET, 443))?, UdpSocket::bind((INTERNET, 53))?)))??;
    let received = origin::serve(identity, https, dns, IpAddr::V4(INTERNET))?;

    let home = directory.join("home");
    let definition = directory.join("demo.json");
    fs::write(&definition, PROVIDER)?;
    let key = key()?;
    let authsome = |arguments: &[&str]| authsome(&home, user, arguments);
    let path = |path: &Path| path.display().to_string();
    finish(authsome(&["provider", "register", "--yes", &path(&definition)]), "")?;
    finish(authsome(&["login", "demo", "--stdin"]), &key)?;
    let own = std::env::current_exe()?;
    let mut run = vec!["run".to_owned(), "--transparent".into(), "--upstream-ca".into(), path(&root)];
    run.extend(user.into_iter().flat_map(|user| ["--user".to_owned(), user.name.clone()]));
    run.extend(["--".into(), path(&own), "demo".into(), "--client".into()]);
    let arguments: Vec<&str> = run.iter().map(String::as_str).collect();
    let output = finish(authsome(&arguments), "")?;
    let account: Account = serde_json::from_slice(&output.stdout)?;
    let received = received.lock().unwrap_or_else(PoisonError::into_inner).join(", ");
    Ok(Evidence { sent: account.sent, received, key, searched: account.searched, found: account.found, status: account.status })
}

/// Two machines on one wire; gives back the one that is the internet.
fn build() -> Result<NetNs, BoxError> {
    link::up("lo")?;
    let internet = NetNs::new()?;
    link::add_veth("machine", "internet", internet.as_fd())?;
    link::add_address("machine", IpNet { addr: MACHINE.into(), prefix: 24 })?;
    link::up("machine")?;
    link::add_default_route("machine", Some(INTERNET.into()))?;
    internet.run(|| {
        link::add_address("internet", IpNet { addr: INTERNET.into(), prefix: 24 })?;
        link::up("internet")
    })??;
    Ok(internet)
}

/// `demo-key-` and 128 random bits.
fn key() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold(KEY_PREFIX.to_owned(), |key, byte| format!("{key}{byte:02x}")))
}

fn authsome(home: &Path, user: Option<&User>, arguments: &[&str]) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).env("AUTHSOME_HOME", home).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("AUTHSOME_RUN_ID").env_remove("SUDO_UID").env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    // The run itself needs root for its uplink; everything that stores something is done as the performer.
    if let (Some(user), Some(&verb)) = (user, arguments.first())
        && verb != "run"
    {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    Ok(command)
}

fn finish(command: std::io::Result<Command>, input: &str) -> Result<Output, BoxError> {
    let mut child = command?.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(output);
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into())
}
