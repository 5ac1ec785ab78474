use super::{
    log::{KEPT, aged},
    *,
};
use crate::host::Target;
use std::{
    os::unix::fs::{FileTypeExt, PermissionsExt},
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    thread,
};

/// Bytes.
const MAX_SIZE: u64 = 10 << 20;

fn target() -> Target {
    Target { host: "api.acme.test".parse().unwrap(), port: 443 }
}

/// A log in a directory that is not there yet.
fn log() -> (tempfile::TempDir, PathBuf, Log) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("log/audit.jsonl");
    let log = Log::open(&path, "run-1", MAX_SIZE).unwrap();
    (home, path, log)
}

fn all(path: &Path) -> Vec<Record> {
    Trail::open(path).unwrap().last(usize::MAX, |_| true).unwrap()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_record_says_what_was_set_and_nothing_else() {
    let (_home, path, log) = log();
    let mut guard = log.begin("http/1.1", target(), "203.0.113.7".parse().ok());
    guard.request("GET", "/v1/\u{1b}[31m\n?key=s3cret#x");
    guard.verdict(Verdict::Injected, "route");
    guard.status(200);
    guard.bytes(1, 2);
    guard.bytes(10, 20);
    drop(guard);
    drop(log.begin("tcp", target(), None));
    log.flush().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let shown = |line: &str| {
        let mut fields: serde_json::Map<_, _> = serde_json::from_str(line).unwrap();
        let ts = fields.remove("ts").unwrap();
        assert!(ts.as_str().unwrap().len() == "2026-01-02T03:04:05.678Z".len() && ts.as_str().unwrap().ends_with('Z'), "{ts}");
        assert!(fields.remove("ms").unwrap().is_u64());
        serde_json::to_string(&fields).unwrap()
    };
    assert_eq!(lines.len(), 2);
    assert_eq!(
        shown(lines[0]),
        r#"{"addr":"203.0.113.7","decision":"injected","host":"api.acme.test","id":1,"method":"GET","path":"/v1/\u001b[31m\n","port":443,"protocol":"http/1.1","reason":"route","received":22,"run":"run-1","sent":11,"status":200}"#
    );
    assert_eq!(
        shown(lines[1]),
        r#"{"decision":"failed","host":"api.acme.test","id":2,"port":443,"protocol":"tcp","reason":"aborted","received":0,"run":"run-1","sent":0}"#
    );
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
}

#[test]
fn unwinding_leaves_one_record() {
    let (_home, path, log) = log();
    let unwound = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let mut guard = log.begin("h2", target(), None);
        guard.blame(Blame::Upstream, "first");
        guard.blame(Blame::Internal, "second");
        panic!("on purpose");
    }));
    assert!(unwound.is_err());
    log.flush().unwrap();
    let records = all(&path);
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].decision, records[0].reason.as_str()), (Verdict::Failed, "aborted"));
    assert_eq!((records[0].blame, records[0].error.as_deref()), (Some(Blame::Upstream), Some("first")));
}

#[test]
fn text_from_outside_is_bounded() {
    let (_home, path, log) = log();
    log.begin("h2", target(), None).request("GET", &"é".repeat(100_000));
    log.flush().unwrap();
    assert!(path.metadata().unwrap().len() < 3000);
    assert!(all(&path)[0].path.as_ref().unwrap().ends_with("é…"));
}

#[test]
fn many_logs_append_to_one_file_and_rotate_it() {
    let (_home, path, first) = log();
    let error = "x".repeat(1000);
    let write = |log: &Log, count: usize| {
        for _ in 0..count {
            log.begin("tcp", target(), None).blame(Blame::Upstream, error.clone());
        }
        log.flush().unwrap();
    };
    // 4 × 6000 records of 1.2 kB fill two files of 10 MiB and begin a third.
    thread::scope(|scope| {
        for run in 1..4 {
            let log = Log::open(&path, &format!("other-{run}"), MAX_SIZE).unwrap();
            scope.spawn(move || write(&log, 6000));
        }
        write(&first, 6000);
    });
    assert_eq!(all(&path).len(), 24_000);
    assert!(aged(&path, 2).exists() && !aged(&path, 3).exists());
    for age in 0..3 {
        let file = aged(&path, age);
        // Each of the others may have made room for its batch at the same moment.
        assert!(file.metadata().unwrap().len() <= 10 * 1024 * 1024 + 3 * 64 * 1024);
        assert_eq!(mode(&file), 0o600);
        assert!(std::fs::read_to_string(&file).unwrap().lines().all(|line| serde_json::from_str::<Record>(line).is_ok()));
    }
    let newest = Trail::open(&path).unwrap().last(3, |record| record.run == "other-2").unwrap();
    assert_eq!(newest.iter().map(|record| record.id).collect::<Vec<_>>(), [5998, 5999, 6000]);
}

