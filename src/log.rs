//! The log: lines on stderr that never make a worker wait.
//!
//! A worker formats its line and puts it into a bounded queue; one thread writes. When whoever reads stderr stalls, the queue fills and
//! further lines are dropped and counted ([`dropped_lines`]), and so are those that cannot be written, as on a full disk; once it flows
//! again, one line says how many were lost.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::words::words;

/// Lines that wait for a stalled reader before further ones are dropped: some minutes of info, some hundred KiB.
pub const QUEUE_LINES_MAX: usize = 4096;

/// How long the end of the process waits for the lines that are still queued.
pub const FLUSH_MS_MAX: u64 = 1000;

words! {
    /// Least severe lines that are written.
    Level, "give off, error, warn, info, debug or trace", {
        /// Nothing.
        Off = "off",
        /// What the server could not do.
        Error = "error",
        /// What an operator should look at.
        Warn = "warn",
        /// Start, stop, and a line a second of counts.
        Info = "info",
        /// Each connection's end.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

words! {
    /// Form of the lines.
    Format, "give text or json", {
        /// For people; coloured on a terminal.
        Text = "text",
        /// A JSON object a line.
        Json = "json",
    }
}

/// Lines lost since the process started because stderr was not read or could not be written.
#[must_use]
pub fn dropped_lines() -> u64 {
    DROPPED_LINES.load(Ordering::Relaxed)
}

/// Sends the process's log to stderr until the guard is dropped, which waits at most [`FLUSH_MS_MAX`] for what is queued.
///
/// # Errors
/// The writer's thread could not be started, or the process has a log already.
pub fn start(level: Level, format: Format) -> io::Result<Guard> {
    let (queue, guard) = Queue::start(io::stderr(), format, &DROPPED_LINES)?;
    let builder = tracing_subscriber::fmt().with_max_level(level.filter()).with_target(false).with_writer(queue);
    match format {
        Format::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(io::Error::other)?;
    Ok(guard)
}

/// Writes out what is queued when it is dropped.
#[derive(Debug)]
pub struct Guard {
    lines: SyncSender<Entry>,
}

impl Guard {
    /// Waits until what was queued before is written, at most [`FLUSH_MS_MAX`]: a stalled reader must not keep the process from ending.
    pub fn flush(&self) {
        let deadline = Instant::now() + Duration::from_millis(FLUSH_MS_MAX);
        let (done, written) = mpsc::sync_channel(1);
        let mut entry = Entry::Flush(done);
        while let Err(TrySendError::Full(refused)) = self.lines.try_send(entry) {
            if Instant::now() >= deadline {
                return;
            }
            entry = refused;
            thread::sleep(Duration::from_millis(5));
        }
        // An error is the deadline or an ended writer; either way nobody is left to wait for.
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.flush();
    }
}

static DROPPED_LINES: AtomicU64 = AtomicU64::new(0);

/// What goes to the writer's thread.
#[derive(Debug)]
enum Entry {
    Line(Box<[u8]>),
    Flush(SyncSender<()>),
}

/// The workers' end of the queue.
#[derive(Clone)]
struct Queue {
    lines: SyncSender<Entry>,
    dropped_lines: &'static AtomicU64,
}

impl Queue {
    /// A queue whose lines a thread of its own writes to `output`.
    fn start<W: Write + Send + 'static>(
        output: W,
        format: Format,
        dropped_lines: &'static AtomicU64,
    ) -> io::Result<(Self, Guard)> {
        let (lines, entries) = mpsc::sync_channel(QUEUE_LINES_MAX);
        thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(&entries, output, format, dropped_lines))?;
        Ok((Self { lines: lines.clone(), dropped_lines }, Guard { lines }))
    }
}

/// Takes one whole line in each call: the formatter writes an event at once.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Entry::Line(line.into())).is_err() {
            self.dropped_lines.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The writer's thread: ends when every sender is gone. A line that cannot be written is lost, and counted.
fn write_lines<W: Write>(entries: &Receiver<Entry>, mut output: W, format: Format, dropped_lines: &AtomicU64) {
    // Lines can be lost before this thread runs for the first time, so it begins at none, not at what the counter shows by then.
    let mut told = 0;
    for entry in entries {
        let dropped = dropped_lines.load(Ordering::Relaxed);
        if dropped != told && output.write_all(dropped_notice(dropped - told, format).as_bytes()).is_ok() {
            told = dropped;
        }
        match entry {
            Entry::Line(line) => {
                if output.write_all(&line).is_err() {
                    dropped_lines.fetch_add(1, Ordering::Relaxed);
                }
            }
            Entry::Flush(done) => {
                let _ = output.flush();
                let _ = done.try_send(());
            }
        }
    }
}

fn dropped_notice(lines: u64, format: Format) -> String {
    match format {
        Format::Text => format!("WARN log lines were dropped because stderr was not taken lines={lines}\n"),
        Format::Json => {
            format!(
                "{{\"level\":\"WARN\",\"message\":\"log lines were dropped because stderr was not taken\",\"lines\":{lines}}}\n"
            )
        }
    }
}

impl Level {
    const fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// A reader of stderr that stalls while the test holds the lock.
    #[derive(Clone, Default)]
    struct Reader(Arc<Mutex<Vec<u8>>>);

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_reader_costs_lines_and_no_time() {
        static DROPPED: AtomicU64 = AtomicU64::new(0);
        let reader = Reader::default();
        let (mut queue, guard) = Queue::start(reader.clone(), Format::Text, &DROPPED).unwrap();
        let stalled = reader.0.lock().unwrap();
        let lines_lost = 100;
        // The writer may hold one line besides those in the queue.
        for _ in 0..QUEUE_LINES_MAX + 1 + lines_lost {
            queue.write_all(b"line\n").unwrap();
        }
        let dropped = DROPPED.load(Ordering::Relaxed);
        assert!(dropped == 100 || dropped == 101, "{dropped}");
        let began = Instant::now();
        guard.flush();
        assert!(began.elapsed() < Duration::from_millis(3 * FLUSH_MS_MAX), "flushing waits for a bounded time");
        drop(stalled);
        let written = || String::from_utf8(reader.0.lock().unwrap().clone()).unwrap();
        let told = format!("stderr was not taken lines={dropped}\n");
        // A flush waits for a bounded time, and a busy machine may need longer.
        while !written().contains(&told) {
            assert!(began.elapsed() < Duration::from_secs(30), "one line says how many");
            guard.flush();
        }
        let text = written();
        assert_eq!(text.matches("dropped").count(), 1);
        assert_eq!(text.matches("line\n").count() as u64, QUEUE_LINES_MAX as u64 + 101 - dropped);
    }

    /// A disk that is full for the first lines.
    struct Full(usize, Reader);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.0.checked_sub(1) {
                Some(left) => {
                    self.0 = left;
                    Err(io::ErrorKind::StorageFull.into())
                }
                None => self.1.write(bytes),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted_and_told_when_it_does_again() {
        static DROPPED: AtomicU64 = AtomicU64::new(0);
        let reader = Reader::default();
        // Of each line but the first the notice is refused as well.
        let (mut queue, guard) = Queue::start(Full(5, reader.clone()), Format::Text, &DROPPED).unwrap();
        for _ in 0..5 {
            queue.write_all(b"line\n").unwrap();
        }
        guard.flush();
        assert_eq!(DROPPED.load(Ordering::Relaxed), 3);
        let text = String::from_utf8(reader.0.lock().unwrap().clone()).unwrap();
        assert_eq!((text.matches("line\n").count(), text.contains("lines=3\n")), (2, true), "{text}");
    }

    #[test]
    fn every_line_is_written_before_the_guard_is_gone() {
        static DROPPED: AtomicU64 = AtomicU64::new(0);
        let reader = Reader::default();
        let (queue, guard) = Queue::start(reader.clone(), Format::Json, &DROPPED).unwrap();
        let subscriber = tracing_subscriber::fmt().json().with_max_level(Level::Info.filter()).with_writer(queue).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(answer = 42, "shown");
            tracing::debug!("hidden");
        });
        drop(guard);
        let text = String::from_utf8(reader.0.lock().unwrap().clone()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["fields"]["answer"], 42);
    }

    #[test]
    fn the_notice_is_json_where_the_log_is() {
        let value: serde_json::Value = serde_json::from_str(&dropped_notice(7, Format::Json)).unwrap();
        assert_eq!(value["lines"], 7);
    }

    #[test]
    fn words_read_back() {
        for level in Level::ALL {
            assert_eq!(level.to_string().parse(), Ok(*level));
        }
        for format in Format::ALL {
            assert_eq!(format.to_string().parse(), Ok(*format));
        }
        assert!("verbose".parse::<Level>().unwrap_err().to_string().contains("trace"));
    }
}
