//! Checks of the kernel's interfaces that the daemon uses.

use std::os::fd::AsFd;
use std::time::Instant;

use nix::unistd::geteuid;

use super::Finding;
use crate::kernel::connector::{Connector, ConnectorError};
use crate::kernel::moves::{self, MoveTrace};
use crate::sys;

/// Bytes of the socket buffers of a test.
const BUFFER: usize = 1 << 20;
/// First kernel version that delivers only the subscribed event types.
const MASK: (u32, u32) = (6, 6);

pub(super) fn findings() -> Vec<Finding> {
    vec![version(), process_facts(), events(), moves()]
}

fn version() -> Finding {
    let release = nix::sys::utsname::uname()
        .map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned());
    match parsed(&release) {
        Some(version) if version >= MASK => {
            Finding::ok("kernel", format!("{release}: delivers only the subscribed events"))
        }
        Some(_) => Finding::note(
            "kernel",
            format!("{release}: queues all process events; a socket filter drops the others"),
            "nothing needs to be done; since Linux 6.6 the overhead is lower",
        ),
        None => Finding::ok("kernel", format!("\"{release}\": unknown version")),
    }
}

/// Returns the first two numbers of a release.
fn parsed(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn process_facts() -> Finding {
    let own = sys::pidfd_open(std::process::id());
    match own.and_then(|own| sys::pidfd_info(own.as_fd())) {
        Ok(_) => Finding::ok("facts", "one call returns user, group and cgroup of a process"),
        Err(_) => Finding::note(
            "facts",
            "the kernel has no PIDFD_GET_INFO: attributes of processes are read from /proc",
            "nothing needs to be done; since Linux 6.13 each evaluation costs less",
        ),
    }
}

/// Tests whether the kernel delivers process events.
fn events() -> Finding {
    if !geteuid().is_root() {
        let advice =
            "run cgrulectl doctor as root to test whether the kernel reports process events";
        return Finding::note("events", "not tested", advice);
    }
    let start = Instant::now();
    match Connector::open(BUFFER) {
        Ok(_) => {
            let milliseconds = start.elapsed().as_millis();
            let text =
                format!("the kernel reports process events (a test event in {milliseconds} ms)");
            Finding::ok("events", text)
        }
        Err(unusable) => Finding::wrong("events", unusable.to_string(), advice(&unusable)),
    }
}

/// Tests whether external moves can be traced.
fn moves() -> Finding {
    if !geteuid().is_root() {
        let advice = "run cgrulectl doctor as root to test whether external moves can be traced";
        return Finding::note("moves", "not tested", advice);
    }
    match moves::tracing_directory().and_then(|directory| MoveTrace::open(&directory)) {
        Ok(_) => Finding::ok("moves", "external moves are traced by the kernel"),
        Err(error) => Finding::note(
            "moves",
            format!(
                "external moves are found within 60 s, by scans: {error}. Not reported are the mover, moves of \
                 single threads, and moves of processes that were neither placed nor found by an earlier scan"
            ),
            "mount tracefs at /sys/kernel/tracing, and let the daemon write to its directory instances",
        ),
    }
}

const fn advice(unusable: &ConnectorError) -> &'static str {
    match unusable {
        ConnectorError::NoConnector(_) => {
            "use a kernel with CONFIG_CONNECTOR=y and CONFIG_PROC_EVENTS=y"
        }
        ConnectorError::NetworkNamespace
        | ConnectorError::TimeNamespace
        | ConnectorError::Ignored
        | ConnectorError::Silent => "run the daemon on the host, in the initial namespaces",
        ConnectorError::Flooded => "increase receive_buffer, or repeat the check later",
        ConnectorError::Refused(_) | ConnectorError::Io(..) => "give the daemon CAP_NET_ADMIN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(parsed("6.18.44-fc"), Some((6, 18)));
        assert!(parsed("6.6-rc1") >= Some(MASK) && parsed("5.10.0") < Some(MASK));
        assert_eq!(parsed("linux"), None);
    }

    #[test]
    fn every_question_is_answered() {
        let topics: Vec<&str> = findings().iter().map(|finding| finding.topic).collect();
        assert_eq!(topics, ["kernel", "facts", "events", "moves"]);
    }
}
