//! The uplink by pasta(1): UDP and ICMP for a user without privilege, and nothing of the host with them.

use super::death::{becomes, host_state, mark, processes};
use crate::{
    Case,
    support::world::{ACME_KEY, Mode, World, finish, show, succeeded},
};
use nix::{
    mount::{MsFlags, mount},
    sys::{
        signal::{Signal, kill},
        stat::{Mode as Permissions, SFlag, makedev, mknod},
    },
    unistd::Pid,
};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::UdpSocket,
    process::{Child, Command, Output, Stdio},
    thread,
};

pub const CASES: &[Case] = &[
    ("carries_udp_and_icmp", carries_udp_and_icmp),
    ("tcp_goes_by_the_proxy", tcp_goes_by_the_proxy),
    ("names_are_asked_of_the_stub", names_are_asked_of_the_stub),
    ("nothing_of_the_host_is_reached", nothing_of_the_host_is_reached),
    ("an_address_that_comes_later_is_not_reached", an_address_that_comes_later_is_not_reached),
    ("kill_of_the_supervisor_leaves_no_pasta", kill_of_the_supervisor_leaves_no_pasta),
    ("normal_end_leaves_no_pasta", normal_end_leaves_no_pasta),
    ("kill_of_pastas_holder_leaves_no_pasta", kill_of_pastas_holder_leaves_no_pasta),
    ("a_run_whose_pasta_has_died_ends", a_run_whose_pasta_has_died_ends),
    ("a_missing_pasta_is_explained", a_missing_pasta_is_explained),
    ("a_pasta_that_fails_is_quoted", a_pasta_that_fails_is_quoted),
    ("rules_and_pasta_exclude_each_other", rules_and_pasta_exclude_each_other),
    ("dry_run_shows_what_is_barred", dry_run_shows_what_is_barred),
];

const PASTA: [&str; 2] = ["--egress", "pasta"];

/// As an ordinary host has them: a tap device and ping sockets for everyone, a link-local address. Root has a better uplink, and is told so.
fn rootless(world: &World) -> bool {
    if world.mode == Mode::Sudo {
        refused(&world.run(&PASTA, &["true"]), 2, "--egress pasta is for users without root");
        return false;
    }
    let tun = world.path("tun");
    mknod(&tun, SFlag::S_IFCHR, Permissions::empty(), makedev(10, 200)).unwrap();
    fs::set_permissions(&tun, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    mount(Some(&tun), "/dev/net/tun", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    // Without a link-local address pasta takes the host for one without IPv6.
    succeeded(&Command::new("ip").args(["addr", "add", "fe80::2/64", "dev", "uplink", "nodad"]).output().unwrap());
    true
}

#[track_caller]
fn refused(output: &Output, code: i32, why: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", show(output));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(why), "{said}");
}

fn carries_udp_and_icmp(world: &World) {
    if !rootless(world) {
        return;
    }
    for host in ["203.0.113.12", "2001:db8:113::12"] {
        assert_eq!(succeeded(&world.run(&PASTA, &["python3", "odd.py", "udp", host, "7"])), "ping\n", "{host}");
    }
    assert_eq!(succeeded(&world.run(&PASTA, &["python3", "odd.py", "ping", "203.0.113.12"])), "ping\n");
    // More than one packet of an Ethernet.
    let large = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20); s.sendto(b'x' * 2000, ('203.0.113.12', 7)); print(len(s.recv(65536)))";
    assert_eq!(succeeded(&world.run(&PASTA, &["python3", "-c", large])), "2000\n");
    let quic = succeeded(&world.run(&PASTA, &["python3", "odd.py", "udp", "203.0.113.10", "443"]));
    assert_eq!(quic, "EPERM\n");
}

fn tcp_goes_by_the_proxy(world: &World) {
    if !rootless(world) {
        return;
    }
    let output = world.run(&PASTA, &["curl", "-fsS", "https://api.acme.test/"]);
    succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("transparent, pasta uplink; injecting acme, openai"), "{}", show(&output));
    assert_eq!(world.internet.take_requests()[0].header("x-api-key"), Some(ACME_KEY));
    for host in ["203.0.113.12", "2001:db8:113::12"] {
        let echo = world.run(&PASTA, &["python3", "odd.py", "tcp", host, "8443"]);
        assert_eq!(succeeded(&echo).trim(), super::relay::ECHOED, "{host}");
    }
}

