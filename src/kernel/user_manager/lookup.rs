//! Lookup of a user's service manager: its main PID by systemd and its `(sd-pam)` by `/proc`.
//! Blocks, so it must not be called on the hot thread.
//!
//! Only `status`, `comm` and `children` of these processes are read: a user can block an exec of
//! their own manager, and then reading `stat` and `exe` blocks as well.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::event::{Pid, Uid};
use crate::kernel::process::{ProcFs, ProcessRef};
use crate::sys::subprocess::{self, printed};

/// Paths of `systemctl`; the last one is that of NixOS.
const SYSTEMCTL: [&str; 3] =
    ["/usr/bin/systemctl", "/bin/systemctl", "/run/current-system/sw/bin/systemctl"];
/// Time limit for one lookup, which usually takes about 10 ms.
const LIMIT: Duration = Duration::from_secs(5);
/// Interval between two checks whether the command has exited.
const PAUSE: Duration = Duration::from_millis(2);

/// Processes of a user that belong to systemd: none while the manager does not run.
#[derive(Debug, Default)]
pub struct ManagerProcesses {
    /// Main process of `user@UID.service`.
    pub manager: Option<ManagerProcess>,
    /// The `(sd-pam)` process of the manager.
    pub pam: Option<ManagerProcess>,
}

/// Process that was looked up.
#[derive(Debug)]
pub struct ManagerProcess {
    /// PID of the process.
    pub pid: Pid,
    /// Reference to the process, because its PID may be reused.
    pub reference: ProcessRef,
}

impl ManagerProcess {
    fn open(pid: Pid, proc: &mut ProcFs) -> Option<Self> {
        proc.refer(pid).map(|reference| Self { pid, reference })
    }
}

impl fmt::Display for ManagerProcesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.manager, &self.pam) {
            (None, _) => f.write_str("none"),
            (Some(manager), None) => write!(f, "{}, without a (sd-pam)", manager.pid),
            (Some(manager), Some(pam)) => {
                write!(f, "{}, with the (sd-pam) {}", manager.pid, pam.pid)
            }
        }
    }
}

impl ManagerProcesses {
    /// Checks whether the process of this PID is one of them.
    pub fn contains(&self, pid: Pid, proc: &mut ProcFs) -> bool {
        self.find(pid).is_some_and(|process| proc.is_same(pid, &process.reference))
    }

    /// Returns the one with this PID.
    pub fn find(&self, pid: Pid) -> Option<&ManagerProcess> {
        self.manager.iter().chain(&self.pam).find(|process| process.pid == pid)
    }

    /// Checks whether both have the same manager, or none.
    pub fn has_manager_of(&self, other: &Self) -> bool {
        self.manager.as_ref().map(|own| own.pid) == other.manager.as_ref().map(|own| own.pid)
    }

    /// Returns the PIDs of these processes.
    pub fn pids(&self) -> impl Iterator<Item = Pid> + '_ {
        self.manager.iter().chain(&self.pam).map(|process| process.pid)
    }
}

/// Reason for which a lookup failed.
#[derive(Debug)]
pub enum LookupError {
    /// Operation that failed, with its error.
    Run(&'static str, io::Error),
    /// Exit status of a failed `systemctl`, with its error message.
    Systemctl(ExitStatus, String),
    /// Time limit in which `systemctl` did not exit.
    TimedOut(Duration),
    /// Output of `systemctl` that contains no main PID.
    Output(String),
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(what, error) => write!(f, "{what}: {error}"),
            Self::Systemctl(status, message) => write!(f, "systemctl: {status}: {message}"),
            Self::TimedOut(limit) => {
                write!(f, "systemctl did not answer within {} s", limit.as_secs_f32())
            }
            Self::Output(text) => write!(f, "systemctl printed no main PID: {text}"),
        }
    }
}

/// Paths and time limit of lookups.
#[derive(Clone, Debug)]
pub struct ManagerLookup {
    systemctl: PathBuf,
    proc: PathBuf,
    limit: Duration,
}

impl Default for ManagerLookup {
    fn default() -> Self {
        let found = SYSTEMCTL.iter().find(|path| Path::new(path).exists());
        Self {
            systemctl: found.unwrap_or(&SYSTEMCTL[0]).into(),
            proc: "/proc".into(),
            limit: LIMIT,
        }
    }
}

impl ManagerLookup {
    #[cfg(test)]
    pub(super) fn of(systemctl: &Path, proc: &Path, limit: Duration) -> Self {
        Self { systemctl: systemctl.into(), proc: proc.into(), limit }
    }

    /// Finds the manager of a user and its `(sd-pam)`. Takes 5 seconds at most.
    ///
    /// # Errors
    /// systemd does not reply.
    pub fn find(&self, uid: Uid) -> Result<ManagerProcesses, LookupError> {
        let none = ManagerProcesses::default();
        let Some(pid) = self.main_pid(uid)? else { return Ok(none) };
        let mut proc =
            ProcFs::open(&self.proc).map_err(|error| LookupError::Run("/proc", error))?;
        // Opened first: all data read below belong to this very process.
        let Some(manager) = ManagerProcess::open(pid, &mut proc) else { return Ok(none) };
        // PID 1 allows a manager to declare another process of its cgroup as the main one. The
        // manager belongs to root until it sets its user.
        let Some(status) = proc.status(pid) else { return Ok(none) };
        let is_parent = status.parent.is_some_and(|parent| parent.get() == 1);
        let is_users = status.effective == uid || status.effective == Uid(0);
        if !is_parent || !is_users {
            return Ok(none);
        }
        let pam = oldest_child(pid, &mut proc)
            .filter(|&child| proc.comm(child) == Some(b"(sd-pam)"))
            .and_then(|child| ManagerProcess::open(child, &mut proc))
            .filter(|child| proc.status(child.pid).is_some_and(|child| child.parent == Some(pid)));
        Ok(ManagerProcesses { manager: Some(manager), pam })
    }

    fn main_pid(&self, uid: Uid) -> Result<Option<Pid>, LookupError> {
        let output = self.run(&["show", "--property=MainPID", &format!("user@{uid}.service")])?;
        let main = output.lines().find_map(|line| line.strip_prefix("MainPID="));
        match main.and_then(|pid| pid.parse().ok()) {
            Some(pid) => Ok(Pid::new(pid)),
            None => Err(LookupError::Output(output.trim().escape_debug().to_string())),
        }
    }

    fn run(&self, words: &[&str]) -> Result<String, LookupError> {
        let mut command = Command::new(&self.systemctl);
        command.env_clear().env("LC_ALL", "C").args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| LookupError::Run("systemctl", error))?;
        let status = subprocess::wait(&mut child, self.limit, PAUSE)
            .map_err(|error| LookupError::Run("systemctl", error))?
            .ok_or(LookupError::TimedOut(self.limit))?;
        if !status.success() {
            let message = printed(child.stderr.take()).trim().escape_debug().to_string();
            return Err(LookupError::Systemctl(status, message));
        }
        Ok(printed(child.stdout.take()))
    }
}

/// Returns the oldest child of a process. The kernel lists children in the order in which they were
/// forked or inherited, so the first one became a child before all others.
fn oldest_child(parent: Pid, proc: &mut ProcFs) -> Option<Pid> {
    let mut oldest = None;
    proc.children(parent, |child| {
        oldest.get_or_insert(child);
    });
    oldest
}

#[cfg(test)]
#[path = "lookup_tests.rs"]
mod tests;
