//! Paths that the destinations of rules can expand to, as patterns. Pure: must not read a file.

use crate::rules::Rule;
use crate::rules::destination::DestinationPart;

/// Destinations of all rules, each as a pattern.
#[derive(Debug, Default)]
pub(super) struct DestinationPatterns {
    patterns: Vec<DestinationPattern>,
}

#[derive(Debug)]
struct DestinationPattern {
    rule: usize,
    components: Vec<Vec<DestinationPart>>,
}

/// Result of the search for one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PatternMatch {
    /// Rules with a destination that can expand to the path, in order, each once.
    pub(super) rules: Vec<usize>,
    /// True if a destination can be below the path.
    pub(super) goes_on: bool,
}

impl DestinationPatterns {
    /// Creates the patterns; `beginning` returns the base of a target's path, from the hierarchy root.
    pub(super) fn new<'p>(
        rules: &[Rule],
        beginning: impl Fn(&crate::rules::Target) -> &'p str,
    ) -> Self {
        let mut patterns = Vec::new();
        for (rule, action) in rules.iter().map(|rule| &rule.action).enumerate() {
            for target in action.targets() {
                let start = DestinationPart::Literal(format!("{}/", beginning(target)));
                let pieces = std::iter::once(start).chain(target.destination.pieces());
                patterns.push(DestinationPattern { rule, components: components(pieces) });
            }
        }
        Self { patterns }
    }

    /// Finds the rules for a path, given by its components.
    pub(super) fn find(&self, path: &[Vec<u8>]) -> PatternMatch {
        let mut found = PatternMatch::default();
        for DestinationPattern { rule, components } in &self.patterns {
            let fits = path.len() <= components.len()
                && path.iter().zip(components).all(|(name, pieces)| matches(pieces, name));
            if !fits {
                continue;
            }
            if path.len() < components.len() {
                found.goes_on = true;
            } else if found.rules.last() != Some(rule) {
                found.rules.push(*rule);
            }
        }
        found
    }
}

/// Splits the pieces of a destination into path components.
fn components(pieces: impl Iterator<Item = DestinationPart>) -> Vec<Vec<DestinationPart>> {
    let mut found: Vec<Vec<DestinationPart>> = vec![Vec::new()];
    for piece in pieces {
        match piece {
            DestinationPart::Field(field) => last(&mut found).push(DestinationPart::Field(field)),
            DestinationPart::Literal(text) => {
                for (index, part) in text.split('/').enumerate() {
                    if index > 0 {
                        found.push(Vec::new());
                    }
                    if !part.is_empty() {
                        last(&mut found).push(DestinationPart::Literal(part.to_owned()));
                    }
                }
            }
        }
    }
    found.retain(|component| !component.is_empty());
    found
}

fn last(found: &mut Vec<Vec<DestinationPart>>) -> &mut Vec<DestinationPart> {
    if found.is_empty() {
        found.push(Vec::new());
    }
    let index = found.len() - 1;
    &mut found[index]
}

/// Checks whether the pieces can expand to a name. A specifier never expands to an empty text.
fn matches(pieces: &[DestinationPart], name: &[u8]) -> bool {
    match pieces {
        [] => name.is_empty(),
        [DestinationPart::Literal(text), rest @ ..] => {
            name.strip_prefix(text.as_bytes()).is_some_and(|name| matches(rest, name))
        }
        [DestinationPart::Field(_)] => !name.is_empty(),
        [DestinationPart::Field(_), rest @ ..] => {
            (1..=name.len()).any(|at| matches(rest, &name[at..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::rules_toml;

    fn patterns(destinations: &[&str]) -> DestinationPatterns {
        let rule = |path: &&str| format!("[[rule]]\nuser = 1\ncgroup = \"{path}\"\n");
        let text: String = destinations.iter().map(rule).collect();
        let file = Arc::from(Path::new("/a.toml"));
        let parsed = rules_toml::parse(&file, &format!("version = 1\n{text}"));
        let rules: Vec<Rule> = parsed.rules.into_iter().map(|written| written.rule).collect();
        DestinationPatterns::new(&rules, |_| "/pool")
    }

    fn find(patterns: &DestinationPatterns, path: &str) -> (Vec<usize>, bool) {
        let names = path.split('/').filter(|name| !name.is_empty());
        let names: Vec<Vec<u8>> = names.map(|name| name.as_bytes().to_vec()).collect();
        let found = patterns.find(&names);
        (found.rules, found.goes_on)
    }

    #[test]
    fn a_path_is_fed_by_the_rules_whose_destination_it_can_be() {
        let patterns = patterns(&["sites/%u", "sites/x-%u-%g", "db", "sites/%U", "/"]);
        assert_eq!(find(&patterns, "/pool/sites/alice"), (vec![0, 3], false));
        assert_eq!(find(&patterns, "/pool/sites/x-a-b"), (vec![0, 1, 3], false));
        assert_eq!(find(&patterns, "/pool/db"), (vec![2], false));
        assert_eq!(find(&patterns, "/pool/sites"), (vec![], true));
        assert_eq!(find(&patterns, "/pool"), (vec![4], true));
        assert_eq!(find(&patterns, "/"), (vec![], true));
        assert_eq!(find(&patterns, "/db"), (vec![], false));
        assert_eq!(find(&patterns, "/pool/db/more"), (vec![], false));
    }
}
