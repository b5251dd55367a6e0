//! Loads `/etc/cgconfig.conf` and `/etc/cgconfig.d`, which configure the cgroups of legacy rules.
//! The same checks of owner and mode apply as to legacy rules; a missing file is not an error.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::legacy;
use super::overlay::OverlayDirectory;
use super::trust::TrustErrorKind;
use super::{Loader, NameService, Resolver, UpstreamVerdict, group_specs, refused};
use crate::cgroup::config::GroupSpec;
use crate::config::cgconfig_conf::{
    self, GroupSection, ParsedCgconfig, PermSection, SectionOwnership, WrittenOwner,
};
use crate::config::diagnostic::{Diagnostic, Severity};

/// The maximum file size in bytes.
const MAX_SIZE: u64 = 16 << 20;

impl Loader<'_> {
    /// Reads the file and all files of the directory. Returns what cgrulesengd does with them.
    pub(super) fn cgconfig(&mut self, file: &Path, directory: &Path) -> UpstreamVerdict {
        // cgrulesengd lists the directory before it reads anything.
        let mut verdict = match directory.is_dir() {
            true => UpstreamVerdict::Starts,
            false => UpstreamVerdict::Misses(Arc::from(directory)),
        };
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let of_file = match self.opened(parent) {
            Some(opened) => self.cgconfig_file(&opened, file, true),
            None => UpstreamVerdict::Misses(Arc::from(file)),
        };
        verdict = verdict.then(of_file);
        let Some(opened) = self.opened(directory) else { return verdict };
        match self.names(&opened, directory) {
            Ok(names) => {
                for name in names {
                    let of_file = self.cgconfig_entry(&opened, directory, &name);
                    verdict = verdict.then(of_file);
                }
            }
            Err(refusal) => self.diagnostics.push(refused(&Arc::from(directory), refusal)),
        }
        verdict
    }

    fn cgconfig_entry(
        &mut self,
        opened: &OverlayDirectory,
        directory: &Path,
        name: &OsStr,
    ) -> UpstreamVerdict {
        let path = directory.join(name);
        let Some(reason) = legacy::leftover(name.as_bytes()) else {
            let verdict = self.cgconfig_file(opened, &path, false);
            // Not a file, which cgrulesengd skips, or removed in the meantime.
            let is_no_file = matches!(verdict, UpstreamVerdict::Misses(_)) && !path.is_symlink();
            return if is_no_file { UpstreamVerdict::Starts } else { verdict };
        };
        let path: Arc<Path> = Arc::from(path);
        let message = format!("file ignored: {reason}");
        self.diagnostics.push(Diagnostic::about(&path, Severity::Warning, message));
        // cgrulesengd reads such files too.
        let read = self.read(opened, &path, MAX_SIZE);
        verdict(read.ok().and_then(|bytes| self.parsed(&path, &bytes).1))
    }

    fn opened(&mut self, path: &Path) -> Option<OverlayDirectory> {
        self.open(path).unwrap_or_else(|refusal| {
            let diagnostic = refused(&Arc::from(path), refusal);
            // The directory of the legacy rules may be the same and was reported already.
            if !self.diagnostics.contains(&diagnostic) {
                self.diagnostics.push(diagnostic);
            }
            None
        })
    }

    fn cgconfig_file(
        &mut self,
        directory: &OverlayDirectory,
        path: &Path,
        is_main: bool,
    ) -> UpstreamVerdict {
        let path: Arc<Path> = Arc::from(path);
        let refusal = match self.content(directory, &path, MAX_SIZE) {
            Ok(bytes) if bytes.is_empty() => None,
            Ok(bytes) => self.sections(&path, &bytes),
            // cgrulesengd opens a directory and then fails to read it.
            Err(refusal) if refusal.kind == TrustErrorKind::Special && path.is_dir() && is_main => {
                let diagnostic = refused(&path, refusal);
                self.diagnostics.push(diagnostic.clone());
                Some(diagnostic)
            }
            Err(refusal)
                if matches!(refusal.kind, TrustErrorKind::Missing | TrustErrorKind::Special) =>
            {
                return UpstreamVerdict::Misses(path);
            }
            Err(refusal) => {
                let diagnostic = refused(&path, refusal);
                self.diagnostics.push(diagnostic.clone());
                Some(diagnostic)
            }
        };
        verdict(refusal)
    }

    /// Reads the sections of a file. Returns the reason why cgrulesengd does not start with it.
    pub(super) fn sections(&mut self, path: &Arc<Path>, bytes: &[u8]) -> Option<Diagnostic> {
        let (mut parsed, refusal) = self.parsed(path, bytes);
        self.diagnostics.append(&mut parsed.diagnostics);
        self.diagnostics.extend(not_ours(path, &parsed));
        for section in &parsed.templates {
            let spec = group_specs::section(section, &mut self.resolver, &mut self.diagnostics);
            self.specs.templates.push(spec);
        }
        self.groups.add(&mut parsed);
        refusal
    }

    /// Parses a file. Also returns the reason why cgrulesengd does not start with it.
    fn parsed(&mut self, path: &Arc<Path>, bytes: &[u8]) -> (ParsedCgconfig, Option<Diagnostic>) {
        let text = cgconfig_conf::decode(bytes);
        let mut parsed = cgconfig_conf::parse(path, &text);
        let refusal = parsed.refusal.take().or_else(|| self.stranger(&parsed));
        (parsed, refusal)
    }

    /// Returns a diagnostic about the first name in the `perm` sections that does not exist.
    fn stranger(&mut self, parsed: &ParsedCgconfig) -> Option<Diagnostic> {
        let sections = parsed.templates.iter().chain(&parsed.groups);
        let perms = sections.filter_map(|section| section.perm.as_ref()).chain(&parsed.defaults);
        let ownerships = perms.flat_map(|PermSection { task, admin }| [task, admin]);
        let mut owners =
            ownerships.flat_map(|ownership| [&ownership.user, &ownership.group]).flatten();
        owners.find_map(|WrittenOwner { mention, file, place }| {
            let message = match mention.name.parse() {
                // A zero is read as a name, like any word without a number at its beginning.
                Ok(0_u32) => format!("no user or group is named \"{}\"", mention.name),
                Ok(_) | Err(_) => group_specs::id_in_perm(mention, &mut self.resolver).err()?,
            };
            let place = Some(place.clone());
            Some(Diagnostic { place, ..Diagnostic::about(file, Severity::Error, message) })
        })
    }
}

