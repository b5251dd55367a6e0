//! The policy of compiled rules with the present users and groups of the host.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::PolicyBuilder;
use super::users::known_users;
use crate::event::Uid;
use crate::policy::load::Subordinates;
use crate::policy::{Policy, User};
use crate::rules::destination::Specifier;
use crate::rules::matcher::Matcher;
use crate::rules::names::ResolvedNames;
use crate::sys;

impl PolicyBuilder {
    /// Creates the policy of these rules with the present users.
    pub(super) fn assemble(
        &self,
        matcher: &Arc<Matcher>,
        names: ResolvedNames,
        subordinates: Subordinates,
    ) -> Policy {
        let now = sys::monotonic();
        let users = known_users(&self.names, matcher, &subordinates);
        let users = users.into_iter().map(|identity| User::new(matcher, identity, now));
        let groups = match matcher.rules().iter().any(|r| r.renders(&[Specifier::GroupName])) {
            true => self.names.group_names(),
            false => BTreeMap::new(),
        };
        let groups = groups.into_iter().map(|(gid, name)| (gid, Some(name.into())));
        let mut policy = Policy::new(
            self.generation,
            Arc::clone(matcher),
            &self.hierarchies,
            &self.roots,
            users,
            groups,
        );
        let mut written: Vec<(Uid, Box<str>)> =
            names.uids.into_iter().map(|(name, uid)| (uid, name.into())).collect();
        // Of several names the first in the alphabet, at every start.
        written.sort_by(|one, other| other.cmp(one));
        policy.written_names.extend(written);
        policy.subordinates = subordinates;
        policy
    }
}
