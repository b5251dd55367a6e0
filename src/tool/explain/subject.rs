//! What is true of a process, a living one or one that is only thought of.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use nix::errno::Errno;

use crate::event::{Gid, Pid, Uid};
use crate::load::NameService;
use crate::process::Proc;
use crate::program::{self, Examined, ExeRead, ExeReader, ReadRequest};
use crate::rules::names::Identity;
use crate::rules::{Exe, Facts};
use crate::tool::command::Failure;

/// How long a closer look at a program may take: its owner can make it hang.
const PATIENCE: Duration = Duration::from_secs(2);

/// A process and what rules may ask of it.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What only a living process has.
    pub life: Option<Life>,
    /// Its user, and the groups that list the user.
    pub who: Identity,
    /// Its effective group.
    pub gid: Gid,
    /// The name of that group.
    pub group: Option<String>,
    /// The names of the groups that list the user, where they have one.
    pub listed_in: Vec<String>,
    /// What it runs.
    pub program: Program,
}

/// What only a living process has.
#[derive(Clone, Debug)]
pub struct Life {
    /// Its number.
    pub pid: Pid,
    /// The kernel's name of it.
    pub comm: Vec<u8>,
    /// The text of `/proc/PID/cgroup`.
    pub cgroup: Vec<u8>,
    /// Since it was started.
    pub age: Option<Duration>,
    /// Who started it, or took it over.
    pub parent: Option<Parent>,
    /// Whether it is a thread of the kernel.
    pub is_kernel_thread: bool,
    /// Whether it has ended and waits for its parent to take note.
    pub is_zombie: bool,
}

/// The parent of a process.
#[derive(Clone, Debug)]
pub struct Parent {
    /// Its number.
    pub pid: Pid,
    /// The kernel's name of it.
    pub comm: Vec<u8>,
    /// Whether user, program and groups of both are the same, as those of a child that was forked and
    /// did nothing since.
    pub is_alike: bool,
}

/// What is known of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// All that rules ask for.
    Read {
        /// As the kernel shows it.
        raw: Vec<u8>,
        /// Its path.
        path: Vec<u8>,
        /// Whether the path means the same file on the host.
        on_host: bool,
        /// The script or link that was invoked.
        invoked: Option<Vec<u8>>,
    },
    /// There is none.
    None,
    /// It cannot be read, and why.
    Hidden(String),
}

impl Subject {
    /// As rules are asked.
    pub fn facts(&self) -> Facts<'_> {
        let (exe, invoked) = match &self.program {
            Program::Read { path, on_host, invoked, .. } => {
                (Some(Exe { path, on_host: *on_host }), invoked.as_deref())
            }
            Program::None | Program::Hidden(_) => (None, None),
        };
        Facts { uid: self.who.uid, gid: self.gid, exe, invoked }
    }

    /// The path of the executable as the kernel shows it.
    pub fn raw_exe(&self) -> Option<&[u8]> {
        match &self.program {
            Program::Read { raw, .. } => Some(raw),
            Program::None | Program::Hidden(_) => None,
        }
    }

    /// A living process. `None` when there is none of this number.
    ///
    /// # Errors
    /// The name service failed.
    pub fn living(pid: Pid, proc: &mut Proc, names: &NameService) -> Result<Option<Self>, Failure> {
        let Some(grip) = proc.grip(pid) else { return Ok(None) };
        let mut subject = Self::new(grip.uid, grip.gid, names)?;
        subject.program = read_program(pid, proc);
        let number = i32::try_from(pid.get()).unwrap_or(i32::MAX);
        let stat = procfs::process::Process::new(number).and_then(|own| own.stat()).ok();
        let comm = proc.comm(pid).unwrap_or_default().to_vec();
        let cgroup = proc.cgroup(pid, None).unwrap_or_default().to_vec();
        let parent = stat.as_ref().and_then(|stat| Pid::new(u32::try_from(stat.ppid).ok()?));
        let parent = parent.and_then(|parent| {
            let comm = proc.comm(parent)?.to_vec();
            let is_alike = is_alike((pid, parent), grip.uid, proc);
            Some(Parent { pid: parent, comm, is_alike })
        });
        subject.life = Some(Life {
            pid,
            comm,
            cgroup,
            age: stat.as_ref().and_then(|stat| age(stat.starttime)),
            parent,
            is_kernel_thread: proc.is_kernel_thread(pid),
            is_zombie: stat.is_some_and(|stat| matches!(stat.state, 'Z' | 'X')),
        });
        Ok(Some(subject))
    }

    /// One that is only thought of.
    ///
    /// # Errors
    /// The name service failed.
    pub fn imagined(
        uid: Uid,
        gid: Gid,
        exe: Option<&Path>,
        names: &NameService,
    ) -> Result<Self, Failure> {
        let program = exe.map_or(Program::Hidden("none was given".to_owned()), started);
        Ok(Self { program, ..Self::new(uid, gid, names)? })
    }

    fn new(uid: Uid, gid: Gid, names: &NameService) -> Result<Self, Failure> {
        let failed = |error| Failure::Failed(format!("the name service failed: {error}"));
        let who = names.identify(uid).map_err(failed)?;
        let group = names.group_name(gid).map_err(failed)?;
        let shown = |gid: &Gid| match names.group_name(*gid) {
            Ok(Some(name)) => format!("{name} ({gid})"),
            Ok(None) | Err(_) => gid.to_string(),
        };
        let listed_in = who.listed_in.iter().map(shown).collect();
        Ok(Self { life: None, who, gid, group, listed_in, program: Program::None })
    }
}

