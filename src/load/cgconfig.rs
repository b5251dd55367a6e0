//! `/etc/cgconfig.conf` and `/etc/cgconfig.d`: what groups of legacy rules are given. They are read with
//! the legacy rules and trusted like them; a missing one is nothing.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::legacy;
use super::trust::{Content, Kind, TrustedDirectory};
use super::{Loader, NameService, Resolver, gifts, refused};
use crate::cgroup::provision::Gift;
use crate::config::cgconfig_conf::{self, GroupSection, Ownership, Perm};
use crate::config::diagnostic::{Diagnostic, Severity};

/// Bytes of the largest file that is read.
const MAX_SIZE: u64 = 16 << 20;

impl Loader<'_> {
    /// Reads the file and all files of the directory.
    pub(super) fn cgconfig(&mut self, file: &Path, directory: &Path) {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let name = file.file_name().unwrap_or(OsStr::new("."));
        if let Some(opened) = self.opened(parent) {
            self.cgconfig_file(&opened, file, name);
        }
        let Some(opened) = self.opened(directory) else { return };
        match opened.names() {
            Ok(names) => {
                for name in names {
                    let path = directory.join(&name);
                    match legacy::leftover(name.as_bytes()) {
                        Some(reason) => {
                            let path: Arc<Path> = Arc::from(path);
                            let message = format!("is skipped: {reason}");
                            let skipped = Diagnostic::about(&path, Severity::Warning, message);
                            self.diagnostics.push(skipped);
                        }
                        None => self.cgconfig_file(&opened, &path, &name),
                    }
                }
            }
            Err(refusal) => self.diagnostics.push(refused(&Arc::from(directory), refusal)),
        }
    }

    fn opened(&mut self, path: &Path) -> Option<TrustedDirectory> {
        TrustedDirectory::open(path, self.owner).unwrap_or_else(|refusal| {
            let diagnostic = refused(&Arc::from(path), refusal);
            // That of the rules beside it was said already.
            if !self.diagnostics.contains(&diagnostic) {
                self.diagnostics.push(diagnostic);
            }
            None
        })
    }

    fn cgconfig_file(&mut self, directory: &TrustedDirectory, path: &Path, name: &OsStr) {
        let path: Arc<Path> = Arc::from(path);
        match directory.read_up_to(name, MAX_SIZE) {
            Ok(Content::Bytes(bytes)) => self.sections(&path, &bytes),
            Ok(Content::Mask) => {}
            Err(refusal) if matches!(refusal.kind, Kind::Missing | Kind::Special) => {}
            Err(refusal) => self.diagnostics.push(refused(&path, refusal)),
        }
    }

    fn sections(&mut self, path: &Arc<Path>, bytes: &[u8]) {
        let parsed = cgconfig_conf::parse(path, &cgconfig_conf::decode(bytes));
        self.diagnostics.extend(parsed.diagnostics);
        let kinds = [
            (&parsed.templates, &mut self.gifts.templates),
            (&parsed.groups, &mut self.gifts.groups),
        ];
        for (sections, gifts) in kinds {
            for section in sections {
                gifts.push(gifts::section(section, &mut self.resolver, &mut self.diagnostics));
            }
        }
    }
}

/// The `group` sections of files, for a program that makes them. The last `default` section of all fills
/// in what the perm of a section does not say.
#[derive(Debug)]
pub struct Described {
    /// The sections in the order of the files.
    pub groups: Vec<Gift>,
    /// What is wrong with the files, and which sections are nobody's business.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads the `group` sections of these texts.
pub fn groups(files: &[(Arc<Path>, String)], service: &NameService) -> Described {
    let mut resolver = Resolver::new(service);
    let mut diagnostics = Vec::new();
    let mut sections: Vec<GroupSection> = Vec::new();
    let mut default = None;
    for (file, text) in files {
        let mut parsed = cgconfig_conf::parse(file, text);
        diagnostics.append(&mut parsed.diagnostics);
        default = parsed.defaults.pop().or(default);
        sections.append(&mut parsed.groups);
        let others = [
            ("mount", parsed.mounts),
            ("namespace", parsed.namespaces),
            ("systemd", parsed.systemd),
        ];
        for (kind, settings) in others {
            let Some(first) = settings.first() else { continue };
            let message = format!("line {}: {kind} sections are left out", first.origin.line);
            let about = Diagnostic::about(file, Severity::Warning, message);
            diagnostics.push(about.with_help("groups are made where hierarchies are mounted now"));
        }
    }
    let mut groups = Vec::new();
    for mut section in sections {
        section.perm = filled(section.perm.take(), default.as_ref());
        groups.push(gifts::section(&section, &mut resolver, &mut diagnostics));
    }
    Described { groups, diagnostics }
}

fn filled(perm: Option<Perm>, default: Option<&Perm>) -> Option<Perm> {
    let Some(default) = default else { return perm };
    let own = perm.unwrap_or_default();
    let fill = |own: Ownership, default: &Ownership| Ownership {
        user: own.user.or_else(|| default.user.clone()),
        group: own.group.or_else(|| default.group.clone()),
        file_mode: own.file_mode.or(default.file_mode),
        directory_mode: own.directory_mode.or(default.directory_mode),
    };
    Some(Perm { task: fill(own.task, &default.task), admin: fill(own.admin, &default.admin) })
}
