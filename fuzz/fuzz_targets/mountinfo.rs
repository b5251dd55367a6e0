//! Parses `/proc/self/mountinfo` and `/proc/self/cgroup`, which are separated by the first zero
//! byte: any text terminates, and every hierarchy in the result can be queried.
#![no_main]

use cgruled::cgroup::mounts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (mountinfo, own) = text.split_once('\0').unwrap_or((text, text));
    let found = mounts::hierarchies(mountinfo, own);
    assert!(found.len() <= mounts::Hierarchies::MOST);
    for tree in found.iter() {
        let (_span, missing) = found.span(&tree.controllers);
        assert!(missing.is_empty());
    }
});
