use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn alone(_: &str) -> Option<String> {
    None
}

/// Formats a translation as `file=value`.
fn shown(key: &str, value: &str, version: Version) -> String {
    shown_beside(key, value, version, &alone)
}

fn shown_beside(key: &str, value: &str, version: Version, siblings: &Siblings<'_>) -> String {
    match files(key, value, version, siblings) {
        Ok(writes) => {
            let words = writes.writes.iter().map(|write| format!("{}={}", write.file, write.value));
            words.collect::<Vec<_>>().join(";")
        }
        Err(SettingError::Value(diagnostic)) => format!("wrong: {}", diagnostic.message),
        Err(SettingError::NoCounterpart(diagnostic)) => format!("none: {}", diagnostic.message),
    }
}

#[test]
fn words_of_v2_on_either_interface() {
    use Version::{V1, V2};
    for (key, value, version, expected) in [
        ("cpu.weight", "100", V2, "cpu.weight=100"),
        ("cpu.weight", "100", V1, "cpu.shares=1024"),
        ("cpu.weight", "1", V1, "cpu.shares=11"),
        ("cpu.weight", "10000", V1, "cpu.shares=102400"),
        ("cpu.max", "max", V2, "cpu.max=max 100000"),
        ("cpu.max", "50%", V2, "cpu.max=50000 100000"),
        ("cpu.max", "20000 50000", V2, "cpu.max=20000 50000"),
        ("cpu.max", "max", V1, "cpu.cfs_period_us=100000;cpu.cfs_quota_us=-1"),
        ("cpu.max", "150%", V1, "cpu.cfs_period_us=100000;cpu.cfs_quota_us=150000"),
        ("cpu.idle", "1", V1, "cpu.idle=1"),
        ("io.weight", "default 20", V2, "io.weight=20"),
        ("io.weight", "20", V1, "blkio.weight=100"),
        ("io.max", "8:0 rbps=1M wbps=max", V2, "io.max=8:0 rbps=1048576 wbps=max"),
        (
            "io.max",
            "8:0 rbps=1M riops=5, 8:16 wbps=max",
            V1,
            "blkio.throttle.read_bps_device=8:0 1048576;blkio.throttle.read_iops_device=8:0 5;\
             blkio.throttle.write_bps_device=8:16 0",
        ),
        ("io.latency", "8:0 target=2000", V2, "io.latency=8:0 target=2000"),
        ("memory.max", "1G", V2, "memory.max=1073741824"),
        ("memory.max", "max", V1, "memory.limit_in_bytes=-1"),
        ("memory.high", "1K", V1, "memory.soft_limit_in_bytes=1024"),
        ("memory.low", "1K", V2, "memory.low=1024"),
        ("pids.max", "512", V1, "pids.max=512"),
        ("cpuset.cpus", "0-3,8", V1, "cpuset.cpus=0-3,8"),
        ("cpuset.mems", "", V1, "cpuset.mems=\n"),
        ("hugetlb.2MB.max", "4M", V2, "hugetlb.2MB.max=4194304"),
        ("hugetlb.2MB.max", "4M", V1, "hugetlb.2MB.limit_in_bytes=4194304"),
        ("hugetlb.2MB.rsvd.max", "max", V1, "hugetlb.2MB.rsvd.limit_in_bytes=-1"),
        ("memory.swappiness", " 10", V1, "memory.swappiness= 10"),
    ] {
        assert_eq!(shown(key, value, version), expected, "{key} = {value}");
    }
}

#[test]
fn words_of_v1_on_either_interface() {
    use Version::{V1, V2};
    for (key, value, version, expected) in [
        ("cpu.shares", "333", V1, "cpu.shares=333"),
        ("cpu.shares", "1024", V2, "cpu.weight=100"),
        ("cpu.shares", "5", V2, "cpu.weight=1"),
        ("cpu.cfs_quota_us", "50000", V2, "cpu.max=50000 100000"),
        ("cpu.cfs_quota_us", "-1", V2, "cpu.max=max 100000"),
        ("cpu.cfs_period_us", "50000", V2, "cpu.max=max 50000"),
        ("blkio.weight", "500", V2, "io.weight=100"),
        ("blkio.throttle.read_bps_device", "8:0 1000", V2, "io.max=8:0 rbps=1000"),
        ("blkio.throttle.read_bps_device", "8:0 0", V2, "io.max=8:0 rbps=max"),
        ("memory.limit_in_bytes", "1G", V2, "memory.max=1073741824"),
        ("memory.limit_in_bytes", "9223372036854771712", V2, "memory.max=max"),
        ("memory.limit_in_bytes", "-1", V1, "memory.limit_in_bytes=-1"),
        ("hugetlb.2MB.limit_in_bytes", "-1", V2, "hugetlb.2MB.max=max"),
    ] {
        assert_eq!(shown(key, value, version), expected, "{key} = {value}");
    }
}

