//! Simulates a host with systemd on pure v2 by a mount namespace of the daemon: no v1 hierarchy is
//! mounted, `/run/systemd/system` exists, and so does a unit file of the pool. The actions of
//! systemd are not simulated. The cgroup hierarchy is the real one.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::user::{ALICE, BOB, CAROL};
use crate::harness::{
    Actor, BASE, Daemon, Live, PATIENCE, Settings, Surroundings, census, eventually,
};

const POOL: &str = "/cgruled.slice/cgruled-pool.service";

/// `sh -c SCRIPT UNIT DAEMON ARGUMENT...`: sets up the host and executes the daemon in it. UNIT is
/// the text of the unit of the pool, or empty.
const SCRIPT: &str = "set -e
base=/run/cgruled-live
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cp -a /etc $base/etc
rm -rf $base/etc/cgrules.d $base/etc/cgrules.conf $base/etc/cgconfig.conf $base/etc/cgconfig.d
[ ! -e $base/cgrules.conf ] || cp $base/cgrules.conf $base/etc/
mount --bind $base/etc /etc
mount --bind $base /mnt
mount -t tmpfs tmpfs /run
mkdir -p $base /run/systemd/system
mount --bind /mnt $base
umount /mnt
[ -z \"$0\" ] || echo \"$0\" > /run/systemd/system/cgruled-pool.service
exec \"$@\"";

const fn launcher(unit: &str) -> [&str; 6] {
    ["unshare", "--mount", "sh", "-c", SCRIPT, unit]
}

/// The cgroups that the daemon creates in the root of the real hierarchy. Removed on drop, when the
/// processes in them have exited: so declared after [`Live`] and before any process.
struct Pool {
    slice: PathBuf,
}

impl Pool {
    fn of(live: &Live) -> Self {
        let ground = live.ground.directory("", "").unwrap();
        let slice = ground.parent().unwrap().join("cgruled.slice");
        assert!(!slice.exists(), "{} exists before the test", slice.display());
        Self { slice }
    }

    fn remove(&self) -> bool {
        fn remove_below(group: &std::path::Path) {
            for entry in fs::read_dir(group).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    remove_below(&entry.path());
                }
            }
            let _ = fs::remove_dir(group);
        }
        eventually(PATIENCE, || {
            remove_below(&self.slice);
            !self.slice.exists()
        })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.remove() {
            eprintln!("not removed: {}", self.slice.display());
        }
    }
}

/// Starts the daemon on such a host.
fn on_systemd(live: &Live, rules: &str, config: &str, unit: &str) -> Daemon {
    let launcher = launcher(unit);
    let settings = Settings { config, ..Settings::default() };
    let on = Surroundings { launcher: &launcher, is_bare: true, ..Surroundings::default() };
    live.daemon_on(rules, &settings, &on)
}

fn expect_at(actor: &Actor, wanted: &str) {
    let mut found = None;
    let arrived = eventually(PATIENCE, || {
        found = census::cgroup_of(actor.subject, "");
        found.as_deref() == Some(wanted)
    });
    assert!(arrived, "process {} is in {found:?} instead of {wanted}", actor.subject);
}

#[test]
fn cgroups_are_created_below_the_pool_and_nothing_is_written_above() {
    let Some(live) = Live::require() else { return };
    let pool = Pool::of(&live);
    let top = pool.slice.parent().unwrap().join("cgroup.subtree_control");
    let before = fs::read_to_string(&top).unwrap();
    // All controllers that this host has on v2: without systemd none is enabled for the pool.
    let controllers = fs::read_to_string(top.with_file_name("cgroup.controllers")).unwrap();
    let rules = format!(
        "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"people/%u\"\ncontrollers = {:?}\n",
        controllers.split_whitespace().collect::<Vec<_>>()
    );
    let rules = rules.replace("controllers = []\n", "");
    let daemon = on_systemd(&live, &rules, "", "[Service]");
    assert!(pool.slice.join("cgruled-pool.service").is_dir(), "the pool was not created");
    daemon.expect_log("pool.service has no controllers");
    let there = format!("{POOL}/people/cgt-alice");
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    expect_at(&actor, &there);
    assert_eq!(fs::read_to_string(&top).unwrap(), before);
    // systemd removes empty cgroups.
    drop(actor);
    assert!(pool.remove());
    expect_at(&live.hold(&format!("uid {ALICE} {ALICE}")), &there);
    assert!(!daemon.log().contains("start at the hierarchy root"), "there are no legacy rules");
}

