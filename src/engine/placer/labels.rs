//! Formatting of processes, rules and decisions in log records.

use std::fmt;

use ::log::kv::Value;
use ::log::{Level, Record};

use super::PlacedProcess;
use crate::rules::Rule;
use crate::telemetry::log::field::{MESSAGE_ID, PID};

/// Process formatted as `process 123 of alice (/usr/bin/x)`.
pub(super) struct ProcessLabel<'a>(pub(super) &'a PlacedProcess<'a>);

impl fmt::Display for ProcessLabel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.0;
        write!(f, "process {} of ", subject.evaluation.pid)?;
        match subject.user {
            Some(name) => f.write_str(name)?,
            None => write!(f, "uid {}", subject.handle.uid)?,
        }
        match subject.exe.raw() {
            Some(exe) => write!(f, " ({})", exe.escape_ascii()),
            None => Ok(()),
        }
    }
}

/// Rule formatted as `rule 'web', /etc/cgruled/rules.d/50-web.toml:3`.
pub(super) struct RuleLabel<'a>(pub(super) &'a Rule);

impl fmt::Display for RuleLabel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule '{}', {}", self.0.name.escape_debug(), self.0.origin)
    }
}

/// Log record of a decision about a process, with its structured fields.
pub(super) struct DecisionFields<'a> {
    pub(super) subject: &'a PlacedProcess<'a>,
    pub(super) rule: &'a Rule,
    /// Cgroup of the rule, from the top of its hierarchies.
    pub(super) group: &'a str,
    /// Message ID, one of [`crate::telemetry::log::field::KINDS`].
    pub(super) kind: &'static str,
    /// Additional field of this kind of record.
    pub(super) more: Option<(&'static str, i64)>,
}

impl DecisionFields<'_> {
    /// Writes the record if the log level admits it.
    pub(super) fn say(&self, level: Level, text: fmt::Arguments<'_>) {
        if level > ::log::max_level() {
            return;
        }
        let Self { subject, rule, .. } = self;
        let PlacedProcess { evaluation, handle, .. } = subject;
        let exe = subject.exe.raw().map(String::from_utf8_lossy);
        let file = rule.origin.file.to_string_lossy();
        let mut fields = vec![
            (MESSAGE_ID, Value::from(self.kind)),
            (PID, Value::from_display(&evaluation.pid)),
            ("uid", handle.uid.0.into()),
            ("gid", handle.gid.0.into()),
            ("rule", Value::from(&*rule.name)),
            ("rule_file", Value::from(&*file)),
            ("rule_line", rule.origin.line.into()),
            ("dest", self.group.into()),
        ];
        fields.extend(exe.as_ref().map(|exe| ("exe", Value::from(&**exe))));
        fields.extend(self.more.map(|(key, value)| (key, value.into())));
        let mut record = Record::builder();
        record.level(level).target(module_path!()).key_values(&fields);
        ::log::logger().log(&record.args(text).build());
    }
}
