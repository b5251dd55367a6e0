//! Whether a process runs a program that rules test of ancestors.

use crate::engine::known::NeededRead;
use crate::placement::{Choice, KnownExe, runs_program};
use crate::policy::ancestor_programs::AncestorPrograms;
use crate::rules::ancestry::Ancestor;

/// What is known of the program that a process runs.
pub(in crate::engine) enum TestedProgram {
    /// The program, if rules test it.
    Known(Option<Ancestor>),
    /// Its executable cannot be read.
    Unknown,
}

impl TestedProgram {
    /// Checks whether rules test the program for a process of root, or of another user.
    ///
    /// # Errors
    /// What must be read first.
    pub(in crate::engine) fn of(
        tested: &AncestorPrograms,
        is_of_root: bool,
        exe: KnownExe<'_>,
    ) -> Result<Self, NeededRead> {
        let Some(programs) = tested.of(is_of_root) else { return Ok(Self::Known(None)) };
        match runs_program(programs, exe) {
            Choice::NeedsExe => Err(NeededRead::Exe),
            Choice::NeedsExamination => Err(NeededRead::examination(exe)),
            Choice::Rule(_) => Ok(Self::Known(exe.seen().map(|seen| seen.as_ancestor(is_of_root)))),
            Choice::NoRule | Choice::Needs(_) if matches!(exe, KnownExe::Unavailable) => {
                Ok(Self::Unknown)
            }
            Choice::NoRule | Choice::Needs(_) => Ok(Self::Known(None)),
        }
    }
}
