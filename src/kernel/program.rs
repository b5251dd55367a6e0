//! Executable of a process: a fast read that can block only on exec, and a slow examination.
//!
//! The fast read takes the link `/proc/PID/exe` and the mount namespace. Together with the `comm`
//! of the process it is enough unless the process has other mounts than the host (its paths may
//! refer to other files), the file was deleted, or something else than the executable was invoked:
//! a script or a symbolic link. Then [`examine`] opens files that the owner of the process chose,
//! and reads memory of that user.
//!
//! Both can block for as long as that user likes: the first on an execve(2) that hangs while it
//! holds `exec_update_lock`, the second on any FUSE mount. So the leading thread makes the first
//! with the state of the daemon checked in (see [`crate::daemon`]), and the second runs on separate
//! threads ([`crate::kernel::exe_pool`]).

mod reader;
mod script;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::event::Pid;
use crate::kernel::errno::{can_pass, errno_of};
use crate::kernel::process::ProcFs;
use crate::rules::ancestry::Ancestor;
use crate::rules::{ExeFacts, base_name};
pub use reader::{ExeRead, ExeReader, ReadRequest};
pub use script::is_script;

/// Suffix that the kernel appends to the path of a deleted file.
const DELETED: &[u8] = b" (deleted)";

/// Prefix of the link to a file of memfd_create(2), before the name that its creator chose. Only
/// root can make a file at such a path, so no other file of the host looks so.
const MEMFD: &[u8] = b"/memfd:";

/// Maximum length of the arguments that are read, in bytes.
const ARGUMENTS: u64 = 64 * 1024;

/// Maximum length of `comm`, in bytes.
const COMM: usize = 15;

/// Directories of `PATH` to which only root writes.
pub const STANDARD_DIRECTORIES: [&str; 4] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// Interpreters: for these an argument may be the program that the administrator means. Prefixes of
/// base names, so that `python3.11` matches.
const INTERPRETERS: [&[u8]; 14] = [
    b"sh", b"bash", b"dash", b"ksh", b"zsh", b"fish", b"python", b"perl", b"ruby", b"node", b"php",
    b"lua", b"tclsh", b"env",
];

/// Result of [`examine`] for an executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The link `/proc/PID/exe` at that time.
    pub raw: Box<[u8]>,
    /// Path of the file, without ` (deleted)` if it does not exist any more.
    pub path: Box<[u8]>,
    /// Set if the path refers to the same file on the host.
    pub on_host: bool,
    /// Path of the script or symbolic link that was invoked.
    pub invoked: Option<Box<[u8]>>,
    /// Set if root may not read the file, so that it is not known to be the host's.
    pub is_unreadable: bool,
    /// Arguments, as far as they were requested: the first 64 KiB of `/proc/PID/cmdline`.
    pub arguments: Arguments,
}

/// Arguments of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Arguments {
    /// Not requested.
    #[default]
    Unread,
    /// They cannot be read.
    Unavailable,
    /// The text, each argument with a NUL byte after it.
    Read(Box<[u8]>),
}

impl Program {
    /// Creates the result for a file that is not the host's.
    fn elsewhere(raw: Box<[u8]>, path: Box<[u8]>) -> Self {
        let arguments = Arguments::Unread;
        Self { raw, path, on_host: false, invoked: None, is_unreadable: false, arguments }
    }

    /// Returns the examined executable in the form that rules are matched with.
    pub fn seen(&self) -> ExeInfo<'_> {
        let exe = ExeFacts { path: &self.path, on_host: self.on_host };
        ExeInfo { raw: &self.raw, exe, invoked: self.invoked.as_deref(), is_unsure: false }
    }
}

/// Executable of a process, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub struct ExeInfo<'a> {
    /// The link as the kernel shows it.
    pub raw: &'a [u8],
    /// Path of the executable, with or without trust that it is the host's.
    pub exe: ExeFacts<'a>,
    /// Path of the invoked script or link, if known.
    pub invoked: Option<&'a [u8]>,
    /// Set if [`examine`] could determine more.
    pub is_unsure: bool,
}

