//! The gate: executions of the files of gated rules wait until their process is in its cgroup.

mod probe;

use crate::event::{Nanos, Pid};
use crate::kernel::process::ProcessHandle;
pub use probe::probe;

/// An execution of a gated file, which waits.
#[derive(Debug)]
pub struct GatedExec {
    /// The process that executes the file. Its IDs are those before the execution.
    pub pid: Pid,
    /// The same process, open.
    pub handle: ProcessHandle,
    /// The path of the file, without links.
    pub path: Box<[u8]>,
    /// The time at which the execution was read.
    pub since: Nanos,
    /// The number with which it is answered.
    pub ticket: u64,
}
