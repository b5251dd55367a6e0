//! All unsafe code: system calls that no used crate wraps, or wraps only with an allocation on the
//! hot path. Each function must be safe to call with any argument.
#![allow(unsafe_code)]

pub mod accounts;
pub mod atomic_file;
pub mod checked_path;
pub mod fanotify;
pub mod locked_memory;
mod mailbox;
mod namespace;
mod peer;
pub mod realtime;
mod service;
pub mod subprocess;

use std::ffi::CStr;
use std::io;
use std::mem::{MaybeUninit, size_of, size_of_val, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;

use crate::event::Nanos;
pub use mailbox::{Datagram, Mailbox};
pub use namespace::{Namespace, namespace_of, namespace_owner, pidfd_open_thread};
pub use peer::peer_groups;
pub use service::{RUNTIME_DIRECTORY, daemonise, local_time, open_syslog, syslog};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_size(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Returns the error number of a failed system call; `EIO` for an error that is none.
pub fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Returns the current time of `CLOCK_MONOTONIC`.
pub fn monotonic() -> Nanos {
    clock(libc::CLOCK_MONOTONIC)
}

/// Returns the current time of `CLOCK_BOOTTIME`, which includes suspends and ignores clock changes.
pub fn since_boot() -> Nanos {
    clock(libc::CLOCK_BOOTTIME)
}

fn clock(id: libc::clockid_t) -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the call to fill; the clocks used exist on every Linux.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    Nanos(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
}

/// Opens a netlink socket for the proc connector.
///
/// # Errors
/// As socket(2): without `CONFIG_CONNECTOR` it is `EPROTONOSUPPORT`.
pub fn connector_socket() -> io::Result<OwnedFd> {
    // Taken over from `netlink-sys` at once: its `Socket` can be cloned and then closes the descriptor twice.
    let socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_CONNECTOR)?;
    socket.set_non_blocking(true)?;
    socket.set_no_enobufs(true)?;
    // SAFETY: `into_raw_fd` gives up the only owner of an open descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(socket.into_raw_fd()) })
}

fn set_option<T>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(value)).unwrap_or(0);
    // SAFETY: the pointer and length describe `value`, which the kernel only reads.
    check(unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, ptr::from_ref(value).cast(), length)
    })
    .map(drop)
}

/// Binds a netlink socket to a multicast group; the kernel chooses the port.
///
/// # Errors
/// As bind(2): `ECONNREFUSED` in a network namespace other than the initial one.
pub fn bind_netlink(fd: BorrowedFd<'_>, group: u32) -> io::Result<()> {
    let address = netlink_address(group);
    let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or(0);
    // SAFETY: the pointer and length describe `address`, which the kernel only reads.
    check(unsafe { libc::bind(fd.as_raw_fd(), ptr::from_ref(&address).cast(), length) }).map(drop)
}

fn netlink_address(groups: u32) -> libc::sockaddr_nl {
    // SAFETY: sockaddr_nl is plain integers, for which zero is a value.
    let mut address: libc::sockaddr_nl = unsafe { zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    address.nl_groups = groups;
    address
}

/// Sends a datagram to the kernel.
///
/// # Errors
/// As sendto(2).
pub fn send_netlink(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let address = netlink_address(0);
    let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or(0);
    // SAFETY: both pointers and lengths describe live objects, which the kernel only reads.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            0,
            ptr::from_ref(&address).cast(),
            length,
        )
    };
    check_size(sent).map(drop)
}

/// Sets the receive buffer to `bytes` (the kernel doubles it): by `SO_RCVBUFFORCE`, or without
/// `CAP_NET_ADMIN` as much as `rmem_max` allows. Returns whether it was forced.
///
/// # Errors
/// As setsockopt(2).
pub fn set_receive_buffer(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<bool> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    if set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &value).is_ok() {
        return Ok(true);
    }
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &value)?;
    Ok(false)
}

/// Classic BPF instruction: code, jump if true, jump if false, operand.
pub type Instruction = (u16, u8, u8, u32);

/// Attaches a classic BPF filter.
///
/// # Errors
/// As setsockopt(2); `EINVAL` for a program that the kernel rejects.
pub fn attach_filter(fd: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let mut code: Vec<libc::sock_filter> =
        program.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let len = u16::try_from(code.len()).unwrap_or(0);
    let filter = libc::sock_fprog { len, filter: code.as_mut_ptr() };
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
}

