//! Reads the sources of users and groups from `/etc/nsswitch.conf`; see nsswitch.conf(5).

use std::path::Path;

use super::text_file;

/// The bytes of the file that are read; the usual file has 500 bytes.
const MAX_BYTES: u64 = 64 << 10;
/// Sources that the local files contain completely, or that have no names of digits: systemd
/// refuses these.
const WITHOUT_DIGITS: [&str; 5] = ["files", "compat", "systemd", "mymachines", "altfiles"];

/// Returns the NSS modules of `database` (`passwd` or `group`), in order; `files` without the file.
pub(super) fn modules(path: &Path, database: &str) -> Vec<String> {
    // Without a line for the database, it is that of the files.
    parse(&text_file::read(path, MAX_BYTES).unwrap_or_default(), database)
}

/// Checks whether one of the modules can have names of digits that are not in the local files.
pub(super) fn have_names_of_digits(modules: &[String]) -> bool {
    modules.iter().any(|module| !WITHOUT_DIGITS.contains(&&**module))
}

fn parse(text: &str, database: &str) -> Vec<String> {
    let sources = text.lines().find_map(|line| {
        let line = line.split('#').next()?;
        let (name, sources) = line.split_once(':')?;
        (name.trim() == database).then_some(sources)
    });
    let Some(sources) = sources else { return vec!["files".to_owned()] };
    let mut is_action = false;
    let mut modules = Vec::new();
    for word in sources.split_ascii_whitespace() {
        // An action such as `[NOTFOUND=return SUCCESS=merge]` can have several words.
        is_action |= word.starts_with('[');
        if !is_action {
            modules.push(word.to_owned());
        }
        is_action &= !word.ends_with(']');
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_of_a_database() {
        let text =
            "# passwd: nis\npasswd:  files [NOTFOUND=continue UNAVAIL=return] sss#x\n group: db\n";
        assert_eq!(parse(text, "passwd"), ["files", "sss"]);
        assert_eq!(parse(text, "group"), ["db"]);
        assert_eq!(parse(text, "shadow"), ["files"]);
        assert_eq!(modules(Path::new("/nonexistent"), "passwd"), ["files"]);
    }

    #[test]
    fn modules_with_names_of_digits() {
        for (text, expected) in [
            ("passwd: files systemd", false),
            ("passwd: files sss", true),
            ("passwd: files winbind", true),
            ("passwd: nis", true),
        ] {
            assert_eq!(have_names_of_digits(&parse(text, "passwd")), expected, "{text}");
        }
    }
}
