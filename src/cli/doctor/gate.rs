//! Checks of what gated rules need, if there are any.

use std::fs;
use std::path::Path;

use nix::unistd::geteuid;

use super::Finding;
use crate::event::Pid;
use crate::kernel::gate::probe;
use crate::kernel::process::ProcFs;
use crate::rules::Rule;

const TOPIC: &str = "gate";
/// Bit of `CAP_SYS_ADMIN`.
const SYS_ADMIN: u64 = 1 << 21;

/// Returns whether executions of the files of gated rules can wait; `None` without such a rule.
pub(super) fn finding(rules: &[Rule]) -> Option<Finding> {
    let is_active = |rule: &&Rule| rule.is_gated && !rule.action.targets().is_empty();
    let count = rules.iter().filter(is_active).count();
    if count == 0 {
        return None;
    }
    if let Err(missing) = probe() {
        return Some(Finding::note(
            TOPIC,
            "executions of gated files do not wait: their processes are placed after the execution",
            missing,
        ));
    }
    if !geteuid().is_root() {
        let advice = "run cgrulectl doctor as root to test whether executions can wait";
        return Some(Finding::note(TOPIC, "not tested", advice));
    }
    let text = format!("executions can wait; rules with gate: {count}");
    Some(daemon_without_capability().unwrap_or_else(|| Finding::ok(TOPIC, text)))
}

/// Reports a running daemon that may not let executions wait, unlike this command.
fn daemon_without_capability() -> Option<Finding> {
    let mut proc = ProcFs::open(Path::new("/proc")).ok()?;
    let mut pids: Vec<Pid> = Vec::new();
    let _incomplete = proc.all(|pid| pids.push(pid));
    let names = ["cgruled", "cgrulesengd"].map(str::as_bytes);
    pids.retain(|&pid| proc.comm(pid).is_some_and(|comm| names.contains(&comm)));
    let lacks = |pid: &Pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        capabilities(&status).is_some_and(|effective| effective & SYS_ADMIN == 0)
    };
    let pid = pids.into_iter().find(lacks)?;
    Some(Finding::note(
        TOPIC,
        format!("the running daemon ({pid}) has no CAP_SYS_ADMIN: executions do not wait"),
        "copy gate.conf, which is part of the package, to /etc/systemd/system/cgruled.service.d, run 'systemctl \
         daemon-reload' and restart the service",
    ))
}

/// Returns the effective capabilities in a text of `/proc/PID/status`.
fn capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::test_policy;

    #[test]
    fn there_is_a_finding_for_gated_rules_alone() {
        let found = |rules: &str| finding(test_policy(rules, Vec::new()).matcher.rules());
        let rule = "[[rule]]\nexe = \"/bin/a\"\ncgroup = \"a\"\n";
        assert_eq!(found(rule), None);
        assert_eq!(found(&format!("{rule}gate = true\n")).unwrap().topic, "gate");
    }

    #[test]
    fn capabilities_are_read_from_the_status() {
        let unit = "Name:\tcgruled\nCapEff:\t000000000088100b\n";
        assert_eq!(capabilities(unit).unwrap() & SYS_ADMIN, 0);
        assert_eq!(capabilities("CapEff:\t000001ffffffffff\n").unwrap() & SYS_ADMIN, SYS_ADMIN);
        assert_eq!(capabilities("Name:\tx\n"), None);
    }
}
