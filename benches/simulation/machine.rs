//! The state of the simulated machine, and what time does to it.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use cgruled::cgroup::mounts::{Hierarchies, Hierarchy, Version};
use cgruled::control::request::{PinClient, PinRequest};
use cgruled::event::{Event, EventKind, Nanos, Task};
use cgruled::kernel::moves::TracedMove;
use cgruled::policy::Policy;
use cgruled::rules::names::UserIdentity;

use super::cgroups::Cgroups;
use super::config::Config;
use super::history::{Entry, Source};
use super::journal::Journal;
use super::process::{FIRST_PID, OWN, Process};
use super::programs::{SYSTEMD, TOOL};
use super::rules::RuleSets;
use super::services::Services;
use super::situations::{Counts, Situation};
use super::tally::Tally;

/// IDs of the hierarchies in `/proc/PID/cgroup`.
pub(crate) const HIERARCHY_IDS: [u32; 2] = [0, 4];

/// The longest time that passes with a step while the engine works.
const LONGEST_STALL_NS: u64 = 5_000_000;

/// A bounded queue of events, with the kernel's rule: what finds no room is dropped and counted.
#[derive(Default)]
pub(crate) struct Socket {
    pub(crate) queue: VecDeque<Event>,
    pub(crate) room: usize,
    pub(crate) dropped: u64,
}

/// A system call that others can overtake.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flight {
    /// The child is in the list of processes. Then it has a time stamp, then its event is queued,
    /// then it is linked to its cgroup.
    Fork { child: u32, named_parent: u32, stage: u8, at: u64, groups: [usize; 2] },
    /// An event has its time stamp, but is not queued.
    Event { process: u32, event: Event },
}

/// A request to the daemon from outside.
pub(crate) enum Request {
    Signal,
    Pin(PinRequest, PinClient, u64),
}

/// The policy that the daemon was given last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Active {
    pub(crate) generation: u64,
    pub(crate) set: usize,
    /// What the name service told under this policy.
    pub(crate) believed: Vec<UserIdentity>,
    pub(crate) named_groups: Vec<(u32, Option<String>)>,
}

/// The simulated machine.
pub(crate) struct Machine {
    pub(crate) config: Config,
    pub(crate) source: Source,
    /// All steps so far.
    pub(crate) taken: Vec<Entry>,
    pub(crate) next: Option<Entry>,
    pub(crate) clock: u64,
    /// Time that passed during calls of the engine since the last rest. It limits its scans by what
    /// they cost.
    pub(crate) stalled: u64,
    pub(crate) events: u64,
    pub(crate) table: Vec<Option<Process>>,
    /// PIDs of all processes, and of threads with their process.
    pub(crate) pids: Vec<u32>,
    pub(crate) thread_ids: Vec<(u32, u32)>,
    pub(crate) last_pid: u32,
    pub(crate) identities: u64,
    pub(crate) hierarchies: Rc<Hierarchies>,
    pub(crate) cgroups: Cgroups,
    pub(crate) event_socket: Socket,
    pub(crate) fork_socket: Socket,
    pub(crate) trace: Vec<TracedMove>,
    pub(crate) lost_moves: u64,
    /// Time of the last traced move of each PID.
    pub(crate) moved_at: HashMap<u32, u64>,
    pub(crate) flights: Vec<Flight>,
    pub(crate) services: Services,
    pub(crate) sets: Rc<RuleSets>,
    /// The rule set in the files.
    pub(crate) files: usize,
    /// Number of policies built.
    pub(crate) built: u64,
    pub(crate) active: Active,
    /// Policies on their way to the daemon: generation and set.
    pub(crate) policies: Vec<(u64, usize)>,
    pub(crate) requests: VecDeque<Request>,
    /// Errors of the next attaches.
    pub(crate) refusals: VecDeque<nix::errno::Errno>,
    /// A cgroup into which no process can be moved, with the error.
    pub(crate) refused_group: Option<(String, nix::errno::Errno)>,
    /// The next attach takes this long.
    pub(crate) sleep: u64,
    pub(crate) late_reads: u32,
    pub(crate) closes_groups: bool,
    /// Numbers of the step that happens before the fork socket is read.
    pub(crate) daemonizes: Option<(u16, u16)>,
    /// Set while no steps are taken.
    pub(crate) is_silent: bool,
    pub(crate) wants_rest: bool,
    pub(crate) is_killed: bool,
    pub(crate) is_running: bool,
    pub(crate) in_attach: bool,
    pub(crate) is_scanning: bool,
    /// The daemon computes a plan, which opens processes and records nothing of them.
    pub(crate) is_planning: bool,
    /// The process that is evaluated, by PID and identity.
    pub(crate) opened: Option<(u32, u64)>,
    /// It was opened by a scan before its fork was read.
    pub(crate) is_opened_early: bool,
    /// Times of the last drop and of the last scan.
    pub(crate) dropped_at: u64,
    pub(crate) scanned_at: u64,
    /// What the daemon that runs was given and did.
    pub(crate) tally: Tally,
    /// Events that were dropped before it started.
    pub(crate) dropped_before: u64,
    pub(crate) rests: u32,
    /// The daemon that runs subscribed anew, because it heard nothing.
    pub(crate) has_resubscribed: bool,
    /// Time of the last read that blocked.
    pub(crate) blocked_at: u64,
    pub(crate) journal: Journal,
    pub(crate) counts: Counts,
    pub(crate) violation: Option<String>,
}

