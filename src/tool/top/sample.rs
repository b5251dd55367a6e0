//! The figures of groups at one moment, from the files of either interface.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::patterns::Patterns;
use crate::cgroup::mounts::{Hierarchies, Hierarchy, Version};

/// Groups that are shown at most: reading each takes some 100 us.
const MOST: usize = 2000;
/// Bytes of a file that count.
const MAX_BYTES: u64 = 64 * 1024;

/// What the kernel says of a group; `None` where it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// Time of CPUs used, in nanoseconds.
    pub(super) cpu: Option<u64>,
    /// Time for which it was kept from running, in nanoseconds.
    pub(super) throttled: Option<u64>,
    /// Bytes in use.
    pub(super) memory: Option<u64>,
    /// Bytes read and written.
    pub(super) io: Option<u64>,
    /// Threads.
    pub(super) tasks: Option<u64>,
    /// The part of the last ten seconds in which somebody waited, in percent, and for what.
    pub(super) pressure: Option<(f64, Resource)>,
    /// Processes that were killed for want of memory.
    pub(super) oom_kills: Option<u64>,
}

/// What groups wait for.
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

/// A group that rules can lead to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    /// The rules, by their position.
    pub(super) rules: Vec<usize>,
    pub(super) figures: Figures,
}

/// All such groups by their path, which is bytes, as file names are.
pub(super) type Groups = BTreeMap<Vec<u8>, Group>;

/// Where groups are looked for.
pub(super) struct Sampler {
    pub(super) hierarchies: Arc<Hierarchies>,
    pub(super) patterns: Patterns,
}

/// The directories of a group.
#[derive(Default)]
struct Places {
    rules: Vec<usize>,
    directories: Vec<(usize, PathBuf)>,
}

impl Sampler {
    /// Reads all groups.
    pub(super) fn sample(&self) -> Groups {
        let mut places: BTreeMap<Vec<u8>, Places> = BTreeMap::new();
        for (index, tree) in self.hierarchies.iter().enumerate() {
            self.walk((index, &tree.mount_point), &mut Vec::new(), &mut places);
        }
        let figures = |places: Places| {
            let figures = self.figures(&places.directories);
            Group { rules: places.rules, figures }
        };
        places.into_iter().map(|(path, places)| (path, figures(places))).collect()
    }

    fn walk(
        &self,
        (index, directory): (usize, &Path),
        names: &mut Vec<Vec<u8>>,
        places: &mut BTreeMap<Vec<u8>, Places>,
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
        // A group that is removed meanwhile has nobody in it.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                names.push(OsString::into_vec(entry.file_name()));
                self.walk((index, &entry.path()), names, places);
                names.pop();
            }
        }
    }

    fn figures(&self, directories: &[(usize, PathBuf)]) -> Figures {
        let mut figures = Figures::default();
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

/// Version 2 has figures of CPUs and pressure for every group, the others for controllers that are on.
fn v2(directory: &Path, figures: &mut Figures) {
    let cpu = read(directory, "cpu.stat");
    let microseconds = |key| Some(field(cpu.as_deref()?, key)? * 1000);
    figures.cpu = microseconds("usage_usec").or(figures.cpu);
    figures.throttled = microseconds("throttled_usec").or(figures.throttled);
    figures.memory = number(directory, "memory.current").or(figures.memory);
    let events = read(directory, "memory.events");
    let killed = events.and_then(|text| field(&text, "oom_kill"));
    figures.oom_kills = killed.or(figures.oom_kills);
    figures.io = read(directory, "io.stat").map(|text| bytes_moved(&text)).or(figures.io);
    let count = || read(directory, "cgroup.threads").map(|text| text.lines().count() as u64);
    figures.tasks = number(directory, "pids.current").or(figures.tasks).or_else(count);
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

fn v1(directory: &Path, tree: &Hierarchy, figures: &mut Figures) {
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

/// The number in the line `key number`.
fn field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// Bytes read and written of all devices: `8:0 rbytes=1 wbytes=2 rios=...`.
fn bytes_moved(text: &str) -> u64 {
    let of = |word: &str| {
        let bytes = word.strip_prefix("rbytes=").or_else(|| word.strip_prefix("wbytes="))?;
        bytes.parse::<u64>().ok()
    };
    text.split_ascii_whitespace().filter_map(of).sum()
}

/// The `avg10` of the line `some`.
fn some_average(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    let value = line.split(' ').find_map(|word| word.strip_prefix("avg10="))?;
    value.parse().ok().filter(|value: &f64| value.is_finite())
}

/// A path for people: what could move a cursor, forge a line or take another width is escaped.
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

/// A path for programs.
pub(super) fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(std::ffi::OsStr::from_bytes(path).as_bytes()).into_owned()
}