impl<'a> ExeInfo<'a> {
    /// Returns the common name of the program: the invoked script or link if known, else the
    /// executable.
    pub fn name(self) -> &'a [u8] {
        self.invoked.unwrap_or(self.raw)
    }

    /// Returns the program as that of an ancestor.
    pub fn as_ancestor(self, is_of_root: bool) -> Ancestor {
        let (path, invoked) = (self.exe.path.into(), self.invoked.map(Box::from));
        Ancestor { path, invoked, is_of_root }
    }

    /// Creates the entry of a kernel thread, which has a name in place of an executable. Only rules
    /// that compare the path alone match it, as in cgrulesengd; only the kernel can set the name.
    pub fn kernel_thread(comm: &'a [u8]) -> Self {
        let exe = ExeFacts { path: comm, on_host: false };
        ExeInfo { raw: comm, exe, invoked: None, is_unsure: false }
    }
}

/// The path of an executable in memory: `/memfd:` and a name that may hold anything, slashes
/// included. `None` for any other executable.
///
/// It is on no path of the host whatever its name is. So it needs no examination either, and a user
/// who executes many of them keeps no thread busy.
fn memfd_path(raw: &[u8]) -> Option<&[u8]> {
    raw.strip_suffix(DELETED).filter(|path| path.starts_with(MEMFD))
}

fn is_interpreter(base: &[u8]) -> bool {
    INTERPRETERS.iter().any(|name| base.starts_with(name))
}

/// Checks whether something else than the executable may have been invoked, so that an examination can
/// determine more: its base name is not the name that the process got by its exec, or an interpreter's.
pub fn may_be_other_name(exe: &[u8], comm: &[u8]) -> bool {
    let base = base_name(exe);
    is_interpreter(base) || kept(comm) != kept(base)
}

/// Truncates a name to the length of `comm`.
fn kept(name: &[u8]) -> &[u8] {
    &name[..name.len().min(COMM)]
}

/// Result of [`examine`] for a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Examined {
    /// The executable was examined successfully.
    Program(Program),
    /// The link differs from the request: the event of that exec follows.
    Changed,
    /// The link cannot be read for lack of permission.
    Unreadable,
    /// The process exited before the link was read.
    Gone,
}

/// Reads the arguments of a process. Can block for as long as the owner of the process likes.
pub fn arguments(dir: &Path) -> Arguments {
    let Some(mut text) = read_bounded(&dir.join("cmdline"), ARGUMENTS) else {
        return Arguments::Unavailable;
    };
    if text.len() as u64 == ARGUMENTS {
        // A part of an argument is compared with nothing.
        let end = text.iter().rposition(|&byte| byte == 0).map_or(0, |last| last + 1);
        text.truncate(end);
    }
    Arguments::Read(text.into())
}

/// Examines the executable of a process, and its arguments with `wants_arguments`; `raw` is the link
/// that was read before, if any. Can block for as long as the owner of the process likes.
///
/// A file that root may not read, as on a FUSE mount without `allow_other`, does not count as the
/// host's: only rules that compare the path alone match it.
pub fn examine(pid: Pid, raw: Option<&[u8]>, wants_arguments: bool) -> Examined {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let mut dir = process.clone();
    let mut link = read_link(&dir.join("exe"));
    if link.as_ref().is_err_and(is_absence) {
        // The leader may have exited before the other threads.
        let Some(thread) = live_thread(pid) else { return Examined::Gone };
        dir = process.join(format!("task/{thread}"));
        link = read_link(&dir.join("exe"));
    }
    let link = match link {
        Ok(link) => link.into_os_string().into_vec(),
        Err(error) if is_absence(&error) => return Examined::Gone,
        Err(_) => return Examined::Unreadable,
    };
    if raw.is_some_and(|raw| raw != link) {
        return Examined::Changed;
    }
    let arguments = if wants_arguments { arguments(&dir) } else { Arguments::Unread };
    Examined::Program(Program { arguments, ..examine_in(&dir, link) })
}

