//! Behind a proxy: real ones from the distribution, and a network that lets nothing through but to them.

use crate::{
    Case,
    support::{
        origin::Origin,
        world::{ACME_KEY, GID, OPENAI_KEY, UID, World, finish, show, succeeded},
    },
};
use nix::mount::{MsFlags, mount};
use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    process::{Command, Output},
};

pub const CASES: &[Case] = &[
    ("everything_goes_through_it", everything_goes_through_it),
    ("names_that_only_the_proxy_knows", names_that_only_the_proxy_knows),
    ("a_dead_resolver_is_no_hindrance", a_dead_resolver_is_no_hindrance),
    ("variables_choose_and_except", variables_choose_and_except),
    ("wrong_password_is_said_once", wrong_password_is_said_once),
    ("proxy_that_is_down_is_said", proxy_that_is_down_is_said),
    ("refused_port_is_said", refused_port_is_said),
    ("socks5", socks5),
    ("proxy_behind_tls", proxy_behind_tls),
    ("forbidden_addresses_are_not_asked_for", forbidden_addresses_are_not_asked_for),
    ("proxy_on_loopback", proxy_on_loopback),
    ("rules_hold_for_names_at_the_proxy", rules_hold_for_names_at_the_proxy),
    ("environment_mode", environment_mode),
    ("bad_input_starts_nothing", bad_input_starts_nothing),
    ("password_is_not_shown", password_is_not_shown),
    ("doctor_tries_it", doctor_tries_it),
];

const IP: &str = "203.0.113.14";
const PASSWORD: &str = "p%40ssw0rd";
const URL: &str = "http://ada:p%40ssw0rd@203.0.113.14:3128";

/// tinyproxy takes no password with anything but letters and digits in it.
const TINY: &str = "http://ada:tinyword@203.0.113.14:3128";

/// Sends a mebibyte and reads it back; unlike `odd.py tcp` without a half-close, which squid and microsocks take for the end.
const ECHO: &str = "import os, socket, sys, threading
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
sent = os.urandom(1 << 20)
threading.Thread(target=s.sendall, args=(sent,), daemon=True).start()
got = b''
while len(got) < len(sent): got += s.recv(65536) or sys.exit('ended early')
print('echoed' if got == sent else 'changed')";

/// Squid with Basic authentication, which lets CONNECT through to the ports of the test internet and looks more names up than anyone else.
fn squid(world: &World, listen: &str) -> Origin {
    // Every squid of a machine names its shared memory alike; this one's is its own, and ends with the world.
    mount(Some("tmpfs"), "/dev/shm", Some("tmpfs"), MsFlags::empty(), Some("mode=1777")).unwrap();
    let dir = world.path("squid");
    fs::create_dir(&dir).unwrap();
    chown(&dir, Some(UID), Some(GID)).unwrap();
    let hashed = Command::new("openssl").args(["passwd", "-apr1", "p@ssw0rd"]).output().unwrap();
    fs::write(dir.join("passwd"), format!("ada:{}", String::from_utf8_lossy(&hashed.stdout))).unwrap();
    fs::write(dir.join("hosts"), "203.0.113.10 inner.acme.test\n203.0.113.11 only.proxy.test\n203.0.113.12 raw.proxy.test\n").unwrap();
    let shown = dir.display();
    let text = format!(
        "{listen}\npid_filename none\ncache_log {shown}/cache.log\naccess_log stdio:{shown}/access.log\ncoredump_dir {shown}\ncache deny all\n\
         auth_param basic program /usr/lib/squid/basic_ncsa_auth {shown}/passwd\nauth_param basic realm acme\nacl known proxy_auth REQUIRED\n\
         acl CONNECT method CONNECT\nacl tunnels port 443 7 2525\nhttp_access deny CONNECT !tunnels\nhttp_access allow known\nhttp_access deny all\n\
         hosts_file {shown}/hosts\ndns_nameservers 203.0.113.53\nshutdown_lifetime 0 seconds\nbuffered_logs off\n"
    );
    fs::write(dir.join("squid.conf"), text).unwrap();
    let mut command = world.command(&["squid", "-N", "-d1", "-f"]);
    command.arg(dir.join("squid.conf")).uid(UID).gid(GID);
    Origin::start(world, &mut command, "Accepting HTTP")
}

/// What squid was asked for: the method and target of each request, with the status.
fn asked(world: &World) -> Vec<String> {
    let log = fs::read_to_string(world.path("squid/access.log")).unwrap_or_default();
    let line = |line: &str| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        format!("{} {} {}", fields[5], fields[6], fields[3])
    };
    log.lines().map(line).collect()
}

