//! Row 12: silent, slow and malformed clients of the control socket, and requests for many processes. Root
//! is served within 100 ms, and a bystander is placed.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cgruled::control::client;
use cgruled::control::protocol::ControlRequest;
use cgruled::control::status::Status;

use crate::bystander::{self, Bystander};
use crate::harness::user::{BOB, READERS};
use crate::harness::{Live, Settings};
use crate::report::Outcome;
use crate::storm::{Storm, daemon};
use crate::subject::rules;

pub(crate) const SOCKET: &str = "/run/cgruled-live/control/control.sock";
const SERVED_WITHIN: Duration = Duration::from_millis(100);
const P99: Duration = Duration::from_millis(20);

pub(crate) fn run(live: &Live, length: Duration) -> Outcome {
    let settings = Settings { config: "", arguments: &["--log", "info", "--control", SOCKET] };
    let running = daemon(live, &rules(&[bystander::RULE]), &settings);
    let member = format!("gid {READERS} {READERS} uid {BOB} {BOB}");
    // Silent ones occupy the places of one member; root's malformed and expensive requests come beside.
    let mut silent = Storm::new(live, vec![format!("{member} connect 900 {SOCKET} hold"); 3]);
    let mut bystander = Bystander::new(&live.ground);
    let (began, cpu) = (Instant::now(), running.cpu_time());
    let stops = AtomicBool::new(false);
    let (mut slowest, mut asked) = (Duration::ZERO, 0);
    let requests = std::thread::scope(|scope| {
        let hostile = scope.spawn(|| disturb(&stops));
        while began.elapsed() < length {
            silent.keep_up();
            let asks = Instant::now();
            ask_status();
            slowest = slowest.max(asks.elapsed());
            asked += 1;
            bystander.step(live);
        }
        stops.store(true, Relaxed);
        hostile.join().unwrap()
    });
    let used = (running.cpu_time() - cpu).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    let mut row =
        Outcome::new(format!("{requests} hostile requests, {asked} of root, slowest {slowest:?}"));
    let counters = running.stop();
    row.count(|name| counters.get(name));
    row.cpu = Some(used);
    row.expect_limit(slowest <= SERVED_WITHIN, format!("root waited {slowest:?}"));
    bystander.report(&mut row, P99);
    row
}

/// Asks the daemon for its status, as root.
pub(crate) fn ask_status() {
    let status = client::ask(Path::new(SOCKET), &ControlRequest::Status).unwrap();
    let _status: Status = status.expect("a daemon").only().unwrap();
}

/// Sends malformed requests and those for reports of many processes until `stops` is set. Returns their
/// number.
fn disturb(stops: &AtomicBool) -> u64 {
    let pids: Vec<u32> = (1..=256).collect();
    let explain = serde_json::to_vec(&ControlRequest::Explain { pids }).unwrap();
    let expensive = [explain, b"\n".to_vec()].concat();
    let endless = vec![b'['; 100_000];
    let requests = [&expensive[..], &endless, b"\xff\xfe\n", b"{\"request\":", b"\n", &expensive];
    let mut count = 0;
    while !stops.load(Relaxed) {
        for request in requests {
            let Ok(mut stream) = UnixStream::connect(SOCKET) else { continue };
            let _limited = stream.set_read_timeout(Some(Duration::from_millis(200)));
            // The daemon may refuse the connection before it has read the request.
            let _sent = stream.write_all(request);
            let _answer = stream.read_to_end(&mut Vec::new());
            count += 1;
        }
    }
    count
}
