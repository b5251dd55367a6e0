//! What the engine hears on TRAIL, and whom that lets stay where they are.

use std::io;

use super::Engine;
use crate::control::request::{Client, Request};
use crate::event::Uid;
use crate::source::intake::Hearing;
use crate::sys;

impl Engine {
    /// Does what a client asks. Returns whether it may.
    ///
    /// # Errors
    /// As [`Self::turn`].
    pub fn grant(&mut self, request: Request, client: Client) -> io::Result<bool> {
        // Forks until now are judged by the wishes until now.
        self.pass_on()?;
        // A move before the pin that was not evaluated yet is no part of it.
        let pid = request.pid.filter(|_| client.uid != Uid(0));
        if pid.is_some_and(|pid| self.placer.moves().has_unevaluated_move(pid)) {
            self.metrics.sticky_refused.increment();
            return Ok(false);
        }
        let account = self.policy.accountable(client.uid);
        Ok(self.sticky.grant(request, client, account, &mut self.proc))
    }

    /// Lets children inherit that their parent stays where it is. Called between reading WATCH, or the
    /// list of all processes, and looking at anybody.
    pub(super) fn pass_on(&mut self) -> io::Result<()> {
        if !self.sticky.has_heirs() {
            return Ok(());
        }
        self.intake.trail_is_due = true;
        while self.intake.trail_is_due {
            self.follow()?;
        }
        self.sticky.emptied(&mut self.proc);
        self.doubt_if_lost()
    }

    /// Reads TRAIL when a look had an effect, and every now and then.
    pub(super) fn follow(&mut self) -> io::Result<()> {
        match self.intake.follow(|fork| self.sticky.heard(fork))? {
            Hearing::Well => {}
            Hearing::Lost => self.doubt(),
            Hearing::Doubtful => self.desk.provoke(),
        }
        Ok(())
    }

    /// Doubts everything when the kernel dropped events.
    pub(super) fn doubt_if_lost(&mut self) -> io::Result<()> {
        if self.intake.has_lost()? {
            if let Some(narrator) = &self.policy.narrator {
                narrator.lost(sys::monotonic());
            }
            self.doubt();
        }
        Ok(())
    }

    /// Events are missing: all processes are evaluated.
    fn doubt(&mut self) {
        self.rescan.want_after_loss();
    }
}
