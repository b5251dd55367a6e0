//! Finds the container in any path of a cgroup, and parses any content of the files of container engines: a container has
//! a name or an ID and ends with a component of the path, and none below the slice of a user belongs to root.
#![no_main]

use cgruled::cgroup::container::PathContainer;
use cgruled::policy::load::container_files::{docker_name, podman_names};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(found) = PathContainer::of(bytes) {
        assert!(found.end > 1 && bytes.get(found.end).is_none_or(|&byte| byte == b'/'));
        assert!(found.name.is_some() || found.id.is_some());
        assert!(!bytes.starts_with(b"/user.slice/user-7.slice/") || found.owner.is_some());
    }
    if let Ok(names) = podman_names(bytes) {
        assert!(names.len() <= bytes.len());
    }
    let _name = docker_name(bytes);
});
