//! Tests the control socket and the commands of `cgrulectl` that use it.

mod abuse;
pub(super) mod ctl;
mod ill;
mod observe;
mod plan;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cgruled::control::client;
use cgruled::control::protocol::{ControlRequest, WatchMessage, WatchedDecision};
use cgruled::control::status::{ActiveRules, Status};
use nix::sys::signal::Signal;

use crate::harness::user::{ALICE, BOB, READERS};
use crate::harness::{BASE, Daemon, Live, PATIENCE, Settings, census, eventually, run};
use ctl::{Said, Watch, cgrulectl, ctl};

pub(super) const SOCKET: &str = "/run/cgruled-live/control/control.sock";
const RULES: &str = "[[rule]]\nname = \"people\"\nuser = \"cgt-alice\"\ncgroup = \"there\"\n";
const BROKEN: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"new\"\nnonsense = [\n";

pub(super) fn served_with(config: &str) -> Option<(Live, Daemon)> {
    let live = Live::require()?;
    let settings = Settings { config, arguments: &["--control", SOCKET] };
    let daemon = live.daemon_with(RULES, &settings);
    Some((live, daemon))
}

pub(super) fn served() -> Option<(Live, Daemon)> {
    served_with("")
}

pub(super) fn become_alice() -> String {
    format!("uid {ALICE} {ALICE}")
}

fn path() -> &'static Path {
    Path::new(SOCKET)
}

/// Returns `None` while the daemon has too many clients.
fn try_status() -> Option<Status> {
    match client::ask(path(), &ControlRequest::Status).unwrap().expect("a daemon").only() {
        Err(client::ClientError::Refused(why)) if why.contains("try again") => None,
        other => Some(other.unwrap()),
    }
}

pub(super) fn status() -> Status {
    client::ask(path(), &ControlRequest::Status).unwrap().expect("a daemon").only().unwrap()
}

#[test]
fn commands_without_a_daemon_say_so_and_end_with_69() {
    let directory = tempfile::tempdir().unwrap();
    let stale = directory.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    for socket in [directory.path().join("none.sock"), stale] {
        let socket = socket.to_str().unwrap();
        for line in ["status", "status --json", "watch", "history", "metrics", "reload", "place 1"]
        {
            let Said { code, out, err } = cgrulectl(&format!("{line} --socket {socket}"));
            assert_eq!((code, out.as_str()), (69, ""), "{line}: {err}");
            assert!(err.contains(socket) && err.contains("no daemon answers"), "{line}: {err}");
        }
    }
}

#[test]
fn status_tells_what_happened() {
    let Some((live, daemon)) = served() else { return };
    live.expect(&live.hold(&become_alice()), "there");
    let said = ctl("status --json");
    let status: Status = serde_json::from_str(&said.ok()).unwrap();
    assert_eq!((status.rules.count, status.rules.errors, status.rules.files.len()), (2, 0, 2));
    assert!(status.counters["placed"] >= 1 && status.latency.count >= 1, "{status:?}");
    assert!(status.latency.p50_us <= status.latency.max_us && !status.stalled);
    assert_eq!(status.root, live.ground.at("").trim_end_matches('/'));
    assert_eq!(status.hierarchies.iter().filter(|tree| tree.version == 2).count(), 1);
    let page = ctl("status").ok();
    assert!(
        page.contains(&format!("process {}", status.pid)) && page.contains("Latency"),
        "{page}"
    );
    assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
    let metrics = ctl("metrics").ok();
    assert!(metrics.ends_with("# EOF\n") && metrics.contains("\ncgruled_placed_total "));
    let rules = client::ask(path(), &ControlRequest::Rules)
        .unwrap()
        .unwrap()
        .only::<ActiveRules>()
        .unwrap();
    assert_eq!(rules.rules[1].name, "people");
    assert_eq!(rules.rules[1].cgroups, ["there"]);
    daemon.stop();
    assert!(!path().exists(), "the socket was not removed");
}

