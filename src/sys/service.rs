//! Functions of the C library for services: daemonising, syslog, local time.

use std::ffi::CStr;
use std::io;
use std::mem::zeroed;
use std::ptr;

/// Directory for state that is meaningless after a boot, unless systemd names another.
pub const RUNTIME_DIRECTORY: &str = "/run/cgruled";

/// Continues in a child with a new session and `/` as its working directory; the calling process
/// exits with status 0. The umask is unchanged, and standard input, output and error stay open.
///
/// # Errors
/// As fork(2), with nothing done; or the process has other threads, which the child would not have.
pub fn daemonise() -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the process has other threads"));
    }
    // SAFETY: the process has no other thread that could hold a lock at this moment, so the child
    // may do whatever its parent may.
    if unsafe { nix::unistd::fork() }?.is_parent() {
        std::process::exit(0);
    }
    nix::unistd::setsid()?;
    Ok(nix::unistd::chdir("/")?)
}

/// Sets the syslog identity of this process and a facility by its number (`LOG_DAEMON` is 3).
/// Messages carry the PID; they go to the console when syslog is not available.
pub fn open_syslog(name: &'static CStr, facility: u8) {
    let options = libc::LOG_CONS | libc::LOG_PID;
    // SAFETY: the name, of which the C library keeps the pointer, lives as long as the process.
    unsafe { libc::openlog(name.as_ptr(), options, libc::c_int::from(facility) << 3) };
}

/// Sends a message to syslog with a severity from 0 to 7. May block.
pub fn syslog(severity: u8, message: &CStr) {
    let severity = libc::c_int::from(severity & 7);
    // SAFETY: the format takes one NUL-terminated string, which is present.
    unsafe { libc::syslog(severity, c"%s".as_ptr(), message.as_ptr()) };
}

/// Returns the local time in the form of ctime(3), without the line end: `Tue Nov 24 09:19:09
/// 2026`.
pub fn local_time() -> String {
    // SAFETY: with a null pointer the call only returns the time.
    let now = unsafe { libc::time(ptr::null_mut()) };
    // SAFETY: tm is integers and a pointer, for which zero is a value.
    let mut time: libc::tm = unsafe { zeroed() };
    // SAFETY: both pointers are to live objects of their types.
    unsafe { libc::localtime_r(&raw const now, &raw mut time) };
    let mut text = [0u8; 64];
    let format = c"%a %b %e %H:%M:%S %Y";
    // SAFETY: the pointer and length describe `text`, the format ends with NUL, and `time` is filled.
    let length = unsafe {
        libc::strftime(text.as_mut_ptr().cast(), text.len(), format.as_ptr(), &raw const time)
    };
    String::from_utf8_lossy(&text[..length]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_is_as_ctime_has_it() {
        let text = local_time();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!((text.len(), words.len(), words[3].len()), (24, 5, 8), "{text}");
    }

    #[test]
    fn nobody_forks_among_threads() {
        let refused = std::thread::spawn(daemonise).join().unwrap();
        assert!(refused.is_err());
    }
}
