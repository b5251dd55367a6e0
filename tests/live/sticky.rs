//! Tests processes that request by `/run/cgred.socket` to stay where they are, with the
//! clients of libcgroup.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::harness::user::{ALICE, BOB};
use crate::harness::{Actor, BASE, Daemon, Live, PrivateRun, Settings, census, run};

const SOCKET: &str = "/run/cgred.socket";
const RULES: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"there\"\n";

/// Enters a private `/run` without the legacy rules of the host.
pub(crate) fn private_run() -> PrivateRun {
    let run = PrivateRun::enter();
    hide_legacy_rules();
    run
}

/// Hides the legacy rules of the host, which the daemon of these tests would read.
fn hide_legacy_rules() {
    let nothing = format!("{BASE}/nothing");
    fs::create_dir_all(&nothing).unwrap();
    for (hidden, by) in [("/etc/cgrules.conf", "/dev/null"), ("/etc/cgrules.d", nothing.as_str())] {
        if Path::new(hidden).exists() {
            mount(Some(by), hidden, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        }
    }
}

/// Returns the test, its `/run`, and a daemon with [`RULES`].
fn served() -> Option<(Live, PrivateRun, Daemon)> {
    let live = Live::require()?;
    let run = private_run();
    let daemon = live.legacy_daemon(RULES);
    Some((live, run, daemon))
}

/// Returns whether `cgexec` and `cgclassify` are installed, which have a package of their own.
fn has_clients() -> bool {
    let has = Path::new("/usr/bin/cgexec").exists() && Path::new("/usr/bin/cgclassify").exists();
    if !has {
        assert!(std::env::var_os("CGRULED_LIVE").is_none(), "no cgexec, cgclassify");
        println!("skipped: no cgexec, cgclassify");
    }
    has
}

/// Returns `freezer:GROUP`, and creates the cgroup if it is missing.
fn freezer(live: &Live) -> String {
    let path = live.ground.directory("freezer", "b").expect("a freezer hierarchy");
    fs::create_dir_all(path).unwrap();
    format!("freezer:{}", live.ground.at("b").trim_start_matches('/'))
}

/// Returns steps that continue below `cgexec`.
fn cgexec(live: &Live, options: &str) -> String {
    let (actors, group) = (live.path("bin/actors"), freezer(live));
    format!("exec /usr/bin/cgexec cgexec -g {group} {options} {}", actors.display())
}

fn cgclassify(live: &Live, option: &str, pid: u32) {
    let status = Command::new("cgclassify")
        .args(["-g", &freezer(live), option, &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success(), "cgclassify {option}: {status}");
}

fn become_alice() -> String {
    format!("uid {ALICE} {ALICE}")
}

/// Runs case `M95` live.
#[test]
fn what_cgexec_runs_stays() {
    let Some((live, _run, daemon)) = served().filter(|_| has_clients()) else { return };
    let tool = live.program("bin/tool");
    let steps = format!("{} {} exec {tool} tool", cgexec(&live, ""), become_alice());
    let actor = live.hold(&steps);
    live.expect_untouched(&actor);
    live.expect_pid("freezer", actor.subject, "b");
    let counters = daemon.stop();
    assert_eq!(counters.get("sticky_registered"), 1, "{counters:?}");
    assert!(counters.get("sticky") >= 1, "{counters:?}");
}

#[test]
fn explain_names_the_client_of_a_sticky_process() {
    let Some(live) = Live::require().filter(|_| has_clients()) else { return };
    let _run = private_run();
    let socket = format!("{BASE}/control.sock");
    let settings = Settings { config: "", arguments: &["--control", &socket] };
    let _daemon = live.legacy_daemon_with(RULES, &settings);
    let actor = live.hold(&format!("{} {}", cgexec(&live, ""), become_alice()));
    live.expect_untouched(&actor);
    let output = Command::new(env!("CARGO_BIN_EXE_cgrulectl"))
        .args(["explain", "--no-legacy", "--rules", &format!("{BASE}/rules.d")])
        .args(["--socket", &socket, &actor.subject.to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("registered as sticky"), "{text}");
    let wanted = format!("expected {}", live.ground.at("there"));
    assert!(text.contains(&wanted), "{text}");
}

/// Runs case `M96` live.
#[test]
fn a_child_of_what_cgexec_runs_is_placed_for_what_it_does() {
    let Some((live, _run, _daemon)) = served().filter(|_| has_clients()) else { return };
    let actor = live.hold(&format!("{} fork {}", cgexec(&live, ""), become_alice()));
    live.expect(&actor, "there");
}

/// Runs case `M97` live.
#[test]
fn children_below_cgexec_sticky_stay() {
    let Some((live, _run, daemon)) = served().filter(|_| has_clients()) else { return };
    let tool = live.program("bin/tool");
    for way in ["fork", "double", "thread", "fork fork fork"] {
        let begin = cgexec(&live, "--sticky");
        let steps = format!("{begin} {way} {} exec {tool} tool", become_alice());
        let actor = live.hold(&steps);
        live.expect_untouched(&actor);
        live.expect_pid("freezer", actor.subject, "b");
    }
    live.expect(&live.hold(&become_alice()), "there");
    assert!(daemon.stop().get("sticky_inherited") >= 7);
}

/// Checks orphans of parents that exit before the daemon can read their PID.
#[test]
fn orphans_below_cgexec_sticky_stay() {
    let Some((live, _run, daemon)) = served().filter(|_| has_clients()) else { return };
    let mut spawner = live.actor(&format!("{} orphans 500 {ALICE}", cgexec(&live, "--sticky")));
    assert_eq!(spawner.said("orphans"), 500);
    live.fence();
    let moved = census::of(ALICE).into_iter().filter(|one| live.ground.holds(&one.cgroup));
    assert_eq!(moved.collect::<Vec<_>>(), []);
    let counters = daemon.stop();
    assert_eq!(counters.get("placed"), 1, "the fence: {counters:?}");
}

/// Checks the same with other processes and a scan.
#[test]
fn a_reload_in_a_storm_leaves_the_heirs() {
    let Some((live, _run, daemon)) = served().filter(|_| has_clients()) else { return };
    let tool = live.program("bin/tool");
    let steps = format!("{} {} storm 100000000 {tool}", cgexec(&live, "--sticky"), become_alice());
    let _storm = live.actor(&steps);
    let _other = live.actor(&format!("uid {BOB} {BOB} storm 10000000 {tool}"));
    let mut orphans = live.actor(&format!("{} orphans 200 {ALICE}", cgexec(&live, "--sticky")));
    for _ in 0..10 {
        daemon.signal(nix::sys::signal::Signal::SIGHUP);
        live.fence();
    }
    assert_eq!(orphans.said("orphans"), 200);
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    live.fence();
    let counters = daemon.stop();
    assert_eq!(counters.get("placed"), 11, "fences: {counters:?}");
}

#[test]
fn cgclassify_registers_and_cancels() {
    let Some((live, _run, _daemon)) = served().filter(|_| has_clients()) else { return };
    let tool = live.program("bin/tool");
    let steps = format!("say first gate {} say alice gate exec {tool} tool", become_alice());
    let mut actor = live.actor(&format!("{steps} hold"));
    actor.subject = actor.said("first");
    cgclassify(&live, "--sticky", actor.subject);
    actor.open_gate();
    actor.said("alice");
    live.expect_untouched(&actor);
    cgclassify(&live, "--cancel-sticky", actor.subject);
    actor.open_gate();
    actor.said("pid");
    live.expect(&actor, "there");
}

/// Lets every user connect; asserts that the mode was that of cgrulesengd.
fn open_to_all() {
    let file = fs::metadata(SOCKET).unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o660, 0, 0));
    fs::set_permissions(SOCKET, PermissionsExt::from_mode(0o666)).unwrap();
}

fn answer(actor: &mut Actor) -> u32 {
    actor.said("answer")
}

#[test]
fn unprivileged_users_register_their_own_processes() {
    let Some((live, _run, daemon)) = served() else { return };
    open_to_all();
    let bob = live.hold(&format!("uid {BOB} {BOB}"));
    let mut alice = live.actor(&format!("{} ask {} 0 hold", become_alice(), bob.subject));
    assert_eq!(answer(&mut alice), 0);
    let own = alice.said("pid");
    let mut alice = live.actor(&format!("{} ask {own} 1 hold", become_alice()));
    assert_eq!(answer(&mut alice), 18);
    for nobody in [0, -1, i32::MAX] {
        assert_eq!(answer(&mut live.actor(&format!("ask {nobody} 0 hold"))), 0);
    }
    let counters = daemon.stop();
    assert_eq!(counters.get("sticky_refused"), 4, "{counters:?}");
    assert_eq!(counters.get("sticky_registered"), 1, "{counters:?}");
}

/// Returns the time that the daemon takes to place one process of alice.
fn time_of_placement(live: &Live) -> Duration {
    let began = Instant::now();
    live.expect(&live.hold(&become_alice()), "there");
    began.elapsed()
}

fn assert_quick(live: &Live) {
    // The best of five: the machine may be busy, whereas a daemon that waits for a
    // client does so every time.
    let best = (0..5).map(|_| time_of_placement(live)).min().unwrap();
    assert!(best < Duration::from_millis(500), "{best:?}");
}

fn connect() -> UnixStream {
    UnixStream::connect(SOCKET).unwrap()
}

fn request(pid: u32, flags: u32) -> Vec<u8> {
    [pid.to_ne_bytes(), flags.to_ne_bytes()].concat()
}

/// Reads until the other side closes the connection.
fn rest(mut stream: UnixStream) -> Vec<u8> {
    let mut text = Vec::new();
    let _reset = stream.read_to_end(&mut text);
    text
}

#[test]
fn a_request_in_single_bytes_is_answered_and_abuse_is_not() {
    let Some((live, _run, daemon)) = served() else { return };
    let actor = live.hold("");
    let mut slow = connect();
    for byte in request(actor.subject, 1) {
        slow.write_all(&[byte]).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(rest(slow), b"SUCCESS_STORE_PID\0");
    let mut half_open = connect();
    half_open.write_all(&[1, 2, 3, 4]).unwrap();
    let silent = connect();
    for length in [0, 3, 8] {
        connect().write_all(&request(actor.subject, 0)[..length]).unwrap();
    }
    let mut garbage = connect();
    let _broken_pipe = garbage.write_all(&vec![0xa5; 65_536]);
    assert_eq!(rest(garbage), b"");
    assert_quick(&live);
    // Both are disconnected after five seconds.
    let began = Instant::now();
    assert_eq!((rest(half_open), rest(silent)), (Vec::new(), Vec::new()));
    assert!(began.elapsed() < Duration::from_secs(20));
    let counters = daemon.stop();
    assert_eq!(counters.get("sticky_dropped"), 4, "{counters:?}");
    assert_eq!(counters.get("sticky_registered"), 2, "{counters:?}");
}

#[test]
fn a_half_closed_connection_is_answered_at_once() {
    let Some((live, _run, daemon)) = served() else { return };
    let actor = live.hold("");
    let whole = request(actor.subject, 0);
    let began = Instant::now();
    for (length, answer) in [(8, &b"SUCCESS_STORE_PID\0"[..]), (4, b""), (0, b"")] {
        let mut client = connect();
        client.write_all(&whole[..length]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(client), answer, "after {length} bytes");
    }
    // Less than the five seconds that a silent client has.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_quick(&live);
    assert_eq!(daemon.stop().get("sticky_registered"), 1);
}

/// Runs misbehaving clients of every kind, as fast as possible. Returns their number.
fn misbehave(until: &AtomicBool) -> u32 {
    let mut crowd = VecDeque::new();
    let mut count = 0;
    while !until.load(Ordering::Relaxed) {
        // Refused while the backlog of the socket is full.
        let Ok(mut client) = UnixStream::connect(SOCKET) else { continue };
        let bytes = [request(u32::MAX, 99), vec![0xa5; 4096]].concat();
        let length = [0, 3, 4, 8, bytes.len()][count as usize % 5];
        let _broken_pipe = client.write_all(&bytes[..length]);
        if count % 3 == 0 {
            crowd.push_back(client);
        }
        if crowd.len() > 200 {
            crowd.pop_front();
        }
        count += 1;
    }
    count
}

#[test]
fn a_storm_of_clients_delays_no_placement() {
    let Some((live, _run, daemon)) = served() else { return };
    let done = AtomicBool::new(false);
    let count = std::thread::scope(|scope| {
        let storm = scope.spawn(|| misbehave(&done));
        let best = (0..15).map(|_| time_of_placement(&live)).min().unwrap();
        done.store(true, Ordering::Relaxed);
        assert!(best < Duration::from_millis(500), "{best:?}");
        storm.join().unwrap()
    });
    assert!(count > 100, "only {count} clients");
    let actor = live.hold("");
    let mut client = connect();
    client.write_all(&request(actor.subject, 0)).unwrap();
    assert_eq!(rest(client), b"SUCCESS_STORE_PID\0");
    let counters = daemon.stop();
    assert_eq!(counters.get("sticky_registered"), 1, "{counters:?}");
}

#[test]
fn a_thousand_connections_delay_no_placement() {
    let Some((live, _run, daemon)) = served() else { return };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let crowd: Vec<UnixStream> = (0..1000).map(|_| connect()).collect();
    assert_quick(&live);
    let actor = live.hold("");
    let mut client = connect();
    client.write_all(&request(actor.subject, 0)).unwrap();
    assert_eq!(rest(client), b"SUCCESS_STORE_PID\0");
    drop(crowd);
    assert_quick(&live);
    let counters = daemon.stop();
    assert!(counters.get("sticky_dropped") >= 900, "{counters:?}");
}

/// Forks until an actor of alice has the PID `pid`, which is free. Returns `None` if other
/// processes got it every time.
fn actor_with_number(live: &Live, pid: u32) -> Option<Actor> {
    (0..100).find_map(|_| {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
        let actor = live.hold(&become_alice());
        (actor.subject == pid).then_some(actor)
    })
}

#[test]
fn a_reused_pid_is_not_sticky() {
    let Some((live, _run, _daemon)) = served() else { return };
    for flags in [0, 1] {
        let first = live.hold("");
        let pid = first.subject;
        let mut client = connect();
        client.write_all(&request(pid, flags)).unwrap();
        assert_eq!(rest(client), b"SUCCESS_STORE_PID\0");
        drop(first);
        // Start times have a resolution of 10 ms; without the test, PIDs are not reused this soon.
        std::thread::sleep(Duration::from_millis(20));
        match actor_with_number(&live, pid) {
            Some(second) => live.expect(&second, "there"),
            None => println!("skipped: another process got PID {pid}"),
        }
    }
}

#[test]
fn a_second_daemon_does_not_take_the_socket_over() {
    let Some((live, _run, daemon)) = served() else { return };
    let before = fs::metadata(SOCKET).unwrap().ino();
    let output = run(&format!("--config {BASE}/cgruled.toml --rules {BASE}/rules.d"));
    let said = String::from_utf8_lossy(&output.stderr);
    // The exit code after which a service manager does not restart the daemon.
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains(SOCKET) && said.contains("another daemon"), "{said}");
    assert_eq!(fs::metadata(SOCKET).unwrap().ino(), before);
    live.expect(&live.hold(&become_alice()), "there");
    daemon.stop();
    assert!(!Path::new(SOCKET).exists(), "the socket was not removed");
}

#[test]
fn a_socket_that_was_left_behind_is_replaced() {
    let Some(live) = Live::require() else { return };
    let _run = private_run();
    drop(UnixListener::bind(SOCKET).unwrap());
    assert!(Path::new(SOCKET).exists());
    let _daemon = live.legacy_daemon(RULES);
    let actor = live.hold("");
    let mut client = connect();
    client.write_all(&request(actor.subject, 0)).unwrap();
    assert_eq!(rest(client), b"SUCCESS_STORE_PID\0");
    let drafts = fs::read_dir("/run").unwrap().flatten().map(|entry| entry.file_name());
    assert_eq!(drafts.filter(|name| name.to_string_lossy().starts_with("cgred")).count(), 1);
}

#[test]
fn a_file_that_is_not_a_socket_is_kept() {
    let Some(live) = Live::require() else { return };
    let _private = private_run();
    live.write_rules(RULES);
    fs::write(SOCKET, "precious").unwrap();
    let output = run(&format!("--rules {BASE}/rules.d"));
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(fs::read_to_string(SOCKET).unwrap(), "precious");
}
