//! Checks the files of gated rules. It must accept a file only if root alone decides which file the path names and what
//! it contains, and if the kernel reads it without the help of another process or host.
//!
//! A user who can replace a part of the path could have any file gated, such as a shell, and so delay each execution of
//! it by all users. A file system in user space could block the thread that opens the file for its mark.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statfs::{Statfs, fstatfs, statfs};
use nix::unistd::geteuid;

use crate::config::rules_toml::{GatedPath, WrittenRule};
use crate::config::source_text::Diagnostics;
use crate::event::Uid;
use crate::sys::checked_path::open_checked;

/// Time for the files of one rule file: a directory can be on a network file system that does not respond.
const PATIENCE: Duration = Duration::from_secs(1);
const GROUP_WRITE: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// File systems whose files come from another process or host, by the type that statfs(2) reports.
const NOT_LOCAL: [(u32, &str); 11] = [
    (0x6573_5546, "FUSE"),
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0x517b, "SMB"),
    (0xfe53_4d42, "SMB"),
    (0x0102_1997, "9p"),
    (0x5346_414f, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x0187, "autofs"),
];

/// The kind of a component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ComponentKind {
    Directory,
    /// A symbolic link, with the file that it leads to, if that exists.
    Link(Option<PathBuf>),
    Regular,
    /// A device, a FIFO or a socket.
    Special,
}

/// A directory or symbolic link on the way to a gated file, or the file itself.
#[derive(Clone, Debug)]
struct PathComponent {
    path: PathBuf,
    kind: ComponentKind,
    uid: Uid,
    mode: u32,
    /// The type of its file system; `None` for a link, which counts as a part of its directory.
    filesystem: Option<u32>,
}

/// The reason why executions of a file cannot wait, with a fix.
#[derive(Clone, Debug, PartialEq, Eq)]
struct GateRefusal {
    /// The end of a message, with the component as its subject.
    message: String,
    help: String,
}

/// The result of the check of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum GateCheck {
    /// Executions of the file can wait.
    Suitable,
    /// The file, or a directory on the way to it, does not exist.
    Missing,
    /// The user who runs this program, who is not root, may not look.
    Hidden,
    Refused(GateRefusal),
}

/// The checked files of gated rules.
#[derive(Debug, Default)]
pub(super) struct GatedFiles(HashMap<Vec<u8>, GateCheck>);

impl GatedFiles {
    /// Removes the gated rules with files of which executions cannot wait, and reports each such file. Links and files
    /// must belong to root or `owner`.
    pub(super) fn check(
        &mut self,
        rules: &mut Vec<WrittenRule>,
        owner: Uid,
        report: &mut Diagnostics<'_>,
    ) {
        let gated = rules.iter().flat_map(|written| &written.gated);
        let mut new: Vec<Vec<u8>> = gated.map(|file| file.path.clone()).collect();
        new.sort_unstable();
        new.dedup();
        new.retain(|path| !self.0.contains_key(path));
        self.examine_all(new, owner);
        rules.retain(|written| {
            // Each is reported, not only the first.
            let refused = written.gated.iter().filter(|file| !self.accepts(file, report));
            refused.count() == 0
        });
    }

    /// Checks whether executions of a file can wait, or will when it is installed. Reports the reason if not.
    fn accepts(&self, file: &GatedPath, report: &mut Diagnostics<'_>) -> bool {
        let path = String::from_utf8_lossy(&file.path);
        match self.0.get(&file.path) {
            None | Some(GateCheck::Suitable) => true,
            Some(GateCheck::Missing) => {
                let message = format!("gated file {path} does not exist");
                let help =
                    "correct the path, unless it is installed later: then its executions wait";
                report.warning(Some(file.span.clone()), message, help);
                true
            }
            Some(GateCheck::Hidden) => {
                let message = format!("gated file {path} cannot be checked: permission denied");
                report.warning(Some(file.span.clone()), message, "run the check as root");
                true
            }
            Some(GateCheck::Refused(GateRefusal { message, help })) => {
                let message = format!("{path} cannot be gated: {message}");
                report.error_help(file.span.clone(), message, help.clone());
                false
            }
        }
    }

    /// Examines files on another thread, which is left behind if one does not respond.
    fn examine_all(&mut self, paths: Vec<Vec<u8>>, owner: Uid) {
        if paths.is_empty() {
            return;
        }
        let until = Instant::now() + PATIENCE;
        let (sender, examined) = mpsc::channel();
        let asked = paths.clone();
        let started = thread::Builder::new().name("gated files".into()).spawn(move || {
            for path in asked {
                let check = examine(Path::new("/"), Path::new(OsStr::from_bytes(&path)), owner);
                // The receiver is gone after the time limit.
                if sender.send((path, check)).is_err() {
                    return;
                }
            }
        });
        if let Err(error) = started {
            ::log::error!("cannot start a thread to check the files of gated rules: {error}");
        }
        for path in paths {
            let left = until.saturating_duration_since(Instant::now());
            let check = match examined.recv_timeout(left) {
                // The thread examines them in this order.
                Ok((_, check)) => check,
                Err(_) => GateCheck::Refused(GateRefusal {
                    message: format!("it was not examined within {} s", PATIENCE.as_secs()),
                    help: "move the file to a local file system, or remove gate".to_owned(),
                }),
            };
            self.0.insert(path, check);
        }
    }
}

