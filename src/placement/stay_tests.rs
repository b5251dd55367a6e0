use super::*;
use crate::cgroup::config::{GroupConfigs, GroupPermissions, GroupSpec, GroupSpecs};
use crate::cgroup::mounts::Hierarchy;
use crate::event::Gid;
use crate::kernel::program::ExeInfo;
use crate::policy::context_rules::ContextRules;
use crate::policy::test_policy;
use crate::rules::container::{ContainerEngine, ContainerId, ContainerKey};
use crate::rules::names::UserIdentity;

const RULES: &str =
    "[[rule]]\nuser = \"7\"\ncgroup = \"a\"\n[[rule]]\ngroup = \"50\"\ncgroup = \"b\"\n";

/// Returns the policy of these rules on a host with the hierarchy of [`Facts`].
fn unified_policy(rules: &str) -> Policy {
    let mut policy = test_policy(rules, Vec::new());
    let trees = Facts::default().hierarchies;
    policy.context = ContextRules::new(policy.matcher.rules(), &trees, ["", ""]);
    policy
}

/// A process of UID 7 below systemd, outside of any container.
#[derive(Clone)]
struct Facts {
    hierarchies: Hierarchies,
    runs_systemd: bool,
    is_daemon: bool,
    has_exited: bool,
    manager: Option<bool>,
    containment: Result<Containment, Missing>,
    is_in_namespace_of_root: bool,
    is_alone: bool,
    parent: u32,
    is_kernel_thread: bool,
    /// Real UID of every process.
    real: u32,
    /// PID of the child in its own PID namespace.
    inner_pid: Option<u32>,
    owner: Option<Uid>,
}

impl Default for Facts {
    fn default() -> Self {
        let unified = Hierarchy::for_test(Version::V2, "/nowhere", "", Vec::new());
        Self {
            hierarchies: Hierarchies::new(vec![unified]),
            runs_systemd: true,
            is_daemon: false,
            has_exited: false,
            manager: Some(false),
            containment: Ok(Containment::Host),
            is_in_namespace_of_root: false,
            is_alone: false,
            parent: 2,
            is_kernel_thread: false,
            real: 0,
            inner_pid: None,
            owner: Some(Uid(0)),
        }
    }
}

impl StayFacts for Facts {
    fn runs_systemd(&self) -> bool {
        self.runs_systemd
    }
    fn is_daemon(&self) -> bool {
        self.is_daemon
    }
    fn has_exited(&self) -> bool {
        self.has_exited
    }
    fn status(&mut self, pid: Pid) -> Option<ProcessStatus> {
        Some(ProcessStatus {
            process: pid,
            parent: Pid::new(self.parent),
            real: Uid(self.real),
            effective: Uid(0),
            real_group: Gid(0),
            is_kernel_thread: self.is_kernel_thread,
            has_exited: false,
            inner_pid: self.inner_pid.and_then(Pid::new),
        })
    }
    fn children(&mut self, bound: usize) -> Vec<Pid> {
        Pid::new(41).into_iter().take(bound).collect()
    }
    fn is_user_manager(&mut self) -> Option<bool> {
        self.manager
    }
    fn is_alone_in(&self, _: &str) -> bool {
        self.is_alone
    }
    fn group_owner(&self, _: usize, _: &[u8]) -> Option<Uid> {
        self.owner
    }
}

impl ContainerFacts for Facts {
    fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }
    fn sole_owner(&self, _: usize, _: &[u8]) -> Option<Uid> {
        self.owner
    }
    fn containment(&mut self) -> Result<Containment, Missing> {
        self.containment
    }
    fn is_in_namespace_of_root(&mut self) -> bool {
        self.is_in_namespace_of_root
    }
    fn accountable(&self, uid: Uid) -> Uid {
        uid
    }
    fn user_name(&mut self, uid: Uid) -> Result<Option<String>, Missing> {
        Err(Missing::User(uid))
    }
    fn container_name(&mut self, key: ContainerKey) -> Result<Option<String>, Missing> {
        Err(Missing::ContainerName(key))
    }
}

