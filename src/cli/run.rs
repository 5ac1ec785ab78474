//! `authsome run`
use super::{context::Context, report::Failure};
use crate::{
    config::{self, Config, EgressChoice, Mode, UpstreamChoice},
    host::Host,
    provider::ProviderName,
    route::policy::{Policy, Rule},
    run::{
        self,
        options::{KernelRule, RunOptions},
    },
    vault::ConnectionName,
};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Run a program whose API calls carry your keys while it never holds one
///
/// Connections to a connected provider get the credential added; everything else is forwarded unopened. With --transparent the program runs in
/// a network namespace, and every connection is seen; without it, proxy variables are set, which most programs heed. The program's exit code is
/// returned.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  authsome run --transparent -- ./agent.py
  authsome run -- ./agent.py                              for programs that heed HTTPS_PROXY
  authsome run --transparent --connection github=work -- git push
  authsome run --transparent --allow provider:openai --allow 'GET docs.acme.test/**' -- ./agent.py
  authsome run --upstream http://proxy.acme.test:3128 -- ./agent.py
  sudo authsome run --transparent -- make deploy          with UDP and ICMP too
  authsome run --transparent --egress pasta -- ./probe    with UDP and ICMP, without root
  authsome run --transparent --dry-run -- ./agent.py      show what would be in force

If the audit trail cannot be written the run goes on and says so at its end. With audit.required = true in
config.toml it is stopped instead, with exit code 125.")]
pub struct Run {
    /// Run in a network namespace: every connection of the program is seen
    #[arg(long)]
    transparent: bool,
    /// How other traffic leaves the namespace
    #[arg(long, value_enum)]
    egress: Option<EgressChoice>,
    /// Intercept this port besides 443 and the providers' own
    #[arg(long, value_name = "P", value_parser = port())]
    intercept_port: Vec<u16>,
    /// Proxy that outgoing connections go through: http://, https:// or socks5://[USER:PASSWORD@]HOST:PORT; env (default): as the proxy variables say
    #[arg(long, value_name = "URL|env|none")]
    upstream: Option<String>,
    /// Also trust the certificates in this PEM file for servers
    #[arg(long, value_name = "FILE")]
    upstream_ca: Vec<PathBuf>,
    /// Allow what this rule names and nothing else: a host, or `GET,HEAD https://*.acme.test:443/v1/**`
    #[arg(long, value_name = "RULE")]
    allow: Vec<Rule>,
    /// Deny what this rule names
    #[arg(long, value_name = "RULE")]
    deny: Vec<Rule>,
    /// Rules from a TOML file: allow = ["…"] and deny = ["…"]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Let the program reach this port (or name in config.toml) of the host's loopback
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,
    /// Let the host reach this port (or name in config.toml) of the program, on loopback
    #[arg(long, value_name = "PORT")]
    publish: Vec<String>,
    /// Never open connections to this host
    #[arg(long, value_name = "HOST")]
    passthrough: Vec<Host>,
    /// Use this connection of a provider
    #[arg(long, value_name = "PROVIDER=NAME", value_parser = chosen)]
    connection: Vec<(ProviderName, ConnectionName)>,
    /// Run the program as this user (for root without sudo)
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Leave this path as it is: neither hidden nor read-only
    #[arg(long, value_name = "P")]
    keep_path: Vec<PathBuf>,
    /// Leave this part of the kernel's interface open
    #[arg(long, value_name = "NAME", value_enum)]
    allow_kernel: Vec<KernelRule>,
    /// Show what would be in force, and start nothing
    #[arg(long)]
    dry_run: bool,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

impl Run {
    /// The rules of the command line and of its file, which is read as whoever calls this.
    pub fn policy(&self) -> Result<Policy, Failure> {
        let mut policy = Policy::new(self.allow.clone(), self.deny.clone());
        if let Some(path) = &self.policy {
            policy.extend(policy_file(path)?);
        }
        Ok(policy)
    }

    pub fn run(self, mut context: Context, policy: Policy) -> Result<u8, Failure> {
        context.outside_run()?;
        let mode = if self.transparent { Mode::Transparent } else { context.config.mode };
        if mode == Mode::Environment {
            self.refuse_transparent_only()?;
        }
        context.config.passthrough.extend(self.passthrough);
        let options = RunOptions {
            mode,
            egress: self.egress.unwrap_or(context.config.egress),
            intercept_ports: self.intercept_port,
            upstream: self.upstream.map_or(context.config.upstream.clone(), |text| UpstreamChoice::new("--upstream", text)),
            upstream_ca: self.upstream_ca,
            policy,
            expose: named_ports("--expose", &self.expose, &context.config)?,
            publish: named_ports("--publish", &self.publish, &context.config)?,
            connections: self.connection,
            user: self.user,
            keep_paths: self.keep_path,
            dry_run: self.dry_run,
            command: self.command,
            verbosity: context.out.verbosity,
            allow_kernel: self.allow_kernel,
        };
        Ok(match mode {
            Mode::Environment => run::environment(&options, &context.config)?,
            Mode::Transparent => run::transparent(&options, &context.config)?,
        })
    }

    /// What only a namespace can do.
    fn refuse_transparent_only(&self) -> Result<(), Failure> {
        let given = [
            (self.egress.is_some(), "--egress"),
            (!self.intercept_port.is_empty(), "--intercept-port"),
            (!self.expose.is_empty(), "--expose"),
            (!self.publish.is_empty(), "--publish"),
            (!self.keep_path.is_empty(), "--keep-path"),
            (!self.allow_kernel.is_empty(), "--allow-kernel"),
        ];
        match given.iter().find(|(given, _)| *given) {
            Some((_, flag)) => Err(Failure::NeedsTransparent(flag)),
            None => Ok(()),
        }
    }
}

/// Reads and checks a policy file.
pub fn policy_file(path: &Path) -> Result<Policy, Failure> {
    let text = config::read(path).map_err(|source| Failure::File { action: "read", path: path.to_owned(), source })?;
    Policy::parse(&text).map_err(|source| Failure::Policy { path: path.to_owned(), source })
}

/// Each a number, or a name that config.toml gives one.
fn named_ports(flag: &'static str, ports: &[String], config: &Config) -> Result<Vec<u16>, Failure> {
    let port = |text: &String| {
        let number = text.parse().ok().filter(|port| *port > 0).or_else(|| config.ports.get(text).copied());
        number.ok_or_else(|| Failure::UnknownPort { flag, text: text.clone() })
    };
    ports.iter().map(port).collect()
}

/// Port 0 is no port to connect to (RFC 6335 §6).
fn port() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

fn chosen(text: &str) -> Result<(ProviderName, ConnectionName), String> {
    let (provider, connection) = text.split_once('=').ok_or("it is PROVIDER=NAME")?;
    let provider = provider.parse().map_err(|error: crate::provider::ProviderError| error.to_string())?;
    let connection = connection.parse().map_err(|error: crate::vault::InvalidName| error.to_string())?;
    Ok((provider, connection))
}
