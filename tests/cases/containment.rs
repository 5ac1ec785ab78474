//! What the child can find of the key, and by which ways it can leave: none.

use crate::{
    Case,
    support::world::{OPENAI_KEY, World, show, succeeded},
};
use nix::mount::{MsFlags, mount};
use std::{
    fs,
    os::unix::{
        fs::{chown, symlink},
        net::UnixListener,
    },
    process::Output,
};

pub const CASES: &[Case] = &[
    ("key_is_in_no_environment_memory_or_file", key_is_in_no_environment_memory_or_file),
    ("home_is_masked_through_every_mount", home_is_masked_through_every_mount),
    ("unix_sockets_outside_are_masked", unix_sockets_outside_are_masked),
    ("no_raw_or_packet_socket", no_raw_or_packet_socket),
    ("no_capability_and_no_new_privileges", no_capability_and_no_new_privileges),
    ("rules_cannot_be_changed", rules_cannot_be_changed),
    ("nested_namespace_has_no_way_out", nested_namespace_has_no_way_out),
    ("host_addresses_are_refused", host_addresses_are_refused),
    ("denied_host_is_refused_and_unresolved", denied_host_is_refused_and_unresolved),
    ("descriptors_are_not_inherited", descriptors_are_not_inherited),
    ("startup_files_are_read_only", startup_files_are_read_only),
    ("startup_files_that_are_made_are_told", startup_files_that_are_made_are_told),
];

