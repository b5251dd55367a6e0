//! The reading end of the history. It must not delay the writer, and must not need memory for the whole
//! history: a reply is made in parts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::message::{
    EXE_NOT_EXAMINED, EXE_OVERWRITTEN, EXE_TRUNCATED, HistoryStatus, RULE_OVERWRITTEN,
    RULE_TRUNCATED, RecordedEvaluation,
};
use super::record::{EvaluationRecord, TextPosition, WORDS};
use super::recorder::expanded;
use super::ring::RingReader;
use super::texts::{self, HEADER_WORDS, RecordedAction, RecordedProgram, RecordedRule};
use crate::config::escape::EscapedBytes;
use crate::event::Nanos;
use crate::sys;

/// The number of records that are read for one part of a reply: some 300 KB of JSON.
const AT_ONCE: usize = 1024;

/// The reading end of the history, for several threads.
#[derive(Clone, Debug)]
pub struct HistoryReader {
    records: RingReader,
    texts: RingReader,
}

/// Conditions on the evaluations of a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryFilter {
    /// The greatest age in milliseconds.
    pub ago_ms: Option<u64>,
    /// The PID of the process.
    pub pid: Option<u32>,
    /// The effective user ID.
    pub uid: Option<u32>,
}

/// The place of a reader in the history, from the oldest record to the newest of the moment at which
/// it was created.
#[derive(Debug)]
pub struct HistoryCursor {
    reader: HistoryReader,
    filter: HistoryFilter,
    since: Nanos,
    next: u64,
    end: u64,
    lost: u64,
}

/// The same moment on two clocks.
#[derive(Clone, Copy, Debug)]
struct ClockPair {
    monotonic: Nanos,
    unix: Duration,
}

impl ClockPair {
    fn now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { monotonic: sys::monotonic(), unix }
    }

    /// Returns the milliseconds since 1970.
    fn unix_ms(self, at: Nanos) -> u64 {
        let ago = Duration::from_nanos(self.monotonic.since(at));
        u64::try_from(self.unix.saturating_sub(ago).as_millis()).unwrap_or(u64::MAX)
    }
}

impl HistoryReader {
    pub(super) fn new(records: RingReader, texts: RingReader) -> Self {
        Self { records, texts }
    }

    /// Returns the size of the history and the age of its content.
    pub fn status(&self) -> HistoryStatus {
        const RECORD: u64 = WORDS as u64;
        let (begin, end) = (self.records.begin(), self.records.end());
        let oldest = self.record(begin).filter(|_| begin < end);
        HistoryStatus {
            capacity: self.records.capacity() / RECORD,
            kept: end.saturating_sub(begin) / RECORD,
            overwritten: begin / RECORD,
            oldest_ms: oldest.map(|oldest| ClockPair::now().unix_ms(oldest.at)),
        }
    }

    /// Begins to read the evaluations that meet `filter`.
    pub fn find(&self, filter: HistoryFilter) -> HistoryCursor {
        let age = filter.ago_ms.map(|ms| ms.saturating_mul(1_000_000));
        let since = age.map_or(Nanos(0), |age| Nanos(sys::monotonic().0.saturating_sub(age)));
        let (next, end) = (self.records.begin(), self.records.end());
        HistoryCursor { reader: self.clone(), filter, since, next, end, lost: 0 }
    }

    fn record(&self, position: u64) -> Option<EvaluationRecord> {
        let mut words = [0; WORDS];
        self.records.copy(position, &mut words).then(|| EvaluationRecord::decode(words)).flatten()
    }

    /// Returns the words of a text; `None` if it was overwritten.
    fn text(&self, position: TextPosition) -> Option<Vec<u64>> {
        let position = expanded(position, self.texts.end())?;
        let mut header = [0; HEADER_WORDS];
        if !self.texts.copy(position, &mut header) {
            return None;
        }
        let mut words = vec![0; texts::length(header)?];
        self.texts.copy(position, &mut words).then_some(words)
    }

    fn evaluation(&self, record: &EvaluationRecord, clock: ClockPair) -> RecordedEvaluation {
        let mut told = RecordedEvaluation {
            time_ms: clock.unix_ms(record.at),
            pid: record.pid.get(),
            uid: record.ids.map(|(uid, _)| uid.0),
            gid: record.ids.map(|(_, gid)| gid.0),
            outcome: record.outcome.word().to_owned(),
            cause: record.cause.to_string(),
            latency_us: record.latency_us.into(),
            ..RecordedEvaluation::default()
        };
        if record.program != TextPosition::NONE {
            match self.text(record.program).and_then(|words| texts::program(&words)) {
                Some(program) => add_program(&mut told, &program),
                None => told.incomplete.push(EXE_OVERWRITTEN.to_owned()),
            }
        }
        if record.rule != TextPosition::NONE {
            match self.text(record.rule).and_then(|words| texts::rule(&words)) {
                Some(rule) => add_rule(&mut told, &rule),
                None => told.incomplete.push(RULE_OVERWRITTEN.to_owned()),
            }
        }
        told
    }
}

