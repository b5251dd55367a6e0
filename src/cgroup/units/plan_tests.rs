use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::rules::glob::Glob;
use crate::rules::{Origin, UserTest};

fn origin(line: u32) -> Origin {
    Origin { file: Path::new("/a.toml").into(), line }
}

fn settings(word: &str) -> Vec<(String, Vec<String>)> {
    vec![("pids.max".to_owned(), vec![word.to_owned()])]
}

fn slices(users: Vec<UserTest>, word: &str) -> UserSliceSpec {
    UserSliceSpec { users, settings: settings(word), origin: origin(1) }
}

fn ids(first: u32, last: u32) -> UserTest {
    UserTest::Ids(Uid(first), Uid(last))
}

fn glob(text: &str) -> UserTest {
    UserTest::Glob(Glob::parse(text.as_bytes()).unwrap())
}

fn unit(name: &str, word: &str) -> UnitSpec {
    UnitSpec { name: name.to_owned(), settings: settings(word), origin: origin(9) }
}

fn applied(entries: &[(&str, &str)]) -> AppliedUnits {
    let one = |(name, word): &(&str, &str)| {
        let properties = vec![(*word).to_owned()];
        ((*name).to_owned(), AppliedUnit { properties, drop_ins: Vec::new() })
    };
    entries.iter().map(one).collect()
}

/// The input of a plan, and the names of users.
#[derive(Clone, Debug, Default)]
struct Case {
    tables: UnitTables,
    present: BTreeSet<Uid>,
    applied: AppliedUnits,
    damaged: BTreeSet<String>,
    due: BTreeSet<String>,
    refused: BTreeSet<String>,
    stuck: BTreeSet<String>,
}

impl Case {
    fn new(user_slices: Vec<UserSliceSpec>, present: &[u32], before: &[(&str, &str)]) -> Self {
        Self {
            tables: UnitTables { units: Vec::new(), user_slices },
            present: present.iter().copied().map(Uid).collect(),
            applied: applied(before),
            ..Self::default()
        }
    }

    fn plan(&self, name_of: impl Fn(u32) -> Result<Option<&'static str>, ()>) -> UnitPlan {
        let now = HostState {
            present: &self.present,
            applied: &self.applied,
            damaged: &self.damaged,
            due: &self.due,
            refused: &self.refused,
            stuck: &self.stuck,
        };
        UnitPlan::new(&self.tables, &now, |uid| Ok::<_, ()>(name_of(uid.0)?.map(str::to_owned)))
    }

    /// Returns the units to release, and those to set.
    fn steps(&self) -> (Vec<String>, Vec<String>) {
        let plan = self.plan(|_| panic!("no table needs a user name"));
        let set =
            plan.set.iter().map(|unit| format!("{} {}", unit.name, unit.properties().join(" ")));
        (plan.release, set.collect())
    }
}

fn set(words: &[&str]) -> (Vec<String>, Vec<String>) {
    (Vec::new(), words.iter().map(|&word| word.to_owned()).collect())
}

fn release(words: &[&str]) -> (Vec<String>, Vec<String>) {
    (words.iter().map(|&word| word.to_owned()).collect(), Vec::new())
}

#[test]
fn slices_of_selected_users_that_exist_are_set() {
    let people = || vec![slices(vec![ids(1000, 1999)], "TasksMax=5")];
    assert_eq!(Case::new(people(), &[], &[]).steps(), set(&[]));
    let case = Case::new(people(), &[0, 1000, 2000], &[]);
    assert_eq!(case.steps(), set(&["user-1000.slice TasksMax=5"]));
    let case = Case::new(people(), &[1000, 1001], &[("user-1000.slice", "TasksMax=5")]);
    assert_eq!(case.steps(), set(&["user-1001.slice TasksMax=5"]));
    let case = Case::new(people(), &[1000], &[("user-1000.slice", "TasksMax=4")]);
    assert_eq!(case.steps(), set(&["user-1000.slice TasksMax=5"]));
}

#[test]
fn what_no_table_selects_is_taken_back_also_without_a_session() {
    let people = || vec![slices(vec![ids(1000, 1000)], "TasksMax=5")];
    let before = [("user-1000.slice", "TasksMax=5"), ("user-1001.slice", "TasksMax=5")];
    assert_eq!(Case::new(people(), &[1001], &before).steps(), release(&["user-1001.slice"]));
    let all = release(&["user-1000.slice", "user-1001.slice"]);
    assert_eq!(Case::new(Vec::new(), &[1001], &before).steps(), all);
    // Changed settings of a user who is not logged in: the next login applies them.
    let before = [("user-1000.slice", "TasksMax=4")];
    assert_eq!(Case::new(people(), &[], &before).steps(), release(&["user-1000.slice"]));
    let mut stuck = Case::new(Vec::new(), &[], &before);
    stuck.stuck.insert("user-1000.slice".to_owned());
    assert_eq!(stuck.steps(), release(&[]));
}

