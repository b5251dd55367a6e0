//! Rules one a line, in columns.

use std::io::{self, Write};

use super::words::cut;

/// Columns of a line.
const WIDTH: usize = 80;
/// Columns for the name of a rule and for its origin at most.
const NAME: usize = 18;
const ORIGIN: usize = 22;

/// A line.
pub(super) enum Row {
    /// A rule.
    Rule {
        /// From 1.
        number: usize,
        /// Before the number.
        mark: char,
        /// Its name.
        name: String,
        /// What is to be said of it.
        text: String,
        /// Where it leads, if that is to be said: behind an arrow after the text.
        target: String,
        /// File and line.
        origin: String,
    },
    /// Rules that are left out, in words.
    Gap(String),
}

/// Columns of each part.
struct Widths {
    number: usize,
    name: usize,
    text: usize,
    origin: usize,
}

/// The rows below a title for the middle column, if there is one. A line is cut to 80 columns unless
/// `is_full`.
pub(super) fn show(
    rows: &[Row],
    title: Option<&str>,
    is_full: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let widths = Widths::of(rows, title, is_full);
    let Widths { number, name, text, .. } = widths;
    if let Some(title) = title {
        writeln!(out, "{:>number$}  {:name$}  {title:text$}  FILE:LINE", "#", "NAME")?;
    }
    rows.iter().try_for_each(|row| match row {
        Row::Gap(words) => writeln!(out, "{:>number$}  {words}", "…"),
        Row::Rule { number, mark, name, text, target, origin } => {
            let number = format!("{mark}{number:>0$}", widths.number - 1);
            let name = cut(name, widths.name);
            let text = joined(text, target, widths.text);
            let origin = end_of(origin, widths.origin);
            let (name_width, text_width) = (widths.name, widths.text);
            writeln!(out, "{number}  {name:name_width$}  {text:text_width$}  {origin}")
        }
    })
}

impl Widths {
    fn of(rows: &[Row], title: Option<&str>, is_full: bool) -> Self {
        let is_titled = title.is_some();
        let least = |title: &str| if is_titled { title.chars().count() } else { 0 };
        let mut most = [1, least("NAME"), least(title.unwrap_or_default()), least("FILE:LINE")];
        for row in rows {
            let Row::Rule { number, name, text, target, origin, .. } = row else { continue };
            let whole = joined(text, target, usize::MAX);
            let parts = [number.to_string(), name.clone(), whole, origin.clone()];
            for (most, part) in most.iter_mut().zip(parts) {
                *most = part.chars().count().max(*most);
            }
        }
        let [number, name, text, origin] = most;
        let number = number + 2;
        if is_full {
            return Self { number, name, text, origin };
        }
        let (name, origin) = (name.min(NAME), origin.min(ORIGIN));
        let left = WIDTH.saturating_sub(number + name + origin + 6);
        Self { number, name, text: text.min(left), origin }
    }
}

/// Text and target in a number of columns. The target may have two thirds, and what the text leaves: it
/// is what people look for.
fn joined(text: &str, target: &str, width: usize) -> String {
    if target.is_empty() {
        return cut(text, width);
    }
    let arrow = " → ";
    let rest = width.saturating_sub(text.chars().count() + arrow.chars().count());
    let target = cut(target, rest.max(width / 3 * 2));
    let left = width.saturating_sub(target.chars().count() + arrow.chars().count());
    format!("{}{arrow}{target}", cut(text, left))
}

/// The end of an origin tells more than its beginning.
fn end_of(text: &str, width: usize) -> String {
    let over = text.chars().count().saturating_sub(width);
    if over == 0 {
        return text.to_owned();
    }
    let kept: String = text.chars().skip(over + 1).collect();
    format!("…{kept}")
}
