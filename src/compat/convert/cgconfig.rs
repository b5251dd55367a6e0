//! Converts `cgconfig.conf` to `[cgroup."path"]` tables; it reads no files.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::draft::{SourceLines, TomlDraft};
use super::toml_text::{self, quoted};
use super::{HostFacts, SourceFile};
use crate::cgroup::settings::{self, SettingMessage};
use crate::config::cgconfig_conf::{
    self, CgconfigSetting, GroupSection, ParsedCgconfig, PermSection, SectionOwnership,
    WrittenOwner,
};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::rules_toml;
use crate::config::{GroupSetting, SettingValue};
use crate::rules::Origin;
use crate::rules::destination::Destination;

const NOT_RULES: &str = "rule files cannot mount hierarchies or set defaults for them";

/// A section of any kind, in the order of the file.
enum AnySection<'p> {
    Group(&'p GroupSection),
    /// A setting of a section that has no equivalent in a rule file, with the kind of the section.
    Other(&'p CgconfigSetting, &'static str),
}

impl AnySection<'_> {
    fn origin(&self) -> &Origin {
        match self {
            Self::Group(section) => &section.origin,
            Self::Other(setting, _) => &setting.origin,
        }
    }
}

/// Adds the cgroups of all files. The sections of a path become one table, where the first of them is.
pub(super) fn convert(sources: &[&SourceFile], host: &HostFacts<'_>, draft: &mut TomlDraft) {
    let files: Vec<SourceLines<'_>> =
        sources.iter().map(|source| SourceLines::new(source)).collect();
    let mut parsed: Vec<ParsedCgconfig> =
        sources.iter().map(|source| cgconfig_conf::parse(&source.file, &source.text)).collect();
    let templates = merged(parsed.iter_mut().flat_map(|file| std::mem::take(&mut file.templates)));
    let groups = merged(parsed.iter_mut().flat_map(|file| std::mem::take(&mut file.groups)));
    let reported = HashSet::new();
    let remarked = HashMap::new();
    let mut writer = CgconfigWriter { host, files: &files, draft, remarked, reported };
    for (file, lines) in parsed.into_iter().zip(&files) {
        writer.file(file, lines, &[&templates, &groups]);
    }
}

/// Merges the sections of each path, which cgconfigparser applies one after the other. cgsnapshot
/// writes a section for each hierarchy.
fn merged(sections: impl Iterator<Item = GroupSection>) -> Vec<GroupSection> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut merged: Vec<GroupSection> = Vec::new();
    for section in sections {
        let path = section.text.trim_end_matches('/').to_owned();
        let place = *places.entry(path).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(first) => {
                first.controllers.extend(section.controllers);
                first.perm = section.perm.or(first.perm.take());
            }
            None => merged.push(section),
        }
    }
    merged
}

struct CgconfigWriter<'f, 's> {
    host: &'f HostFacts<'f>,
    files: &'f [SourceLines<'s>],
    draft: &'f mut TomlDraft,
    /// The number of lines of each file up to which comments are written.
    remarked: HashMap<Arc<Path>, u32>,
    /// The kinds of sections without an equivalent that were reported in a file.
    reported: HashSet<&'static str>,
}

