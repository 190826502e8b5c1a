//! Reads what reapers wrote: records in rotated files, joined to lines again.
//!
//! A record is `<19 digits of ns> <o|e><F|P> <length>\n<bytes>\n`; P = the line goes on in the next record of the
//! same stream. `logs/0` is written; a rotation renames it to `logs/1`, and so on.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{Stream, stream};

/// How often a follower looks for more.
const FOLLOW_PERIOD: Duration = Duration::from_millis(100);
/// Lines that one blocking read returns at most, to bound memory.
const BATCH_LINES: usize = 1_024;
const READ_BYTES: usize = 64 * 1_024;
/// A longer line comes in pieces.
const LINE_BYTES_MAX: usize = 1_024 * 1_024;
const HEADER_BYTES_MAX: usize = 48;
/// More rotated files than a plan may ask for.
const FILES_MAX: u32 = 1_001;

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub is_stderr: bool,
    /// Nanoseconds since 1970.
    pub at_ns: u64,
    /// Without the newline.
    pub text: Vec<u8>,
}

/// Which lines are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Only so many of the newest; `None` = all.
    pub tail: Option<u64>,
    /// Nothing older, nanoseconds since 1970.
    pub since_ns: u64,
    /// Go on until the container has ended.
    pub follow: bool,
}

/// The lines in `logs` that `query` asks for; `has_ended` says whether the writer is gone.
pub(crate) fn stream(
    logs: PathBuf,
    query: LogQuery,
    has_ended: impl Fn() -> bool + Send + Sync + 'static,
) -> impl Stream<Item = io::Result<LogLine>> + Send + 'static {
    let state = Following { reader: Some(Reader::new(logs)), ready: VecDeque::new(), query, is_first: true, has_ended };
    stream::try_unfold(state, |mut state| async move {
        loop {
            if let Some(line) = state.ready.pop_front() {
                return Ok(Some((line, state)));
            }
            // Asked before the read: what a writer left before it ended is still read.
            let is_last = !state.query.follow || (state.has_ended)();
            let Some(mut reader) = state.reader.take() else { return Ok(None) };
            let (query, is_first) = (state.query, std::mem::take(&mut state.is_first));
            let read = tokio::task::spawn_blocking(move || {
                let lines = if is_first { reader.tail(query)? } else { reader.batch(query.since_ns)? };
                Ok::<_, io::Error>((reader, lines))
            });
            let (mut reader, lines) = read.await.map_err(io::Error::other)??;
            state.ready = lines;
            if state.ready.is_empty() {
                if is_last {
                    state.ready = reader.rest(state.query.since_ns);
                    continue;
                }
                tokio::time::sleep(FOLLOW_PERIOD).await;
            }
            state.reader = Some(reader);
        }
    })
}

struct Following<F> {
    /// `None` once everything was read.
    reader: Option<Reader>,
    ready: VecDeque<LogLine>,
    query: LogQuery,
    is_first: bool,
    has_ended: F,
}

/// A position in a container's log.
struct Reader {
    logs: PathBuf,
    file: Option<File>,
    /// Bytes read; those before `parsed` are done with.
    pending: Vec<u8>,
    parsed: usize,
    /// Beginnings of lines, of stdout and stderr.
    begun: [Option<LogLine>; 2],
}

impl Reader {
    fn new(logs: PathBuf) -> Self {
        Self { logs, file: None, pending: Vec::new(), parsed: 0, begun: [None, None] }
    }

    /// The first lines of an answer: with a tail, everything up to now is read and the newest are kept.
    fn tail(&mut self, query: LogQuery) -> io::Result<VecDeque<LogLine>> {
        let Some(tail) = query.tail else { return self.batch(query.since_ns) };
        let tail = usize::try_from(tail).unwrap_or(usize::MAX);
        let mut kept = VecDeque::new();
        loop {
            let mut lines = self.batch(query.since_ns)?;
            if lines.is_empty() {
                break;
            }
            kept.append(&mut lines);
            kept.drain(..kept.len().saturating_sub(tail));
        }
        if !query.follow {
            kept.append(&mut self.rest(query.since_ns));
            kept.drain(..kept.len().saturating_sub(tail));
        }
        Ok(kept)
    }

    /// The next lines; none at the end of what was written.
    fn batch(&mut self, since_ns: u64) -> io::Result<VecDeque<LogLine>> {
        let mut lines = VecDeque::new();
        loop {
            while let Some(line) = self.next_line() {
                if line.at_ns >= since_ns {
                    lines.push_back(line);
                    if lines.len() == BATCH_LINES {
                        return Ok(lines);
                    }
                }
            }
            if !self.read_more()? {
                return Ok(lines);
            }
        }
    }

