//! Scheduling of the detection of external moves, by the trace or by scans.

use std::io;

use super::Engine;
use super::rescan::Urgency;
use crate::engine::kernel::Kernel;
use crate::event::Nanos;

/// Minimum time between two scans for external moves where they are not traced: including the scan
/// itself, a move is detected within 60 s.
pub(crate) const MOVE_SCAN_NS: u64 = 50_000_000_000;
/// Minimum time as a multiple of the duration of the last scan: 1 % of one CPU.
const SCAN_FACTOR: u64 = 100;

impl<K: Kernel> Engine<K> {
    /// Checks whether moves by other processes are found by the trace.
    pub(super) fn traces_moves(&self) -> bool {
        self.options.finds_external_moves && self.kernel.traces_moves()
    }

    /// Reads the trace of moves if that is due in a turn that began at `now`. Without a trace,
    /// requests a scan periodically.
    ///
    /// # Errors
    /// As [`Self::turn`].
    pub(super) fn read_moves(&mut self, now: Nanos) -> io::Result<()> {
        if !self.options.finds_external_moves {
            return Ok(());
        }
        if self.kernel.traces_moves() {
            if self.placer.moves_due(&self.kernel).is_some_and(|due| due <= now) {
                let began = self.kernel.now();
                self.placer.moves().read_if_due(now, &mut self.kernel);
                self.placer.moves().add_cost(self.kernel.now().since(began));
            }
            if self.placer.has_moves() {
                // Their PIDs may have been reused since they were moved, and children that were moved at once have
                // not inherited the rule of their origin yet.
                self.intake.forks_are_due = true;
                let drained =
                    if self.has_heirs() { self.drain_all_forks() } else { self.drain_forks() };
                self.tolerate("reading of forks", drained)?;
            }
            if self.placer.moves().take_needs_scan() {
                self.rescan.want(Urgency::Limited);
            }
            return Ok(());
        }
        let pause =
            self.options.move_scan_ns.max(self.rescan.last_cost().saturating_mul(SCAN_FACTOR));
        match self.scan_for_moves {
            Some(due) if due > now => return Ok(()),
            Some(_) => self.rescan.want(Urgency::Limited),
            None => {}
        }
        self.scan_for_moves = Some(now.plus(pause));
        Ok(())
    }

    /// Returns the time at which [`Self::read_moves`] has work.
    pub(super) fn moves_due(&self) -> Option<Nanos> {
        self.placer.moves_due(&self.kernel).or(self.scan_for_moves)
    }
}
