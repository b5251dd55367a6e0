//! Notifications to the service manager by the protocol of sd_notify(3). Must not block: a datagram
//! that cannot be sent is dropped, because the daemon works the same without a listener. A state
//! that matters is sent again with the next datagram.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::event::Nanos;
use crate::policy::Summary;
use crate::telemetry::metrics::Metrics;

/// Minimum interval between two status messages.
const STATUS_NS: u64 = 5_000_000_000;

/// Connection to the service manager that started the daemon.
#[derive(Debug)]
pub(super) struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Interval between two keep-alive messages: half of the configured timeout.
    watchdog: Option<u64>,
    fed: Nanos,
    phase: ServicePhase,
    status: Option<(StatusReport, Nanos)>,
}

/// State of the daemon as last sent to the service manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServicePhase {
    Starting,
    Ready,
    /// Reload in progress, complete when the counter of reloads reaches this value.
    Reloading(u64),
}

/// Values from which the status line is composed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StatusReport {
    summary: Summary,
    placed: u64,
    refused: u64,
    kept_in_unit: u64,
}

impl Notifier {
    /// Creates a notifier from the environment, which only root can set.
    pub(super) fn from_environment() -> Self {
        fn number(name: &str) -> Option<u64> {
            env::var(name).ok()?.parse().ok()
        }
        let own = u64::from(std::process::id());
        // Without WATCHDOG_PID the timeout applies to any process that reads it.
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == own);
        let watchdog = number("WATCHDOG_USEC").filter(|&time| time > 0 && is_ours);
        let socket = env::var_os("NOTIFY_SOCKET");
        Self::new(socket.as_deref(), watchdog)
    }

    /// Creates a notifier. `watchdog` is the timeout in microseconds, after which the service
    /// manager kills an unresponsive daemon.
    fn new(socket: Option<&OsStr>, watchdog: Option<u64>) -> Self {
        let socket = socket.and_then(open);
        // Without a socket there is no receiver for keep-alive messages.
        let watchdog = watchdog.filter(|_| socket.is_some()).map(|time| time.saturating_mul(500));
        let fed = Nanos::default();
        let phase = ServicePhase::Starting;
        let status = None;
        Self { socket, watchdog, fed, phase, status }
    }

    /// Announces that a reload began at `now`.
    pub(super) fn reloading(&mut self, now: Nanos, metrics: &Metrics) {
        let asked = match self.phase {
            // READY=1 has not been sent yet, and will cover these rules as well.
            ServicePhase::Starting => return,
            ServicePhase::Ready => metrics.reloads.get(),
            ServicePhase::Reloading(asked) => asked,
        };
        self.phase = ServicePhase::Reloading(asked + 1);
        let microseconds = now.0 / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// Sends the messages that are due at `now`. `is_settled` means that every process has been
    /// evaluated by the active rules.
    pub(super) fn tick(
        &mut self,
        now: Nanos,
        is_settled: bool,
        summary: &Summary,
        metrics: &Metrics,
    ) {
        if self.socket.is_none() {
            return;
        }
        let is_due = match self.phase {
            ServicePhase::Starting => is_settled,
            ServicePhase::Ready => false,
            ServicePhase::Reloading(asked) => is_settled && metrics.reloads.get() >= asked,
        };
        let report = StatusReport::new(summary, metrics);
        if is_due {
            self.phase = ServicePhase::Ready;
            self.send(&format!("READY=1\n{report}"));
            self.status = Some((report, now));
        } else if self.is_status_due(now, &report) {
            self.send(&report.to_string());
            self.status = Some((report, now));
        }
        self.feed(now);
    }

    /// Announces that the daemon is stopping.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping");
    }

    /// Returns the time at which [`Self::tick`] must be called even without events.
    pub(super) fn next_due(&self) -> Option<Nanos> {
        Some(self.fed.plus(self.watchdog?))
    }

    /// Checks whether a changed status may be sent now. It needs no timer of its own, because the
    /// loop runs every few seconds anyway.
    fn is_status_due(&self, now: Nanos, report: &StatusReport) -> bool {
        self.phase == ServicePhase::Ready
            && self
                .status
                .as_ref()
                .is_some_and(|(last, said)| last != report && now.since(*said) >= STATUS_NS)
    }

    fn feed(&mut self, now: Nanos) {
        if self.watchdog.is_some_and(|every| now.since(self.fed) >= every) {
            self.fed = now;
            self.send("WATCHDOG=1");
        }
    }

    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            // A receiver that is missing or too slow is not an error of the daemon.
            let _sent = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

impl StatusReport {
    fn new(summary: &Summary, metrics: &Metrics) -> Self {
        Self {
            summary: summary.clone(),
            placed: metrics.placed.get(),
            refused: metrics.refused.get(),
            kept_in_unit: metrics.kept_in_unit.get(),
        }
    }
}

impl std::fmt::Display for StatusReport {
    /// Formats the status as `STATUS=213 rules from 14 files, 3 errors; 5021 processes moved`,
    /// followed by refused and suppressed moves, if any.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let s = if self.placed == 1 { "" } else { "es" };
        write!(f, "STATUS={}; {} process{s} moved", self.summary, self.placed)?;
        if self.refused > 0 {
            write!(f, ", {} moves refused by the kernel", self.refused)?;
        }
        if self.kept_in_unit > 0 {
            write!(f, ", {} processes left in their systemd unit", self.kept_in_unit)?;
        }
        f.write_char('\n')
    }
}

