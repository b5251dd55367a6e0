//! Rules that are limited or cannot be applied because of where their groups begin on this host.

use std::path::Path;
use std::sync::Arc;

use crate::config::diagnostic::{Diagnostic, Severity};
use crate::host::{Grounds, POOL, Remark};
use crate::load::Loaded;
use crate::rules::width::{Width, width};
use crate::rules::{Below, InapplicableReason, LeaveUnits, Rule};

/// Marks the rules that cannot be applied because of where groups begin, and adds the diagnostics.
///
/// Such a rule stays in its place in the order: without it a wider rule behind it would match.
pub(super) fn fit(loaded: &mut Loaded, grounds: &Grounds, settings_file: &Path, has_systemd: bool) {
    let is_out = |rule: &Rule| grounds.is_delegated && leads_to_ground(rule, grounds);
    loaded
        .diagnostics
        .extend(loaded.rules.iter().filter(|rule| is_out(rule)).map(ground_is_no_group));
    forbid(loaded, is_out, &InapplicableReason::DelegatedRoot);
    for remark in &grounds.remarks {
        loaded.diagnostics.extend(complaint(*remark, loaded, settings_file));
    }
    if !grounds.groundless.is_empty() {
        forbid_groundless(loaded, grounds);
    }
    if has_systemd {
        loaded.diagnostics.extend(too_wide(&loaded.rules));
    }
}

/// The top of a tree that systemd owns is not a root that the administrator chose, so nothing is created or
/// set there.
fn forbid_groundless(loaded: &mut Loaded, grounds: &Grounds) {
    let is_out = |rule: &Rule| {
        let mut beginnings = rule.action.targets().iter().map(|target| target.below);
        beginnings.any(|below| grounds.groundless.contains(&below))
    };
    forbid(loaded, is_out, &InapplicableReason::NoDelegation);
    if grounds.groundless.contains(&Below::Root) {
        loaded.gifts.tables.clear();
    }
}

/// Marks these rules as ones that cannot be applied.
fn forbid(loaded: &mut Loaded, is_out: impl Fn(&Rule) -> bool, reason: &InapplicableReason) {
    if !loaded.rules.iter().any(&is_out) {
        return;
    }
    let rules = Arc::make_mut(&mut loaded.rules);
    for rule in rules.iter_mut().filter(|rule| is_out(rule)) {
        rule.action.forbid(reason.clone());
    }
}

/// Groups are leaves below the ground. The ground hands controllers on to them, so it may hold no
/// process itself, and on a systemd host it is the unit's own group.
fn leads_to_ground(rule: &Rule, grounds: &Grounds) -> bool {
    rule.action.targets().iter().any(|target| {
        let beginning = match target.below {
            Below::Root => &grounds.rules,
            Below::Top => &grounds.legacy,
        };
        !beginning.is_empty() && target.destination.pieces().is_empty()
    })
}

fn ground_is_no_group(rule: &Rule) -> Diagnostic {
    let message =
        "the rule leads to the root of all groups, which may hold no process on this host";
    about(rule, Severity::Warning, message).with_help(
        "matching processes stay where they are; name a group below it, as cgroup = \"people/%u\", or \
         write ignore = true",
    )
}

fn about(rule: &Rule, severity: Severity, message: &str) -> Diagnostic {
    Diagnostic::at_line(&rule.origin.file, rule.origin.line, severity, message)
}

/// The remark, if there is a rule that it matters for.
fn complaint(remark: Remark, loaded: &Loaded, settings_file: &Path) -> Option<Diagnostic> {
    let first = |below| {
        let is_meant =
            |rule: &&Rule| rule.action.written_targets().iter().any(|target| target.below == below);
        loaded.rules.iter().find(is_meant)
    };
    let settings = |severity, message: &str| {
        Diagnostic::about(&Arc::from(settings_file), severity, message.to_owned())
    };
    Some(match remark {
        Remark::NoPool => {
            first(Below::Root).map(drop).or((!loaded.gifts.tables.is_empty()).then_some(()))?;
            let message = format!(
                "root = \"auto\": systemd owns the cgroups of this host and has no unit {POOL}, so there \
                 is no place for groups: processes that match a rule with a cgroup stay where they are, and \
                 tables for groups are ignored"
            );
            settings(Severity::Error, &message).with_help(format!(
                "install or unmask {POOL}, run systemctl enable --now {POOL}, restart cgruled; or set \
                 root to a path below a unit with Delegate=yes, or to \"/\" for the top, where systemd may \
                 undo what groups are given"
            ))
        }
        Remark::AutoIsTop => {
            first(Below::Root)?;
            let message = "root = \"auto\" is the top of each hierarchy on this host, beside the groups of \
                           systemd, which has no part of cgroup v1 to give away";
            settings(Severity::Warning, message)
                .with_help("root = \"/\" says the same without this warning")
        }
        Remark::RootIsSlice => {
            first(Below::Root)?;
            let message = "root is a slice, in which systemd wants no groups but its own";
            settings(Severity::Warning, message).with_help("name a unit with Delegate=yes in it")
        }
        Remark::LegacyAtTop => {
            let message = "paths of legacy rules begin at the top, as with cgrulesengd, but the top is \
                           systemd's, which may undo what groups there are given";
            about(first(Below::Top)?, Severity::Warning, message).with_help(format!(
                "legacy_root = \"pool\" in {} lets them begin below {POOL}; \"top\" keeps it so, without \
                 this warning",
                settings_file.display()
            ))
        }
    })
}

/// A warning for each rule that would empty services of the system.
pub fn too_wide(rules: &[Rule]) -> Vec<Diagnostic> {
    rules.iter().filter_map(is_too_wide).collect()
}