#[test]
fn root_may_change_and_readers_may_query() {
    let Some((live, _daemon)) = served() else { return };
    let file = fs::metadata(SOCKET).unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o660, 0, READERS));
    assert_eq!(fs::metadata(path().parent().unwrap()).unwrap().mode() & 0o7777, 0o755);
    let program = live.path("bin/cgrulectl");
    fs::copy(env!("CARGO_BIN_EXE_cgrulectl"), &program).unwrap();
    let ask = |line: &str, gid: u32| Said::of(ctl::command(&program, line).uid(BOB).gid(gid));
    let stranger = ask("status", BOB);
    assert_eq!(stranger.code, 1, "{stranger:?}");
    assert!(stranger.err.contains("permission denied"), "{stranger:?}");
    assert!(ask("status", READERS).ok().contains("Events"));
    assert!(ask("history --all", READERS).out.contains("(scan, "));
    let actor = live.hold(&become_alice());
    for line in ["reload".to_owned(), format!("place {}", actor.subject)] {
        let said = ask(&line, READERS);
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
        assert!(said.err.contains("only root"), "{said:?}");
    }
    // A mode that lets every user connect does not authorize every user.
    fs::set_permissions(SOCKET, PermissionsExt::from_mode(0o666)).unwrap();
    for line in ["status", "history --all"] {
        let said = ask(line, BOB);
        assert!(said.code == 1 && said.out.is_empty(), "{said:?}");
        assert!(said.err.contains("only root and members"), "{said:?}");
    }
}

#[test]
fn a_socket_that_is_served_is_not_taken_over() {
    let Some((live, daemon)) = served() else { return };
    let actor = live.hold(&become_alice());
    live.expect(&actor, "there");
    daemon.signal(Signal::SIGSTOP);
    live.rule_file("60-second.toml", "[cgroup.there]\n\"cgroup.max.depth\" = 7\n");
    let root = live.ground.at("");
    let root = root.trim_end_matches('/');
    let arguments = format!(
        "--no-legacy --config {BASE}/cgruled.toml --rules {BASE}/rules.d --control {SOCKET} --root {root}"
    );
    let second = run(&arguments);
    let depth = live.ground.directory("", "there/cgroup.max.depth").unwrap();
    let depth = fs::read_to_string(depth).unwrap();
    daemon.signal(Signal::SIGCONT);
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(78), "{said}");
    assert!(said.contains(SOCKET) && said.contains("another daemon"), "{said}");
    assert_eq!(depth, "max\n", "the second daemon configured cgroups");
    assert!(status().pid > 0);
    daemon.stop();
    // A socket that a killed daemon left behind is replaced.
    drop(UnixListener::bind(SOCKET).unwrap());
    let settings = Settings { config: "", arguments: &["--control", SOCKET] };
    let _daemon = live.daemon_with(RULES, &settings);
    assert!(status().pid > 0);
}

#[test]
fn reload_waits_until_all_processes_are_in_place() {
    let Some((live, _daemon)) = served() else { return };
    let actor = live.hold(&become_alice());
    live.expect(&actor, "there");
    live.write_rules(&RULES.replace("there", "elsewhere"));
    let said = ctl("reload");
    assert!(said.ok().contains("active: 2 rules from 2 files"));
    assert_eq!(census::cgroup_of(actor.subject, ""), Some(live.ground.at("elsewhere")));
}

/// Checks the way back: of a removed rule while the daemon runs, of others after it was stopped.
#[test]
fn release_returns_processes_and_does_not_compete_with_the_daemon() {
    let Some((live, daemon)) = served() else { return };
    let flags = format!(
        "--no-legacy --rules {} --root {}",
        live.path("rules.d").display(),
        live.ground.at("")
    );
    let release = |more: &str| ctl(&format!("release {more} {flags}"));
    let top = Some(live.ground.at("").trim_end_matches('/').to_owned());
    let actor = live.hold(&become_alice());
    live.expect(&actor, "there");
    assert_eq!(release("").ok(), "0 processes released, 0 left\n");
    for refused in ["--all", "--rule people"] {
        let said = release(refused);
        assert!(said.code == 1 && said.err.contains("the daemon is running"), "{said:?}");
    }
    assert!(release("--all --dry-run").ok().contains("1 process would be released, 0 left"));
    live.expect(&actor, "there");
    live.write_rules("");
    ctl("reload");
    let said = release("").ok();
    assert!(said.contains("1 process released, 0 left"), "{said}");
    assert_eq!(census::cgroup_of(actor.subject, ""), top);
    assert!(!live.ground.directory("", "there").unwrap().exists(), "an empty cgroup is removed");
    live.write_rules(RULES);
    ctl("reload");
    live.expect(&actor, "there");
    daemon.stop();
    assert_eq!(release("--rule nobody").code, 1);
    let said = release("--rule people").ok();
    assert!(said.contains("1 process released, 0 left"), "{said}");
    assert_eq!(census::cgroup_of(actor.subject, ""), top);
}