/// Returns a process of `uid` that runs `exe`, with this text of `/proc/PID/cgroup`.
fn subject<'s>(uid: u32, exe: &'s str, cgroup: &'s str) -> StaySubject<'s> {
    StaySubject {
        pid: Pid::new(40).unwrap(),
        uid: Uid(uid),
        user: None,
        exe: KnownExe::Read(ExeInfo::kernel_thread(exe.as_bytes())),
        is_moved_thread: false,
        cgroup: cgroup.as_bytes(),
    }
}

/// Decides about a process of `uid` that runs `exe` in the cgroup `path`, by the first of the rules.
fn decide(
    policy: &Policy,
    uid: u32,
    exe: &str,
    path: &str,
    mut facts: Facts,
) -> Result<MoveDecision, Missing> {
    let rule = &policy.matcher.rules()[0];
    let target = &rule.action.targets()[0];
    let (span, _) = facts.hierarchies.span_of(target);
    let cgroup = format!("0::{path}\n");
    let subject = subject(uid, exe, &cgroup);
    decide_move(policy, &StayTarget { rule, span, target, path: "/a" }, &subject, &mut facts)
}

fn expect(path: &str, uid: u32, facts: Facts, expected: MoveDecision) {
    let policy = test_policy(RULES, Vec::new());
    assert_eq!(decide(&policy, uid, "/bin/sh", path, facts), Ok(expected), "UID {uid} in {path}");
}

const MOVE: MoveDecision = MoveDecision::Move(None);

fn lost(name: &str, is_session: bool) -> MoveDecision {
    MoveDecision::Stay(StayReason::InUnit(LostUnit { name: name.to_owned(), is_session }))
}

fn container(path: &str) -> MoveDecision {
    MoveDecision::Stay(StayReason::InContainer(path.to_owned()))
}

#[test]
fn the_daemon_exited_processes_and_those_of_systemd_stay() {
    let facts = Facts::default;
    let stay = MoveDecision::Stay;
    expect("/", 7, facts(), MOVE);
    expect("/", 7, Facts { is_daemon: true, ..facts() }, stay(StayReason::Protected));
    expect("/", 7, Facts { has_exited: true, ..facts() }, stay(StayReason::Exited));
    let policy = test_policy(RULES, Vec::new());
    let place = "/user.slice/user-7.slice/user@7.service/init.scope";
    let systemd = "/usr/lib/systemd/systemd";
    for (manager, expected) in [
        (Some(true), stay(StayReason::Protected)),
        (None, stay(StayReason::ManagerUnknown)),
        (Some(false), MOVE),
    ] {
        let facts = Facts { manager, ..facts() };
        assert_eq!(decide(&policy, 7, systemd, place, facts), Ok(expected), "{manager:?}");
    }
    let root = decide(&policy, 0, systemd, "/", facts());
    assert_eq!(root, Ok(stay(StayReason::Protected)));
}

#[test]
fn a_unit_keeps_its_processes_and_a_session_its_last_one() {
    let facts = Facts::default;
    expect("/system.slice/db.service", 7, facts(), lost("db.service", false));
    expect("/system.slice/db.service", 7, Facts { runs_systemd: false, ..facts() }, MOVE);
    let session = "/user.slice/user-7.slice/session-3.scope";
    expect(session, 7, facts(), MOVE);
    expect(session, 7, Facts { is_alone: true, ..facts() }, lost("session-3.scope", true));
    // Jobs may leave the service that runs them, but it may not.
    expect("/system.slice/cron.service", 7, Facts { parent: 1, real: 7, ..facts() }, MOVE);
    let service = || Facts { parent: 1, ..facts() };
    expect("/system.slice/cron.service", 0, service(), lost("cron.service", false));
    // atd runs with the effective UID of the user daemon and the real UID of root.
    let atd = "/system.slice/atd.service";
    expect(atd, 7, service(), lost("atd.service", false));
    expect(atd, 7, Facts { parent: 1, real: 7, ..facts() }, MOVE);
    expect(atd, 7, facts(), MOVE);
    let policy = test_policy(&format!("{RULES}leave_units = true\n"), Vec::new());
    assert_eq!(policy.matcher.rules()[1].leave_units, LeaveUnits::Yes);
}

