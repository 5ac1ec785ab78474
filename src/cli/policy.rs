//! `authsome policy`
use super::{
    context::Context,
    report::{Failure, UNEXPECTED},
    run::policy_file,
};
use crate::{
    audit::{Record, Trail, Verdict},
    host::{Host, Target},
    provider::ProviderName,
    route::{
        Route, Table, is_canonical,
        policy::{Asked, Denial, Protocol, Ruling},
    },
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::PathBuf,
};

/// Rules on what a program may reach
#[derive(Debug, clap::Subcommand)]
pub enum Policy {
    Check(Check),
    FromLog(FromLog),
}

/// Say which rule of a file decides about a request
///
/// Exit code 0 if it is allowed, 1 if it is denied.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  authsome policy check agent.toml https://api.acme.test/v1/items
  authsome policy check agent.toml https://api.acme.test/v1/items --method DELETE
  authsome policy check agent.toml tcp://db.acme.test:5432

agent.toml:
  allow = [\"provider:openai\", \"GET,HEAD https://*.acme.test/v1/**\", \"tcp://db.acme.test:5432\"]
  deny = [\"admin.acme.test\"]")]
pub struct Check {
    /// The policy file
    file: PathBuf,
    /// https://HOST[:PORT]/PATH, http://… or tcp://HOST:PORT
    url: http::Uri,
    /// The request's method
    #[arg(long, value_name = "M", default_value = "GET")]
    method: http::Method,
}

/// Print the policy that would let a recorded run do what it did and no more
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  authsome policy from-log 4f1c2a > agent.toml")]
pub struct FromLog {
    /// The run's id, as `authsome log --json` shows it
    #[arg(value_name = "RUN")]
    run: String,
}

impl Policy {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Check(command) => command.run(context),
            Self::FromLog(command) => command.run(context),
        }
    }
}

impl Check {
    fn run(self, context: &Context) -> Result<u8, Failure> {
        let policy = policy_file(&self.file)?;
        let (target, protocol) = self.target()?;
        let claims = claims(context, &target)?;
        let asked = Asked { target: &target, addr: None, protocol, claims: &claims };
        let ruling = match (policy.connection(asked), protocol) {
            (denied @ Ruling::Deny(_), _) => denied,
            (Ruling::Allow(_) | Ruling::Inspect, Protocol::Https) => policy.request(asked, &self.method, self.url.path()),
            (other, _) => other,
        };
        let (allowed, rule, sentence, add) = match ruling {
            Ruling::Allow(Some(rule)) => (true, Some(rule.clone()), format!("allowed by the rule `{rule}`"), None),
            Ruling::Allow(None) => (true, None, "allowed: no rule forbids it".to_owned(), None),
            Ruling::Inspect => (false, None, "denied: a rule on methods or paths allows only HTTPS".to_owned(), None),
            Ruling::Deny(denial) => match &denial {
                Denial::By(rule) => (false, Some(rule.clone()), denial.to_string(), None),
                Denial::Unnamed { add } => (false, None, format!("denied: {denial}"), Some(add.clone())),
            },
        };
        if context.out.json {
            let decision = if allowed { "allowed" } else { "denied" };
            context.out.document(&json!({"decision": decision, "rule": rule, "add": add}))?;
        } else {
            context.out.data(&format!("{sentence}\n"))?;
        }
        Ok(if allowed { 0 } else { UNEXPECTED })
    }

    fn target(&self) -> Result<(Target, Protocol), Failure> {
        let wrong = || Failure::Usage(format!("`{}` is none of https://HOST[:PORT]/PATH, http://… and tcp://HOST:PORT", self.url));
        let (protocol, usual) = match self.url.scheme_str() {
            Some("https") => (Protocol::Https, Some(443)),
            Some("http") => (Protocol::Http, Some(80)),
            Some("tcp") => (Protocol::Tcp, None),
            _ => return Err(wrong()),
        };
        let host: Host = self.url.host().and_then(|host| host.parse().ok()).ok_or_else(wrong)?;
        let port = self.url.port_u16().or(usual).ok_or_else(wrong)?;
        Ok((Target { host, port }, protocol))
    }
}

