//! Measures the decoding of one datagram: by our parser, and by `netlink-packet-core`.
//!
//! `cargo bench --bench wire`

#![allow(clippy::disallowed_methods, clippy::expect_used)]

use std::hint::black_box;
use std::time::Instant;

use cgruled::event::wire::{self, DATAGRAM, messages};
use netlink_packet_core::{
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkSerializable,
};

/// Number of datagrams between two reads of the clock, which has a coarser resolution
/// than the decoding of one.
const BATCH: usize = 4096;
const ROUNDS: usize = 2000;

fn main() {
    println!("decoding one datagram of {DATAGRAM} bytes, ns, means of {BATCH}, {ROUNDS} rounds");
    println!("{:<28} {:>7} {:>7} {:>7}", "event", "p50", "p90", "min");
    let events = [
        ("exec", datagram(wire::EXEC, [8, 7, 0, 0])),
        ("uid", datagram(wire::UID, [8, 7, 0, 1001])),
        ("fork of a process", datagram(wire::FORK, [8, 7, 9, 9])),
        ("fork of a thread", datagram(wire::FORK, [7, 7, 9, 7])),
        ("malformed (wrong connector)", vec![0xff; DATAGRAM]),
    ];
    for (name, bytes) in &events {
        print(name, || {
            let count = messages(black_box(bytes)).filter(Result::is_ok).count();
            black_box(count);
        });
    }
    // The crate parses it as its own end-of-dump message; this is the cost of that.
    print("exec, netlink-packet-core", || {
        let message = NetlinkMessage::<Nothing>::deserialize(black_box(&events[0].1));
        black_box(message.is_ok());
    });
}

fn print(name: &str, mut decode: impl FnMut()) {
    let mut samples: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..BATCH).for_each(|_| decode());
            start.elapsed().as_nanos() as f64 / BATCH as f64
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    let at = |share: usize| samples[samples.len() * share / 100];
    println!("{name:<28} {:>7.1} {:>7.1} {:>7.1}", at(50), at(90), samples[0]);
}

fn datagram(what: u32, payload: [u32; 4]) -> Vec<u8> {
    let mut bytes = vec![0; DATAGRAM];
    let words = [(0, 76), (16, 1), (20, 1), (36, what)];
    let payload = payload.into_iter().enumerate().map(|(index, word)| (52 + 4 * index, word));
    for (offset, word) in words.into_iter().chain(payload) {
        bytes[offset..offset + 4].copy_from_slice(&u32::to_ne_bytes(word));
    }
    bytes[4..6].copy_from_slice(&3u16.to_ne_bytes());
    bytes[32..34].copy_from_slice(&40u16.to_ne_bytes());
    bytes
}

#[derive(Debug)]
struct Nothing;

impl NetlinkSerializable for Nothing {
    fn message_type(&self) -> u16 {
        0
    }
    fn buffer_len(&self) -> usize {
        0
    }
    fn serialize(&self, _buffer: &mut [u8]) {}
}

impl NetlinkDeserializable for Nothing {
    type Error = std::convert::Infallible;
    fn deserialize(_header: &NetlinkHeader, _payload: &[u8]) -> Result<Self, Self::Error> {
        Ok(Self)
    }
}
