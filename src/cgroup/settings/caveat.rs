//! What is to be said of settings that the kernel takes and that do less than they seem to. Pure.

use super::value::{Bound, max_or_size};
use super::{Complaint, find, share};
use crate::cgroup::mounts::Version;

/// What a setting lacks with the interface of this host although every value of it is translated.
pub fn weaker(key: &str, value: &str, version: Version) -> Option<Complaint> {
    let is_weaker = key == "memory.high" && version == Version::V1 && value.trim() != "max";
    is_weaker.then(|| {
        Complaint::new(
            "memory.high is memory.soft_limit_in_bytes here, which limits nothing until the host is \
             short of memory",
            "set memory.max too, if the group is to be held to it at any time",
        )
    })
}

/// What is to be said of a table because two of its settings do not go together, each with the place of
/// the later one among `settings`: keys and values.
pub fn contradictions(settings: &[(&str, &str)]) -> Vec<(usize, Complaint)> {
    let pairs = (0..settings.len()).flat_map(|late| (0..late).map(move |early| (early, late)));
    let judged = pairs.filter_map(|(early, late)| {
        let (a, b) = (settings[early], settings[late]);
        Some((late, twice(a.0, b.0).or_else(|| above(a, b)).or_else(|| above(b, a))?))
    });
    judged.collect()
}

/// Two names of one thing.
fn twice(a: &str, b: &str) -> Option<Complaint> {
    let (word, other) = (find(a)?.0, find(b)?.0);
    let is_same = a != b && (word.v2, word.v1) == (other.v2, other.v1);
    is_same.then(|| {
        let message = format!("{b} says the same as {a}: the one that is written last holds");
        Complaint::new(message, "leave one of them out")
    })
}

/// Limits that mean nothing above `memory.max`.
const BELOW_MAX: [(&str, &str); 3] = [
    ("memory.high", "the group is held at memory.max before"),
    ("memory.low", "the group never has so much to protect"),
    ("memory.min", "the group never has so much to protect"),
];

fn above((key, value): (&str, &str), (limit, most): (&str, &str)) -> Option<Complaint> {
    let (_, why) = BELOW_MAX.iter().find(|(own, _)| *own == key && limit == "memory.max")?;
    let is_above = match (share(key, value), share(limit, most)) {
        (Some(percent), Some(most)) => percent > most,
        (None, None) => match (bytes(value)?, bytes(most)?) {
            (Bound::At(bytes), Bound::At(most)) => bytes > most,
            // To say `max` is to want no such limit.
            (Bound::Max, _) | (_, Bound::Max) => false,
        },
        // How much a share is depends on the host.
        (Some(_), None) | (None, Some(_)) => false,
    };
    is_above.then(|| {
        let message = format!("{key} = {value} is above {limit} = {most}: {why}");
        Complaint::new(message, format!("write less than {most}"))
    })
}

fn bytes(value: &str) -> Option<Bound> {
    max_or_size(value.trim(), false).ok()
}
