//! Reasons why the proc connector is unusable.

use std::io;

use nix::errno::Errno;

use crate::kernel::errno::can_pass;
use crate::sys;

/// Reason why the proc connector is unusable, as one sentence for the administrator.
#[derive(Debug)]
pub enum ConnectorError {
    /// The kernel was built without it.
    NoConnector(io::Error),
    /// The network namespace is not the initial one.
    NetworkNamespace,
    /// The subscription was ignored: PID or user namespace, or no `CONFIG_PROC_EVENTS`.
    Ignored,
    /// The clock is not that of the host, with which the kernel stamps events.
    TimeNamespace,
    /// The subscription succeeded, but the event of a test process did not arrive.
    Silent,
    /// The events of the self-test were among those that the kernel dropped, each time.
    Flooded,
    /// The subscription failed with this errno.
    Refused(u32),
    /// Any other failure of a system call.
    Io(&'static str, io::Error),
}

impl ConnectorError {
    /// Checks whether another attempt can succeed on the same host.
    pub fn can_pass(&self) -> bool {
        match self {
            Self::Flooded => true,
            Self::NoConnector(error) | Self::Io(_, error) => can_pass(sys::errno(error)),
            Self::Refused(errno) => {
                can_pass(Errno::from_raw(i32::try_from(*errno).unwrap_or_default()))
            }
            Self::NetworkNamespace | Self::Ignored | Self::Silent | Self::TimeNamespace => false,
        }
    }
}

impl std::fmt::Display for ConnectorError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoConnector(error) => write!(
                f,
                "this kernel has no proc connector ({error}): it needs CONFIG_CONNECTOR and CONFIG_PROC_EVENTS"
            ),
            Self::NetworkNamespace => f.write_str(
                "process events are sent only to the initial network namespace, and this is another: run cgruled on the host, without PrivateNetwork=yes or a container's network",
            ),
            Self::Ignored => f.write_str(
                "the kernel ignored the subscription to process events: it lacks CONFIG_PROC_EVENTS, or this is a container with its own PID or user namespace; run cgruled on the host",
            ),
            Self::Silent => f.write_str(
                "the kernel accepted the subscription but reported no event of a test process within a second: this is another PID or user namespace, or the proc connector of this kernel is broken",
            ),
            Self::TimeNamespace => f.write_str(
                "the monotonic clock is not that of the host: this is another time namespace; run cgruled on the host",
            ),
            Self::Flooded => f.write_str(
                "so many process events occur that the kernel drops those of the self-test: increase receive_buffer",
            ),
            Self::Refused(errno) => write!(
                f,
                "the kernel refused the subscription to process events: {}",
                io::Error::from_raw_os_error(i32::try_from(*errno).unwrap_or(0))
            ),
            Self::Io(call, error) => write!(f, "cannot receive process events: {call}: {error}"),
        }
    }
}
