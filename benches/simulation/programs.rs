//! The programs that simulated processes run.

/// Properties of an executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// The link `/proc/PID/exe`.
    pub(crate) link: &'static str,
    pub(crate) comm: &'static str,
    /// The path of the file, and whether it is that of the host.
    pub(crate) path: &'static str,
    pub(crate) is_on_host: bool,
    pub(crate) invoked: Option<&'static str>,
    pub(crate) shares_mounts: bool,
    /// The link cannot be read.
    pub(crate) is_hidden: bool,
}

const fn plain(link: &'static str, comm: &'static str) -> Program {
    Program {
        link,
        comm,
        path: link,
        is_on_host: true,
        invoked: None,
        shares_mounts: true,
        is_hidden: false,
    }
}

impl Program {
    /// Checks whether a rule for this path means the program.
    pub(crate) fn is_known_as(&self, path: &str) -> bool {
        self.is_on_host && self.path == path || self.invoked == Some(path)
    }
}

pub(crate) const TOOL: usize = 0;
pub(crate) const SU: usize = 2;
pub(crate) const SYSTEMD: usize = 8;
pub(crate) const SHELL: usize = 3;
/// A process that forked executes one of the first of these.
pub(crate) const ORDINARY: usize = 8;

pub(crate) const PROGRAMS: [Program; 9] = [
    plain("/usr/bin/tool", "tool"),
    plain("/opt/db", "db"),
    plain("/usr/bin/su", "su"),
    plain("/bin/bash", "bash"),
    Program { invoked: Some("/opt/job.py"), ..plain("/usr/bin/python3", "job.py") },
    Program { path: "/opt/db", is_on_host: false, ..plain("/opt/db (deleted)", "db") },
    Program { is_on_host: false, shares_mounts: false, ..plain("/opt/db", "db") },
    Program { is_hidden: true, ..plain("/hidden", "hidden") },
    plain("/usr/lib/systemd/systemd", "systemd"),
];
