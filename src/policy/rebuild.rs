//! Builds policies from files: the work of the rule thread at startup and on reload, and the name
//! service for its lookups. May block on disks and on the name service, so it must not run on the
//! hot thread.

pub mod active;
mod controllers;
mod managed_roots;
pub mod retained;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};
use std::time::SystemTime;

use ::log::Level;
use nix::sys::sysinfo::sysinfo;

use crate::cgroup::config::{ConfigWarning, GroupConfigs};
use crate::cgroup::host::{Host, ManagedRoots};
use crate::cgroup::mounts::Hierarchies;
use crate::config::diagnostic::{Diagnostic, Severity, new_errors};
use crate::event::{Gid, Pid, Uid};
use crate::kernel::process::ProcFs;
use crate::policy::load::{
    FileOutcome, ListedFile, Loaded, NameService, Overlay, Sources, load_over,
};
use crate::policy::observer::DecisionObserver;
use crate::policy::worker::{Directory, PolicyService};
use crate::policy::{Policy, Summary, User};
use crate::rules::Rule;
use crate::rules::destination::Specifier;
use crate::rules::matcher::Matcher;
use crate::rules::names::{ResolvedNames, UserIdentity};
use crate::sys;
use crate::telemetry::log;
use active::{ActivePolicy, PolicyCell};
pub use managed_roots::warn_overbroad;
use retained::{LastGood, Retained, RetainedFiles};

/// Number of simultaneous lookups of users while rules are read.
const LOOKUPS_AT_ONCE: usize = 4;

/// Loaded configuration, adapted to this host, that is not active.
#[derive(Debug)]
pub struct LoadedConfig {
    /// Rules as they would be active, and all diagnostics.
    pub loaded: Loaded,
    /// Mounted hierarchies of this host.
    pub hierarchies: Arc<Hierarchies>,
    /// Roots of the cgroups of rules.
    pub roots: ManagedRoots,
    /// Name service that resolves users and groups.
    pub names: NameService,
}

/// Creates the observer of evaluations for rules that may become active.
pub type ObserverOf = fn(&Loaded) -> Option<Box<dyn DecisionObserver>>;

/// Candidate for the next policy, adapted to this host.
struct PolicyCandidate {
    loaded: Loaded,
    configs: GroupConfigs,
    observer: Option<Box<dyn DecisionObserver>>,
    /// Files that are used in their last valid version.
    keeping: RetainedFiles,
    /// Number of errors that the active rules do not have.
    new_errors: usize,
}

/// Builder of policies, with all their inputs.
pub struct PolicyBuilder {
    sources: Sources,
    names: NameService,
    hierarchies: Arc<Hierarchies>,
    roots: ManagedRoots,
    settings_file: PathBuf,
    generation: u64,
    diagnostics: Vec<Diagnostic>,
    texts: LastGood,
    /// Versions of files that replace their content, regardless of errors.
    overlay: Overlay,
    announce: ObserverOf,
    /// Configuration that was loaded earlier, used for the first policy.
    preloaded: Option<Loaded>,
    cell: PolicyCell,
}

impl PolicyBuilder {
    /// Creates a builder. `roots` are the roots of the cgroups of rules.
    pub fn new(
        sources: Sources,
        names: NameService,
        hierarchies: Arc<Hierarchies>,
        roots: ManagedRoots,
    ) -> Self {
        let diagnostics = Vec::new();
        let announce: ObserverOf = |_| None;
        let generation = 0;
        let preloaded = None;
        Self {
            sources,
            names,
            hierarchies,
            roots,
            settings_file: PathBuf::from("/etc/cgruled/cgruled.toml"),
            generation,
            diagnostics,
            texts: LastGood::default(),
            overlay: Overlay::default(),
            announce,
            preloaded,
            cell: PolicyCell::default(),
        }
    }

    /// Sets the configuration for the first load, so that the files are not read for it.
    #[must_use]
    pub fn with_candidate(self, loaded: Loaded) -> Self {
        Self { preloaded: Some(loaded), ..self }
    }

