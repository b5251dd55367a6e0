//! The ancestors of a process, as `/proc` shows them now. Must not be used by the daemon, which also knows those of
//! orphans: see [`crate::engine::ancestry`].

use crate::event::{Pid, Uid};
use crate::kernel::process::ProcFs;
use crate::rules::ancestry::Ancestor;

use super::inspected_program::{InspectedProgram, read_program};

/// Maximum number of ancestors; those further up are ignored.
const MOST: usize = 64;

/// Returns what the ancestors of a process run, from its parent on.
pub(super) fn of(pid: Pid, proc: &mut ProcFs) -> Vec<Ancestor> {
    let mut found = Vec::new();
    let mut current = pid;
    for _ in 0..MOST {
        let Some(parent) = proc.status(current).and_then(|own| own.parent) else { break };
        found.extend(ancestor(parent, proc));
        current = parent;
    }
    found
}

/// Returns what the ancestors of a child of this process run.
pub(super) fn of_child(pid: Pid, proc: &mut ProcFs) -> Vec<Ancestor> {
    let mut found = of(pid, proc);
    found.extend(ancestor(pid, proc));
    found
}

/// Returns what a process runs, as its descendants see it.
fn ancestor(pid: Pid, proc: &mut ProcFs) -> Option<Ancestor> {
    let is_of_root = proc.status(pid)?.real == Uid(0);
    match read_program(pid, proc) {
        InspectedProgram::Read { path, on_host: true, invoked, .. } => {
            Some(Ancestor { path: path.into(), invoked: invoked.map(Into::into), is_of_root })
        }
        InspectedProgram::Read { .. }
        | InspectedProgram::KernelThread(_)
        | InspectedProgram::None
        | InspectedProgram::Hidden(_) => None,
    }
}
