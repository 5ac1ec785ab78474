//! Without a namespace: clients that heed proxy variables, and what a stranger to the run gets from its proxy.

use crate::{
    Case,
    support::world::{Mode, OPENAI_KEY, PLACEHOLDER, World, feed, finish, show, succeeded},
};
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

pub const CASES: &[Case] = &[
    ("variables_are_set", variables_are_set),
    ("no_proxy_is_merged", no_proxy_is_merged),
    ("no_proxy_leads_around", no_proxy_leads_around),
    ("curl_http1", |world| injects(world, "HTTP/1.1", "curl -fsS --http1.1 -H \"authorization: Bearer $OPENAI_API_KEY\" URL")),
    ("curl_http2", |world| injects(world, "HTTP/2.0", "curl -fsS --http2 -H \"authorization: Bearer $OPENAI_API_KEY\" URL")),
    ("python_urllib", |world| injects(world, "HTTP/1.1", "/usr/bin/python3 with_urllib.py URL")),
    ("unmatched_host_shows_its_own_certificate", unmatched_host_shows_its_own_certificate),
    ("stranger_is_not_injected", stranger_is_not_injected),
    ("another_user_is_not_injected", another_user_is_not_injected),
    ("root_is_told_from_its_strangers", root_is_told_from_its_strangers),
    ("known_process_is_injected_again", known_process_is_injected_again),
    ("descendant_whose_parent_left_is_injected", descendant_whose_parent_left_is_injected),
    ("tunnel_for_another_host_is_refused", tunnel_for_another_host_is_refused),
    ("tunnel_by_address_is_not_injected", tunnel_by_address_is_not_injected),
    ("plain_http_is_forwarded", plain_http_is_forwarded),
    ("a_definitions_own_placeholder_is_told", a_definitions_own_placeholder_is_told),
    ("requests_for_an_origin_are_refused", requests_for_an_origin_are_refused),
    ("exit_codes_are_the_childs", exit_codes_are_the_childs),
    ("signals_are_as_outside", signals_are_as_outside),
    ("terminated_supervisor_terminates_the_child", terminated_supervisor_terminates_the_child),
    ("leftovers_end_with_the_run", leftovers_end_with_the_run),
    ("a_killed_runs_files_go_with_the_next", a_killed_runs_files_go_with_the_next),
    ("vault_is_refused_inside", vault_is_refused_inside),
    ("flags_of_the_other_mode_are_refused", flags_of_the_other_mode_are_refused),
];

const URL: &str = "https://api.openai.com/v1/models?limit=2";

fn inside(world: &World, client: &str) -> Output {
    finish(&mut world.by_environment(&[], &["sh", "-c", client]))
}

fn variables_are_set(world: &World) {
    let said = succeeded(&finish(
        world.by_environment(&[], &["env"]).env("AUTHSOME_MASTER_KEY_FILE", "/nowhere").env("ALL_PROXY", "socks5://h:1080"),
    ));
    let value = |name: &str| said.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).map(str::to_owned);
    let proxy = value("HTTPS_PROXY").unwrap();
    assert!(proxy.strip_prefix("http://127.0.0.1:").is_some_and(|port| port.parse::<u16>().is_ok()), "{said}");
    for name in ["HTTP_PROXY", "http_proxy", "https_proxy"] {
        assert_eq!(value(name).as_ref(), Some(&proxy), "{name}");
    }
    let is = |name: &str, wanted: &str| assert_eq!(value(name).as_deref(), Some(wanted), "{name}");
    is("NO_PROXY", "127.0.0.1,localhost,::1");
    is("NODE_USE_ENV_PROXY", "1");
    is("AUTHSOME_PROXY_MODE", "true");
    is("OPENAI_API_KEY", PLACEHOLDER);
    is("ACME_KEY", PLACEHOLDER);
    assert!(value("AUTHSOME_RUN_ID").is_some() && value("NODE_EXTRA_CA_CERTS").is_some(), "{said}");
    assert!(value("AUTHSOME_MASTER_KEY_FILE").is_none() && value("ALL_PROXY").is_none(), "{said}");
}

fn no_proxy_is_merged(world: &World) {
    for (of_user, merged) in
        [("corp.test", "corp.test,127.0.0.1,localhost,::1"), ("localhost:8443", "localhost:8443,127.0.0.1,localhost,::1")]
    {
        let output = finish(world.by_environment(&[], &["sh", "-c", "echo $NO_PROXY $no_proxy"]).env("NO_PROXY", of_user));
        assert_eq!(succeeded(&output), format!("{merged} {merged}\n"));
        assert!(!String::from_utf8_lossy(&output.stderr).contains("go around"), "{}", show(&output));
    }
}

