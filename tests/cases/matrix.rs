//! Every client of a wide choice trusts the authority with no option of its own, in both modes where it heeds proxy variables.
//! `scripts/trust-matrix` makes a table of the names: CLIENT.MODE.

use super::trust;
use crate::{
    Case,
    support::world::{GID, OPENAI_KEY, UID, USER, World, finish, show, succeeded},
};
use nix::mount::{MsFlags, mount};
use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

pub const CASES: &[Case] = &[
    ("curl.transparent", |world| transparent(world, CURL)),
    ("curl.environment", |world| environment(world, CURL)),
    ("wget.transparent", |world| transparent(world, WGET)),
    ("wget.environment after ca install", |world| installed(world, WGET)),
    ("git.transparent", |world| transparent(world, GIT)),
    ("git.environment", |world| environment(world, GIT)),
    ("Python urllib.transparent", |world| transparent(world, URLLIB)),
    ("Python urllib.environment", |world| environment(world, URLLIB)),
    ("Python requests.transparent", |world| transparent(world, REQUESTS)),
    ("Python requests.environment", |world| environment(world, REQUESTS)),
    ("Python httpx.transparent", |world| transparent(world, HTTPX)),
    ("Python httpx.environment", |world| environment(world, HTTPX)),
    ("Python aiohttp.transparent", |world| transparent(world, AIOHTTP)),
    ("Python aiohttp.environment", |world| environment(world, AIOHTTP)),
    ("pip.transparent", |world| transparent(world, PIP)),
    ("pip.environment", |world| environment(world, PIP)),
    ("Node fetch.transparent", |world| transparent(world, FETCH)),
    ("Node https.transparent", |world| transparent(world, HTTPS)),
    ("npm.transparent", |world| transparent(world, NPM)),
    ("npm.environment", |world| environment(world, NPM)),
    ("Java HttpClient.transparent", |world| transparent(world, JAVA)),
    ("Ruby net/http.transparent", |world| transparent(world, RUBY)),
    ("Ruby net/http.environment", |world| environment(world, RUBY)),
    ("PHP curl.transparent", |world| transparent(world, PHP_CURL)),
    ("PHP curl.environment after ca install", |world| installed(world, PHP_CURL)),
    ("PHP file_get_contents.transparent", |world| transparent(world, PHP_STREAM)),
    ("Perl LWP.transparent", |world| transparent(world, LWP)),
    ("Perl LWP.environment", |world| environment(world, LWP)),
    ("Go net/http.transparent", |world| go(world, transparent)),
    ("Go net/http.environment", |world| go(world, environment)),
    ("Chromium.transparent", |world| transparent(world, CHROMIUM)),
    ("Chromium without policies.transparent", chromium_without_policies),
    ("Chromium.environment after ca install", |world| installed(world, CHROMIUM)),
    ("Firefox.transparent", |world| firefox(world, |client| world.inside(client))),
    ("Firefox.environment after ca install", |world| {
        install(world);
        firefox(world, |client| finish(&mut world.by_environment(&[], client)));
    }),
];

const HOST: &str = "https://api.openai.com";
const CURL: &str = "curl -fsS HOST/v1/models";
const WGET: &str = "wget -qO- HOST/v1/models";
// Only the first request matters to these: what answers is no repository, no index and no registry.
const GIT: &str = "git ls-remote HOST/v1/models.git";
const PIP: &str = "/usr/bin/python3 -m pip download --no-cache-dir --retries 0 --index-url HOST/v1/simple models";
const NPM: &str = "npm view --registry HOST/v1/ --fetch-retries 0 models";
const URLLIB: &str = "/usr/bin/python3 with_urllib.py HOST/v1/models";
const REQUESTS: &str = "/usr/bin/python3 with_requests.py HOST/v1/models";
const HTTPX: &str = "/usr/bin/python3 with_httpx.py HOST/v1/models";
const AIOHTTP: &str = "/usr/bin/python3 with_aiohttp.py HOST/v1/models";
const FETCH: &str = "node fetch.mjs HOST/v1/models";
const HTTPS: &str = "node https.mjs HOST/v1/models";
const JAVA: &str = "java -XX:TieredStopAtLevel=1 Client.java HOST/v1/models";
const RUBY: &str = "ruby client.rb HOST/v1/models";
const PHP_CURL: &str = "php curl.php HOST/v1/models";
const PHP_STREAM: &str = "php stream.php HOST/v1/models";
const LWP: &str = "perl lwp.pl HOST/v1/models";
const GO: &str = "./go-client HOST/v1/models";
// Root's Chromium has no sandbox of its own; the user's keeps it.
const CHROMIUM: &str = "chromium --headless --disable-gpu --disable-quic --no-first-run --disable-background-networking \
    --disable-component-update --user-data-dir=chromium-profile --dump-dom HOST/v1/models";
