//! Log output on a dedicated thread, so that the hot thread never waits for a disk, a terminal or
//! journald. The queue is bounded; records that do not fit are counted and dropped.

pub mod field;
mod journal;
pub mod limit;
mod sink;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ::log::{Level, LevelFilter, Log, Metadata, Record};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::config::escape::{Escaped, is_unsafe};
use crate::telemetry::metrics::Metrics;
use field::JournalField;
use sink::LogSink;
pub use sink::{Facility, LogOutput, try_file};

/// Maximum number of queued records. Further ones are dropped while a disk blocks.
const QUEUE: usize = 4096;

/// Time limit for writing the queue at exit if syslog or a disk blocks.
const PATIENCE: Duration = Duration::from_secs(2);

/// Characters of a record that pass unescaped beside printable ones: some records are several lines.
const LAYOUT: [char; 2] = ['\n', '\t'];

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
    levels: LevelSwitch,
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

/// Switch for the levels of the running log.
#[derive(Clone, Debug)]
pub struct LevelSwitch(Arc<[AtomicUsize; 2]>);

impl LevelSwitch {
    fn new(Levels { usual, diagnostics }: Levels) -> Self {
        Self(Arc::new([usual, diagnostics].map(|level| AtomicUsize::new(level as usize))))
    }

    /// Changes the levels of records that are logged from now on.
    pub fn set(&self, Levels { usual, diagnostics }: Levels) {
        self.0[0].store(usual as usize, Ordering::Relaxed);
        self.0[1].store(diagnostics as usize, Ordering::Relaxed);
        ::log::set_max_level(usual.max(diagnostics));
    }

    fn admit(&self, metadata: &Metadata<'_>) -> bool {
        let kind = usize::from(metadata.target() == DIAGNOSTIC);
        metadata.level() as usize <= self.0[kind].load(Ordering::Relaxed)
    }
}

impl Logging {
    /// Starts the log thread and makes it the logger of the `log` macros.
    ///
    /// # Errors
    /// The file cannot be opened, the journal cannot be reached, no thread can be created, or a
    /// logger is already set.
    pub fn start(
        outputs: &[LogOutput],
        initial: Levels,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let mut sinks = outputs.iter().map(LogSink::open).collect::<io::Result<Vec<LogSink>>>()?;
        let takes_fields = sinks.iter().any(LogSink::takes_fields);
        // A bounded channel would allocate its whole capacity now.
        let (orders, queue) = unbounded();
        let (end, written) = bounded(0);
        let counted = Arc::clone(&metrics);
        thread::Builder::new().name("log".into()).stack_size(128 * 1024).spawn(move || {
            write_all(&queue, &mut sinks, &counted);
            drop(end);
        })?;
        let switch = LevelSwitch::new(initial);
        let levels = switch.clone();
        let front = LogFront { orders: orders.clone(), most: QUEUE, takes_fields, levels, metrics };
        ::log::set_boxed_logger(Box::new(front)).map_err(io::Error::other)?;
        switch.set(initial);
        Ok(Self { orders, levels: switch, written })
    }

    /// Returns the switch for the levels.
    pub fn levels(&self) -> LevelSwitch {
        self.levels.clone()
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
    for line in text.lines() {
        // `eprintln!` would panic when standard error is a closed pipe or on a full disk.
        let _printed = writeln!(io::stderr(), "{mark}{line}");
    }
}

/// Prints a diagnostic of a program that then stops on standard error.
pub fn print_diagnostic(text: &impl std::fmt::Display) {
    eprintln!("{text}");
}

fn write_all(queue: &Receiver<LogCommand>, sinks: &mut [LogSink], metrics: &Metrics) {
    while let Ok(LogCommand::Write(entry)) = queue.recv() {
        for sink in &mut *sinks {
            // A failing sink has no better place for a report of its failure.
            if sink.write(&entry).is_err() {
                metrics.dropped_log_records.increment();
            }
        }
    }
}

/// Returns the text of a record, safe for a terminal. All outputs receive it: names of accounts come
/// from the name service, and names of programs and cgroups from any user.
pub fn escaped(record: &Record<'_>) -> String {
    let text = record.args().to_string();
    // Text from outside is escaped in these before, and their layout is their own.
    let is_laid_out = matches!(record.target(), DIAGNOSTIC | FILES_ONLY);
    if !text.chars().any(|c| is_unsafe(c) && !(is_laid_out && LAYOUT.contains(&c))) {
        return text;
    }
    let parts = text.split_inclusive(LAYOUT);
    parts
        .map(|part| if is_laid_out { of_layout(part) } else { Escaped(part).to_string() })
        .collect()
}

/// Escapes a part of a text, up to a line end or tab, which stays.
fn of_layout(part: &str) -> String {
    let text = part.strip_suffix(LAYOUT).unwrap_or(part);
    format!("{}{}", Escaped(text), &part[text.len()..])
}

struct LogFront {
    orders: Sender<LogCommand>,
    /// Limit for queued records. Threads that log simultaneously may exceed it by one each.
    most: usize,
    /// Whether any sink stores the fields of a record.
    takes_fields: bool,
    levels: LevelSwitch,
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
            text: escaped(record),
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
            levels: LevelSwitch::new(Levels {
                usual: LevelFilter::Warn,
                diagnostics: LevelFilter::Off,
            }),
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
        let full = LogSink::open(&LogOutput::Lines("/dev/full".into())).unwrap();
        write_all(&queue, &mut [sink, full, bare], &metrics);
        assert_eq!(metrics.dropped_log_records.get(), 3);
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text, "warning: record 0\nwarning: record 1\n");
        let text = std::fs::read_to_string(dir.path().join("bare")).unwrap();
        assert_eq!(text, "record 0\nrecord 1\n");
    }

    #[test]
    fn text_from_outside_neither_forges_lines_nor_drives_a_terminal() {
        fn text_of(target: &str, text: &str) -> String {
            escaped(&Record::builder().target(target).args(format_args!("{text}")).build())
        }
        let name = "a\u{1b}[2J\u{7}\t\u{9b}\u{202e}\u{e0041}\nwarning: b";
        let expected = "a\\u{1b}[2J\\u{7}\\u{9}\\u{9b}\\u{202e}\\u{e0041}\\u{a}warning: b";
        assert_eq!(text_of("any", name), expected);
        assert_eq!(text_of(DIAGNOSTIC, "a\n\tb"), "a\n\tb");
        assert_eq!(text_of(FILES_ONLY, "a\u{1b}\nb\t"), "a\\u{1b}\nb\t");
        assert_eq!(text_of("any", "é of /a"), "é of /a");
    }

    #[test]
    fn diagnostics_have_a_level_of_their_own() {
        let levels =
            LevelSwitch::new(Levels { usual: LevelFilter::Error, diagnostics: LevelFilter::Warn });
        for (level, target, is_admitted) in [
            (Level::Error, "any", true),
            (Level::Warn, "any", false),
            (Level::Warn, DIAGNOSTIC, true),
            (Level::Info, DIAGNOSTIC, false),
        ] {
            let metadata = Metadata::builder().level(level).target(target).build();
            assert_eq!(levels.admit(&metadata), is_admitted, "{level} {target}");
        }
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
