//! What the kernel can do.

use std::os::fd::AsFd;
use std::time::Instant;

use nix::unistd::geteuid;

use super::Finding;
use crate::source::connector::{Connector, Unusable};
use crate::source::moves::{self, MoveTrace};
use crate::sys;

/// Bytes of the buffers of a test.
const BUFFER: usize = 1 << 20;
/// The first kernel that sends a listener only what he asks for.
const MASK: (u32, u32) = (6, 6);

pub(super) fn findings() -> Vec<Finding> {
    vec![version(), process_facts(), events(), moves()]
}

fn version() -> Finding {
    let release = nix::sys::utsname::uname()
        .map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned());
    match parsed(&release) {
        Some(version) if version >= MASK => {
            Finding::ok("kernel", format!("{release}: sends only the events that are asked for"))
        }
        Some(_) => Finding::note(
            "kernel",
            format!("{release}: queues all process events; ours are picked out by a filter"),
            "nothing needs to be done; since Linux 6.6 it costs the machine less",
        ),
        None => Finding::ok("kernel", format!("\"{release}\": its version is not understood")),
    }
}

/// The first two numbers.
fn parsed(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn process_facts() -> Finding {
    let own = sys::pidfd_open(std::process::id());
    match own.and_then(|own| sys::pidfd_info(own.as_fd())) {
        Ok(_) => Finding::ok("facts", "one call tells user, group and cgroup of a process"),
        Err(_) => Finding::note(
            "facts",
            "the kernel has no PIDFD_GET_INFO: facts of processes are read from /proc",
            "nothing needs to be done; since Linux 6.13 each look costs less",
        ),
    }
}

/// Whether the daemon would hear of processes.
fn events() -> Finding {
    if !geteuid().is_root() {
        let advice =
            "run cgrulectl doctor as root to find out whether the kernel reports processes";
        return Finding::note("events", "not tried", advice);
    }
    let start = Instant::now();
    match Connector::open(BUFFER) {
        Ok(_) => {
            let milliseconds = start.elapsed().as_millis();
            let text =
                format!("the kernel reports processes (a test process within {milliseconds} ms)");
            Finding::ok("events", text)
        }
        Err(unusable) => Finding::wrong("events", unusable.to_string(), advice(&unusable)),
    }
}

/// Whether external moves can be traced.
fn moves() -> Finding {
    if !geteuid().is_root() {
        let advice = "run cgrulectl doctor as root to find out whether moves by others are traced";
        return Finding::note("moves", "not tried", advice);
    }
    match moves::tracing_directory().and_then(|directory| MoveTrace::open(&directory)) {
        Ok(_) => Finding::ok("moves", "the kernel traces moves of processes by others"),
        Err(error) => Finding::note(
            "moves",
            format!(
                "external moves are found by scans, within 60 s and without the mover; those of single threads, \
                 and of processes that were neither placed nor found by an earlier scan, are not reported: {error}"
            ),
            "mount tracefs at /sys/kernel/tracing and let the daemon write in instances/ of it",
        ),
    }
}

const fn advice(unusable: &Unusable) -> &'static str {
    match unusable {
        Unusable::NoConnector(_) => "use a kernel with CONFIG_CONNECTOR=y and CONFIG_PROC_EVENTS=y",
        Unusable::NetworkNamespace | Unusable::Ignored | Unusable::Silent => {
            "run the daemon on the host, in its first namespaces"
        }
        Unusable::Refused(_) | Unusable::Io(..) => "give the daemon CAP_NET_ADMIN",
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
