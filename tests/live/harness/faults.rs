//! Failures of the system calls of the daemon, injected by strace.

use std::fs;
use std::process::Command;

use super::{BASE, Daemon, Live, Settings, Surroundings, skip};

const OUTPUT: &str = "strace";

/// Starts the daemon with these faults, as `SYSCALL:error=ERROR:when=FIRST+STEP`. `None` without strace.
pub(crate) fn with_faults(live: &Live, rules: &str, faults: &[String]) -> Option<Daemon> {
    if Command::new("strace").arg("-V").output().is_err() {
        skip("no strace");
        return None;
    }
    let calls: Vec<&str> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
    let output = format!("{BASE}/{OUTPUT}");
    let mut launcher: Vec<String> =
        ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", &output].map(str::to_owned).to_vec();
    launcher.extend(["-e".to_owned(), format!("trace={}", calls.join(","))]);
    launcher.extend(faults.iter().flat_map(|fault| ["-e".to_owned(), format!("inject={fault}")]));
    let launcher: Vec<&str> = launcher.iter().map(String::as_str).collect();
    // With -D the daemon is the child of the test.
    let on = Surroundings { launcher: &launcher, ..Surroundings::default() };
    Some(live.daemon_on(rules, &Settings::default(), &on))
}

/// Returns the number of calls that failed by [`with_faults`] so far.
pub(crate) fn injected_faults(live: &Live) -> usize {
    fs::read_to_string(live.path(OUTPUT)).unwrap().matches("(INJECTED)").count()
}
