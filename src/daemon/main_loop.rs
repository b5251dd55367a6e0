//! The main loop: a turn of the engine, then a wait for process events, timers, signals, replies, files and clients.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollTimeout};
use nix::sys::signal::Signal;

use super::leader::{Duty, Next};
use super::{Daemon, DaemonError, LoopSource};
use crate::engine::TurnResult;
use crate::event::Nanos;
use crate::kernel::program::ExeRead;
use crate::sys;

impl Duty for Daemon {
    type End = Result<(), DaemonError>;

    fn begin(&mut self) {
        self.scheduling.begin(sys::monotonic());
    }

    fn work(&mut self) -> Next<Self::End> {
        loop {
            let result = match self.engine.turn() {
                Ok(TurnResult::Read(request)) => return Next::Read(request),
                Ok(result) => result,
                Err(error) => return Next::End(Err(DaemonError::Run("process events", error))),
            };
            match self.wait(&result) {
                Ok(false) => {}
                Ok(true) => return Next::End(Ok(())),
                Err(failure) => return Next::End(Err(failure)),
            }
        }
    }

    fn supply(&mut self, read: &ExeRead) {
        self.engine.supply(read);
    }

    fn read_is_late(&mut self) {
        self.engine.read_is_late();
    }
}

impl Daemon {
    /// Serves the clocks that are due, and waits for events. Returns whether to stop the daemon.
    fn wait(&mut self, result: &TurnResult) -> Result<bool, DaemonError> {
        // Read once for all clocks. Under load the loop runs often enough for their precision.
        let now = sys::monotonic();
        if *result != TurnResult::Quiet || now >= self.clocks_due {
            self.say_ready();
            self.serve_clocks(now);
            self.clocks_due = self.next_clock(now);
        }
        let is_busy = *result == TurnResult::Busy;
        let timeout = if is_busy {
            EpollTimeout::ZERO
        } else {
            self.timer.timeout(self.engine.next_turn().min(self.clocks_due), now)
        };
        self.scheduling.check(now);
        let pause = self.engine.pause(now);
        self.activity.waits(now);
        if pause > 0 && !is_busy {
            std::thread::sleep(Duration::from_nanos(pause));
        }
        let mut events = [EpollEvent::empty(); 6];
        let ready = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(DaemonError::Run("epoll", errno.into())),
        };
        self.activity.works(sys::monotonic());
        self.serve(&events[..ready])
    }

    /// Serves everything except the engine. Returns whether to stop the daemon.
    fn serve(&mut self, events: &[EpollEvent]) -> Result<bool, DaemonError> {
        for event in events {
            if event.data() == LoopSource::Events as u64 {
                continue;
            }
            if event.data() == LoopSource::Timer as u64 {
                self.timer.expired();
                continue;
            }
            self.engine.expect_other_work();
            self.clocks_due = Nanos(0);
            if event.data() == LoopSource::Signals as u64 && self.serve_signals() {
                self.notifier.stopping();
                self.engine.count_losses();
                return Ok(true);
            }
            if event.data() == LoopSource::Answers as u64 {
                self.engine.take_answers();
            }
            if event.data() == LoopSource::Cgred as u64 {
                self.serve_clients()?;
            }
            if event.data() == LoopSource::Files as u64 {
                self.files.read(sys::monotonic());
            }
        }
        Ok(false)
    }

    fn serve_clients(&mut self) -> Result<(), DaemonError> {
        let Self { engine, cgred: Some(cgred), .. } = self else { return Ok(()) };
        let mut result = Ok(());
        cgred.serve(|request, client| match engine.grant(request, client) {
            Ok(is_granted) => is_granted,
            Err(error) => {
                result = Err(DaemonError::Run("process events", error));
                false
            }
        });
        result
    }

    /// Handles pending signals. Returns whether to stop the daemon.
    fn serve_signals(&mut self) -> bool {
        let mut ends = false;
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match i32::try_from(signal.ssi_signo).map_or(Err(Errno::EINVAL), Signal::try_from) {
                Ok(Signal::SIGTERM | Signal::SIGINT) => ends = true,
                _ => self.reload(),
            }
        }
        ends
    }
}
