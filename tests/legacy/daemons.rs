//! Runs our daemon and cgrulesengd in the foreground.

use std::fs;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{BASE, PATIENCE, eventually};

/// The daemon under test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    Ours,
    Original,
}

impl Which {
    /// Returns both daemons, or ours alone where cgrulesengd is not installed. A package of ours
    /// installs a program of the same name.
    pub(crate) fn installed() -> Vec<Self> {
        let text = fs::read(Self::Original.program()).unwrap_or_default();
        if text.windows(12).any(|part| part == b"libcgroup.so") {
            return vec![Self::Ours, Self::Original];
        }
        println!("no cgrulesengd of libcgroup: only our daemon is tested");
        vec![Self::Ours]
    }

    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Ours => env!("CARGO_BIN_EXE_cgrulesengd"),
            Self::Original => "/usr/sbin/cgrulesengd",
        }
    }
}

/// A daemon in the foreground; stopped on drop.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    pub(crate) fn start(which: Which, words: &[&str]) -> Self {
        let _absent = fs::remove_file(Self::log_file());
        let output = || fs::File::create(format!("{BASE}/said")).unwrap();
        let mut command = Command::new(which.program());
        command.args(["-n", "-f", &Self::log_file()]).args(words).stdin(Stdio::null());
        Self { child: command.stdout(output()).stderr(output()).spawn().unwrap() }
    }

    fn log_file() -> String {
        format!("{BASE}/log")
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(Self::log_file()).unwrap_or_default()).into_owned()
    }

    /// Returns the exit status, if the daemon has exited.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Stops the daemon with SIGSTOP; returns when all of its threads have stopped.
    pub(crate) fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        let stat = format!("/proc/{}/stat", self.child.id());
        assert!(eventually(PATIENCE, || fs::read_to_string(&stat).unwrap().contains(") T ")));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::SIGCONT);
            self.signal(Signal::SIGTERM);
            if !eventually(Duration::from_secs(5), || self.ended().is_some()) {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}---", self.log());
        }
    }
}
