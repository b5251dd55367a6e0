//! Table of rules, one per line. Lines must fit 80 columns unless the full form is requested.

use std::io::{self, Write};

/// Columns of a line in the short form.
const WIDTH: usize = 80;
/// Maximum columns of a rule's name, and of its origin.
const NAME: usize = 18;
const ORIGIN: usize = 22;

/// Output options of the table.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowOptions {
    /// True if lines may exceed 80 columns and paths are shown in full.
    pub is_full: bool,
    /// True if arrows and ellipses are written as `->` and `...`.
    pub is_ascii: bool,
}

impl RowOptions {
    const fn arrow(self) -> &'static str {
        if self.is_ascii { " -> " } else { " → " }
    }

    const fn dots(self) -> &'static str {
        if self.is_ascii { "..." } else { "…" }
    }

    /// Cuts a text to a number of columns and marks the cut with an ellipsis.
    fn cut(self, text: &str, width: usize) -> String {
        let dots = self.dots();
        if text.chars().count() <= width {
            return text.to_owned();
        }
        let kept = text.chars().take(width.saturating_sub(dots.chars().count()));
        kept.chain(dots.chars()).take(width).collect()
    }

    /// Cuts the beginning of an origin, since its end identifies more.
    fn end_of(self, text: &str, width: usize) -> String {
        let count = text.chars().count();
        if count <= width {
            return text.to_owned();
        }
        let dots = self.dots();
        let room = width.saturating_sub(dots.chars().count());
        dots.chars().chain(text.chars().skip(count - room)).collect()
    }
}

/// A line of the table.
pub(super) enum RuleRow {
    /// A rule, with its parts in columns.
    Rule {
        /// Position in evaluation order, from 1.
        number: usize,
        /// Character in front of the position.
        mark: char,
        /// Name of the rule, or a placeholder.
        name: String,
        /// Text of the middle column.
        text: String,
        /// Destination, shown after the text behind an arrow; empty for none.
        target: String,
        /// File and line of the rule.
        origin: String,
    },
    /// Omitted rules, described as text.
    Gap(String),
}

/// Width up to which shorter cells of a column are padded. The formatting of the standard library panics
/// above 65,535, and a name or path in a file can be longer.
const PADDED: usize = 1000;

/// Width of each column, in characters.
struct Widths {
    number: usize,
    name: usize,
    text: usize,
    origin: usize,
}

/// Writes the rows below a header, if there is a title for the middle column. Lines are cut to 80 columns
/// unless `style.is_full` is set.
pub(super) fn show(
    rows: &[RuleRow],
    title: Option<&str>,
    style: RowOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let widths = Widths::of(rows, title, style);
    let number = widths.number;
    let (name_width, text_width) = (widths.name.min(PADDED), widths.text.min(PADDED));
    if let Some(title) = title {
        let title = title.replace(" → ", style.arrow());
        writeln!(out, "{:>number$}  {:name_width$}  {title:text_width$}  FILE:LINE", "#", "NAME")?;
    }
    rows.iter().try_for_each(|row| match row {
        RuleRow::Gap(words) => writeln!(out, "{:>number$}  {words}", style.dots()),
        RuleRow::Rule { number, mark, name, text, target, origin } => {
            let number = format!("{mark}{number:>0$}", widths.number - 1);
            let name = style.cut(name, widths.name);
            let text = joined(text, target, widths.text, style);
            let origin = style.end_of(origin, widths.origin);
            writeln!(out, "{number}  {name:name_width$}  {text:text_width$}  {origin}")
        }
    })
}

impl Widths {
    fn of(rows: &[RuleRow], title: Option<&str>, style: RowOptions) -> Self {
        let title = title.map(|title| title.replace(" → ", style.arrow()));
        let mut most = match &title {
            Some(title) => [1, "NAME".len(), title.chars().count(), "FILE:LINE".len()],
            None => [1, 0, 0, 0],
        };
        for row in rows {
            let RuleRow::Rule { number, name, text, target, origin, .. } = row else { continue };
            let whole = joined(text, target, usize::MAX, style);
            let parts = [number.to_string(), name.clone(), whole, origin.clone()];
            for (most, part) in most.iter_mut().zip(parts) {
                *most = part.chars().count().max(*most);
            }
        }
        let [number, name, text, origin] = most;
        let number = number + 2;
        if style.is_full {
            return Self { number, name, text, origin };
        }
        let name = name.min(NAME);
        let origin = origin.min(ORIGIN);
        let left = WIDTH.saturating_sub(number + name + origin + 6);
        Self { number, name, text: text.min(left), origin }
    }
}

/// Joins text and destination within a number of columns.
fn joined(text: &str, target: &str, width: usize, style: RowOptions) -> String {
    if target.is_empty() {
        return style.cut(text, width);
    }
    let arrow = style.arrow();
    let rest = width.saturating_sub(text.chars().count() + arrow.chars().count());
    // The destination is the part that a reader searches for: it gets at least two thirds.
    let target = style.cut(target, rest.max(width / 3 * 2));
    let left = width.saturating_sub(target.chars().count() + arrow.chars().count());
    format!("{}{arrow}{target}", style.cut(text, left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_of_any_length_is_shown() {
        let long = "x".repeat(70_000);
        let row = |name: &str, text: &str, target: &str, origin: &str| RuleRow::Rule {
            number: 1,
            mark: ' ',
            name: name.to_owned(),
            text: text.to_owned(),
            target: target.to_owned(),
            origin: origin.to_owned(),
        };
        for is_full in [true, false] {
            let rows =
                [row(&long, "a", "b", "c"), row("a", &long, &long, "c"), row("a", "b", "c", &long)];
            let mut out = Vec::new();
            let style = RowOptions { is_full, is_ascii: false };
            show(&rows, Some("MATCH → CGROUP"), style, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.matches(&*long).count(), if is_full { 4 } else { 0 });
        }
    }

    #[test]
    fn without_unicode_nothing_but_ascii_is_shown_and_80_columns_are_kept() {
        let row = RuleRow::Rule {
            number: 1,
            mark: ' ',
            name: "name".repeat(10),
            text: "user ".repeat(20),
            target: "/people".repeat(20),
            origin: format!("{}.toml:7", "origin".repeat(9)),
        };
        let rows = [row, RuleRow::Gap("3 more".to_owned())];
        for is_ascii in [true, false] {
            let mut out = Vec::new();
            let style = RowOptions { is_full: false, is_ascii };
            show(&rows, Some("MATCH → CGROUP"), style, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
            assert_eq!(text.is_ascii(), is_ascii, "{text}");
            assert_eq!(text.matches("...").count(), if is_ascii { 5 } else { 0 }, "{text}");
        }
    }
}
