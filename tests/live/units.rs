//! Tests settings of systemd units. This host need not run systemd: a script replaces the systemctl
//! command, and a directory in the mount namespace of the test indicates that systemd runs.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use crate::harness::user::ALICE;
use crate::harness::{Live, PATIENCE, eventually, skip};

const RULE: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"%u\"\n";
const SYSTEMCTL: &str = "/usr/bin/systemctl";

/// A script in place of systemctl and the directory that indicates systemd, for the test alone.
struct Standin {
    log: PathBuf,
}

impl Standin {
    /// Returns `None` if a path to mount over is missing.
    fn enter(live: &Live) -> Option<Self> {
        if !Path::new(SYSTEMCTL).exists() {
            // A container may have no systemd at all; a test cannot install it.
            println!("skipped: no {SYSTEMCTL} to mount over");
            return None;
        }
        if !Path::new("/run/systemd").is_dir() {
            skip("no /run/systemd to mount over");
            return None;
        }
        let log = live.path("systemctl.log");
        let script =
            live.script("bin/systemctl", &format!("#!/bin/sh\necho \"$*\" >> {}\n", log.display()));
        let none = None::<&str>;
        mount(Some(script.as_str()), SYSTEMCTL, none, MsFlags::MS_BIND, none).unwrap();
        mount(Some("tmpfs"), "/run/systemd", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        fs::create_dir("/run/systemd/system").unwrap();
        // The daemon records there which units have settings from it.
        fs::create_dir_all("/run/cgruled").unwrap();
        mount(Some("tmpfs"), "/run/cgruled", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        Some(Self { log })
    }

    fn expect(&self, calls: &[&str]) {
        let mut found = String::new();
        let is_so = eventually(PATIENCE, || {
            found = fs::read_to_string(&self.log).unwrap_or_default();
            found.lines().eq(calls.iter().copied())
        });
        assert!(is_so, "calls of systemctl: {found}");
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        umount2("/run/cgruled", MntFlags::MNT_DETACH).unwrap();
        umount2("/run/systemd", MntFlags::MNT_DETACH).unwrap();
        umount2(SYSTEMCTL, MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn units_get_their_settings_at_start_and_on_reload() {
    let Some(live) = Live::require() else { return };
    let Some(standin) = Standin::enter(&live) else { return };
    let table = |weight: u32| {
        format!("[unit.\"php-fpm.service\"]\ncpu.weight = {weight}\nmemory.max = \"1K\"\n")
    };
    let daemon = live.daemon(&format!("{RULE}{}", table(50)));
    let call = |weight: u32| {
        format!("set-property --runtime -- php-fpm.service CPUWeight={weight} MemoryMax=1024")
    };
    standin.expect(&[&call(50)]);
    live.write_rules(&format!("{RULE}{}", table(60)));
    daemon.signal(Signal::SIGHUP);
    let twice = || fs::read_to_string(&standin.log).unwrap_or_default().contains(&call(60));
    assert!(eventually(PATIENCE, twice));
    // Rules for cgroups still apply.
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&actor, "cgt-alice");
    drop(actor);
    let counters = daemon.stop();
    assert!(counters.get("units_configured") >= 2);
    assert_eq!(counters.get("units_refused"), 0);
}

#[test]
fn without_systemd_it_is_logged() {
    let Some(live) = Live::require() else { return };
    if Path::new("/run/systemd/system").exists() {
        println!("skipped: systemd runs here");
        return;
    }
    let daemon = live.daemon(&format!("{RULE}[unit.\"a.service\"]\ncpu.weight = 1\n"));
    daemon.expect_log("50-test.toml:5: systemd is not running");
}
