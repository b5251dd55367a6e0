//! Checks the properties of the kernel that the daemon relies on. See `pins.c`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;

use crate::harness::user::ALICE;
use crate::harness::{Live, pins};

#[test]
fn fork_is_announced_before_uid_and_uid_before_exec() {
    let Some(_live) = Live::require() else { return };
    let places = pins("order");
    assert_eq!((places["fork"], places["uid"], places["exec"]), (0, 1, 2));
}

#[test]
fn a_masked_socket_receives_nothing_else() {
    let Some(_live) = Live::require() else { return };
    let heard = pins("mask");
    assert_eq!((heard["execs"], heard["others"]), (1, 0));
}

#[test]
fn every_fork_is_received_or_counted_as_dropped() {
    let Some(_live) = Live::require() else { return };
    let count = pins("exact");
    assert!(count["lost"] > 0, "{count:?}");
    assert_eq!(count["forks"], count["lost"] + count["received"]);
}

#[test]
fn without_enobufs_an_overrun_socket_takes_events_again_at_once() {
    let Some(_live) = Live::require() else { return };
    let dropped = pins("latch");
    assert_eq!((dropped["with_option"], dropped["without_option"]), (0, 3));
}

#[test]
fn a_filtered_event_is_not_a_drop() {
    let Some(_live) = Live::require() else { return };
    assert_eq!(pins("filtered")["lost"], 0);
}

#[test]
fn the_fork_of_a_thread_is_told_by_its_ids() {
    let Some(_live) = Live::require() else { return };
    let forks = pins("threads");
    assert_eq!((forks["processes"], forks["threads"]), (1, 1));
}

#[test]
fn a_dead_pid_is_esrch() {
    let Some(live) = Live::require() else { return };
    let dead = live.hold("").subject;
    let procs = live.ground.directory("", "cgroup.procs").unwrap();
    let error = fs::write(procs, dead.to_string()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ESRCH as i32));
}

#[test]
fn a_removed_cgroup_is_enodev_also_when_its_name_is_created_again() {
    let Some(live) = Live::require() else { return };
    let group = live.ground.directory("", "gone").unwrap();
    fs::create_dir(&group).unwrap();
    let mut procs = OpenOptions::new().write(true).open(group.join("cgroup.procs")).unwrap();
    fs::remove_dir(&group).unwrap();
    fs::create_dir(&group).unwrap();
    let actor = live.hold("");
    let error = procs.write(actor.subject.to_string().as_bytes()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ENODEV as i32));
}

#[test]
fn the_cgroup_id_of_a_pidfd_is_the_inode_of_the_v2_directory() {
    let Some(live) = Live::require() else { return };
    let actor = live.hold("");
    let group = live.ground.directory("", "").unwrap();
    fs::write(group.join("cgroup.procs"), actor.subject.to_string()).unwrap();
    let id = pins(&format!("cgroup_id {}", actor.subject))["cgroup_id"];
    if id == -1 {
        println!("skipped: this kernel has no PIDFD_GET_INFO");
        return;
    }
    assert_eq!(u64::try_from(id).unwrap(), group.metadata().unwrap().ino());
}

#[test]
fn forged_datagrams_are_refused_by_the_kernel_or_the_daemon() {
    let Some(live) = Live::require() else { return };
    let rules = format!("[[rule]]\nuser = \"{ALICE}\"\ncgroup = \"there\"\n");
    let daemon = live.daemon(&rules);
    let ports = daemon.connector_ports();
    assert_eq!(ports.len(), 2, "{ports:?}");
    let before = daemon.resident_kib();
    for port in ports {
        assert_eq!(pins(&format!("forge {port} 1000 {ALICE}"))["sent"], 0);
        assert!(pins(&format!("forge {port} 10000 0"))["sent"] > 0);
    }
    live.expect(&live.hold(&format!("uid {ALICE} {ALICE}")), "there");
    assert!(daemon.resident_kib() < before + 16 * 1024);
    let counters = daemon.stop();
    assert!(counters.get("refused_datagrams") > 0, "{counters:?}");
}
