//! `/etc/cgconfig.conf` and `/etc/cgconfig.d`: what groups of legacy rules are given. They are read with
//! the legacy rules and trusted like them; a missing one is nothing.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::legacy;
use super::trust::{Content, Kind, TrustedDirectory};
use super::{Loader, gifts, refused};
use crate::config::cgconfig_conf;
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

    pub(super) fn sections(&mut self, path: &Arc<Path>, bytes: &[u8]) {
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