/// Which is said where it concerns a connected provider. An entry with a port is for that port alone.
fn no_proxy_leads_around(world: &World) {
    for (of_user, around) in [("api.openai.com", true), (".openai.com", true), ("api.openai.com:8443", false)] {
        let output = finish(world.by_environment(&[], &["curl", "-fsS", URL]).env("NO_PROXY", of_user));
        let told = "authsome: api.openai.com: NO_PROXY has clients go around authsome, so nothing is injected there\n";
        assert_eq!(String::from_utf8_lossy(&output.stderr).contains(told), around, "{of_user}: {}", show(&output));
        let [request] = &world.internet.take_requests()[..] else { panic!("one request expected: {}", show(&output)) };
        assert_eq!(request.header("authorization").is_none(), around, "{of_user}: {request:?}");
    }
}

fn injects(world: &World, version: &str, client: &str) {
    let output = inside(world, &client.replace("URL", &format!("'{URL}'")));
    let requests = world.internet.take_requests();
    assert!(output.status.success(), "{}", show(&output));
    let [request] = &requests[..] else { panic!("one request expected: {requests:?}") };
    assert_eq!(request.header("authorization"), Some(format!("Bearer {OPENAI_KEY}").as_str()), "{request:?}");
    assert_eq!((request.path.as_str(), request.version.as_str()), ("/v1/models?limit=2", version));
    assert_eq!(request.header("proxy-authorization"), None);
}

/// The client trusts the origins' root and, for the other half, our authority alone.
fn unmatched_host_shows_its_own_certificate(world: &World) {
    let client = |host: &str| format!("curl -fsS --cacert {} https://{host}/", world.path("root.pem").display());
    succeeded(&inside(world, &client("other.test")));
    assert_eq!(world.internet.take_requests().len(), 1);
    let opened = inside(world, &client("api.openai.com"));
    assert_eq!(opened.status.code(), Some(60), "a connected provider's TLS is opened: {}", show(&opened));
}

fn stranger_is_not_injected(world: &World) {
    stranger(world, |client| succeeded(&world.outside(client)));
}

fn another_user_is_not_injected(world: &World) {
    let neighbour = ["setpriv", "--reuid=4250", "--regid=4250", "--clear-groups"];
    stranger(world, |client| {
        let mut command = world.command(&[&neighbour[..], client].concat());
        succeeded(&finish(command.env("CURL_CA_BUNDLE", world.path("root.pem")).current_dir("/")))
    });
}

/// Named by the flag, or by a sudo that root itself has called. The user whom sudo names and one without privilege are every other case's.
fn root_is_told_from_its_strangers(world: &World) {
    if world.mode == Mode::Rootless {
        return;
    }
    for (options, by_sudo) in [(&["--user", "root"][..], &[][..]), (&[], &[("SUDO_UID", "0"), ("SUDO_GID", "0"), ("SUDO_USER", "root")])] {
        let client = format!("echo $HTTPS_PROXY; read line; exec curl -fsS -o /dev/null http://mitm.it/ {URL}");
        let mut run = world.by_environment_of_root(options, &["sh", "-c", &client]);
        run.envs(by_sudo.iter().copied());
        let mut run = run.stdin(Stdio::piped()).spawn().unwrap();
        let mut proxy = String::new();
        BufReader::new(run.stdout.as_mut().unwrap()).read_line(&mut proxy).unwrap();
        let stranger = ["curl", "-sS", "-w", "%{http_code}", "-o", "/dev/null", "--proxy", proxy.trim()];
        let mut command = world.command(&[&stranger[..], &["http://mitm.it/"]].concat());
        assert_eq!(succeeded(&finish(&mut command)), "403", "the page is not for strangers");
        let mut command = world.command(&[&stranger[..], &["-H", "authorization: Bearer stranger", URL]].concat());
        succeeded(&finish(command.env("CURL_CA_BUNDLE", world.path("root.pem"))));
        let output = feed(run, b"\n");
        let requests = world.internet.take_requests();
        let keys: Vec<_> = requests.iter().filter_map(|request| request.header("authorization")).collect();
        assert_eq!(keys, ["Bearer stranger", &format!("Bearer {OPENAI_KEY}")], "{options:?}: {}", show(&output));
        succeeded(&output);
    }
}