impl Machine {
    pub(crate) fn new(machine: u64, source: Source, sets: Rc<RuleSets>, journal: Journal) -> Self {
        let config = Config::of(machine);
        let mut own = Self {
            config,
            source,
            taken: Vec::new(),
            next: None,
            clock: 1_000_000_000,
            stalled: 0,
            events: 0,
            table: vec![None; config.last_pid as usize + 1],
            pids: Vec::new(),
            thread_ids: Vec::new(),
            last_pid: FIRST_PID - 1,
            identities: 0,
            hierarchies: Rc::new(hierarchies(config)),
            cgroups: Cgroups::default(),
            event_socket: Socket { room: config.event_room, ..Socket::default() },
            fork_socket: Socket { room: config.fork_room, ..Socket::default() },
            trace: Vec::new(),
            lost_moves: 0,
            moved_at: HashMap::new(),
            flights: Vec::new(),
            services: Services::default(),
            sets,
            files: config.first_rules,
            built: 0,
            active: Active::default(),
            policies: Vec::new(),
            requests: VecDeque::new(),
            refusals: VecDeque::new(),
            refused_group: None,
            sleep: 0,
            late_reads: 0,
            closes_groups: false,
            daemonizes: None,
            is_silent: false,
            wants_rest: false,
            is_killed: false,
            is_running: false,
            in_attach: false,
            is_scanning: false,
            is_planning: false,
            opened: None,
            is_opened_early: false,
            dropped_at: 0,
            scanned_at: 0,
            tally: Tally::default(),
            dropped_before: 0,
            rests: 0,
            has_resubscribed: false,
            blocked_at: 0,
            journal,
            counts: Counts::default(),
            violation: None,
        };
        own.populate();
        own.draw();
        own
    }

    /// Starts the processes of every machine.
    fn populate(&mut self) {
        for hierarchy in 0..2 {
            self.cgroups.make(hierarchy, "/", 0);
        }
        for (pid, parent, is_kernel_thread, program, uid) in [
            (1, 0, false, SYSTEMD, 0),
            (2, 0, true, TOOL, 0),
            (3, 2, true, TOOL, 0),
            (OWN, 1, false, TOOL, 0),
            (6, 1, false, TOOL, 0),
            (7, 1, false, TOOL, 0),
            (8, 1, false, TOOL, 1000),
            (9, 1, false, TOOL, 1001),
        ] {
            let process = self.new_process(pid, parent, program, (uid, uid));
            self.insert(Process { is_kernel_thread, is_linked: true, ..process });
        }
        if self.config.runs_systemd {
            for pid in [6, 8] {
                let group = self.cgroups.make(0, "/system.slice/some.service", 0);
                if let Some(process) = self.find_mut(pid) {
                    process.groups[0] = group;
                }
            }
        }
    }

    pub(crate) fn new_process(
        &mut self,
        pid: u32,
        parent: u32,
        program: usize,
        (uid, gid): (u32, u32),
    ) -> Process {
        self.identities += 1;
        let roots = [0, 1].map(|hierarchy| self.cgroups.find(hierarchy, "/").unwrap_or(0));
        Process {
            identity: self.identities,
            pid,
            parent,
            uid,
            gid,
            real: uid,
            program,
            threads: Vec::new(),
            acted: Vec::new(),
            has_leader_exited: false,
            is_zombie: false,
            is_kernel_thread: false,
            is_busy: false,
            is_linked: false,
            is_fork_unread: true,
            forked_at: 0,
            hang: None,
            vforked: None,
            groups: roots,
            stamp: self.clock,
            is_pinned: false,
            is_pin_inherited: false,
            pins_children: false,
            excuses: Default::default(),
            has_changed: true,
            unread_change: None,
            placed_at: 0,
            mistaken: None,
            creators: [0; 4],
            executed_after: 0,
            heir_of: 0,
            was_below: [false; 2],
            may_be_below: [false; 2],
            has_run: [false; 2],
            has_lost_change: false,
            has_unknown_program: false,
        }
    }

