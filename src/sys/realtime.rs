//! Real-time scheduling of a thread, with an end that the kernel enforces.

use std::io;
use std::mem::zeroed;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{check, clock};
use crate::event::Nanos;

/// Set by the signal handler when the kernel's limit was reached.
static WAS_STOPPED: AtomicBool = AtomicBool::new(false);

fn set_policy(policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the pointer is to a live object of its type; 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) }).map(drop)
}

/// Gives the calling thread the lowest real-time priority (`SCHED_FIFO` 1). Threads and processes that it starts
/// have normal scheduling.
///
/// # Errors
/// As `sched_setscheduler(2)`: `EPERM` without `CAP_SYS_NICE`, or in a cgroup without real-time bandwidth.
pub fn set_realtime() -> io::Result<()> {
    set_policy(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, 1)
}

/// Gives the calling thread normal scheduling.
///
/// # Errors
/// As `sched_setscheduler(2)`.
pub fn set_normal() -> io::Result<()> {
    set_policy(libc::SCHED_OTHER, 0)
}

extern "C" fn stop_realtime(_: libc::c_int) {
    // A signal handler: the call is a plain system call, and the error number of the interrupted code is not used
    // after a signal that arrives only while the thread computes.
    let _changed = set_normal();
    WAS_STOPPED.store(true, Ordering::Release);
}

/// Lets the kernel end real-time scheduling of a thread that computes for `microseconds` without waiting: it sends
/// `SIGXCPU` to the thread, which returns to normal scheduling.
///
/// # Errors
/// As `setrlimit(2)` and `sigaction(2)`.
pub fn limit_realtime(microseconds: u64) -> io::Result<()> {
    // SAFETY: sigaction is integers, pointers and an optional function, for which zero is a value.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = stop_realtime as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: both pointers are valid, and the handler makes one system call and stores one flag.
    check(unsafe { libc::sigaction(libc::SIGXCPU, &raw const action, ptr::null_mut()) })?;
    let (_, hard) = getrlimit(Resource::RLIMIT_RTTIME)?;
    Ok(setrlimit(Resource::RLIMIT_RTTIME, microseconds.min(hard), hard)?)
}

/// Returns whether the kernel's limit was reached since the last call.
pub fn was_realtime_stopped() -> bool {
    WAS_STOPPED.load(Ordering::Relaxed) && WAS_STOPPED.swap(false, Ordering::AcqRel)
}

/// Returns the CPU time of the calling thread.
pub fn thread_cpu_time() -> Nanos {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}
