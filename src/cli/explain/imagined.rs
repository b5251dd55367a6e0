//! The container of a hypothetical process. Must not read the state of any engine.

use crate::cli::command::ToolError;
use crate::event::Uid;
use crate::policy::load::NameService;
use crate::rules::container::ContainerEngine;

/// Number of digits of the ID of a container.
const ID_DIGITS: usize = 64;

/// Returns the cgroup in which an engine usually starts a container, and the name of that: of `docker:web` or
/// `podman@alice:db`.
///
/// # Errors
/// The text is no container, or the name service failed.
pub(super) fn container(text: &str, names: &NameService) -> Result<(String, String), ToolError> {
    let invalid = || {
        let shown = text.escape_debug();
        let engines = ContainerEngine::ALL.map(ContainerEngine::name).join(", ");
        let usage = format!(
            "explain: --container: {shown}: write ENGINE:NAME or ENGINE@USER:NAME, with one of {engines}"
        );
        ToolError::Usage(usage)
    };
    let (kind, name) = text.split_once(':').ok_or_else(invalid)?;
    let (engine, owner) = match kind.split_once('@') {
        Some((engine, owner)) => (engine, Some(owner)),
        None => (kind, None),
    };
    let engine = ContainerEngine::of_name(engine).ok_or_else(invalid)?;
    if name.is_empty() || name.contains('/') {
        return Err(invalid());
    }
    let owner = match owner {
        None => Uid(0),
        Some(user) => {
            let found = names.uid_of(user).map_err(ToolError::nss)?;
            found.ok_or_else(|| super::unknown("user", user))?
        }
    };
    Ok((path(engine, owner, name), name.to_owned()))
}

/// Returns the cgroup of a container. A name that is no ID gets one of zeros.
fn path(engine: ContainerEngine, owner: Uid, name: &str) -> String {
    let is_hex = name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let digits = if is_hex && name.len() <= ID_DIGITS { name } else { "" };
    let id = format!("{digits:0<ID_DIGITS$}");
    let user = format!("/user.slice/user-{owner}.slice/user@{owner}.service/user.slice");
    let (slice, cgroup) = match engine {
        ContainerEngine::Docker => ("/system.slice", format!("docker-{id}.scope")),
        ContainerEngine::Podman => ("/machine.slice", format!("libpod-{id}.scope")),
        ContainerEngine::Lxc => ("", format!("lxc.payload.{name}")),
        ContainerEngine::Nspawn => ("/machine.slice", format!("systemd-nspawn@{name}.service")),
        ContainerEngine::Kubernetes => ("", format!("kubepods/pod{name}/{id}")),
    };
    let slice = if owner.0 == 0 { slice } else { &user };
    format!("{slice}/{cgroup}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::container::PathContainer;

    #[test]
    fn the_usual_cgroup_shows_the_container() {
        for engine in ContainerEngine::ALL {
            for owner in [0, 1000] {
                for name in ["web", "0123456789ab"] {
                    let path = path(engine, Uid(owner), name);
                    let found = PathContainer::of(path.as_bytes()).unwrap();
                    assert_eq!(found.engine, engine, "{path}");
                    assert_eq!(found.owner, (owner != 0).then_some(Uid(owner)), "{path}");
                }
            }
        }
    }
}
