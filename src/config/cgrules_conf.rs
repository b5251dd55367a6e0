//! Parses `/etc/cgrules.conf` and the files of `/etc/cgrules.d` as cgrulesengd 2.0.2 does, plus
//! quotes, `ignore_rt` and the destination `*` of ignore rules from 3.2; it reads no files and
//! resolves no names.
//!
//! ```text
//! user[:program]  controllers  destination  [options]     # comment
//! %               controllers  destination                # continues the rule above
//! ```
//!
//! Where cgrulesengd 2.0.2 refuses the whole file because of one line, only that line is ignored
//! here; [`ParsedCgrules::refusals`] reports it to callers that must be equally strict.

mod destination;
mod key;
mod line;
mod rest;

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::criteria::{NameKind, NameRef};
use super::diagnostic::{Diagnostic, Severity};
use super::rule_table::{WrittenRule, default_name};
use super::source_text::{Diagnostics, SourceText};
use crate::rules::destination::Destination;
use crate::rules::{Action, Inapplicable, LeaveUnits, Negated, Origin, Rule};
use key::{CgrulesKey, KeyProgram};
use line::{LineField, Shape, fields, is_blank};
use rest::LineRest;

/// The longest line in bytes that cgrulesengd 2.0.2 reads at once; it reads the rest as another
/// line.
const LINE_MAX: usize = 8551;
/// The number of refusals kept. cgrulesengd 2.0.2 stops at the first one with an existing user.
const REFUSALS_KEPT: usize = 100;

const SKIPPED_IF_KNOWN: &str =
    "cgrulesengd would refuse the whole file if the user exists; cgruled ignores only this line";
const SKIPPED: &str = "cgrulesengd would refuse the whole file; cgruled ignores only this line";

/// The parsed rules of one file, with diagnostics.
#[derive(Debug)]
pub struct ParsedCgrules {
    /// The valid rules in the order of the file, with unresolved names.
    pub rules: Vec<WrittenRule>,
    /// Errors and warnings in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// The lines for which cgrulesengd 2.0.2 would refuse the whole file, in order, at most 100.
    pub refusals: Vec<UpstreamRefusal>,
}

/// A line for which cgrulesengd 2.0.2 would refuse the whole file.
#[derive(Debug)]
pub struct UpstreamRefusal {
    /// The error in this line.
    pub diagnostic: Diagnostic,
    /// The user that cgrulesengd 2.0.2 looks up first: if it does not exist, the line is skipped
    /// and parsing continues.
    pub unless_unknown: Option<NameRef>,
}

/// Decodes the bytes of a file. cgrulesengd 2.0.2 ignores encodings; invalid UTF-8 is replaced,
/// because it does no harm in a comment.
pub fn decode(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Parses the text of `file`, as returned by [`decode`].
pub fn parse(file: &Arc<Path>, text: &str) -> ParsedCgrules {
    let text = SourceText::new(file, text);
    let mut reader = CgrulesReader {
        report: Diagnostics::new(&text),
        rules: Vec::new(),
        refusals: Vec::new(),
        head: Continued::Missing,
        user: None,
    };
    let mut start = 0;
    for line in text.as_str().split_inclusive('\n') {
        reader.line(line.strip_suffix('\n').unwrap_or(line), start);
        start += line.len();
    }
    let CgrulesReader { report, rules, refusals, .. } = reader;
    ParsedCgrules { rules, diagnostics: report.finish(), refusals }
}

/// Parses a destination in the syntax of `cgrules.conf`. Returns `None` if it leads out of the
/// hierarchy.
pub fn destination(text: &str) -> Option<Destination> {
    destination::read(text).map(|read| read.destination)
}

/// The rule that a line beginning with `%` continues.
#[derive(Clone, Debug)]
enum Continued {
    /// No rule precedes the line.
    Missing,
    /// The rule with this index.
    Rule(usize),
    /// A rule that ignores processes, or that an invalid target has ended.
    Closed,
    /// A rule that is not loaded.
    Dropped,
}

struct CgrulesReader<'t> {
    report: Diagnostics<'t>,
    rules: Vec<WrittenRule>,
    refusals: Vec<UpstreamRefusal>,
    head: Continued,
    /// The user of the last line that began a rule, valid or not.
    user: Option<NameRef>,
}

