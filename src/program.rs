//! Which program a process runs: what a glance tells on the hot thread, and what only a closer look
//! tells on a thread that may hang.
//!
//! A glance is the link `/proc/PID/exe`, the mount namespace and the kernel's name of the process. It
//! is enough unless the process sees other mounts than the host (its paths may name other files), the
//! file was deleted, or something else than the executable was invoked: a script, a symbolic link.
//! Then [`examine`] opens files that the process's owner chose, and reads memory that he owns; both
//! can be made to hang from a FUSE mount.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::event::Pid;
use crate::process::{PATH_MAX, Proc};
use crate::rules::{Exe, base_name};

/// What the kernel appends to the path of a file without a name.
const DELETED: &[u8] = b" (deleted)";

/// The kernel keeps this much of a name.
const COMM: usize = 15;

/// Programs that run others: for them an argument may be the program that the administrator means.
/// Beginnings of base names, so that `python3.11` is one.
const INTERPRETERS: [&[u8]; 14] = [
    b"sh", b"bash", b"dash", b"ksh", b"zsh", b"fish", b"python", b"perl", b"ruby", b"node", b"php",
    b"lua", b"tclsh", b"env",
];

/// A program as a closer look found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The link `/proc/PID/exe` as it was then; the answer holds only while it is the same.
    pub raw: Box<[u8]>,
    /// The path, without ` (deleted)` if the file has no name any more.
    pub path: Box<[u8]>,
    /// Whether the path means the same file for us.
    pub on_host: bool,
    /// The script or symbolic link that was invoked.
    pub invoked: Option<Box<[u8]>>,
}

/// What is known of the program of a process.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The link as the kernel shows it.
    pub raw: &'a [u8],
    /// The executable.
    pub exe: Exe<'a>,
    /// What was invoked, if that is known.
    pub invoked: Option<&'a [u8]>,
    /// Whether a closer look could tell more.
    pub is_unsure: bool,
}

impl<'a> Seen<'a> {
    /// What people call the program: the script or link that was invoked if that is known, or the
    /// executable.
    pub fn name(self) -> &'a [u8] {
        self.invoked.unwrap_or(self.raw)
    }
}

/// The buffer for glances.
#[derive(Debug)]
pub struct Sight {
    path: Box<[u8; PATH_MAX]>,
    comm: Vec<u8>,
}

impl Default for Sight {
    fn default() -> Self {
        Self { path: Box::new([0; PATH_MAX]), comm: Vec::new() }
    }
}

impl Sight {
    /// A glance at the program, completed by what a closer look found if it was at the same program. A
    /// kernel thread, which has none, has its name instead; only rules that compare the path alone mean
    /// it. `None` for a zombie, or a process that is gone.
    pub fn see<'a>(
        &'a mut self,
        proc: &mut Proc,
        pid: Pid,
        known: Option<&'a Program>,
    ) -> Option<Seen<'a>> {
        let raw = match proc.exe(pid, &mut self.path) {
            Ok(raw) => raw,
            // Only here, off the way of every process with a program, more of it is read.
            Err(Errno::ENOENT) => return kernel_thread(proc, pid, &mut self.comm),
            Err(_) => return None,
        };
        if let Some(known) = known.filter(|known| *known.raw == *raw) {
            let exe = Exe { path: &known.path, on_host: known.on_host };
            return Some(Seen { raw, exe, invoked: known.invoked.as_deref(), is_unsure: false });
        }
        let is_plain = !raw.ends_with(DELETED) && proc.shares_host_mounts(pid);
        let base = base_name(raw);
        let is_unsure = !is_plain
            || is_interpreter(base)
            || proc.comm(pid).is_none_or(|comm| comm != kept(base));
        Some(Seen { raw, exe: Exe { path: raw, on_host: is_plain }, invoked: None, is_unsure })
    }
}

/// A kernel thread's name stands for its program, as for the original. Nobody but the kernel chooses it.
fn kernel_thread<'a>(proc: &mut Proc, pid: Pid, comm: &'a mut Vec<u8>) -> Option<Seen<'a>> {
    if !proc.is_kernel_thread(pid) {
        return None;
    }
    comm.clear();
    comm.extend_from_slice(proc.comm(pid)?);
    let exe = Exe { path: comm, on_host: false };
    Some(Seen { raw: comm, exe, invoked: None, is_unsure: false })
}

fn is_interpreter(base: &[u8]) -> bool {
    INTERPRETERS.iter().any(|name| base.starts_with(name))
}

/// As much of a name as the kernel keeps.
fn kept(name: &[u8]) -> &[u8] {
    &name[..name.len().min(COMM)]
}

/// A closer look. May hang for as long as the owner of the process likes. `None` when the process is
/// gone or runs another program by now.
pub fn examine(pid: Pid, raw: &[u8]) -> Option<Program> {
    let dir = PathBuf::from(format!("/proc/{pid}"));
    let link = dir.join("exe");
    if fs::read_link(&link).ok()?.as_os_str().as_bytes() != raw {
        return None;
    }
    let file = fs::metadata(&link).ok()?;
    let path = match raw.strip_suffix(DELETED) {
        Some(path) if file.nlink() == 0 => path,
        _ => raw,
    };
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let theirs = namespace(&pid.to_string());
    let shares_mounts_of = |host: &str| theirs.is_some() && namespace(host) == theirs;
    let (is_ours, is_first) = (shares_mounts_of("self"), shares_mounts_of("1"));
    let on_host = is_ours || is_first || is_same_file(&file, Path::new(OsStr::from_bytes(path)));
    // Its paths mean the same to the host only if it shares the host's mounts and root directory.
    let shares_root = fs::read_link(dir.join("root")).is_ok_and(|root| root == Path::new("/"));
    // Not by the root of the process itself, which it may change meanwhile.
    let view = if is_first && !is_ours { "/proc/1/root" } else { "/" };
    let invoked =
        if on_host && shares_root { invoked(&dir, Path::new(view), path, &file) } else { None };
    Some(Program {
        raw: raw.into(),
        path: path.into(),
        on_host,
        invoked: invoked.map(|path| path.into_os_string().into_vec().into()),
    })
}

