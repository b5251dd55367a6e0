//! Creates the cgroups that the `group` sections of cgconfig.conf describe, as cgconfigparser does.
//! Each step is a value, so that it can be printed instead of performed.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::advice::of_value;
use super::apply::{self, chown_files};
use super::config::{
    ConfigWarning, FileOwnership, GroupConfigs, GroupPermissions, GroupSpec, GroupSpecs,
    ResolvedSpec,
};
use super::mounts::{Hierarchies, Hierarchy, Version};
use super::settings::{Write, write_order};
use crate::rules::destination::Destination;
use crate::rules::{PathBase, Target};
use nix::errno::Errno;

/// The files of a v1 cpuset that must not be empty before a process can enter.
pub(super) const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// One operation on the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateStep {
    /// Enables a controller in the `cgroup.subtree_control` of a directory.
    Enable(PathBuf, String),
    /// Creates a directory.
    Create(PathBuf),
    /// Copies the values of these files from the parent to a new v1 cpuset.
    Inherit(PathBuf, Vec<&'static str>),
    /// Writes a value to a file, or to the second file if the first does not exist.
    Write(PathBuf, String, Option<(PathBuf, String)>),
    /// Writes files of a cgroup that the kernel compares with each other: all or, if one is
    /// refused, none.
    Together(PathBuf, Vec<write_order::WriteStep>),
    /// Sets owner and mode of a directory and its files.
    Own(PathBuf, GroupPermissions, Version),
}

/// The result of a performed step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateResult {
    /// The file system was changed.
    Done,
    /// The file system was in this state before.
    Already,
}

/// The steps for one `group` section.
#[derive(Debug)]
pub struct CreatePlan {
    /// The steps in the order in which they are performed.
    pub steps: Vec<CreateStep>,
    /// The controllers that no mounted hierarchy has.
    pub missing: Vec<String>,
    /// The warnings about settings that are not fully applied.
    pub warnings: Vec<ConfigWarning>,
}

/// Plans the steps for a `group` section on this host. Returns `None` if its path contains `..`.
pub fn plan(spec: &GroupSpec, hierarchies: &Hierarchies) -> Option<CreatePlan> {
    let components: Vec<&str> =
        spec.text.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    if components.contains(&"..") {
        return None;
    }
    let (resolved, warnings) = resolved(spec, hierarchies);
    let homes = spec.controllers.iter().filter_map(|name| hierarchies.locate(name));
    let homes: Vec<(usize, &str)> = homes.collect();
    let missing = spec.controllers.iter().filter(|name| hierarchies.locate(name).is_none());
    let missing = missing.cloned().collect();
    let mut steps = Vec::new();
    for (n, &(index, _)) in homes.iter().enumerate() {
        if homes[..n].iter().any(|(other, _)| *other == index) {
            continue;
        }
        let tree = &hierarchies[index];
        let own = homes.iter().filter(|(other, name)| *other == index && !name.is_empty());
        let needs: Vec<&str> = own.map(|(_, name)| *name).collect();
        let own = resolved.writes.iter().filter(|write| write.hierarchy == index);
        let writes: Vec<&Write> = own.map(|own| &own.write).collect();
        let directory = directories(tree, &components, &needs, &writes, &mut steps);
        let ordered =
            write_order::batches(&writes, &|file| fs::read_to_string(directory.join(file)).ok());
        steps.extend(ordered.into_iter().map(|bundle| step_of(bundle, &writes, &directory)));
        if resolved.perm != GroupPermissions::default() {
            steps.push(CreateStep::Own(directory, resolved.perm, tree.version));
        }
    }
    Some(CreatePlan { steps, missing, warnings })
}

/// Adds the steps that create a directory with these `writes`, and its ancestors. Returns the
/// directory.
fn directories(
    tree: &Hierarchy,
    components: &[&str],
    needs: &[&str],
    writes: &[&Write],
    steps: &mut Vec<CreateStep>,
) -> PathBuf {
    let mut directory = tree.mount_point.clone();
    let is_cpuset = tree.version == Version::V1 && tree.controllers.iter().any(|n| n == "cpuset");
    // The kernel refuses CPUs that a sibling has for itself alone, also if others are written then.
    let is_written = |file: &str| writes.iter().any(|write| write.file == file);
    for (n, component) in components.iter().enumerate() {
        let is_last = n + 1 == components.len();
        if tree.version == Version::V2 {
            for &name in needs {
                steps.push(CreateStep::Enable(directory.clone(), name.to_owned()));
            }
        }
        directory.push(component);
        steps.push(CreateStep::Create(directory.clone()));
        let inherits = |file: &&str| is_cpuset && !(is_last && is_written(file));
        let inherited: Vec<&str> = CPUSET.into_iter().filter(inherits).collect();
        if !inherited.is_empty() {
            steps.push(CreateStep::Inherit(directory.clone(), inherited));
        }
    }
    directory
}

