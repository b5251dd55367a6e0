//! A module of the name service with users and groups that the files do not have.

use std::fs;
use std::path::PathBuf;

use nix::mount::{MsFlags, mount};

use super::{Daemon, Live, Settings, Surroundings, nss_module};

/// The environment of a test with a name service of its own.
pub(crate) struct NameService<'l> {
    live: &'l Live,
    pub(crate) directory: PathBuf,
}

impl<'l> NameService<'l> {
    /// Installs the module and adds it to `/etc/nsswitch.conf`, in the namespace of the test.
    pub(crate) fn new(live: &'l Live, passwd: &str, group: &str) -> Self {
        let directory = live.path("nss");
        fs::create_dir_all(&directory).unwrap();
        fs::copy(nss_module(), directory.join("libnss_cgt.so.2")).unwrap();
        let own = Self { live, directory };
        own.write("passwd", passwd);
        own.write("group", group);
        own.write("nsswitch.conf", "passwd: files cgt\ngroup: files cgt\n");
        let source = own.directory.join("nsswitch.conf");
        mount(Some(&source), "/etc/nsswitch.conf", None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .unwrap();
        own
    }

    /// Writes a file of the module; see `nss.c`.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.join(name), text).unwrap();
    }

    /// Removes a file of the module.
    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.directory.join(name)).unwrap();
    }

    pub(crate) fn environment(&self) -> [(&str, &str); 2] {
        let directory = self.directory.to_str().unwrap();
        [("LD_LIBRARY_PATH", directory), ("CGT_NSS", directory)]
    }

    pub(crate) fn daemon(&self, rules: &str) -> Daemon {
        let environment = &self.environment();
        let on = Surroundings { environment, ..Surroundings::default() };
        self.live.daemon_on(rules, &Settings::default(), &on)
    }
}