fn is_same_file(file: &fs::Metadata, path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|other| (other.dev(), other.ino()) == (file.dev(), file.ino()))
}

/// The argument that names what was invoked, if it is a symbolic link to the executable or a script.
/// Arguments and the kernel's name are the process's own to choose; so neither counts by itself.
///
/// `view` is where the host's files are to be seen: a service may have a /tmp of its own.
fn invoked(dir: &Path, view: &Path, exe: &[u8], file: &fs::Metadata) -> Option<PathBuf> {
    let comm = read_bounded(&dir.join("comm"), 64)?;
    let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
    let arguments = read_bounded(&dir.join("cmdline"), 64 * 1024)?;
    let arguments: Vec<&[u8]> = arguments.split(|&byte| byte == 0).collect();
    let named = arguments.iter().find(|argument| kept(base_name(argument)) == comm);
    // An interpreter that was started by its own name: its first argument that is no option.
    let first = arguments.iter().skip(1).find(|argument| !argument.starts_with(b"-"));
    [named, first].into_iter().flatten().find_map(|argument| {
        let path = absolute(dir, argument)?;
        let seen = view.join(path.strip_prefix("/").unwrap_or(&path));
        let is_other_name = path.as_os_str().as_bytes() != exe && is_same_file(file, &seen);
        (is_other_name || is_script(&seen)).then_some(path)
    })
}

fn absolute(dir: &Path, argument: &[u8]) -> Option<PathBuf> {
    if argument.is_empty() {
        return None;
    }
    let path = Path::new(OsStr::from_bytes(argument));
    if path.is_absolute() {
        return Some(path.to_owned());
    }
    let path = fs::read_link(dir.join("cwd")).ok()?.join(path);
    // What is hidden from us is taken by its letters.
    Some(fs::canonicalize(&path).unwrap_or_else(|_| path.components().collect()))
}

/// A regular file that begins with `#!`.
fn is_script(path: &Path) -> bool {
    let opened =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let Ok(mut file) = opened else { return false };
    let mut start = [0; 2];
    file.metadata().is_ok_and(|metadata| metadata.is_file())
        && file.read_exact(&mut start).is_ok()
        && start == *b"#!"
}

fn read_bounded(path: &Path, bound: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(bound).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{cgrules_conf, rules_toml};
    use crate::event::{Gid, Nanos, Uid};
    use crate::policy::User;
    use crate::rules::Facts;
    use crate::rules::matcher::Matcher;
    use crate::rules::names::Identity;

    /// A process without a program in a directory that stands for `/proc`.
    fn without_program(comm: &str, flags: u64) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("41");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("comm"), format!("{comm}\n")).unwrap();
        let stat = format!("41 ({comm}) S 2 0 0 0 -1 {flags} 0 0\n");
        fs::write(dir.join("stat"), stat).unwrap();
        root
    }

    /// The line of the rule that holds.
    fn decided(rules: Vec<crate::rules::Rule>, seen: Option<&Seen<'_>>) -> Option<u32> {
        let matcher = Matcher::compile(rules.into());
        let root = Identity { uid: Uid(0), name: None, listed_in: Vec::new() };
        let user = User::new(&matcher, root, Nanos(0));
        let exe = seen.map(|seen| seen.exe);
        let facts = Facts { uid: Uid(0), gid: Gid(0), exe, invoked: None };
        let id = matcher.decide(&user.plan, &facts)?;
        matcher.rule(id).map(|rule| rule.origin.line)
    }

    #[test]
    fn a_kernel_thread_has_its_name_for_rules_that_compare_the_path_alone() {
        let legacy = |text: &str| {
            let parsed = cgrules_conf::parse(&Arc::from(Path::new("/a")), text);
            parsed.rules.into_iter().map(|written| written.rule).collect::<Vec<_>>()
        };
        let toml = |more: &str| {
            let text = format!("version = 1\n[[rule]]\nexe = \"kswapd0\"\n{more}ignore = true\n");
            let parsed = rules_toml::parse(&Arc::from(Path::new("/a.toml")), &text);
            assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
            parsed.rules.into_iter().map(|written| written.rule).collect::<Vec<_>>()
        };
        let kernel = without_program("kswapd0", 0x0020_0000);
        let mut proc = Proc::open(kernel.path()).unwrap();
        let pid = Pid::new(41).unwrap();
        let mut sight = Sight::default();
        let seen = sight.see(&mut proc, pid, None).unwrap();
        assert!(!seen.is_unsure);
        let rules = "*:/opt/* cpu x\n*:kswapd cpu x\n*:kswapd0 cpu a\n";
        assert_eq!(decided(legacy(rules), Some(&seen)), Some(3));
        assert_eq!(decided(legacy("*:kswap* cpu b\n"), Some(&seen)), Some(1));
        assert_eq!(decided(toml(""), Some(&seen)), None);
        assert_eq!(decided(toml("exe_anywhere = true\n"), Some(&seen)), Some(3));
        let zombie = without_program("kswapd0", 0);
        let mut proc = Proc::open(zombie.path()).unwrap();
        assert!(sight.see(&mut proc, pid, None).is_none());
    }
}
