//! Commands that may hang: waited for up to a limit, their output read without waiting.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Bytes of output that are read.
const MAX_OUTPUT: usize = 1024;

/// The status of a command, asked for after every `pause`. `None` when it took longer than `limit` and was
/// killed.
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

/// What a command printed that has exited: it fits into the pipe. A child of its own may still have that
/// open, so this does not wait for its end.
pub(crate) fn printed(pipe: Option<impl Read + AsFd>) -> String {
    let mut bytes = [0; MAX_OUTPUT];
    let length = pipe.map_or(0, |mut pipe| {
        match fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)) {
            Ok(_) => pipe.read(&mut bytes).unwrap_or_default(),
            Err(_) => 0,
        }
    });
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}
