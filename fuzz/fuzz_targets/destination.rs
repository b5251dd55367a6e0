//! Renders a destination with a hostile name, which are separated by the first zero byte: the
//! result stays below its base and has as many components as the destination.
#![no_main]

use cgruled::event::{Gid, Pid, Uid};
use cgruled::rules::destination::{Destination, SpecifierValues};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let middle = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let (text, name) = (&bytes[..middle], bytes.get(middle + 1..).unwrap_or_default());
    let Ok(Ok(destination)) = std::str::from_utf8(text).map(Destination::parse) else { return };
    let Some(pid) = Pid::new(7) else { return };
    let user = std::str::from_utf8(name).ok();
    let who = SpecifierValues { uid: Uid(1), user, gid: Gid(2), group: user, pid, program: Some(name) };
    let mut path = String::new();
    destination.render(&who, &mut path);
    let written = destination.as_str();
    if written == "/" {
        assert_eq!(path, "");
        return;
    }
    let trimmed = written.strip_prefix('/').unwrap_or(written);
    let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
    assert_eq!(path.split('/').count(), trimmed.split('/').count());
    for component in path.split('/') {
        assert!(!matches!(component, "" | "." | ".." | "cgroup.procs" | "tasks"));
        assert!(component.len() <= 255 && !component.contains(char::is_control));
    }
});
