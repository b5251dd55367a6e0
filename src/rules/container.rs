//! Containers, and the tests of rules for them. It must not read anything: the caller finds the container of a
//! process.

use super::text_test::TextTest;
use super::{Rule, UserTest};
use crate::event::Uid;

/// Number of digits of the ID of a container.
pub const ID_DIGITS: usize = 64;
/// Minimum number of digits with which a rule can name a container by its ID; engines show so many.
pub const MIN_ID_DIGITS: usize = 12;

/// A program that runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContainerEngine {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// LXC, with the programs that use it: LXD, Incus, Proxmox.
    Lxc,
    /// systemd-nspawn, or another program that registers its containers with systemd-machined.
    Nspawn,
    /// The kubelet of Kubernetes with containerd, CRI-O or Docker.
    Kubernetes,
}

impl ContainerEngine {
    /// All engines.
    pub const ALL: [Self; 5] =
        [Self::Docker, Self::Podman, Self::Lxc, Self::Nspawn, Self::Kubernetes];

    /// Returns the name in rule files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Lxc => "lxc",
            Self::Nspawn => "nspawn",
            Self::Kubernetes => "k8s",
        }
    }

    /// Returns the engine with this name in rule files.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|engine| engine.name() == name)
    }

    /// Checks whether the engine keeps the names of its containers in files, because their cgroups show IDs only.
    pub const fn has_name_files(self) -> bool {
        match self {
            Self::Docker | Self::Podman => true,
            Self::Lxc | Self::Nspawn | Self::Kubernetes => false,
        }
    }
}

/// The ID of a container: 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContainerId([u8; ID_DIGITS]);

impl ContainerId {
    /// Parses an ID. The digits of engines are in lower case.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits: [u8; ID_DIGITS] = text.try_into().ok()?;
        digits
            .iter()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
            .then_some(Self(digits))
    }

    /// Returns the digits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the digits that engines show.
    pub fn shown(&self) -> &str {
        std::str::from_utf8(&self.0[..MIN_ID_DIGITS]).unwrap_or_default()
    }
}

/// Splits `ENGINE:NAME` or `ENGINE@OWNER:NAME` into these parts.
pub fn split_container(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let (kind, name) = text.split_once(':')?;
    Some(match kind.split_once('@') {
        Some((engine, owner)) => (engine, Some(owner), name),
        None => (kind, None, name),
    })
}

/// A container whose name is in the files of its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContainerKey {
    /// The engine that runs it.
    pub engine: ContainerEngine,
    /// Its ID.
    pub id: ContainerId,
}

/// The container of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The engine that runs it; `None` if its namespaces alone show it.
    pub engine: Option<ContainerEngine>,
    /// The user who created it.
    pub owner: Uid,
    /// Its name as the path of its cgroup contains it; for Kubernetes the UID of its pod.
    pub name: Option<Vec<u8>>,
    /// Its ID as the path of its cgroup contains it.
    pub id: Option<ContainerId>,
}

impl Container {
    /// Returns the key of the container in the files of its engine. Only those of engines that root runs can be
    /// trusted.
    pub fn key(&self) -> Option<ContainerKey> {
        let engine = self.engine.filter(|engine| engine.has_name_files() && self.owner.0 == 0)?;
        Some(ContainerKey { engine, id: self.id? })
    }
}

/// A test of the container of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerTest {
    /// The engine; `None` accepts any, known or not.
    pub engine: Option<ContainerEngine>,
    /// The user who created the container; `None` means root.
    pub owner: Option<UserTest>,
    /// The name of the container, or its ID.
    pub name: TextTest,
}

impl ContainerTest {
    fn accepts_owner(&self, container: &Container, owner_name: Option<&str>) -> bool {
        match &self.owner {
            None => container.owner.0 == 0,
            Some(test) => test.matches(container.owner, owner_name),
        }
    }

    /// Checks the name in the path of the cgroup and the ID.
    fn accepts_path(&self, container: &Container) -> bool {
        let name = container.name.as_deref();
        let id = container.id.as_ref();
        name.is_some_and(|name| self.name.accepts(name))
            || id.is_some_and(|id| self.accepts_id(id))
            || self.is_for_all()
    }