#[test]
fn a_rule_for_the_delegated_root_ends_the_search() {
    let Some(live) = Live::require() else { return };
    let _pool = Pool::of(&live);
    let rules = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"/\"\n\
                 [[rule]]\nuser = \"61000-61999\"\ncgroup = \"rest\"\n";
    let daemon = on_systemd(&live, rules, "", "[Service]");
    daemon.expect_log("50-test.toml:3: warning: the destination is the root of the cgroups");
    expect_alice_stays_and_bob_goes_to_rest(&live);
    assert_eq!(daemon.log().matches("which cannot contain processes").count(), 1, "one warning");
    assert!(daemon.stop().get("inapplicable") > 0);
}

#[test]
fn a_legacy_rule_for_the_delegated_root_ends_the_search() {
    let Some(live) = Live::require() else { return };
    let _pool = Pool::of(&live);
    let text = "cgt-alice cpu /\ncgt-alice cpu rest/\\\ncgt-bob cpu rest/\\\n";
    let daemon = legacy_file(&live, "legacy_root = \"pool\"\n", text);
    daemon.expect_log("cgrules.conf:1: warning: the destination is the root of the cgroups");
    expect_alice_stays_and_bob_goes_to_rest(&live);
}

#[test]
fn a_rule_with_a_missing_controller_ends_the_search() {
    let Some(live) = Live::require() else { return };
    let _pool = Pool::of(&live);
    let text = "cgt-alice nosuch first/%u\ncgt-alice cpu rest/\\\ncgt-bob cpu rest/\\\n";
    let daemon = legacy_file(&live, "legacy_root = \"pool\"\n", text);
    daemon
        .expect_log("cgrules.conf:1: warning: no cgroup hierarchy of this host has the controller");
    expect_alice_stays_and_bob_goes_to_rest(&live);
}

#[test]
fn a_dry_run_reports_processes_of_inapplicable_rules() {
    let Some(live) = Live::require() else { return };
    let launcher = launcher("[Service]");
    let settings = Settings { arguments: &["--dry-run"], ..Settings::default() };
    let on = Surroundings { launcher: &launcher, is_bare: true, ..Surroundings::default() };
    let alice = live.hold(&format!("uid {ALICE} {ALICE}"));
    let rules = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"/\"\n";
    let daemon = live.daemon_on(rules, &settings, &on);
    daemon.expect_log(
        "where it is: the rule cannot be applied on this host: its destination is the managed root",
    );
    // Logged once per rule, and another process of alice may be exiting.
    assert!(daemon.log().contains("would leave process "));
    drop(alice);
}

/// Checks two rules that match alice, of which the first cannot be applied: the process stays. Bob
/// matches only the second one.
fn expect_alice_stays_and_bob_goes_to_rest(live: &Live) {
    let alice = live.hold(&format!("uid {ALICE} {ALICE}"));
    // Events are processed in order.
    expect_at(&live.hold(&format!("uid {BOB} {BOB}")), &format!("{POOL}/rest"));
    let found = census::cgroup_of(alice.subject, "").unwrap();
    assert!(!found.starts_with(POOL), "moved to {found}");
}