impl<'f, 's> CgconfigWriter<'f, 's> {
    /// Writes the sections that begin in a file.
    fn file(
        &mut self,
        mut parsed: ParsedCgconfig,
        lines: &'f SourceLines<'s>,
        sections: &[&Vec<GroupSection>],
    ) {
        let file = lines.text.file();
        self.draft.blank();
        self.draft.comment(&format!("# {}", file.display()));
        // A section that was not parsed is not converted either.
        for diagnostic in &mut parsed.diagnostics {
            if let (Some(place), Severity::Error) = (&diagnostic.place, diagnostic.severity) {
                self.draft.left_out(lines, place.line, &diagnostic.message);
            }
        }
        self.draft.pass_on(std::mem::take(&mut parsed.diagnostics));
        let own = sections.iter().copied().flatten().filter(|own| own.origin.file == *file);
        let mut sections: Vec<AnySection<'_>> = own.map(AnySection::Group).collect();
        let others = [
            (&parsed.mounts, "mount"),
            (&parsed.namespaces, "namespace"),
            (&parsed.systemd, "systemd"),
        ];
        for (settings, kind) in others {
            sections.extend(settings.iter().map(|setting| AnySection::Other(setting, kind)));
        }
        sections.sort_by_key(|section| section.origin().line);
        self.reported.clear();
        for section in &sections {
            self.section(section);
        }
        for _ in &parsed.defaults {
            let how = "the default section is not converted: it applies to cgroups of cgconfigparser only";
            self.draft.comment(&format!("# {how}"));
            let about = Diagnostic::about(file, Severity::Warning, how);
            self.draft.pass_on(vec![about.with_help("write owner and mode in each table")]);
        }
        self.remarks_before(&Origin { file: file.clone(), line: u32::MAX });
    }

    /// Returns the lines of the file of a section or setting.
    fn lines(&self, origin: &Origin) -> &'f SourceLines<'s> {
        let found = self.files.iter().find(|lines| *lines.text.file() == origin.file);
        found.unwrap_or(&self.files[0])
    }

    fn section(&mut self, section: &AnySection<'_>) {
        match section {
            AnySection::Group(group) => {
                self.draft.blank();
                self.remarks_before(section.origin());
                self.group(group);
            }
            AnySection::Other(setting, kind) => {
                self.remarks_before(section.origin());
                self.other(setting, kind);
            }
        }
    }

    /// Reports a kind of section that has no equivalent, once as `check` does.
    fn other(&mut self, setting: &CgconfigSetting, kind: &'static str) {
        let (lines, line) = (self.lines(&setting.origin), setting.origin.line);
        let why = format!("part of a {kind} section");
        if self.reported.insert(kind) {
            let how = format!("not converted: {why}");
            self.draft.differs(lines, line, &how, NOT_RULES);
            self.draft.comment(&format!("#   {}", lines.get(line).trim()));
        } else {
            self.draft.left_out(lines, line, &why);
        }
    }

    /// Writes the comments of a file that precede a place and were not written.
    fn remarks_before(&mut self, origin: &Origin) {
        let lines = self.lines(origin);
        let remarked = self.remarked.entry(Arc::clone(&origin.file)).or_default();
        let first = *remarked + 1;
        *remarked = (*remarked).max(origin.line.saturating_sub(1));
        for (_, text) in lines.between(first, origin.line) {
            if let Some(warning) = text.trim_start().strip_prefix('#') {
                self.draft.comment(&format!("#{warning}"));
            } else if let Some(warning) = text.strip_prefix('*') {
                self.draft.comment(&format!("# {warning}"));
            }
        }
    }

    fn group(&mut self, group: &GroupSection) {
        let (lines, line) = (self.lines(&group.origin), group.origin.line);
        let path = match path(&group.text) {
            Ok(path) => path,
            Err(why) => {
                let help = "a [cgroup] table cannot have this path";
                return self.draft.lost(lines, line, &why, help);
            }
        };
        if self.draft.is_unused(&path) {
            return self.unused(&path, &group.origin);
        }
        let settings: Vec<&CgconfigSetting> =
            group.controllers.iter().flat_map(|controller| &controller.settings).collect();
        let perm = group.perm.as_ref();
        let is_empty = settings.iter().all(|setting| setting.values().next().is_none());
        if is_empty && perm.is_none_or(|perm| *perm == PermSection::default()) {
            let why = "a cgroup without settings needs no table";
            return self.draft.left_out(lines, line, why);
        }
        if let Err(why) = self.draft.table(&path, lines, line) {
            return self.draft.lost(lines, line, &why, "put the settings into that table");
        }
        if let Some(perm) = perm {
            self.perm(perm, &group.origin);
        }
        self.settings(&settings);
    }

