//! Resolves the names in rules, each once, and reports each place of an unknown one; it keeps no
//! answers beyond one load.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::name_service::{LocalNames, NameService, nss_gid, nss_uid};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::rules_toml::{NameKind, NameRef, WrittenRule};
use crate::config::source_text::{Diagnostics, SourceText};
use crate::event::{Gid, Uid};
use crate::rules::names::{ResolvedNames, UnknownName, resolve, resolve_users};
use crate::rules::{Rule, UserTest};

/// A resolver that caches the answers of the name service.
#[derive(Debug)]
pub(super) struct Resolver<'s> {
    service: &'s NameService,
    local: LocalNames,
    names: ResolvedNames,
    /// The answers of the name service in earlier loads, used when it fails.
    before: ResolvedNames,
    /// The answers of the name service in this load. The local files can be read again, so their
    /// names are not included.
    learned: ResolvedNames,
    knows_all_groups: bool,
    /// Whether names of digits are looked up in the name service. With plain files a thousand rules
    /// for UIDs must not cause a thousand lookups.
    has_names_of_digits: bool,
    answers: HashMap<(NameKind, String), NameAnswer>,
}

#[derive(Debug)]
enum NameAnswer {
    Known,
    Unknown,
    Failed(io::Error),
}

impl<'s> Resolver<'s> {
    pub(super) fn new(service: &'s NameService) -> Self {
        Self {
            service,
            // Allocated before any rule, so that freeing it leaves no holes between them.
            local: service.local_names(),
            names: ResolvedNames { human: service.human_uids(), ..ResolvedNames::default() },
            before: ResolvedNames::default(),
            learned: ResolvedNames::default(),
            knows_all_groups: false,
            has_names_of_digits: service.has_names_of_digits(),
            answers: HashMap::new(),
        }
    }

    /// Sets the answers that are used when the name service fails.
    pub(super) fn remember(&mut self, before: ResolvedNames) {
        self.before = before;
    }

    /// Adds accounts that need not exist on the host and precede its own.
    pub(super) fn define(&mut self, accounts: &ResolvedNames) {
        for (name, uid) in &accounts.uids {
            self.names.uids.insert(name.clone(), *uid);
            self.answers.insert((NameKind::User, name.clone()), NameAnswer::Known);
        }
        for (name, gid) in &accounts.gids {
            self.names.gids.insert(name.clone(), *gid);
            self.answers.insert((NameKind::Group, name.clone()), NameAnswer::Known);
        }
    }

    /// Returns all resolved names, and those among them that the name service resolved.
    pub(super) fn into_names(self) -> (ResolvedNames, ResolvedNames) {
        (self.names, self.learned)
    }

    /// Returns the names that the name service does not know, or not while it failed. Names in the
    /// local files need no further lookups: a change of these files is noticed.
    pub(super) fn missing(&self) -> Vec<UnknownName> {
        let unknown = self.answers.iter().filter(|((_, name), answer)| match answer {
            NameAnswer::Unknown | NameAnswer::Failed(_) => self.asks_nss(name),
            NameAnswer::Known => false,
        });
        let mut missing: Vec<UnknownName> = unknown
            .filter_map(|((kind, name), _)| match kind {
                NameKind::User => Some(UnknownName::User(name.clone())),
                NameKind::Group => Some(UnknownName::Group(name.clone())),
                NameKind::GroupPattern => None,
            })
            .collect();
        missing.sort_unstable();
        missing
    }

    /// Replaces the names in the rules of one file by IDs. Adds the remaining rules, with their
    /// priorities, to `resolved`; returns a diagnostic of this severity for each unknown name.
    pub(super) fn resolve(
        &mut self,
        written: Vec<WrittenRule>,
        file: &Arc<Path>,
        text: &str,
        severity: Severity,
        resolved: &mut Vec<(i32, Rule)>,
    ) -> Vec<Diagnostic> {
        let text = SourceText::new(file, text);
        let mut report = Diagnostics::new(&text);
        for WrittenRule { rule, priority, mentions, .. } in written {
            mentions.iter().for_each(|mention| self.look_up(mention));
            let (rule, unknown) = resolve(rule, &self.names);
            self.report_error(mentions, unknown, severity, rule.is_some(), &mut report);
            resolved.extend(rule.map(|rule| (priority, rule)));
        }
        report.finish()
    }