/// Looks everywhere a user's process can look; the key is given in two halves so that the search does not find itself.
fn search() -> String {
    let (first, second) = OPENAI_KEY.split_at(8);
    format!(
        r#"key={first}; key=${{key}}{second}
for file in /proc/[0-9]*/environ /proc/[0-9]*/cmdline; do tr '\0' '\n' 2>/dev/null <$file | grep -qF "$key" 2>/dev/null && case $file in /proc/$$/*|/proc/self/*) ;; *) echo "found in $file" ;; esac; done
head -c 1 /proc/1/mem 2>/dev/null; cat /proc/1/environ 2>/dev/null >/dev/null && echo "read the environment of 1"
ls /proc/1/fd 2>/dev/null | grep . && echo "listed the descriptors of 1"
grep -rlF "$key" $HOME/.. /dev/shm /run 2>/dev/null
ls -A $HOME/.authsome/vault $HOME/.authsome/ca 2>/dev/null
true"#
    )
}

fn key_is_in_no_environment_memory_or_file(world: &World) {
    let output = world.inside(&["sh", "-c", &search()]);
    assert_eq!(succeeded(&output), "", "{}", show(&output));
    // The controls: what the run masks is there for the same user outside, and the search finds a key where there is one.
    assert_ne!(succeeded(&world.outside(&["sh", "-c", "ls -A $HOME/.authsome/vault"])), "");
    fs::write(world.path("planted"), OPENAI_KEY).unwrap();
    let found = succeeded(&world.inside(&["sh", "-c", &search()]));
    assert!(found.contains("planted"), "the search is blind: {found}");
}

fn home_is_masked_through_every_mount(world: &World) {
    let elsewhere = world.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    mount(Some(&world.home()), &elsewhere, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let client = ["sh", "-c", &format!("ls -A {0}/.authsome/vault {0}/.authsome/providers 2>/dev/null | wc -l", elsewhere.display())];
    assert_eq!(succeeded(&world.inside(&client)).trim(), "0");
    assert_ne!(succeeded(&world.outside(&client)).trim(), "0");
}

fn unix_sockets_outside_are_masked(world: &World) {
    let path = world.home().join("docker.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    chown(&path, Some(4242), Some(4243)).unwrap();
    let script = format!("import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('{}')", path.display());
    assert!(!world.inside(&["python3", "-c", &script]).status.success(), "the socket of a process outside was reached");
    succeeded(&world.outside(&["python3", "-c", &script]));
    succeeded(&world.run(&["--keep-path", path.to_str().unwrap()], &["python3", "-c", &script]));
}

fn no_raw_or_packet_socket(world: &World) {
    for kind in ["raw", "packet"] {
        let output = world.inside(&["python3", "odd.py", kind]);
        assert_ne!(succeeded(&output), "open\n", "{kind}");
    }
}

fn no_capability_and_no_new_privileges(world: &World) {
    let status = succeeded(&world.inside(&["grep", "-E", "^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):", "/proc/self/status"]));
    for line in status.lines().filter(|line| line.starts_with("Cap")) {
        assert!(line.ends_with("0000000000000000"), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
}

fn rules_cannot_be_changed(world: &World) {
    for client in [
        &["nft", "flush", "ruleset"][..],
        &["nft", "list", "ruleset"],
        &["ip", "link", "set", "lo", "down"],
        &["ip", "route", "flush", "table", "main"],
    ] {
        let output = world.inside(client);
        assert!(!output.status.success() || output.stdout.is_empty(), "{client:?}: {}", show(&output));
    }
    let script = "nft flush ruleset; ip link set lo down; exec curl -fsS https://api.openai.com/";
    succeeded(&world.inside(&["sh", "-c", script]));
    let requests = world.internet.take_requests();
    assert!(requests[0].header("authorization").is_some_and(|value| value.ends_with(OPENAI_KEY)), "{requests:?}");
}

fn nested_namespace_has_no_way_out(world: &World) {
    let output = world.inside(&["unshare", "--user", "--map-root-user", "--net", "curl", "-sS", "--max-time", "5", "http://203.0.113.11/"]);
    assert!(!output.status.success(), "{}", show(&output));
    let output = world.inside(&["nsenter", "--net=/proc/1/ns/net", "true"]);
    assert!(!output.status.success(), "{}", show(&output));
    assert!(world.internet.take_requests().is_empty());
}

/// The host's own services, on its loopback and on its other addresses, are not the child's.
fn host_addresses_are_refused(world: &World) {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = |address| {
        let script = format!(
            "import socket\ns = socket.create_connection(('{address}', {port}), 10)\ns.settimeout(10)\ns.sendall(b'x')\nprint(s.recv(1))"
        );
        ["python3".to_owned(), "-c".into(), script]
    };
    for address in ["198.51.100.2", "169.254.169.254"] {
        let client = connect(address);
        let output = world.inside(&client.each_ref().map(String::as_str));
        // A relayed connection may be accepted by the sandbox and reset, so the sign is that nothing reached the listener.
        assert_ne!(String::from_utf8_lossy(&output.stdout), "b'x'\n", "{address}");
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "the host's listener was reached");
    world.outside(&["python3", "-c", &format!("import socket\nsocket.create_connection(('198.51.100.2', {port}), 10)")]);
    assert!(listener.accept().is_ok(), "the control did not reach the listener");
}

fn denied_host_is_refused_and_unresolved(world: &World) {
    let root = world.path("root.pem");
    let client = ["curl", "-fsS", "--max-time", "20", "--cacert", root.to_str().unwrap(), "https://other.test/"];
    succeeded(&world.inside(&client));
    world.internet.take_requests();
    world.internet.take_questions();
    assert!(!world.run(&["--allow", "api.openai.com"], &client).status.success());
    assert!(world.internet.take_requests().is_empty());
    let asked = world.internet.take_questions();
    assert!(!asked.iter().any(|name| name.starts_with("other.test")), "the question left: {asked:?}");
    succeeded(&world.run(&["--allow", "api.openai.com"], &["curl", "-fsS", "https://api.openai.com/"]));
}

fn descriptors_are_not_inherited(world: &World) {
    let secret = world.home().join(".authsome/providers/acme.json");
    let script = format!("exec 9<{}; exec {} run --transparent -- sh -c 'cat <&9'", secret.display(), world.path("authsome").display());
    let command = world.command(&["timeout", "--foreground", "60", "sh", "-c", &script]);
    let output = crate::support::world::finish(&mut world.start_as_mode(command));
    assert!(!output.status.success() && output.stdout.is_empty(), "{}", show(&output));
}

fn startup_files_are_read_only(world: &World) {
    fs::create_dir(world.home().join(".ssh")).unwrap();
    for name in [".bashrc", ".profile", ".ssh/authorized_keys"] {
        fs::write(world.home().join(name), "").unwrap();
        chown(world.home().join(name), Some(4242), Some(4243)).unwrap();
    }
    chown(world.home().join(".ssh"), Some(4242), Some(4243)).unwrap();
    for name in [".bashrc", ".profile", ".ssh/authorized_keys"] {
        let client = ["sh", "-c", &format!("echo later >> $HOME/{name}")];
        assert!(!world.inside(&client).status.success(), "{name} was written");
        succeeded(&world.outside(&client));
    }
}

/// Names that do not exist cannot be covered. A link that leads nowhere is one, too, and so is what it leads to.
fn startup_files_that_are_made_are_told(world: &World) {
    let home = world.home();
    symlink("dotfiles/zshenv", home.join(".zshenv")).unwrap();
    symlink("dotfiles/profile", home.join(".profile")).unwrap();
    symlink("\u{1b}kshrc", home.join(".kshrc")).unwrap();
    fs::write(home.join(".bashrc"), "").unwrap();
    let harmless = "mkdir -p .ssh .config/autostart dotfiles && echo host >.ssh/known_hosts && echo x >.other; ! echo x >>.bashrc";
    assert_eq!(told(&world.run(&["-q"], &["sh", "-c", harmless])), None);
    // Itself it would be read-only from now on.
    fs::remove_dir_all(home.join(".ssh")).unwrap();
    for (made, names) in [
        ("echo x >.bash_profile", "~/.bash_profile"),
        ("ln -s .other .bash_login && mkdir .ssh && echo key >.ssh/authorized_keys", "~/.bash_login, ~/.ssh/authorized_keys"),
        ("mkdir -p .config/systemd/user && echo x >.config/systemd/user/x.service; exit 3", "~/.config/systemd"),
        ("echo x >.zshenv", "~/dotfiles/zshenv"),
        ("echo x >.kshrc", "~/\\u{1b}kshrc"),
        ("rm .profile && echo x >.profile; kill -9 $$", "~/.profile"),
    ] {
        // Each makes its own: what the one before left is there at the start, and read-only.
        let output = world.run(&["-q"], &["sh", "-c", made]);
        assert_eq!(told(&output).as_deref(), Some(names), "{made}: {}", show(&output));
    }
    let output = world.inside(&["sh", "-c", "exit 3"]);
    assert_eq!((output.status.code(), told(&output)), (Some(3), None), "{}", show(&output));
}

/// The names in the one line that tells what was made.
fn told(output: &Output) -> Option<String> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut lines = said.lines().filter_map(|line| line.strip_prefix("authsome: made during the run, and later run outside of it: "));
    let names = lines.next().map(|line| line.split(" (hint: ").next().unwrap().to_owned());
    assert_eq!(lines.next(), None, "{said}");
    names
}
