//! Adds the real paths of executables to the rules of TOML files. Paths from the kernel have no
//! links, but `/bin/tar` is `/usr/bin/tar` on most hosts.
//!
//! Only the directory is resolved: a link in place of the executable is a name that processes are
//! started by, and matches as such.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::event::Uid;
use crate::rules::glob::Glob;
use crate::rules::{Criteria, ExeTest, Rule};

/// Time for all directories of one file: a directory can be on a network file system that does not
/// respond.
const PATIENCE: Duration = Duration::from_secs(1);

/// The directories that rules name, with their real paths if those are different.
#[derive(Debug, Default)]
pub(super) struct RealDirectories(HashMap<Vec<u8>, Option<Vec<u8>>>);

impl RealDirectories {
    /// Adds to each rule the real paths of its executables. Links are followed only if they belong
    /// to root or `owner`: a user must not choose what a rule of root matches.
    pub(super) fn add<'r>(&mut self, rules: impl Iterator<Item = &'r mut Rule>, owner: Uid) {
        let rules: Vec<&mut Rule> = rules.collect();
        let of_ancestors = |rule: &'_ Rule| {
            let lists = rule.ancestor_tests().flat_map(|(tests, _)| tests);
            lists.cloned().collect::<Vec<_>>()
        };
        let tests = rules.iter().flat_map(|rule| {
            rule.when.exes.iter().chain(&rule.not.exes).cloned().chain(of_ancestors(rule))
        });
        let mut new: Vec<Vec<u8>> = tests.filter_map(|test| directory(&test)).collect();
        new.sort_unstable();
        new.dedup();
        new.retain(|directory| !self.0.contains_key(directory));
        self.resolve(new, owner);
        for rule in rules {
            self.extend_all(&mut rule.when);
            let mut not = (*rule.not).clone();
            self.extend_all(&mut not);
            rule.not = not.into();
        }
    }

    /// Resolves directories on another thread, which is left behind if one does not respond.
    fn resolve(&mut self, directories: Vec<Vec<u8>>, owner: Uid) {
        if directories.is_empty() {
            return;
        }
        let until = Instant::now() + PATIENCE;
        let (sender, resolved) = mpsc::channel();
        let asked = directories.clone();
        let started = thread::Builder::new().name("directories".into()).spawn(move || {
            for directory in asked {
                let real = real_path(&directory, owner);
                // The receiver is gone after the time limit.
                if sender.send((directory, real)).is_err() {
                    return;
                }
            }
        });
        if let Err(error) = started {
            ::log::error!("cannot start a thread to resolve the directories of exe: {error}");
        }
        for directory in directories {
            let left = until.saturating_duration_since(Instant::now());
            match resolved.recv_timeout(left) {
                Ok((directory, real)) => drop(self.0.insert(directory, real)),
                Err(_) => {
                    let path = String::from_utf8_lossy(&directory).escape_debug().to_string();
                    ::log::warn!(
                        "{path} does not respond: rules match executables in it by the path as written"
                    );
                    return;
                }
            }
        }
    }

    fn extend_all(&self, criteria: &mut Criteria) {
        self.extend(&mut criteria.exes);
        if let Some(context) = criteria.context.as_deref_mut() {
            self.extend(&mut context.below);
        }
    }

    fn extend(&self, tests: &mut Vec<ExeTest>) {
        let mut more = Vec::new();
        for test in tests.iter() {
            let real = self.real(test).filter(|real| !tests.contains(real));
            more.extend(real.filter(|real| !more.contains(real)));
        }
        tests.append(&mut more);
    }

    /// Returns the test with the real path of its directory, if that is different.
    fn real(&self, test: &ExeTest) -> Option<ExeTest> {
        let written = directory(test)?;
        let real = self.0.get(&written)?.as_ref()?;
        match test {
            ExeTest::Path(path) => Some(ExeTest::Path([real, &path[written.len()..]].concat())),
            ExeTest::PathGlob(glob) => {
                let (literal, rest) = glob.split_prefix();
                let start = [real, &literal[written.len()..]].concat();
                let pattern = [escaped(&start), rest.to_vec()].concat();
                Glob::parse(&pattern).ok().map(ExeTest::PathGlob)
            }
            ExeTest::Base(_) | ExeTest::BaseGlob(_) => None,
        }
    }
}

/// Returns the directory of a path, or that of the literal beginning of a pattern, without the slash
/// at its end. `None` for a base name and for the root directory.
fn directory(test: &ExeTest) -> Option<Vec<u8>> {
    let path = match test {
        ExeTest::Path(path) => path.clone(),
        ExeTest::PathGlob(glob) => glob.literal_prefix().into_owned(),
        ExeTest::Base(_) | ExeTest::BaseGlob(_) => return None,
    };
    let end = path.iter().rposition(|&byte| byte == b'/')?;
    (end > 0).then(|| path[..end].to_vec())
}

