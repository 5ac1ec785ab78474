//! The run's certificate authority is trusted inside, beside the roots that were there, and nowhere else.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use libtest_mimic::{Failed, Trial};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};

use crate::stage::{self, Fixture, Scenario};

type Done = Result<(), Failed>;
type Test = fn() -> Done;

const COMMON_NAME: &str = "authsome run 7f";

pub fn trials() -> Vec<Trial> {
    let tests: [(&str, Test); 10] = [
        ("openssl finds it without any variable", openssl_without_variables),
        ("system roots stay trusted", system_roots_stay),
        ("variables lead to it", variables_lead_to_it),
        ("the user's roots are kept", users_roots_are_kept),
        ("the user's directory of roots is kept", users_directory_is_kept),
        ("machine without roots", machine_without_roots),
        ("java", java),
        ("java, PKCS#12", java_pkcs12),
        ("sandbox in the sandbox", nested_sandbox),
        ("nothing changes outside", nothing_changes_outside),
    ];
    tests.into_iter().map(|(name, test)| Trial::test(format!("trust::{name}"), test)).collect()
}

/// An authority and a certificate for a server it issued, in the fixture's directory.
struct Pki {
    fixture: Fixture,
    authority: (String, String),
    leaf: PathBuf,
}

impl Pki {
    fn new() -> Self {
        let fixture = Fixture::new();
        let issuer = CertifiedIssuer::self_signed(authority_params(COMMON_NAME), KeyPair::generate().unwrap()).unwrap();
        let leaf = CertificateParams::new(["api.acme.test".to_owned()]).unwrap().signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let leaf = fixture.write("leaf.pem", &leaf.pem());
        Self { fixture, authority: (issuer.pem(), COMMON_NAME.to_owned()), leaf }
    }

    fn scenario(&self, script: &str) -> Scenario {
        Scenario {
            lock_down: true,
            authority: Some(self.authority.clone()),
            ..self.fixture.masked(&script.replace("LEAF", &self.leaf.to_string_lossy()))
        }
    }
}

fn authority_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn each_kind(scenario: &Scenario, check: impl Fn(&str)) {
    check(&scenario.text());
    if stage::is_root() {
        check(&Scenario { rootless: false, ..scenario.clone() }.text());
    }
}

fn openssl_without_variables() -> Done {
    let pki = Pki::new();
    let verify = [
        "env -i openssl verify LEAF",
        "env -i openssl verify -no-CApath -no-CAstore -CAfile /etc/ssl/certs/ca-certificates.crt LEAF",
        "env -i openssl verify -no-CAfile -no-CAstore -CApath /etc/ssl/certs LEAF",
    ];
    for command in verify {
        let scenario = pki.scenario(&format!("{command} >/dev/null 2>&1 && echo trusted || echo unknown"));
        each_kind(&scenario, |text| assert_eq!(text, "trusted", "{command}"));
        assert_eq!(Scenario { authority: None, ..scenario }.text(), "unknown", "{command}");
    }
    Ok(())
}

fn system_roots_stay() -> Done {
    let pki = Pki::new();
    let root =
        fs::read_dir("/etc/ssl/certs")?.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "pem"));
    let Some(root) = root else { return Err("no root to look for".into()) };
    let script = format!(
        "env -i openssl verify {0}; env -i openssl verify -no-CApath -no-CAstore -CAfile /etc/ssl/certs/ca-certificates.crt {0}",
        root.display()
    );
    each_kind(&pki.scenario(&script), |text| assert_eq!(text, format!("{0}: OK\n{0}: OK", root.display())));
    let names = |authority| {
        let text = Scenario { authority, ..pki.scenario("ls /etc/ssl/certs; test -e /etc/ssl/certs/java && echo has java") }.text();
        text.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let (before, after) = (names(None), names(Some(pki.authority.clone())));
    assert!(before.is_subset(&after));
    let added: Vec<_> = after.difference(&before).collect();
    assert!(matches!(added[..], [name] if name.ends_with(".0")), "{added:?}");
    Ok(())
}

