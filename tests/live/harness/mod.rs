//! Provides the environment of a live test.
//!
//! [`Live`] combines all of it: lock, mount namespace, users, throw-away cgroups, compiled actors.
//! [`Daemon`] and [`Actor`] are the processes; [`census`] reads the cgroups of processes.

mod actor;
mod build;
pub(crate) mod census;
pub(crate) mod daemon;
mod faults;
mod ground;
mod name_service;
mod namespace;
mod time_limit;
pub(crate) mod user;
mod wait;

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode, SFlag, mknod};

pub(crate) use actor::Actor;
pub(crate) use build::{gate, nss_module, pins};
pub(crate) use daemon::{Daemon, Settings, Surroundings, cgruled, name_value_lines, run};
pub(crate) use faults::{injected_faults, with_faults};
pub(crate) use ground::{Ground, strangers};
pub(crate) use name_service::NameService;
use namespace::Namespace;
pub(crate) use namespace::PrivateRun;
use time_limit::TimeLimit;
pub(crate) use wait::{PATIENCE, REST, eventually, within};

/// Mount point of the private tmpfs of the test, in its own namespace. Fixed, because rules name
/// programs below it; the lock keeps other tests away.
pub(crate) const BASE: &str = "/run/cgruled-live";
const LOCK: &str = "/run/cgruled-live.lock";

/// Resources of a test while it runs. Dropped in this order, also after a panic.
pub(crate) struct Live {
    pub(crate) ground: Ground,
    _namespace: Namespace,
    _limit: Option<TimeLimit>,
    _lock: Flock<File>,
}

impl Live {
    /// Returns `None` when this host cannot run live tests and they are optional. The test program ends
    /// if the test hangs.
    pub(crate) fn require() -> Option<Self> {
        let live = Self::without_limit()?;
        Some(Self { _limit: Some(TimeLimit::begin()), ..live })
    }

    /// As [`Self::require`], for a run of any length.
    pub(crate) fn without_limit() -> Option<Self> {
        match Self::prepare() {
            Ok(live) => Some(live),
            Err(reason) => {
                skip(&reason);
                None
            }
        }
    }