    /// Returns the identity of the process that was born last.
    pub(crate) const fn youngest(&self) -> u64 {
        self.identities
    }

    pub(crate) fn insert(&mut self, process: Process) {
        let pid = process.pid;
        let at = self.pids.partition_point(|&one| one < pid);
        self.pids.insert(at, pid);
        self.table[pid as usize] = Some(process);
    }

    pub(crate) fn remove(&mut self, pid: u32) {
        self.pids.retain(|&one| one != pid);
        let gone = self.table[pid as usize].take().filter(|gone| gone.is_fork_unread);
        let Some(gone) = gone else { return };
        for pid in self.pids.clone() {
            let heir = self.find_mut(pid).filter(|one| one.heir_of == gone.identity);
            heir.into_iter().for_each(|heir| heir.heir_of = gone.heir_of);
        }
    }

    pub(crate) fn find(&self, pid: u32) -> Option<&Process> {
        self.table.get(pid as usize)?.as_ref()
    }

    pub(crate) fn find_mut(&mut self, pid: u32) -> Option<&mut Process> {
        self.table.get_mut(pid as usize)?.as_mut()
    }

    /// Returns the process that has this ID or a thread with it.
    pub(crate) fn process_of(&self, id: u32) -> Option<&Process> {
        self.find(id).or_else(|| {
            let (_, process) = self.thread_ids.iter().find(|(thread, _)| *thread == id)?;
            self.find(*process)
        })
    }

    /// Returns the process that has this identity.
    pub(crate) fn by_identity(&self, identity: u64) -> Option<&Process> {
        self.pids.iter().filter_map(|&pid| self.find(pid)).find(|one| one.identity == identity)
    }

    /// Allocates the next free PID.
    pub(crate) fn allocate(&mut self, takes_last: bool) -> Option<u32> {
        // Some remain free, as otherwise every fork fails.
        let room = (self.config.last_pid - FIRST_PID) as usize;
        if self.pids.len() + self.thread_ids.len() > room * 3 / 4 && !takes_last {
            return None;
        }
        for _ in 0..=self.config.last_pid {
            self.last_pid += 1;
            if self.last_pid > self.config.last_pid {
                self.last_pid = FIRST_PID;
            }
            let pid = self.last_pid;
            if self.find(pid).is_none() && !self.thread_ids.iter().any(|&(id, _)| id == pid) {
                return Some(pid);
            }
        }
        None
    }

    /// Returns a time stamp for an event of a process. The clocks of CPUs differ, but what one
    /// process does is in order.
    pub(crate) fn stamp(&mut self, pid: u32, cpu: u16) -> u64 {
        let skew = if self.config.has_skew { u64::from(cpu & 1) * 400 } else { 0 };
        let clock = self.clock + skew;
        let Some(process) = self.find_mut(pid) else { return clock };
        process.stamp = clock.max(process.stamp + 1);
        process.stamp
    }

    /// Queues an event, or drops it.
    pub(crate) fn send(&mut self, event: Event) {
        if !self.is_running {
            return self.will_not_be_read(event);
        }
        let is_fork = matches!(event.what, EventKind::Fork { .. });
        let socket = if is_fork { &mut self.fork_socket } else { &mut self.event_socket };
        if socket.queue.len() >= socket.room {
            socket.dropped += 1;
            self.dropped_at = self.clock;
            let overrun = if is_fork { Situation::ForkOverrun } else { Situation::EventOverrun };
            self.counts.hit(overrun);
            if self.is_scanning {
                self.counts.hit(Situation::OverrunDuringScan);
            }
            self.note_lost_change(event.what);
            return self.will_not_be_read(event);
        }
        if socket.queue.back().is_some_and(|last| last.at > event.at) {
            self.counts.hit(Situation::StampsOutOfOrder);
        }
        socket.queue.push_back(event);
    }

    fn will_not_be_read(&mut self, event: Event) {
        if let EventKind::Exec(pid) | EventKind::Uid(Task { process: pid, .. }) = event.what {
            self.note_read(pid.get(), event.at.0);
        }
    }

    /// No change of this process until then is unread.
    pub(crate) fn note_read(&mut self, process: u32, until: u64) {
        if let Some(own) = self.find_mut(process) {
            own.unread_change = own.unread_change.filter(|&at| at > until);
        }
    }