fn add_program(told: &mut RecordedEvaluation, program: &RecordedProgram) {
    let deleted = if program.is_deleted { " (deleted)" } else { "" };
    told.exe = Some(format!("{}{deleted}", escaped(&program.path)));
    told.exe_on_host = program.on_host;
    told.invoked = program.invoked.as_deref().map(escaped);
    for (is_set, word) in
        [(program.is_truncated, EXE_TRUNCATED), (program.is_unsure, EXE_NOT_EXAMINED)]
    {
        told.incomplete.extend(is_set.then(|| word.to_owned()));
    }
}

fn add_rule(told: &mut RecordedEvaluation, rule: &RecordedRule) {
    told.rule = Some(escaped(&rule.name));
    told.file = Some(escaped(&rule.file));
    told.line = Some(rule.line);
    told.incomplete.extend(rule.is_truncated.then(|| RULE_TRUNCATED.to_owned()));
    if let RecordedAction::Place(destinations) = &rule.action {
        told.cgroups = destinations.iter().map(|path| escaped(path)).collect();
    }
}

fn escaped(text: &[u8]) -> String {
    EscapedBytes(text).to_string()
}

impl HistoryCursor {
    /// Returns the evaluations of the next part, perhaps none; `None` after the last part.
    pub fn next_part(&mut self) -> Option<Vec<RecordedEvaluation>> {
        const RECORD: u64 = WORDS as u64;
        let begin = self.reader.records.begin();
        if begin > self.next {
            self.lost += (begin - self.next) / RECORD;
            self.next = begin;
        }
        if self.next >= self.end {
            return None;
        }
        let clock = ClockPair::now();
        let mut found = Vec::new();
        for _ in 0..AT_ONCE {
            if self.next >= self.end {
                break;
            }
            match self.reader.record(self.next) {
                Some(record) if self.admits(&record) => {
                    found.push(self.reader.evaluation(&record, clock));
                }
                Some(_) => {}
                None => self.lost += 1,
            }
            self.next += RECORD;
        }
        Some(found)
    }

