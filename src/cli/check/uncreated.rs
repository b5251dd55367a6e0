//! Cgroups of legacy rules that nothing creates: cgrulesengd, and so the daemon, creates a literal destination only
//! for a `group` section. Must not create a cgroup.

use super::lints::Pages;
use crate::cgroup::tree::CgroupError;
use crate::config::diagnostic::Diagnostic;
use crate::config::escape::Escaped;
use crate::policy::rebuild::LoadedConfig;
use crate::rules::{PathBase, Rule, Target};

/// Returns a warning for each rule with a cgroup that neither exists nor is created.
pub(super) fn all(survey: &LoadedConfig) -> Vec<Diagnostic> {
    let mut pages = Pages::default();
    let rules = survey.loaded.rules.iter();
    let found = rules.filter_map(|rule| {
        let (text, section) = uncreated(survey, rule)?;
        let message = format!(
            "nothing creates the cgroup \"{}\", and it does not exist: matching processes stay where they are",
            Escaped(&text)
        );
        let help = format!("create it, or add a section to /etc/cgconfig.conf: {}", Escaped(&section));
        Some(pages.warning(&rule.origin, message, help))
    });
    found.collect()
}

/// Returns the first destination of a rule without a cgroup, and a section that would create it.
fn uncreated(survey: &LoadedConfig, rule: &Rule) -> Option<(String, String)> {
    let mut targets = rule.action.targets().iter();
    targets.find_map(|target| {
        let section = section(survey, target)?;
        Some((target.destination.as_str().to_owned(), section))
    })
}

/// Returns a section for the hierarchies in which a literal destination is missing; `None` if it is in all.
fn section(survey: &LoadedConfig, target: &Target) -> Option<String> {
    if target.creates || target.below != PathBase::Top {
        return None;
    }
    let path = format!("{}/{}", survey.roots.legacy, target.destination.as_str());
    let path = path.trim_start_matches('/');
    let (span, created) = (survey.hierarchies.span_of(target).0, survey.creates(target));
    let trees = span.indexes().filter(|&index| !created.has(index));
    let trees = trees.filter_map(|index| survey.hierarchies.get(index));
    let missing = trees.filter(|tree| !tree.mount_point.join(path).exists()).collect::<Vec<_>>();
    (!missing.is_empty()).then(|| CgroupError::section_of(target, &missing))
}