    /// Reports a section for a cgroup of no rule, such as one for cgexec: a table would not create it.
    fn unused(&mut self, path: &str, origin: &Origin) {
        let (lines, line) = (self.lines(origin), origin.line);
        let how = format!("not converted: no rule uses the cgroup \"{}\"", path.escape_debug());
        let help = "keep the section in cgconfig.conf if cgexec or another program uses the cgroup: \
                    cgrulectl groups creates it";
        self.draft.differs(lines, line, &how, help);
        let text = lines.get(line);
        self.draft.comment(&format!("#   {}", text.trim()));
    }

    fn settings(&mut self, settings: &[&CgconfigSetting]) {
        let clashing = clashing_names(settings);
        let mut values: HashMap<&str, Vec<&str>> = HashMap::new();
        let mut last: HashMap<&str, usize> = HashMap::new();
        for (index, setting) in settings.iter().enumerate() {
            if fault(setting).is_some() {
                continue;
            }
            let all = values.entry(&*setting.name).or_default();
            all.extend(setting.values());
            // cgconfigparser writes one after the other.
            let overwritten = if settings::takes_several(&setting.name) { 0 } else { all.len() };
            all.drain(..overwritten.saturating_sub(1));
            last.insert(&*setting.name, index);
        }
        for (index, setting) in settings.iter().enumerate() {
            let (lines, line) = (self.lines(&setting.origin), setting.origin.line);
            self.remarks_before(&setting.origin);
            if let Some(SettingMessage { message, help }) = fault(setting) {
                self.draft.lost(lines, line, &message, &help);
            } else if last.get(&*setting.name) == Some(&index) {
                let values = values.get(&*setting.name).map_or(&[][..], |values| values);
                self.setting(setting, values, clashing.contains(&*setting.name));
            } else {
                self.draft.left_out(lines, line, "set again later");
            }
        }
    }

    /// Writes the values of all sections for a setting.
    fn setting(&mut self, setting: &CgconfigSetting, values: &[&str], clashes: bool) {
        let CgconfigSetting { name, origin, .. } = setting;
        let (lines, line) = (self.lines(origin), origin.line);
        let text = match values {
            [] => return self.draft.left_out(lines, line, "an empty value sets nothing"),
            [value] => pair(name, value, clashes),
            list => several(name, list, clashes),
        };
        if let Err(why) = says(&text, name, values) {
            let help = "a setting in a table cannot have this name or value";
            return self.draft.lost(lines, line, &why, help);
        }
        self.draft.lines(&text);
    }

    /// Writes owner and mode. A table has one owner, of the directory and the files by which
    /// processes are placed and cgroups created; cgconfig.conf has one for processes and one for
    /// everything else.
    fn perm(&mut self, perm: &PermSection, origin: &Origin) {
        let (lines, line) = (self.lines(origin), origin.line);
        let admin = names(&perm.admin);
        let task = names(&perm.task);
        let user = &*admin.0;
        let group = &*admin.1;
        let named = [&perm.admin.user, &perm.admin.group].into_iter().flatten();
        let mut named = named.map(|owner| &owner.mention);
        let unknown = named.find(|name| {
            cgconfig_conf::leading_number(&name.name).is_none()
                && !(self.host.knows)(name.kind, &name.name)
        });
        let help = "see owner and mode in cgruled-rules(5)";
        if let Some(unknown) = unknown {
            let how = format!("\"{}\" does not exist on this host", unknown.name.escape_debug());
            self.draft.differs(lines, line, &how, "the cgroup stays owned by root");
        } else if admin != task {
            let how = "perm has different owners for task and admin, and a table has one: the cgroup \
                       stays owned by root";
            self.draft.differs(lines, line, how, help);
        } else if !matches!((user, group), ("" | "root", "" | "root")) {
            let owner = if group.is_empty() { user.to_owned() } else { format!("{user}:{group}") };
            self.draft.lines(&format!("owner = {}\n", quoted(&owner)));
            let how =
                "the owner may place processes and create cgroups; the limits stay owned by root";
            self.draft.differs(lines, line, how, help);
        }
        if let Some(mode) = perm.admin.directory_mode {
            self.draft.lines(&format!("mode = \"{mode:04o}\"\n"));
        }
        if perm.admin.file_mode.is_some() || perm.task.file_mode.is_some() {
            self.draft.differs(lines, line, "fperm has no counterpart in a table", help);
        }
    }
}

