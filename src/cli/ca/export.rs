use std::{
    fs::{self, Permissions},
    io::{self, IsTerminal, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::ValueEnum;
use serde_json::json;

use crate::{
    certificate::{jks, mobileconfig, pkcs12},
    cli::{context::Context, report::Failure},
    login::{LoginError, api_key},
    run::ca::Authority,
    secret::Secret,
};

/// Under which name key stores have it.
const ALIAS: &str = "authsome";

/// Write out its certificate, never its key
///
/// A p12 or jks store has a password by which a program sees that nobody changed it. The certificate in it is no secret.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  authsome ca export > authsome-ca.pem
  authsome ca export --format der -o authsome-ca.cer           Windows, Android
  authsome ca export --format mobileconfig -o ca.mobileconfig  iOS, macOS
  authsome ca export --format jks -o truststore.jks            Java; its password is `changeit`
  printf %s \"$PASSWORD\" | authsome ca export --format p12 --password-stdin -o ca.p12")]
pub struct Export {
    #[arg(long, value_enum, default_value_t = Format::Pem)]
    format: Format,
    /// Read the password of a p12 or jks store from stdin
    #[arg(long)]
    password_stdin: bool,
    /// Write to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text, for OpenSSL, curl, Python, Node …
    Pem,
    /// The bare certificate, often named .cer or .crt
    #[value(alias = "cer")]
    Der,
    /// PKCS#12 trust store
    P12,
    /// Java's own trust store
    Jks,
    /// Configuration profile for Apple's systems
    Mobileconfig,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Pem => "pem",
            Self::Der => "der",
            Self::P12 => "p12",
            Self::Jks => "jks",
            Self::Mobileconfig => "mobileconfig",
        }
    }

    fn is_text(self) -> bool {
        matches!(self, Self::Pem | Self::Mobileconfig)
    }
}

impl Export {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let (name, out) = (self.format.name(), context.out);
        if self.password_stdin && !matches!(self.format, Format::P12 | Format::Jks) {
            return Err(Failure::Usage(format!("--password-stdin: {name} has no password")));
        }
        if self.output.is_none() && !out.json && !self.format.is_text() && io::stdout().is_terminal() {
            return Err(Failure::Usage(format!("--format {name} is binary: name a file with -o, or send it into a pipe")));
        }
        let authority = super::open(context)?;
        let bytes = self.encode(&authority)?;
        match &self.output {
            Some(path) => {
                write(path, &bytes).map_err(|source| Failure::File { action: "write", path: path.clone(), source })?;
                let password = if self.format == Format::Jks && !self.password_stdin { ", its password is changeit" } else { "" };
                out.done(&json!({"path": path, "format": name}), &format!("wrote {}{password}", path.display()))?;
            }
            None if out.json && self.format == Format::Pem => out.document(&json!({"pem": authority.certificate_pem()}))?,
            None if out.json => out.document(&json!({"format": name, "base64": STANDARD.encode(&bytes)}))?,
            None => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&bytes).and_then(|()| stdout.flush()).map_err(Failure::Output)?;
            }
        }
        Ok(0)
    }

    fn encode(&self, authority: &Authority) -> Result<Vec<u8>, Failure> {
        let certificate = authority.certificate_der();
        let store =
            |encoded: Result<Vec<u8>, _>| encoded.map_err(|error| Failure::Usage(format!("--format {}: {error}", self.format.name())));
        match self.format {
            Format::Pem => Ok(authority.certificate_pem().as_bytes().to_vec()),
            Format::Der => Ok(certificate.to_vec()),
            Format::P12 => store(pkcs12::store(authority.common_name(), certificate, self.password()?.expose())),
            Format::Jks if self.password_stdin => store(jks::store(ALIAS, certificate, self.password()?.expose())),
            Format::Jks => store(jks::store(ALIAS, certificate, jks::PASSWORD)),
            Format::Mobileconfig => Ok(mobileconfig::profile(authority.common_name(), certificate).into_bytes()),
        }
    }

    fn password(&self) -> Result<Secret<String>, Failure> {
        let given = match self.password_stdin {
            true => api_key::read_stdin(),
            false => api_key::ask_terminal("Password of the new store: "),
        };
        given.map_err(|error| match error {
            LoginError::NoTerminal => Failure::Usage("--format p12 needs a password: give it with --password-stdin".to_owned()),
            LoginError::Cancelled if self.password_stdin => Failure::Usage("--password-stdin: the password is empty".to_owned()),
            error => error.into(),
        })
    }
}

/// The whole file or none. What is no file (a pipe, /dev/stdout) is written to as it is.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return fs::write(path, bytes);
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // As any new file: the umask decides who may read it.
    let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
