//! journald's native protocol: one datagram of `KEY=value` lines.

use std::io;
use std::os::unix::net::UnixDatagram;

use ::log::Level;

const SOCKET: &str = "/run/systemd/journal/socket";

/// A connection to journald.
pub(super) struct Journal(UnixDatagram);

impl Journal {
    pub(super) fn open() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket
            .connect(SOCKET)
            .map_err(|error| io::Error::new(error.kind(), format!("{SOCKET}: {error}")))?;
        Ok(Self(socket))
    }

    pub(super) fn send(&self, level: Level, text: &str) -> io::Result<()> {
        self.0.send(&datagram(level, text)).map(drop)
    }
}

/// A value with a newline in it is sent by length, so that no text can add a field.
fn datagram(level: Level, text: &str) -> Vec<u8> {
    let mut bytes =
        format!("SYSLOG_IDENTIFIER=cgruled\nPRIORITY={}\n", priority(level)).into_bytes();
    if text.contains('\n') {
        bytes.extend(b"MESSAGE\n");
        bytes.extend((text.len() as u64).to_le_bytes());
    } else {
        bytes.extend(b"MESSAGE=");
    }
    bytes.extend(text.as_bytes());
    bytes.push(b'\n');
    bytes
}

/// The syslog level.
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
        let one = datagram(Level::Warn, "hello");
        assert_eq!(one, b"SYSLOG_IDENTIFIER=cgruled\nPRIORITY=4\nMESSAGE=hello\n");
        let two = datagram(Level::Info, "a\nPRIORITY=0");
        let tail = b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n";
        assert!(two.ends_with(tail));
    }
}
