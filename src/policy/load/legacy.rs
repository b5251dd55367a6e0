//! Loads `/etc/cgrules.conf` and `/etc/cgrules.d`, the rules of cgrulesengd, which precede all
//! others.
//!
//! The same checks apply as to other rule files: a file that users other than root can write is
//! refused, which cgrulesengd does not check.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::overlay::OverlayDirectory;
use super::trust::TrustErrorKind;
use super::{FileOutcome, ListedFile, Loader, refused};
use crate::config::cgrules_conf::{self, ParsedCgrules, UpstreamRefusal};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::rules_toml::{NameRef, WrittenRule};

/// The maximum file size in bytes, some 400,000 rules. cgrulesengd has no limit.
const MAX_SIZE: u64 = 16 << 20;

/// The result of starting cgrulesengd 2.0.2 with the legacy rule files, or with those of
/// `cgconfig.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UpstreamVerdict {
    /// Unknown: the files were not requested.
    #[default]
    NotAsked,
    /// cgrulesengd starts.
    Starts,
    /// cgrulesengd exits: this file or directory does not exist or could not be read.
    Misses(Arc<Path>),
    /// cgrulesengd exits because of this line, the first that it does not accept, or because of
    /// this dangling link. A file that it would read and that fails the checks of owner and mode
    /// counts as such.
    Refuses(Box<Diagnostic>),
}

impl UpstreamVerdict {
    /// Combines the verdicts about these files and about later ones: cgrulesengd exits at the first
    /// that it does not accept.
    pub(super) fn then(self, next: Self) -> Self {
        if self == Self::Starts { next } else { self }
    }
}

impl Loader<'_> {
    /// Reads the legacy rule files.
    pub(super) fn legacy(&mut self, file: &Path, directory: &Path) {
        self.upstream = UpstreamVerdict::Misses(Arc::from(file));
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        match self.open(parent) {
            Ok(Some(opened)) => {
                let name = file.file_name().unwrap_or(OsStr::new("."));
                self.legacy_file(&opened, file, name, true);
            }
            Ok(None) => {}
            Err(refusal) => {
                // The file may exist, in a directory where other users can create it.
                self.upstream = UpstreamVerdict::Starts;
                self.distrust(refused(&Arc::from(parent), refusal));
            }
        }
        self.legacy_directory(directory);
    }

    /// Records a file that is not read although cgrulesengd would read it.
    fn distrust(&mut self, diagnostic: Diagnostic) {
        if self.upstream == UpstreamVerdict::Starts {
            self.upstream = UpstreamVerdict::Refuses(Box::new(diagnostic.clone()));
        }
        self.diagnostics.push(diagnostic);
    }

    fn legacy_directory(&mut self, path: &Path) {
        match self.list(path) {
            Ok(Some((directory, names))) => {
                for name in names {
                    self.legacy_file(&directory, &path.join(&name), &name, false);
                }
            }
            Ok(None) => {}
            // cgrulesengd skips a file of this name.
            Err(refusal) if refusal.kind == TrustErrorKind::Special => {
                self.diagnostics.push(refused(&Arc::from(path), refusal));
            }
            Err(refusal) => self.distrust(refused(&Arc::from(path), refusal)),
        }
    }

    /// Determines what cgrulesengd does with a file that is ignored here.
    fn judge_leftover(&mut self, directory: &OverlayDirectory, path: &Arc<Path>) {
        if let Ok(bytes) = self.read(directory, path, MAX_SIZE) {
            self.judge(cgrules_conf::parse(path, &cgrules_conf::decode(&bytes)).refusals);
        }
    }

    /// Records the first line for which cgrulesengd exits.
    fn judge(&mut self, refusals: Vec<UpstreamRefusal>) {
        let mut stops = refusals.into_iter().filter(|refusal| self.resolver.stops(refusal));
        if let (UpstreamVerdict::Starts, Some(first)) = (&self.upstream, stops.next()) {
            self.upstream = UpstreamVerdict::Refuses(Box::new(first.diagnostic));
        }
    }

    /// Reads one file; `is_main` for `/etc/cgrules.conf`.
    fn legacy_file(
        &mut self,
        directory: &OverlayDirectory,
        path: &Path,
        name: &OsStr,
        is_main: bool,
    ) {
        let path: Arc<Path> = Arc::from(path);
        let outcome = match leftover(name.as_bytes()).filter(|_| !is_main) {
            Some(reason) => {
                let message = format!("file ignored: {reason}");
                let help = "cgrulesengd would read it as a rule file";
                let skipped = Diagnostic::about(&path, Severity::Warning, message);
                self.diagnostics.push(skipped.with_help(help));
                self.judge_leftover(directory, &path);
                FileOutcome::Skipped
            }
            None => match self.content(directory, &path, MAX_SIZE) {
                Ok(bytes) => self.legacy_rules(&path, &bytes, is_main),
                Err(refusal) if is_main && refusal.kind == TrustErrorKind::Missing => return,
                Err(refusal) if !is_main && refusal.kind == TrustErrorKind::Special => {
                    let message = format!("file ignored: it {}", refusal.message);
                    self.diagnostics.push(Diagnostic::about(&path, Severity::Warning, message));
                    FileOutcome::Skipped
                }
                Err(refusal) => {
                    if is_main {
                        self.upstream = UpstreamVerdict::Starts;
                    }
                    if refusal.kind == TrustErrorKind::Special {
                        // cgrulesengd finds no lines in a directory.
                        self.diagnostics.push(refused(&path, refusal));
                    } else {
                        self.distrust(refused(&path, refusal));
                    }
                    FileOutcome::Refused
                }
            },
        };
        self.files.push(ListedFile { path, outcome });
    }

    pub(super) fn legacy_rules(
        &mut self,
        path: &Arc<Path>,
        bytes: &[u8],
        is_main: bool,
    ) -> FileOutcome {
        if is_main {
            self.upstream = UpstreamVerdict::Starts;
        }
        let text = cgrules_conf::decode(bytes);
        let ParsedCgrules { rules, diagnostics, refusals } = cgrules_conf::parse(path, &text);
        self.diagnostics.extend(diagnostics);
        for WrittenRule { rule, mentions, .. } in &rules {
            if let Some(NameRef { kind, name, .. }) = mentions.first() {
                self.mentioned.push((Arc::clone(path), rule.origin.line, *kind, name.clone()));
            }
        }
        let before = self.legacy.len();
        let severity = Severity::Warning;
        let unknown = self.resolver.resolve(rules, path, &text, severity, &mut self.legacy);
        self.diagnostics.extend(unknown);
        self.judge(refusals);
        FileOutcome::Loaded(self.legacy.len() - before)
    }
}

