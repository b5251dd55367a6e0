//! Runs the cases live: processes of test users, a daemon, and the cgroups in which the processes end up.
//!
//! Many cases share one start of a daemon: each has its own users, groups and programs. A case with
//! a rule for all users has a daemon of its own, and names a program that no other process runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use crate::cases::{Decision, Process};
use crate::cast::Cast;
use crate::daemons::{Running, Which};
use crate::harness::user::FENCE;
use crate::harness::{Actor, BASE, Live, PATIENCE, eventually};
use crate::private::Private;

/// The cgroup of the process of a case, in the form of `expect`, and the state of the files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) place: String,
    pub(crate) see: BTreeMap<String, String>,
}

/// Returns whether a case needs a daemon of its own.
pub(crate) fn is_alone(case: &Decision) -> bool {
    case.stopped || is_v2(case) || case.rules().lines().any(|line| line.starts_with('*'))
}

fn is_v2(case: &Decision) -> bool {
    case.world.split(' ').any(|word| word == "v2")
}

/// Runs cases with one daemon. Returns the differences between expected and actual results.
pub(crate) fn run(
    live: &Live,
    private: &Private,
    which: Which,
    cases: &[&Decision],
) -> Vec<String> {
    // cgrulesengd 2.0.2 occasionally dereferences an invalid pointer: in 2 of 11 runs, after the
    // message `fts_read failed`.
    for attempt in 0..3 {
        match run_once(live, private, which, cases, attempt) {
            Ok(wrong) => return wrong,
            Err(status) if which == Which::Original && status.signal().is_some() => {
                println!("cgrulesengd died ({status}), with {} cases", cases.len());
            }
            Err(status) => panic!("{which:?} exited: {status}"),
        }
    }
    panic!("cgrulesengd died each time");
}

fn run_once(
    live: &Live,
    private: &Private,
    which: Which,
    cases: &[&Decision],
    attempt: u32,
) -> Result<Vec<String>, ExitStatus> {
    if !cases.iter().any(|case| is_v2(case)) {
        return Stage { live, which, attempt, fence: "freezer" }.run(private, cases);
    }
    // In a thread with a mount namespace without v1 hierarchies.
    let alone = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        for name in v1() {
            let top = live.ground.directory(&name, "").unwrap();
            umount2(top.parent().unwrap(), MntFlags::MNT_DETACH).unwrap();
        }
        Stage { live, which, attempt, fence: "hugetlb" }.run(private, cases)
    };
    std::thread::scope(|scope| scope.spawn(alone).join().unwrap())
}

struct Stage<'l> {
    live: &'l Live,
    which: Which,
    attempt: u32,
    /// Controller of the rule for the fence.
    fence: &'static str,
}

/// A case with its running process.
struct Played<'c> {
    case: &'c Decision,
    cast: Cast,
    actor: Actor,
    /// Number of gates to open.
    gates: usize,
}

