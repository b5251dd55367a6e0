//! Scan of all processes in `/proc`: at start, on reload and after a loss. It must not read
//! anything of the processes themselves.

use std::io;

use crate::event::Pid;
use crate::kernel::process::ProcFs;

/// Scan in progress. The list is read at once; a process born later inherits the cgroup of its
/// parent, and the fork tracker covers those that need an evaluation.
#[derive(Debug, Default)]
pub struct ProcScan {
    pids: Vec<Pid>,
}

impl ProcScan {
    /// Lists every existing process. Replaces a scan in progress.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn begin(&mut self, proc: &ProcFs) -> io::Result<()> {
        self.pids.clear();
        proc.all(|pid| self.pids.push(pid))?;
        // Taken from the end: oldest first, so that parents come before their children.
        self.pids.reverse();
        Ok(())
    }

    /// Returns the next process of the list.
    pub fn take_next(&mut self) -> Option<Pid> {
        let next = self.pids.pop();
        if self.pids.is_empty() {
            self.pids = Vec::new();
        }
        next
    }

    /// Checks whether processes are left in the list.
    pub fn is_running(&self) -> bool {
        !self.pids.is_empty()
    }
}
