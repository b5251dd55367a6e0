//! Facts of one process, from `/proc` or a directory that stands for it.
//!
//! Everything here is on the hot path: no allocation, no file parsed that a single call can answer,
//! and nothing that can wait. The last rules out more than it seems: `/proc/PID/cmdline` and a stat of
//! `/proc/PID/exe` can be made to hang by a user who serves his memory or binary from a FUSE mount of
//! his own. Those are read by [`crate::program`], on a thread that may hang.

use std::ffi::CStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat};

use crate::event::{Gid, Pid, Uid};
use crate::sys;

/// Longest path that the kernel reports.
pub const PATH_MAX: usize = 4096;

/// A process held fast, and what the kernel said of it.
#[derive(Debug)]
pub struct Grip {
    /// Effective user of the leader.
    pub uid: Uid,
    /// Effective group of the leader.
    pub gid: Gid,
    /// Inode of its v2 cgroup directory, where the kernel says it (Linux 6.13).
    pub unified: Option<u64>,
    /// Names this very process, whatever becomes of the number (Linux 5.3).
    pub handle: Option<OwnedFd>,
}

/// Whose a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The process itself, also when it was asked for by the number of a thread.
    pub process: Pid,
    /// Real user of the thread that was asked for.
    pub real: Uid,
    /// Effective user of that thread.
    pub effective: Uid,
    /// Real group of that thread.
    pub real_group: Gid,
}

/// A `/proc`.
#[derive(Debug)]
pub struct Proc {
    dir: OwnedFd,
    /// Whether `PIDFD_GET_INFO` answers; found out by the first process held.
    has_pidfd_info: bool,
    /// The mount namespaces whose paths mean the host's files: ours and that of process 1.
    host_mounts: [Vec<u8>; 2],
    text: Vec<u8>,
}

/// `PID/name` with its NUL, on the stack.
struct ProcPath([u8; 32]);

