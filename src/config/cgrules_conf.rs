//! `/etc/cgrules.conf` and the files of `/etc/cgrules.d`, as cgrulesengd 2.0.2 reads them; and from
//! 3.2 quotes, `ignore_rt` and the destination `*` of rules that ignore. Pure.
//!
//! ```text
//! user[:program]  controllers  destination  [options]     # comment
//! %               controllers  destination                # more of the rule above
//! ```
//!
//! Where 2.0.2 refuses the whole file because of one line, that line is left out here, and
//! [`Parsed::refusals`] says so for a caller that wants to be as strict.

mod destination;
mod key;
mod line;
mod rest;

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::criteria::{Mention, NameKind};
use super::diagnostic::{Diagnostic, Severity};
use super::rule_table::{WrittenRule, default_name};
use super::source_text::{Report, SourceText};
use crate::rules::destination::Destination;
use crate::rules::{Action, Inapplicable, LeaveUnits, Negated, Origin, Rule};
use key::{Key, Program};
use line::{Field, Shape, fields, is_blank};
use rest::Rest;

/// Bytes of a line that 2.0.2 reads at once; it takes what follows for another line.
const LINE_MAX: usize = 8551;
/// Refusals that are kept: the first whose user exists is what 2.0.2 stops at.
const REFUSALS_KEPT: usize = 100;

const SKIPPED_IF_KNOWN: &str =
    "cgrulesengd would refuse the whole file if it knows the user; here this line is left out";
const SKIPPED: &str = "cgrulesengd would refuse the whole file; here only this line is left out";

/// What a file says.
#[derive(Debug)]
pub struct Parsed {
    /// The rules that are right, in the order of the file. Their names are not resolved.
    pub rules: Vec<WrittenRule>,
    /// What is wrong, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// The lines for which cgrulesengd 2.0.2 would refuse the whole file, in order, 100 at most.
    pub refusals: Vec<Refusal>,
}

/// A line for which cgrulesengd 2.0.2 would refuse the whole file.
#[derive(Debug)]
pub struct Refusal {
    /// What is wrong with the line.
    pub diagnostic: Diagnostic,
    /// 2.0.2 looks the user up first: if there is none it skips the line and reads on.
    pub unless_unknown: Option<Mention>,
}

/// The bytes as text. 2.0.2 does not care for encodings; what is not UTF-8 is harmless in a comment.
pub fn decode(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Parses the text of `file`, as [`decode`] gave it.
pub fn parse(file: &Arc<Path>, text: &str) -> Parsed {
    let text = SourceText::new(file, text);
    let mut reader = Reader {
        report: Report::new(&text),
        rules: Vec::new(),
        refusals: Vec::new(),
        head: Head::Missing,
        user: None,
    };
    let mut start = 0;
    for line in text.as_str().split_inclusive('\n') {
        reader.line(line.strip_suffix('\n').unwrap_or(line), start);
        start += line.len();
    }
    let Reader { report, rules, refusals, .. } = reader;
    Parsed { rules, diagnostics: report.finish(), refusals }
}

/// A destination in the words of these files. `None` when it leads out of the hierarchy.
pub fn destination(text: &str) -> Option<Destination> {
    destination::read(text).map(|read| read.destination)
}

/// What a line that begins with `%` would continue.
#[derive(Clone, Debug)]
enum Head {
    /// Nothing: no rule came before it.
    Missing,
    /// This rule.
    Rule(usize),
    /// A rule that does something else, or nothing more.
    Closed,
    /// A rule that is not loaded.
    Dropped,
}

struct Reader<'t> {
    report: Report<'t>,
    rules: Vec<WrittenRule>,
    refusals: Vec<Refusal>,
    head: Head,
    /// The user of the last line that began a rule, right or not.
    user: Option<Mention>,
}