/// Checks the settings that change while the daemon runs, and those of the command line, which stay.
#[test]
fn reload_applies_settings_and_names_those_that_need_a_restart() {
    let Some((live, daemon)) = served() else { return };
    let config = live.path("cgruled.toml");
    let textfile = live.path("cgruled.prom");
    let new = format!(
        "root = \"/elsewhere\"\nlegacy_root = \"pool\"\nfast_moves = \"off\"\nrecheck = \"5s\"\n\
         external_moves = \"report\"\nreceive_buffer = \"8M\"\nstats_every = \"1s\"\n\
         control_socket = \"/run/other.sock\"\nmetrics_textfile = \"{}\"\nlog.level = \"error\"\n",
        textfile.display()
    );
    fs::write(&config, &new).unwrap();
    let said = ctl("reload");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("legacy_root: pool instead of unset takes effect after a restart"));
    assert_eq!(said.err.matches("after a restart").count(), 1, "{said:?}");
    assert_eq!(status().external_moves, "report");
    assert!(eventually(PATIENCE, || textfile.exists()));
    daemon.expect_log("evaluations ");
    daemon.expect_log("fast_moves: off instead of auto");
    daemon.expect_log("recheck: 5s instead of 100ms");
    fs::write(&config, new.replace("report", "rapport")).unwrap();
    for _ in 0..2 {
        let said = ctl("reload");
        assert_eq!(said.code, 65, "{said:?}");
        assert!(said.err.contains("cgruled.toml:5:18") && said.err.contains("rapport"), "{said:?}");
    }
    assert_eq!(status().external_moves, "report");
    fs::write(&config, "").unwrap();
    assert_eq!(ctl("reload").ok(), "active: 2 rules from 2 files\n");
    assert_eq!(status().external_moves, "revert");
    assert!(eventually(PATIENCE, || !textfile.exists()));
    live.expect(&live.hold(&become_alice()), "there");
}

#[test]
fn reload_with_a_broken_file_ends_with_65_and_the_file_stays_as_it_was() {
    let Some((live, _daemon)) = served() else { return };
    live.write_rules(BROKEN);
    for _ in 0..2 {
        let said = ctl("reload");
        assert_eq!(said.code, 65, "{said:?}");
        assert!(said.out.contains("active: 2 rules from 2 files"), "{said:?}");
        assert!(
            said.err.contains("50-test.toml:5") && said.err.contains("kept at last valid version")
        );
    }
    live.expect(&live.hold(&become_alice()), "there");
    let refused = status().refused_reload.expect("it is refused");
    assert!(refused.errors[0].contains("50-test.toml"), "{refused:?}");
    assert_eq!(refused.kept.len(), 1);
    assert!(refused.kept[0].first_error.ends_with("50-test.toml:5"), "{refused:?}");
    let page = ctl("status").ok();
    assert!(page.contains("50-test.toml:5") && page.contains("file kept at last valid version"));
    live.write_rules(RULES);
    ctl("reload").ok();
    assert_eq!(status().refused_reload, None);
}

#[test]
fn reload_with_a_new_broken_file_ends_with_65_until_it_is_fixed() {
    let Some((live, _daemon)) = served() else { return };
    live.rule_file("60-new.toml", BROKEN);
    // The daemon reads it by itself before the second request, whose errors are not new.
    for _ in 0..2 {
        let said = ctl("reload");
        assert_eq!(said.code, 65, "{said:?}");
        assert!(said.err.contains("60-new.toml:5") && said.err.contains("error; all other"));
    }
    fs::remove_file(live.path("rules.d/60-new.toml")).unwrap();
    ctl("reload").ok();
}

#[test]
fn place_moves_a_process_that_was_put_elsewhere() {
    let Some((live, _daemon)) = served_with("recheck = \"off\"\n") else { return };
    let actor = live.hold(&become_alice());
    live.expect(&actor, "there");
    live.ground.take_away(actor.subject);
    let place = |pid: u32| ctl(&format!("place {pid}"));
    let said = place(actor.subject).ok();
    assert!(said.contains(": placed in ") && said.contains("by rule 'people'"), "{said}");
    assert_eq!(census::cgroup_of(actor.subject, ""), Some(live.ground.at("there")));
    assert!(place(actor.subject).ok().contains(": in-place in "));
    let gone = actor.subject;
    drop(actor);
    let said = place(gone);
    assert!(said.code == 1 && said.out.contains(": gone"), "{said:?}");
    assert_eq!(ctl("place").code, 2);
}

