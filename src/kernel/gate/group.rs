//! A fanotify group that is used by several threads and closed by one of them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::sys::fanotify::{self, ExecGroup, WaitingExec};

/// Fanotify group, until it is closed. The reading thread alone closes it, so no other lock is held for longer than a
/// system call that does not wait.
#[derive(Debug)]
pub(super) struct Group(RwLock<Option<ExecGroup>>);

impl Group {
    /// Creates a group without marks.
    ///
    /// # Errors
    /// As [`fanotify::init`].
    pub(super) fn create() -> io::Result<Self> {
        Ok(Self(RwLock::new(Some(fanotify::init()?))))
    }

    fn open(&self) -> RwLockReadGuard<'_, Option<ExecGroup>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks whether the group was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.open().is_none()
    }

    /// Passes the descriptor to `act`, for the thread that closes the group.
    pub(super) fn with_fd<T>(&self, act: impl FnOnce(Option<BorrowedFd<'_>>) -> T) -> T {
        act(self.open().as_ref().map(ExecGroup::as_fd))
    }

    /// Lets executions of an open file wait. A closed group accepts it without effect.
    ///
    /// # Errors
    /// As [`ExecGroup::mark`].
    pub(super) fn mark(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        self.open().as_ref().map_or(Ok(()), |group| group.mark(file))
    }

    /// Lets no execution wait from now on.
    ///
    /// # Errors
    /// As [`ExecGroup::unmark_all`].
    pub(super) fn unmark_all(&self) -> io::Result<()> {
        self.open().as_ref().map_or(Ok(()), ExecGroup::unmark_all)
    }

    /// Reads the next execution that waits.
    ///
    /// # Errors
    /// As [`ExecGroup::read`].
    pub(super) fn read(&self) -> io::Result<Option<WaitingExec>> {
        self.open().as_ref().map_or(Ok(None), ExecGroup::read)
    }

    /// Lets an execution go on. `false` if it did already.
    pub(super) fn allow(&self, file: BorrowedFd<'_>) -> bool {
        self.open().as_ref().is_some_and(|group| group.allow(file).is_ok())
    }

    /// Closes the group, so that all its executions go on. Returns when they have: after 4 to 30 ms.
    pub(super) fn close(&self) {
        let group = self.0.write().unwrap_or_else(PoisonError::into_inner).take();
        // Outside of the lock, for which the hot thread would wait.
        drop(group);
    }
}
