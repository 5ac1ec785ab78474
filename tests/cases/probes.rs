//! Ways around the sandbox, tried by the child; and what an ordinary agent does, which none of its rules may break.

use crate::{
    Case,
    support::world::{World, show, succeeded},
};
use std::{
    io::Write,
    net::{IpAddr, SocketAddr, TcpListener},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddr, UnixListener},
    },
    process::Stdio,
    thread,
};

pub const CASES: &[Case] = &[
    ("kernel_interfaces_are_refused_unless_allowed", kernel_interfaces_are_refused_unless_allowed),
    ("abstract_sockets_outside_are_out_of_reach", abstract_sockets_outside_are_out_of_reach),
    ("ipc_outside_is_out_of_reach", ipc_outside_is_out_of_reach),
    ("exposed_port_is_reached_and_no_other", exposed_port_is_reached_and_no_other),
    ("own_ports_are_neither_exposed_nor_published", own_ports_are_neither_exposed_nor_published),
    ("published_port_is_reached_and_no_other", published_port_is_reached_and_no_other),
    ("ordinary_tools_work", ordinary_tools_work),
];

/// Probe, what it meets, and the rule whose lifting changes that.
const REFUSED: [(&str, &str, &str); 13] = [
    ("vsock", "EAFNOSUPPORT", "vsock"),
    ("packet", "EAFNOSUPPORT", "packet"),
    ("raw", "ESOCKTNOSUPPORT", "raw-socket"),
    ("raw6", "ESOCKTNOSUPPORT", "raw-socket"),
    ("alg", "EAFNOSUPPORT", "alg"),
    ("io_uring", "ENOSYS", "io-uring"),
    ("keyctl", "ENOSYS", "keyring"),
    ("tiocsti", "EPERM", "tty-input"),
    ("setns", "EPERM", "setns"),
    ("bpf", "ENOSYS", "bpf"),
    ("userfaultfd", "ENOSYS", "userfaultfd"),
    ("x32", "ENOSYS", "foreign-abi"),
    ("i386", "ENOSYS", "foreign-abi"),
];

fn kernel_interfaces_are_refused_unless_allowed(world: &World) {
    let script = REFUSED.map(|(probe, ..)| format!("python3 probe.py {probe}")).join("; ");
    let closed = succeeded(&world.inside(&["sh", "-c", &script]));
    let options: Vec<&str> = REFUSED.iter().flat_map(|(_, _, rule)| ["--allow-kernel", rule]).collect();
    let open = succeeded(&world.run(&options, &["sh", "-c", &script]));
    let outside = succeeded(&world.outside(&["sh", "-c", &script]));
    let seen: Vec<_> = closed.lines().zip(open.lines()).zip(outside.lines()).collect();
    assert_eq!(seen.len(), REFUSED.len(), "{seen:?}");
    let mut told_apart = 0;
    for ((probe, errno, _), ((closed, open), outside)) in REFUSED.iter().zip(seen) {
        assert_eq!(closed, *errno, "{probe}");
        // A kernel built without the thing answers the same.
        assert!(open != closed || outside == closed, "{probe}: the rule is not what refuses it: {open}, outside {outside}");
        told_apart += u32::from(open != closed);
    }
    assert!(told_apart >= 8, "only {told_apart} rules were seen to refuse anything");
}

fn abstract_sockets_outside_are_out_of_reach(world: &World) {
    let name = format!("listener-{}-{:?}", std::process::id(), world.mode);
    let _listener = UnixListener::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
    let client = ["python3", "probe.py", "abstract", &name];
    assert_eq!(succeeded(&world.inside(&client)), "ECONNREFUSED\n");
    assert_eq!(succeeded(&world.outside(&client)), "done\n");
}

/// By identifier: one made inside would not be found outside either.
fn ipc_outside_is_out_of_reach(world: &World) {
    for (probe, kind) in [("shm", &["-M", "4096"][..]), ("sem", &["-S", "1"]), ("msg", &["-Q"])] {
        let made = succeeded(&world.outside(&[&["ipcmk", "-p", "0666"], kind].concat()));
        let id = made.trim().rsplit(' ').next().unwrap();
        let client = ["python3", "probe.py", probe, id];
        assert_eq!(succeeded(&world.inside(&client)), "EINVAL\n", "{probe}");
        assert_eq!(succeeded(&world.outside(&client)), "done\n", "{probe}");
    }
    world.make_queue("outside");
    let client = ["python3", "probe.py", "mq", "/outside"];
    assert_eq!(succeeded(&world.inside(&client)), "ENOENT\n");
    assert_eq!(succeeded(&world.outside(&client)), "done\n");
}

/// Says hello to whoever connects, from a thread of this namespace that ends with the process.
fn greet(address: &str) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(|mut stream| drop(stream.write_all(b"hello"))));
    address
}