fn verdict(refusal: Option<Diagnostic>) -> UpstreamVerdict {
    refusal.map_or(UpstreamVerdict::Starts, |diagnostic| {
        UpstreamVerdict::Refuses(Box::new(diagnostic))
    })
}

/// The `group` sections of all files and the last `default` section, which supplies what their
/// `perm` omits.
#[derive(Debug, Default)]
pub(super) struct DescribedGroup {
    sections: Vec<GroupSection>,
    default: Option<PermSection>,
}

impl DescribedGroup {
    /// Adds the sections of one more file.
    fn add(&mut self, parsed: &mut ParsedCgconfig) {
        self.sections.append(&mut parsed.groups);
        self.default = parsed.defaults.pop().or(self.default.take());
    }

    /// Resolves the sections, with defaults applied.
    pub(super) fn specs(
        self,
        resolver: &mut Resolver<'_>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Vec<GroupSpec> {
        let default = self.default.as_ref();
        let filled = self.sections.into_iter().map(|mut section| {
            section.perm = filled(section.perm.take(), default);
            section
        });
        filled.map(|section| group_specs::section(&section, resolver, diagnostics)).collect()
    }
}

/// The `group` sections of files, for a program that creates them.
#[derive(Debug)]
pub struct ConfiguredGroups {
    /// The sections in the order of the files.
    pub groups: Vec<GroupSpec>,
    /// Errors in the files, and warnings about unused kinds of sections.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads the `group` sections of these texts.
pub fn groups(files: &[(Arc<Path>, String)], service: &NameService) -> ConfiguredGroups {
    let mut resolver = Resolver::new(service);
    let mut diagnostics = Vec::new();
    let mut described = DescribedGroup::default();
    for (file, text) in files {
        let mut parsed = cgconfig_conf::parse(file, text);
        diagnostics.append(&mut parsed.diagnostics);
        diagnostics.extend(not_ours(file, &parsed));
        described.add(&mut parsed);
    }
    let groups = described.specs(&mut resolver, &mut diagnostics);
    ConfiguredGroups { groups, diagnostics }
}

/// Returns one warning for each kind of section that is not used here, at the first one of each.
fn not_ours(file: &Arc<Path>, parsed: &ParsedCgconfig) -> Vec<Diagnostic> {
    let others = [
        ("mount", &parsed.mounts),
        ("namespace", &parsed.namespaces),
        ("systemd", &parsed.systemd),
    ];
    let firsts = others.into_iter().filter_map(|(kind, settings)| Some((kind, settings.first()?)));
    let diagnostics = firsts.map(|(kind, first)| {
        let message = format!("{kind} sections are ignored");
        let about = Diagnostic::at_line(file, first.origin.line, Severity::Warning, message);
        about.with_help("cgroups are created in the hierarchies that are mounted now")
    });
    diagnostics.collect()
}

fn filled(perm: Option<PermSection>, default: Option<&PermSection>) -> Option<PermSection> {
    let Some(default) = default else { return perm };
    let own = perm.unwrap_or_default();
    Some(PermSection {
        task: filled_ownership(own.task, &default.task),
        admin: filled_ownership(own.admin, &default.admin),
    })
}

fn filled_ownership(own: SectionOwnership, default: &SectionOwnership) -> SectionOwnership {
    SectionOwnership {
        user: own.user.or_else(|| default.user.clone()),
        group: own.group.or_else(|| default.group.clone()),
        file_mode: own.file_mode.or(default.file_mode),
        directory_mode: own.directory_mode.or(default.directory_mode),
    }
}