#[test]
fn the_daemon_knows_the_mover_of_a_process() {
    let Some((live, daemon)) = served_with("recheck = \"1s\"\n") else { return };
    let actor = live.hold(&become_alice());
    live.expect(&actor, "there");
    live.ground.take_away(actor.subject);
    live.expect(&actor, "there");
    live.ground.take_away(actor.subject);
    daemon.expect_log("is left there");
    let abouts = client::about(path(), &[actor.subject, 1]).unwrap().unwrap();
    let outcomes: Vec<&str> = abouts[0].history.iter().map(|one| one.outcome.as_str()).collect();
    assert_eq!(outcomes, ["externally-moved", "abandoned"], "{abouts:?}");
    let last = &abouts[0].history[1];
    assert_eq!((last.rule.as_str(), &last.cgroup), ("people", &live.ground.at("there")));
    assert!(last.detail.contains("moved to /"), "{last:?}");
    assert_eq!((abouts[1].pid, abouts[1].history.len()), (1, 0));
    let takers = status().external_movers;
    assert_eq!(takers.iter().map(|taker| taker.count).sum::<u64>(), 2, "{takers:?}");
    // `place` evaluates an abandoned process again.
    ctl(&format!("place {}", actor.subject)).ok();
    live.expect(&actor, "there");
}

/// Forwards connections to the daemon, and counts them.
fn proxy(at: &Path) -> Arc<AtomicUsize> {
    let listener = UnixListener::bind(at).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for client in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            let (mut client, mut daemon) = (client.unwrap(), UnixStream::connect(path()).unwrap());
            let mut request = String::new();
            BufReader::new(&client).read_line(&mut request).unwrap();
            daemon.write_all(request.as_bytes()).unwrap();
            std::io::copy(&mut daemon, &mut client).unwrap();
        }
    });
    count
}

