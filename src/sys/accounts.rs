//! Lookups in the name service with buffers for groups of any realistic size.
//!
//! The functions of nix stop at 1 MiB, which a group with 60,000 members exceeds: it needs 20 bytes
//! for each member with a name of 11 bytes.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use nix::errno::Errno;

/// Initial size of the buffer: enough for a user, and for a group with some hundred members.
const FIRST_BUFFER: usize = 16 << 10;
/// Maximum size of the buffer: three million members with a name of 11 bytes.
const MAX_BUFFER: usize = 64 << 20;

/// A user of the name service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserEntry {
    /// Name of the user.
    pub name: String,
    /// User ID.
    pub uid: u32,
    /// ID of the group that the user logs in with.
    pub gid: u32,
}

/// A group of the name service, without its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupEntry {
    /// Name of the group.
    pub name: String,
    /// Group ID.
    pub gid: u32,
}

/// Returns the user with this name.
///
/// # Errors
/// As getpwnam_r(3); a user that does not exist is no error.
pub fn user_by_name(name: &str) -> io::Result<Option<UserEntry>> {
    // No name contains a zero byte.
    let Ok(name) = CString::new(name) else { return Ok(None) };
    user(|entry, buffer, found| {
        // SAFETY: `name` is a C string; the other arguments are those of `look_up`.
        unsafe { libc::getpwnam_r(name.as_ptr(), entry, buffer.as_mut_ptr(), buffer.len(), found) }
    })
}

/// Returns the user with this ID.
///
/// # Errors
/// As getpwuid_r(3), and if the user that it returns has another ID; an ID without a user is no error.
pub fn user_by_uid(uid: u32) -> io::Result<Option<UserEntry>> {
    let found = user(|entry, buffer, found| {
        // SAFETY: the arguments are those of `look_up`.
        unsafe { libc::getpwuid_r(uid, entry, buffer.as_mut_ptr(), buffer.len(), found) }
    })?;
    match found {
        Some(other) if other.uid != uid => {
            Err(io::Error::other(format!("it returned the user with uid {}", other.uid)))
        }
        found => Ok(found),
    }
}

/// Returns the group with this name.
///
/// # Errors
/// As getgrnam_r(3); a group that does not exist is no error.
pub fn group_by_name(name: &str) -> io::Result<Option<GroupEntry>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    look_up(
        |entry, buffer, found| {
            // SAFETY: `name` is a C string; the other arguments are those of `look_up`.
            unsafe {
                libc::getgrnam_r(name.as_ptr(), entry, buffer.as_mut_ptr(), buffer.len(), found)
            }
        },
        group_entry,
    )
}

/// Returns the group with this ID.
///
/// # Errors
/// As getgrgid_r(3); an ID without a group is no error.
pub fn group_by_gid(gid: u32) -> io::Result<Option<GroupEntry>> {
    with_group(gid, group_entry)
}

/// Checks whether the group with this ID lists the user as a member.
///
/// # Errors
/// As getgrgid_r(3); an ID without a group is no error.
pub fn group_lists(gid: u32, user: &str) -> io::Result<bool> {
    let lists = with_group(gid, |group| has_member(group, user.as_bytes()))?;
    Ok(lists.unwrap_or(false))
}

fn user(
    ask: impl Fn(*mut libc::passwd, &mut [libc::c_char], *mut *mut libc::passwd) -> libc::c_int,
) -> io::Result<Option<UserEntry>> {
    look_up(ask, |user| UserEntry { name: text(user.pw_name), uid: user.pw_uid, gid: user.pw_gid })
}

fn with_group<T>(gid: u32, read: impl Fn(&libc::group) -> T) -> io::Result<Option<T>> {
    let found = look_up(
        |entry, buffer, found| {
            // SAFETY: the arguments are those of `look_up`.
            unsafe { libc::getgrgid_r(gid, entry, buffer.as_mut_ptr(), buffer.len(), found) }
        },
        |group| (group.gr_gid, read(group)),
    )?;
    match found {
        Some((other, _)) if other != gid => {
            Err(io::Error::other(format!("it returned the group with gid {other}")))
        }
        found => Ok(found.map(|(_, read)| read)),
    }
}

