//! Reads the `[[test]]` tables of a file; it evaluates none.

use std::collections::HashMap;
use std::ops::Range;

use toml::de::DeValue;

use crate::config::source_text::Diagnostics;
use crate::config::table::{TomlSection, Value, shortened};
use crate::config::test_table::{self, MAX_TESTS, RuleTest};
use crate::event::Uid;

/// The tests of a file as far as it was read.
#[derive(Default)]
pub(super) struct TestReader {
    pub(super) tests: Vec<RuleTest>,
    /// The number of valid tests.
    found: usize,
    /// The place of the first one, in bytes.
    pub(super) first: Option<Range<usize>>,
    /// The UIDs of users in tests, with the line of the test.
    uids: HashMap<String, (Uid, u32)>,
}

impl TestReader {
    /// Reads the value of `test` in the section that begins at byte `offset`.
    pub(super) fn read(&mut self, value: &Value<'_>, offset: usize, report: &mut Diagnostics<'_>) {
        let mut piece = TomlSection::new(report, offset);
        let DeValue::Array(list) = value.get_ref() else {
            let help = "write [[test]] before each test";
            piece.error_help(value.span(), "test must be a list", help);
            return;
        };
        for item in list.iter() {
            let mut piece = TomlSection::new(report, offset);
            let Some(table) = piece.table(item, "a test") else { continue };
            self.first.get_or_insert_with(|| piece.span(item.span()));
            if self.found > MAX_TESTS {
                return;
            }
            for test in test_table::read(table, item.span(), &mut piece) {
                self.found += 1;
                if self.found <= MAX_TESTS {
                    self.add(test, (item.span(), offset), report);
                    continue;
                }
                let message = format!("a file has at most {MAX_TESTS} tests: the rest is ignored");
                let mut piece = TomlSection::new(report, offset);
                piece.error_help(item.span(), message, "divide the rules into several files");
                return;
            }
        }
    }

    /// Adds a test, unless it gives a user another UID than an earlier one: the names in the rules
    /// are resolved once for all tests.
    fn add(
        &mut self,
        test: RuleTest,
        (header, offset): (Range<usize>, usize),
        report: &mut Diagnostics<'_>,
    ) {
        for (name, uid) in test.uids() {
            let (first, line) = *self.uids.entry(name.to_owned()).or_insert((uid, test.line));
            if first != uid {
                let message = format!(
                    "the user \"{}\" has the UID {uid} here and {first} in the test at line {line}",
                    shortened(name)
                );
                let mut piece = TomlSection::new(report, offset);
                piece.error_help(header, message, "use one UID for each name in a file");
                return;
            }
        }
        self.tests.push(test);
    }
}
