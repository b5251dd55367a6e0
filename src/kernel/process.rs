//! State of one process, read from `/proc` or a test directory in its place.
//!
//! Everything here is on the hot path. It must not allocate, parse a file where one system call is
//! enough, or use a call that a user can block. The last excludes more than it seems. Reading
//! `/proc/PID/cmdline` and a stat of `/proc/PID/exe` hang when the memory or the executable is on a
//! FUSE mount that does not reply. And while an execve(2) hangs in a FLUSH of such a mount it holds
//! `exec_update_lock`, for which `/proc/PID/stat` and the links `exe`, `cwd`, `root` and `ns/*`
//! wait (measured on Linux 6.18; `status`, `cgroup`, `comm`, `statm`, `task` and pidfds do not).
//! The executable is read by [`crate::kernel::program`].

mod path;
mod status;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, fstat, fstatat};

use crate::event::{Gid, Pid, Uid};
use crate::sys;
pub(crate) use path::ProcPath;
pub use status::ProcessStatus;

/// Longest path that the kernel reports, in bytes.
pub const PATH_MAX: usize = 4096;
/// Room for the line of `/proc/PID/comm`: 15 bytes, or 63 of a kernel thread with the name of its
/// workqueue.
const COMM_LINE: usize = 128;

/// Reference to a process that does not apply to a later process with the same PID.
#[derive(Debug)]
pub enum ProcessRef {
    /// Pidfd (Linux 5.3).
    Pidfd(OwnedFd),
    /// Start time in clock ticks since boot.
    Started(u64),
}

/// Open process with the credentials that the kernel reported.
#[derive(Debug)]
pub struct ProcessHandle {
    /// Effective UID of the leader.
    pub uid: Uid,
    /// Effective GID of the leader.
    pub gid: Gid,
    /// Inode of its v2 cgroup directory, where the kernel reports it (Linux 6.13).
    pub unified: Option<u64>,
    /// Reference to the process, if the kernel has pidfds and a descriptor was left.
    pub reference: Option<ProcessRef>,
    /// Live thread from which the IDs were read, if the leader has exited before it.
    pub thread: Option<Pid>,
}

impl ProcessHandle {
    /// Checks whether all threads of the process have exited, as far as a pidfd shows.
    pub fn has_exited(&self) -> bool {
        self.pidfd().is_some_and(has_exited)
    }

    /// Returns the pidfd of the process.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match &self.reference {
            Some(ProcessRef::Pidfd(pidfd)) => Some(pidfd.as_fd()),
            Some(ProcessRef::Started(_)) | None => None,
        }
    }
}

/// Open `/proc`, with the features of the kernel.
#[derive(Debug)]
pub struct ProcFs {
    dir: OwnedFd,
    /// Set for `/proc` itself: the PIDs of a test directory belong to no processes.
    has_pidfds: bool,
    /// Set if the kernel supports `PIDFD_GET_INFO`.
    has_pidfd_info: bool,
    /// Set if the inode of a pidfd identifies a process: see [`sys::has_unique_inode`].
    has_unique_inodes: bool,
    text: Vec<u8>,
}

