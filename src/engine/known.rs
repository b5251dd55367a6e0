//! What is known of a process during an evaluation or a plan, and what must be read first.

use crate::event::{Nanos, Pid};
use crate::kernel::container::Containment;
use crate::kernel::exe_pool::Examination;
use crate::kernel::process::ProcessHandle;
use crate::kernel::program::{Arguments, ReadRequest};
use crate::placement::KnownExe;

/// What is known of a process so far.
#[derive(Clone, Copy)]
pub(super) struct Known<'k> {
    pub(super) exe: KnownExe<'k>,
    pub(super) arguments: &'k Arguments,
    pub(super) containment: Option<Containment>,
    /// The executable was read later than this; 0 if that is not known.
    pub(super) read_from: Nanos,
    /// Whether its real user is root; `None` if no rule tests ancestors.
    pub(super) is_of_root: Option<bool>,
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

    /// Returns the request for the thread that reads links; `None` if other threads must examine the executable.
    pub(super) fn link(&self, pid: Pid, handle: &ProcessHandle) -> Option<ReadRequest> {
        let namespaces = match self {
            Self::Exe => false,
            Self::Namespaces => true,
            Self::Arguments | Self::Examination(_) => return None,
        };
        Some(ReadRequest { pid, thread: handle.thread, namespaces })
    }

    pub(super) const fn wants_arguments(&self) -> bool {
        matches!(self, Self::Arguments)
    }

    /// Returns the request for the threads that examine executables.
    pub(super) fn to_examination(&self, pid: Pid, number: u64) -> Examination {
        let raw = match self {
            Self::Examination(raw) => Some(raw.clone()),
            Self::Exe | Self::Namespaces | Self::Arguments => None,
        };
        let wants_arguments = self.wants_arguments();
        Examination { pid, number, raw, wants_arguments, is_planned: false }
    }
}
