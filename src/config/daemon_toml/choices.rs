//! The settings that are one of several words, each with its words. Pure.

/// The base of the paths in legacy rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegacyRoot {
    /// The hierarchy root, with a warning where it differs from the managed root, because the key
    /// is unset.
    Unsaid,
    /// The root of each hierarchy, as with cgrulesengd.
    Top,
    /// The managed root, as for TOML rules.
    Pool,
}

/// The method that shortens the wait of a move for an RCU grace period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastMoves {
    /// No method: moves wait for the grace period.
    Off,
    /// An expedited grace period for the first move after a pause, then no-op moves.
    Auto,
    /// No-op moves by the daemon while processes are being placed.
    Warm,
    /// Expedited grace periods of the kernel, for the whole machine.
    Expedited,
    /// The mount option of the hierarchy.
    Favordynmods,
}

/// The scheduling of the thread that moves processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduling {
    /// Real-time scheduling where it harms no others.
    Auto,
    /// Real-time scheduling where the kernel permits it.
    Realtime,
    /// Normal scheduling.
    Normal,
}

/// The reaction when another process moves a process out of the cgroup of its rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExternalMoves {
    /// The move is reverted: always if an unprivileged user caused it, else once.
    #[default]
    Revert,
    /// The move is logged and counted.
    Report,
    /// External moves are not detected.
    Off,
}

/// Returns the word of a value as written in the file; `unset` for a value that has none.
pub(super) fn word_of<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, own)| *own == value).map_or("unset", |(word, _)| word)
}

impl LegacyRoot {
    /// The values by their words.
    pub(super) const WORDS: [(&str, Self); 2] = [("top", Self::Top), ("pool", Self::Pool)];
}

impl FastMoves {
    /// The values by their words.
    pub(super) const WORDS: [(&str, Self); 5] = [
        ("off", Self::Off),
        ("auto", Self::Auto),
        ("warm", Self::Warm),
        ("expedited", Self::Expedited),
        ("favordynmods", Self::Favordynmods),
    ];
}

impl Scheduling {
    /// The values by their words.
    pub(super) const WORDS: [(&str, Self); 3] =
        [("auto", Self::Auto), ("realtime", Self::Realtime), ("normal", Self::Normal)];
}

impl ExternalMoves {
    /// The values by their words.
    pub(super) const WORDS: [(&str, Self); 3] =
        [("revert", Self::Revert), ("report", Self::Report), ("off", Self::Off)];

    /// Returns the value of the setting as written in the file.
    pub fn word(self) -> &'static str {
        word_of(&Self::WORDS, self)
    }
}
