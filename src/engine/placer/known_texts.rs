//! The text of `/proc/PID/cgroup` by v2 cgroup, for placements that concern no other hierarchy.
//!
//! Reading the file takes 52 us of the 128 us from the wake-up of an idle daemon to the move (moves
//! 5 ms apart, Linux 6.18). The ID of the v2 cgroup comes with the credentials of the process. The
//! kernel neither renames a v2 cgroup nor reuses an ID, so a text stays valid.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::cgroup::mounts::Version;
use crate::engine::kernel::Kernel;
use crate::kernel::process::path_in;

/// Maximum number of cgroups. When it is reached all are dropped.
const MAX: usize = 256;

/// Texts of v2 cgroups, each of one line.
#[derive(Debug, Default)]
pub(super) struct KnownTexts(HashMap<u64, Box<[u8]>, FixedState>);

impl KnownTexts {
    /// Returns the text of the cgroup with this ID.
    pub(super) fn get(&self, id: u64) -> Option<&[u8]> {
        self.0.get(&id).map(Box::as_ref)
    }

    /// Records the v2 line of `text`, which was read from a process that was in the cgroup with this
    /// ID before. A user can have moved the process in between, so the path is recorded only if the
    /// cgroup there has the ID.
    pub(super) fn record(&mut self, id: u64, text: &[u8], kernel: &impl Kernel) {
        let mut trees = kernel.hierarchies().iter();
        let unified = trees.position(|tree| tree.version == Version::V2);
        let (Some(hierarchy), Some(path)) = (unified, path_in(text, b"")) else { return };
        if kernel.group_id(hierarchy, path) != Some(id) {
            return;
        }
        if self.0.len() >= MAX {
            self.0.clear();
        }
        self.0.insert(id, [b"0::", path, b"\n"].concat().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake_kernel::FakeKernel;

    #[test]
    fn a_path_is_recorded_only_for_the_cgroup_that_is_there() {
        let mut kernel = FakeKernel::new();
        kernel.group_ids.insert("/a b".to_owned(), 7);
        let mut known = KnownTexts::default();
        // Another process moved this one from cgroup 8 to /a b between the two reads.
        known.record(8, b"3:pids:/x\n0::/a b\n", &kernel);
        assert_eq!(known.get(8), None);
        known.record(7, b"0::/removed\n", &kernel);
        known.record(7, b"3:pids:/x\n", &kernel);
        assert_eq!(known.get(7), None);
        known.record(7, b"3:pids:/x\n0::/a b\n", &kernel);
        assert_eq!(known.get(7), Some(&b"0::/a b\n"[..]));
    }

    #[test]
    fn the_number_of_cgroups_is_bounded() {
        let mut kernel = FakeKernel::new();
        let mut known = KnownTexts::default();
        for id in 0..3 * MAX as u64 {
            kernel.group_ids.insert(format!("/{id}"), id);
            known.record(id, format!("0::/{id}\n").as_bytes(), &kernel);
            assert!(known.get(id).is_some() && known.0.len() <= MAX);
        }
    }
}
