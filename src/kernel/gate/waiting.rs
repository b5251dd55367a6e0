//! Executions that wait: their order, deadlines and tickets. Pure, so that it is tested without a kernel.
//!
//! The next execution is one whose user had the fewest others waiting when it came, the earliest of these. So a user who
//! executes gated files in a storm delays the others by one execution each.

use std::collections::{BTreeMap, VecDeque};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::event::{Nanos, Uid};

/// Time for which an execution waits at most.
pub(super) const PATIENCE_NS: u64 = 10_000_000;
/// Executions that wait at most. The hot thread needs about 0.1 ms for each, so it answers 100 in their time; each has
/// three descriptors.
pub(super) const MOST: usize = 256;

/// Executions that wait. `E` is what the hot thread takes, `A` what answers the execution.
#[derive(Debug)]
pub(super) struct Waiting<E, A> {
    slots: Vec<Slot<E, A>>,
    /// Slots without an execution.
    free: Vec<u32>,
    /// Tickets of executions that were not taken: by the number of earlier ones of the same user, then by arrival.
    order: BTreeMap<(u32, u64), u64>,
    /// Tickets by arrival, answered ones included until their turn.
    arrivals: VecDeque<(Nanos, u64)>,
    /// Numbers of unanswered executions.
    users: HashMap<Uid, u32, FixedState>,
    arrived: u64,
}

/// A place for an execution, used by many in turn.
#[derive(Debug)]
struct Slot<E, A> {
    /// Distinguishes the tickets of the executions that use the slot.
    generation: u32,
    entry: Option<Entry<E, A>>,
}

#[derive(Debug)]
struct Entry<E, A> {
    user: Uid,
    place: (u32, u64),
    /// `None` when it was taken.
    exec: Option<E>,
    answer: A,
}

impl<E, A> Default for Waiting<E, A> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            order: BTreeMap::new(),
            arrivals: VecDeque::new(),
            users: HashMap::default(),
            arrived: 0,
        }
    }
}

impl<E, A> Waiting<E, A> {
    /// Adds an execution, which `exec` creates for a ticket. Returns the answer of the last one if there are too many.
    pub(super) fn add(
        &mut self,
        user: Uid,
        since: Nanos,
        answer: A,
        exec: impl FnOnce(u64) -> E,
    ) -> Option<A> {
        let ahead = self.users.entry(user).or_insert(0);
        let place = (*ahead, self.arrived);
        *ahead += 1;
        self.arrived += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, entry: None });
            // For all slots, so that `remove` does not allocate on the hot thread.
            self.free.reserve(self.slots.len());
            // At most MOST + 1.
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        let ticket = u64::from(slot.generation) << 32 | u64::from(index);
        slot.entry = Some(Entry { user, place, exec: Some(exec(ticket)), answer });
        self.order.insert(place, ticket);
        self.arrivals.push_back((since, ticket));
        if self.slots.len() - self.free.len() <= MOST {
            return None;
        }
        let (_, last) = self.order.pop_last()?;
        self.remove(last)
    }

    /// Takes the next execution. Allocates nothing.
    pub(super) fn next(&mut self) -> Option<E> {
        let (_, ticket) = self.order.pop_first()?;
        let index = (ticket & u64::from(u32::MAX)) as usize;
        self.slots.get_mut(index)?.entry.as_mut()?.exec.take()
    }

    /// Returns the number of executions that were not taken.
    pub(super) fn untaken(&self) -> usize {
        self.order.len()
    }

    /// Removes an execution. `None` if it does not wait any more. Allocates nothing.
    pub(super) fn remove(&mut self, ticket: u64) -> Option<A> {
        let index = (ticket & u64::from(u32::MAX)) as u32;
        let slot = self.slots.get_mut(index as usize)?;
        if u64::from(slot.generation) != ticket >> 32 {
            return None;
        }
        let Entry { user, place, answer, .. } = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        self.order.remove(&place);
        if let Some(count) = self.users.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(&user);
            }
        }
        Some(answer)
    }

    /// Removes an execution that has waited long enough.
    pub(super) fn remove_late(&mut self, now: Nanos) -> Option<A> {
        while self.due()? <= now {
            let (_, ticket) = self.arrivals.pop_front()?;
            if let Some(answer) = self.remove(ticket) {
                return Some(answer);
            }
        }
        None
    }

    /// Returns the time at which the next execution will have waited long enough.
    pub(super) fn due(&mut self) -> Option<Nanos> {
        while let Some(&(since, ticket)) = self.arrivals.front() {
            if self.waits(ticket) {
                return Some(since.plus(PATIENCE_NS));
            }
            self.arrivals.pop_front();
        }
        None
    }

    fn waits(&self, ticket: u64) -> bool {
        let index = (ticket & u64::from(u32::MAX)) as usize;
        self.slots
            .get(index)
            .is_some_and(|slot| u64::from(slot.generation) == ticket >> 32 && slot.entry.is_some())
    }

    /// Removes all executions.
    pub(super) fn remove_all(&mut self) -> Vec<A> {
        let arrivals = std::mem::take(&mut self.arrivals);
        arrivals.into_iter().filter_map(|(_, ticket)| self.remove(ticket)).collect()
    }
}

