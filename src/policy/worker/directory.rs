//! The name service and the files of container engines as the helper threads see them, so that tests can replace them.

use std::io;

use crate::event::{Gid, Uid};
use crate::rules::container::ContainerKey;
use crate::rules::names::{UnknownName, UserIdentity};

/// Key that a lookup resolves to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LookupKey {
    User(Uid),
    Group(Gid),
    Container(ContainerKey),
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
    /// Reads the name of a container from the files of its engine.
    ///
    /// # Errors
    /// They cannot be read: nothing is known.
    fn container_name(&self, key: ContainerKey) -> io::Result<Option<Box<str>>>;
    /// Checks whether a user or group of this name exists.
    ///
    /// # Errors
    /// The name service failed: nothing is known.
    fn exists(&self, name: &UnknownName) -> io::Result<bool>;
}
