//! The first process of new namespaces, on the real kernel.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use harness::inside;
use netns::spawn::{Channel, Child, Ids, Namespaces, spawn};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{signal::Signal, wait::WaitStatus},
    unistd::{Pid, pause},
};
use std::{
    env, fs,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    process::{Command, ExitCode, Stdio},
};

/// Long enough for any machine; only a failing test waits for it. Milliseconds.
const PATIENCE: u16 = 20_000;

const CASES: &[(&str, harness::Case)] = &[
    ("ids_stand_for_themselves", ids_stand_for_themselves),
    ("first_process_has_every_capability_inside", first_process_has_every_capability_inside),
    ("mounts_are_private", mounts_are_private),
    ("status_is_what_init_returns", status_is_what_init_returns),
    ("panic_is_status_101", panic_is_status_101),
    ("end_shows_on_pidfd_and_channel", end_shows_on_pidfd_and_channel),
    ("messages_and_descriptors_cross_both_ways", messages_and_descriptors_cross_both_ways),
    ("drop_kills_everything_inside", drop_kills_everything_inside),
    ("drop_ends_the_channel_of_a_child_it_may_not_kill", drop_ends_the_channel_of_a_child_it_may_not_kill),
    ("death_of_the_parent_kills_the_child", death_of_the_parent_kills_the_child),
    ("a_process_with_threads_is_refused", a_process_with_threads_is_refused),
    ("a_closed_gate_names_the_step", a_closed_gate_names_the_step),
];

fn main() -> ExitCode {
    if env::var_os("NETNS_ORPHAN").is_some() { orphan() } else { harness::main(CASES) }
}

fn exited(child: Child, status: i32) {
    let pid = child.pid();
    assert_eq!(child.wait().unwrap(), WaitStatus::Exited(pid, status));
}

fn readable_in_time(fd: impl AsFd) -> bool {
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::from(PATIENCE)).unwrap() == 1
}

fn ids_stand_for_themselves(namespaces: Namespaces) {
    let Ids { uid, gid } = Ids::current();
    let seen = inside(namespaces, || {
        let map = |name| fs::read_to_string(format!("/proc/self/{name}")).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        let ids = Ids::current();
        format!("{} {} {} | {} | {} | {}", nix::unistd::getpid(), ids.uid, ids.gid, map("uid_map"), map("gid_map"), map("setgroups"))
    });
    let expected = match namespaces.user {
        Some(_) => format!("1 {uid} {gid} | {uid} {uid} 1 | {gid} {gid} 1 | deny"),
        None => format!("1 {uid} {gid} | 0 0 4294967295 | 0 0 4294967295 | allow"),
    };
    assert_eq!(seen, expected);
}

