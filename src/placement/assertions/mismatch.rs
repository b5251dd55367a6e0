//! Finds the criterion that keeps the rule which a failed test expects from matching. Must not be used for
//! the verdict.

use super::{TestBench, TestSubject};
use crate::config::test_table::{ExpectedDecision, RuleTest};
use crate::placement::conditions::Conditions;
use crate::rules::context::TextTest;
use crate::rules::explain::{Mismatch, walk};
use crate::rules::{ExeFacts, Facts, Rule, RuleId};

impl TestBench {
    /// Returns the rule that a test expects, and the first of its criteria that the process does not
    /// meet. `None` if no rule has the name or the destination, or if that rule matches.
    pub fn mismatch(&self, test: &RuleTest) -> Option<(&Rule, Mismatch)> {
        let rules = self.policy.matcher.rules();
        let (id, rule) = (0..).map(RuleId).zip(rules).find(|(_, rule)| is_expected(rule, test))?;
        let subject = self.subject(test);
        let mut conditions = Conditions::new(&self.policy.context, self.conditions(&subject));
        let one = std::slice::from_ref(rule);
        let trace = walk(one, &subject.identity, &subject.facts(), |_, rule| {
            conditions.test(id, rule).unwrap_or(Some(Mismatch::Circumstances))
        });
        trace.misses.first().map(|miss| (rule, *miss))
    }
}

impl TestSubject {
    /// Returns the attributes that rules evaluate.
    fn facts(&self) -> Facts<'_> {
        let path = self.exe.as_bytes();
        Facts {
            uid: self.identity.uid,
            gid: self.gid,
            exe: (!path.is_empty()).then_some(ExeFacts { path, on_host: true }),
            invoked: self.invoked.as_deref().map(str::as_bytes),
        }
    }
}

/// Checks whether a rule has the expected name, or else leads to the expected cgroup.
fn is_expected(rule: &Rule, test: &RuleTest) -> bool {
    if let Some(name) = &test.rule {
        return *rule.name == *name.expected;
    }
    let Some(decision) = &test.decision else { return false };
    let ExpectedDecision::Moved(TextTest::Is(path)) = &decision.expected else { return false };
    let path = [b"/", &**path].concat();
    rule.action.intended().targets().iter().any(|target| target.destination.test("").accepts(&path))
}