#[test]
fn explain_asks_the_daemon_once() {
    let Some((live, _daemon)) = served() else { return };
    let actor = live.hold(&become_alice());
    live.expect(&actor, "there");
    let (context, reports) = client::explain(path(), &[actor.subject, 1]).unwrap().unwrap();
    assert_eq!((context.pid, context.dry_run, context.stalled), (status().pid, false, false));
    assert!(context.rules.rules.iter().any(|rule| rule.name == "people"), "{context:?}");
    let moved: Vec<bool> = reports.iter().map(|one| one.moved_ago_ms.is_some()).collect();
    assert_eq!(moved, [true, false]);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("proxy");
    let connections = proxy(&socket);
    let socket = socket.display();
    let files = format!("--no-legacy --config {BASE}/cgruled.toml --rules {BASE}/rules.d");
    let said = cgrulectl(&format!("explain {files} --socket {socket} {} 1", actor.subject)).ok();
    assert!(said.contains("people"), "{said}");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn the_daemon_knows_why_the_kernel_refused() {
    let Some((live, _daemon)) = served() else { return };
    let limit = live.ground.directory("", "cgroup.max.descendants").unwrap();
    fs::write(limit, "0").unwrap();
    let actor = live.hold(&become_alice());
    let mut history = Vec::new();
    let remembered = eventually(PATIENCE, || {
        history = client::about(path(), &[actor.subject]).unwrap().unwrap().remove(0).history;
        !history.is_empty()
    });
    assert!(remembered);
    let last = &history[0];
    assert_eq!(
        (history.len(), last.outcome.as_str(), last.rule.as_str()),
        (1, "refused", "people")
    );
    assert!(last.detail.contains("EAGAIN") && last.detail.contains("cgroup.max.descendants"));
    assert_eq!(status().refusals[0].errno, "EAGAIN");
    assert!(ctl("metrics").ok().contains("cgruled_refusals_total{errno=\"EAGAIN\"} "));
    let said = ctl(&format!("place {}", actor.subject));
    assert!(said.code == 1 && said.out.contains(": refused for "), "{said:?}");
}

#[test]
fn watch_exits_quietly_when_its_output_is_closed() {
    let Some((live, daemon)) = served() else { return };
    let mut watch = Watch::start("watch");
    watch.hang_up();
    let ended = eventually(PATIENCE, || {
        live.expect(&live.hold(&become_alice()), "there");
        watch.has_ended()
    });
    assert!(ended, "watch did not exit");
    assert_eq!(watch.end(), (0, String::new()));
    let other = Watch::start("watch");
    daemon.stop();
    let (code, err) = other.end();
    assert!(code == 69 && err.contains("connection closed by the daemon"), "{code} {err}");
}

#[test]
fn watch_shows_decisions_and_no_more_than_a_line_each() {
    let Some((live, _daemon)) = served() else { return };
    let hostile = live.program("bin/x\u{1b}[2J\u{9b}31m");
    let mut watch = Watch::start("watch --user cgt-alice");
    let mut actor = live.actor(&format!("{} gate exec {hostile} tool hold", become_alice()));
    let line = watch.line();
    assert!(line.contains(" placed ") && line.contains("cgt-alice"), "{line:?}");
    assert!(line.contains(&live.ground.at("there")) && line.contains("by 'people'"), "{line:?}");
    actor.open_gate();
    let line = watch.line();
    assert!(line.contains("in-place") && line.contains("x\\u{1b}[2J\\u{9b}31m"), "{line:?}");
    assert!(!line.contains('\u{1b}') && !line.contains('\u{9b}'), "{line:?}");
}

#[test]
fn a_rule_is_watched_by_its_name_or_where_it_stands() {
    let Some((live, daemon)) = served() else { return };
    let file = live.path("rules.d/50-test.toml");
    let rules = fs::read_to_string(&file).unwrap();
    let line = rules.lines().position(|line| line.contains("people")).unwrap() + 1;
    let file = file.display();
    let forms = ["people".to_owned(), format!("{file}:{line}"), format!("50-test.toml:{line}")];
    let watches = forms.map(|rule| Watch::start(&format!("watch --rule {rule}")));
    let actor = live.hold(&become_alice());
    for mut watch in watches {
        let line = watch.line();
        assert!(line.contains(&format!(" {} cgt-alice ", actor.subject)), "{line}");
    }
    let mut child = ctl::command(Path::new(env!("CARGO_BIN_EXE_cgrulectl")), "watch --rule pepole")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut complaints = BufReader::new(child.stderr.take().unwrap());
    complaints.read_line(&mut said).unwrap();
    // `watch` exits with the daemon.
    daemon.stop();
    child.wait().unwrap();
    assert!(said.contains("no active rule has the name or location pepole"), "{said}");
}

#[test]
fn the_watch_protocol_has_facts() {
    let Some((live, daemon)) = served() else { return };
    let mut watch = client::ask(path(), &ControlRequest::Watch).unwrap().unwrap();
    assert_eq!(watch.next_line::<WatchMessage>().unwrap(), Some(WatchMessage::Lost { lost: 0 }));
    let actor = live.hold(&become_alice());
    live.expect(&actor, "there");
    let decision = loop {
        match watch.next_line::<WatchMessage>().unwrap().expect("a line") {
            WatchMessage::Decision(one) if one.pid == actor.subject && one.outcome == "placed" => {
                break one;
            }
            WatchMessage::Decision(_) | WatchMessage::Lost { .. } => {}
        }
    };
    let WatchedDecision { uid, exe, rule, cgroup, cause, .. } = decision;
    assert_eq!(uid, Some(ALICE));
    assert!(cause.contains("setuid"), "{cause}");
    assert_eq!(exe, live.path("bin/actors").to_str().map(str::to_owned));
    assert_eq!((rule.as_deref(), cgroup), (Some("people"), Some(live.ground.at("there"))));
    daemon.stop();
    while watch.next_line::<WatchMessage>().unwrap().is_some() {}
}

#[test]
fn metrics_are_written_to_a_file_while_the_daemon_runs() {
    let file = format!("{BASE}/cgruled.prom");
    let Some((_live, daemon)) = served_with(&format!("metrics_textfile = \"{file}\"\n")) else {
        return;
    };
    let mut text = String::new();
    let written = eventually(PATIENCE, || {
        text.clear();
        fs::File::open(&file).and_then(|mut file| file.read_to_string(&mut text)).is_ok()
    });
    assert!(written && text.ends_with("# EOF\n"), "{text}");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o644);
    daemon.stop();
    assert!(!Path::new(&file).exists(), "metrics of a stopped daemon");
}
