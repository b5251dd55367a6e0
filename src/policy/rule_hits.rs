//! Counters of each rule. The hot thread increments them; any thread may read them.
//!
//! A rule keeps its counters at a reload if its text in its file is the same, also at another line, and
//! it observes or acts as before: an administrator who changes one rule must not lose the counts of the
//! others.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::config::rule_text::{hashes_of_legacy, hashes_of_toml};
use crate::event::Nanos;
use crate::policy::load::FileContents;
use crate::rules::{Rule, RuleId};
use crate::telemetry::metrics::Counter;

/// Counters of one rule.
#[derive(Debug)]
pub struct RuleHits {
    /// Evaluations that the rule decided or, if it observes, would have decided. Rechecks that find
    /// the process in its cgroup are not among them.
    pub matched: Counter,
    /// Those of them that moved the process.
    pub placed: Counter,
    /// Time since boot from which they count.
    pub since: Nanos,
}

/// Counters of all rules of a policy, by [`RuleId`]. Copies share the counters.
#[derive(Clone, Debug, Default)]
pub struct RuleHitTable(Arc<[Arc<RuleHits>]>);

/// Rules with the contents of their files.
#[derive(Clone, Copy, Debug)]
pub struct RulesInFiles<'r> {
    /// The rules, indexed by [`RuleId`].
    pub rules: &'r [Rule],
    /// The contents of their files.
    pub contents: &'r FileContents,
}

/// Identity of a rule across reloads: its file, the hash of its text, whether it observes, and its position
/// among rules that agree in all of that.
type RuleKey<'r> = (&'r Path, u64, bool, u32);

impl RuleHitTable {
    /// Creates the counters of rules that become active at `now`. `earlier` are the rules that were
    /// active before, with their counters.
    pub fn new(
        rules: RulesInFiles<'_>,
        earlier: Option<(RulesInFiles<'_>, &Self)>,
        now: Nanos,
    ) -> Self {
        let mut known: HashMap<RuleKey<'_>, &Arc<RuleHits>> = HashMap::new();
        if let Some((earlier, Self(hits))) = earlier {
            known.extend(keys(earlier).into_iter().zip(hits.iter()));
        }
        let hits = keys(rules).into_iter().map(|key| match known.get(&key) {
            Some(hits) => Arc::clone(hits),
            None => Arc::new(RuleHits {
                matched: Counter::default(),
                placed: Counter::default(),
                since: now,
            }),
        });
        Self(hits.collect())
    }

    /// Returns the counters of a rule; `None` for a rule of another policy.
    pub fn get(&self, RuleId(id): RuleId) -> Option<&RuleHits> {
        self.0.get(id as usize).map(|hits| &**hits)
    }
}

/// Returns the identity of each rule.
fn keys<'r>(RulesInFiles { rules, contents }: RulesInFiles<'r>) -> Vec<RuleKey<'r>> {
    let mut by_file: HashMap<(&Path, bool), Vec<(u32, usize)>> = HashMap::new();
    for (at, rule) in rules.iter().enumerate() {
        let own = by_file.entry((&rule.origin.file, rule.is_legacy())).or_default();
        own.push((rule.origin.line, at));
    }
    let mut hashes = vec![0; rules.len()];
    for ((file, is_legacy), mut own) in by_file {
        own.sort_unstable();
        let text = contents.get(file).map(|bytes| String::from_utf8_lossy(bytes));
        let text = text.as_deref().unwrap_or_default();
        let lines: Vec<u32> = own.iter().map(|&(line, _)| line).collect();
        let found = match is_legacy {
            true => hashes_of_legacy(text, &lines),
            false => hashes_of_toml(text, &lines),
        };
        own.iter().zip(found).for_each(|(&(_, at), hash)| hashes[at] = hash);
    }
    let mut counts: HashMap<(&Path, u64, bool), u32> = HashMap::new();
    let keys = rules.iter().zip(hashes).map(|(rule, hash)| {
        let (file, observes) = (&*rule.origin.file, rule.action.observes());
        let count = counts.entry((file, hash, observes)).or_default();
        *count += 1;
        (file, hash, observes, *count)
    });
    keys.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::rules_toml;

    /// Rules of a file with this text.
    struct OneFile {
        rules: Vec<Rule>,
        contents: FileContents,
    }

    impl OneFile {
        fn new(text: &str) -> Self {
            let file: Arc<Path> = Arc::from(Path::new("/etc/a.toml"));
            let parsed = rules_toml::parse(&file, text);
            let rules = parsed.rules.into_iter().map(|written| written.rule).collect();
            Self { rules, contents: FileContents::from([(file, Arc::from(text.as_bytes()))]) }
        }

        fn in_files(&self) -> RulesInFiles<'_> {
            RulesInFiles { rules: &self.rules, contents: &self.contents }
        }
    }

    /// Counts each rule by its position, reloads, and returns count and time of the rules.
    fn after_reload(before: &str, after: &str) -> Vec<(u64, u64)> {
        let [before, after] = [before, after].map(OneFile::new);
        let first = RuleHitTable::new(before.in_files(), None, Nanos(1));
        for id in 0..before.rules.len() {
            let hits = first.get(RuleId(u32::try_from(id).unwrap())).unwrap();
            hits.matched.add(id as u64 + 1);
        }
        let second =
            RuleHitTable::new(after.in_files(), Some((before.in_files(), &first)), Nanos(2));
        second.0.iter().map(|hits| (hits.matched.get(), hits.since.0)).collect()
    }

    const A: &str = "[[rule]]\nuser = 7\ncgroup = \"a\"\n";
    const B: &str = "[[rule]]\nuser = 8\ncgroup = \"b\"\n";

    #[test]
    fn a_rule_keeps_its_counters_while_its_text_is_the_same() {
        let both = format!("{A}{B}");
        assert_eq!(after_reload(&both, &both), [(1, 1), (2, 1)]);
        assert_eq!(after_reload(&both, &format!("# x\n{B}\n{A}")), [(2, 1), (1, 1)]);
        let changed = both.replace("\"b\"", "\"c\"");
        assert_eq!(after_reload(&both, &changed), [(1, 1), (0, 2)]);
        assert_eq!(after_reload(A, &format!("{B}{A}")), [(0, 2), (1, 1)]);
    }

    #[test]
    fn a_rule_that_begins_or_ends_to_observe_counts_anew() {
        let observed = format!("observe = true\n{A}");
        assert_eq!(after_reload(A, &observed), [(0, 2)]);
        assert_eq!(after_reload(&observed, A), [(0, 2)]);
        assert_eq!(after_reload(&observed, &format!("# x\n{observed}")), [(1, 1)]);
    }

    #[test]
    fn equal_rules_have_counters_of_their_own() {
        let twice = format!("{A}{A}");
        assert_eq!(after_reload(&twice, &twice), [(1, 1), (2, 1)]);
    }
}