impl Stage<'_> {
    fn run(&self, private: &Private, cases: &[&Decision]) -> Result<Vec<String>, ExitStatus> {
        let casts: Vec<Cast> = (0..).zip(cases).map(|(n, case)| self.cast(n, case)).collect();
        self.write_files(private, cases, &casts);
        let mut daemon = Running::start(self.which, &["-v"]);
        self.pass_fence(&mut daemon)?;
        let pairs = cases.iter().zip(casts);
        let mut played: Vec<Played<'_>> =
            pairs.map(|(case, cast)| self.begin(case, cast)).collect();
        let stopped = cases.iter().any(|case| case.stopped);
        if stopped {
            // Events that the daemon has not received yet would be evaluated after SIGCONT.
            self.pass_fence(&mut daemon)?;
            daemon.stop();
        }
        for gate in 0..played.iter().map(|one| one.gates).max().unwrap_or(0) {
            if gate > 0 && !stopped {
                self.pass_fence(&mut daemon)?;
            }
            for one in played.iter_mut().filter(|one| gate < one.gates) {
                if gate > 0 {
                    one.actor.said("at");
                }
                one.actor.open_gate();
            }
        }
        for one in &mut played {
            one.actor.subject = one.actor.said("pid");
        }
        if stopped {
            daemon.signal(Signal::SIGCONT);
        }
        self.pass_fence(&mut daemon)?;
        if self.which == Which::Ours {
            // Executables that need the slow path are resolved out of event order.
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(played.iter().filter_map(|one| self.compare(one)).collect())
    }

    fn cast(&self, number: u32, case: &Decision) -> Cast {
        let below = format!("{:?}-{}/{}", self.which, self.attempt, case.id);
        let ground = self.live.ground.at(&below).trim_start_matches('/').to_owned();
        let programs = self.live.path(&format!("x/{below}"));
        Cast::number(number, ground, programs.to_str().unwrap().to_owned())
    }

    /// Writes the configuration files of the daemon.
    fn write_files(&self, private: &Private, cases: &[&Decision], casts: &[Cast]) {
        let all = |text: fn(&Decision) -> String| -> String {
            let pairs = cases.iter().zip(casts);
            pairs.map(|(case, cast)| cast.text(&text(case), 0) + "\n").collect()
        };
        let fence = self.live.ground.at("fence");
        let fence = fence.trim_start_matches('/');
        let rules = all(Decision::rules);
        let rules = format!("{rules}cgt-fence {} {fence}/%u\n", self.fence);
        let templates = all(|case| case.cgconfig.clone());
        let files = [("cgrules.conf", &*rules), ("cgconfig.conf", &templates), ("cgconfig.d/", "")];
        private.files(&files);
        accounts(casts);
    }

    /// Returns when the daemon has processed all earlier events. Events may be lost, also that of
    /// the fence, so further processes are started until one is placed.
    fn pass_fence(&self, daemon: &mut Running) -> Result<(), ExitStatus> {
        let wanted = self.live.ground.at("fence/cgt-fence");
        let hierarchy = if self.fence == "hugetlb" { "unified" } else { self.fence };
        let mut ended = None;
        let decided = eventually(PATIENCE, || {
            let actor = self.live.hold(&format!("uid {FENCE} {FENCE}"));
            let second = Duration::from_secs(1);
            let passed = eventually(second, || place(actor.subject, hierarchy) == wanted);
            ended = daemon.ended();
            passed || ended.is_some()
        });
        assert!(decided, "{:?} does not place the fence: {}", self.which, daemon.log());
        ended.map_or(Ok(()), Err)
    }

    /// Creates the cgroups and programs of a case and starts its process, which waits at its first gate.
    fn begin<'c>(&self, case: &'c Decision, cast: Cast) -> Played<'c> {
        self.make_groups(case, &cast);
        let steps = steps(case);
        self.make_programs(&case.process, &steps, &cast);
        let own = cast.steps(&steps.replace(" gate ", " say at gate "));
        let gates = 1 + own.matches(" say at gate ").count();
        let programs = cast.programs();
        let first = format!("chdir {programs} path {programs} say begin gate");
        let mut actor = self.live.actor(&format!("{first} {own}"));
        let pid = actor.said("begin");
        for hierarchy in ["cpuset", "cpu", "pids", "freezer", "unified"] {
            let group = match hierarchy {
                "freezer" => &case.process.at,
                "unified" => &case.process.unified,
                _ => "/",
            };
            let file = self.group(hierarchy, &cast.text(group, 0)).join("cgroup.procs");
            if file.exists() {
                fs::write(file, pid.to_string()).unwrap();
            }
        }
        Played { case, cast, actor, gates }
    }

    /// Returns the directory of a cgroup.
    fn group(&self, hierarchy: &str, path: &str) -> PathBuf {
        let controller = if hierarchy == "unified" { "" } else { hierarchy };
        let ground = self.live.ground.directory(controller, "").unwrap();
        ground.parent().unwrap().join(path.trim_start_matches('/'))
    }

    fn make_groups(&self, case: &Decision, cast: &Cast) {
        let make = |hierarchy: &str, path: &str| {
            let path =
                self.group(hierarchy, cast.text(&format!("{path}/"), 0).trim_end_matches('/'));
            make_group(&path);
        };
        if is_v2(case) {
            return;
        }
        let words = || case.world.split(' ').filter_map(|word| word.split_once(':'));
        for hierarchy in ["freezer", "pids"] {
            if !words().any(|(word, _)| word == format!("-{hierarchy}")) {
                ["/ct/a", "/ct/b", "/ct/c", "/ct/d"]
                    .iter()
                    .for_each(|group| make(hierarchy, group));
            }
        }
        for (word, group) in words().filter(|(word, _)| word.starts_with('+')) {
            match &word[1..] {
                "v1" => v1().iter().for_each(|hierarchy| make(hierarchy, group)),
                hierarchy => make(hierarchy, group),
            }
        }
        make("freezer", &case.process.at);
        make("unified", &case.process.unified);
    }

    /// Creates the programs below `X` that the process executes.
    fn make_programs(&self, process: &Process, steps: &str, cast: &Cast) {
        let below = Path::new(cast.programs()).strip_prefix(BASE).unwrap().to_str().unwrap();
        let mentioned = format!("{} {steps}", process.exe);
        let words = mentioned.split(' ').filter_map(|word| word.strip_prefix("X/"));
        let mut names: BTreeSet<&str> = words.collect();
        names.insert("cgt-idle");
        names.insert("python3.11");
        for name in names {
            let path = format!("{below}/{name}");
            let link = |to| symlink(to, self.live.path(&path)).unwrap();
            match name {
                "lnk" => link("cgt-idle"),
                "python3" => link("python3.11"),
                "suid" => drop(self.live.setuid_program(&path, cast.uid("bob"))),
                _ if name.ends_with(".sh") => drop(self.live.script(&path, SHELL)),
                _ if name.ends_with(".py") => {
                    self.live.script(&path, "#!/usr/bin/env python3\n");
                    symlink("python3.11", self.live.path(&format!("{below}/python3"))).unwrap();
                }
                _ => drop(self.live.program(&path)),
            }
        }
    }

    /// Returns the difference between expected and actual result, if any.
    fn compare(&self, one: &Played<'_>) -> Option<String> {
        let Played { case, cast, actor, .. } = one;
        let wanted = self.wanted(case, cast, actor.subject);
        let mut seen = self.seen(&wanted, actor.subject);
        let patience = Duration::from_secs(2);
        eventually(patience, || {
            seen = self.seen(&wanted, actor.subject);
            seen == wanted
        });
        (seen != wanted).then(|| format!("{} {:?}: {seen:?}, not {wanted:?}", case.id, self.which))
    }

    fn wanted(&self, case: &Decision, cast: &Cast, pid: u32) -> Seen {
        let mut see = case.see.clone();
        let place = match self.which {
            Which::Ours => &*case.expect,
            Which::Original => {
                see.extend(case.differs.iter().flat_map(|differs| differs.see.clone()));
                case.by_original()
            }
        };
        let text = |text: &str| cast.text(text, pid);
        let see = see.iter().map(|(file, found)| (text(file), text(found))).collect();
        Seen { place: text(place), see }
    }

    /// Returns the actual state of everything that `wanted` names.
    fn seen(&self, wanted: &Seen, pid: u32) -> Seen {
        let at = |hierarchy: &str| place(pid, hierarchy);
        let words = wanted.place.split(' ').filter_map(|word| word.split_once('='));
        let words: Vec<String> = words.map(|(name, _)| format!("{name}={}", at(name))).collect();
        let place = if words.is_empty() { at("freezer") } else { words.join(" ") };
        let look = |key: &String| {
            let (hierarchy, path) = key.split_once(':').unwrap();
            (key.clone(), look(&self.group(hierarchy, path)))
        };
        Seen { place, see: wanted.see.keys().map(look).collect() }
    }
}

