//! Loads all configuration files in order, checks their owners and modes and resolves names. It
//! blocks on disk and name service, so it must not run on the main thread after startup.
//!
//! A file overrides those of the same name in later directories even when it is refused: if a file
//! that replaces one of a package is invalid, the package's file must not become active again.

mod cgconfig;
pub mod container_files;
mod executables;
mod gated_files;
mod given;
mod group_specs;
mod legacy;
mod login_defs;
mod name_service;
mod nsswitch;
mod overlay;
mod resolver;
mod sources;
mod subordinates;
mod text_file;
mod trust;
mod units;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::hash::Hash;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use crate::cgroup::config::{GroupSpec, GroupSpecs};
use crate::config::daemon_toml::{self, Settings};
use crate::config::diagnostic::{Diagnostic, Severity, sort};
use crate::config::rules_toml::{self, NameKind, ParsedRules, WrittenRule};
use crate::config::source_text::{Diagnostics, SourceText, text_of};
use crate::config::test_table::RuleTest;
use crate::event::Uid;
use crate::rules::destination::prefixes;
use crate::rules::names::{ResolvedNames, UnknownName};
use crate::rules::{Action, Rule, Target};

use cgconfig::DescribedGroup;
pub use cgconfig::{ConfiguredGroups, groups};
use executables::RealDirectories;
use gated_files::GatedFiles;
pub use given::{GivenFile, GivenKind, load_given, load_given_with};
pub use group_specs::KEYS as GROUP_KEYS;
pub use legacy::UpstreamVerdict;
pub use name_service::NameService;
use overlay::OverlayDirectory;
pub use overlay::{FileContents, Overlay};
use resolver::Resolver;
pub use sources::{STANDARD_DIRECTORIES, Sources};
pub use subordinates::Subordinates;
use trust::{MAX_SIZE, TrustError, TrustedContent, TrustedDirectory};

/// The content of all rule files, with diagnostics.
#[derive(Debug)]
pub struct Loaded {
    /// The rules in effective order, with IDs in place of names.
    pub rules: Arc<[Rule]>,
    /// The names that occur in rules, with their IDs.
    pub names: ResolvedNames,
    /// The names that legacy rules, by file and line, use for users and groups that have several
    /// names.
    pub written: BTreeMap<(Arc<Path>, u32), String>,
    /// The settings of cgroups and units.
    pub specs: GroupSpecs,
    /// Errors and warnings, by file and line.
    pub diagnostics: Vec<Diagnostic>,
    /// Every name in the directories, in the order of processing.
    pub files: Vec<ListedFile>,
    /// The result of starting cgrulesengd with the legacy rule files.
    pub upstream: UpstreamVerdict,
    /// The same for `cgconfig.conf` and its directory.
    pub original_cgconfig: UpstreamVerdict,
    /// The content of each file that was read.
    pub contents: FileContents,
    /// The answers of the name service about names that are not in the local files.
    pub learned: ResolvedNames,
    /// The names that the name service does not know.
    pub missing: Vec<UnknownName>,
    /// The rule files with tests.
    pub tests: Vec<TestedFile>,
}

/// The rules of a file with tests, as written, and the tests.
#[derive(Clone, Debug)]
pub struct TestedFile {
    /// The valid rules in the order of the file, with unresolved names.
    pub rules: Vec<WrittenRule>,
    /// The valid tests, at least one.
    pub tests: Vec<RuleTest>,
}

/// A name in a directory of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// The absolute path of the file.
    pub path: Arc<Path>,
    /// The result of processing it.
    pub outcome: FileOutcome,
}

/// The result of processing a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOutcome {
    /// The file was read, and this number of its rules was loaded.
    Loaded(usize),
    /// The file is empty or a link to `/dev/null`, and masks files of its name.
    Mask,
    /// The file is overridden by this one of the same name.
    HiddenBy(Arc<Path>),
    /// The name is not that of a rule file.
    Skipped,
    /// The file failed the checks of owner and mode or is not readable; see the diagnostics.
    Refused,
}

/// Reads all rule files and resolves the names in them. Never fails: invalid parts are ignored and
/// reported.
pub fn load(sources: &Sources, service: &NameService) -> Loaded {
    load_over(sources, service, Overlay::default())
}

/// Loads like [`load`], but takes the content of files from `overlay` where it has them.
pub fn load_over(sources: &Sources, service: &NameService, mut overlay: Overlay) -> Loaded {
    let mut loader = Loader::new(sources.owner, service);
    loader.resolver.remember(std::mem::take(&mut overlay.names));
    loader.overlay = overlay;
    let mut original_cgconfig = UpstreamVerdict::NotAsked;
    if sources.legacy {
        loader.legacy(&sources.cgrules_conf, &sources.cgrules_d);
        original_cgconfig = loader.cgconfig(&sources.cgconfig_conf, &sources.cgconfig_d);
    }
    sources.directories.iter().for_each(|directory| loader.directory(directory));
    Loaded { original_cgconfig, ..loader.finish() }
}