/// From now on nothing but the proxy and the name server can be reached from the host, and tries are counted.
fn wall_off(world: &World) {
    let rules = "table inet wall {\nchain guard {\ntype filter hook prerouting priority -300;\n\
        iifname \"eth0\" ip daddr != { 203.0.113.14, 203.0.113.53 } meta l4proto { tcp, udp } counter drop\n\
        iifname \"eth0\" ip6 daddr != { 2001:db8:113::14, 2001:db8:113::53 } meta l4proto { tcp, udp } counter drop\n}\n}";
    nft(world, rules);
}

fn nft(world: &World, command: &str) -> String {
    let mut nft = Command::new("nft");
    nft.arg(command).stdout(std::process::Stdio::piped());
    let output = world.internet.spawn(&mut nft).wait_with_output().unwrap();
    assert!(output.status.success(), "{command}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn assert_nothing_went_direct(world: &World) {
    let listed = nft(world, "list table inet wall");
    assert_eq!(listed.matches("counter packets 0 bytes 0").count(), 2, "{listed}");
}

fn injected(world: &World, url: &str, version: &str) {
    let output = world.run(&["--upstream", url], &["curl", "-fsS", version, "https://api.openai.com/v1/models"]);
    succeeded(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("via 203.0.113.14:3128") || said.contains("via programs.acme.test:3128"), "{said}");
    let [request] = &world.internet.take_requests()[..] else { panic!("one request expected") };
    assert_eq!(request.header("authorization"), Some(format!("Bearer {OPENAI_KEY}").as_str()));
    assert_eq!(request.header("proxy-authorization"), None);
}

fn everything_goes_through_it(world: &World) {
    let own = succeeded(&world.outside(&["python3", "odd.py", "fingerprint", "other.test"]));
    let _squid = squid(world, "http_port 203.0.113.14:3128");
    wall_off(world);
    injected(world, URL, "--http1.1");
    injected(world, URL, "--http2");
    let run = |client: &[&str]| succeeded(&world.run(&["--egress", "relay", "--upstream", URL], client));
    assert_eq!(run(&["python3", "odd.py", "fingerprint", "other.test"]), own, "relayed untouched");
    assert_eq!(run(&["python3", "-c", ECHO, "203.0.113.12", "7"]), "echoed\n");
    assert_eq!(run(&["python3", "-c", ECHO, "raw.test", "7"]), "echoed\n");
    assert_eq!(run(&["python3", "odd.py", "banner", "raw.test", "2525"]), "220 raw.test ready\n");
    assert_nothing_went_direct(world);
    let asked = asked(world);
    for target in ["api.openai.com:443", "other.test:443", "203.0.113.12:7", "raw.test:7"] {
        assert!(asked.iter().any(|line| line.starts_with(&format!("CONNECT {target} "))), "{target}: {asked:?}");
    }
}

fn names_that_only_the_proxy_knows(world: &World) {
    let _squid = squid(world, "http_port 203.0.113.14:3128");
    wall_off(world);
    let run = |client: &[&str]| succeeded(&world.run(&["--upstream", URL], client));
    run(&["curl", "-fsS", "https://inner.acme.test/v1"]);
    let [request] = &world.internet.take_requests()[..] else { panic!("one request expected") };
    assert_eq!((request.sni.as_str(), request.header("x-api-key")), ("inner.acme.test", Some(ACME_KEY)));
    let root = world.path("root.pem");
    run(&["curl", "-fsS", "--cacert", root.to_str().unwrap(), "https://only.proxy.test/"]);
    // Also where the uplink carries what is not intercepted.
    assert_eq!(run(&["python3", "odd.py", "banner", "raw.proxy.test", "2525"]), "220 raw.test ready\n");
    let address = |name: &str| run(&["getent", "ahostsv4", name]).split(' ').next().unwrap().to_owned();
    assert!(address("only.proxy.test").starts_with("198.18."));
    assert_eq!(address("other.test"), "203.0.113.11", "what a resolver knows is told as it is");
    assert_nothing_went_direct(world);
    let unknown = world.run(&["--upstream", "none"], &["getent", "ahostsv4", "only.proxy.test"]);
    assert!(!unknown.status.success(), "{}", show(&unknown));
}

fn a_dead_resolver_is_no_hindrance(world: &World) {
    let _squid = squid(world, "http_port 203.0.113.14:3128");
    for text in ["", "nameserver 198.51.100.77\n"] {
        fs::write(world.path("resolv.conf"), text).unwrap();
        injected(world, URL, "--http1.1");
    }
}

fn variables_choose_and_except(world: &World) {
    let _squid = squid(world, "http_port 203.0.113.14:3128");
    for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        let mut command =
            world.authsome(&[], &["sh", "-c", "env; curl -fsS https://api.openai.com/ https://other.test/ --cacert $0 || exit 0", "x"]);
        command.env(variable, URL).env("NO_PROXY", "localhost, .other.test:443,api.openai.com:8443");
        let said = succeeded(&finish(&mut command));
        assert!(!said.to_lowercase().contains("_proxy="), "{said}");
    }
    let said = asked(world);
    assert!(said.iter().any(|line| line.starts_with("CONNECT api.openai.com:443")), "{said:?}");
    assert!(!said.iter().any(|line| line.contains("other.test")), "{said:?}");
    let count = said.len();
    // A flag goes before the variables, and the file between them.
    fs::write(world.home().join(".authsome/config.toml"), "run.upstream = \"none\"\n").unwrap();
    succeeded(&finish(world.authsome(&[], &["curl", "-fsS", "https://api.openai.com/"]).env("HTTPS_PROXY", URL)));
    assert_eq!(asked(world).len(), count);
    succeeded(&world.run(&["--upstream", URL], &["curl", "-fsS", "https://api.openai.com/"]));
    assert_eq!(asked(world).len(), count + 1);
}

