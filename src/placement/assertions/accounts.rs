//! The accounts of tests: users and groups that need not exist on the host. Must not look up any.

use std::collections::BTreeMap;

use super::NO_USER;
use crate::config::AccountRef;
use crate::config::test_table::RuleTest;
use crate::event::{Gid, Uid};
use crate::rules::human::HumanUids;
use crate::rules::names::ResolvedNames;

/// The first UID of users whose UID no test gives. Rules for ranges of users end far below.
const FIRST_FREE_UID: u32 = 4_000_000_000;
/// The first GID of groups. A user has a group with the number of its UID, which must be another one.
const FIRST_FREE_GID: u32 = 4_100_000_000;
/// The first UID of human users, the default of `UID_MIN`.
const FIRST_HUMAN: Uid = Uid(1000);

/// The users and groups that tests name, with an ID for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestAccounts {
    /// UIDs by name.
    pub users: BTreeMap<String, Uid>,
    /// GIDs by name.
    pub groups: BTreeMap<String, Gid>,
}

/// The IDs of a host's accounts, by name.
pub type HostIds<'h, T> = &'h mut dyn FnMut(&str) -> Option<T>;

impl TestAccounts {
    /// Collects the accounts of these tests. A name without an ID gets a free one.
    pub fn of(tests: &[RuleTest]) -> Self {
        Self::on_host(tests, &mut |_| None, &mut |_| None)
    }

    /// Collects the accounts of these tests. A name without an ID has that of the host's account, else
    /// a free one.
    pub fn on_host(tests: &[RuleTest], users: HostIds<'_, Uid>, groups: HostIds<'_, Gid>) -> Self {
        let mut found = Self::default();
        let given = tests.iter().flat_map(RuleTest::uids);
        found.users.extend(given.map(|(name, uid)| (name.to_owned(), uid)));
        found.users.insert("root".to_owned(), Uid(0));
        found.groups.insert("root".to_owned(), Gid(0));
        for test in tests {
            let process = &test.process;
            let own = test.users.keys().map(String::as_str);
            let owner = process.container.as_ref().and_then(|own| own.owner.as_ref());
            let named = [&process.user, &process.login].into_iter().flatten().chain(owner);
            for name in own.chain(named.filter_map(plain_name)) {
                found.add_user(name, users);
            }
            let accounts = test.users.values();
            let listed = accounts.flat_map(|own| own.group.iter().chain(&own.groups));
            for group in process.group.iter().chain(&process.groups).chain(listed) {
                plain_name(group).into_iter().for_each(|name| found.add_group(name, groups));
            }
        }
        found
    }

    fn add_user(&mut self, name: &str, host: HostIds<'_, Uid>) {
        if !self.users.contains_key(name) {
            let uid = host(name).unwrap_or(Uid(FIRST_FREE_UID + count(self.users.len())));
            self.users.insert(name.to_owned(), uid);
        }
    }

    fn add_group(&mut self, name: &str, host: HostIds<'_, Gid>) {
        if !self.groups.contains_key(name) {
            let gid = host(name).unwrap_or(Gid(FIRST_FREE_GID + count(self.groups.len())));
            self.groups.insert(name.to_owned(), gid);
        }
    }

    /// Returns the names for the resolution of rules.
    pub fn names(&self) -> ResolvedNames {
        ResolvedNames {
            uids: self.users.iter().map(|(name, uid)| (name.clone(), *uid)).collect(),
            gids: self.groups.iter().map(|(name, gid)| (name.clone(), *gid)).collect(),
            human: HumanUids::new(FIRST_HUMAN, []),
        }
    }

    /// Returns the name of a user.
    pub(super) fn name_of(&self, uid: Uid) -> Option<&str> {
        let known = self.users.iter().find(|(_, own)| **own == uid);
        known.map(|(name, _)| name.as_str())
    }

    /// Returns the UID of a user, and the name if it has one.
    pub(super) fn user(&self, user: &AccountRef) -> (Uid, Option<String>) {
        match (known(&self.users, user), written_id(user)) {
            (Some((uid, name)), _) => (uid, Some(name)),
            (None, id) => (id.map_or(NO_USER, Uid), None),
        }
    }

    /// Returns the GID of a group, and the name if it has one.
    pub(super) fn group(&self, group: &AccountRef) -> (Gid, Option<String>) {
        match (known(&self.groups, group), written_id(group)) {
            (Some((gid, name)), _) => (gid, Some(name)),
            (None, id) => (Gid(id.unwrap_or(NO_USER.0)), None),
        }
    }
}

/// Returns the ID and the name of a known account.
fn known<T: Copy>(accounts: &BTreeMap<String, T>, account: &AccountRef) -> Option<(T, String)> {
    let (AccountRef::Name(name) | AccountRef::NameOrId(name, _)) = account else { return None };
    Some((*accounts.get(name)?, name.clone()))
}

/// Returns the ID that an account means if no account has it as its name.
fn written_id(account: &AccountRef) -> Option<u32> {
    match account {
        AccountRef::Name(_) => None,
        AccountRef::NameOrId(_, id) | AccountRef::Id(id) => Some(*id),
    }
}

/// Returns the name of an account that is not an ID. A name of digits is one only if a test describes
/// that account.
fn plain_name(account: &AccountRef) -> Option<&str> {
    match account {
        AccountRef::Name(name) => Some(name),
        AccountRef::NameOrId(..) | AccountRef::Id(_) => None,
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX - FIRST_FREE_GID)
}
