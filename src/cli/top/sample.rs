//! Samples of the resource usage of cgroups, from the files of cgroup v1 and v2.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::patterns::DestinationPatterns;
use crate::cgroup::mounts::{Hierarchies, Hierarchy, Version};

/// Maximum of cgroups in a sample: reading each takes about 100 us.
const MOST: usize = 2000;
/// Maximum bytes read of a file.
const MAX_BYTES: u64 = 64 * 1024;

/// Values that the kernel reports for a cgroup; `None` where it reports none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct GroupUsage {
    /// CPU time used, in nanoseconds.
    pub(super) cpu: Option<u64>,
    /// Time throttled by the CPU limit, in nanoseconds.
    pub(super) throttled: Option<u64>,
    /// Memory in use, in bytes.
    pub(super) memory: Option<u64>,
    /// Bytes read and written, all devices together.
    pub(super) io: Option<u64>,
    /// Number of threads in the cgroup.
    pub(super) tasks: Option<u64>,
    /// Part of the last ten seconds in which some task waited, in percent, and the resource.
    pub(super) pressure: Option<(f64, Resource)>,
    /// Number of processes killed by the OOM killer.
    pub(super) oom_kills: Option<u64>,
}

/// Resource that tasks wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Cpu,
    Memory,
    Io,
}

impl Resource {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Io => "io",
        }
    }
}

/// Cgroup that a destination of a rule can expand to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SampledGroup {
    /// Rules with such a destination, by their position.
    pub(super) rules: Vec<usize>,
    pub(super) figures: GroupUsage,
}

/// Cgroups by path. Paths are bytes, as file names are.
pub(super) type SampledGroups = BTreeMap<Vec<u8>, SampledGroup>;

/// Reader of samples from the mounted hierarchies.
pub(super) struct Sampler {
    pub(super) hierarchies: Arc<Hierarchies>,
    pub(super) patterns: DestinationPatterns,
}

/// Directories of a cgroup, by hierarchy.
#[derive(Default)]
struct GroupDirectories {
    rules: Vec<usize>,
    directories: Vec<(usize, PathBuf)>,
}

impl Sampler {
    /// Reads the values of all cgroups that rules can use.
    pub(super) fn sample(&self) -> SampledGroups {
        let mut places: BTreeMap<Vec<u8>, GroupDirectories> = BTreeMap::new();
        for (index, tree) in self.hierarchies.iter().enumerate() {
            self.walk((index, &tree.mount_point), &mut Vec::new(), &mut places);
        }
        let groups = places.into_iter().map(|(path, GroupDirectories { rules, directories })| {
            (path, SampledGroup { rules, figures: self.figures(&directories) })
        });
        groups.collect()
    }

    fn walk(
        &self,
        (index, directory): (usize, &Path),
        names: &mut Vec<Vec<u8>>,
        places: &mut BTreeMap<Vec<u8>, GroupDirectories>,
    ) {
        let found = self.patterns.find(names);
        if !found.rules.is_empty() && !names.is_empty() {
            let path = names.iter().flat_map(|name| [&b"/"[..], name]).flatten().copied().collect();
            if places.len() >= MOST && !places.contains_key(&path) {
                return;
            }
            let place = places.entry(path).or_default();
            place.rules = found.rules;
            place.directories.push((index, directory.to_owned()));
        }
        if !found.goes_on {
            return;
        }
        // Errors are ignored: a cgroup that is removed meanwhile has no processes.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                names.push(OsString::into_vec(entry.file_name()));
                self.walk((index, &entry.path()), names, places);
                names.pop();
            }
        }
    }

    fn figures(&self, directories: &[(usize, PathBuf)]) -> GroupUsage {
        let mut figures = GroupUsage::default();
        for (index, directory) in directories {
            let Some(tree) = self.hierarchies.get(*index) else { continue };
            match tree.version {
                Version::V2 => v2(directory, &mut figures),
                Version::V1 => v1(directory, tree, &mut figures),
            }
        }
        figures
    }
}