fn first_process_has_every_capability_inside(namespaces: Namespaces) {
    let field = |name: &str| {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
    };
    let seen = inside(namespaces, || field("CapEff:"));
    let every = if namespaces.user.is_some() {
        (1_u64 << (last_capability() + 1)) - 1
    } else {
        u64::from_str_radix(&field("CapEff:"), 16).unwrap()
    };
    assert_eq!(u64::from_str_radix(&seen, 16).unwrap(), every);
    // Not only claimed: a sysctl of the network namespace, and a proc of the PID namespace.
    let seen = inside(namespaces, || {
        nix::mount::mount(Some("proc"), "/proc", Some("proc"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
        fs::write("/proc/sys/net/ipv4/ip_default_ttl", "33").unwrap();
        fs::read_link("/proc/self").unwrap().display().to_string()
    });
    assert_eq!(seen, "1");
    assert_ne!(fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap().trim(), "33", "the host's own was changed");
}

fn last_capability() -> u32 {
    fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap()
}

/// Where all mounts are shared, as systemd sets them up.
fn mounts_are_private(namespaces: Namespaces) {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let (outer, inner) = {
        let both = inside(namespaces, || {
            let shared = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_SHARED;
            nix::mount::mount(None::<&str>, "/", None::<&str>, shared, None::<&str>).unwrap();
            let outer = mounts();
            format!("{outer}INNER{}", inside(Namespaces { user: Some(Ids::current()) }, mounts))
        });
        let (outer, inner) = both.split_once("INNER").unwrap();
        (outer.to_owned(), inner.to_owned())
    };
    assert!(outer.contains(" shared:"));
    assert!(!inner.contains(" shared:") && !inner.contains(" master:"), "{inner}");
}

fn status_is_what_init_returns(namespaces: Namespaces) {
    exited(spawn(namespaces, |_| 7).unwrap(), 7);
}

fn panic_is_status_101(namespaces: Namespaces) {
    exited(spawn(namespaces, |_| panic!("on purpose")).unwrap(), 101);
}

fn end_shows_on_pidfd_and_channel(namespaces: Namespaces) {
    let child = spawn(namespaces, |channel| u8::from(!readable_in_time(&channel))).unwrap();
    assert_eq!(child.channel.try_recv().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    child.channel.send(b"left unread", &[]).unwrap();
    assert!(readable_in_time(child.pidfd()));
    assert!(child.channel.recv().unwrap().is_none());
    assert_eq!(child.channel.send(b"late", &[]).unwrap_err().raw_os_error(), Some(Errno::EPIPE as i32));
    exited(child, 0);
    let child = spawn(namespaces, |_| pause_forever()).unwrap();
    child.kill(Signal::SIGKILL).unwrap();
    let pid = child.pid();
    assert_eq!(child.wait().unwrap(), WaitStatus::Signaled(pid, Signal::SIGKILL, false));
}

fn messages_and_descriptors_cross_both_ways(namespaces: Namespaces) {
    let child = spawn(namespaces, |channel| {
        let (text, mut fds) = channel.recv().unwrap().unwrap();
        let listener = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        channel.send(&text, &[fds.remove(1).as_fd(), listener.as_fd()]).unwrap();
        0
    })
    .unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let text = vec![b'x'; netns::spawn::MAX_MESSAGE];
    child.channel.send(&text, &[reader.as_fd(), writer.as_fd()]).unwrap();
    drop(writer);
    let (echo, mut fds) = child.channel.recv().unwrap().expect("an answer");
    assert!(echo == text && fds.len() == 2);
    for fd in &fds {
        let flags = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, nix::libc::FD_CLOEXEC);
    }
    fs::File::from(fds.remove(0)).write_all(b"through").unwrap();
    let mut read = String::new();
    fs::File::from(OwnedFd::from(reader)).read_to_string(&mut read).unwrap();
    assert_eq!(read, "through");
    exited(child, 0);
}

/// A pipe that ends when everything inside is gone; the child has a child of its own.
fn drop_kills_everything_inside(namespaces: Namespaces) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let child = spawn(namespaces, |channel: Channel| {
        let grandchild = Command::new("/proc/self/exe").env("NETNS_ORPHAN", "grandchild").stdout(writer.try_clone().unwrap()).spawn();
        channel.send(if grandchild.is_ok() { b"started" } else { b"failed" }, &[]).unwrap();
        pause_forever()
    })
    .unwrap();
    drop(writer);
    assert_eq!(child.channel.recv().unwrap().unwrap().0, b"started");
    let mut one = [0];
    reader.read_exact(&mut one).unwrap();
    drop(child);
    assert!(readable_in_time(&reader) && reader.read(&mut one).unwrap() == 0);
}

/// As a supervisor that gave up root, while its child has not yet.
fn drop_ends_the_channel_of_a_child_it_may_not_kill(namespaces: Namespaces) {
    if Ids::current().uid != 0 {
        return;
    }
    let become_uid = |uid: u32| nix::unistd::setresuid(uid.into(), uid.into(), 0.into()).unwrap();
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let child = spawn(namespaces, |channel| {
        let ended = readable_in_time(&channel) && channel.recv().unwrap().is_none();
        u8::from(writer.write_all(if ended { b"ended" } else { b"still open" }).is_err())
    })
    .unwrap();
    drop(writer);
    become_uid(1);
    let refused = child.kill(Signal::SIGKILL).unwrap_err().source;
    drop(child);
    become_uid(0);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!((refused, said.as_str()), (Errno::EPERM, "ended"));
}

fn death_of_the_parent_kills_the_child(namespaces: Namespaces) {
    let kind = if namespaces.user.is_some() { "user" } else { "root" };
    let mut parent = Command::new("/proc/self/exe").env("NETNS_ORPHAN", kind).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = parent.stdout.take().unwrap();
    let mut one = [0];
    output.read_exact(&mut one).unwrap();
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(readable_in_time(&output) && output.read(&mut one).unwrap() == 0, "the child outlived its parent");
}

/// The process that `death_of_the_parent_kills_the_child` kills, and the grandchild of `drop_kills_everything_inside`: says one byte, stays.
fn orphan() -> ExitCode {
    let say = || std::io::stdout().write_all(b"!").and_then(|()| std::io::stdout().flush()).unwrap();
    let user = match env::var("NETNS_ORPHAN").unwrap().as_str() {
        "user" => Some(Ids::current()),
        "root" => None,
        _ => {
            say();
            return pause_forever().into();
        }
    };
    let _child = spawn(Namespaces { user }, |_| {
        say();
        pause_forever()
    })
    .unwrap();
    pause_forever().into()
}

fn pause_forever() -> u8 {
    loop {
        pause();
    }
}

fn a_process_with_threads_is_refused(namespaces: Namespaces) {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || stopped.recv());
    let error = spawn(namespaces, |_| 0).unwrap_err();
    drop(stop);
    assert!(thread.join().unwrap().is_err());
    assert_eq!(error.to_string(), "clone a process that has more than one thread: EINVAL: Invalid argument");
    exited(spawn(namespaces, |_| 0).unwrap(), 0);
}

fn a_closed_gate_names_the_step(namespaces: Namespaces) {
    if namespaces.user.is_some() {
        let stranger = Ids { uid: 4321, gid: 4321 };
        let error = spawn(Namespaces { user: Some(stranger) }, |_| 0).unwrap_err();
        assert_eq!(error.to_string(), "write uid_map: EPERM: Operation not permitted");
    }
    let none_left = inside(Namespaces { user: Some(Ids::current()) }, || {
        fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
        spawn(Namespaces { user: Some(Ids::current()) }, |_| 0).unwrap_err().to_string()
    });
    assert_eq!(none_left, "create user, network, mount, PID and IPC namespaces: ENOSPC: No space left on device");
    assert!(nix::sys::wait::waitpid(Pid::from_raw(-1), None).is_err(), "a child was not reaped");
}
