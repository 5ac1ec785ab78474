//! Rules on what the child may reach hold on every way out.

use crate::{
    Case,
    cases::relay::ECHOED,
    support::world::{Mode, OPENAI_KEY, World, finish, show, succeeded},
};

pub const CASES: &[Case] = &[
    ("only_the_allowed_host_works", only_the_allowed_host_works),
    ("denied_names_are_not_looked_up", denied_names_are_not_looked_up),
    ("method_and_path_decide_inside_tls", method_and_path_decide_inside_tls),
    ("a_lying_name_is_denied", a_lying_name_is_denied),
    ("every_port_and_protocol_is_under_the_rules", every_port_and_protocol_is_under_the_rules),
    ("rules_leave_no_other_protocol", rules_leave_no_other_protocol),
    ("a_named_address_of_the_host_is_reached", a_named_address_of_the_host_is_reached),
    ("a_runs_own_log_is_its_policy", a_runs_own_log_is_its_policy),
    ("check_knows_where_a_provider_is", check_knows_where_a_provider_is),
    ("rules_come_from_files_and_are_shown", rules_come_from_files_and_are_shown),
];

fn only_the_allowed_host_works(world: &World) {
    let root = world.path("root.pem");
    let curl = |more: &[&str]| -> Vec<String> {
        let base = ["curl", "-sS", "--max-time", "20", "--cacert", root.to_str().unwrap(), "-w", "%{http_code}", "-o", "/dev/null"];
        base.iter().chain(more).map(|text| (*text).to_owned()).collect()
    };
    let run = |client: Vec<String>| world.run(&["--allow", "other.test:443"], &client.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(succeeded(&run(curl(&["https://other.test/"]))), "200");
    world.internet.take_requests();
    assert_eq!(succeeded(&run(curl(&["http://other.test/"]))), "403", "plain HTTP is another port");
    for host in ["203.0.113.10", "[2001:db8:113::10]"] {
        let to = format!("pinned.test:443:{host}");
        let output = run(curl(&["--resolve", &to, "https://pinned.test/"]));
        assert!(!output.status.success(), "{host}: {}", show(&output));
    }
    assert!(world.internet.take_requests().is_empty());
    let log = world.command(&[world.path("authsome").to_str().unwrap(), "log"]);
    let said = succeeded(&crate::support::world::finish(&mut world.start_as_mode(log)));
    assert!(said.contains("denied     tls pinned.test  no rule allows it; add `--allow 'pinned.test:443'`"), "{said}");
    assert!(said.contains("denied     http other.test:80  403  no rule allows it; add `--allow 'other.test:80'`"), "{said}");
}

fn denied_names_are_not_looked_up(world: &World) {
    for transport in ["udp", "tcp"] {
        let ask = |rules: &[&str]| succeeded(&world.run(rules, &["python3", "ask_dns.py", "203.0.113.53", transport, "other.test", "1"]));
        world.internet.take_questions();
        for rules in [["--allow", "api.acme.test"], ["--deny", "other.test"]] {
            assert!(ask(&rules).starts_with("rcode=3 tc=0 answers=0\n"), "{rules:?}");
        }
        let asked = world.internet.take_questions();
        assert!(!asked.iter().any(|name| name.starts_with("other.test")), "the question left: {asked:?}");
        assert!(ask(&["--allow", "*.test"]).starts_with("rcode=0 tc=0 answers=1\n"));
        assert!(world.internet.take_questions().contains(&"other.test.".to_owned()));
    }
}

fn method_and_path_decide_inside_tls(world: &World) {
    let rules = ["--allow", "GET api.openai.com/v1/**", "--allow", "POST other.test/headers", "--deny", "*/v1/admin/**"];
    let status = |client: &[&str]| {
        let curl = ["curl", "-sS", "--path-as-is", "--max-time", "20", "-w", "%{http_code}", "-o", "/dev/null"];
        succeeded(&world.run(&rules, &[&curl[..], client].concat()))
    };
    assert_eq!(status(&["https://api.openai.com/v1/models"]), "200");
    assert_eq!(status(&["-d", "x", "https://other.test/headers"]), "200");
    let passed = world.internet.take_requests();
    assert_eq!(passed.len(), 2);
    assert_eq!(passed[0].header("authorization"), Some(format!("Bearer {OPENAI_KEY}").as_str()));
    for client in [
        &["-d", "x", "https://api.openai.com/v1/models"][..],
        &["https://api.openai.com/v2"],
        &["https://api.openai.com/v1/admin/x"],
        &["https://api.openai.com/v1/%61dmin/x"],
        &["https://api.openai.com/v1/../v2"],
        &["https://other.test/headers"],
        &["http://other.test/headers"],
    ] {
        assert_eq!(status(client), "403", "{client:?}");
    }
    assert!(world.internet.take_requests().is_empty());
}

fn a_lying_name_is_denied(world: &World) {
    let root = world.path("root.pem");
    let curl = |at: &str| {
        ["curl", "-fsS", "--max-time", "20", "--cacert", root.to_str().unwrap(), "--resolve", at, "https://other.test/"].map(str::to_owned)
    };
    let (lie, truth) = (curl("other.test:443:203.0.113.10"), curl("other.test:443:203.0.113.11"));
    let inside = |rules: &[&str], client: &[String; 9], first: &str| {
        let script = format!("{first}; exec \"$@\"");
        let shell = ["sh", "-c", &script, "sh"].into_iter().chain(client.iter().map(String::as_str)).collect::<Vec<_>>();
        world.run(rules, &shell)
    };
    let rules = ["--allow", "other.test"];
    succeeded(&inside(&rules, &truth, "getent ahostsv4 other.test"));
    // The server at the other address serves every name, so the request would arrive.
    succeeded(&inside(&[], &lie, "true"));
    assert_eq!(world.internet.take_requests().len(), 2);
    for (rules, first) in [(&rules[..], "getent ahostsv4 other.test"), (&["--deny", "api.acme.test:443"], "getent ahostsv4 api.acme.test")]
    {
        let output = inside(rules, &lie, first);
        assert!(!output.status.success(), "{rules:?}: {}", show(&output));
    }
    assert!(world.internet.take_requests().is_empty());
}

fn every_port_and_protocol_is_under_the_rules(world: &World) {
    for (host, port) in [("203.0.113.12", "7"), ("2001:db8:113::12", "8443")] {
        let rule = if host.contains(':') { format!("tcp://[{host}]:{port}") } else { format!("tcp://{host}:{port}") };
        let client = ["python3", "odd.py", "tcp", host, port];
        assert_eq!(succeeded(&world.run(&["--allow", &rule], &client)).trim(), ECHOED, "{rule}");
        let said = world.run(&["--allow", "api.acme.test"], &client);
        assert_ne!(String::from_utf8_lossy(&said.stdout).trim(), ECHOED, "{host} {port}");
        let banner = world.run(&["--allow", &rule], &["python3", "odd.py", "banner", host, "2525"]);
        assert!(!String::from_utf8_lossy(&banner.stdout).contains("220"), "{}", show(&banner));
    }
    assert_eq!(succeeded(&world.run(&["--allow", "*"], &["python3", "odd.py", "udp", "203.0.113.12", "7"])), "EPERM\n");
    assert_eq!(succeeded(&world.run(&["--allow", "*"], &["python3", "odd.py", "banner", "203.0.113.12", "2525"])), "220 raw.test ready\n");
}

/// What the veth carries without rules, it does not carry with any; a TCP connection that no rule allows is reset, on whatever port.
fn rules_leave_no_other_protocol(world: &World) {
    let rules = ["--allow", "203.0.113.12:7"];
    let carried = world.mode == Mode::Sudo;
    for (client, without) in [
        (&["python3", "odd.py", "udp", "203.0.113.12", "7"][..], "ping\n"),
        (&["python3", "odd.py", "udp", "2001:db8:113::12", "7"], "ping\n"),
        (&["python3", "odd.py", "ping", "203.0.113.12"], "ping\n"),
    ] {
        assert_eq!(succeeded(&world.inside(client)) == without, carried, "{client:?}");
        // A relay has no ICMP, so the socket itself is not to be had.
        let refused = if client[2] == "ping" && !carried { "EACCES\n" } else { "EPERM\n" };
        assert_eq!(succeeded(&world.run(&rules, client)), refused, "{client:?}");
    }
    assert_eq!(succeeded(&world.run(&rules, &["python3", "odd.py", "tcp", "203.0.113.12", "8443"])), "ECONNRESET\n");
    assert_eq!(succeeded(&world.run(&rules, &["python3", "odd.py", "banner", "203.0.113.12", "2525"])), "ECONNRESET\n");
    let log = world.command(&[world.path("authsome").to_str().unwrap(), "log", "--json"]);
    let records: serde_json::Value = serde_json::from_str(&succeeded(&finish(&mut world.start_as_mode(log)))).unwrap();
    for port in [8443, 2525] {
        let denied = |record: &&serde_json::Value| record["port"] == port && record["decision"] == "denied";
        assert!(records.as_array().unwrap().iter().any(|record| denied(&record)), "{port}: {records:#}");
    }
}

/// The host's own address and the metadata service's, which no wider rule opens.
fn a_named_address_of_the_host_is_reached(world: &World) {
    let added = std::process::Command::new("ip").args(["addr", "add", "169.254.169.254/32", "dev", "lo"]).status().unwrap();
    assert!(added.success());
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|mut stream| drop(std::io::Write::write_all(&mut stream, b"hello")));
    });
    for address in ["198.51.100.2", "169.254.169.254"] {
        let text = port.to_string();
        let client = ["python3", "probe.py", "tcp", address, &text];
        let reached = |rule: &str| succeeded(&world.run(&["--allow", rule], &client)) == "done\n";
        assert!(reached(&format!("{address}:{port}")) && reached(address), "{address}");
        for wider in ["*", "0.0.0.0/0", &format!("{address}:1"), "203.0.113.12"] {
            assert!(!reached(wider), "{address} by {wider}");
        }
    }
}

