//! Which stores there are on which system.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Kind, Scope, Store, nss};

/// Families of systems that keep their roots alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    Debian,
    Fedora,
    Arch,
    Suse,
    MacOs,
    Unknown,
}

/// What decides which stores there are.
#[derive(Debug, Clone)]
pub struct Machine {
    pub system: System,
    /// The user's home.
    pub home: PathBuf,
    /// Whether Firefox is there.
    pub firefox: bool,
    /// NSS databases that exist already, beside that of Chromium, which is made where there is none.
    pub databases: Vec<PathBuf>,
    /// Whether Windows is around this system (WSL): its programs have a store of their own.
    pub in_windows: bool,
}

/// Family, identifiers of os-release(5), directory of anchors, program that puts them into force. update-ca-certificates(8) reads only names
/// that end with `.crt`.
const ANCHORS: &[(System, &[&str], &str, &[&str])] = &[
    (System::Debian, &["debian", "ubuntu", "alpine"], "/usr/local/share/ca-certificates", &["update-ca-certificates"]),
    (System::Fedora, &["fedora", "rhel", "centos", "amzn"], "/etc/pki/ca-trust/source/anchors", &["update-ca-trust"]),
    // Where `trust anchor --store` would put it, by a name of our own.
    (System::Arch, &["arch"], "/etc/ca-certificates/trust-source/anchors", &["update-ca-trust"]),
    (System::Suse, &["suse", "opensuse", "sles"], "/etc/pki/trust/anchors", &["update-ca-certificates"]),
];
const ANCHOR: &str = "authsome.crt";

/// Read by the extended support release as well.
const FIREFOX_POLICY: &str = "/etc/firefox/policies/policies.json";
const FIREFOXES: &[&str] = &["/etc/firefox", "/usr/lib/firefox", "/usr/lib64/firefox", "/usr/lib/firefox-esr", "/opt/firefox"];

impl System {
    /// From the text of os-release(5): the system itself, then what it is like, nearest first.
    pub fn parse(os_release: &str) -> Self {
        let value = |name: &str| {
            let line = os_release.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches(['"', '\''])
        };
        let ids = [value("ID"), value("ID_LIKE")];
        let family = |id: &str| ANCHORS.iter().find(|(_, names, ..)| names.contains(&id)).map(|(system, ..)| *system);
        ids.iter().flat_map(|ids| ids.split_whitespace()).find_map(family).unwrap_or(Self::Unknown)
    }
}

impl Machine {
    /// The package that a store's program is in.
    pub fn package(&self, tool: &str) -> &'static str {
        match self.system {
            _ if tool != nss::CERTUTIL => "ca-certificates",
            System::Fedora => "nss-tools",
            System::Suse => "mozilla-nss-tools",
            System::Arch | System::MacOs => "nss",
            System::Debian | System::Unknown => "libnss3-tools",
        }
    }

    /// This one, for the user with this home.
    pub fn here(home: &Path) -> Self {
        let os_release = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| fs::read_to_string(path).ok());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            system: if cfg!(target_os = "macos") { System::MacOs } else { System::parse(&os_release.unwrap_or_default()) },
            home: home.to_owned(),
            firefox: FIREFOXES.iter().any(|path| Path::new(path).is_dir()),
            databases: databases(home),
            in_windows: kernel.to_lowercase().contains("microsoft"),
        }
    }

    /// Every store, the system's first.
    pub fn stores(&self) -> Vec<Store> {
        let store = |name, scope, path: PathBuf, kind| Store { name, scope, path, kind };
        if self.system == System::MacOs {
            let system = Kind::Keychain { arguments: &["-d"] };
            let login = self.home.join("Library/Keychains/login.keychain-db");
            return vec![
                store("keychain", Scope::System, "/Library/Keychains/System.keychain".into(), system),
                store("login keychain", Scope::User, login, Kind::Keychain { arguments: &[] }),
            ];
        }
        let anchors = ANCHORS.iter().filter(|(system, ..)| *system == self.system);
        let anchors = anchors
            .map(|(_, _, directory, refresh)| store("system", Scope::System, Path::new(directory).join(ANCHOR), Kind::Anchor { refresh }));
        let policy = self.firefox.then(|| store("firefox policy", Scope::System, FIREFOX_POLICY.into(), Kind::FirefoxPolicy));
        let chromium = self.home.join(".pki/nssdb");
        let others = self.databases.iter().filter(|path| **path != chromium).cloned();
        let databases = [chromium.clone()].into_iter().chain(others).map(|path| store("nss", Scope::User, path, Kind::Nss));
        anchors.chain(policy).chain(databases).collect()
    }
}

