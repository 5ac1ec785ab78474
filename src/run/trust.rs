//! The run's certificate authority, trusted inside beside what the user trusted before and nowhere else.
//!
//! Certificates are written to a directory of the run; variables point there. In the sandbox the same files are also mounted over the
//! system's own, so that programs that clear their environment trust them too.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

#[cfg(target_os = "linux")]
mod browsers;
#[cfg(target_os = "linux")]
mod cover;
#[cfg(target_os = "linux")]
mod java;
#[cfg(target_os = "linux")]
mod mounted;
#[cfg(target_os = "linux")]
mod nss;
mod subject_hash;
pub(crate) mod system;

pub use crate::certificate::Error as KeyStoreError;
#[cfg(target_os = "linux")]
pub use nss::Database;

/// The run's certificate authority.
#[derive(Clone, Copy)]
pub struct Authority<'a> {
    /// Its certificate (RFC 7468), ending with a newline.
    pub pem: &'a str,
    /// Its subject: one common name, a UTF8String.
    pub common_name: &'a str,
}

/// Trust of one run, on disk but not yet in force: set [`variables`](Self::variables) in the child's environment, and in the sandbox
/// also [`mount`](Self::mount).
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "what is mounted from is read where there are mounts"))]
pub struct Trust<'a> {
    authority: Authority<'a>,
    /// Where the files of this run are.
    directory: PathBuf,
    authority_file: PathBuf,
    /// One combination for each of the system's own bundles.
    bundles: Vec<Bundle>,
    java_home: Option<PathBuf>,
    variables: Vec<(&'static str, OsString)>,
}

/// A bundle of the system and the file that is to be seen in its place.
#[derive(Debug)]
struct Bundle {
    real_path: PathBuf,
    combined: PathBuf,
}

/// What could not be done but does not endanger the run: programs that use only this will reject our certificates.
#[derive(Debug, thiserror::Error)]
#[error("{path} is left as it is: {reason}")]
pub struct LeftAlone {
    pub path: PathBuf,
    #[source]
    pub reason: Box<dyn std::error::Error + Send + Sync>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("read the run's own certificate: {0}")]
    Authority(rustls_pki_types::pem::Error),
    #[error("create {path}: {source}")]
    Create { path: PathBuf, source: io::Error },
    #[error("create {path} with what is in {from}: {source}")]
    Extend { path: PathBuf, from: PathBuf, source: io::Error },
    #[cfg(target_os = "linux")]
    #[error("start a thread: {0}")]
    Thread(io::Error),
    #[cfg(target_os = "linux")]
    #[error("{0} has mounts in it, which an overlay would not show")]
    HoldsMounts(PathBuf),
    #[cfg(target_os = "linux")]
    #[error(transparent)]
    Mount(#[from] super::mask::mount::Error),
}

/// Variables that name the only roots a program uses.
const REPLACING: &[&str] = &[
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "npm_config_cafile",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "HEX_CACERTS_PATH",
    "NIX_SSL_CERT_FILE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "JULIA_SSL_CA_ROOTS_PATH",
    "HTTPLIB2_CA_CERTS",
    "CONDA_SSL_VERIFY",
    "PERL_LWP_SSL_CA_FILE",
];