/// Returns the number of datagrams dropped by this socket since it was created (`SO_MEMINFO`,
/// sk_drops): the only loss counter that is valid with a filter or mask.
///
/// # Errors
/// As getsockopt(2).
pub fn dropped(fd: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(socket_memory(fd)?[SK_MEMINFO_DROPS])
}

/// Returns the memory of the datagrams in the receive queue of this socket in bytes, 832 for a
/// process event (`SO_MEMINFO`, sk_rmem_alloc).
///
/// # Errors
/// As getsockopt(2).
pub fn queued_bytes(fd: BorrowedFd<'_>) -> io::Result<u32> {
    const SK_MEMINFO_RMEM_ALLOC: usize = 0;
    Ok(socket_memory(fd)?[SK_MEMINFO_RMEM_ALLOC])
}

const SK_MEMINFO_DROPS: usize = 8;

fn socket_memory(fd: BorrowedFd<'_>) -> io::Result<[u32; SK_MEMINFO_DROPS + 1]> {
    let mut info = [0u32; SK_MEMINFO_DROPS + 1];
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).unwrap_or(0);
    // SAFETY: the pointer and length describe `info`, which the kernel fills.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    })?;
    Ok(info)
}

/// Reads a symbolic link into `buffer`, without allocating. A target that fills the whole buffer
/// may be truncated.
///
/// # Errors
/// As readlinkat(2).
pub fn read_link<'b>(
    dir: BorrowedFd<'_>,
    path: &CStr,
    buffer: &'b mut [u8],
) -> io::Result<&'b [u8]> {
    // SAFETY: `path` ends with NUL and the pointer and length describe `buffer`.
    let length = unsafe {
        libc::readlinkat(dir.as_raw_fd(), path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
    };
    Ok(&buffer[..check_size(length)?])
}

/// Opens a pidfd of a process (Linux 5.3). It is readable when all threads of the process have
/// exited.
///
/// # Errors
/// `ESRCH` when the process does not exist, `ENOSYS` on an old kernel; for a thread other than the
/// leader `EINVAL`, or `ENOENT` since Linux 6.9.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).unwrap_or(-1);
    // SAFETY: the call takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = check(libc::c_int::try_from(fd).unwrap_or(-1))?;
    // SAFETY: the kernel created this descriptor, and it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Checks whether the process of a pidfd still exists, including as a zombie.
pub fn pidfd_alive(pidfd: BorrowedFd<'_>) -> bool {
    match pidfd_signal(pidfd, 0) {
        Ok(()) => true,
        Err(error) => error.raw_os_error() == Some(libc::EPERM),
    }
}

/// Kills the process of a pidfd.
///
/// # Errors
/// As pidfd_send_signal(2): `ESRCH` when it has been reaped.
pub fn pidfd_kill(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    pidfd_signal(pidfd, libc::SIGKILL)
}

fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: integers and a null siginfo, which the call allows.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(libc::c_int::try_from(result).unwrap_or(-1)).map(drop)
}

/// `struct pidfd_info` in its first published form (64 bytes; `linux/pidfd.h` of Linux 6.13).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ruid: u32,
    rgid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    exit_code: i32,
}

// Sizes that the kernel has on all architectures: the request number contains the first.
const _: () = assert!(size_of::<PidfdInfo>() == 64);
const _: () = assert!(size_of::<libc::sockaddr_nl>() == 12);
const _: () = assert!(size_of::<libc::sock_filter>() == 8);

/// Process state returned by `PIDFD_GET_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Effective UID of the process.
    pub euid: u32,
    /// Effective GID of the process.
    pub egid: u32,
    /// PID of its parent.
    pub parent: u32,
    /// ID of its v2 cgroup: the inode number of the directory. 0 when the kernel did not report it.
    pub cgroup: u64,
}

