//! The tests of rule files at a load. Must not evaluate them: the caller supplies the function that
//! does, because placement is decided above this module.

use super::PolicyBuilder;
use super::settings::ReloadedSettings;
use crate::config::diagnostic::{Diagnostic, Severity, sort};
use crate::policy::load::{Loaded, TestedFile};

/// Evaluates the tests of rule files and returns a diagnostic of this severity for each that fails.
pub type TestReporter = fn(&[TestedFile], Severity) -> Vec<Diagnostic>;

/// Treatment of the tests of rule files.
pub(super) struct TestedRules {
    report: TestReporter,
    /// True if a test that fails is an error. At a reload the settings decide.
    pub(super) is_strict: bool,
}

impl Default for TestedRules {
    fn default() -> Self {
        let report: TestReporter = |_, _| Vec::new();
        Self { report, is_strict: false }
    }
}

impl PolicyBuilder {
    /// Sets the function that evaluates the tests of rule files, and whether a failing one is an error
    /// of its file.
    #[must_use]
    pub fn with_tests(self, report: TestReporter, is_strict: bool) -> Self {
        Self { tests: TestedRules { report, is_strict }, ..self }
    }

    /// Adds a diagnostic for each test that fails. Drops the tests, which contain copies of rules.
    pub(super) fn tested(&self, loaded: Loaded) -> Loaded {
        let settings = self.settings.as_ref().map(ReloadedSettings::running);
        let is_strict = settings.map_or(self.tests.is_strict, |own| own.strict_tests);
        self.tested_as(loaded, is_strict)
    }

    /// The same, with a failing test as an error if `is_strict`.
    pub(super) fn tested_as(&self, mut loaded: Loaded, is_strict: bool) -> Loaded {
        let tests = std::mem::take(&mut loaded.tests);
        if tests.is_empty() {
            return loaded;
        }
        let severity = if is_strict { Severity::Error } else { Severity::Warning };
        loaded.diagnostics.extend((self.tests.report)(&tests, severity));
        sort(&mut loaded.diagnostics);
        loaded
    }
}

#[cfg(test)]
#[path = "assertions_tests.rs"]
mod tests;
