//! Rules that are limited or cannot be applied because of the roots of their cgroups on this host.

use std::path::Path;
use std::sync::Arc;

use crate::cgroup::host::{HostWarning, ManagedRoots, POOL};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::policy::load::Loaded;
use crate::rules::overbroad::{Overbroad, width};
use crate::rules::{InapplicableReason, LeaveUnits, PathBase, Rule};

/// Marks the rules that cannot be applied because of the roots of their cgroups, and adds the
/// diagnostics.
///
/// Such a rule keeps its position in the order: without it a later, less specific rule would match.
pub(super) fn fit(
    loaded: &mut Loaded,
    roots: &ManagedRoots,
    settings_file: &Path,
    has_systemd: bool,
) {
    let is_out = |rule: &Rule| roots.is_delegated && leads_to_root(rule, roots);
    loaded
        .diagnostics
        .extend(loaded.rules.iter().filter(|rule| is_out(rule)).map(ground_is_no_group));
    forbid(loaded, is_out, &InapplicableReason::DelegatedRoot);
    for warning in &roots.warnings {
        loaded.diagnostics.extend(diagnostic(*warning, loaded, settings_file));
    }
    if !roots.groundless.is_empty() {
        forbid_without_root(loaded, roots);
    }
    if has_systemd {
        loaded.diagnostics.extend(warn_overbroad(&loaded.rules));
    }
}

/// Marks the rules without a usable root. The root of a tree that systemd owns was not selected by
/// the administrator, so nothing is created or configured there.
fn forbid_without_root(loaded: &mut Loaded, roots: &ManagedRoots) {
    let lacks_root = |rule: &Rule| {
        let mut targets = rule.action.intended().targets().iter();
        targets.any(|target| roots.groundless.contains(&target.below))
    };
    forbid(loaded, lacks_root, &InapplicableReason::NoDelegation);
    if roots.groundless.contains(&PathBase::Root) {
        loaded.specs.tables.clear();
    }
}

/// Marks these rules as not applicable on this host.
fn forbid(loaded: &mut Loaded, is_out: impl Fn(&Rule) -> bool, reason: &InapplicableReason) {
    if !loaded.rules.iter().any(&is_out) {
        return;
    }
    let rules = Arc::make_mut(&mut loaded.rules);
    for rule in rules.iter_mut().filter(|rule| is_out(rule)) {
        rule.action.forbid(reason.clone());
    }
}

/// Checks whether a destination of the rule is a managed root itself. That has controllers enabled
/// in cgroup.subtree_control, so it cannot contain processes, and on a systemd host it is the
/// cgroup of the unit.
fn leads_to_root(rule: &Rule, roots: &ManagedRoots) -> bool {
    rule.action.intended().targets().iter().any(|target| {
        let beginning = match target.below {
            PathBase::Root => &roots.rules,
            PathBase::Top => &roots.legacy,
        };
        !beginning.is_empty() && target.destination.pieces().is_empty()
    })
}

fn ground_is_no_group(rule: &Rule) -> Diagnostic {
    let message = "the destination is the root of the cgroups of rules, which cannot contain \
                   processes on this host";
    about(rule, Severity::Warning, message).with_help(
        "matching processes stay where they are; use a cgroup below it, such as \
         cgroup = \"people/%u\", or ignore = true",
    )
}

fn about(rule: &Rule, severity: Severity, message: &str) -> Diagnostic {
    Diagnostic::at_line(&rule.origin.file, rule.origin.line, severity, message)
}