#[test]
fn a_rule_can_name_the_units_that_processes_may_leave() {
    let rules = "[[rule]]\nuser = 7\ncgroup = \"a\"\nleave_units = [\"db.service\", \"web-*\"]\n";
    let policy = test_policy(rules, Vec::new());
    let systemd = Facts { runs_systemd: true, ..Facts::default() };
    for (unit, expected) in [
        ("db.service", MOVE),
        ("web-1.service", MOVE),
        ("mail.service", lost("mail.service", false)),
    ] {
        let place = format!("/system.slice/{unit}");
        assert_eq!(decide(&policy, 7, "/bin/sh", &place, systemd.clone()), Ok(expected), "{unit}");
    }
}

#[test]
fn a_kernel_thread_is_moved_only_by_its_name() {
    let thread = Facts { is_kernel_thread: true, runs_systemd: false, ..Facts::default() };
    let protected = MoveDecision::Stay(StayReason::Protected);
    for (rule, name, uid, expected) in [
        ("user = 0", "kswapd0", 0, protected.clone()),
        ("exe = \"kswapd0\"\nexe_anywhere = true", "kswapd0", 0, MOVE),
        ("exe = \"kswapd0\"\nexe_anywhere = true", "kworker", 0, protected),
        // A path, and users other than root, show that it is none.
        ("user = 0", "/bin/sh", 0, MOVE),
        ("user = 7", "kswapd0", 7, MOVE),
    ] {
        let policy = test_policy(&format!("[[rule]]\n{rule}\ncgroup = \"a\"\n"), Vec::new());
        assert_eq!(decide(&policy, uid, name, "/", thread.clone()), Ok(expected), "{rule} {name}");
    }
}

#[test]
fn a_container_of_root_keeps_its_processes() {
    let place = "/machine/pod";
    let in_container = Facts { containment: Ok(Containment::Container), ..Facts::default() };
    expect(place, 7, Facts::default(), MOVE);
    expect(place, 7, in_container.clone(), container(place));
    // Namespaces alone, which a user can create, exempt nothing.
    for own in ["/", "/a.slice", "/user.slice/user-7.slice/x", "/b/container"] {
        expect(own, 7, in_container.clone(), MOVE);
    }
    expect(place, 7, Facts { owner: Some(Uid(7)), ..in_container.clone() }, MOVE);
    expect(place, 7, Facts { owner: None, ..in_container.clone() }, MOVE);
    let unknown = Facts { containment: Ok(Containment::Unknown), ..Facts::default() };
    expect(place, 7, unknown.clone(), MOVE);
    expect(place, 7, Facts { is_in_namespace_of_root: true, ..unknown }, container(place));
    let monitor = Facts { inner_pid: Some(1), ..Facts::default() };
    expect(place, 0, monitor.clone(), container(place));
    expect(place, 7, monitor, MOVE);
    // Root's own, and not the parent of a container; in the cgroup of another user.
    expect(place, 0, Facts::default(), MOVE);
    expect(place, 7, Facts { owner: Some(Uid(9)), ..in_container.clone() }, container(place));
    let policy = test_policy(RULES, Vec::new());
    let unread = Facts { containment: Err(Missing::Namespaces), ..Facts::default() };
    assert_eq!(decide(&policy, 7, "/bin/sh", place, unread), Err(Missing::Namespaces));
}

/// On a host with v1 hierarchies an engine may leave some of them as they were.
#[test]
fn a_container_of_root_may_be_in_a_slice_of_another_hierarchy() {
    let rules = "[[rule]]\nuser = 7\ncgroup = \"a\"\ncontrollers = [\"cpu\"]\n";
    let policy = test_policy(rules, Vec::new());
    let rule = &policy.matcher.rules()[0];
    let unified = Hierarchy::for_test(Version::V2, "/nowhere", "", Vec::new());
    let cpu = Hierarchy::for_test(Version::V1, "/cpu", "cpu", vec!["cpu".to_owned()]);
    let mut facts = Facts {
        hierarchies: Hierarchies::new(vec![unified, cpu]),
        containment: Ok(Containment::Container),
        ..Facts::default()
    };
    let target = &rule.action.targets()[0];
    let span = facts.hierarchies.span_of(target).0.union(facts.hierarchies.of_systemd());
    for (own, expected) in
        [("/a.slice", container("/machine/pod")), ("/user.slice/user-7.slice/x", MOVE)]
    {
        let cgroup = format!("1:cpu:{own}\n0::/machine/pod\n");
        let subject = subject(7, "/bin/sh", &cgroup);
        let target = StayTarget { rule, span, target, path: "/a" };
        assert_eq!(decide_move(&policy, &target, &subject, &mut facts), Ok(expected), "{own}");
    }
}

