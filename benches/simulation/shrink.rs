//! Shortening of a failing history.

use super::history::{Entry, History};
use super::world;

/// Replays at most.
const MOST: usize = 30_000;

/// Returns the shortest history found that leads to a violation of the same kind.
pub(crate) fn shrink(history: &History, violation: &str) -> History {
    let mut left = MOST;
    let mut best = history.clone();
    let kind = kind_of(violation);
    loop {
        let before = best.clone();
        shorten(&mut best, &kind, &mut left);
        simplify(&mut best, &kind, &mut left);
        if best == before || left == 0 {
            return best;
        }
    }
}

/// Returns a violation without the numbers in it.
fn kind_of(violation: &str) -> String {
    violation.chars().filter(|c| !c.is_ascii_digit()).take(24).collect()
}

fn fails(history: &History, kind: &str, left: &mut usize) -> bool {
    if *left == 0 {
        return false;
    }
    *left -= 1;
    world::replay(history, false).violation.is_some_and(|found| kind_of(&found) == kind)
}

/// Removes ever smaller parts.
fn shorten(best: &mut History, kind: &str, left: &mut usize) {
    let mut size = best.entries.len().div_ceil(2).max(1);
    loop {
        let mut at = best.entries.len();
        while at > 0 {
            let from = at.saturating_sub(size);
            let mut shorter = best.clone();
            shorter.entries.drain(from..at);
            if fails(&shorter, kind, left) {
                *best = shorter;
            }
            at = from.min(best.entries.len());
        }
        if size == 1 {
            return;
        }
        size = size.div_ceil(2);
    }
}

/// Makes the numbers of each step and of the machine smaller.
fn simplify(best: &mut History, kind: &str, left: &mut usize) {
    for bit in (0..64).filter(|bit| best.machine >> bit & 1 == 1).collect::<Vec<_>>() {
        let simpler = History { machine: best.machine & !(1 << bit), ..best.clone() };
        if fails(&simpler, kind, left) {
            *best = simpler;
        }
    }
    for index in 0..best.entries.len() {
        let own = best.entries[index];
        let simpler = [
            Entry { gap: 0, ..own },
            Entry { gap: own.gap / 2, ..own },
            Entry { dt: 0, ..own },
            Entry { a: 0, ..own },
            Entry { a: own.a / 2, ..own },
            Entry { a: own.a % 64, ..own },
            Entry { b: 0, ..own },
            Entry { b: own.b % 64, ..own },
        ];
        for one in simpler {
            let now = best.entries[index];
            let one = Entry {
                gap: one.gap.min(now.gap),
                dt: one.dt.min(now.dt),
                a: one.a.min(now.a),
                b: one.b.min(now.b),
                ..now
            };
            if one == now {
                continue;
            }
            let mut other = best.clone();
            other.entries[index] = one;
            if fails(&other, kind, left) {
                *best = other;
            }
        }
    }
}
