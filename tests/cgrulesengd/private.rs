//! Provides a private `/etc`, `/run` and `/dev` on top of the mount namespace of [`Live`], so that
//! cgrulesengd finds its files and creates its socket without an effect on the host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::harness::{BASE, Live};

/// The private mounts; unmounted on drop, which must happen before [`Live`] is dropped.
pub(crate) struct Private;

impl Private {
    pub(crate) fn enter(live: &Live) -> Self {
        for directory in ["etc", "run", "run/cgruled-live", "dev"] {
            let path = live.path(directory);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        for name in ["passwd", "group", "ld.so.cache", "localtime"] {
            let _absent = fs::copy(Path::new("/etc").join(name), live.path("etc").join(name));
        }
        // Without it a host's NSS services (LDAP, systemd) would be queried too.
        file(&live.path("etc/nsswitch.conf"), "passwd: files\ngroup: files\n");
        device(live, "null", 3);
        device(live, "zero", 5);
        device(live, "urandom", 9);
        let base = Path::new(BASE);
        let within = live.path("run/cgruled-live");
        mount(Some(base), &within, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let (etc, dev, run) = (live.path("etc"), live.path("dev"), live.path("run"));
        for (from, to) in [(etc, "/etc"), (dev, "/dev"), (run, "/run")] {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(&from), to, None::<&str>, flags, None::<&str>).unwrap();
        }
        Self
    }

    /// Creates these files in `/etc` and removes all others that the daemons read. A name that ends
    /// in `/` is an empty directory.
    pub(crate) fn files(&self, files: &[(&str, &str)]) {
        for name in ["cgrules.conf", "cgconfig.conf", "cgrules.d", "cgconfig.d"] {
            let path = Path::new("/etc").join(name);
            let _absent = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
        for (name, text) in files {
            let path = Path::new("/etc").join(name.trim_end_matches('/'));
            if name.ends_with('/') {
                fs::create_dir(&path).unwrap();
                fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            } else {
                file(&path, text);
            }
        }
    }

    /// Writes a rule file of `cgruled`.
    pub(crate) fn toml(&self, text: &str) {
        for path in ["/etc/cgruled", "/etc/cgruled/rules.d"] {
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        file(Path::new("/etc/cgruled/rules.d/50-test.toml"), text);
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        for path in ["/run", "/dev", "/etc"] {
            let _ = umount2(path, MntFlags::MNT_DETACH);
        }
    }
}

fn file(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
}

fn device(live: &Live, name: &str, minor: u64) {
    let (path, mode) = (live.path("dev").join(name), Mode::from_bits_truncate(0o666));
    mknod(&path, SFlag::S_IFCHR, mode, makedev(1, minor)).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
}
