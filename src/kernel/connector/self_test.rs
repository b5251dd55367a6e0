//! The self-test of the connector: a process of its own whose events must arrive.

use std::io;
use std::time::{Duration, Instant};

use super::{Connector, ConnectorError, TESTS};
use crate::event::{Event, EventKind};
use crate::kernel::errno::{can_pass, errno_of};
use crate::sys;

/// Pause after a read that failed for a reason that can pass.
const PAUSE: Duration = Duration::from_millis(1);
/// Number of datagrams that the self-test reads from a socket before it checks its deadline again.
const TEST_READ: usize = 4096;

/// Events of test processes received so far. They may be of different test processes.
#[derive(Debug, Default)]
struct SelfTestResult {
    forked: bool,
    executed: bool,
}

impl Connector {
    /// Runs a short-lived process and expects its fork on the fork socket and its exec on the event
    /// socket within a second.
    pub(super) fn self_test(&mut self) -> Result<(), ConnectorError> {
        // Events of other processes read meanwhile may be dropped: the first scan comes later.
        let mut proven = SelfTestResult::default();
        for _ in 0..TESTS {
            let result = self.test_once(&mut proven);
            // The main loop handles the signal.
            if sys::is_termination_pending() {
                return Ok(());
            }
            // During a flood the events of the test process may be among the dropped ones.
            if !matches!(result, Err(ConnectorError::Silent))
                || self.lost().map_err(|error| ConnectorError::Io("getsockopt", error))? == 0
            {
                return result;
            }
        }
        Err(ConnectorError::Flooded)
    }

    fn test_once(&mut self, proven: &mut SelfTestResult) -> Result<(), ConnectorError> {
        let began = sys::monotonic();
        let pid = run_test_process().map_err(|error| ConnectorError::Io("test process", error))?;
        let ended = sys::monotonic();
        let deadline = Instant::now() + Duration::from_secs(1);
        let SelfTestResult { forked, executed } = proven;
        let mut passing: Option<io::Error> = None;
        while !(*forked && *executed) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let failed = passing.map(|error| ConnectorError::Io("recvmmsg", error));
                return Err(failed.unwrap_or(ConnectorError::Silent));
            }
            passing = None;
            let missing = if *executed { &self.forks } else { &self.events };
            missing.wait(left);
            let mut is_shifted = false;
            let mut hear = |event: Event| match event.what {
                EventKind::Fork { child, .. } if child.get() == pid => {
                    *forked = true;
                    // The kernel stamps events with the clock of the initial time namespace.
                    is_shifted |= event.at < began || event.at > ended;
                }
                EventKind::Exec(process) => *executed |= process.get() == pid,
                EventKind::Fork { .. } | EventKind::Uid(_) | EventKind::Gid(_) => {}
            };
            for socket in [&mut self.forks, &mut self.events] {
                match socket.drain(TEST_READ, &mut hear) {
                    Ok(_) => {}
                    Err(error) if can_pass(errno_of(&error)) => {
                        passing = Some(error);
                        std::thread::sleep(PAUSE);
                    }
                    Err(error) => return Err(ConnectorError::Io("recvmmsg", error)),
                }
            }
            if is_shifted {
                return Err(ConnectorError::TimeNamespace);
            }
        }
        Ok(())
    }
}

/// Runs the own executable with `--version` and waits for it. Returns its PID.
///
/// # Errors
/// It cannot be started.
pub fn run_test_process() -> io::Result<u32> {
    use std::process::{Command, Stdio};
    let mut child = Command::new("/proc/self/exe")
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = child.id();
    child.wait()?;
    Ok(pid)
}
