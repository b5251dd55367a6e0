//! Determines the container of a process from the path of its cgroup. Pure.
//!
//! Container engines name the cgroups of their containers: with the ID or the name, in a slice or below the root. The
//! names alone are no evidence. Below the slice of a user the user chooses them, so a container there is one of that
//! user. Elsewhere the caller has to check who can create the cgroup: see [`crate::placement::container`].

use std::borrow::Cow;

use crate::event::Uid;
use crate::rules::container::{ContainerEngine, ContainerId, ID_DIGITS, MIN_ID_DIGITS};

/// Container as the path of a cgroup names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathContainer<'p> {
    /// Engine that names its cgroups like this.
    pub engine: ContainerEngine,
    /// User below whose slice it is.
    pub owner: Option<Uid>,
    /// Name of the container; for Kubernetes the UID of its pod.
    pub name: Option<Cow<'p, [u8]>>,
    /// ID of the container.
    pub id: Option<ContainerId>,
    /// Length of the path of the container's own cgroup, in which its processes create further ones.
    pub end: usize,
}

/// Components of a path from one position on.
type Components<'s, 'p> = &'s [&'p [u8]];

/// Container at the first of some components: its engine, name, ID and the number of components.
type NamedContainer<'p> = (ContainerEngine, Option<Cow<'p, [u8]>>, Option<ContainerId>, usize);

/// Maximum number of components that are examined. Those of engines have up to ten.
const MOST_COMPONENTS: usize = 32;

impl<'p> PathContainer<'p> {
    /// Returns the outermost container in a path, which begins with a slash.
    pub fn of(path: &'p [u8]) -> Option<Self> {
        let components: Vec<&[u8]> =
            path.strip_prefix(b"/")?.split(|&byte| byte == b'/').take(MOST_COMPONENTS).collect();
        let is_slice = |name: &&&[u8]| name.ends_with(b".slice");
        let slices = components.iter().take_while(is_slice).count();
        let owner = match components[..slices] {
            [b"user.slice", user, ..] => slice_user(user),
            _ => None,
        };
        let pod = components[..slices].iter().rev().find_map(|name| pod_of_slice(name));
        // A user may create any cgroups below the own slice; root only those of engines.
        let is_in_service = components.get(slices).is_some_and(|name| name.ends_with(b".service"));
        let most = match owner {
            Some(_) => components.len(),
            None => components.len().min(slices + 1 + usize::from(is_in_service)),
        };
        let found = (slices..most).find_map(|at| {
            let is_below_service = owner.is_none() && at > slices;
            let named = named(&components[at..], pod.clone(), is_below_service)?;
            Some((at, named))
        });
        let (at, (engine, name, id, count)) = found?;
        let end = components[..at + count].iter().map(|part| part.len() + 1).sum();
        Some(Self { engine, owner: owner.filter(|owner| owner.0 != 0), name, id, end })
    }
}

/// Returns the container whose cgroup begins with these components. `pod` is that of the slices above.
fn named<'p>(
    components: Components<'_, 'p>,
    pod: Option<Cow<'p, [u8]>>,
    is_below_service: bool,
) -> Option<NamedContainer<'p>> {
    let [first, rest @ ..] = components else { return None };
    if is_below_service {
        // podman --cgroups=split in a service. Other cgroups below a service are its own affair.
        let id = ContainerId::parse(first.strip_prefix(b"libpod-payload-")?)?;
        return Some((ContainerEngine::Podman, None, Some(id), 1));
    }
    if pod.is_some() {
        let scopes = [&b"cri-containerd-"[..], b"crio-", b"docker-"];
        let id = scopes.iter().find_map(|start| id_between(first, start, b".scope"))?;
        return Some((ContainerEngine::Kubernetes, pod, Some(id), 1));
    }
    match *first {
        b"kubepods" => of_kubepods(rest),
        b"docker" => {
            Some((ContainerEngine::Docker, None, Some(ContainerId::parse(rest.first()?)?), 2))
        }
        b"libpod_parent" => of_libpod(rest),
        b"lxc" | b"lxc.payload" => {
            let name = rest.first().filter(|name| !name.is_empty())?;
            Some((ContainerEngine::Lxc, Some(Cow::Borrowed(name)), None, 2))
        }
        _ => of_component(first),
    }
}

/// Returns the container to which one component belongs.
fn of_component(name: &[u8]) -> Option<NamedContainer<'_>> {
    let by_id = [
        (ContainerEngine::Docker, id_between(name, b"docker-", b".scope")),
        (ContainerEngine::Podman, id_between(name, b"libpod-", b".scope")),
        (ContainerEngine::Podman, id_between(name, b"libpod-", b"")),
        (ContainerEngine::Podman, id_between(name, b"libpod-payload-", b"")),
    ];
    if let Some((engine, id)) = by_id.into_iter().find(|(_, id)| id.is_some()) {
        return Some((engine, None, id, 1));
    }
    let (engine, name) = if let Some(name) = name.strip_prefix(b"lxc.payload.") {
        (ContainerEngine::Lxc, Cow::Borrowed(name))
    } else if let Some(name) = between(name, b"systemd-nspawn@", b".service") {
        (ContainerEngine::Nspawn, Cow::Borrowed(name))
    } else {
        let name = unescaped(between(name, b"machine-", b".scope")?);
        // libvirt registers its virtual machines like this.
        let is_virtual = name.starts_with(b"qemu-");
        (ContainerEngine::Nspawn, Some(name).filter(|_| !is_virtual)?)
    };
    (!name.is_empty()).then_some((engine, Some(name), None, 1))
}

