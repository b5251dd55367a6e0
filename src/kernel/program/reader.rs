//! The fast read of an executable: its link and mount namespace.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;

use super::{DELETED, ExeInfo, may_be_other_name, memfd_path};
use crate::event::Pid;
use crate::kernel::container::{Containment, HostNamespaces};
use crate::kernel::process::{PATH_MAX, ProcFs, ProcPath};
use crate::rules::ExeFacts;
use crate::sys;

/// Request to read an executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// PID of the process to read.
    pub pid: Pid,
    /// Live thread of it, if its leader has exited.
    pub thread: Option<Pid>,
    /// Set if its namespaces must be read too.
    pub namespaces: bool,
}

/// Reader of executables. Its calls can block for as long as the owner of a process likes.
#[derive(Debug)]
pub struct ExeReader {
    dir: OwnedFd,
    /// Mount namespaces with the host's paths: the own one and that of process 1, which differs
    /// when a service manager set up private mounts.
    host_mounts: [Box<[u8]>; 2],
    host: HostNamespaces,
}

/// Result of one read of an executable.
#[derive(Debug)]
pub struct ExeRead {
    buffer: Box<[u8; PATH_MAX]>,
    link: Result<usize, Errno>,
    shares_host_mounts: bool,
    containment: Option<Containment>,
}

impl Default for ExeRead {
    fn default() -> Self {
        Self {
            buffer: Box::new([0; PATH_MAX]),
            link: Err(Errno::ESRCH),
            shares_host_mounts: false,
            containment: None,
        }
    }
}

impl ExeRead {
    /// Creates the result of reading this link, for a kernel that is simulated.
    pub fn new(
        link: Result<&[u8], Errno>,
        shares_host_mounts: bool,
        containment: Option<Containment>,
    ) -> Self {
        let mut read = Self { shares_host_mounts, containment, ..Self::default() };
        read.link = link.map(|link| {
            let length = link.len().min(PATH_MAX);
            read.buffer[..length].copy_from_slice(&link[..length]);
            length
        });
        read
    }

    /// Returns the link `/proc/PID/exe` as the kernel shows it, including ` (deleted)`.
    ///
    /// # Errors
    /// `ENOENT` for a kernel thread, an exited leader and a process that does not exist; `EACCES`
    /// without `CAP_SYS_PTRACE`.
    pub fn link(&self) -> Result<&[u8], Errno> {
        self.link.map(|length| &self.buffer[..length])
    }

    /// Checks whether the process is in a container, if that was requested.
    pub const fn containment(&self) -> Option<Containment> {
        self.containment
    }

    /// Returns the executable as far as the link and the `comm` of the process determine it. `None`
    /// if no link could be read.
    pub fn seen(&self, comm: Option<&[u8]>) -> Option<ExeInfo<'_>> {
        let raw = self.link().ok()?;
        if let Some(path) = memfd_path(raw) {
            let exe = ExeFacts { path, on_host: false };
            return Some(ExeInfo { raw, exe, invoked: None, is_unsure: false });
        }
        let is_plain = !raw.ends_with(DELETED) && self.shares_host_mounts;
        let is_unsure = !is_plain || comm.is_none_or(|comm| may_be_other_name(raw, comm));
        Some(ExeInfo {
            raw,
            exe: ExeFacts { path: raw, on_host: is_plain },
            invoked: None,
            is_unsure,
        })
    }
}

impl ExeReader {
    /// Creates a reader for the processes of `proc`.
    ///
    /// # Errors
    /// As dup(2).
    pub fn new(proc: &ProcFs) -> io::Result<Self> {
        let mut reader = Self {
            dir: proc.duplicate_dir()?,
            host_mounts: Default::default(),
            host: HostNamespaces::read(Path::new("/proc")),
        };
        reader.host_mounts = [std::process::id(), 1].map(|host| {
            let mut link = [0; 64];
            let request =
                Pid::new(host).map(|pid| ReadRequest { pid, thread: None, namespaces: false });
            let target = request.and_then(|of| reader.read_link(of, "ns/mnt", &mut link).ok());
            target.map_or_else(Box::default, Box::from)
        });
        Ok(reader)
    }

    /// Creates another reader of the same processes, for another thread.
    ///
    /// # Errors
    /// As dup(2).
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            dir: self.dir.try_clone()?,
            host_mounts: self.host_mounts.clone(),
            host: self.host,
        })
    }

    /// Reads the executable of a process into `read`, and its namespaces if requested.
    pub fn read(&self, of: ReadRequest, read: &mut ExeRead) {
        read.link = self
            .read_link(of, "exe", &mut *read.buffer)
            .map(<[u8]>::len)
            .map_err(|error| sys::errno(&error));
        let mut link = [0; 64];
        read.shares_host_mounts = read.link.is_ok()
            && self
                .read_link(of, "ns/mnt", &mut link)
                .is_ok_and(|target| self.host_mounts.iter().any(|host| **host == *target));
        read.containment = of.namespaces.then(|| {
            let process = Path::new("/proc").join(of.pid.to_string());
            let thread = of.thread.map(|thread| process.join("task").join(thread.to_string()));
            self.host.containment_by_proc(&thread.unwrap_or(process))
        });
    }

    fn read_link<'b>(
        &self,
        ReadRequest { pid, thread, .. }: ReadRequest,
        name: &str,
        buffer: &'b mut [u8],
    ) -> io::Result<&'b [u8]> {
        sys::read_link(self.dir.as_fd(), ProcPath::of(pid, thread, name).as_c_str(), buffer)
    }
}
