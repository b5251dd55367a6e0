//! Row 10: the name service hangs, fails and answers with another user. A bystander whose name is known is
//! placed meanwhile; the others are right when the name service answers again.

use std::time::{Duration, Instant};

use crate::bystander::{self, Bystander};
use crate::harness::user::passwd_line;
use crate::harness::{Actor, Live, NameService, census};
use crate::report::Outcome;
use crate::subject::rules;

/// First UID of users that only the name service has. Each round needs new ones: a known name is not
/// looked up again.
const FIRST: u32 = 61_100;
const USERS: u32 = 600;
const STATES: [&str; 3] = ["slow", "fails", "wrong"];
/// Longest time in one state.
const MOST: Duration = Duration::from_secs(30);
/// Time after which a failed lookup is repeated at the latest, with a margin.
const CORRECT_WITHIN: Duration = Duration::from_secs(15);
const P99: Duration = Duration::from_millis(50);

pub(crate) fn run(live: &Live, length: Duration) -> Outcome {
    let users = FIRST..FIRST + USERS;
    let passwd: String = users.map(|id| passwd_line(&format!("cgt-{id}"), id)).collect();
    let names = NameService::new(live, &passwd, "");
    let remote = "[[rule]]\nuser = \"cgt-6*\"\ncgroup = \"remote/%u\"\n";
    let running = names.daemon(&(rules(&[bystander::RULE]) + remote));
    let mut bystander = Bystander::new(&live.ground);
    let mut row = Outcome::new("");
    let began = Instant::now();
    let share = (length / 3).min(MOST);
    let mut users = (FIRST..FIRST + USERS - 1).step_by(2);
    let mut rounds = 0;
    while began.elapsed() < length {
        for state in STATES {
            let Some(uid) = users.next() else { break };
            rounds += 1;
            let file = format!("{state}-{uid}");
            names.write(&file, "");
            let actor = live.hold(&format!("uid {uid} {uid}"));
            let until = Instant::now() + share;
            while Instant::now() < until {
                bystander.step(live);
            }
            names.remove(&file);
            expect(live, &mut row, &actor, uid, state);
        }
    }
    row.done = format!("{rounds} times slow, failing or wrong");
    let counters = running.stop();
    row.count(|name| counters.get(name));
    bystander.report(&mut row, P99);
    row
}

fn expect(live: &Live, row: &mut Outcome, actor: &Actor, uid: u32, state: &str) {
    let took = live.placed_within(CORRECT_WITHIN, actor.subject, &format!("remote/cgt-{uid}"));
    row.expect(took.is_some(), format!("{:?} after {state}", census::cgroup_of(actor.subject, "")));
    row.expect_none_misplaced(usize::from(took.is_none()));
}