/// The end of a walk to a file.
enum WalkEnd {
    Refused(GateRefusal),
    Failed(Errno),
}

impl From<Errno> for WalkEnd {
    fn from(error: Errno) -> Self {
        Self::Failed(error)
    }
}

/// Examines a file and each component of its path; a relative path begins in `base`. It may wait for a file system.
fn examine(base: &Path, path: &Path, owner: Uid) -> GateCheck {
    match walk(base, path, owner) {
        Ok(()) => GateCheck::Suitable,
        Err(WalkEnd::Refused(refusal)) => GateCheck::Refused(refusal),
        Err(WalkEnd::Failed(Errno::ENOENT | Errno::ENOTDIR)) => GateCheck::Missing,
        Err(WalkEnd::Failed(Errno::EACCES)) if !geteuid().is_root() => GateCheck::Hidden,
        Err(WalkEnd::Failed(error)) => GateCheck::Refused(GateRefusal {
            message: format!("it cannot be examined: {}", error.desc()),
            help: "remove gate".to_owned(),
        }),
    }
}

fn walk(base: &Path, path: &Path, owner: Uid) -> Result<(), WalkEnd> {
    let start = File::open(base).map_err(|error| crate::sys::errno(&error))?;
    // Neither reads the file nor waits, also for a FIFO or a device.
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    let accept = |component: &PathComponent, is_file| match refusal(component, is_file, owner) {
        Some(refusal) => Err(WalkEnd::Refused(refusal)),
        None => Ok(()),
    };
    let file = open_checked(start, path, (flags, Mode::empty()), |way, stat| {
        let way = base.join(way);
        let mut component = component(way, stat);
        if component.kind == ComponentKind::Directory {
            // By its path, which only root can change as far as the walk has come.
            component.filesystem = Some(filesystem(statfs(&component.path)?));
        }
        accept(&component, false)
    })?;
    let mut component = component(base.join(path), &fstat(&file)?);
    match &mut component.kind {
        ComponentKind::Link(target) => *target = fs::canonicalize(&component.path).ok(),
        ComponentKind::Directory | ComponentKind::Regular | ComponentKind::Special => {
            component.filesystem = Some(filesystem(fstatfs(&file)?));
        }
    }
    accept(&component, true)
}

fn component(path: PathBuf, stat: &FileStat) -> PathComponent {
    let format = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let kind = if format == SFlag::S_IFDIR {
        ComponentKind::Directory
    } else if format == SFlag::S_IFLNK {
        ComponentKind::Link(None)
    } else if format == SFlag::S_IFREG {
        ComponentKind::Regular
    } else {
        ComponentKind::Special
    };
    PathComponent { path, kind, uid: Uid(stat.st_uid), mode: stat.st_mode, filesystem: None }
}

/// Returns the type of a file system. All known types have 32 bits; the field differs between architectures.
fn filesystem(found: Statfs) -> u32 {
    u32::try_from(found.filesystem_type().0).unwrap_or(u32::MAX)
}