fn variables_lead_to_it() -> Done {
    let pki = Pki::new();
    for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "npm_config_cafile", "NODE_EXTRA_CA_CERTS", "DENO_CERT"] {
        let script = format!("openssl verify -no-CApath -no-CAstore -CAfile \"${name}\" LEAF | sed 's/.*: //'; grep -c BEGIN \"${name}\"");
        each_kind(&pki.scenario(&script), |text| {
            let (verified, count) = text.split_once('\n').unwrap();
            assert_eq!(verified, "OK", "{name}");
            // What adds to built-in roots holds ours alone; what replaces them holds the system's too.
            let adds = matches!(name, "NODE_EXTRA_CA_CERTS" | "DENO_CERT");
            assert_eq!(count == "1", adds, "{name}: {count}");
        });
    }
    Ok(())
}

/// A certificate of the user's with its key in the same file, as some tools want it.
fn users_file(pki: &Pki, name: &str) -> PathBuf {
    let key = KeyPair::generate().unwrap();
    let own = authority_params("Acme Corporation").self_signed(&key).unwrap();
    pki.fixture.write(name, &[own.pem(), key.serialize_pem()].concat())
}

fn users_roots_are_kept() -> Done {
    let pki = Pki::new();
    let file = users_file(&pki, "home/corporate.pem");
    let mut scenario = pki.scenario("grep -h -e BEGIN \"$REQUESTS_CA_BUNDLE\" | sort | uniq -c | tr -s ' '; openssl verify -CAfile $REQUESTS_CA_BUNDLE ~/corporate.pem LEAF | sed 's/.*: //'; test $PIP_CERT = $REQUESTS_CA_BUNDLE && test $PIP_CERT != $AWS_CA_BUNDLE");
    let value = file.to_string_lossy().into_owned();
    scenario.variables = vec![("REQUESTS_CA_BUNDLE".into(), value.clone()), ("PIP_CERT".into(), value)];
    each_kind(&scenario, |text| assert_eq!(text, " 2 -----BEGIN CERTIFICATE-----\nOK\nOK"));
    Ok(())
}

fn users_directory_is_kept() -> Done {
    let pki = Pki::new();
    pki.fixture.make_directory("home/roots");
    users_file(&pki, "home/roots/corporate.pem");
    let mut scenario =
        pki.scenario("openssl verify ~/roots/corporate.pem LEAF | sed 's/.*: //'; grep -c BEGIN $SSL_CERT_FILE; ls $SSL_CERT_DIR | wc -l");
    scenario.variables = vec![("SSL_CERT_DIR".into(), pki.fixture.path("home/roots").to_string_lossy().into_owned())];
    each_kind(&scenario, |text| assert_eq!(text, "OK\nOK\n2\n1"));
    Ok(())
}

fn machine_without_roots() -> Done {
    let pki = Pki::new();
    let empty = pki.fixture.make_directory("empty");
    let mut scenario = pki.scenario("openssl verify LEAF | sed 's/.*: //'; ls -A /etc/ssl; grep -c BEGIN $REQUESTS_CA_BUNDLE");
    scenario.binds = vec![(empty.clone(), "/etc/ssl".into())];
    each_kind(&scenario, |text| assert_eq!(text, "OK\n1"));
    assert_eq!(fs::read_dir(empty)?.count(), 0);
    Ok(())
}

const JAVA_STORE: &str = "/etc/ssl/certs/java/cacerts";

fn has_java() -> bool {
    let has = Scenario::new(&format!("command -v java keytool && test -f {JAVA_STORE}")).output().status.success();
    if !has {
        eprintln!("no java is installed");
    }
    has
}

