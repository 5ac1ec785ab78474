//! The negative control of each defence: a probe that is stopped, and that gets through when the one defence is taken out (src/defence.rs).

use crate::{
    Case,
    support::world::{GID, Mode, OPENAI_KEY, PLACEHOLDER, UID, World, finish, show},
};
use nix::mount::{MsFlags, mount};
use std::{
    fs,
    io::Write,
    os::unix::{fs::PermissionsExt, fs::chown, net::UnixListener},
    path::{Path, PathBuf},
    process::Output,
};

pub const CASES: &[Case] = &[
    ("masks", masks),
    ("what_a_process_inherits", what_a_process_inherits),
    ("privileges", privileges),
    ("ways_out", ways_out),
    ("host_side_rules", host_side_rules),
];

/// The variable that names what is left out.
const WITHOUT: &str = "AUTHSOME_TEST_WITHOUT";
/// What a probe prints that got through.
const ESCAPED: &str = "escaped";

/// The shell script in a run, where `without` is taken out; whether it got through.
fn escapes(world: &World, without: &str, options: &[&str], script: &str) -> (bool, Output) {
    let mut command = world.authsome(options, &["sh", "-c", script]);
    command.env(WITHOUT, without).env("SSH_AUTH_SOCK", world.path("agent.sock")).env("XDG_RUNTIME_DIR", world.path("runtime"));
    let output = finish(&mut command);
    (String::from_utf8_lossy(&output.stdout).lines().any(|line| line == ESCAPED), output)
}

#[track_caller]
fn only_without(world: &World, defence: &str, options: &[&str], script: &str) {
    let (with, output) = escapes(world, "", options, script);
    assert!(!with, "{defence} does not stop it: {}", show(&output));
    let (without, output) = escapes(world, defence, options, script);
    assert!(without, "without {defence} it is stopped, too: {}", show(&output));
}

