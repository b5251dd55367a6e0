//! Parser of proc connector datagrams into [`Event`]s, and encoder of subscriptions. Pure and
//! total: any input gives events, acknowledgements or a [`Malformed`], never a panic.
//!
//! One datagram is a netlink header (16 bytes), `struct cn_msg` (20) and `struct proc_event` (40);
//! all events have the same size because the kernel pads the union. Offsets below are from the
//! start of the datagram (`linux/connector.h`, `linux/cn_proc.h`; same on 32 and 64 bit).
//!
//! `netlink-packet-core` frames and encodes. It cannot decode these messages: the kernel types
//! every one `NLMSG_DONE`, which the crate takes for its own end-of-dump message.

use netlink_packet_core::{
    NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};

use super::{Event, EventKind, Nanos, Pid, Task};

/// `CN_IDX_PROC`: both the connector ID and the multicast group.
pub const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
/// `NLMSG_DONE`: the type of every connector message.
const NLMSG_DONE: u16 = 3;

/// Size of the netlink header before `cn_msg`.
const NL_HEADER: usize = 16;
/// Size of `cn_msg` before `proc_event`.
const CN_HEADER: usize = 20;

/// `PROC_EVENT_FORK`; the values are also the bits of the kernel's event mask.
pub const FORK: u32 = 0x1;
/// `PROC_EVENT_EXEC`: type and mask bit of exec events.
pub const EXEC: u32 = 0x2;
/// `PROC_EVENT_UID`: type and mask bit of user ID changes.
pub const UID: u32 = 0x4;
/// `PROC_EVENT_GID`: type and mask bit of group ID changes.
pub const GID: u32 = 0x40;
/// `PROC_EVENT_NONE`: the acknowledgement of a subscription.
pub const ACK: u32 = 0;

/// Offset of `proc_event.what` in a datagram, for the socket filter.
pub const OFFSET_WHAT: u32 = 36;
/// Offset of `child_pid` in a fork event.
pub const OFFSET_CHILD_PID: u32 = 60;
/// Offset of `child_tgid` in a fork event.
pub const OFFSET_CHILD_TGID: u32 = 64;

/// Size of a datagram with one event; the proc connector sends no larger ones.
pub const DATAGRAM: usize = 76;

// `struct proc_event` has 40 bytes, and its time stamp the offset 8, on all architectures.
const _: () = assert!(DATAGRAM == NL_HEADER + CN_HEADER + 40);
const _: () = assert!(OFFSET_WHAT as usize == NL_HEADER + CN_HEADER);

/// Parsed message of the proc connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Event of a subscribed type.
    Event(Event),
    /// Acknowledgement of a subscription request.
    Ack {
        /// Sequence number of the request plus one.
        ack: u32,
        /// Errno of the request, 0 for success.
        error: u32,
    },
    /// Fork of a thread, or an event without a subscription.
    Other,
}

/// Reason why bytes are not a message of the proc connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than the headers, or than the length fields specify.
    Length,
    /// Message of another connector than the proc connector.
    Id,
    /// Process ID outside the valid range.
    Pid,
}

/// Parses the messages of one datagram. The kernel puts one into each, but the framing allows more.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<Message, Malformed>> + '_ {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Ok(frame) = NetlinkBuffer::new_checked(rest) else {
            rest = &[];
            return Some(Err(Malformed::Length));
        };
        let length = frame.length() as usize;
        let message = decode(&rest[..length]);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Parses one message with its netlink header.
fn decode(frame: &[u8]) -> Result<Message, Malformed> {
    let payload = u16_at(frame, 32)?;
    if (u32_at(frame, 16)?, u32_at(frame, 20)?) != (CN_IDX_PROC, CN_VAL_PROC) {
        return Err(Malformed::Id);
    }
    // The payload length is within 34 bytes, which can be present although the headers are
    // incomplete.
    if frame.len().checked_sub(NL_HEADER + CN_HEADER) != Some(usize::from(payload)) {
        return Err(Malformed::Length);
    }
    let at = Nanos(u64::from(u32_at(frame, 44)?) | u64::from(u32_at(frame, 48)?) << 32);
    let at = if cfg!(target_endian = "big") { Nanos(at.0.rotate_left(32)) } else { at };
    let what = match u32_at(frame, OFFSET_WHAT as usize)? {
        FORK => {
            let child = (u32_at(frame, 60)?, u32_at(frame, 64)?);
            if child.0 != child.1 {
                return Ok(Message::Other);
            }
            EventKind::Fork { parent: pid_at(frame, 56)?, child: pid_at(frame, 64)? }
        }
        // The second ID is the thread group: the process is classified, whichever thread acted.
        EXEC => EventKind::Exec(pid_at(frame, 56)?),
        UID => EventKind::Uid(task_at(frame)?),
        GID => EventKind::Gid(task_at(frame)?),
        ACK => return Ok(Message::Ack { ack: u32_at(frame, 28)?, error: u32_at(frame, 52)? }),
        _ => return Ok(Message::Other),
    };
    Ok(Message::Event(Event { at, what }))
}

