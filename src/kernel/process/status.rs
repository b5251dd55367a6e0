//! The text of `/proc/PID/status`. Pure.

use crate::event::{Gid, Pid, Uid};

/// Data of `/proc/PID/status` of a process, or of one of its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStatus {
    /// PID of the process, also when it was requested by the ID of another thread.
    pub process: Pid,
    /// Parent, which is process 1 after the parent exited.
    pub parent: Option<Pid>,
    /// Real UID of the requested thread.
    pub real: Uid,
    /// Effective UID of the requested thread.
    pub effective: Uid,
    /// Real GID of the requested thread.
    pub real_group: Gid,
    /// Set for a kernel thread.
    pub is_kernel_thread: bool,
    /// Set if the thread has exited, whether reaped or not.
    pub has_exited: bool,
    /// PID in its own PID namespace, if that is below the initial one.
    pub inner_pid: Option<Pid>,
}

impl ProcessStatus {
    /// Parses the text of a `status` file. `None` if a line is missing.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let process = Pid::new(number(text, b"Tgid:", 0)?)?;
        let parent = Pid::new(number(text, b"PPid:", 0)?);
        // Before Linux 6.8 without the line: a child of kthreadd, or kthreadd itself.
        let kthreadd = Pid::new(2);
        let is_kthreadds = Some(process) == kthreadd || parent == kthreadd;
        Some(Self {
            process,
            parent,
            real: Uid(number(text, b"Uid:", 0)?),
            effective: Uid(number(text, b"Uid:", 1)?),
            real_group: Gid(number(text, b"Gid:", 0)?),
            is_kernel_thread: number(text, b"Kthread:", 0).map_or(is_kthreadds, |word| word == 1),
            has_exited: matches!(words(text, b"State:").next()?, b"Z" | b"X"),
            inner_pid: words(text, b"NSpid:").skip(1).last().and_then(super::parse_pid),
        })
    }
}

/// Returns the words after `name`. A process can choose its name freely, but the kernel escapes a
/// newline in it.
fn words<'t>(text: &'t [u8], name: &'t [u8]) -> impl Iterator<Item = &'t [u8]> {
    let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name));
    let words = line.unwrap_or_default().split(u8::is_ascii_whitespace);
    words.filter(|word| !word.is_empty())
}

fn number(text: &[u8], name: &[u8], index: usize) -> Option<u32> {
    std::str::from_utf8(words(text, name).nth(index)?).ok()?.parse().ok()
}