#[test]
fn some_settings_are_translated_together() {
    use Version::{V1, V2};
    let siblings = |own: &'static str, value: &'static str| {
        move |key: &str| (key == own).then(|| value.to_owned())
    };
    let idle = siblings("cpu.idle", "1");
    for key in ["cpu.weight", "cpu.shares", "cpu.weight.nice"] {
        assert_eq!(shown_beside(key, "5", V2, &idle), "", "{key}");
        assert!(!shown_beside(key, "5", V2, &siblings("cpu.idle", "0")).is_empty(), "{key}");
        assert!(shown_beside(key, "x", V2, &idle).starts_with("wrong: "), "{key}");
    }
    assert_eq!(shown_beside("cpu.weight", "5", V1, &idle), "");
    assert!(rank("cpu.idle") < rank("cpu.weight") && rank("cpu.idle") < rank("cpu.weight.nice"));
    let memory = siblings("memory.max", "1G");
    assert_eq!(
        shown_beside("memory.swap.max", "1G", V1, &memory),
        "memory.memsw.limit_in_bytes=2147483648"
    );
    assert!(shown("memory.swap.max", "1G", V1).starts_with("none: "));
    assert_eq!(shown("memory.swap.max", "max", V1), "memory.memsw.limit_in_bytes=-1");
    let limit = siblings("memory.limit_in_bytes", "1G");
    assert_eq!(
        shown_beside("memory.memsw.limit_in_bytes", "3G", V2, &limit),
        "memory.swap.max=2147483648"
    );
    let period = siblings("cpu.cfs_period_us", "50000");
    assert_eq!(shown_beside("cpu.cfs_quota_us", "25000", V2, &period), "cpu.max=25000 50000");
    let quota = siblings("cpu.cfs_quota_us", "25000");
    assert_eq!(shown_beside("cpu.cfs_period_us", "50000", V2, &quota), "");
    assert!(rank("memory.max") < rank("memory.swap.max") && rank("x.y") > rank("pids.max"));
}

#[test]
fn wrong_values_are_wrong_on_every_host() {
    for (key, value) in [
        ("cpu.weight", "0"),
        ("cpu.weight", "10001"),
        ("cpu.weight", "50%"),
        ("cpu.weight", "1.5"),
        ("cpu.shares", "1"),
        ("cpu.max", ""),
        ("cpu.max", "0%"),
        ("cpu.max", "500"),
        ("cpu.max", "50000 10"),
        ("cpu.max", "max max"),
        ("cpu.max", "1000 1000 1000"),
        ("cpu.max.burst", "-1"),
        ("cpu.idle", "2"),
        ("io.weight", "10001"),
        ("io.max", "8:0"),
        ("io.max", "8:0 rbps=0"),
        ("io.max", "sda rbps=1"),
        ("io.latency", "8:0 2000"),
        ("memory.max", "0%"),
        ("memory.max", "101%"),
        ("memory.swap.max", "150%"),
        ("cpu.max.burst", "5 ms"),
        ("cpu.max.burst", "10000000000s"),
        ("memory.max", "1GB"),
        ("memory.max", "-1"),
        ("memory.low", "all"),
        ("memory.high", "99999999999G"),
        ("pids.max", "5000000"),
        ("cpuset.cpus", "3-1"),
        ("cpuset.cpus.partition", "yes"),
        ("hugetlb.2MB.max", "x"),
        ("cgroup.procs", "1"),
        ("../cpu.shares", "5"),
    ] {
        assert!(check(key, value).is_err(), "{key} = {value}");
    }
    let diagnostic = check("memory.swap.max", "150%").unwrap_err();
    assert_eq!(diagnostic.message, "memory.swap.max: invalid value \"150%\"");
    assert!(diagnostic.help.contains("1% to 100%"));
    for (key, value) in [("pids.max", "10%"), ("cpu.weight", "50%"), ("hugetlb.2MB.max", "5%")] {
        let help = check(key, value).unwrap_err().help;
        assert!(help.contains("percentage"), "{key} = {value}: {help}");
    }
}