fn is_too_wide(rule: &Rule) -> Option<Diagnostic> {
    let whose = match width(rule)? {
        Width::Everybody => "root and all users of the system",
        Width::Root => "root",
        Width::System => "users of the system",
    };
    let message = format!("the rule takes the processes of {whose} out of their services");
    let help = match rule.leave_units {
        LeaveUnits::Yes => "leave out leave_units, name users or groups of people, or add exe",
        LeaveUnits::AsTheOriginal | LeaveUnits::No => {
            "name users or groups of people, or a program"
        }
    };
    Some(about(rule, Severity::Warning, &message).with_help(help))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{cgrules_conf, rules_toml};
    use crate::event::Uid;
    use crate::load::{NameService, Sources, load};

    /// The rules of these files, with `!` those that cannot be applied, and the diagnostics.
    fn fitted(toml: &str, legacy: &str, grounds: &Grounds) -> (Vec<String>, Vec<String>) {
        let path = |name: &str| Arc::from(Path::new(name));
        let toml = rules_toml::parse(&path("/r.toml"), &format!("version = 1\n{toml}"));
        let legacy = cgrules_conf::parse(&path("/cgrules.conf"), legacy);
        assert!(toml.diagnostics.is_empty() && legacy.diagnostics.is_empty());
        let written = legacy.rules.into_iter().chain(toml.rules);
        let nowhere = path("/nonexistent").to_path_buf();
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
        fit(&mut loaded, grounds, Path::new("/c.toml"), true);
        let mark = |rule: &Rule| if rule.action.inapplicable().is_some() { "!" } else { "" };
        let name = |rule: &Rule| format!("{}{}", mark(rule), rule.name);
        let rules = loaded.rules.iter().map(name).collect();
        let said = loaded.diagnostics.iter().map(|d| format!("{}: {}", d.severity, d.message));
        (rules, said.collect())
    }

    fn pool(remarks: &[Remark]) -> Grounds {
        let (rules, legacy) = ("/a.slice/a.service".to_owned(), String::new());
        let (groundless, remarks) = (Vec::new(), remarks.to_vec());
        Grounds { rules, legacy, is_delegated: true, groundless, remarks }
    }

    const TOP: &str = "[[rule]]\nuser = 5000\ncgroup = \"/\"\n";
    const GROUP: &str = "[[rule]]\nuser = 5000\ncgroup = \"x\"\n";

    #[test]
    fn a_rule_for_the_delegated_root_stays_and_cannot_be_applied() {
        let (rules, said) = fitted(&format!("{TOP}{GROUP}"), "", &pool(&[]));
        assert_eq!(rules, ["!r.toml:3", "r.toml:6"]);
        let message = "warning: the rule leads to the root of all groups, which may hold no \
                       process on this host";
        assert_eq!(said, [message]);
        let (rules, said) = fitted(TOP, "", &Grounds::default());
        assert_eq!((rules.len(), said.len()), (1, 0));
        assert_eq!(fitted("", "5000 cpu /", &pool(&[])).0.len(), 1);
        let both = Grounds { legacy: "/a.slice/a.service".to_owned(), ..pool(&[]) };
        let rules = fitted("", "5000 cpu /\n* cpu regular/", &both).0;
        assert_eq!(rules, ["!cgrules.conf:1", "cgrules.conf:2"]);
    }

    #[test]
    fn what_matters_for_no_rule_is_not_said() {
        let said = |toml, legacy, remark| fitted(toml, legacy, &pool(&[remark])).1;
        assert_eq!(said(GROUP, "", Remark::LegacyAtTop), [""; 0]);
        assert_eq!(said("", "5000 cpu a\n5001 cpu a", Remark::LegacyAtTop).len(), 1);
        assert_eq!(said("", "5000 cpu a", Remark::NoPool), [""; 0]);
        assert!(said(GROUP, "", Remark::NoPool)[0].contains("no unit cgruled-pool.service"));
        assert_eq!(said("", "5000 cpu a", Remark::AutoIsTop), [""; 0]);
        assert!(said(GROUP, "", Remark::AutoIsTop)[0].starts_with("warning: root = \"auto\""));
        assert_eq!(said(GROUP, "", Remark::RootIsSlice).len(), 1);
    }

    #[test]
    fn a_rule_without_a_root_stays_and_cannot_be_applied() {
        let missing = |groundless: &[Below]| Grounds {
            groundless: groundless.to_vec(),
            remarks: vec![Remark::NoPool],
            ..Grounds::default()
        };
        let ignores = "[[rule]]\nuser = 5001\nignore = true\n";
        let (rules, said) =
            fitted(&format!("{GROUP}{ignores}"), "5000 cpu a", &missing(&[Below::Root]));
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(rules, ["cgrules.conf:1", "!r.toml:3", "r.toml:6"]);
        assert!(said[0].starts_with("error: root = \"auto\""), "{said:?}");
        let both = missing(&[Below::Root, Below::Top]);
        let rules = fitted(&format!("{GROUP}{ignores}"), "5000 cpu a", &both).0;
        assert_eq!(rules, ["!cgrules.conf:1", "!r.toml:3", "r.toml:6"]);
    }

    #[test]
    fn wide_rules_are_warned_about() {
        let wide = "[[rule]]\nuser = \"*\"\ncgroup = \"x\"\nleave_units = true\n";
        let (rules, said) = fitted(wide, "* cpu a", &pool(&[]));
        assert_eq!((rules.len(), said.len()), (2, 2));
        let text = "warning: the rule takes the processes of root and all users of the system out";
        assert!(said.iter().any(|said| said.contains(text)), "{said:?}");
    }
}