    /// Replaces the names among `users` of a unit table by IDs; reports each unknown one.
    pub(super) fn users(
        &mut self,
        users: Vec<UserTest>,
        mut mentions: Vec<NameRef>,
        report: &mut Diagnostics<'_>,
    ) -> Vec<UserTest> {
        mentions.iter().for_each(|mention| self.look_up(mention));
        let (known, unknown) = resolve_users(users, &self.names);
        for name in unknown {
            let (UnknownName::User(name) | UnknownName::Group(name)) = name;
            let Some(index) = mentions.iter().position(|own| own.name == name) else { continue };
            let span = mentions.swap_remove(index).span;
            let help = match known.is_empty() {
                true => "table ignored: none of its users exist",
                false => "the other users of the table are selected",
            };
            report.error_help(span, self.message(NameKind::User, name), help);
        }
        known
    }

    /// Checks whether a user or group of this name exists.
    pub(super) fn knows(&mut self, mention: &NameRef) -> bool {
        self.look_up(mention);
        let answer = self.answers.get(&(mention.kind, mention.name.clone()));
        matches!(answer, Some(NameAnswer::Known))
    }

    /// Returns the ID of a user or group, which may be written as a number.
    ///
    /// # Errors
    /// Returns a message if the name is unknown or the name service failed.
    pub(super) fn number(&mut self, kind: NameKind, name: &str) -> Result<u32, String> {
        self.look_up(&NameRef { kind, name: name.to_owned(), span: 0..0 });
        let found = match kind {
            NameKind::User => self.names.uids.get(name).map(|uid| uid.0),
            NameKind::Group | NameKind::GroupPattern => self.names.gids.get(name).map(|gid| gid.0),
        };
        // An account can have a name of digits, such as a student number.
        let found = found.or_else(|| name.parse().ok());
        found.ok_or_else(|| self.message(kind, name.to_owned()))
    }

    fn look_up(&mut self, mention: &NameRef) {
        let key = (mention.kind, mention.name.clone());
        if self.answers.contains_key(&key) {
            return;
        }
        let found = match mention.kind {
            NameKind::User => self.user(&mention.name),
            NameKind::Group => self.group(&mention.name),
            NameKind::GroupPattern => {
                self.all_groups();
                Ok(true)
            }
        };
        let answer = match found {
            Ok(true) => NameAnswer::Known,
            Ok(false) => NameAnswer::Unknown,
            Err(error) => self.recall(mention, error),
        };
        self.answers.insert(key, answer);
    }

    /// Returns the earlier answer about a name after the name service failed with `error`: an
    /// outage must not make known users unknown.
    fn recall(&mut self, NameRef { kind, name, .. }: &NameRef, error: io::Error) -> NameAnswer {
        let was_known = match kind {
            NameKind::User => {
                let uid = self.before.uids.get(name).copied();
                self.learn_user(name, uid);
                uid.is_some()
            }
            NameKind::Group | NameKind::GroupPattern => {
                let gid = self.before.gids.get(name).copied();
                self.learn_group(name, gid);
                gid.is_some()
            }
        };
        if !was_known {
            return NameAnswer::Failed(error);
        }
        ::log::warn!("name service failed: {error}; {name:?} keeps its previous ID");
        NameAnswer::Known
    }

    fn learn_user(&mut self, name: &str, uid: Option<Uid>) {
        self.names.uids.extend(uid.map(|uid| (name.to_owned(), uid)));
        self.learned.uids.extend(uid.map(|uid| (name.to_owned(), uid)));
    }

    fn learn_group(&mut self, name: &str, gid: Option<Gid>) {
        self.names.gids.extend(gid.map(|gid| (name.to_owned(), gid)));
        self.learned.gids.extend(gid.map(|gid| (name.to_owned(), gid)));
    }

    /// Checks whether a name that is not in the local files is looked up in the name service.
    fn asks_nss(&self, name: &str) -> bool {
        self.service.nss && (self.has_names_of_digits || !is_number(name))
    }

