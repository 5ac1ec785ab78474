//! The command as its users meet it: the real binary, a home of its own, the whole output compared.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[path = "cli/killed.rs"]
mod killed;
#[path = "support/cli.rs"]
mod support;

use nix::unistd::{Uid, geteuid};
use serde_json::json;
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    process::{Command, Stdio},
};
use support::{Home, Told};

#[test]
fn a_key_is_stored_listed_exported_and_removed() {
    let home = Home::new();
    home.run(&["list"]).is(
        0,
        "",
        "No provider is connected. `authsome list --all` shows what there is, `authsome login PROVIDER` connects one.\n",
    );
    home.feed("ak-1\n", &["login", "acme", "--stdin"]).is(0, "", "Connected Acme as acme/default.\n");
    home.feed("ak-2", &["login", "acme", "--stdin", "--connection", "work", "-q"]).is(0, "", "");
    home.run(&["list"]).is(
        0,
        "PROVIDER  CONNECTION         TYPE     STATUS     EXPIRES\n\
         acme      default (default)  api_key  connected\n\
         acme      work               api_key  connected\n",
        "",
    );
    home.run(&["export", "acme"]).is(0, "export ACME_API_KEY='ak-1'\n", "");
    home.run(&["export", "acme", "--connection", "work", "--format", "dotenv"]).is(0, "ACME_API_KEY=ak-2\n", "");
    home.run(&["set-default", "acme", "work"]).is(0, "", "acme now uses work by default.\n");
    home.run(&["export", "acme", "--format", "json"]).is(0, "{\n  \"ACME_API_KEY\": \"ak-2\"\n}\n", "");
    home.run(&["logout", "acme"]).is(0, "", "Removed acme/work.\n");
    home.run(&["export", "acme"]).is(0, "export ACME_API_KEY='ak-1'\n", "");
    home.run(&["revoke", "acme"]).is(0, "", "Removed 1 connection(s) of acme.\n");
    home.run(&["logout", "acme"]).is(3, "", "error: acme is not connected\nhint: authsome login acme\n");
}

#[test]
fn json_is_one_document_of_the_promised_shape() {
    let home = Home::new();
    let login = home.feed("ak-1\n", &["--json", "login", "acme", "--stdin"]);
    assert_eq!(login.json(), json!({"status": "success", "provider": "acme", "connection": "default", "record_status": "connected"}));
    let connection = json!({
        "connection_name": "default", "is_default": true, "auth_type": "api_key", "status": "connected", "scopes": [], "expires_at": null
    });
    let acme = json!({
        "name": "acme", "display_name": "Acme", "auth_type": "api_key", "source": "custom", "connections": [connection]
    });
    assert_eq!(home.run(&["list", "--json"]).json(), json!({"bundled": [], "custom": [acme]}));
    let all = home.run(&["list", "--all", "--json"]).json();
    assert_eq!(all["custom"].as_array().unwrap().len(), 3);
    assert!(all["bundled"].as_array().unwrap().iter().any(|provider| provider["name"] == "openai" && provider["connections"] == json!([])));
    assert_eq!(home.run(&["provider", "list", "--json"]).json(), all);
    assert_eq!(
        home.run(&["logout", "acme", "--json"]).json(),
        json!({"status": "logged_out", "provider": "acme", "connection": "default"})
    );
}

#[test]
fn failures_have_their_codes_and_say_what_to_do() {
    let home = Home::new();
    home.feed("ak-1\n", &["login", "acme", "--stdin"]).is(0, "", "Connected Acme as acme/default.\n");
    for (arguments, code, kind) in [
        (&["frobnicate"][..], 2, "UsageError"),
        (&["login"], 2, "UsageError"),
        (&["login", "wide"], 2, "AuthenticationFailedError"),
        (&["login", "acme", "--force", "--flow", "device_code"], 2, "AuthenticationFailedError"),
        (&["login", "acme", "--force", "--scopes", "read"], 2, "UsageError"),
        (&["login", "acme", "--force", "--base-url", "https://acme.test"], 2, "UsageError"),
        (&["login", "acme", "--force", "--stdin"], 2, "InputCancelledError"),
        (&["login", "acme", "--force", "--from-env", "NOT_SET"], 2, "InputCancelledError"),
        (&["export", "duo"], 3, "ConnectionNotFoundError"),
        (&["export", "acme", "--connection", "none"], 3, "ConnectionNotFoundError"),
        (&["set-default", "acme", "none"], 3, "ConnectionNotFoundError"),
        (&["connections", "inspect", "duo"], 3, "ConnectionNotFoundError"),
        (&["login", "acmee"], 4, "ProviderNotFoundError"),
        (&["inspect", "../acme"], 4, "ProviderNotFoundError"),
        (&["provider", "remove", "openai"], 4, "OperationNotAllowedError"),
        (&["login", "acme", "--stdin"], 6, "ConnectionAlreadyExistsError"),
        (&["run", "--", "true"], 2, "UsageError"),
    ] {
        let mut with_json = vec!["--json"];
        with_json.extend(arguments);
        let told = home.run(&with_json);
        let document = told.json();
        assert_eq!(
            (told.code, document["error"].as_str(), told.stderr.as_str()),
            (Some(code), Some(kind), ""),
            "{arguments:?}: {document}"
        );
        let said = |key: &str| document[key].as_str().is_some_and(|text| !text.is_empty());
        assert!(said("message") && said("hint"), "{document}");
        let told = home.run(arguments);
        assert_eq!((told.code, told.stdout.as_str()), (Some(code), ""), "{arguments:?}");
    }
    home.run(&["export", "acmee"]).is(
        4,
        "",
        "error: no provider `acmee`\nhint: did you mean `acme`? `authsome list --all` shows every provider\n",
    );
}