/// Reads the state of a process from the kernel (Linux 6.13). `None` when it has been reaped.
///
/// # Errors
/// `ENOTTY` or `EINVAL` on an older kernel.
pub fn pidfd_info(pidfd: BorrowedFd<'_>) -> io::Result<Option<ProcessInfo>> {
    const CREDENTIALS: u64 = 2;
    const CGROUP: u64 = 4;
    // _IOWR(0xFF, 11, struct pidfd_info)
    const REQUEST: libc::c_ulong =
        (3 << 30) | ((size_of::<PidfdInfo>() as libc::c_ulong) << 16) | (0xFF << 8) | 11;
    let mut info = PidfdInfo { mask: CREDENTIALS | CGROUP, ..PidfdInfo::default() };
    // SAFETY: the request number contains the size of `info`, which the kernel fills.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), REQUEST as _, &raw mut info) };
    if let Err(error) = check(result) {
        return if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) };
    }
    if info.mask & CREDENTIALS == 0 {
        return Ok(None);
    }
    let cgroup = if info.mask & CGROUP == 0 { 0 } else { info.cgroup };
    Ok(Some(ProcessInfo { euid: info.euid, egid: info.egid, parent: info.ppid, cgroup }))
}

/// Checks whether pidfds on this kernel have inode numbers that are unique until the next boot:
/// those of pidfs (Linux 6.9) on 64 bits.
///
/// # Errors
/// As fstatfs(2).
pub fn has_unique_inode(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    // `PID_FS_MAGIC` of linux/magic.h.
    const PIDFS: u64 = 0x5049_4446;
    Ok(cfg!(target_pointer_width = "64") && file_system(pidfd)? == PIDFS)
}

/// Returns the magic number of the file system of an open file, see statfs(2).
///
/// # Errors
/// As fstatfs(2).
pub fn file_system(file: BorrowedFd<'_>) -> io::Result<u64> {
    // The type of the number differs between architectures; the number is positive.
    Ok(rustix::fs::fstatfs(file)?.f_type as u64)
}

/// Returns the scheduling policy of a thread, as sched_getscheduler(2); 0 is the calling thread.
///
/// # Errors
/// `ESRCH` when the thread does not exist.
pub fn scheduling_policy(pid: u32) -> io::Result<i32> {
    let pid = libc::pid_t::try_from(pid).unwrap_or(-1);
    // SAFETY: the call takes an integer.
    check(unsafe { libc::sched_getscheduler(pid) })
}

/// Checks whether a scheduling policy is a real-time one: `SCHED_FIFO` or `SCHED_RR`.
pub fn is_real_time(policy: i32) -> bool {
    matches!(policy & !libc::SCHED_RESET_ON_FORK, libc::SCHED_FIFO | libc::SCHED_RR)
}

/// Checks whether SIGTERM or SIGINT is blocked and pending.
pub fn is_termination_pending() -> bool {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is to memory for a signal set, which the call fills.
    if unsafe { libc::sigpending(set.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: filled by the call.
    let set = unsafe { set.assume_init() };
    [libc::SIGTERM, libc::SIGINT].into_iter().any(|signal| {
        // SAFETY: the set was returned by the kernel.
        unsafe { libc::sigismember(&raw const set, signal) == 1 }
    })
}

/// Returns freed memory to the system.
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes an integer; glibc locks its own arenas.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Remounts the v2 hierarchy with `favordynmods`. Cannot be undone on Linux 6.18 and later.
///
/// # Errors
/// As mount(2).
pub fn remount_favordynmods(mount_point: &CStr) -> io::Result<()> {
    // SAFETY: all pointers are NUL-terminated strings that live through the call, or null.
    check(unsafe {
        libc::mount(
            ptr::null(),
            mount_point.as_ptr(),
            ptr::null(),
            libc::MS_REMOUNT,
            c"favordynmods".as_ptr().cast(),
        )
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_clock_runs() {
        let first = monotonic();
        assert!(monotonic() >= first && first > Nanos(0));
    }

    #[test]
    fn our_own_pidfd_is_alive() {
        let pidfd = pidfd_open(std::process::id()).unwrap();
        assert!(pidfd_alive(pidfd.as_fd()));
    }

    #[test]
    fn pidfd_info_agrees_with_the_libc_or_is_unknown_here() {
        let pidfd = pidfd_open(std::process::id()).unwrap();
        if let Ok(info) = pidfd_info(pidfd.as_fd()) {
            assert_eq!(info.unwrap().euid, nix::unistd::geteuid().as_raw());
        }
    }

    #[test]
    fn a_reaped_process_is_gone() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pidfd = pidfd_open(child.id()).unwrap();
        child.wait().unwrap();
        assert!(!pidfd_alive(pidfd.as_fd()));
        if let Ok(info) = pidfd_info(pidfd.as_fd()) {
            assert_eq!(info, None);
        }
    }
}