#[test]
fn without_the_unit_nothing_is_created_unless_the_root_is_configured() {
    let Some(live) = Live::require() else { return };
    let rules = format!(
        "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"{}\"\n",
        live.ground.at("people").trim_start_matches('/')
    );
    let daemon = on_systemd(&live, &rules, "", "");
    daemon.expect_log("error: root = \"auto\": systemd owns the cgroups of this host and the unit");
    daemon.expect_log("ready: ");
    let alice = live.hold(&format!("uid {ALICE} {ALICE}"));
    // There is no rule for a fence either.
    std::thread::sleep(Duration::from_millis(500));
    let found = census::cgroup_of(alice.subject, "").unwrap();
    assert!(!live.ground.holds(&found), "moved to {found}");
    daemon.stop();
    let _daemon = on_systemd(&live, &rules, "root = \"/\"\n", "");
    live.expect(&live.hold(&format!("uid {ALICE} {ALICE}")), "people");
    assert!(!live.ground.directory("", "").unwrap().with_file_name("cgruled.slice").exists());
}

/// Starts a process of a user in a cgroup of this name, before the daemon.
fn resident(live: &Live, uid: u32, group: &str) -> Actor {
    let actor = live.hold(&format!("uid {uid} {uid}"));
    let directory = live.ground.directory("", group).unwrap();
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("cgroup.procs"), actor.subject.to_string()).unwrap();
    actor
}

#[test]
fn processes_leave_units_only_without_loss_or_with_leave_units() {
    let Some(live) = Live::require() else { return };
    let _pool = Pool::of(&live);
    let rule = |more: &str| {
        format!("[[rule]]\nname = \"all\"\nuser = [\"cgt-alice\"]\ncgroup = \"people/%u\"\n{more}")
    };
    let session = "user.slice/user-61701.slice/session-7.scope";
    let stays = [
        resident(&live, ALICE, "system.slice/cgt.service/below"),
        resident(&live, ALICE, "system.slice/docker-1.scope"),
        resident(&live, ALICE, "user.slice/session-8.scope"),
    ];
    let _shell = resident(&live, BOB, session);
    let moves = [
        resident(&live, ALICE, session),
        resident(&live, ALICE, "user.slice/user@61701.service/app.slice/app-x.scope"),
        resident(&live, ALICE, "system.slice/cron.service"),
        resident(&live, ALICE, "elsewhere"),
    ];
    let places: Vec<_> = stays.iter().map(|a| census::cgroup_of(a.subject, "").unwrap()).collect();
    let daemon = on_systemd(&live, &rule(""), "", "[Service]");
    let there = format!("{POOL}/people/cgt-alice");
    moves.iter().for_each(|actor| expect_at(actor, &there));
    stays.iter().zip(&places).for_each(|(actor, place)| expect_at(actor, place));
    for said in ["stays in cgt.service", "stays in docker-1.scope", "last process of the session"] {
        daemon.expect_log(said);
    }
    daemon.expect_log("set leave_units = true in rule 'all', ");
    live.write_rules(&rule("leave_units = true\n"));
    daemon.signal(Signal::SIGHUP);
    stays.iter().for_each(|actor| expect_at(actor, &there));
    let counters = daemon.stop();
    assert!(counters.get("kept_in_unit") >= 3, "{counters:?}");
}

/// Starts a daemon with a legacy rule on a host that has only v2.
fn legacy(live: &Live, config: &str, path: &str) -> Daemon {
    legacy_file(live, config, &format!("cgt-alice freezer {path}/%u\n"))
}

/// Starts a daemon with this text of cgrules.conf on such a host.
fn legacy_file(live: &Live, config: &str, text: &str) -> Daemon {
    fs::write(format!("{BASE}/cgrules.conf"), text).unwrap();
    on_systemd(live, "", config, "[Service]")
}

