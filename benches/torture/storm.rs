//! Load that actors create, for longer than an actor lives.

use std::time::{Duration, Instant};

use crate::harness::user::CAROL;
use crate::harness::{Actor, Daemon, Live, Settings, Surroundings};

/// Age at which actors are replaced: they exit by themselves after 120 s.
const AGE: Duration = Duration::from_secs(60);

/// Actors that repeat these steps until they are dropped.
pub(crate) struct Storm<'l> {
    live: &'l Live,
    steps: Vec<String>,
    actors: Vec<Actor>,
    began: Instant,
}

impl<'l> Storm<'l> {
    pub(crate) fn new(live: &'l Live, steps: Vec<String>) -> Self {
        let actors = steps.iter().map(|steps| live.actor(steps)).collect();
        Self { live, steps, actors, began: Instant::now() }
    }

    /// Two actors of carol that execute programs.
    pub(crate) fn of_execs(live: &'l Live) -> Self {
        let tool = live.program("bin/tool");
        Self::new(live, vec![format!("uid {CAROL} {CAROL} storm 10000000 {tool}"); 2])
    }

    /// Replaces the actors when they are old.
    pub(crate) fn keep_up(&mut self) {
        if self.began.elapsed() > AGE {
            self.actors = self.steps.iter().map(|steps| self.live.actor(steps)).collect();
            self.began = Instant::now();
        }
    }
}

/// Gives the daemon the priority of its unit, whose CPUWeight= the autogroup of a session replaces here.
pub(crate) const LAUNCHER: [&str; 4] = [
    "setsid",
    "sh",
    "-c",
    "echo -10 2>/dev/null >/proc/self/autogroup; exec nice -n -10 \"$0\" \"$@\"",
];

/// Starts the daemon with the priority of its unit.
pub(crate) fn daemon(live: &Live, rules: &str, settings: &Settings<'_>) -> Daemon {
    let on = Surroundings { launcher: &LAUNCHER, ..Surroundings::default() };
    live.daemon_on(rules, settings, &on)
}

/// Quiet log, because debug records of each move are not what is measured.
pub(crate) const QUIET: Settings<'static> = Settings { config: "", arguments: &["--log", "info"] };