impl ProcFs {
    /// Opens the directory: `/proc`, except in tests.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(root, flags, Mode::empty())?;
        let mut proc = Self {
            dir,
            has_pidfds: root == Path::new("/proc"),
            has_pidfd_info: false,
            has_unique_inodes: false,
            text: Vec::with_capacity(1024),
        };
        if proc.has_pidfds {
            proc.find_features();
        }
        Ok(proc)
    }

    fn find_features(&mut self) {
        let own = std::process::id();
        if let Ok(pidfd) = sys::pidfd_open(own) {
            self.has_pidfd_info = sys::pidfd_info(pidfd.as_fd()).is_ok_and(|info| info.is_some());
            self.has_unique_inodes = sys::has_unique_inode(pidfd.as_fd()).unwrap_or(false);
        }
    }

    /// Opens a process and reads its effective IDs. `None` when it does not exist.
    pub fn open_process(&mut self, pid: Pid) -> Option<ProcessHandle> {
        // By pidfd: 4.7 us for a process that was not accessed before, 0.2 us if it does not exist. A stat of
        // its directory takes 3.5 us and 2.4 us (`/proc` creates an inode in either case), and a pidfd would
        // be needed in addition whenever a rule matches (measured on Linux 6.18).
        let pidfd = match sys::pidfd_open(pid.get()) {
            Ok(pidfd) if self.has_pidfd_info => pidfd,
            Ok(pidfd) => return self.open_process_by_stat(pid, Some(pidfd)),
            // The ID belongs to a thread, so the process that had it has exited: EINVAL, or ENOENT
            // where the kernel has pidfds of threads (Linux 6.9).
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ESRCH | libc::EINVAL | libc::ENOENT)
                ) =>
            {
                return None;
            }
            // EMFILE, or a kernel without pidfds: only the PID identifies the process.
            Err(_) => return self.open_process_by_stat(pid, None),
        };
        match sys::pidfd_info(pidfd.as_fd()) {
            Ok(Some(info)) => Some(ProcessHandle {
                uid: Uid(info.euid),
                gid: Gid(info.egid),
                unified: (info.cgroup != 0).then_some(info.cgroup),
                reference: Some(ProcessRef::Pidfd(pidfd)),
                thread: None,
            }),
            Ok(None) => None,
            Err(_) => self.open_process_by_stat(pid, Some(pidfd)),
        }
    }

    /// Reads the effective IDs of a process that is open already, with its PID. `None` when it has exited.
    pub fn adopt(&mut self, pid: Pid, pidfd: OwnedFd) -> Option<ProcessHandle> {
        if self.has_pidfd_info {
            let info = sys::pidfd_info(pidfd.as_fd()).ok()??;
            return Some(ProcessHandle {
                uid: Uid(info.euid),
                gid: Gid(info.egid),
                unified: (info.cgroup != 0).then_some(info.cgroup),
                reference: Some(ProcessRef::Pidfd(pidfd)),
                thread: None,
            });
        }
        let (uid, gid) = self.ids(&ProcPath::new(pid, ""))?;
        // The PID was not reused before the read if it belongs to the process after it.
        sys::pidfd_alive(pidfd.as_fd()).then_some(ProcessHandle {
            uid,
            gid,
            unified: None,
            reference: Some(ProcessRef::Pidfd(pidfd)),
            thread: None,
        })
    }

    /// Opens a process before Linux 6.13: its directory is owned by the effective IDs of the
    /// leader.
    fn open_process_by_stat(&mut self, pid: Pid, pidfd: Option<OwnedFd>) -> Option<ProcessHandle> {
        let (uid, gid) = self.ids(&ProcPath::new(pid, ""))?;
        // Thread IDs have a directory too. Where descriptors have run out this is not checked.
        let is_process = pidfd.is_some() || self.status(pid).is_none_or(|own| own.process == pid);
        let reference = pidfd.map(ProcessRef::Pidfd);
        is_process.then_some(ProcessHandle { uid, gid, unified: None, reference, thread: None })
    }

    /// Returns the effective IDs of a thread. `None` when it has exited.
    pub fn thread_ids(&self, pid: Pid, thread: Pid) -> Option<(Uid, Gid)> {
        self.ids(&ProcPath::of(pid, Some(thread), ""))
    }

    fn ids(&self, path: &ProcPath) -> Option<(Uid, Gid)> {
        let stat = fstatat(&self.dir, path.as_c_str(), AtFlags::empty()).ok()?;
        Some((Uid(stat.st_uid), Gid(stat.st_gid)))
    }

    /// Returns the number of threads, from the link count of the `task` directory.
    #[allow(clippy::unnecessary_cast, reason = "u32 on some targets")]
    pub fn thread_count(&self, pid: Pid) -> u64 {
        let path = ProcPath::new(pid, "task");
        fstatat(&self.dir, path.as_c_str(), AtFlags::empty())
            .map_or(0, |stat| (stat.st_nlink as u64).saturating_sub(2))
    }

    /// Checks whether the leader has exited before other threads. Takes 3 us for a process with one
    /// thread, 7 us for others.
    pub fn has_leader_exited(&mut self, pid: Pid) -> bool {
        // Since Linux 6.15 a pidfd, even one of the leader thread, reports no exit while other threads live.
        // A leader that has exited counts as long as other threads live, so a single thread is the
        // leader.
        self.thread_count(pid) != 1 && self.status(pid).is_some_and(|leader| leader.has_exited)
    }

    /// Returns the process with the IDs of one of its live threads, in place of those of its exited
    /// leader in `open_process`: the kernel freezes the state of an exited leader. `None` when all threads
    /// have exited.
    pub fn stand_in(&mut self, pid: Pid, handle: ProcessHandle) -> Option<ProcessHandle> {
        let mut others = self.threads(pid).into_iter().filter(|&thread| thread != pid);
        let thread = others.find(|&thread| {
            let path = ProcPath::of(pid, Some(thread), "status");
            self.read_status(&path).is_some_and(|status| !status.has_exited)
        })?;
        let (uid, gid) = self.thread_ids(pid, thread)?;
        Some(ProcessHandle { uid, gid, unified: None, thread: Some(thread), ..handle })
    }

    /// Checks whether a thread has other effective IDs than `ids`.
    pub fn has_thread_of_others(&self, pid: Pid, ids: (Uid, Gid)) -> bool {
        let mut threads = self.threads(pid).into_iter();
        threads.any(|thread| self.thread_ids(pid, thread).is_some_and(|own| own != ids))
    }

    /// Returns the data of `/proc/PID/status`, which also accepts the ID of a thread. `None` when it
    /// does not exist.
    pub fn status(&mut self, pid: Pid) -> Option<ProcessStatus> {
        self.read_status(&ProcPath::new(pid, "status"))
    }

    fn read_status(&mut self, path: &ProcPath) -> Option<ProcessStatus> {
        ProcessStatus::parse(self.file(path)?)
    }

    /// Duplicates the directory descriptor for another thread.
    ///
    /// # Errors
    /// As dup(2).
    pub fn duplicate_dir(&self) -> io::Result<OwnedFd> {
        self.dir.try_clone()
    }

    /// Returns the `comm` of the leader: at most 15 bytes, set by exec to the base name of the
    /// invoked file. `None` when the process does not exist.
    pub fn comm(&mut self, pid: Pid) -> Option<&[u8]> {
        let file = self.open_file(&ProcPath::new(pid, "comm"))?;
        self.text.resize(COMM_LINE, 0);
        // The kernel returns the line with the first read.
        let count = nix::unistd::read(&file, &mut self.text).ok()?;
        let text = &self.text[..count];
        Some(text.strip_suffix(b"\n").unwrap_or(text))
    }

    /// Returns the text of `/proc/PID/cgroup`, or of a thread's: one line `id:controllers:/path`
    /// per hierarchy.
    pub fn cgroup(&mut self, pid: Pid, thread: Option<Pid>) -> Option<&[u8]> {
        self.file(&ProcPath::of(pid, thread, "cgroup"))
    }

    /// Returns the login UID of the leader, which the kernel's audit subsystem keeps. `None` if it is not
    /// set, or the kernel has no such subsystem.
    pub fn login(&mut self, pid: Pid) -> Option<Uid> {
        let text = std::str::from_utf8(self.file(&ProcPath::new(pid, "loginuid"))?).ok()?;
        text.trim_end().parse().ok().filter(|&uid| uid != u32::MAX).map(Uid)
    }

    /// Checks whether the leader has a real-time policy: `SCHED_FIFO` or `SCHED_RR`.
    pub fn is_real_time(&self, pid: Pid) -> bool {
        sys::scheduling_policy(pid.get()).is_ok_and(sys::is_real_time)
    }

    /// Returns a number that distinguishes a process from a later one with the same PID, and that
    /// exec does not change: the inode of its pidfd, before Linux 6.9 its start time. `None` when
    /// it does not exist.
    pub fn identity(&mut self, pid: Pid) -> Option<u64> {
        // The start time is field 22 of `/proc/PID/stat`, which waits for a hanging exec on kernels where
        // ptrace_may_access() takes `exec_update_lock`. All such kernels known have the inode.
        if self.has_unique_inodes {
            let pidfd = sys::pidfd_open(pid.get()).ok()?;
            // A process that was reaped can still be opened while another pidfd of it exists.
            return inode_of(pidfd.as_fd());
        }
        self.start_time(pid)
    }

    /// Returns the identity of an open process: see [`Self::identity`].
    pub fn identity_of(&mut self, pid: Pid, handle: &ProcessHandle) -> Option<u64> {
        match handle.pidfd() {
            Some(pidfd) if self.has_unique_inodes => inode_of(pidfd),
            Some(_) | None => self.start_time(pid),
        }
    }

    /// Refers to a process of which no more is known than its PID.
    pub fn refer(&mut self, pid: Pid) -> Option<ProcessRef> {
        let pidfd = self.has_pidfds.then(|| sys::pidfd_open(pid.get()).ok()).flatten();
        match pidfd {
            Some(pidfd) => Some(ProcessRef::Pidfd(pidfd)),
            None => self.start_time(pid).map(ProcessRef::Started),
        }
    }

    /// Checks whether the PID still belongs to this process, which may be a zombie. Does not block
    /// if the kernel has pidfds.
    pub fn is_same(&mut self, pid: Pid, process: &ProcessRef) -> bool {
        match process {
            ProcessRef::Pidfd(pidfd) => sys::pidfd_alive(pidfd.as_fd()),
            ProcessRef::Started(started) => self.start_time(pid) == Some(*started),
        }
    }

    /// Checks whether a process with this PID exists, including zombies.
    pub fn exists(&self, pid: Pid) -> bool {
        fstatat(&self.dir, ProcPath::new(pid, "").as_c_str(), AtFlags::empty()).is_ok()
    }

    /// Checks whether a process is in a PID namespace below the initial one but in the initial user
    /// namespace, as in a container without a user namespace. Does not wait for an exec of the
    /// process.
    pub fn is_in_namespace_of_root(&mut self, pid: Pid) -> bool {
        if self.status(pid).is_none_or(|status| status.inner_pid.is_none()) {
            return false;
        }
        let Some(map) = self.file(&ProcPath::new(pid, "uid_map")) else { return false };
        let fields = map.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        fields.eq([&b"0"[..], b"0", b"4294967295"])
    }

    /// Returns the start time of a process in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub(crate) fn start_time(&mut self, pid: Pid) -> Option<u64> {
        let text = self.file(&ProcPath::new(pid, "stat"))?;
        // The name, field 2, is in parentheses and may contain any byte.
        let end = text.iter().rposition(|&byte| byte == b')')?;
        let word = text[end + 1..].split(|&byte| byte == b' ').nth(20)?;
        std::str::from_utf8(word).ok()?.trim_end().parse().ok()
    }

    /// Returns the threads of a process; none when it does not exist.
    fn threads(&self, pid: Pid) -> Vec<Pid> {
        let path = ProcPath::new(pid, "task");
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = nix::dir::Dir::openat(&self.dir, path.as_c_str(), flags, Mode::empty());
        let entries = opened.into_iter().flatten().flatten();
        entries.filter_map(|entry| parse_pid(entry.file_name().to_bytes())).collect()
    }

    /// Calls `take` for the children of every thread of `pid`.
    pub fn children(&mut self, pid: Pid, mut take: impl FnMut(Pid)) {
        for thread in self.threads(pid) {
            let path = ProcPath::of(pid, Some(thread), "children");
            let Some(text) = self.file(&path) else { continue };
            text.split(|&byte| byte == b' ').filter_map(parse_pid).for_each(&mut take);
        }
    }

    fn open_file(&self, path: &ProcPath) -> Option<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        openat(&self.dir, path.as_c_str(), flags, Mode::empty()).ok()
    }

    fn file(&mut self, path: &ProcPath) -> Option<&[u8]> {
        let file = self.open_file(path)?;
        self.text.clear();
        loop {
            let start = self.text.len();
            self.text.resize(start + 1024, 0);
            let count = nix::unistd::read(&file, &mut self.text[start..]).ok()?;
            self.text.truncate(start + count);
            if count == 0 || self.text.len() > 64 * 1024 {
                return Some(&self.text);
            }
        }
    }

    /// Calls `take` for every existing process.
    ///
    /// # Errors
    /// As readdir(3).
    pub fn all(&self, mut take: impl FnMut(Pid)) -> io::Result<()> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::dir::Dir::openat(&self.dir, ".", flags, Mode::empty())?;
        for entry in dir {
            if let Some(pid) = parse_pid(entry?.file_name().to_bytes()) {
                take(pid);
            }
        }
        Ok(())
    }
}

