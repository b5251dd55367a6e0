//! `cgrulectl run`: starts a command in its cgroup. The command must not run a single instruction elsewhere.
//!
//! The tool itself enters the cgroups, changes its credentials and is then replaced by the command, which so
//! has the PID, terminal, signals and exit status of the tool. `CLONE_INTO_CGROUP` would save one wait for
//! the kernel (about 10 ms on a stock 6.18), on cgroup v2 alone, and would need a second process that stays
//! and forwards signals.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{self, User};

use super::command::{DaemonFlags, ToolError};
use super::daemon_client::RunNotes;
use super::what_if::{Credentials, WhatIf, WhatIfProgram};
use crate::cgroup::tree::{AttachResult, CgroupError, CgroupTree, CurrentCgroup};
use crate::control::request::GRANTED;
use crate::event::{Gid, Pid, Uid};
use crate::policy::load::NameService;
use crate::rules::destination::Destination;
use crate::rules::{PathBase, Rule, Target};
use crate::telemetry::log::escaped;

#[derive(clap::Args)]
#[command(
    about = "Run a command in the cgroup of its rule, or in another",
    after_help = "\
Examples:
  cgrulectl run --user www -- php-fpm -F
      run php-fpm as www in its rule's cgroup; exit status: that of the
      command, 125 if it could not be placed, 126 or 127 if it could not be
      executed
  cgrulectl run --cgroup batch/%u -- make -j
      run as the caller in a given cgroup",
    override_usage = "cgrulectl run [OPTIONS] [--] COMMAND [ARGUMENT]..."
)]
pub(super) struct RunArgs {
    /// run as this user (name or UID)
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// run with this group (default: the user's own)
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// use this cgroup, which may contain %-specifiers
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// with --cgroup: also in these v1 hierarchies: cpu,memory
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "cgroup")]
    controllers: Option<Vec<String>>,
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    command: Vec<OsString>,
    #[command(flatten)]
    daemon: DaemonFlags,
}

/// Flag of a sticky request, as cgexec sends it: the process is not moved, its children are.
const STAY: i32 = 0;
const STICKY_SOCKET: &str = "/run/cgred.socket";
/// Exit codes of env(1): placement failed, program not executable, program not found.
const NOT_PLACED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

pub(super) fn run(given: &RunArgs) -> Result<u8, ToolError> {
    let Some((name, arguments)) = given.command.split_first() else {
        return Err(ToolError::Usage("run: missing COMMAND".to_owned()));
    };
    match placed(given, name) {
        Ok((program, identity)) => Ok(execute(&program, name, arguments, identity.as_ref())),
        Err(NotRun::Failed(ToolError::Usage(message))) => Err(ToolError::Usage(message)),
        Err(NotRun::Failed(failure)) => {
            eprintln!("cgrulectl: run: {failure}");
            Ok(NOT_PLACED)
        }
        Err(NotRun::NoProgram) => {
            eprintln!("cgrulectl: run: {}: command not found", shown(name));
            Ok(NOT_FOUND)
        }
    }
}

enum NotRun {
    Failed(ToolError),
    NoProgram,
}

impl From<ToolError> for NotRun {
    fn from(failure: ToolError) -> Self {
        Self::Failed(failure)
    }
}

/// Enters the cgroups and changes the credentials, so that only the exec remains.
fn placed(given: &RunArgs, name: &OsStr) -> Result<(WhatIfProgram, Option<User>), NotRun> {
    if !unistd::geteuid().is_root() {
        let message = "root privileges are needed to move processes and to change users";
        return Err(ToolError::Failed(message.to_owned()).into());
    }
    let (user, person) = person(given)?;
    let program = WhatIfProgram::find(Path::new(name)).ok_or(NotRun::NoProgram)?;
    let foreseen = WhatIf::new(&given.daemon, RunNotes::LeftOut)?;
    // From here on warnings of the library are written for the caller. Setting the logger fails only if
    // another program uses this crate and has set its own.
    let _ = ::log::set_logger(&Stderr);
    ::log::set_max_level(::log::LevelFilter::Warn);
    let rule = foreseen.rule(&person, &program, &given.command);
    let mut targets = targets(given, &foreseen, rule)?;
    for target in &mut targets {
        foreseen.hierarchies.adapt(target);
    }
    if given.cgroup.is_some() {
        stay(&foreseen, rule, &targets, &person, &program);
    }
    enter(&foreseen, &targets, &person, &program)?;
    become_user(&person, user.as_ref(), given)?;
    Ok((program, user.filter(|_| given.user.is_some())))
}