const CHROMIUM_FILE: &str = "/usr/lib/chromium/chromium";
const FIREFOX: &str = "firefox-esr --headless --no-remote --profile \"$(mktemp -d)\" --screenshot \"$PWD/page.png\" HOST/v1/models";

fn transparent(world: &World, client: &str) {
    injects(world, &shell(client), |client| world.inside(client));
}

fn environment(world: &World, client: &str) {
    injects(world, &shell(client), |client| finish(&mut world.by_environment(&[], client)));
}

/// What no variable can tell of an authority finds it in the stores of this machine and the user.
fn installed(world: &World, client: &str) {
    let inside = |client: &[&str]| finish(&mut world.by_environment(&[], client));
    let before = inside(&["sh", "-c", &shell(client)]);
    assert!(!saw_the_key(world), "the control needed no installed authority: {}", show(&before));
    install(world);
    injects(world, &shell(client), inside);
}

fn install(world: &World) {
    trust::copy_system_stores(world);
    let mut install = world.command(&[world.path("authsome").to_str().unwrap(), "ca", "install"]);
    install.envs([("SUDO_UID", UID.to_string()), ("SUDO_GID", GID.to_string()), ("SUDO_USER", USER.into())]);
    let install = finish(&mut install);
    assert!(install.status.success(), "{}", show(&install));
}

/// As the browsers that npm packages bring along: what the user's NSS database says is all it goes by. The database itself stays as it is.
fn chromium_without_policies(world: &World) {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = directory.join("chromium");
    let lock = File::create(directory.join("chromium.lock")).unwrap();
    lock.lock().unwrap();
    if !program.exists() {
        let new = directory.join("chromium.new");
        let mut sed = Command::new("sed");
        sed.args(["s#/etc/chromium/policies#/etc/nochrome/policies#g", CHROMIUM_FILE]).env("LC_ALL", "C");
        assert!(sed.stdout(File::create(&new).unwrap()).status().unwrap().success());
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&new, &program).unwrap();
    }
    drop(lock);
    mount(Some(&program), CHROMIUM_FILE, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let before = world.inside(&["sh", "-c", &shell(CHROMIUM)]);
    assert!(!saw_the_key(world), "the control needed no database: {}", show(&before));
    let outside = |script: &str| succeeded(&world.outside(&["sh", "-c", script]));
    // Brought along, and not yet started.
    outside("rm -rf .pki; mkdir -p .cache/ms-playwright");
    injects(world, &shell(CHROMIUM), |client| world.inside(client));
    outside("rm -rf .pki .cache; mkdir -p .pki/nssdb; certutil -N --empty-password -d sql:.pki/nssdb");
    let listed = "certutil -L -d sql:.pki/nssdb; sha256sum .pki/nssdb/*";
    let own = outside(listed);
    injects(world, &shell(CHROMIUM), |client| world.inside(client));
    assert_eq!(outside(listed), own);
}

/// It waits for ever at a page with a bad certificate, which is what the control is: it gets less time.
fn firefox(world: &World, inside: impl Fn(&[&str]) -> Output) {
    let client = shell(FIREFOX);
    let output = inside(&["sh", "-c", &client]);
    assert!(saw_the_key(world), "{}", show(&output));
    world.outside(&["timeout", "10", "sh", "-c", &client]);
    assert!(!saw_the_key(world), "the control sends the key");
}

fn shell(client: &str) -> String {
    format!("exec {}", client.replace("HOST", HOST))
}

/// What is asked for in the end is the origin's to say: it has received the key.
fn injects(world: &World, client: &str, inside: impl Fn(&[&str]) -> Output) {
    let client = ["sh", "-c", client];
    let output = inside(&client);
    assert!(saw_the_key(world), "{}", show(&output));
    world.outside(&client);
    assert!(!saw_the_key(world), "the control sends the key");
}

fn saw_the_key(world: &World) -> bool {
    let key = format!("Bearer {OPENAI_KEY}");
    let requests = world.internet.take_requests();
    requests.iter().any(|request| request.path.starts_with("/v1/") && request.header("authorization") == Some(&key))
}

/// Built by one case at a time; the compiler's cache makes it quick for the others.
fn go(world: &World, case: fn(&World, &str)) {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (program, source) = (directory.join("go-client"), world.home().join("client.go"));
    let lock = File::create(directory.join("go-client.lock")).unwrap();
    lock.lock().unwrap();
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).arg(&source).env("GOCACHE", directory.join("go-cache")).env("GO111MODULE", "off");
    let built = build.output().unwrap();
    assert!(built.status.success(), "{}", show(&built));
    fs::copy(&program, world.home().join("go-client")).unwrap();
    drop(lock);
    case(world, GO);
}