fn told(output: &Output, notice: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr.matches(notice).count(), 1, "{notice}: {}", show(output));
}

fn wrong_password_is_said_once(world: &World) {
    let _squid = squid(world, "http_port 203.0.113.14:3128");
    for (url, notice) in [
        ("http://ada:wrongword@203.0.113.14:3128", "proxy 203.0.113.14:3128 wants a login other than the one given: 407 "),
        ("http://203.0.113.14:3128", "proxy 203.0.113.14:3128 wants a login: 407 "),
    ] {
        let client =
            "for n in 1 2; do curl -sSi https://api.openai.com/; curl -sS https://other.test/; curl -sS https://pinned.test/; done; true";
        let output = world.run(&["--upstream", url], &["sh", "-c", client]);
        let said = succeeded(&output).to_lowercase();
        assert!(said.contains(" 502") && said.contains("x-authsome-error: proxy-login"), "{said}");
        assert!(!show(&output).contains("wrongword"), "{}", show(&output));
        told(&output, notice);
    }
    assert!(world.internet.take_requests().is_empty());
}

fn proxy_that_is_down_is_said(world: &World) {
    let client = "curl -sSi https://api.openai.com/; curl -sS https://other.test/; true";
    let output = world.run(&["--upstream", URL], &["sh", "-c", client]);
    assert!(succeeded(&output).to_lowercase().contains("x-authsome-error: proxy-unusable"));
    told(&output, "proxy 203.0.113.14:3128: connect to 203.0.113.14:3128: Connection refused");
    assert!(world.internet.take_requests().is_empty());
}

fn tinyproxy(world: &World, ip: &str) -> Command {
    let conf = world.path("tinyproxy.conf");
    fs::write(&conf, format!("Port 3128\nListen {ip}\nTimeout 600\nConnectPort 443\nBasicAuth ada tinyword\n")).unwrap();
    let mut command = world.command(&["tinyproxy", "-d", "-c"]);
    command.arg(conf).uid(UID).gid(GID);
    command
}

fn refused_port_is_said(world: &World) {
    let _proxy = Origin::start(world, &mut tinyproxy(world, IP), "Accepting connections");
    wall_off(world);
    injected(world, TINY, "--http2");
    let output = world.run(&["--egress", "relay", "--upstream", TINY], &["python3", "-c", ECHO, "raw.test", "8443"]);
    assert!(!output.status.success(), "{}", show(&output));
    told(&output, "proxy 203.0.113.14:3128 does not let through to raw.test:8443: 403 ");
    assert_nothing_went_direct(world);
}

