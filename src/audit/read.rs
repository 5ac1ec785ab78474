//! Reading the trail back.

use super::{
    Record,
    log::{KEPT, aged},
};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// How often a followed file is looked at.
const POLL: Duration = Duration::from_millis(250);

/// The trail as it was when opened: its records so far, and those that come later.
pub struct Trail {
    path: PathBuf,
    /// None: nothing was ever recorded.
    file: Option<File>,
    /// Where the past ends and what follows begins, in bytes.
    end: u64,
}

impl Trail {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = match File::open(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let end = file.as_ref().map_or(Ok(0), |file| file.metadata().map(|metadata| metadata.len()))?;
        Ok(Self { path: path.to_owned(), file, end })
    }

    /// The last `count` records that `keep` wants, oldest first. Lines that are no record (torn by a full disk or a kill) are passed over.
    pub fn last(&self, count: usize, keep: impl Fn(&Record) -> bool) -> io::Result<Vec<Record>> {
        let mut found = Vec::new();
        for age in 0..=KEPT {
            let text = self.file(age)?;
            let records = text.rsplit(|byte| *byte == b'\n').filter_map(parse).filter(&keep);
            found.extend(records.take(count - found.len()));
            if found.len() == count {
                break;
            }
        }
        found.reverse();
        Ok(found)
    }

    /// The records written since the trail was opened, waiting for each.
    pub fn follow(self) -> io::Result<Follow> {
        let mut reader = self.file.map(BufReader::new);
        if let Some(reader) = &mut reader {
            reader.seek(SeekFrom::Start(self.end))?;
        }
        Ok(Follow { path: self.path, reader, line: Vec::new(), leaving: false })
    }

    fn file(&self, age: u32) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let file = match age {
            0 => self.file.as_ref().map(File::try_clone).transpose()?,
            _ => File::open(aged(&self.path, age))
                .map(Some)
                .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) })?,
        };
        if let Some(mut file) = file {
            file.seek(SeekFrom::Start(0))?;
            file.take(if age == 0 { self.end } else { u64::MAX }).read_to_end(&mut text)?;
        }
        Ok(text)
    }
}

pub(crate) fn parse(line: &[u8]) -> Option<Record> {
    serde_json::from_slice(line).ok()
}

/// Waits for records for ever; goes on in the new file after a rotation. Ends only with an error.
pub struct Follow {
    path: PathBuf,
    reader: Option<BufReader<File>>,
    /// What has been read of a line whose end is not there yet.
    line: Vec<u8>,
    /// The file was seen to be rotated away; after one more look, for what was being written meanwhile, it is left.
    leaving: bool,
}

impl Iterator for Follow {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<io::Result<Record>> {
        loop {
            match self.next_line() {
                Ok(true) => {
                    let record = parse(&self.line);
                    self.line.clear();
                    if let Some(record) = record {
                        return Some(Ok(record));
                    }
                }
                Ok(false) => match self.turn_over() {
                    Ok(true) => {}
                    Ok(false) => thread::sleep(POLL),
                    Err(error) => return Some(Err(error)),
                },
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Follow {
    /// Whether `line` is a whole line now.
    fn next_line(&mut self) -> io::Result<bool> {
        let Some(reader) = &mut self.reader else { return Ok(false) };
        reader.read_until(b'\n', &mut self.line)?;
        Ok(self.line.ends_with(b"\n"))
    }

    /// At the end of the file: opens its successor if there is one. Whether it did.
    fn turn_over(&mut self) -> io::Result<bool> {
        let named = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if let Some(reader) = &self.reader {
            let ours = reader.get_ref().metadata()?;
            if (ours.dev(), ours.ino()) == (named.dev(), named.ino()) {
                return Ok(false);
            }
            if !std::mem::replace(&mut self.leaving, true) {
                return Ok(false);
            }
        }
        self.reader = Some(BufReader::new(File::open(&self.path)?));
        self.line.clear();
        self.leaving = false;
        Ok(true)
    }
}