/// Creates the diagnostic for a remark, if it concerns any rule.
fn diagnostic(warning: HostWarning, loaded: &Loaded, settings_file: &Path) -> Option<Diagnostic> {
    let file = Arc::from(settings_file);
    let for_rules = first_below(PathBase::Root, loaded);
    Some(match warning {
        HostWarning::NoPool => {
            for_rules.map(drop).or((!loaded.specs.tables.is_empty()).then_some(()))?;
            let message = format!(
                "root = \"auto\": systemd owns the cgroups of this host and the unit {POOL} does not \
                 exist: processes that match a rule with a cgroup stay where they are, and [cgroup] \
                 tables are ignored"
            );
            Diagnostic::about(&file, Severity::Error, message).with_help(format!(
                "install or unmask {POOL}, run 'systemctl enable --now {POOL}' and restart cgruled; \
                 or set root to a path below a unit with Delegate=yes, or to \"/\" for the hierarchy \
                 root, where systemd may reset the settings of cgroups"
            ))
        }
        HostWarning::AutoIsTop => {
            for_rules?;
            let message = "root = \"auto\" is the root of each hierarchy on this host, next to the \
                           cgroups of systemd, because systemd does not delegate cgroup v1";
            Diagnostic::about(&file, Severity::Warning, message.to_owned())
                .with_help("set root = \"/\" to keep this without the warning")
        }
        HostWarning::RootIsSlice => {
            for_rules?;
            let message = "root is a slice, in which only systemd may create cgroups";
            Diagnostic::about(&file, Severity::Warning, message.to_owned())
                .with_help("set root to a unit with Delegate=yes in it")
        }
        HostWarning::LegacyAtTop => {
            let message = "paths of legacy rules start at the hierarchy root, as in cgrulesengd, but \
                           systemd owns that and may reset the settings of cgroups there";
            about(first_below(PathBase::Top, loaded)?, Severity::Warning, message).with_help(
                format!(
                    "set legacy_root = \"pool\" in {} to start them below {POOL}, or legacy_root = \
                 \"top\" to keep this without the warning",
                    settings_file.display()
                ),
            )
        }
    })
}

/// Returns the first rule with a path from this base.
fn first_below(base: PathBase, loaded: &Loaded) -> Option<&Rule> {
    let mut rules = loaded.rules.iter();
    rules.find(|rule| rule.action.written_targets().iter().any(|target| target.below == base))
}

/// Returns a warning for each rule that would move processes out of system services.
pub fn warn_overbroad(rules: &[Rule]) -> Vec<Diagnostic> {
    rules.iter().filter_map(is_overbroad).collect()
}

