//! Settings of the daemon that take effect with a policy.

use crate::cgroup::fast_moves::FastMovesGuard;
use crate::config::daemon_toml::Settings;

/// Settings that take effect.
#[derive(Debug)]
pub struct SettingsUpdate {
    /// All settings with which the daemon runs from now on.
    pub settings: Settings,
    /// The new method for fast moves, if that has changed. It was activated on the rule thread,
    /// because a remount can block.
    pub fast_moves: Option<FastMovesGuard>,
}

impl SettingsUpdate {
    /// Returns the update that has the effect of `earlier` and then `later`.
    pub fn merge(earlier: Option<Self>, later: Option<Self>) -> Option<Self> {
        match (earlier, later) {
            (Some(earlier), Some(later)) => {
                let fast_moves = later.fast_moves.or(earlier.fast_moves);
                Some(Self { settings: later.settings, fast_moves })
            }
            (one, None) | (None, one) => one,
        }
    }
}
