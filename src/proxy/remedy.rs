//! What helps a program of this run that does not take our certificate: where its runtime looks for roots.

use std::{collections::BTreeSet, fs};

use nix::unistd::Pid;

use super::process_tree::descendants;

/// Names of programs as they begin, and what their runtime is told by.
const RUNTIMES: &[(&[&str], &str)] = &[
    (&["python", "pypy"], "Python takes roots from SSL_CERT_FILE, and from REQUESTS_CA_BUNDLE with requests or pip"),
    (&["node", "bun", "electron"], "Node takes roots from NODE_EXTRA_CA_CERTS, which it reads when it starts"),
    (&["deno"], "Deno takes roots from DENO_CERT"),
    (&["java"], "Java takes roots from -Djavax.net.ssl.trustStore, or from its own lib/security/cacerts"),
    (&["git"], "git takes roots from GIT_SSL_CAINFO or http.sslCAInfo"),
    (&["curl"], "curl takes roots from CURL_CA_BUNDLE or --cacert"),
    (&["ruby", "php", "perl", "wget", "openssl"], "OpenSSL takes roots from SSL_CERT_FILE"),
    (&["chrom", "google-chrome", "brave"], "Chromium takes roots from its NSS database"),
    (&["firefox"], "Firefox takes roots from its own profile"),
];

/// A program that starts others has them all below it; more than this says nothing of the one that failed.
const MAX_SENTENCES: usize = 2;

/// One sentence for each runtime among the run's programs; empty where none is known, or too many are. Walks /proc.
pub fn of_running() -> Vec<&'static str> {
    let programs = descendants(Pid::this()).unwrap_or_default().into_iter().filter_map(program);
    let sentences: BTreeSet<_> = programs.filter_map(|name| of(&name)).collect();
    if sentences.len() > MAX_SENTENCES { Vec::new() } else { sentences.into_iter().collect() }
}

fn of(program: &str) -> Option<&'static str> {
    RUNTIMES.iter().find(|(names, _)| names.iter().any(|name| program.starts_with(name))).map(|(_, sentence)| *sentence)
}

/// The name of the file that is executed; of a script, its interpreter's.
fn program(pid: Pid) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(path.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn runtimes_by_the_name_of_their_program() {
        for (program, variable) in [
            ("python3.11", "SSL_CERT_FILE"),
            ("node", "NODE_EXTRA_CA_CERTS"),
            ("git-remote-http", "GIT_SSL_CAINFO"),
            ("java", "trustStore"),
        ] {
            assert!(of(program).is_some_and(|sentence| sentence.contains(variable)), "{program}");
        }
        for program in ["sh", "bash", "authsome", "my-agent"] {
            assert_eq!(of(program), None, "{program}");
        }
    }

    #[test]
    fn a_running_interpreter_is_recognised_by_its_program_and_not_its_script() {
        let mut child = Command::new("perl").args(["-e", "$0 = 'agent'; <STDIN>"]).stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        // Until exec(2) the child is a copy of this process.
        while program(pid).as_deref() != Some("perl") {
            std::thread::yield_now();
        }
        assert!(of_running().iter().any(|sentence| sentence.contains("SSL_CERT_FILE")));
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
