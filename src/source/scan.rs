//! All processes of `/proc` as looks: at start, on reload and after a loss.

use std::io;

use crate::event::Pid;
use crate::process::Proc;

/// A scan in progress. The list is taken at once; a process born later inherits the group of its
/// parent, and whatever is missed in between is on the trail.
#[derive(Debug, Default)]
pub struct Scan {
    pids: Vec<Pid>,
}

impl Scan {
    /// Lists every process there is now. Replaces a scan in progress.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn begin(&mut self, proc: &Proc) -> io::Result<()> {
        self.pids.clear();
        proc.all(|pid| self.pids.push(pid))?;
        // Taken from the end: oldest first, so that parents come before their children.
        self.pids.reverse();
        Ok(())
    }

    /// The next process.
    pub fn take_next(&mut self) -> Option<Pid> {
        let next = self.pids.pop();
        if self.pids.is_empty() {
            self.pids = Vec::new();
        }
        next
    }

    /// Whether any is left.
    pub fn is_running(&self) -> bool {
        !self.pids.is_empty()
    }
}
