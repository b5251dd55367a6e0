//! Conditions of rules that ignore processes. It must not read `/proc`; the caller passes the text.

/// The conditions under which a rule leaves a process in its cgroup. If they are not met, the next
/// matching rule decides: see [`super::matcher::Matcher::decide_after`].
///
/// They are not criteria, because they change without an event and cost a read of `/proc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IgnoreWhen {
    /// Requires that the process is in this cgroup or below it, in any hierarchy. Without a leading
    /// slash, as in legacy rules; `/` means the root of a hierarchy and nothing below it.
    pub below: Option<String>,
    /// Requires this kind of scheduling.
    pub scheduling: Scheduling,
}

/// A condition on the scheduling policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduling {
    /// Every scheduling policy.
    #[default]
    Any,
    /// Policies except `SCHED_FIFO` and `SCHED_RR`.
    NotRealTime,
    /// The policies `SCHED_FIFO` and `SCHED_RR`.
    RealTime,
}

impl Scheduling {
    /// Checks whether the condition accepts a process with or without real-time scheduling.
    pub fn means(self, is_real_time: bool) -> bool {
        match self {
            Self::Any => true,
            Self::NotRealTime => !is_real_time,
            Self::RealTime => is_real_time,
        }
    }
}

impl IgnoreWhen {
    /// Checks whether the rule applies under all conditions.
    pub fn is_always(&self) -> bool {
        *self == Self::default()
    }

    /// Checks whether the process is in the required cgroup. `cgroup` is the text of
    /// `/proc/PID/cgroup`, with a line `id:controllers:/path` for each hierarchy.
    pub fn means_place(&self, cgroup: &[u8]) -> bool {
        let Some(below) = &self.below else { return true };
        let paths = cgroup
            .split(|&byte| byte == b'\n')
            .filter_map(|line| line.splitn(3, |&byte| byte == b':').nth(2)?.strip_prefix(b"/"));
        paths.into_iter().any(|path| is_below(path, below.as_bytes()))
    }
}

/// Checks whether `path` is the cgroup `top` or below it. Neither has a leading slash.
fn is_below(path: &[u8], top: &[u8]) -> bool {
    if top == b"/" {
        return path.is_empty();
    }
    let top = top.strip_suffix(b"/").unwrap_or(top);
    let rest = path.strip_prefix(top);
    !top.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(below: &str, cgroup: &str) -> bool {
        let when = IgnoreWhen { below: Some(below.to_owned()), scheduling: Scheduling::Any };
        when.means_place(cgroup.as_bytes())
    }

    #[test]
    fn a_place_is_a_group_and_all_below_it_in_any_hierarchy() {
        let text = "4:cpu,cpuacct:/ct/a\n2:freezer:/x:y\n0::/user.slice/b\n";
        for below in ["ct", "ct/", "ct/a", "ct/a/", "x:y", "user.slice", "user.slice/b"] {
            assert!(means(below, text), "{below}");
        }
        for below in ["/", "c", "ct/a/b", "/ct", "ct//a", "x", "", "//", "b", "t/a"] {
            assert!(!means(below, text), "{below}");
        }
        assert!(!means("ct", "4:cpu:/ct1\n"));
        assert!(!means("ct", ""));
        assert!(!means("ct", "0:\nct"));
    }

    #[test]
    fn a_slash_is_the_top_alone() {
        assert!(means("/", "4:cpu:/a\n0::/\n"));
        assert!(!means("/", "4:cpu:/a\n0::/a\n"));
    }

    #[test]
    fn without_a_place_every_place_is_meant() {
        let when = IgnoreWhen::default();
        assert!(when.is_always() && when.means_place(b"") && when.scheduling.means(true));
        assert!(!IgnoreWhen { scheduling: Scheduling::RealTime, ..when }.is_always());
    }
}
