//! Converts the files of ananicy, one JSON object per line, to rules and tables; it reads no files.
//!
//! A rule names a program, perhaps with arguments or a regular expression of names, and a type or properties. Of the
//! properties only the cgroup is converted.

mod groups;
mod name_regex;
mod patterns;
mod rule_text;
mod selection;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Map, Value};

use super::draft::{SourceLines, TomlDraft};
use super::{HostFacts, SourceFile};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::rules::destination::{Destination, DestinationPart};
use crate::rules::{Criteria, Origin};
use rule_text::{rule_text, title};
use selection::Selection;

type AnanicyObject = Map<String, Value>;

const NO_RULE: &str = "a TOML rule cannot express this";
const KEEPS_PLACE: &str = "# Without a cgroup: no later rule for the program matches.";

/// Properties that are names or criteria and not settings.
const NAMES: [&str; 6] = ["name", "type", "cgroup", "cmdline", "cmdlines", "name_regex"];

/// Adds the rules and cgroups of all files. Types and cgroups may be defined in other files than
/// the rules.
pub(super) fn convert(sources: &[&SourceFile], host: &HostFacts<'_>, draft: &mut TomlDraft) {
    let mut set = RuleSet {
        host,
        draft,
        types: HashMap::new(),
        known_groups: HashSet::new(),
        last: HashMap::new(),
        last_moving: HashMap::new(),
        unused: BTreeMap::new(),
    };
    let files: Vec<AnanicyFile<'_>> = sources.iter().map(|source| set.read(source)).collect();
    for (index, file) in files.iter().enumerate() {
        for (number, object) in &file.objects {
            match kind(object) {
                Some(ObjectKind::Type(name)) => set.describe(file, *number, name, object),
                Some(ObjectKind::Rule(name)) => {
                    if let Ok(selection) = Selection::of(name, object) {
                        set.last.insert(selection, (index, *number));
                    }
                }
                Some(ObjectKind::Group(name)) => {
                    set.known_groups.insert(group(name).to_string());
                }
                None => {}
            }
        }
    }
    set.find_moving(&files);
    for (index, file) in files.iter().enumerate() {
        set.rules(index, file);
    }
    set.patterns(&files);
    if !set.report_nothing(&files) {
        files.iter().for_each(|file| set.groups(file));
    }
    set.count_unused(&files);
}

/// The index of a file and a line in it.
type RulePlace = (usize, u32);

/// A file and the objects in it by line.
struct AnanicyFile<'s> {
    source: &'s SourceFile,
    lines: SourceLines<'s>,
    objects: Vec<(u32, AnanicyObject)>,
}

enum ObjectKind<'o> {
    Rule(&'o str),
    Type(&'o str),
    Group(&'o str),
}

/// Returns the kind of a line with the name that it defines.
fn kind(object: &AnanicyObject) -> Option<ObjectKind<'_>> {
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    match (text("name"), text("type"), text("cgroup")) {
        (Some(name), _, _) => Some(ObjectKind::Rule(name)),
        (None, Some(name), _) => Some(ObjectKind::Type(name)),
        (None, None, Some(name)) => Some(ObjectKind::Group(name)),
        (None, None, None) => None,
    }
}

struct RuleSet<'f> {
    host: &'f HostFacts<'f>,
    draft: &'f mut TomlDraft,
    types: HashMap<String, AnanicyObject>,
    /// The names of the cgroups that are defined.
    known_groups: HashSet<String>,
    /// The last file and line that selects the same processes; it overrides the others.
    last: HashMap<Selection, RulePlace>,
    /// The last rule with a cgroup for each program.
    last_moving: HashMap<String, RulePlace>,
    /// The properties that have no equivalent, by type, with the number of rules that have them.
    unused: BTreeMap<String, (BTreeSet<String>, usize)>,
}

