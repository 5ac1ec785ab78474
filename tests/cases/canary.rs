//! A made-up key is stored and used; then everything that authsome printed, wrote or left is searched for it in every form.

use crate::{
    Case,
    support::world::{World, feed, finish, show, succeeded},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

pub const CASES: &[Case] = &[
    ("commands_never_print_it", commands_never_print_it),
    ("runs_never_print_or_leave_it", runs_never_print_or_leave_it),
    ("a_damaged_vault_never_shows_it", a_damaged_vault_never_shows_it),
    ("variables_with_keys_reach_no_process_inside", variables_with_keys_reach_no_process_inside),
];

/// Every form differs from the others.
const CANARY: &str = "canary+/=%0123456789\\ABCDEF?&";
const VERBOSITIES: [&[&str]; 5] = [&["-q"], &[], &["-v"], &["-vv"], &["-vvv"]];

/// The key raw and as it may travel: percent-encoded, in JSON, in hex, in base64 at any offset.
fn forms() -> Vec<Vec<u8>> {
    use std::fmt::Write;
    let mut forms = vec![CANARY.as_bytes().to_vec(), CANARY.replace('\\', "\\\\").into_bytes()];
    for (all, upper) in [(false, true), (false, false), (true, true), (true, false)] {
        let mut text = String::new();
        for byte in CANARY.bytes() {
            match (byte.is_ascii_alphanumeric() && !all, upper) {
                (true, _) => text.push(char::from(byte)),
                (false, true) => write!(text, "%{byte:02X}").unwrap(),
                (false, false) => write!(text, "%{byte:02x}").unwrap(),
            }
        }
        forms.push(text.replace('%', "").into_bytes());
        forms.push(text.into_bytes());
    }
    for offset in 0..3 {
        let mut child = Command::new("base64").arg("-w0").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        use std::io::Write;
        child.stdin.take().unwrap().write_all(&[&b"xx"[..offset], CANARY.as_bytes()].concat()).unwrap();
        let text = child.wait_with_output().unwrap().stdout;
        // What the neighbours change is at both ends.
        let inner = text[4..text.len() - 4].to_vec();
        forms.push(
            inner
                .iter()
                .map(|byte| {
                    if *byte == b'+' {
                        b'-'
                    } else if *byte == b'/' {
                        b'_'
                    } else {
                        *byte
                    }
                })
                .collect(),
        );
        forms.push(inner);
    }
    forms
}

fn contains(text: &[u8]) -> bool {
    forms().iter().any(|form| text.windows(form.len()).any(|window| window == form.as_slice()))
}

#[track_caller]
fn clean(what: &dyn std::fmt::Debug, output: &Output) {
    assert!(!contains(&output.stdout) && !contains(&output.stderr), "{what:?}: {}", show(output));
}

/// Files below a directory that show it.
fn files_with_it(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files_with_it(&entry.path()));
        } else if kind.is_file()
            && entry.path() != Path::new(env!("CARGO_BIN_EXE_authsome"))
            && fs::read(entry.path()).is_ok_and(|text| contains(&text))
        {
            found.push(entry.path());
        }
    }
    found
}

fn authsome(world: &World, arguments: &[&str]) -> Command {
    let mut command = world.command(&["timeout", "--foreground", "-k", "5", "60"]);
    command.arg(world.path("authsome")).args(arguments).env("TMPDIR", world.path("tmp")).env("RUST_LOG", "trace");
    world.start_as_mode(command)
}

