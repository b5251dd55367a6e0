//! Histories: the steps of a simulated kernel, chosen by a seed or read from a file.
//!
//! A step is five numbers, and its meaning depends on the state in which it happens. So each part of a
//! history is a history too, which is what shrinking needs.

use std::fmt::Write as _;

/// Pseudo-random numbers (splitmix64).
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound`.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        ((self.next() >> 32) * bound) >> 32
    }
}

macro_rules! kinds {
    ($($kind:ident $weight:literal $name:literal,)+) => {
        /// What happens in a step.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind { $($kind,)+ }

        impl Kind {
            pub(crate) const ALL: &[Self] = &[$(Self::$kind,)+];
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }
            /// Relative frequency.
            const fn weight(self) -> u64 {
                match self { $(Self::$kind => $weight,)+ }
            }
        }
    };
}

kinds! {
    Fork 120 "fork",
    ForkSlowly 60 "fork-slowly",
    Proceed 110 "proceed",
    Vfork 15 "vfork",
    CloneParent 30 "clone-parent",
    CloneThread 30 "clone-thread",
    CloneInto 6 "clone-into-cgroup",
    Exec 70 "exec",
    ExecSlowly 20 "exec-slowly",
    ExecOfThread 12 "exec-of-thread",
    ExecSetuid 12 "exec-setuid",
    ExecHang 5 "exec-hang",
    EndHang 6 "end-hang",
    SetUid 60 "setuid",
    SetUidSlowly 15 "setuid-slowly",
    SetGid 20 "setgid",
    SetUidOfThread 15 "setuid-of-thread",
    Login 30 "login",
    Daemonize 25 "daemonize",
    DaemonizeBeforeForks 20 "daemonize-before-forks",
    Exit 90 "exit",
    ExitOfLeader 8 "exit-of-leader",
    ExitOfThread 12 "exit-of-thread",
    Reap 70 "reap",
    MoveByRoot 12 "move-by-root",
    MoveForUser 10 "move-for-user",
    RemoveGroups 10 "remove-groups",
    Refuse 8 "refuse-attach",
    RefuseGroup 3 "refuse-group",
    Sleep 12 "sleep-in-attach",
    Reply 60 "reply",
    ReplyWrong 6 "reply-wrong",
    ReplyNever 3 "reply-never",
    ExamineBeforeExec 20 "examine-before-exec",
    ReadLate 4 "read-late",
    Rules 5 "rules",
    Kill 3 "kill-daemon",
    Pin 8 "pin",
    PinChildren 6 "pin-children",
    Unpin 6 "unpin",
    Reuse 20 "reuse-pid",
    ReuseByOrphan 20 "reuse-pid-by-orphan",
    Storm 4 "storm",
    CloseGroups 3 "close-groups",
    Wait 25 "wait",
    Rest 14 "rest",
}

/// One step, and when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Calls of the engine since the step before. Without meaning while the engine waits.
    pub(crate) gap: u16,
    /// Nanoseconds that pass with the step.
    pub(crate) dt: u32,
    pub(crate) kind: Kind,
    pub(crate) a: u16,
    pub(crate) b: u16,
}

/// A world and what happens in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    /// Properties of the machine: see [`crate::config::Config`].
    pub(crate) machine: u64,
    pub(crate) entries: Vec<Entry>,
}

impl History {
    pub(crate) fn text(&self) -> String {
        let mut text = format!("machine {:#x}\n", self.machine);
        for Entry { gap, dt, kind, a, b } in &self.entries {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{gap} {dt} {} {a} {b}", kind.name());
        }
        text
    }

    /// Parses the text of a history; lines that begin with `#` are comments.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let machine = lines.next()?.strip_prefix("machine 0x")?;
        let machine = u64::from_str_radix(machine, 16).ok()?;
        let entries = lines.map(Entry::parse).collect::<Option<_>>()?;
        Some(Self { machine, entries })
    }
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[gap, dt, kind, a, b] = &*words else { return None };
        let kind = *Kind::ALL.iter().find(|one| one.name() == kind)?;
        let number = |word: &str| word.parse().ok();
        Some(Self { gap: number(gap)?, dt: dt.parse().ok()?, kind, a: number(a)?, b: number(b)? })
    }
}

/// Where the steps come from.
pub(crate) enum Source {
    /// Chosen by a seed, up to a number of steps.
    Seed {
        rng: Rng,
        weights: Vec<u64>,
        sum: u64,
        left: usize,
        since_rest: u32,
        /// What seven of eight steps choose that write rules.
        mostly: Option<u16>,
    },
    Replay {
        left: std::vec::IntoIter<Entry>,
    },
}

impl Source {
    /// Steps of a seed. Each world has its own frequencies, because some states are reached only
    /// when the steps that end them are rare.
    pub(crate) fn of_seed(mut rng: Rng, steps: usize, mostly: Option<u16>) -> Self {
        let weights: Vec<u64> = Kind::ALL
            .iter()
            .map(|kind| match (kind, rng.below(8)) {
                (Kind::Rest | Kind::Proceed | Kind::Reply | Kind::Reap, _) => kind.weight() * 4,
                (_, 0) => 0,
                (_, 1 | 2) => kind.weight(),
                (_, 3..=5) => kind.weight() * 4,
                _ => kind.weight() * 12,
            })
            .collect();
        let sum = weights.iter().sum();
        Self::Seed { rng, weights, sum, left: steps, since_rest: 0, mostly }
    }

    /// Returns the next step; `None` at the end of the history.
    pub(crate) fn next(&mut self) -> Option<Entry> {
        let (rng, weights, sum, left, since_rest, mostly) = match self {
            Self::Replay { left } => return left.next(),
            Self::Seed { rng, weights, sum, left, since_rest, mostly } => {
                (rng, weights, sum, left, since_rest, *mostly)
            }
        };
        if *left == 0 {
            return None;
        }
        *left -= 1;
        *since_rest += 1;
        let mut at = rng.below(*sum);
        let chosen = weights.iter().position(|&weight| {
            let is_it = at < weight;
            at = at.wrapping_sub(if is_it { 0 } else { weight });
            is_it
        });
        let mut kind = Kind::ALL[chosen.unwrap_or(0)];
        if *left == 0 || *since_rest > 400 {
            kind = Kind::Rest;
        }
        if kind == Kind::Rest {
            *since_rest = 0;
        }
        let gap = match rng.below(16) {
            0..=6 => 0,
            7..=10 => rng.below(4),
            11..=13 => rng.below(20),
            _ => rng.below(150),
        };
        let dt = match rng.below(32) {
            0..=20 => rng.below(3_000),
            21..=27 => rng.below(200_000),
            28..=30 => rng.below(12_000_000),
            _ => rng.below(150_000_000),
        };
        let (a, mut b) = (rng.next() as u16, rng.next() as u16);
        if kind == Kind::Rules && b % 8 != 0 {
            b = mostly.unwrap_or(b);
        }
        Some(Entry { gap: gap as u16, dt: dt as u32, kind, a, b })
    }
}