impl super::Resolver<'_> {
    /// Checks whether cgrulesengd 2.0.2 gets as far as refusing: it first skips the line of an
    /// unknown user.
    fn stops(&mut self, refusal: &UpstreamRefusal) -> bool {
        refusal.unless_unknown.as_ref().is_none_or(|mention| self.knows(mention))
    }
}

/// Returns the reason why a name is that of a backup file of an editor or a package manager.
/// cgrulesengd reads every file regardless of its name, and so does cgruled with all others.
pub(super) fn leftover(name: &[u8]) -> Option<&'static str> {
    let swap = [".swp", ".swo", ".swn", ".swx"].iter().any(|end| name.ends_with(end.as_bytes()));
    let swap = swap && name.starts_with(b".");
    let emacs = name.starts_with(b".#") || name.starts_with(b"#") && name.ends_with(b"#");
    if name.ends_with(b"~") || swap || emacs {
        return Some("editor backup or swap file");
    }
    let parts = [".dpkg-", ".rpmnew", ".rpmsave", ".rpmorig", ".ucf-"];
    let ends = [".pacnew", ".pacsave", ".pacorig", ".apk-new"];
    let managers = parts.iter().any(|part| super::contains(name, part.as_bytes()))
        || ends.iter().any(|end| name.ends_with(end.as_bytes()))
        || name.starts_with(b"._cfg");
    managers.then_some("package manager backup file")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::event::Uid;
    use crate::policy::load::{NameService, Sources, load};

    /// Returns the verdict about a directory and a `cgrules.conf` in it with these modes.
    fn with_modes(directory: u32, file: u32) -> UpstreamVerdict {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("cgrules.conf");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(file)).unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(directory)).unwrap();
        let sources = Sources {
            directories: Vec::new(),
            cgrules_conf: path,
            cgrules_d: root.path().join("cgrules.d"),
            owner: Uid(nix::unistd::geteuid().as_raw()),
            ..Sources::default()
        };
        load(&sources, &NameService::default()).upstream
    }

    #[test]
    fn a_file_that_is_not_trusted_is_not_missing() {
        assert_eq!(with_modes(0o755, 0o644), UpstreamVerdict::Starts);
        for (directory, file) in [(0o755, 0o664), (0o775, 0o644)] {
            let upstream = with_modes(directory, file);
            assert!(matches!(upstream, UpstreamVerdict::Refuses(_)), "{file:o}: {upstream:?}");
        }
    }

    #[test]
    fn leftovers_are_told_from_rules() {
        for name in
            ["a.conf", "README", ".hid", "a b", "rpm.conf", "a.conf.bak", "x.swp.conf", "#a"]
        {
            assert_eq!(leftover(name.as_bytes()), None, "{name}");
        }
        for name in [
            "c.conf~",
            ".a.conf.swp",
            "#a.conf#",
            ".#a.conf",
            "a.conf.dpkg-old",
            "a.rpmsave",
            "._cfg0000_a",
        ] {
            assert!(leftover(name.as_bytes()).is_some(), "{name}");
        }
    }
}
