//! Checks and resolves the settings of cgroups, from tables of rule files and sections of
//! cgconfig.conf; it writes nothing to the host. An invalid setting disables only itself.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::time::Duration;

use super::resolver::Resolver;
use crate::cgroup::config::{FileOwnership, GroupPermissions, GroupSpec, SpecSetting};
use crate::cgroup::settings;
use crate::config::cgconfig_conf::{self, ControllerSection, GroupSection, WrittenOwner};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::rules_toml::{NameKind, NameRef};
use crate::config::source_text::Diagnostics;
use crate::config::{self, GroupTable, SettingValue, quantity};
use crate::rules::destination::{Specifier, prefixes};
use crate::rules::{Origin, Rule};

/// The keys of a table that are not kernel files.
pub const KEYS: [&str; 4] = ["owner", "mode", "required", "remove_when_empty"];
/// The highest mode of a directory.
const MODE_MAX: u32 = 0o7777;
/// The prefix of files that every cgroup has, independent of controllers.
const CORE: &str = "cgroup";

/// Reads a `[cgroup."path"]` table.
pub(super) fn table(
    table: &GroupTable,
    report: &mut Diagnostics<'_>,
    resolver: &mut Resolver<'_>,
) -> GroupSpec {
    let text = table.path.as_str().to_owned();
    let is_root = text.trim_matches('/').is_empty();
    let has_user =
        table.path.fields().any(|field| matches!(field, Specifier::UserName | Specifier::UserId));
    let perm = GroupPermissions::default();
    let is_required = false;
    let remove_after = None;
    let previous = None;
    let mut reader = SpecReader {
        report,
        resolver,
        is_root,
        has_user,
        perm,
        is_required,
        remove_after,
        previous,
    };
    let kept = table.settings.iter().filter_map(|setting| {
        let kept = reader.setting(setting)?;
        Some((kept, setting.span.clone()))
    });
    let (settings, spans): (Vec<SpecSetting>, Vec<_>) = kept.unzip();
    let words = settings.iter().map(|setting| (&*setting.key, &*setting.value));
    for (late, diagnostic) in settings::contradictions(&words.collect::<Vec<_>>()) {
        reader.report.warning(spans.get(late).cloned(), diagnostic.message, diagnostic.help);
    }
    let SpecReader { perm, is_required, remove_after, .. } = reader;
    let controllers = Vec::new();
    let origin = table.origin.clone();
    GroupSpec { text, controllers, settings, perm, is_required, remove_after, origin }
}

/// Returns the value of a setting as the kernel accepts it.
pub(super) fn written(setting: &config::GroupSetting) -> String {
    match &setting.value {
        SettingValue::Text(text) | SettingValue::Decimal(text) => text.clone(),
        SettingValue::Integer(number) => number.to_string(),
        SettingValue::Switch(on) if settings::is_switch(&setting.key) => u8::from(*on).to_string(),
        SettingValue::Switch(on) => on.to_string(),
    }
}

struct SpecReader<'r, 't, 's, 'n> {
    report: &'r mut Diagnostics<'t>,
    resolver: &'s mut Resolver<'n>,
    /// True for the table of the managed root.
    is_root: bool,
    /// True if each user has a cgroup of this table.
    has_user: bool,
    perm: GroupPermissions,
    is_required: bool,
    remove_after: Option<Duration>,
    /// The key of the setting before, which is the same in a list.
    previous: Option<String>,
}

impl SpecReader<'_, '_, '_, '_> {
    fn setting(&mut self, written: &config::GroupSetting) -> Option<SpecSetting> {
        let span = written.span.clone();
        let value = self::written(written);
        let Some((controller, _)) = written.key.split_once('.') else {
            self.key(written, &value);
            return None;
        };
        if let Err(diagnostic) = settings::check(&written.key, &value) {
            self.report.error_help(span, diagnostic.message, diagnostic.help);
            return None;
        }
        if self.previous.as_ref() == Some(&written.key) && !settings::takes_several(&written.key) {
            let message = format!("{} accepts one value, and no list", written.key);
            self.report.error_help(span, message, "remove the other values");
            return None;
        }
        self.previous = Some(written.key.clone());
        let is_known = settings::words().any(|word| word == written.key);
        let near = config::misspelled(&written.key, settings::words());
        if let (false, Some(near)) = (is_known, near) {
            let message = format!("unknown setting {}: treated as a kernel file", written.key);
            let help = format!("did you mean {near}?");
            self.report.warning(Some(span.clone()), message, help);
        }
        let text = self.report.text();
        let place = text.place(span);
        let origin = Origin { file: text.file().clone(), line: place.line };
        let key = written.key.clone();
        let controller = controller.to_owned();
        Some(SpecSetting { key, value, controller, origin, place: Some(place) })
    }