fn step_of(bundle: write_order::WriteBatch, writes: &[&Write], directory: &Path) -> CreateStep {
    let [step] = &bundle[..] else { return CreateStep::Together(directory.to_owned(), bundle) };
    let instead = writes[step.of].instead.as_ref();
    let instead = instead.map(|(file, value)| (directory.join(file), value.clone()));
    CreateStep::Write(directory.join(&step.file), step.value.clone(), instead)
}

/// Translates the settings of a section for this host.
fn resolved(spec: &GroupSpec, hierarchies: &Hierarchies) -> (ResolvedSpec, Vec<ConfigWarning>) {
    let specs = GroupSpecs { groups: vec![spec.clone()], ..GroupSpecs::default() };
    let (configs, warnings) = GroupConfigs::new(&specs, hierarchies);
    let target = Target {
        destination: Destination::from_pieces(&spec.text, Vec::new()),
        // The settings already use the controller names of this host.
        controllers: vec!["*".to_owned()],
        below: PathBase::Top,
        creates: false,
    };
    let config = configs.of(&target);
    let level = config.as_ref().and_then(|config| config.levels.last());
    let resolved = level.and_then(|level| level.resolved.as_deref()).cloned();
    (
        resolved.unwrap_or_else(|| ResolvedSpec { perm: spec.perm, ..ResolvedSpec::default() }),
        warnings,
    )
}

impl CreateStep {
    /// Returns the directory or file that the step changes.
    pub fn path(&self) -> &Path {
        match self {
            Self::Enable(path, _)
            | Self::Create(path)
            | Self::Inherit(path, _)
            | Self::Write(path, _, _)
            | Self::Together(path, _)
            | Self::Own(path, _, _) => path,
        }
    }

    /// Performs the step.
    ///
    /// # Errors
    /// The file, and the error of the kernel.
    pub fn take(&self) -> Result<CreateResult, (PathBuf, io::Error)> {
        match self {
            Self::Enable(directory, name) => {
                let file = directory.join("cgroup.subtree_control");
                let enabled = fs::read_to_string(&file).unwrap_or_default();
                if enabled.split_ascii_whitespace().any(|known| known == *name) {
                    return Ok(CreateResult::Already);
                }
                write(&file, &format!("+{name}")).map_err(|error| (file, error))?;
            }
            Self::Create(directory) => match fs::create_dir(directory) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    return Ok(CreateResult::Already);
                }
                result => result.map_err(|error| (directory.clone(), error))?,
            },
            Self::Inherit(directory, files) => {
                return inherit(directory, files).map_err(|error| (directory.clone(), error));
            }
            Self::Write(path, value, instead) => match (write(path, value), instead) {
                (Err(error), Some((other, value))) if error.kind() == ErrorKind::NotFound => {
                    write(other, value).map_err(|_| (path.clone(), error))?;
                }
                (result, _) => result.map_err(|error| (path.clone(), error))?,
            },
            Self::Together(directory, bundle) => {
                apply::take(directory, bundle, &[])
                    .map_err(|(step, errno)| (directory.join(&step.file), errno.into()))?;
            }
            Self::Own(directory, perm, version) => own(directory, perm, *version)?,
        }
        Ok(CreateResult::Done)
    }
}

impl fmt::Display for CreateStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Enable(directory, name) => {
                format!("enable {name} below {}", directory.display())
            }
            Self::Create(directory) => format!("create {}", directory.display()),
            Self::Inherit(directory, files) => {
                format!("copy {} of the parent to {}", files.join(" and "), directory.display())
            }
            Self::Write(path, value, _) => format!("write {value} to {}", path.display()),
            Self::Together(directory, bundle) => {
                let writes = bundle.iter().map(|step| {
                    format!("write {} to {}", step.value, directory.join(&step.file).display())
                });
                writes.collect::<Vec<_>>().join(", ")
            }
            Self::Own(directory, perm, _) => {
                let directory = directory.display();
                let own = perm.directory.shown();
                let files = perm.files.shown();
                let task = perm.task.shown();
                format!("chown {directory} to {own}, its files to {files}, tasks to {task}")
            }
        };
        write!(f, "{}", text.escape_debug())
    }
}

