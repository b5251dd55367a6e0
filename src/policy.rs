//! Everything the engine decides by, in force as one piece: the compiled rules, where their groups
//! begin on this host, and who is who. Built away from the hot thread, swapped whole. Pure.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::cgroup::mounts::{Hierarchies, Span};
use crate::event::{Gid, Uid};
use crate::rules::matcher::{Matcher, Plan};
use crate::rules::names::Identity;
use crate::rules::{Action, Below, RuleId, Target};

use std::sync::Arc;

/// A set of rules in force.
#[derive(Debug)]
pub struct Policy {
    /// Number of this policy; answers to questions of an older one are asked again.
    pub generation: u64,
    /// The rules, compiled.
    pub matcher: Arc<Matcher>,
    /// What is known of user ids.
    pub users: HashMap<Uid, User, FixedState>,
    /// Names of group ids.
    pub groups: HashMap<Gid, Box<str>, FixedState>,
    /// The hierarchies of each rule's first target; the others are found when needed.
    spans: Box<[Span]>,
    root: Box<str>,
}

/// One user id.
#[derive(Debug)]
pub struct User {
    /// The rules that can match it.
    pub plan: Plan,
    /// Its name, if it has one.
    pub name: Option<Box<str>>,
}

impl User {
    /// What the rules of `matcher` mean for `identity`.
    pub fn new(matcher: &Matcher, identity: &Identity) -> Self {
        Self { plan: matcher.plan(identity), name: identity.name.as_deref().map(Box::from) }
    }
}

impl Policy {
    /// Compiles a policy. `root` is where groups begin in each hierarchy: empty for the top, else
    /// `/path`.
    pub fn new(
        generation: u64,
        matcher: Matcher,
        hierarchies: &Hierarchies,
        root: &str,
        identities: &[Identity],
        groups: impl IntoIterator<Item = (Gid, Box<str>)>,
    ) -> Self {
        let span = |target: &Target| hierarchies.span(&target.controllers).0;
        let spans = matcher.rules().iter().map(|rule| match &rule.action {
            Action::Ignore => Span::default(),
            Action::Place(targets) => targets.first().map(span).unwrap_or_default(),
        });
        let spans = spans.collect();
        let users = identities.iter().map(|who| (who.uid, User::new(&matcher, who))).collect();
        Self {
            generation,
            users,
            groups: groups.into_iter().collect(),
            spans,
            root: root.trim_end_matches('/').into(),
            matcher: Arc::new(matcher),
        }
    }

    /// Whether `uid` is in [`Self::users`]. One that nobody needs to look up is put there now;
    /// `false` means that the name service must be asked.
    pub fn knows(&mut self, uid: Uid) -> bool {
        if self.users.contains_key(&uid) {
            return true;
        }
        if self.matcher.asks_identity() {
            return false;
        }
        let nobody = Identity { uid, name: None, listed_in: Vec::new() };
        self.users.insert(uid, User::new(&self.matcher, &nobody));
        true
    }

    /// The hierarchies that a target of a rule concerns.
    pub fn span(
        &self,
        hierarchies: &Hierarchies,
        rule: RuleId,
        index: usize,
        target: &Target,
    ) -> Span {
        match (index, self.spans.get(rule.0 as usize)) {
            (0, Some(&span)) => span,
            _ => hierarchies.span(&target.controllers).0,
        }
    }

    /// Where paths of this kind begin, without a trailing slash.
    pub fn beginning(&self, below: Below) -> &str {
        match below {
            Below::Root => &self.root,
            Below::Top => "",
        }
    }
}