impl RuleSet<'_> {
    fn read<'s>(&mut self, source: &'s SourceFile) -> AnanicyFile<'s> {
        let lines = SourceLines::new(source);
        let mut objects = Vec::new();
        for (number, line) in lines.all() {
            let text = without_remark(line).0;
            if text.is_empty() {
                continue;
            }
            match serde_json::from_str::<AnanicyObject>(text) {
                Ok(object) if !object.contains_key("name") && is_rules(source) => {
                    let help = "define types and cgroups in .types and .cgroups files";
                    self.draft.lost(&lines, number, "rule without a program name", help);
                }
                Ok(object) if kind(&object).is_some() => objects.push((number, object)),
                Ok(_) => {
                    let help = "ananicy ignores it too";
                    self.draft.lost(&lines, number, "object without name, type or cgroup", help);
                }
                Err(error) => {
                    let why = format!("invalid JSON object: {error}");
                    let help = "write one JSON object per line";
                    self.draft.lost(&lines, number, &why, help);
                }
            }
        }
        AnanicyFile { source, lines, objects }
    }

    /// Adds a type. The last definition of a type is used.
    fn describe(
        &mut self,
        file: &AnanicyFile<'_>,
        number: u32,
        name: &str,
        object: &AnanicyObject,
    ) {
        if self.types.insert(name.to_owned(), object.clone()).is_some_and(|old| old != *object) {
            let how =
                format!("duplicate type \"{}\": this definition is used", name.escape_debug());
            self.draft.differs(&file.lines, number, &how, "remove the other one");
        }
    }

    fn rules(&mut self, index: usize, file: &AnanicyFile<'_>) {
        let objects: HashMap<u32, &AnanicyObject> =
            file.objects.iter().map(|(number, object)| (*number, object)).collect();
        // A collection has hundreds of files without a cgroup, and their comments had a megabyte.
        let has_text = |(number, object): &(u32, AnanicyObject)| {
            self.cgroup_of(object).is_some() || self.keeps_place((index, *number), object)
        };
        if !file.objects.iter().any(has_text) {
            for (number, object) in file.objects.iter().filter(|(_, object)| is_rule(object)) {
                self.rule(index, file, *number, object);
            }
            return;
        }
        self.draft.blank();
        self.draft.comment(&format!("# {}", file.source.file.display()));
        let mut begun = false;
        for (number, line) in file.lines.all() {
            let (_, warning) = without_remark(line);
            let rule = objects.get(&number).copied().filter(|object| is_rule(object));
            let text = rule.and_then(|rule| self.rule(index, file, number, rule));
            if text.is_some() || (warning.is_some() && begun) {
                self.draft.blank();
            }
            begun = warning.is_none();
            warning.into_iter().for_each(|warning| self.draft.comment(warning));
            text.into_iter().for_each(|(text, when)| self.draft.rule(&text, &when));
        }
    }

    /// Returns the text of a rule and its criteria, if it has a cgroup or precedes one for the same program.
    fn rule(
        &mut self,
        index: usize,
        file: &AnanicyFile<'_>,
        number: u32,
        rule: &AnanicyObject,
    ) -> Option<(String, Criteria)> {
        let name = rule.get("name").and_then(Value::as_str)?;
        let selection = Selection::of(name, rule);
        let last = selection.as_ref().ok().and_then(|selection| self.last.get(selection));
        if last.is_some_and(|last| *last != (index, number)) {
            let how =
                format!("duplicate rule for \"{}\": the last one is used", name.escape_debug());
            self.draft.differs(&file.lines, number, &how, "remove this one");
            return None;
        }
        self.note_properties(file, number, rule);
        // An empty name only stands beside a regular expression.
        if name.is_empty() && rule.contains_key("name_regex") {
            return None;
        }
        let cgroup = self.cgroup_of(rule).map(str::to_owned);
        if cgroup.is_none() && !self.keeps_place((index, number), rule) {
            return None;
        }
        let origin = Origin { file: file.source.file.clone(), line: number };
        let criteria = selection.as_ref().map_err(String::clone).and_then(Selection::criteria);
        let text = criteria.and_then(|when| {
            let text =
                rule_text(&title(&origin), origin, when.clone(), cgroup.as_deref().map(group))?;
            Ok((text, when))
        });
        let text = text.map_err(|why| self.draft.lost(&file.lines, number, &why, NO_RULE)).ok()?;
        self.remark(file, number, name, cgroup.as_deref());
        if selection.is_ok_and(|selection| selection.is_by_invoked_name()) {
            let how = "compares only the name by which the program was started";
            self.draft.differs(&file.lines, number, how, "write argument instead of argument.0");
        }
        Some(text)
    }

    /// Records the properties of a rule that have no equivalent, and reports an unknown type.
    fn note_properties(&mut self, file: &AnanicyFile<'_>, number: u32, rule: &AnanicyObject) {
        let kind = rule.get("type").and_then(Value::as_str);
        let of_type = kind.and_then(|kind| self.types.get(kind)).cloned().unwrap_or_default();
        if let Some(kind) = kind.filter(|kind| !self.types.contains_key(*kind)) {
            let how = format!("unknown type \"{}\"", kind.escape_debug());
            let help = "convert the .types files together with the rules";
            self.draft.differs(&file.lines, number, &how, help);
        }
        self.note_unused(kind.unwrap_or_default(), rule, &of_type);
    }

    /// Reports what is probably not intended about a rule that is converted.
    fn remark(&mut self, file: &AnanicyFile<'_>, number: u32, name: &str, cgroup: Option<&str>) {
        if let Some(how) = unlikely(name) {
            let help = "give the name of the executable, or remove the rule";
            self.draft.differs(&file.lines, number, how, help);
        }
        let Some(cgroup) = cgroup else { return self.draft.comment(KEEPS_PLACE) };
        if !self.known_groups.contains(&group(cgroup).to_string()) {
            let how = format!("cgroup \"{}\" is not defined", cgroup.escape_debug());
            let help = "it gets no limits; convert the .cgroups files together with the rules";
            self.draft.differs(&file.lines, number, &how, help);
        }
    }

    /// Finds the last rule with a cgroup for each program.
    fn find_moving(&mut self, files: &[AnanicyFile<'_>]) {
        for (index, file) in files.iter().enumerate() {
            for (number, object) in &file.objects {
                if let (Some(ObjectKind::Rule(name)), Some(_)) =
                    (kind(object), self.cgroup_of(object))
                {
                    self.last_moving.insert(name.to_owned(), (index, *number));
                }
            }
        }
    }

    /// Checks whether a rule without a cgroup precedes one with a cgroup for the same program: of both, the first one
    /// that matches decides.
    fn keeps_place(&self, place: RulePlace, rule: &AnanicyObject) -> bool {
        let name = rule.get("name").and_then(Value::as_str).unwrap_or_default();
        let is_before = self.last_moving.get(name).is_some_and(|last| place < *last);
        is_before && self.cgroup_of(rule).is_none()
    }

    /// Returns the cgroup of a rule or of its type; none for another object.
    fn cgroup_of<'o>(&'o self, rule: &'o AnanicyObject) -> Option<&'o str> {
        let kind = rule.get("type").and_then(Value::as_str);
        let of_type = || self.types.get(kind?)?.get("cgroup");
        let cgroup = rule.get("cgroup").or_else(of_type).filter(|_| is_rule(rule));
        cgroup.and_then(Value::as_str)
    }

    /// Reports that the files have rules, but none with a cgroup. Returns whether that is so.
    fn report_nothing(&mut self, files: &[AnanicyFile<'_>]) -> bool {
        let objects = files.iter().flat_map(|file| &file.objects).map(|(_, object)| object);
        let rules: Vec<&AnanicyObject> = objects.filter(|object| is_rule(object)).collect();
        let has_group = |rule: &&AnanicyObject| self.cgroup_of(rule).is_some();
        let Some(file) = files.first().filter(|_| !rules.is_empty()) else { return false };
        if rules.iter().any(has_group) {
            return false;
        }
        let how = format!("none of {} rules has a cgroup: nothing to convert", rules.len());
        self.draft.comment(&format!("# {how}"));
        let about = Diagnostic::about(&file.source.file, Severity::Warning, how);
        let help = "cgruled only assigns cgroups; nice values and schedulers stay with ananicy";
        self.draft.pass_on(vec![about.with_help(help)]);
        true
    }

    fn note_unused(&mut self, kind: &str, rule: &AnanicyObject, of_type: &AnanicyObject) {
        let keys = rule.keys().chain(of_type.keys()).filter(|key| !NAMES.contains(&key.as_str()));
        let mut keys = keys.cloned().peekable();
        if keys.peek().is_some() {
            let (known, count) = self.unused.entry(kind.to_owned()).or_default();
            known.extend(keys);
            *count += 1;
        }
    }

    /// Reports once for each type the properties that have no equivalent.
    fn count_unused(&mut self, files: &[AnanicyFile<'_>]) {
        let Some(file) = files.first() else { return };
        if !self.unused.is_empty() {
            self.draft.blank();
        }
        for (kind, (keys, count)) in &self.unused {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let of = match kind.as_str() {
                "" => "without a type".to_owned(),
                kind => format!("of type \"{}\"", kind.escape_debug()),
            };
            let how = format!("{count} rules {of}: no counterpart: {}", keys.join(", "));
            self.draft.comment(&format!("# {how}"));
            let about = Diagnostic::about(&file.source.file, Severity::Warning, how);
            let help = "cgruled only assigns cgroups; use cpu.weight of the cgroup instead of nice";
            self.draft.pass_on(vec![about.with_help(help)]);
        }
    }
}

/// Returns the reason why a name is probably not that of an executable. Ananicy compares it with
/// the name of the process too, which the process itself can set.
fn unlikely(name: &str) -> Option<&'static str> {
    if name.to_ascii_lowercase().ends_with(".exe") {
        Some("probably matches no process: under Wine the executable is the loader of Wine")
    } else if name.contains(char::is_whitespace) {
        Some(
            "probably matches no process: names with a space are mostly those of processes and \
              threads, and an executable is compared",
        )
    } else {
        None
    }
}

/// Checks whether an object is the rule of a program.
fn is_rule(object: &AnanicyObject) -> bool {
    matches!(kind(object), Some(ObjectKind::Rule(_)))
}

/// Checks whether a file may contain rules only.
fn is_rules(source: &SourceFile) -> bool {
    source.file.extension().is_some_and(|extension| extension == "rules")
}

/// Returns the path of an ananicy cgroup. Its name has no specifiers.
fn group(name: &str) -> Destination {
    let path = name.trim_matches('/');
    Destination::from_pieces(name, vec![DestinationPart::Literal(path.to_owned())])
}

/// Splits a line into its text and its comment, which includes the `#`. A `#` within the object is
/// text.
fn without_remark(line: &str) -> (&str, Option<&str>) {
    let end = line.rfind('}').map_or(0, |end| end + 1);
    match line[end..].find('#').map(|at| end + at) {
        Some(at) if end > 0 && !line.trim_start().starts_with('#') => {
            (line[..at].trim(), Some(&line[at..]))
        }
        _ if line.trim_start().starts_with('#') => ("", Some(line.trim_start())),
        Some(_) | None => (line.trim(), None),
    }
}

#[cfg(test)]
#[path = "ananicy_tests.rs"]
mod tests;
