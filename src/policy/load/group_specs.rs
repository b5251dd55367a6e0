//! Checks and resolves the settings of cgroups, from tables of rule files and sections of
//! cgconfig.conf; it writes nothing to the host. An invalid setting disables only itself.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use super::resolver::Resolver;
use crate::cgroup::config::{FileOwnership, GroupPermissions, GroupSpec, SpecSetting};
use crate::cgroup::settings;
use crate::config::cgconfig_conf::{self, ControllerSection, GroupSection};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::rules_toml::{NameKind, NameRef};
use crate::config::source_text::Diagnostics;
use crate::config::{self, GroupTable, SettingValue, quantity};
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
    let perm = GroupPermissions::default();
    let is_required = false;
    let remove_after = None;
    let mut reader = SpecReader { report, resolver, is_root, perm, is_required, remove_after };
    let kept = |setting| Some((reader.setting(setting)?, setting.span.clone()));
    let (settings, spans): (Vec<SpecSetting>, Vec<_>) =
        table.settings.iter().filter_map(kept).unzip();
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
    perm: GroupPermissions,
    is_required: bool,
    remove_after: Option<Duration>,
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
        let is_known = settings::words().any(|word| word == written.key);
        let near = || config::misspelled(&written.key, settings::words());
        if let (false, Some(near)) = (is_known, near()) {
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
                let help = "write owner = \"user\", \"user:group\" or \":group\"";
                self.report.error_help(span, "invalid owner: not a name", help);
            }
            (key, _) => {
                let known = KEYS.join(", ");
                let help = format!("known keys: {known}, and kernel files such as cpu.weight");
                self.report.error_help(span, format!("invalid cgroup setting \"{key}\""), help);
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
        let mut unknown = Vec::new();
        let mut resolve = |kind, name: &str| match self.resolver.number(kind, name) {
            Ok(number) => Some(number),
            Err(message) => {
                unknown.push(message);
                None
            }
        };
        let name = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        let uid = name(user).and_then(|name| resolve(NameKind::User, &name));
        let gid = name(group).and_then(|name| resolve(NameKind::Group, &name));
        for message in unknown {
            self.report.error_help(span.clone(), message, "the cgroup stays owned by root");
        }
        let uid = uid.map(crate::event::Uid);
        let gid = gid.map(crate::event::Gid);
        let GroupPermissions { directory, task, v1_procs, subtree: _, files: _ } = &mut self.perm;
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
        let setting = |setting| of_controller(controller, setting);
        controller.settings.iter().map(setting).collect::<Vec<_>>()
    });
    let mut kept = Vec::new();
    for setting in settings {
        match settings::check(&setting.key, &setting.value) {
            Ok(()) => kept.push(setting),
            Err(diagnostic) => {
                let Origin { file, line } = &setting.origin;
                let error = Severity::Error;
                let about = Diagnostic::at_line(file, *line, error, diagnostic.message);
                diagnostics.push(about.with_help(diagnostic.help));
            }
        }
    }
    let perm = section.perm.as_ref().map(|perm| {
        let task = ownership(&perm.task, section, resolver, diagnostics);
        let admin = ownership(&perm.admin, section, resolver, diagnostics);
        let directory = FileOwnership { mode: perm.admin.directory_mode, ..admin };
        GroupPermissions { directory, task, v1_procs: admin, subtree: admin, files: admin }
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

/// Warns about tables for cgroups that are neither the destination of a rule nor above one.
pub(super) fn unused(tables: &[GroupSpec], rules: &[(i32, Rule)]) -> Vec<Diagnostic> {
    let rules = if tables.is_empty() { &[] } else { rules };
    let targets = rules.iter().flat_map(|(_, rule)| rule.action.written_targets());
    let used: HashSet<&str> =
        targets.flat_map(|target| prefixes(target.destination.as_str())).collect();
    let is_unused = |path: &str| !path.is_empty() && !used.contains(path);
    let unused = tables.iter().filter(|table| is_unused(table.text.trim_matches('/')));
    let diagnostic = |table: &GroupSpec| {
        let message = format!("no rule uses the cgroup \"{}\"", table.text);
        let Origin { file, line } = &table.origin;
        let about = Diagnostic::at_line(file, *line, Severity::Warning, message);
        about.with_help("its settings have no effect: write the path as in the rule")
    };
    unused.map(diagnostic).collect()
}

/// Returns the paths of the cgroups from the first to the last of a path, each without `/` at
/// either end.
pub(super) fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let path = path.trim_matches('/');
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    ends.map(|end| &path[..end]).filter(|prefix| !prefix.is_empty())
}

fn of_controller(
    controller: &ControllerSection,
    setting: &cgconfig_conf::CgconfigSetting,
) -> SpecSetting {
    SpecSetting {
        key: setting.name.clone(),
        value: setting.value.clone(),
        controller: if setting.name.starts_with("cgroup.") { CORE } else { &controller.name }
            .to_owned(),
        origin: setting.origin.clone(),
        place: None,
    }
}

/// Returns the ID that a `perm` section means: a number as cgrulesengd reads it, or a name.
pub(super) fn id_in_perm(mention: &NameRef, resolver: &mut Resolver<'_>) -> Result<u32, String> {
    let number = cgconfig_conf::leading_number(&mention.name);
    number.map_or_else(|| resolver.number(mention.kind, &mention.name), Ok)
}

/// Resolves owner and mode of files. An unknown name is reported and omitted.
fn ownership(
    written: &cgconfig_conf::SectionOwnership,
    section: &GroupSection,
    resolver: &mut Resolver<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> FileOwnership {
    let mut number = |mention: &Option<NameRef>| {
        let mention = mention.as_ref()?;
        let found = id_in_perm(mention, resolver);
        if let Err(message) = &found {
            let Origin { file, line } = &section.origin;
            let message = format!("in this section: {message}");
            let about = Diagnostic::at_line(file, *line, Severity::Error, message);
            let help = "cgrulesengd would not start; cgruled leaves the files owned by root";
            diagnostics.push(about.with_help(help));
        }
        found.ok().filter(|&id| id != u32::MAX)
    };
    FileOwnership {
        uid: number(&written.user).map(crate::event::Uid),
        gid: number(&written.group).map(crate::event::Gid),
        mode: written.file_mode,
    }
}
