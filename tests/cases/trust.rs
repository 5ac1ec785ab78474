//! Trust that outlives a run: stores of roots of this machine and the user, and the variables of a shell.

use crate::{
    Case,
    support::world::{Mode, OPENAI_KEY, UID, World, finish, show, succeeded},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use nix::mount::{MsFlags, mount};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Output},
};

pub const CASES: &[Case] = &[
    ("system_store_is_changed_and_changed_back", system_store_is_changed_and_changed_back),
    ("system_store_needs_root", system_store_needs_root),
    ("database_of_browsers_is_changed_and_changed_back", database_of_browsers_is_changed_and_changed_back),
    ("what_is_not_ours_is_left", what_is_not_ours_is_left),
    ("stores_are_out_of_reach_inside", stores_are_out_of_reach_inside),
    ("variables_for_a_shell", variables_for_a_shell),
    ("roots_of_another_variable_are_kept", roots_of_another_variable_are_kept),
    ("policies_of_the_administrator_are_kept", policies_of_the_administrator_are_kept),
    ("database_inside_is_an_extended_copy", database_inside_is_an_extended_copy),
    ("database_that_cannot_be_extended_is_told", database_that_cannot_be_extended_is_told),
];

const URL: &str = "https://api.openai.com/v1/models";
const ANCHOR: &str = "/usr/local/share/ca-certificates/authsome.crt";
const FIREFOX: &str = "/etc/firefox/policies/policies.json";

