//! `authsome log`
use super::{context::Context, output::printable, report::Failure};
use crate::audit::{Record, Trail, Verdict};
use serde_json::json;

/// Show what programs did with your credentials
///
/// With --json one array; with --json and -f one record a line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  authsome log                  the last 50 records
  authsome log -f               and those to come
  authsome log --run 4f1c2a     of one run")]
pub struct Log {
    /// How many records
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 50)]
    lines: usize,
    /// Go on with new records as they come
    #[arg(short, long)]
    follow: bool,
    /// Only this run's
    #[arg(long, value_name = "ID")]
    run: Option<String>,
}

impl Log {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        context.outside_run()?;
        let path = context.config.home.join("log/audit.jsonl");
        let failed = |source| Failure::File { action: "read", path: path.clone(), source };
        let wanted = |record: &Record| self.run.as_ref().is_none_or(|run| *run == record.run);
        let trail = Trail::open(&path).map_err(failed)?;
        let records = trail.last(self.lines, wanted).map_err(failed)?;
        if context.out.json && !self.follow {
            context.out.document(&json!(records))?;
            return Ok(0);
        }
        if records.is_empty() {
            context.out.say("Nothing is recorded.");
        }
        for record in &records {
            print(context, record)?;
        }
        if self.follow {
            for record in trail.follow().map_err(failed)? {
                let record = record.map_err(failed)?;
                if wanted(&record) {
                    print(context, &record)?;
                }
            }
        }
        Ok(0)
    }
}

fn print(context: &Context, record: &Record) -> Result<(), Failure> {
    if context.out.json {
        return context.out.data(&format!("{}\n", json!(record)));
    }
    context.out.coloured(&format!("{}\n", sentence(record)))
}

/// `2026-01-01T00:00:00.000Z  injected   GET api.acme.test/v1  200  acme  route`. What the program had a say in is made harmless for terminals.
fn sentence(record: &Record) -> String {
    let port = if record.port == 443 { String::new() } else { format!(":{}", record.port) };
    let verb = record.method.as_deref().unwrap_or(&record.protocol);
    let path = record.path.as_deref().unwrap_or_default();
    // As in the file: RFC 3339 and snake case.
    let text = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let status = record.status.map(|status| status.to_string());
    let notes = [status.as_deref(), record.provider.as_deref(), Some(record.reason.as_str()), record.error.as_deref()];
    let notes: Vec<_> = notes.into_iter().flatten().filter(|note| !note.is_empty()).collect();
    let document = json!(record);
    let (time, decision) = (text(document["ts"].clone()), text(document["decision"].clone()));
    let what = format!("{verb} {}{port}{path}  {}", record.host, notes.join("  "));
    let style = style(record.decision);
    format!("{time}  {style}{decision:<9}{style:#}  {}", printable(what.trim_end()))
}

/// What a rule or the vault's owner would want to see first stands out.
fn style(verdict: Verdict) -> anstyle::Style {
    use anstyle::AnsiColor::{Green, Red, Yellow};
    match verdict {
        Verdict::Injected => Green.on_default(),
        Verdict::Denied | Verdict::Refused => Red.on_default().bold(),
        Verdict::Failed => Yellow.on_default(),
        Verdict::Forwarded => anstyle::Style::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_harmless_line() {
        let record = |text: &str| {
            let mut record = json!({"ts": "2026-01-01T00:00:00.000Z", "run": "a", "id": 1, "protocol": "tls", "host": "b.acme.test", "port": 443,
                "decision": "forwarded", "reason": "no connected provider", "sent": 1, "received": 2, "ms": 3});
            record.as_object_mut().unwrap().extend(serde_json::from_str::<serde_json::Map<_, _>>(text).unwrap());
            anstream::adapter::strip_str(&sentence(&serde_json::from_value(record).unwrap())).to_string()
        };
        assert_eq!(record("{}"), "2026-01-01T00:00:00.000Z  forwarded  tls b.acme.test  no connected provider");
        assert_eq!(
            record(
                r#"{"method": "GET", "port": 8443, "path": "/v1\u001b[2J\n", "status": 200, "provider": "acme", "decision": "injected", "reason": ""}"#
            ),
            "2026-01-01T00:00:00.000Z  injected   GET b.acme.test:8443/v1\\u{1b}[2J\\n  200  acme"
        );
    }
}
