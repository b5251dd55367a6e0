//! Checks files that a caller names, without testing owner and mode; they never become active.

use std::path::Path;
use std::sync::Arc;

use super::trust::{MAX_SIZE, TrustError};
use super::{FileOutcome, ListedFile, Loaded, Loader, NameService, refused};
use crate::config::daemon_toml;
use crate::event::Uid;
use crate::rules::names::ResolvedNames;

/// The kind of a file, from its name and directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenKind {
    /// A file of TOML rules.
    Rules,
    /// The settings file of the daemon.
    Settings,
    /// Rules in the syntax of `cgrules.conf`.
    Legacy,
    /// Cgroups in the syntax of `cgconfig.conf`.
    Groups,
}

impl GivenKind {
    /// Returns the kind of file that the daemon would read it as, or `None` if the daemon would
    /// never read a file of this name.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().into_owned();
        let parent = path.parent().and_then(Path::file_name).unwrap_or_default();
        match (name.as_str(), parent.to_str()) {
            ("cgruled.toml", _) => Some(Self::Settings),
            (name, _) if name.ends_with(".toml") => Some(Self::Rules),
            (_, Some("cgrules.d")) => Some(Self::Legacy),
            (_, Some("cgconfig.d")) => Some(Self::Groups),
            (name, _) if name.contains("cgrules") => Some(Self::Legacy),
            (name, _) if name.contains("cgconfig") => Some(Self::Groups),
            _ => None,
        }
    }
}

/// The kind of a file, its absolute path, and its content.
pub type GivenFile = (GivenKind, Arc<Path>, Vec<u8>);

/// Reads these files as [`super::load`] reads those of the standard directories: legacy rules
/// first, otherwise in the order given.
pub fn load_given(files: &[GivenFile], service: &NameService) -> Loaded {
    load_given_with(files, service, &ResolvedNames::default())
}

/// Reads files like [`load_given`]. The users and groups of `accounts` precede those of the host.
pub fn load_given_with(
    files: &[GivenFile],
    service: &NameService,
    accounts: &ResolvedNames,
) -> Loaded {
    let mut loader = Loader::new(Uid(0), service);
    loader.resolver.define(accounts);
    for (kind, path, bytes) in files {
        let outcome = match kind {
            GivenKind::Rules if bytes.len() as u64 > MAX_SIZE => {
                let large = TrustError::too_large(MAX_SIZE);
                loader.diagnostics.push(refused(path, large));
                FileOutcome::Refused
            }
            GivenKind::Rules => FileOutcome::Loaded(loader.rules_of(path, bytes)),
            GivenKind::Legacy => loader.legacy_rules(path, bytes, false),
            GivenKind::Groups => {
                loader.sections(path, bytes);
                FileOutcome::Loaded(0)
            }
            GivenKind::Settings => {
                loader.diagnostics.extend(daemon_toml::parse_bytes(path, bytes).1);
                FileOutcome::Loaded(0)
            }
        };
        loader.files.push(ListedFile { path: Arc::clone(path), outcome });
    }
    loader.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_the_daemon_refuses_for_its_size_is_an_error() {
        let with = |size: usize| {
            let text = format!("version = 1\n# {}\n", "x".repeat(size - 15));
            let file = (GivenKind::Rules, Arc::from(Path::new("/a.toml")), text.into_bytes());
            load_given(&[file], &NameService::default()).diagnostics
        };
        assert!(with(1 << 20).is_empty());
        let refused = with((1 << 20) + 1);
        let [refused] = &*refused else { panic!("{refused:?}") };
        assert!(refused.is_error() && refused.message == "is larger than 1 MiB", "{refused}");
    }

    #[test]
    fn a_file_is_judged_by_its_name_and_place() {
        let kinds = [
            ("/etc/cgruled/cgruled.toml", Some(GivenKind::Settings)),
            ("50-a.toml", Some(GivenKind::Rules)),
            ("/etc/cgrules.conf", Some(GivenKind::Legacy)),
            ("/etc/cgrules.d/web", Some(GivenKind::Legacy)),
            ("cgconfig.conf.new", Some(GivenKind::Groups)),
            ("/etc/cgconfig.d/a.conf", Some(GivenKind::Groups)),
            ("/etc/passwd", None),
            ("/", None),
        ];
        for (path, kind) in kinds {
            assert_eq!(GivenKind::of(Path::new(path)), kind, "{path}");
        }
    }
}