/// Two connections of one process, and one of a process that it started.
fn known_process_is_injected_again(world: &World) {
    let script = format!(
        "import subprocess, urllib.request\n\
         for i in range(2): urllib.request.urlopen('{URL}').read()\n\
         subprocess.run(['curl', '-fsS', '{URL}'], check=True)"
    );
    succeeded(&finish(&mut world.by_environment(&[], &["/usr/bin/python3", "-c", &script])));
    let requests = world.internet.take_requests();
    let wanted = format!("Bearer {OPENAI_KEY}");
    assert_eq!(requests.iter().filter(|request| request.header("authorization") == Some(&wanted)).count(), 3, "{requests:?}");
}

/// The run tells its proxy's address and waits until the stranger is done.
fn stranger(world: &World, run_client: impl Fn(&[&str]) -> String) {
    let client = ["sh", "-c", "echo $HTTPS_PROXY; read line"];
    let mut run = world.by_environment(&[], &client).stdin(Stdio::piped()).spawn().unwrap();
    let mut proxy = String::new();
    BufReader::new(run.stdout.as_mut().unwrap()).read_line(&mut proxy).unwrap();
    let stranger = ["curl", "-fsS", "--proxy", proxy.trim(), "-H", "authorization: Bearer stranger", URL];
    run_client(&stranger);
    drop(run.stdin.take());
    run.wait().unwrap();
    let requests = world.internet.take_requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].header("authorization"), Some("Bearer stranger"), "its TLS went through unopened");
}

/// The shell in between has ended when the request is made.
fn descendant_whose_parent_left_is_injected(world: &World) {
    let orphan = format!("mkfifo gone done; (sh -c 'read line < gone; curl -fsS {URL}; echo > done' &) ; echo > gone; read line < done");
    succeeded(&inside(world, &orphan));
    let requests = world.internet.take_requests();
    assert_eq!(requests[0].header("authorization"), Some(format!("Bearer {OPENAI_KEY}").as_str()));
}

/// A tunnel through the proxy to one host, in which TLS with another name is begun. Says which certificate came.
fn tunnel(world: &World, asked: &str, name: &str) -> Output {
    let client = format!("exec openssl s_client -proxy ${{HTTPS_PROXY#http://}} -connect {asked} -servername {name} </dev/null 2>&1");
    inside(world, &client)
}

fn tunnel_for_another_host_is_refused(world: &World) {
    for (asked, name) in
        [("other.test:443", "api.openai.com"), ("api.openai.com:443", "other.test"), ("api.acme.test:443", "api.openai.com")]
    {
        let said = show(&tunnel(world, asked, name));
        assert!(!said.contains("BEGIN CERTIFICATE"), "{asked} {name}: {said}");
    }
    assert!(show(&tunnel(world, "api.openai.com:443", "api.openai.com")).contains("authsome CA"));
    let log = world.home().join(".authsome/log/audit.jsonl");
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(log.matches("authority-mismatch").count(), 3, "{log}");
}

fn tunnel_by_address_is_not_injected(world: &World) {
    let said = show(&tunnel(world, "203.0.113.10:443", "api.openai.com"));
    assert!(said.contains("authsome test root"), "the origin's own certificate: {said}");
}

fn plain_http_is_forwarded(world: &World) {
    succeeded(&inside(
        world,
        "curl -fsS -H \"authorization: Bearer $OPENAI_API_KEY\" -H 'proxy-authorization: Basic eDp4' http://api.openai.com/a?b",
    ));
    let [request] = &world.internet.take_requests()[..] else { panic!("one request expected") };
    assert_eq!((request.path.as_str(), request.authority.as_str()), ("/a?b", "api.openai.com"));
    assert_eq!(request.header("authorization"), Some(format!("Bearer {PLACEHOLDER}").as_str()));
    assert!(request.header("proxy-authorization").is_none() && request.header("proxy-connection").is_none(), "{request:?}");
}

/// Twilio's is of a shape that its libraries accept, and goes out as Basic authentication.
fn a_definitions_own_placeholder_is_told(world: &World) {
    world.login("twilio", r#"{"sid": "AC0123456789abcdef0123456789abcdef", "api_key": "0123456789abcdef0123456789abcdef"}"#);
    let client = "curl -fsS -u $TWILIO_ACCOUNT_SID:$TWILIO_AUTH_TOKEN http://other.test/";
    for (way, output) in [("environment", inside(world, client)), ("transparent", world.inside(&["sh", "-c", client]))] {
        succeeded(&output);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("placeholder sent to other.test: no connected provider claims it"), "{way}: {said}");
    }
}

