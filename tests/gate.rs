//! Executions that wait, on the kernel of the host: of copies of `/bin/true` in temporary directories, by processes of
//! these tests. They need root and permission events of fanotify; else each prints the reason why it was skipped. With
//! `CGRULED_LIVE=1` a test that cannot run fails.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cgruled::kernel::gate::{Gate, GatedExec};
use cgruled::telemetry::metrics::Metrics;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tempfile::TempDir;

/// Tests count the descriptors of their process, so one runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// A gate of this process, with a directory for its files.
struct Host {
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    wakeup: Arc<EventFd>,
    directory: TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// Reports why a test cannot run.
fn skip(reason: &str) {
    assert!(
        std::env::var_os("CGRULED_LIVE").is_none_or(|value| value != "1"),
        "CGRULED_LIVE=1, but {reason}"
    );
    println!("skipped: {reason}");
}

fn unavailable() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    cgruled::kernel::gate::probe().err()
}

impl Host {
    fn start() -> Option<Self> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = unavailable() {
            skip(&reason);
            return None;
        }
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wakeup = Arc::new(EventFd::from_value_and_flags(0, flags).unwrap());
        let metrics = Arc::new(Metrics::default());
        let program = PathBuf::from(env!("CARGO_BIN_EXE_cgruled"));
        let gate = Gate::start(Arc::clone(&wakeup), Arc::clone(&metrics), program).unwrap();
        let directory = tempfile::tempdir().unwrap();
        Some(Self { gate: Arc::new(gate), metrics, wakeup, directory, _alone: alone })
    }

    /// Copies a program that exits at once.
    fn program(&self, name: &str) -> PathBuf {
        let path = self.directory.path().canonicalize().unwrap().join(name);
        fs::copy("/bin/true", &path).unwrap();
        path
    }

    /// Lets executions of this file wait, and waits until they do.
    fn gate(&self, path: &Path) {
        self.gate.set_files(&[bytes(path)]);
        self.wait_until_gated(path);
    }

    fn wait_until_gated(&self, path: &Path) {
        let before = self.metrics.gate_waits.get();
        let end = Instant::now() + Duration::from_secs(20);
        while self.metrics.gate_waits.get() == before {
            assert!(Instant::now() < end, "executions of {} do not wait", path.display());
            run(path, 1);
        }
    }

    /// Starts a thread that answers as the engine does, until it is stopped.
    fn answer(&self) -> Engine {
        let is_stopping = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let (gate, wakeup) = (Arc::clone(&self.gate), Arc::clone(&self.wakeup));
        let (stop, count) = (Arc::clone(&is_stopping), Arc::clone(&answered));
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let mut fds = [PollFd::new(wakeup.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, PollTimeout::from(100u8)).unwrap();
                let _written = wakeup.read();
                while let Some(exec) = gate.next() {
                    count.fetch_add(u64::from(gate.answer(exec.ticket)), Ordering::Relaxed);
                }
            }
        });
        Engine { is_stopping, answered, thread: Some(thread) }
    }

    /// Waits for the next execution.
    fn next(&self) -> GatedExec {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(exec) = self.gate.next() {
                return exec;
            }
            assert!(Instant::now() < end, "no execution waits");
            thread::sleep(Duration::from_micros(100));
        }
    }
}

