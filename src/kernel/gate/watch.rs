//! The process that watches the daemon while executions may wait. It must need nothing from the daemon, and must not use a
//! descriptor of the gate, which would keep it closed after the daemon has exited.
//!
//! When the daemon exits, the kernel lets all executions go on. While it is stopped, by SIGSTOP or a tracer, nobody answers
//! them: then this process kills it, and the service manager starts it again. It is the executable of the daemon with
//! a first argument that users do not need.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;

use crate::sys;

/// First argument of the process.
const ARGUMENT: &str = "--watch-gate";
/// Sign of life of a daemon with gated files: another one follows within a second.
pub(super) const BEAT: u8 = b'b';
/// Sign of life of a daemon without gated files, after which none must follow.
pub(super) const IDLE: u8 = b'i';

/// Time without a sign of life after which the state of the daemon is read.
const SILENCE_MS: u16 = 1000;
/// Time between two such reads. The first one counts for nothing: after a pause of the whole machine the daemon may be
/// about to run.
const RECHECK_MS: u16 = 100;
/// Time without a sign of life after which the daemon is killed in any state: at most this long it may lack CPU time.
const LIMIT_MS: u16 = 10_000;

/// Starts the watching process for a thread of this process, which gives the signs of life. Returns it with the pipe for
/// these.
///
/// # Errors
/// As pipe(2), pidfd_open(2) and execve(2).
pub(super) fn start(program: &Path, thread: u32) -> io::Result<(Child, OwnedFd)> {
    let own = std::process::id();
    let (signs, heart) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // Standard input and output are the only descriptors that a child of this process inherits.
    let child = Command::new(program)
        .args([ARGUMENT.to_owned(), own.to_string(), thread.to_string()])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(signs))
        .stdout(Stdio::from(sys::pidfd_open(own)?))
        .spawn()?;
    Ok((child, heart))
}

/// Runs the watching process if the command line, with the program name, asks for it. Returns `true` when it has ended.
pub fn watch_if_asked(mut words: impl Iterator<Item = OsString>) -> bool {
    if words.nth(1).is_none_or(|word| word != ARGUMENT) {
        return false;
    }
    let mut numbers = words.map(|word| word.to_str().and_then(|word| word.parse::<u32>().ok()));
    if let (Some(Some(process)), Some(Some(thread))) = (numbers.next(), numbers.next()) {
        // Blocked signals are inherited.
        let _unblocked = SigSet::empty().thread_set_mask();
        let stat = format!("/proc/{process}/task/{thread}/stat");
        watch(io::stdin().as_fd(), io::stdout().as_fd(), || state(OsStr::new(&stat)));
    }
    true
}

/// Returns the state of a thread: field 3 of its `stat`, as proc_pid_stat(5) lists it.
fn state(stat: &OsStr) -> Option<u8> {
    let text = fs::read(stat).ok()?;
    // The name, field 2, is in parentheses and may contain any byte.
    let end = text.iter().rposition(|&byte| byte == b')')?;
    text.get(end + 2).copied()
}