/// Reads a link, again if the kernel lacks memory or descriptors for an instant: up to 50 ms.
fn read_link(path: &Path) -> io::Result<PathBuf> {
    let mut link = fs::read_link(path);
    for _ in 0..5 {
        if !link.as_ref().is_err_and(|error| can_pass(errno_of(error))) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        link = fs::read_link(path);
    }
    link
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// Returns a live thread other than the leader, if the leader has exited.
fn live_thread(pid: Pid) -> Option<Pid> {
    let mut proc = ProcFs::open(Path::new("/proc")).ok()?;
    let handle = proc.open_process(pid)?;
    if proc.status(pid).is_some_and(|own| own.is_kernel_thread) || !proc.has_leader_exited(pid) {
        return None;
    }
    proc.stand_in(pid, handle)?.thread
}

fn examine_in(dir: &Path, raw: Vec<u8>) -> Program {
    let Ok(file) = fs::metadata(dir.join("exe")) else {
        let path = raw.clone().into();
        let raw = raw.into();
        return Program { is_unreadable: true, ..Program::elsewhere(raw, path) };
    };
    if let Some(path) = memfd_path(&raw) {
        let path = path.into();
        let raw = raw.into();
        return Program::elsewhere(raw, path);
    }
    let mounts = fs::read_link(dir.join("ns/mnt")).ok();
    let [is_ours, is_first] = ["/proc/self/ns/mnt", "/proc/1/ns/mnt"]
        .map(|host| mounts.is_some() && fs::read_link(host).ok() == mounts);
    // A file with a real name that ends in ` (deleted)` exists at that path.
    let path = match raw.strip_suffix(DELETED) {
        Some(path) if !is_same_file(&file, Path::new(OsStr::from_bytes(&raw))) => path,
        _ => &raw,
    };
    let on_host = is_ours || is_first || is_same_file(&file, Path::new(OsStr::from_bytes(path)));
    // Its paths refer to the same files as on the host only if it shares the host's mounts and root
    // directory.
    let shares_root = fs::read_link(dir.join("root")).is_ok_and(|root| root == Path::new("/"));
    // Not through the root of the process itself, which it may change meanwhile.
    let view = if is_first && !is_ours { "/proc/1/root" } else { "/" };
    let invoked =
        if on_host && shares_root { invoked(dir, Path::new(view), path, &file) } else { None };
    Program {
        path: path.into(),
        on_host,
        is_unreadable: false,
        invoked: invoked.map(|path| path.into_os_string().into_vec().into()),
        raw: raw.into(),
        arguments: Arguments::Unread,
    }
}

fn is_same_file(file: &fs::Metadata, path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|other| (other.dev(), other.ino()) == (file.dev(), file.ino()))
}

/// Returns the path of the invoked file, if it is a symbolic link to the executable or a script: that
/// which an argument names, else a link of a standard directory with the name of the process. `view` is the root through which the host's files are visible: a service may have a
/// private /tmp.
fn invoked(dir: &Path, view: &Path, exe: &[u8], file: &fs::Metadata) -> Option<PathBuf> {
    // The process can set both its arguments and its `comm`, so neither is sufficient alone.
    let comm = read_bounded(&dir.join("comm"), 64)?;
    let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
    let arguments = read_bounded(&dir.join("cmdline"), ARGUMENTS)?;
    let arguments: Vec<&[u8]> = arguments.split(|&byte| byte == 0).collect();
    let named = arguments.iter().find(|argument| kept(base_name(argument)) == comm);
    // For an interpreter started by its own name: the first argument that is not an option.
    let first = arguments.iter().skip(1).find(|argument| !argument.starts_with(b"-"));
    let argument = [named, first].into_iter().flatten().find_map(|argument| {
        let path = absolute(dir, argument)?;
        let seen = view.join(path.strip_prefix("/").unwrap_or(&path));
        let is_other_name = path.as_os_str().as_bytes() != exe && is_same_file(file, &seen);
        (is_other_name || is_script(&seen)).then_some(path)
    });
    let name = named.map_or(comm, |argument| base_name(argument));
    argument.or_else(|| standard_link(view, name, exe, file))
}

/// Returns the link to the executable that a shell finds in `PATH` by this name. The name alone proves nothing, because
/// a process can choose it; but its user could have executed the link as well.
fn standard_link(view: &Path, name: &[u8], exe: &[u8], file: &fs::Metadata) -> Option<PathBuf> {
    if name == base_name(exe) || name.is_empty() {
        return None;
    }
    let mut paths = STANDARD_DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(OsStr::from_bytes(name)));
    paths.find(|path| is_same_file(file, &view.join(path.strip_prefix("/").unwrap_or(path))))
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
    // A path that is not accessible is normalised without resolving links.
    Some(fs::canonicalize(&path).unwrap_or_else(|_| path.components().collect()))
}