    /// Creates a policy from the present files.
    pub(crate) fn build_policy(&mut self, generation: u64) -> Box<Policy> {
        let known: Vec<UserIdentity> =
            if self.config.keeps_users { self.active.believed.clone() } else { Vec::new() };
        self.policies.push((generation, self.files));
        let now = self.clock;
        self.sets.policy(self.files, generation, &self.hierarchies, &known, now)
    }

    /// The daemon activates a policy.
    pub(crate) fn activate(&mut self, generation: u64, users: Vec<UserIdentity>) {
        let set = self.policies.iter().find(|one| one.0 == generation).map_or(0, |one| one.1);
        self.policies.retain(|one| one.0 > generation);
        if set != self.active.set {
            self.counts.hit(Situation::DestinationsChange);
        }
        self.active = Active { generation, set, believed: users, named_groups: Vec::new() };
        for pid in self.pids.clone() {
            if let Some(process) = self.find_mut(pid) {
                // One may be in the trace, unread.
                process.excuses.moves = process.excuses.moves.min(1);
            }
        }
    }

    /// Checks whether the daemon that runs may have missed forks.
    pub(crate) const fn has_losses(&self) -> bool {
        self.has_resubscribed
            || self.event_socket.dropped + self.fork_socket.dropped != self.dropped_before
    }

    pub(crate) fn violate(&mut self, text: String) {
        if self.violation.is_none() {
            self.journal.note(self.clock, || format!("VIOLATION: {text}"));
            self.violation = Some(text);
        }
    }

    /// Lets time pass while the engine does something, with the steps that are due.
    pub(crate) fn pass(&mut self, ns: u64) {
        let began = self.clock;
        self.clock += ns;
        self.run_others();
        self.stalled += self.clock - began;
    }

    fn run_others(&mut self) {
        if self.is_silent || self.wants_rest || self.is_killed {
            return;
        }
        while let Some(entry) = self.next {
            if entry.gap > 0 {
                self.next = Some(Entry { gap: entry.gap - 1, ..entry });
                return;
            }
            self.clock += u64::from(entry.dt).min(LONGEST_STALL_NS);
            self.take();
            if self.wants_rest || self.is_killed || self.violation.is_some() {
                return;
            }
        }
    }

    /// Takes the next step.
    pub(crate) fn take(&mut self) {
        let Some(entry) = self.next.take() else { return };
        self.step(entry);
        if self.violation.is_none() {
            self.draw();
        }
    }

    fn draw(&mut self) {
        self.next = self.source.next();
        self.taken.extend(self.next);
    }

    /// Ends all system calls that are under way.
    pub(crate) fn land_all(&mut self) {
        while !self.flights.is_empty() {
            self.proceed(0);
        }
    }

    /// Returns the processes that `is_meant` accepts, chosen by `a`.
    pub(crate) fn pick(&self, a: u16, is_meant: impl Fn(&Process) -> bool) -> Option<u32> {
        let count = self.pids.iter().filter(|&&pid| self.find(pid).is_some_and(&is_meant)).count();
        if count == 0 {
            return None;
        }
        let mut meant = self.pids.iter().filter(|&&pid| self.find(pid).is_some_and(&is_meant));
        meant.nth(usize::from(a) % count).copied()
    }

    /// Returns the content of `/proc/PID/cgroup`.
    pub(crate) fn cgroup_text(&self, process: &Process, text: &mut Vec<u8>) {
        text.clear();
        for (hierarchy, tree) in self.hierarchies.iter().enumerate() {
            let group = self.cgroups.get(process.groups[hierarchy]);
            let deleted = if group.exists { "" } else { " (deleted)" };
            let id = HIERARCHY_IDS[hierarchy];
            let path = if process.is_linked { &*group.path } else { "/" };
            text.extend_from_slice(format!("{id}:{}:{path}{deleted}\n", tree.listed).as_bytes());
        }
    }
}

/// Returns the mounted hierarchies.
fn hierarchies(config: Config) -> Hierarchies {
    let unified = hierarchy(Version::V2, "", &["memory", "pids", "cpuset"]);
    let cpu = hierarchy(Version::V1, "cpu,cpuacct", &["cpu", "cpuacct"]);
    Hierarchies::new(if config.has_v1 { vec![unified, cpu] } else { vec![unified] })
}

fn hierarchy(version: Version, listed: &str, controllers: &[&str]) -> Hierarchy {
    Hierarchy {
        version,
        mount_point: "/sys/fs/cgroup".into(),
        top: "/".to_owned(),
        listed: listed.to_owned(),
        controllers: controllers.iter().map(ToString::to_string).collect(),
        favordynmods: false,
    }
}

/// Creates the time of an event.
pub(crate) const fn event(at: u64, what: EventKind) -> Event {
    Event { at: Nanos(at), what }
}
