//! The protocol of the original's socket: two integers of 32 bits in the byte order of the machine, a
//! process and what is wished for it. They may come in any pieces. Pure.

use crate::event::{Pid, Uid};

/// The whole answer to a request that was granted; one that was not is closed without an answer.
pub const GRANTED: &[u8; 18] = b"SUCCESS_STORE_PID\0";

/// The only value that takes a wish back; all others are wishes.
const CANCEL: i32 = 2;
/// The bit that includes future children.
const CHILDREN: i32 = 1;

/// What a client wishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Never move the process.
    Stay {
        /// Nor children that it will have, nor theirs.
        children: bool,
    },
    /// Move it again as the rules say.
    Cancel,
}

/// Who asks, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its effective user when it connected.
    pub uid: Uid,
    /// Its process.
    pub process: u32,
}

/// A whole request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The process; `None` for a number that no process can have.
    pub pid: Option<Pid>,
    /// What is wished for it.
    pub wish: Wish,
}

/// A request of which some bytes may be missing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Incoming {
    bytes: [u8; 8],
    length: usize,
}

impl Incoming {
    /// Room for the bytes that are missing.
    pub fn missing(&mut self) -> &mut [u8] {
        &mut self.bytes[self.length..]
    }

    /// That many of [`Self::missing`] were filled. The request, when none is missing any more.
    pub fn filled(&mut self, count: usize) -> Option<Request> {
        self.length = (self.length + count).min(self.bytes.len());
        if self.length < self.bytes.len() {
            return None;
        }
        let [a, b, c, d, e, f, g, h] = self.bytes;
        let pid = i32::from_ne_bytes([a, b, c, d]);
        let wish = match i32::from_ne_bytes([e, f, g, h]) {
            CANCEL => Wish::Cancel,
            flags => Wish::Stay { children: flags & CHILDREN != 0 },
        };
        Some(Request { pid: u32::try_from(pid).ok().and_then(Pid::new), wish })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What comes of the two integers, handed over in pieces of these lengths.
    fn hear(pid: i32, flags: i32, pieces: &[usize]) -> Option<Request> {
        let bytes = [pid.to_ne_bytes(), flags.to_ne_bytes()].concat();
        let mut incoming = Incoming::default();
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

    fn wish(flags: i32) -> Wish {
        hear(7, flags, &[8]).unwrap().wish
    }

    #[test]
    fn flags_are_a_wish() {
        assert_eq!(wish(0), Wish::Stay { children: false });
        assert_eq!(wish(1), Wish::Stay { children: true });
        assert_eq!(wish(2), Wish::Cancel);
        assert_eq!(wish(3), Wish::Stay { children: true });
        assert_eq!(wish(4), Wish::Stay { children: false });
        assert_eq!(wish(99), Wish::Stay { children: true });
        assert_eq!(wish(-1), Wish::Stay { children: true });
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