    /// Returns the number of records that were overwritten before they were read.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    fn admits(&self, record: &EvaluationRecord) -> bool {
        let HistoryFilter { pid, uid, .. } = self.filter;
        record.at >= self.since
            && pid.is_none_or(|pid| record.pid.get() == pid)
            && uid.is_none_or(|uid| record.ids.is_some_and(|ids| ids.0.0 == uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::history::{open, recorder::HistoryRecorder};
    use crate::control::outcome::EvaluationOutcome;
    use crate::event::{Cause, Gid, Pid, Uid};
    use crate::kernel::program::ExeInfo;
    use crate::policy::test_policy;
    use crate::rules::{ExeFacts, RuleId};
    use crate::telemetry::metrics::Metrics;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn record(pid: u32, program: TextPosition) -> EvaluationRecord {
        EvaluationRecord {
            at: sys::monotonic(),
            pid: Pid::new(pid).unwrap(),
            ids: Some((Uid(pid % 7), Gid(2))),
            program,
            rule: TextPosition::NONE,
            outcome: EvaluationOutcome::NoRule,
            cause: Cause::EXEC,
            latency_us: 9,
        }
    }

    fn program(recorder: &mut HistoryRecorder, path: &str) -> TextPosition {
        let path = path.as_bytes();
        let exe = ExeFacts { path, on_host: true };
        recorder.program(ExeInfo { raw: path, exe, invoked: None, is_unsure: false })
    }

    fn all(reader: &HistoryReader, filter: HistoryFilter) -> Vec<RecordedEvaluation> {
        let mut cursor = reader.find(filter);
        let found = std::iter::from_fn(|| cursor.next_part()).flatten().collect();
        assert_eq!(cursor.lost(), 0);
        found
    }

    #[test]
    fn an_evaluation_is_told_with_its_rule_and_program() {
        let policy = test_policy(
            "[[rule]]\nname = \"people\"\nuser = \"5\"\ncgroup = \"p/%u\"\n",
            Vec::new(),
        );
        let (mut recorder, reader) = open(1 << 20, Arc::default());
        assert_eq!(reader.status().oldest_ms, None);
        let rule = recorder.rule(1, RuleId(0), &policy.matcher.rules()[0]);
        let program = program(&mut recorder, "/bin/a\n");
        let own = EvaluationRecord { rule, ..record(7, program) };
        recorder.record(&EvaluationRecord { outcome: EvaluationOutcome::Placed, ..own });
        let gone = EvaluationRecord { ids: None, ..record(8, TextPosition::NONE) };
        recorder.record(&EvaluationRecord { outcome: EvaluationOutcome::Gone, ..gone });
        let told = all(&reader, HistoryFilter::default());
        assert_eq!(told.len(), 2);
        let [placed, gone] = &told[..] else { panic!("{told:?}") };
        assert_eq!(placed.exe.as_deref(), Some("/bin/a\\u{a}"));
        assert_eq!(placed.rule.as_deref(), Some("people"));
        assert_eq!((placed.file.as_deref(), placed.line), (Some("/a.toml"), Some(3)));
        assert_eq!((&placed.cgroups[..], &*placed.outcome), (&["p/%u".to_owned()][..], "placed"));
        assert_eq!((placed.uid, placed.gid, placed.latency_us), (Some(0), Some(2), 9));
        assert_eq!((gone.uid, &*gone.outcome, &gone.exe), (None, "gone", &None));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        assert!(now.abs_diff(placed.time_ms.into()) < 60_000);
        let status = reader.status();
        assert_eq!((status.kept, status.overwritten), (2, 0));
        assert_eq!(status.oldest_ms.map(|ms| ms.abs_diff(placed.time_ms) < 1000), Some(true));
    }

    #[test]
    fn filters_are_applied() {
        let (mut recorder, reader) = open(1 << 20, Arc::default());
        let old = Nanos(sys::monotonic().0.saturating_sub(3_000_000_000));
        recorder.record(&EvaluationRecord { at: old, ..record(7, TextPosition::NONE) });
        recorder.record(&record(7, TextPosition::NONE));
        recorder.record(&record(8, TextPosition::NONE));
        let count = |filter: HistoryFilter| all(&reader, filter).len();
        let none = HistoryFilter::default();
        assert_eq!(count(none), 3);
        assert_eq!(count(HistoryFilter { pid: Some(7), ..none }), 2);
        assert_eq!(count(HistoryFilter { uid: Some(1), ..none }), 1);
        assert_eq!(count(HistoryFilter { ago_ms: Some(2_000), ..none }), 2);
        assert_eq!(count(HistoryFilter { pid: Some(7), uid: Some(1), ..none }), 0);
    }

    #[test]
    fn what_is_overwritten_during_a_reply_is_counted() {
        let metrics = Arc::<Metrics>::default();
        let (mut recorder, reader) = open(1 << 20, Arc::clone(&metrics));
        let capacity = reader.status().capacity;
        assert_eq!(capacity, (1 << 20) / 4 * 3 / 32);
        for pid in 1..=2 * capacity as u32 {
            recorder.record(&record(pid, TextPosition::NONE));
        }
        assert_eq!(metrics.history_overwritten.get(), capacity);
        let mut cursor = reader.find(HistoryFilter::default());
        let first = cursor.next_part().unwrap();
        assert_eq!(u64::from(first[0].pid), capacity + 1);
        for pid in 1..=capacity as u32 {
            recorder.record(&record(pid, TextPosition::NONE));
        }
        assert_eq!(cursor.next_part(), None, "nothing is left of what was there at the begin");
        assert_eq!(cursor.lost(), capacity - first.len() as u64);
    }

    #[test]
    fn a_program_whose_text_was_overwritten_is_marked() {
        let (mut recorder, reader) = open(64 << 10, Arc::default());
        let first = program(&mut recorder, "/bin/first");
        recorder.record(&record(1, first));
        for number in 0..1000 {
            program(&mut recorder, &format!("/a/rather/long/path/of/a/program/{number}"));
        }
        let told = all(&reader, HistoryFilter::default());
        assert_eq!(
            (&told[0].exe, &told[0].incomplete[..]),
            (&None, &[EXE_OVERWRITTEN.to_owned()][..])
        );
    }

    proptest! {
        /// A user who executes many programs makes the history forget names, but never shows a wrong one.
        #[test]
        fn a_program_is_the_right_one_or_none(
            programs in prop::collection::vec(0u32..3000, 1..4000),
        ) {
            let (mut recorder, reader) = open(64 << 10, Arc::default());
            for number in &programs {
                let program = program(&mut recorder, &format!("/opt/program/{number}"));
                recorder.record(&record(number + 1, program));
            }
            let told = all(&reader, HistoryFilter::default());
            let kept = programs.len().min(reader.status().capacity as usize);
            prop_assert_eq!(told.len(), kept);
            for (told, number) in told.iter().zip(&programs[programs.len() - kept..]) {
                prop_assert_eq!(told.pid, number + 1);
                let expected = Some(format!("/opt/program/{number}"));
                prop_assert!(told.exe == expected || !told.incomplete.is_empty());
            }
            prop_assert_eq!(told.last().unwrap().incomplete.len(), 0);
        }
    }
}