#[test]
fn what_is_no_key_is_refused_and_not_repeated() {
    let home = Home::new().with("ACME_SECRET", "ak-9").with("EMPTY", "");
    let hint = "hint: check that the whole key was copied and nothing else; nothing was stored\n";
    home.feed("hunter2\n", &["login", "acme", "--stdin"]).is(
        2,
        "",
        &format!("error: API key of Acme does not have the form ^ak-[a-z0-9']+$\n{hint}"),
    );
    home.feed("ak-1\nak-2\n", &["login", "acme", "--stdin"]).is(
        2,
        "",
        &format!("error: API key holds a line break or another control character\n{hint}"),
    );
    home.feed("authsome-proxy-managed\n", &["login", "acme", "--stdin"]).is(
        2,
        "",
        "error: API key is a placeholder that authsome itself hands out, not a key\nhint: the real key is shown where the service makes keys\n",
    );
    home.run(&["login", "acme", "--from-env", "EMPTY"]).is(2, "", &format!("error: API key is empty\n{hint}"));
    home.run(&["list", "-q"]).is(0, "", "");
    home.run(&["login", "acme", "--from-env", "ACME_SECRET"]).is(0, "", "Connected Acme as acme/default.\n");
}

#[test]
fn the_providers_own_variable_is_used_and_said() {
    let home = Home::new().with("ACME_KEY", "ak-7");
    home.run(&["login", "acme"]).is(0, "", "Taking the key from the variable ACME_KEY.\nConnected Acme as acme/default.\n");
    home.run(&["export", "acme"]).is(0, "export ACME_API_KEY='ak-7'\n", "");
}

#[test]
fn several_fields_come_as_an_object_and_only_secrets_are_redacted() {
    let home = Home::new();
    home.feed("{\"api_key\": \"t1\"}", &["login", "duo", "--stdin"]).is(
        2,
        "",
        "error: duo takes several values: give a JSON object with api_key, sid\nhint: {\"api_key\": \"…\", \"sid\": \"…\"}\n",
    );
    home.feed("{\"api_key\": \"t1\", \"sid\": \"AC1\"}", &["login", "duo", "--stdin"]).is(0, "", "Connected Duo as duo/default.\n");
    let told = home.run(&["inspect", "duo"]);
    let connection = &told.json()["connections"][0];
    assert_eq!((&connection["api_key"], &connection["sid"]), (&json!("***REDACTED***"), &json!("AC1")));
    assert!(!told.stdout.contains("t1"));
    home.run(&["get", "duo", "--field", "sid"]).is(0, "{\n  \"sid\": \"AC1\"\n}\n", "");
    home.run(&["export", "duo"]).is(0, "export DUO_TOKEN='t1'\nexport DUO_SID='AC1'\n", "");
}

#[test]
fn inspect_shows_the_definition_and_where_it_came_from() {
    let home = Home::new();
    let acme = home.run(&["inspect", "acme"]);
    assert_eq!(acme.stdout.lines().filter(|line| line.contains("api_url")).count(), 1);
    assert_eq!(acme.json()["api_url"], "https://api.acme.test");
    assert_eq!(acme.json()["source"], "HOME/providers/acme.json");
    assert_eq!(home.run(&["provider", "inspect", "openai"]).json()["source"], "bundled");
}

#[test]
fn a_shell_can_evaluate_what_is_exported() {
    let home = Home::new();
    home.feed("ak-it's", &["login", "acme", "--stdin", "-q"]).is(0, "", "");
    let script = format!("eval \"$({} export acme)\" && printf %s \"$ACME_API_KEY\"", env!("CARGO_BIN_EXE_authsome"));
    home.told(home.clean(Command::new("sh"), &["-c", &script]).output().unwrap()).is(0, "ak-it's", "");
}

