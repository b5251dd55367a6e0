//! Orders writes by the current content of the cgroup, because the kernel compares some files with
//! each other at every single write. Pure.

use super::Write;

/// A write of a [`Writes`](super::Writes), or one that must precede it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteStep {
    /// The index of the configured write.
    pub of: usize,
    /// The name of the file.
    pub file: String,
    /// The value to be written.
    pub value: String,
}

/// Writes that are applied together: if one is refused, the previous ones are reverted.
pub type WriteBatch = Vec<WriteStep>;

/// Returns the content of a file of the cgroup, `None` if it cannot be read.
pub type CurrentValue<'a> = dyn Fn(&str) -> Option<String> + 'a;

const QUOTA: &str = "cpu.cfs_quota_us";
const PERIOD: &str = "cpu.cfs_period_us";
/// Quotas with the burst that must not exceed them.
const BURSTS: [(&str, &str); 2] = [(QUOTA, "cpu.cfs_burst_us"), ("cpu.max", "cpu.max.burst")];
const PAGE: u64 = 4096;
/// The value in bytes from which a v1 limit means no limit.
const UNLIMITED: u64 = i64::MAX as u64 & !(PAGE - 1);
const LIMIT: &str = "memory.limit_in_bytes";
/// The limit of memory and swap together, which must not be less than [`LIMIT`].
const BOTH: &str = "memory.memsw.limit_in_bytes";

/// Orders writes so that the kernel accepts them with the current content of the cgroup.
pub fn batches(writes: &[&Write], present: &CurrentValue<'_>) -> Vec<WriteBatch> {
    let mut bundles: Vec<WriteBatch> = Vec::new();
    for (of, write) in writes.iter().enumerate() {
        bundles.push(vec![WriteStep { of, file: write.file.clone(), value: write.value.clone() }]);
    }
    join_period(&mut bundles, present);
    for (quota, burst) in BURSTS {
        let wanted = last(&bundles, burst).and_then(|step| number(&step.value));
        let is_lower =
            wanted.is_some_and(|to| present(burst).as_deref().and_then(number) > Some(to));
        if is_lower {
            put_before(&mut bundles, burst, quota);
        }
    }
    raise_both(&mut bundles, present);
    bundles
}

/// Checks whether a file already contains the value to be written.
pub fn says(file: &str, text: &str, value: &str) -> bool {
    let text = text.trim();
    let value = value.trim();
    text == value || [LIMIT, BOTH].contains(&file) && pages(text) == pages(value)
}

/// Parses a size in whole pages. No limit is their largest number.
fn pages(text: &str) -> Option<u64> {
    bytes(text).map(|bytes| bytes.min(UNLIMITED) / PAGE)
}

/// Joins quota and period, which the kernel compares with those of other cgroups after each write.
fn join_period(bundles: &mut Vec<WriteBatch>, present: &CurrentValue<'_>) {
    let (Some(from), true) = (place(bundles, PERIOD), place(bundles, QUOTA).is_some()) else {
        return;
    };
    let period = bundles.remove(from);
    let Some(quota) = place(bundles, QUOTA) else { return };
    let old = present(PERIOD);
    let is_same = period.last().is_some_and(|step| old.is_some_and(|old| old.trim() == step.value));
    // A cgroup that does not exist yet has no quota.
    let is_free = present(QUOTA).is_none_or(|text| text.trim() == "-1") || is_same;
    let lift = bundles[quota].last().filter(|_| !is_free).cloned();
    let lift = lift.map(|step| WriteStep { value: "-1".to_owned(), ..step });
    bundles[quota].splice(0..0, lift.into_iter().chain(period));
}

/// Raises the limit of memory and swap first if the memory limit will exceed it.
fn raise_both(bundles: &mut Vec<WriteBatch>, present: &CurrentValue<'_>) {
    let Some(limit) = last(bundles, LIMIT).cloned() else { return };
    let old = present(LIMIT).as_deref().and_then(bytes);
    let both = present(BOTH).as_deref().and_then(bytes);
    let (Some(to), Some(old), Some(both)) = (bytes(&limit.value), old, both) else { return };
    if to <= both {
        return;
    }
    if last(bundles, BOTH).is_some() {
        return put_before(bundles, BOTH, LIMIT);
    }
    let raised = to.saturating_add(both.saturating_sub(old));
    let value = if raised < UNLIMITED { raised.to_string() } else { "-1".to_owned() };
    if let Some(place) = place(bundles, LIMIT) {
        bundles[place].insert(0, WriteStep { file: BOTH.to_owned(), value, ..limit });
    }
}

fn put_before(bundles: &mut Vec<WriteBatch>, file: &str, other: &str) {
    let (Some(from), Some(to)) = (place(bundles, file), place(bundles, other)) else { return };
    if to < from {
        let bundle = bundles.remove(from);
        bundles.insert(to, bundle);
    }
}

fn place(bundles: &[WriteBatch], file: &str) -> Option<usize> {
    bundles.iter().position(|bundle| bundle.iter().any(|step| step.file == file))
}

