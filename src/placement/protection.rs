//! Protection of processes from rules that do not name their executable. Must not trust a path or
//! cgroup that a user can forge.

use super::{KnownExe, Missing};
use crate::event::{Pid, Uid};
use crate::kernel::process::path_in;
use crate::kernel::user_manager::{SystemdPlace, is_manager_program};
use crate::rules::{ExeTest, Rule, base_name};

/// Directories of systemd's own programs: the system manager, the managers of users with their
/// `(sd-pam)`, and the daemons. For processes of root the path decides, because no user can make
/// one of these run other code as root. For processes of other users it only selects candidates,
/// see `engine::user_managers`.
const SYSTEMD: [&[u8]; 2] = [b"/usr/lib/systemd/", b"/lib/systemd/"];
/// Directories with one directory per package, in which such programs are below `lib/systemd`. A
/// user can add a package of their own; that exempts nothing, as above.
const STORES: [&[u8]; 2] = [b"/nix/store/", b"/gnu/store/"];
/// Targets of the link `systemd-udevd`. Any user may execute them under their own name.
const UDEV: [&[u8]; 2] = [b"/usr/bin/udevadm", b"/bin/udevadm"];

/// Protection of a process from rules that do not name its executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// The process is protected and must not be moved.
    Yes,
    /// The process may be moved.
    No,
    /// The process is protected if it is its user's service manager or the `(sd-pam)` of that.
    UserManager,
}

/// Returns the protection of a process from `rule`: process 1, systemd's processes and kernel
/// threads are protected unless the rule names their executable. `cgroup` returns
/// `/proc/PID/cgroup`, which is read only for processes of other users than root that run a program
/// of systemd, and for those whose executable cannot be read.
///
/// # Errors
/// The executable must be read first.
pub fn protection<'c>(
    rule: &Rule,
    (pid, uid): (Pid, Uid),
    exe: KnownExe<'_>,
    is_kernel_thread: bool,
    cgroup: impl FnOnce() -> Option<&'c [u8]>,
) -> Result<Protection, Missing> {
    match exe {
        KnownExe::Unread => Err(Missing::Exe),
        KnownExe::Read(seen) if is_kernel_thread && is_thread_named(rule, seen.raw) => {
            Ok(Protection::No)
        }
        KnownExe::Read(_) | KnownExe::Unavailable if is_kernel_thread => Ok(Protection::Yes),
        KnownExe::Read(seen) => Ok(of_program(rule, pid, seen.raw, uid, cgroup)),
        // Without CAP_SYS_PTRACE, or in a container where that does not apply to the first
        // process, or when the read blocks, only the cgroup is known, which a user can choose.
        KnownExe::Unavailable => Ok(unreadable(pid, uid, cgroup().unwrap_or_default())),
    }
}

/// Returns the protection of a process with the executable `exe`, a path as the kernel shows it.
fn of_program<'c>(
    rule: &Rule,
    pid: Pid,
    exe: &[u8],
    uid: Uid,
    cgroup: impl FnOnce() -> Option<&'c [u8]>,
) -> Protection {
    // A running executable that was replaced by an upgrade.
    let exe = exe.strip_suffix(b" (deleted)").unwrap_or(exe);
    let is_root = uid.0 == 0;
    if pid.get() != 1 && !is_systemds(exe, is_root) || is_named(rule, exe) {
        return Protection::No;
    }
    if pid.get() == 1 || is_root {
        return Protection::Yes;
    }
    match SystemdPlace::of(cgroup().unwrap_or_default(), uid) {
        SystemdPlace::SystemService => Protection::Yes,
        SystemdPlace::UserManager if is_manager_program(exe) => Protection::UserManager,
        SystemdPlace::UserManager | SystemdPlace::Other => Protection::No,
    }
}

/// Returns the protection of a process with an unreadable executable.
fn unreadable(pid: Pid, uid: Uid, cgroup: &[u8]) -> Protection {
    if pid.get() == 1 || uid.0 == 0 && is_managers(cgroup) {
        return Protection::Yes;
    }
    match SystemdPlace::of(cgroup, uid) {
        SystemdPlace::UserManager => Protection::UserManager,
        SystemdPlace::SystemService | SystemdPlace::Other => Protection::No,
    }
}

