//! Error numbers of the kernel: which of them can pass without a change by the administrator.

use nix::errno::Errno;

pub use crate::sys::errno as errno_of;

/// Checks whether an error can disappear without a change of the call: a lack of memory,
/// descriptors, processes or space, and interruptions.
pub const fn can_pass(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EAGAIN
            | Errno::EINTR
            | Errno::ENOMEM
            | Errno::ENOBUFS
            | Errno::EMFILE
            | Errno::ENFILE
            | Errno::ENOSPC
            | Errno::EDQUOT
            | Errno::EBUSY
            | Errno::EIO
    )
}
