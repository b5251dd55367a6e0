//! What the original asks of its files before it starts, and the status that it ends with if it does
//! not get it: the meaning of `--strict`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::options::Accounts;
use crate::config::cgconfig_conf::{self, Ownership, Parsed, Perm};
use crate::load::Original;

/// Bytes of a file that are read: more than any that was written by hand.
const MAX_SIZE: u64 = 16 << 20;

/// Why the original would not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The status of the process.
    pub(super) code: u8,
    pub(super) message: String,
}

impl Refusal {
    const DIRECTORY: u8 = 1;
    const NO_TEMPLATES: u8 = 96;
    const RULES: u8 = 99;
    const TEMPLATES: u8 = 104;
}

/// The files of templates.
#[derive(Clone, Debug)]
pub(super) struct Templates {
    pub(super) file: PathBuf,
    pub(super) directory: PathBuf,
}

impl Default for Templates {
    fn default() -> Self {
        Self { file: "/etc/cgconfig.conf".into(), directory: "/etc/cgconfig.d".into() }
    }
}

/// Asks in the order of the original: it lists the files of templates, reads the rules, then the
/// templates. `original` is what it thinks of the rules.
pub(super) fn check(
    templates: &Templates,
    original: &Original,
    accounts: &Accounts,
) -> Result<(), Refusal> {
    let mut files = list(&templates.directory).map_err(|error| {
        let message = format!("{}: {error}", templates.directory.display());
        Refusal { code: Refusal::DIRECTORY, message }
    })?;
    check_rules(original)?;
    files.insert(0, templates.file.clone());
    files.iter().try_for_each(|file| check_templates(file, accounts))
}

/// Regular files and links, in the order of their names; the original takes the order of the disk.
fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_file() || kind.is_symlink() {
            files.push(entry.path());
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn check_rules(original: &Original) -> Result<(), Refusal> {
    let message = match original {
        Original::NotAsked | Original::Starts => return Ok(()),
        Original::Misses(file) => format!("{}: there is no such file", file.display()),
        Original::Refuses(diagnostic) => diagnostic.to_string(),
    };
    Err(Refusal { code: Refusal::RULES, message })
}

fn check_templates(file: &Path, accounts: &Accounts) -> Result<(), Refusal> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|opened| opened.take(MAX_SIZE).read_to_end(&mut bytes));
    if let Err(error) = read {
        let message = format!("{}: {error}", file.display());
        return Err(Refusal { code: Refusal::NO_TEMPLATES, message });
    }
    let file: Arc<Path> = Arc::from(file);
    let parsed = cgconfig_conf::parse(&file, &cgconfig_conf::decode(&bytes));
    let message = match &parsed.refusal {
        Some(diagnostic) => diagnostic.to_string(),
        None => match stranger(&parsed, accounts) {
            Some(name) => format!("{}: there is no user or group {name}", file.display()),
            None => return Ok(()),
        },
    };
    Err(Refusal { code: Refusal::TEMPLATES, message })
}

/// The first name in the `perm` sections that nobody has.
fn stranger<'p>(parsed: &'p Parsed, accounts: &Accounts) -> Option<&'p str> {
    let sections = parsed.templates.iter().chain(&parsed.groups);
    let perms = sections.filter_map(|section| section.perm.as_ref()).chain(&parsed.defaults);
    perms
        .flat_map(|Perm { task, admin }| [task, admin])
        .find_map(|ownership| unknown(ownership, accounts))
}

fn unknown<'p>(ownership: &'p Ownership, accounts: &Accounts) -> Option<&'p str> {
    let Ownership { user, group, .. } = ownership;
    let is_name = |name: &&str| cgconfig_conf::leading_number(name).is_none();
    let user = user.as_ref().map(|mention| mention.name.as_str()).filter(is_name);
    let group = group.as_ref().map(|mention| mention.name.as_str()).filter(is_name);
    let no_user = |name: &&str| !matches!((accounts.uid)(name), Ok(Some(_)));
    let no_group = |name: &&str| !matches!((accounts.gid)(name), Ok(Some(_)));
    user.filter(no_user).or(group.filter(no_group))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(original: &Original, conf: Option<&str>, more: Option<&str>) -> u8 {
        let root = tempfile::tempdir().unwrap();
        let templates = Templates {
            file: root.path().join("cgconfig.conf"),
            directory: root.path().join("cgconfig.d"),
        };
        if let Some(text) = conf {
            fs::write(&templates.file, text).unwrap();
        }
        if let Some(text) = more {
            fs::create_dir(&templates.directory).unwrap();
            fs::write(templates.directory.join("README"), text).unwrap();
        }
        let checked = check(&templates, original, &Accounts::default());
        checked.err().map_or(0, |refusal| refusal.code)
    }

    #[test]
    fn each_file_has_its_status_and_the_directory_comes_first() {
        let starts = Original::Starts;
        let misses = Original::Misses(Arc::from(Path::new("/etc/cgrules.conf")));
        assert_eq!(code(&starts, Some(""), Some("")), 0);
        assert_eq!(code(&misses, None, None), 1);
        assert_eq!(code(&misses, None, Some("")), 99);
        assert_eq!(code(&starts, None, Some("")), 96);
        assert_eq!(code(&starts, Some("group"), Some("")), 104);
        assert_eq!(code(&starts, Some(""), Some("group {")), 104);
    }

    #[test]
    fn a_stranger_is_a_fault() {
        let perm = |user: &str| {
            format!("group a {{ perm {{ task {{ uid = {user}; }} admin {{ gid = root; }} }} }}")
        };
        for known in ["root", "7", "98x"] {
            assert_eq!(code(&Original::Starts, Some(&perm(known)), Some("")), 0);
        }
        assert_eq!(code(&Original::Starts, Some(&perm("nobody-here")), Some("")), 104);
    }
}