/// Checks whether the process of a pidfd has exited, reaped or not: then the pidfd is readable.
pub(crate) fn has_exited(pidfd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

fn inode_of(pidfd: BorrowedFd<'_>) -> Option<u64> {
    fstat(pidfd).ok().map(|stat| stat.st_ino)
}

/// Parses a decimal process ID.
pub(crate) fn parse_pid(name: &[u8]) -> Option<Pid> {
    std::str::from_utf8(name).ok()?.parse().ok().and_then(Pid::new)
}

/// Returns the path in `/proc/PID/cgroup` of the hierarchy that the kernel lists with `controllers`
/// (empty for cgroup v2).
pub fn path_in<'t>(cgroup: &'t [u8], controllers: &[u8]) -> Option<&'t [u8]> {
    cgroup.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(3, |&byte| byte == b':');
        let (_, listed, path) = (fields.next()?, fields.next()?, fields.next()?);
        (listed == controllers).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> (ProcFs, Pid) {
        (ProcFs::open(Path::new("/proc")).unwrap(), Pid::new(std::process::id()).unwrap())
    }

    #[test]
    fn our_own_facts() {
        let (mut proc, pid) = ours();
        let handle = proc.open_process(pid).unwrap();
        assert_eq!(handle.uid.0, nix::unistd::geteuid().as_raw());
        assert_eq!(handle.gid.0, nix::unistd::getegid().as_raw());
        assert!(!proc.has_leader_exited(pid));
        assert!(proc.thread_count(pid) > 0);
        assert_eq!(proc.thread_ids(pid, pid), Some((handle.uid, handle.gid)));
        assert!(!proc.has_thread_of_others(pid, (handle.uid, handle.gid)));
        assert!(proc.has_thread_of_others(pid, (handle.uid, Gid(handle.gid.0 + 1))));
        assert!(!proc.status(pid).unwrap().is_kernel_thread);
        assert!(!proc.is_real_time(pid));
        let owner = proc.status(pid).unwrap();
        assert_eq!((owner.process, owner.effective), (pid, handle.uid));
        assert_eq!(owner.parent.unwrap().get(), std::os::unix::process::parent_id());
        assert!(proc.start_time(pid).unwrap() > 0);
        let identity = proc.identity(pid).unwrap();
        assert_eq!(proc.identity_of(pid, &handle), Some(identity));
        let parent = Pid::new(std::os::unix::process::parent_id()).unwrap();
        assert_ne!(proc.identity(parent), Some(identity));
    }

    #[test]
    fn stat_and_pidfd_agree() {
        let (mut proc, pid) = ours();
        let asked = proc.open_process(pid).unwrap();
        assert!(asked.pidfd().is_some());
        proc.has_pidfd_info = false;
        let loose = proc.open_process(pid).unwrap();
        assert_eq!((loose.uid, loose.gid), (asked.uid, asked.gid));
        assert_eq!(loose.unified, None);
    }

    #[test]
    fn an_open_process_has_ids_until_it_is_reaped() {
        let (mut proc, _) = ours();
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = Pid::new(child.id()).unwrap();
        let pidfd = sys::pidfd_open(child.id()).unwrap();
        let has_info = proc.has_pidfd_info;
        for has_info in [has_info, false] {
            proc.has_pidfd_info = has_info;
            let handle = proc.adopt(pid, pidfd.try_clone().unwrap()).unwrap();
            assert_eq!(handle.uid.0, nix::unistd::geteuid().as_raw());
            assert!(!handle.has_exited());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for has_info in [has_info, false] {
            proc.has_pidfd_info = has_info;
            assert!(proc.adopt(pid, pidfd.try_clone().unwrap()).is_none());
        }
    }

    #[test]
    fn nobody_has_the_highest_number() {
        let (mut proc, _) = ours();
        let pid = Pid::new(i32::MAX as u32).unwrap();
        assert!(proc.open_process(pid).is_none());
        assert!(proc.comm(pid).is_none());
    }

    /// The `/proc` directory of a thread exists, with the IDs of the process.
    #[test]
    fn a_thread_is_no_process() {
        let (mut proc, pid) = ours();
        let (told, tid) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            told.send(nix::unistd::gettid().as_raw()).unwrap();
            ended.recv().unwrap_err();
        });
        let tid = Pid::new(u32::try_from(tid.recv().unwrap()).unwrap()).unwrap();
        let owner = proc.status(tid).unwrap();
        assert!(proc.exists(tid) && tid != pid);
        assert_eq!(owner.process, pid);
        assert!(proc.open_process(tid).is_none());
        proc.has_pidfd_info = false;
        assert!(proc.open_process(tid).is_none());
        assert!(proc.open_process_by_stat(tid, None).is_none());
        assert!(proc.open_process_by_stat(pid, None).is_some());
        drop(end);
        thread.join().unwrap();
    }

    #[test]
    fn a_directory_can_stand_for_proc() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("41");
        std::fs::create_dir_all(dir.join("task/41")).unwrap();
        std::fs::write(dir.join("comm"), "a (b) c\n").unwrap();
        let zeros = "0 ".repeat(31);
        let stat = format!("41 (a (b) c) S 2 0 0 0 -1 2129984 {zeros}2 0\n");
        std::fs::write(dir.join("stat"), stat).unwrap();
        let status = "Name:\ta (b) c\nState:\tZ (zombie)\nTgid:\t41\nPPid:\t2\n\
                      Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n";
        std::fs::write(dir.join("status"), status).unwrap();
        std::fs::write(dir.join("cgroup"), "3:cpu,cpuacct:/x:y\n0::/z\n").unwrap();
        std::fs::write(dir.join("task/41/children"), "50 51 ").unwrap();
        std::fs::create_dir(root.path().join("sys")).unwrap();
        let mut proc = ProcFs::open(root.path()).unwrap();
        let pid = Pid::new(41).unwrap();
        assert_eq!(proc.comm(pid), Some(&b"a (b) c"[..]));
        let status = proc.status(pid).unwrap();
        assert!(status.is_kernel_thread);
        assert!(status.has_exited);
        assert_eq!(proc.start_time(pid), Some(0));
        assert_eq!(status.parent, Pid::new(2));
        let text = proc.cgroup(pid, None).unwrap();
        assert_eq!(path_in(text, b"cpu,cpuacct"), Some(&b"/x:y"[..]));
        assert_eq!(path_in(text, b""), Some(&b"/z"[..]));
        assert_eq!(path_in(text, b"cpu"), None);
        let mut children = Vec::new();
        proc.children(pid, |child| children.push(child.get()));
        assert_eq!(children, [50, 51]);
        let mut all = Vec::new();
        proc.all(|pid| all.push(pid.get())).unwrap();
        assert_eq!(all, [41]);
    }
}
