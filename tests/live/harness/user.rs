//! Defines the users and groups under test. They exist only in the mount namespace of the test.

/// UID of `cgt-alice`, a member of [`TEAM`].
pub(crate) const ALICE: u32 = 61_701;
pub(crate) const BOB: u32 = 61_702;
pub(crate) const CAROL: u32 = 61_703;
/// A UID without a name.
pub(crate) const NAMELESS: u32 = 61_750;
/// UID of the processes of [`super::Live::fence`].
pub(crate) const FENCE: u32 = 61_799;
/// First of the 65,536 subordinate UIDs of `cgt-alice`.
pub(crate) const SUBORDINATE: u32 = 617_000_000;
/// GID of `cgt-team`, which has alice as a member and is not the primary group of any user.
pub(crate) const TEAM: u32 = 61_710;

/// GID of `cgruled`, the group that may query the daemon; not the primary group of any user.
pub(crate) const READERS: u32 = 61_720;

/// Returns the lines for `/etc/passwd`.
pub(super) fn passwd() -> String {
    [("cgt-alice", ALICE), ("cgt-bob", BOB), ("cgt-carol", CAROL), ("cgt-fence", FENCE)]
        .map(|(name, id)| passwd_line(name, id))
        .concat()
}

/// Returns one line for `/etc/passwd`.
pub(crate) fn passwd_line(name: &str, id: u32) -> String {
    format!("{name}:x:{id}:{id}::/nonexistent:/bin/false\n")
}

/// Returns the lines for `/etc/group`.
pub(super) fn group() -> String {
    format!(
        "cgt-alice:x:{ALICE}:\ncgt-bob:x:{BOB}:\ncgt-carol:x:{CAROL}:\ncgt-team:x:{TEAM}:cgt-alice\ncgruled:x:{READERS}:\n"
    )
}

/// Returns the lines for `/etc/subuid`.
pub(super) fn subuid() -> String {
    format!("cgt-alice:{SUBORDINATE}:65536\n")
}