fn read_program(pid: Pid, proc: &mut Proc) -> Program {
    let Some(read) = read(pid, proc) else {
        return Program::Hidden("its owner keeps us from reading it".to_owned());
    };
    let raw = match read.link() {
        Ok(raw) => raw.to_vec(),
        Err(Errno::ENOENT | Errno::ESRCH) => return Program::None,
        Err(Errno::EACCES | Errno::EPERM) => {
            return Program::Hidden("only root may see it".to_owned());
        }
        Err(errno) => return Program::Hidden(errno.desc().to_owned()),
    };
    if let Some(seen) = read.seen(proc.comm(pid)).filter(|seen| !seen.is_unsure) {
        let (path, on_host) = (seen.exe.path.to_vec(), seen.exe.on_host);
        return Program::Read { raw, path, on_host, invoked: None };
    }
    let of = raw.clone();
    match patiently(move || Some(program::examine(pid, Some(&of)))) {
        Some(Examined::Program(found)) => Program::Read {
            raw,
            path: found.path.into_vec(),
            on_host: found.on_host,
            invoked: found.invoked.map(<[u8]>::into_vec),
        },
        Some(Examined::Changed | Examined::Unreadable | Examined::Gone) | None => {
            Program::Hidden("its owner keeps us from reading it".to_owned())
        }
    }
}

/// The first read of an executable: of a live thread where the leader has exited.
fn read(pid: Pid, proc: &mut Proc) -> Option<ExeRead> {
    let grip = proc.grip(pid)?;
    let thread = match proc.has_leader_exited(pid) {
        true => proc.stand_in(pid, grip).and_then(|grip| grip.thread),
        false => None,
    };
    let reader = ExeReader::new(proc).ok()?;
    patiently(move || {
        let mut read = ExeRead::default();
        reader.read(ReadRequest { pid, thread, namespaces: false }, &mut read);
        Some(read)
    })
}

/// The result of what can hang, on a thread that is left behind when it does.
fn patiently<T: Send + 'static>(work: impl FnOnce() -> Option<T> + Send + 'static) -> Option<T> {
    let (answer, answered) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody waits any more when this fails.
        let _ = answer.send(work());
    });
    answered.recv_timeout(PATIENCE).ok().flatten()
}

/// Whether user, program and groups of a process and its parent are the same.
fn is_alike((pid, parent): (Pid, Pid), uid: Uid, proc: &mut Proc) -> bool {
    let exe = |pid| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let comm = proc.comm(pid).map(<[u8]>::to_vec);
    let groups = proc.cgroup(pid, None).map(<[u8]>::to_vec);
    let has_same_user = proc.grip(parent).is_some_and(|grip| grip.uid == uid);
    has_same_user
        && exe(pid) == exe(parent)
        && comm.as_deref() == proc.comm(parent)
        && groups.as_deref() == proc.cgroup(parent, None)
}

/// Time since a number of ticks after the start of the machine.
fn age(started: u64) -> Option<Duration> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let now: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    #[allow(clippy::cast_precision_loss, reason = "an age is shown in whole seconds or less")]
    let then = started as f64 / procfs::ticks_per_second() as f64;
    Duration::try_from_secs_f64((now - then).max(0.0)).ok()
}

/// What the kernel would show of a program that is started by this path.
fn started(path: &Path) -> Program {
    let given = path.as_os_str().as_bytes().to_vec();
    let Ok(target) = fs::canonicalize(path) else {
        // Not on this host: taken as it is.
        return Program::Read { raw: given.clone(), path: given, on_host: true, invoked: None };
    };
    let interpreter = interpreter(&target).and_then(|path| fs::canonicalize(path).ok());
    let is_script = interpreter.is_some();
    let exe = interpreter.unwrap_or(target).into_os_string().into_encoded_bytes();
    let invoked = (is_script || exe != given).then_some(given);
    Program::Read { raw: exe.clone(), path: exe, on_host: true, invoked }
}

/// What runs a script; `None` for what is none.
fn interpreter(path: &Path) -> Option<String> {
    let mut start = Vec::new();
    let file = fs::metadata(path).ok().filter(fs::Metadata::is_file).and(fs::File::open(path).ok());
    file?.take(256).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let word = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())?;
    String::from_utf8(word.to_vec()).ok()
}
