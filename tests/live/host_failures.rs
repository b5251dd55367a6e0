//! Tests a host that fails: full or closed outputs, limits of inotify, floods at startup, another time
//! namespace, hostile names of accounts.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::inotify::{InitFlags, Inotify};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::harness::daemon::kib_of;
use crate::harness::user::{ALICE, CAROL, passwd_line};
use crate::harness::{BASE, Live, Settings, Surroundings};

const RULES: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"alice\"\n";
const EVIL: u32 = 61_760;

/// Stops a daemon whose standard output cannot be written: it must exit with 0.
fn stops_with(redirection: &str) {
    let Some(live) = Live::require() else { return };
    let script = format!("exec \"$0\" \"$@\" {redirection}");
    let launcher = ["sh", "-c", &script];
    let on = Surroundings { launcher: &launcher, ..Surroundings::default() };
    let daemon = live.daemon_on(RULES, &Settings::default(), &on);
    live.expect(&live.hold(&format!("uid {ALICE} {ALICE}")), "alice");
    daemon.stop();
}

#[test]
fn a_full_disk_as_output_does_not_end_it_by_a_signal() {
    stops_with(">/dev/full");
}

#[test]
fn a_closed_output_does_not_end_it_by_a_signal() {
    stops_with(">&-");
}

#[test]
fn it_runs_without_inotify_and_names_the_limit() {
    let Some(live) = Live::require() else { return };
    let used: Vec<Inotify> =
        std::iter::from_fn(|| Inotify::init(InitFlags::IN_CLOEXEC).ok()).take(65_536).collect();
    let daemon = live.daemon(RULES);
    drop(used);
    daemon.expect_log("fs.inotify.max_user_instances");
    live.expect(&live.hold(&format!("uid {ALICE} {ALICE}")), "alice");
}

#[test]
fn it_starts_during_a_flood_with_a_tiny_receive_buffer() {
    let Some(live) = Live::require() else { return };
    let _floods = [0; 3].map(|_| live.actor(&format!("toggle 100000000 {CAROL} 0")));
    let settings = Settings { config: "receive_buffer = \"8K\"\n", arguments: &[] };
    let _daemon = live.daemon_with(RULES, &settings);
    live.expect(&live.hold(&format!("uid {ALICE} {ALICE}")), "alice");
}

/// Runs a daemon that must not start. Returns its exit code and its error output.
fn refused(launcher: &[&str], config: &str) -> (Option<i32>, String) {
    let config_file = format!("{BASE}/cgruled.toml");
    fs::write(&config_file, config).unwrap();
    let rules = format!("{BASE}/rules.d");
    let [program, arguments @ ..] = launcher else { panic!() };
    let output = Command::new(program)
        .args(arguments)
        .arg(env!("CARGO_BIN_EXE_cgruled"))
        .args(["--no-legacy", "--control", "off", "--config", &config_file, "--rules", &rules])
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn another_time_namespace_is_refused() {
    let Some(live) = Live::require() else { return };
    live.write_rules(RULES);
    // The kernel rejects an offset that would be before the boot of the host.
    for offset in ["1000", "-20"] {
        let (code, said) = refused(&["unshare", "-T", "--monotonic", offset, "--fork"], "");
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("time namespace"), "{said}");
    }
}

#[test]
fn a_fifo_as_log_file_does_not_block_the_start() {
    let Some(live) = Live::require() else { return };
    live.write_rules(RULES);
    mkfifo(&live.path("fifo"), Mode::S_IRWXU).unwrap();
    let began = Instant::now();
    let config = format!("log = {{ file = \"{BASE}/fifo\" }}\n");
    let (code, said) = refused(&["timeout", "20"], &config);
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("no process reads this FIFO"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_name_from_the_name_service_does_not_drive_a_terminal() {
    let Some(live) = Live::require() else { return };
    let mut passwd = OpenOptions::new().append(true).open("/etc/passwd").unwrap();
    passwd.write_all(passwd_line("cgt\u{1b}[2J\u{7}\u{9b}", EVIL).as_bytes()).unwrap();
    let daemon = live.daemon(&format!("[[rule]]\nuser = \"{EVIL}\"\ncgroup = \"evil/%u\"\n"));
    let _evil = live.hold(&format!("uid {EVIL} {EVIL}"));
    daemon.expect_log("of cgt\\u{1b}[2J\\u{7}\\u{9b} ");
    assert!(!daemon.log().chars().any(|own| own.is_control() && own != '\n'));
}

#[test]
fn the_code_of_the_program_is_locked_in_memory() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(RULES);
    let locked = kib_of(daemon.pid(), "VmLck:");
    assert!(locked >= 1024, "{locked} KiB");
}

#[test]
fn it_runs_without_permission_to_lock_memory() {
    let Some(live) = Live::require() else { return };
    let launcher = ["setpriv", "--bounding-set", "-ipc_lock", "prlimit", "--memlock=0:0"];
    let on = Surroundings { launcher: &launcher, ..Surroundings::default() };
    let daemon = live.daemon_on(RULES, &Settings::default(), &on);
    daemon.expect_log("cannot be locked in memory (RLIMIT_MEMLOCK)");
    assert_eq!(kib_of(daemon.pid(), "VmLck:"), 0);
    live.expect(&live.hold(&format!("uid {ALICE} {ALICE}")), "alice");
}