/// Returns one controller of each v1 hierarchy; `name=...` for one without controllers.
fn v1() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap();
    let names = text.lines().filter_map(|line| line.split(':').nth(1)?.split(',').next());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A script that prints the PID of its interpreter and stays.
const SHELL: &str = "#!/bin/sh\necho \"pid $$\"\nwhile read -r line; do :; done\n";

/// Returns the steps of the process, with the names of the case file.
fn steps(case: &Decision) -> String {
    if let Some(steps) = &case.steps {
        return format!(" groups -1 {steps}");
    }
    let Process { user, group, real_user, real_group, groups, exe, invoked, run, .. } =
        &case.process;
    let invoked = invoked.as_ref().unwrap_or(exe);
    let run = run.clone().unwrap_or_else(|| format!("{invoked} {invoked}"));
    let (real_user, real_group) =
        (real_user.as_ref().unwrap_or(user), real_group.as_ref().unwrap_or(group));
    let groups = groups.as_ref().map_or("-1".to_owned(), |group| format!("{group}:"));
    let fifo = if case.process.real_time { "fifo " } else { "" };
    format!(
        " {fifo}groups {groups} gid {real_group}: {group}: uid {real_user} {user} gate exec {run} hold"
    )
}

/// Writes the users and groups of the cases in place of those of the host, which may have the same names.
pub(crate) fn accounts(casts: &[Cast]) {
    write_accounts("/etc/passwd", &casts.iter().map(Cast::passwd).collect::<String>());
    write_accounts("/etc/group", &casts.iter().map(Cast::group).collect::<String>());
}