/// Watches the process of `daemon` until it exits or closes the pipe `signs`, and kills it when it is stopped.
fn watch(signs: BorrowedFd<'_>, daemon: BorrowedFd<'_>, state: impl Fn() -> Option<u8>) {
    let mut patience = Patience::default();
    loop {
        let mut fds = [daemon, signs].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, patience.wait()) {
            Ok(0) => {
                if patience.is_over(state()) {
                    break;
                }
                continue;
            }
            Err(Errno::EINTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        if fds[0].revents().is_some_and(|found| !found.is_empty()) {
            return;
        }
        let mut bytes = [0; 512];
        match nix::unistd::read(signs, &mut bytes) {
            Ok(0) => return,
            Ok(length) => patience = Patience::after(bytes[length - 1]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => return,
        }
    }
    let state = state().map_or('?', char::from);
    eprintln!(
        "cgruled: the daemon did not run for {} ms (state {state}), and executions of gated files wait for it: killing it",
        patience.waited
    );
    // It has exited meanwhile.
    let _killed = sys::pidfd_kill(daemon);
}

/// Time since the last sign of life.
#[derive(Debug, Default, PartialEq, Eq)]
struct Patience {
    is_gated: bool,
    waited: u16,
}

impl Patience {
    fn after(sign: u8) -> Self {
        Self { is_gated: sign == BEAT, waited: 0 }
    }

    /// Returns the time of the next wait.
    fn wait(&self) -> PollTimeout {
        match (self.is_gated, self.waited) {
            (false, _) => PollTimeout::NONE,
            (true, 0) => PollTimeout::from(SILENCE_MS),
            (true, _) => PollTimeout::from(RECHECK_MS),
        }
    }

    /// Counts a wait without a sign of life. Returns `true` if the daemon must be killed, with its thread in this state.
    fn is_over(&mut self, state: Option<u8>) -> bool {
        if !self.is_gated {
            return false;
        }
        let is_first = self.waited == 0;
        self.waited += if is_first { SILENCE_MS } else { RECHECK_MS };
        let is_stopped = matches!(state, Some(b'T' | b't'));
        self.waited >= LIMIT_MS || is_stopped && !is_first
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_stopped_daemon_is_killed_after_a_second_and_a_starved_one_after_ten() {
        let count = |state: &dyn Fn(u32) -> Option<u8>| {
            let mut patience = Patience::after(BEAT);
            (0..).find(|&turn| patience.is_over(state(turn))).map(|_| patience.waited)
        };
        assert_eq!(count(&|_| Some(b'T')), Some(1100));
        assert_eq!(count(&|_| Some(b't')), Some(1100));
        assert_eq!(count(&|turn| Some(if turn == 0 { b'T' } else { b'R' })), Some(10_000));
        assert_eq!(count(&|turn| Some(if turn < 5 { b'R' } else { b'T' })), Some(1500));
        assert_eq!(count(&|_| Some(b'D')), Some(10_000));
        assert_eq!(count(&|_| None), Some(10_000));
        let mut patience = Patience::after(IDLE);
        assert_eq!(patience.wait(), PollTimeout::NONE);
        assert!(!patience.is_over(Some(b'T')));
    }

    #[test]
    fn other_command_lines_are_left_to_the_program() {
        for words in
            [&["cgruled"][..], &[], &["cgruled", "--check"], &["cgruled", "a", "--watch-gate"]]
        {
            assert!(!watch_if_asked(words.iter().map(OsString::from)), "{words:?}");
        }
        assert!(watch_if_asked(["cgruled", "--watch-gate", "x", "1"].iter().map(OsString::from)));
    }

    /// Runs the watch on a process that sleeps, which `act` ends or does not.
    fn watched(act: impl FnOnce(OwnedFd, &Child)) -> (Duration, Option<i32>) {
        use std::os::unix::process::ExitStatusExt;
        let mut child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pidfd = sys::pidfd_open(child.id()).unwrap();
        let (signs, heart) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        let stat = format!("/proc/{0}/task/{0}/stat", child.id());
        let begin = Instant::now();
        act(heart, &child);
        watch(signs.as_fd(), pidfd.as_fd(), || state(OsStr::new(&stat)));
        let time = begin.elapsed();
        let status = child.try_wait().unwrap();
        if status.is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        (time, status.and_then(|status| status.signal()))
    }

    #[test]
    fn the_watch_ends_with_the_pipe_or_the_daemon() {
        let closed = watched(|heart, _| {
            nix::unistd::write(&heart, &[BEAT]).unwrap();
        });
        assert_eq!(closed.1, None);
        let mut kept = None;
        watched(|heart, child| {
            nix::unistd::write(&heart, &[IDLE]).unwrap();
            kept = Some(heart);
            sys::pidfd_kill(sys::pidfd_open(child.id()).unwrap().as_fd()).unwrap();
        });
    }
}