/// Returns the last step that writes a file, which determines its final content.
fn last<'b>(bundles: &'b [WriteBatch], file: &str) -> Option<&'b WriteStep> {
    bundles.iter().flatten().rfind(|step| step.file == file)
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Parses a size; `-1` is the maximum.
fn bytes(text: &str) -> Option<u64> {
    match super::value::max_or_size(text.trim(), true).ok()? {
        super::value::Bound::Max => Some(u64::MAX),
        super::value::Bound::At(bytes) => Some(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the name of a file without the controller.
    fn short(file: &str) -> &str {
        file.rsplit_once('.').unwrap().1
    }

    /// Formats writes as `file=value` in their order, with `+` within a batch.
    fn shown(writes: &[(&str, &str)], present: &[(&str, &str)]) -> String {
        let writes = writes.iter().map(|(file, value)| Write {
            file: (*file).to_owned(),
            value: (*value).to_owned(),
            instead: None,
        });
        let writes: Vec<Write> = writes.collect();
        let bundles = batches(&writes.iter().collect::<Vec<_>>(), &|file| {
            let found = present.iter().find(|(own, _)| *own == file);
            found.map(|(_, value)| format!("{value}\n"))
        });
        let words = bundles.iter().map(|bundle| {
            let steps = bundle.iter().map(|step| format!("{}={}", short(&step.file), step.value));
            steps.collect::<Vec<_>>().join("+")
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_period_changes_without_a_quota() {
        let writes = [("cpu.shares", "9"), (PERIOD, "100000"), (QUOTA, "20000")];
        for (old, expected) in [
            (("100000", "50000"), "shares=9 cfs_period_us=100000+cfs_quota_us=20000"),
            (("50000", "-1"), "shares=9 cfs_period_us=100000+cfs_quota_us=20000"),
            (
                ("50000", "50000"),
                "shares=9 cfs_quota_us=-1+cfs_period_us=100000+cfs_quota_us=20000",
            ),
        ] {
            assert_eq!(shown(&writes, &[(PERIOD, old.0), (QUOTA, old.1)]), expected);
        }
        let plain = "shares=9 cfs_period_us=100000+cfs_quota_us=20000";
        assert_eq!(shown(&writes, &[]), plain);
        assert_eq!(shown(&[(PERIOD, "5")], &[(QUOTA, "5")]), "cfs_period_us=5");
        assert_eq!(shown(&[(QUOTA, "5")], &[(QUOTA, "7")]), "cfs_quota_us=5");
    }

    #[test]
    fn a_burst_comes_first_when_it_becomes_less() {
        for (quota, burst) in BURSTS {
            let writes = [(quota, "20000"), (burst, "10000")];
            let lower = format!("{}=10000 {}=20000", short(burst), short(quota));
            assert_eq!(shown(&writes, &[(burst, "40000")]), lower);
            let higher = format!("{}=20000 {}=10000", short(quota), short(burst));
            assert_eq!(shown(&writes, &[(burst, "5000")]), higher);
            assert_eq!(shown(&writes, &[]), higher);
        }
        assert_eq!(shown(&[("cpu.max", "20000")], &[("cpu.max.burst", "1")]), "max=20000");
    }

    #[test]
    fn both_are_raised_before_the_limit() {
        fn has<'t>(limit: &'t str, both: &'t str) -> [(&'static str, &'t str); 2] {
            [(LIMIT, limit), (BOTH, both)]
        }
        let writes = has("80M", "90M");
        let up = "limit_in_bytes=90M limit_in_bytes=80M";
        let down = "limit_in_bytes=80M limit_in_bytes=90M";
        assert_eq!(shown(&writes, &has("52428800", "52428800")), up);
        assert_eq!(shown(&writes, &has("52428800", "83886080")), down);
        assert_eq!(shown(&writes, &has("9223372036854771712", "9223372036854771712")), down);
        assert_eq!(shown(&writes, &[]), down);
    }

    #[test]
    fn swap_stays_when_the_limit_alone_is_raised() {
        let has = [(LIMIT, "1048576"), (BOTH, "1052672")];
        assert_eq!(
            shown(&[(LIMIT, "2097152")], &has),
            "limit_in_bytes=2101248+limit_in_bytes=2097152"
        );
        assert_eq!(shown(&[(LIMIT, "-1")], &has), "limit_in_bytes=-1+limit_in_bytes=-1");
        assert_eq!(shown(&[(LIMIT, "4096")], &has), "limit_in_bytes=4096");
    }

    #[test]
    fn a_file_says_what_it_means() {
        assert!(says("cpu.max", "50000 100000\n", "50000 100000") && !says("cpu.max", "1", "2"));
        assert!(says(LIMIT, "9223372036854771712\n", "-1") && says(LIMIT, "1048576\n", "1049000"));
        assert!(says(BOTH, "1048576\n", "1M") && !says(LIMIT, "0", "4096"));
        assert!(!says("pids.max", "4096", "4097"));
    }
}
