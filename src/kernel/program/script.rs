//! Detection of scripts: must not open a file that is not a stored, regular one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::sys;

/// `SYSFS_MAGIC` of linux/magic.h.
const SYSFS_MAGIC: u64 = 0x6265_6572;

/// Checks whether a path is a regular file that begins with `#!`.
///
/// The path is the process's own to choose, so it is examined before it is opened. To open a device can have
/// an effect (a watchdog starts, a tape rewinds), and so can a read of a file of the kernel (`trace_pipe_raw`
/// is consumed page by page). Those have no size, or are in sysfs.
pub fn is_script(path: &Path) -> bool {
    let Ok(handle) = open(path, libc::O_PATH) else { return false };
    let is_stored = handle.metadata().is_ok_and(|data| data.is_file() && data.len() >= 2)
        && sys::file_system(handle.as_fd()).is_ok_and(|system| system != SYSFS_MAGIC);
    if !is_stored {
        return false;
    }
    let same = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let Ok(mut file) = open(Path::new(&same), libc::O_NONBLOCK | libc::O_NOCTTY) else {
        return false;
    };
    let mut start = [0; 2];
    file.read_exact(&mut start).is_ok() && start == *b"#!"
}

fn open(path: &Path, flags: libc::c_int) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::errno::Errno;
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn only_stored_files_are_opened_to_see_whether_they_are_scripts() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let [opened, untouched] = [&script, &fifo].map(|path| {
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
            inotify.add_watch(path, AddWatchFlags::IN_OPEN).unwrap();
            inotify
        });
        assert!(is_script(&script) && !is_script(&fifo));
        assert_eq!(opened.read_events().unwrap().len(), 1);
        assert_eq!(untouched.read_events().map(|_| ()), Err(Errno::EAGAIN));
        for path in ["/dev/null", "/proc/self/status", "/sys/kernel/uevent_seqnum", "/"] {
            assert!(!is_script(Path::new(path)));
        }
        fs::write(&script, "#").unwrap();
        assert!(!is_script(&script));
    }
}
