//! Determines the systemd unit of a process from the path of its cgroup, and what a move would do
//! to that unit. Pure.
//!
//! systemd does not notice that a process was moved. The limits of its unit no longer apply to it,
//! `systemctl stop` does not kill it, and systemd stops a scope without processes. A rule therefore
//! has to allow a move out of a unit (`leave_units`). Logins and jobs of users, however, are what
//! rules are written for, so they must not need a key:
//!
//! - Login sessions (`session-3.scope`) may be left. The process that opened the session, such as
//!   `sshd` or `login`, belongs to root and stays, so the scope remains. Only the last process in
//!   it stays where it is.
//! - Units of a user's own service manager (below `user@1000.service`) may be left. They belong to
//!   the user: if they kept processes, every user could evade limits with `systemd-run --user`. The
//!   manager itself is never moved, see the placer.
//! - Services that run jobs and logins for others (cron, at, ssh, getty) may be left by all
//!   processes except the service itself: `cron` and `atd` have the real UID of root and are
//!   children of process 1, their jobs are not both. Such services are designed to leave processes running when they are stopped.
//! - All other services and scopes must not be left: daemons, containers, virtual machines.
//!
//! A cgroup without a unit name, such as one of another container manager or of a rule, is in no
//! unit.

use crate::event::Uid;
use crate::rules::context::UNIT_ENDINGS;

/// Services that run jobs and logins of users as those users. A name ending in `@` stands for any
/// instance. Without `pam_systemd` they have no session, as is the case for cron jobs on Debian.
const FOR_OTHERS: [&str; 18] = [
    "anacron.service",
    "atd.service",
    "console-getty.service",
    "container-getty@",
    "cron.service",
    "crond.service",
    "cronie.service",
    "dropbear.service",
    "dropbear@",
    "fcron.service",
    "getty@",
    "serial-getty@",
    "ssh.service",
    "ssh@",
    "sshd-unix-local@",
    "sshd-vsock@",
    "sshd.service",
    "sshd@",
];

/// The unit of a process, as far as it matters for a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit<'p> {
    /// A cgroup that belongs to no unit.
    None,
    /// A login session: its name, and the path of its cgroup.
    Session(&'p str, &'p str),
    /// A unit started by a user's service manager: the name of the manager's unit.
    OfUser(&'p str),
    /// A service that runs jobs or logins of users.
    ForOthers(&'p str),
    /// A unit of any other kind.
    Other(&'p str),
}

impl<'p> Unit<'p> {
    /// Returns the unit of the cgroup with this path, which begins with a slash. `roots` are the
    /// managed and delegated roots, which are not units that could be left.
    pub fn of(path: &'p str, roots: &[&str]) -> Self {
        if roots.iter().any(|ground| is_below(path, ground)) {
            return Self::None;
        }
        let mut end = 0;
        for component in path.split('/') {
            end += component.len() + 1;
            // systemd prefixes a name with `_` if it could be that of a kernel file.
            let name = component.strip_prefix('_').unwrap_or(component);
            if name.is_empty() || name.ends_with(".slice") {
                continue;
            }
            // The units of systemd are in slices only: a user can name a cgroup elsewhere like a
            // unit.
            if !UNIT_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
                return Self::None;
            }
            return match name {
                _ if name.starts_with("user@") => Self::OfUser(name),
                _ if name.starts_with("session-") && name.ends_with(".scope") => {
                    Self::Session(name, &path[..end - 1])
                }
                _ if FOR_OTHERS.iter().any(|known| is_instance(name, known)) => {
                    Self::ForOthers(name)
                }
                _ => Self::Other(name),
            };
        }
        Self::None
    }

    /// Returns the unit of a cgroup. Names of units are valid UTF-8; names of cgroups that a unit creates
    /// below its own need not be.
    pub fn of_bytes(path: &'p [u8], roots: &[&str]) -> Self {
        Self::of(path.utf8_chunks().next().map_or("", |chunk| chunk.valid()), roots)
    }

    /// Checks whether the rule has to allow a move of a process out of the unit. `is_last` reports
    /// whether it is the only process in this cgroup, `is_service` whether it has the real UID of
    /// root and is a child of process 1; both find that out by `reader`.
    pub fn loses<R>(
        self,
        reader: R,
        is_last: impl FnOnce(R, &str) -> bool,
        is_service: impl FnOnce(R) -> bool,
    ) -> bool {
        match self {
            Self::None | Self::OfUser(_) => false,
            Self::Session(_, group) => is_last(reader, group),
            Self::ForOthers(_) => is_service(reader),
            Self::Other(_) => true,
        }
    }

    /// Returns the name of the unit, if the cgroup belongs to one.
    pub const fn name(self) -> Option<&'p str> {
        match self {
            Self::None => None,
            Self::Session(name, _)
            | Self::OfUser(name)
            | Self::ForOthers(name)
            | Self::Other(name) => Some(name),
        }
    }
}

