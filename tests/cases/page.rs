//! `http://mitm.it`: the certificate in use, for clients that have to be told to trust it.

use crate::{
    Case,
    support::world::{World, finish, show, succeeded},
};
use std::{
    io::{BufRead, BufReader},
    process::{Output, Stdio},
};

pub const CASES: &[Case] = &[
    ("every_download_is_the_certificate_in_use", every_download_is_the_certificate_in_use),
    ("rules_do_not_keep_it_away", rules_do_not_keep_it_away),
    ("both_families_lead_to_it", both_families_lead_to_it),
    ("nothing_but_plain_http_is_there", nothing_but_plain_http_is_there),
    ("no_question_and_no_packet_leaves", no_question_and_no_packet_leaves),
    ("heads_and_unknown_paths", heads_and_unknown_paths),
    ("a_stranger_does_not_get_it", a_stranger_does_not_get_it),
    ("a_browser_shows_its_own_system_first", a_browser_shows_its_own_system_first),
];

/// Both ways into a run.
const TRANSPARENT: [bool; 2] = [true, false];

fn run(world: &World, transparent: bool, options: &[&str], client: &str) -> Output {
    let client = ["sh", "-c", client];
    match transparent {
        true => world.run(options, &client),
        false => finish(&mut world.by_environment(options, &client)),
    }
}

/// The one root that the variables of the run name for Node is the authority's.
fn every_download_is_the_certificate_in_use(world: &World) {
    let check = r#"set -e
for name in pem cer p12 mobileconfig; do curl -fsS -o ca.$name -D head.$name http://mitm.it/cert/$name; done
openssl x509 -in "$NODE_EXTRA_CA_CERTS" >want.pem
openssl x509 -in ca.pem | cmp - want.pem
openssl x509 -inform der -in ca.cer | cmp - want.pem
openssl pkcs12 -in ca.p12 -passin pass:changeit -nokeys | openssl x509 | cmp - want.pem
/usr/bin/python3 -c 'import plistlib, ssl
print(ssl.DER_cert_to_PEM_cert(plistlib.load(open("ca.mobileconfig", "rb"))["PayloadContent"][0]["PayloadContent"]), end="")' | cmp - want.pem
keytool -J-Duser.language=en -list -v -keystore ca.p12 -storepass changeit | grep -q "Entry type: trustedCertEntry"
for type in pem:application/x-pem-file cer:application/x-x509-ca-cert p12:application/x-pkcs12 mobileconfig:application/x-apple-aspen-config; do
    grep -qi "^content-type: ${type#*:}" head.${type%%:*}
    grep -qi "^content-disposition: .*filename=\"authsome-ca.${type%%:*}\"" head.${type%%:*}
done
fingerprint=$(openssl x509 -in want.pem -noout -fingerprint -sha256)
curl -fsS http://mitm.it/ | grep '^<p class="fingerprint">' | sed 's/<[^>]*>//g; s/ /:/g' | grep -qx "${fingerprint#*=}""#;
    for transparent in TRANSPARENT {
        succeeded(&run(world, transparent, &[], check));
    }
    assert!(!world.outside(&["curl", "-fsS", "http://mitm.it/"]).status.success(), "the name means nothing outside");
}

fn rules_do_not_keep_it_away(world: &World) {
    for transparent in TRANSPARENT {
        let client = "curl -fsS http://mitm.it/ && ! curl -fsS http://other.test/";
        let said = succeeded(&run(world, transparent, &["--allow", "api.openai.com"], client));
        assert!(said.contains("Compare before you trust"), "{said}");
        assert_eq!(said.contains("this run</b>"), transparent);
    }
    assert!(world.internet.take_requests().is_empty());
}

fn both_families_lead_to_it(world: &World) {
    succeeded(&world.inside(&["sh", "-c", "curl -4fsSo page4 http://mitm.it/ && curl -6fsSo page6 http://mitm.it/ && cmp page4 page6"]));
}

fn nothing_but_plain_http_is_there(world: &World) {
    for transparent in TRANSPARENT {
        for url in ["https://mitm.it/", "http://mitm.it:443/"] {
            let output = run(world, transparent, &[], &format!("exec curl -kfsS {url}"));
            assert!(!output.status.success(), "{url}: {}", show(&output));
        }
    }
}

/// The resolver of the world would be asked, and the capture is of all that leaves towards it and the origins.
fn no_question_and_no_packet_leaves(world: &World) {
    for transparent in TRANSPARENT {
        succeeded(&run(world, transparent, &[], "curl -fsSo page http://mitm.it/ && curl -fsSo ca http://mitm.it/cert/pem"));
    }
    let asked = world.internet.take_questions();
    assert!(asked.is_empty(), "asked for {asked:?}");
    assert!(world.internet.take_requests().is_empty());
}

fn heads_and_unknown_paths(world: &World) {
    for transparent in TRANSPARENT {
        let status = |options: &str| {
            let client = format!("curl -sS -o body -D head -w '%{{http_code}}' {options} && grep -qi '^cache-control: no-store' head");
            succeeded(&run(world, transparent, &[], &client))
        };
        assert_eq!(status("-I http://mitm.it/"), "200");
        assert_eq!(status("http://MITM.it/"), "200");
        assert_eq!(status("http://mitm.it/nothing"), "404");
        assert_eq!(status("-d x http://mitm.it/"), "405");
    }
    let client = "curl -fsS --noproxy '*' -H 'host: mitm.it' $HTTP_PROXY/";
    assert!(succeeded(&run(world, false, &[], client)).contains("Compare before you trust"), "asked as an origin is");
}

/// The run tells its proxy's address and waits until the stranger is done.
fn a_stranger_does_not_get_it(world: &World) {
    let client = ["sh", "-c", "echo $HTTP_PROXY; read line"];
    let mut run = world.by_environment(&[], &client).stdin(Stdio::piped()).spawn().unwrap();
    let mut proxy = String::new();
    BufReader::new(run.stdout.as_mut().unwrap()).read_line(&mut proxy).unwrap();
    let output = world.outside(&["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--proxy", proxy.trim(), "http://mitm.it/"]);
    drop(run.stdin.take());
    run.wait().unwrap();
    assert_eq!(succeeded(&output), "403");
}

/// As the browser has it after layout: its first download, and that the style was let in.
fn a_browser_shows_its_own_system_first(world: &World) {
    for transparent in TRANSPARENT {
        for (agent, first) in [
            ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36", "Download for Linux"),
            ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Version/17.0 Safari/604.1", "Download for iOS"),
        ] {
            let page = succeeded(&chromium(world, transparent, &format!("--user-agent='{agent}' --dump-dom")));
            assert!(page.contains("<title>Trust authsome’s certificate</title>"), "{page}");
            assert!(page.split("class=\"button\"").nth(1).is_some_and(|link| link.contains(first)), "{agent}: {page}");
        }
    }
}

/// Under a user without a sandbox of its own: inside a run no program gains a privilege, and the container of a test may allow no namespace.
fn chromium(world: &World, transparent: bool, options: &str) -> Output {
    let profile = "chromium --headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync --user-data-dir=\"$(mktemp -d)\"";
    run(world, transparent, &[], &format!("exec {profile} {options} http://mitm.it/"))
}