fn socks5(world: &World) {
    let script = "microsocks -i 203.0.113.14 -p 3128 -u ada -P p@ssw0rd & until (: <>/dev/tcp/203.0.113.14/3128) 2>/dev/null; do :; done; echo ready; wait";
    let _proxy = Origin::start(world, &mut world.command(&["bash", "-c", script]), "ready");
    wall_off(world);
    for scheme in ["socks5", "socks5h"] {
        injected(world, &format!("{scheme}://ada:{PASSWORD}@203.0.113.14:3128"), "--http2");
    }
    let url = format!("socks5://ada:{PASSWORD}@203.0.113.14:3128");
    let run = |client: &[&str]| succeeded(&world.run(&["--egress", "relay", "--upstream", &url], client));
    assert_eq!(run(&["python3", "-c", ECHO, "203.0.113.12", "8443"]), "echoed\n");
    assert_eq!(run(&["python3", "odd.py", "banner", "raw.test", "2525"]), "220 raw.test ready\n");
    assert_nothing_went_direct(world);
    let output = world.run(&["--upstream", "socks5://ada:wrongword@203.0.113.14:3128"], &["curl", "-sSi", "https://api.openai.com/"]);
    assert!(succeeded(&output).to_lowercase().contains("x-authsome-error: proxy-login"), "{}", show(&output));
    told(&output, "proxy 203.0.113.14:3128 wants a login other than the one given");
}

fn proxy_behind_tls(world: &World) {
    let (certificate, key) = (world.path("programs.pem"), world.path("programs.key"));
    let listen = format!("https_port 203.0.113.14:3128 tls-cert={} tls-key={}", certificate.display(), key.display());
    let _squid = squid(world, &listen);
    wall_off(world);
    let url = format!("https://ada:{PASSWORD}@programs.acme.test:3128");
    injected(world, &url, "--http1.1");
    injected(world, &url, "--http2");
    let run = |client: &[&str]| succeeded(&world.run(&["--egress", "relay", "--upstream", &url], client));
    assert_eq!(run(&["python3", "-c", ECHO, "raw.test", "7"]), "echoed\n");
    assert_eq!(run(&["python3", "odd.py", "banner", "raw.test", "2525"]), "220 raw.test ready\n");
    assert_nothing_went_direct(world);
    // The same proxy, but nothing says that its certificate is to be trusted.
    let mut command = world.command(&["timeout", "--foreground", "60", world.path("authsome").to_str().unwrap()]);
    command.args(["run", "--transparent", "--upstream", &url, "--", "curl", "-sSi", "https://api.openai.com/"]);
    let output = finish(&mut world.start_as_mode(command));
    assert!(succeeded(&output).to_lowercase().contains("x-authsome-error: proxy-unusable"), "{}", show(&output));
    told(&output, "proxy programs.acme.test:3128: programs.acme.test:3128: the server's certificate does not verify: unknown issuer");
}

fn forbidden_addresses_are_not_asked_for(world: &World) {
    let _squid = squid(world, "http_port 203.0.113.14:3128");
    let client = "for h in 169.254.169.254 198.51.100.2 '[::ffff:169.254.169.254]'; do curl -sS --max-time 5 -k https://$h/; curl -sS --max-time 5 http://$h/; done; true";
    succeeded(&world.run(&["--egress", "relay", "--upstream", URL], &["sh", "-c", client]));
    assert_eq!(asked(world), Vec::<String>::new());
}

/// As a company's agent on the user's own machine.
fn proxy_on_loopback(world: &World) {
    let mut proxy = tinyproxy(world, "127.0.0.1");
    proxy.stdout(std::process::Stdio::piped());
    let mut child = proxy.spawn().unwrap();
    std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()))
        .map_while(Result::ok)
        .find(|line| line.contains("Accepting connections"))
        .expect("tinyproxy listens");
    let url = TINY.replace(IP, "127.0.0.1");
    let run = |client: &[&str]| world.run(&["--upstream", &url], client);
    succeeded(&run(&["curl", "-fsS", "https://api.openai.com/"]));
    assert_eq!(world.internet.take_requests().len(), 1);
    // The proxy would reach what the command may not.
    fs::write(world.path("hosts"), "127.0.0.1 localhost\n::1 localhost\n127.0.0.1 sneaky.test\n").unwrap();
    let output = run(&["sh", "-c", "curl -sS -k --max-time 5 --resolve sneaky.test:443:203.0.113.11 https://sneaky.test/; true"]);
    assert!(!show(&output).contains("proxy 127.0.0.1"), "the proxy was asked: {}", show(&output));
    let direct = run(&["sh", "-c", "curl -sS --max-time 5 http://127.0.0.1:3128/; curl -sS --max-time 5 http://198.51.100.2:3128/; true"]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!String::from_utf8_lossy(&direct.stdout).contains("tinyproxy"), "{}", show(&direct));
}

fn rules_hold_for_names_at_the_proxy(world: &World) {
    let _squid = squid(world, "http_port 203.0.113.14:3128");
    let root = world.path("root.pem");
    let client = ["curl", "-fsS", "--cacert", root.to_str().unwrap(), "https://only.proxy.test/"];
    assert!(!world.run(&["--upstream", URL, "--allow", "other.test"], &client).status.success());
    assert_eq!(asked(world), Vec::<String>::new());
    succeeded(&world.run(&["--upstream", URL, "--allow", "only.proxy.test"], &client));
}