#[test]
fn the_first_table_decides_and_a_single_unit_before_it() {
    let tables =
        vec![slices(vec![ids(1000, 1000)], "TasksMax=1"), slices(vec![glob("*")], "TasksMax=2")];
    let mut case = Case::new(tables, &[1000, 1001], &[]);
    let both = ["user-1000.slice TasksMax=1", "user-1001.slice TasksMax=2"];
    assert_eq!(case.steps(), set(&both));
    case.tables.units =
        vec![unit("user-1000.slice", "TasksMax=9"), unit("a.service", "TasksMax=8")];
    assert_eq!(case.steps(), set(&[both[1]]));
    case.due = BTreeSet::from(["user-1000.slice".to_owned()]);
    assert_eq!(case.steps(), set(&["user-1000.slice TasksMax=9", both[1]]));
}

#[test]
fn units_are_set_once_and_taken_back() {
    let mut case = Case::new(Vec::new(), &[], &[]);
    case.tables.units = vec![unit("a.service", "TasksMax=8")];
    case.due = BTreeSet::from(["a.service".to_owned()]);
    assert_eq!(case.steps(), set(&["a.service TasksMax=8"]));
    case.due.clear();
    case.applied = applied(&[("a.service", "TasksMax=8"), ("b.service", "TasksMax=8")]);
    assert_eq!(case.steps(), release(&["b.service"]));
}

#[test]
fn files_that_others_changed_are_set_again_and_refusals_are_not() {
    let people = vec![slices(vec![ids(1000, 1999)], "TasksMax=5")];
    let mut case = Case::new(people, &[1000], &[("user-1000.slice", "TasksMax=5")]);
    case.damaged.insert("user-1000.slice".to_owned());
    assert_eq!(case.steps(), set(&["user-1000.slice TasksMax=5"]));
    case.refused.insert("user-1000.slice".to_owned());
    assert_eq!(case.steps(), set(&[]));
}

#[test]
fn a_name_is_asked_for_only_if_it_decides() {
    let tables = vec![
        slices(vec![ids(1000, 1000)], "TasksMax=1"),
        slices(vec![glob("site-*"), ids(3, 3)], "TasksMax=2"),
    ];
    let case =
        Case::new(tables, &[3, 1000, 1001, 1002, 1003], &[("user-1003.slice", "TasksMax=2")]);
    let plan = case.plan(|uid| match uid {
        1001 => Ok(Some("site-a")),
        1002 => Ok(None),
        1003 => Err(()),
        other => panic!("{other}"),
    });
    let names: Vec<&str> = plan.set.iter().map(|unit| &*unit.name).collect();
    assert_eq!(names, ["user-3.slice", "user-1000.slice", "user-1001.slice"]);
    assert_eq!(plan.release, [""; 0], "while the name service fails settings stay");
}

#[test]
fn a_table_without_settings_sets_nothing() {
    let none = UserSliceSpec { settings: Vec::new(), ..slices(vec![ids(0, 9)], "") };
    assert_eq!(Case::new(vec![none.clone()], &[5], &[]).steps(), set(&[]));
    let before = [("user-5.slice", "TasksMax=2")];
    assert_eq!(Case::new(vec![none], &[5], &before).steps(), release(&["user-5.slice"]));
}

proptest! {
    /// After a plan is performed the next one is empty, and no unit without a table keeps settings.
    #[test]
    fn a_plan_reaches_its_end(
        tables in proptest::collection::vec((0u32..12, 0u32..6, 0u32..3), 0..4),
        present in proptest::collection::btree_set(0u32..12, 0..8),
        before in proptest::collection::btree_map(0u32..12, 0u32..3, 0..8),
    ) {
        let table = |&(first, count, word): &(u32, u32, u32)| {
            slices(vec![ids(first, first + count)], &format!("TasksMax={word}"))
        };
        let before: Vec<_> = before
            .iter()
            .map(|(uid, word)| (format!("user-{uid}.slice"), format!("TasksMax={word}")))
            .collect();
        let before: Vec<_> = before.iter().map(|(name, word)| (&**name, &**word)).collect();
        let present: Vec<u32> = present.into_iter().collect();
        let mut case = Case::new(tables.iter().map(table).collect(), &present, &before);
        let plan = case.plan(|_| panic!("no table needs a user name"));
        for name in &plan.release {
            case.applied.remove(name);
        }
        for unit in &plan.set {
            let properties = unit.properties().into_iter().map(str::to_owned).collect();
            case.applied.insert(unit.name.clone(), AppliedUnit { properties, drop_ins: Vec::new() });
        }
        prop_assert_eq!(case.steps(), set(&[]));
        for (name, applied) in &case.applied {
            let uid = user_of_slice(name).unwrap();
            let first = case.tables.user_slices.iter().find(|own| own.users[0].matches(uid, None));
            let wanted = first.unwrap().of_user(uid);
            prop_assert_eq!(&wanted.properties(), &applied.properties);
        }
    }
}