#[test]
fn legacy_rules_begin_at_the_root_with_a_warning_and_leave_units_as_cgrulesengd() {
    let Some(live) = Live::require() else { return };
    let _pool = Pool::of(&live);
    let actor = resident(&live, ALICE, "system.slice/cgt.service");
    let path = live.ground.at("legacy");
    let daemon = legacy(&live, "", path.trim_start_matches('/'));
    live.expect(&actor, "legacy/cgt-alice");
    daemon.expect_log("paths of legacy rules start at the hierarchy root");
    daemon.expect_log("leaves cgt.service, as with cgrulesengd");
    assert_eq!(daemon.stop().get("kept_in_unit"), 0);
}

#[test]
fn legacy_rules_begin_below_the_pool_with_that_setting() {
    let Some(live) = Live::require() else { return };
    let _pool = Pool::of(&live);
    let daemon = legacy(&live, "legacy_root = \"pool\"\n", "legacy");
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    expect_at(&actor, &format!("{POOL}/legacy/cgt-alice"));
    assert!(!daemon.log().contains("start at the hierarchy root"), "legacy_root is set");
}

/// The notification socket of a service manager.
struct Manager(UnixDatagram);

impl Manager {
    const PATH: &str = "/run/cgruled-live/notify";

    fn listen() -> Self {
        let socket = UnixDatagram::bind(Self::PATH).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn hear(&self) -> String {
        let mut buffer = [0; 1024];
        let length = self.0.recv(&mut buffer).expect("no notification");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Returns the next message that contains `text`. Others come before it, because a
    /// changed file is a reload too.
    fn expect(&self, text: &str) -> String {
        loop {
            let heard = self.hear();
            if heard.contains(text) {
                return heard;
            }
        }
    }
}

#[test]
fn the_service_manager_is_notified_when_rules_are_active_everywhere() {
    let Some(live) = Live::require() else { return };
    let manager = Manager::listen();
    let resident = live.hold(&format!("uid {ALICE} {ALICE}"));
    let environment = [("NOTIFY_SOCKET", Manager::PATH), ("WATCHDOG_USEC", "400000")];
    let on = Surroundings { environment: &environment, ..Surroundings::default() };
    let rule = |name: &str| format!("[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"{name}\"\n");
    let daemon = live.daemon_on(&rule("a"), &Settings::default(), &on);
    let ready = manager.expect("READY=1\n");
    assert!(ready.contains("STATUS=2 rules from 2 files, 0 errors; 1 process moved"), "{ready}");
    assert_eq!(census::cgroup_of(resident.subject, ""), Some(live.ground.at("a")));

    live.write_rules(&rule("b"));
    daemon.signal(Signal::SIGHUP);
    let reloading = manager.expect("RELOADING=1\nMONOTONIC_USEC=");
    let since: u64 = reloading.trim().rsplit_once('=').unwrap().1.parse().unwrap();
    assert!(since > 0);
    manager.expect("READY=1\n");
    live.expect(&resident, "b");

    std::thread::sleep(Duration::from_millis(500));
    live.write_rules("[[rule]]\nuser = 5\n");
    daemon.signal(Signal::SIGHUP);
    let heard = manager.expect("50-test.toml:2 (1 file kept at last valid version)");
    assert!(heard.starts_with("READY=1\nSTATUS=2 rules"), "{heard}");
    manager.expect("WATCHDOG=1");
    manager.expect("WATCHDOG=1");
    daemon.stop();
    manager.expect("STOPPING=1\n");
}

#[test]
fn the_watchdog_of_another_process_is_not_fed() {
    let Some(live) = Live::require() else { return };
    let manager = Manager::listen();
    let environment =
        [("NOTIFY_SOCKET", Manager::PATH), ("WATCHDOG_USEC", "100000"), ("WATCHDOG_PID", "1")];
    let on = Surroundings { environment: &environment, ..Surroundings::default() };
    let daemon = live.daemon_on("", &Settings::default(), &on);
    manager.expect("READY=1\n");
    let carol = live.hold(&format!("uid {CAROL} {CAROL}"));
    std::thread::sleep(Duration::from_millis(500));
    drop(carol);
    daemon.stop();
    assert!(manager.hear().starts_with("STOPPING=1\n"));
}
