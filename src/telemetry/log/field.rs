//! Structured fields of log records: key-values of the `log` macros, which journald stores as
//! fields.

use ::log::Record;
use ::log::kv::{Error, Key, Value, VisitSource};

/// Key for the kind of a record, one of [`KINDS`], for `journalctl MESSAGE_ID=…`.
pub const MESSAGE_ID: &str = "message_id";
/// Key for the PID of the process that a record is about.
pub const PID: &str = "pid";

/// All kinds of records, each of which cgruled(8) documents.
pub const KINDS: [&str; 8] = [READY, RULES, DIAGNOSTIC, MOVED, REFUSED, TAKEN, UNIT, LOST];
/// All processes were evaluated after the start.
pub const READY: &str = "cf643890584146c2a90bd7f760d4f8bf";
/// A set of rules became active.
pub const RULES: &str = "a91866b7bc4843e48be6cfff7f27bf01";
/// An error or warning about a file.
pub const DIAGNOSTIC: &str = "32084d4a145e4fe98c6985c4db42567d";
/// A process was moved, or would be moved in a dry run.
pub const MOVED: &str = "4240c675d750478992a83c0cd7f72b9a";
/// A process could not be moved.
pub const REFUSED: &str = "a279a831b7cf4c98a5d4ffc94bf35802";
/// Another process moved a placed process away.
pub const TAKEN: &str = "eea0649e59354c5c988a5be457e893f9";
/// A process stays in its systemd unit, or leaves it.
pub const UNIT: &str = "63615aaf9fe74b5bb0f7df1bbd509772";
/// The kernel dropped process events.
pub const LOST: &str = "c0a51aa73387481c9872b6489c486b90";

/// One field of a journal entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JournalField {
    /// Consists of upper case letters, digits and underscores.
    pub(super) name: String,
    pub(super) value: String,
}

/// Converts the key-values of a record to fields.
pub(super) fn of(record: &Record<'_>) -> Vec<JournalField> {
    let mut fields = JournalFields(Vec::new());
    // The visitor never returns an error.
    let _visited = record.key_values().visit(&mut fields);
    fields.0
}

/// Visitor that collects the key-values of a record.
struct JournalFields(Vec<JournalField>);

impl<'kvs> VisitSource<'kvs> for JournalFields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = value.to_string();
        let name = match key.as_str() {
            MESSAGE_ID => "MESSAGE_ID".to_owned(),
            // journald adds properties of the process as OBJECT_UID=, OBJECT_SYSTEMD_UNIT= and so
            // on.
            PID => {
                self.0.push(JournalField { name: "OBJECT_PID".to_owned(), value: value.clone() });
                "CGR_PID".to_owned()
            }
            other => format!("CGR_{}", other.to_ascii_uppercase()),
        };
        self.0.push(JournalField { name, value });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::log::journal;
    use ::log::Level;

    #[test]
    fn key_values_are_fields_and_cannot_forge_others() {
        let pairs = [(MESSAGE_ID, "0f"), ("rule_file", "a\nPRIORITY=0"), (PID, "7")];
        let text = format_args!("text").to_string();
        let mut record = Record::builder();
        record.level(Level::Warn).key_values(&pairs);
        let fields = of(&record.build());
        let datagram = journal::datagram(Level::Warn, &text, &fields);
        let expected = b"SYSLOG_IDENTIFIER=cgruled\nPRIORITY=4\nMESSAGE_ID=0f\nCGR_RULE_FILE\n\
            \x0c\0\0\0\0\0\0\0a\nPRIORITY=0\nOBJECT_PID=7\nCGR_PID=7\nMESSAGE=text\n";
        assert_eq!(datagram.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    #[test]
    fn kinds_differ_and_are_numbers_of_128_bits() {
        let mut seen = std::collections::BTreeSet::new();
        for id in KINDS {
            assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
            assert!(seen.insert(id), "{id}");
        }
    }
}
