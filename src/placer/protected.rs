//! Processes that are not moved although a rule matches.

use super::{ExeIsMissing, Outcome, Placer, Subject};
use crate::decision::Exe;
use crate::event::Pid;
use crate::process::{Proc, path_in};
use crate::rules::{ExeTest, Rule, base_name};

/// Where systemd's own programs are: the manager of the machine and those of users with their
/// `(sd-pam)`, which runs the same program, and the daemons. A moved user manager cannot start units any
/// more. Whoever runs a program of his own under such a path, in mounts of his own, stays in the group
/// that he is in.
const SYSTEMD: [&[u8]; 2] = [b"/usr/lib/systemd/", b"/lib/systemd/"];
/// What `systemd-udevd` is a link to. Everybody may call it by its own name.
const UDEV: [&[u8]; 2] = [b"/usr/bin/udevadm", b"/bin/udevadm"];

impl Placer {
    /// Why a process is not moved although a rule matches: it is one that only a rule that names its
    /// executable may move, or it is past moving.
    ///
    /// # Errors
    /// Its executable must be read first.
    pub(super) fn unmovable(
        &mut self,
        proc: &mut Proc,
        rule: &Rule,
        subject: &Subject<'_>,
    ) -> Result<Option<Outcome>, ExeIsMissing> {
        let pid = subject.look.pid;
        if pid.get() == self.own_pid {
            return Ok(Some(Outcome::Protected));
        }
        // A zombie: the kernel would take the write and do nothing. Its children matter.
        if subject.grip.has_exited() {
            return Ok(Some(Outcome::Gone));
        }
        let is_root = subject.grip.uid.0 == 0;
        if !is_root && !self.has_systemd {
            return Ok(None);
        }
        let is_protected = match subject.exe {
            Exe::Unread => return Err(ExeIsMissing),
            Exe::Read(seen)
                if is_root && !seen.raw.starts_with(b"/") && proc.is_kernel_thread(pid) =>
            {
                !is_thread_named(rule, seen.raw)
            }
            Exe::Read(seen) => is_protected(rule, pid, seen.raw, is_root),
            // Without CAP_SYS_PTRACE, or in a container where that does not reach the first process, only
            // the place is known, which a user can choose.
            Exe::Unavailable => {
                pid.get() == 1
                    || proc.cgroup(pid, None).is_some_and(is_managers)
                    || is_root && proc.is_kernel_thread(pid)
            }
        };
        Ok(is_protected.then_some(Outcome::Protected))
    }
}

/// Whether the first process, or one that runs a program of systemd's, is left alone by a rule that does
/// not name its program. `exe` as the kernel shows it.
pub(crate) fn is_protected(rule: &Rule, pid: Pid, exe: &[u8], is_root: bool) -> bool {
    // A program that was replaced by an upgrade and runs on.
    let exe = exe.strip_suffix(b" (deleted)").unwrap_or(exe);
    (pid.get() == 1 || is_systemds(exe, is_root)) && !is_named(rule, exe)
}

fn is_systemds(exe: &[u8], is_root: bool) -> bool {
    SYSTEMD.iter().any(|directory| exe.starts_with(directory)) || is_root && UDEV.contains(&exe)
}

/// Whether this text of `/proc/PID/cgroup` is that of a manager or its `(sd-pam)`.
fn is_managers(text: &[u8]) -> bool {
    path_in(text, b"").is_some_and(|path| path.ends_with(b"/init.scope"))
}

/// Whether a rule names this program, and not only by a pattern that any other would fit as well.
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

/// The same of a kernel thread, which has a name in place of a program.
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
        for exe in [&b"/usr/bin/systemd-run"[..], b"/home/u/usr/lib/systemd/x", b"", b"/usr/lib"] {
            assert!(!is_systemds(exe, true));
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
        let names = |exe: &str| is_named(&rule(&format!("exe = {exe:?}")), manager);
        for exe in ["/usr/lib/systemd/systemd", "systemd", "/usr/lib/systemd/*", "systemd*"] {
            assert!(names(exe), "{exe}");
        }
        for exe in ["*", "/**", "/usr/lib/**", "/usr/lib/systemd/systemd-*", "s*", "nginx"] {
            assert!(!names(exe), "{exe}");
        }
        assert!(!is_named(&rule(""), manager));
    }
}
