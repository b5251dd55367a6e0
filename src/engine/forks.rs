//! Forks read from the fork socket, loss of events, and what processes inherit by fork.

use std::io;

use super::Engine;
use super::intake::ForkStatus;
use super::job::Evaluation;
use super::rescan::Urgency;
use crate::control::request::{PinClient, PinRequest};
use crate::engine::kernel::Kernel;
use crate::event::{Cause, Uid};
use crate::tracking::queue::EvaluationRequest;

impl<K: Kernel> Engine<K> {
    /// Handles a request of a client of the sticky socket. Returns whether it was granted.
    ///
    /// # Errors
    /// As [`Self::turn`].
    pub fn grant(&mut self, request: PinRequest, client: PinClient) -> io::Result<bool> {
        // Forks up to now are checked against the sticky processes up to now.
        let passed = self.pass_on();
        if self.tolerate("reading of forks", passed)?.is_none() {
            self.metrics.sticky_refused.increment();
            return Ok(false);
        }
        // A move before the pin that was not evaluated yet is not part of the pin.
        let pid = request.pid.filter(|_| client.uid != Uid(0));
        if pid.is_some_and(|pid| self.placer.moves().has_unevaluated_move(pid, &mut self.kernel)) {
            self.metrics.sticky_refused.increment();
            return Ok(false);
        }
        let account = self.policy.accountable(client.uid);
        Ok(self.sticky.grant(request, client, account, &mut self.kernel))
    }

    /// Checks whether children inherit pins, the programs of ancestors or the rule of their origin.
    pub(super) const fn has_heirs(&self) -> bool {
        self.sticky.has_descendants() || self.ancestry.is_active() || self.placer.has_heirs()
    }

    /// Passes pins, the programs of ancestors and rules of origins on to children. Called after the event socket or the list
    /// of all processes was read, and before any evaluation.
    pub(super) fn pass_on(&mut self) -> io::Result<()> {
        if !self.has_heirs() {
            return Ok(());
        }
        self.drain_all_forks()?;
        self.sticky.emptied(&mut self.kernel);
        self.ancestry.emptied(&mut self.kernel);
        self.placer.origins().emptied(&mut self.kernel);
        self.resync_if_lost()
    }

    /// Before events are read: what the last read returned may be evaluated by now.
    pub(super) fn note_evaluated(&mut self) {
        if !self.ancestry.is_active() {
            return;
        }
        let is_done = self.intake.batch.is_empty()
            && self.intake.batch.completed() == self.intake.batch.begun();
        if is_done && self.executables.is_idle() && self.answered.is_empty() {
            self.ancestry.evaluated(self.events_read_from);
        }
        self.events_read_from = self.kernel.now();
    }

    /// Reads the fork socket until it is empty.
    pub(super) fn drain_all_forks(&mut self) -> io::Result<()> {
        self.intake.forks_are_due = true;
        while self.intake.forks_are_due {
            self.drain_forks()?;
        }
        Ok(())
    }

    /// Reads the fork socket after an evaluation took effect, and periodically.
    pub(super) fn drain_forks(&mut self) -> io::Result<()> {
        let traces_moves = self.traces_moves();
        let Self { kernel, sticky, ancestry, placer, answered, gate, .. } = self;
        let status = self.intake.drain_forks(kernel, |fork, now, is_evaluated| {
            let births =
                [sticky.heard(fork, now), ancestry.heard(fork), placer.origins().heard(fork)];
            if births.into_iter().any(|birth| birth.changes_evaluation(is_evaluated)) {
                let evaluation = EvaluationRequest::at_once(fork.child, Cause::SCAN, now);
                answered.push_back(Evaluation::new(evaluation));
            }
            gate.heard(fork);
            if traces_moves {
                placer.moves().forked(fork);
            }
        })?;
        self.ancestry.identify(&mut self.kernel);
        if self.ancestry.take_withdrawn() {
            self.rescan.want(Urgency::Limited);
        }
        match status {
            ForkStatus::Well => {}
            ForkStatus::Lost => self.doubt(),
            ForkStatus::Doubtful => self.kernel.provoke(),
        }
        Ok(())
    }

    /// Counts the losses up to now, before the counters are printed at the end: the kernel is otherwise not
    /// asked for each event.
    pub fn count_losses(&mut self) {
        if let Err(error) = self.intake.has_lost(&mut self.kernel, true) {
            ::log::debug!("cannot read the number of lost events: {error}");
        }
    }

    /// Requests a scan if the kernel dropped events.
    pub(super) fn resync_if_lost(&mut self) -> io::Result<()> {
        let must_ask = self.has_heirs();
        let has_lost = self.intake.has_lost(&mut self.kernel, must_ask);
        match self.tolerate("number of lost events", has_lost)? {
            Some(true) => {
                if let Some(observer) = &self.policy.observer {
                    observer.lost(self.kernel.now());
                }
                self.doubt();
            }
            Some(false) if must_ask && !self.rescan.has_lost() => {
                let now = self.kernel.now();
                self.sticky.confirm(now);
                self.ancestry.confirm(now);
                self.placer.origins().confirm(now);
            }
            Some(false) | None => {}
        }
        Ok(())
    }

    /// Requests a scan of all processes because events are missing.
    fn doubt(&mut self) {
        self.rescan.want_after_loss();
    }
}
