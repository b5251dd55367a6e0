//! Builds policies from files: the work of the rule thread at startup and on reload, and the name
//! service for its lookups. May block on disks and on the name service, so it must not run on the
//! hot thread.

pub mod active;
mod assemble;
mod assertions;
mod compiled_rules;
mod controllers;
mod gate;
mod loaded_config;
mod managed_roots;
mod planned;
pub mod retained;
pub mod settings;
mod stored;
mod users;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ::log::Level;
use nix::sys::sysinfo::sysinfo;

use crate::cgroup::config::{ConfigWarning, GroupConfigs};
use crate::cgroup::host::{Host, ManagedRoots};
use crate::cgroup::mounts::Hierarchies;
use crate::config::diagnostic::{Diagnostic, Severity, has_errors, new_errors};
use crate::event::Nanos;
use crate::kernel::gate::probe;
use crate::policy::load::{
    FileOutcome, ListedFile, Loaded, NameService, Overlay, Sources, Subordinates, load_over,
};
use crate::policy::observer::DecisionObserver;
use crate::policy::planned::{PlanRequest, PlannedPolicy};
use crate::policy::rule_hits::RuleHitTable;
use crate::policy::worker::{Directory, PolicyService};
use crate::policy::{Policy, Summary};
use crate::rules::PathBase;
use crate::rules::matcher::Matcher;
use crate::rules::names::{ResolvedNames, UnknownName};
use crate::sys;
use crate::telemetry::log;
use active::{ActivePolicy, PolicyCell};
pub use assertions::TestReporter;
use assertions::TestedRules;
use compiled_rules::compiled_apart;
pub use loaded_config::LoadedConfig;
pub use managed_roots::warn_overbroad;
use retained::{LastGood, Retained, RetainedFiles};
use settings::ReloadedSettings;
use stored::VersionStore;

/// Creates the observer of evaluations for rules that may become active.
pub type ObserverOf = fn(&Loaded) -> Option<Box<dyn DecisionObserver>>;

