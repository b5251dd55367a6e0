//! Evaluation of the rules for a program that is not running yet. Must decide as the daemon will.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ancestors;
use super::command::{DaemonFlags, ToolError};
use super::conditions::InspectedConditions;
use super::daemon_client::{self, RunNotes};
use crate::cgroup::mounts::Hierarchies;
use crate::cgroup::tree;
use crate::config::diagnostic::Diagnostic;
use crate::daemon;
use crate::event::{Gid, Pid, Uid};
use crate::kernel::process::ProcFs;
use crate::kernel::program::{ExeInfo, STANDARD_DIRECTORIES, may_be_other_name};
use crate::placement::conditions::Conditions;
use crate::placement::{self, Choice, KnownExe, decide};
use crate::policy::load::NameService;
use crate::policy::{Policy, User};
use crate::rules::destination::SpecifierValues;
use crate::rules::names::UserIdentity;
use crate::rules::{ExeFacts, Rule, Target, base_name};
use crate::sys;

/// Number of interpreters that the kernel follows when that of a script is a script again.
const MAX_INTERPRETERS: usize = 5;

/// Policy and cgroup hierarchies of this host.
pub(super) struct WhatIf {
    pub(super) policy: Box<Policy>,
    pub(super) hierarchies: Arc<Hierarchies>,
    /// Errors and warnings of the files.
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// Credentials that the program would run with.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) identity: UserIdentity,
    pub(super) group: Option<String>,
}

/// Program named on a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WhatIfProgram {
    /// Path for execve(2), as given or found in PATH.
    pub(super) path: PathBuf,
    /// Path that the kernel will show as the executable.
    pub(super) exe: PathBuf,
    /// Script or symbolic link, if the path is one.
    pub(super) invoked: Option<PathBuf>,
}

impl Credentials {
    /// Creates the credentials with the names that NSS has for them.
    pub(super) fn new(uid: Uid, gid: Gid) -> Self {
        let names = NameService::default();
        let identity = names.identify(uid).unwrap_or_else(|_| UserIdentity::nameless(uid));
        let group = names.group_name(gid).ok().flatten();
        Self { uid, gid, identity, group }
    }
}

impl WhatIf {
    /// Reads the files that a daemon with the same flags would read.
    ///
    /// # Errors
    /// No cgroup hierarchy is mounted.
    pub(super) fn new(flags: &DaemonFlags, notes: RunNotes) -> Result<Self, ToolError> {
        let found = tree::discover();
        let found = found.map_err(|error| {
            ToolError::Failed(format!("cannot read /proc/self/mountinfo: {error}"))
        })?;
        if found.is_empty() {
            let message =
                "no cgroup hierarchy is mounted: run 'mount -t cgroup2 cgroup2 /sys/fs/cgroup'";
            return Err(ToolError::Failed(message.to_owned()));
        }
        let hierarchies = Arc::new(found);
        let invocation = daemon_client::invocation(flags, notes);
        let (policy, diagnostics) = daemon::policy(&invocation, &hierarchies);
        Ok(Self { policy, hierarchies, diagnostics })
    }

    /// Returns the rule that matches the program when this process executes it.
    pub(super) fn rule(
        &self,
        person: &Credentials,
        program: &WhatIfProgram,
        command: &[OsString],
    ) -> Option<&Rule> {
        let matcher = &self.policy.matcher;
        let user = User::new(matcher, person.identity.clone(), sys::monotonic());
        let path = program.exe.as_os_str().as_bytes();
        let exe = KnownExe::Read(ExeInfo {
            raw: path,
            exe: ExeFacts { path, on_host: true },
            invoked: program.invoked.as_deref().map(|path| path.as_os_str().as_bytes()),
            is_unsure: false,
        });
        // A child starts in the cgroup of this process, with its login user and scheduling.
        let own = Pid::new(std::process::id())?;
        let mut proc = ProcFs::open(Path::new("/proc")).ok();
        let cgroup = proc.as_mut().and_then(|proc| Some(proc.cgroup(own, None)?.to_vec()));
        let login = proc.as_mut().and_then(|proc| proc.login(own));
        let arguments = match &program.invoked {
            // As the kernel passes them to the interpreter.
            Some(script) if fs::canonicalize(&program.path).ok().as_ref() != Some(&program.exe) => {
                let first = [program.exe.as_os_str(), script.as_os_str()];
                command_line(first.into_iter().chain(command.iter().skip(1).map(|word| &**word)))
            }
            Some(_) | None => command_line(command.iter().map(|word| &**word)),
        };
        let tests_ancestors = self.policy.ancestors.is_some();
        let ancestors = proc.as_mut().filter(|_| tests_ancestors);
        let ancestors = ancestors.map(|proc| ancestors::of_child(own, proc));
        let facts = InspectedConditions {
            hierarchies: &self.hierarchies,
            names: &NameService::default(),
            cgroup: cgroup.as_deref().unwrap_or_default(),
            ancestors: ancestors.as_deref().unwrap_or_default(),
            login,
            pid: Some(own),
            proc: proc.as_mut(),
            subordinates: &self.policy.subordinates,
            container: None,
            arguments: Some(&arguments),
        };
        let mut conditions = Conditions::new(&self.policy.context, facts);
        let choice = decide(matcher, &user, (person.uid, person.gid), exe, |id, rule| {
            conditions.test(id, rule).map(|mismatch| mismatch.is_none())
        });
        match choice {
            Choice::Rule(id) => matcher.rule(id),
            Choice::NoRule | Choice::NeedsExe | Choice::NeedsExamination | Choice::Needs(_) => None,
        }
    }

