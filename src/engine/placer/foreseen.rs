//! The moves that a plan foresees: a placer in this mode decides as at a reload and makes no move. It must not
//! change anything but its own records.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use nix::errno::Errno;

use super::{Placement, PlacementStep, Placer, PlacerMode};
use crate::cgroup::mounts::{Hierarchies, HierarchySet, Version};
use crate::cgroup::tree::{CgroupError, CgroupOperation, CurrentCgroup};
use crate::config::daemon_toml::ExternalMoves;
use crate::control::plan::PlannedMove;
use crate::engine::kernel::Kernel;
use crate::event::Pid;
use crate::placement::stay::elsewhere;
use crate::telemetry::log::limit::LogLimiter;
use crate::telemetry::metrics::Metrics;

/// What a plan found out so far. Later decisions depend on it: a reload moves one process after the other.
#[derive(Debug, Default)]
pub(super) struct ForeseenMoves {
    /// The moves of the last process.
    of_last: Vec<PlannedMove>,
    /// Cgroups that would be created.
    created: HashSet<(usize, Box<str>), FixedState>,
    /// Processes that would leave their cgroup of the v2 hierarchy.
    leaving: HashSet<Pid, FixedState>,
}

impl ForeseenMoves {
    /// Checks whether a process would leave its cgroup of the v2 hierarchy.
    pub(super) fn leaves(&self, pid: Pid) -> bool {
        self.leaving.contains(&pid)
    }
}

impl Placer {
    /// Creates a placer for a plan, in the state of this one after another policy was adopted.
    pub(crate) fn foreseeing(&self) -> Self {
        let created = self.created.clone();
        let placer = Self::new(Arc::new(Metrics::default()), false, ExternalMoves::Off);
        let limiter = LogLimiter::closed();
        let mode = PlacerMode::Foresee(ForeseenMoves::default());
        Self { created, limiter, mode, ..placer }
    }

    /// Exchanges the known service managers of users with those of another placer, which are read for a plan.
    pub(crate) fn exchange_managers(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.managers, &mut other.managers);
    }

    /// Takes the moves that were recorded since the last call.
    pub(crate) fn take_foreseen(&mut self) -> Vec<PlannedMove> {
        match &mut self.mode {
            PlacerMode::Move | PlacerMode::DryRun => Vec::new(),
            PlacerMode::Foresee(foreseen) => std::mem::take(&mut foreseen.of_last),
        }
    }

    /// Lets the process count as moved for the decisions about those after it.
    pub(crate) fn count_foreseen(&mut self, pid: Pid, moves: &[PlannedMove], trees: &Hierarchies) {
        let PlacerMode::Foresee(foreseen) = &mut self.mode else { return };
        let is_unified = |one: &PlannedMove| {
            trees.get(one.hierarchy).is_some_and(|tree| tree.version == Version::V2)
        };
        if moves.iter().any(is_unified) {
            foreseen.leaving.insert(pid);
        }
        let created = moves.iter().filter(|one| one.creates);
        foreseen.created.extend(created.map(|one| (one.hierarchy, one.to.clone())));
    }

    /// Checks whether a plan found that this cgroup would be created.
    pub(super) fn is_foreseen(&self, hierarchy: usize, path: &str) -> bool {
        match &self.mode {
            PlacerMode::Move | PlacerMode::DryRun => false,
            PlacerMode::Foresee(foreseen) => {
                !foreseen.created.is_empty() && foreseen.created.contains(&(hierarchy, path.into()))
            }
        }
    }

    /// Records the moves into the cgroup `self.path`, or why the kernel would refuse them.
    pub(super) fn foresee(
        &mut self,
        now: CurrentCgroup<'_>,
        kernel: &mut impl Kernel,
        step: PlacementStep<'_>,
    ) -> Placement {
        let PlacementStep { policy, rule, target, span, subject, .. } = step;
        self.limit_groups(policy, (span, target), subject, kernel);
        let config = policy.configs.of_user(target, subject.path_user(policy).0);
        if let Some(key) = config.as_ref().and_then(|config| config.unmet()) {
            let path = format!("{}/{key}", self.path).into();
            let step = CgroupOperation::Set;
            let refusal = CgroupError { path, step, errno: Errno::EOPNOTSUPP };
            return self.refused(rule, target, subject, &refusal, kernel);
        }
        let text = now.text.unwrap_or_default();
        let mut moves = Vec::new();
        for hierarchy in span.indexes() {
            let path = full_path(kernel.hierarchies(), hierarchy, &self.path);
            let exists = kernel.group_id(hierarchy, path.as_bytes()).is_some();
            let is_new = !exists && !self.is_foreseen(hierarchy, &self.path);
            let creates =
                target.creates || config.as_ref().is_some_and(|own| own.creates.has(hierarchy));
            if is_new && !creates {
                let step = CgroupOperation::Open;
                let refusal = CgroupError { path: path.into(), step, errno: Errno::ENOENT };
                return self.refused(rule, target, subject, &refusal, kernel);
            }
            let to = || Box::from(&*self.path);
            let found =
                elsewhere(kernel.hierarchies(), HierarchySet::of(&[hierarchy]), &self.path, text);
            moves.extend(found.into_iter().map(|(hierarchy, from)| PlannedMove {
                hierarchy,
                from: from.into(),
                to: to(),
                creates: !exists,
            }));
        }
        if moves.is_empty() {
            return Placement::InPlace;
        }
        if let PlacerMode::Foresee(foreseen) = &mut self.mode {
            foreseen.of_last.append(&mut moves);
        }
        Placement::WouldPlace
    }
}

/// Returns the path of a cgroup as `/proc/PID/cgroup` shows it, from its path in the mounted hierarchy.
fn full_path(trees: &Hierarchies, hierarchy: usize, path: &str) -> String {
    let top = trees.get(hierarchy).map_or("", |tree| tree.top.trim_end_matches('/'));
    format!("{top}{path}")
}
