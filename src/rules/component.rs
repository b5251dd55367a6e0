//! Renders one component of a cgroup path so that the kernel accepts it as the name of a cgroup. It
//! must not let a value add or remove a component.

use std::fmt::{self, Write as _};

/// The maximum length of a directory name in bytes (`NAME_MAX`).
pub(super) const NAME_MAX: usize = 255;
/// Prefixes of interface files: their names begin with that of their controller and a dot.
const CONTROLLERS: [&str; 17] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "dmem",
    "freezer",
    "hugetlb",
    "io",
    "irq",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];

/// Checks whether the kernel has, or may have, an interface file of this name in a cgroup.
pub(super) fn is_cgroup_file(name: &str) -> bool {
    match name.split_once('.') {
        Some((before, _)) => before == "cgroup" || CONTROLLERS.contains(&before),
        None => matches!(name, "tasks" | "notify_on_release" | "release_agent"),
    }
}

/// Appends `name` escaped, or `number` if there is no name.
pub(super) fn write_or(out: &mut String, name: Option<&[u8]>, number: u32) {
    match name {
        Some(name) if !name.is_empty() => {
            for chunk in name.utf8_chunks() {
                chunk.valid().chars().for_each(|character| escape(out, character));
                chunk.invalid().iter().for_each(|&byte| escape_byte(out, byte));
            }
        }
        Some(_) | None => fmt_into(out, format_args!("{number}")),
    }
}

fn escape(out: &mut String, character: char) {
    if character == '/' || character == '\\' || character.is_control() {
        let mut bytes = [0; 4];
        character.encode_utf8(&mut bytes).bytes().for_each(|byte| escape_byte(out, byte));
    } else {
        out.push(character);
    }
}

fn escape_byte(out: &mut String, byte: u8) {
    fmt_into(out, format_args!("\\x{byte:02x}"));
}

fn fmt_into(out: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    let _ = out.write_fmt(text);
}

/// The component that is being rendered.
pub(super) struct Component {
    start: usize,
    /// Whether a specifier was expanded in it.
    pub(super) has_field: bool,
}

impl Component {
    /// Creates an empty component that begins at byte `start` of the output.
    pub(super) fn at(start: usize) -> Self {
        Self { start, has_field: false }
    }

    /// Completes the component and changes an expanded value that cannot name a cgroup.
    pub(super) fn finish(&self, out: &mut String) {
        if !self.has_field {
            return;
        }
        match &out[self.start..] {
            "." => out.replace_range(self.start.., "\\x2e"),
            ".." => out.replace_range(self.start.., "\\x2e\\x2e"),
            // Names that already begin with `_` get one more, so that no two names become equal.
            name if is_cgroup_file(name.trim_start_matches('_')) => out.insert(self.start, '_'),
            _ => {}
        }
        if out.len() - self.start > NAME_MAX {
            shorten(out, self.start);
        }
    }
}

/// Truncates the component that begins at `start` and appends a hash of the whole component.
fn shorten(out: &mut String, start: usize) {
    let hash = fnv1a(&out.as_bytes()[start..]);
    // The `~` takes 1 byte and the hash 16.
    let mut end = start + NAME_MAX - 17;
    while !out.is_char_boundary(end) {
        end -= 1;
    }
    out.truncate(end);
    fmt_into(out, format_args!("~{hash:016x}"));
}

/// Returns the FNV-1a hash in 64 bits. The hash must never change, because names of cgroups outlive
/// the daemon.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