impl ProcPath {
    fn new(pid: Pid, name: &str) -> Self {
        let mut bytes = [0; 32];
        let mut rest = &mut bytes[..31];
        // Ten digits, a slash and our longest name, `ns/mnt`, fit.
        let written = write!(rest, "{pid}/{name}");
        debug_assert!(written.is_ok());
        Self(bytes)
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

impl Proc {
    /// Opens the directory; `/proc` but in tests.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(root, flags, Mode::empty())?;
        let mut proc = Self {
            dir,
            has_pidfd_info: root == Path::new("/proc"),
            host_mounts: Default::default(),
            text: Vec::with_capacity(1024),
        };
        let mut link = [0; 64];
        proc.host_mounts = [std::process::id(), 1].map(|host| {
            let target = Pid::new(host).and_then(|pid| proc.link(pid, "ns/mnt", &mut link).ok());
            target.map_or_else(Vec::new, <[u8]>::to_vec)
        });
        Ok(proc)
    }

    /// Holds a process and reads its effective ids. `None` when it is gone.
    ///
    /// By a pidfd: 4.7 us for a process that nobody looked at before, 0.2 us when it is gone. A stat of
    /// its directory is 3.5 us and 2.4 us (`/proc` makes an inode for it either way), and would have
    /// to be followed by the pidfd whenever a rule matches (measured on Linux 6.18).
    pub fn grip(&mut self, pid: Pid) -> Option<Grip> {
        let handle = match sys::pidfd_open(pid.get()) {
            Ok(handle) if self.has_pidfd_info => handle,
            Ok(handle) => return self.loose_grip(pid, Some(handle)),
            // The number is a thread's, so the process that had it is gone: EINVAL, or ENOENT where the
            // kernel has pidfds of threads (Linux 6.9).
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ESRCH | libc::EINVAL | libc::ENOENT)
                ) =>
            {
                return None;
            }
            Err(_) => return self.loose_grip(pid, None),
        };
        match sys::pidfd_info(handle.as_fd()) {
            Ok(None) => None,
            Ok(Some(info)) => Some(Grip {
                uid: Uid(info.euid),
                gid: Gid(info.egid),
                unified: (info.cgroup != 0).then_some(info.cgroup),
                handle: Some(handle),
            }),
            Err(_) => {
                self.has_pidfd_info = false;
                self.loose_grip(pid, Some(handle))
            }
        }
    }

    /// The same before Linux 6.13: the directory belongs to the effective ids of the leader.
    fn loose_grip(&self, pid: Pid, handle: Option<OwnedFd>) -> Option<Grip> {
        let path = ProcPath::new(pid, "");
        let stat = fstatat(&self.dir, path.as_c_str(), AtFlags::empty()).ok()?;
        Some(Grip { uid: Uid(stat.st_uid), gid: Gid(stat.st_gid), unified: None, handle })
    }

    /// Path of the executable as the kernel shows it, ` (deleted)` included.
    ///
    /// # Errors
    /// `ENOENT` for a kernel thread, a zombie or a process that is gone, all alike; `EACCES` without
    /// `CAP_SYS_PTRACE`.
    pub fn exe<'b>(&self, pid: Pid, buffer: &'b mut [u8; PATH_MAX]) -> Result<&'b [u8], Errno> {
        self.link(pid, "exe", buffer)
            .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }

    /// Whether the process sees the mounts of the host, so that its paths mean the host's files. These
    /// are those of process 1: a service manager may have given us mounts of our own, with other rights.
    pub fn shares_host_mounts(&self, pid: Pid) -> bool {
        let mut link = [0; 64];
        self.link(pid, "ns/mnt", &mut link)
            .is_ok_and(|target| self.host_mounts.iter().any(|host| host == target))
    }

    fn link<'b>(&self, pid: Pid, name: &str, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        sys::read_link(self.dir.as_fd(), ProcPath::new(pid, name).as_c_str(), buffer)
    }

    /// The kernel's name of the leader: 15 bytes at most, set by exec to the base name of what was
    /// invoked. `None` when the process is gone.
    pub fn comm(&mut self, pid: Pid) -> Option<&[u8]> {
        self.file(pid, "comm").map(|text| text.strip_suffix(b"\n").unwrap_or(text))
    }

    /// The text of `/proc/PID/cgroup`: a line for each hierarchy, `id:controllers:/path`.
    pub fn cgroup(&mut self, pid: Pid) -> Option<&[u8]> {
        self.file(pid, "cgroup")
    }

    /// Whether this is a kernel thread: flag `PF_KTHREAD` in `/proc/PID/stat`.
    pub fn is_kernel_thread(&mut self, pid: Pid) -> bool {
        const PF_KTHREAD: u64 = 0x0020_0000;
        self.stat(pid, 9).is_some_and(|flags| flags & PF_KTHREAD != 0)
    }

    /// Whether the leader is scheduled in real time: policy `SCHED_FIFO` or `SCHED_RR`.
    pub fn is_real_time(&mut self, pid: Pid) -> bool {
        const FIFO: u64 = 1;
        const RR: u64 = 2;
        self.stat(pid, 41).is_some_and(|policy| policy == FIFO || policy == RR)
    }

    /// The parent of the process: process 1 when that is gone. `None` when the process itself is.
    pub fn parent(&mut self, pid: Pid) -> Option<Pid> {
        self.stat(pid, 4).and_then(|parent| Pid::new(u32::try_from(parent).ok()?))
    }

    /// When the process started, in ticks since the machine did. It tells a process from a later one of
    /// the same number, and an exec does not change it. `None` when it is gone.
    pub fn started(&mut self, pid: Pid) -> Option<u64> {
        self.stat(pid, 22)
    }

    /// Whether there is a process of this number, dead but not reaped included.
    pub fn exists(&self, pid: Pid) -> bool {
        fstatat(&self.dir, ProcPath::new(pid, "").as_c_str(), AtFlags::empty()).is_ok()
    }

    /// Whose a process is, from `/proc/PID/status`. `None` when it is gone.
    pub fn owner(&mut self, pid: Pid) -> Option<Owner> {
        let text = self.file(pid, "status")?;
        let field = |name: &[u8], index: usize| status_number(text, name, index);
        Some(Owner {
            process: Pid::new(field(b"Tgid:", 0)?)?,
            real: Uid(field(b"Uid:", 0)?),
            effective: Uid(field(b"Uid:", 1)?),
            real_group: Gid(field(b"Gid:", 0)?),
        })
    }

    /// Returns the parent of the process like [`Self::parent`], from `/proc/PID/status`: that can be read
    /// while an exec of the process hangs, `stat` cannot.
    pub fn parent_by_status(&mut self, pid: Pid) -> Option<Pid> {
        let text = self.file(pid, "status")?;
        status_number(text, b"PPid:", 0).and_then(Pid::new)
    }

    /// Reads the `cgroup` file of another thread of a process whose leader has exited: the leader's own
    /// file says where it did that, whatever becomes of the others. `None` if the leader lives.
    pub fn cgroup_without_leader(&mut self, pid: Pid) -> Option<&[u8]> {
        let text = self.file(pid, "status")?;
        let state =
            text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"State:\t"));
        if !state.is_some_and(|state| state.starts_with(b"Z")) {
            return None;
        }
        let thread = self.threads(pid)?.find(|&thread| thread != pid)?;
        self.file(pid, &format!("task/{thread}/cgroup"))
    }

    fn threads(&self, pid: Pid) -> Option<impl Iterator<Item = Pid> + use<>> {
        let path = ProcPath::new(pid, "task");
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::dir::Dir::openat(&self.dir, path.as_c_str(), flags, Mode::empty()).ok()?;
        let entries = dir.into_iter().flatten();
        Some(entries.filter_map(|entry| parse_pid(entry.file_name().to_bytes())))
    }

    /// A number of `/proc/PID/stat` by the count of proc(5), which begins at 1. The state is field 3.
    fn stat(&mut self, pid: Pid, field: usize) -> Option<u64> {
        let text = self.file(pid, "stat")?;
        // The name, field 2, stands in parentheses and may hold anything.
        let end = text.iter().rposition(|&byte| byte == b')')?;
        let word = text[end + 1..].split(|&byte| byte == b' ').nth(field.checked_sub(2)?)?;
        std::str::from_utf8(word).ok()?.trim_end().parse().ok()
    }

    /// Calls `take` with the children of every thread of `pid`.
    pub fn children(&mut self, pid: Pid, mut take: impl FnMut(Pid)) {
        let Some(threads) = self.threads(pid) else { return };
        for thread in threads {
            let name = format!("task/{thread}/children");
            let Some(text) = self.file(pid, &name) else { continue };
            text.split(|&byte| byte == b' ').filter_map(parse_pid).for_each(&mut take);
        }
    }

    fn file(&mut self, pid: Pid, name: &str) -> Option<&[u8]> {
        let path = ProcPath::new(pid, name);
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = openat(&self.dir, path.as_c_str(), flags, Mode::empty()).ok()?;
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

    /// Calls `take` with every process there is now.
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

/// Returns a number in the line of `/proc/PID/status` that begins with `name`.
fn status_number(text: &[u8], name: &[u8], index: usize) -> Option<u32> {
    // The name of the process is free to choose, but the kernel escapes a newline in it.
    let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name))?;
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    std::str::from_utf8(words.nth(index)?).ok()?.parse().ok()
}

