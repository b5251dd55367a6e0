//! The daemon of a row: cgruled, or the real cgrulesengd for comparison.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::drops::drops;
use crate::harness::daemon::{cpu_time_of, kib_of};
use crate::harness::{
    BASE, Daemon, Live, PATIENCE, PrivateRun, REST, Settings, census, eventually,
};
use crate::report::Outcome;
use crate::storm::{LAUNCHER, daemon};

const ORIGINAL: &str = "/usr/sbin/cgrulesengd";
const SOCKET: &str = "/run/cgred.socket";
/// v1 controller of its cgroups: it places into v2 only where a controller is enabled.
const CONTROLLER: &str = "pids";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Ours,
    Original,
}

/// Rules and options of a daemon.
pub(crate) struct Setup<'a> {
    pub(crate) which: Which,
    /// User and cgroup of each rule.
    pub(crate) rules: &'a [(&'a str, &'a str)],
    /// A cgroup and the number of processes that it may have.
    pub(crate) limit: Option<(&'a str, u32)>,
    /// Only for cgruled.
    pub(crate) settings: &'a Settings<'a>,
}

pub(crate) enum Subject {
    Ours(Daemon),
    Original(Original),
}

impl Subject {
    pub(crate) fn start(live: &Live, setup: &Setup<'_>) -> Self {
        match setup.which {
            Which::Ours => {
                let limit = |(group, most)| format!("[cgroup.{group}]\npids.max = {most}\n");
                let text = rules(setup.rules) + &setup.limit.map(limit).unwrap_or_default();
                Self::Ours(daemon(live, &text, setup.settings))
            }
            Which::Original => Self::Original(Original::start(live, setup)),
        }
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Ours(daemon) => daemon.pid(),
            Self::Original(original) => original.child.id(),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().try_into().unwrap()), signal).unwrap();
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        kib_of(self.pid(), "VmRSS:")
    }

    pub(crate) fn cpu_time(&self) -> Duration {
        cpu_time_of(self.pid())
    }

    /// Returns the number of processes of `uid` outside of the cgroup `below` at rest, and the total.
    pub(crate) fn at_rest(&self, live: &Live, uid: u32, below: &str) -> (usize, usize) {
        let controller = match self {
            Self::Ours(_) => "",
            Self::Original(_) => CONTROLLER,
        };
        let group = live.ground.at(below);
        let is_inside = |pid| census::cgroup_of(pid, controller).is_none_or(|of| of == group);
        let (mut outside, mut all) = (0, 0);
        eventually(REST, || {
            let found = census::of(uid);
            all = found.len();
            outside = found.iter().filter(|resident| !is_inside(resident.pid)).count();
            outside == 0
        });
        (outside, all)
    }

    /// Stops it, and records its numbers of events. cgrulesengd counts none; the kernel counts those that were lost.
    pub(crate) fn stop(self, row: &mut Outcome) {
        match self {
            Self::Ours(daemon) => {
                let counters = daemon.stop();
                row.count(|name| counters.get(name));
            }
            Self::Original(original) => {
                row.lost = Some(drops(original.child.id()).try_into().unwrap());
            }
        }
    }
}

/// Returns the rules in the format of cgruled.
pub(crate) fn rules(of_users: &[(&str, &str)]) -> String {
    of_users
        .iter()
        .map(|(user, group)| format!("[[rule]]\nuser = \"{user}\"\ncgroup = \"{group}\"\n"))
        .collect()
}

/// A running cgrulesengd with private files; stopped on drop.
pub(crate) struct Original {
    child: Child,
    _run: PrivateRun,
}

impl Original {
    fn start(live: &Live, setup: &Setup<'_>) -> Self {
        let run = PrivateRun::enter();
        cover_etc();
        let mut text = String::new();
        for (user, group) in setup.rules {
            let group = live.ground.at(&group.replace("%u", user));
            text += &format!("{user} {CONTROLLER} {}\n", group.trim_start_matches('/'));
            let below = group.trim_start_matches(&live.ground.at("")).to_owned();
            let directory = live.ground.directory(CONTROLLER, &below);
            fs::create_dir_all(directory.expect("the v1 controller pids is mounted")).unwrap();
        }
        if let Some((group, most)) = setup.limit {
            let file = live.ground.directory(CONTROLLER, group).unwrap().join("pids.max");
            fs::write(file, most.to_string()).unwrap();
        }
        fs::write("/etc/cgrules.conf", text).unwrap();
        fs::write("/etc/cgconfig.conf", "").unwrap();
        fs::create_dir_all("/etc/cgconfig.d").unwrap();
        // /dev/null as the log file: by default it writes to syslog for each event.
        let child = Command::new(LAUNCHER[0])
            .args(&LAUNCHER[1..])
            .args(["setpriv", "--pdeathsig", "KILL", ORIGINAL, "-n", "-Q", "-f", "/dev/null"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut original = Self { child, _run: run };
        // It creates its socket last.
        let is_ready = eventually(PATIENCE, || Path::new(SOCKET).exists());
        assert!(is_ready, "cgrulesengd did not start");
        assert!(original.child.try_wait().unwrap().is_none(), "cgrulesengd has exited");
        original
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        for signal in [Signal::SIGCONT, Signal::SIGTERM] {
            let _exited = kill(pid, signal);
        }
        if !eventually(Duration::from_secs(5), || self.child.try_wait().unwrap().is_some()) {
            let _exited = self.child.kill();
            let _status = self.child.wait();
        }
        umount2("/etc", MntFlags::MNT_DETACH).unwrap();
    }
}

/// Mounts a copy over `/etc`, because a file that does not exist cannot be covered.
fn cover_etc() {
    let copy = format!("{BASE}/etc");
    assert!(Command::new("cp").args(["-a", "/etc", &copy]).status().unwrap().success());
    mount(Some(copy.as_str()), "/etc", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}
