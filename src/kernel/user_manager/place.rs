//! Recognizes systemd's own cgroups and programs by their paths, which alone must not be trusted.
//! Pure.

use crate::event::Uid;
use crate::kernel::process::path_in;

/// Part of the cgroup tree in which a process of a user can be one of systemd's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SystemdPlace {
    /// In `user@UID.service` of this user, which contains the service manager and any other
    /// processes.
    UserManager,
    /// In a `systemd-*.service` below `/system.slice`, where only PID 1 starts processes and no
    /// user but root can move one.
    SystemService,
    /// In any other part of the tree.
    Other,
}

impl SystemdPlace {
    /// Determines the place by the content of `/proc/PID/cgroup`, for a process of user `uid`.
    pub(crate) fn of(text: &[u8], uid: Uid) -> Self {
        // On hosts with cgroup v1 systemd manages its units in that hierarchy.
        let path = path_in(text, b"name=systemd").or_else(|| path_in(text, b""));
        let Some(path) = path else { return Self::Other };
        let own = format!("user@{uid}.service");
        let mut units = path.split(|&byte| byte == b'/').filter(|name| name.ends_with(b".service"));
        match units.next() {
            Some(unit) if unit == own.as_bytes() => Self::UserManager,
            Some(unit) if path.starts_with(b"/system.slice/") && unit.starts_with(b"systemd-") => {
                Self::SystemService
            }
            Some(_) | None => Self::Other,
        }
    }
}

/// Checks whether this is the program of a service manager, or the one that it executes to start
/// units. `exe` is the path of one of systemd's programs.
pub(crate) fn is_manager_program(exe: &[u8]) -> bool {
    exe.ends_with(b"/systemd") || exe.ends_with(b"/systemd-executor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_by_the_first_service_on_the_path() {
        fn of(path: &str) -> SystemdPlace {
            SystemdPlace::of(format!("0::{path}\n").as_bytes(), Uid(5))
        }
        let own = "/user.slice/user-5.slice/user@5.service";
        for path in [own.to_owned(), format!("{own}/init.scope"), format!("{own}/a/b.service")] {
            assert_eq!(of(&path), SystemdPlace::UserManager, "{path}");
        }
        let service = "/system.slice/systemd-networkd.service";
        let instance =
            "/system.slice/system-systemd\\x2dcoredump.slice/systemd-coredump@0-1.service";
        for path in [service, instance] {
            assert_eq!(of(path), SystemdPlace::SystemService, "{path}");
        }
        for path in [
            "/",
            "/init.scope",
            "/user.slice/user-6.slice/user@6.service/init.scope",
            "/user.slice/user-5.slice/session-1.scope",
            "/user.slice/user-5.slice/systemd-a.service",
            "/system.slice/cron.service",
            "/system.slice/cron.service/systemd-a.service",
            "/system.slice/systemd-a.scope",
            "/system.slice",
        ] {
            assert_eq!(of(path), SystemdPlace::Other, "{path}");
        }
        assert_eq!(SystemdPlace::of(b"", Uid(5)), SystemdPlace::Other);
    }

    #[test]
    fn units_are_kept_in_v1_where_it_is_mounted() {
        let text = b"2:cpu:/\n1:name=systemd:/u.slice/user@5.service/init.scope\n0::/\n";
        assert_eq!(SystemdPlace::of(text, Uid(5)), SystemdPlace::UserManager);
    }

    #[test]
    fn programs_of_managers() {
        assert!(is_manager_program(b"/usr/lib/systemd/systemd"));
        assert!(is_manager_program(b"/lib/systemd/systemd-executor"));
        assert!(!is_manager_program(b"/usr/lib/systemd/systemd-ac-power"));
    }
}
