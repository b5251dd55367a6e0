//! Who tells of looks in the words of another daemon's log, for scripts that wait for them. In the log
//! of `cgruled` nobody does, and the hot thread pays one comparison.

use std::fmt::Debug;

use crate::event::batch::Look;
use crate::event::{Gid, Nanos, Uid};
use crate::process::Proc;
use crate::rules::RuleId;

/// Told of each look at a process that was found, when it is over.
pub trait Narrator: Debug + Send {
    /// The rules are in force, and what is wrong with them is said.
    fn begin(&mut self);

    /// Whether [`Told::program`] is shown, so that the executable is to be read for it.
    fn shows_program(&self) -> bool;

    /// Says what there is to say. Called on the hot thread: it may read more of the process from
    /// `proc`, which costs what the level of the log asks for, and must not wait.
    fn tell(&self, told: &Told<'_>, proc: &mut Proc);

    /// Says that the kernel dropped events. Called on the hot thread, at `now`, as often as it did.
    fn lost(&self, now: Nanos);
}

/// A look that is over.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Which process, and why it was looked at.
    pub look: Look,
    /// Its effective user and group.
    pub ids: (Uid, Gid),
    /// Its program, if it was read: the script or link that was invoked where that is known, or the
    /// executable as the kernel shows it.
    pub program: Option<&'a [u8]>,
    /// What it came to.
    pub ending: Ending,
}

/// What a look came to, as far as others care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It asked to stay where it is.
    Sticky,
    /// No rule matches.
    NoRule,
    /// This rule says to leave it.
    Ignored(RuleId),
    /// It is where this rule says, or it is gone.
    Done(RuleId),
    /// It could not be put where this rule says.
    Failed(RuleId, Obstacle),
}

/// Why a process could not be put where a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The rule names no place that there could be, or a controller twice.
    Nowhere,
    /// This host does not have a controller that the rule names.
    NoController,
    /// There is no such group, and the rule makes none.
    NoGroup,
    /// The kernel refused.
    Kernel,
}
