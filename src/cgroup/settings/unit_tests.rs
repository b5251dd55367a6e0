use proptest::prelude::*;
use proptest::sample::select;

use super::super::{WORDS, check};
use super::*;

fn shown(key: &str, value: &str) -> String {
    match properties(key, value, &|_| None) {
        Ok(found) => found.words.join(";"),
        Err(diagnostic) => format!("none: {}", diagnostic.message),
    }
}

#[test]
fn words_as_properties() {
    for (key, value, expected) in [
        ("cpu.weight", "50", "CPUWeight=50"),
        ("cpu.shares", "512", "CPUWeight=50"),
        ("cpu.idle", "1", "CPUWeight=idle"),
        ("cpu.idle", "0", ""),
        ("cpu.max", "150%", "CPUQuota=150%"),
        ("cpu.max", "12345 100000", "CPUQuota=12.34%"),
        ("cpu.max", "20000 50000", "CPUQuota=40%;CPUQuotaPeriodSec=50000us"),
        ("cpu.max", "max", "CPUQuota="),
        ("cpu.cfs_quota_us", "50000", "CPUQuota=50%"),
        ("io.weight", "20", "IOWeight=20"),
        (
            "io.max",
            "8:0 rbps=1M wiops=max, 8:16 wbps=5",
            "IOReadBandwidthMax=/dev/block/8:0 1048576;IOWriteIOPSMax=/dev/block/8:0 infinity;\
             IOWriteBandwidthMax=/dev/block/8:16 5",
        ),
        ("io.latency", "8:0 target=2000", "IODeviceLatencyTargetSec=/dev/block/8:0 2000us"),
        ("memory.max", "1G", "MemoryMax=1073741824"),
        ("memory.high", "50%", "MemoryHigh=50%"),
        ("memory.swap.max", "max", "MemorySwapMax=infinity"),
        ("pids.max", "512", "TasksMax=512"),
        ("cpuset.cpus", "0-3,8", "AllowedCPUs=0-3,8"),
        ("cpuset.mems", "0", "AllowedMemoryNodes=0"),
        ("memory.swap.high", "1G", "none: systemd units have no property for memory.swap.high"),
        ("memory.oom.group", "1", "none: systemd units have no property for memory.oom.group"),
        ("hugetlb.2MB.max", "0", "none: systemd units have no property for hugetlb.2MB.max"),
        ("memory.nonsense", "0", "none: systemd units have no property for memory.nonsense"),
        ("cpu.weight", "0", "none: cpu.weight: invalid value \"0\""),
        ("cgroup.procs", "1", "none: invalid setting cgroup.procs"),
    ] {
        assert_eq!(shown(key, value), expected, "{key} = {value}");
    }
}

#[test]
fn what_is_cut_is_said() {
    let note = properties("cpu.shares", "262144", &|_| None).unwrap().note;
    assert!(note.unwrap().contains("cpu.weight = 10000"));
}

/// Returns the content that systemd writes to the kernel file for `Property=value`.
fn written(word: &str) -> String {
    let (property, value) = word.split_once('=').unwrap();
    if property == "CPUQuota" {
        let (whole, part) = value
            .strip_suffix('%')
            .unwrap()
            .split_once('.')
            .unwrap_or((value.strip_suffix('%').unwrap(), "0"));
        let hundredths = whole.parse::<u64>().unwrap() * 100 + part.parse::<u64>().unwrap();
        return format!("cpu.max {}", hundredths * PERIOD / 10_000);
    }
    let (file, _) = SAME.iter().find(|(_, own)| *own == property).unwrap();
    format!("{file} {}", if value == "infinity" { "max" } else { value })
}

proptest! {
    #[test]
    fn what_is_the_same_comes_back(
        (key, _) in select(&SAME[..]),
        number in 1u64..=10_000,
        is_max in any::<bool>(),
    ) {
        let takes_max = key.starts_with("memory.") || key == "pids.max";
        let value = if is_max && takes_max { "max".to_owned() } else { number.to_string() };
        let words = properties(key, &value, &|_| None).unwrap().words;
        prop_assert_eq!(words.len(), 1);
        prop_assert_eq!(written(&words[0]), format!("{key} {value}"));
    }

    #[test]
    fn quotas_come_back_to_a_hundredth_of_a_percent(quota in 1_000u64..=10_000_000) {
        let words = properties("cpu.max", &quota.to_string(), &|_| None).unwrap().words;
        prop_assert_eq!(written(&words[0]), format!("cpu.max {}", quota / 10 * 10));
    }

    /// Every value of every setting is an error or a list of arguments that are one assignment
    /// each.
    #[test]
    fn any_value_ends(word in select(WORDS), value in "[0-9a-z%:=., -]{0,20}") {
        for key in [word.v1, word.v2].into_iter().filter(|key| !key.is_empty()) {
            match properties(key, &value, &|_| None) {
                Ok(UnitProperties { words, .. }) => {
                    prop_assert!(check(key, &value).is_ok());
                    for word in words {
                        prop_assert!(word.starts_with(|c: char| c.is_ascii_uppercase()));
                        prop_assert!(word.contains('=') && !word.contains(['\n', '\0']));
                    }
                }
                Err(diagnostic) => prop_assert!(!diagnostic.help.is_empty()),
            }
        }
    }
}