/// A process id in decimal.
fn parse_pid(name: &[u8]) -> Option<Pid> {
    std::str::from_utf8(name).ok()?.parse().ok().and_then(Pid::new)
}

/// The path in `/proc/PID/cgroup` of the hierarchy that the kernel lists with `controllers` (empty for
/// v2).
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

    fn ours() -> (Proc, Pid) {
        (Proc::open(Path::new("/proc")).unwrap(), Pid::new(std::process::id()).unwrap())
    }

    #[test]
    fn our_own_facts() {
        let (mut proc, pid) = ours();
        let grip = proc.grip(pid).unwrap();
        assert_eq!(grip.uid.0, nix::unistd::geteuid().as_raw());
        assert_eq!(grip.gid.0, nix::unistd::getegid().as_raw());
        let mut buffer = [0; PATH_MAX];
        let exe = proc.exe(pid, &mut buffer).unwrap();
        assert_eq!(exe, std::env::current_exe().unwrap().as_os_str().as_encoded_bytes());
        assert!(proc.shares_host_mounts(pid));
        assert!(!proc.is_kernel_thread(pid));
        assert!(!proc.is_real_time(pid));
        let owner = proc.owner(pid).unwrap();
        assert_eq!((owner.process, owner.effective), (pid, grip.uid));
        assert!(proc.started(pid).unwrap() > 0);
    }

    #[test]
    fn stat_and_pidfd_agree() {
        let (mut proc, pid) = ours();
        let asked = proc.grip(pid).unwrap();
        assert!(asked.handle.is_some());
        proc.has_pidfd_info = false;
        let loose = proc.grip(pid).unwrap();
        assert_eq!((loose.uid, loose.gid), (asked.uid, asked.gid));
        assert_eq!(loose.unified, None);
    }

    #[test]
    fn nobody_has_the_highest_number() {
        let (mut proc, _) = ours();
        let pid = Pid::new(i32::MAX as u32).unwrap();
        assert!(proc.grip(pid).is_none());
        assert!(proc.comm(pid).is_none());
    }

    /// Its `/proc` directory exists all the same, with the ids of a process that nobody asked for.
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
        let owner = proc.owner(tid).unwrap();
        assert!(proc.exists(tid) && tid != pid);
        assert_eq!(owner.process, pid);
        assert!(proc.grip(tid).is_none());
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
        std::fs::write(dir.join("cgroup"), "3:cpu,cpuacct:/x:y\n0::/z\n").unwrap();
        std::fs::write(dir.join("task/41/children"), "50 51 ").unwrap();
        std::fs::write(dir.join("status"), "Name:\tb\nState:\tS (sleeping)\nPPid:\t7\n").unwrap();
        std::fs::create_dir(root.path().join("sys")).unwrap();
        let mut proc = Proc::open(root.path()).unwrap();
        let pid = Pid::new(41).unwrap();
        assert_eq!(proc.comm(pid), Some(&b"a (b) c"[..]));
        assert!(proc.is_kernel_thread(pid) && proc.is_real_time(pid));
        assert_eq!(proc.parent(pid), Pid::new(2));
        assert_eq!(proc.parent_by_status(pid), Pid::new(7));
        let text = proc.cgroup(pid).unwrap();
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

    #[test]
    fn the_cgroup_without_a_leader_is_that_of_another_thread() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("41");
        std::fs::create_dir_all(dir.join("task/41")).unwrap();
        std::fs::write(dir.join("status"), "Name:\tb\nState:\tZ (zombie)\n").unwrap();
        let mut proc = Proc::open(root.path()).unwrap();
        let pid = Pid::new(41).unwrap();
        assert_eq!(proc.cgroup_without_leader(pid), None, "a zombie");
        std::fs::create_dir(dir.join("task/42")).unwrap();
        std::fs::write(dir.join("task/42/cgroup"), "0::/z\n").unwrap();
        assert_eq!(proc.cgroup_without_leader(pid), Some(&b"0::/z\n"[..]));
        std::fs::write(dir.join("status"), "Name:\tb\nState:\tS (sleeping)\n").unwrap();
        assert_eq!(proc.cgroup_without_leader(pid), None, "the leader lives");
    }
}
