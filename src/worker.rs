//! Threads that may wait, so that the hot thread need not: one reads rules, a few ask the name service,
//! those of [`crate::exe_pool`] examine executables. Questions go out and answers come back over channels;
//! an eventfd wakes the loop.

mod lookups;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::event::{Gid, Pid, Uid};
use crate::exe_pool::{Examination, Pool};
use crate::policy::{Policy, User};
use crate::program::{self, Examined, ReadRequest};
use crate::source::connector::run_test_process;
pub use lookups::Directory;
use lookups::{LookupKey, Lookups};

/// What comes back.
pub enum Answer {
    /// Other rules, to be put into force.
    Policy(Box<Policy>),
    /// What is known of a user, by the rules of this generation.
    User {
        /// The policy that it belongs to.
        generation: u64,
        /// The answer.
        user: User,
    },
    /// The name of a group, if it has one.
    Group {
        /// The policy that it was asked for.
        generation: u64,
        /// The group.
        gid: Gid,
        /// Its name.
        name: Option<Box<str>>,
    },
    /// An executable was examined.
    Examined {
        /// The process.
        pid: Pid,
        /// The number of the examination.
        number: u64,
        /// The answer.
        examined: Examined,
    },
    /// An executable whose read had blocked the hot thread can be read again.
    Readable(Pid),
}

/// What the hot thread can ask for.
enum Question {
    Reload,
    Provoke,
}

/// Why rules are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The administrator asked, or a rule file changed.
    Rules,
    /// Users or groups changed.
    Names,
}

/// Reads rules; what the rule thread is made of.
pub trait Office: Send + 'static {
    /// The rules as they are now; a file with new errors is taken at what it said before.
    fn reload(&mut self) -> Box<Policy>;
    /// The name service that the rules are resolved by.
    fn directory(&self) -> Arc<dyn Directory>;
}

/// The hot thread's side.
pub struct Desk {
    questions: Sender<Question>,
    executables: Pool,
    counter: Counter,
    answers: Receiver<Answer>,
    bell: Arc<EventFd>,
    lookups: Lookups,
}

#[derive(Clone)]
struct Counter {
    answers: Sender<Answer>,
    bell: Arc<EventFd>,
}

impl Counter {
    /// Hands an answer over. Both fail only when the hot thread ended.
    fn answer(&self, answer: Answer) -> bool {
        self.answers.send(answer).is_ok() && self.bell.write(1).is_ok()
    }
}

impl Desk {
    /// Starts the threads.
    ///
    /// # Errors
    /// No thread or eventfd can be made.
    pub fn open(office: impl Office) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let (questions, asked) = unbounded();
        let (sender, answers) = unbounded();
        let counter = Counter { answers: sender, bell: Arc::clone(&bell) };
        let (of_rules, of_executables) = (counter.clone(), counter.clone());
        let lookups = Lookups::open(office.directory(), counter.clone())?;
        thread::Builder::new().name("rules".into()).spawn(move || {
            serve(office, &asked, &of_rules);
        })?;
        let executables = Pool::new(
            Box::new(|Examination { pid, raw, .. }| program::examine(pid, raw.as_deref())),
            Box::new(move |pid, number, examined| {
                of_executables.answer(Answer::Examined { pid, number, examined })
            }),
        );
        Ok(Self { questions, executables, counter, answers, bell, lookups })
    }

    /// Asks for the rules as they are now.
    pub fn reload(&self) {
        self.ask(Question::Reload);
    }

    /// Asks for the name and the groups of a user, who is planned for by the rules of `policy`.
    pub fn identify(&mut self, policy: &Policy, uid: Uid) {
        self.lookups.ask(LookupKey::User(uid), policy.generation, &policy.matcher);
    }

    /// Asks for the name of a group, under `policy`.
    pub fn name_group(&mut self, policy: &Policy, gid: Gid) {
        self.lookups.ask(LookupKey::Group(gid), policy.generation, &policy.matcher);
    }

    /// Asks for an examination of an executable, which counts for `user`. `false` when too many of that
    /// user wait.
    #[must_use]
    pub fn examine(&self, user: Uid, examination: Examination) -> bool {
        self.executables.submit(user, examination)
    }

    /// Whether a user whose examinations were refused has none left that waits.
    pub fn take_overflown(&self) -> bool {
        self.executables.take_overflown()
    }

    /// What is told of a read that was late, when it is over.
    pub fn late_reads(&self) -> Box<dyn Fn(ReadRequest) + Send + Sync> {
        let counter = self.counter.clone();
        Box::new(move |request| {
            // It fails only when the hot thread ended.
            let _told = counter.answer(Answer::Readable(request.pid));
        })
    }

    /// Has some process forked, so that there is an event.
    pub fn provoke(&self) {
        self.ask(Question::Provoke);
    }

    fn ask(&self, question: Question) {
        // The thread ends only with us.
        if self.questions.send(question).is_err() {
            ::log::error!("the thread that reads rules has ended");
        }
    }

    /// What to poll.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// What to write to for the loop to wake up.
    pub fn ringer(&self) -> Arc<EventFd> {
        Arc::clone(&self.bell)
    }

    /// The answers that have come.
    pub fn answers(&mut self) -> impl Iterator<Item = Answer> + '_ {
        // Read first: an answer that comes later rings again. EAGAIN means that nobody rang.
        let _rung = self.bell.read();
        let lookups = &mut self.lookups;
        self.answers.try_iter().inspect(|answer| lookups.note(answer))
    }
}

fn serve(mut office: impl Office, asked: &Receiver<Question>, counter: &Counter) {
    while let Ok(question) = asked.recv() {
        let answer = match question {
            Question::Reload => Some(Answer::Policy(office.reload())),
            Question::Provoke => {
                provoke();
                None
            }
        };
        if answer.is_some_and(|answer| !counter.answer(answer)) {
            return;
        }
    }
}

fn provoke() {
    if let Err(error) = run_test_process() {
        ::log::warn!("cannot run a test process: {error}");
    }
}
