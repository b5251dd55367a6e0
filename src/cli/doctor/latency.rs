//! Measurement of the latency of a move, with a child process and two cgroups created for it. Must remove
//! both.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

use super::Finding;
use crate::cgroup::fast_moves::FastMovesGuard;
use crate::cgroup::mounts::{Hierarchies, HierarchySet, Version};
use crate::cgroup::tree::{AttachResult, CgroupTree, CurrentCgroup, GroupId};
use crate::config::daemon_toml::FastMoves;
use crate::event::Pid;
use crate::sys;

const TOPIC: &str = "latency";
/// Number of moves for each median.
const MOVES: usize = 10;
/// Pause between moves, long enough on most hosts for the kernel's lock to become cold again.
const APART: Duration = Duration::from_millis(100);
/// Pause before an isolated move, such as that of the first login in a while. On an idle host the kernel
/// can take more than [`APART`] to let the lock become cold.
const ISOLATED: Duration = Duration::from_secs(2);
/// Median above which a move waits for a grace period of the kernel.
const SLOW: Duration = Duration::from_millis(1);

pub(super) fn findings(
    hierarchies: &Arc<Hierarchies>,
    ground: Option<&str>,
    mode: FastMoves,
) -> Vec<Finding> {
    if !geteuid().is_root() {
        return vec![Finding::note(TOPIC, "not measured", "run cgrulectl doctor as root")];
    }
    let v2 = hierarchies.iter().position(|tree| tree.version == Version::V2);
    let Some(index) = v2.or_else(|| (!hierarchies.is_empty()).then_some(0)) else {
        return Vec::new();
    };
    let Some(root) = ground else {
        let advice = "start cgruled-pool.service: systemd owns the rest of the tree";
        return vec![Finding::note(
            TOPIC,
            "not measured: no part of the tree is delegated",
            advice,
        )];
    };
    match measured(hierarchies, index, root, mode) {
        Ok(findings) => findings,
        Err(error) => {
            let text = format!("cannot move a process: {error}");
            vec![Finding::wrong(TOPIC, text, "see the findings above, and cgroups(7)")]
        }
    }
}

fn measured(
    hierarchies: &Arc<Hierarchies>,
    index: usize,
    root: &str,
    mode: FastMoves,
) -> io::Result<Vec<Finding>> {
    let start = Instant::now();
    let mut ground = TestGroup::new(hierarchies, index, root)?;
    let set_up = start.elapsed();
    let frequent = ground.median(&|| ())?;
    thread::sleep(ISOLATED);
    let isolated = ground.attach(1)?;
    let cold = frequent.max(isolated);
    let text = format!(
        "a move takes {} after a pause of {} s, {} if they are {} ms apart (median of {MOVES}); two cgroups \
         and a process were created in {}",
        shown(isolated),
        ISOLATED.as_secs(),
        shown(frequent),
        APART.as_millis(),
        shown(set_up)
    );
    let mut found = vec![match cold > SLOW && mode == FastMoves::Off {
        true => Finding::note(TOPIC, text, "set fast_moves = \"warm\""),
        false => Finding::ok(TOPIC, text),
    }];
    if cold > SLOW && mode == FastMoves::Warm {
        let guard = FastMovesGuard::engage(FastMoves::Warm, hierarchies)?;
        let warm = ground.median(&|| guard.moved(sys::monotonic()))?;
        found.push(Finding::ok(
            TOPIC,
            format!("a move takes {} with fast_moves = \"warm\"", shown(warm)),
        ));
    }
    Ok(found)
}

fn shown(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// Two cgroups and a process for the measurement, removed on drop.
struct TestGroup {
    directory: PathBuf,
    child: Option<Child>,
    tree: CgroupTree,
    groups: Vec<GroupId>,
}

impl TestGroup {
    fn new(hierarchies: &Arc<Hierarchies>, index: usize, root: &str) -> io::Result<Self> {
        let name = format!("{root}/cgruled-doctor-{}", std::process::id());
        let directory = hierarchies[index].mount_point.join(name.trim_start_matches('/'));
        let tree = CgroupTree::new(Arc::clone(hierarchies));
        let mut ground = Self { directory, child: None, tree, groups: Vec::new() };
        for below in ["a", "b"] {
            let path = format!("{name}/{below}");
            let group = ground.tree.group(HierarchySet::of(&[index]), &path, true, || None);
            ground.groups.push(group.map_err(|refusal| io::Error::other(refusal.to_string()))?);
        }
        // The process exits by itself if this one is killed.
        let child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn()?;
        ground.child = Some(child);
        Ok(ground)
    }

    /// Moves the process to one cgroup if `count` is even, else to the other. Returns the latency.
    fn attach(&mut self, count: usize) -> io::Result<Duration> {
        let pid = self.child.as_ref().and_then(|child| Pid::new(child.id()));
        let Some(pid) = pid else { return Err(io::ErrorKind::NotFound.into()) };
        let group = self.groups[count % self.groups.len()];
        let start = Instant::now();
        match self.tree.attach(group, pid, CurrentCgroup::default()) {
            AttachResult::Moved | AttachResult::InPlace => Ok(start.elapsed()),
            AttachResult::Gone => Err(io::Error::other("the test process is gone")),
            AttachResult::Refused(refusal) => Err(io::Error::other(refusal.to_string())),
        }
    }

    /// Returns the median of moves that are isolated by a pause before each.
    fn median(&mut self, moved: &dyn Fn()) -> io::Result<Duration> {
        let mut times = Vec::with_capacity(MOVES);
        for count in 0..=MOVES {
            let time = self.attach(count)?;
            // The first move is not counted: the process may start in any cgroup.
            if count > 0 {
                times.push(time);
            }
            moved();
            thread::sleep(APART);
        }
        times.sort_unstable();
        Ok(times[times.len() / 2])
    }
}

impl Drop for TestGroup {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Neither call can fail for a child that was not waited for.
            let _killed = child.kill();
            let _status = child.wait();
        }
        for directory in
            [self.directory.join("a"), self.directory.join("b"), self.directory.clone()]
        {
            if let Err(error) = fs::remove_dir(&directory) {
                if error.kind() != io::ErrorKind::NotFound {
                    eprintln!("cgrulectl: doctor: cannot remove {}: {error}", directory.display());
                }
            }
        }
    }
}
