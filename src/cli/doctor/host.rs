//! Checks of other daemons, NSS, `/proc` and resource limits.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};

use super::Finding;
use crate::event::{Pid, Uid};
use crate::kernel::process::ProcFs;
use crate::policy::load::NameService;

/// Maximum of users to look up.
const USERS: usize = 10;
/// Lookup time above which the first process of a user waits noticeably.
const SLOW: Duration = Duration::from_millis(20);
/// Time limit for one lookup.
const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum of cgroups that the daemon keeps open, each in a few hierarchies.
const DESCRIPTORS: u64 = 8192;

pub(super) fn findings() -> Vec<Finding> {
    let mut found = vec![name_service()];
    found.extend(ProcFs::open(Path::new("/proc")).ok().map(|mut proc| daemons(&mut proc)));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    found.extend(hidden(&mounts));
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        found.push(limit(hard));
    }
    found
}

/// Measures the lookup of users with their groups, for users who own processes now.
fn name_service() -> Finding {
    const TOPIC: &str = "names";
    let uids = owners();
    let (sender, answers) = mpsc::channel();
    let asked = uids.clone();
    // On its own thread: an NSS module that hangs must not block this command.
    thread::spawn(move || {
        for uid in asked {
            let start = Instant::now();
            let answer = NameService::default().identify(uid).map(drop);
            if sender.send((start.elapsed(), answer)).is_err() {
                break;
            }
        }
    });
    let mut slowest = Duration::ZERO;
    for uid in &uids {
        match answers.recv_timeout(PATIENCE) {
            Ok((time, Ok(()))) => slowest = slowest.max(time),
            Ok((_, Err(error))) => {
                let text = format!("NSS lookup of UID {} failed: {error}", uid.0);
                return Finding::note(
                    TOPIC,
                    text,
                    "see nsswitch.conf(5); rules with numeric IDs work",
                );
            }
            Err(_) => {
                let text = format!("NSS lookup of UID {} exceeded {} s", uid.0, PATIENCE.as_secs());
                return Finding::note(
                    TOPIC,
                    text,
                    "run nscd or sssd; processes of new users wait for the lookup",
                );
            }
        }
    }
    rated(TOPIC, slowest, uids.len())
}

fn rated(topic: &'static str, slowest: Duration, users: usize) -> Finding {
    let milliseconds = slowest.as_secs_f64() * 1000.0;
    let text =
        format!("{users} users looked up with their groups, the slowest in {milliseconds:.1} ms");
    if slowest > SLOW {
        let advice =
            "the first process of a user waits that long; a cache such as nscd or sssd helps";
        return Finding::note(topic, text, advice);
    }
    Finding::ok(topic, text)
}

fn owners() -> Vec<Uid> {
    let mut owners = BTreeSet::from([Uid(0)]);
    let Ok(mut proc) = ProcFs::open(Path::new("/proc")) else { return Vec::new() };
    let mut pids: Vec<Pid> = Vec::new();
    // An incomplete list is sufficient here.
    let _incomplete = proc.all(|pid| pids.push(pid));
    owners.extend(pids.into_iter().filter_map(|pid| proc.status(pid)).map(|owner| owner.effective));
    owners.into_iter().take(USERS).collect()
}

/// Reports the daemons that move processes, cgruled included.
fn daemons(proc: &mut ProcFs) -> Finding {
    const TOPIC: &str = "daemons";
    let mut pids: Vec<Pid> = Vec::new();
    let _incomplete = proc.all(|pid| pids.push(pid));
    let mut found = Vec::new();
    for pid in pids {
        for name in ["cgruled", "cgrulesengd", "ananicy", "ananicy-cpp"] {
            if proc.comm(pid) == Some(name.as_bytes()) {
                found.push(format!("{name} ({pid})"));
            }
        }
    }
    match &*found {
        [] => Finding::ok(TOPIC, "no daemon that moves processes is running"),
        [one] => Finding::ok(TOPIC, format!("{one} is running")),
        several => Finding::note(
            TOPIC,
            format!("{} are running", several.join(", ")),
            "they move each other's processes: run only one",
        ),
    }
}

/// Reports a `/proc` that hides the processes of other users.
fn hidden(mountinfo: &str) -> Option<Finding> {
    let line =
        mountinfo.lines().find(|line| line.contains(" /proc ") && line.contains(" - proc "))?;
    let hides = line.split([',', ' ']).find_map(|option| option.strip_prefix("hidepid="))?;
    if matches!(hides, "0" | "off") {
        return None;
    }
    let text = format!("/proc is mounted with hidepid={hides}");
    let advice = "the daemon sees all with CAP_SYS_PTRACE; run cgrulectl explain as root";
    Some(Finding::note("/proc", text, advice))
}

fn limit(hard: u64) -> Finding {
    let text = format!("up to {hard} open files");
    if hard < DESCRIPTORS {
        let advice = format!("each cgroup in use is an open file: set LimitNOFILE={DESCRIPTORS}");
        return Finding::note("limits", text, advice);
    }
    Finding::ok("limits", text)
}

#[cfg(test)]
mod tests {
    use super::super::FindingState;
    use super::*;

    #[test]
    fn a_hidden_proc_is_said() {
        let line = |options: &str| format!("24 1 0:21 / /proc rw,nosuid - proc proc rw{options}\n");
        assert!(hidden(&line("")).is_none() && hidden(&line(",hidepid=off")).is_none());
        let found = hidden(&line(",gid=7,hidepid=invisible")).unwrap();
        assert_eq!(found.text, "/proc is mounted with hidepid=invisible");
    }

    #[test]
    fn slowness_and_limits_are_judged() {
        assert_eq!(rated("names", SLOW, 1).state, FindingState::Ok);
        assert_eq!(rated("names", SLOW * 2, 1).state, FindingState::Note);
        assert_eq!(limit(1024).state, FindingState::Note);
        assert_eq!(limit(DESCRIPTORS).state, FindingState::Ok);
    }

    #[test]
    fn other_daemons_are_found_by_name() {
        let root = tempfile::tempdir().unwrap();
        let mut proc = ProcFs::open(root.path()).unwrap();
        assert_eq!(daemons(&mut proc).text, "no daemon that moves processes is running");
        for (pid, name) in [("41", "cgruled"), ("42", "cgrulesengd"), ("43", "cgruled2")] {
            fs::create_dir(root.path().join(pid)).unwrap();
            fs::write(root.path().join(pid).join("comm"), format!("{name}\n")).unwrap();
        }
        let found = daemons(&mut proc);
        assert_eq!(found.state, FindingState::Note);
        assert!(found.text.contains("cgruled (41)") && found.text.contains("cgrulesengd (42)"));
    }
}
