//! Parses controllers, destination and options of a line, which follow the key; it does not check
//! whether the controllers exist.

use std::ops::Range;

use super::line::{LineField, Shape};
use super::{CgrulesReader, SKIPPED, SKIPPED_IF_KNOWN, destination};
use crate::config::criteria::NameRef;
use crate::config::diagnostic::Severity;
use crate::config::table::shortened;
use crate::rules::ignore::{IgnoreWhen, Scheduling};
use crate::rules::{InapplicableReason, PathBase, Target};

/// The maximum number of controllers in a rule; cgrulesengd 2.0.2 refuses more.
const CONTROLLERS_MAX: usize = 16;
/// The effect on processes if their rule cannot be applied.
const STAYS: &str = "the rule cannot be applied: matching processes stay where they are";
/// The maximum length of the controller list in cgrulesengd 2.0.2, in bytes; a longer one
/// overwrites its stack.
const CONTROLLERS_LENGTH: usize = 99;

/// Controllers, destination and options of a line.
pub(super) enum LineRest {
    /// Leaves processes in their current cgroup.
    Ignore(IgnoreWhen),
    /// Moves processes to the target.
    Place(Target),
    /// Matches processes without moving them.
    Nothing(InapplicableReason),
}

impl CgrulesReader<'_> {
    /// Parses the fields after the key. Returns `None` if the line is ignored. A continuation line
    /// moves processes even if it has the option `ignore`.
    pub(super) fn rest(
        &mut self,
        rest: &[LineField],
        user: Option<&NameRef>,
        may_ignore: bool,
    ) -> Option<LineRest> {
        let [controllers, destination, more @ ..] = rest else { return None };
        let (controllers, is_possible) = self.controllers(controllers, user)?;
        let options = match more.first() {
            Some(options) => self.options(options, user)?,
            None => LineOptions::default(),
        };
        let text = self.report.text().as_str();
        let span = match destination.shape {
            Shape::Quoted => destination.span.start + 1..destination.span.end - 1,
            Shape::Plain | Shape::QuotedProgram | Shape::OpenQuote => destination.span.clone(),
        };
        if options.ignores() && may_ignore {
            return Some(LineRest::Ignore(self.ignore(&text[span.clone()], span, options)));
        }
        let Some(read) = destination::read(&text[span.clone()]) else {
            let message = "destination outside of the hierarchy";
            self.report.warning(Some(span), message, STAYS);
            return Some(LineRest::Nothing(InapplicableReason::OutsideHierarchy));
        };
        if !is_possible {
            return Some(LineRest::Nothing(InapplicableReason::RepeatedController));
        }
        let destination::ParsedDestination { destination, is_template } = read;
        Some(LineRest::Place(Target {
            destination,
            controllers,
            below: PathBase::Top,
            creates: is_template,
        }))
    }

    /// Parses the controllers. Also returns whether cgrulesengd moves processes with such a list.
    fn controllers(
        &mut self,
        field: &LineField,
        user: Option<&NameRef>,
    ) -> Option<(Vec<String>, bool)> {
        let span = field.span.clone();
        let text = &self.report.text().as_str()[span.clone()];
        let mut names: Vec<String> =
            text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let wrong = match names.len() {
            0 => Some("rule without a controller".to_owned()),
            1..=CONTROLLERS_MAX => None,
            _ => Some(format!("rule with more than {CONTROLLERS_MAX} controllers")),
        };
        if let Some(message) = wrong {
            self.refuse(Severity::Error, span, message, skipped(user), user.cloned());
            return None;
        }
        if text.len() > CONTROLLERS_LENGTH {
            let message = format!("controller list longer than {CONTROLLERS_LENGTH} bytes");
            let help = "cgrulesengd may crash on it";
            self.report.warning(Some(span.clone()), message, help);
        }
        if names[0] == "*" {
            names.truncate(1);
        }
        let is_possible = names.iter().enumerate().all(|(n, name)| !names[..n].contains(name))
            && !names[1..].iter().any(|name| name == "*");
        if !is_possible {
            let message = "duplicate controller in the rule";
            self.report.warning(Some(span), message, STAYS);
        }
        Some((names, is_possible))
    }

    fn options(&mut self, field: &LineField, user: Option<&NameRef>) -> Option<LineOptions> {
        let text = &self.report.text().as_str()[field.span.clone()];
        let mut options = LineOptions::default();
        let mut at = field.span.start;
        if text.bytes().all(|byte| byte == b',') {
            let message = "empty options".to_owned();
            self.refuse(Severity::Error, field.span.clone(), message, skipped(user), user.cloned());
            return None;
        }
        for word in text.split(',') {
            match word {
                "" => {}
                "ignore" => options.ignore = true,
                "ignore_rt" => options.ignore_rt = true,
                other => {
                    let message = format!("unknown option \"{}\"", shortened(other));
                    let span = at..at + other.len();
                    self.refuse(Severity::Error, span, message, skipped(user), user.cloned());
                    return None;
                }
            }
            at += word.len() + 1;
        }
        Some(options)
    }

    /// Returns the condition of an ignore rule. cgrulesengd 2.0.2 knows neither `*` nor real-time
    /// scheduling, so with a path `ignore` means every process, and with `*` it has the meaning of
    /// 3.2.
    fn ignore(&mut self, text: &str, span: Range<usize>, options: LineOptions) -> IgnoreWhen {
        let anywhere = text == "*";
        if text.len() > 1 && text.starts_with('/') {
            let message = "a rule that ignores a path beginning with / never matches";
            self.report.warning(Some(span), message, "remove the leading /");
        }
        let scheduling = match (options.ignore, options.ignore_rt) {
            (false, true) => Scheduling::RealTime,
            (true, false) if anywhere => Scheduling::NotRealTime,
            (true, _) | (false, false) => Scheduling::Any,
        };
        IgnoreWhen { below: (!anywhere).then(|| text.to_owned()), scheduling }
    }
}

/// Returns the help for a line with an error after the user.
fn skipped(user: Option<&NameRef>) -> &'static str {
    if user.is_some() { SKIPPED_IF_KNOWN } else { SKIPPED }
}

#[derive(Clone, Copy, Default)]
struct LineOptions {
    ignore: bool,
    ignore_rt: bool,
}

impl LineOptions {
    fn ignores(self) -> bool {
        self.ignore || self.ignore_rt
    }
}
