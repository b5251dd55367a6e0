//! Reports gated rules on a host on which executions cannot wait: they place processes after the execution, as all rules.

use super::GateProbe;
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::rules::Rule;

/// Returns a warning at the first gated rule that places processes, if the host lacks something for it. The host is not
/// probed without such a rule.
pub(super) fn missing(rules: &[Rule], probe: GateProbe) -> Option<Diagnostic> {
    let is_active = |rule: &&Rule| rule.is_gated && !rule.action.targets().is_empty();
    let rule = rules.iter().find(is_active)?;
    let missing = probe().err()?;
    let message = format!("executions of gated files do not wait on this host: {missing}");
    let found =
        Diagnostic::at_line(&rule.origin.file, rule.origin.line, Severity::Warning, message);
    Some(found.with_help("until then processes are placed after the execution"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::test_policy;

    #[test]
    fn the_host_is_probed_for_gated_rules_alone() {
        let lacking: GateProbe = || Err("x".to_owned());
        let found = |rules: &str, probe| {
            let policy = test_policy(rules, Vec::new());
            missing(policy.matcher.rules(), probe).map(|found| found.current())
        };
        let rule = "[[rule]]\nexe = \"/bin/a\"\ncgroup = \"a\"\n";
        let gated = format!("{rule}{rule}gate = true\n{rule}gate = true\n");
        assert_eq!(found(&gated, lacking).as_deref(), Some("/a.toml:6"));
        assert_eq!(found(&gated, || Ok(())), None);
        assert_eq!(found(rule, lacking), None);
    }
}