/// Checks whether the processes of a container that root created can be in this cgroup. `roots`
/// are the paths of the managed and delegated roots.
pub fn may_hold_container(place: &str, roots: &[&str]) -> bool {
    // A user's processes are in the root cgroup, in slices, in sessions, in the cgroup of a
    // service, below the user's slice, and in the cgroups of rules: a namespace does not make those
    // a container. The processes of a container are in a scope, in a cgroup below that of a
    // service, or in one that belongs to no unit.
    if place.starts_with("/user.slice/") || roots.iter().any(|ground| is_below(place, ground)) {
        return false;
    }
    let mut parts = place.split('/').filter(|part| !part.is_empty() && !part.ends_with(".slice"));
    let Some(first) = parts.next() else { return false };
    match Unit::of(place, roots) {
        Unit::None => !is_of_login(first),
        Unit::Other(name) => !name.ends_with(".service") || parts.next().is_some(),
        Unit::Session(..) | Unit::OfUser(_) | Unit::ForOthers(_) => false,
    }
}

/// Checks whether a top-level cgroup is an elogind session (`c1`, `12`) or an OpenRC service.
fn is_of_login(name: &str) -> bool {
    let digits = name.strip_prefix('c').unwrap_or(name);
    name.starts_with("openrc") || digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the user of a service manager `user@UID.service`.
pub fn manager_uid(name: &str) -> Option<Uid> {
    let uid = name.strip_prefix("user@")?.strip_suffix(".service")?;
    uid.parse().ok().map(Uid)
}

/// Checks whether `path` is `ground` or below it. The hierarchy root never counts as a ground.
fn is_below(path: &str, ground: &str) -> bool {
    let rest = path.strip_prefix(ground);
    !ground.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_instance(name: &str, known: &str) -> bool {
    name == known || known.ends_with('@') && name.starts_with(known) && name.ends_with(".service")
}

/// Returns the cgroup in which systemd starts a unit, unless its file has another slice.
pub fn usual_cgroup(unit: &str, uid: Uid) -> String {
    if unit.starts_with("session-") {
        return format!("/user.slice/user-{uid}.slice/{unit}");
    }
    match manager_uid(unit) {
        Some(owner) => format!("/user.slice/user-{owner}.slice/{unit}"),
        None => format!("/system.slice/{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUND: &str = "/cgruled.slice/cgruled-pool.service";

    #[test]
    fn units_by_path() {
        let user = "/user.slice/user-1000.slice";
        let session = format!("{user}/session-3.scope");
        let manager = format!("{user}/user@1000.service");
        let table = [
            ("/".to_owned(), Unit::None),
            ("/students/alice".to_owned(), Unit::None),
            ("/system.slice".to_owned(), Unit::None),
            ("/docker/0123".to_owned(), Unit::None),
            ("/delegated/x.scope".to_owned(), Unit::None),
            ("/delegated/user@7.service/x".to_owned(), Unit::None),
            ("/lxc.payload.web/a".to_owned(), Unit::None),
            (session.clone(), Unit::Session("session-3.scope", &session)),
            (format!("{session}/below"), Unit::Session("session-3.scope", &session)),
            (format!("{user}/session-c1.scope"), {
                Unit::Session("session-c1.scope", "/user.slice/user-1000.slice/session-c1.scope")
            }),
            (format!("{manager}/init.scope"), Unit::OfUser("user@1000.service")),
            (format!("{manager}/app.slice/app-x-1.scope"), Unit::OfUser("user@1000.service")),
            (format!("{manager}/app.slice/foo.service"), Unit::OfUser("user@1000.service")),
            ("/system.slice/cron.service".to_owned(), Unit::ForOthers("cron.service")),
            ("/system.slice/ssh@4-1:22.service".to_owned(), {
                Unit::ForOthers("ssh@4-1:22.service")
            }),
            ("/system.slice/system-getty.slice/getty@tty1.service".to_owned(), {
                Unit::ForOthers("getty@tty1.service")
            }),
            ("/system.slice/nginx.service".to_owned(), Unit::Other("nginx.service")),
            ("/system.slice/php.service/pool".to_owned(), Unit::Other("php.service")),
            ("/system.slice/cron.service.d".to_owned(), Unit::None),
            ("/system.slice/mycron.service".to_owned(), Unit::Other("mycron.service")),
            ("/system.slice/docker-01.scope/init.scope".to_owned(), Unit::Other("docker-01.scope")),
            ("/machine.slice/libpod-1.scope/container".to_owned(), Unit::Other("libpod-1.scope")),
            ("/system.slice/srv-x.mount".to_owned(), Unit::Other("srv-x.mount")),
            ("/system.slice/_cpu.service".to_owned(), Unit::Other("cpu.service")),
            ("/init.scope".to_owned(), Unit::Other("init.scope")),
            (GROUND.to_owned(), Unit::None),
            (format!("{GROUND}/a/b.service"), Unit::None),
            (format!("{GROUND}x"), Unit::None),
            ("/cgruled.slice/cgruled.service".to_owned(), Unit::Other("cgruled.service")),
        ];
        for (path, unit) in table {
            assert_eq!(Unit::of(&path, &["", GROUND]), unit, "{path}");
        }
    }

    #[test]
    fn the_pool_is_a_unit_unless_it_is_the_managed_root() {
        assert_eq!(Unit::of(GROUND, &[""]), Unit::Other("cgruled-pool.service"));
    }

    #[test]
    fn services_that_start_logins() {
        for path in [
            "/system.slice/console-getty.service",
            "/system.slice/system-container\\x2dgetty.slice/container-getty@1.service",
            "/system.slice/system-dropbear.slice/dropbear@0-1:22-2:5.service",
            "/system.slice/sshd-unix-local@1-2-3-0.service",
            "/system.slice/sshd-vsock@1-2:22-3:9.service",
        ] {
            let unit = Unit::of(path, &["", GROUND]);
            assert!(matches!(unit, Unit::ForOthers(_)), "{path}: {unit:?}");
        }
    }

    #[test]
    fn the_user_of_a_service_manager() {
        assert_eq!(manager_uid("user@1000.service"), Some(Uid(1000)));
        for name in ["user@.service", "user@-1.service", "user@alice.service", "user@1.scope", "x"]
        {
            assert_eq!(manager_uid(name), None, "{name}");
        }
    }

    #[test]
    fn what_a_unit_loses() {
        fn lost(path: &str, is_last: bool, is_service: bool) -> bool {
            Unit::of(path, &[GROUND]).loses((), |(), _| is_last, |()| is_service)
        }
        assert!(lost("/system.slice/nginx.service", false, false));
        assert!(lost("/system.slice/cron.service", false, true));
        assert!(!lost("/system.slice/cron.service", true, false));
        assert!(lost("/user.slice/session-1.scope", true, false));
        assert!(!lost("/user.slice/session-1.scope", false, true));
        assert!(!lost("/user.slice/user@1.service/app.slice/a.scope", true, true));
        assert!(!lost("/people", true, true) && !lost(GROUND, true, true));
    }

    #[test]
    fn containers_are_in_cgroups_of_their_own() {
        let roots = ["/cgruled.slice/cgruled-pool.service", ""];
        for place in [
            "/docker/0123",
            "/kubepods/burstable/pod1/0123",
            "/lxc.payload.web",
            "/lxc/101/ns",
            "/machine.slice/libpod-1.scope/container",
            "/system.slice/docker-0123.scope",
            "/libpod_parent/libpod-1",
            "/machine.slice/systemd-nspawn@web.service/payload",
        ] {
            assert!(may_hold_container(place, &roots), "{place}");
        }
        for place in [
            "/",
            "",
            "/user.slice/user-1000.slice/session-3.scope",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-1.scope/container",
            "/user.slice/user-1000.slice/x",
            "/system.slice/cron.service",
            "/system.slice/ssh.service/x",
            "/system.slice/apache2.service",
            "/user.slice",
            "/system.slice",
            "/openrc.sshd",
            "/c1",
            "/12",
            "/cgruled.slice/cgruled-pool.service/people/alice",
        ] {
            assert!(!may_hold_container(place, &roots), "{place}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_path_has_an_answer(path in "[/a-z@._-]{0,40}") {
            let unit = Unit::of(&path, &[GROUND]);
            if let Some(name) = unit.name() {
                assert!(path.contains(name));
            }
        }
    }
}