/// Returns the container below `/kubepods`, where the kubelet creates the cgroups itself:
/// `[burstable|besteffort/]podUID/ID`.
fn of_kubepods<'p>(components: Components<'_, 'p>) -> Option<NamedContainer<'p>> {
    let classes = components.iter().take_while(|name| !name.starts_with(b"pod")).count();
    let [pod, id, ..] = components.get(classes..)? else { return None };
    let id = ContainerId::parse(id)?;
    let pod = Cow::Borrowed(pod.strip_prefix(b"pod")?);
    (classes <= 1).then_some((ContainerEngine::Kubernetes, Some(pod), Some(id), classes + 3))
}

/// Returns the container below `/libpod_parent`, perhaps in a pod: `[POD/]libpod-ID`.
fn of_libpod<'p>(components: Components<'_, 'p>) -> Option<NamedContainer<'p>> {
    let ids = components.iter().take(2).map(|name| id_between(name, b"libpod-", b""));
    let (at, id) = ids.enumerate().find(|(_, id)| id.is_some())?;
    Some((ContainerEngine::Podman, None, id, at + 2))
}

/// Returns the UID of the pod to which a slice belongs: `kubepods-burstable-podUID.slice`. Its name has no hyphens.
fn pod_of_slice(name: &[u8]) -> Option<Cow<'_, [u8]>> {
    let name = name.strip_prefix(b"kubelet-").unwrap_or(name);
    let name = between(name, b"kubepods-", b".slice")?;
    let start = name.windows(4).position(|part| part == b"-pod").map(|at| at + 1).unwrap_or(0);
    let pod = name[start..].strip_prefix(b"pod").filter(|pod| !pod.is_empty())?;
    Some(Cow::Owned(pod.iter().map(|&byte| if byte == b'_' { b'-' } else { byte }).collect()))
}

/// Returns the user of `user-UID.slice`.
fn slice_user(name: &[u8]) -> Option<Uid> {
    let digits = std::str::from_utf8(between(name, b"user-", b".slice")?).ok()?;
    let uid: u32 = digits.parse().ok()?;
    // No sign and no leading zeros: systemd writes none.
    (uid.to_string() == digits).then_some(Uid(uid))
}

/// Returns the cgroup in which an engine usually starts a container. A name that is no ID gets one of zeros.
pub fn usual_cgroup(engine: ContainerEngine, owner: Uid, name: &str) -> String {
    let is_hex = name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = is_hex && (MIN_ID_DIGITS..=ID_DIGITS).contains(&name.len());
    let digits = if is_id { name } else { "" };
    let id = format!("{digits:0<ID_DIGITS$}");
    let user = format!("/user.slice/user-{owner}.slice/user@{owner}.service/user.slice");
    let (slice, cgroup) = match engine {
        ContainerEngine::Docker => ("/system.slice", format!("docker-{id}.scope")),
        ContainerEngine::Podman => ("/machine.slice", format!("libpod-{id}.scope")),
        ContainerEngine::Lxc => ("", format!("lxc.payload.{name}")),
        ContainerEngine::Nspawn => ("/machine.slice", format!("systemd-nspawn@{name}.service")),
        ContainerEngine::Kubernetes => ("", format!("kubepods/pod{name}/{id}")),
    };
    let slice = if owner.0 == 0 { slice } else { &user };
    format!("{slice}/{cgroup}")
}

fn between<'t>(text: &'t [u8], start: &[u8], end: &[u8]) -> Option<&'t [u8]> {
    text.strip_prefix(start)?.strip_suffix(end)
}

fn id_between(text: &[u8], start: &[u8], end: &[u8]) -> Option<ContainerId> {
    ContainerId::parse(between(text, start, end)?)
}

/// Replaces the escapes of systemd in the name of a unit: `\x2d`, and `-` for a slash.
fn unescaped(name: &[u8]) -> Cow<'_, [u8]> {
    if !name.iter().any(|byte| b"\\-".contains(byte)) {
        return Cow::Borrowed(name);
    }
    let mut text = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [byte, after @ ..] = rest {
        rest = after;
        match (*byte, after) {
            (b'\\', [b'x', high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default();
                text.extend(u8::try_from(16 * digit(*high) + digit(*low)));
                rest = after;
            }
            (b'-', _) => text.push(b'/'),
            (byte, _) => text.push(byte),
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