/// The canary is the key of `acme`; a second one of `openai`'s stays as it is.
fn store(world: &World) {
    fs::create_dir(world.path("tmp")).unwrap();
    fs::set_permissions(world.path("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    let child = authsome(world, &["login", "acme", "--force", "--stdin"]).stdin(Stdio::piped()).spawn().unwrap();
    let output = feed(child, CANARY.as_bytes());
    succeeded(&output);
    clean(&"login", &output);
    // What is looked for is there to be found.
    assert!(contains(&finish(&mut authsome(world, &["export", "acme", "--format", "json"])).stdout), "the search is blind");
}

fn commands_never_print_it(world: &World) {
    store(world);
    for arguments in [
        &["list"][..],
        &["list", "--all"],
        &["inspect", "acme"],
        &["get", "acme"],
        &["connections", "inspect", "acme"],
        &["provider", "list"],
        &["provider", "inspect", "acme"],
        &["whoami"],
        &["log"],
        &["doctor"],
        &["ca", "show"],
        &["login", "acme", "--from-env", "ACME_KEY"],
        &["login", "acme", "--stdin"],
        &["export", "acme", "--connection", "none"],
        &["set-default", "acme", "none"],
        &["run", "--transparent", "--dry-run", "--", "true"],
        &["logout", "acme", "--connection", "none"],
    ] {
        for verbosity in VERBOSITIES {
            for json in [&[][..], &["--json"]] {
                let log_file: &[&str] = if verbosity.is_empty() { &["--log-file", "trace"] } else { &[] };
                let all = [arguments, verbosity, json, log_file].concat();
                // `--` ends the options.
                let all = if arguments[0] == "run" { [verbosity, json, log_file, arguments].concat() } else { all };
                let output = finish(authsome(world, &all).env("ACME_KEY", CANARY));
                clean(&all, &output);
            }
        }
    }
    assert_eq!(files_with_it(&world.path("")), Vec::<PathBuf>::new());
}

/// What a run meets: answers that echo, errors of each kind, rules, a client that does not trust us.
const CLIENT: &str = "for url in https://api.acme.test/v1 https://api.acme.test/headers https://expired.acme.test/ https://wronghost.acme.test/ \
    http://api.acme.test/ https://other.test/ https://nowhere.test/; do curl -sS --max-time 20 -H \"X-Api-Key: $ACME_KEY\" $url; done; \
    curl -sS --max-time 20 -X DELETE https://api.acme.test/v1; SSL_CERT_FILE=/dev/null CURL_CA_BUNDLE=/dev/null curl -sS https://api.acme.test/; \
    env; cat /proc/*/environ /proc/*/cmdline /proc/*/maps 2>/dev/null; grep -rs canary $TMPDIR $HOME /tmp/authsome* ; true";

fn runs_never_print_or_leave_it(world: &World) {
    store(world);
    for mode in [&["--transparent"][..], &[]] {
        for verbosity in VERBOSITIES {
            let root = world.path("root.pem");
            let options = ["--upstream-ca", root.to_str().unwrap(), "--deny", "DELETE api.acme.test"];
            let log_file: &[&str] = if verbosity == ["-vvv"] { &["--log-file", "trace"] } else { &[] };
            let arguments = [verbosity, log_file, &["run"], mode, &options, &["--", "sh", "-c", CLIENT]].concat();
            let output = finish(&mut authsome(world, &arguments));
            clean(&arguments, &output);
        }
    }
    let arrived = world.internet.take_requests();
    assert!(arrived.iter().any(|request| request.header("x-api-key") == Some(CANARY)), "the key was used");
    assert!(fs::metadata(world.home().join("trace")).unwrap().len() > 0);
    for arguments in [&["log", "-n", "1000"][..], &["log", "--json", "-n", "1000"]] {
        let output = finish(&mut authsome(world, arguments));
        succeeded(&output);
        clean(&arguments, &output);
    }
    assert_eq!(files_with_it(&world.path("")), Vec::<PathBuf>::new());
}

fn a_damaged_vault_never_shows_it(world: &World) {
    store(world);
    let vault = world.home().join(".authsome/vault");
    let files = |directory: &Path| -> Vec<PathBuf> {
        let mut pending = vec![directory.to_owned()];
        let mut found = Vec::new();
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() { pending.push(entry.path()) } else { found.push(entry.path()) }
            }
        }
        found
    };
    for file in files(&vault).into_iter().filter(|file| fs::metadata(file).unwrap().len() > 0) {
        let whole = fs::read(&file).unwrap();
        for damaged in [&whole[..whole.len() / 2], b"", b"{\"api_key\": 1}"] {
            fs::write(&file, damaged).unwrap();
            let call = "curl -sS --max-time 20 https://api.acme.test/; true";
            let root = world.path("root.pem");
            let run = ["-vvv", "run", "--transparent", "--upstream-ca", root.to_str().unwrap(), "--", "sh", "-c", call];
            for arguments in [&["list", "-vv"][..], &["inspect", "acme"], &["export", "acme"], &["doctor"], &run] {
                let output = finish(&mut authsome(world, arguments));
                // Another provider's file may be the damaged one.
                if !(arguments[0] == "export" && output.status.success()) {
                    clean(&(&file, arguments), &output);
                }
            }
        }
        fs::write(&file, &whole).unwrap();
    }
    succeeded(&finish(&mut authsome(world, &["export", "acme"])));
}

/// Keys that the user's shell has in its variables: the child sees the placeholder, and nobody in its reach sees more.
fn variables_with_keys_reach_no_process_inside(world: &World) {
    let client = ["sh", "-c", "env; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'"];
    let output = finish(world.authsome(&[], &client).env("ACME_KEY", CANARY).env("AUTHSOME_MASTER_KEY", "AGE-SECRET-KEY-1CANARY"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!contains(said.as_bytes()) && !said.contains("AGE-SECRET-KEY-1CANARY"), "{said}");
}
