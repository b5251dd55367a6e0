//! Attributes of a process, living or hypothetical, that rules evaluate. A read that can hang must have a
//! limit.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cgroup::unit::Unit;
use crate::cli::command::ToolError;
use crate::cli::inspected_program::{InspectedProgram, is_kernel_thread, read_program};
use crate::cli::time_limit::patiently;
use crate::cli::what_if::WhatIfProgram;
use crate::event::{Gid, Pid, Uid};
use crate::kernel::process::{ProcFs, path_in};
use crate::kernel::program::{self, Arguments, ExeInfo};
use crate::placement::KnownExe;
use crate::policy::load::NameService;
use crate::policy::rebuild::LoadedConfig;
use crate::rules::ancestry::Ancestor;
use crate::rules::names::UserIdentity;
use crate::rules::{ExeFacts, Facts};

/// Process and the attributes that rules evaluate.
#[derive(Clone, Debug)]
pub struct InspectedProcess {
    /// Attributes of a living process; `None` for a hypothetical one.
    pub life: Option<LiveProcess>,
    /// Effective user, and the groups that list the user as a member.
    pub who: UserIdentity,
    /// Effective group of the process.
    pub gid: Gid,
    /// Name of the effective group.
    pub group: Option<String>,
    /// Groups that list the user, by name where they have one.
    pub listed_in: Vec<String>,
    /// Executable of the process, as far as it is known.
    pub program: InspectedProgram,
    /// What its ancestors run, if a rule tests that.
    pub ancestors: Vec<Ancestor>,
    /// Login UID, if it is set.
    pub login: Option<Uid>,
    /// Text of its `/proc/PID/cmdline`; `None` if it is unknown or no rule tests it.
    pub arguments: Option<Vec<u8>>,
    /// Text of `/proc/PID/cgroup` that a hypothetical process would have.
    pub imagined_cgroup: Vec<u8>,
    /// Name of the container in which a hypothetical process would be.
    pub imagined_container: Option<String>,
}

/// Attributes that only a living process has.
#[derive(Clone, Debug)]
pub struct LiveProcess {
    /// PID, which is that of the thread-group leader.
    pub pid: Pid,
    /// Contents of `/proc/PID/comm`.
    pub comm: Vec<u8>,
    /// Contents of `/proc/PID/cgroup`.
    pub cgroup: Vec<u8>,
    /// Time since the process was started.
    pub age: Option<Duration>,
    /// Parent that started it, or adopted it.
    pub parent: Option<ParentProcess>,
    /// True if it is a kernel thread.
    pub is_kernel_thread: bool,
    /// True if it has exited and waits to be reaped.
    pub is_zombie: bool,
}

/// Parent of a living process.
#[derive(Clone, Debug)]
pub struct ParentProcess {
    /// PID from `/proc/PID/stat` of the child.
    pub pid: Pid,
    /// Contents of the parent's `/proc/PID/comm`.
    pub comm: Vec<u8>,
    /// True if user, executable and cgroups are the child's, as after a fork without an exec or a change of
    /// credentials.
    pub is_alike: bool,
}

