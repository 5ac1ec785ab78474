//! The file: a thread of its own appends to it, so that a disk that stalls is not felt by connections. It gathers before it writes: waking
//! it for every record would cost a busy proxy more than the record itself.

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
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// Bytes that may wait for the disk. Beyond it whoever finishes a request waits too: a trail with holes would be worse.
const QUEUE: usize = 1024 * 1024;
/// How long a record may wait for others to be written with; what a kill of this process can cost.
const GATHER: Duration = Duration::from_millis(10);
/// How many older files are kept: `audit.jsonl.1` is the youngest.
pub(super) const KEPT: u32 = 5;
/// Of the records of a run; as long as it is the next, there is none.
const FIRST_ID: u64 = 1;
/// Bytes of one write(2). An append is whole and unmixed with other processes' whatever its size: Linux holds the inode lock.
const BATCH: usize = 64 * 1024;

/// Appends records to `log/audit.jsonl`; cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    run: String,
    ids: AtomicU64,
    /// Until the first record: many short runs have none, and are spared the thread.
    idle: Mutex<Option<Writer>>,
    queue: Arc<Queue>,
    broken: Arc<Notify>,
    /// Records begun and not yet written.
    under_way: watch::Sender<usize>,
}

/// Lines on their way to the writer.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// For the writer: there is something to do.
    work: Condvar,
    /// For everybody else: there is room again.
    room: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    flushes: Vec<Sender<io::Result<()>>>,
    unwritable: Vec<io::Error>,
    closed: bool,
}

impl Log {
    /// Opens (creating 0600, its directory 0700; appending). `run`: the run's id. A file is rotated at `max_size` bytes;
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
        let ids = AtomicU64::new(FIRST_ID);
        let idle = Mutex::new(Some(writer));
        Ok(Self(Arc::new(Inner { run: run.to_owned(), ids, idle, queue: Arc::default(), broken, under_way: watch::Sender::new(0) })))
    }

    /// Starts a record. `protocol`: `tls`, `http/1.1`, `h2`, `tcp`, `dns`.
    pub fn begin(&self, protocol: &'static str, target: Target, addr: Option<IpAddr>) -> Guard {
        self.0.under_way.send_modify(|count| *count += 1);
        let id = self.0.ids.fetch_add(1, Ordering::Relaxed);
        if id == FIRST_ID {
            self.start_writer();
        }
        Guard::begin(self.clone(), id, protocol, target, addr)
    }

    fn start_writer(&self) {
        let Some(writer) = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let waiting = Served(self.0.queue.clone());
        if thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&waiting.0)).is_err() {
            // The queue is closed now; so says the next flush.
            self.0.broken.notify_one();
        }
    }

    /// Everything begun and dropped before this call is on disk when it returns. Error: how many records could not be written, and why.
    pub fn flush(&self) -> io::Result<()> {
        if self.0.ids.load(Ordering::Relaxed) == FIRST_ID {
            return Ok(());
        }
        let (done, report) = mpsc::channel();
        self.0.queue.ask(done)?;
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

    pub(super) fn write(&self, record: &Record) {
        let queue = &self.0.queue;
        let full = |waiting: &mut Waiting| waiting.lines.len() >= QUEUE && !waiting.closed;
        let mut waiting = queue.room.wait_while(queue.lock(), full).unwrap_or_else(PoisonError::into_inner);
        let before = waiting.lines.len();
        match serde_json::to_writer(&mut waiting.lines, record) {
            Ok(()) => waiting.lines.push(b'\n'),
            Err(error) => {
                waiting.lines.truncate(before);
                waiting.unwritable.push(error.into());
            }
        }
        // The first begins the gathering, the one that fills a batch ends it.
        if before == 0 || (before < BATCH && waiting.lines.len() >= BATCH) {
            queue.work.notify_one();
        }
        drop(waiting);
        self.0.under_way.send_modify(|count| *count -= 1);
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, done: Sender<io::Result<()>>) -> io::Result<()> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(gone());
        }
        waiting.flushes.push(done);
        self.work.notify_one();
        Ok(())
    }

    /// Waits for something to do and gathers more of it; `None` when there will be nothing any more.
    fn take(&self, written: Vec<u8>) -> Option<Waiting> {
        let idle = |waiting: &mut Waiting| waiting.is_empty() && !waiting.closed;
        let waiting = self.work.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let gathering = |waiting: &mut Waiting| waiting.lines.len() < BATCH && waiting.flushes.is_empty() && !waiting.closed;
        let (mut waiting, _) = self.work.wait_timeout_while(waiting, GATHER, gathering).unwrap_or_else(PoisonError::into_inner);
        let closed = waiting.closed;
        let taken = std::mem::replace(&mut *waiting, Waiting { lines: written, closed, ..Waiting::default() });
        self.room.notify_all();
        (!closed || !taken.is_empty()).then_some(taken)
    }
}

/// The writer's end of the queue. Nobody waits for one that has panicked.
struct Served(Arc<Queue>);

impl Drop for Served {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.closed = true;
        waiting.flushes.clear();
        self.0.room.notify_all();
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.unwritable.is_empty() && self.flushes.is_empty()
    }
}

impl Drop for Inner {
    /// Ends the writer once it has written everything.
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.work.notify_one();
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
    fn run(mut self, queue: &Queue) {
        let mut written = Vec::with_capacity(BATCH);
        while let Some(Waiting { mut lines, flushes, unwritable, .. }) = queue.take(written) {
            for error in unwritable {
                self.lose(1, error);
            }
            for batch in batches(&lines) {
                self.append(batch);
            }
            self.report(flushes);
            lines.clear();
            lines.shrink_to(BATCH);
            written = lines;
        }
    }

    fn append(&mut self, lines: &[u8]) {
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
            Err(error) => self.lose(lines.iter().filter(|&&byte| byte == b'\n').count() as u64, error),
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

    /// To all who asked; what was lost, to the first.
    fn report(&mut self, flushes: Vec<Sender<io::Result<()>>>) {
        for flush in flushes {
            // Who asked may have stopped waiting.
            drop(flush.send(self.flush()));
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

fn gone() -> io::Error {
    io::Error::other("the audit writer is gone")
}

/// Whole lines, as many as fit a batch, but at least one.
fn batches(mut lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_end = |byte: &u8| *byte == b'\n';
    std::iter::from_fn(move || {
        let fits = &lines[..lines.len().min(BATCH)];
        let end = fits.iter().rposition(is_end).or_else(|| lines.iter().position(is_end))? + 1;
        let (batch, rest) = lines.split_at(end);
        lines = rest;
        Some(batch)
    })
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