fn environment_mode(world: &World) {
    let _squid = squid(world, "http_port 203.0.113.14:3128");
    wall_off(world);
    let run = |url: &str, client: &str| finish(&mut world.by_environment(&["--upstream", url], &["sh", "-c", client]));
    succeeded(&run(URL, "curl -fsS https://api.openai.com/ && curl -fsS https://only.proxy.test/ && curl -fsS http://other.test/headers"));
    let requests = world.internet.take_requests();
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[0].header("authorization"), Some(format!("Bearer {OPENAI_KEY}").as_str()));
    assert!(requests.iter().all(|request| request.header("proxy-authorization").is_none()));
    assert!(asked(world).contains(&"GET http://other.test/headers TCP_MISS/200".to_owned()), "{:?}", asked(world));
    let wrong = "http://ada:wrongword@203.0.113.14:3128";
    let output = run(wrong, "curl -sSi https://api.openai.com/; curl -sSi http://other.test/");
    assert_eq!(succeeded(&output).to_lowercase().matches("x-authsome-error: proxy-login").count(), 2, "{}", show(&output));
    told(&output, "wants a login other than the one given: 407");
    assert_nothing_went_direct(world);
}

fn bad_input_starts_nothing(world: &World) {
    let no_certificate = world.home().join("hosts.txt");
    fs::write(&no_certificate, "no certificate").unwrap();
    let refused = |output: &Output, setting: &str| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{}", show(output));
        assert!(
            stderr.contains(&format!("error: {setting}: ")) && !stderr.contains("secretword") && output.stdout.is_empty(),
            "{}",
            show(output)
        );
    };
    for url in [
        "http://ada:secretword@proxy.acme.test",
        "ftp://ada:secretword@proxy.acme.test:21",
        "http://ada:secretword@:3128",
        "proxy acme",
        "",
    ] {
        refused(&world.run(&["--upstream", url], &["echo", "started"]), "--upstream");
        refused(&finish(&mut world.by_environment(&["--upstream", url], &["echo", "started"])), "--upstream");
    }
    let with = |name: &str| finish(world.authsome(&[], &["echo", "started"]).env(name, "http://ada:secretword@proxy.acme.test"));
    refused(&with("HTTPS_PROXY"), "HTTPS_PROXY");
    refused(&with("all_proxy"), "all_proxy");
    let ca = ["--upstream", "https://proxy.acme.test:3128", "--upstream-ca", no_certificate.to_str().unwrap()];
    refused(&world.run(&ca, &["echo", "started"]), "--upstream-ca");
    fs::write(world.home().join(".authsome/config.toml"), "run.upstream = \"http://ada:secretword@proxy.acme.test\"\n").unwrap();
    refused(&world.run(&[], &["echo", "started"]), "run.upstream");
}

fn password_is_not_shown(world: &World) {
    let client = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null; true";
    let output = world.run(&["-vv", "--upstream", URL], &["sh", "-c", client]);
    assert!(!show(&output).contains(PASSWORD) && !show(&output).contains("p@ssw0rd"), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("--upstream"), "the first process's arguments were read: {}", show(&output));
    let plan = world.run(&["--dry-run", "--upstream", URL], &["true"]);
    assert!(succeeded(&plan).contains("via 203.0.113.14:3128") && !show(&plan).contains(PASSWORD), "{}", show(&plan));
}

fn doctor_tries_it(world: &World) {
    let doctor = |url: &str| {
        let mut command = world.command(&[world.path("authsome").to_str().unwrap(), "doctor"]);
        command.env("HTTPS_PROXY", url);
        let output = finish(&mut world.start_as_mode(command));
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!stdout.contains(PASSWORD), "{stdout}");
        stdout.lines().find(|line| line.contains(" upstream ")).unwrap_or_else(|| panic!("{}", show(&output))).to_owned()
    };
    let down = doctor(URL);
    assert!(
        down.starts_with("FAILED") && down.contains("proxy 203.0.113.14:3128: connect to 203.0.113.14:3128: Connection refused"),
        "{down}"
    );
    assert!(doctor("http://proxy.acme.test").contains("HTTPS_PROXY: the proxy's URL names no port"));
    let _squid = squid(world, "http_port 203.0.113.14:3128");
    let up = doctor(URL);
    assert!(up.starts_with("ok") && up.contains("203.0.113.14:3128 answers"), "{up}");
    assert!(doctor("").contains("none; connections go direct"));
}
