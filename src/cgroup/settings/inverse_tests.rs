//! Round trips of every setting: translating back gives the original value.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;

use super::super::mounts::Version::{self, V1, V2};
use super::{SettingError, ValueKind, WORDS, files};

type Settings = Vec<(String, String)>;
/// The final values by file and key within the file.
type State = BTreeMap<(String, String), String>;

/// Returns the state of a cgroup after all writes.
fn state(settings: &Settings, version: Version) -> State {
    let siblings = |key: &str| {
        settings.iter().rev().find(|(own, _)| own == key).map(|(_, value)| value.clone())
    };
    let mut state = State::new();
    for (key, value) in settings {
        let writes = files(key, value, version, &siblings).unwrap().writes;
        for write in writes {
            // Each device has its own limits.
            let (part, value) = match write.value.split_once(' ') {
                Some((part, value)) if part.contains(':') => (part, value),
                Some(_) | None => ("", &*write.value),
            };
            for rate in value.split(' ').filter(|_| write.file == "io.max") {
                let (name, value) = rate.split_once('=').unwrap();
                state.insert((write.file.clone(), format!("{part} {name}")), value.to_owned());
            }
            if write.file != "io.max" {
                state.insert((write.file, part.to_owned()), value.to_owned());
            }
        }
    }
    // v2 has quota and period in one file; a part that is not set has its default.
    let of_new = [("cpu.cfs_quota_us", "-1"), ("cpu.cfs_period_us", "100000")];
    if state.keys().any(|(file, _)| file.starts_with("cpu.cfs_") && file != "cpu.cfs_burst_us") {
        for (file, value) in of_new {
            state.entry((file.to_owned(), String::new())).or_insert_with(|| value.to_owned());
        }
    }
    state
}

/// Converts a state back to settings.
fn written(state: &State) -> Settings {
    let written = |((file, part), value): (&(String, String), &String)| {
        let value = match (&**file, &**part) {
            (_, "") => value.clone(),
            ("io.max", part) => format!("{part}={value}"),
            (_, part) => format!("{part} {value}"),
        };
        (file.clone(), value)
    };
    state.iter().map(written).collect()
}

fn there_and_back(settings: &[(&str, String)], from: Version, by: Version) {
    let settings: Settings =
        settings.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let there = written(&state(&settings, by));
    assert_eq!(state(&there, from), state(&settings, from), "{settings:?} by {there:?}");
}

fn or_max(
    number: impl Strategy<Value = u64> + 'static,
    none: &'static str,
) -> BoxedStrategy<String> {
    prop_oneof![Just(none.to_owned()), number.prop_map(|number| number.to_string())].boxed()
}

/// Sizes that v1 distinguishes from no limit, in whole pages as the kernel stores them.
fn size(none: &'static str) -> BoxedStrategy<String> {
    or_max((0u64..1 << 40).prop_map(|pages| pages * 4096), none)
}

fn list() -> BoxedStrategy<String> {
    let item = (0u32..64, 0u32..64).prop_map(|(first, more)| format!("{first}-{}", first + more));
    prop::collection::vec(item, 1..4).prop_map(|items| items.join(",")).boxed()
}

fn device() -> impl Strategy<Value = String> {
    (1u32..260, 0u32..99).prop_map(|(major, minor)| format!("{major}:{minor}"))
}

/// Returns values of a v2 setting that translate without loss, `None` if v1 has no equivalent.
fn of_v2(kind: ValueKind) -> Option<BoxedStrategy<String>> {
    let number = |low: u64, high: u64| (low..=high).prop_map(|number| number.to_string()).boxed();
    Some(match kind {
        ValueKind::CpuWeight => number(1, 10_000),
        ValueKind::CpuMax => (or_max(1_000u64..10_000_000, "max"), 1_000u64..=1_000_000)
            .prop_map(|(quota, period)| format!("{quota} {period}"))
            .boxed(),
        // The range of blkio.weight corresponds to 2 to 200 of 1 to 10000.
        ValueKind::IoWeight => number(2, 200),
        ValueKind::IoMax => {
            let rate =
                (select(vec!["rbps", "wbps", "riops", "wiops"]), or_max(1u64..1 << 40, "max"));
            (device(), rate).prop_map(|(d, (name, value))| format!("{d} {name}={value}")).boxed()
        }
        ValueKind::Size => size("max"),
        ValueKind::Count => or_max(0u64..4_194_304, "max"),
        ValueKind::Whole(low, high) => {
            (low..=high.min(1 << 30)).prop_map(|number| number.to_string()).boxed()
        }
        ValueKind::Time => number(0, 1 << 30),
        ValueKind::List => list(),
        // Not v2 settings, or dependent on another setting.
        ValueKind::CpuPeriod | ValueKind::Throttle(_) | ValueKind::Swap => return None,
        ValueKind::IoLatency | ValueKind::OneOf(_) => return None,
    })
}

