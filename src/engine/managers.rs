//! Processes that wait until systemd has reported the service manager of their user.

use super::{AT_ONCE, Engine};
use crate::event::Nanos;
use crate::sys;

impl Engine {
    /// Evaluates those again whose answer has arrived, or whose time is over.
    pub(super) fn resume_managers(&mut self) {
        let now = sys::monotonic();
        for _ in 0..AT_ONCE {
            let Some(look) = self.placer.managers().take_due(&self.proc, now) else { break };
            self.look(look, None);
        }
    }

    /// Returns when [`Self::resume_managers`] must be called although no answer arrives.
    pub(super) fn managers_due(&self) -> Option<Nanos> {
        self.placer.managers_due()
    }
}