fn exposed_port_is_reached_and_no_other(world: &World) {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let port = greet(address).port().to_string();
        let probe = |host| ["python3", "probe.py", "tcp", host, &port].map(str::to_owned);
        for host in ["127.0.0.1", "::1"] {
            let client = probe(host);
            let client = client.each_ref().map(String::as_str);
            let output = world.run(&["--expose", &port], &client);
            assert_eq!(succeeded(&output), "done\n", "{address} by {host}: {}", show(&output));
            assert_ne!(succeeded(&world.inside(&client)), "done\n", "{address} by {host}");
        }
    }
    // By the host's own address neither the exposed port nor another is reached.
    let port = greet("0.0.0.0:0").port().to_string();
    for host in ["198.51.100.2", "169.254.169.254"] {
        let client = ["python3", "probe.py", "tcp", host, &port];
        assert_ne!(succeeded(&world.run(&["--expose", &port], &client)), "done\n", "{host}");
        assert_ne!(succeeded(&world.inside(&client)), "done\n", "{host}");
    }
    assert_eq!(succeeded(&world.outside(&["python3", "probe.py", "tcp", "198.51.100.2", &port])), "done\n");
}

fn own_ports_are_neither_exposed_nor_published(world: &World) {
    for flag in ["--expose", "--publish"] {
        for port in ["61443", "61053"] {
            let output = world.run(&[flag, port], &["true"]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{}", show(&output));
            assert!(said.contains(&format!("{flag} {port}: authsome itself listens on that port inside the run")), "{said}");
        }
        succeeded(&world.run(&[flag, "61444"], &["true"]));
    }
}

/// The child's listener greets two clients; it lasts until both have heard, since what is under way ends with the run.
fn published_port_is_reached_and_no_other(world: &World) {
    use std::io::{BufRead, BufReader, Read};
    let port = 18_080_u16;
    for (bind, family) in [("127.0.0.1", "AF_INET"), ("::1", "AF_INET6")] {
        let script = format!(
            "import socket, sys\ns = socket.socket(socket.{family})\ns.bind(('{bind}', {port}))\ns.listen()\nprint('ready', flush=True)\n\
             s.settimeout(20)\nsys.stdin.readline()\n\
             for _ in range(2):\n    c, _ = s.accept()\n    c.sendall(b'hello')\n    c.close()"
        );
        for published in [true, false] {
            let options: &[&str] = if published { &["--publish", "18080"] } else { &[] };
            let mut child = world.authsome(options, &["python3", "-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            if line != "ready\n" {
                panic!("{line}{}", show(&child.wait_with_output().unwrap()));
            }
            if published {
                child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
            }
            for host in ["127.0.0.1", "::1"] {
                let address = SocketAddr::new(host.parse::<IpAddr>().unwrap(), port);
                let mut said = String::new();
                let heard = std::net::TcpStream::connect(address).and_then(|mut stream| stream.read_to_string(&mut said));
                assert_eq!(heard.is_ok() && said == "hello", published, "{bind} by {host}: {heard:?} {said}");
            }
            if !published {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
            }
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.success(), published, "{}", show(&output));
        }
    }
}

fn ordinary_tools_work(world: &World) {
    for (client, expected) in [
        (&["sh", "-c", "(sleep 0 & wait) && echo $((6 * 7)) | cat"][..], "42"),
        (&["bash", "-c", "cat <(echo 42)"], "42"),
        (
            &[
                "sh",
                "-c",
                "git init -q repository && cd repository && echo 42 >f && git add f && git -c user.name=a -c user.email=a@acme.test commit -qm f && git show HEAD:f",
            ],
            "42",
        ),
        (&["node", "-e", "require('child_process').exec('echo 42', (error, out) => console.log(out.trim()))"], "42"),
        (&["python3", "-c", "import multiprocessing\nprint(multiprocessing.Pool(2).apply(int, ('42',)))"], "42"),
        (&["gdb", "-nx", "-batch", "-ex", "break main", "-ex", "run", "-ex", "print 6*7", "./child"], "$1 = 42"),
        (&["sh", "-c", "sleep 30 & gdb -nx -batch -p $! -ex 'print 6*7' 2>/dev/null; kill $!"], "$1 = 42"),
        (&["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all", "echo", "42"], "42"),
        (
            &[
                "bwrap",
                "--ro-bind",
                "/",
                "/",
                "--unshare-user",
                "--unshare-pid",
                "curl",
                "-fsS",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "https://api.openai.com/",
            ],
            "200",
        ),
    ] {
        if client[0] == "gdb" {
            succeeded(&world.outside(&["sh", "-c", "echo 'int main(void) { return 0; }' >child.c && cc -g -o child child.c"]));
        }
        let output = world.inside(client);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.lines().any(|line| line == expected), "{client:?}: {}", show(&output));
    }
}
