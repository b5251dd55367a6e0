//! Implementation of `--strict`: the checks that cgrulesengd makes before it starts, with its exit
//! statuses.

use std::path::Path;

use crate::policy::load::{Loaded, UpstreamVerdict};

/// Reason for which cgrulesengd would not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StrictError {
    /// Exit status of the process.
    pub(super) code: u8,
    pub(super) message: String,
}

impl StrictError {
    const DIRECTORY: u8 = 1;
    const NO_TEMPLATES: u8 = 96;
    const RULES: u8 = 99;
    const TEMPLATES: u8 = 104;
}

/// Checks the files in the order of cgrulesengd: it lists the directory of templates, reads the
/// rules, then the templates.
pub(super) fn check(loaded: &Loaded, directory: &Path) -> Result<(), StrictError> {
    let refuse = |code, message| Err(StrictError { code, message });
    let missing = |file: &Path| format!("{}: no such file or directory", file.display());
    if let UpstreamVerdict::Misses(file) = &loaded.original_cgconfig {
        if **file == *directory {
            return refuse(StrictError::DIRECTORY, missing(file));
        }
    }
    match &loaded.upstream {
        UpstreamVerdict::NotAsked | UpstreamVerdict::Starts => {}
        UpstreamVerdict::Misses(file) => return refuse(StrictError::RULES, missing(file)),
        UpstreamVerdict::Refuses(why) => return refuse(StrictError::RULES, why.to_string()),
    }
    match &loaded.original_cgconfig {
        UpstreamVerdict::NotAsked | UpstreamVerdict::Starts => Ok(()),
        UpstreamVerdict::Misses(file) => refuse(StrictError::NO_TEMPLATES, missing(file)),
        UpstreamVerdict::Refuses(why) => refuse(StrictError::TEMPLATES, why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::compat::cgrulesengd::in_directory;
    use crate::policy::load::load;

    /// Returns the exit status with these contents of `cgrules.conf`, `cgconfig.conf` and a file in
    /// `cgconfig.d`.
    fn code(rules: Option<&str>, conf: Option<&str>, more: Option<&str>) -> u8 {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let texts = [("cgrules.conf", rules), ("cgconfig.conf", conf), ("cgconfig.d/README", more)];
        for (name, text) in texts {
            let Some(text) = text else { continue };
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::write(path(name), text).unwrap();
        }
        fs::write(path("passwd"), "root:x:0:0::/:\n").unwrap();
        fs::write(path("group"), "root:x:0:\n").unwrap();
        let (sources, service) = in_directory(root.path());
        let checked = check(&load(&sources, &service), &sources.cgconfig_d);
        checked.err().map_or(0, |refusal| refusal.code)
    }

    const RULES: Option<&str> = Some("* cpu t1\n");

    #[test]
    fn each_file_has_its_status_and_the_directory_comes_first() {
        assert_eq!(code(RULES, Some(""), Some("")), 0);
        assert_eq!(code(None, None, None), 1);
        assert_eq!(code(None, None, Some("")), 99);
        assert_eq!(code(RULES, None, Some("")), 96);
        assert_eq!(code(RULES, Some("group"), Some("")), 104);
        assert_eq!(code(RULES, Some(""), Some("group {")), 104);
    }

    #[test]
    fn a_stranger_is_a_fault() {
        let perm = |head: &str, user: &str| {
            format!("{head} {{ perm {{ task {{ uid = {user}; }} admin {{ gid = root; }} }} }}")
        };
        for head in ["group a", "template a", "default"] {
            for known in ["root", "7", "98x"] {
                assert_eq!(code(RULES, Some(&perm(head, known)), Some("")), 0, "{head} {known}");
            }
            for unknown in ["nobody-here", "0"] {
                let text = perm(head, unknown);
                assert_eq!(code(RULES, Some(&text), Some("")), 104, "{head} {unknown}");
            }
        }
    }
}