    fn prepare() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("not root".to_owned());
        }
        let file = File::create(LOCK).map_err(|error| format!("{LOCK}: {error}"))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| format!("{LOCK}: {errno}"))?;
        connector_works()?;
        let namespace = Namespace::enter()?;
        let ground = Ground::prepare()?;
        let live = Self { ground, _namespace: namespace, _limit: None, _lock: lock };
        live.program("bin/actors");
        Ok(live)
    }

    /// Returns a path below [`BASE`].
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        Path::new(BASE).join(below)
    }

    /// Copies the actors program to a new file, with its directories, so that it has a name and an
    /// inode of its own.
    pub(crate) fn program(&self, below: &str) -> String {
        let path = self.path(below);
        self.directory(path.parent().unwrap());
        fs::copy(build::actors(), &path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Copies the statically linked actors program.
    pub(crate) fn static_program(&self, below: &str) -> String {
        let path = self.program(below);
        fs::copy(build::static_actors(), &path).unwrap();
        path
    }

    /// A copy of the actors program that runs with the group of its file.
    pub(crate) fn setgid_program(&self, below: &str, group: u32) -> String {
        let path = self.program(below);
        chown(&path, None, Some(group)).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o2755)).unwrap();
        path
    }

    /// A copy of the actors program whose file has the capabilities to set user and group IDs.
    pub(crate) fn capable_program(&self, below: &str) -> String {
        let path = self.program(below);
        let mut granter = self.actor(&format!("grant {path} say granted"));
        granter.said("granted");
        path
    }

    /// Copies the actors program to a set-user-ID file of `owner`.
    pub(crate) fn setuid_program(&self, below: &str, owner: u32) -> String {
        let path = self.program(below);
        chown(&path, Some(owner), None).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o4755)).unwrap();
        path
    }

    /// Creates an executable script with `text`.
    pub(crate) fn script(&self, below: &str, text: &str) -> String {
        let path = self.path(below);
        self.directory(path.parent().unwrap());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn directory(&self, path: &Path) {
        fs::create_dir_all(path).unwrap();
        for part in path.ancestors().take_while(|part| part.starts_with(BASE)) {
            fs::set_permissions(part, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }

    /// Starts the daemon with the text of one rule file and waits until it is ready.
    pub(crate) fn daemon(&self, rules: &str) -> Daemon {
        self.daemon_with(rules, &Settings::default())
    }

    /// Starts the daemon with further settings and waits until it is ready.
    pub(crate) fn daemon_with(&self, rules: &str, settings: &Settings<'_>) -> Daemon {
        self.write_rules(rules);
        Daemon::start(&self.ground, settings)
    }

    /// Starts another daemon beside one that runs, with rules and a control socket of its own.
    pub(crate) fn second_daemon(&self, settings: &Settings<'_>) -> Daemon {
        Daemon::start_second(&self.ground, settings)
    }

    /// Starts the daemon without waiting until it is ready.
    pub(crate) fn unready_daemon(&self, rules: &str, settings: &Settings<'_>) -> Daemon {
        self.write_rules(rules);
        Daemon::start_unready(&self.ground, settings)
    }

    /// Starts the daemon in another environment.
    pub(crate) fn daemon_on(
        &self,
        rules: &str,
        settings: &Settings<'_>,
        on: &Surroundings<'_>,
    ) -> Daemon {
        self.write_rules(rules);
        Daemon::start_on(&self.ground, settings, on)
    }

    /// Starts a daemon that serves `/run/cgred.socket`: mount over `/run` first.
    pub(crate) fn legacy_daemon(&self, rules: &str) -> Daemon {
        self.legacy_daemon_with(rules, &Settings::default())
    }

    /// Starts such a daemon with further settings.
    pub(crate) fn legacy_daemon_with(&self, rules: &str, settings: &Settings<'_>) -> Daemon {
        self.write_rules(rules);
        Daemon::start_legacy(&self.ground, settings)
    }

    /// Replaces the rule file that the daemon of this test reads, atomically as editors do.
    pub(crate) fn write_rules(&self, rules: &str) {
        self.rule_file("50-test.toml", rules);
        self.rule_file(
            "99-fence.toml",
            &format!("[[rule]]\npriority = 1000\nuser = \"{}\"\ncgroup = \"fence\"\n", user::FENCE),
        );
    }

    /// Writes an additional rule file.
    pub(crate) fn rule_file(&self, name: &str, rules: &str) {
        let directory = self.path("rules.d");
        self.directory(&directory);
        let draft = directory.join(".draft");
        fs::write(&draft, format!("version = 1\n{rules}")).unwrap();
        fs::set_permissions(&draft, PermissionsExt::from_mode(0o644)).unwrap();
        fs::rename(&draft, directory.join(name)).unwrap();
    }

    /// Starts a process that does `steps` (see `actors.c`).
    pub(crate) fn actor(&self, steps: &str) -> Actor {
        Actor::start(&self.path("bin/actors"), steps)
    }

    /// Starts a program that writes lines as an actor does.
    pub(crate) fn run_program(&self, program: &Path, arguments: &str) -> Actor {
        Actor::start(program, arguments)
    }

    /// Starts a file system at `m` in [`BASE`] (see `fuse.c`) with one file, the actors program.
    /// Drop the actor to release the processes that wait for it.
    pub(crate) fn file_system(&self, uid: u32, mode: &str) -> Actor {
        let (device, directory) = (self.path("fuse"), self.path("m"));
        if !device.exists() {
            let number = nix::sys::stat::makedev(10, 229);
            mknod(&device, SFlag::S_IFCHR, Mode::empty(), number).unwrap();
            fs::set_permissions(&device, PermissionsExt::from_mode(0o666)).unwrap();
            self.directory(&directory);
        }
        let (device, directory) = (device.display(), directory.display());
        let file = self.path("bin/actors");
        let steps = format!("{device} {directory} {} {uid} {mode}", file.display());
        Actor::start(build::fuse(), &steps)
    }

    /// Returns the time until the process is in the cgroup `below`, `None` if that takes more than a second.
    pub(crate) fn placed_within_a_second(&self, pid: u32, below: &str) -> Option<Duration> {
        self.placed_within(Duration::from_secs(1), pid, below)
    }

    /// Returns the time until the process is in the cgroup `below`, `None` if that takes longer than `limit`.
    pub(crate) fn placed_within(&self, limit: Duration, pid: u32, below: &str) -> Option<Duration> {
        let wanted = self.ground.at(below);
        within(limit, || census::cgroup_of(pid, "").as_deref() == Some(wanted.as_str()))
    }

    /// Starts an actor with steps that end with `hold`, and waits until it holds.
    pub(crate) fn hold(&self, steps: &str) -> Actor {
        let mut actor = self.actor(&format!("{steps} hold"));
        actor.subject = actor.said("pid");
        actor
    }

    /// Waits until the process is in the cgroup `below` of the test.
    pub(crate) fn expect(&self, actor: &Actor, below: &str) {
        self.expect_pid("", actor.subject, below);
    }

    /// Waits until a process is in the cgroup `below` in the hierarchy of a v1 controller (empty: v2).
    pub(crate) fn expect_pid(&self, controller: &str, pid: u32, below: &str) {
        let wanted = self.ground.at(below);
        let mut found = None;
        let arrived = eventually(PATIENCE, || {
            found = census::cgroup_of(pid, controller);
            found.as_deref() == Some(wanted.as_str())
        });
        assert!(arrived, "process {pid} is in {found:?} instead of {wanted}");
    }

    /// Asserts that the daemon has evaluated the process and not moved it.
    pub(crate) fn expect_untouched(&self, actor: &Actor) {
        self.fence();
        // Executables that need the slow path are resolved out of event order.
        std::thread::sleep(Duration::from_millis(200));
        let found = census::cgroup_of(actor.subject, "").expect("the actor exited");
        assert!(!self.ground.holds(&found), "process {} was moved to {found}", actor.subject);
    }

    /// Returns when the daemon has processed all earlier events: they are queued in order, so the
    /// placement of a later process proves that earlier ones were evaluated.
    pub(crate) fn fence(&self) {
        let fence = self.hold(&format!("uid {0} {0}", user::FENCE));
        self.expect(&fence, "fence");
    }

    /// Returns the processes of `uid` that are not below `below`, after the daemon had time to come
    /// to rest; normally empty.
    pub(crate) fn strays(&self, uid: u32, below: &str) -> Vec<census::Resident> {
        let group = self.ground.at(below);
        let mut strays = Vec::new();
        eventually(PATIENCE, || {
            strays = census::outside(uid, &group);
            strays.is_empty()
        });
        strays
    }

    /// Asserts that exactly `count` processes of `uid` live and all are in the cgroup `below`.
    pub(crate) fn expect_all(&self, uid: u32, count: usize, below: &str) {
        let strays = self.strays(uid, below);
        let shown = &strays[..strays.len().min(5)];
        assert!(strays.is_empty(), "{} of {count} outside, as {shown:?}", strays.len());
        assert_eq!(census::of(uid).len(), count, "processes of {uid}");
    }
}

impl Live {
    /// Waits until all processes of `uid` are in the cgroup `below`, [`REST`] at most, prints how
    /// many of `count` are outside and asserts that there are none. The total of `count` proves
    /// that no process escaped the count.
    pub(crate) fn expect_at_rest(&self, what: &str, uid: u32, count: usize, below: &str) {
        let (outside, seen) = self.at_rest(uid, below);
        println!("{what}: {} of {count} outside", outside.len());
        assert_eq!(seen, count, "{what}: processes of {uid}");
        let shown = &outside[..outside.len().min(3)];
        assert!(outside.is_empty(), "{what}: {} of {count} outside: {shown:?}", outside.len());
    }

    /// Returns the processes of `uid` outside of the cgroup `below` at rest, and the total.
    pub(crate) fn at_rest(&self, uid: u32, below: &str) -> (Vec<census::Resident>, usize) {
        let group = self.ground.at(below);
        let mut all = Vec::new();
        eventually(REST, || {
            all = census::of(uid);
            all.iter().all(|resident| resident.cgroup == group)
        });
        let seen = all.len();
        all.retain(|resident| resident.cgroup != group);
        (all, seen)
    }
}

/// Processes of one user that an actor creates or changes, to be counted.
#[derive(Clone, Copy)]
pub(crate) struct Crowd<'a> {
    /// Name in the printed line.
    pub(crate) what: &'a str,
    pub(crate) steps: &'a str,
    /// The lines `pid N` that the actor writes when all is done.
    pub(crate) lines: usize,
    pub(crate) uid: u32,
    pub(crate) count: usize,
    /// The cgroup in which all of them must be.
    pub(crate) cgroup: &'a str,
}

impl Live {
    /// Asserts that all processes of a crowd are outside of their cgroup without a daemon, and
    /// inside with one.
    pub(crate) fn expect_crowd(&self, rules: &str, crowd: &Crowd<'_>) {
        self.expect_crowd_outside(crowd);
        let _daemon = self.daemon(rules);
        let _actor = self.start_crowd(crowd);
        self.expect_at_rest(crowd.what, crowd.uid, crowd.count, crowd.cgroup);
    }

    /// The control: without a daemon all processes of a crowd are outside.
    pub(crate) fn expect_crowd_outside(&self, crowd: &Crowd<'_>) {
        let actor = self.start_crowd(crowd);
        let outside = census::outside(crowd.uid, &self.ground.at(crowd.cgroup)).len();
        println!("{}, without a daemon: {outside} of {} outside", crowd.what, crowd.count);
        assert_eq!(outside, crowd.count, "{}, without a daemon", crowd.what);
        drop(actor);
        assert!(eventually(PATIENCE, || census::of(crowd.uid).is_empty()));
    }

    /// Waits until `count` processes of `uid`, among others of hers, are in the group `below`.
    pub(crate) fn expect_placed_of(&self, uid: u32, count: usize, below: &str, what: &str) {
        let group = self.ground.at(below);
        let mut placed = 0;
        eventually(REST, || {
            placed = census::of(uid).iter().filter(|resident| resident.cgroup == group).count();
            placed == count
        });
        println!("{what}: {} of {count} outside", count.saturating_sub(placed));
        assert_eq!(placed, count, "{what}");
    }

    pub(crate) fn start_crowd(&self, crowd: &Crowd<'_>) -> Actor {
        let mut actor = self.actor(crowd.steps);
        for _ in 0..crowd.lines {
            actor.said("pid");
        }
        actor
    }
}

/// Returns the number of repetitions of a storm, or a factor for its size.
pub(crate) fn rounds() -> usize {
    std::env::var("CGRULED_LIVE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// Prints why this host cannot run a test, which is then skipped.
///
/// # Panics
/// With `CGRULED_LIVE=1`, where no test may be skipped.
pub(crate) fn skip(reason: &str) {
    assert!(!insisted(), "CGRULED_LIVE=1, but {reason}");
    println!("skipped: {reason}");
}

fn insisted() -> bool {
    std::env::var_os("CGRULED_LIVE").is_some_and(|value| value == "1")
}

fn connector_works() -> Result<(), String> {
    let result = pins("selftest");
    match result.get("heard") {
        Some(1) => Ok(()),
        _ => Err("the proc connector delivers no events here".to_owned()),
    }
}