fn u32_at(frame: &[u8], offset: usize) -> Result<u32, Malformed> {
    match frame.get(offset..offset + 4).and_then(|bytes| bytes.try_into().ok()) {
        Some(bytes) => Ok(u32::from_ne_bytes(bytes)),
        None => Err(Malformed::Length),
    }
}

fn u16_at(frame: &[u8], offset: usize) -> Result<u16, Malformed> {
    match frame.get(offset..offset + 2).and_then(|bytes| bytes.try_into().ok()) {
        Some(bytes) => Ok(u16::from_ne_bytes(bytes)),
        None => Err(Malformed::Length),
    }
}

fn task_at(frame: &[u8]) -> Result<Task, Malformed> {
    Ok(Task { thread: pid_at(frame, 52)?, process: pid_at(frame, 56)? })
}

fn pid_at(frame: &[u8], offset: usize) -> Result<Pid, Malformed> {
    Pid::new(u32_at(frame, offset)?).ok_or(Malformed::Pid)
}

/// Subscription request to the connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// Receive every event. The only form that is acknowledged on every kernel.
    Listen,
    /// Receive the events of this mask (Linux 6.6; older kernels treat it as [`Self::Listen`]).
    Masked(u32),
    /// Receive no events any more.
    Ignore,
}

impl Subscription {
    /// Encodes the request as a datagram; the acknowledgement carries `number` plus one.
    pub fn encode(self, number: u32) -> Vec<u8> {
        let body = Body { subscription: self, number };
        let mut message =
            NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(body));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }
}

struct Body {
    subscription: Subscription,
    number: u32,
}

impl Body {
    /// Returns the value of `enum proc_cn_mcast_op` and the mask that follows it, if any.
    fn operation(&self) -> (u32, Option<u32>) {
        match self.subscription {
            Subscription::Listen => (1, None),
            Subscription::Masked(mask) => (1, Some(mask)),
            Subscription::Ignore => (2, None),
        }
    }
}

impl NetlinkSerializable for Body {
    fn message_type(&self) -> u16 {
        NLMSG_DONE
    }