/// Decides whether a component of the path of a gated file, or the file itself, can be used. All must belong to root or
/// `owner`, and no other user may write them. Unlike for rule files a sticky directory is not enough, because another
/// user could create the file before it is installed.
fn refusal(component: &PathComponent, is_file: bool, owner: Uid) -> Option<GateRefusal> {
    let PathComponent { path, kind, uid, mode, filesystem } = component;
    let path = path.display();
    // The message begins with the path of the file.
    let subject = if is_file { "it".to_owned() } else { path.to_string() };
    let refused = |message: String, help: String| Some(GateRefusal { message, help });
    match (kind, is_file) {
        (ComponentKind::Link(Some(target)), true) => {
            let help = format!("write the file that it leads to: {}", target.display());
            return refused("it is a symbolic link".to_owned(), help);
        }
        (ComponentKind::Link(None), true) => {
            let help = "write the file that it is to lead to".to_owned();
            return refused("it is a symbolic link to a file that does not exist".to_owned(), help);
        }
        (ComponentKind::Directory | ComponentKind::Special, true) => {
            return refused(
                "it is not a regular file".to_owned(),
                "write the path of a program".to_owned(),
            );
        }
        (ComponentKind::Regular, true) | (_, false) => {}
    }
    if *uid != Uid(0) && *uid != owner {
        let message = format!("{subject} is owned by user {}, not by root", uid.0);
        return refused(message, format!("review it, then run 'chown root {path}'"));
    }
    // The permissions of a link mean nothing.
    let writers = match mode & (GROUP_WRITE | OTHERS_WRITE) {
        0 => None,
        _ if matches!(kind, ComponentKind::Link(_)) => None,
        GROUP_WRITE => Some("its group"),
        _ => Some("all users"),
    };
    if let Some(writers) = writers {
        let message = format!("{subject} is writable by {writers}");
        // A directory such as /tmp is meant to be writable.
        let help = match mode & STICKY {
            0 => format!("review it, then run 'chmod go-w {path}'"),
            _ => "move the file to a directory of root, or remove gate".to_owned(),
        };
        return refused(message, help);
    }
    let name = NOT_LOCAL.iter().find(|(known, _)| Some(*known) == *filesystem)?.1;
    let message = format!("{subject} is on a file system that is not local ({name})");
    refused(message, "move the file to a local file system, or remove gate".to_owned())
}

