//! When a rule that ignores processes applies. Pure.

/// The circumstances under which a rule leaves a process where it is. Under others the rule says
/// nothing, and the next one that holds decides: see [`super::matcher::Matcher::decide_after`].
///
/// They are no criteria, because they change without an event and cost a read of `/proc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IgnoreWhen {
    /// Only while the process is in this group or below it, in any hierarchy. Without a slash at the
    /// beginning, as the path of a legacy rule; `/` is the top of a hierarchy and nothing below it.
    pub below: Option<String>,
    /// Only while the process is scheduled like this.
    pub scheduling: Scheduling,
}

/// A kind of scheduling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduling {
    /// Any.
    #[default]
    Any,
    /// Neither `SCHED_FIFO` nor `SCHED_RR`.
    NotRealTime,
    /// `SCHED_FIFO` or `SCHED_RR`.
    RealTime,
}

impl Scheduling {
    /// Whether a process that is, or is not, scheduled in real time is meant.
    pub fn means(self, is_real_time: bool) -> bool {
        match self {
            Self::Any => true,
            Self::NotRealTime => !is_real_time,
            Self::RealTime => is_real_time,
        }
    }
}

impl IgnoreWhen {
    /// Whether the rule applies whatever the circumstances are.
    pub fn is_always(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the process is where the rule means. `cgroup` is the text of `/proc/PID/cgroup`, a line
    /// `id:controllers:/path` for each hierarchy.
    pub fn means_place(&self, cgroup: &[u8]) -> bool {
        let Some(below) = &self.below else { return true };
        let paths = cgroup
            .split(|&byte| byte == b'\n')
            .filter_map(|line| line.splitn(3, |&byte| byte == b':').nth(2)?.strip_prefix(b"/"));
        paths.into_iter().any(|path| is_below(path, below.as_bytes()))
    }
}

/// Whether `path` is the group `top` or one below it. Neither has a slash at the beginning.
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
