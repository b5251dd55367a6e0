//! The processes that a rule of ananicy selects, as criteria of a rule; it writes no text.

use std::collections::BTreeSet;

use serde_json::Value;

use super::AnanicyObject;
use crate::rules::context::{ArgumentTest, ContextCriteria, TextTest};
use crate::rules::{Criteria, ExeTest};

/// A program and, for a rule with `cmdlines`, the arguments that it must all have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Selection {
    pub(super) name: String,
    pub(super) arguments: BTreeSet<String>,
}

impl Selection {
    /// Reads the selection of a rule for the program `name`.
    ///
    /// # Errors
    /// Returns the criterion that is invalid. Without it the rule would select more processes.
    pub(super) fn of(name: &str, rule: &AnanicyObject) -> Result<Self, String> {
        if rule.contains_key("cmdline") {
            return Err("unknown criterion cmdline: ananicy compares cmdlines, a list".to_owned());
        }
        let arguments = match rule.get("cmdlines") {
            None | Some(Value::Null) => Some(BTreeSet::new()),
            Some(Value::Array(all)) => {
                all.iter().map(|one| one.as_str().map(str::to_owned)).collect()
            }
            Some(_) => None,
        };
        let arguments = arguments.ok_or("invalid cmdlines: not a list of texts")?;
        Ok(Self { name: name.to_owned(), arguments })
    }

    /// Returns the criteria of a rule for these processes.
    ///
    /// # Errors
    /// A rule cannot express the selection.
    pub(super) fn criteria(&self) -> Result<Criteria, String> {
        let exes = vec![ExeTest::Base(self.name.as_bytes().to_vec())];
        let mut arguments = self.arguments.iter();
        let context = match (arguments.next(), arguments.next()) {
            (None, _) => None,
            (Some(one), None) => {
                let position = self.names_program(one).then_some(0);
                let tests = vec![TextTest::Is(one.as_bytes().into())];
                let arguments = vec![ArgumentTest { position, tests }];
                Some(Box::new(ContextCriteria { arguments, ..ContextCriteria::default() }))
            }
            (Some(_), Some(_)) => {
                return Err(
                    "it requires several arguments, whose positions are unknown; those of \
                            argument are alternatives"
                        .to_owned(),
                );
            }
        };
        Ok(Criteria { exes, context, ..Criteria::default() })
    }

    /// Checks whether the only argument can be the name by which the program was started. Ananicy compares that with
    /// `cmdlines` too, unlike `argument` without a position.
    pub(super) fn is_by_invoked_name(&self) -> bool {
        self.arguments.len() == 1 && self.arguments.iter().all(|one| self.names_program(one))
    }

    fn names_program(&self, argument: &str) -> bool {
        argument.rsplit('/').next() == Some(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(rule: &str) -> Result<Selection, String> {
        Selection::of("java", &serde_json::from_str(rule).unwrap())
    }

    #[test]
    fn an_argument_is_compared_literally_at_any_position_after_the_name() {
        let criteria = selection(r#"{"cmdlines": ["a*.jar", "a*.jar"]}"#).unwrap().criteria();
        let context = criteria.unwrap().context.unwrap();
        let tests = vec![TextTest::Is(b"a*.jar"[..].into())];
        assert_eq!(context.arguments, [ArgumentTest { position: None, tests }]);
    }

    #[test]
    fn a_path_of_the_program_is_the_name_by_which_it_was_started() {
        let own = selection(r#"{"cmdlines": ["/opt/bin/java"]}"#).unwrap();
        assert!(own.is_by_invoked_name());
        assert_eq!(own.criteria().unwrap().context.unwrap().arguments[0].position, Some(0));
        assert!(!selection(r#"{"cmdlines": ["/opt/java.jar"]}"#).unwrap().is_by_invoked_name());
    }

    #[test]
    fn without_arguments_the_program_counts() {
        for rule in ["{}", r#"{"cmdlines": []}"#, r#"{"cmdlines": null}"#] {
            assert_eq!(selection(rule).unwrap().criteria().unwrap().context, None, "{rule}");
        }
    }

    #[test]
    fn what_would_select_more_processes_is_an_error() {
        for rule in [r#"{"cmdlines": "x"}"#, r#"{"cmdlines": [1]}"#, r#"{"cmdline": ["x"]}"#] {
            assert!(selection(rule).is_err(), "{rule}");
        }
        assert!(selection(r#"{"cmdlines": ["a", "b"]}"#).unwrap().criteria().is_err());
    }
}
