//! The container of a hypothetical process. Must not read the state of any engine.

use crate::cgroup::container::usual_cgroup;
use crate::cli::command::ToolError;
use crate::event::Uid;
use crate::policy::load::NameService;
use crate::rules::container::{ContainerEngine, split_container};

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
    let (engine, owner, name) = split_container(text).ok_or_else(invalid)?;
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
    Ok((usual_cgroup(engine, owner, name), name.to_owned()))
}
