//! The decision to which unit a placed process belongs on a host with systemd. Pure.
//!
//! systemd does not know the unit of a process that was moved, so it is derived from what the
//! process cannot choose. A process without such evidence stays: in the root cgroup, or in the
//! cgroup of any other process, it would lose limits that it had.

use crate::cgroup::unit::Unit;

/// What is known about the origin of a process.
#[derive(Clone, Debug, Default)]
pub(super) struct ProcessOrigin {
    /// Path of its cgroup in a hierarchy of systemd, unless a rule placed it there too.
    pub(super) unit_path: Option<String>,
    /// Path of the service of which systemd reports it as the main process.
    pub(super) main_of: Option<String>,
    /// Login user and audit session, which only the kernel and root assign.
    pub(super) login: Option<(u32, u32)>,
    /// Path of the cgroup of its nearest ancestor that no rule placed. `None` if that is process 1.
    /// A parent is always an ancestor, or one that asked to become the parent of orphans.
    pub(super) ancestor_path: Option<String>,
    /// True in a PID or cgroup namespace of its own, or if that is unknown: its ancestors are
    /// outside of the container, without the limits of that.
    pub(super) may_be_container: bool,
}

/// Returns the path of the unit of a process. `exists` checks whether a cgroup exists, `roots` are
/// the paths of the managed and delegated roots.
///
/// # Errors
/// The reason for which the unit is unknown.
pub(super) fn unit_path(
    origin: &ProcessOrigin,
    roots: &[&str],
    exists: impl Fn(&str) -> bool,
) -> Result<String, &'static str> {
    if let Some(path) = &origin.unit_path {
        return Ok(path.clone());
    }
    if origin.may_be_container {
        return Err("it is in a container, whose cgroup is unknown");
    }
    let of_login = |(uid, session): (u32, u32)| {
        format!("/user.slice/user-{uid}.slice/session-{session}.scope")
    };
    let of_ancestor = origin.ancestor_path.as_ref().filter(|path| {
        let unit = Unit::of(path, roots);
        unit != Unit::None
    });
    let candidates = [origin.main_of.clone(), origin.login.map(of_login), of_ancestor.cloned()];
    let found = candidates.into_iter().flatten().find(|path| exists(path));
    found.ok_or("its unit is unknown: restart the service, or end the session, that started it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(origin: &ProcessOrigin) -> Option<String> {
        let exists = |path: &str| !path.contains("session-9");
        unit_path(origin, &["/cgruled.slice/cgruled-pool.service"], exists).ok()
    }

    #[test]
    fn a_session_precedes_an_ancestor() {
        let ssh = Some("/system.slice/ssh.service".to_owned());
        let session = "/user.slice/user-1000.slice/session-3.scope";
        let origin = ProcessOrigin {
            login: Some((1000, 3)),
            ancestor_path: ssh.clone(),
            ..ProcessOrigin::default()
        };
        assert_eq!(unit(&origin).as_deref(), Some(session));
        let ended = ProcessOrigin { login: Some((1000, 9)), ..origin.clone() };
        assert_eq!(unit(&ended), ssh);
        let main = Some("/system.slice/db.service".to_owned());
        assert_eq!(unit(&ProcessOrigin { main_of: main.clone(), ..origin.clone() }), main);
        let unit_path = Some("/system.slice/other.service".to_owned());
        assert_eq!(unit(&ProcessOrigin { unit_path: unit_path.clone(), ..origin }), unit_path);
    }

    #[test]
    fn a_place_without_limits_is_not_taken() {
        assert_eq!(unit(&ProcessOrigin::default()), None);
        for path in ["/", "/system.slice", "/docker/1", "/cgruled.slice/cgruled-pool.service/a"] {
            let ancestor_path = Some(path.to_owned());
            assert_eq!(unit(&ProcessOrigin { ancestor_path, ..ProcessOrigin::default() }), None);
        }
        let engine = Some("/system.slice/containerd.service".to_owned());
        let origin =
            ProcessOrigin { ancestor_path: engine, may_be_container: true, ..Default::default() };
        assert_eq!(unit(&origin), None);
    }
}