fn read_bounded(path: &Path, bound: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(bound).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nix::errno::Errno;

    use super::*;
    use crate::config::{cgrules_conf, rules_toml};
    use crate::event::{Gid, Nanos, Uid};
    use crate::policy::User;
    use crate::rules::matcher::Matcher;
    use crate::rules::names::UserIdentity;
    use crate::rules::{Facts, Rule};

    /// Returns the line of the first matching rule.
    fn decided(rules: Vec<Rule>, seen: Option<&ExeInfo<'_>>) -> Option<u32> {
        let matcher = Matcher::compile(rules.into());
        let root = UserIdentity::nameless(Uid(0));
        let user = User::new(&matcher, root, Nanos(0));
        let exe = seen.map(|seen| seen.exe);
        let facts = Facts { uid: Uid(0), gid: Gid(0), exe, invoked: None };
        let id = matcher.decide(&user.plan, &facts)?;
        matcher.rule(id).map(|rule| rule.origin.line)
    }

    #[test]
    fn an_argument_that_is_not_read_as_a_whole_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let long = "x".repeat(ARGUMENTS as usize);
        for (text, read) in [
            (format!("tool\0-a\0{long}\0"), "tool\0-a\0"),
            (format!("tool\0{}\0-a\0", &long[6..]), &*format!("tool\0{}\0", &long[6..])),
            (long.clone(), ""),
            ("tool -a".to_owned(), "tool -a"),
            (String::new(), ""),
        ] {
            fs::write(directory.path().join("cmdline"), &text).unwrap();
            let found = arguments(directory.path());
            assert_eq!(found, Arguments::Read(read.as_bytes().into()), "{}", text.len());
        }
        assert_eq!(arguments(&directory.path().join("none")), Arguments::Unavailable);
    }

    #[test]
    fn a_kernel_thread_has_its_name_for_rules_that_compare_the_path_alone() {
        fn legacy(text: &str) -> Vec<Rule> {
            let parsed = cgrules_conf::parse(&Arc::from(Path::new("/a")), text);
            parsed.rules.into_iter().map(|written| written.rule).collect()
        }
        fn toml(more: &str) -> Vec<Rule> {
            let text = format!("version = 1\n[[rule]]\nexe = \"kswapd0\"\n{more}ignore = true\n");
            let parsed = rules_toml::parse(&Arc::from(Path::new("/a.toml")), &text);
            assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
            parsed.rules.into_iter().map(|written| written.rule).collect()
        }
        let seen = ExeInfo::kernel_thread(b"kswapd0");
        let rules = "*:/opt/* cpu x\n*:kswapd cpu x\n*:kswapd0 cpu a\n";
        assert_eq!(decided(legacy(rules), Some(&seen)), Some(3));
        assert_eq!(decided(legacy("*:kswap* cpu b\n"), Some(&seen)), Some(1));
        assert_eq!(decided(toml(""), Some(&seen)), None);
        assert_eq!(decided(toml("exe_anywhere = true\n"), Some(&seen)), Some(3));
    }

    #[test]
    fn our_own_executable_is_read() {
        let proc = ProcFs::open(Path::new("/proc")).unwrap();
        let reader = ExeReader::new(&proc).unwrap();
        let pid = Pid::new(std::process::id()).unwrap();
        let mut read = ExeRead::default();
        assert_eq!(read.link(), Err(Errno::ESRCH));
        reader.read(ReadRequest { pid, thread: Some(pid), namespaces: false }, &mut read);
        let own = std::env::current_exe().unwrap();
        let own = own.as_os_str().as_bytes();
        assert_eq!(read.link(), Ok(own));
        let comm = kept(base_name(own));
        assert!(read.seen(Some(comm)).is_some_and(|seen| !seen.is_unsure && seen.exe.on_host));
        assert!(read.seen(Some(b"another")).is_some_and(|seen| seen.is_unsure));
        let Examined::Program(program) = examine(pid, Some(own), true) else { panic!() };
        assert_eq!((&*program.raw, program.on_host), (own, true));
        let arguments = fs::read("/proc/self/cmdline").unwrap();
        assert_eq!(program.arguments, Arguments::Read(arguments.into()));
        assert_eq!(examine(pid, Some(b"/another"), false), Examined::Changed);
    }

    #[test]
    fn an_executable_in_memory_is_on_no_path_of_the_host() {
        assert_eq!(
            memfd_path(b"/memfd:/usr/sbin/php-fpm (deleted)"),
            Some(&b"/memfd:/usr/sbin/php-fpm"[..])
        );
        assert_eq!(memfd_path(b"/memfd:a (deleted) (deleted)"), Some(&b"/memfd:a (deleted)"[..]));
        assert_eq!(memfd_path(b"/memfd:a"), None);
        assert_eq!(memfd_path(b"/usr/memfd:a (deleted)"), None);
    }

    #[test]
    fn a_process_that_exited_is_gone() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = Pid::new(child.id()).unwrap();
        while !matches!(examine(pid, None, true), Examined::Gone) {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.wait().unwrap();
        assert_eq!(examine(pid, None, true), Examined::Gone);
    }
}
