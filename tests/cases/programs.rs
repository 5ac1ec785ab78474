//! What ordinary agents run works inside as outside: none of the defences may break it.

use crate::{
    Case,
    support::world::{World, finish, show, succeeded},
};
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Stdio,
    thread,
};

pub const CASES: &[Case] = &[
    ("nobody_need_read_our_remarks", nobody_need_read_our_remarks),
    ("verbose_runs_list_every_defence", verbose_runs_list_every_defence),
    ("shell_has_job_control", shell_has_job_control),
    ("debugger_runs_its_child", debugger_runs_its_child),
    ("terminal_multiplexer_runs_of_its_own", terminal_multiplexer_runs_of_its_own),
    ("browser_keeps_its_sandbox", browser_keeps_its_sandbox),
    ("sandboxes_nest", sandboxes_nest),
    ("host_opens_a_dev_server", host_opens_a_dev_server),
    ("a_service_of_the_host_is_used", a_service_of_the_host_is_used),
];

/// A closed stderr and a reader that left are no reason to fail.
fn nobody_need_read_our_remarks(world: &World) {
    for (redirect, options) in [("2>&-", "-v"), ("2>&-", ""), ("2>/dev/full", "-v")] {
        for mode in ["--transparent", ""] {
            let script = format!("{} {options} run {mode} -- sh -c 'exit 7' {redirect}", world.path("authsome").display());
            let output = finish(&mut world.start_as_mode(world.command(&["sh", "-c", &script])));
            assert_eq!(output.status.code(), Some(7), "{script}: {}", show(&output));
        }
    }
}