#[test]
fn everything_stored_is_private() {
    let home = Home::new();
    fs::remove_dir_all(home.path("")).unwrap();
    home.feed("sk-1234567890abcdefghijklmnopqrstuvwxyzABCDEFGH", &["login", "openai", "--stdin", "-q"]).is(0, "", "");
    let mode = |name: &str| fs::symlink_metadata(home.path(name)).unwrap().mode() & 0o7777;
    for (name, want) in [
        ("", 0o700),
        ("vault", 0o700),
        ("vault/openai", 0o700),
        ("vault/.lock", 0o600),
        ("vault/identity.txt", 0o600),
        ("vault/openai/default.age", 0o600),
    ] {
        assert_eq!(mode(name), want, "{name}");
    }
}

#[test]
fn any_age_tool_opens_a_stored_credential() {
    let home = Home::new();
    home.feed("ak-1", &["login", "acme", "--stdin", "-q"]).is(0, "", "");
    let (key, file) = (home.path("vault/identity.txt"), home.path("vault/acme/default.age"));
    let output = Command::new("age").arg("-d").arg("-i").args([&key, &file]).output().expect("age(1), package age");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["credential"], json!({"api_key": {"fields": {"api_key": "ak-1"}}}));
}

#[test]
fn the_key_can_live_elsewhere() {
    let home = Home::new();
    home.feed("ak-1", &["login", "acme", "--stdin", "-q"]).is(0, "", "");
    let elsewhere = home.path("../key.txt");
    fs::rename(home.path("vault/identity.txt"), &elsewhere).unwrap();
    home.run(&["export", "acme"]).is(
        5,
        "",
        "error: the vault key HOME/vault/identity.txt is missing, but 1 sealed credential(s) need it\n\
         hint: bring HOME/vault/identity.txt back from a backup; without it, remove each credential (authsome logout) and log in again\n",
    );
    let exported = |home: &Home| home.run(&["export", "acme"]).is(0, "export ACME_API_KEY='ak-1'\n", "");
    let text = fs::read_to_string(&elsewhere).unwrap();
    let home = home.with("AUTHSOME_MASTER_KEY_FILE", elsewhere.to_str().unwrap());
    exported(&home);
    // As orchestrators mount secrets.
    fs::rename(&elsewhere, home.path("../mounted")).unwrap();
    symlink(home.path("../mounted"), &elsewhere).unwrap();
    exported(&home);
    fs::remove_file(&elsewhere).unwrap();
    exported(&home.with("AUTHSOME_MASTER_KEY", text.lines().last().unwrap()));
}

#[test]
fn a_secret_with_a_second_name_is_refused() {
    let home = Home::new();
    home.feed("ak-1", &["login", "acme", "--stdin", "-q"]).is(0, "", "");
    fs::hard_link(home.path("vault/identity.txt"), home.path("second")).unwrap();
    home.run(&["export", "acme"]).is(
        5,
        "",
        "error: HOME/vault/identity.txt has 2 hard links; a secret file must have one name only\n\
         hint: find the other names and remove them: find / -xdev -samefile HOME/vault/identity.txt\n",
    );
}

#[test]
fn one_damaged_credential_does_not_hide_the_others() {
    let home = Home::new();
    home.feed("ak-1", &["login", "acme", "--stdin", "-q"]).is(0, "", "");
    home.feed("ak-2", &["login", "acme", "--stdin", "-q", "--connection", "work"]).is(0, "", "");
    fs::write(home.path("vault/acme/work.age"), "junk").unwrap();
    let told = home.run(&["list"]);
    assert_eq!(told.code, Some(5));
    assert!(
        told.stdout.contains("default (default)  api_key  connected\n") && told.stdout.contains("work               api_key  unreadable\n")
    );
    assert!(told.stderr.starts_with("warning: HOME/vault/acme/work.age is damaged: "), "{}", told.stderr);
    home.run(&["logout", "acme", "--connection", "work", "-q"]).is(0, "", "");
}

#[test]
fn one_of_two_that_store_the_same_wins_and_the_other_is_told() {
    let home = Home::new();
    let racers: Vec<_> = (0..4).map(|i| home.spawn(&format!("ak-{i}"), &["login", "acme", "--stdin", "-q"])).collect();
    let codes: Vec<_> = racers.into_iter().map(|child| home.told(child.wait_with_output().unwrap()).code.unwrap()).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 6).count(), 3, "{codes:?}");
    let left: Vec<_> = fs::read_dir(home.path("vault/acme")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["default.age"], "no temporary file is left");
}

