//! The gate: executions of the files of gated rules wait until their process is in its cgroup.
//!
//! The kernel suspends each execution of a marked file until this process answers it. `reader` reads the executions and
//! lets each go on after 10 ms in any case; the hot thread takes and answers them; `marks` marks the files; another
//! process, `watch`, kills this one if it is stopped meanwhile. If this process exits, the kernel answers for it.

mod directories;
mod group;
mod marks;
mod probe;
mod reader;
mod shared;
mod waiting;
mod watch;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};

use nix::sys::eventfd::EventFd;

use crate::event::{Nanos, Pid};
use crate::kernel::process::ProcessHandle;
use crate::telemetry::metrics::Metrics;
use directories::Directories;
use group::Group;
use marks::Marker;
pub use probe::probe;
use reader::Reader;
use shared::{Shared, wake};
pub use watch::watch_if_asked;

/// An execution of a gated file, which waits.
#[derive(Debug)]
pub struct GatedExec {
    /// The process that executes the file. Its IDs are those before the execution.
    pub pid: Pid,
    /// The same process, open.
    pub handle: ProcessHandle,
    /// The path of the file, without links.
    pub path: Box<[u8]>,
    /// The time at which the execution was read.
    pub since: Nanos,
    /// The number with which it is answered.
    pub ticket: u64,
}

/// Reason why executions cannot wait.
#[derive(Debug)]
pub enum GateError {
    /// What is missing on this host, with the remedy.
    Missing(String),
    /// A thread, or a descriptor for it, cannot be created.
    Start(io::Error),
}

impl fmt::Display for GateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("executions of gated files do not wait: ")?;
        match self {
            Self::Missing(missing) => f.write_str(missing),
            Self::Start(error) => write!(f, "the threads for them cannot be started: {error}"),
        }
    }
}

/// Threads that let executions of files wait. When it is dropped, all executions go on.
pub struct Gate {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Gate {
    /// Starts the threads, without files. `wakeup` is written to when an execution waits for the hot thread. `program` is
    /// started to watch this process with the first file, and must call [`watch_if_asked`] first: `/proc/self/exe`
    /// except in tests.
    ///
    /// # Errors
    /// What the host or this process lacks.
    pub fn start(
        wakeup: Arc<EventFd>,
        metrics: Arc<Metrics>,
        program: PathBuf,
    ) -> Result<Self, GateError> {
        probe().map_err(GateError::Missing)?;
        let group = Group::create()
            .map_err(|error| GateError::Missing(format!("fanotify_init: {error}")))?;
        let shared = Shared::new(group, wakeup, metrics);
        let shared = Arc::new(shared.map_err(|error| GateError::Start(error.into()))?);
        let mut gate = Self { shared, threads: Vec::new() };
        gate.start_threads(program).map_err(GateError::Start)?;
        Ok(gate)
    }

    fn start_threads(&mut self, program: PathBuf) -> io::Result<()> {
        let reader = Reader::open(Arc::clone(&self.shared))?;
        let directories = Directories::new()?;
        let (sender, started) = sync_channel(1);
        let builder = || thread::Builder::new().stack_size(256 * 1024);
        self.threads.push(builder().name("gate".into()).spawn(move || {
            // The other end waits for it.
            let _sent = sender.send(nix::unistd::gettid());
            reader.run();
        })?);
        let reader = started.recv().map_err(io::Error::other)?;
        let marker = Marker::new(
            Arc::clone(&self.shared),
            program,
            reader.as_raw().unsigned_abs(),
            directories,
        );
        self.threads.push(builder().name("gate-marks".into()).spawn(move || marker.run())?);
        Ok(())
    }

    /// Replaces the files whose executions wait, and lets them wait again if they do not any more. Another thread opens
    /// the files.
    pub fn set_files(&self, files: &[Box<[u8]>]) {
        self.shared.order(|orders| orders.files = Some(files.to_vec()));
    }

    /// Looks whether other files have the paths of gated ones by now, in another thread.
    pub fn check_marks(&self) {
        self.shared.order(|orders| orders.rechecks = true);
    }

    /// Returns the next execution that waits: one whose user had the fewest others waiting when it came. Does not
    /// allocate, and takes an atomic load while none waits.
    pub fn next(&self) -> Option<GatedExec> {
        self.shared.next()
    }

    /// Lets an execution go on. `false` if it did already, because it waited for 10 ms, or its process was killed.
    pub fn answer(&self, ticket: u64) -> bool {
        self.shared.answer(ticket)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Relaxed);
        wake(&self.shared.to_reader);
        wake(&self.shared.to_marker);
        for thread in self.threads.drain(..) {
            // A thread that has panicked has closed nothing, but the group is closed with the last reference to it.
            let _joined = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::waiting::Silence;
    use super::*;
    use crate::sys;

    /// Starts a gate that a program with this text watches.
    fn gate(directory: &Path, program: &str) -> Option<(Gate, Arc<Metrics>)> {
        if !nix::unistd::geteuid().is_root() || probe().is_err() {
            return None;
        }
        let watching = directory.join("watching");
        fs::write(&watching, program).unwrap();
        fs::set_permissions(&watching, Permissions::from_mode(0o700)).unwrap();
        let metrics = Arc::new(Metrics::default());
        let wakeup = Arc::new(EventFd::new().unwrap());
        Some((Gate::start(wakeup, Arc::clone(&metrics), watching).unwrap(), metrics))
    }

    /// Executes the file in a child of another process, until executions of it wait or not.
    fn run_until(path: &Path, metrics: &Metrics, waits: bool) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let before = metrics.gate_waits.get();
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", "\"$1\"; :", "sh"]).arg(path).stdin(Stdio::null());
            assert!(shell.status().unwrap().success());
            if (metrics.gate_waits.get() > before) == waits {
                return;
            }
            assert!(Instant::now() < end, "an execution waits: {}", !waits);
        }
    }

    #[test]
    fn the_gate_is_opened_if_none_is_answered_until_files_are_set() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().canonicalize().unwrap();
        let Some((gate, metrics)) = gate(&directory, "#!/bin/sh\nexec sleep 600\n") else {
            return;
        };
        let path = directory.join("program");
        fs::copy("/bin/true", &path).unwrap();
        let files = [path.to_str().unwrap().as_bytes().into()];
        for opened in 0..2 {
            gate.set_files(&files);
            run_until(&path, &metrics, true);
            assert_eq!(metrics.gate_opened.get(), opened);
            gate.shared.with_queue(|queue| queue.silence = Silence::almost_over(sys::monotonic()));
            run_until(&path, &metrics, false);
            assert_eq!(metrics.gate_opened.get(), opened + 1);
            assert!(gate.shared.group().is_none() && gate.shared.paths().is_empty());
        }
    }

    #[test]
    fn executions_do_not_wait_without_a_process_that_watches() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().canonicalize().unwrap();
        let Some((gate, metrics)) = gate(&directory, "#!/bin/sh\nexit 1\n") else { return };
        let path = directory.join("program");
        fs::copy("/bin/true", &path).unwrap();
        gate.set_files(&[path.to_str().unwrap().as_bytes().into()]);
        // The second start is given up at the sign of life after the exit of the first.
        thread::sleep(Duration::from_millis(1000));
        run_until(&path, &metrics, false);
        assert!(gate.shared.paths().is_empty());
    }
}
