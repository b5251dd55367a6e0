//! What is known of a process during an evaluation or a plan, and what must be read first.

use crate::kernel::container::Containment;
use crate::kernel::program::Arguments;
use crate::placement::KnownExe;

/// What is known of a process so far.
#[derive(Clone, Copy)]
pub(super) struct Known<'k> {
    pub(super) exe: KnownExe<'k>,
    pub(super) arguments: &'k Arguments,
    pub(super) containment: Option<Containment>,
}

/// A read on which a decision depends.
#[derive(Debug)]
pub(super) enum NeededRead {
    Exe,
    Namespaces,
    Arguments,
    /// Details of this executable.
    Examination(Box<[u8]>),
}

impl NeededRead {
    pub(super) fn examination(exe: KnownExe<'_>) -> Self {
        Self::Examination(exe.raw().unwrap_or_default().into())
    }

    /// Returns the path of the executable as the kernel shows it, if its details are needed.
    pub(super) fn raw(&self) -> Option<Box<[u8]>> {
        match self {
            Self::Examination(raw) => Some(raw.clone()),
            Self::Exe | Self::Namespaces | Self::Arguments => None,
        }
    }
}