    /// Sets the path of the settings file for diagnostics about settings.
    #[must_use]
    pub fn with_settings_of(self, file: &Path) -> Self {
        Self { settings_file: file.to_owned(), ..self }
    }

    /// Sets versions of files that replace their content.
    #[must_use]
    pub fn with_retained(self, overlay: Overlay) -> Self {
        Self { overlay, ..self }
    }

    /// Sets the function that creates the observer of evaluations.
    #[must_use]
    pub fn with_observer(self, announce: ObserverOf) -> Self {
        Self { announce, ..self }
    }

    /// Loads the configuration like for a policy, without building one.
    pub fn survey(mut self) -> LoadedConfig {
        let overlay = std::mem::take(&mut self.overlay);
        let mut loaded = self.read(&overlay);
        self.fit(&mut loaded);
        let Self { hierarchies, roots, names, .. } = self;
        LoadedConfig { loaded, hierarchies, roots, names }
    }

    /// Sets the place where the active policy is published.
    #[must_use]
    pub fn with_cell(self, cell: PolicyCell) -> Self {
        Self { cell, ..self }
    }

    /// Builds the first policy. Invalid rules are logged and left out.
    pub fn first(&mut self) -> Box<Policy> {
        let draft = self.draft();
        self.activate(draft)
    }

    /// Returns the diagnostics about the active rules.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Loads the files, unless that was done earlier.
    fn read(&mut self, overlay: &Overlay) -> Loaded {
        let read = self.preloaded.take();
        read.unwrap_or_else(|| load_over(&self.sources, &self.names, overlay.clone()))
    }

    /// Loads a candidate for the next policy. The last valid version of a file with new errors
    /// replaces its content, so that it changes nothing for other files.
    fn draft(&mut self) -> PolicyCandidate {
        let mut keeping = RetainedFiles { overlay: self.overlay.clone(), files: Vec::new() };
        loop {
            let mut draft = self.draft_over(&keeping.overlay);
            let new = new_errors(&self.diagnostics, &draft.loaded.diagnostics);
            draft.new_errors = new.len();
            if !self.texts.keep(&mut keeping, &draft.loaded, &new) {
                // The names are needed by the next load only.
                keeping.overlay.names = ResolvedNames::default();
                return PolicyCandidate { keeping, ..draft };
            }
        }
    }

    fn draft_over(&mut self, overlay: &Overlay) -> PolicyCandidate {
        let mut loaded = self.read(overlay);
        // Called before the rules are adapted, because it prints them as they are in the files.
        let observer = (self.announce)(&loaded);
        let configs = self.fit(&mut loaded);
        PolicyCandidate {
            loaded,
            configs,
            observer,
            keeping: RetainedFiles::default(),
            new_errors: 0,
        }
    }

    fn activate(&mut self, draft: PolicyCandidate) -> Box<Policy> {
        let PolicyCandidate { mut loaded, configs, mut observer, keeping, new_errors } = draft;
        loaded.diagnostics.iter().for_each(say);
        keeping.files.iter().for_each(log_retained);
        if let Some(observer) = &mut observer {
            observer.begin();
        }
        self.texts.adopt(std::mem::take(&mut loaded.contents), SystemTime::now());
        self.overlay.names = std::mem::take(&mut loaded.learned);
        let mut policy = self.build(loaded, keeping, new_errors);
        policy.give(configs);
        policy.observer = observer;
        sys::trim_memory();
        Box::new(policy)
    }

    /// Adapts rules and cgroup settings to this host.
    fn fit(&self, loaded: &mut Loaded) -> GroupConfigs {
        // Copied only if the rules are shared.
        let rules = Arc::make_mut(&mut loaded.rules);
        loaded.diagnostics.extend(controllers::adapt(rules, &loaded.specs, &self.hierarchies));
        loaded.diagnostics.extend(controllers::settle(rules, &self.hierarchies));
        let has_systemd = Host::default().runs_systemd();
        managed_roots::fit(loaded, &self.roots, &self.settings_file, has_systemd);
        let rules = Arc::make_mut(&mut loaded.rules);
        let missing = controllers::missing(rules, &loaded.specs, &self.hierarchies);
        loaded.diagnostics.extend(missing);
        match sysinfo() {
            Ok(host) => loaded.specs.share_out(host.ram_total()),
            Err(errno) => ::log::error!("cannot read the size of the memory: {}", errno.desc()),
        }
        let (configs, warnings) = GroupConfigs::new(&loaded.specs, &self.hierarchies);
        loaded.diagnostics.extend(warnings.into_iter().map(diagnostic));
        configs
    }