fn names_are_asked_of_the_stub(world: &World) {
    if !rootless(world) {
        return;
    }
    // Nobody has that address.
    let client = ["python3", "ask_dns.py", "203.0.113.99", "udp", "other.test", "1"];
    assert!(succeeded(&world.run(&PASTA, &client)).contains("answers=1"));
}

/// Answers every datagram on every address of this host; the port.
fn greet() -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = socket.local_addr().unwrap().port().to_string();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    port
}

fn nothing_of_the_host_is_reached(world: &World) {
    if !rootless(world) {
        return;
    }
    let port = greet();
    assert_eq!(succeeded(&world.outside(&["python3", "odd.py", "udp", "198.51.100.2", &port])), "ping\n");
    let run = |client: &str| world.authsome(&PASTA, &["sh", "-c", client]);
    let client = format!(
        "for to in 198.51.100.2 127.0.0.1 169.254.169.254 224.0.0.1; do python3 odd.py udp $to {port}; done; python3 odd.py ping 198.51.100.2;
        python3 odd.py udp 2001:db8:51::2 {port}; python3 odd.py udp fd00:ec2::254 {port};
        timeout 2 python3 odd.py udp $(ip -4 route show default | cut -d' ' -f3) {port} | grep ping; echo end"
    );
    assert_eq!(succeeded(&finish(&mut run(&client))), "EPERM\nECONNREFUSED\nEPERM\nEPERM\nEPERM\nEPERM\nEPERM\nend\n");
    #[cfg(feature = "test-switches")]
    {
        let client = format!("python3 odd.py udp 198.51.100.2 {port}; python3 odd.py ping 198.51.100.2");
        let without = finish(run(&client).env("AUTHSOME_TEST_WITHOUT", "DialRule"));
        assert_eq!(succeeded(&without), "ping\nping\n", "without the rules the host's address is reached");
    }
}

/// A run whose command says `ready` and then sleeps for `mark` seconds, and its supervisor's only pasta. Started without timeout(1).
fn started(world: &World, mark: &str) -> (Child, Pid) {
    let mut command = world.command(&[world.path("authsome").to_str().unwrap(), "run", "--transparent"]);
    command.args(PASTA).args(["--", "sh", "-c", &format!("echo ready; exec sleep {mark}")]);
    let mut child = world.start_as_mode(command).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    // The holder is a child of the supervisor, and pasta of the holder.
    let holders = children(child.id());
    let pastas: Vec<_> = holders.into_iter().flat_map(children).filter(|pid| name(*pid).is_some_and(|name| is_pasta(&name))).collect();
    assert_eq!(pastas.len(), 1);
    (child, Pid::from_raw(pastas[0] as i32))
}

/// Debian's build executes itself again as the variant for this processor.
fn is_pasta(name: &str) -> bool {
    name.starts_with("pasta") || name.starts_with("passt")
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let lists: String = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default()).collect();
    lists.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Of a process that has not ended. One whose holder was killed is the machine's init's to wait for (proc_pid_stat(5): `pid (name) state …`).
fn name(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, state) = stat.split_once('(')?.1.rsplit_once(") ")?;
    (!state.starts_with(['Z', 'X'])).then(|| name.to_owned())
}

