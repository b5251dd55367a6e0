//! Paths below `/proc`, without an allocation.

use std::ffi::CStr;
use std::io::Write;

use crate::event::Pid;

/// Relative path `PID/name` with its NUL, on the stack.
pub(crate) struct ProcPath([u8; 48]);

impl ProcPath {
    /// Returns the path of a file of a process.
    pub(crate) fn new(pid: Pid, name: &str) -> Self {
        Self::format(format_args!("{pid}/{name}"))
    }

    /// Returns the path of a file of a thread, or of the process itself, which shows its leader.
    pub(crate) fn of(pid: Pid, thread: Option<Pid>, name: &str) -> Self {
        match thread {
            Some(thread) => Self::format(format_args!("{pid}/task/{thread}/{name}")),
            None => Self::new(pid, name),
        }
    }

    fn format(text: std::fmt::Arguments<'_>) -> Self {
        let mut bytes = [0; 48];
        // Two PIDs of ten digits, `/task/`, a slash and the longest name, `children`, fit.
        let written = (&mut bytes[..47]).write_fmt(text);
        debug_assert!(written.is_ok());
        Self(bytes)
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}
