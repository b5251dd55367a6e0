//! Tests whether executions can wait on this host. It must not mark a file, because an execution of it would wait.

use std::io;
use std::os::fd::AsFd;

use nix::unistd::geteuid;

use crate::sys::{self, Namespace, fanotify};

/// Checks whether executions can wait on this kernel and, for root, whether this process is allowed to let them wait:
/// another user never is, and cannot find out for the daemon.
///
/// # Errors
/// What is missing, with the remedy.
pub fn probe() -> Result<(), String> {
    let own = sys::pidfd_open(std::process::id());
    let namespace = own.and_then(|own| sys::namespace_of(own.as_fd(), Namespace::Pid));
    let events = fanotify::has_exec_permission();
    let group = if geteuid().is_root() { fanotify::init().map(drop) } else { Ok(()) };
    match missing(namespace.map(drop), events, group) {
        None => Ok(()),
        Some(missing) => Err(missing),
    }
}

/// Returns what is missing after these results: of opening the namespace of a pidfd, of asking for the events, and of
/// creating a group.
fn missing(
    namespace: io::Result<()>,
    events: io::Result<()>,
    group: io::Result<()>,
) -> Option<String> {
    const FILTER: &str = "copy gate.conf, which is part of the package, to /etc/systemd/system/cgruled.service.d, and \
                          restart the service";
    if let Err(error) = namespace {
        return Some(format!(
            "the kernel has no namespaces by pidfd ({error}): use Linux 6.11 or later"
        ));
    }
    if let Err(error) = events {
        return Some(match error.raw_os_error() {
            Some(libc::EPERM) => format!("fanotify_mark: {error}: {FILTER}"),
            _ => format!(
                "the kernel has no permission events ({error}): use one with CONFIG_FANOTIFY_ACCESS_PERMISSIONS=y"
            ),
        });
    }
    let error = group.err()?;
    Some(match error.raw_os_error() {
        Some(libc::EPERM) => format!("fanotify_init: {error}: {FILTER}"),
        _ => format!("fanotify_init: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(error: i32) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(error))
    }

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        assert_eq!(missing(Ok(()), Ok(()), Ok(())), None);
        let table = [
            (failed(libc::ENOTTY), failed(libc::EINVAL), failed(libc::EPERM), "Linux 6.11"),
            (Ok(()), failed(libc::EINVAL), failed(libc::EPERM), "CONFIG_FANOTIFY_ACCESS_PERM"),
            (Ok(()), failed(libc::ENOSYS), failed(libc::ENOSYS), "CONFIG_FANOTIFY_ACCESS_PERM"),
            (Ok(()), failed(libc::EPERM), failed(libc::EPERM), "fanotify_mark: Operation not"),
            (Ok(()), Ok(()), failed(libc::EPERM), "gate.conf"),
            (Ok(()), Ok(()), failed(libc::EMFILE), "fanotify_init: Too many open files"),
        ];
        for (namespace, events, group, expected) in table {
            let found = missing(namespace, events, group).unwrap();
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn this_host_has_an_answer() {
        if let Err(missing) = probe() {
            assert!(missing.contains(": "), "{missing}");
        }
    }
}