    fn build(&mut self, loaded: Loaded, keeping: RetainedFiles, new_errors: usize) -> Policy {
        self.generation += 1;
        self.diagnostics = loaded.diagnostics;
        let rules = loaded.rules.len();
        let files = loaded.files.len();
        let matcher = Arc::new(Matcher::compile(loaded.rules));
        let summary = summary(rules, files, &self.diagnostics, &keeping.files);
        self.publish(&matcher, &loaded.files, keeping, new_errors);
        let now = sys::monotonic();
        let users = self.identities(&matcher);
        let users = users.into_iter().map(|identity| User::new(&matcher, identity, now));
        let renders = |rule: &Rule| rule.renders(&[Specifier::GroupName]);
        let groups = match matcher.rules().iter().any(renders) {
            true => self.names.group_names(),
            false => BTreeMap::new(),
        };
        let groups = groups.into_iter().map(|(gid, name)| (gid, Some(name.into())));
        let mut policy = Policy::new(
            self.generation,
            Arc::clone(&matcher),
            &self.hierarchies,
            &self.roots,
            users,
            groups,
        );
        policy.summary = summary;
        policy.subordinates = self.names.subordinates();
        ::log::info!(message_id = log::field::RULES; "active: {}", policy.summary);
        policy
    }

    fn publish(
        &self,
        matcher: &Arc<Matcher>,
        files: &[ListedFile],
        keeping: RetainedFiles,
        new_errors: usize,
    ) {
        let counts = |file: &&ListedFile| matches!(file.outcome, FileOutcome::Loaded(_));
        self.cell.stored(ActivePolicy {
            generation: self.generation,
            since: SystemTime::now(),
            matcher: Arc::clone(matcher),
            files: files.iter().filter(counts).map(|file| Arc::clone(&file.path)).collect(),
            diagnostics: self.diagnostics.clone(),
            new_errors,
            keeping,
            root: self.roots.rules.clone(),
        });
    }

    /// Returns the users that are known before their first event: those in the user database and
    /// those that own a process now.
    fn identities(&self, matcher: &Matcher) -> Vec<UserIdentity> {
        if !matcher.asks_identity() {
            return Vec::new();
        }
        let mut known = self.names.identities();
        known.sort_by_key(|identity| identity.uid);
        known.dedup_by_key(|identity| identity.uid);
        let is_known = |uid: &Uid| known.binary_search_by_key(uid, |identity| identity.uid).is_ok();
        let unknown: Vec<Uid> = owners().into_iter().filter(|uid| !is_known(uid)).collect();
        known.extend(identified(&self.names, &unknown));
        known
    }
}

/// Looks up users, several simultaneously because a reload waits for all of them.
fn identified(directory: &impl Directory, uids: &[Uid]) -> Vec<UserIdentity> {
    let share = uids.len().div_ceil(LOOKUPS_AT_ONCE).max(1);
    let look_up = |share: &[Uid]| -> Vec<UserIdentity> {
        share.iter().map(|&uid| directory.identify(uid)).collect()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = uids
            .chunks(share)
            .map(|share| {
                let started = thread::Builder::new().spawn_scoped(scope, move || look_up(share));
                (share, started)
            })
            .collect();
        let found =
            threads.into_iter().map(|(share, thread)| match thread.map(ScopedJoinHandle::join) {
                Ok(Ok(found)) => found,
                Ok(Err(_)) | Err(_) => look_up(share),
            });
        found.flatten().collect()
    })
}

impl Directory for NameService {
    /// Returns the UID without a name if the name service fails, which is logged.
    fn identify(&self, uid: Uid) -> UserIdentity {
        self.identify(uid).unwrap_or_else(|error| {
            ::log::warn!("cannot look up uid {uid} in the name service: {error}");
            UserIdentity::nameless(uid)
        })
    }

