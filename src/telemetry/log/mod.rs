//! Log output on a dedicated thread, so that the hot thread never waits for a disk, a terminal or
//! journald. The queue is bounded; records that do not fit are counted and dropped.

pub mod field;
mod journal;
pub mod limit;
mod sink;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ::log::{Level, LevelFilter, Log, Metadata, Record};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::telemetry::metrics::Metrics;
use field::JournalField;
use sink::LogSink;
pub use sink::{Facility, LogOutput, try_file};

/// Maximum number of queued records. Further ones are dropped while a disk blocks.
const QUEUE: usize = 4096;

/// Time limit for writing the queue at exit if syslog or a disk blocks.
const PATIENCE: Duration = Duration::from_secs(2);

/// Target of records for files and terminals, which are not sent to syslog or the journal.
pub const FILES_ONLY: &str = "files only";

/// Target of records with the severity in their text, after the position. No level is prefixed.
pub const DIAGNOSTIC: &str = "diagnostic";

/// Record in the queue of the log thread.
struct LogRecord {
    level: Level,
    text: String,
    is_for_files: bool,
    says_level: bool,
    fields: Vec<JournalField>,
}

enum LogCommand {
    Write(LogRecord),
    End,
}

/// Handle of the running log thread, stopped by [`Logging::finish`].
#[derive(Debug)]
pub struct Logging {
    orders: Sender<LogCommand>,
    /// Disconnected when all records are written.
    written: Receiver<()>,
}

/// Least important levels that are written, by kind of record.
#[derive(Clone, Copy, Debug)]
pub struct Levels {
    /// Level for all records except diagnostics.
    pub usual: LevelFilter,
    /// Level for records of the target [`DIAGNOSTIC`].
    pub diagnostics: LevelFilter,
}

impl Levels {
    fn admit(self, metadata: &Metadata<'_>) -> bool {
        let is_diagnostic = metadata.target() == DIAGNOSTIC;
        metadata.level() <= if is_diagnostic { self.diagnostics } else { self.usual }
    }
}

impl Logging {
    /// Starts the log thread and makes it the logger of the `log` macros.
    ///
    /// # Errors
    /// The file cannot be opened, the journal cannot be reached, no thread can be created, or a
    /// logger is already set.
    pub fn start(outputs: &[LogOutput], levels: Levels, metrics: Arc<Metrics>) -> io::Result<Self> {
        let mut sinks = outputs.iter().map(LogSink::open).collect::<io::Result<Vec<LogSink>>>()?;
        let takes_fields = sinks.iter().any(LogSink::takes_fields);
        // A bounded channel would allocate its whole capacity now.
        let (orders, queue) = unbounded();
        let (end, written) = bounded(0);
        thread::Builder::new().name("log".into()).stack_size(128 * 1024).spawn(move || {
            write_all(&queue, &mut sinks);
            drop(end);
        })?;
        let front = LogFront { orders: orders.clone(), most: QUEUE, takes_fields, levels, metrics };
        ::log::set_boxed_logger(Box::new(front)).map_err(io::Error::other)?;
        ::log::set_max_level(levels.usual.max(levels.diagnostics));
        Ok(Self { orders, written })
    }

    /// Writes the queued records and stops the thread. Gives up after two seconds.
    pub fn finish(self) {
        ::log::set_max_level(LevelFilter::Off);
        // Both calls fail only when the thread is gone or blocked, and then the failure cannot be
        // reported.
        if self.orders.send(LogCommand::End).is_ok() {
            let _ended = self.written.recv_timeout(PATIENCE);
        }
    }
}

/// Prints the reason for which a program stops on standard error. If that leads to the journal,
/// each line gets the priority prefix for errors, as in sd-daemon(3).
pub fn report_error(text: &str) {
    let mark = if journal::has_standard_error() { "<3>" } else { "" };
    text.lines().for_each(|line| eprintln!("{mark}{line}"));
}

fn write_all(queue: &Receiver<LogCommand>, sinks: &mut [LogSink]) {
    while let Ok(LogCommand::Write(entry)) = queue.recv() {
        for sink in &mut *sinks {
            // A failing sink has no better place for a report of its failure.
            let _written = sink.write(&entry);
        }
    }
}

struct LogFront {
    orders: Sender<LogCommand>,
    /// Limit for queued records. Threads that log simultaneously may exceed it by one each.
    most: usize,
    /// Whether any sink stores the fields of a record.
    takes_fields: bool,
    levels: Levels,
    metrics: Arc<Metrics>,
}

impl Log for LogFront {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.levels.admit(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        // The macros compare with the least important of all levels only.
        if !self.levels.admit(record.metadata()) {
            return;
        }
        let entry = LogRecord {
            level: record.level(),
            text: record.args().to_string(),
            is_for_files: record.target() == FILES_ONLY,
            says_level: record.target() == DIAGNOSTIC,
            fields: if self.takes_fields { field::of(record) } else { Vec::new() },
        };
        if self.orders.len() >= self.most || self.orders.send(LogCommand::Write(entry)).is_err() {
            self.metrics.dropped_log_records.increment();
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::daemon_toml::LogTarget;

    #[test]
    fn a_file_gets_lines_and_a_slow_sink_costs_records_not_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let metrics = Arc::new(Metrics::default());
        let (orders, queue) = unbounded();
        let metrics_too = Arc::clone(&metrics);
        let front = LogFront {
            orders: orders.clone(),
            most: 2,
            takes_fields: false,
            levels: Levels { usual: LevelFilter::Warn, diagnostics: LevelFilter::Off },
            metrics: metrics_too,
        };
        for number in 0..3 {
            let text = format_args!("record {number}").to_string();
            front.log(&Record::builder().level(Level::Warn).args(format_args!("{text}")).build());
        }
        assert_eq!(metrics.dropped_log_records.get(), 1);
        let sink = LogSink::open(&LogOutput::Target(LogTarget::File(path.clone()))).unwrap();
        let bare = LogSink::open(&LogOutput::Lines(dir.path().join("bare"))).unwrap();
        drop((front, orders));
        write_all(&queue, &mut [sink, bare]);
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text, "warning: record 0\nwarning: record 1\n");
        let text = std::fs::read_to_string(dir.path().join("bare")).unwrap();
        assert_eq!(text, "record 0\nrecord 1\n");
    }

    #[test]
    fn diagnostics_have_a_level_of_their_own() {
        let levels = Levels { usual: LevelFilter::Error, diagnostics: LevelFilter::Warn };
        let admits =
            |level, target| levels.admit(&Metadata::builder().level(level).target(target).build());
        assert!(admits(Level::Error, "any") && !admits(Level::Warn, "any"));
        assert!(admits(Level::Warn, DIAGNOSTIC) && !admits(Level::Info, DIAGNOSTIC));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let path = std::path::PathBuf::from("/nonexistent/log");
        for output in [LogOutput::Lines(path.clone()), LogOutput::Target(LogTarget::File(path))] {
            let error = LogSink::open(&output).err().unwrap();
            assert!(error.to_string().starts_with("/nonexistent/log: "));
        }
    }
}
