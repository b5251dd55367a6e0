//! Runs `cgrulectl` as a user does.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::SOCKET;
use crate::harness::{PATIENCE, eventually};

/// Output and exit code of a command.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let code = output.status.code().expect("it was killed");
        Self { code, out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Returns standard output; asserts that the command succeeded without a diagnostic.
    pub(crate) fn ok(self) -> String {
        assert!(self.code == 0 && self.err.is_empty(), "{self:?}");
        self.out
    }
}

/// Runs the tool on the daemon of the test. The arguments are separated by blanks.
pub(crate) fn ctl(line: &str) -> Said {
    Said::of(&mut command(Path::new(env!("CARGO_BIN_EXE_cgrulectl")), line))
}

pub(crate) fn command(program: &Path, line: &str) -> Command {
    let mut command = Command::new(program);
    command.args(line.split_whitespace()).args(["--socket", SOCKET]);
    command
}

/// Runs the tool with these arguments only.
pub(crate) fn cgrulectl(line: &str) -> Said {
    Said::of(Command::new(env!("CARGO_BIN_EXE_cgrulectl")).args(line.split_whitespace()))
}

/// A command that runs until it is dropped.
pub(super) struct Watch {
    child: Child,
    output: Option<BufReader<ChildStdout>>,
    complaints: BufReader<ChildStderr>,
    lines: Receiver<String>,
    sender: Sender<String>,
}

impl Watch {
    /// Returns when the command watches: earlier decisions are not shown.
    pub(super) fn start(line: &str) -> Self {
        let mut child = command(Path::new(env!("CARGO_BIN_EXE_cgrulectl")), line)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().map(BufReader::new);
        let mut complaints = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        let mut line = String::new();
        while !line.contains("watching") {
            line.clear();
            assert!(complaints.read_line(&mut line).unwrap() > 0, "end of output");
        }
        Self { child, output, complaints, lines, sender }
    }

    /// Returns the next line of output.
    pub(super) fn line(&mut self) -> String {
        if let Some(output) = self.output.take() {
            let sender = self.sender.clone();
            std::thread::spawn(move || {
                output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
            });
        }
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }

    /// Closes the reading end of its output.
    pub(super) fn hang_up(&mut self) {
        self.output = None;
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Returns the exit code of a command that exits by itself, and its diagnostics.
    pub(super) fn end(mut self) -> (i32, String) {
        assert!(eventually(PATIENCE, || self.has_ended()), "the command did not exit");
        let code = self.child.wait().unwrap().code().expect("it was killed");
        let mut text = String::new();
        self.complaints.read_to_string(&mut text).unwrap();
        (code, text)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