    /// Reads a key that is not the name of a kernel file.
    fn key(&mut self, written: &config::GroupSetting, value: &str) {
        let span = written.span.clone();
        match (&*written.key, &written.value) {
            ("owner", SettingValue::Text(_)) => self.owner(value, span),
            ("mode", SettingValue::Text(_)) => self.mode(u32::from_str_radix(value, 8).ok(), span),
            // TOML has octal numbers; a decimal one is most likely a mistake.
            ("mode", SettingValue::Integer(number)) if self.is_octal(&span) => {
                self.mode(u32::try_from(*number).ok(), span);
            }
            ("mode", _) => self.mode(None, span),
            ("required", SettingValue::Switch(on)) => self.is_required = *on,
            ("required", _) => self.report.error(span, "required must be true or false"),
            ("remove_when_empty", SettingValue::Text(_)) => self.remove_after(value, span),
            ("remove_when_empty", _) => self.remove_after("", span),
            ("owner", _) => {
                let help = "write owner = \"user\", \"user:group\", \":group\" or \"%u\"";
                self.report.error_help(span, "invalid owner: not a name", help);
            }
            (key, _) => {
                let known = KEYS.join(", ");
                let help = format!("known keys: {known}, and kernel files such as cpu.weight");
                self.report.error_help(span, format!("invalid cgroup setting \"{key}\""), help);
            }
        }
    }

    /// Returns the ID of an owner, `None` for an empty or unknown name.
    fn owner_id(&mut self, kind: NameKind, name: &str, span: &Range<usize>) -> Option<u32> {
        if name.is_empty() {
            return None;
        }
        match self.resolver.number(kind, name) {
            Ok(id) => Some(id),
            Err(message) => {
                self.report.error_help(span.clone(), message, "the cgroup stays owned by root");
                None
            }
        }
    }

    fn remove_after(&mut self, value: &str, span: Range<usize>) {
        let time = quantity::duration(value).filter(|time| !time.is_zero());
        if self.is_root {
            let help = "write it in a table for a cgroup below the managed root";
            self.report.error_help(span, "the managed root is never removed", help);
        } else if time.is_none() {
            let help =
                "write a time such as \"5m\" or \"1h\", or remove the key to keep empty cgroups";
            self.report.error_help(span, "invalid time for remove_when_empty", help);
        } else {
            self.remove_after = time;
        }
    }

    fn is_octal(&self, span: &Range<usize>) -> bool {
        let written = self.report.text().as_str().get(span.clone());
        written.is_some_and(|text| text.starts_with("0o"))
    }

    fn mode(&mut self, mode: Option<u32>, span: Range<usize>) {
        match mode.filter(|mode| *mode <= MODE_MAX) {
            Some(mode) => self.perm.directory.mode = Some(mode),
            None => {
                let help = "write octal digits in quotes, such as \"0755\"";
                self.report.error_help(span, "invalid mode of a directory", help);
            }
        }
    }

    /// Sets the owner, who may place processes and create cgroups below; the limits stay owned by
    /// root.
    fn owner(&mut self, text: &str, span: Range<usize>) {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        self.perm.is_of_user = user == "%u";
        if self.perm.is_of_user && !self.has_user {
            let help =
                "write it in a table whose path contains %u or %U, such as [cgroup.\"people/%u\"]";
            self.report.error_help(span, "owner = \"%u\" for a cgroup of several users", help);
            self.perm.is_of_user = false;
            return;
        }
        let user = if self.perm.is_of_user { "" } else { user };
        let uid = self.owner_id(NameKind::User, user, &span).map(crate::event::Uid);
        let gid = self.owner_id(NameKind::Group, group, &span).map(crate::event::Gid);
        let GroupPermissions { directory, task, v1_procs, .. } = &mut self.perm;
        // `cgroup.subtree_control` stays owned by root too: if the owner enabled a controller there,
        // the kernel would refuse every process placed afterwards, and those would have no limits.
        for ownership in [directory, task, v1_procs] {
            (ownership.uid, ownership.gid) = (uid, gid);
        }
    }
}