/// Returns values of a v1 setting that translate without loss.
fn of_v1(kind: ValueKind) -> Option<BoxedStrategy<String>> {
    Some(match kind {
        // Shares are finer than weights up to the maximum weight.
        ValueKind::CpuWeight => {
            (1u64..=10_000).prop_map(|weight| (weight * 1024).div_ceil(100).to_string()).boxed()
        }
        ValueKind::CpuMax => or_max(1_000u64..10_000_000, "-1"),
        ValueKind::CpuPeriod => {
            (1_000u64..=1_000_000).prop_map(|number| number.to_string()).boxed()
        }
        ValueKind::IoWeight => (2u64..=200).prop_map(|weight| (weight * 5).to_string()).boxed(),
        ValueKind::Throttle(_) => {
            (device(), 0u64..1 << 40).prop_map(|(device, rate)| format!("{device} {rate}")).boxed()
        }
        ValueKind::Size => size("-1"),
        ValueKind::Count | ValueKind::Time | ValueKind::Whole(..) | ValueKind::List => of_v2(kind)?,
        ValueKind::Swap | ValueKind::IoMax | ValueKind::IoLatency | ValueKind::OneOf(_) => {
            return None;
        }
    })
}

/// Runs `test` on values of each setting that has some.
fn for_each_word(
    name: fn(&super::SettingKey) -> &'static str,
    values: fn(ValueKind) -> Option<BoxedStrategy<String>>,
    test: fn(&str, String),
) -> Vec<&'static str> {
    let named = WORDS.iter().filter(|word| !name(word).is_empty());
    let mut left_out = Vec::new();
    for word in named {
        let Some(values) = values(word.kind) else {
            left_out.push(name(word));
            continue;
        };
        let config = ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() };
        proptest!(config, |(value in values)| test(name(word), value));
    }
    left_out
}

#[test]
fn words_of_v2_come_back_from_v1() {
    let left_out = for_each_word(
        |word| word.v2,
        of_v2,
        |key, value| {
            let word = WORDS.iter().find(|word| word.v2 == key).unwrap();
            if !word.v1.is_empty() || word.kind == ValueKind::IoMax {
                there_and_back(&[(key, value)], V2, V1);
            } else {
                let translated = files(key, &value, V1, &|_| None);
                assert!(
                    matches!(translated, Err(SettingError::NoCounterpart(_))),
                    "{key} = {value}"
                );
            }
        },
    );
    assert_eq!(left_out, ["cpuset.cpus.partition", "io.latency", "memory.swap.max"]);
}

#[test]
fn words_of_v1_come_back_from_v2() {
    let left_out =
        for_each_word(|word| word.v1, of_v1, |key, value| there_and_back(&[(key, value)], V1, V2));
    assert_eq!(left_out, ["memory.memsw.limit_in_bytes"]);
}

proptest! {
    /// v1 limits memory and swap together.
    #[test]
    fn swap_comes_back_beside_memory(memory in 0u64..1 << 40, swap in size("max")) {
        there_and_back(&[("memory.max", memory.to_string()), ("memory.swap.max", swap)], V2, V1);
    }

    #[test]
    fn memory_and_swap_come_back(memory in 0u64..1 << 40, more in 0u64..1 << 40) {
        let both = (memory + more).to_string();
        let memory = memory.to_string();
        there_and_back(
            &[("memory.limit_in_bytes", memory), ("memory.memsw.limit_in_bytes", both)],
            V1,
            V2,
        );
    }

    #[test]
    fn a_quota_comes_back_with_its_period(
        quota in or_max(1_000u64..10_000_000, "-1"),
        period in 1_000u64..=1_000_000,
    ) {
        let period = period.to_string();
        there_and_back(&[("cpu.cfs_quota_us", quota), ("cpu.cfs_period_us", period)], V1, V2);
    }

    #[test]
    fn huge_pages_come_back(value in size("max"), is_reserved in any::<bool>()) {
        let stem = if is_reserved { "hugetlb.1GB.rsvd" } else { "hugetlb.2MB" };
        there_and_back(&[(&format!("{stem}.max"), value.clone())], V2, V1);
        let value = if value == "max" { "-1".to_owned() } else { value };
        there_and_back(&[(&format!("{stem}.limit_in_bytes"), value)], V1, V2);
    }
}
