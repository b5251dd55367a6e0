//! The requests to the helper threads of the daemon: names, rules, executables.

use std::collections::VecDeque;

use cgruled::kernel::exe_pool::Examination;
use cgruled::policy::worker::WorkerReply;
use cgruled::rules::names::UserIdentity;

/// What is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    User(u32),
    Group(u32),
}

/// A request to the name service, as `policy::worker::lookups` treats it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lookup {
    pub(crate) key: Key,
    pub(crate) generation: u64,
    pub(crate) set: usize,
    pub(crate) is_running: bool,
    pub(crate) is_again: bool,
    /// Does not reply for this number of rests.
    pub(crate) sleeps: u8,
}

/// A read of an executable that does not return.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockedRead {
    pub(crate) process: u32,
    pub(crate) identity: u64,
    pub(crate) uid: u32,
}

/// A request that a thread processes.
#[derive(Debug)]
pub(crate) enum Task {
    Reload,
    /// The policy of the plan with this number.
    Plan(u64),
    Examine {
        user: u32,
        examination: Examination,
        at: u64,
    },
    Provoke,
}

/// Requests without a reply, and replies that the daemon has not taken.
#[derive(Default)]
pub(crate) struct Services {
    pub(crate) lookups: Vec<Lookup>,
    pub(crate) tasks: VecDeque<Task>,
    pub(crate) replies: Vec<WorkerReply>,
    /// Reads that block.
    pub(crate) blocked: Vec<BlockedRead>,
    /// The users that the policy of the last plan knew at first.
    pub(crate) plan_users: Vec<UserIdentity>,
}

impl Services {
    pub(crate) fn ask(&mut self, key: Key, generation: u64, set: usize) {
        match self.lookups.iter_mut().find(|one| one.key == key) {
            Some(one) => {
                one.is_again |= one.is_running && one.generation != generation;
                one.generation = generation;
                one.set = set;
            }
            None => self.lookups.push(Lookup {
                key,
                generation,
                set,
                is_running: false,
                is_again: false,
                sleeps: 0,
            }),
        }
    }

    /// Queues an examination. A process has one place in the queue of its user, and one for a plan.
    pub(crate) fn examine(&mut self, user: u32, examination: Examination, at: u64) {
        let place = (user, examination.pid, examination.is_planned);
        let is_place = |task: &&mut Task| match task {
            Task::Examine { user, examination: Examination { pid, is_planned, .. }, .. } => {
                (*user, *pid, *is_planned) == place
            }
            Task::Reload | Task::Plan(_) | Task::Provoke => false,
        };
        let task = Task::Examine { user, examination, at };
        match self.tasks.iter_mut().find(is_place) {
            Some(place) => *place = task,
            None => self.tasks.push_back(task),
        }
    }

    /// Checks whether the daemon has requested the examination of a process, and not taken the result.
    pub(crate) fn awaits_examination(&self, process: u32) -> bool {
        let is_asked = self.tasks.iter().any(|task| match task {
            Task::Examine { examination, .. } => examination.pid.get() == process,
            Task::Reload | Task::Plan(_) | Task::Provoke => false,
        });
        let is_reply = |reply: &WorkerReply| match reply {
            WorkerReply::Examined { pid, .. } => pid.get() == process,
            _ => false,
        };
        is_asked || self.replies.iter().any(is_reply)
    }

    /// A reply arrives at the daemon.
    pub(crate) fn note(&mut self, key: Key) {
        let Some(index) = self.lookups.iter().position(|one| one.key == key) else { return };
        let one = &mut self.lookups[index];
        if one.is_again {
            (one.is_running, one.is_again) = (false, false);
        } else {
            self.lookups.remove(index);
        }
    }
}
