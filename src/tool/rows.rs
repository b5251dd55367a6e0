//! Rules one a line, in columns.

use std::io::{self, Write};

/// Columns of a line.
const WIDTH: usize = 80;
/// Columns for the name of a rule and for its origin at most.
const NAME: usize = 18;
const ORIGIN: usize = 22;

/// How rows are shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Whether lines are not cut to 80 columns, and all paths are whole.
    pub is_full: bool,
    /// Whether arrows and ellipses are written as `->` and `...`.
    pub is_ascii: bool,
}

impl Look {
    const fn arrow(self) -> &'static str {
        if self.is_ascii { " -> " } else { " → " }
    }

    const fn dots(self) -> &'static str {
        if self.is_ascii { "..." } else { "…" }
    }

    /// A text cut to a number of columns, with a mark where it was cut.
    fn cut(self, text: &str, width: usize) -> String {
        let dots = self.dots();
        if text.chars().count() <= width {
            return text.to_owned();
        }
        let kept = text.chars().take(width.saturating_sub(dots.chars().count()));
        kept.chain(dots.chars()).take(width).collect()
    }

    /// The end of an origin tells more than its beginning.
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
/// the look is full.
pub(super) fn show(
    rows: &[Row],
    title: Option<&str>,
    look: Look,
    out: &mut dyn Write,
) -> io::Result<()> {
    let widths = Widths::of(rows, title, look);
    let Widths { number, name, text, .. } = widths;
    if let Some(title) = title {
        let title = title.replace(" → ", look.arrow());
        writeln!(out, "{:>number$}  {:name$}  {title:text$}  FILE:LINE", "#", "NAME")?;
    }
    rows.iter().try_for_each(|row| match row {
        Row::Gap(words) => writeln!(out, "{:>number$}  {words}", look.dots()),
        Row::Rule { number, mark, name, text, target, origin } => {
            let number = format!("{mark}{number:>0$}", widths.number - 1);
            let name = look.cut(name, widths.name);
            let text = joined(text, target, widths.text, look);
            let origin = look.end_of(origin, widths.origin);
            let (name_width, text_width) = (widths.name, widths.text);
            writeln!(out, "{number}  {name:name_width$}  {text:text_width$}  {origin}")
        }
    })
}

impl Widths {
    fn of(rows: &[Row], title: Option<&str>, look: Look) -> Self {
        let is_titled = title.is_some();
        let title = title.map(|title| title.replace(" → ", look.arrow()));
        let least = |title: &str| if is_titled { title.chars().count() } else { 0 };
        let mut most = [1, least("NAME"), least(&title.unwrap_or_default()), least("FILE:LINE")];
        for row in rows {
            let Row::Rule { number, name, text, target, origin, .. } = row else { continue };
            let whole = joined(text, target, usize::MAX, look);
            let parts = [number.to_string(), name.clone(), whole, origin.clone()];
            for (most, part) in most.iter_mut().zip(parts) {
                *most = part.chars().count().max(*most);
            }
        }
        let [number, name, text, origin] = most;
        let number = number + 2;
        if look.is_full {
            return Self { number, name, text, origin };
        }
        let (name, origin) = (name.min(NAME), origin.min(ORIGIN));
        let left = WIDTH.saturating_sub(number + name + origin + 6);
        Self { number, name, text: text.min(left), origin }
    }
}

/// Text and target in a number of columns. The target may have two thirds, and what the text leaves: it
/// is what people look for.
fn joined(text: &str, target: &str, width: usize, look: Look) -> String {
    if target.is_empty() {
        return look.cut(text, width);
    }
    let arrow = look.arrow();
    let rest = width.saturating_sub(text.chars().count() + arrow.chars().count());
    let target = look.cut(target, rest.max(width / 3 * 2));
    let left = width.saturating_sub(target.chars().count() + arrow.chars().count());
    format!("{}{arrow}{target}", look.cut(text, left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_unicode_nothing_but_ascii_is_shown_and_80_columns_are_kept() {
        let row = Row::Rule {
            number: 1,
            mark: ' ',
            name: "name".repeat(10),
            text: "user ".repeat(20),
            target: "/people".repeat(20),
            origin: format!("{}.toml:7", "origin".repeat(9)),
        };
        let rows = [row, Row::Gap("3 more".to_owned())];
        for is_ascii in [true, false] {
            let mut out = Vec::new();
            let look = Look { is_full: false, is_ascii };
            show(&rows, Some("WHO → WHERE"), look, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
            assert_eq!(text.is_ascii(), is_ascii, "{text}");
            assert_eq!(text.matches("...").count(), if is_ascii { 5 } else { 0 }, "{text}");
        }
    }
}
