//! The users and groups under test. They exist in the test's mount namespace alone.

/// `cgt-alice`, listed in [`TEAM`].
pub(crate) const ALICE: u32 = 61_701;
/// `cgt-bob`.
pub(crate) const BOB: u32 = 61_702;
/// `cgt-carol`.
pub(crate) const CAROL: u32 = 61_703;
/// A user id without a name.
pub(crate) const NAMELESS: u32 = 61_750;
/// Whom [`super::Live::fence`] uses.
pub(crate) const FENCE: u32 = 61_799;
/// `cgt-team`, which lists alice; nobody's own group.
pub(crate) const TEAM: u32 = 61_710;

/// `cgruled`, whose members may ask the daemon; nobody's own group.
pub(crate) const READERS: u32 = 61_720;

/// Lines for `/etc/passwd`.
pub(super) fn passwd() -> String {
    [("cgt-alice", ALICE), ("cgt-bob", BOB), ("cgt-carol", CAROL), ("cgt-fence", FENCE)]
        .map(|(name, id)| passwd_line(name, id))
        .concat()
}

/// One line for `/etc/passwd`.
pub(crate) fn passwd_line(name: &str, id: u32) -> String {
    format!("{name}:x:{id}:{id}::/nonexistent:/bin/false\n")
}

/// Lines for `/etc/group`.
pub(super) fn group() -> String {
    format!(
        "cgt-alice:x:{ALICE}:\ncgt-bob:x:{BOB}:\ncgt-carol:x:{CAROL}:\ncgt-team:x:{TEAM}:cgt-alice\ncgruled:x:{READERS}:\n"
    )
}