/// Tests whether executions can wait on this host, and returns what is missing.
pub type GateProbe = fn() -> Result<(), String>;

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
    /// File with the contents that were active in the last run.
    store: Option<VersionStore>,
    /// The settings of the daemon, if a reload reads them too.
    settings: Option<ReloadedSettings>,
    /// Versions of files that replace their content, regardless of errors.
    overlay: Overlay,
    announce: ObserverOf,
    tests: TestedRules,
    /// Configuration that was loaded earlier, used for the first policy.
    preloaded: Option<Loaded>,
    cell: PolicyCell,
    /// Names in the active rules that the name service does not know.
    missing: Vec<UnknownName>,
    probe_gate: GateProbe,
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
            store: None,
            settings: None,
            overlay: Overlay::default(),
            announce,
            tests: TestedRules::default(),
            preloaded,
            cell: PolicyCell::default(),
            missing: Vec::new(),
            probe_gate: probe,
        }
    }

    /// Sets the function that returns what the host lacks for gated rules.
    #[must_use]
    pub fn with_gate_probe(self, probe_gate: GateProbe) -> Self {
        Self { probe_gate, ..self }
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
        let configs = Arc::new(self.fit(&mut loaded));
        let Self { hierarchies, roots, names, .. } = self;
        LoadedConfig { loaded, configs, hierarchies, roots, names, subordinates: OnceCell::new() }
    }

    /// Sets the place where the active policy is published.
    #[must_use]
    pub fn with_cell(self, cell: PolicyCell) -> Self {
        Self { cell, ..self }
    }

    /// Builds the first policy. Invalid rules are logged and left out; a file that had fewer errors
    /// in the last run is used in the version of that.
    pub fn first(&mut self) -> Box<Policy> {
        let mut draft = self.draft();
        if has_errors(&draft.loaded.diagnostics) && self.recall() {
            draft = self.draft();
        }
        self.activate(draft)
    }

    /// Returns the diagnostics about the active rules.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Loads the files, unless that was done earlier.
    fn read(&mut self, overlay: &Overlay) -> Loaded {
        let read = self.preloaded.take();
        let loaded = read.unwrap_or_else(|| load_over(&self.sources, &self.names, overlay.clone()));
        self.tested(loaded)
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
        self.missing = std::mem::take(&mut loaded.missing);
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
        loaded.diagnostics.extend(gate::missing(&loaded.rules, self.probe_gate));
        match sysinfo() {
            Ok(host) => loaded.specs.share_out(host.ram_total()),
            Err(errno) => ::log::error!("cannot read the size of the memory: {}", errno.desc()),
        }
        loaded.specs.remove_chosen(&loaded.rules);
        let (configs, warnings) = GroupConfigs::new(&loaded.specs, &self.hierarchies);
        loaded.diagnostics.extend(warnings.into_iter().map(diagnostic));
        let targets = loaded.rules.iter().flat_map(|rule| rule.action.written_targets());
        configs.with_destinations(targets)
    }

    fn build(&mut self, loaded: Loaded, keeping: RetainedFiles, new_errors: usize) -> Policy {
        self.generation += 1;
        self.diagnostics = loaded.diagnostics;
        let rules = loaded.rules.len();
        let files = loaded.files.iter().filter(|file| has_rules(file)).count();
        let matcher = Arc::new(compiled_apart(&loaded.rules));
        drop(loaded.rules);
        let summary = summary(rules, files, &self.diagnostics, &keeping.files);
        let subordinates = self.names.subordinates();
        let since = sys::since_boot();
        let hits = self.hits(matcher.rules(), since);
        let compiled = (&matcher, &hits, &subordinates);
        self.publish(compiled, since, &loaded.files, (keeping, new_errors));
        let mut policy = self.assemble(&matcher, loaded.names, subordinates);
        policy.summary = summary;
        policy.hits = hits;
        policy.lacks_users = self.missing.iter().any(UnknownName::is_user);
        ::log::info!(message_id = log::field::RULES; "active: {}", policy.summary);
        policy
    }

    fn publish(
        &self,
        (matcher, hits, subordinates): (&Arc<Matcher>, &RuleHitTable, &Subordinates),
        since: Nanos,
        files: &[ListedFile],
        (keeping, new_errors): (RetainedFiles, usize),
    ) {
        let files = files.iter().filter(|file| has_rules(file));
        let mut targets = matcher.rules().iter().flat_map(|rule| rule.action.targets());
        let has_legacy = targets.any(|target| target.below == PathBase::Top);
        self.cell.stored(ActivePolicy {
            generation: self.generation,
            since,
            matcher: Arc::clone(matcher),
            hits: hits.clone(),
            files: files.map(|file| Arc::clone(&file.path)).collect(),
            diagnostics: self.diagnostics.clone(),
            new_errors,
            keeping,
            settings_diagnostics: self.settings_diagnostics(),
            external_moves: self.settings.as_ref().and_then(|own| own.running().external_moves),
            contents: self.texts.contents(),
            sources: self.sources.clone(),
            subordinates: subordinates.clone(),
            root: self.roots.rules.clone(),
            legacy_root: has_legacy.then(|| self.roots.legacy.clone()),
        });
    }
}

impl PolicyService for PolicyBuilder {
    fn reload(&mut self) -> Box<Policy> {
        let settings = self.reload_settings();
        let draft = self.draft();
        let mut policy = self.activate(draft);
        policy.settings = settings;
        policy
    }

    fn plan(&mut self, request: &PlanRequest) -> PlannedPolicy {
        self.planned(request)
    }

    fn activated(&mut self) {
        if let Some(store) = &mut self.store {
            store.write(&self.texts.0);
        }
    }

    fn directory(&self) -> Arc<dyn Directory> {
        Arc::new(self.names.clone())
    }

    fn missing_names(&self) -> &[UnknownName] {
        &self.missing
    }
}

/// Checks whether rules of a file are active. A file of comments has none.
fn has_rules(file: &ListedFile) -> bool {
    matches!(file.outcome, FileOutcome::Loaded(rules) if rules > 0)
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
