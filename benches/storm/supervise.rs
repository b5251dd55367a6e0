//! Runs two processes: one measures, the other waits for it and cleans up in every case.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::machine::{self, PidMax, RcuExpedited};
use crate::{Result, actors, rules};

const WORK: &str = "CGRULED_BENCH_WORK";

/// Returns the working directory, when this process is the measuring one.
pub(crate) fn work_of_supervisor() -> Option<PathBuf> {
    std::env::var_os(WORK).map(PathBuf::from)
}

/// Prepares the environment, runs the measuring process, and cleans up after it.
pub(crate) fn run() -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root: it creates cgroups and changes UIDs".into());
    }
    let signals = watched_signals();
    signals.thread_block()?;
    let work = tempfile::Builder::new().prefix("cgruled-bench-").tempdir()?;
    // Test users execute programs from here.
    fs::set_permissions(work.path(), fs::Permissions::from_mode(0o755))?;
    actors::compile(work.path())?;
    machine::enter_private_mounts(work.path())?;
    for ended in machine::ended_supervisors() {
        machine::remove_trace_instance(ended);
        machine::remove_groups(ended);
    }
    let expedited = RcuExpedited::remember();
    // Restored here too: the measuring process may be killed.
    let _pid_max = PidMax::remember()?;
    let outcome = measuring_process(work.path()).and_then(|child| wait(child, &signals));
    end_strays(work.path());
    machine::remove_groups(std::process::id());
    machine::remove_trace_instance(std::process::id());
    expedited.restore();
    machine::leave_private_mounts();
    outcome
}

fn watched_signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD].into_iter().collect()
}

fn measuring_process(work: &Path) -> Result<Child> {
    let mut command = Command::new(actors::program(work));
    command.arg("leash").arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    // Its own process group: an interrupt by the terminal is sent only to us, and we forward it.
    Ok(command.env(WORK, work).process_group(0).spawn()?)
}

fn wait(mut child: Child, signals: &SigSet) -> Result<ExitCode> {
    loop {
        if signals.wait()? != Signal::SIGCHLD {
            child.kill()?;
        }
        if let Some(status) = child.try_wait()? {
            return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
}

/// Kills every process that runs one of our programs or has one of our UIDs. Repeats
/// this, as they may fork meanwhile.
fn end_strays(work: &Path) {
    for _ in 0..50 {
        let strays: Vec<i32> = pids().filter(|&pid| is_stray(pid, work)).collect();
        for pid in &strays {
            // The process may have exited since.
            let _gone = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if strays.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn is_stray(pid: i32, work: &Path) -> bool {
    let exe = fs::read_link(format!("/proc/{pid}/exe"));
    let uid = fs::metadata(format!("/proc/{pid}")).map(|meta| meta.uid());
    exe.is_ok_and(|exe| exe.starts_with(work))
        && uid.is_ok_and(|uid| uid == 0 || rules::UIDS.contains(&uid) || uid >= rules::CROWD)
}
