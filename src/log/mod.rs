//! Log records leave by a thread of their own: the hot thread never waits for a disk, a terminal or
//! journald. The queue is bounded; what does not fit is counted.

mod journal;
pub mod limit;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use ::log::{Level, LevelFilter, Log, Metadata, Record};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::config::daemon_toml::LogTarget;
use crate::metrics::Metrics;
use journal::Journal;

/// Records that can wait. A disk that stands still for longer than it takes to fill costs records.
const QUEUE: usize = 4096;

/// A record on its way.
struct Entry {
    level: Level,
    text: String,
}

enum Order {
    Write(Entry),
    End,
}

/// The running log; ends, with everything written, on [`Logging::finish`].
#[derive(Debug)]
pub struct Logging {
    orders: Sender<Order>,
    thread: JoinHandle<()>,
}

impl Logging {
    /// Starts the thread and makes it the destination of the `log` macros.
    ///
    /// # Errors
    /// The file cannot be opened, the journal cannot be reached, no thread can be made, or there is a
    /// logger already.
    pub fn start(
        target: &LogTarget,
        level: LevelFilter,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let mut sink = Sink::open(target)?;
        let (orders, queue) = bounded(QUEUE);
        let thread = thread::Builder::new()
            .name("log".into())
            .stack_size(128 * 1024)
            .spawn(move || write_all(&queue, &mut sink))?;
        let front = Front { orders: orders.clone(), metrics };
        ::log::set_boxed_logger(Box::new(front)).map_err(io::Error::other)?;
        ::log::set_max_level(level);
        Ok(Self { orders, thread })
    }

    /// Writes what waits and ends.
    pub fn finish(self) {
        ::log::set_max_level(LevelFilter::Off);
        // Both fail only when the thread is gone, and then there is nobody to tell.
        if self.orders.send(Order::End).is_ok() {
            let _ended = self.thread.join();
        }
    }
}

fn write_all(queue: &Receiver<Order>, sink: &mut Sink) {
    while let Ok(Order::Write(entry)) = queue.recv() {
        // A sink that fails cannot be reported anywhere better.
        let _written = sink.write(&entry);
    }
}

struct Front {
    orders: Sender<Order>,
    metrics: Arc<Metrics>,
}

impl Log for Front {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= ::log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let entry = Entry { level: record.level(), text: record.args().to_string() };
        match self.orders.try_send(Order::Write(entry)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.metrics.dropped_log_records.increment();
            }
        }
    }

    fn flush(&self) {}
}

enum Sink {
    Stderr,
    Journal(Journal),
    File(File),
}

impl Sink {
    fn open(target: &LogTarget) -> io::Result<Self> {
        Ok(match target {
            LogTarget::Stderr => Self::Stderr,
            LogTarget::Journal => Self::Journal(Journal::open()?),
            LogTarget::File(path) => Self::File(open_file(path)?),
        })
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let line = format!("{}: {}\n", word(entry.level), entry.text);
        match self {
            Self::Stderr => io::stderr().lock().write_all(line.as_bytes()),
            Self::File(file) => file.write_all(line.as_bytes()),
            Self::Journal(journal) => journal.send(entry.level, &entry.text),
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

const fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gets_lines_and_a_slow_sink_costs_records_not_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let metrics = Arc::new(Metrics::default());
        let (orders, queue) = bounded(2);
        let front = Front { orders: orders.clone(), metrics: Arc::clone(&metrics) };
        for number in 0..3 {
            let text = format_args!("record {number}").to_string();
            front.log(&Record::builder().level(Level::Warn).args(format_args!("{text}")).build());
        }
        assert_eq!(metrics.dropped_log_records.get(), 1);
        let mut sink = Sink::open(&LogTarget::File(path.clone())).unwrap();
        drop((front, orders));
        write_all(&queue, &mut sink);
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text, "warning: record 0\nwarning: record 1\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let target = LogTarget::File("/nonexistent/log".into());
        let error = Sink::open(&target).err().unwrap();
        assert!(error.to_string().starts_with("/nonexistent/log: "));
    }
}