impl CgrulesReader<'_> {
    /// Parses the line that begins at byte `start`.
    fn line(&mut self, whole: &str, start: usize) {
        let read = self.cut(whole, start);
        let rule = read.trim_start_matches([' ', '\t']);
        let start = start + read.len() - rule.len();
        if rule.is_empty() {
            return;
        }
        if rule.chars().all(is_blank) {
            let message = "blank line with white space other than spaces and tabs";
            let help = "cgrulesengd would refuse the whole file; make the line empty";
            self.refuse(
                Severity::Warning,
                start..start + rule.len(),
                message.to_owned(),
                help,
                None,
            );
            return;
        }
        let continues = rule.starts_with('%');
        if !continues {
            self.head = Continued::Dropped;
            self.user = None;
        }
        let fields = fields(rule, start);
        if let Some(at) = rule.find(char::REPLACEMENT_CHARACTER) {
            self.not_utf8(start + at, fields.len(), continues);
            return;
        }
        self.remark_fields(&fields);
        match (&*fields, continues) {
            ([key, rest @ ..], false) if rest.len() > 1 => self.rule(key, rest),
            ([_, rest @ ..], true) if rest.len() > 1 => self.continuation(rest, start),
            _ => {
                let message = "incomplete rule: needs user[:program], controllers and destination";
                let span = start..start + rule.trim_end().len();
                // cgrulesengd does not even count the fields of a continuation line if its user is
                // unknown.
                let user = self.user.clone().filter(|_| continues);
                self.refuse(Severity::Error, span, message.to_owned(), SKIPPED, user);
            }
        }
    }

    /// Ignores a line with invalid UTF-8. cgrulesengd 2.0.2 counts its fields like those of any
    /// other line.
    fn not_utf8(&mut self, at: usize, fields: usize, continues: bool) {
        let span = at..at + 1;
        let message = "invalid UTF-8";
        if fields < 3 {
            let user = self.user.clone().filter(|_| continues);
            self.refuse(Severity::Error, span, message.to_owned(), SKIPPED, user);
        } else {
            self.report.error_help(span, message, "line ignored; save the file as UTF-8");
        }
    }

    /// Returns the effective part of a line: up to a NUL byte, then up to a comment.
    fn cut<'l>(&mut self, line: &'l str, start: usize) -> &'l str {
        if line.len() > LINE_MAX {
            self.long_line(line, start);
        }
        let read = match line.find('\0') {
            None => line,
            Some(at) => {
                let message = "NUL byte: the rest of the line is ignored";
                let help = "cgrulesengd ignores it too";
                self.report.warning(Some(start + at..start + at + 1), message, help);
                &line[..at]
            }
        };
        if start == 0 && read.starts_with('\u{feff}') {
            let message = "byte order mark is read as part of the first name";
            self.report.warning(Some(0..3), message, "save the file without a byte order mark");
        }
        read.split('#').next().unwrap_or_default()
    }

    /// Reports a line that is too long: cgrulesengd 2.0.2 reads its end as another line, even in a
    /// comment.
    fn long_line(&mut self, line: &str, start: usize) {
        let message = format!("line longer than {LINE_MAX} bytes");
        let end = (LINE_MAX..line.len()).find(|&at| line.is_char_boundary(at));
        let (first, rest) = line.split_at(end.unwrap_or(line.len()));
        let span = start..start + 1;
        if is_incomplete(first) || is_incomplete(rest) {
            let help = "cgrulesengd would read the rest as another line and refuse the whole file";
            self.refuse(Severity::Warning, span, message, help, None);
        } else {
            let help = "cgrulesengd would read the rest as another line; cgruled reads one line";
            self.report.warning(Some(span), message, help);
        }
    }

    /// Reports an error for which cgrulesengd 2.0.2 refuses the whole file.
    fn refuse(
        &mut self,
        severity: Severity,
        span: Range<usize>,
        message: String,
        help: &str,
        unless_unknown: Option<NameRef>,
    ) {
        let text = self.report.text();
        if self.refusals.len() < REFUSALS_KEPT {
            let diagnostic = Diagnostic {
                place: Some(text.place(span.clone())),
                ..Diagnostic::about(text.file(), severity, &*message).with_help(help)
            };
            self.refusals.push(UpstreamRefusal { diagnostic, unless_unknown });
        }
        self.report.add(severity, Some(span), message, Some(help.to_owned()));
    }

    fn remark_fields(&mut self, fields: &[LineField]) {
        if let Some(open) = fields.iter().find(|field| field.shape == Shape::OpenQuote) {
            let help = "it is read as a literal quote, as by cgrulesengd 2.0.2";
            self.report.warning(Some(open.span.clone()), "missing closing quote", help);
        }
        let text = self.report.text().as_str();
        let quoted_group = fields.first().filter(|key| {
            key.shape == Shape::Plain
                && text.get(key.span.clone()).is_some_and(|key| key.starts_with("@\""))
        });
        if let Some(key) = quoted_group {
            let help = "put the quotes around the name and its @: \"@domain users\"";
            self.report.warning(
                Some(key.span.clone()),
                "a quote after @ is part of the name",
                help,
            );
        }
        if let [_, _, _, _, extra, ..] = fields {
            let message = "text after the options is ignored";
            self.report.warning(Some(extra.span.clone()), message, "remove it");
        }
    }

    /// Parses a line that begins a rule.
    fn rule(&mut self, field: &LineField, rest: &[LineField]) {
        let Some(CgrulesKey { criteria, mention, program }) =
            key::read(field, self.report.text().as_str())
        else {
            let message = "rule without a user or group";
            let help = "rule ignored: write * to match all users";
            self.report.warning(Some(field.span.clone()), message, help);
            // cgrulesengd 2.0.2 looks up the empty name, which no user has.
            let span = field.span.start..field.span.start;
            self.user = Some(NameRef { kind: NameKind::User, name: String::new(), span });
            return;
        };
        self.user.clone_from(&mention);
        self.remark_program(program, field);
        let action = match self.rest(rest, mention.as_ref(), true) {
            None => return,
            Some(LineRest::Ignore(when)) => Action::Ignore(when),
            Some(LineRest::Nothing(reason)) => {
                Action::Inapplicable(Box::new(Inapplicable { targets: Vec::new(), reason }))
            }
            Some(LineRest::Place(target)) => Action::Place(vec![target]),
        };
        let may_go_on = matches!(&action, Action::Place(_));
        self.head = if may_go_on { Continued::Rule(self.rules.len()) } else { Continued::Closed };
        let text = self.report.text();
        let origin = Origin { file: text.file().clone(), line: text.line(field.span.start) };
        let rule = Rule {
            name: default_name(&origin),
            origin,
            when: criteria,
            not: Negated::default(),
            exe_anywhere: true,
            is_gated: false,
            leave_units: LeaveUnits::AsTheOriginal,
            leave_containers: crate::rules::container::LeaveContainers::No,
            action,
        };
        let mentions = mention.into_iter().collect();
        self.rules.push(WrittenRule { rule, priority: 0, mentions, gated: Vec::new() });
    }

    /// Parses a line that continues a rule.
    fn continuation(&mut self, rest: &[LineField], start: usize) {
        let user = self.user.clone();
        let Some(read) = self.rest(rest, user.as_ref(), false) else { return };
        self.remark_options(rest);
        let useless = match (&self.head, read) {
            (&Continued::Rule(index), LineRest::Place(target)) => {
                if let Action::Place(targets) = &mut self.rules[index].rule.action {
                    targets.push(target);
                }
                return;
            }
            // cgrulesengd 2.0.2 runs the lines of a rule until one fails.
            (Continued::Rule(_), LineRest::Nothing(_)) => {
                self.head = Continued::Closed;
                return;
            }
            // cgrulesengd does not read the option from a continuation line.
            (Continued::Rule(_), LineRest::Ignore(_)) => return,
            (Continued::Missing, _) => "continuation ignored: no rule comes before it",
            (Continued::Closed, _) => {
                "continuation ignored: an earlier line of this rule is invalid or ignores processes"
            }
            (Continued::Dropped, _) => "continuation ignored: the rule itself is not loaded",
        };
        self.report.warning(
            Some(start..start + 1),
            useless,
            "correct the rule, or remove this line",
        );
    }

    /// Warns about options on a continuation line, which have no effect.
    fn remark_options(&mut self, rest: &[LineField]) {
        if let [_, _, options, ..] = rest {
            let message = "options of a continuation line are ignored";
            self.report.warning(
                Some(options.span.clone()),
                message,
                "the line still moves processes",
            );
        }
    }

    fn remark_program(&mut self, program: KeyProgram, field: &LineField) {
        let (message, help) = match program {
            KeyProgram::Right => return,
            KeyProgram::InnerStar => {
                ("* is a wildcard only at the end of a program", "it matches a literal * here")
            }
            KeyProgram::Relative => (
                "relative path of a program: the rule never matches",
                "write an absolute path; a bare name cannot end in *",
            ),
        };
        self.report.warning(Some(field.span.clone()), message, help);
    }
}

/// Checks whether cgrulesengd would read fewer than the three fields of a rule.
fn is_incomplete(line: &str) -> bool {
    let read = line.split(['#', '\0']).next().unwrap_or_default();
    matches!(fields(read, 0).len(), 1 | 2)
}

#[cfg(test)]
#[path = "cgrules_conf_tests.rs"]
mod tests;
