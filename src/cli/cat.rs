//! `cgrulectl cat`: prints the rule files in order of precedence. Must not print bytes that control a
//! terminal.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use super::command::{DaemonFlags, ToolError};
use super::daemon_client::{self, RunNotes};
use crate::config::escape::{EscapedBytes, is_unsafe};
use crate::daemon;
use crate::policy::load::{FileOutcome, ListedFile, Loaded};

#[derive(clap::Args)]
#[command(
    about = "Print the rule files in order of precedence",
    after_help = "\
Examples:
  cgrulectl cat
      print every file that is used; list the others with the reason"
)]
pub(super) struct CatArgs {
    #[command(flatten)]
    pub(super) daemon: DaemonFlags,
}

/// Maximum size in bytes of a file that the daemon reads.
const MAX_SIZE: u64 = 16 << 20;

pub(super) fn run(given: &CatArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    show(
        &daemon::survey(&daemon_client::as_active(&given.daemon, RunNotes::Said), None).loaded,
        out,
    )?;
    Ok(0)
}

/// Writes each file after its path; for a file that is not used, its path and the reason.
///
/// # Errors
/// The output cannot be written.
pub fn show(loaded: &Loaded, out: &mut dyn Write) -> io::Result<()> {
    for (index, ListedFile { path, outcome }) in loaded.files.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        let bytes = loaded.contents.get(path);
        let path = shown(path);
        match outcome {
            FileOutcome::Loaded(_) => {
                writeln!(out, "# {path}")?;
                content(&loaded.files[index].path, bytes, out)?;
            }
            FileOutcome::Mask => {
                writeln!(out, "# {path}: empty, masks later files of this name")?;
            }
            FileOutcome::HiddenBy(first) => {
                writeln!(out, "# {path}: overridden by {}", shown(first))?;
            }
            FileOutcome::Skipped => writeln!(out, "# {path}: skipped, not a rule file's name")?,
            FileOutcome::Refused => writeln!(out, "# {path}: refused, see 'cgrulectl check'")?,
        }
    }
    Ok(())
}

fn shown(path: &Path) -> EscapedBytes<'_> {
    EscapedBytes(path.as_os_str().as_encoded_bytes())
}

/// Writes the active contents of a file, or, if none are given, the contents on disk.
fn content(path: &Path, bytes: Option<&Arc<[u8]>>, out: &mut dyn Write) -> io::Result<()> {
    match bytes.map_or_else(|| read(path), |bytes| Ok(bytes.to_vec())) {
        Ok(bytes) => out.write_all(plain(&bytes).as_bytes()),
        Err(error) => writeln!(out, "# cannot read this file: {error}"),
    }
}

/// Reads a file without blocking on a FIFO.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_SIZE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the text with escapes for characters that control a terminal, and with a final line end.
fn plain(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 1);
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' | '\t' => text.push(character),
                other if is_unsafe(other) => text.extend(other.escape_unicode()),
                other => text.push(other),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_file_drives_a_terminal() {
        assert_eq!(plain(b"a\tb\n\x1b[2J\xff"), "a\tb\n\\u{1b}[2J\\xff\n");
        assert_eq!(plain(b""), "");
    }
}
