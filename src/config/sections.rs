//! Splits a rule file at its rules and tables; it does not parse them.
//!
//! Each section is parsed separately, for two reasons. A syntax error then disables only the
//! section that contains it; the recovery of the TOML parser drops everything after a key without
//! `=`, and it keeps the rest of a table of which it lost a key, so that a rule would match more
//! than written. And the parse tree of one rule is small: that of a file with 10,000 rules takes
//! over 10 MB.

use std::ops::Range;

/// Returns the byte ranges of the sections, in order; together they are the whole text. The first
/// one precedes the first rule or table and may be empty.
pub(super) fn sections(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut at = 0;
    let mut open = None;
    for line in text.split_inclusive('\n') {
        if open.is_none() && is_header(line.trim_start_matches([' ', '\t'])) {
            found.push(start..at);
            start = at;
        }
        open = open_string(line, open);
        at += line.len();
    }
    found.push(start..text.len());
    found
}

/// Checks whether a line begins a rule or a table. A list of lists may have lines that begin with
/// `[`, but a bare word cannot occur in a list, so `[[word` is a header even after an unclosed
/// list. A table of a rule, such as `[rule.not]`, belongs to its rule.
fn is_header(line: &str) -> bool {
    let Some(inner) = line.strip_prefix('[') else { return false };
    let (double, inner) = match inner.strip_prefix('[') {
        Some(inner) => (true, inner.trim_start()),
        None => (false, inner.trim_start()),
    };
    let end = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
    let (word, rest) = inner.split_at(end.unwrap_or(inner.len()));
    let rest = rest.trim_start();
    match rest.chars().next() {
        Some(']') => {
            matches!(word, "rule" | "test")
                || (double && word.starts_with(|c: char| c.is_alphabetic()))
        }
        Some('.') => !double && matches!(word, "cgroup" | "unit") && is_last_key(&rest[1..]),
        Some(_) | None => false,
    }
}

/// Checks whether one key and the end of the header follow: `[cgroup.a.cpu]` continues the table
/// before it.
fn is_last_key(text: &str) -> bool {
    let key = text.trim_start();
    let rest = match key.chars().next() {
        Some(quote @ ('"' | '\'')) => after_quote(&key[1..], quote),
        Some(_) | None => key.find([']', '.', '\n']).map(|end| &key[end..]),
    };
    rest.is_some_and(|rest| rest.trim_start().starts_with(']'))
}

/// Returns the text after the closing quote on the same line.
fn after_quote(text: &str, quote: char) -> Option<&str> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '\n' => return None,
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return Some(&text[at + 1..]),
            _ => {}
        }
    }
    None
}

/// Returns the quote of the multi-line string that is open after `line`, given the one open before
/// it.
fn open_string(line: &str, mut open: Option<char>) -> Option<char> {
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let quotes = rest.chars().take(5).take_while(|&c| c == first).count();
        rest = match (open, first) {
            (Some('"'), '\\') => skip_chars(rest, 2),
            (Some(quote), c) if c == quote && quotes >= 3 => {
                open = None;
                // Up to two more quotes belong to the string: the last three close it.
                &rest[quotes..]
            }
            (Some(_), _) => skip_chars(rest, 1),
            (None, '#') => return None,
            (None, '"' | '\'') if quotes >= 3 => {
                open = Some(first);
                &rest[3..]
            }
            // Not closed on its line: an error there, and the next line is parsed afresh.
            (None, '"' | '\'') => after_quote(&rest[1..], first).unwrap_or_default(),
            (None, _) => skip_chars(rest, 1),
        };
    }
    open
}

fn skip_chars(text: &str, count: usize) -> &str {
    let mut chars = text.chars();
    for _ in 0..count {
        chars.next();
    }
    chars.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<&str> {
        sections(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn cuts_at_rules_and_groups() {
        let text = "version = 1\n[[rule]]\na=1\n [[ rule ]] # x\n[rule.not]\n[cgroup.\"a.b\"]\nx=1\n\
                    [cgroup.\"a.b\".cpu]\n[ cgroup . web ]\n[unit.\"a.service\"]\n";
        assert_eq!(
            cut(text),
            [
                "version = 1\n",
                "[[rule]]\na=1\n",
                " [[ rule ]] # x\n[rule.not]\n",
                "[cgroup.\"a.b\"]\nx=1\n[cgroup.\"a.b\".cpu]\n",
                "[ cgroup . web ]\n",
                "[unit.\"a.service\"]\n",
            ]
        );
    }

    #[test]
    fn strings_and_comments_hide_headers() {
        let three = "\"\"\"";
        let basic = format!("a = {three}\n[[rule]]\n\\{three}\n[[rule]]\n{three}\"\"\n[[rule]]\n");
        assert_eq!(cut(&basic).len(), 2);
        assert_eq!(cut("b = '''\n[[rule]]\n\\'''\n[[rule]]\n").len(), 2);
        assert_eq!(cut(&format!("# {three}\n[[rule]]\n")).len(), 2);
        assert_eq!(cut("a = \"# \\\"\"\n[[rule]]\n").len(), 2);
        assert_eq!(cut(&format!("a = '# {three}'\n[[rule]]\n")).len(), 2);
    }

    #[test]
    fn an_open_string_or_list_does_not_hide_the_next_rule() {
        assert_eq!(cut("[[rule]]\na = \"x\n[[rule]]\n").len(), 3);
        assert_eq!(cut("[[rule]]\na = [\"x\",\n[[rule]]\n").len(), 3);
        assert_eq!(cut("[[rule]]\na = \"\"\"x\n[[rule]]\n").len(), 2);
    }

    #[test]
    fn mistyped_headers_are_headers_and_lists_are_not() {
        for header in ["[rule]", "[rule]]", "[[rule]", "[[rules]]"] {
            assert_eq!(cut(&format!("[[rule]]\n{header}\n")).len(), 3, "{header}");
        }
        for value in ["[[\"a\"], [1]]", "[[1]]", "[rule", "[\"a\"]"] {
            assert_eq!(cut(&format!("a = [\n{value}\n")).len(), 1, "{value}");
        }
    }

    #[test]
    fn a_quoted_path_may_contain_the_quote() {
        for header in ["[cgroup.\"a\\\"b\"]", "[cgroup.'a\\']", "[cgroup.\"a\\\\\"]"] {
            assert_eq!(cut(&format!("[[rule]]\n{header}\n")).len(), 3, "{header}");
        }
    }
}
