//! Converts `cgconfig.conf` to `[cgroup."path"]` tables; it reads no files.

use std::path::Path;
use std::sync::Arc;

use super::draft::{SourceLines, TomlDraft};
use super::toml_text::{self, quoted};
use super::{HostFacts, SourceFile};
use crate::cgroup::settings;
use crate::config::SettingValue;
use crate::config::cgconfig_conf::{
    self, CgconfigSetting, GroupSection, PermSection, SectionOwnership,
};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::rules_toml::{self, NameRef};
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
    fn line(&self) -> u32 {
        match self {
            Self::Group(section) => section.origin.line,
            Self::Other(setting, _) => setting.origin.line,
        }
    }
}

/// Adds the cgroups of a file.
pub(super) fn convert(source: &SourceFile, host: &HostFacts<'_>, draft: &mut TomlDraft) {
    let mut parsed = cgconfig_conf::parse(&source.file, &source.text);
    let lines = SourceLines::new(source);
    draft.blank();
    draft.comment(&format!("# {}", source.file.display()));
    // A section that was not parsed is not converted either.
    for diagnostic in &mut parsed.diagnostics {
        if let (Some(place), Severity::Error) = (&diagnostic.place, diagnostic.severity) {
            draft.left_out(&lines, place.line, &diagnostic.message);
        }
    }
    draft.pass_on(std::mem::take(&mut parsed.diagnostics));
    let groups = parsed.templates.iter().chain(&parsed.groups).map(AnySection::Group);
    let mut sections: Vec<AnySection<'_>> = groups.collect();
    let others = [
        (&parsed.mounts, "mount"),
        (&parsed.namespaces, "namespace"),
        (&parsed.systemd, "systemd"),
    ];
    for (settings, kind) in others {
        sections.extend(settings.iter().map(|setting| AnySection::Other(setting, kind)));
    }
    sections.sort_by_key(AnySection::line);
    let mut file = CgconfigFile { host, lines: &lines, draft, remarked: 0 };
    for section in &sections {
        file.section(section);
    }
    for _ in &parsed.defaults {
        let how =
            "the default section is not converted: it applies to cgroups of cgconfigparser only";
        file.draft.comment(&format!("# {how}"));
        let about = Diagnostic::about(&source.file, Severity::Warning, how);
        file.draft.pass_on(vec![about.with_help("write owner and mode in each table")]);
    }
    file.remarks_before(u32::MAX);
}

struct CgconfigFile<'f, 's> {
    host: &'f HostFacts<'f>,
    lines: &'f SourceLines<'s>,
    draft: &'f mut TomlDraft,
    /// The number of lines up to which comments are written.
    remarked: u32,
}

impl CgconfigFile<'_, '_> {
    fn section(&mut self, section: &AnySection<'_>) {
        match section {
            AnySection::Group(group) => {
                self.draft.blank();
                self.remarks_before(section.line());
                self.group(group);
            }
            AnySection::Other(setting, kind) => {
                self.remarks_before(section.line());
                let why = format!("part of a {kind} section");
                self.draft.lost(self.lines, setting.origin.line, &why, NOT_RULES);
            }
        }
    }

    /// Writes the comments that precede a line.
    fn remarks_before(&mut self, line: u32) {
        let lines = self.lines.all().skip(self.remarked as usize);
        for (number, text) in lines.take_while(|(number, _)| *number < line) {
            self.remarked = number;
            if let Some(warning) = text.trim_start().strip_prefix('#') {
                self.draft.comment(&format!("#{warning}"));
            } else if let Some(warning) = text.strip_prefix('*') {
                self.draft.comment(&format!("# {warning}"));
            }
        }
    }

    fn group(&mut self, group: &GroupSection) {
        let line = group.origin.line;
        let path = match path(&group.text) {
            Ok(path) => path,
            Err(why) => {
                let help = "a [cgroup] table cannot have this path";
                return self.draft.lost(self.lines, line, &why, help);
            }
        };
        let settings: Vec<&CgconfigSetting> =
            group.controllers.iter().flat_map(|controller| &controller.settings).collect();
        let perm = group.perm.as_ref();
        if settings.is_empty() && perm.is_none_or(|perm| *perm == PermSection::default()) {
            let why = "a cgroup without settings needs no table";
            return self.draft.left_out(self.lines, line, why);
        }
        if let Err(why) = self.draft.table(&path, self.lines, line) {
            return self.draft.lost(self.lines, line, &why, "put the settings into that table");
        }
        if let Some(perm) = perm {
            self.perm(perm, line);
        }
        for (index, setting) in settings.iter().enumerate() {
            self.remarks_before(setting.origin.line);
            self.setting(setting, &settings, index);
        }
    }