    fn group_name(&self, gid: Gid) -> Option<Box<str>> {
        let answer = self.group_name(gid).unwrap_or_else(|error| {
            ::log::warn!("cannot look up gid {gid} in the name service: {error}");
            None
        });
        answer.map(String::into_boxed_str)
    }
}

impl PolicyService for PolicyBuilder {
    fn reload(&mut self) -> Box<Policy> {
        let draft = self.draft();
        self.activate(draft)
    }

    fn directory(&self) -> Arc<dyn Directory> {
        Arc::new(self.names.clone())
    }
}

/// Creates the summary of a policy. `diagnostics` are those of the active rules, `kept` the files
/// that are used in their last valid version.
fn summary(rules: usize, files: usize, diagnostics: &[Diagnostic], kept: &[Retained]) -> Summary {
    let of_kept = kept.iter().flat_map(|kept| &kept.errors);
    let mut errors = of_kept.chain(diagnostics.iter().filter(|one| one.is_error()));
    let first = errors.next();
    let first_error = first.map(|error| error.current().into());
    let errors = errors.count() + usize::from(first.is_some());
    Summary { rules, files, errors, first_error, kept: kept.len() }
}

/// Returns the users that own a process.
fn owners() -> Vec<Uid> {
    let mut owners = Vec::new();
    let Ok(mut proc) = ProcFs::open(Path::new("/proc")) else { return owners };
    let mut pids: Vec<Pid> = Vec::new();
    if let Err(error) = proc.all(|pid| pids.push(pid)) {
        ::log::warn!("cannot list /proc: {error}");
    }
    owners.extend(pids.into_iter().filter_map(|pid| proc.open_process(pid)).map(|who| who.uid));
    owners.sort_unstable();
    owners.dedup();
    owners
}

fn diagnostic(ConfigWarning { origin, place, diagnostic }: ConfigWarning) -> Diagnostic {
    let severity = Severity::Warning;
    let about = Diagnostic::at_line(&origin.file, origin.line, severity, diagnostic.message);
    let about = about.with_help(diagnostic.help);
    Diagnostic { place: place.or(about.place), ..about }
}

/// Logs that the last valid version of a file is used, and the errors of the current one.
fn log_retained(kept: &Retained) {
    ::log::error!("{kept}");
    kept.errors.iter().for_each(say);
}

/// Writes a diagnostic to the log.
pub fn say(diagnostic: &Diagnostic) {
    let level = match diagnostic.severity {
        Severity::Error => Level::Error,
        Severity::Warning => Level::Warn,
    };
    let file = diagnostic.file.to_string_lossy();
    let line = diagnostic.place.as_ref().map_or(0, |place| place.line);
    ::log::log!(
        target: log::DIAGNOSTIC, level,
        message_id = log::field::DIAGNOSTIC, rule_file = &*file, rule_line = line;
        "{diagnostic}"
    );
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use super::*;

    /// Name service that takes 100 ms per lookup and records the lookups.
    #[derive(Default)]
    struct Slow(Mutex<Vec<Uid>>);

    impl Directory for Slow {
        fn identify(&self, uid: Uid) -> UserIdentity {
            thread::sleep(Duration::from_millis(100));
            self.0.lock().unwrap().push(uid);
            UserIdentity::nameless(uid)
        }

        fn group_name(&self, _: Gid) -> Option<Box<str>> {
            None
        }
    }

    #[test]
    fn owners_are_looked_up_once_each_and_several_at_a_time() {
        for count in [0, 1, 4, 9, 21] {
            let uids: Vec<Uid> = (0..count).map(Uid).collect();
            let slow = Slow::default();
            let before = Instant::now();
            let found: Vec<Uid> = identified(&slow, &uids).iter().map(|one| one.uid).collect();
            assert_eq!(found, uids);
            assert_eq!(slow.0.lock().unwrap().len(), uids.len());
            let one_by_one = Duration::from_millis(100) * count;
            assert!(count < 9 || before.elapsed() < one_by_one * 3 / 4, "{:?}", before.elapsed());
        }
    }
}
