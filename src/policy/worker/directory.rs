//! The name service as the helper threads see it, so that tests can replace it.

use std::io;

use crate::event::{Gid, Uid};
use crate::rules::names::{UnknownName, UserIdentity};

/// ID that a lookup resolves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LookupKey {
    User(Uid),
    Group(Gid),
}

/// Name service. Called on several threads simultaneously, and may block.
pub trait Directory: Send + Sync + 'static {
    /// Looks up the name of a user and the groups that list it.
    ///
    /// # Errors
    /// The name service failed: nothing is known.
    fn identify(&self, uid: Uid) -> io::Result<UserIdentity>;
    /// Looks up the name of a group.
    ///
    /// # Errors
    /// The name service failed: nothing is known.
    fn group_name(&self, gid: Gid) -> io::Result<Option<Box<str>>>;
    /// Checks whether a user or group of this name exists.
    ///
    /// # Errors
    /// The name service failed: nothing is known.
    fn exists(&self, name: &UnknownName) -> io::Result<bool>;
}