fn java() -> Done {
    if !has_java() {
        return Ok(());
    }
    let pki = Pki::new();
    let list = format!("keytool -list -keystore {JAVA_STORE} -storepass changeit 2>/dev/null | grep -c trustedCertEntry");
    let before: u32 = Scenario { authority: None, ..pki.scenario(&list) }.text().parse()?;
    let after: u32 = pki.scenario(&list).text().parse()?;
    assert_eq!(after, before + 1);
    // Java counts a root once that the store has under two names.
    let script = java_roots(&pki);
    let before = Scenario { authority: None, ..pki.scenario(&script) }.text();
    let before: u32 = before.strip_suffix(" 0").ok_or_else(|| before.clone())?.parse()?;
    assert_eq!(pki.scenario(&script).text(), format!("{} 1", before + 1));
    Ok(())
}

/// The format of the stores that come with newer Java versions.
fn java_pkcs12() -> Done {
    if !has_java() {
        return Ok(());
    }
    let pki = Pki::new();
    let store = pki.fixture.path("store.p12");
    let options = ["certProtectionAlgorithm=NONE", "macAlgorithm=NONE"].map(|option| format!("-J-Dkeystore.pkcs12.{option}"));
    let made = Command::new("keytool")
        .args(options)
        .args(["-importkeystore", "-noprompt", "-srckeystore", JAVA_STORE, "-srcstorepass", "changeit"])
        .args(["-deststoretype", "PKCS12", "-deststorepass", "changeit", "-destkeystore"])
        .arg(&store)
        .output()?;
    assert!(made.status.success(), "{made:?}");
    fs::set_permissions(&store, fs::Permissions::from_mode(0o644))?;
    let mut scenario = pki.scenario(&java_roots(&pki));
    scenario.binds = vec![(store, JAVA_STORE.into())];
    let text = scenario.text();
    let (all, own) = text.split_once(' ').ok_or("two numbers")?;
    assert_eq!(own, "1");
    assert!(all.parse::<u32>()? > 100, "{all}");
    Ok(())
}

/// Prints how many roots a program with no settings trusts, and how many of them are ours.
fn java_roots(pki: &Pki) -> String {
    pki.fixture.write(
        "Roots.java",
        "import javax.net.ssl.*; import java.security.KeyStore;\
         public class Roots { public static void main(String[] a) throws Exception {\
           var f = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm()); f.init((KeyStore) null);\
           int all = 0, own = 0; for (var c : ((X509TrustManager) f.getTrustManagers()[0]).getAcceptedIssuers()) { all++;\
             if (c.getSubjectX500Principal().getName().equals(\"CN=authsome run 7f\")) own++; }\
           System.out.println(all + \" \" + own); } }",
    );
    format!("env -i PATH=$PATH java -XX:-UsePerfData {}", pki.fixture.path("Roots.java").display())
}

/// One that shows the system's directories and not the user's home.
fn nested_sandbox() -> Done {
    let pki = Pki::new();
    let script = "bwrap --unshare-user --ro-bind /usr /usr --ro-bind /etc /etc --symlink usr/lib /lib --symlink usr/lib64 /lib64 --symlink usr/bin /bin \
        --ro-bind LEAF /leaf.pem sh -c 'env -i openssl verify /leaf.pem && openssl verify -no-CApath -no-CAstore -CAfile $CURL_CA_BUNDLE /leaf.pem'";
    if !Scenario::new("command -v bwrap").output().status.success() {
        eprintln!("bwrap is not installed");
        return Ok(());
    }
    each_kind(&pki.scenario(script), |text| assert_eq!(text, "/leaf.pem: OK\n/leaf.pem: OK"));
    Ok(())
}

fn nothing_changes_outside() -> Done {
    let pki = Pki::new();
    let look = || -> Result<_, Failed> {
        let mut names: Vec<_> = fs::read_dir("/etc/ssl/certs")?.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        Ok((names, fs::read("/etc/ssl/certs/ca-certificates.crt")?, fs::read("/proc/self/mountinfo")?))
    };
    let before = look()?;
    let evil =
        pki.scenario("{ echo evil >> /etc/ssl/certs/ca-certificates.crt || touch /etc/ssl/certs/evil; } 2>/dev/null && echo written; true");
    each_kind(&evil, |text| assert_eq!(text, ""));
    assert!(before == look()?);
    Ok(())
}