fn is_systemds(exe: &[u8], is_root: bool) -> bool {
    SYSTEMD.iter().any(|directory| exe.starts_with(directory))
        || is_in_store(exe)
        || is_root && UDEV.contains(&exe)
}

/// Checks whether this is a program of systemd on NixOS or Guix:
/// `/nix/store/HASH-systemd-VERSION/lib/systemd/systemd`.
fn is_in_store(exe: &[u8]) -> bool {
    let below = STORES.iter().find_map(|store| exe.strip_prefix(*store));
    let in_package = below.and_then(|rest| {
        let end = rest.iter().position(|&byte| byte == b'/')?;
        Some(&rest[end..])
    });
    in_package.is_some_and(|rest| rest.starts_with(b"/lib/systemd/"))
}

/// Checks whether this content of `/proc/PID/cgroup` is that of a manager or its `(sd-pam)`.
fn is_managers(text: &[u8]) -> bool {
    path_in(text, b"").is_some_and(|path| path.ends_with(b"/init.scope"))
}

/// Checks whether a rule names this program, not only by a pattern that matches any other as well.
fn is_named(rule: &Rule, exe: &[u8]) -> bool {
    rule.when.exes.iter().any(|test| match test {
        ExeTest::Path(path) => path == exe,
        ExeTest::Base(name) => name == base_name(exe),
        ExeTest::PathGlob(glob) => {
            let start = glob.literal_prefix();
            SYSTEMD.iter().any(|directory| start.starts_with(directory)) && glob.matches(exe)
        }
        ExeTest::BaseGlob(glob) => {
            glob.literal_prefix().starts_with(b"systemd") && glob.matches(base_name(exe))
        }
    })
}

