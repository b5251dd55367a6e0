//! Reads many netlink datagrams by one system call.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::{check, netlink_address};
use crate::event::wire::DATAGRAM;

/// Maximum number of datagrams read by one system call.
const AT_ONCE: usize = 64;
/// Number of datagrams up to which a call needs little preparation.
const FEW: usize = 4;
/// Room for one datagram; a longer one is truncated and, by its flag, not trusted.
const SLOT: usize = DATAGRAM.next_multiple_of(16);

/// Buffers for reading many datagrams by one system call.
pub struct Mailbox {
    slots: Box<[[u8; SLOT]; AT_ONCE]>,
    senders: Box<[libc::sockaddr_nl; AT_ONCE]>,
}

/// Received datagram, and whether it is trusted.
pub struct Datagram<'a> {
    /// Bytes of the datagram, as many as fitted.
    pub bytes: &'a [u8],
    /// Set if the kernel itself sent it (port 0, netlink family, whole address), and it is not
    /// truncated.
    pub trusted: bool,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            slots: Box::new([[0; SLOT]; AT_ONCE]),
            senders: Box::new([netlink_address(0); AT_ONCE]),
        }
    }
}

impl Mailbox {
    /// Reads up to `most` datagrams, at most [`Self::CAPACITY`], from `fd` and passes each to
    /// `take`. Never blocks. Returns the number read; fewer than requested means that the socket
    /// was empty.
    ///
    /// # Errors
    /// As recvmmsg(2), but an empty socket is 0. An interrupted call is an error, because the socket may
    /// not be empty.
    pub fn receive(
        &mut self,
        fd: BorrowedFd<'_>,
        most: usize,
        take: impl FnMut(Datagram<'_>),
    ) -> io::Result<usize> {
        // Clearing the headers of all slots takes 100 ns, and usually one datagram is queued.
        if most <= FEW {
            self.receive_into::<FEW>(fd, most, take)
        } else {
            self.receive_into::<AT_ONCE>(fd, most, take)
        }
    }

    fn receive_into<const N: usize>(
        &mut self,
        fd: BorrowedFd<'_>,
        most: usize,
        mut take: impl FnMut(Datagram<'_>),
    ) -> io::Result<usize> {
        // SAFETY: iovec and mmsghdr are plain integers and pointers, for which zero is a value.
        let mut parts: [libc::iovec; N] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; N] = unsafe { zeroed() };
        let most = most.min(N).min(AT_ONCE);
        for (index, header) in headers.iter_mut().enumerate().take(most) {
            parts[index].iov_base = self.slots[index].as_mut_ptr().cast();
            parts[index].iov_len = SLOT;
            header.msg_hdr.msg_iov = &raw mut parts[index];
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = (&raw mut self.senders[index]).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        }
        // SAFETY: the first `most` headers point to live slots, iovecs and addresses of these sizes.
        let received = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                headers.as_mut_ptr(),
                most as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let count = match check(received) {
            Ok(count) => usize::try_from(count).unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        for (index, header) in headers.iter().enumerate().take(count) {
            let sender = &self.senders[index];
            let whole = header.msg_hdr.msg_namelen as usize == size_of::<libc::sockaddr_nl>();
            let trusted = whole
                && i32::from(sender.nl_family) == libc::AF_NETLINK
                && sender.nl_pid == 0
                && header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            let bytes = &self.slots[index][..SLOT.min(header.msg_len as usize)];
            take(Datagram { bytes, trusted });
        }
        Ok(count)
    }

    /// Maximum number of datagrams that one [`Self::receive`] reads.
    pub const CAPACITY: usize = AT_ONCE;
    /// Number of datagrams that it reads with little preparation.
    pub const FEW: usize = FEW;
}