/// Returns the first error in the values of a setting.
fn fault(setting: &CgconfigSetting) -> Option<SettingMessage> {
    setting.values().find_map(|value| settings::check(&setting.name, value).err())
}

/// Returns the names that cannot be bare keys: in TOML `a.b` cannot have a value and also be the
/// prefix of `a.b.c`. One pass with a set, because a section of 60,000 settings took a minute when
/// each name was compared with all others.
fn clashing_names<'s>(settings: &[&'s CgconfigSetting]) -> HashSet<&'s str> {
    let all: HashSet<&str> = settings.iter().map(|setting| &*setting.name).collect();
    let mut clashing = HashSet::new();
    for name in &all {
        let prefixes = name.match_indices('.').map(|(at, _)| &name[..at]);
        for prefix in prefixes.filter(|prefix| all.contains(prefix)) {
            clashing.extend([*name, prefix]);
        }
    }
    clashing
}

/// Returns user and group as a table names them; empty where the owner of the files does not
/// change.
fn names(of: &SectionOwnership) -> (String, String) {
    (name(of.user.as_ref()), name(of.group.as_ref()))
}

fn name(owner: Option<&WrittenOwner>) -> String {
    let Some(WrittenOwner { mention, .. }) = owner else { return String::new() };
    match cgconfig_conf::leading_number(&mention.name) {
        Some(u32::MAX) => String::new(),
        Some(id) => id.to_string(),
        None => mention.name.clone(),
    }
}

/// Returns the path of a table, or the reason why it has none.
fn path(text: &str) -> Result<String, String> {
    let Some(destination) = crate::config::cgrules_conf::destination(text) else {
        return Err("path outside of the hierarchy".to_owned());
    };
    let path = toml_text::destination(&destination);
    if path == "/" {
        return Err("the path is the root of the hierarchy".to_owned());
    }
    match Destination::parse(&path) {
        Ok(read) if read.pieces() == destination.pieces() => Ok(path),
        Ok(_) => Err("a table would have a different path".to_owned()),
        Err(error) => Err(error.message),
    }
}

/// Returns one line of a table.
pub(super) fn pair(key: &str, value: &str, quotes_key: bool) -> String {
    let key = if quotes_key { quoted(key) } else { key.to_owned() };
    let is_number = value.parse::<i64>().is_ok_and(|number| number.to_string() == value);
    let value = if is_number { value.to_owned() } else { quoted(value) };
    format!("{key} = {value}\n")
}

/// Returns one line of a table with a list of values.
fn several(key: &str, values: &[&str], quotes_key: bool) -> String {
    let key = if quotes_key { quoted(key) } else { key.to_owned() };
    format!("{key} = {}\n", toml_text::list(values))
}

/// Checks whether a line of a table is read as this setting.
fn says(text: &str, key: &str, values: &[&str]) -> Result<(), String> {
    let file: Arc<Path> = Arc::from(Path::new("/converted.toml"));
    let parsed = rules_toml::parse(&file, &format!("version = 1\n[cgroup.\"a\"]\n{text}"));
    if let Some(error) = parsed.diagnostics.iter().find(|diagnostic| diagnostic.is_error()) {
        return Err(error.message.clone());
    }
    let is_value = |read: &GroupSetting, value: &str| {
        read.key == key
            && match &read.value {
                SettingValue::Text(text) | SettingValue::Decimal(text) => text == value,
                SettingValue::Integer(number) => number.to_string() == value,
                SettingValue::Switch(_) => false,
            }
    };
    let read = parsed.groups.first().map_or(&[][..], |group| &group.settings);
    let is_same = read.len() == values.len()
        && read.iter().zip(values).all(|(read, value)| is_value(read, value));
    is_same.then_some(()).ok_or_else(|| "a table would have a different meaning".to_owned())
}

#[cfg(test)]
#[path = "cgconfig_tests.rs"]
mod tests;
