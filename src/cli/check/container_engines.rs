//! Lints about rules for containers of engines that this host does not have, or that no container meets. Must not report
//! a rule for a container that exists.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::cli::rule_wording::RuleWording;
use crate::policy::load::container_files::{self, NamedContainer};
use crate::rules::Rule;
use crate::rules::container::{ContainerEngine, ContainerId, ContainerTest, LeaveContainers};
use crate::rules::context::TextTest;
use crate::rules::names::ResolvedNames;

/// Directories of programs.
const PROGRAMS: [&str; 6] = [
    "usr/bin",
    "usr/sbin",
    "usr/local/bin",
    "usr/local/sbin",
    "usr/libexec/kubernetes",
    "snap/bin",
];

/// Returns the programs, and other files below the root directory, of which an installed engine has one.
const fn evidence(engine: ContainerEngine) -> (&'static [&'static str], &'static [&'static str]) {
    match engine {
        ContainerEngine::Docker => (&["dockerd", "docker"], &["var/lib/docker"]),
        ContainerEngine::Podman => (&["podman"], &["var/lib/containers"]),
        ContainerEngine::Lxc => (
            &["lxc-start", "lxd", "incusd", "lxc", "pct"],
            &["var/lib/lxc", "var/lib/lxd", "var/lib/incus", "var/snap/lxd"],
        ),
        ContainerEngine::Nspawn => {
            (&["systemd-nspawn", "machinectl"], &["usr/lib/systemd/systemd-machined"])
        }
        ContainerEngine::Kubernetes => {
            (&["kubelet", "k3s", "k0s", "rke2", "microk8s"], &["var/lib/kubelet"])
        }
    }
}

/// The container engines of a host.
pub(super) struct ContainerEngines {
    root: PathBuf,
    /// Containers of each engine, once they were read; `None` if its files do not list all of them.
    containers: HashMap<ContainerEngine, Option<Vec<NamedContainer>>>,
}

impl ContainerEngines {
    /// Creates the engines of the host with this root directory.
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), containers: HashMap::new() }
    }

    /// Returns a message and a help for each container of a rule that no process can be in.
    pub(super) fn lints(&mut self, rule: &Rule) -> Vec<(String, String)> {
        let context = rule.when.context.as_ref();
        let of_criteria = context.map(|context| &*context.containers).unwrap_or_default();
        let of_key = match &rule.leave_containers {
            LeaveContainers::Of(tests) => &**tests,
            LeaveContainers::No | LeaveContainers::Yes => &[],
        };
        let all =
            of_criteria.iter().chain(of_key.iter().filter(|test| !of_criteria.contains(test)));
        all.filter_map(|test| self.lint(test)).collect()
    }

    fn lint(&mut self, test: &ContainerTest) -> Option<(String, String)> {
        let engine = test.engine?;
        let names = ResolvedNames::default();
        let text = RuleWording::new(&names).containers(std::slice::from_ref(test));
        if !self.is_installed(engine) {
            let message =
                format!("{text} matches no process: {} is not installed", program(engine));
            return Some((message, "install it, or remove the pattern".to_owned()));
        }
        // Only root's containers are in files that can be believed.
        let is_listed = test.owner.is_none() && !test.is_for_all();
        let known = self.known(engine).filter(|_| is_listed)?;
        let exists = known.iter().any(|(id, name)| is_meant(&test.name, *id, name));
        (!exists).then(|| {
            let message = format!("no container of this host matches {text}");
            (message, format!("see '{}' for the names of containers", list(engine)))
        })
    }

    fn is_installed(&self, engine: ContainerEngine) -> bool {
        let (programs, files) = evidence(engine);
        let mut programs = programs
            .iter()
            .flat_map(|name| PROGRAMS.iter().map(move |own| Path::new(own).join(name)));
        programs.any(|path| self.root.join(path).exists())
            || files.iter().any(|path| self.root.join(path).exists())
    }

    fn known(&mut self, engine: ContainerEngine) -> Option<&[NamedContainer]> {
        let root = &self.root;
        let read = || match engine {
            // LXD, Incus and Proxmox have containers of their own.
            ContainerEngine::Lxc => None,
            ContainerEngine::Docker
            | ContainerEngine::Podman
            | ContainerEngine::Nspawn
            | ContainerEngine::Kubernetes => container_files::names(root, engine).ok().flatten(),
        };
        self.containers.entry(engine).or_insert_with(read).as_deref()
    }
}

fn is_meant(test: &TextTest, id: Option<ContainerId>, name: &str) -> bool {
    let is_id = |id: ContainerId| match test {
        TextTest::Is(text) => id.as_bytes().starts_with(text),
        TextTest::Matches(glob) => {
            glob.matches(id.as_bytes()) || glob.matches(id.shown().as_bytes())
        }
    };
    test.accepts(name.as_bytes()) || id.is_some_and(is_id)
}

const fn program(engine: ContainerEngine) -> &'static str {
    match engine {
        ContainerEngine::Docker => "Docker",
        ContainerEngine::Podman => "podman",
        ContainerEngine::Lxc => "LXC",
        ContainerEngine::Nspawn => "systemd-nspawn",
        ContainerEngine::Kubernetes => "Kubernetes",
    }
}

/// Returns the command that lists the containers of an engine.
const fn list(engine: ContainerEngine) -> &'static str {
    match engine {
        ContainerEngine::Docker => "docker ps -a",
        ContainerEngine::Podman => "podman ps -a",
        ContainerEngine::Lxc => "lxc-ls",
        ContainerEngine::Nspawn => "machinectl list",
        ContainerEngine::Kubernetes => "crictl ps -a",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::policy::test_policy;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn lints(root: &Path, keys: &str) -> Vec<String> {
        let policy = test_policy(&format!("[[rule]]\n{keys}\n"), Vec::new());
        let found = ContainerEngines::new(root).lints(&policy.matcher.rules()[0]);
        found.into_iter().map(|(message, _)| message).collect()
    }

    #[test]
    fn engines_and_containers_that_do_not_exist() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let absent = lints(root, "container = [\"docker:*\", \"lxc@7:x\"]\nignore = true");
        assert_eq!(
            absent,
            [
                "docker:* matches no process: Docker is not installed",
                "lxc@7:x matches no process: LXC is not installed",
            ]
        );
        let directory = root.join("var/lib/docker/containers").join(ID);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("config.v2.json"), "{\"Name\":\"/web-1\"}").unwrap();
        fs::create_dir_all(root.join("var/lib/lxc")).unwrap();
        for (keys, is_absent) in [
            ("container = \"docker:web-1\"", false),
            ("container = \"docker:web-*\"", false),
            ("container = \"docker:0123456789ab\"", false),
            ("container = \"docker:db\"", true),
            ("container = \"docker:db*\"", true),
            ("container = \"docker:*\"", false),
            ("container = \"docker@1000:db\"", false),
            ("container = true", false),
            ("container = \"*:db\"", false),
            ("container = \"lxc:db\"", false),
            ("user = 7\ncgroup = \"a\"\ncontainers = \"docker:db\"", true),
            ("user = 7\nnot = { container = \"docker:db\" }", false),
        ] {
            let keys = if keys.contains("cgroup") {
                keys.to_owned()
            } else {
                format!("{keys}\nignore = true")
            };
            assert_eq!(!lints(root, &keys).is_empty(), is_absent, "{keys}");
        }
    }
}