/// Reads the settings of the daemon. Without a file all have their defaults.
pub fn settings(path: &Path, owner: Uid) -> (Settings, Vec<Diagnostic>) {
    let file: Arc<Path> = Arc::from(path);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let default = Settings::default();
    match TrustedDirectory::open(parent, owner) {
        Ok(None) => (default, Vec::new()),
        Err(refusal) => (default, vec![refused(&Arc::from(parent), refusal)]),
        Ok(Some(directory)) => {
            let name = path.file_name().unwrap_or(OsStr::new("."));
            match directory.read(name) {
                Ok(TrustedContent::Bytes(bytes)) => daemon_toml::parse_bytes(&file, &bytes),
                Ok(TrustedContent::Mask) => (default, Vec::new()),
                Err(_) if !path.exists() => (default, Vec::new()),
                Err(refusal) => (default, vec![refused(&file, refusal)]),
            }
        }
    }
}

/// Reads a rule file that `owner` alone may change.
///
/// # Errors
/// The file or its directory is refused, or does not exist.
pub fn read_rule_file(path: &Arc<Path>, owner: Uid) -> Result<Arc<[u8]>, Diagnostic> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let opened = TrustedDirectory::open(parent, owner);
    let directory = opened.map_err(|refusal| refused(&Arc::from(parent), refusal))?;
    let read = directory.map_or_else(
        || Err(TrustError::missing()),
        |directory| directory.read(path.file_name().unwrap_or(OsStr::new("."))),
    );
    match read.map_err(|refusal| refused(path, refusal))? {
        TrustedContent::Bytes(bytes) => Ok(bytes.into()),
        TrustedContent::Mask => Ok(Arc::default()),
    }
}

struct Loader<'s> {
    owner: Uid,
    resolver: Resolver<'s>,
    real_directories: RealDirectories,
    gated_files: GatedFiles,
    /// The rules of legacy files, which come first.
    legacy: Vec<(i32, Rule)>,
    /// The first name in each legacy rule, by file and line.
    mentioned: Vec<(Arc<Path>, u32, NameKind, String)>,
    /// The rules of TOML files with their priorities, in the order of files and positions.
    rules: Vec<(i32, Rule)>,
    specs: GroupSpecs,
    /// The destinations of rules that are not loaded because of errors.
    lost_destinations: Vec<String>,
    groups: DescribedGroup,
    diagnostics: Vec<Diagnostic>,
    files: Vec<ListedFile>,
    /// The first file of each name.
    seen: HashMap<OsString, Arc<Path>>,
    upstream: UpstreamVerdict,
    overlay: Overlay,
    contents: FileContents,
    tests: Vec<TestedFile>,
}

impl<'s> Loader<'s> {
    fn new(owner: Uid, service: &'s NameService) -> Self {
        Self {
            owner,
            resolver: Resolver::new(service),
            real_directories: RealDirectories::default(),
            gated_files: GatedFiles::default(),
            legacy: Vec::new(),
            mentioned: Vec::new(),
            rules: Vec::new(),
            specs: GroupSpecs::default(),
            lost_destinations: Vec::new(),
            groups: DescribedGroup::default(),
            diagnostics: Vec::new(),
            files: Vec::new(),
            seen: HashMap::new(),
            upstream: UpstreamVerdict::NotAsked,
            overlay: Overlay::default(),
            contents: FileContents::default(),
            tests: Vec::new(),
        }
    }

    fn directory(&mut self, path: &Path) {
        match self.list(path) {
            Ok(Some((directory, names))) => {
                names.iter().for_each(|name| self.file(&directory, path, name));
            }
            Ok(None) => {}
            Err(refusal) => self.diagnostics.push(refused(&Arc::from(path), refusal)),
        }
    }

    fn file(&mut self, directory: &OverlayDirectory, parent: &Path, name: &OsStr) {
        let path: Arc<Path> = Arc::from(parent.join(name));
        let outcome = if let Some(reason) = leftover(name.as_bytes()) {
            let message = format!("file ignored: {reason}");
            let skipped = Diagnostic::about(&path, Severity::Warning, message);
            self.diagnostics.push(skipped.with_help("name rule files NN-name.toml"));
            FileOutcome::Skipped
        } else if self.overlay.aside.contains(&path) {
            FileOutcome::Refused
        } else if let Some(first) = self.seen.get(name) {
            FileOutcome::HiddenBy(first.clone())
        } else {
            self.seen.insert(name.to_owned(), path.clone());
            match self.content(directory, &path, MAX_SIZE) {
                Ok(bytes) if bytes.is_empty() => FileOutcome::Mask,
                Ok(bytes) => FileOutcome::Loaded(self.rules_of(&path, &bytes)),
                Err(refusal) => {
                    self.diagnostics.push(refused(&path, refusal));
                    FileOutcome::Refused
                }
            }
        };
        self.files.push(ListedFile { path, outcome });
    }

