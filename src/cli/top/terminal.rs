//! Terminal in interactive mode: alternate screen, unbuffered keys, signals as input. The previous state must
//! be restored on drop.

use std::io::{self, Stdin, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{self, LocalFlags, SetArg, SpecialCharacterIndices, Termios};

/// Escape sequences for the alternate screen without a cursor, and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const SIGNALS: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGTSTP,
    Signal::SIGWINCH,
];

/// Terminal and its state before the interactive mode.
pub(super) struct Terminal {
    stdin: Stdin,
    before: Termios,
    mask: SigSet,
    signals: SignalFd,
}

/// Result of waiting for input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// No input before the timeout.
    Nothing,
    /// Key as the byte that was read.
    Key(u8),
    /// New window size, or return from the background.
    Resized,
    /// Terminating signal, or end of the terminal.
    End,
}

impl Terminal {
    /// Switches the terminal to interactive mode.
    ///
    /// # Errors
    /// Standard input is not a terminal.
    pub(super) fn take(out: &mut dyn Write) -> io::Result<Self> {
        let stdin = io::stdin();
        let before = termios::tcgetattr(&stdin)?;
        let mut set = SigSet::empty();
        SIGNALS.into_iter().for_each(|signal| set.add(signal));
        let mut mask = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut mask))?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let terminal = Self { stdin, before, mask, signals };
        terminal.enter(out)?;
        Ok(terminal)
    }

    fn enter(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut raw = self.before.clone();
        // ISIG stays on: keys such as Ctrl-C arrive through the signalfd.
        raw.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        raw.control_chars[SpecialCharacterIndices::VMIN as usize] = 0;
        raw.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        termios::tcsetattr(&self.stdin, SetArg::TCSADRAIN, &raw)?;
        out.write_all(ENTER.as_bytes())?;
        out.flush()
    }

    /// Restores the terminal's previous mode and screen.
    fn leave(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(LEAVE.as_bytes())?;
        out.flush()?;
        Ok(termios::tcsetattr(&self.stdin, SetArg::TCSADRAIN, &self.before)?)
    }

    /// Waits for a key or a signal, or until the time has passed.
    ///
    /// # Errors
    /// The terminal failed.
    pub(super) fn wait(&self, at_most: Duration, out: &mut dyn Write) -> io::Result<Input> {
        let milliseconds = at_most.as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
        let keys = self.stdin.as_fd();
        let signals = self.signals.as_fd();
        let mut fds = [keys, signals].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, timeout) {
            Ok(0) | Err(Errno::EINTR) => return Ok(Input::Nothing),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        if fds[1].any() == Some(true) {
            return self.signal(out);
        }
        self.key()
    }

    fn key(&self) -> io::Result<Input> {
        let mut key = [0; 1];
        match nix::unistd::read(&self.stdin, &mut key) {
            Ok(0) => Ok(Input::End),
            Ok(_) => Ok(Input::Key(key[0])),
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(Input::Nothing),
            Err(Errno::EIO) => Ok(Input::End),
            Err(errno) => Err(errno.into()),
        }
    }

    fn signal(&self, out: &mut dyn Write) -> io::Result<Input> {
        let Ok(Some(signal)) = self.signals.read_signal() else { return Ok(Input::Nothing) };
        let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
        if number == Signal::SIGTSTP as i32 {
            self.leave(out)?;
            raise(Signal::SIGSTOP)?;
            self.enter(out)?;
            return Ok(Input::Resized);
        }
        Ok(if number == Signal::SIGWINCH as i32 { Input::Resized } else { Input::End })
    }

    /// Returns columns and lines; 80 and 24 if the terminal reports none.
    pub(super) fn size(&self) -> (usize, usize) {
        size(io::stdout().as_fd())
    }
}

/// Returns columns and lines of a terminal; 80 and 24 if it reports none.
pub(super) fn size(fd: BorrowedFd<'_>) -> (usize, usize) {
    match rustix::termios::tcgetwinsize(fd) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        Ok(_) | Err(_) => (80, 24),
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The caller may still hold the lock on standard output.
        let mut out = Raw;
        let left = self.leave(&mut out);
        let restored = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None);
        if left.is_err() || restored.is_err() {
            eprintln!("cgrulectl: top: cannot restore the terminal: run 'reset'");
        }
    }
}

/// Standard output without lock and buffer.
struct Raw;

impl Write for Raw {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(io::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
