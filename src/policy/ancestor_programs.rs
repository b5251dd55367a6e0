//! The programs that rules require or exclude of ancestors, compiled so that one decision tells whether a process runs
//! one of them. Pure.

use std::sync::Arc;

use crate::event::{Nanos, Uid};
use crate::policy::User;
use crate::rules::ignore::IgnoreWhen;
use crate::rules::matcher::Matcher;
use crate::rules::names::UserIdentity;
use crate::rules::{Action, Criteria, ExeTest, Rule};

/// The programs of ancestors that rules test.
#[derive(Debug)]
pub struct AncestorPrograms {
    /// Those that count if root runs them.
    pub of_root: ProgramSet,
    /// Those that count whoever runs them.
    pub of_anybody: Option<ProgramSet>,
}

/// A set of programs as a rule without users and groups, because the index of rules knows which data of an executable
/// decide.
#[derive(Debug)]
pub struct ProgramSet {
    /// The matcher with that rule.
    pub matcher: Matcher,
    /// Some user: none is tested.
    pub user: User,
}

impl AncestorPrograms {
    /// Collects the programs that these rules test. `None` if they test none.
    pub fn new(rules: &[Rule]) -> Option<Self> {
        let tests = || rules.iter().flat_map(Rule::ancestor_tests);
        let all: Vec<ExeTest> = tests().flat_map(|(tests, _)| tests).cloned().collect();
        let anybody = tests().filter(|&(_, is_anybody)| is_anybody).flat_map(|(tests, _)| tests);
        let anybody: Vec<ExeTest> = anybody.cloned().collect();
        let template = rules.first().filter(|_| !all.is_empty())?;
        let of_anybody = (!anybody.is_empty()).then(|| ProgramSet::new(template, anybody));
        Some(Self { of_root: ProgramSet::new(template, all), of_anybody })
    }

    /// Returns the programs that count for a process, by whether root runs it.
    pub fn of(&self, is_of_root: bool) -> Option<&ProgramSet> {
        if is_of_root { Some(&self.of_root) } else { self.of_anybody.as_ref() }
    }
}

impl ProgramSet {
    fn new(template: &Rule, exes: Vec<ExeTest>) -> Self {
        let rule = Rule {
            when: Criteria { exes, ..Criteria::default() },
            not: Criteria::default().into(),
            exe_anywhere: false,
            is_gated: false,
            action: Action::Ignore(IgnoreWhen::default()),
            ..template.clone()
        };
        let matcher = Matcher::compile(Arc::new([rule]));
        let user = User::new(&matcher, UserIdentity::nameless(Uid(0)), Nanos(u64::MAX));
        Self { matcher, user }
    }
}