/// What a run did, and nothing more, is allowed by the rules that its log comes to.
fn a_runs_own_log_is_its_policy(world: &World) {
    let script =
        "echo $AUTHSOME_RUN_ID; curl -fsS -o /dev/null https://api.openai.com/v1/models && python3 odd.py banner 203.0.113.12 2525";
    let said = succeeded(&world.inside(&["sh", "-c", script]));
    let id = said.lines().next().unwrap();
    let mut from_log = world.command(&[world.path("authsome").to_str().unwrap(), "policy", "from-log", id]);
    from_log.arg("-q");
    let rules = succeeded(&finish(&mut world.start_as_mode(from_log)));
    let port_2525 = if world.mode == Mode::Rootless { "  \"203.0.113.12:2525\",\n" } else { "" };
    assert_eq!(rules, format!("allow = [\n{port_2525}  \"GET api.openai.com:443/v1/models\",\n]\n"));
    let file = world.home().join("from-log.toml");
    std::fs::write(&file, rules).unwrap();
    let curl = ["curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}"];
    let status = |url| succeeded(&world.run(&["--policy", file.to_str().unwrap()], &[&curl[..], &[url]].concat()));
    assert_eq!(status("https://api.openai.com/v1/models"), "200");
    assert_eq!(status("https://api.openai.com/v1/files"), "403");
}

