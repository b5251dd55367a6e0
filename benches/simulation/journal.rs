//! The table of what happened, for a failing history.

/// Lines of the table, if it is wanted.
#[derive(Default)]
pub(crate) struct Journal(Option<Vec<String>>);

impl Journal {
    pub(crate) fn wanted() -> Self {
        Self(Some(Vec::new()))
    }

    pub(crate) fn note(&mut self, clock: u64, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.0 {
            let (seconds, ns) = (clock / 1_000_000_000, clock % 1_000_000_000);
            lines.push(format!("{seconds:>4}.{:06}.{:03}  {}", ns / 1000, ns % 1000, text()));
        }
    }

    pub(crate) fn lines(self) -> Vec<String> {
        self.0.unwrap_or_default()
    }
}
