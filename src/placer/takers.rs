//! Who takes processes back, and how often.

use ::log::Level;

use super::described::{Described, Named};
use super::{Placer, Subject};
use crate::cgroup::unit::Unit;
use crate::control::memory::Trouble;
use crate::event::Cause;
use crate::log::field;
use crate::process::{Proc, path_in};
use crate::rules::Rule;
use crate::sys;

/// Names that are kept; what comes later is counted together. Sessions have names without end.
const MOST: usize = 64;
const OTHERS: &str = "others";

/// How often each had a process that was taken back, in the order of their first time.
#[derive(Debug, Default)]
pub(super) struct Takers(Vec<(String, u64)>);

impl Takers {
    fn count(&mut self, name: &str) {
        let name = if self.0.len() < MOST || self.find(name).is_some() { name } else { OTHERS };
        match self.find(name) {
            Some(index) => self.0[index].1 += 1,
            None => self.0.push((name.to_owned(), 1)),
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|(known, _)| known == name)
    }
}

impl Placer {
    /// Who had processes that second looks found elsewhere, and how many: units of systemd by name,
    /// other groups by path. The first 64 of them, then all further ones as `others`.
    pub fn taken_back_by(&self) -> &[(String, u64)] {
        &self.takers.0
    }

    /// A second look found the process elsewhere: counts and says who has it now. Whether it is to be
    /// left there, this being the second time.
    pub(super) fn was_taken(
        &mut self,
        proc: &mut Proc,
        rule: &Rule,
        subject: &Subject<'_>,
    ) -> bool {
        self.metrics.taken_back.increment();
        let gives_up = subject.look.cause.contains(Cause::AGAIN);
        if gives_up {
            self.metrics.given_up.increment();
        }
        let text = proc.cgroup(subject.look.pid, subject.grip.thread).unwrap_or_default();
        let place = self.tree.hierarchies().unified().map_or("", |tree| tree.listed.as_str());
        let taker = path_in(text, place.as_bytes()).unwrap_or(b"another group");
        let taker = String::from_utf8_lossy(taker);
        self.takers.count(Unit::of(&taker, &[]).name().unwrap_or(&taker));
        let noted = taker.clone().into_owned();
        self.troubles.push((
            if gives_up { Trouble::GivenUp(noted) } else { Trouble::TakenBack(noted) },
            self.path.clone(),
        ));
        if let Some(left_out) = self.limiter.admit(&(&*taker, gives_up), sys::monotonic()) {
            let then = if gives_up { "it is left there" } else { "it is put back once" };
            let (who, by) = (Described(subject), Named(rule));
            let (from, to) = (&self.path, taker.escape_debug());
            self.decided(field::TAKEN, rule, subject).say(
                Level::Warn,
                format_args!("{who} was moved from {from} to {to}; {then}; {by}{left_out}"),
            );
        }
        gives_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_up_to_a_bound() {
        let mut takers = Takers::default();
        (0..100).for_each(|number| takers.count(&format!("session-{number}.scope")));
        takers.count("session-3.scope");
        takers.count("session-99.scope");
        assert_eq!(takers.0.len(), MOST + 1);
        assert_eq!(takers.0[3], ("session-3.scope".to_owned(), 2));
        assert_eq!(takers.0[MOST], (OTHERS.to_owned(), 37));
    }
}
