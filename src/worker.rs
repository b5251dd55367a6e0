//! Threads that may wait, so that the hot thread need not: one reads rules, a few ask the name service, and
//! some look closer at programs. Questions go out and answers come back over channels; an eventfd
//! wakes the loop.

mod lookups;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::event::batch::Look;
use crate::event::{Gid, Nanos, Uid};
use crate::policy::{Policy, User};
use crate::program::{self, Program};
use crate::source::connector::run_test_process;
use crate::sys;
pub use lookups::Directory;
use lookups::{LookupKey, Lookups};

/// Closer looks that can wait. One that does not fit is answered by the next scan.
const CLOSER_LOOKS: usize = 4096;

/// A closer look that takes longer than this hangs: the next gets another thread.
const HANGS_NS: u64 = 1_000_000_000;
/// Threads for closer looks at most. With all of them hanging, scripts and foreign paths are not
/// recognised any more; everything else goes on.
const MOST_THREADS: usize = 8;

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
    /// A closer look at a program; `None` when the process is gone or runs another by now.
    Program {
        /// The look that waited.
        look: Look,
        /// The answer.
        program: Option<Program>,
    },
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
    closer: Sender<(Look, Box<[u8]>)>,
    answers: Receiver<Answer>,
    bell: Arc<EventFd>,
    lookups: Lookups,
    programs: Programs,
}

/// The threads for closer looks.
struct Programs {
    looks: Receiver<(Look, Box<[u8]>)>,
    counter: Counter,
    threads: usize,
    /// Asked and not answered.
    open: u64,
    /// When the last answer came, or the first question after a pause.
    progress: Nanos,
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
        // A bounded channel would touch all of its room now.
        let (closer, looks) = unbounded();
        let (sender, answers) = unbounded();
        let counter = Counter { answers: sender, bell: Arc::clone(&bell) };
        let other = counter.clone();
        let lookups = Lookups::open(office.directory(), counter.clone())?;
        thread::Builder::new().name("rules".into()).spawn(move || {
            serve(office, &asked, &counter);
        })?;
        let programs =
            Programs { looks, counter: other, threads: 0, open: 0, progress: Nanos::default() };
        Ok(Self { questions, closer, answers, bell, lookups, programs })
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

    /// Asks for a closer look at a program. `false` when too many wait.
    pub fn examine(&mut self, look: Look, exe: &[u8]) -> bool {
        let now = sys::monotonic();
        let programs = &mut self.programs;
        let hangs = programs.open > 0 && now.since(programs.progress) > HANGS_NS;
        if programs.threads == 0 || hangs && programs.threads < MOST_THREADS {
            programs.hire();
        }
        if programs.open == 0 || hangs {
            programs.progress = now;
        }
        let has_room =
            self.closer.len() < CLOSER_LOOKS && self.closer.send((look, exe.into())).is_ok();
        self.programs.open += u64::from(has_room);
        has_room
    }

    /// Takes note that a closer look was answered.
    pub fn examined(&mut self) {
        self.programs.open = self.programs.open.saturating_sub(1);
        self.programs.progress = sys::monotonic();
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

impl Programs {
    fn hire(&mut self) {
        let (looks, counter) = (self.looks.clone(), self.counter.clone());
        let builder = thread::Builder::new().name("programs".into()).stack_size(256 * 1024);
        match builder.spawn(move || examine(&looks, &counter)) {
            Ok(_) => self.threads += 1,
            Err(error) => ::log::error!("cannot start a thread to look at programs: {error}"),
        }
        if self.threads > 1 {
            ::log::warn!("looking at a program hangs; going on with thread {}", self.threads);
        }
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

fn examine(looks: &Receiver<(Look, Box<[u8]>)>, counter: &Counter) {
    while let Ok((look, exe)) = looks.recv() {
        let program = program::examine(look.pid, &exe);
        if !counter.answer(Answer::Program { look, program }) {
            return;
        }
    }
}