/// Executions that ended their wait without an answer since the last one that was answered.
#[derive(Debug, Default)]
pub(super) struct Silence {
    since: Option<Nanos>,
    executions: u32,
}

impl Silence {
    /// Time after which the hot thread is taken to be blocked.
    const LIMIT_NS: u64 = 60_000_000_000;
    /// Executions before that, since a rare execution can be late twice for other reasons.
    const EXECUTIONS: u32 = 8;

    /// Records an answer.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// Records that an execution was late. Returns true if the hot thread is taken to be blocked.
    pub(super) fn continue_at(&mut self, now: Nanos) -> bool {
        let since = *self.since.get_or_insert(now);
        self.executions = self.executions.saturating_add(1);
        self.executions >= Self::EXECUTIONS && now.since(since) >= Self::LIMIT_NS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn add(waiting: &mut Waiting<u64, u32>, user: u32, at: u64, name: u32) -> (u64, Option<u32>) {
        let mut ticket = 0;
        let refused = waiting.add(Uid(user), Nanos(at), name, |own| {
            ticket = own;
            own
        });
        (ticket, refused)
    }

    fn order(waiting: &mut Waiting<u64, u32>) -> Vec<u32> {
        let mut tickets = Vec::new();
        while let Some(ticket) = waiting.next() {
            tickets.push(ticket);
        }
        tickets.into_iter().filter_map(|ticket| waiting.remove(ticket)).collect()
    }

    #[test]
    fn the_user_with_the_fewest_waiting_is_next() {
        let mut waiting = Waiting::default();
        for (user, name) in [(1, 10), (1, 11), (1, 12), (2, 20), (3, 30), (2, 21)] {
            assert_eq!(add(&mut waiting, user, 0, name).1, None);
        }
        let mut taken = Vec::new();
        while let Some(ticket) = waiting.next() {
            taken.push(ticket);
        }
        assert_eq!(waiting.untaken(), 0);
        // What was taken counts until it is answered.
        let (late, _) = add(&mut waiting, 1, 0, 13);
        let (other, _) = add(&mut waiting, 4, 0, 40);
        assert_eq!([waiting.next(), waiting.next()], [Some(other), Some(late)]);
        let names: Vec<u32> = taken.into_iter().filter_map(|one| waiting.remove(one)).collect();
        assert_eq!(names, [10, 20, 30, 11, 21, 12]);
    }

    #[test]
    fn an_execution_is_answered_once() {
        let mut waiting = Waiting::default();
        let (first, _) = add(&mut waiting, 1, 0, 1);
        assert_eq!(waiting.next(), Some(first));
        assert_eq!(waiting.remove(first), Some(1));
        assert_eq!(waiting.remove(first), None);
        // The same slot.
        let (second, _) = add(&mut waiting, 1, 0, 2);
        assert_ne!(first, second);
        assert_eq!(waiting.remove(first), None);
        assert_eq!(waiting.remove(second), Some(2));
        assert_eq!((waiting.next(), waiting.remove(u64::MAX)), (None, None));
        assert_eq!(waiting.due(), None);
    }

    #[test]
    fn an_execution_is_late_whether_it_was_taken_or_not() {
        let mut waiting = Waiting::default();
        let (taken, _) = add(&mut waiting, 1, 5, 1);
        let (answered, _) = add(&mut waiting, 1, 6, 2);
        add(&mut waiting, 1, 7, 3);
        assert_eq!(waiting.next(), Some(taken));
        assert_eq!(waiting.remove(answered), Some(2));
        assert_eq!(waiting.due(), Some(Nanos(5 + PATIENCE_NS)));
        assert_eq!(waiting.remove_late(Nanos(4 + PATIENCE_NS)), None);
        assert_eq!(waiting.remove_late(Nanos(5 + PATIENCE_NS)), Some(1));
        assert_eq!(waiting.remove(taken), None);
        assert_eq!(waiting.due(), Some(Nanos(7 + PATIENCE_NS)));
        assert_eq!(waiting.remove_late(Nanos(8 + PATIENCE_NS)), Some(3));
        assert_eq!((waiting.next(), waiting.due()), (None, None));
    }

    #[test]
    fn the_last_one_of_the_user_with_most_goes_on_when_there_are_too_many() {
        let mut waiting = Waiting::default();
        for name in 0..MOST as u32 {
            assert_eq!(add(&mut waiting, 1, 0, name).1, None);
        }
        assert_eq!(add(&mut waiting, 1, 0, 1000).1, Some(1000));
        assert_eq!(add(&mut waiting, 2, 0, 2000).1, Some(MOST as u32 - 1));
        assert_eq!(order(&mut waiting)[..2], [0, 2000]);
        assert!(waiting.slots.len() <= MOST + 1);
    }

    #[test]
    fn all_are_removed_at_once() {
        let mut waiting = Waiting::default();
        let (taken, _) = add(&mut waiting, 1, 0, 1);
        add(&mut waiting, 2, 0, 2);
        waiting.next();
        assert_eq!(waiting.remove_all(), [1, 2]);
        assert_eq!((waiting.remove(taken), waiting.next(), waiting.due()), (None, None, None));
        assert!(waiting.users.is_empty());
    }

    #[test]
    fn the_hot_thread_is_blocked_after_a_minute_and_several_executions() {
        let mut silence = Silence::default();
        let minute = Silence::LIMIT_NS;
        assert!((0..7).all(|at| !silence.continue_at(Nanos(at * minute))));
        assert!(silence.continue_at(Nanos(7 * minute)));
        silence.end();
        assert!((0..100).all(|_| !silence.continue_at(Nanos(8 * minute))));
        assert!(silence.continue_at(Nanos(9 * minute)));
    }

    proptest! {
        /// Steps: 0 to 2 add one of that user, 3 takes, 4 answers the oldest taken, 5 removes the late ones.
        #[test]
        fn each_execution_ends_exactly_once(steps in prop::collection::vec(0u8..6, 0..900)) {
            let mut waiting = Waiting::default();
            let (mut taken, mut ended) = (VecDeque::new(), Vec::new());
            let mut added = 0;
            for (step, at) in steps.into_iter().zip(0u64..) {
                let now = Nanos(at * (PATIENCE_NS / 20));
                match step {
                    0..3 => {
                        ended.extend(add(&mut waiting, step.into(), now.0, added).1);
                        added += 1;
                    }
                    3 => taken.extend(waiting.next()),
                    4 => ended.extend(taken.pop_front().and_then(|one| waiting.remove(one))),
                    _ => ended.extend(std::iter::from_fn(|| waiting.remove_late(now))),
                }
                prop_assert!(waiting.untaken() + ended.len() <= added as usize);
                let unanswered: u32 = waiting.users.values().sum();
                prop_assert_eq!(unanswered as usize + ended.len(), added as usize);
            }
            ended.extend(waiting.remove_all());
            ended.sort_unstable();
            prop_assert!(ended.into_iter().eq(0..added));
        }
    }
}