    /// Lines that never got their end.
    fn rest(&mut self, since_ns: u64) -> VecDeque<LogLine> {
        let mut rest: Vec<LogLine> =
            self.begun.iter_mut().filter_map(Option::take).filter(|line| line.at_ns >= since_ns).collect();
        rest.sort_by_key(|line| line.at_ns);
        rest.into()
    }

    /// The next complete line among the pending records.
    fn next_line(&mut self) -> Option<LogLine> {
        loop {
            match Record::parse(&self.pending[self.parsed..]) {
                Parsed::Incomplete => return None,
                Parsed::Garbage(bytes) => self.parsed += bytes,
                Parsed::Record(record, bytes) => {
                    self.parsed += bytes;
                    let begun = &mut self.begun[usize::from(record.is_stderr)];
                    let line = begun.get_or_insert_with(|| LogLine {
                        is_stderr: record.is_stderr,
                        at_ns: record.at_ns,
                        text: Vec::new(),
                    });
                    line.text.extend_from_slice(record.bytes);
                    if record.is_full || line.text.len() >= LINE_BYTES_MAX {
                        return begun.take();
                    }
                }
            }
        }
    }

    /// Reads on, in the next file if this one was rotated away; false at the very end.
    fn read_more(&mut self) -> io::Result<bool> {
        self.pending.drain(..self.parsed);
        self.parsed = 0;
        let Some(file) = &mut self.file else {
            self.file = oldest(&self.logs)?;
            return Ok(self.file.is_some());
        };
        if read_some(file, &mut self.pending)? {
            return Ok(true);
        }
        let own = file.metadata()?;
        if own.len() < file.stream_position()? {
            // A log of a single file starts again in place.
            file.seek(SeekFrom::Start(0))?;
            self.pending.clear();
            return Ok(own.len() > 0);
        }
        let place = (0..FILES_MAX)
            .map_while(|i| fs::metadata(self.logs.join(i.to_string())).ok())
            .position(|other| other.ino() == own.ino());
        let next = match place {
            Some(0) => return Ok(false),
            // It was rotated away after the last read, and may have grown in between.
            Some(_) if read_some(file, &mut self.pending)? => return Ok(true),
            Some(i) => match File::open(self.logs.join((i - 1).to_string())) {
                Ok(next) => Some(next),
                // In the middle of a rotation.
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
                Err(e) => return Err(e),
            },
            None => oldest(&self.logs)?,
        };
        // If the files moved on meanwhile, the one just opened may not be the next: look again.
        if let Some(i) = place
            && fs::metadata(self.logs.join(i.to_string())).map_or(0, |m| m.ino()) != own.ino()
        {
            return Ok(true);
        }
        self.pending.clear();
        self.file = next;
        Ok(self.file.is_some())
    }
}

fn read_some(file: &mut File, into: &mut Vec<u8>) -> io::Result<bool> {
    Ok(file.take(READ_BYTES as u64).read_to_end(into)? > 0)
}

/// The first file of a log, if anything was written.
fn oldest(logs: &Path) -> io::Result<Option<File>> {
    let last = (0..FILES_MAX).take_while(|i| logs.join(i.to_string()).exists()).last();
    match last.map(|i| File::open(logs.join(i.to_string()))) {
        None => Ok(None),
        Some(Err(e)) if e.kind() == ErrorKind::NotFound => Ok(None),
        Some(file) => file.map(Some),
    }
}

struct Record<'a> {
    is_stderr: bool,
    is_full: bool,
    at_ns: u64,
    bytes: &'a [u8],
}

enum Parsed<'a> {
    /// A record and the bytes it takes.
    Record(Record<'a>, usize),
    /// So many bytes that are no record (a torn write).
    Garbage(usize),
    Incomplete,
}

