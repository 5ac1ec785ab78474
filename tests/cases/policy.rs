//! Rules on what the child may reach hold on every way out.

use crate::{
    Case,
    cases::relay::ECHOED,
    support::world::{OPENAI_KEY, World, show, succeeded},
};

pub const CASES: &[Case] = &[
    ("only_the_allowed_host_works", only_the_allowed_host_works),
    ("denied_names_are_not_looked_up", denied_names_are_not_looked_up),
    ("method_and_path_decide_inside_tls", method_and_path_decide_inside_tls),
    ("a_lying_name_is_denied", a_lying_name_is_denied),
    ("every_port_and_protocol_is_under_the_rules", every_port_and_protocol_is_under_the_rules),
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
