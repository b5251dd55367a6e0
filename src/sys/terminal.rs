//! Properties of a terminal.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Returns the columns and rows of a terminal.
///
/// # Errors
/// `ENOTTY` if `fd` is not a terminal.
pub fn terminal_size(fd: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request fills a winsize, and `size` is one that lives through the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    super::check(result).map(|_| (size.ws_col, size.ws_row))
}
