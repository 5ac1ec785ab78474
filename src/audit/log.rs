//! The file: a thread of its own appends to it. Handing a record over costs about what writing it would, some microseconds; what it buys
//! is that a disk that stalls is not felt by connections.

use super::{Guard, Record};
use crate::host::Target;
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender, SyncSender},
    },
    thread,
};
use tokio::sync::{Notify, watch};

/// Records that may wait for the disk. Beyond it whoever finishes a request waits too: a trail with holes would be worse.
const QUEUE: usize = 4096;
/// How many older files are kept: `audit.jsonl.1` is the youngest.
pub(super) const KEPT: u32 = 5;
/// Bytes gathered for one write(2). An append is whole and unmixed with other processes' whatever its size: Linux holds the inode lock.
const BATCH: usize = 64 * 1024;

/// Appends records to `log/audit.jsonl`; cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    run: String,
    ids: AtomicU64,
    queue: SyncSender<Message>,
    broken: Arc<Notify>,
    /// Records begun and not yet written.
    under_way: watch::Sender<usize>,
}

enum Message {
    Record(Box<Record>),
    Flush(Sender<io::Result<()>>),
}

impl Log {
    /// Opens (creating 0600, its directory 0700; appending) and starts the writer. `run`: the run's id. A file is rotated at `max_size` bytes;
    /// processes that write at the same moment may pass it by a batch each.
    pub fn open(path: &Path, run: &str, max_size: u64) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let broken = Arc::<Notify>::default();
        let writer = Writer {
            file: open(path)?,
            path: path.to_owned(),
            max_size,
            torn: false,
            unsynced: false,
            lost: 0,
            failure: None,
            broken: broken.clone(),
        };
        let (queue, messages) = mpsc::sync_channel(QUEUE);
        thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&messages))?;
        Ok(Self(Arc::new(Inner { run: run.to_owned(), ids: AtomicU64::new(1), queue, broken, under_way: watch::Sender::new(0) })))
    }

    /// Starts a record. `protocol`: `tls`, `http/1.1`, `h2`, `tcp`, `dns`.
    pub fn begin(&self, protocol: &'static str, target: Target, addr: Option<IpAddr>) -> Guard {
        self.0.under_way.send_modify(|count| *count += 1);
        Guard::begin(self.clone(), self.0.ids.fetch_add(1, Ordering::Relaxed), protocol, target, addr)
    }

    /// Everything begun and dropped before this call is on disk when it returns. Error: how many records could not be written, and why.
    pub fn flush(&self) -> io::Result<()> {
        let gone = || io::Error::other("the audit writer is gone");
        let (done, report) = mpsc::channel();
        self.0.queue.send(Message::Flush(done)).map_err(|_| gone())?;
        report.recv().map_err(|_| gone())?
    }

    /// Waits until a record could not be written; for one waiter. What it was, [`Self::flush`] tells.
    pub async fn broken(&self) {
        self.0.broken.notified().await;
    }

    /// Waits until nothing is under way.
    pub async fn quiet(&self) {
        // The sender lives as long as this.
        let _ = self.0.under_way.subscribe().wait_for(|count| *count == 0).await;
    }

    pub(super) fn run(&self) -> &str {
        &self.0.run
    }

    pub(super) fn write(&self, record: Box<Record>) {
        if self.0.queue.send(Message::Record(record)).is_err() {
            tracing::error!("the audit writer is gone");
        }
        self.0.under_way.send_modify(|count| *count -= 1);
    }
}

struct Writer {
    path: PathBuf,
    max_size: u64,
    file: File,
    /// The last write stopped inside a line.
    torn: bool,
    /// Something was written since the last flush.
    unsynced: bool,
    /// Records that could not be written since the last flush, and the first reason.
    lost: u64,
    failure: Option<io::Error>,
    broken: Arc<Notify>,
}

impl Writer {
    /// Until the last [`Log`] is dropped.
    fn run(mut self, messages: &Receiver<Message>) {
        let mut lines = Vec::with_capacity(BATCH);
        while let Ok(first) = messages.recv() {
            let (mut next, mut count) = (Some(first), 0);
            let mut asked = None;
            while let Some(message) = next.take() {
                match message {
                    Message::Record(record) => count += u64::from(self.add_line(&mut lines, &record)),
                    Message::Flush(done) => asked = Some(done),
                }
                if lines.len() < BATCH && asked.is_none() {
                    next = messages.try_recv().ok();
                }
            }
            self.append(&lines, count);
            lines.clear();
            if let Some(done) = asked {
                // Who asked may have stopped waiting.
                let _ = done.send(self.flush());
            }
        }
    }

    fn add_line(&mut self, lines: &mut Vec<u8>, record: &Record) -> bool {
        let start = lines.len();
        if let Err(error) = serde_json::to_writer(&mut *lines, record) {
            lines.truncate(start);
            self.lose(1, error.into());
            return false;
        }
        lines.push(b'\n');
        true
    }

    fn append(&mut self, lines: &[u8], count: u64) {
        if lines.is_empty() {
            return;
        }
        let written = self.make_room(lines.len()).and_then(|()| {
            if self.torn {
                self.file.write_all(b"\n")?;
            }
            self.torn = true;
            self.unsynced = true;
            self.file.write_all(lines)
        });
        match written {
            Ok(()) => self.torn = false,
            Err(error) => self.lose(count, error),
        }
    }

    fn lose(&mut self, count: u64, error: io::Error) {
        tracing::error!(%error, path = %self.path.display(), "audit record lost");
        self.lost += count;
        self.failure.get_or_insert(error);
        self.broken.notify_one();
    }

    fn flush(&mut self) -> io::Result<()> {
        // Where nothing was written the disk has nothing to wait for.
        let synced = if std::mem::take(&mut self.unsynced) { self.file.sync_data() } else { Ok(()) };
        let lost = std::mem::take(&mut self.lost);
        match self.failure.take() {
            Some(error) => {
                Err(io::Error::new(error.kind(), format!("{}: {lost} records could not be written: {error}", self.path.display())))
            }
            None => synced,
        }
    }

    /// Follows another process's rotation, and rotates if `more` bytes would outgrow the file.
    fn make_room(&mut self, more: usize) -> io::Result<()> {
        if !self.is_current()? {
            self.file = open(&self.path)?;
        }
        if self.file.metadata()?.len().saturating_add(more as u64) <= self.max_size {
            return Ok(());
        }
        let lock = Flock::lock(self.file.try_clone()?, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))?;
        // Whoever had the lock before may have rotated already.
        if self.is_current()? {
            self.rotate()?;
        }
        drop(lock);
        self.file = open(&self.path)?;
        Ok(())
    }

    fn is_current(&self) -> io::Result<bool> {
        let ours = self.file.metadata()?;
        match std::fs::symlink_metadata(&self.path) {
            Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn rotate(&self) -> io::Result<()> {
        for age in (0..KEPT).rev() {
            match std::fs::rename(aged(&self.path, age), aged(&self.path, age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// `audit.jsonl`, `audit.jsonl.1`, …
pub(super) fn aged(path: &Path, age: u32) -> PathBuf {
    match age {
        0 => path.to_owned(),
        _ => PathBuf::from(format!("{}.{age}", path.display())),
    }
}

fn open(path: &Path) -> io::Result<File> {
    // O_NONBLOCK only matters for what is no regular file: opening a FIFO without a reader fails then instead of waiting.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not a regular file", path.display())));
    }
    Ok(file)
}
