//! `authsome log`
use super::{
    context::Context,
    output::printable,
    report::Failure,
};
use serde_json::Value;
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

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

/// How often a followed file is looked at; tail(1) looks once a second.
const INTERVAL: Duration = Duration::from_millis(250);

impl Log {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        context.outside_run()?;
        let path = context.config.home.join("log/audit.jsonl");
        let mut tail = Tail { path: path.clone(), reader: None, inode: 0, partial: String::new() };
        let records = self.last(&path, &mut tail)?;
        if context.out.json && !self.follow {
            context.out.document(&Value::from(records))?;
            return Ok(0);
        }
        for record in &records {
            self.print(context, record)?;
        }
        while self.follow {
            thread::sleep(INTERVAL);
            for record in tail.next()?.iter().filter(|record| self.wants(record)) {
                self.print(context, record)?;
            }
        }
        if records.is_empty() {
            context.out.say("Nothing is recorded.");
        }
        Ok(0)
    }

    /// The last records, from the rotated file too if this one has not enough.
    fn last(&self, path: &Path, tail: &mut Tail) -> Result<Vec<Value>, Failure> {
        let mut kept = VecDeque::new();
        let mut keep = |records: Vec<Value>| {
            for record in records.into_iter().filter(|record| self.wants(record)) {
                kept.push_back(record);
                if kept.len() > self.lines {
                    kept.pop_front();
                }
            }
        };
        let rotated = path.with_extension("jsonl.1");
        keep(Tail { path: rotated, reader: None, inode: 0, partial: String::new() }.next()?);
        keep(tail.next()?);
        Ok(kept.into())
    }

    fn wants(&self, record: &Value) -> bool {
        self.run.as_ref().is_none_or(|run| record["run"].as_str() == Some(run))
    }

    fn print(&self, context: &Context, record: &Value) -> Result<(), Failure> {
        let line = if context.out.json { record.to_string() } else { sentence(record) };
        context.out.data(&format!("{line}\n"))
    }
}

/// `2026-01-01T00:00:00Z  injected   GET https://api.acme.test/v1  200  acme`. What a program had a say in is made harmless for terminals.
fn sentence(record: &Value) -> String {
    let text = |key: &str| match &record[key] {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    };
    let mut what = match text("method").as_str() {
        "" => format!("{} {}", text("protocol"), text("host")),
        method => format!("{method} {}", text("host")),
    };
    if !matches!(text("port").as_str(), "" | "443") {
        what += &format!(":{}", text("port"));
    }
    what += &text("path");
    let notes = ["status", "provider", "reason", "error"].map(text);
    let notes: Vec<_> = notes.iter().filter(|note| !note.is_empty()).map(String::as_str).collect();
    format!("{}  {:<9}  {what}  {}", text("ts"), text("decision"), notes.join("  ")).trim_end().to_owned()
}

/// A file that is appended to and may be rotated.
struct Tail {
    path: PathBuf,
    reader: Option<BufReader<File>>,
    inode: u64,
    /// The beginning of a line whose end is not written yet.
    partial: String,
}

impl Tail {
    /// Records written since the last call. A file that is not there (yet) has none.
    fn next(&mut self) -> Result<Vec<Value>, Failure> {
        let failed = |path: &Path| { let path = path.to_owned(); move |source| Failure::File { action: "read", path, source } };
        let mut records = self.read().map_err(failed(&self.path))?;
        let inode = match std::fs::metadata(&self.path) {
            Ok(meta) => meta.ino(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(records),
            Err(error) => return Err(failed(&self.path)(error)),
        };
        // First sight, or another file has taken the place of the one that was read to its end above.
        if self.reader.is_none() || inode != self.inode {
            let file = File::open(&self.path).map_err(failed(&self.path))?;
            (self.reader, self.inode) = (Some(BufReader::new(file)), inode);
            self.partial.clear();
            records.extend(self.read().map_err(failed(&self.path))?);
        }
        Ok(records)
    }

    fn read(&mut self) -> io::Result<Vec<Value>> {
        let mut records = Vec::new();
        let Some(reader) = &mut self.reader else { return Ok(records) };
        while reader.read_line(&mut self.partial)? > 0 {
            if !self.partial.ends_with('\n') {
                break;
            }
            // A line that is no record is one a crash cut short; the others stand.
            records.extend(serde_json::from_str::<Value>(&self.partial).ok().filter(Value::is_object));
            self.partial.clear();
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::{fs, io::Write};

    #[test]
    fn a_record_is_one_harmless_line() {
        let record = json!({"ts": "2026-01-01T00:00:00Z", "decision": "injected", "method": "GET", "host": "api.acme.test", "port": 8443,
            "path": "/v1\u{1b}[2J\n", "status": 200, "provider": "acme", "reason": null});
        assert_eq!(sentence(&record), "2026-01-01T00:00:00Z  injected   GET api.acme.test:8443/v1\\u{1b}[2J\\n  200  acme");
        let record = json!({"ts": "t", "decision": "forwarded", "protocol": "tls", "host": "b.test", "port": 443, "reason": "no provider"});
        assert_eq!(sentence(&record), "t  forwarded  tls b.test  no provider");
    }

    #[test]
    fn a_followed_file_may_come_late_grow_and_be_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let mut tail = Tail { path: path.clone(), reader: None, inode: 0, partial: String::new() };
        assert!(tail.next().unwrap().is_empty());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"{\"n\":1}\n{\"n\":").unwrap();
        assert_eq!(tail.next().unwrap(), [json!({"n": 1})]);
        file.write_all(b"2}\njunk\n").unwrap();
        assert_eq!(tail.next().unwrap(), [json!({"n": 2})]);
        file.write_all(b"{\"n\":3}\n").unwrap();
        fs::rename(&path, dir.path().join("audit.jsonl.1")).unwrap();
        fs::write(&path, b"{\"n\":4}\n").unwrap();
        assert_eq!(tail.next().unwrap(), [json!({"n": 3}), json!({"n": 4})]);
    }
}
