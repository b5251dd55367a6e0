//! Runs a process under test.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running `actors` program and its descendants. All of them exit when this is dropped, because
/// their standard input is closed.
pub(crate) struct Actor {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// PID of the process under test: the one that printed `pid`.
    pub(crate) subject: u32,
}

impl Actor {
    /// Starts the steps, separated by blanks.
    pub(super) fn start(program: &Path, steps: &str) -> Self {
        let mut child = Command::new(program)
            .args(steps.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let subject = child.id();
        Self { child, input, output, subject }
    }

    /// Returns the number on the next line, which must begin with `word`.
    pub(crate) fn said(&mut self, word: &str) -> u32 {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let number = line.trim().strip_prefix(word).and_then(|rest| rest.trim().parse().ok());
        number.unwrap_or_else(|| panic!("expected `{word} N` from the actor, got {line:?}"))
    }

    /// Returns the word and the number of the next line.
    pub(crate) fn says(&mut self) -> (String, u32) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let pair = line.trim().split_once(' ');
        let pair = pair.and_then(|(word, number)| Some((word.to_owned(), number.parse().ok()?)));
        pair.unwrap_or_else(|| panic!("expected a word and a number from the actor, got {line:?}"))
    }

    /// Lets one process that waits at a gate continue.
    pub(crate) fn open_gate(&mut self) {
        self.input.as_mut().unwrap().write_all(b"g").unwrap();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