    /// Reads the rules of a file. Returns the number of rules loaded.
    fn rules_of(&mut self, path: &Arc<Path>, bytes: &[u8]) -> usize {
        let text = match text_of(path, bytes) {
            Ok(text) => text,
            Err(diagnostic) => {
                self.diagnostics.push(diagnostic);
                return 0;
            }
        };
        let ParsedRules { mut rules, groups, units, tests, lost_destinations, diagnostics } =
            rules_toml::parse(path, text);
        if !tests.is_empty() {
            // As written: a test must not depend on the directories and accounts of the host.
            self.tests.push(TestedFile { rules: rules.clone(), tests });
        }
        self.lost_destinations.extend(lost_destinations);
        self.diagnostics.extend(diagnostics);
        let source = SourceText::new(path, text);
        let mut report = Diagnostics::new(&source);
        let (before, parsed) = (self.rules.len(), rules.len());
        let written: Vec<String> =
            rules.iter().flat_map(|own| rules_toml::destinations(&own.rule)).collect();
        self.gated_files.check(&mut rules, self.owner, &mut report);
        self.real_directories.add(rules.iter_mut().map(|written| &mut written.rule), self.owner);
        let tables =
            groups.iter().map(|group| group_specs::table(group, &mut report, &mut self.resolver));
        self.specs.tables.extend(tables);
        units.iter().for_each(|unit| {
            units::table(unit, &mut report, &mut self.resolver, &mut self.specs);
        });
        self.diagnostics.extend(report.finish());
        let severity = Severity::Error;
        let unknown = self.resolver.resolve(rules, path, text, severity, &mut self.rules);
        self.diagnostics.extend(unknown);
        if self.rules.len() - before < parsed {
            self.lost_destinations.extend(written);
        }
        self.rules.len() - before
    }

    fn finish(mut self) -> Loaded {
        let groups = std::mem::take(&mut self.groups);
        self.specs.groups = groups.specs(&mut self.resolver, &mut self.diagnostics);
        self.specs.join_tables();
        self.specs.join_sections();
        self.specs.join_units();
        join_controllers(&mut self.rules, &self.specs.tables);
        self.diagnostics.extend(group_specs::unused(
            &self.specs.tables,
            &self.rules,
            &self.lost_destinations,
        ));
        // Stable: within a priority the order of directories, names and positions is kept.
        self.rules.sort_by_key(|&(priority, _)| Reverse(priority));
        sort(&mut self.diagnostics);
        let missing = self.resolver.missing();
        trust::conceal(&mut self.diagnostics);
        let (names, learned) = self.resolver.into_names();
        Loaded {
            written: written(self.mentioned, &names),
            rules: self.legacy.into_iter().chain(self.rules).map(|(_, rule)| rule).collect(),
            names,
            learned,
            missing,
            specs: self.specs,
            diagnostics: self.diagnostics,
            files: self.files,
            upstream: self.upstream,
            original_cgconfig: UpstreamVerdict::NotAsked,
            contents: self.contents,
            tests: self.tests,
        }
    }
}

/// Keeps the names of users and groups that also have another name.
fn written(
    mentioned: Vec<(Arc<Path>, u32, NameKind, String)>,
    names: &ResolvedNames,
) -> BTreeMap<(Arc<Path>, u32), String> {
    let uids = shared(names.uids.values());
    let gids = shared(names.gids.values());
    let kept = mentioned.into_iter().filter(|(_, _, kind, name)| match kind {
        NameKind::User => names.uids.get(name).is_some_and(|uid| uids.contains(uid)),
        NameKind::Group | NameKind::GroupPattern => {
            names.gids.get(name).is_some_and(|gid| gids.contains(gid))
        }
    });
    kept.map(|(file, line, _, name)| ((file, line), name)).collect()
}

/// Returns the IDs that occur more than once.
fn shared<'n, N: Copy + Eq + Hash + 'n>(numbers: impl Iterator<Item = &'n N>) -> HashSet<N> {
    let mut seen = HashSet::new();
    numbers.copied().filter(|&number| !seen.insert(number)).collect()
}

