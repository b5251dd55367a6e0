//! Client for journald's native protocol: one datagram of `KEY=value` lines per record.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use ::log::Level;
use nix::sys::stat::fstat;

use super::field::JournalField;

const SOCKET: &str = "/run/systemd/journal/socket";
/// Device number of `/dev/null`.
const NULL_DEVICE: libc::dev_t = libc::makedev(1, 3);

/// Socket for messages to journald. Not connected, so that a journald that starts later, or whose socket
/// is created again, receives the records that follow.
pub(super) struct JournalSocket {
    socket: UnixDatagram,
    address: PathBuf,
}

impl JournalSocket {
    /// Creates a socket.
    ///
    /// # Errors
    /// journald does not run.
    pub(super) fn open() -> io::Result<Self> {
        UnixDatagram::unbound()?
            .connect(SOCKET)
            .map_err(|error| io::Error::new(error.kind(), format!("{SOCKET}: {error}")))?;
        Self::open_early()
    }

    /// Creates a socket for a journald that may start later.
    ///
    /// # Errors
    /// As socket(2).
    pub(super) fn open_early() -> io::Result<Self> {
        Ok(Self { socket: UnixDatagram::unbound()?, address: PathBuf::from(SOCKET) })
    }

    pub(super) fn send(&self, level: Level, text: &str, fields: &[JournalField]) -> io::Result<()> {
        self.socket.send_to(&datagram(level, text, fields), &self.address).map(drop)
    }
}

/// Checks whether standard error leads to the journal, where a plain line loses its priority and
/// its fields. systemd sets `JOURNAL_STREAM` to the device and inode of the stream
/// (systemd.exec(5)); the variable remains set when a program redirects the stream.
pub(super) fn has_standard_error() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(file) = fstat(io::stderr()) else { return false };
    stream == format!("{}:{}", file.st_dev, file.st_ino)
}

/// Checks whether this is a service whose standard error should lead to the journal, which did not run
/// when the service was started: systemd then opens `/dev/null` in its place.
pub(super) fn is_missing() -> bool {
    // Only systemd passes the first to a program; a shell in a unit does not.
    let is_service = std::env::var_os("NOTIFY_SOCKET").is_some();
    let was_running = std::env::var_os("JOURNAL_STREAM").is_some();
    let is_null = fstat(io::stderr()).is_ok_and(|file| file.st_rdev == NULL_DEVICE);
    is_service && !was_running && is_null
}

pub(super) fn datagram(level: Level, text: &str, fields: &[JournalField]) -> Vec<u8> {
    let mut bytes = Vec::new();
    push(&mut bytes, "SYSLOG_IDENTIFIER", "cgruled");
    push(&mut bytes, "PRIORITY", &priority(level).to_string());
    fields.iter().for_each(|field| push(&mut bytes, &field.name, &field.value));
    push(&mut bytes, "MESSAGE", text);
    bytes
}

/// Appends a field. A value that contains a newline is sent with its length, so that no text can
/// inject a field.
fn push(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend(name.as_bytes());
    if value.contains('\n') {
        bytes.push(b'\n');
        bytes.extend((value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend(value.as_bytes());
    bytes.push(b'\n');
}

/// Returns the syslog priority of a level.
pub(super) const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_starts_later_receives_what_follows() {
        let directory = tempfile::tempdir().unwrap();
        let address = directory.path().join("socket");
        let journal =
            JournalSocket { socket: UnixDatagram::unbound().unwrap(), address: address.clone() };
        journal.send(Level::Warn, "early", &[]).unwrap_err();
        for _ in 0..2 {
            let journald = UnixDatagram::bind(&address).unwrap();
            journal.send(Level::Warn, "later", &[]).unwrap();
            let mut buffer = [0; 256];
            let length = journald.recv(&mut buffer).unwrap();
            assert!(buffer[..length].ends_with(b"MESSAGE=later\n"));
            std::fs::remove_file(&address).unwrap();
        }
    }

    #[test]
    fn a_line_is_a_field_and_lines_are_sent_by_length() {
        let one = datagram(Level::Warn, "hello", &[]);
        assert_eq!(one, b"SYSLOG_IDENTIFIER=cgruled\nPRIORITY=4\nMESSAGE=hello\n");
        let two = datagram(Level::Info, "a\nPRIORITY=0", &[]);
        let tail = b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n";
        assert!(two.ends_with(tail));
    }
}