/// Calls `ask` with a buffer that grows until the entry fits, and returns what `read` takes from
/// the entry. `ask` returns 0 or an error number; it stores the address of the entry, or null if
/// there is none.
fn look_up<E, T>(
    ask: impl Fn(*mut E, &mut [libc::c_char], *mut *mut E) -> libc::c_int,
    read: impl Fn(&E) -> T,
) -> io::Result<Option<T>> {
    let mut size = FIRST_BUFFER;
    loop {
        let mut buffer: Vec<libc::c_char> = vec![0; size];
        let mut entry = MaybeUninit::<E>::uninit();
        let mut found: *mut E = ptr::null_mut();
        match ask(entry.as_mut_ptr(), &mut buffer, &raw mut found) {
            0 => {
                // SAFETY: without an error it is null, or the address of `entry`, whose pointers
                // lead into `buffer`; both live until `read` returns.
                return Ok(unsafe { found.as_ref() }.map(read));
            }
            libc::ERANGE if size < MAX_BUFFER => size = (size * 2).min(MAX_BUFFER),
            libc::EINTR => {}
            // POSIX allows any of these for an entry that does not exist.
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
            error => return Err(Errno::from_raw(error).into()),
        }
    }
}

fn group_entry(group: &libc::group) -> GroupEntry {
    GroupEntry { name: text(group.gr_name), gid: group.gr_gid }
}

fn has_member(group: &libc::group, user: &[u8]) -> bool {
    let mut next = group.gr_mem;
    while !next.is_null() {
        // SAFETY: `gr_mem` is an array of pointers that ends with a null pointer.
        let member = unsafe { *next };
        if member.is_null() {
            break;
        }
        // SAFETY: the other pointers are those of C strings.
        if unsafe { CStr::from_ptr(member) }.to_bytes() == user {
            return true;
        }
        // SAFETY: the null pointer at the end was not reached.
        next = unsafe { next.add(1) };
    }
    false
}

fn text(pointer: *const libc::c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the strings of an entry end with a zero byte.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_id() {
        let root = user_by_uid(0).unwrap().unwrap();
        assert_eq!((root.name.as_str(), root.uid), ("root", 0));
        assert_eq!(user_by_name("root").unwrap(), Some(root));
        let group = group_by_gid(0).unwrap().unwrap();
        assert_eq!(group_by_name(&group.name).unwrap(), Some(group));
    }

    #[test]
    fn what_does_not_exist_is_no_error() {
        for name in ["no such name", "", "a\0b", "a:b", "$x", "CORP\\alice"] {
            assert_eq!(user_by_name(name).unwrap(), None, "{name:?}");
            assert_eq!(group_by_name(name).unwrap(), None, "{name:?}");
        }
        assert_eq!(user_by_uid(61_999).unwrap(), None);
        assert_eq!(group_by_gid(61_999).unwrap(), None);
        assert!(!group_lists(61_999, "root").unwrap());
        assert!(!group_lists(0, "no such user").unwrap());
    }

    /// A lookup that needs a buffer of this size.
    fn with_entry_of(size: usize) -> io::Result<Option<usize>> {
        look_up(
            |entry: *mut usize, buffer, found| {
                if buffer.len() < size {
                    return libc::ERANGE;
                }
                // SAFETY: this is the valid pointer of `look_up`.
                unsafe { entry.write(buffer.len()) };
                // SAFETY: so is this.
                unsafe { found.write(entry) };
                0
            },
            |entry| *entry,
        )
    }

    #[test]
    fn the_buffer_grows_up_to_its_bound() {
        assert_eq!(with_entry_of(1).unwrap(), Some(FIRST_BUFFER));
        assert_eq!(with_entry_of(1_500_000).unwrap(), Some(2 << 20));
        assert_eq!(with_entry_of(MAX_BUFFER).unwrap(), Some(MAX_BUFFER));
        let error = with_entry_of(MAX_BUFFER + 1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ERANGE));
    }
}