fn requests_for_an_origin_are_refused(world: &World) {
    let status =
        |client: &str| succeeded(&inside(world, &format!("curl -sS -o body -w '%{{http_code}}' {client}; grep -q authsome: body")));
    assert_eq!(status("--noproxy '*' $HTTPS_PROXY/"), "400");
    assert_eq!(status("--noproxy '*' --request-target https://api.openai.com/ $HTTPS_PROXY/"), "400");
    assert_eq!(status("-H 'host: other.test' http://api.openai.com/"), "400");
    assert!(world.internet.take_requests().is_empty(), "no request may leave");
}

fn exit_codes_are_the_childs(world: &World) {
    for (client, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["/etc/passwd"], 126),
        (&["no-such-program"], 127),
    ] {
        let output = finish(&mut world.by_environment(&[], client));
        assert_eq!(output.status.code(), Some(code), "{client:?}: {}", show(&output));
    }
}

/// Signals 32 and 33 are the C library's own (nptl(7)); its posix_spawn(3) leaves them ignored.
fn signals_are_as_outside(world: &World) {
    let client = [
        "sed",
        "-nE",
        r"/^(CapEff|Uid|SigBlk):/p; s/^SigIgn:.*([0-7][0-9a-f]{7})$/\1/p; s/^SigIgn:.*[89a-f]([0-9a-f]{7})$/\1/p",
        "/proc/self/status",
    ];
    let said = succeeded(&finish(&mut world.by_environment(&[], &client)));
    assert_eq!(said, succeeded(&world.outside(&client)));
    assert_eq!(said.lines().count(), 4, "{said}");
    let client = ["sh", "-c", "ulimit -c; ulimit -n; umask"];
    assert_eq!(succeeded(&finish(&mut world.by_environment(&[], &client))), succeeded(&world.outside(&client)));
}

/// The command sends SIGTERM to the supervisor alone, at once.
fn terminated_supervisor_terminates_the_child(world: &World) {
    let client = r#"trap 'echo terminated; exit 5' TERM; kill -TERM $PPID; while :; do sleep 0.05; done"#;
    let output = inside(world, client);
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stdout).trim()), (Some(5), "terminated"), "{}", show(&output));
}

fn leftovers_end_with_the_run(world: &World) {
    let mark = super::death::mark(world, 11);
    let output = inside(world, &format!("setsid sh -c 'trap \"\" TERM; sleep {mark}; sleep {mark}' >/dev/null 2>&1 & echo started"));
    assert_eq!(succeeded(&output), "started\n");
    assert!(super::death::processes(&mark).is_empty(), "the job outlived the run");
}

/// While those of a run that goes on stay.
fn a_killed_runs_files_go_with_the_next(world: &World) {
    let start = || {
        let mut command = world.command(&[world.path("authsome").to_str().unwrap(), "run", "--"]);
        // The command ends with its stdin, which is ours to close: nobody else ends it once its supervisor is gone.
        command.args(["sh", "-c", "echo $NODE_EXTRA_CA_CERTS; read line"]);
        let mut run = world.start_as_mode(command).stdin(Stdio::piped()).spawn().unwrap();
        let mut path = String::new();
        BufReader::new(run.stdout.as_mut().unwrap()).read_line(&mut path).unwrap();
        (run, PathBuf::from(path.trim()))
    };
    let ((going_on, its), (mut killed, left)) = (start(), start());
    killed.kill().unwrap();
    killed.wait().unwrap();
    drop(killed.stdin.take());
    assert!(left.exists() && its.exists(), "{} {}", left.display(), its.display());
    succeeded(&inside(world, "true"));
    // DIRECTORY/trust/ca.pem
    let directories = [&left, &its].map(|file| file.ancestors().nth(2).unwrap());
    assert_eq!(directories.map(Path::exists), [false, true], "{directories:?}");
    succeeded(&feed(going_on, b"\n"));
    assert!(!directories[1].exists());
}

fn vault_is_refused_inside(world: &World) {
    let authsome_path = world.path("authsome");
    for command in ["run -- true", "export openai", "login openai --stdin"] {
        let output = inside(world, &format!("exec {} {command}", authsome_path.display()));
        assert_eq!(output.status.code(), Some(4), "{command:?}: {}", show(&output));
    }
}

fn flags_of_the_other_mode_are_refused(world: &World) {
    for flag in ["--egress=relay", "--intercept-port=8443", "--expose=80", "--publish=80", "--keep-path=/tmp"] {
        let output = finish(&mut world.by_environment(&[flag], &["echo", "started"]));
        let name = flag.split('=').next().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", show(&output));
        assert!(output.stdout.is_empty() && String::from_utf8_lossy(&output.stderr).contains(name), "{}", show(&output));
    }
}
