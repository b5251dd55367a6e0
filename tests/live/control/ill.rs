//! Tests a daemon that exits or hangs during a request.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::ctl::{Said, cgrulectl, ctl};
use super::served;
use crate::harness::eventually;

/// Serves `socket` until the test ends: reads a request and calls `answer`.
fn serve(socket: &Path, mut answer: impl FnMut(UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let _ = reader.read_line(&mut String::new());
            answer(reader.into_inner());
        }
    });
}

const LINES: [&str; 5] = ["status", "metrics", "watch", "reload", "place 1 2"];

fn expect_69(line: &str, socket: &Path) {
    let Said { code, out, err } = cgrulectl(&format!("{line} --socket {}", socket.display()));
    assert_eq!((code, out.as_str()), (69, ""), "{line}: {err}");
    assert!(err.contains("connection closed"), "{line}: {err}");
}

#[test]
fn a_closed_connection_is_not_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let (mute, cut) = (directory.path().join("mute.sock"), directory.path().join("cut.sock"));
    serve(&mute, drop);
    serve(&cut, |mut stream| stream.write_all(b"{\"pid\": 1, \"happ").unwrap());
    for line in LINES {
        expect_69(line, &mute);
        expect_69(line, &cut);
    }
}

#[test]
fn an_answer_for_each_process_is_expected() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("half.sock");
    serve(&socket, |mut stream| {
        stream.write_all(b"{\"pid\": 1, \"history\": [], \"moved_ago_ms\": null}\n").unwrap();
    });
    expect_69("place 1 2", &socket);
}

#[test]
fn a_hostile_path_drives_no_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("\u{1b}[31mx\ny");
    let served = directory.path().join("\u{1b}[31mz\n");
    serve(&served, drop);
    // `explain` does not mention the missing socket if no rule matches the process.
    for (socket, names) in [(missing, &["status", "watch"][..]), (served, &["status", "explain"])] {
        for name in names {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cgrulectl"));
            command
                .arg(name)
                .args((*name == "explain").then_some("1"))
                .arg("--socket")
                .arg(&socket);
            let said = Said::of(&mut command);
            assert!(said.err.contains("\\u{1b}[31m"), "{said:?}");
            assert!(said.err.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
        }
    }
}

/// Limit for a command when the daemon does not answer.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_stopped_daemon_is_distinguished_from_none() {
    let Some((_live, daemon)) = served() else { return };
    daemon.signal(Signal::SIGSTOP);
    let ask = |line: &'static str| {
        std::thread::spawn(move || {
            let begun = Instant::now();
            (line, ctl(line), begun.elapsed())
        })
    };
    let asked: Vec<_> = LINES.into_iter().chain(["explain 1"]).map(ask).collect();
    for thread in asked {
        let (line, said, took) = thread.join().unwrap();
        let code = if line == "explain 1" { 0 } else { 69 };
        assert_eq!(said.code, code, "{line}: {said:?}");
        assert!(said.err.contains("the daemon does not respond"), "{line}: {said:?}");
        assert!(took < SOON, "{line}: {took:?}");
    }
    daemon.signal(Signal::SIGCONT);
    assert!(eventually(SOON, || ctl("status").code == 0));
}

#[test]
fn a_daemon_killed_during_a_request_closes_the_connection() {
    let Some((_live, daemon)) = served() else { return };
    daemon.signal(Signal::SIGSTOP);
    let asked = std::thread::spawn(|| ctl("place 1"));
    std::thread::sleep(Duration::from_secs(1));
    daemon.signal(Signal::SIGKILL);
    let said = asked.join().unwrap();
    assert_eq!(said.code, 69, "{said:?}");
    assert!(said.err.contains("connection closed"), "{said:?}");
}

/// Checks the TID of a thread, which must not be treated as a PID.
#[test]
fn a_thread_is_not_a_process() {
    let Some((_live, _daemon)) = served() else { return };
    let (told, tid) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        told.send(nix::unistd::gettid()).unwrap();
        ended.recv().unwrap_err();
    });
    let tid = tid.recv().unwrap();
    let placed = ctl(&format!("place {tid}"));
    let explained = ctl(&format!("explain {tid}"));
    drop(end);
    thread.join().unwrap();
    assert_eq!((placed.code, placed.out), (1, format!("{tid}: gone\n")), "{}", placed.err);
    let wanted = format!("{tid} is a thread of process {}: use that PID", std::process::id());
    assert_eq!((explained.code, explained.out.as_str()), (1, ""), "{}", explained.err);
    assert!(explained.err.contains(&wanted), "{}", explained.err);
}