    fn buffer_len(&self) -> usize {
        CN_HEADER + if self.operation().1.is_some() { 8 } else { 4 }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (operation, mask) = self.operation();
        let length: u16 = if mask.is_some() { 8 } else { 4 };
        // `len` and `flags` are two u16, written separately: a little-endian u32 with the same low
        // half would be wrong on big-endian machines.
        let words = [CN_IDX_PROC, CN_VAL_PROC, self.number, self.number];
        let halves = [length, 0];
        let bytes = words
            .into_iter()
            .flat_map(u32::to_ne_bytes)
            .chain(halves.into_iter().flat_map(u16::to_ne_bytes))
            .chain(operation.to_ne_bytes())
            .chain(mask.into_iter().flat_map(u32::to_ne_bytes));
        for (slot, byte) in buffer.iter_mut().zip(bytes) {
            *slot = byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns a datagram as the kernel sends it.
    fn datagram(what: u32, payload: [u32; 4]) -> Vec<u8> {
        let mut bytes = vec![0; DATAGRAM];
        let header = [(0, 76), (16, CN_IDX_PROC), (20, CN_VAL_PROC), (OFFSET_WHAT as usize, what)];
        let payload = payload.into_iter().enumerate().map(|(index, word)| (52 + 4 * index, word));
        for (offset, value) in header.into_iter().chain(payload) {
            bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        }
        bytes[4..6].copy_from_slice(&NLMSG_DONE.to_ne_bytes());
        bytes[32..34].copy_from_slice(&40u16.to_ne_bytes());
        bytes[44..52].copy_from_slice(&0x0102_0304_0506_0708u64.to_ne_bytes());
        bytes
    }

    fn decode_one(bytes: &[u8]) -> Result<Message, Malformed> {
        messages(bytes).next().unwrap()
    }

    fn pid(raw: u32) -> Pid {
        Pid::new(raw).unwrap()
    }

    #[test]
    fn a_process_fork_names_the_thread_groups() {
        let message = decode_one(&datagram(FORK, [11, 10, 20, 20]));
        let what = EventKind::Fork { parent: pid(10), child: pid(20) };
        let at = Nanos(0x0102_0304_0506_0708);
        assert_eq!(message, Ok(Message::Event(Event { at, what })));
    }

    #[test]
    fn a_thread_fork_is_nothing() {
        assert_eq!(decode_one(&datagram(FORK, [10, 10, 21, 20])), Ok(Message::Other));
    }

    #[test]
    fn identity_events_name_the_process_and_the_thread() {
        let task = Task { process: pid(7), thread: pid(8) };
        for (what, expected) in [
            (EXEC, EventKind::Exec(pid(7))),
            (UID, EventKind::Uid(task)),
            (GID, EventKind::Gid(task)),
        ] {
            let Ok(Message::Event(event)) = decode_one(&datagram(what, [8, 7, 0, 0])) else {
                panic!("{what} is an event");
            };
            assert_eq!(event.what, expected);
        }
    }

    #[test]
    fn pid_zero_is_malformed() {
        assert_eq!(decode_one(&datagram(EXEC, [0, 0, 0, 0])), Err(Malformed::Pid));
    }

    #[test]
    fn every_shorter_datagram_is_refused() {
        let whole = datagram(EXEC, [8, 7, 0, 0]);
        for length in 1..DATAGRAM {
            assert!(decode_one(&whole[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_message_that_ends_in_its_headers_is_refused() {
        for length in [34u8, 35] {
            let mut bytes = datagram(EXEC, [8, 7, 0, 0]);
            bytes.truncate(length.into());
            bytes[..4].copy_from_slice(&u32::from(length).to_ne_bytes());
            assert_eq!(messages(&bytes).next(), Some(Err(Malformed::Length)));
        }
    }

    #[test]
    fn a_lying_length_is_refused() {
        for offset in [0, 32] {
            let mut bytes = datagram(EXEC, [8, 7, 0, 0]);
            bytes[offset] = bytes[offset].wrapping_add(4);
            assert_eq!(decode_one(&bytes), Err(Malformed::Length));
        }
    }

    #[test]
    fn another_connector_is_refused() {
        for offset in [16, 20] {
            let mut bytes = datagram(EXEC, [8, 7, 0, 0]);
            bytes[offset] = 9;
            assert_eq!(decode_one(&bytes), Err(Malformed::Id));
        }
    }

    #[test]
    fn two_messages_in_one_datagram() {
        let mut bytes = datagram(EXEC, [8, 7, 0, 0]);
        bytes.extend(datagram(UID, [9, 9, 0, 0]));
        assert_eq!(messages(&bytes).filter(Result::is_ok).count(), 2);
    }

    #[test]
    fn subscriptions_have_the_kernel_form() {
        let listen = Subscription::Listen.encode(5);
        assert_eq!(listen.len(), 40);
        assert_eq!(u32_at(&listen, 0), Ok(40));
        assert_eq!(u16_at(&listen, 4), Ok(NLMSG_DONE));
        assert_eq!(u32_at(&listen, 28), Ok(5));
        assert_eq!(u16_at(&listen, 32), Ok(4));
        assert_eq!(u32_at(&listen, 36), Ok(1));
        let masked = Subscription::Masked(0x46).encode(6);
        assert_eq!((masked.len(), u32_at(&masked, 40)), (44, Ok(0x46)));
        assert_eq!(u32_at(&Subscription::Ignore.encode(7), 36), Ok(2));
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            prop_assert!(messages(&bytes).count() <= bytes.len() / NL_HEADER + 1);
        }

        #[test]
        fn any_change_of_a_datagram_ends(index in 0..DATAGRAM, byte: u8, what in 0u32..0x50) {
            let mut bytes = datagram(what, [1, 2, 3, 4]);
            bytes[index] = byte;
            prop_assert!(messages(&bytes).count() <= 5);
        }
    }
}