impl InspectedProcess {
    /// Returns the attributes in the form that rules evaluate.
    pub fn facts(&self) -> Facts<'_> {
        let (exe, invoked) = match &self.program {
            InspectedProgram::Read { path, on_host, invoked, .. } => {
                (Some(ExeFacts { path, on_host: *on_host }), invoked.as_deref())
            }
            InspectedProgram::KernelThread(name) => (Some(ExeInfo::kernel_thread(name).exe), None),
            InspectedProgram::None | InspectedProgram::Hidden(_) => (None, None),
        };
        Facts { uid: self.who.uid, gid: self.gid, exe, invoked }
    }

    /// Returns the systemd unit in which it is.
    pub fn unit(&self, survey: &LoadedConfig) -> Option<&str> {
        let trees = &survey.hierarchies;
        let tree = trees.of_units().and_then(|index| trees.get(index))?;
        let path = path_in(self.cgroup_text(), tree.listed.as_bytes())?;
        let roots =
            [survey.roots.rules.trim_end_matches('/'), survey.roots.legacy.trim_end_matches('/')];
        Unit::of_bytes(path, &roots).name()
    }

    /// Returns the text of its `/proc/PID/cgroup`.
    pub fn cgroup_text(&self) -> &[u8] {
        self.life.as_ref().map_or(&self.imagined_cgroup, |life| &life.cgroup)
    }

    /// Returns the executable in the form that the daemon decides with, which does not ask more.
    pub fn known_exe(&self) -> KnownExe<'_> {
        match (&self.program, self.facts()) {
            (InspectedProgram::Read { raw, .. }, Facts { exe: Some(exe), invoked, .. }) => {
                KnownExe::Read(ExeInfo { raw, exe, invoked, is_unsure: false })
            }
            (InspectedProgram::KernelThread(name), _) => {
                KnownExe::Read(ExeInfo::kernel_thread(name))
            }
            _ => KnownExe::Unavailable,
        }
    }

    /// Returns the path of the executable as the kernel shows it, or the name of a kernel thread.
    pub fn raw_exe(&self) -> Option<&[u8]> {
        match &self.program {
            InspectedProgram::Read { raw, .. } => Some(raw),
            InspectedProgram::KernelThread(name) => Some(name),
            InspectedProgram::None | InspectedProgram::Hidden(_) => None,
        }
    }

    /// Reads the attributes of a living process. Returns `None` if the PID is no process.
    ///
    /// # Errors
    /// The NSS lookup failed.
    pub fn living(
        pid: Pid,
        proc: &mut ProcFs,
        names: &NameService,
    ) -> Result<Option<Self>, ToolError> {
        let Some(handle) = proc.open_process(pid) else { return Ok(None) };
        let mut subject = Self::new(handle.uid, handle.gid, names)?;
        subject.program = read_program(pid, proc);
        subject.login = proc.login(pid);
        let number = i32::try_from(pid.get()).unwrap_or(i32::MAX);
        let stat = procfs::process::Process::new(number).and_then(|own| own.stat()).ok();
        let comm = proc.comm(pid).unwrap_or_default().to_vec();
        let cgroup = proc.cgroup(pid, None).unwrap_or_default().to_vec();
        let parent = stat.as_ref().and_then(|stat| Pid::new(u32::try_from(stat.ppid).ok()?));
        let parent = parent.and_then(|parent| {
            let comm = proc.comm(parent)?.to_vec();
            let is_alike = same_as_parent((pid, parent), handle.uid, proc);
            Some(ParentProcess { pid: parent, comm, is_alike })
        });
        subject.life = Some(LiveProcess {
            pid,
            comm,
            cgroup,
            age: stat.as_ref().and_then(|stat| age(stat.starttime)),
            parent,
            is_kernel_thread: is_kernel_thread(pid, proc),
            is_zombie: stat.is_some_and(|stat| matches!(stat.state, 'Z' | 'X')),
        });
        Ok(Some(subject))
    }

    /// Reads the arguments of the living process with this PID.
    pub fn read_arguments(&mut self, pid: Pid) {
        self.arguments = read_arguments(pid);
    }

    /// Creates a hypothetical process.
    ///
    /// # Errors
    /// The NSS lookup failed.
    pub fn imagined(
        uid: Uid,
        gid: Gid,
        exe: Option<&Path>,
        names: &NameService,
    ) -> Result<Self, ToolError> {
        let program = exe.map_or(InspectedProgram::Hidden("no --exe given".to_owned()), started);
        Ok(Self { program, ..Self::new(uid, gid, names)? })
    }

    fn new(uid: Uid, gid: Gid, names: &NameService) -> Result<Self, ToolError> {
        let who = names.identify(uid).map_err(ToolError::nss)?;
        let group = names.group_name(gid).map_err(ToolError::nss)?;
        let listed_in = who.listed_in.iter().map(|gid| match names.group_name(*gid) {
            Ok(Some(name)) => format!("{name} ({gid})"),
            Ok(None) | Err(_) => gid.to_string(),
        });
        let listed_in = listed_in.collect();
        Ok(Self {
            life: None,
            who,
            gid,
            group,
            listed_in,
            program: InspectedProgram::None,
            ancestors: Vec::new(),
            login: None,
            arguments: None,
            imagined_cgroup: Vec::new(),
            imagined_container: None,
        })
    }
}

fn read_arguments(pid: Pid) -> Option<Vec<u8>> {
    let dir = PathBuf::from(format!("/proc/{pid}"));
    match patiently(move || Some(program::arguments(&dir)))? {
        Arguments::Read(text) => Some(text.into()),
        Arguments::Unread | Arguments::Unavailable => None,
    }
}

/// Checks whether user, executable and cgroups of a process are those of its parent.
fn same_as_parent((pid, parent): (Pid, Pid), uid: Uid, proc: &mut ProcFs) -> bool {
    let comm = proc.comm(pid).map(<[u8]>::to_vec);
    let groups = proc.cgroup(pid, None).map(<[u8]>::to_vec);
    let has_same_user = proc.open_process(parent).is_some_and(|handle| handle.uid == uid);
    has_same_user
        && exe_link(pid) == exe_link(parent)
        && comm.as_deref() == proc.comm(parent)
        && groups.as_deref() == proc.cgroup(parent, None)
}

fn exe_link(pid: Pid) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// Returns the time since a start time in clock ticks after boot.
fn age(started: u64) -> Option<Duration> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let now: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    #[allow(clippy::cast_precision_loss, reason = "an age is shown in whole seconds or less")]
    let then = started as f64 / procfs::ticks_per_second() as f64;
    Duration::try_from_secs_f64((now - then).max(0.0)).ok()
}

/// Returns the executable that the kernel would show after an exec of this path.
fn started(path: &Path) -> InspectedProgram {
    if let Some(WhatIfProgram { exe, invoked, .. }) = WhatIfProgram::find(path) {
        let raw = exe.into_os_string().into_vec();
        let invoked = invoked.map(|path| path.into_os_string().into_vec());
        return InspectedProgram::Read { path: raw.clone(), raw, on_host: true, invoked };
    }
    // Without the file on this host nothing can be resolved: the path is used as given.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let raw = path.into_os_string().into_vec();
    InspectedProgram::Read { path: raw.clone(), raw, on_host: true, invoked: None }
}
