//! The demonstration's client: an ordinary HTTPS client that reads no proxy variable, and then a thief that looks for the key.

use std::{
    env,
    fs::{self, File},
    io::Read,
    path::Path,
    sync::Arc,
};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes, header::AUTHORIZATION};
use hyper_util::rt::TokioIo;
use regex::bytes::Regex;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{HOST, KEY_PREFIX};

/// What the client tells of itself, on its stdout.
#[derive(Debug, Serialize, Deserialize)]
pub struct Account {
    pub sent: String,
    pub status: u16,
    pub searched: Vec<String>,
    pub found: Vec<String>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Runs inside the sandbox.
pub fn main() -> Result<Account, BoxError> {
    let sent = format!("Bearer {}", env::var("DEMO_API_KEY")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(get(&sent))?;
    let (searched, found) = search()?;
    Ok(Account { sent, status, searched, found })
}

async fn get(authorization: &str) -> Result<u16, BoxError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?.with_root_certificates(roots);
    let stream = TcpStream::connect((HOST, 443)).await?;
    let tls = TlsConnector::from(Arc::new(config.with_no_client_auth())).connect(ServerName::try_from(HOST)?, stream).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
    tokio::spawn(connection);
    let request = Request::get("/v1/hello").header("host", HOST).header(AUTHORIZATION, authorization).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}

/// Looks for a key's shape wherever a process of this user can look.
fn search() -> Result<(Vec<String>, Vec<String>), BoxError> {
    let key = Regex::new(&format!("{KEY_PREFIX}[0-9a-f]{{32}}"))?;
    let mut found = Vec::new();
    for (name, value) in env::vars_os() {
        if key.is_match(value.as_encoded_bytes()) {
            found.push(format!("${}", name.display()));
        }
    }
    for process in fs::read_dir("/proc")?.flatten().filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit)) {
        for file in ["environ", "cmdline", "mem"] {
            let path = process.path().join(file);
            if file != "mem" || process.file_name() == "1" {
                look(&path, &key, &mut found);
            }
        }
    }
    let home = env::var_os("AUTHSOME_HOME").unwrap_or_default();
    walk(Path::new(&home), &key, &mut found);
    let searched = ["environment", "/proc/*/environ", "/proc/*/cmdline", "/proc/1/mem", "AUTHSOME_HOME"].map(str::to_owned).to_vec();
    Ok((searched, found))
}

fn walk(directory: &Path, key: &Regex, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), key, found),
            Ok(_) => look(&entry.path(), key, found),
            Err(_) => {}
        }
    }
}

fn look(path: &Path, key: &Regex, found: &mut Vec<String>) {
    let mut bytes = Vec::new();
    // What cannot be read holds nothing for a thief.
    if File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).is_ok() && key.is_match(&bytes) {
        found.push(path.display().to_string());
    }
}