/// Checks whether a rule names a kernel thread, which has a name instead of a program.
fn is_thread_named(rule: &Rule, name: &[u8]) -> bool {
    rule.when.exes.iter().any(|test| match test {
        ExeTest::Path(own) | ExeTest::Base(own) => own == name,
        ExeTest::PathGlob(glob) | ExeTest::BaseGlob(glob) => {
            !glob.literal_prefix().is_empty() && glob.matches(name)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::{cgrules_conf, rules_toml};

    fn rule(exe: &str) -> Rule {
        let text = format!("version = 1\n[[rule]]\nuser = \"*\"\ncgroup = \"a\"\n{exe}");
        let parsed = rules_toml::parse(&Arc::from(Path::new("/a.toml")), &text);
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
        parsed.rules.into_iter().next().unwrap().rule
    }

    #[test]
    fn programs_of_systemd_by_path() {
        let manager = b"/usr/lib/systemd/systemd";
        assert!(is_systemds(manager, false) && is_systemds(b"/lib/systemd/systemd-logind", true));
        assert!(is_systemds(b"/usr/bin/udevadm", true) && !is_systemds(b"/usr/bin/udevadm", false));
        let in_store = b"/nix/store/2k9h-systemd-256.2/lib/systemd/systemd";
        assert!(is_systemds(in_store, false));
        for exe in [
            &b"/usr/bin/systemd-run"[..],
            b"/home/u/usr/lib/systemd/x",
            b"/nix/store/lib/systemd/x",
            b"/nix/store/2k9h-tool/bin/lib/systemd/x",
            b"/nix/store/2k9h-systemd-256.2",
            b"",
            b"/usr/lib",
        ] {
            assert!(!is_systemds(exe, true));
        }
    }

    const OWN: &[u8] = b"0::/user.slice/user-5.slice/user@5.service/init.scope\n";

    #[test]
    fn the_path_of_an_executable_protects_processes_of_root_alone() {
        fn of(exe: &str, uid: u32, cgroup: &str) -> Protection {
            let cgroup = format!("0::{cgroup}\n");
            let pid = Pid::new(40).unwrap();
            of_program(&rule(""), pid, exe.as_bytes(), Uid(uid), || Some(cgroup.as_bytes()))
        }
        let own = "/user.slice/user-5.slice/user@5.service/init.scope";
        let manager = "/usr/lib/systemd/systemd";
        let helper = "/usr/lib/systemd/systemd-ac-power";
        let networkd = "/usr/lib/systemd/systemd-networkd";
        let service = "/system.slice/systemd-networkd.service";
        assert_eq!(of(helper, 0, "/"), Protection::Yes);
        assert_eq!(of(manager, 5, own), Protection::UserManager);
        assert_eq!(of("/usr/lib/systemd/systemd (deleted)", 5, own), Protection::UserManager);
        assert_eq!(of(networkd, 5, service), Protection::Yes);
        let in_store = "/nix/store/2k9h-systemd-256.2/lib/systemd/systemd";
        assert_eq!(of(in_store, 5, own), Protection::UserManager);
        assert_eq!(of(in_store, 5, "/user.slice/user-5.slice/session-1.scope"), Protection::No);
        for (exe, uid, cgroup) in [
            (helper, 5, own),
            (manager, 6, own),
            (manager, 5, "/user.slice/user-5.slice/session-1.scope"),
            (networkd, 5, "/system.slice/cron.service"),
            ("/bin/sh", 5, own),
            ("/bin/sh", 5, service),
            ("/bin/sh", 0, own),
        ] {
            assert_eq!(of(exe, uid, cgroup), Protection::No, "{exe} {uid} {cgroup}");
        }
        let named = rule("exe = \"/usr/lib/systemd/systemd\"");
        for pid in [Pid::new(1).unwrap(), Pid::new(40).unwrap()] {
            let protection = of_program(&named, pid, manager.as_bytes(), Uid(5), || Some(OWN));
            assert_eq!(protection, Protection::No, "{pid}");
        }
    }

    #[test]
    fn an_executable_that_cannot_be_read_leaves_the_cgroup() {
        for (pid, uid, cgroup, expected) in [
            (1, 0, &b""[..], Protection::Yes),
            (40, 0, b"0::/init.scope\n", Protection::Yes),
            (40, 0, b"0::/\n", Protection::No),
            (40, 5, OWN, Protection::UserManager),
            (40, 5, b"0::/init.scope\n", Protection::No),
        ] {
            assert_eq!(unreadable(Pid::new(pid).unwrap(), Uid(uid), cgroup), expected);
        }
    }

    #[test]
    fn a_kernel_thread_is_named_by_its_name() {
        let text = "* cpu a\n*:kswapd0 cpu a\n*:kswap* cpu a\n*:* cpu a\n*:/opt/* cpu a\n";
        let parsed = cgrules_conf::parse(&Arc::from(Path::new("/a")), text);
        let named = parsed.rules.iter().map(|written| is_thread_named(&written.rule, b"kswapd0"));
        assert_eq!(named.collect::<Vec<_>>(), [false, true, true, false, false]);
        assert!(!is_thread_named(&rule("exe = \"*\""), b"kswapd0"));
    }

    #[test]
    fn managers_by_their_place() {
        let manager = b"1:cpu:/init.scope\n0::/user.slice/user-5.slice/user@5.service/init.scope\n";
        assert!(is_managers(manager) && is_managers(b"0::/init.scope\n"));
        assert!(!is_managers(b"1:cpu:/init.scope\n0::/user.slice\n") && !is_managers(b""));
    }

    #[test]
    fn a_pattern_for_everything_names_nobody() {
        let manager = b"/usr/lib/systemd/systemd";
        for exe in ["/usr/lib/systemd/systemd", "systemd", "/usr/lib/systemd/*", "systemd*"] {
            assert!(is_named(&rule(&format!("exe = {exe:?}")), manager), "{exe}");
        }
        for exe in ["*", "/**", "/usr/lib/**", "/usr/lib/systemd/systemd-*", "s*", "nginx"] {
            assert!(!is_named(&rule(&format!("exe = {exe:?}")), manager), "{exe}");
        }
        assert!(!is_named(&rule(""), manager));
    }
}