#[track_caller]
fn ends(pid: Pid) {
    let deadline = std::time::Instant::now() + super::death::PATIENCE;
    while name(pid.as_raw() as u32).is_some_and(|name| is_pasta(&name)) {
        assert!(std::time::Instant::now() < deadline, "pasta lives on");
        thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn kill_of_the_supervisor_leaves_no_pasta(world: &World) {
    if !rootless(world) {
        return;
    }
    let (before, mark) = (host_state(world), mark(world, 7));
    let (mut child, pasta) = started(world, &mark);
    child.kill().unwrap();
    child.wait().unwrap();
    ends(pasta);
    becomes(world, &before, &mark);
}

fn normal_end_leaves_no_pasta(world: &World) {
    if !rootless(world) {
        return;
    }
    let (before, mark) = (host_state(world), mark(world, 8));
    let (mut child, pasta) = started(world, &mark);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    assert!(name(pasta.as_raw() as u32).is_none_or(|name| !is_pasta(&name)), "the supervisor waits for pasta's end");
    becomes(world, &before, &mark);
}

fn a_run_whose_pasta_has_died_ends(world: &World) {
    if !rootless(world) {
        return;
    }
    let mark = mark(world, 9);
    let (child, pasta) = started(world, &mark);
    kill(pasta, Signal::SIGKILL).unwrap();
    refused(&child.wait_with_output().unwrap(), 125, "pasta stopped: signal: 9 (SIGKILL)");
    assert!(processes(&mark).is_empty());
}

/// The namespace's rules name those that the host had before. What the proxy carries goes on.
fn an_address_that_comes_later_is_not_reached(world: &World) {
    if !rootless(world) {
        return;
    }
    let port = greet();
    let client = format!(
        "echo ready; read line; timeout 2 python3 odd.py udp 198.51.100.77 {port}; python3 odd.py tcp 203.0.113.12 8443 && echo end"
    );
    let mut run = world.authsome(&PASTA, &["sh", "-c", &client]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(run.stdout.take().unwrap()).lines();
    let mut stderr = BufReader::new(run.stderr.take().unwrap()).lines();
    assert_eq!(stdout.next().unwrap().unwrap(), "ready");
    succeeded(&Command::new("ip").args(["addr", "add", "198.51.100.77/32", "dev", "uplink"]).output().unwrap());
    assert_eq!(succeeded(&world.outside(&["python3", "odd.py", "udp", "198.51.100.77", &port])), "ping\n");
    let told = "this host now has the address 198.51.100.77";
    assert!(stderr.by_ref().map_while(Result::ok).any(|line| line.contains(told)), "nothing is told");
    drop(run.stdin.take());
    let lines: Vec<_> = stdout.map_while(Result::ok).collect();
    assert!(run.wait().unwrap().success(), "{lines:?}");
    assert!(!lines.contains(&"ping".to_owned()) && lines.last().is_some_and(|line| line == "end"), "{lines:?}");
}

/// Which ends the run, and with it pasta.
fn kill_of_pastas_holder_leaves_no_pasta(world: &World) {
    if !rootless(world) {
        return;
    }
    let (before, mark) = (host_state(world), mark(world, 10));
    let (child, pasta) = started(world, &mark);
    let holder = children(child.id()).into_iter().find(|pid| children(*pid).contains(&(pasta.as_raw() as u32))).unwrap();
    kill(Pid::from_raw(holder as i32), Signal::SIGKILL).unwrap();
    refused(&child.wait_with_output().unwrap(), 125, "pasta stopped: its holder was killed");
    assert!(name(pasta.as_raw() as u32).is_none_or(|name| !is_pasta(&name)), "the supervisor waits for pasta's end");
    becomes(world, &before, &mark);
}

fn a_missing_pasta_is_explained(world: &World) {
    if world.mode == Mode::Sudo {
        return;
    }
    let without = |options: &[&str]| {
        // Found before there is no PATH; env(1) runs what it is told by its own name.
        let mut command = world.command(&["/usr/bin/env", "PATH=/var/empty"]);
        command.arg(world.path("authsome")).args(["run", "--transparent"]).args(options).args(["--", "/bin/true"]);
        finish(&mut world.start_as_mode(command))
    };
    let output = without(&PASTA);
    refused(&output, 9, "there is no program pasta in PATH");
    assert!(String::from_utf8_lossy(&output.stderr).contains("sudo apt install passt"), "{}", show(&output));
    succeeded(&without(&[]));
}

fn a_pasta_that_fails_is_quoted(world: &World) {
    if !rootless(world) {
        return;
    }
    fs::set_permissions(world.path("tun"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let output = world.run(&PASTA, &["touch", "started"]);
    refused(&output, 9, "connect the namespace by pasta: Failed to open tun socket in namespace");
    assert!(!world.home().join("started").exists());
}

fn rules_and_pasta_exclude_each_other(world: &World) {
    if !rootless(world) {
        return;
    }
    for rule in ["--allow", "--deny"] {
        let output = world.run(&[&PASTA[..], &[rule, "other.test"]].concat(), &["touch", "started"]);
        refused(&output, 2, "where there are rules only TCP and DNS pass");
    }
    assert!(!world.home().join("started").exists());
}

fn dry_run_shows_what_is_barred(world: &World) {
    if !rootless(world) {
        return;
    }
    let shown = succeeded(&world.run(&[&PASTA[..], &["--dry-run"]].concat(), &["true"]));
    for line in ["transparent, pasta uplink", "ip daddr 198.51.100.2 reject", "ip6 daddr fe80::/10 reject", "ip daddr 224.0.0.0/4 reject"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
}