/// Returns the path without links, if it is different and each link on it belongs to root or
/// `owner`.
fn real_path(directory: &[u8], owner: Uid) -> Option<Vec<u8>> {
    let path = Path::new(OsStr::from_bytes(directory));
    let mut parts = path.ancestors();
    let is_trusted = parts.all(|part| {
        let metadata = fs::symlink_metadata(part);
        metadata.is_ok_and(|own| !own.is_symlink() || [0, owner.0].contains(&own.uid()))
    });
    let real = is_trusted.then(|| fs::canonicalize(path).ok())??;
    let real = real.as_os_str().as_bytes();
    // The root directory would give a path that begins with two slashes.
    (real != directory && real != b"/").then(|| real.to_vec())
}

fn escaped(literal: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(literal.len());
    for &byte in literal {
        if matches!(byte, b'*' | b'?' | b'[' | b'\\') {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use super::*;
    use crate::config::rules_toml;

    /// Returns the tests of `exe` and `not.exe` that are added for these values below `root`.
    fn added(root: &Path, exe: &str, not: &str) -> [Vec<String>; 2] {
        let root = root.to_str().unwrap();
        let text = format!(
            "version = 1\n[[rule]]\nexe = {exe}\nnot = {{ exe = {not} }}\ncgroup = \"a\"\n"
        );
        let parsed =
            rules_toml::parse(&Arc::from(Path::new("/a.toml")), &text.replace("ROOT", root));
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
        let mut rule = parsed.rules.into_iter().next().unwrap().rule;
        let counts = [rule.when.exes.len(), rule.not.exes.len()];
        let owner = Uid(nix::unistd::geteuid().as_raw());
        RealDirectories::default().add([&mut rule].into_iter(), owner);
        [&rule.when.exes[counts[0]..], &rule.not.exes[counts[1]..]].map(|added| {
            let texts = added.iter().map(|test| match test {
                ExeTest::Path(text) | ExeTest::Base(text) => text.clone(),
                ExeTest::PathGlob(glob) | ExeTest::BaseGlob(glob) => glob.as_bytes().to_vec(),
            });
            texts.map(|text| String::from_utf8(text).unwrap().replace(root, "ROOT")).collect()
        })
    }

    #[test]
    fn links_in_the_directory_are_resolved() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::create_dir(root.join("a[b")).unwrap();
        symlink("usr/bin", root.join("bin")).unwrap();
        symlink("bin", root.join("usr/sbin")).unwrap();
        symlink("a[b", root.join("odd")).unwrap();
        symlink("realtool", root.join("usr/bin/tool")).unwrap();
        let table = [
            ("\"ROOT/bin/tar\"", vec!["ROOT/usr/bin/tar"]),
            ("\"ROOT/usr/sbin/tar\"", vec!["ROOT/usr/bin/tar"]),
            ("[\"ROOT/bin/tar\", \"ROOT/usr/bin/tar\"]", vec![]),
            ("[\"ROOT/bin/tar\", \"ROOT/usr/sbin/tar\"]", vec!["ROOT/usr/bin/tar"]),
            ("\"ROOT/bin/php*\"", vec!["ROOT/usr/bin/php*"]),
            ("\"ROOT/odd/x*\"", vec!["ROOT/a\\[b/x*"]),
            ("\"ROOT/*/tar\"", vec![]),
            ("\"ROOT/usr/bin/tool\"", vec![]),
            ("\"ROOT/none/tar\"", vec![]),
            ("[\"tar\", \"t*\", \"/tar\", \"/t*\"]", vec![]),
        ];
        for (exe, expected) in table {
            assert_eq!(added(&root, exe, "\"x\"")[0], expected, "{exe}");
            assert_eq!(added(&root, "\"x\"", exe)[1], expected, "not {exe}");
        }
    }

    #[test]
    fn the_link_of_a_user_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        fs::create_dir(root.join("usr")).unwrap();
        symlink("usr", root.join("link")).unwrap();
        let link = root.join("link");
        let link = link.as_os_str().as_bytes();
        if !nix::unistd::geteuid().is_root() {
            // A user other than root cannot give a link away.
            return;
        }
        let other = Some(61_701.into());
        let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        assert!(real_path(link, Uid(0)).is_some());
        nix::unistd::fchownat(nix::fcntl::AT_FDCWD, &root.join("link"), other, None, flags)
            .unwrap();
        assert_eq!(real_path(link, Uid(0)), None);
    }
}