/// Returns the user and credentials that the command is to run with.
fn person(given: &RunArgs) -> Result<(Option<User>, Credentials), ToolError> {
    let mut uid = unistd::getuid();
    let mut gid = unistd::getgid();
    let mut user = None;
    if let Some(name) = &given.user {
        user = User::from_name(name).map_err(ToolError::nss)?;
        if let (None, Ok(number)) = (&user, name.parse()) {
            uid = unistd::Uid::from_raw(number);
            user = User::from_uid(uid).map_err(ToolError::nss)?;
        }
        match &user {
            Some(user) => (uid, gid) = (user.uid, user.gid),
            None if name.parse::<u32>().is_err() => return Err(unknown("user", name)),
            None if given.group.is_none() => {
                let message = format!("UID {name} has no passwd entry: give --group");
                return Err(ToolError::Failed(message));
            }
            None => {}
        }
    }
    if let Some(name) = &given.group {
        let found = NameService::default().gid_of(name).map_err(ToolError::nss)?;
        gid = unistd::Gid::from_raw(found.ok_or_else(|| unknown("group", name))?.0);
    }
    Ok((user, Credentials::new(Uid(uid.as_raw()), Gid(gid.as_raw()))))
}

fn unknown(kind: &str, name: &str) -> ToolError {
    ToolError::Failed(format!("unknown {kind}: {}", name.escape_debug()))
}

/// Returns the targets that the command is placed in.
fn targets(
    given: &RunArgs,
    foreseen: &WhatIf,
    rule: Option<&Rule>,
) -> Result<Vec<Target>, ToolError> {
    let Some(path) = &given.cgroup else {
        let Some(rule) = rule else {
            eprintln!("cgrulectl: run: no rule matches: the command stays in the current cgroup");
            return Ok(Vec::new());
        };
        if let Some(reason) = rule.action.inapplicable() {
            eprintln!(
                "cgrulectl: run: the rule \"{}\" ({}) cannot be applied on this host: {reason}: the command \
                 stays in the current cgroup",
                rule.name.escape_debug(),
                rule.origin
            );
        }
        return Ok(rule.action.targets().to_vec());
    };
    let destination = Destination::parse(path)
        .map_err(|error| ToolError::Usage(format!("--cgroup {}: {error}", path.escape_debug())))?;
    let controllers = match &given.controllers {
        Some(list) => list.iter().filter(|name| !name.is_empty()).cloned().collect(),
        None => controllers_of(foreseen, &destination),
    };
    Ok(vec![Target { destination, controllers, below: PathBase::Root, creates: true }])
}

/// Returns the controllers with which rules use the same cgroup.
fn controllers_of(foreseen: &WhatIf, destination: &Destination) -> Vec<String> {
    let rules = foreseen.policy.matcher.rules().iter();
    let mut targets = rules.flat_map(|rule| rule.action.targets());
    let same = targets.find(|target| {
        target.below == PathBase::Root && target.destination.pieces() == destination.pieces()
    });
    same.map(|target| target.controllers.clone()).unwrap_or_default()
}

/// Requests that a daemon does not move the command, and warns if a rule would and no daemon grants that.
fn stay(
    foreseen: &WhatIf,
    rule: Option<&Rule>,
    targets: &[Target],
    person: &Credentials,
    program: &WhatIfProgram,
) {
    let Some(rule) = rule else { return };
    let others = rule.action.targets();
    let path = |target: &Target| foreseen.path(target, person, program);
    let others: Vec<String> = others.iter().filter_map(path).collect();
    if others.is_empty() || targets.iter().filter_map(path).eq(others.iter().cloned()) {
        return;
    }
    if let Err(error) = register(Path::new(STICKY_SOCKET)) {
        eprintln!(
            "cgrulectl: run: the rule \"{}\" ({}) will move it to {}: no daemon accepts a sticky request \
             ({STICKY_SOCKET}: {error})",
            rule.name.escape_debug(),
            rule.origin,
            others.join(", ").escape_debug()
        );
    }
}

