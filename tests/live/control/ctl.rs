//! `cgrulectl` as a user runs it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::SOCKET;
use crate::harness::PATIENCE;

/// What a command said and how it ended.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) code: i32,
    pub(super) out: String,
    pub(super) err: String,
}

impl Said {
    pub(super) fn of(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let code = output.status.code().expect("it was killed");
        Self { code, out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Its output; it must have ended well and have complained of nothing.
    pub(super) fn ok(self) -> String {
        assert!(self.code == 0 && self.err.is_empty(), "{self:?}");
        self.out
    }
}

/// With arguments separated by blanks, and the daemon of the test.
pub(super) fn ctl(line: &str) -> Said {
    Said::of(&mut command(Path::new(env!("CARGO_BIN_EXE_cgrulectl")), line))
}

pub(super) fn command(program: &Path, line: &str) -> Command {
    let mut command = Command::new(program);
    command.args(line.split_whitespace()).args(["--socket", SOCKET]);
    command
}

/// With nothing but these arguments.
pub(super) fn cgrulectl(line: &str) -> Said {
    Said::of(Command::new(env!("CARGO_BIN_EXE_cgrulectl")).args(line.split_whitespace()))
}

/// A command that goes on until it is dropped.
pub(super) struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    pub(super) fn start(line: &str) -> Self {
        let mut child = command(Path::new(env!("CARGO_BIN_EXE_cgrulectl")), line)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        // Long enough for it to ask; what is decided before is not shown.
        std::thread::sleep(Duration::from_millis(1500));
        Self { child, lines }
    }

    /// The next line.
    pub(super) fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