    fn accepts_id(&self, id: &ContainerId) -> bool {
        match &self.name {
            TextTest::Is(text) => text.len() >= MIN_ID_DIGITS && id.0.starts_with(text),
            TextTest::Matches(glob) => glob.matches(&id.0) || glob.matches(&id.0[..MIN_ID_DIGITS]),
        }
    }

    /// Checks whether the test accepts a container of any name.
    pub fn is_for_all(&self) -> bool {
        match &self.name {
            TextTest::Is(_) => false,
            TextTest::Matches(glob) => glob.is_any(),
        }
    }

    /// Checks whether the test accepts each container of root, as `true` in rule files does.
    pub fn is_any(&self) -> bool {
        self.engine.is_none() && self.owner.is_none() && self.is_for_all()
    }
}

/// Names that a test of a container can need and that take longer to find than its cgroup.
pub trait ContainerNames {
    /// The reason for which a name is not known yet.
    type Error;

    /// Returns the name of the user who created the container.
    ///
    /// # Errors
    /// It must be looked up first.
    fn owner_name(&mut self, owner: Uid) -> Result<Option<String>, Self::Error>;

    /// Returns the name of a container from the files of its engine.
    ///
    /// # Errors
    /// It must be read first.
    fn container_name(&mut self, key: ContainerKey) -> Result<Option<String>, Self::Error>;
}

/// Checks whether one of the tests accepts the container. Reads no name that the result does not depend on.
///
/// # Errors
/// A name must be found first.
pub fn accept<N: ContainerNames>(
    tests: &[ContainerTest],
    container: &Container,
    names: &mut N,
) -> Result<bool, N::Error> {
    let needs_owner = |test: &ContainerTest| test.owner.as_ref().is_some_and(UserTest::needs_name);
    let of_engine =
        tests.iter().filter(|test| test.engine.is_none() || test.engine == container.engine);
    let owner = match of_engine.clone().any(needs_owner) {
        true => names.owner_name(container.owner)?,
        false => None,
    };
    let mut of_kind = of_engine.filter(|test| test.accepts_owner(container, owner.as_deref()));
    if of_kind.clone().any(|test| test.accepts_path(container)) {
        return Ok(true);
    }
    let Some(key) = container.key().filter(|_| of_kind.clone().next().is_some()) else {
        return Ok(false);
    };
    let name = names.container_name(key)?;
    Ok(name.is_some_and(|name| of_kind.any(|test| test.name.accepts(name.as_bytes()))))
}

/// Whether a rule moves processes out of containers created by root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LeaveContainers {
    /// Processes stay in their container.
    #[default]
    No,
    /// Processes are moved.
    Yes,
    /// Processes are moved out of the containers that one of these tests accepts, and stay in all others.
    Of(Box<[ContainerTest]>),
}

impl Rule {
    /// Checks whether a match depends on the container of a process.
    pub fn tests_container(&self) -> bool {
        self.context().into_iter().flatten().any(|context| !context.containers.is_empty())
    }

    /// Checks whether the rule tests for containers of any engine, known or not.
    pub fn tests_any_container(&self) -> bool {
        let mut tests =
            self.context().into_iter().flatten().flat_map(|context| &context.containers);
        tests.any(|test| test.engine.is_none())
    }

    /// Checks whether a match, or the move, depends on the container of a process.
    pub fn needs_container(&self) -> bool {
        self.tests_container() || matches!(self.leave_containers, LeaveContainers::Of(_))
    }

    /// Checks whether a match, or the move, depends on the name of the user who created the container.
    pub fn needs_container_owner(&self) -> bool {
        let of_criteria =
            self.context().into_iter().flatten().flat_map(|context| &context.containers);
        let of_key = match &self.leave_containers {
            LeaveContainers::Of(tests) => &**tests,
            LeaveContainers::No | LeaveContainers::Yes => &[],
        };
        of_criteria.chain(of_key).any(|test| test.owner.as_ref().is_some_and(UserTest::needs_name))
    }
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
