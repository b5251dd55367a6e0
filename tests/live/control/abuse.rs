//! Tests hostile clients: no other client waits for them, least of all the placement of processes.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use cgruled::control::protocol::{LONGEST_REQUEST, WatchMessage};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use super::ctl::{self, Said, ctl};
use super::{SOCKET, become_alice, served, status, try_status};
use crate::harness::user::{BOB, READERS};
use crate::harness::{Actor, Live, PATIENCE, eventually};

fn connect() -> UnixStream {
    let stream = UnixStream::connect(SOCKET).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads until the daemon closes the connection.
fn answer(mut stream: UnixStream) -> String {
    let mut text = Vec::new();
    if let Err(error) = stream.read_to_end(&mut text) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    String::from_utf8(text).unwrap()
}

fn said_to(request: &[u8]) -> String {
    let mut stream = connect();
    // The daemon may close the connection before it has read everything.
    let _written = stream.write_all(request);
    answer(stream)
}

fn is_one_error(text: &str) -> bool {
    text.starts_with("{\"error\":\"") && text.ends_with("\"}\n") && text.lines().count() == 1
}

#[test]
fn an_invalid_request_gets_one_line() {
    let Some((_live, _daemon)) = served() else { return };
    for request in [
        &b"\n"[..],
        b"status\n",
        b"{\"request\":\"stop\"}\n",
        b"{\"request\":\"about\",\"pids\":[-1]}\n",
        b"\xff\xfe\x00\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"{\"request\":\"status\",\"x\":1}\n",
        b"{\"request\":\"place\",\"pids\":[1],\"x\":\"\\u001b\\n\"}\n",
    ] {
        let text = said_to(request);
        assert!(is_one_error(&text), "{request:?}: {text:?}");
    }
    // All of it is read, so that the client is not disconnected before it reads the reply.
    let mut endless = connect();
    endless.write_all(&vec![b'['; 2 * LONGEST_REQUEST]).unwrap();
    let mut text = String::new();
    endless.read_to_string(&mut text).unwrap();
    assert!(is_one_error(&text) && text.contains("65536"), "{text:?}");
    // Byte by byte, and with the write half closed, it is a valid request nevertheless.
    let mut slow = connect();
    for byte in b"{\"request\":\"about\",\"pids\":[1]}\n" {
        slow.write_all(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    slow.shutdown(Shutdown::Write).unwrap();
    assert_eq!(answer(slow), "{\"pid\":1,\"history\":[]}\n");
    assert_eq!(said_to(b""), "");
}

#[test]
fn a_silent_client_is_disconnected() {
    let Some((_live, _daemon)) = served() else { return };
    let began = Instant::now();
    let mut half = connect();
    half.write_all(b"{\"request\":").unwrap();
    assert_eq!((answer(connect()), answer(half)), (String::new(), String::new()));
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(4) && waited < Duration::from_secs(20), "{waited:?}");
}

/// Number of placements in one measurement.
const PLACEMENTS: u64 = 16;
/// A median above this is a wait, not noise: a silent client may stay for five seconds.
const A_WAIT: Duration = Duration::from_secs(1);

/// Reads the latency histogram. Repeats the request while earlier clients are connected, since the
/// daemon then answers others with "try again".
fn octaves() -> Vec<(u64, u64)> {
    let mut found = None;
    assert!(eventually(PATIENCE, || {
        found = try_status();
        found.is_some()
    }));
    found.unwrap().latency.octaves
}

/// Measures by the clock of the daemon the median time from the event of the kernel to the end of
/// the move, while `clients` are connected, within a power of two.
fn latency(live: &Live, clients: &dyn Fn() -> Vec<UnixStream>) -> Duration {
    let before = octaves();
    let kept = clients();
    for _ in 0..PLACEMENTS {
        live.expect(&live.hold(&become_alice()), "there");
    }
    drop(kept);
    let count = |octaves: &[(u64, u64)], upper| {
        octaves.iter().find(|octave| octave.0 == upper).map_or(0, |octave| octave.1)
    };
    let mut seen = 0;
    let after = octaves();
    let median = after.iter().find(|&&(upper, now)| {
        seen += now - count(&before, upper);
        2 * seen >= PLACEMENTS
    });
    Duration::from_micros(median.unwrap().0)
}

/// Number of rounds, of which the best counts: the clients and other processes use the CPUs too.
const ROUNDS: usize = 3;

/// Asserts that no thread waits for a client, or shares a lock with one that does. Such a wait
/// would occur every time and last for seconds, as long as the client may stay; the limit is far
/// above the noise of a loaded machine, and far below such a wait.
fn assert_undisturbed(what: &str, live: &Live, clients: &dyn Fn() -> Vec<UnixStream>) {
    let with = (0..ROUNDS).map(|_| latency(live, clients)).find(|with| *with < A_WAIT);
    println!("a placement takes {with:?} {what}");
    assert!(with.is_some(), "{what}: {A_WAIT:?} or more, {ROUNDS} times");
}

fn raise_descriptor_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

#[test]
fn a_thousand_clients_delay_no_placement() {
    let Some((live, _daemon)) = served() else { return };
    raise_descriptor_limit();
    println!("a placement takes {:?} without clients", latency(&live, &Vec::new));
    let silent = || (0..1000).map(|_| connect()).collect::<Vec<UnixStream>>();
    assert_undisturbed("with 1,000 silent clients", &live, &silent);
    // The other clients are served once the daemon has noticed that these are gone.
    assert!(octaves().iter().any(|octave| octave.1 > 0));
    let ask = |_| {
        let mut stream = connect();
        // The daemon closes a connection beyond the limit.
        let _written = stream.write_all(b"{\"request\":\"status\"}\n");
        stream
    };
    let asking = || (0..1000).map(ask).collect::<Vec<UnixStream>>();
    assert_undisturbed("with 1,000 clients that send requests", &live, &asking);
    octaves();
    let before = status().counters["control_refused"];
    let answers: Vec<String> = asking().into_iter().map(answer).collect();
    let served = answers.iter().filter(|text| text.contains("\"counters\"")).count();
    let is_refusal = |text: &&String| is_one_error(text) && text.contains("try again");
    let refused = answers.iter().filter(is_refusal).count();
    println!("{served} of 1,000 served");
    assert!(served >= LIMIT, "{served}");
    assert_eq!(served + refused, answers.len());
    let counted = status().counters["control_refused"] - before;
    assert_eq!(counted, u64::try_from(refused).unwrap());
}

/// Number of clients that the daemon serves at the same time.
const LIMIT: usize = 24;
/// Number of them of one user.
const LIMIT_OF_USER: u64 = 4;

/// Opens silent connections of a member of the group with access.
fn connect_as_member(live: &Live, count: u32) -> Actor {
    let steps = format!("gid {READERS} {READERS} uid {BOB} {BOB} connect {count} {SOCKET} hold");
    let mut actor = live.actor(&steps);
    assert_eq!(actor.said("connected"), count);
    actor
}

#[test]
fn members_cannot_exclude_root_or_each_other() {
    let Some((live, _daemon)) = served() else { return };
    raise_descriptor_limit();
    let silent = connect_as_member(&live, 1000);
    let began = Instant::now();
    assert!(ctl("status").ok().contains("Events"));
    let took = began.elapsed();
    println!("status of root beside 1,000 clients of a member took {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(status().counters["control_refused"], 1000 - LIMIT_OF_USER);
    let program = live.path("bin/cgrulectl");
    std::fs::copy(env!("CARGO_BIN_EXE_cgrulectl"), &program).unwrap();
    let ask = |uid: u32| {
        let mut command = ctl::command(&program, "status");
        Said::of(command.uid(uid).gid(READERS))
    };
    let said = ask(BOB);
    assert!(said.code == 1 && said.err.contains("4 clients of UID"), "{said:?}");
    assert!(ask(BOB + 1).ok().contains("Events"));
    // The silent clients lose their connections.
    assert!(eventually(PATIENCE, || ask(BOB).code == 0));
    drop(silent);
}

#[test]
fn the_daemon_stops_while_clients_hang() {
    let Some((live, mut daemon)) = served() else { return };
    let _silent = connect_as_member(&live, 4);
    let mut half = connect();
    half.write_all(b"{\"request\":").unwrap();
    let _lazy = watch();
    daemon.signal(Signal::SIGSTOP);
    let mut waiting = connect();
    waiting.write_all(b"{\"request\":\"reload\"}\n").unwrap();
    daemon.signal(Signal::SIGCONT);
    let took = daemon.exits_within(PATIENCE);
    println!("the daemon stopped within {took:?}");
    // 100 ms on an idle machine; a wait for a client would last for 5 s.
    assert!(took.is_some_and(|took| took < Duration::from_secs(2)), "{took:?}");
}

fn watch() -> BufReader<UnixStream> {
    let mut stream = connect();
    stream.write_all(b"{\"request\":\"watch\"}\n").unwrap();
    let mut reader = BufReader::new(stream);
    assert_eq!(next(&mut reader), WatchMessage::Lost { lost: 0 });
    reader
}

fn next(reader: &mut impl BufRead) -> WatchMessage {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[test]
fn a_watcher_that_does_not_read_loses_lines_and_delays_no_placement() {
    let Some((live, _daemon)) = served() else { return };
    let tool = live.program("bin/tool");
    let storm = live.actor(&format!("uid {BOB} {BOB} storm 10000000 {tool}"));
    println!("a placement takes {:?} without clients", latency(&live, &Vec::new));
    let mut lazy: Vec<BufReader<UnixStream>> = (0..8).map(|_| watch()).collect();
    let looks = status().counters["evaluations"];
    // More than the buffers of the socket and the daemon hold: some 200 bytes each.
    let grown = eventually(PATIENCE, || status().counters["evaluations"] > looks + 6000);
    assert!(grown, "no storm");
    assert_undisturbed("with 8 watching clients that do not read", &live, &Vec::new);
    drop(storm);
    let reader = &mut lazy[0];
    let lost = loop {
        match next(reader) {
            WatchMessage::Lost { lost } => break lost,
            WatchMessage::Decision(_) => {}
        }
    };
    assert!(lost > 0);
    println!("{lost} lines lost");
    // From there on the client receives again.
    let actor = live.hold(&become_alice());
    loop {
        match next(reader) {
            WatchMessage::Decision(one) if one.pid == actor.subject => break,
            WatchMessage::Decision(_) | WatchMessage::Lost { .. } => {}
        }
    }
}

#[test]
fn at_most_sixteen_clients_may_watch_beside_root() {
    let Some((live, _daemon)) = served() else { return };
    let mut watching: Vec<BufReader<UnixStream>> = (0..16).map(|_| watch()).collect();
    let program = live.path("bin/cgrulectl");
    std::fs::copy(env!("CARGO_BIN_EXE_cgrulectl"), &program).unwrap();
    let member = || {
        let mut command = Command::new("timeout");
        command.arg("2").arg(&program).args(["watch", "--socket", SOCKET]);
        Said::of(command.uid(BOB).gid(READERS))
    };
    let said = member();
    assert!(said.code == 1 && said.err.contains("16 clients are already watching"), "{said:?}");
    drop(watch());
    watching.clear();
    // 124 is that of timeout(1).
    assert!(eventually(PATIENCE, || member().code == 124));
    live.expect(&live.hold(&become_alice()), "there");
}