impl Reader<'_> {
    /// Reads the line that begins at byte `start`.
    fn line(&mut self, whole: &str, start: usize) {
        let read = self.cut(whole, start);
        let rule = read.trim_start_matches([' ', '\t']);
        let start = start + read.len() - rule.len();
        if rule.is_empty() {
            return;
        }
        if rule.chars().all(is_blank) {
            let message = "a line of nothing but white space other than spaces and tabs";
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
            self.head = Head::Dropped;
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
                let message = "a rule has three fields: user[:program], controllers, destination";
                let span = start..start + rule.trim_end().len();
                // Of a line that continues a rule not even the fields are counted if its user is unknown.
                let user = self.user.clone().filter(|_| continues);
                self.refuse(Severity::Error, span, message.to_owned(), SKIPPED, user);
            }
        }
    }

    /// Leaves out a line with such text, in which 2.0.2 counts the fields as in any other.
    fn not_utf8(&mut self, at: usize, fields: usize, continues: bool) {
        let (span, message) = (at..at + 1, "this is not UTF-8");
        if fields < 3 {
            let user = self.user.clone().filter(|_| continues);
            self.refuse(Severity::Error, span, message.to_owned(), SKIPPED, user);
        } else {
            self.report.error_help(span, message, "this line is left out");
        }
    }

    /// The part of a line that is read: up to a NUL, then up to a comment.
    fn cut<'l>(&mut self, line: &'l str, start: usize) -> &'l str {
        if line.len() > LINE_MAX {
            self.long_line(line, start);
        }
        let read = match line.find('\0') {
            None => line,
            Some(at) => {
                let message = "the line has a NUL byte: what follows it is not read";
                let help = "cgrulesengd does not read it either";
                self.report.warning(Some(start + at..start + at + 1), message, help);
                &line[..at]
            }
        };
        if start == 0 && read.starts_with('\u{feff}') {
            let message = "the byte order mark is taken as part of the first name";
            self.report.warning(Some(0..3), message, "save the file without it");
        }
        read.split('#').next().unwrap_or_default()
    }

    /// 2.0.2 takes the end of a long line for another line, be it a comment or not.
    fn long_line(&mut self, line: &str, start: usize) {
        let message = format!("a line of more than {LINE_MAX} bytes");
        let end = (LINE_MAX..line.len()).find(|&at| line.is_char_boundary(at));
        let (first, rest) = line.split_at(end.unwrap_or(line.len()));
        let is_short = |part: &str| {
            let read = part.split(['#', '\0']).next().unwrap_or_default();
            matches!(fields(read, 0).len(), 1 | 2)
        };
        let span = start..start + 1;
        if is_short(first) || is_short(rest) {
            let help = "cgrulesengd would read the rest as another line and refuse the whole file";
            self.refuse(Severity::Warning, span, message, help, None);
        } else {
            let help = "cgrulesengd would read the rest as another line; here it is one";
            self.report.warning(Some(span), message, help);
        }
    }

    /// Reports what 2.0.2 takes for a reason to refuse the whole file.
    fn refuse(
        &mut self,
        severity: Severity,
        span: Range<usize>,
        message: String,
        help: &str,
        unless_unknown: Option<Mention>,
    ) {
        let text = self.report.text();
        if self.refusals.len() < REFUSALS_KEPT {
            let diagnostic = Diagnostic {
                place: Some(text.place(span.clone())),
                ..Diagnostic::about(text.file(), severity, &*message).with_help(help)
            };
            self.refusals.push(Refusal { diagnostic, unless_unknown });
        }
        self.report.add(severity, Some(span), message, Some(help.to_owned()));
    }

    fn remark_fields(&mut self, fields: &[Field]) {
        if let Some(open) = fields.iter().find(|field| field.shape == Shape::OpenQuote) {
            let help = "it is taken as it stands, as by cgrulesengd 2.0.2";
            self.report.warning(Some(open.span.clone()), "the quote is not closed", help);
        }
        if let [_, _, _, _, extra, ..] = fields {
            let message = "what follows the options is not read";
            self.report.warning(Some(extra.span.clone()), message, "leave it out");
        }
    }

    /// Reads a line that begins a rule.
    fn rule(&mut self, field: &Field, rest: &[Field]) {
        let Some(Key { criteria, mention, program }) =
            key::read(field, self.report.text().as_str())
        else {
            let message = "the rule names no user and no group";
            let help = "write * for everybody; the rule is not loaded";
            self.report.warning(Some(field.span.clone()), message, help);
            // As to 2.0.2, nobody has this name.
            let span = field.span.start..field.span.start;
            self.user = Some(Mention { kind: NameKind::User, name: String::new(), span });
            return;
        };
        self.user.clone_from(&mention);
        self.remark_program(program, field);
        let action = match self.rest(rest, mention.as_ref(), true) {
            None => return,
            Some(Rest::Ignore(when)) => Action::Ignore(when),
            Some(Rest::Nothing(reason)) => {
                Action::Inapplicable(Box::new(Inapplicable { targets: Vec::new(), reason }))
            }
            Some(Rest::Place(target)) => Action::Place(vec![target]),
        };
        let may_go_on = matches!(&action, Action::Place(_));
        self.head = if may_go_on { Head::Rule(self.rules.len()) } else { Head::Closed };
        let text = self.report.text();
        let origin = Origin { file: text.file().clone(), line: text.line(field.span.start) };
        let rule = Rule {
            name: default_name(&origin),
            origin,
            when: criteria,
            not: Negated::default(),
            exe_anywhere: true,
            leave_units: LeaveUnits::AsTheOriginal,
            moves_containers: false,
            action,
        };
        let mentions = mention.into_iter().collect();
        self.rules.push(WrittenRule { rule, priority: 0, mentions });
    }

    /// Reads a line that continues a rule.
    fn continuation(&mut self, rest: &[Field], start: usize) {
        let user = self.user.clone();
        let Some(read) = self.rest(rest, user.as_ref(), false) else { return };
        self.remark_options(rest);
        let useless = match (&self.head, read) {
            (&Head::Rule(index), Rest::Place(target)) => {
                if let Action::Place(targets) = &mut self.rules[index].rule.action {
                    targets.push(target);
                }
                return;
            }
            // 2.0.2 runs the lines of a rule until one fails.
            (Head::Rule(_), Rest::Nothing(_)) => {
                self.head = Head::Closed;
                return;
            }
            // Not read from such a line.
            (Head::Rule(_), Rest::Ignore(_)) => return,
            (Head::Missing, _) => "the line continues no rule",
            (Head::Closed, _) => "the line continues a rule that does not come so far",
            (Head::Dropped, _) => "the line continues a rule that is not loaded",
        };
        self.report.warning(Some(start..start + 1), useless, "the line has no effect");
    }

    /// Says that the options of a line that continues a rule mean nothing.
    fn remark_options(&mut self, rest: &[Field]) {
        if let [_, _, options, ..] = rest {
            let message = "a line that continues a rule has no options";
            self.report.warning(Some(options.span.clone()), message, "it moves all the same");
        }
    }

    fn remark_program(&mut self, program: Program, field: &Field) {
        let (message, help) = match program {
            Program::Right => return,
            Program::InnerStar => (
                "* has a meaning at the end of a program only",
                "here it is a star that the name must have",
            ),
            Program::Relative => (
                "no program has such a path, so the rule never applies",
                "write the path from / on; a name alone cannot end in *",
            ),
        };
        self.report.warning(Some(field.span.clone()), message, help);
    }
}

#[cfg(test)]
#[path = "cgrules_conf_tests.rs"]
mod tests;