fn write_accounts(path: &str, lines: &str) {
    let old = fs::read_to_string(path).unwrap();
    // Root, and the accounts of the harness.
    let is_kept =
        |line: &&str| ["root:", "cgt-", "cgruled:"].iter().any(|name| line.starts_with(name));
    let kept: String = old.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
    let new = kept + lines;
    // A daemon of another test reads its rules again when the file changes.
    if new != old {
        fs::write(path, new).unwrap();
    }
}

/// Creates a cgroup and its ancestors. A new v1 cpuset cgroup refuses processes until
/// `cpus` and `mems` are set.
fn make_group(path: &Path) {
    if path.exists() {
        return;
    }
    let above = path.parent().unwrap();
    make_group(above);
    fs::create_dir(path).unwrap();
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(text) = fs::read_to_string(above.join(name)) {
            fs::write(path.join(name), text).unwrap();
        }
    }
}

/// Returns the cgroups of all threads of a process; normally there is one.
fn place(pid: u32, hierarchy: &str) -> String {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return "gone".to_owned() };
    let wanted = if hierarchy == "unified" { "" } else { hierarchy };
    let group = |thread: PathBuf| {
        let text = fs::read_to_string(thread.join("cgroup")).unwrap_or_default();
        let found = text.lines().find_map(|line| {
            let (names, group) = line.split_once(':')?.1.split_once(':')?;
            names.split(',').any(|name| name == wanted).then(|| group.to_owned())
        });
        found.unwrap_or_else(|| "nowhere".to_owned())
    };
    let groups: BTreeSet<String> = threads.flatten().map(|entry| group(entry.path())).collect();
    groups.into_iter().collect::<Vec<_>>().join("|")
}

/// Returns the text of a file; owner, group and mode of a directory.
fn look(path: &Path) -> String {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            format!("{} {} {:o}", found.uid(), found.gid(), found.mode() & 0o7777)
        }
        Ok(_) => fs::read_to_string(path).unwrap_or_default().trim().to_owned(),
        Err(error) => error.to_string(),
    }
}
