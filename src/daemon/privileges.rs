//! Reports what the daemon lacks on this host, with the consequence of each: capabilities, and the limits
//! of its receive buffers and of open files. It must not change anything.

use std::fs;

/// A capability that the daemon uses.
struct UsedCapability {
    bit: u32,
    name: &'static str,
    consequence: &'static str,
}

/// All capabilities of `CapabilityBoundingSet=` in cgruled.service.
const USED: [UsedCapability; 6] = [
    UsedCapability {
        bit: 0,
        name: "CAP_CHOWN",
        consequence: "`owner` of cgroups and the group of the control socket are not set",
    },
    UsedCapability {
        bit: 1,
        name: "CAP_DAC_OVERRIDE",
        consequence: "processes are not moved into cgroups that belong to other users",
    },
    UsedCapability {
        bit: 3,
        name: "CAP_FOWNER",
        consequence: "`mode` of cgroups that belong to other users is not set",
    },
    UsedCapability {
        bit: 12,
        name: "CAP_NET_ADMIN",
        consequence: "receive_buffer is limited by the sysctl net.core.rmem_max, so events are lost in bursts, and \
                      before Linux 6.6 there are no events",
    },
    UsedCapability {
        bit: 19,
        name: "CAP_SYS_PTRACE",
        consequence: "executables and containers of other users are unknown: rules with `exe` do not match them",
    },
    UsedCapability {
        bit: 23,
        name: "CAP_SYS_NICE",
        consequence: "processes with more capabilities than the daemon are not moved between cpuset cgroups",
    },
];

/// Open files that a host needs at least: each cgroup in use is one. With fewer, cgroups are closed and
/// opened again.
const DESCRIPTORS: u64 = 1024;

/// Logs each lack as a warning. `limit` is that of open files.
pub(super) fn report(limit: u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(effective) = effective_capabilities(&status) {
        missing(effective).iter().for_each(|text| ::log::warn!("{text}"));
    }
    if limit < DESCRIPTORS {
        ::log::warn!(
            "the limit of open files is {limit}: cgroups are opened anew all the time, which slows moves down: set \
             LimitNOFILE=65536"
        );
    }
}

/// Returns the effective capabilities of a process with this text of `/proc/PID/status`.
fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Returns a warning for each used capability that is not among the effective ones.
fn missing(effective: u64) -> Vec<String> {
    USED.iter()
        .filter(|used| effective & (1 << used.bit) == 0)
        .map(UsedCapability::warning)
        .collect()
}

impl UsedCapability {
    fn warning(&self) -> String {
        format!(
            "the daemon lacks {}: {}; add it to CapabilityBoundingSet= of the unit, or start the daemon with it",
            self.name, self.consequence
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_capability_is_reported_with_its_consequence() {
        assert_eq!(missing(u64::MAX), [""; 0]);
        assert_eq!(missing(0).len(), USED.len());
        let without_ptrace = missing(!(1 << 19));
        assert_eq!(without_ptrace.len(), 1);
        assert!(without_ptrace[0].contains("CAP_SYS_PTRACE: executables"), "{without_ptrace:?}");
    }

    #[test]
    fn the_capabilities_are_those_of_the_unit() {
        let unit = include_str!("../../packaging/systemd/cgruled.service");
        let line =
            unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
        let mut names: Vec<&str> = line.split(' ').collect();
        names.sort_unstable();
        let mut used = USED.map(|used| used.name);
        used.sort_unstable();
        assert_eq!(names, used);
    }

    #[test]
    fn capabilities_are_read_from_the_status() {
        assert_eq!(
            effective_capabilities("CapPrm:\t00\nCapEff:\t000001ffffffffff\n"),
            Some(0x1ff_ffff_ffff)
        );
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
    }
}
