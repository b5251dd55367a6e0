//! Creates a mount namespace for the thread of the test. Processes that the thread starts inherit
//! it; the rest of the machine, including the real `/etc`, is not affected.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::{BASE, user};

/// The entered namespace; the empty mount point on the host is removed on drop.
pub(super) struct Namespace;

impl Namespace {
    /// Mounts a tmpfs at [`BASE`] and adds the test users to `/etc`. The thread never leaves the
    /// namespace: the test runner gives each test a thread of its own.
    pub(super) fn enter() -> Result<Self, String> {
        match fs::create_dir(BASE) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(format!("{BASE}: {error}"));
            }
            Ok(()) | Err(_) => {}
        }
        let namespace = Self;
        unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| format!("unshare: {errno}"))?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .map_err(|errno| format!("mount --make-rprivate /: {errno}"))?;
        mount(Some("tmpfs"), BASE, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .map_err(|errno| format!("tmpfs on {BASE}: {errno}"))?;
        trace_events()?;
        cover("/etc/passwd", &user::passwd())?;
        cover("/etc/group", &user::group())?;
        if Path::new("/etc/subuid").exists() {
            cover("/etc/subuid", &user::subuid())?;
        }
        Ok(namespace)
    }
}

impl Drop for Namespace {
    /// Unmounts the tmpfs first; the directory below it is the one on the host.
    fn drop(&mut self) {
        let _ = umount2(BASE, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(BASE);
    }
}

/// A private `/run` with the files of the test. Declared after [`super::Live`], so dropped before it.
pub(crate) struct PrivateRun;

impl PrivateRun {
    /// Mounts an empty tmpfs at `/run`, and [`BASE`] below it.
    pub(crate) fn enter() -> Self {
        let base = File::open(BASE).unwrap();
        let none = None::<&str>;
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755")).unwrap();
        fs::create_dir(BASE).unwrap();
        let below = format!("/proc/self/fd/{}", base.as_raw_fd());
        mount(Some(below.as_str()), BASE, none, MsFlags::MS_BIND, none).unwrap();
        Self
    }
}

impl Drop for PrivateRun {
    fn drop(&mut self) {
        umount2("/run", MntFlags::MNT_DETACH).unwrap();
    }
}

/// Mounts tracefs at the path that systemd uses, unless the host has done it.
fn trace_events() -> Result<(), String> {
    let directory = "/sys/kernel/tracing";
    if Path::new(directory).join("instances").exists() {
        return Ok(());
    }
    mount(Some("tracefs"), directory, Some("tracefs"), MsFlags::empty(), None::<&str>)
        .map_err(|errno| format!("tracefs on {directory}: {errno}"))
}

/// Mounts a copy with `more` lines over `path`.
fn cover(path: &str, more: &str) -> Result<(), String> {
    let name = Path::new(path).file_name().unwrap_or_default();
    let copy = Path::new(BASE).join(name);
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    fs::write(&copy, format!("{text}{more}")).map_err(|error| format!("{path}: {error}"))?;
    mount(Some(&copy), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|errno| format!("bind mount on {path}: {errno}"))
}