impl<'a> Record<'a> {
    fn parse(bytes: &'a [u8]) -> Parsed<'a> {
        let Some(header_end) = bytes.iter().take(HEADER_BYTES_MAX).position(|b| *b == b'\n') else {
            return if bytes.len() < HEADER_BYTES_MAX { Parsed::Incomplete } else { Self::garbage(bytes) };
        };
        let Some((at_ns, is_stderr, is_full, length)) = Self::header(&bytes[..header_end]) else {
            return Self::garbage(bytes);
        };
        let start = header_end + 1;
        match bytes.get(start + length) {
            None => Parsed::Incomplete,
            Some(b'\n') => {
                let bytes = &bytes[start..start + length];
                Parsed::Record(Record { is_stderr, is_full, at_ns, bytes }, start + length + 1)
            }
            Some(_) => Self::garbage(bytes),
        }
    }

    fn header(header: &[u8]) -> Option<(u64, bool, bool, usize)> {
        let text = std::str::from_utf8(header).ok()?;
        let mut fields = text.split(' ');
        let (at, kind, length) = (fields.next()?, fields.next()?, fields.next()?);
        if fields.next().is_some() || at.len() != 19 {
            return None;
        }
        let (is_stderr, is_full) = match kind {
            "oF" => (false, true),
            "oP" => (false, false),
            "eF" => (true, true),
            "eP" => (true, false),
            _ => return None,
        };
        Some((at.parse().ok()?, is_stderr, is_full, length.parse().ok()?))
    }

    /// Up to the end of the line: the next record may begin there.
    fn garbage(bytes: &[u8]) -> Parsed<'a> {
        Parsed::Garbage(bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use std::io::Write;

    fn record(at: u64, kind: &str, text: &str) -> String {
        format!("{at:019} {kind} {}\n{text}\n", text.len())
    }

    fn append(logs: &Path, content: &str) {
        File::options().append(true).create(true).open(logs.join("0")).unwrap().write_all(content.as_bytes()).unwrap();
    }

    fn rotate(logs: &Path) {
        let _ = fs::rename(logs.join("1"), logs.join("2"));
        fs::rename(logs.join("0"), logs.join("1")).unwrap();
    }

    async fn texts(logs: &Path, query: LogQuery) -> Vec<String> {
        let lines = stream(logs.to_owned(), query, || true).map(|line| line.unwrap());
        lines
            .map(|l| format!("{}{}", if l.is_stderr { "!" } else { "" }, String::from_utf8_lossy(&l.text)))
            .collect()
            .await
    }

    #[tokio::test]
    async fn lines_are_joined_and_read_across_files_and_garbage() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path();
        append(logs, &(record(1, "oF", "one") + &record(2, "oP", "tw") + &record(3, "eF", "err\n!")));
        rotate(logs);
        append(logs, &(record(4, "oF", "o") + "torn wri\n" + &record(5, "oF", "") + &record(6, "eP", "end")));
        let all = ["one", "!err\n!", "two", "", "!end"];
        assert_eq!(texts(logs, LogQuery::default()).await, all);
        assert_eq!(texts(logs, LogQuery { tail: Some(2), ..LogQuery::default() }).await, all[3..]);
        assert_eq!(texts(logs, LogQuery { tail: Some(0), ..LogQuery::default() }).await, [""; 0]);
        assert_eq!(texts(logs, LogQuery { since_ns: 5, ..LogQuery::default() }).await, all[3..]);
        assert_eq!(texts(&logs.join("none"), LogQuery::default()).await, [""; 0]);
    }

    #[tokio::test]
    async fn more_lines_than_a_batch_all_come() {
        let dir = tempfile::tempdir().unwrap();
        let content: String = (0..5_000).map(|i| record(i, "oF", &i.to_string())).collect();
        append(dir.path(), &content);
        let got = texts(dir.path(), LogQuery::default()).await;
        assert_eq!((got.len(), got[4_999].as_str()), (5_000, "4999"));
    }

    #[test]
    fn a_follower_reads_through_rotations_and_torn_ends() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path();
        let mut reader = Reader::new(logs.to_owned());
        let mut next = move || reader.batch(0).unwrap().into_iter().map(|l| l.at_ns).collect::<Vec<_>>();
        assert_eq!(next(), [0u64; 0]);
        append(logs, &record(1, "oF", "a"));
        assert_eq!(next(), [1]);
        let two = record(2, "oF", "bb");
        append(logs, &two[..two.len() - 2]);
        assert_eq!(next(), [0u64; 0]);
        append(logs, &two[two.len() - 2..]);
        append(logs, &record(3, "oF", "c"));
        rotate(logs);
        append(logs, &record(4, "oF", "d"));
        rotate(logs);
        append(logs, &record(5, "oF", "e"));
        assert_eq!(next(), [2, 3, 4, 5]);
        fs::write(logs.join("0"), "").unwrap();
        append(logs, &record(6, "oF", ""));
        assert_eq!(next(), [6]);
    }
}