/// What a program reads where its own variable is not set.
const INSTEAD: &[(&str, &str)] = &[("CURL_CA_BUNDLE", "SSL_CERT_FILE"), ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")];

/// Variables that name roots used beside those built into a program.
const ADDING: &[&str] = &["NODE_EXTRA_CA_CERTS", "DENO_CERT"];

impl<'a> Trust<'a> {
    /// Writes the run's files to `directory`, which exists. `env` is the environment the user called us with: a variable that is set
    /// there names the user's roots, which are kept.
    pub fn write(directory: &Path, authority: Authority<'a>, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let directory = directory.join("trust");
        fs::create_dir_all(&directory).map_err(|source| Error::Create { path: directory.clone(), source })?;
        set_enterable(&directory)?;
        let mut files = Files { directory, authority, of_user: BTreeMap::new(), bundles: Vec::new() };
        let authority_file = files.combine("ca.pem", "")?;
        for (index, real_path) in system::bundles().into_iter().enumerate() {
            let combined = files.extend(&format!("system-{index}.pem"), &real_path)?;
            files.bundles.push(Bundle { real_path, combined });
        }
        let system = files.bundles.first().map_or(&authority_file, |bundle| &bundle.combined).clone();

        let named = |name: &str| env(name).filter(|value| !value.is_empty());
        let instead = |name: &str| INSTEAD.iter().find(|(own, _)| *own == name).and_then(|(_, other)| named(other));
        let mut variables = files.openssl(env, &system)?;
        for (names, default) in [(REPLACING, &system), (ADDING, &authority_file)] {
            for &name in names {
                let value = match named(name).or_else(|| instead(name)) {
                    // Conda takes a truth value as well; "no verification" needs no roots.
                    Some(value) if name == "CONDA_SSL_VERIFY" && is_truth_value(&value) => value,
                    Some(value) => files.with_roots_of(Path::new(&value))?.into(),
                    None => default.clone().into(),
                };
                variables.push((name, value));
            }
        }
        variables.push(("DENO_TLS_CA_STORE", env("DENO_TLS_CA_STORE").unwrap_or_else(|| "system,mozilla".into())));
        let java_home = env("JAVA_HOME").map(PathBuf::from);
        Ok(Self { authority, directory: files.directory, authority_file, bundles: files.bundles, java_home, variables })
    }

    /// Every trust variable with its value.
    pub fn variables(&self) -> &[(&'static str, OsString)] {
        &self.variables
    }
}

/// The files written so far.
struct Files<'a> {
    directory: PathBuf,
    authority: Authority<'a>,
    bundles: Vec<Bundle>,
    /// Combinations by the user's file they were made from, as it was named and by its real path.
    of_user: BTreeMap<PathBuf, PathBuf>,
}

impl Files<'_> {
    /// Writes `roots` and our own.
    fn combine(&self, name: &str, roots: &str) -> Result<PathBuf, Error> {
        let gap = if roots.is_empty() || roots.ends_with('\n') { "" } else { "\n" };
        self.place(name, &|new| write(new, [roots, gap, self.authority.pem].concat().as_bytes()))
    }

    /// Writes a bundle as it is and our own.
    fn extend(&self, name: &str, bundle: &Path) -> Result<PathBuf, Error> {
        self.place(name, &|new| write_after(new, bundle, ["\n", self.authority.pem].concat().as_bytes()))
    }

    /// Whoever reads a file of that name meanwhile finds the old one whole.
    fn place(&self, name: &str, write: &dyn Fn(&Path) -> Result<(), Error>) -> Result<PathBuf, Error> {
        let (path, new) = (self.directory.join(name), self.directory.join(format!("{name}.new")));
        // One that a killed process left is read-only.
        let _ = fs::remove_file(&new);
        write(&new)?;
        fs::rename(&new, &path).map_err(|source| Error::Create { path: path.clone(), source })?;
        Ok(path)
    }

    /// The combination with the roots at `path`, a file or directory the user named.
    fn with_roots_of(&mut self, path: &Path) -> Result<PathBuf, Error> {
        if let Some(combined) = self.of_user.get(path) {
            return Ok(combined.clone());
        }
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let known = self.bundles.iter().find(|bundle| bundle.real_path == real).map(|bundle| &bundle.combined);
        let combined = match known.or_else(|| self.of_user.get(&real)) {
            Some(combined) => combined.clone(),
            None => self.combine(&format!("user-{}.pem", self.of_user.len()), &system::roots_at(&real))?,
        };
        self.of_user.extend([(path.to_owned(), combined.clone()), (real, combined.clone())]);
        Ok(combined)
    }

    /// OpenSSL and those who follow it use the file and the directories together. The user's directories go into the file, and a
    /// directory with our certificate alone takes their place.
    fn openssl(&mut self, env: &dyn Fn(&str) -> Option<OsString>, system: &Path) -> Result<Vec<(&'static str, OsString)>, Error> {
        let of_system = system::hashed_directories();
        let directories = env("SSL_CERT_DIR").map_or_else(Vec::new, |value| env::split_paths(&value).collect());
        let of_user = directories.into_iter().filter_map(|path| path.canonicalize().ok()).filter(|path| !of_system.contains(path));
        let of_user: Vec<PathBuf> = of_user.collect();
        let file = env("SSL_CERT_FILE").filter(|value| !value.is_empty()).map(PathBuf::from);
        if of_user.is_empty() {
            let combined = file.map_or_else(|| Ok(system.to_owned()), |file| self.with_roots_of(&file))?;
            return Ok(vec![("SSL_CERT_FILE", combined.into())]);
        }
        let roots: String = file.iter().chain(&of_user).map(|path| system::roots_at(path)).collect();
        let combined = self.combine("openssl.pem", &roots)?;
        let hashed = self.directory.join("hashed");
        // An earlier one has a link of its own already.
        let _ = fs::remove_dir_all(&hashed);
        fs::create_dir_all(&hashed).map_err(|source| Error::Create { path: hashed.clone(), source })?;
        set_enterable(&hashed)?;
        system::link_authority(&hashed, &hashed, &self.directory.join("ca.pem"), self.authority.common_name)?;
        Ok(vec![("SSL_CERT_FILE", combined.into()), ("SSL_CERT_DIR", hashed.into())])
    }
}

/// A file that CMD may read, whatever the umask.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let written = fs::write(path, bytes).and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o444)));
    written.map_err(|source| Error::Create { path: path.to_owned(), source })
}

/// As [`write`], with the contents of `from` before `bytes`. They do not pass through this process.
fn write_after(path: &Path, from: &Path, bytes: &[u8]) -> Result<(), Error> {
    let copied = || {
        let mut file = File::create(path)?;
        io::copy(&mut File::open(from)?, &mut file)?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(0o444))
    };
    copied().map_err(|source| Error::Extend { path: path.to_owned(), from: from.to_owned(), source })
}

/// Whatever the umask is, CMD may enter.
fn set_enterable(directory: &Path) -> Result<(), Error> {
    fs::set_permissions(directory, Permissions::from_mode(0o755)).map_err(|source| Error::Create { path: directory.to_owned(), source })
}

fn is_truth_value(value: &OsString) -> bool {
    ["true", "false", "yes", "no", "on", "off", "1", "0"].iter().any(|word| value.eq_ignore_ascii_case(word))
}