fn verbose_runs_list_every_defence(world: &World) {
    fs::write(world.home().join(".bashrc"), "").unwrap();
    let said = |options: &[&str]| {
        let output = world.run(&[options, &["-v"]].concat(), &["true"]);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let (closed, startup) = (said(&[]), world.home().join(".bashrc").display().to_string());
    let kernel = "foreign-abi vsock packet raw-socket ipsec alg netlink other-socket io-uring keyring tty-input setns file-handle bpf userfaultfd perf modules";
    for rule in kernel.split(' ') {
        assert!(closed.contains(&format!("authsome: refused  {rule} ")), "{rule}: {closed}");
        assert!(said(&["--allow-kernel", rule]).contains(&format!("authsome: allowed  {rule} ")), "{rule}");
    }
    assert!(closed.contains(&format!("authsome: read-only  {startup}\n")), "{closed}");
    assert!(!said(&["--keep-path", &startup]).contains(&format!("read-only  {startup}\n")));
    for line in ["hidden     ", "dropped    every capability", "closed     file descriptors", "removed    proxy variables", "rule       "] {
        assert!(closed.contains(&format!("authsome: {line}")), "{line}: {closed}");
    }
    assert!(!String::from_utf8_lossy(&world.inside(&["true"]).stderr).contains("refused"), "one line without -v");
}

/// On a terminal of its own: a job stops, goes on in the background, and comes back.
fn shell_has_job_control(world: &World) {
    let commands = "sleep 100 &\nkill -STOP %1\nuntil jobs | grep Stopped; do :; done\nbg %1\nuntil jobs | grep Running; do :; done\n\
        kill %1\nwait\necho over $((6 * 7))\nexit 0\n";
    let script = format!("script -qec 'bash --norc -i' /dev/null <<'END'\n{commands}END\n");
    let output = world.inside(&["sh", "-c", &script]);
    let said = succeeded(&output);
    for sign in ["Stopped", "Running", "over 42"] {
        assert!(said.contains(sign), "{sign}: {}", show(&output));
    }
    assert!(!said.contains("no job control"), "{said}");
}

fn debugger_runs_its_child(world: &World) {
    succeeded(&world.outside(&[
        "sh",
        "-c",
        "echo 'int f(int n) { return n ? f(n - 1) : *(int *)0; } int main(void) { return f(2); }' >crash.c && cc -g -o crash crash.c",
    ]));
    let output = world.inside(&["gdb", "-nx", "-batch", "-ex", "run", "-ex", "bt", "./crash"]);
    let said = succeeded(&output);
    assert!(said.contains("SIGSEGV") && said.contains("main ()"), "{}", show(&output));
}

/// The user's own server outside is out of reach, one of its own works.
fn terminal_multiplexer_runs_of_its_own(world: &World) {
    let script = "tmux -f /dev/null new-session -d -s inside sh && tmux send-keys -t inside 'echo $((6 * 7)) >answer' Enter && \
        until [ -s answer ]; do sleep 0.05; done; cat answer; tmux list-sessions -F '#S'; tmux capture-pane -p -t inside | grep -c 'echo'; tmux kill-server";
    succeeded(&world.outside(&["sh", "-c", "tmux -f /dev/null new-session -d -s outside 'sleep 100'"]));
    let output = world.inside(&["sh", "-c", script]);
    let sessions = world.outside(&["tmux", "list-sessions", "-F", "#S"]);
    world.outside(&["tmux", "kill-server"]);
    assert_eq!(succeeded(&output), "42\ninside\n1\n", "{}", show(&output));
    assert_eq!(succeeded(&sessions), "outside\n");
}

/// Chromium without `--no-sandbox`: a page of the file system, one of the network, and its renderer in a PID namespace of its own.
fn browser_keeps_its_sandbox(world: &World) {
    fs::write(world.home().join("page.html"), "<p id=p></p><script>p.textContent = 6 * 7 + ' is the answer'</script>").unwrap();
    let browser = format!(
        "chromium --headless --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update \
         --disable-sync --disable-dev-shm-usage --user-data-dir={}",
        world.home().join("profile").display()
    );
    let shell = |script: &str| succeeded(&world.inside(&["bash", "-c", script]));
    let page = shell(&format!("{browser} --dump-dom file://{}/page.html", world.home().display()));
    assert!(page.contains("42 is the answer"), "{page}");
    shell(&format!("{browser} --dump-dom http://203.0.113.11/"));
    assert!(world.internet.take_requests().iter().any(|request| request.path == "/" && request.header("user-agent").is_some()));
    let renderer = shell(&format!(
        "{browser} --remote-debugging-port=0 about:blank 2>/dev/null & until pid=$(pgrep -f -- -type=[r]enderer | head -1) && [ -n \"$pid\" ]; do sleep 0.05; done; \
         grep NSpid /proc/$pid/status; kill $!"
    ));
    assert!(renderer.split_whitespace().count() > 2, "one process id in each PID namespace: {renderer}");
}

fn sandboxes_nest(world: &World) {
    succeeded(&world.inside(&["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]));
    let nested =
        ["bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "ls", "/proc/1/exe"];
    succeeded(&world.inside(&nested));
}

fn host_opens_a_dev_server(world: &World) {
    fs::write(world.home().join("index.html"), "forty-two").unwrap();
    let script = "python3 -m http.server 5173 --bind 127.0.0.1 & until python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 5173))' 2>/dev/null; \
        do sleep 0.05; done; echo ready; read done; kill $!";
    let mut child = world.authsome(&["--publish", "5173"], &["bash", "-c", script]).stdin(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    for address in ["127.0.0.1:5173", "[::1]:5173"] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("forty-two"), "{address}: {answer}");
    }
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", show(&output));
}

/// A database, say: the client inside speaks to the host's loopback.
fn a_service_of_the_host_is_used(world: &World) {
    let listener = TcpListener::bind("127.0.0.1:5432").unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut said = [0; 4];
            let _ = stream.read_exact(&mut said).and_then(|()| stream.write_all(&said));
        }
    });
    let client = [
        "python3",
        "-c",
        "import socket\ns = socket.create_connection(('127.0.0.1', 5432))\ns.sendall(b'ping')\nprint(s.recv(4).decode())",
    ];
    let config = world.home().join(".authsome/config.toml");
    let others = fs::read_to_string(&config).unwrap_or_default();
    fs::write(&config, format!("{others}[ports]\ndatabase = 5432\n")).unwrap();
    for port in ["5432", "database"] {
        assert_eq!(succeeded(&world.run(&["--expose", port], &client)), "ping\n", "{port}");
    }
    assert!(!world.inside(&client).status.success());
    assert_eq!(world.run(&["--expose", "databases"], &client).status.code(), Some(2));
    fs::write(&config, others).unwrap();
}
