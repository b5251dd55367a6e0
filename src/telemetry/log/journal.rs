//! Client for journald's native protocol: one datagram of `KEY=value` lines per record.

use std::io;
use std::os::unix::net::UnixDatagram;

use ::log::Level;
use nix::sys::stat::fstat;

use super::field::JournalField;

const SOCKET: &str = "/run/systemd/journal/socket";

/// Socket that is connected to journald.
pub(super) struct JournalSocket(UnixDatagram);

impl JournalSocket {
    pub(super) fn open() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket
            .connect(SOCKET)
            .map_err(|error| io::Error::new(error.kind(), format!("{SOCKET}: {error}")))?;
        Ok(Self(socket))
    }

    pub(super) fn send(&self, level: Level, text: &str, fields: &[JournalField]) -> io::Result<()> {
        self.0.send(&datagram(level, text, fields)).map(drop)
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
    fn a_line_is_a_field_and_lines_are_sent_by_length() {
        let one = datagram(Level::Warn, "hello", &[]);
        assert_eq!(one, b"SYSLOG_IDENTIFIER=cgruled\nPRIORITY=4\nMESSAGE=hello\n");
        let two = datagram(Level::Info, "a\nPRIORITY=0", &[]);
        let tail = b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n";
        assert!(two.ends_with(tail));
    }
}