#[test]
fn a_change_waits_for_the_lock() {
    let home = Home::new();
    home.feed("ak-1", &["login", "acme", "--stdin", "-q"]).is(0, "", "");
    let lock = File::options().write(true).open(home.path("vault/.lock")).unwrap();
    lock.lock().unwrap();
    let mut child = home.spawn("ak-2", &["login", "acme", "--stdin", "-q", "--connection", "work"]);
    let pid = child.id().to_string();
    let waiting = |line: &str| line.contains("-> FLOCK") && line.split_whitespace().any(|word| word == pid);
    while !fs::read_to_string("/proc/locks").unwrap().lines().any(waiting) {
        assert_eq!(child.try_wait().unwrap(), None, "it did not wait");
        std::thread::yield_now();
    }
    assert!(!home.path("vault/acme/work.age").exists());
    drop(lock);
    home.told(child.wait_with_output().unwrap()).is(0, "", "");
    assert!(home.path("vault/acme/work.age").exists());
}

#[test]
fn under_sudo_everything_belongs_to_the_invoking_user() {
    if !geteuid().is_root() {
        return eprintln!("not tried: needs root");
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    let home = Home::new().with("SUDO_UID", &uid.to_string()).with("SUDO_GID", &gid.to_string());
    let root = home.path("..");
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    chown(home.path(""), Some(uid), Some(gid)).unwrap();
    home.feed("ak-1", &["login", "acme", "--stdin", "-q"]).is(0, "", "");
    for name in ["vault", "vault/.lock", "vault/identity.txt", "vault/acme", "vault/acme/default.age"] {
        let meta = fs::symlink_metadata(home.path(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (uid, gid), "{name}");
    }
    // A link to what only root may read shows nothing of it.
    let secret = root.join("root-only");
    fs::write(&secret, "mode = \"top secret\"").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&secret, home.path("config.toml")).unwrap();
    home.run(&["list"]).is(2, "", "error: cannot read HOME/config.toml: Permission denied (os error 13)\nhint: check who may read it\n");
    assert!(Uid::from_raw(uid) != geteuid());
}

#[test]
fn inside_a_run_the_vault_is_out_of_reach() {
    let home = Home::new().with("AUTHSOME_RUN_ID", "4f1c2a");
    let message = "error: this is inside a run: the vault is out of reach here\n";
    let hint = "hint: programs use credentials without having them; call authsome outside of";
    for arguments in [
        &["export", "acme"][..],
        &["login", "acme", "--stdin"],
        &["logout", "acme"],
        &["list"],
        &["inspect", "acme"],
        &["get", "acme"],
        &["set-default", "acme", "work"],
        &["connections", "inspect", "acme"],
        &["revoke", "acme"],
        &["provider", "register", "x.json"],
        &as_anyone(&["--", "true"]),
    ] {
        home.run(arguments).is(4, "", &format!("{message}{hint} run 4f1c2a\n"));
    }
    let home = Home::new();
    fs::write(home.path(".authsome-run"), "4f1c2a").unwrap();
    home.run(&["export", "acme"]).is(4, "", &format!("{message}{hint} the run\n"));
}

#[test]
fn a_wrong_configuration_is_named_and_left_alone() {
    let home = Home::new();
    fs::write(home.path("config.toml"), "[run]\nmod = \"transparent\"\n").unwrap();
    home.run(&["list"]).is(
        2,
        "",
        "error: HOME/config.toml:2: unknown key `run.mod`\n\
         hint: did you mean `run.mode`? There is run.mode, run.egress, run.upstream, run.passthrough, run.allow, run.deny, ports.NAME, vault.key, audit.required, audit.max_size\n",
    );
    assert_eq!(fs::read_to_string(home.path("config.toml")).unwrap(), "[run]\nmod = \"transparent\"\n");
    fs::write(home.path("config.toml"), "vault.key = \"keyring\"\n").unwrap();
    home.feed("ak-1", &["login", "acme", "--stdin"]).is(
        9,
        "",
        "error: the vault key is kept in `keyring`, which this version cannot read\n\
         hint: set vault.key in config.toml to identity or passphrase\n",
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let home = Home::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for arguments in [&["list", "--all"][..], &["--help"], &["man"], &["list", "--all", "--json"]] {
        let output = home.command(arguments).stdout(Stdio::from(writer.try_clone().unwrap())).output().unwrap();
        home.told(output).is(0, "", "");
    }
}

/// The command on a terminal of its own (script(1)); each of `typed` is an answer to the question that ends with the text before it.
fn on_terminal(home: &Home, arguments: &str, typed: &[(&str, &str)]) -> Told {
    let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_authsome"));
    let mut child = home.clean(Command::new("script"), &["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut shown) = (child.stdin.take().unwrap(), Vec::new());
    for (question, answer) in typed {
        while !shown.ends_with(question.as_bytes()) {
            let mut byte = [0];
            child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
            shown.extend(byte);
        }
        stdin.write_all(format!("{answer}\n").as_bytes()).unwrap();
    }
    let mut told = home.told(child.wait_with_output().unwrap());
    told.stdout.insert_str(0, str::from_utf8(&shown).unwrap());
    told
}

#[test]
fn on_a_terminal_the_key_is_asked_for_and_never_shown() {
    let home = Home::new();
    let told = on_terminal(&home, "login acme", &[("API key: ", "ak-typed")]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains("********") && !told.stdout.contains("typed"), "{told:?}");
    home.run(&["export", "acme"]).is(0, "export ACME_API_KEY='ak-typed'\n", "");
    let told = on_terminal(&home, "login acme --connection none", &[("API key: ", "")]);
    assert_eq!(told.code, Some(2), "{told:?}");
    assert!(told.stdout.contains("error: input cancelled"), "{told:?}");
    // Ctrl-C, after which the terminal echoes again.
    let told = on_terminal(&home, "login acme --connection none; stty -a", &[("API key: ", "half\u{3}")]);
    assert!(told.stdout.contains("error: input cancelled") && told.stdout.contains(" echo "), "{told:?}");
}

#[test]
fn a_passphrase_can_guard_the_key() {
    let home = Home::new().with("K", "ak-1");
    fs::write(home.path("config.toml"), "vault.key = \"passphrase\"\n").unwrap();
    let told = on_terminal(&home, "login acme --from-env K", &[("vault: ", "open sesame"), ("again: ", "open sesame")]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(!home.path("vault/identity.txt").exists());
    assert!(fs::read(home.path("vault/identity.age")).unwrap().starts_with(b"age-encryption.org/v1\n-> scrypt "));
    let told = on_terminal(&home, "export acme", &[("vault: ", "open sesame")]);
    assert!(told.code == Some(0) && told.stdout.contains("ACME_API_KEY='ak-1'"), "{told:?}");
    let told = on_terminal(&home, "export acme", &[("vault: ", "wrong")]);
    assert!(told.code == Some(5) && told.stdout.contains("the passphrase does not open HOME/vault/identity.age"), "{told:?}");
}

#[test]
fn without_a_terminal_it_says_how_else() {
    let home = Home::new();
    let output = home.clean(Command::new("setsid"), &["--wait", env!("CARGO_BIN_EXE_authsome"), "login", "acme"]).output().unwrap();
    home.told(output).is(2, "", "error: there is no terminal to ask on\nhint: give the credential on --stdin or with --from-env VAR\n");
}

#[test]
fn definitions_are_registered_checked_and_removed() {
    let home = Home::new();
    let file = home.path("../zeta.json");
    let text = fs::read_to_string(home.path("providers/acme.json")).unwrap().replace("acme", "zeta");
    fs::write(&file, &text).unwrap();
    let file = file.to_str().unwrap();
    home.run(&["provider", "check", file]).is(0, "provider   zeta\nmatches    https://api.zeta.test\n", "");
    home.run(&["provider", "register", file]).is(0, "", "Registered zeta.\n");
    home.run(&["register", file]).is(7, "", "error: provider zeta is registered already\nhint: --force replaces it\n");
    home.feed("ak-1", &["login", "acme", "--stdin", "-q"]).is(0, "", "");
    fs::write(file, text.replace("api.zeta.test", "api.acme.test")).unwrap();
    let ambiguous = "ambiguous host match: https://api.acme.test claimed by acme and zeta; not injected\n";
    home.run(&["provider", "check", file]).is(0, &format!("provider   zeta\nmatches    https://api.acme.test\nconflict   {ambiguous}"), "");
    home.run(&["register", file, "--force"]).is(0, "", "Registered zeta.\n");
    home.feed("ak-1", &["login", "zeta", "--stdin", "-q"]).is(0, "", "");
    assert_eq!(home.run(&["list"]).stderr, format!("warning: {ambiguous}"));
    assert!(home.run(&["doctor"]).stdout.contains("warning  hosts           ambiguous host match"));
    home.run(&["revoke", "zeta", "-q"]).is(0, "", "");
    home.run(&["provider", "remove", "zeta"]).is(0, "", "Removed the definition of zeta.\n");
    assert_eq!(home.run(&["remove", "zeta"]).code, Some(4));
}

#[test]
fn the_trail_is_shown_and_filtered() {
    let home = Home::new();
    home.run(&["log"]).is(0, "", "Nothing is recorded.\n");
    fs::create_dir(home.path("log")).unwrap();
    let record = |run: &str, path: &str| {
        format!(
            "{{\"ts\":\"2026-01-01T00:00:00.000Z\",\"run\":\"{run}\",\"id\":1,\"protocol\":\"h2\",\"host\":\"api.acme.test\",\"port\":443,\
             \"method\":\"GET\",\"path\":\"{path}\",\"decision\":\"injected\",\"reason\":\"route\",\"provider\":\"acme\",\"status\":200,\
             \"sent\":10,\"received\":20,\"ms\":5}}\n"
        )
    };
    fs::write(home.path("log/audit.jsonl"), format!("{}torn\n{}", record("a", "/1"), record("b", "/2"))).unwrap();
    let line = |path: &str| format!("2026-01-01T00:00:00.000Z  injected   GET api.acme.test{path}  200  acme  route\n");
    home.run(&["log"]).is(0, &format!("{}{}", line("/1"), line("/2")), "");
    home.run(&["log", "-n", "1"]).is(0, &line("/2"), "");
    home.run(&["log", "--run", "a"]).is(0, &line("/1"), "");
    assert_eq!(home.run(&["log", "--json"]).json()[1]["path"], "/2");
}

#[test]
fn help_completions_and_manual_are_there() {
    let home = Home::new();
    for (arguments, want) in [
        (&["--help"][..], "authsome run --transparent -- ./agent.py"),
        (&["login", "--help"], "--from-env"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
        (&["completions", "bash"], "complete -F _authsome"),
        (&["man"], ".TH authsome 1"),
    ] {
        let told = home.run(arguments);
        assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(told.stdout.contains(want), "{arguments:?}: {}", told.stdout);
    }
}

/// `run` asks plain root for whom.
fn as_anyone<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    let user: &[_] = if geteuid().is_root() { &["--user", "root"] } else { &[] };
    [&["run", "--transparent"], user, rest].concat()
}

#[test]
fn rules_are_checked_before_anything_starts() {
    let home = Home::new();
    for flag in ["--allow", "--deny"] {
        let told = home.run(&as_anyone(&[flag, "ftp://api.acme.test", "--", "true"]));
        assert_eq!(told.code, Some(2));
        assert!(told.stderr.contains(flag) && told.stderr.contains("`ftp` is not one of https, http, tcp, udp, icmp"), "{told:?}");
    }
    let told = home.run(&as_anyone(&["--allow", "udp://ns.acme.test:123", "--", "true"]));
    assert_eq!(told.code, Some(2), "{told:?}");
    assert!(told.stderr.contains("rule `udp://ns.acme.test:123`: udp and icmp rules need"), "{told:?}");
    let file = home.path("agent.toml");
    let path = file.to_str().unwrap();
    for (text, want) in [
        ("allow = [\"get api.acme.test\"]", "HOME/agent.toml: rule `get api.acme.test`: `get` is no method"),
        ("alow = []", "unknown field `alow`"),
        ("allow = 1", "expected a sequence"),
    ] {
        fs::write(&file, text).unwrap();
        for arguments in [&as_anyone(&["--policy", path, "--", "true"])[..], &["policy", "check", path, "https://api.acme.test/"]] {
            let told = home.run(arguments);
            assert!(told.code == Some(2) && told.stderr.contains("HOME/agent.toml: ") && told.stderr.contains(want), "{told:?}");
        }
    }
    fs::write(home.path("config.toml"), "[run]\ndeny = [\"admin.acme.test\", \"x y z\"]\n").unwrap();
    let told = home.run(&["list"]);
    assert!(told.stderr.starts_with("error: HOME/config.toml:2: run.deny cannot be `x y z`; it is a list of rules"), "{told:?}");
}

#[test]
fn a_policy_file_is_asked_about_a_request() {
    let home = Home::new();
    home.feed("ak-1\n", &["login", "acme", "--stdin", "-q"]).is(0, "", "");
    let file = home.path("agent.toml");
    fs::write(&file, "allow = [\"GET,HEAD *.open.test/v1/**\", \"provider:acme\", \"tcp://db.acme.test:5432\"]\ndeny = [\"GET *.open.test/v1/admin/**\"]\n").unwrap();
    let check = |url: &str, method: &str| home.run(&["policy", "check", file.to_str().unwrap(), url, "--method", method]);
    check("https://a.open.test/v1/x", "GET").is(0, "allowed by the rule `GET,HEAD *.open.test/v1/**`\n", "");
    check("https://api.acme.test/x", "POST").is(0, "allowed by the rule `provider:acme`\n", "");
    check("tcp://db.acme.test:5432", "GET").is(0, "allowed by the rule `tcp://db.acme.test:5432`\n", "");
    check("https://a.open.test/v1/admin/x", "GET").is(1, "denied by the rule `GET *.open.test/v1/admin/**`\n", "");
    check("https://a.open.test/v1/x", "POST").is(1, "denied: no rule allows it; add `--allow 'POST a.open.test:443/v1/x'`\n", "");
    check("http://a.open.test/v1/x", "GET").is(1, "denied: a rule on methods or paths allows only HTTPS\n", "");
    let told = home.run(&["--json", "policy", "check", file.to_str().unwrap(), "https://b.test/"]);
    assert_eq!((told.code, told.json()), (Some(1), json!({"decision": "denied", "rule": null, "add": "b.test:443"})));
    let missing = home.path("missing.toml");
    home.run(&["policy", "check", missing.to_str().unwrap(), "https://b.test/"]).is(
        1,
        "",
        "error: cannot read HOME/missing.toml: No such file or directory (os error 2)\nhint: check that the path is right and that you may use it\n",
    );
}

#[test]
fn a_policy_is_made_from_what_a_run_did() {
    let home = Home::new();
    fs::create_dir(home.path("log")).unwrap();
    let line = |rest: &str| {
        format!(
            "{{\"ts\":\"2026-01-01T00:00:00.000Z\",\"run\":\"4f1c2a\",\"id\":1,\"reason\":\"\",\"sent\":0,\"received\":0,\"ms\":1,{rest}}}\n"
        )
    };
    let records = [
        r#""protocol":"h2","host":"api.acme.test","port":443,"method":"GET","path":"/v1/x","decision":"injected","provider":"acme""#,
        r#""protocol":"tls","host":"b.test","port":443,"decision":"forwarded""#,
        r#""protocol":"tls","host":"c.test","port":443,"decision":"denied""#,
    ];
    fs::write(home.path("log/audit.jsonl"), records.map(line).concat()).unwrap();
    home.run(&["policy", "from-log", "4f1c2a"]).is(0, "allow = [\n  \"GET api.acme.test:443/v1/x\",\n  \"b.test:443\",\n]\n", "");
    let told = home.run(&["policy", "from-log", "none"]);
    assert_eq!(told.code, Some(1));
    assert!(home.run(&["log"]).stdout.contains("denied     tls c.test"));
}

#[test]
fn keys_that_lie_around_are_found_compared_and_imported() {
    let home = Home::new().with("ACME_KEY", "ak-env");
    let project = home.path("project");
    fs::create_dir_all(project.join("app")).unwrap();
    fs::write(project.join(".env"), "export ACME_API_KEY='ak-env'\nDUO_TOKEN=token\nOTHER=x\n").unwrap();
    fs::write(project.join("app/.env.local"), "ACME_KEY=wrong-form\n").unwrap();
    fs::write(project.join(".env.example"), "ACME_KEY=ak-example\n").unwrap();
    let scan = ["scan", project.to_str().unwrap()];
    // Columns are as wide as the true path, which is shortened here.
    let squeezed = |text: &str| text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    let rows = |acme: &str| {
        [
            "PROVIDER VARIABLE WHERE STATE".to_owned(),
            format!("acme ACME_KEY environment {acme}"),
            format!("acme ACME_API_KEY HOME/project/.env {acme}"),
            "duo DUO_TOKEN HOME/project/.env incomplete: the provider takes more values".to_owned(),
            "acme ACME_KEY HOME/project/app/.env.local not of the form that the provider's keys have".to_owned(),
        ]
    };
    let told = home.run(&scan);
    assert_eq!(squeezed(&told.stdout), rows("not stored"), "{told:?}");
    home.run(&["list", "-q"]).is(0, "", "");
    let told = home.run(&[&scan[..], &["--import"]].concat());
    assert_eq!(squeezed(&told.stdout), rows("imported"), "{told:?}");
    assert!(!format!("{told:?}").contains("ak-env"));
    home.run(&["export", "acme", "--format", "dotenv"]).is(0, "ACME_API_KEY=ak-env\n", "");
    assert_eq!(squeezed(&home.run(&scan).stdout), rows("stored"));
    home.feed("ak-other", &["login", "acme", "--stdin", "--force", "-q"]).is(0, "", "");
    assert_eq!(home.run(&[&scan[..], &["--json"]].concat()).json()["found"][0]["state"], "differs");
}

#[test]
fn a_scan_imports_nothing_that_is_doubtful() {
    let home = Home::new().with("ACME_KEY", "ak-one");
    fs::create_dir(home.path("project")).unwrap();
    fs::write(home.path("project/.env"), "ACME_KEY=ak-two\n").unwrap();
    let told = home.run(&["scan", home.path("project").to_str().unwrap(), "--import"]);
    assert!(told.stderr.contains("warning: acme: different keys were found; choose one: authsome login acme --stdin"), "{told:?}");
    home.run(&["list", "-q"]).is(0, "", "");
}

/// What a program of the format's own says of a file, which must hold the certificate in use.
#[test]
fn the_authority_is_exported_in_every_form() {
    const PASSWORD: &str = "s3cret ä";
    let home = Home::new();
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str| files.path().join(name).display().to_string();
    let pem = home.run(&["ca", "export"]).stdout;
    let run = |program: &str, arguments: &[&str]| home.clean(Command::new(program), arguments).output().unwrap();
    let tool = |program: &str, arguments: &[&str]| {
        let output = run(program, arguments);
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let export = |format: &str| home.feed(PASSWORD, &["ca", "export", "--format", format, "--password-stdin", "-q", "-o", &file(format)]);
    for format in ["der", "mobileconfig"] {
        home.run(&["ca", "export", "--format", format, "-q", "-o", &file(format)]).is(0, "", "");
        assert_eq!(export(format).code, Some(2), "{format} has no password");
    }
    export("p12").is(0, "", "");
    assert_eq!(tool("openssl", &["x509", "-inform", "der", "-in", &file("der")]), pem);
    let pkcs12 = |password: &str| run("openssl", &["pkcs12", "-in", &file("p12"), "-passin", password, "-nokeys"]);
    let certificates = String::from_utf8(pkcs12(&format!("pass:{PASSWORD}")).stdout).unwrap();
    assert!(certificates.contains(&pem), "{certificates}");
    assert!(!pkcs12("pass:wrong").status.success());
    let plist = r"import plistlib, ssl, sys
payload = plistlib.load(open(sys.argv[1], 'rb'))['PayloadContent'][0]
assert payload['PayloadType'] == 'com.apple.security.root'
print(ssl.DER_cert_to_PEM_cert(payload['PayloadContent']), end='')";
    assert_eq!(tool("python3", &["-c", plist, &file("mobileconfig")]), pem);

    let shown = home.run(&["ca", "show", "--json"]).json();
    let openssl = |option: &str| tool("openssl", &["x509", "-noout", "-fingerprint", option, "-inform", "der", "-in", &file("der")]);
    assert_eq!(openssl("-sha256").trim().split('=').nth(1), shown["sha256"].as_str());
    assert_eq!(openssl("-sha1").trim().split('=').nth(1), shown["sha1"].as_str());
    let dates = tool("openssl", &["x509", "-noout", "-dates", "-dateopt", "iso_8601", "-inform", "der", "-in", &file("der")]);
    let iso = |name: &str| shown[name].as_str().unwrap().replace('T', " ");
    assert_eq!(dates, format!("notBefore={}\nnotAfter={}\n", iso("not_before"), iso("not_after")));
}

#[test]
fn java_reads_the_exported_stores() {
    let home = Home::new();
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str| files.path().join(name).display().to_string();
    let sha256 = home.run(&["ca", "show", "--json"]).json()["sha256"].as_str().unwrap().to_owned();
    let said = home.run(&["ca", "export", "--format", "jks", "-o", &file("jks")]);
    said.is(0, "", &format!("wrote {}, its password is changeit\n", file("jks")));
    home.feed("s3cret!\n", &["ca", "export", "--format", "p12", "--password-stdin", "-q", "-o", &file("p12")]).is(0, "", "");
    for (format, password) in [("jks", "changeit"), ("p12", "s3cret!")] {
        let list = |password: &str| {
            let arguments = ["-J-Duser.language=en", "-list", "-v", "-keystore", &file(format), "-storepass", password];
            home.clean(Command::new("keytool"), &arguments).output().unwrap()
        };
        let text = String::from_utf8(list(password).stdout).unwrap();
        assert!(text.contains("Entry type: trustedCertEntry") && text.contains(&sha256), "{format}: {text}");
        assert!(!list("wrong-one").status.success(), "{format} is protected from change");
    }
}

#[test]
fn an_export_that_cannot_be_made_leaves_nothing() {
    let home = Home::new();
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("ca.p12").display().to_string();
    let arguments = ["-w", env!("CARGO_BIN_EXE_authsome"), "ca", "export", "--format", "p12", "-o", &path];
    let told = home.told(home.clean(Command::new("setsid"), &arguments).output().unwrap());
    told.is(2, "", "error: --format p12 needs a password: give it with --password-stdin\nhint: authsome --help\n");
    let told = home.feed("\n", &["ca", "export", "--format", "p12", "--password-stdin", "-o", &path]);
    told.is(2, "", "error: --password-stdin: the password is empty\nhint: authsome --help\n");
    assert_eq!(fs::read_dir(files.path()).unwrap().count(), 0);
    let missing = files.path().join("no/ca.pem").display().to_string();
    assert_eq!(home.run(&["ca", "export", "-o", &missing]).code, Some(1));
    assert_eq!(home.run(&["ca", "export", "-o", "/dev/stdout"]).stdout, home.run(&["ca", "export"]).stdout, "no file in place of a device");
}