/// A provider whose address was given at the login.
fn check_knows_where_a_provider_is(world: &World) {
    let definition = r#"{"schema_version": 1, "name": "own", "display_name": "Own", "auth_type": "api_key", "flow": "api_key",
        "api_url": "{base_url}", "api_key": {"header_name": "X-Api-Key", "header_prefix": null, "env_var": "OWN_KEY"}}"#;
    std::fs::write(world.home().join(".authsome/providers/own.json"), definition).unwrap();
    let policy = world.home().join("own.toml");
    std::fs::write(&policy, "allow = [\"provider:own\"]\n").unwrap();
    let authsome = world.path("authsome");
    let mut login = world.command(&[authsome.to_str().unwrap(), "login", "own", "--base-url", "https://own.acme.test", "--stdin"]);
    login.stdin(std::process::Stdio::piped());
    succeeded(&crate::support::world::feed(world.start_as_mode(login).spawn().unwrap(), b"own-0123456789abcdef"));
    for (url, allowed) in [("https://own.acme.test/v1", true), ("https://api.acme.test/v1", false)] {
        let check = world.command(&[authsome.to_str().unwrap(), "policy", "check", policy.to_str().unwrap(), url]);
        let output = finish(&mut world.start_as_mode(check));
        assert_eq!(output.status.success(), allowed, "{url}: {}", show(&output));
    }
}

fn rules_come_from_files_and_are_shown(world: &World) {
    let file = world.home().join("agent.toml");
    std::fs::write(&file, "allow = [\"provider:openai\"]\ndeny = [\"api.openai.com/v1/files/**\"]\n").unwrap();
    let rules = ["--policy", file.to_str().unwrap()];
    let plan = succeeded(&world.run(&[&rules[..], &["--dry-run"]].concat(), &["true"]));
    assert!(plan.contains("\nallow      provider:openai\ndeny       api.openai.com/v1/files/**\n"), "{plan}");
    let curl = ["curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}"];
    let status = |url| succeeded(&world.run(&rules, &[&curl[..], &[url]].concat()));
    assert_eq!((status("https://api.openai.com/v1/models").as_str(), status("https://api.openai.com/v1/files/x").as_str()), ("200", "403"));
    assert!(!world.run(&rules, &[&curl[..], &["https://api.acme.test/"]].concat()).status.success());
}
