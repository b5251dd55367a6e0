//! From files to a policy: what the rule thread does at start, on reload, and when a user turns up
//! whom nobody knows. May wait for disks and for the name service.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ::log::Level;

use crate::cgroup::mounts::Hierarchies;
use crate::config::diagnostic::{Diagnostic, Severity, new_errors};
use crate::event::{Gid, Pid, Uid};
use crate::load::{Loaded, NameService, Sources, load};
use crate::policy::{Policy, User};
use crate::process::Proc;
use crate::rules::destination::Field;
use crate::rules::matcher::Matcher;
use crate::rules::names::Identity;
use crate::rules::{Action, Below, Rule};
use crate::sys;
use crate::worker::{Office, Reason};

/// Everything that a policy is made from.
pub struct Rebuilder {
    sources: Sources,
    names: NameService,
    hierarchies: Arc<Hierarchies>,
    root: String,
    generation: u64,
    matcher: Option<Arc<Matcher>>,
    diagnostics: Vec<Diagnostic>,
    announce: fn(&Loaded),
    /// Read before, to be used first.
    preloaded: Option<Loaded>,
}

impl Rebuilder {
    /// `root` is where the groups of TOML rules begin in each hierarchy.
    pub fn new(
        sources: Sources,
        names: NameService,
        hierarchies: Arc<Hierarchies>,
        root: String,
    ) -> Self {
        let (matcher, diagnostics) = (None, Vec::new());
        let announce = |_: &Loaded| {};
        let (generation, preloaded) = (0, None);
        Self {
            sources,
            names,
            hierarchies,
            root,
            generation,
            matcher,
            diagnostics,
            announce,
            preloaded,
        }
    }

    /// The same, and `loaded` is what the files say until they are asked again.
    #[must_use]
    pub fn having(self, loaded: Loaded) -> Self {
        Self { preloaded: Some(loaded), ..self }
    }

    /// The same, and `announce` is told of all rules that come into force.
    #[must_use]
    pub fn announcing(self, announce: fn(&Loaded)) -> Self {
        Self { announce, ..self }
    }

    /// The first policy. Bad rules are left out and said; the others are in force.
    pub fn first(&mut self) -> Box<Policy> {
        let loaded = self.load();
        say(&loaded.diagnostics);
        self.build(loaded)
    }

    /// The complaints about the rules in force.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    fn load(&mut self) -> Loaded {
        let preloaded = self.preloaded.take();
        let mut loaded = preloaded.unwrap_or_else(|| load(&self.sources, &self.names));
        loaded.diagnostics.extend(missing_controllers(&loaded.rules, &self.hierarchies));
        loaded
    }

    fn build(&mut self, loaded: Loaded) -> Box<Policy> {
        self.generation += 1;
        (self.announce)(&loaded);
        self.diagnostics = loaded.diagnostics;
        let (rules, files) = (loaded.rules.len(), loaded.files.len());
        let matcher = Arc::new(Matcher::compile(loaded.rules));
        let now = sys::monotonic();
        let users = self.identities(&matcher);
        let users = users.into_iter().map(|identity| User::new(&matcher, identity, now));
        let renders = |rule: &Rule| rule.renders(&[Field::GroupName]);
        let groups = match matcher.rules().iter().any(renders) {
            true => self.names.group_names(),
            false => BTreeMap::new(),
        };
        let groups = groups.into_iter().map(|(gid, name)| (gid, Some(name.into())));
        let policy = Policy::new(
            self.generation,
            Arc::clone(&matcher),
            &self.hierarchies,
            &self.root,
            users,
            groups,
        );
        self.matcher = Some(matcher);
        let errors = self.diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
        ::log::info!("{rules} rules from {files} files are in force, {errors} errors");
        sys::trim_memory();
        Box::new(policy)
    }

    /// The users that can be known before their first event: those of the user database and those
    /// that own a process now.
    fn identities(&self, matcher: &Matcher) -> Vec<Identity> {
        if !matcher.asks_identity() {
            return Vec::new();
        }
        let mut known = self.names.identities();
        known.sort_by_key(|identity| identity.uid);
        known.dedup_by_key(|identity| identity.uid);
        for uid in owners() {
            if let Err(place) = known.binary_search_by_key(&uid, |identity| identity.uid) {
                known.insert(place, self.ask(uid));
            }
        }
        known
    }

    /// Who a user is; a number alone when the name service fails, which is said.
    fn ask(&self, uid: Uid) -> Identity {
        self.names.identify(uid).unwrap_or_else(|error| {
            ::log::warn!("the name service cannot say who uid {uid} is: {error}");
            Identity { uid, name: None, listed_in: Vec::new() }
        })
    }
}

impl Office for Rebuilder {
    fn reload(&mut self, reason: Reason) -> Option<Box<Policy>> {
        let loaded = self.load();
        let new = new_errors(&self.diagnostics, &loaded.diagnostics);
        if reason == Reason::Rules && !new.is_empty() {
            ::log::error!("the rules have {} new errors; the old rules stay in force", new.len());
            new.into_iter().for_each(say_one);
            return None;
        }
        say(&loaded.diagnostics);
        Some(self.build(loaded))
    }

    fn identify(&mut self, generation: u64, uid: Uid) -> Option<User> {
        if generation != self.generation {
            return None;
        }
        let identity = self.ask(uid);
        self.matcher.as_deref().map(|matcher| User::new(matcher, identity, sys::monotonic()))
    }

    fn group_name(&mut self, gid: Gid) -> Option<Box<str>> {
        let answer = self.names.group_name(gid).unwrap_or_else(|error| {
            ::log::warn!("the name service cannot say who gid {gid} is: {error}");
            None
        });
        answer.map(String::into_boxed_str)
    }
}

/// The users who own a process.
fn owners() -> Vec<Uid> {
    let mut owners = Vec::new();
    let Ok(mut proc) = Proc::open(Path::new("/proc")) else { return owners };
    let mut pids: Vec<Pid> = Vec::new();
    if let Err(error) = proc.all(|pid| pids.push(pid)) {
        ::log::warn!("/proc: {error}");
    }
    owners.extend(pids.into_iter().filter_map(|pid| proc.grip(pid)).map(|who| who.uid));
    owners.sort_unstable();
    owners.dedup();
    owners
}

/// A controller that this host does not have costs the rule that hierarchy only.
fn missing_controllers(rules: &[Rule], hierarchies: &Hierarchies) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    for rule in rules {
        let Action::Place(targets) = &rule.action else { continue };
        for target in targets {
            for name in hierarchies.span_of(target).1 {
                let message = format!(
                    "line {}: no cgroup hierarchy of this host has the controller \"{name}\"",
                    rule.origin.line
                );
                diagnostics.push(
                    Diagnostic::about(&rule.origin.file, Severity::Warning, message).with_help(
                        match target.below {
                            Below::Root => "the rule works in the hierarchies that there are",
                            Below::Top => "so the rule moves nothing",
                        },
                    ),
                );
            }
        }
    }
    diagnostics
}

fn say(diagnostics: &[Diagnostic]) {
    diagnostics.iter().for_each(say_one);
}

fn say_one(diagnostic: &Diagnostic) {
    let level = match diagnostic.severity {
        Severity::Error => Level::Error,
        Severity::Warning => Level::Warn,
    };
    ::log::log!(level, "{diagnostic}");
}
