//! The executable of a living process, read with a time limit.

use nix::errno::Errno;

use super::time_limit::patiently;
use crate::event::Pid;
use crate::kernel::process::ProcFs;
use crate::kernel::program::{self, Examined, ExeRead, ExeReader, ReadRequest};

/// Executable of a process, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InspectedProgram {
    /// Executable with all attributes that rules evaluate.
    Read {
        /// Path as the kernel shows it.
        raw: Vec<u8>,
        /// Path that rules compare with `exe`.
        path: Vec<u8>,
        /// True if the path means the same file in the host's mount namespace.
        on_host: bool,
        /// Script or symbolic link that was executed.
        invoked: Option<Vec<u8>>,
    },
    /// No executable, but the name of a kernel thread.
    KernelThread(Vec<u8>),
    /// No executable, as for a process that has exited.
    None,
    /// Unknown executable, with the cause.
    Hidden(String),
}

/// Reads the executable of a living process.
pub(super) fn read_program(pid: Pid, proc: &mut ProcFs) -> InspectedProgram {
    let Some(read) = read(pid, proc) else {
        return InspectedProgram::Hidden("its file cannot be read or does not respond".to_owned());
    };
    let raw = match read.link() {
        Ok(raw) => raw.to_vec(),
        Err(Errno::ENOENT | Errno::ESRCH) if is_kernel_thread(pid, proc) => {
            return InspectedProgram::KernelThread(proc.comm(pid).unwrap_or_default().to_vec());
        }
        Err(Errno::ENOENT | Errno::ESRCH) => return InspectedProgram::None,
        Err(Errno::EACCES | Errno::EPERM) => {
            return InspectedProgram::Hidden("only root can read it".to_owned());
        }
        Err(errno) => return InspectedProgram::Hidden(errno.desc().to_owned()),
    };
    if let Some(seen) = read.seen(proc.comm(pid)).filter(|seen| !seen.is_unsure) {
        let path = seen.exe.path.to_vec();
        let on_host = seen.exe.on_host;
        return InspectedProgram::Read { raw, path, on_host, invoked: None };
    }
    let of = raw.clone();
    match patiently(move || Some(program::examine(pid, Some(&of), false))) {
        Some(Examined::Program(found)) => InspectedProgram::Read {
            raw,
            path: found.path.into_vec(),
            on_host: found.on_host,
            invoked: found.invoked.map(<[u8]>::into_vec),
        },
        Some(Examined::Changed | Examined::Unreadable | Examined::Gone) | None => {
            InspectedProgram::Hidden("its file cannot be read or does not respond".to_owned())
        }
    }
}

/// Checks whether a process is a thread of the kernel.
pub(super) fn is_kernel_thread(pid: Pid, proc: &mut ProcFs) -> bool {
    proc.status(pid).is_some_and(|status| status.is_kernel_thread)
}

/// Reads an executable by the fast path: that of a live thread if the thread-group leader has exited.
fn read(pid: Pid, proc: &mut ProcFs) -> Option<ExeRead> {
    let handle = proc.open_process(pid)?;
    let thread = match proc.has_leader_exited(pid) {
        true => proc.stand_in(pid, handle).and_then(|handle| handle.thread),
        false => None,
    };
    let reader = ExeReader::new(proc).ok()?;
    patiently(move || {
        let mut read = ExeRead::default();
        reader.read(ReadRequest { pid, thread, namespaces: false }, &mut read);
        Some(read)
    })
}
