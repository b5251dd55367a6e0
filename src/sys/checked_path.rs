//! Opens a file by a path of which other users may control a part: each directory and symbolic link on
//! the way is opened, and checked by its descriptor, so that no user can replace it after the check.
#![deny(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

/// The maximum number of symbolic links, as in the kernel.
const MOST_LINKS: usize = 40;
const PART: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Checks whether a file is a symbolic link.
pub fn is_link(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK
}

/// Opens `path` with `flags` and `mode`. `check` is called with each directory and symbolic link on
/// the way, after it was opened; its error ends the walk. A relative path begins in `base`.
///
/// # Errors
/// As openat(2), or the error of `check`.
pub fn open_checked<E: From<Errno>>(
    base: impl AsFd,
    path: &Path,
    (flags, mode): (OFlag, Mode),
    mut check: impl FnMut(&Path, &FileStat) -> Result<(), E>,
) -> Result<OwnedFd, E> {
    let mut current = openat(base, ".", PART | OFlag::O_DIRECTORY, Mode::empty())?;
    let mut so_far = PathBuf::new();
    let mut left: VecDeque<OsString> = parts(path);
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        let is_last = left.is_empty();
        let is_root = part == "/";
        so_far = if is_root { PathBuf::from("/") } else { so_far.join(&part) };
        if is_last && !is_root && part != ".." {
            match openat(&current, &*part, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, mode) {
                Err(Errno::ELOOP) => {}
                opened => return Ok(opened?),
            }
        }
        let next = if is_root {
            open("/", PART | OFlag::O_DIRECTORY, Mode::empty())?
        } else {
            openat(&current, &*part, PART, Mode::empty())?
        };
        let stat = fstat(&next).map_err(E::from)?;
        check(&so_far, &stat)?;
        if is_link(&stat) && fstatfs(&next)?.filesystem_type() == PROC_SUPER_MAGIC {
            // A link such as `/proc/self/fd/2` can lead to a pipe, which its text does not name.
            if is_last {
                return Ok(openat(&current, &*part, flags | OFlag::O_CLOEXEC, mode)?);
            }
            current = openat(&current, &*part, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        } else if is_link(&stat) {
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::ELOOP.into());
            }
            let target = readlinkat(&next, "").map_err(E::from)?;
            for part in parts(Path::new(&target)).into_iter().rev() {
                left.push_front(part);
            }
            so_far.pop();
        } else {
            current = next;
        }
    }
    // The path ends with a directory.
    Ok(openat(&current, ".", flags | OFlag::O_CLOEXEC, mode)?)
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let named = path.components().filter(|part| *part != Component::CurDir);
    named.map(|part| OsStr::to_owned(part.as_os_str())).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;

    use super::*;

    fn read(base: &Path, path: &Path) -> Result<(String, Vec<PathBuf>), Errno> {
        let mut seen = Vec::new();
        let base = File::open(base).unwrap();
        let flags = (OFlag::O_RDONLY, Mode::empty());
        let opened = open_checked(base, path, flags, |path, _| {
            seen.push(path.to_owned());
            Ok::<(), Errno>(())
        })?;
        let mut text = String::new();
        File::from(opened).read_to_string(&mut text).unwrap();
        Ok((text, seen))
    }

    #[test]
    fn each_directory_and_link_on_the_way_is_checked() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "text").unwrap();
        symlink("../a/b/file", root.join("a/relative")).unwrap();
        symlink(root.join("a/relative"), root.join("absolute")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let (text, seen) = read(&root, Path::new("a/b/file")).unwrap();
        assert_eq!((text.as_str(), seen), ("text", vec!["a".into(), "a/b".into()]));
        let (text, seen) = read(&root, Path::new("absolute")).unwrap();
        assert_eq!(text, "text");
        let expected =
            ["", "a", "a/relative", "a/..", "a/../a", "a/../a/b"].map(|end| root.join(end));
        assert_eq!(seen[0], Path::new("absolute"));
        assert!(expected[1..].iter().all(|part| seen.contains(part)), "{seen:?}");
        assert_eq!(read(&root, Path::new("loop")), Err(Errno::ELOOP));
        assert_eq!(read(&root, Path::new("a/none")), Err(Errno::ENOENT));
        assert_eq!(read(&root, Path::new("a/b/file/x")), Err(Errno::ENOTDIR));
    }

    #[test]
    fn a_link_to_a_pipe_is_opened() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        File::from(writer).write_all(b"text").unwrap();
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        assert_eq!(read(Path::new("/"), Path::new(&path)).unwrap().0, "text");
    }
}
