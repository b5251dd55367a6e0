//! Parses any content of the files of a process in `/proc`: `status`, `stat`, `cgroup` and `children`, separated by
//! zero bytes, of which each may be missing. Each result is valid or absent.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use cgruled::event::Pid;
use cgruled::kernel::process::{ProcFs, path_in};
use libfuzzer_sys::fuzz_target;

/// Creates the directory of process 7.
fn directory() -> PathBuf {
    let directory = std::env::temp_dir().join(format!("cgruled-fuzz-{}", std::process::id()));
    fs::create_dir_all(directory.join("7/task/7")).expect("a directory for the files");
    directory
}

fuzz_target!(|bytes: &[u8]| {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(directory);
    let mut parts = bytes.splitn(4, |&byte| byte == 0);
    for name in ["status", "stat", "cgroup", "task/7/children"] {
        let path = directory.join("7").join(name);
        match parts.next() {
            Some(text) => fs::write(path, text).expect("room for a file"),
            None => drop(fs::remove_file(path)),
        }
    }
    let mut proc = ProcFs::open(directory).expect("the directory");
    let Some(pid) = Pid::new(7) else { return };
    if let Some(status) = proc.status(pid) {
        assert!(status.process.get() > 0 && status.inner_pid.is_none_or(|pid| pid.get() > 0));
    }
    let _namespace = proc.is_in_namespace_of_root(pid);
    let _identity = proc.identity(pid);
    proc.children(pid, |child| assert!(child.get() > 0));
    let text = proc.cgroup(pid, None).unwrap_or_default().to_vec();
    for controllers in [&b""[..], b"name=systemd"] {
        assert!(path_in(&text, controllers).is_none_or(|path| !path.contains(&b'\n')));
    }
});
