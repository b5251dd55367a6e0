//! Credentials of the peer of a Unix socket.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

/// Value of asm-generic; libc has no constant for it.
const SO_PEERGROUPS: libc::c_int = 59;
/// Maximum number of groups read; a peer with more is rejected with an error.
const MOST: usize = 1024;

/// Returns the supplementary groups that the peer had when it connected (Linux 4.13).
///
/// # Errors
/// As getsockopt(2): `ERANGE` when there are more than 1024.
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; MOST];
    let mut length = (MOST * size_of::<u32>()) as libc::socklen_t;
    // SAFETY: the pointer and length describe `groups`, which the kernel fills.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    })?;
    groups.truncate(length as usize / size_of::<u32>());
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn our_own_groups_are_those_of_our_peer() {
        let (one, _other) = UnixStream::pair().unwrap();
        let mut ours: Vec<u32> =
            nix::unistd::getgroups().unwrap().iter().map(|gid| gid.as_raw()).collect();
        let mut theirs = peer_groups(one.as_fd()).unwrap();
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(theirs, ours);
    }
}
