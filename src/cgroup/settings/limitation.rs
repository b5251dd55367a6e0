//! Warnings about settings that the kernel accepts but that have less effect than expected. Pure.

use super::value::{Bound, max_or_size};
use super::{SettingMessage, find, share};
use crate::cgroup::mounts::Version;

/// Returns the warning about a setting that is weaker or stronger on this cgroup version although it
/// is translated. The warning concerns the host, and is the same for all values.
pub fn limitation(key: &str, value: &str, version: Version) -> Option<SettingMessage> {
    let (message, help) = match (key, version) {
        ("memory.high", Version::V1) => (
            "memory.high becomes memory.soft_limit_in_bytes on this host, which limits nothing until \
             the host is short of memory",
            "set memory.max too for a limit that always applies",
        ),
        (SOFT_LIMIT, Version::V2) => (
            "memory.soft_limit_in_bytes becomes memory.high on this host, which always slows down \
             processes above it, not only when the host is short of memory",
            "remove it, or protect the other cgroups with memory.low",
        ),
        (_, Version::V1 | Version::V2) => return None,
    };
    let is_limit = max_or_size(value.trim(), key == SOFT_LIMIT) != Ok(Bound::Max);
    is_limit.then(|| SettingMessage::new(message, help))
}

const SOFT_LIMIT: &str = "memory.soft_limit_in_bytes";

/// Returns the warnings about contradictory settings of a table, given as keys and values, each
/// with the index of the later setting.
pub fn contradictions(settings: &[(&str, &str)]) -> Vec<(usize, SettingMessage)> {
    let pairs = (0..settings.len()).flat_map(|late| (0..late).map(move |early| (early, late)));
    let judged = pairs.filter_map(|(early, late)| {
        let a = settings[early];
        let b = settings[late];
        let pair = twice(a.0, b.0).or_else(|| above(a, b)).or_else(|| above(b, a));
        Some((late, pair.or_else(|| below(a, b)).or_else(|| below(b, a))?))
    });
    judged.collect()
}

/// Reports two names of the same setting.
fn twice(a: &str, b: &str) -> Option<SettingMessage> {
    let word = find(a)?.0;
    let other = find(b)?.0;
    let is_same = a != b && (word.v2, word.v1) == (other.v2, other.v1);
    is_same.then(|| {
        let message = format!("{b} is the same setting as {a}: the last one is used");
        SettingMessage::new(message, "remove one of them")
    })
}

/// Limits that have no effect above `memory.max`.
const BELOW_MAX: [(&str, &str); 3] = [
    ("memory.high", "memory.max is reached first"),
    ("memory.low", "the cgroup never uses that much"),
    ("memory.min", "the cgroup never uses that much"),
];

fn above((key, value): (&str, &str), (limit, most): (&str, &str)) -> Option<SettingMessage> {
    let (_, why) = BELOW_MAX.iter().find(|(own, _)| *own == key && limit == "memory.max")?;
    let is_above = match (share(key, value), share(limit, most)) {
        (Some(percent), Some(most)) => percent > most,
        (None, None) => match (bytes(value)?, bytes(most)?) {
            (Bound::At(bytes), Bound::At(most)) => bytes > most,
            // `max` means that no such limit is wanted.
            (Bound::Max, _) | (_, Bound::Max) => false,
        },
        // A percentage depends on the host.
        (Some(_), None) | (None, Some(_)) => false,
    };
    is_above.then(|| {
        let message = format!("{key} = {value} is above {limit} = {most}: {why}");
        SettingMessage::new(message, format!("write less than {most}"))
    })
}

/// Reports a v1 limit of memory and swap together that is less than that of the memory.
fn below((key, value): (&str, &str), (limit, memory): (&str, &str)) -> Option<SettingMessage> {
    let is_pair = key == "memory.memsw.limit_in_bytes" && limit == "memory.limit_in_bytes";
    let (Bound::At(both), Bound::At(least)) = (bytes_v1(value)?, bytes_v1(memory)?) else {
        return None;
    };
    (is_pair && both < least).then(|| {
        let message = format!(
            "{key} = {value} is below {limit} = {memory}: it limits memory and swap together"
        );
        SettingMessage::new(message, format!("write at least {memory}"))
    })
}

fn bytes_v1(value: &str) -> Option<Bound> {
    max_or_size(value.trim(), true).ok()
}

fn bytes(value: &str) -> Option<Bound> {
    max_or_size(value.trim(), false).ok()
}