/// Adds to rules the controllers that the settings of their cgroups and of the cgroups above need,
/// so that processes are placed in those hierarchies too.
fn join_controllers(rules: &mut [(i32, Rule)], tables: &[GroupSpec]) {
    if tables.is_empty() {
        return;
    }
    let mut needed: HashMap<&str, Vec<&str>> = HashMap::new();
    for table in tables {
        let mut names = table.controllers_of_settings();
        needed.entry(table.text.trim_matches('/')).or_default().append(&mut names);
    }
    for (_, rule) in rules {
        let Action::Place(targets) = rule.action.intended_mut() else { continue };
        for Target { destination, controllers, .. } in targets {
            let prefixes = prefixes(destination.as_str()).chain([""]);
            for name in prefixes.filter_map(|path| needed.get(path)).flatten() {
                if !controllers.iter().any(|own| own == name) {
                    controllers.push((*name).to_owned());
                }
            }
        }
    }
}

/// Returns the reason why a name in a directory of legacy files is that of a backup file of an
/// editor or a package manager.
pub fn is_leftover(name: &OsStr) -> Option<&'static str> {
    legacy::leftover(name.as_bytes())
}

/// Returns the reason why a name is not that of a rule file. Editors and package managers create
/// such files.
fn leftover(name: &[u8]) -> Option<&'static str> {
    if name.starts_with(b".") {
        Some("hidden file")
    } else if name.ends_with(b"~") || name.ends_with(b".swp") {
        Some("editor backup or swap file")
    } else if contains(name, b".dpkg-") || contains(name, b".rpm") {
        Some("package manager backup file")
    } else if name.ends_with(b".toml") {
        None
    } else {
        Some("its name does not end in .toml")
    }
}

fn contains(name: &[u8], part: &[u8]) -> bool {
    name.windows(part.len()).any(|window| window == part)
}

fn refused(path: &Arc<Path>, refusal: TrustError) -> Diagnostic {
    let mut diagnostic = Diagnostic::about(path, Severity::Error, refusal.message);
    diagnostic.help = refusal.help;
    diagnostic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_where_they_may_be() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cgruled.toml");
        let owner = Uid(nix::unistd::geteuid().as_raw());
        assert_eq!(settings(&path, owner), (Settings::default(), Vec::new()));
        assert_eq!(settings(&path.join("x/y"), owner), (Settings::default(), Vec::new()));
        std::fs::write(&path, "recheck = \"5s\"\nrot = 1\n").unwrap();
        let (read, wrong) = settings(&path, owner);
        assert_eq!(read.recheck, Some(std::time::Duration::from_secs(5)));
        assert_eq!(wrong.len(), 1);
        let (read, wrong) = settings(&path, Uid(owner.0 + 1));
        assert_eq!((read, wrong.len()), (Settings::default(), 1));
        assert_eq!(&*wrong[0].file, directory.path());
    }

    /// Returns the places of all errors when each known setting has the value `"@"`.
    fn errors_of_every_word(header: &str) -> Vec<(u32, u32)> {
        let directory = tempfile::tempdir().unwrap();
        let mut text = format!("version = 1\n{header}\n");
        words().iter().for_each(|word| text.push_str(&format!("\"{word}\" = \"@\"\n")));
        std::fs::write(directory.path().join("50-a.toml"), text).unwrap();
        let owner = Uid(nix::unistd::geteuid().as_raw());
        let directories = vec![directory.path().to_owned()];
        let sources = Sources { directories, legacy: false, owner, ..Sources::default() };
        let loaded = load(&sources, &NameService::default());
        let errors = loaded.diagnostics.iter().filter(|found| found.severity == Severity::Error);
        let places = errors.filter_map(|error| error.place.as_ref());
        places.map(|place| (place.line, place.column)).collect()
    }

    /// Returns all setting names, each once: some exist in v1 and v2.
    fn words() -> std::collections::BTreeSet<&'static str> {
        crate::cgroup::settings::words().collect()
    }

    #[test]
    fn a_wrong_value_of_any_word_is_an_error_where_it_stands() {
        let quotes_and_equals = 6;
        let expected: Vec<(u32, u32)> = words()
            .iter()
            .zip(3..)
            .map(|(word, line)| (line, u32::try_from(word.len()).unwrap() + quotes_and_equals))
            .collect();
        for header in ["[cgroup.a]", "[unit.\"a.service\"]"] {
            assert_eq!(errors_of_every_word(header), expected, "{header}");
        }
    }

    #[test]
    fn leftovers_are_told_from_rules() {
        for name in ["50-a.toml", "a b.toml", "rpm.toml", "dpkg-a.toml"] {
            assert_eq!(leftover(name.as_bytes()), None, "{name}");
        }
        for name in [".toml", "a.toml~", "a.toml.dpkg-dist", "a.toml.rpmnew", "a.toml.swp", "a", ""]
        {
            assert!(leftover(name.as_bytes()).is_some(), "{name}");
        }
    }
}