#[test]
fn what_has_no_counterpart_is_said() {
    for key in ["memory.low", "memory.min", "io.latency", "cpu.weight.nice"] {
        let value = if key == "io.latency" { "8:0 target=1" } else { "1" };
        assert!(
            shown(key, value, Version::V1).contains("has no counterpart in cgroup v1"),
            "{key}"
        );
        assert_eq!(check(key, value), Ok(()));
    }
}

#[test]
fn a_file_that_one_interface_has_is_no_file_of_the_other() {
    let of_v1 = [
        "cpu.rt_runtime_us",
        "memory.swappiness",
        "blkio.weight_device",
        "cpuset.cpu_exclusive",
        "cpuset.memory_migrate",
    ];
    let of_v2 = [
        "memory.zswap.writeback",
        "cpuset.cpus.exclusive",
        "memory.reclaim",
        "cpu.pressure",
        "io.cost.qos",
        "cgroup.max.depth",
    ];
    let of_both = ["cpu.uclamp.min", "pids.events", "misc.max", "rdma.max", "x.y"];
    let (v1, v2) = (Version::V1, Version::V2);
    let has = |key: &str, version| !shown(key, "1", version).contains("has no counterpart in");
    for (keys, on) in
        [(&of_v1[..], (true, false)), (&of_v2, (false, true)), (&of_both, (true, true))]
    {
        for key in keys {
            assert_eq!((has(key, v1), has(key, v2)), on, "{key}");
            assert_eq!(check(key, "1"), Ok(()));
        }
    }
}

#[test]
fn times_are_microseconds() {
    assert_eq!(shown("cpu.max.burst", "5ms", Version::V2), "cpu.max.burst=5000");
    assert_eq!(shown("cpu.max.burst", "70", Version::V1), "cpu.cfs_burst_us=70");
    assert_eq!(shown("io.latency", "8:0 target=2ms", Version::V2), "io.latency=8:0 target=2000");
}

#[test]
fn swap_can_be_a_share_of_memory() {
    for key in ["memory.swap.max", "memory.swap.high", "memory.zswap.max"] {
        assert_eq!(check(key, "25%"), Ok(()), "{key}");
        assert_eq!(share(key, "25%"), Some(25), "{key}");
    }
}

#[test]
fn what_limits_less_on_v1_is_said() {
    let said = |value, version| limitation("memory.high", value, version).is_some();
    assert!(said("1G", Version::V1));
    assert!(!said("1G", Version::V2) && !said("max", Version::V1));
    assert_eq!(limitation("memory.max", "1G", Version::V1), None);
}

#[test]
fn a_soft_limit_that_becomes_a_limit_is_said() {
    let said = |value, version| limitation("memory.soft_limit_in_bytes", value, version).is_some();
    assert!(said("1G", Version::V2));
    // As cgsnapshot records it without a limit.
    assert!(!said("9223372036854771712", Version::V2) && !said("-1", Version::V2));
    assert!(!said("1G", Version::V1));
}

#[test]
fn settings_that_do_not_go_together_are_said() {
    let said = |settings: &[(&str, &str)]| {
        let found = contradictions(settings).into_iter();
        found.map(|(at, diagnostic)| format!("{at}: {}", diagnostic.message)).collect::<Vec<_>>()
    };
    let twice = said(&[("cpu.weight", "1"), ("pids.max", "2"), ("cpu.shares", "100")]);
    assert_eq!(twice.len(), 1);
    assert!(twice[0].starts_with("2: cpu.shares is the same setting as cpu.weight"), "{twice:?}");
    assert_eq!(said(&[("memory.limit_in_bytes", "1G"), ("memory.max", "1G")]).len(), 1);
    let high = said(&[("memory.high", "2G"), ("memory.max", "1G")]);
    assert!(high[0].starts_with("1: memory.high = 2G is above memory.max = 1G"), "{high:?}");
    assert_eq!(said(&[("memory.max", "25%"), ("memory.low", "50%")]).len(), 1);
    let memsw = "memory.memsw.limit_in_bytes";
    let both = said(&[("memory.limit_in_bytes", "100M"), (memsw, "50M")]);
    let expected = "1: memory.memsw.limit_in_bytes = 50M is below memory.limit_in_bytes = 100M";
    assert!(both[0].starts_with(expected), "{both:?}");
    for fine in [
        &[("memory.high", "1G"), ("memory.max", "1024M")][..],
        &[("memory.high", "max"), ("memory.max", "1G")],
        &[("memory.low", "1G"), ("memory.max", "50%")],
        &[("memory.low", "1G"), ("memory.high", "512M")],
        &[("io.max", "8:0 rbps=1"), ("blkio.throttle.read_bps_device", "8:16 1")],
        &[("memory.limit_in_bytes", "100M"), ("memory.memsw.limit_in_bytes", "100M")],
        &[("memory.memsw.limit_in_bytes", "-1"), ("memory.limit_in_bytes", "100M")],
        &[("x.y", "1"), ("x.z", "1")],
    ] {
        assert_eq!(said(fine), [""; 0]);
    }
}

