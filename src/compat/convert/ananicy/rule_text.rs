//! Writes the rule for a selection of ananicy as TOML; it collects no diagnostics.

use std::fmt::Write;

use crate::compat::convert::toml_text::{self, destination, quoted, says};
use crate::rules::context::TextTest;
use crate::rules::destination::Destination;
use crate::rules::{
    Action, Criteria, ExeTest, LeaveUnits, Negated, Origin, PathBase, Rule, Target,
};

/// Returns the text of a rule that moves the processes with these criteria to a cgroup, or without one leaves them
/// where they are.
///
/// # Errors
/// A TOML rule would have a different meaning.
pub(super) fn rule_text(
    title: &str,
    origin: Origin,
    when: Criteria,
    cgroup: Option<Destination>,
) -> Result<String, String> {
    // Writing to a string cannot fail.
    let mut text = format!("[[rule]]\nname = {}\n", quoted(title));
    let _ = writeln!(text, "exe = {}\nexe_anywhere = true", exes(&when.exes));
    for test in when.context.iter().flat_map(|context| &context.arguments) {
        let position = test.position.map(|position| format!(".{position}")).unwrap_or_default();
        let _ = writeln!(text, "argument{position} = {}", texts(&test.tests));
    }
    let action = match cgroup {
        Some(path) => {
            let _ = writeln!(text, "cgroup = {}", quoted(&destination(&path)));
            let (below, controllers) = (PathBase::Root, Vec::new());
            Action::Place(vec![Target { destination: path, controllers, below, creates: true }])
        }
        None => {
            text.push_str("ignore = true\n");
            Action::ignore()
        }
    };
    let meant = Rule {
        name: title.into(),
        origin,
        when,
        not: Negated::default(),
        exe_anywhere: true,
        is_gated: false,
        leave_units: LeaveUnits::No,
        leave_containers: crate::rules::container::LeaveContainers::No,
        action,
    };
    says(&text, &meant).map(|()| text)
}

/// Returns the name of the rule of a line.
pub(super) fn title(origin: &Origin) -> String {
    let base = origin.file.file_name().unwrap_or_default().to_string_lossy();
    format!("{}:{}", base.replace(char::is_control, "?"), origin.line)
}

fn exes(tests: &[ExeTest]) -> String {
    one_or_list(&tests.iter().map(toml_text::exe).collect::<Vec<_>>())
}

fn texts(tests: &[TextTest]) -> String {
    one_or_list(&tests.iter().map(toml_text::text_test).collect::<Vec<_>>())
}

fn one_or_list(values: &[String]) -> String {
    match values {
        [one] => quoted(one),
        several => toml_text::list(several),
    }
}