/// What an installation may write to is this world's copy from here on.
pub fn copy_system_stores(world: &World) {
    for (index, directory) in ["/etc", "/usr/local/share/ca-certificates"].iter().enumerate() {
        let copy = world.path(&format!("store-{index}"));
        succeeded(&Command::new("cp").args(["-a", directory]).arg(&copy).output().unwrap());
        mount(Some(&copy), *directory, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    }
}

/// `authsome ca …` as the user, or by sudo.
fn authsome(world: &World, arguments: &[&str]) -> Output {
    let mut command = world.command(&[world.path("authsome").to_str().unwrap()]);
    command.args(arguments);
    finish(&mut world.start_as_mode(command))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// curl in the environment mode with no variable that names roots: only the system's store is left to it.
fn with_system_roots(world: &World) -> Output {
    let client = ["env", "-u", "SSL_CERT_FILE", "-u", "SSL_CERT_DIR", "-u", "CURL_CA_BUNDLE", "curl", "-fsS", URL];
    finish(&mut world.by_environment(&[], &client))
}

/// curl reads SSL_CERT_FILE where CURL_CA_BUNDLE is not set, and requests CURL_CA_BUNDLE: a host that is not ours stays trusted as it was.
fn roots_of_another_variable_are_kept(world: &World) {
    const OTHER: &str = "https://other.test/";
    let root = world.path("root.pem");
    for (variable, client) in
        [("SSL_CERT_FILE", &["curl", "-fsS", OTHER][..]), ("CURL_CA_BUNDLE", &["/usr/bin/python3", "with_requests.py", OTHER])]
    {
        succeeded(&finish(world.authsome(&[], client).env(variable, &root)));
        let mut environment = world.by_environment(&[], client);
        succeeded(&finish(environment.env_remove("SSL_CERT_FILE").env_remove("CURL_CA_BUNDLE").env(variable, &root)));
        assert_eq!(world.internet.take_requests().len(), 2, "{variable}");
        assert!(!world.inside(client).status.success(), "the control trusts the system's roots alone");
    }
}

fn system_store_is_changed_and_changed_back(world: &World) {
    if world.mode == Mode::Rootless {
        return;
    }
    copy_system_stores(world);
    let bundle = || fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap();
    let before = bundle();
    assert_eq!(with_system_roots(world).status.code(), Some(60), "the control: the authority is unknown");

    let shown = succeeded(&authsome(world, &["ca", "install", "--system", "--dry-run"]));
    assert_eq!(shown, format!("write {ANCHOR}\nupdate-ca-certificates\nwrite {FIREFOX}\n"));
    assert!(!Path::new(ANCHOR).exists() && bundle() == before, "--dry-run has changed something");

    let installed = authsome(world, &["ca", "install", "--system"]);
    succeeded(&installed);
    let steps = format!("  write {ANCHOR}\n  update-ca-certificates\n{ANCHOR}: installed\n  write {FIREFOX}\n{FIREFOX}: installed\n");
    assert_eq!(said(&installed), steps);
    assert_eq!(fs::metadata(ANCHOR).unwrap().mode() & 0o777, 0o644);
    assert_eq!(fs::metadata(world.home().join(".authsome/ca/installed.json")).unwrap().uid(), UID);
    succeeded(&with_system_roots(world));
    let requests = world.internet.take_requests();
    assert_eq!(requests[0].header("authorization"), Some(format!("Bearer {OPENAI_KEY}").as_str()));

    let again = said(&authsome(world, &["ca", "install", "--system"]));
    assert_eq!(again, format!("{ANCHOR}: installed already\n{FIREFOX}: installed already\n"));
    let status = succeeded(&authsome(world, &["ca", "status"]));
    assert!(status.lines().any(|line| line.split_whitespace().eq(["system", "system", "installed", ANCHOR])), "{status}");
    succeeded(&authsome(world, &["ca", "uninstall"]));
    assert!(!Path::new(ANCHOR).exists() && !Path::new(FIREFOX).exists());
    assert!(bundle() == before, "the bundle is another than before");
    assert_eq!(with_system_roots(world).status.code(), Some(60));
    assert!(said(&authsome(world, &["ca", "uninstall"])).contains("Nothing is installed"));
}

fn system_store_needs_root(world: &World) {
    if world.mode == Mode::Sudo {
        return;
    }
    let refused = authsome(world, &["ca", "install", "--system"]);
    assert_eq!(refused.status.code(), Some(9), "{}", show(&refused));
    let command = format!("hint: sudo '{}' ca install --system\n", world.path("authsome").display());
    assert!(said(&refused).ends_with(&command), "{}", show(&refused));
}

fn database_of_browsers_is_changed_and_changed_back(world: &World) {
    let database = world.home().join(".pki/nssdb");
    let listed = || {
        let name = format!("sql:{}", database.display());
        String::from_utf8_lossy(&Command::new("certutil").args(["-L", "-d", &name]).output().unwrap().stdout).into_owned()
    };
    let installed = authsome(world, &["ca", "install", "--user"]);
    succeeded(&installed);
    let trusted = listed();
    let line = trusted.lines().find(|line| line.starts_with("authsome CA ")).unwrap_or_else(|| panic!("{trusted}"));
    assert!(line.trim_end().ends_with("C,,"), "{line}");
    for path in [&database, &database.join("cert9.db"), &world.home().join(".pki")] {
        assert_eq!(fs::metadata(path).unwrap().uid(), UID, "{}", path.display());
    }
    assert!(said(&authsome(world, &["ca", "install", "--user"])).contains("nssdb: installed already"));
    let removed = authsome(world, &["ca", "uninstall", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&succeeded(&removed)).unwrap();
    assert_eq!(document["stores"][0]["outcome"], "removed", "{document}");
    assert!(!listed().contains("authsome"), "{}", listed());
}

/// Another certificate where ours would be or was, and a journal that names a file of the system's.
fn what_is_not_ours_is_left(world: &World) {
    if world.mode == Mode::Rootless {
        return;
    }
    copy_system_stores(world);
    let foreign = fs::read_to_string(world.path("root.pem")).unwrap();
    fs::write(ANCHOR, &foreign).unwrap();
    let refused = authsome(world, &["ca", "install", "--system"]);
    assert_eq!(refused.status.code(), Some(1), "{}", show(&refused));
    assert!(said(&refused).contains(&format!("{ANCHOR} holds another certificate")), "{}", show(&refused));
    assert!(succeeded(&authsome(world, &["ca", "status"])).contains("other certificate"));
    assert_eq!(fs::read_to_string(ANCHOR).unwrap(), foreign);

    fs::remove_file(ANCHOR).unwrap();
    succeeded(&authsome(world, &["ca", "install", "--system"]));
    let journal = world.home().join(".authsome/ca/installed.json");
    let entries = fs::read_to_string(&journal).unwrap();
    let victim = world.path("victim.crt");
    fs::copy(ANCHOR, &victim).unwrap();
    fs::write(&journal, entries.replace(ANCHOR, victim.to_str().unwrap())).unwrap();
    let left = authsome(world, &["ca", "uninstall"]);
    assert!(succeeded(&left).is_empty() && said(&left).contains("left as it is: no store of this system"), "{}", show(&left));
    assert!(victim.exists(), "root has removed a file that the user named");

    fs::write(&journal, &entries).unwrap();
    fs::write(ANCHOR, &foreign).unwrap();
    let left = authsome(world, &["ca", "uninstall"]);
    assert!(said(&left).contains("left as it is: it holds another certificate"), "{}", show(&left));
    assert_eq!(fs::read_to_string(ANCHOR).unwrap(), foreign);
}

fn stores_are_out_of_reach_inside(world: &World) {
    for command in ["ca install", "ca uninstall", "ca status", "trust env"] {
        let client = format!("{} {command}", world.path("authsome").display());
        for (way, output) in [
            ("transparent", world.inside(&["sh", "-c", &client])),
            ("environment", finish(&mut world.by_environment(&[], &["sh", "-c", &client]))),
        ] {
            assert_eq!(output.status.code(), Some(4), "{way} {command}: {}", show(&output));
        }
    }
}

/// A shell that has the variables makes programs trust the authority; a second call adds nothing to the first.
fn variables_for_a_shell(world: &World) {
    let authsome_path = world.path("authsome");
    let script = format!(
        "eval \"$({0} trust env)\" && eval \"$({0} trust env)\" && cat \"$CURL_CA_BUNDLE\" && openssl verify -CAfile \"$SSL_CERT_FILE\" \"$({0} ca path)\"",
        authsome_path.display()
    );
    let mut command = world.command(&["sh", "-c", &script]);
    command.env("CURL_CA_BUNDLE", world.path("root.pem"));
    let output = succeeded(&finish(&mut world.start_as_mode(command)));
    assert!(output.ends_with("authsome-ca-cert.pem: OK\n"), "{output}");
    let own = fs::read_to_string(world.home().join(".authsome/ca/authsome-ca-cert.pem")).unwrap();
    assert_eq!(output.matches(own.trim()).count(), 1, "{output}");
    let first = succeeded(&authsome(world, &["trust", "env"]));
    assert!(first.lines().all(|line| line.starts_with("export ") && line.ends_with('\'')), "{first}");
    let document: serde_json::Value = serde_json::from_str(&succeeded(&authsome(world, &["trust", "env", "--json"]))).unwrap();
    assert_eq!(document.as_object().unwrap().len(), first.lines().count());
}

/// Chromium trusts an authority that the administrator has named, and the run's.
fn policies_of_the_administrator_are_kept(world: &World) {
    let directory = world.path("chromium");
    fs::create_dir_all(directory.join("policies/managed")).unwrap();
    let root = CertificateDer::from_pem_file(world.path("root.pem")).unwrap();
    let policies = serde_json::json!({"CACertificates": [BASE64_STANDARD.encode(&root)]});
    fs::write(directory.join("policies/managed/corp.json"), policies.to_string()).unwrap();
    mount(Some(&directory), "/etc/chromium", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let browse = |host: &str| {
        let client = format!(
            "chromium --headless --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update \
             --user-data-dir=profile --dump-dom https://{host}/v1/page"
        );
        let output = world.inside(&["sh", "-c", &client]);
        let requests = world.internet.take_requests();
        let request = requests.iter().find(|request| request.authority == host).unwrap_or_else(|| panic!("{host}: {}", show(&output)));
        request.header("authorization").map(str::to_owned)
    };
    assert_eq!(browse("api.openai.com"), Some(format!("Bearer {OPENAI_KEY}")));
    assert_eq!(browse("other.test"), None);
}

const LIST: &str = "certutil -L -d sql:.pki/nssdb";

fn database_inside_is_an_extended_copy(world: &World) {
    succeeded(&world.inside(&["sh", "-c", "test ! -e .pki"]));
    let make = "mkdir -p .pki/nssdb; certutil -N --empty-password -d sql:.pki/nssdb; certutil -A -a -t C,, -n own -d sql:.pki/nssdb -i $0; \
                echo '# of the user' >> .pki/nssdb/pkcs11.txt";
    succeeded(&world.outside(&["sh", "-c", make, world.path("root.pem").to_str().unwrap()]));
    let outside = || succeeded(&world.outside(&["sh", "-c", &format!("{LIST}; sha256sum .pki/nssdb/*")]));
    let before = outside();
    let output = world.inside(&[
        "sh",
        "-c",
        &format!("tail -n1 .pki/nssdb/pkcs11.txt; {LIST}; certutil -D -n own -d sql:.pki/nssdb; touch .pki/nssdb/new"),
    ]);
    let seen = succeeded(&output);
    assert!(seen.starts_with("# of the user\n"), "{seen}");
    let lines: Vec<_> = seen.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert!(lines.iter().any(|line| line == "own C,,"), "{seen}");
    assert!(lines.iter().any(|line| line.starts_with("authsome ") && line.ends_with(" C,,")), "{seen}");
    assert!(!said(&output).contains("left as it is"), "{}", show(&output));
    assert_eq!(outside(), before);
}

/// By a link it would be something else that is covered; and nobody is asked for a password.
fn database_that_cannot_be_extended_is_told(world: &World) {
    for (make, reason, seen) in [
        ("mkdir -p .pki else; touch else/file; ln -s ../else .pki/nssdb", "it is reached by a link", "file\n"),
        (
            "rm -rf .pki; mkdir -p .pki/nssdb; mkfifo .pki/nssdb/key4.db; echo no database > .pki/nssdb/cert9.db",
            "certutil failed",
            "cert9.db\nkey4.db\npkcs11.txt\n",
        ),
        (
            "rm -rf .pki; mkdir -p .pki/nssdb; echo secret > password; certutil -N -f password -d sql:.pki/nssdb",
            "certutil failed",
            "cert9.db\nkey4.db\npkcs11.txt\n",
        ),
    ] {
        succeeded(&world.outside(&["sh", "-c", make]));
        let output = world.inside(&["ls", ".pki/nssdb/"]);
        assert_eq!(succeeded(&output), seen);
        let told = format!("{} is left as it is: {reason}", world.home().join(".pki/nssdb").display());
        assert!(said(&output).contains(&told), "{}", show(&output));
    }
}
