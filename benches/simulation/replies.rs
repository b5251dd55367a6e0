//! The replies of the helper threads of the daemon. They come late, wrong or never.

use cgruled::config::daemon_toml::changes::SettingChanges;
use cgruled::event::{Gid, Nanos, Pid, Uid};
use cgruled::kernel::exe_pool::Examination;
use cgruled::kernel::program::{Arguments, Examined, Program};
use cgruled::policy::User;
use cgruled::policy::planned::PlannedPolicy;
use cgruled::policy::worker::WorkerReply;
use cgruled::rules::names::UserIdentity;

use super::machine::Machine;
use super::process::Process;
use super::programs::{ORDINARY, PROGRAMS};
use super::rules;
use super::services::{Key, Lookup, Task};
use super::situations::Situation;

impl Machine {
    /// Lets one request, chosen by `a`, have its reply. With `is_wrong` a lookup has a wrong one.
    pub(crate) fn reply(&mut self, a: u16, is_wrong: bool) {
        let ready: Vec<usize> = (0..self.services.lookups.len())
            .filter(|&index| {
                let one = &self.services.lookups[index];
                !one.is_running && one.sleeps == 0
            })
            .collect();
        let choices = ready.len() + self.services.tasks.len();
        if choices == 0 {
            return;
        }
        let choice = usize::from(a) % choices;
        match ready.get(choice) {
            Some(&index) => self.look_up(index, is_wrong),
            None => self.run_task(choice - ready.len()),
        }
    }

    /// A process is examined, and executes another program before the daemon takes the reply.
    pub(crate) fn examine_before_exec(&mut self, a: u16, b: u16) {
        let ready: Vec<(usize, u32)> = (0..self.services.tasks.len())
            .filter_map(|index| match &self.services.tasks[index] {
                Task::Examine { examination, .. } => Some((index, examination.pid.get())),
                Task::Reload | Task::Plan(_) | Task::Provoke => None,
            })
            .filter(|&(_, pid)| self.find(pid).is_some_and(Process::can_act))
            .collect();
        if ready.is_empty() {
            return;
        }
        let (index, pid) = ready[usize::from(a) % ready.len()];
        self.run_task(index);
        self.counts.hit(Situation::ExecAfterExamination);
        self.exec(pid, usize::from(b) % ORDINARY, None, false);
    }

    fn look_up(&mut self, index: usize, is_wrong: bool) {
        let lookup = &mut self.services.lookups[index];
        lookup.is_running = true;
        let &mut Lookup { key, generation, set, .. } = lookup;
        let asked = Nanos(self.clock);
        if is_wrong {
            self.counts.hit(Situation::WrongReply);
        }
        let reply = match key {
            Key::User(uid) => {
                let identity =
                    if is_wrong { UserIdentity::nameless(Uid(uid)) } else { rules::identity(uid) };
                let user = User::new(self.sets.matcher(set), identity, asked);
                WorkerReply::User { generation, user }
            }
            Key::Group(gid) => {
                let name = if is_wrong { None } else { rules::group_name(gid).map(Box::from) };
                WorkerReply::Group { generation, gid: Gid(gid), name }
            }
        };
        self.services.replies.push(reply);
    }

    /// Runs a task. The rule thread serves its requests in order.
    fn run_task(&mut self, index: usize) {
        let is_first = |task: &Task| !matches!(task, Task::Examine { .. });
        let is_of_rules = is_first(&self.services.tasks[index]);
        let index = if is_of_rules {
            self.services.tasks.iter().position(is_first).unwrap_or(index)
        } else {
            index
        };
        if let Task::Examine { examination, .. } = &self.services.tasks[index] {
            let hangs = |pid| self.find(pid).is_some_and(|one| one.hang.is_some());
            if hangs(examination.pid.get()) {
                return;
            }
        }
        match self.services.tasks.remove(index) {
            Some(Task::Reload) => {
                self.built += 1;
                let policy = self.build_policy(self.built);
                self.services.replies.push(WorkerReply::Policy(policy));
            }
            Some(Task::Plan(number)) => {
                self.built += 1;
                let policy = self.build_policy(self.built);
                self.services.plan_users =
                    policy.users.values().map(|user| user.identity.clone()).collect();
                let policy = Some(policy);
                let (diagnostics, settings) = (Vec::new(), SettingChanges::default());
                let planned = PlannedPolicy { number, policy, diagnostics, settings };
                self.services.replies.push(WorkerReply::Planned(Box::new(planned)));
            }
            Some(Task::Provoke) => self.run_test_process(),
            Some(Task::Examine { examination, at, .. }) => {
                if self.clock > at + 100_000_000 {
                    self.counts.hit(Situation::LateExamination);
                }
                let Examination { pid, number, raw, .. } = examination;
                let examined = self.examined(pid, raw.as_deref());
                self.services.replies.push(WorkerReply::Examined { pid, number, examined });
            }
            None => {}
        }
    }

    fn examined(&mut self, pid: Pid, raw: Option<&[u8]>) -> Examined {
        self.counts.hit(Situation::Examination);
        let Some(process) = self.find(pid.get()) else { return Examined::Gone };
        if process.is_zombie || process.is_kernel_thread {
            return Examined::Gone;
        }
        let program = PROGRAMS[process.program];
        if program.is_hidden {
            return Examined::Unreadable;
        }
        if raw.is_some_and(|raw| raw != program.link.as_bytes()) {
            self.counts.hit(Situation::ChangedBeforeExamination);
            return Examined::Changed;
        }
        Examined::Program(Program {
            arguments: Arguments::default(),
            raw: program.link.as_bytes().into(),
            path: program.path.as_bytes().into(),
            on_host: program.is_on_host,
            invoked: program.invoked.map(|path| path.as_bytes().into()),
            is_unreadable: false,
        })
    }
}
