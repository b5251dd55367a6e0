//! Commands that may hang: waits up to a limit, and reads output without blocking.
#![deny(unsafe_code)]

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Maximum number of output bytes read.
const MAX_OUTPUT: usize = 1024;

/// Waits for a command, polling its status every `pause`. Returns `None` after it took longer than
/// `limit` and was killed.
///
/// # Errors
/// As waitpid(2) and kill(2).
pub(crate) fn wait(
    child: &mut Child,
    limit: Duration,
    pause: Duration,
) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(pause);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// Returns the output of a command that has exited, up to the capacity of the pipe.
pub(crate) fn printed(pipe: Option<impl Read + AsFd>) -> String {
    // A child of the command may still have the pipe open, so this does not wait for the end of the stream.
    let mut bytes = [0; MAX_OUTPUT];
    let length = pipe.map_or(0, |mut pipe| {
        match fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)) {
            Ok(_) => pipe.read(&mut bytes).unwrap_or_default(),
            Err(_) => 0,
        }
    });
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}