struct Engine {
    is_stopping: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn bytes(path: &Path) -> Box<[u8]> {
    path.to_str().unwrap().as_bytes().into()
}

/// Starts a shell that executes the file in children: executions by children of the gate itself do not wait.
fn shell(path: &Path, script: &str) -> Child {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "sh"]).arg(path);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Executes the file several times in sequence.
fn run(path: &Path, times: u32) {
    let script = format!("i=0; while [ $i -lt {times} ]; do \"$1\" || exit 1; i=$((i+1)); done; :");
    let status = shell(path, &script).wait().unwrap();
    assert!(status.success(), "{status}");
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn each_execution_waits_for_its_answer() {
    let Some(host) = Host::start() else { return };
    let path = host.program("program");
    host.gate(&path);
    let before = host.metrics.gate_waits.get();
    let late = host.metrics.gate_late.get();
    let engine = host.answer();
    run(&path, 1000);
    assert_eq!(host.metrics.gate_waits.get() - before, 1000);
    assert_eq!(engine.answered() + host.metrics.gate_late.get() - late, 1000);
    assert!(engine.answered() > 900, "{} answered", engine.answered());
    assert_eq!(host.metrics.gate_skipped.get(), 0);
}

#[test]
fn an_execution_without_an_answer_goes_on_after_10_ms() {
    let Some(host) = Host::start() else { return };
    let path = host.program("program");
    host.gate(&path);
    let late = host.metrics.gate_late.get();
    let mut child = shell(&path, "\"$1\"; :");
    let exec = host.next();
    assert_eq!(*exec.path, *bytes(&path));
    assert_eq!(exec.handle.uid.0, 0);
    assert!(child.wait().unwrap().success());
    assert!(cgruled::sys::monotonic().since(exec.since) >= 10_000_000);
    assert_eq!(host.metrics.gate_late.get() - late, 1);
    assert!(!host.gate.answer(exec.ticket));
    assert!(!host.gate.answer(u64::MAX));
}

#[test]
fn a_process_that_is_killed_while_it_waits_leaves_nothing() {
    let Some(host) = Host::start() else { return };
    let path = host.program("program");
    host.gate(&path);
    thread::sleep(Duration::from_millis(50));
    let before = descriptors();
    let mut refused = 0;
    for _ in 0..20 {
        let mut child = shell(&path, "\"$1\"; :");
        let exec = host.next();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(exec.pid.get()).unwrap());
        // The child of the shell that was started here, while the execution waits.
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        refused += u32::from(!host.gate.answer(exec.ticket));
    }
    assert_eq!(refused, 20);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(descriptors(), before);
}

#[test]
fn a_file_that_is_replaced_or_created_is_marked() {
    let Some(host) = Host::start() else { return };
    let path = host.program("program");
    host.gate(&path);
    let _engine = host.answer();
    let count = || host.metrics.gate_waits.get();
    for _ in 0..20 {
        let other = host.program("other");
        fs::rename(other, &path).unwrap();
        host.wait_until_gated(&path);
    }
    fs::remove_file(&path).unwrap();
    host.program("program");
    host.wait_until_gated(&path);
    // A directory on the way is created later.
    let below = host.directory.path().canonicalize().unwrap().join("a/b");
    let late = below.join("late");
    host.gate.set_files(&[bytes(&late)]);
    thread::sleep(Duration::from_millis(50));
    let before = count();
    run(&path, 3);
    assert_eq!(count(), before, "it is not gated any more");
    fs::create_dir_all(&below).unwrap();
    fs::rename(&path, &late).unwrap();
    host.wait_until_gated(&late);
    host.gate.set_files(&[]);
    thread::sleep(Duration::from_millis(100));
    let before = count();
    run(&late, 3);
    assert_eq!(count(), before);
}

#[test]
fn another_name_of_the_file_and_children_of_the_daemon_do_not_wait() {
    let Some(host) = Host::start() else { return };
    let path = host.program("program");
    let name = path.with_file_name("name");
    fs::hard_link(&path, &name).unwrap();
    host.gate(&path);
    let skipped = host.metrics.gate_skipped.get();
    run(&name, 3);
    assert_eq!(host.metrics.gate_skipped.get() - skipped, 3);
    let begin = Instant::now();
    assert!(Command::new(&path).status().unwrap().success());
    assert_eq!(host.metrics.gate_skipped.get() - skipped, 4, "after {:?}", begin.elapsed());
    assert!(host.gate.next().is_none());
}