/// The connected providers that claim a target, for rules that name a provider.
fn claims(context: &Context, target: &Target) -> Result<Vec<ProviderName>, Failure> {
    let (catalog, vault) = (context.catalog()?, context.vault()?);
    let names: BTreeSet<_> = vault.connections()?.into_iter().map(|(provider, _)| provider).collect();
    let mut routes = Vec::new();
    for name in names {
        let Some(provider) = catalog.find(&name, None)? else { continue };
        // Where it is was said at the login.
        let base_url = match vault.default_connection(&name)?.filter(|_| provider.needs_base_url()) {
            Some(connection) => vault.load(&name, &connection)?.and_then(|record| record.base_url),
            None => None,
        };
        if let Some(provider) = base_url.map_or(Ok(Some(provider)), |url| catalog.find(&name, Some(&url)))? {
            routes.extend(provider.api_urls.into_iter().map(|url| Route { provider: name.clone(), url }));
        }
    }
    Ok(Table::new(routes, Vec::new(), Vec::new()).providers(target))
}

impl FromLog {
    fn run(self, context: &Context) -> Result<u8, Failure> {
        context.outside_run()?;
        let path = context.config.home.join("log/audit.jsonl");
        let failed = |source| Failure::File { action: "read", path: path.clone(), source };
        let records = Trail::open(&path).map_err(failed)?.last(usize::MAX, |record| record.run == self.run).map_err(failed)?;
        if records.is_empty() {
            return Err(Failure::UnknownRun(self.run));
        }
        let rules = needed(&records);
        if context.out.json {
            context.out.document(&json!({"allow": rules}))?;
        } else {
            let lines = rules.iter().fold(String::new(), |mut lines, rule| {
                let _ = writeln!(lines, "  {},", toml::Value::from(rule.as_str()));
                lines
            });
            context.out.data(&format!("allow = [\n{lines}]\n"))?;
        }
        Ok(0)
    }
}

/// The narrowest rules for what passed: by host and port, for opened connections also by method and path.
fn needed(records: &[Record]) -> Vec<String> {
    let mut methods: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for record in records.iter().filter(|record| matches!(record.decision, Verdict::Injected | Verdict::Forwarded | Verdict::Failed)) {
        let target = Target { host: record.host.clone(), port: record.port };
        match (record.method.as_deref(), record.path.as_deref()) {
            (Some(method), path) => {
                // What no glob names, and what was too long for the record, is left to the method.
                let path = path.filter(|path| is_canonical(path) && !path.contains(['%', '…']) && path.starts_with('/'));
                let subject = format!("{target}{}", globset::escape(path.unwrap_or_default()));
                // A WebSocket in HTTP/2 is a GET to the rules.
                methods.entry(subject).or_default().insert(if method == "CONNECT" { "GET" } else { method });
            }
            (None, _) => drop(methods.entry(target.to_string()).or_default()),
        }
    }
    let rule = |(subject, methods): (String, BTreeSet<&str>)| {
        let methods = methods.into_iter().collect::<Vec<_>>().join(",");
        format!("{methods} {subject}").trim_start().to_owned()
    };
    methods.into_iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runs_needs_are_rules_that_parse() {
        let record = |text: &str| -> Record {
            let mut record = json!({"ts": "2026-01-01T00:00:00.000Z", "run": "a", "id": 1, "protocol": "tls", "host": "b.acme.test", "port": 443,
                "decision": "forwarded", "reason": "", "sent": 1, "received": 2, "ms": 3});
            record.as_object_mut().unwrap().extend(serde_json::from_str::<serde_json::Map<_, _>>(text).unwrap());
            serde_json::from_value(record).unwrap()
        };
        let records = [
            r#"{}"#,
            r#"{"host": "2001:db8::1", "port": 22, "protocol": "tcp"}"#,
            r#"{"host": "other.test", "decision": "denied"}"#,
            r#"{"host": "a.test", "method": "POST", "path": "/v1/x*", "decision": "injected"}"#,
            r#"{"host": "a.test", "method": "GET", "path": "/v1/x*", "decision": "injected"}"#,
            r#"{"host": "a.test", "method": "GET", "path": "/v1/../x", "decision": "injected"}"#,
        ];
        let rules = needed(&records.map(record));
        assert_eq!(rules, ["[2001:db8::1]:22", "GET a.test:443", "GET,POST a.test:443/v1/x[*]", "b.acme.test:443"]);
        for rule in rules {
            rule.parse::<crate::route::policy::Rule>().unwrap();
        }
    }
}