    fn setting(&mut self, setting: &CgconfigSetting, all: &[&CgconfigSetting], index: usize) {
        let CgconfigSetting { name, value, origin: Origin { line, .. } } = setting;
        if all[..index].iter().any(|other| other.name == *name) {
            let why = format!("duplicate setting {name}");
            return self.draft.lost(self.lines, *line, &why, "remove one of them");
        }
        if let Err(diagnostic) = settings::check(name, value) {
            return self.draft.lost(self.lines, *line, &diagnostic.message, &diagnostic.help);
        }
        // In TOML `a.b` cannot have a value and also be the prefix of `a.b.c`.
        let begins = |long: &str, short: &str| {
            long.strip_prefix(short).is_some_and(|rest| rest.starts_with('.'))
        };
        let clashes =
            all.iter().any(|other| begins(name, &other.name) || begins(&other.name, name));
        let text = pair(name, value, clashes);
        if let Err(why) = says(&text, name, value) {
            let help = "a setting in a table cannot have this name or value";
            return self.draft.lost(self.lines, *line, &why, help);
        }
        self.draft.lines(&text);
    }

    /// Writes owner and mode. A table has one owner, of the directory and the files by which
    /// processes are placed and cgroups created; cgconfig.conf has one for processes and one for
    /// everything else.
    fn perm(&mut self, perm: &PermSection, line: u32) {
        let admin = names(&perm.admin);
        let task = names(&perm.task);
        let user = &*admin.0;
        let group = &*admin.1;
        let mut named = [&perm.admin.user, &perm.admin.group].into_iter().flatten();
        let unknown = named.find(|name| {
            cgconfig_conf::leading_number(&name.name).is_none()
                && !(self.host.knows)(name.kind, &name.name)
        });
        let help = "see owner and mode in cgruled-rules(5)";
        if let Some(unknown) = unknown {
            let how = format!("\"{}\" does not exist on this host", unknown.name.escape_debug());
            self.draft.differs(self.lines, line, &how, "the cgroup stays owned by root");
        } else if admin != task {
            let why = "perm has different owners for task and admin; a table has one";
            self.draft.lost(self.lines, line, why, help);
        } else if !matches!((user, group), ("" | "root", "" | "root")) {
            let owner = if group.is_empty() { user.to_owned() } else { format!("{user}:{group}") };
            self.draft.lines(&format!("owner = {}\n", quoted(&owner)));
            let how =
                "the owner may place processes and create cgroups; the limits stay owned by root";
            self.draft.differs(self.lines, line, how, help);
        }
        if let Some(mode) = perm.admin.directory_mode {
            self.draft.lines(&format!("mode = \"{mode:04o}\"\n"));
        }
        if perm.admin.file_mode.is_some() || perm.task.file_mode.is_some() {
            self.draft.differs(self.lines, line, "fperm has no counterpart in a table", help);
        }
    }
}

/// Returns user and group as a table names them; empty where the owner of the files does not
/// change.
fn names(of: &SectionOwnership) -> (String, String) {
    let name = |mention: &NameRef| match cgconfig_conf::leading_number(&mention.name) {
        Some(u32::MAX) => String::new(),
        Some(id) => id.to_string(),
        None => mention.name.clone(),
    };
    let name = |mention: &Option<NameRef>| mention.as_ref().map_or_else(String::new, name);
    (name(&of.user), name(&of.group))
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

/// Checks whether a line of a table is read as this setting.
fn says(text: &str, key: &str, value: &str) -> Result<(), String> {
    let file: Arc<Path> = Arc::from(Path::new("/converted.toml"));
    let parsed = rules_toml::parse(&file, &format!("version = 1\n[cgroup.\"a\"]\n{text}"));
    if let Some(error) = parsed.diagnostics.iter().find(|diagnostic| diagnostic.is_error()) {
        return Err(error.message.clone());
    }
    let read = parsed.groups.first().and_then(|group| group.settings.first());
    let is_same = read.is_some_and(|read| {
        read.key == key
            && match &read.value {
                SettingValue::Text(text) | SettingValue::Decimal(text) => text == value,
                SettingValue::Integer(number) => number.to_string() == value,
                SettingValue::Switch(_) => false,
            }
    });
    is_same.then_some(()).ok_or_else(|| "a table would have a different meaning".to_owned())
}

#[cfg(test)]
#[path = "cgconfig_tests.rs"]
mod tests;