#[test]
fn the_oldest_file_goes() {
    let (_home, path, log) = log();
    for age in 1..=KEPT {
        std::fs::write(aged(&path, age), format!("{age}")).unwrap();
    }
    std::fs::File::options().append(true).open(&path).unwrap().set_len(10 * 1024 * 1024).unwrap();
    drop(log.begin("tcp", target(), None));
    log.flush().unwrap();
    assert_eq!(path.metadata().unwrap().len(), std::fs::read(&path).unwrap().len() as u64);
    assert_eq!(aged(&path, 1).metadata().unwrap().len(), 10 * 1024 * 1024);
    assert_eq!(std::fs::read_to_string(aged(&path, KEPT)).unwrap(), "4");
    assert!(!aged(&path, KEPT + 1).exists());
}

#[test]
fn a_lost_record_is_reported_once() {
    // A directory in the file's place fails every write, as a full disk would.
    let (_home, path, log) = log();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    drop(log.begin("tcp", target(), None));
    drop(log.begin("tcp", target(), None));
    let error = log.flush().unwrap_err().to_string();
    assert!(error.contains(" records could not be written") && error.starts_with(&path.display().to_string()), "{error}");
    std::fs::remove_dir(&path).unwrap();
    drop(log.begin("tcp", target(), None));
    log.flush().unwrap();
    assert_eq!(all(&path).len(), 1);
}

#[test]
fn only_a_regular_file_is_written() {
    let home = tempfile::tempdir().unwrap();
    let (elsewhere, link, fifo) = (home.path().join("elsewhere"), home.path().join("link"), home.path().join("fifo"));
    std::fs::write(&elsewhere, "").unwrap();
    std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(fifo.metadata().unwrap().file_type().is_fifo());
    for path in [link.as_path(), fifo.as_path(), Path::new("/dev/full"), home.path()] {
        assert!(Log::open(path, "run-1", MAX_SIZE).is_err(), "{}", path.display());
    }
}

#[test]
fn what_is_no_record_is_passed_over() {
    let (_home, path, log) = log();
    drop(log.begin("tcp", target(), None));
    log.flush().unwrap();
    let line = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{{\"ts\":\"20\n\0\n{line}{line}{}", &line[..40])).unwrap();
    assert_eq!(all(&path).len(), 2);
    let trail = Trail::open(&path).unwrap();
    assert_eq!(trail.last(1, |_| true).unwrap().len(), 1);
    assert_eq!(trail.last(0, |_| true).unwrap(), []);
    assert_eq!(all(Path::new("/nonexistent/audit.jsonl")), []);
}

#[test]
fn following_goes_on_after_a_rotation() {
    let (_home, path, log) = log();
    let write = || {
        drop(log.begin("tcp", target(), None));
        log.flush().unwrap();
    };
    write();
    let mut follow = Trail::open(&path).unwrap().follow().unwrap();
    let mut next = || follow.next().unwrap().unwrap().id;
    write();
    assert_eq!(next(), 2);
    write();
    std::fs::rename(&path, aged(&path, 1)).unwrap();
    write();
    write();
    assert_eq!((next(), next(), next()), (3, 4, 5));
    // A trail that does not exist yet.
    let path = path.with_file_name("later.jsonl");
    let mut follow = Trail::open(&path).unwrap().follow().unwrap();
    let log = Log::open(&path, "run-2", MAX_SIZE).unwrap();
    drop(log.begin("tcp", target(), None));
    assert_eq!(follow.next().unwrap().unwrap().run, "run-2");
}
