//! Real-time scheduling of the thread that moves processes, and the limit of its share of a CPU. On a machine
//! with more work than CPUs, a thread with normal scheduling waits for its turn before each move.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::utsname::uname;

use crate::config::daemon_toml::Scheduling;
use crate::event::Nanos;
use crate::sys::realtime;
use crate::sys::subprocess;

/// Time that a thread may compute without waiting: ten turns of the greatest length.
const RUNAWAY_US: u64 = 200_000;
/// Interval of the checks of the share.
const WINDOW_NS: u64 = 100_000_000;
/// Share of a CPU, in percent, above which a thread has normal scheduling: the rest is for the processes that cause
/// the events, which may have one CPU.
const MOST_PERCENT: u64 = 50;
/// Share below which it has real-time scheduling again.
const AGAIN_PERCENT: u64 = 25;
/// Time limit for the program that unpacks the kernel's configuration.
const UNPACK_LIMIT: Duration = Duration::from_secs(2);

/// Determines whether leaders have real-time scheduling, and sets the kernel's limit for it. If it is not possible,
/// the reason is logged.
pub(super) fn use_realtime(setting: Scheduling) -> bool {
    let refusal = match setting {
        Scheduling::Normal => return false,
        Scheduling::Realtime => None,
        Scheduling::Auto => obstacle(),
    };
    let refusal = refusal.or_else(|| {
        let tried = realtime::set_realtime().and_then(|()| realtime::set_normal());
        let limited = tried.and_then(|()| realtime::limit_realtime(RUNAWAY_US));
        limited.err().map(|error| error.to_string())
    });
    let Some(reason) = refusal else { return true };
    let level =
        if setting == Scheduling::Realtime { ::log::Level::Warn } else { ::log::Level::Info };
    ::log::log!(
        level,
        "scheduling: no real-time scheduling, placements are late on a busy machine: {reason}"
    );
    false
}

/// Returns the reason for which real-time scheduling could harm others: with `CONFIG_RT_GROUP_SCHED` a cgroup with a
/// real-time thread cannot get the cpu controller, and a new v1 cpu cgroup has no real-time bandwidth.
fn obstacle() -> Option<String> {
    let Some(config) = kernel_config() else {
        return Some("the kernel's configuration cannot be read".to_owned());
    };
    let has_groups = config.lines().any(|line| line == "CONFIG_RT_GROUP_SCHED=y");
    has_groups.then(|| "the kernel has CONFIG_RT_GROUP_SCHED".to_owned())
}

fn kernel_config() -> Option<String> {
    let name = uname().ok()?;
    let release = name.release().to_str()?;
    let files = [format!("/boot/config-{release}"), format!("/usr/lib/modules/{release}/config")];
    files.iter().find_map(|file| fs::read_to_string(file).ok()).or_else(packed_config)
}

fn packed_config() -> Option<String> {
    let packed = fs::File::open("/proc/config.gz").ok()?;
    let mut child = Command::new("/bin/sh")
        .args(["-c", "zcat | grep RT_GROUP_SCHED"])
        .stdin(packed)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let status = subprocess::wait(&mut child, UNPACK_LIMIT, Duration::from_millis(5)).ok()??;
    status.success().then(|| subprocess::printed(child.stdout.take()))
}

/// Scheduling of the threads that lead the daemon, with the share of the current one.
#[derive(Debug)]
pub(super) struct LeaderScheduling {
    is_enabled: bool,
    share: CpuShare,
}

impl LeaderScheduling {
    /// Creates the scheduling of leaders that have not started.
    pub(super) fn new(is_enabled: bool) -> Self {
        Self { is_enabled, share: CpuShare::default() }
    }

    /// Returns whether leaders have real-time scheduling.
    pub(super) const fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Begins to schedule the calling thread, which leads from now on.
    pub(super) fn begin(&mut self, now: Nanos) {
        if self.is_enabled {
            self.share =
                CpuShare { window: now, used: realtime::thread_cpu_time(), is_realtime: false };
            self.set(true);
        }
    }

    /// Limits the share of the leader: checked at most ten times a second, before it waits for events.
    pub(super) fn check(&mut self, now: Nanos) {
        if !self.is_enabled || now.since(self.share.window) < WINDOW_NS {
            return;
        }
        if realtime::was_realtime_stopped() {
            self.share.is_realtime = false;
        }
        if let Some(is_realtime) = self.share.next(now, realtime::thread_cpu_time()) {
            self.set(is_realtime);
        }
    }

    fn set(&mut self, is_realtime: bool) {
        let set = if is_realtime { realtime::set_realtime() } else { realtime::set_normal() };
        match set {
            Ok(()) => self.share.is_realtime = is_realtime,
            Err(error) => {
                ::log::warn!("scheduling: cannot change it: {error}");
                self.is_enabled = false;
            }
        }
    }
}

/// Share of a CPU that a thread has used, in windows.
#[derive(Clone, Copy, Debug, Default)]
struct CpuShare {
    /// Begin of the current window.
    window: Nanos,
    /// CPU time of the thread at that time.
    used: Nanos,
    is_realtime: bool,
}

impl CpuShare {
    /// Ends a window. Returns the scheduling that follows from it, if it changes.
    fn next(&mut self, now: Nanos, used: Nanos) -> Option<bool> {
        let percent = used.since(self.used) * 100 / now.since(self.window).max(1);
        self.window = now;
        self.used = used;
        match self.is_realtime {
            true if percent > MOST_PERCENT => Some(false),
            false if percent < AGAIN_PERCENT => Some(true),
            true | false => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_thread_that_takes_half_a_cpu_is_scheduled_normally_until_it_takes_a_quarter() {
        let mut share = CpuShare { is_realtime: true, ..CpuShare::default() };
        let (mut now, mut used) = (0, 0);
        for (percent, expected) in
            [(50, None), (51, Some(false)), (100, None), (25, None), (24, Some(true)), (24, None)]
        {
            now += 100 * MS;
            used += percent * MS;
            let next = share.next(Nanos(now), Nanos(used));
            share.is_realtime = next.unwrap_or(share.is_realtime);
            assert_eq!(next, expected, "{percent} %");
        }
    }

    #[test]
    fn an_idle_time_before_a_storm_does_not_lengthen_it() {
        let mut share = CpuShare { is_realtime: true, ..CpuShare::default() };
        assert_eq!(share.next(Nanos(10_000 * MS), Nanos(90 * MS)), None);
        assert_eq!(share.next(Nanos(10_100 * MS), Nanos(190 * MS)), Some(false));
    }

    #[test]
    fn the_kernel_ends_real_time_scheduling_of_a_thread_that_never_waits() {
        let ended = std::thread::spawn(|| {
            if realtime::set_realtime().is_err() || realtime::limit_realtime(50_000).is_err() {
                return None; // without the right to it
            }
            let begin = realtime::thread_cpu_time();
            while realtime::thread_cpu_time().since(begin) < 2_000 * MS {
                if realtime::was_realtime_stopped() {
                    return Some(realtime::thread_cpu_time().since(begin));
                }
            }
            Some(u64::MAX)
        });
        let ended = ended.join().unwrap();
        assert!(ended.is_none_or(|time| time < 1_000 * MS), "{ended:?}");
    }
}