impl FileOwnership {
    /// Formats owner and mode as `1000:- 0640`, with `-` for what stays as it is.
    fn shown(&self) -> String {
        let uid = self.uid.map_or("-".to_owned(), |uid| uid.0.to_string());
        let gid = self.gid.map_or("-".to_owned(), |gid| gid.0.to_string());
        let mode = self.mode.map_or("-".to_owned(), |mode| format!("{mode:04o}"));
        format!("{uid}:{gid} {mode}")
    }
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Copies the values of the parent to those of the files that are empty, the second also if the first
/// is refused.
fn inherit(directory: &Path, files: &[&str]) -> io::Result<CreateResult> {
    let Some(parent) = directory.parent() else { return Ok(CreateResult::Already) };
    let copied = files.iter().map(|file| {
        if !fs::read_to_string(directory.join(file))?.trim().is_empty() {
            return Ok(CreateResult::Already);
        }
        fs::write(directory.join(file), fs::read(parent.join(file))?)?;
        Ok(CreateResult::Done)
    });
    let copied: Vec<io::Result<CreateResult>> = copied.collect();
    let mut made = CreateResult::Already;
    for result in copied {
        if result? == CreateResult::Done {
            made = CreateResult::Done;
        }
    }
    Ok(made)
}

fn own(
    directory: &Path,
    perm: &GroupPermissions,
    version: Version,
) -> Result<(), (PathBuf, io::Error)> {
    let failed = |error| (directory.to_owned(), error);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_type().map_err(failed)?.is_file() {
            continue;
        }
        let name = entry.file_name();
        let to = perm.of_file(name.to_str().unwrap_or_default(), version);
        chown_files(&entry.path(), to, false).map_err(|error| (entry.path(), error))?;
    }
    chown_files(directory, &perm.directory, true).map_err(failed)
}