/// Sends a sticky request for this process as cgexec does.
fn register(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    let pid = i32::try_from(process::id()).unwrap_or(0);
    stream.write_all(&[pid.to_ne_bytes(), STAY.to_ne_bytes()].concat())?;
    let mut answer = [0; GRANTED.len()];
    stream.read_exact(&mut answer)?;
    if answer == *GRANTED { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

/// Moves this process into each cgroup; a missing cgroup is created with its settings.
fn enter(
    foreseen: &WhatIf,
    targets: &[Target],
    person: &Credentials,
    program: &WhatIfProgram,
) -> Result<(), ToolError> {
    let own =
        Pid::new(process::id()).ok_or_else(|| ToolError::Failed("invalid own PID".to_owned()))?;
    let mut tree = CgroupTree::new(foreseen.hierarchies.clone());
    for target in targets {
        let Some(path) = foreseen.path(target, person, program) else { continue };
        let (span, missing) = foreseen.hierarchies.span_of(target);
        if let Some(name) = missing.first() {
            let name = name.escape_debug();
            let message = format!("no cgroup hierarchy of this host has the controller \"{name}\"");
            return Err(ToolError::Failed(message));
        }
        for step in (0..).map_while(|n| foreseen.hierarchies.step(target, span, n)) {
            let config = || foreseen.policy.configs.of_user(target, person.uid);
            let group = tree.group(step, &path, target.creates, config);
            let group = group.map_err(|refusal| refused(&refusal))?;
            match tree.attach(group, own, CurrentCgroup::default()) {
                AttachResult::InPlace | AttachResult::Moved => {}
                AttachResult::Gone => {
                    return Err(ToolError::Failed("this process is gone".to_owned()));
                }
                AttachResult::Refused(refusal) => return Err(refused(&refusal)),
            }
        }
    }
    Ok(())
}

fn refused(refusal: &CgroupError) -> ToolError {
    ToolError::Failed(format!("{refusal}: {}", refusal.advice()))
}

/// Drops root privileges, if requested.
fn become_user(
    person: &Credentials,
    user: Option<&User>,
    given: &RunArgs,
) -> Result<(), ToolError> {
    // Groups come first: without root privileges they can no longer be changed.
    let uid = unistd::Uid::from_raw(person.uid.0);
    let gid = unistd::Gid::from_raw(person.gid.0);
    if let (true, Some(user)) = (given.user.is_some(), user) {
        let name = CString::new(user.name.as_bytes());
        let name =
            name.map_err(|_| ToolError::Failed("the user name contains a NUL".to_owned()))?;
        unistd::initgroups(&name, gid).map_err(|errno| failed("initgroups", errno))?;
    } else if given.user.is_some() {
        unistd::setgroups(&[gid]).map_err(|errno| failed("setgroups", errno))?;
    }
    if given.user.is_some() || given.group.is_some() {
        unistd::setgid(gid).map_err(|errno| failed("setgid", errno))?;
        unistd::setuid(uid).map_err(|errno| failed("setuid", errno))?;
    }
    Ok(())
}

fn failed(call: &str, errno: Errno) -> ToolError {
    ToolError::Failed(format!("{call}: {}", errno.desc()))
}

/// Executes the command in place of this program, and returns an exit code only if that fails.
fn execute(
    program: &WhatIfProgram,
    name: &OsStr,
    arguments: &[OsString],
    user: Option<&User>,
) -> u8 {
    let mut command = process::Command::new(absolute(&program.path));
    command.arg0(name).args(arguments);
    if let Some(user) = user {
        command.env("HOME", &user.dir).env("SHELL", &user.shell);
        command.env("USER", &user.name).env("LOGNAME", &user.name);
    }
    let error = command.exec();
    eprintln!("cgrulectl: run: {}: {error}", shown(name));
    if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
}

/// Makes a path absolute, so that exec does not search PATH again.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn shown(name: &OsStr) -> String {
    name.to_string_lossy().escape_debug().to_string()
}

/// Logger that writes the library's warnings to standard error.
struct Stderr;

impl ::log::Log for Stderr {
    fn enabled(&self, _: &::log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &::log::Record<'_>) {
        eprintln!("cgrulectl: run: {}", escaped(record));
    }

    fn flush(&self) {}
}