/// Opens a socket for an address: a path, or with `@` a name in the abstract namespace. Other
/// address families, which virtual machines use, are ignored.
fn open(address: &OsStr) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok()?,
        [b'/', ..] => SocketAddr::from_pathname(address).ok()?,
        _ => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &Summary =
        &Summary { rules: 213, files: 14, errors: 3, first_error: None, kept: 0 };

    struct Manager {
        socket: UnixDatagram,
        _dir: tempfile::TempDir,
    }

    impl Manager {
        fn new(watchdog: Option<u64>) -> (Self, Notifier) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            (Self { socket, _dir: dir }, Notifier::new(Some(path.as_os_str()), watchdog))
        }

        fn heard(&self) -> Vec<String> {
            let mut buffer = [0; 512];
            let mut heard = Vec::new();
            while let Ok(length) = self.socket.recv(&mut buffer) {
                heard.push(String::from_utf8_lossy(&buffer[..length]).trim().replace('\n', "|"));
            }
            heard
        }
    }

    #[test]
    fn ready_comes_after_the_first_scan_and_once() {
        let (manager, mut notifier) = Manager::new(None);
        let metrics = Metrics::default();
        metrics.reloads.increment();
        notifier.tick(Nanos(1), false, SUMMARY, &metrics);
        notifier.reloading(Nanos(1), &metrics);
        assert!(manager.heard().is_empty());
        notifier.tick(Nanos(2), true, SUMMARY, &metrics);
        notifier.tick(Nanos(3), true, SUMMARY, &metrics);
        let said = "READY=1|STATUS=213 rules from 14 files, 3 errors; 0 processes moved";
        assert_eq!(manager.heard(), [said]);
        assert_eq!(notifier.next_due(), None);
        notifier.stopping();
        assert_eq!(manager.heard(), ["STOPPING=1|STATUS=stopping"]);
    }

    #[test]
    fn a_reload_ends_when_its_rules_are_in_force_and_everybody_was_looked_at() {
        let (manager, mut notifier) = Manager::new(None);
        let metrics = Metrics::default();
        metrics.reloads.increment();
        notifier.tick(Nanos(1), true, SUMMARY, &metrics);
        manager.heard();
        notifier.reloading(Nanos(7000), &metrics);
        notifier.reloading(Nanos(9000), &metrics);
        let said = ["RELOADING=1|MONOTONIC_USEC=7", "RELOADING=1|MONOTONIC_USEC=9"];
        assert_eq!(manager.heard(), said);
        metrics.reloads.increment();
        notifier.tick(Nanos(10_000), true, SUMMARY, &metrics);
        assert!(manager.heard().is_empty(), "the second is still to come");
        metrics.reloads.increment();
        notifier.tick(Nanos(10_000), false, SUMMARY, &metrics);
        assert!(manager.heard().is_empty(), "not every process was evaluated");
        let first_error = Some("/etc/a.toml:7".into());
        let kept = Summary { first_error, kept: 1, ..SUMMARY.clone() };
        notifier.tick(Nanos(10_000), true, &kept, &metrics);
        let said = "READY=1|STATUS=213 rules from 14 files, 3 errors, the first: /etc/a.toml:7 \
                    (1 file kept at last valid version); 0 processes moved";
        assert_eq!(manager.heard(), [said]);
    }

    #[test]
    fn the_status_is_said_when_it_changed_and_not_too_often() {
        let (manager, mut notifier) = Manager::new(None);
        let metrics = Metrics::default();
        notifier.tick(Nanos(1), true, SUMMARY, &metrics);
        manager.heard();
        metrics.placed.increment();
        notifier.tick(Nanos(2), true, SUMMARY, &metrics);
        assert!(manager.heard().is_empty());
        notifier.tick(Nanos(1 + STATUS_NS), true, SUMMARY, &metrics);
        notifier.tick(Nanos(2 + 2 * STATUS_NS), true, SUMMARY, &metrics);
        assert_eq!(manager.heard(), ["STATUS=213 rules from 14 files, 3 errors; 1 process moved"]);
    }

    #[test]
    fn the_watchdog_is_fed_in_half_of_its_time() {
        let (manager, mut notifier) = Manager::new(Some(2_000_000));
        let metrics = Metrics::default();
        notifier.tick(Nanos(5_000_000_000), true, SUMMARY, &metrics);
        assert_eq!(notifier.next_due(), Some(Nanos(6_000_000_000)));
        notifier.tick(Nanos(5_999_999_999), true, SUMMARY, &metrics);
        notifier.tick(Nanos(6_000_000_000), true, SUMMARY, &metrics);
        let fed = manager.heard().iter().filter(|text| *text == "WATCHDOG=1").count();
        assert_eq!(fed, 2);
    }

    #[test]
    fn nobody_who_listens_is_no_error_and_a_full_socket_is_not_waited_for() {
        let metrics = Metrics::default();
        for socket in
            [None, Some("/nonexistent/socket"), Some("vsock:2:1"), Some("@nobody"), Some("")]
        {
            let mut notifier = Notifier::new(socket.map(OsStr::new), Some(1));
            notifier.tick(Nanos(1), true, SUMMARY, &metrics);
            notifier.reloading(Nanos(1), &metrics);
            notifier.stopping();
        }
        let (manager, notifier) = Manager::new(None);
        (0..10_000).for_each(|_| notifier.stopping());
        assert!(manager.heard().len() < 10_000);
    }
}