/// Formats the failure of a step with advice.
pub fn diagnostic(step: &CreateStep, path: &Path, error: &io::Error) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let value = if let CreateStep::Write(_, value, _) = step { value } else { "" };
    let advice = error.raw_os_error().map(|raw| of_value(name, value, Errno::from_raw(raw)));
    let advice = advice.as_deref().unwrap_or("see cgroups(7)");
    format!("{}: {error}: {advice}", path.display().to_string().escape_debug())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cgroup::config::SpecSetting;
    use crate::event::Uid;
    use crate::rules::Origin;

    fn tree(root: &Path, version: Version, controllers: &[&str]) -> Hierarchy {
        Hierarchy::for_test(
            version,
            root.to_owned(),
            if version == Version::V1 { controllers.join(",") } else { String::new() },
            controllers.iter().map(|&name| name.to_owned()).collect(),
        )
    }

    fn spec(text: &str, settings: &[(&str, &str, &str)]) -> GroupSpec {
        let origin = Origin { file: Arc::from(Path::new("/etc/cgconfig.conf")), line: 1 };
        let written = settings.iter().map(|(controller, key, value)| SpecSetting {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            controller: (*controller).to_owned(),
            origin: origin.clone(),
            place: None,
        });
        let mut controllers: Vec<String> = settings.iter().map(|s| s.0.to_owned()).collect();
        controllers.dedup();
        GroupSpec {
            text: text.to_owned(),
            controllers,
            settings: written.collect(),
            perm: GroupPermissions::default(),
            is_required: false,
            remove_after: None,
            origin: origin.clone(),
        }
    }

    #[test]
    fn a_host_with_v2_gets_the_same_in_its_own_words() {
        let root = Path::new("/x");
        let host = Hierarchies::new(vec![tree(root, Version::V2, &["cpu", "memory"])]);
        let spec = spec(
            "/a/./b/",
            &[
                ("cpu", "cpu.shares", "1024"),
                ("memory", "memory.limit_in_bytes", "1M"),
                ("devices", "devices.allow", "a"),
                ("nosuch", "nosuch.x", "1"),
            ],
        );
        let plan = plan(&spec, &host).unwrap();
        let shown: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "enable cpu below /x",
                "enable memory below /x",
                "create /x/a",
                "enable cpu below /x/a",
                "enable memory below /x/a",
                "create /x/a/b",
                "write 100 to /x/a/b/cpu.weight",
                "write 1048576 to /x/a/b/memory.max",
            ]
        );
        assert_eq!(plan.missing, ["nosuch"]);
        assert!(
            plan.warnings[0].diagnostic.message.starts_with("devices.allow has no counterpart")
        );
    }

    /// A sibling can have CPUs for itself alone, so that the kernel refuses those of the parent.
    #[test]
    fn only_what_a_section_does_not_set_is_inherited() {
        let root = tempfile::tempdir().unwrap();
        let host = Hierarchies::new(vec![tree(root.path(), Version::V1, &["cpuset"])]);
        let spec = spec("a/b", &[("cpuset", "cpuset.cpus", "1")]);
        let plan = plan(&spec, &host).unwrap();
        let at = root.path().display().to_string();
        let shown: Vec<String> =
            plan.steps.iter().map(|step| step.to_string().replace(&at, "")).collect();
        assert_eq!(
            shown,
            [
                "create /a",
                "copy cpuset.cpus and cpuset.mems of the parent to /a",
                "create /a/b",
                "copy cpuset.mems of the parent to /a/b",
                "write 1 to /a/b/cpuset.cpus",
            ]
        );
        // The second file is copied although the first one cannot be.
        fs::create_dir(root.path().join("a")).unwrap();
        fs::write(root.path().join("cpuset.mems"), "0\n").unwrap();
        fs::write(root.path().join("a/cpuset.mems"), "\n").unwrap();
        assert!(plan.steps[1].take().is_err());
        assert_eq!(fs::read_to_string(root.path().join("a/cpuset.mems")).unwrap(), "0\n");
    }

    #[test]
    fn a_path_cannot_leave_the_hierarchy() {
        let host = Hierarchies::new(vec![tree(Path::new("/x"), Version::V1, &["pids"])]);
        assert!(plan(&spec("a/../b", &[("pids", "pids.max", "1")]), &host).is_none());
        let top = plan(&spec(".", &[("pids", "pids.max", "1")]), &host).unwrap();
        assert_eq!(top.steps[0].to_string(), "write 1 to /x/pids.max");
    }

    #[test]
    fn a_refused_period_leaves_the_quota() {
        let root = tempfile::tempdir().unwrap();
        let host = Hierarchies::new(vec![tree(root.path(), Version::V1, &["cpu"])]);
        let settings =
            [("cpu", "cpu.cfs_quota_us", "20000"), ("cpu", "cpu.cfs_period_us", "50000")];
        let group = root.path().join("a");
        let quota = group.join("cpu.cfs_quota_us");
        fs::create_dir_all(group.join("cpu.cfs_period_us")).unwrap();
        fs::write(&quota, "70000\n").unwrap();
        let plan = plan(&spec("a", &settings), &host).unwrap();
        let last = plan.steps.last().unwrap();
        let period = group.join("cpu.cfs_period_us").display().to_string();
        let shown = quota.display();
        assert_eq!(
            last.to_string(),
            format!("write -1 to {shown}, write 50000 to {period}, write 20000 to {shown}")
        );
        let (refused, _) = last.take().unwrap_err();
        assert_eq!(refused.display().to_string(), period);
        assert!(fs::read_to_string(&quota).unwrap().starts_with("70000"));
    }

    #[test]
    fn steps_are_done_once() {
        let root = tempfile::tempdir().unwrap();
        let host = Hierarchies::new(vec![tree(root.path(), Version::V1, &["pids"])]);
        let owner = FileOwnership {
            uid: Some(Uid(nix::unistd::geteuid().as_raw())),
            gid: None,
            mode: Some(0o711),
        };
        let perm = GroupPermissions { directory: owner, ..GroupPermissions::default() };
        let plan =
            plan(&GroupSpec { perm, ..spec("a/b", &[("pids", "pids.max", "1")]) }, &host).unwrap();
        fn take(plan: &CreatePlan) -> Vec<bool> {
            plan.steps.iter().map(|step| matches!(step.take(), Ok(CreateResult::Done))).collect()
        }
        // A plain directory has no kernel files.
        assert_eq!(take(&plan), [true, true, false, true]);
        fs::write(root.path().join("a/b/pids.max"), "").unwrap();
        assert_eq!(take(&plan), [false, false, true, true]);
        assert_eq!(fs::read_to_string(root.path().join("a/b/pids.max")).unwrap(), "1");
    }
}
