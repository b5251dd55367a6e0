//! `cgruled.toml`, the daemon's own settings. Pure.

/// How moves are kept fast on a stock kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FastMoves {
    /// Nothing is done.
    #[default]
    Off,
    /// No-op writes while placements are made.
    Warm,
    /// Expedited RCU grace periods.
    Expedited,
    /// The mount option of the v2 hierarchy.
    FavorDynMods,
}