/// Reads a `template` or `group` section.
pub(super) fn section(
    section: &GroupSection,
    resolver: &mut Resolver<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> GroupSpec {
    let controllers = section.controllers.iter().map(|controller| controller.name.clone());
    let settings = section.controllers.iter().flat_map(|controller| {
        let settings = controller.settings.iter();
        settings.flat_map(|setting| of_controller(controller, setting)).collect::<Vec<_>>()
    });
    let mut kept = Vec::new();
    for setting in settings {
        match settings::check(&setting.key, &setting.value) {
            Ok(()) => kept.push(setting),
            Err(diagnostic) => {
                diagnostics.push(setting.diagnostic(Severity::Error, diagnostic));
            }
        }
    }
    for (setting, diagnostic) in contradictory(&kept) {
        diagnostics.push(setting.diagnostic(Severity::Warning, diagnostic));
    }
    let perm = section.perm.as_ref().map(|perm| {
        let task = ownership(&perm.task, resolver, diagnostics);
        let admin = ownership(&perm.admin, resolver, diagnostics);
        let directory = FileOwnership { mode: perm.admin.directory_mode, ..admin };
        GroupPermissions {
            is_of_user: false,
            directory,
            task,
            v1_procs: admin,
            subtree: admin,
            files: admin,
        }
    });
    GroupSpec {
        text: section.text.clone(),
        controllers: controllers.collect(),
        settings: kept,
        perm: perm.unwrap_or_default(),
        is_required: false,
        remove_after: None,
        origin: section.origin.clone(),
    }
}

/// Returns the contradictory settings of a section. Of repeated settings the last one counts; a section
/// can have tens of thousands, which are compared in pairs.
fn contradictory(settings: &[SpecSetting]) -> Vec<(&SpecSetting, settings::SettingMessage)> {
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, setting) in settings.iter().enumerate() {
        if settings::words().any(|word| word == setting.key) {
            last.insert(&setting.key, index);
        }
    }
    let mut last: Vec<usize> = last.into_values().collect();
    last.sort_unstable();
    let last: Vec<&SpecSetting> = last.into_iter().map(|index| &settings[index]).collect();
    let words: Vec<(&str, &str)> = last.iter().map(|own| (&*own.key, &*own.value)).collect();
    let found = settings::contradictions(&words).into_iter();
    found.map(|(late, message)| (last[late], message)).collect()
}

/// Warns about tables for cgroups that are neither the destination of a rule nor above one.
/// `lost` are the destinations of rules with errors, which are used as soon as these are fixed.
pub(super) fn unused(
    tables: &[GroupSpec],
    rules: &[(i32, Rule)],
    lost: &[String],
) -> Vec<Diagnostic> {
    let rules = if tables.is_empty() { &[] } else { rules };
    // The table of a rule that observes has an effect as soon as the rule is active.
    let targets = rules.iter().flat_map(|(_, rule)| rule.action.intended().written_targets());
    let texts = targets.map(|target| target.destination.as_str());
    let used: HashSet<&str> =
        texts.chain(lost.iter().map(String::as_str)).flat_map(prefixes).collect();
    let unused = tables.iter().filter(|table| {
        let path = table.text.trim_matches('/');
        !path.is_empty() && !used.contains(path)
    });
    let diagnostics = unused.map(|table| {
        let message = format!("no rule uses the cgroup \"{}\"", table.text);
        let Origin { file, line } = &table.origin;
        let about = Diagnostic::at_line(file, *line, Severity::Warning, message);
        about.with_help("its settings have no effect: write the path as in the rule")
    });
    diagnostics.collect()
}

fn of_controller<'s>(
    controller: &'s ControllerSection,
    setting: &'s cgconfig_conf::CgconfigSetting,
) -> impl Iterator<Item = SpecSetting> + 's {
    let name = if setting.name.starts_with("cgroup.") { CORE } else { &controller.name };
    setting.values().map(|value| SpecSetting {
        key: setting.name.clone(),
        value: value.to_owned(),
        controller: name.to_owned(),
        origin: setting.origin.clone(),
        place: Some(setting.place.clone()),
    })
}

/// Returns the ID that a `perm` section means: a number as cgrulesengd reads it, or a name.
pub(super) fn id_in_perm(mention: &NameRef, resolver: &mut Resolver<'_>) -> Result<u32, String> {
    let number = cgconfig_conf::leading_number(&mention.name);
    number.map_or_else(|| resolver.number(mention.kind, &mention.name), Ok)
}

/// Resolves owner and mode of files. An unknown name is reported and omitted.
fn ownership(
    written: &cgconfig_conf::SectionOwnership,
    resolver: &mut Resolver<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> FileOwnership {
    let [uid, gid] = [&written.user, &written.group].map(|owner| {
        let WrittenOwner { mention, file, place } = owner.as_ref()?;
        let found = id_in_perm(mention, resolver);
        if let Err(message) = &found {
            let about = Diagnostic::about(file, Severity::Error, message.as_str());
            let about = Diagnostic { place: Some(place.clone()), ..about };
            let help = "cgrulesengd would not start; cgruled leaves the files owned by root";
            diagnostics.push(about.with_help(help));
        }
        found.ok().filter(|&id| id != u32::MAX)
    });
    FileOwnership {
        uid: uid.map(crate::event::Uid),
        gid: gid.map(crate::event::Gid),
        mode: written.file_mode,
    }
}