fn is_overbroad(rule: &Rule) -> Option<Diagnostic> {
    let whose = match width(rule)? {
        Overbroad::Everybody => "root and all system users",
        Overbroad::Root => "root",
        Overbroad::System => "system users",
    };
    let message = format!("the rule moves processes of {whose} out of their services");
    let help = match rule.leave_units {
        LeaveUnits::Yes => "remove leave_units, select regular users or groups, or add exe",
        LeaveUnits::AsTheOriginal | LeaveUnits::No | LeaveUnits::Of(_) => {
            "select regular users or groups, or a program"
        }
    };
    Some(about(rule, Severity::Warning, &message).with_help(help))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{cgrules_conf, rules_toml};
    use crate::event::Uid;
    use crate::policy::load::{NameService, Sources, load};

    /// Returns the rules of these files, with `!` before those that cannot be applied, and the
    /// diagnostics.
    fn fitted(toml: &str, legacy: &str, roots: &ManagedRoots) -> (Vec<String>, Vec<String>) {
        let text = format!("version = 1\n{toml}");
        let toml = rules_toml::parse(&Arc::from(Path::new("/r.toml")), &text);
        let legacy = cgrules_conf::parse(&Arc::from(Path::new("/cgrules.conf")), legacy);
        assert!(toml.diagnostics.is_empty() && legacy.diagnostics.is_empty());
        let written = legacy.rules.into_iter().chain(toml.rules);
        let nowhere = Path::new("/nonexistent").to_path_buf();
        let sources = Sources {
            directories: Vec::new(),
            legacy: false,
            cgrules_conf: nowhere.clone(),
            cgrules_d: nowhere,
            owner: Uid(0),
            ..Sources::default()
        };
        let mut loaded = load(&sources, &NameService::default());
        loaded.rules = written.map(|written| written.rule).collect();
        fit(&mut loaded, roots, Path::new("/c.toml"), true);
        let rules = loaded.rules.iter().map(|rule| {
            let mark = if rule.action.inapplicable().is_some() { "!" } else { "" };
            format!("{mark}{}", rule.name)
        });
        let said = loaded.diagnostics.iter().map(|d| format!("{}: {}", d.severity, d.message));
        (rules.collect(), said.collect())
    }

    fn pool(warnings: &[HostWarning]) -> ManagedRoots {
        let rules = "/a.slice/a.service".to_owned();
        let legacy = String::new();
        let groundless = Vec::new();
        let warnings = warnings.to_vec();
        ManagedRoots { rules, legacy, is_delegated: true, groundless, warnings }
    }

    const TOP: &str = "[[rule]]\nuser = 5000\ncgroup = \"/\"\n";
    const GROUP: &str = "[[rule]]\nuser = 5000\ncgroup = \"x\"\n";

    #[test]
    fn a_rule_for_the_delegated_root_stays_and_cannot_be_applied() {
        let (rules, said) = fitted(&format!("{TOP}{GROUP}"), "", &pool(&[]));
        assert_eq!(rules, ["!r.toml:3", "r.toml:6"]);
        let message = "warning: the destination is the root of the cgroups of rules, which cannot \
                       contain processes on this host";
        assert_eq!(said, [message]);
        let (rules, said) = fitted(TOP, "", &ManagedRoots::default());
        assert_eq!((rules.len(), said.len()), (1, 0));
        assert_eq!(fitted("", "5000 cpu /", &pool(&[])).0.len(), 1);
        let both = ManagedRoots { legacy: "/a.slice/a.service".to_owned(), ..pool(&[]) };
        let rules = fitted("", "5000 cpu /\n* cpu regular/", &both).0;
        assert_eq!(rules, ["!cgrules.conf:1", "cgrules.conf:2"]);
    }

    #[test]
    fn what_matters_for_no_rule_is_not_said() {
        fn said(toml: &str, legacy: &str, warning: HostWarning) -> Vec<String> {
            fitted(toml, legacy, &pool(&[warning])).1
        }
        assert_eq!(said(GROUP, "", HostWarning::LegacyAtTop), [""; 0]);
        assert_eq!(said("", "5000 cpu a\n5001 cpu a", HostWarning::LegacyAtTop).len(), 1);
        assert_eq!(said("", "5000 cpu a", HostWarning::NoPool), [""; 0]);
        assert!(
            said(GROUP, "", HostWarning::NoPool)[0].contains("cgruled-pool.service does not exist")
        );
        assert_eq!(said("", "5000 cpu a", HostWarning::AutoIsTop), [""; 0]);
        assert!(said(GROUP, "", HostWarning::AutoIsTop)[0].starts_with("warning: root = \"auto\""));
        assert_eq!(said(GROUP, "", HostWarning::RootIsSlice).len(), 1);
    }

    #[test]
    fn a_rule_without_a_root_stays_and_cannot_be_applied() {
        fn missing(groundless: &[PathBase]) -> ManagedRoots {
            ManagedRoots {
                groundless: groundless.to_vec(),
                warnings: vec![HostWarning::NoPool],
                ..ManagedRoots::default()
            }
        }
        let ignores = "[[rule]]\nuser = 5001\nignore = true\n";
        let (rules, said) =
            fitted(&format!("{GROUP}{ignores}"), "5000 cpu a", &missing(&[PathBase::Root]));
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(rules, ["cgrules.conf:1", "!r.toml:3", "r.toml:6"]);
        assert!(said[0].starts_with("error: root = \"auto\""), "{said:?}");
        let both = missing(&[PathBase::Root, PathBase::Top]);
        let rules = fitted(&format!("{GROUP}{ignores}"), "5000 cpu a", &both).0;
        assert_eq!(rules, ["!cgrules.conf:1", "!r.toml:3", "r.toml:6"]);
    }

    #[test]
    fn wide_rules_are_warned_about() {
        let wide = "[[rule]]\nuser = \"*\"\ncgroup = \"x\"\nleave_units = true\n";
        let (rules, said) = fitted(wide, "* cpu a", &pool(&[]));
        assert_eq!((rules.len(), said.len()), (2, 2));
        let text = "warning: the rule moves processes of root and all system users out";
        assert!(said.iter().any(|said| said.contains(text)), "{said:?}");
    }
}
