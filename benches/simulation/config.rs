//! Properties of a simulated machine, each some bits of one number.

/// Properties of a machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// A v1 hierarchy of the cpu controller, besides v2.
    pub has_v1: bool,
    pub(crate) runs_systemd: bool,
    /// The credentials come with the ID of the v2 cgroup.
    pub(crate) tells_group: bool,
    pub(crate) traces_moves: bool,
    /// Drains end after a few events.
    pub(crate) cuts_drains: bool,
    pub(crate) last_pid: u32,
    pub(crate) event_room: usize,
    pub(crate) fork_room: usize,
    pub(crate) trace_room: usize,
    pub(crate) tells_containment: bool,
    pub(crate) first_rules: usize,
    pub(crate) has_skew: bool,
    pub(crate) reports_only: bool,
    /// A new policy knows the users of the one before.
    pub(crate) keeps_users: bool,
}

impl Config {
    pub(crate) fn of(machine: u64) -> Self {
        let bit = |n: u64| machine >> n & 1 == 1;
        let of4 = |n: u64, values: [usize; 4]| values[(machine >> n & 3) as usize];
        Self {
            has_v1: bit(0),
            runs_systemd: bit(1),
            tells_group: bit(2),
            traces_moves: bit(3),
            cuts_drains: bit(4) && bit(5),
            last_pid: of4(6, [40, 56, 90, 180]) as u32,
            event_room: of4(8, [6, 24, 200, 4000]),
            fork_room: of4(10, [6, 24, 200, 4000]),
            trace_room: of4(12, [2, 20, 200, 2000]),
            tells_containment: bit(14),
            first_rules: (machine >> 15 & 7) as usize,
            has_skew: bit(18),
            reports_only: bit(19) && bit(20) && bit(21),
            keeps_users: bit(22),
        }
    }
}