    /// Looks up a user name.
    fn user(&mut self, name: &str) -> io::Result<bool> {
        // The local file is read once and checked first: NSS reads it anew for each name, which takes
        // seconds for 10,000 rules by name.
        let local = self.local.uids.get(name).copied();
        if local.is_none() && self.asks_nss(name) {
            let uid = nss_uid(name)?;
            self.learn_user(name, uid);
            return Ok(uid.is_some());
        }
        self.names.uids.extend(local.map(|uid| (name.to_owned(), uid)));
        Ok(local.is_some())
    }

    /// Looks up a group name.
    fn group(&mut self, name: &str) -> io::Result<bool> {
        let local = self.local.gids.get(name).copied();
        if local.is_none() && self.asks_nss(name) {
            let gid = nss_gid(name)?;
            self.learn_group(name, gid);
            return Ok(gid.is_some());
        }
        self.names.gids.extend(local.map(|gid| (name.to_owned(), gid)));
        Ok(local.is_some())
    }

    /// Adds every local group to the names, because a pattern may match any of them.
    fn all_groups(&mut self) {
        if std::mem::replace(&mut self.knows_all_groups, true) {
            return;
        }
        let groups = self.local.gids.clone();
        for (name, gid) in groups {
            if let Entry::Vacant(entry) = self.names.gids.entry(name) {
                entry.insert(gid);
            }
        }
    }

    /// Reports the unknown names of one rule, of which some criteria are `left` or none.
    fn report_error(
        &self,
        mut mentions: Vec<NameRef>,
        unknown: Vec<UnknownName>,
        severity: Severity,
        left: bool,
        report: &mut Diagnostics<'_>,
    ) {
        let lost_by_pattern = !left && unknown.is_empty();
        for name in unknown {
            let (kind, name) = match name {
                UnknownName::User(name) => (NameKind::User, name),
                UnknownName::Group(name) => (NameKind::Group, name),
            };
            // A name that occurs twice in a rule is reported twice: each diagnostic has its own
            // place.
            let index = mentions.iter().position(|own| own.kind == kind && own.name == name);
            let Some(index) = index else { continue };
            let span = mentions.swap_remove(index).span;
            let help = consequence(left).to_owned();
            report.add(severity, Some(span), self.message(kind, name), Some(help));
        }
        let mut patterns = mentions.into_iter().filter(|m| m.kind == NameKind::GroupPattern);
        if let (true, Some(pattern)) = (lost_by_pattern, patterns.next()) {
            let message = "no group of /etc/group matches the pattern";
            report.warning(Some(pattern.span), message, consequence(left));
        }
    }

    fn message(&self, kind: NameKind, name: String) -> String {
        let what = match kind {
            NameKind::User => "user",
            NameKind::Group | NameKind::GroupPattern => "group",
        };
        let message = format!("no {what} is named \"{name}\"");
        match self.answers.get(&(kind, name)) {
            Some(NameAnswer::Failed(error)) => format!("name service failed: {error}"),
            Some(NameAnswer::Known | NameAnswer::Unknown) | None => message,
        }
    }
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}

fn consequence(left: bool) -> &'static str {
    if left {
        "the rest of the rule is loaded"
    } else {
        "rule ignored: none of its users or groups exist"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_the_name_service_fails_who_was_known_stays_known() {
        let service = NameService::default();
        let mut resolver = Resolver::new(&service);
        let uids = [("cgt-far".to_owned(), Uid(61_800))].into();
        resolver.remember(ResolvedNames { uids, ..ResolvedNames::default() });
        for (name, is_known) in [("cgt-far", true), ("cgt-new", false)] {
            let mention = NameRef { kind: NameKind::User, name: name.to_owned(), span: 0..0 };
            let answer = resolver.recall(&mention, io::Error::from(io::ErrorKind::TimedOut));
            assert_eq!(matches!(answer, NameAnswer::Known), is_known, "{name}");
            assert_eq!(matches!(answer, NameAnswer::Failed(_)), !is_known, "{name}");
        }
        let (names, learned) = resolver.into_names();
        assert_eq!(names.uids.get("cgt-far"), Some(&Uid(61_800)));
        assert_eq!(learned.uids, names.uids, "and so the next time");
    }
}