fn of_user(path: &Path, mode: u32) {
    chown(path, Some(UID), Some(GID)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn masks(world: &World) {
    let (elsewhere, runtime) = (world.path("elsewhere"), world.path("runtime"));
    for directory in [&elsewhere, &runtime] {
        fs::create_dir(directory).unwrap();
    }
    mount(Some(&world.home()), &elsewhere, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    fs::write(runtime.join("session"), "").unwrap();
    of_user(&runtime, 0o700);
    let socket = world.home().join("outside.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    of_user(&socket, 0o600);
    let startup = world.home().join(".bashrc");
    fs::write(&startup, "").unwrap();
    of_user(&startup, 0o600);

    let vault = |home: &Path| format!("[ -n \"$(ls -A {}/.authsome/vault 2>/dev/null)\" ] && echo {ESCAPED}", home.display());
    only_without(world, "HomeMask", &[], &vault(&world.home()));
    only_without(world, "SecretMasks", &[], &vault(&elsewhere));
    let connect = format!("python3 -c \"import socket; socket.socket(socket.AF_UNIX).connect('{}')\" && echo {ESCAPED}", socket.display());
    only_without(world, "SocketMasks", &[], &connect);
    only_without(world, "PrivateDirectories", &[], &format!("[ -e {}/session ] && echo {ESCAPED}", runtime.display()));
    only_without(world, "ReadOnly", &[], &format!("echo later >>$HOME/.bashrc && echo {ESCAPED}"));
    if world.mode == Mode::Sudo {
        let of_root = format!("[ $(stat -c %u $HOME/.authsome/.authsome-run) = 0 ] && echo {ESCAPED}");
        only_without(world, "FilesAsUser", &[], &of_root);
    }
    let queue = world.make_queue("outside");
    only_without(world, "OwnQueues", &[], &format!("cat {} && echo {ESCAPED}", queue.display()));
    only_without(world, "OwnProc", &[], &format!("[ -e /proc/{} ] && echo {ESCAPED}", std::process::id()));
}

fn what_a_process_inherits(world: &World) {
    only_without(world, "CleanEnvironment", &[], &format!("[ -n \"$SSH_AUTH_SOCK\" ] && echo {ESCAPED}"));
    only_without(world, "NonDumpable", &[], &format!("head -c 1 /proc/1/environ >/dev/null && echo {ESCAPED}"));
    let secret = world.home().join(".authsome/providers/acme.json");
    let script = format!(
        "exec 9<{}; exec {} run --transparent -- sh -c 'cat <&9 >/dev/null && echo {ESCAPED}'",
        secret.display(),
        world.path("authsome").display()
    );
    for (without, expected) in [("", false), ("CloseDescriptors", true)] {
        let mut command = world.start_as_mode(world.command(&["timeout", "--foreground", "60", "sh", "-c", &script]));
        let output = finish(command.env(WITHOUT, without));
        assert_eq!(String::from_utf8_lossy(&output.stdout).contains(ESCAPED), expected, "{without}: {}", show(&output));
    }
}

/// A set-user-ID program of root's is inert, and were it not, it could do nothing to the namespace. In a user namespace the kernel sees to both:
/// root has no id there (user_namespaces(7)).
fn privileges(world: &World) {
    let copy = |name: &str, from: &str| -> PathBuf {
        let path = world.path(name);
        fs::copy(from, &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
        path
    };
    let becomes_root = format!("[ \"$({} -u)\" = 0 ] && echo {ESCAPED}", copy("suid-id", "/usr/bin/id").display());
    let unplugs = format!("{} link set lo down && echo {ESCAPED}", copy("suid-ip", "/usr/sbin/ip").display());
    let root_has_an_id = world.mode == Mode::Sudo;
    for (without, script, expected) in [
        ("", &becomes_root, false),
        ("NoNewPrivileges", &becomes_root, false),
        ("NoNewPrivileges,SystemCalls", &becomes_root, root_has_an_id),
        ("NoNewPrivileges,SystemCalls", &unplugs, false),
        ("NoNewPrivileges,SystemCalls,NoCapabilities", &unplugs, root_has_an_id),
    ] {
        let (got_through, output) = escapes(world, without, &[], script);
        assert_eq!(got_through, expected, "{without}: {}", show(&output));
    }
    only_without(world, "SystemCalls", &[], &format!("[ $(python3 probe.py vsock) = done ] && echo {ESCAPED}"));
}

fn ways_out(world: &World) {
    let port = greet();
    let own = format!("[ $(python3 probe.py tcp 198.51.100.2 {port}) = done ] && echo {ESCAPED}");
    only_without(world, "DialRule", &["--intercept-port", &port], &own);

    let look_up = format!("python3 ask_dns.py 203.0.113.53 udp other.test 1 | grep -q answers=1 && echo {ESCAPED}");
    only_without(world, "LookupRule", &["--allow", "api.acme.test"], &look_up);
    let fetch = format!("curl -fsS --max-time 20 -o /dev/null http://203.0.113.11/ && echo {ESCAPED}");
    only_without(world, "Policy", &["--allow", "api.acme.test"], &fetch);

    // Without the redirect the uplink carries the request as it is; a relay's namespace has no other way out.
    let call = "curl -k -sS --max-time 10 -o /dev/null https://api.openai.com/; true";
    for (without, arrives) in [("", Some(OPENAI_KEY)), ("Redirect", (world.mode == Mode::Sudo).then_some(PLACEHOLDER))] {
        world.internet.take_requests();
        let client = "-H \"Authorization: Bearer $OPENAI_API_KEY\"";
        let (_, output) = escapes(world, without, &[], &call.replace("-k", &format!("-k {client}")));
        let seen = world.internet.take_requests();
        let value = seen.first().and_then(|request| request.header("authorization")).and_then(|value| value.strip_prefix("Bearer "));
        assert_eq!(value, arrives, "{without}: {}", show(&output));
    }
}

/// Greets every client on every address of the host.
fn greet() -> String {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(b"hello"));
        }
    });
    port
}

/// What the uplink routes past the proxy meets the host's own rules; here the test takes them out.
fn host_side_rules(world: &World) {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };
    if world.mode == Mode::Rootless {
        return;
    }
    let port = greet();
    for opened in [false, true] {
        // By its address on the network, and by that on the link.
        let gateway = "$(ip -4 route show default | cut -d' ' -f3)";
        let script = format!(
            "echo ready; read go; python3 probe.py tcp {gateway} {port} >gateway & python3 probe.py tcp 198.51.100.2 {port}; wait; cat gateway"
        );
        let mut child = world.authsome(&[], &["sh", "-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        if opened {
            let tables = Command::new("nft").args(["list", "tables"]).output().unwrap();
            let tables = String::from_utf8(tables.stdout).unwrap();
            let name = tables.lines().find_map(|line| line.strip_prefix("table inet ").filter(|name| name.starts_with("ns-"))).unwrap();
            assert!(Command::new("nft").args(["flush", "table", "inet", name]).status().unwrap().success());
        }
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        for by in ["the host's address", "the gateway's"] {
            line.clear();
            said.read_line(&mut line).unwrap();
            assert_eq!(line == "done\n", opened, "{by}: {line}");
        }
        child.wait().unwrap();
    }
}