#[test]
fn many_executions_without_answers_go_on_together() {
    let Some(host) = Host::start() else { return };
    let path = host.program("program");
    host.gate(&path);
    let waits = host.metrics.gate_waits.get();
    for has_real_time in [false, true] {
        if has_real_time {
            // The gate uses the scheduling of the thread that takes executions.
            let gate = Arc::clone(&host.gate);
            let taking = thread::spawn(move || {
                cgruled::sys::realtime::set_realtime().is_ok() && {
                    let end = Instant::now() + Duration::from_secs(10);
                    while gate.next().is_none() && Instant::now() < end {}
                    true
                }
            });
            run(&path, 1);
            if !taking.join().unwrap() {
                println!("without real-time scheduling");
                continue;
            }
        }
        let script = "i=0; while [ $i -lt 200 ]; do (read x; exec \"$1\") <fifo & i=$((i+1)); done; echo; wait; :";
        let fifo = path.with_file_name("fifo");
        let _created = nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU);
        let mut child = Command::new("/bin/sh")
            .args(["-c", script, "sh"])
            .arg(&path)
            .current_dir(host.directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let late = host.metrics.gate_late.get();
        let mut begin = fs::OpenOptions::new().write(true).open(&fifo).unwrap();
        thread::sleep(Duration::from_millis(300));
        let start = Instant::now();
        begin.write_all(&[b'\n'; 200]).unwrap();
        drop(begin);
        assert!(child.wait().unwrap().success());
        println!(
            "200 at once, real-time {has_real_time}: {:?}, {} late",
            start.elapsed(),
            host.metrics.gate_late.get() - late
        );
        host.wait_until_gated(&path);
    }
    assert!(host.metrics.gate_waits.get() - waits > 200);
}

/// Holds a gate in a process of its own: it runs this test alone, and answers until its input ends.
#[test]
#[ignore = "started by other tests"]
fn holder() {
    let Some(directory) = std::env::var_os("GATE_HOLDER") else { return };
    let host = Host::start().unwrap();
    host.gate.set_files(&[bytes(&Path::new(&directory).join("program"))]);
    let engine = host.answer();
    println!("\nholds");
    let _end = std::io::stdin().read_to_end(&mut Vec::new());
    drop(engine);
}

struct Holder(Child);

impl Holder {
    fn start(directory: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holder", "--ignored", "--nocapture"])
            .env("GATE_HOLDER", directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "holds"));
        child.stdout = None;
        thread::sleep(Duration::from_millis(200));
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ended = self.0.wait();
    }
}

fn execute(path: &Path) -> Duration {
    let begin = Instant::now();
    let status = Command::new(path).status().unwrap();
    assert!(status.success());
    begin.elapsed()
}

#[test]
fn executions_go_on_when_the_process_with_the_gate_is_stopped_or_killed() {
    use nix::sys::signal::{Signal, kill};
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reason) = unavailable() {
        return skip(&reason);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("program");
    fs::copy("/bin/true", &path).unwrap();
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        let mut holder = Holder::start(path.parent().unwrap());
        execute(&path);
        let pid = nix::unistd::Pid::from_raw(i32::try_from(holder.0.id()).unwrap());
        kill(pid, signal).unwrap();
        let time = execute(&path);
        println!("{signal}: {time:?}");
        assert!(time < Duration::from_millis(1300), "{signal}: {time:?}");
        assert_eq!(holder.0.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
    }
}

/// Prints the time of an execution of a gated file with an immediate answer, of another file meanwhile, and of the latter
/// without a gate.
#[test]
#[ignore = "a measurement, for an idle machine"]
fn measure() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("program");
    let other = path.with_file_name("other");
    fs::copy("/bin/true", &path).unwrap();
    fs::copy("/bin/true", &other).unwrap();
    let (mut gated, mut meanwhile, mut without) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..10 {
        let holder = Holder::start(path.parent().unwrap());
        for _ in 0..200 {
            gated.push(execute(&path));
            meanwhile.push(execute(&other));
        }
        drop(holder);
        without.extend((0..200).map(|_| execute(&other)));
    }
    for (name, mut times) in [("gated", gated), ("other", meanwhile), ("without a gate", without)] {
        times.sort_unstable();
        let at = |percent: usize| times[times.len() * percent / 100];
        println!("{name}: 10 % {:?}, median {:?}, 90 % {:?}", at(10), at(50), at(90));
    }
}