impl fmt::Display for GateRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::Arc;

    use super::*;
    use crate::config::rules_toml;
    use crate::config::source_text::SourceText;

    const EXT4: u32 = 0xef53;
    const OVERLAY: u32 = 0x794c_7630;

    fn directory(uid: u32, mode: u32) -> PathComponent {
        let kind = ComponentKind::Directory;
        let path = PathBuf::from("/opt");
        PathComponent { path, kind, uid: Uid(uid), mode, filesystem: Some(EXT4) }
    }

    fn file(uid: u32, mode: u32) -> PathComponent {
        PathComponent { kind: ComponentKind::Regular, ..directory(uid, mode) }
    }

    fn message(component: &PathComponent, is_file: bool) -> Option<String> {
        refusal(component, is_file, Uid(0)).map(|refusal| refusal.to_string())
    }

    #[test]
    fn root_alone_may_write_each_component() {
        for is_file in [false, true] {
            let of = |uid, mode| {
                let component = if is_file { file(uid, mode) } else { directory(uid, mode) };
                message(&component, is_file)
            };
            assert_eq!(of(0, 0o755), None);
            assert_eq!(of(0, 0o4755), None);
            let subject = if is_file { "it" } else { "/opt" };
            for (uid, mode, expected) in [
                (7, 0o755, "is owned by user 7, not by root"),
                (0, 0o775, "is writable by its group"),
                (0, 0o757, "is writable by all users"),
                (0, 0o1777, "is writable by all users"),
            ] {
                assert_eq!(of(uid, mode).unwrap(), format!("{subject} {expected}"));
            }
        }
        let own = refusal(&file(7, 0o755), true, Uid(7));
        assert_eq!(own, None, "the owner of the rule files, in tests");
    }

    #[test]
    fn a_link_may_be_a_directory_and_not_the_file() {
        let link = |uid, target: Option<&str>| PathComponent {
            kind: ComponentKind::Link(target.map(PathBuf::from)),
            filesystem: None,
            ..directory(uid, 0o777)
        };
        assert_eq!(message(&link(0, None), false), None);
        assert_eq!(message(&link(7, None), false).unwrap(), "/opt is owned by user 7, not by root");
        let refused = refusal(&link(0, Some("/usr/bin/php8.2")), true, Uid(0)).unwrap();
        assert_eq!(refused.message, "it is a symbolic link");
        assert_eq!(refused.help, "write the file that it leads to: /usr/bin/php8.2");
        assert!(refusal(&link(0, None), true, Uid(0)).is_some());
    }

    #[test]
    fn the_file_must_be_regular() {
        for kind in [ComponentKind::Directory, ComponentKind::Special] {
            let component = PathComponent { kind, ..file(0, 0o755) };
            assert_eq!(message(&component, true).unwrap(), "it is not a regular file");
        }
    }

    #[test]
    fn the_file_system_must_be_local() {
        for (filesystem, name) in NOT_LOCAL {
            for is_file in [false, true] {
                let kind = if is_file { ComponentKind::Regular } else { ComponentKind::Directory };
                let component =
                    PathComponent { kind, filesystem: Some(filesystem), ..directory(0, 0o755) };
                let found = message(&component, is_file).unwrap();
                assert!(found.ends_with(&format!("({name})")), "{found}");
            }
        }
        let overlay = PathComponent { filesystem: Some(OVERLAY), ..file(0, 0o755) };
        assert_eq!(message(&overlay, true), None);
    }

    /// A tree of the user who runs the test; above it are directories of others.
    fn tree() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for made in ["usr/bin", "open"] {
            fs::create_dir_all(root.join(made)).unwrap();
        }
        for made in ["usr", "usr/bin"] {
            fs::set_permissions(root.join(made), Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(root.join("open"), Permissions::from_mode(0o1777)).unwrap();
        for made in ["usr/bin/tool", "open/tool"] {
            fs::write(root.join(made), "").unwrap();
            fs::set_permissions(root.join(made), Permissions::from_mode(0o755)).unwrap();
        }
        symlink("usr/bin", root.join("bin")).unwrap();
        symlink("tool", root.join("usr/bin/link")).unwrap();
        symlink("none", root.join("usr/bin/dangling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        nix::unistd::mkfifo(&root.join("usr/bin/fifo"), Mode::S_IRUSR).unwrap();
        directory
    }

    #[test]
    fn files_of_a_tree_are_examined() {
        let tree = tree();
        let owner = Uid(geteuid().as_raw());
        let found = |path: &str| match examine(tree.path(), Path::new(path), owner) {
            GateCheck::Suitable => "suitable".to_owned(),
            GateCheck::Missing => "missing".to_owned(),
            GateCheck::Hidden => "hidden".to_owned(),
            GateCheck::Refused(GateRefusal { message, help }) => {
                let text = format!("{message} ({help})");
                text.replace(tree.path().canonicalize().unwrap().to_str().unwrap(), "ROOT")
                    .replace(tree.path().to_str().unwrap(), "ROOT")
            }
        };
        assert_eq!(found("usr/bin/tool"), "suitable");
        assert_eq!(found("bin/tool"), "suitable", "a link among the directories");
        for missing in ["usr/bin/none", "none/tool", "usr/bin/tool/x"] {
            assert_eq!(found(missing), "missing", "{missing}");
        }
        assert_eq!(
            found("open/tool"),
            "ROOT/open is writable by all users (move the file to a directory of root, or remove gate)"
        );
        fs::set_permissions(tree.path().join("open"), Permissions::from_mode(0o775)).unwrap();
        assert_eq!(
            found("open/tool"),
            "ROOT/open is writable by its group (review it, then run 'chmod go-w ROOT/open')"
        );
        assert_eq!(
            found("bin/link"),
            "it is a symbolic link (write the file that it leads to: ROOT/usr/bin/tool)"
        );
        assert!(found("usr/bin/dangling").starts_with("it is a symbolic link to a file that does"));
        assert!(found("usr/bin/fifo").starts_with("it is not a regular file"));
        assert!(found("usr/bin").starts_with("it is not a regular file"));
        assert!(found("loop/tool").starts_with("it cannot be examined: "));
        let stranger = Uid(owner.0 + 1);
        let strange = examine(tree.path(), Path::new("usr/bin/tool"), stranger);
        let is_of_root = owner == Uid(0);
        assert_eq!(strange == GateCheck::Suitable, is_of_root, "{strange:?}");
    }

    /// Returns the number of rules that stay, and the diagnostics.
    fn checked(rules: &str) -> (usize, Vec<String>) {
        let file = Arc::from(Path::new("/a.toml"));
        let text = format!("version = 1\n{rules}");
        let parsed = rules_toml::parse(&file, &text);
        let source = SourceText::new(&file, &text);
        let mut report = Diagnostics::new(&source);
        let mut rules = parsed.rules;
        GatedFiles::default().check(&mut rules, Uid(0), &mut report);
        let shown = |found: &crate::config::diagnostic::Diagnostic| {
            let place = found.place.as_ref().unwrap();
            format!("{}:{}: {}: {}", place.line, place.column, found.severity, found.message)
        };
        (rules.len(), report.finish().iter().map(shown).collect())
    }

    #[test]
    fn a_rule_with_an_unsuitable_file_is_not_active() {
        let tree = tree();
        let at = tree.path().to_str().unwrap();
        // /tmp is writable by all users.
        let rule = format!("[[rule]]\nexe = \"{at}/usr/bin/tool\"\ncgroup = \"a\"\n");
        assert_eq!(checked(&rule), (1, vec![]));
        let (left, found) = checked(&format!("{rule}gate = true\n{rule}"));
        assert_eq!(left, 1);
        assert!(found[0].starts_with("3:7: error: ") && found.len() == 1, "{found:?}");
        assert_eq!(checked(&format!("{rule}gate = true\nobserve = true\n")), (1, vec![]));
        let missing = "[[rule]]\nexe = [\"/none/a\", \"/none/b\"]\ncgroup = \"a\"\ngate = true\n";
        let expected = [
            "3:8: warning: gated file /none/a does not exist",
            "3:19: warning: gated file /none/b does not exist",
        ];
        assert_eq!(checked(missing), (1, expected.map(str::to_owned).to_vec()));
    }
}