/// The user's NSS databases: those of browsers in a box of their own, and one for each profile of Firefox.
fn databases(home: &Path) -> Vec<PathBuf> {
    let profiles = [".mozilla/firefox", "snap/firefox/common/.mozilla/firefox", ".var/app/org.mozilla.firefox/.mozilla/firefox"];
    let profiles = profiles.iter().filter_map(|path| fs::read_dir(home.join(path)).ok()).flatten().flatten().map(|entry| entry.path());
    let boxed = ["snap/chromium/current/.pki/nssdb", ".var/app/org.chromium.Chromium/.pki/nssdb", ".local/share/pki/nssdb"];
    let mut found: Vec<_> =
        boxed.iter().map(|path| home.join(path)).chain(profiles).filter(|path| path.join(nss::CERTIFICATES).exists()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust_store::{Certificate, Entry, Fingerprint};

    fn machine(os_release: &str) -> Machine {
        let system = System::parse(os_release);
        Machine { system, home: "/home/alice".into(), firefox: false, databases: Vec::new(), in_windows: false }
    }

    fn certificate() -> Certificate {
        Certificate {
            path: "/home/alice/.authsome/ca/c.pem".into(),
            pem: String::new(),
            common_name: "authsome CA 01".to_owned(),
            sha256: Fingerprint::of(b"der"),
        }
    }

    /// What installing and uninstalling would do, as it is shown.
    fn plans(store: &Store) -> (Vec<String>, Vec<String>) {
        let shown = |steps: Vec<crate::trust_store::Step>| steps.iter().map(ToString::to_string).collect();
        (shown(store.install(&certificate()).unwrap()), shown(store.uninstall(&Entry::new(store, &certificate())).unwrap()))
    }

    #[test]
    fn each_distribution_has_its_place_and_program() {
        for (os_release, path, program) in [
            ("ID=debian\n", "/usr/local/share/ca-certificates/authsome.crt", "update-ca-certificates"),
            ("ID=ubuntu\nID_LIKE=debian", "/usr/local/share/ca-certificates/authsome.crt", "update-ca-certificates"),
            (
                "NAME=Mint\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n",
                "/usr/local/share/ca-certificates/authsome.crt",
                "update-ca-certificates",
            ),
            ("ID=fedora", "/etc/pki/ca-trust/source/anchors/authsome.crt", "update-ca-trust"),
            ("ID='rocky'\nID_LIKE='rhel centos fedora'", "/etc/pki/ca-trust/source/anchors/authsome.crt", "update-ca-trust"),
            ("ID=arch", "/etc/ca-certificates/trust-source/anchors/authsome.crt", "update-ca-trust"),
            ("ID=manjaro\nID_LIKE=arch", "/etc/ca-certificates/trust-source/anchors/authsome.crt", "update-ca-trust"),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"", "/etc/pki/trust/anchors/authsome.crt", "update-ca-certificates"),
        ] {
            let stores = machine(os_release).stores();
            let (install, uninstall) = plans(&stores[0]);
            assert_eq!(install, [format!("write {path}"), program.to_owned()], "{os_release}");
            assert_eq!(uninstall, [format!("rm {path}"), program.to_owned()], "{os_release}");
            assert_eq!(stores[0].scope, Scope::System);
        }
    }

    #[test]
    fn an_unknown_system_has_the_users_store_alone() {
        let stores = machine("ID=plan9\nVERSION_ID=debian").stores();
        let [store] = &stores[..] else { panic!("{stores:?}") };
        assert_eq!((store.scope, store.path.as_path()), (Scope::User, Path::new("/home/alice/.pki/nssdb")));
    }

    #[test]
    fn macos_has_two_keychains() {
        let stores = Machine { system: System::MacOs, ..machine("") }.stores();
        let [system, login] = &stores[..] else { panic!("{stores:?}") };
        let (pem, hash) = ("/home/alice/.authsome/ca/c.pem", certificate().sha256.to_string().replace(':', ""));
        let keychain = "/Library/Keychains/System.keychain";
        assert_eq!(plans(system).0, [format!("security add-trusted-cert -d -r trustRoot -k {keychain} {pem}")]);
        assert_eq!(plans(system).1, [format!("security delete-certificate -t -Z {hash} {keychain}")]);
        let keychain = "/home/alice/Library/Keychains/login.keychain-db";
        assert_eq!(plans(login).0, [format!("security add-trusted-cert -r trustRoot -k {keychain} {pem}")]);
        assert_eq!(login.scope, Scope::User);
    }

    #[test]
    fn browsers_of_the_user() {
        let databases = vec!["/home/alice/.mozilla/firefox/a.default".into()];
        let stores = Machine { firefox: true, databases, ..machine("ID=debian") }.stores();
        let paths: Vec<_> = stores.iter().map(|store| store.path.to_str().unwrap()).collect();
        let own = ["/home/alice/.pki/nssdb", "/home/alice/.mozilla/firefox/a.default"];
        assert_eq!(paths, ["/usr/local/share/ca-certificates/authsome.crt", FIREFOX_POLICY, own[0], own[1]]);
        let (install, uninstall) = plans(&stores[2]);
        assert_eq!(
            install,
            [
                "mkdir -p -m 700 /home/alice/.pki/nssdb",
                "certutil -N --empty-password -d sql:/home/alice/.pki/nssdb",
                "certutil -A -a -t C,, -d sql:/home/alice/.pki/nssdb -n 'authsome CA 01' -i /home/alice/.authsome/ca/c.pem"
            ]
        );
        assert_eq!(uninstall, ["certutil -D -d sql:/home/alice/.pki/nssdb -n 'authsome CA 01'"]);
    }
}
