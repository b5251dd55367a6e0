//! Reads the time at which a process was attached from a trace event of the kernel, in
//! a tracing instance of our own.

use std::fs;
use std::path::PathBuf;

use crate::Result;
use crate::machine::{Ground, trace_instance};

/// The tracing instance; the supervisor removes it if this process cannot.
pub(crate) struct Trace {
    dir: PathBuf,
}

/// The attach of one process to a cgroup of the benchmark.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Attach {
    pub(crate) pid: i64,
    /// `CLOCK_MONOTONIC`, truncated to microseconds: the text format has no more digits.
    pub(crate) ns: i64,
}

impl Trace {
    pub(crate) fn start(ground: &Ground) -> Result<Self> {
        let trace = Self { dir: trace_instance(&ground.name) };
        if !trace.dir.exists() {
            fs::create_dir(&trace.dir)?;
        }
        for (file, text) in [
            ("trace_clock", "mono".to_owned()),
            ("buffer_size_kb", "2048".to_owned()),
            (
                "events/cgroup/cgroup_attach_task/filter",
                format!("dst_path ~ \"/{}/*\"", ground.name),
            ),
            ("events/cgroup/cgroup_attach_task/enable", "1".to_owned()),
        ] {
            fs::write(trace.dir.join(file), text)
                .map_err(|error| format!("tracing {file}: {error}"))?;
        }
        Ok(trace)
    }

    /// Discards all records so far.
    pub(crate) fn clear(&self) -> Result<()> {
        Ok(fs::write(self.dir.join("trace"), "")?)
    }

    pub(crate) fn attaches(&self) -> Result<Vec<Attach>> {
        let text = fs::read(self.dir.join("trace"))?;
        Ok(String::from_utf8_lossy(&text).lines().filter_map(parse).collect())
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.dir) {
            eprintln!("storm: {}: {error}", self.dir.display());
        }
    }
}

/// Parses a line such as
/// `comm-1 [000] ..... 12.345678: cgroup_attach_task: dst_root=1 ... pid=77 comm=name`.
fn parse(line: &str) -> Option<Attach> {
    let (head, fields) = line.split_once(": cgroup_attach_task: ")?;
    let (seconds, micros) = head.rsplit(' ').next()?.split_once('.')?;
    let ns = seconds.parse::<i64>().ok()? * 1_000_000_000 + micros.parse::<i64>().ok()? * 1000;
    // The last " pid=" before the name: a path may contain one too.
    let (before, _comm) = fields.rsplit_once(" comm=")?;
    let pid = before.rsplit_once(" pid=")?.1.parse().ok()?;
    Some(Attach { pid, ns })
}