    /// Returns the path of a target from the root of each hierarchy.
    pub(super) fn path(
        &self,
        target: &Target,
        person: &Credentials,
        program: &WhatIfProgram,
    ) -> Option<String> {
        let name = person.identity.name.as_deref();
        let (uid, user) = placement::path_user(&self.policy.subordinates, person.uid, name);
        let who = SpecifierValues {
            uid,
            user,
            gid: person.gid,
            group: person.group.as_deref(),
            pid: Pid::new(std::process::id())?,
            program: Some(program.exe.as_os_str().as_bytes()),
        };
        let mut path = String::new();
        placement::render(
            self.policy.beginning(target.below),
            &target.destination,
            &who,
            &mut path,
        );
        Some(path)
    }
}

impl WhatIfProgram {
    /// Finds a program as execvp(3) does. Returns `None` if there is none.
    pub(super) fn find(name: &Path) -> Option<Self> {
        let path = located(name)?;
        let file = fs::canonicalize(&path).ok()?;
        let mut exe = file.clone();
        for _ in 0..MAX_INTERPRETERS {
            let Some(interpreter) = interpreter(&exe) else { break };
            exe = fs::canonicalize(&interpreter).unwrap_or(interpreter);
        }
        // As the daemon reads it from the arguments: a relative path is resolved there, and a name without a slash
        // names a link of a standard directory only. A script is always passed by its path.
        let is_script = exe != file;
        let named = if has_slash(name) || is_script {
            Some(if path.is_absolute() { path.clone() } else { file.clone() })
        } else {
            let mut links = STANDARD_DIRECTORIES.iter().map(|own| Path::new(own).join(name));
            links.find(|link| fs::canonicalize(link).is_ok_and(|target| target == file))
        };
        // Of a path that differs only in links of its directory the daemon sees the executable alone.
        let comm = base_name(path.as_os_str().as_bytes());
        let has_other_name = may_be_other_name(exe.as_os_str().as_bytes(), comm);
        let invoked = named.filter(|named| is_script || *named != file && has_other_name);
        Some(Self { path, exe, invoked })
    }
}

/// Returns the text of `/proc/PID/cmdline` for these words.
pub(super) fn command_line<'w>(words: impl Iterator<Item = &'w OsStr>) -> Vec<u8> {
    words.flat_map(|word| [word.as_encoded_bytes(), b"\0"].concat()).collect()
}

/// Returns the file that a name means: searched for in PATH unless it contains a slash.
pub(super) fn located(name: &Path) -> Option<PathBuf> {
    if has_slash(name) {
        let path = name.to_owned();
        return path.is_file().then_some(path);
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|path| {
        path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
    })
}

fn has_slash(name: &Path) -> bool {
    name.as_os_str().as_bytes().contains(&b'/')
}

/// Returns the interpreter of a script; for `#!/usr/bin/env NAME` the program that env(1) would find.
fn interpreter(file: &Path) -> Option<PathBuf> {
    // A FIFO would block, and a device may react to being opened.
    if !file.is_file() {
        return None;
    }
    let mut start = Vec::new();
    File::open(file).ok()?.take(256).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let first = PathBuf::from(words.next()?);
    match words.find(|word| !word.starts_with('-')) {
        Some(word) if first.ends_with("env") => located(Path::new(word)),
        Some(_) | None => Some(first),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_program_is_what_the_kernel_will_show() {
        let directory = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(directory.path()).unwrap();
        let write = |name: &str, text: &str| {
            fs::write(base.join(name), text).unwrap();
            fs::set_permissions(base.join(name), PermissionsExt::from_mode(0o755)).unwrap();
            base.join(name)
        };
        let plain = write("plain", "\u{7f}ELF");
        let script = write("script", "#!/proc/self/exe -x\n");
        let by_env = write("by-env", "#!/usr/bin/env sh\n");
        symlink(&plain, base.join("link")).unwrap();
        let find = |path: &Path| WhatIfProgram::find(path).unwrap();
        assert_eq!(
            find(&plain),
            WhatIfProgram { path: plain.clone(), exe: plain.clone(), invoked: None }
        );
        let link = find(&base.join("link"));
        assert_eq!((link.exe, link.invoked), (plain.clone(), Some(base.join("link"))));
        symlink(&base, base.join("directory")).unwrap();
        let other = find(&base.join("directory/plain"));
        assert_eq!((other.exe, other.invoked), (plain, None), "as /bin/cp on a merged /usr");
        let ours = env::current_exe().unwrap();
        let found = find(&script);
        assert_eq!((found.exe, found.invoked), (ours, Some(script)));
        let shell = fs::canonicalize(located(Path::new("sh")).unwrap()).unwrap();
        assert_eq!(find(&by_env).exe, shell);
        let nested = write("nested", &format!("#!{}\n", by_env.display()));
        assert_eq!((find(&nested).exe, find(&nested).invoked), (shell.clone(), Some(nested)));
        // An argument without a slash names a link of a standard directory.
        assert_eq!(find(Path::new("sh")).invoked, Some(PathBuf::from("/usr/bin/sh")));
        assert_eq!(find(Path::new("sh")).exe, shell);
        assert_eq!(WhatIfProgram::find(Path::new("no such program")), None);
        assert_eq!(WhatIfProgram::find(&base.join("none")), None);
    }
}
