//! The protocol of the cgrulesengd socket: a request is two 32-bit integers in native byte order, a
//! PID and flags. It must accept them in pieces of any size.

use crate::event::{Pid, Uid};

/// The complete reply to a granted request. After a refused one the connection is closed without a
/// reply.
pub const GRANTED: &[u8; 18] = b"SUCCESS_STORE_PID\0";

/// The only value that ends a pin; all others create one.
const CANCEL: i32 = 2;
/// The flag bit that includes future children.
const CHILDREN: i32 = 1;

/// The requested action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinAction {
    /// A pin: the process is never moved.
    Stay {
        /// Whether children born later, and their descendants, are included.
        children: bool,
    },
    /// The end of a pin: the process is moved by the rules again.
    Cancel,
}

/// The credentials of the client, as reported by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinClient {
    /// The effective user ID at the time of the connection.
    pub uid: Uid,
    /// The PID of the client.
    pub process: u32,
}

/// A complete request for one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinRequest {
    /// The process; `None` for a value that is not a valid PID.
    pub pid: Option<Pid>,
    /// The action requested for it.
    pub action: PinAction,
}

/// A request that may be incomplete.
#[derive(Clone, Copy, Debug, Default)]
pub struct PinRequestReader {
    bytes: [u8; 8],
    length: usize,
}

impl PinRequestReader {
    /// Returns the buffer for the missing bytes.
    pub fn missing(&mut self) -> &mut [u8] {
        &mut self.bytes[self.length..]
    }

    /// Records that `count` bytes of [`Self::missing`] were filled. Returns the request once it is
    /// complete.
    pub fn filled(&mut self, count: usize) -> Option<PinRequest> {
        self.length = (self.length + count).min(self.bytes.len());
        if self.length < self.bytes.len() {
            return None;
        }
        let [a, b, c, d, e, f, g, h] = self.bytes;
        let pid = i32::from_ne_bytes([a, b, c, d]);
        let action = match i32::from_ne_bytes([e, f, g, h]) {
            CANCEL => PinAction::Cancel,
            flags => PinAction::Stay { children: flags & CHILDREN != 0 },
        };
        Some(PinRequest { pid: u32::try_from(pid).ok().and_then(Pid::new), action })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Parses the two integers, passed in pieces of these lengths.
    fn hear(pid: i32, flags: i32, pieces: &[usize]) -> Option<PinRequest> {
        let bytes = [pid.to_ne_bytes(), flags.to_ne_bytes()].concat();
        let mut incoming = PinRequestReader::default();
        let mut rest = bytes.as_slice();
        for &piece in pieces {
            let room = incoming.missing();
            let count = piece.min(room.len());
            room[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            if let Some(request) = incoming.filled(count) {
                assert!(rest.is_empty());
                return Some(request);
            }
        }
        None
    }

    fn action(flags: i32) -> PinAction {
        hear(7, flags, &[8]).unwrap().action
    }

    #[test]
    fn flags_are_a_wish() {
        assert_eq!(action(0), PinAction::Stay { children: false });
        assert_eq!(action(1), PinAction::Stay { children: true });
        assert_eq!(action(2), PinAction::Cancel);
        assert_eq!(action(3), PinAction::Stay { children: true });
        assert_eq!(action(4), PinAction::Stay { children: false });
        assert_eq!(action(99), PinAction::Stay { children: true });
        assert_eq!(action(-1), PinAction::Stay { children: true });
    }

    #[test]
    fn no_process_has_the_number_0_or_less() {
        for pid in [0, -1, i32::MIN] {
            assert_eq!(hear(pid, 0, &[8]).unwrap().pid, None);
        }
        assert_eq!(hear(i32::MAX, 0, &[8]).unwrap().pid, Pid::new(i32::MAX as u32));
    }

    #[test]
    fn seven_bytes_are_no_request() {
        assert_eq!(hear(7, 0, &[4, 3]), None);
        assert_eq!(hear(7, 0, &[]), None);
    }

    proptest! {
        #[test]
        fn the_pieces_do_not_matter(
            pid: i32, flags: i32, pieces in proptest::collection::vec(0usize..4, 40),
        ) {
            let whole = hear(pid, flags, &[8]);
            prop_assert!(whole.is_some());
            let enough = pieces.iter().sum::<usize>() >= 8;
            prop_assert_eq!(hear(pid, flags, &pieces), whole.filter(|_| enough));
        }
    }
}