#[test]
fn a_rule_names_the_containers_that_processes_may_leave() {
    let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let docker = format!("/docker/{id}");
    let id = ContainerId::parse(id.as_bytes()).unwrap();
    let unread = Err(Missing::ContainerName(ContainerKey { engine: ContainerEngine::Docker, id }));
    let stays = |place: &str| Ok(container(place));
    for (containers, place, expected) in [
        ("true", "/lxc/101", Ok(MOVE)),
        ("false", "/lxc/101", stays("/lxc/101")),
        ("\"lxc:101\"", "/lxc/101", Ok(MOVE)),
        ("\"lxc:101\"", "/lxc/101/ns", Ok(MOVE)),
        ("[\"lxc:1*\", \"docker:x\"]", "/lxc/101", Ok(MOVE)),
        ("\"lxc:102\"", "/lxc/101", stays("/lxc/101")),
        // The path names it, so that its namespaces do not matter.
        ("[\"*:x\", \"lxc:101\"]", "/lxc/101", Ok(MOVE)),
        ("\"lxc@7:101\"", "/lxc/101", stays("/lxc/101")),
        ("\"docker:*\"", &docker, Ok(MOVE)),
        ("\"docker:web\"", &docker, unread),
        ("\"*:*\"", "/box", Ok(MOVE)),
        ("\"docker:*\"", "/box", stays("/box")),
    ] {
        let rules = format!("[[rule]]\nuser = 7\ncgroup = \"a\"\ncontainers = {containers}\n");
        let policy = unified_policy(&rules);
        let facts = Facts { containment: Ok(Containment::Container), ..Facts::default() };
        let found = decide(&policy, 7, "/bin/sh", place, facts);
        assert_eq!(found, expected, "{containers} in {place}");
    }
}

#[test]
fn a_process_below_the_cgroup_of_its_rule_stays_if_that_has_an_owner() {
    let mut policy = test_policy(RULES, Vec::new());
    assert_eq!(decide(&policy, 7, "/bin/sh", "/a/own", Facts::default()), Ok(MOVE));
    let mut perm = GroupPermissions::default();
    perm.directory.uid = Some(Uid(7));
    let table = GroupSpec {
        text: "a".to_owned(),
        controllers: Vec::new(),
        settings: Vec::new(),
        perm,
        is_required: false,
        remove_after: None,
        origin: policy.matcher.rules()[0].origin.clone(),
    };
    let specs = GroupSpecs { tables: vec![table], ..GroupSpecs::default() };
    let (configs, _) = GroupConfigs::new(&specs, &Facts::default().hierarchies);
    policy.give(configs);
    let decision = decide(&policy, 7, "/bin/sh", "/a/own", Facts::default());
    assert_eq!(decision, Ok(MoveDecision::Stay(StayReason::Delegated)));
}

#[test]
fn a_job_of_another_waits_until_the_owner_of_the_service_manager_is_known() {
    let place = "/user.slice/user-5.slice/user@5.service/job.scope";
    let job = MoveDecision::Stay(StayReason::OthersJob(place.to_owned()));
    for (login_group, expected) in [
        (None, Err(Missing::User(Uid(5)))),
        (Some(Gid(49)), Ok(job)),
        // A rule moves processes of the owner.
        (Some(Gid(50)), Ok(MOVE)),
    ] {
        let owner = login_group.map(|_| UserIdentity {
            name: Some("flux".to_owned()),
            login_group,
            ..UserIdentity::nameless(Uid(5))
        });
        let policy = test_policy(RULES, owner.into_iter().collect());
        assert_eq!(decide(&policy, 7, "/bin/sh", place, Facts::default()), expected);
    }
    expect(&place.replace('5', "7"), 7, Facts::default(), MOVE);
}
