//! Starts the processes that are placed: a few well-known programs, and the actors of the benchmark.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::Result;
use crate::clock::Clock;
use crate::ground::Ground;

/// Returns the commands that run as the user, in order. None of them outlives the demo.
pub(crate) fn samples(ground: &Ground) -> Vec<Vec<String>> {
    let script = ground.work().join("nightly-report").display().to_string();
    let lines: [&[&str]; 5] = [
        &["sleep", "20"],
        &["env", "LANG=C", "sleep", "20"],
        &["sh", "-c", "sleep 20 & sleep 20"],
        &["timeout", "20", "tail", "-f", "/dev/null"],
        &[&script],
    ];
    lines.map(|words| words.iter().map(ToString::to_string).collect()).to_vec()
}

/// A program that runs as the user. Stopped on drop; its children are killed with [`Ground`].
pub(crate) struct Sample(Child);

impl Sample {
    pub(crate) fn start(ground: &Ground, words: &[String]) -> Result<Self> {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).uid(ground.uid).gid(ground.uid).process_group(0).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("cannot run {}: {error}", words[0]))?;
        Ok(Self(child))
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        // The process may have exited by itself.
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// An actor of `actors.c`. Stopped on drop, when it stops its children; [`Ground`] kills the rest.
pub(crate) struct Actor {
    child: Child,
    stdout: ChildStdout,
    said: String,
}

impl Actor {
    pub(crate) fn start(ground: &Ground, name: &str, args: &[String]) -> Result<Self> {
        let mut command = Command::new(ground.actors());
        command.arg(name).args(args).arg(ground.work().join(name).with_extension("records"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("an actor has no standard output")?;
        fcntl(&stdout, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { child, stdout, said: String::new() })
    }

    /// Waits until the actor reports that its processes exist.
    pub(crate) fn done(&mut self, clock: &mut Clock) -> Result<()> {
        while !self.said.contains('\n') {
            clock.pause(Duration::from_millis(10))?;
            let mut bytes = [0; 64];
            match self.stdout.read(&mut bytes) {
                Ok(0) => return Err("an actor exited early".into()),
                Ok(count) => self.said.push_str(&String::from_utf8_lossy(&bytes[..count])),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // An actor that is done cleans up by itself; one that is interrupted would continue for a while.
        drop(self.child.stdin.take());
        if !self.said.contains('\n') {
            let _gone = self.child.kill();
        }
        let _status = self.child.wait();
    }
}

/// Builds the actors.
pub(crate) fn compile(ground: &Ground) -> Result<()> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/floor/actors.c");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-pthread", "-o"]).arg(ground.actors()).arg(source);
    match cc.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => {
            Err("cc cannot build benches/floor/actors.c: are the headers of the C library there?"
                .into())
        }
        Err(error) => Err(format!("cannot run the C compiler cc: {error}; install one").into()),
    }
}

/// Creates a script, to show that it is matched by its own name and not by that of its interpreter.
pub(crate) fn write_script(ground: &Ground) -> Result<()> {
    let path = ground.work().join("nightly-report");
    fs::write(&path, "#!/bin/sh\nsleep 20\n:\n")?;
    ground.publish(&path, 0o755)
}