#[test]
fn what_is_cut_is_said() {
    let note = |key, value, version| files(key, value, version, &alone).unwrap().note;
    assert_eq!(note("io.weight", "200", Version::V1), None);
    assert_eq!(
        note("io.weight", "201", Version::V1).unwrap(),
        "io.weight = 201 becomes blkio.weight = 1000 on this host, the maximum"
    );
    assert!(note("cpu.shares", "262144", Version::V2).unwrap().contains("cpu.weight = 10000"));
    let bfq = |value| {
        let mut writes = files("io.weight", value, Version::V1, &alone).unwrap();
        (writes.writes.remove(0).instead.unwrap().1, writes.note_instead)
    };
    assert_eq!(bfq("900"), ("900".to_owned(), None));
    let (cut, note) = bfq("5000");
    assert_eq!(cut, "1000");
    assert_eq!(
        note.unwrap(),
        "io.weight = 5000 becomes blkio.bfq.weight = 1000 on this host, the maximum"
    );
}

fn number(key: &str, value: u64, version: Version) -> u64 {
    let writes = files(key, &value.to_string(), version, &alone).unwrap();
    writes.writes[0].value.parse().unwrap()
}

proptest! {
    #[test]
    fn cpu_weights_go_to_and_fro(weight in 1u64..=10_000) {
        let shares = number("cpu.weight", weight, Version::V1);
        prop_assert!((2..=262_144).contains(&shares));
        prop_assert_eq!(number("cpu.shares", shares, Version::V2), weight);
    }

    #[test]
    fn shares_stay_in_range_and_keep_their_ratios(shares in 2u64..=262_144) {
        let weight = number("cpu.shares", shares, Version::V2);
        prop_assert!((1..=10_000).contains(&weight));
        if (11..=102_400).contains(&shares) {
            prop_assert!(weight * 1024 <= shares * 100 && shares * 100 < (weight + 1) * 1024);
        }
    }

    #[test]
    fn io_weights_stay_in_range_and_keep_their_ratios(weight in 1u64..=10_000) {
        let blkio = number("io.weight", weight, Version::V1);
        prop_assert!((10..=1_000).contains(&blkio));
        if (2..=200).contains(&weight) {
            prop_assert_eq!(number("blkio.weight", blkio, Version::V2), weight);
        }
    }

    #[test]
    fn larger_is_never_smaller(a in 1u64..=10_000, b in 1u64..=10_000) {
        let (low, high) = (a.min(b), a.max(b));
        for key in ["cpu.weight", "io.weight"] {
            prop_assert!(number(key, low, Version::V1) <= number(key, high, Version::V1));
        }
    }

    #[test]
    fn sizes_keep_their_bytes(bytes in 0u64..=i64::MAX as u64 - 8192) {
        prop_assert_eq!(number("memory.max", bytes, Version::V1), bytes);
        prop_assert_eq!(number("memory.limit_in_bytes", bytes, Version::V2), bytes);
    }

    /// Any text is translated or rejected, and never contains a line end.
    #[test]
    fn any_value_ends(word in select(WORDS), value in "[0-9a-z%:=., -]{0,20}") {
        for key in [word.v1, word.v2, "hugetlb.2MB.max"].into_iter().filter(|key| !key.is_empty()) {
            for version in [Version::V1, Version::V2] {
                if let Ok(writes) = files(key, &value, version, &alone) {
                    for write in &writes.writes {
                        prop_assert!(!write.file.is_empty() && write.file.contains('.'));
                    }
                    prop_assert!(check(key, &value).is_ok());
                }
            }
        }
    }
}
