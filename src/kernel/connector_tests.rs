use std::os::unix::net::UnixDatagram;

use super::*;

/// Returns a datagram with an event, or an acknowledgement, in the byte order of this machine.
fn datagram(what: u32, words: [u32; 4]) -> Vec<u8> {
    let mut bytes = vec![0; wire::DATAGRAM];
    bytes[wire::OFFSET_WHAT as usize..][..4].copy_from_slice(&what.to_ne_bytes());
    for (index, word) in words.into_iter().enumerate() {
        bytes[52 + 4 * index..][..4].copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// Returns which of the datagrams the kernel delivers through the filter of `kind`.
fn delivered(kind: SocketKind, accepted: Accepted, datagrams: &[Vec<u8>]) -> Vec<bool> {
    let (sender, receiver) = UnixDatagram::pair().unwrap();
    receiver.set_nonblocking(true).unwrap();
    sys::attach_filter(receiver.as_fd(), &filter(kind, accepted)).unwrap();
    let mut buffer = [0; 2 * wire::DATAGRAM];
    let delivered = datagrams.iter().map(|bytes| {
        // A datagram that the filter rejects is an error for the sender (EPERM), or dropped.
        let _rejected = sender.send(bytes);
        receiver.recv(&mut buffer).is_ok_and(|count| buffer[..count] == **bytes)
    });
    delivered.collect()
}

/// The filter runs in the kernel, which loads words in network byte order: this fails on a big-endian machine if
/// the constants are converted wrongly.
#[test]
fn each_filter_accepts_its_events_and_acknowledgements() {
    let process = [10, 10, 20, 20];
    let thread = [10, 10, 21, 20];
    let datagrams = [
        datagram(wire::ACK, [0; 4]),
        datagram(wire::FORK, process),
        datagram(wire::FORK, thread),
        datagram(wire::EXEC, process),
        datagram(wire::UID, process),
        datagram(wire::GID, process),
        // PROC_EVENT_EXIT, and values that differ from FORK and EXEC in their byte order only.
        datagram(0x8000_0000, process),
        datagram(wire::FORK.swap_bytes(), process),
        datagram(wire::EXEC.swap_bytes(), process),
    ];
    let events = delivered(SocketKind::Events, Accepted::Execs, &datagrams);
    assert_eq!(events, [true, false, false, true, false, false, false, false, false]);
    let events = delivered(SocketKind::Events, Accepted::Gids, &datagrams);
    assert_eq!(events, [true, false, false, true, true, true, false, false, false]);
    let events = delivered(SocketKind::Events, Accepted::Uids, &datagrams);
    assert_eq!(events, [true, false, false, true, true, false, false, false, false]);
    let forks = delivered(SocketKind::Forks, Accepted::Execs, &datagrams);
    assert_eq!(forks, [true, true, false, false, false, false, false, false, false]);
}