/// Reads a v2 cgroup. CPU time and pressure exist in every cgroup, other values only for enabled controllers.
fn v2(directory: &Path, figures: &mut GroupUsage) {
    if let Some(cpu) = read(directory, "cpu.stat") {
        figures.cpu = field(&cpu, "usage_usec").map(|us| us * 1000).or(figures.cpu);
        figures.throttled = field(&cpu, "throttled_usec").map(|us| us * 1000).or(figures.throttled);
    }
    figures.memory = number(directory, "memory.current").or(figures.memory);
    let events = read(directory, "memory.events");
    let killed = events.and_then(|text| field(&text, "oom_kill"));
    figures.oom_kills = killed.or(figures.oom_kills);
    figures.io = read(directory, "io.stat").map(|text| bytes_moved(&text)).or(figures.io);
    figures.tasks = number(directory, "pids.current").or(figures.tasks).or_else(|| {
        read(directory, "cgroup.threads").map(|threads| threads.lines().count() as u64)
    });
    let files = [
        ("cpu.pressure", Resource::Cpu),
        ("memory.pressure", Resource::Memory),
        ("io.pressure", Resource::Io),
    ];
    for (file, of) in files {
        let some = read(directory, file).and_then(|text| some_average(&text));
        if let Some(some) =
            some.filter(|some| figures.pressure.is_none_or(|(most, _)| *some > most))
        {
            figures.pressure = Some((some, of));
        }
    }
}

fn v1(directory: &Path, tree: &Hierarchy, figures: &mut GroupUsage) {
    for controller in &tree.controllers {
        match &**controller {
            "cpuacct" => figures.cpu = figures.cpu.or_else(|| number(directory, "cpuacct.usage")),
            "cpu" => {
                let stat = read(directory, "cpu.stat");
                let time = stat.and_then(|text| field(&text, "throttled_time"));
                figures.throttled = time.or(figures.throttled);
            }
            "memory" => {
                figures.memory = number(directory, "memory.usage_in_bytes").or(figures.memory);
                let control = read(directory, "memory.oom_control");
                let killed = control.and_then(|text| field(&text, "oom_kill"));
                figures.oom_kills = killed.or(figures.oom_kills);
            }
            "blkio" => {
                let moved = read(directory, "blkio.throttle.io_service_bytes");
                let total = moved.and_then(|text| field(&text, "Total"));
                figures.io = total.or(figures.io);
            }
            "pids" => figures.tasks = number(directory, "pids.current").or(figures.tasks),
            _ => {}
        }
    }
}

fn read(directory: &Path, file: &str) -> Option<String> {
    let mut text = String::new();
    let file = File::open(directory.join(file)).ok()?;
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

fn number(directory: &Path, file: &str) -> Option<u64> {
    read(directory, file)?.trim().parse().ok()
}

/// Returns the number in the line `key number`.
fn field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// Returns the bytes read and written on all devices: `8:0 rbytes=1 wbytes=2 rios=...`.
fn bytes_moved(text: &str) -> u64 {
    let words = text.split_ascii_whitespace();
    let bytes = words.filter_map(|word| {
        word.strip_prefix("rbytes=").or_else(|| word.strip_prefix("wbytes="))?.parse::<u64>().ok()
    });
    bytes.sum()
}

/// Returns the `avg10` of the line `some`.
fn some_average(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    let value = line.split(' ').find_map(|word| word.strip_prefix("avg10="))?;
    value.parse().ok().filter(|value: &f64| value.is_finite())
}

/// Escapes a path for a terminal: everything that could move the cursor, forge a line or take another width.
pub(super) fn shown(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                ' '..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{24f}' => text.push(character),
                '\u{391}'..='\u{3c9}' | '\u{410}'..='\u{44f}' => text.push(character),
                other => text.extend(other.escape_default()),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Converts a path to text for JSON, with replacement characters for bytes that are not UTF-8.
pub(super) fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(std::ffi::OsStr::from_bytes(path).as_bytes()).into_owned()
}
