//! Names of containers from the files of their engines. Reads only files that root alone can write, and only those of
//! engines that root runs: a user could choose any name for a container of the own engine.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, fstat};
use serde::Deserialize;

use crate::rules::container::{ContainerEngine, ContainerId, ContainerKey};
use crate::sys::checked_path::{is_link, open_checked};

/// Maximum size of a file. That of podman has about 1 KiB for each container.
const MAX_BYTES: u64 = 16 << 20;
/// Directory with a directory for each container of Docker.
const DOCKER: &str = "var/lib/docker/containers";
/// Lists of the containers of podman, by storage driver.
const PODMAN: [&str; 3] = ["overlay", "vfs", "btrfs"];
/// Maximum number of containers that are listed.
const MOST_LISTED: usize = 4096;
/// Write permission for group and others.
const WRITABLE: u32 = 0o022;

/// A container with its ID, if the files of its engine contain that, and its name.
pub type NamedContainer = (Option<ContainerId>, String);

/// Part of `config.v2.json` of Docker.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(rename = "Name")]
    name: String,
}

/// Part of an entry of `containers.json` of podman.
#[derive(Deserialize)]
struct PodmanContainer {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

/// Parses the name of a container in the `config.v2.json` of Docker.
///
/// # Errors
/// The text is no such JSON.
pub fn docker_name(text: &[u8]) -> io::Result<String> {
    let config: DockerConfig = serde_json::from_slice(text)?;
    Ok(config.name.strip_prefix('/').map_or(config.name.clone(), str::to_owned))
}

/// Parses the IDs and names in the `containers.json` of podman.
///
/// # Errors
/// The text is no such JSON.
pub fn podman_names(text: &[u8]) -> io::Result<Vec<(ContainerId, String)>> {
    let containers: Vec<PodmanContainer> = serde_json::from_slice(text)?;
    let named = containers.into_iter().filter_map(|own| {
        Some((ContainerId::parse(own.id.as_bytes())?, own.names.into_iter().next()?))
    });
    Ok(named.collect())
}

/// Returns the name of a container from the files below `root`, which is `/` except in tests.
///
/// # Errors
/// A file cannot be read, is not of root or contains something else.
pub fn name(root: &Path, key: ContainerKey) -> io::Result<Option<String>> {
    match key.engine {
        ContainerEngine::Docker => {
            let path = docker_file(root, &String::from_utf8_lossy(key.id.as_bytes()));
            read(&path)?.map(|text| docker_name(&text)).transpose()
        }
        ContainerEngine::Podman => {
            let all = podman(root)?;
            Ok(all.into_iter().find(|(id, _)| *id == key.id).map(|(_, name)| name))
        }
        ContainerEngine::Lxc | ContainerEngine::Nspawn | ContainerEngine::Kubernetes => Ok(None),
    }
}

/// Returns the names and IDs of the containers of an engine. `None` if its files do not list them.
///
/// # Errors
/// A file or directory cannot be read.
pub fn names(root: &Path, engine: ContainerEngine) -> io::Result<Option<Vec<NamedContainer>>> {
    let found = match engine {
        ContainerEngine::Docker => {
            let ids = entries(&root.join(DOCKER))?;
            let names = ids.into_iter().filter_map(|id| {
                let name = read(&docker_file(root, &id)).ok()??;
                Some((ContainerId::parse(id.as_bytes()), docker_name(&name).ok()?))
            });
            names.collect()
        }
        ContainerEngine::Podman => {
            podman(root)?.into_iter().map(|(id, name)| (Some(id), name)).collect()
        }
        ContainerEngine::Lxc => of_directory(&root.join("var/lib/lxc"))?,
        ContainerEngine::Nspawn | ContainerEngine::Kubernetes => return Ok(None),
    };
    Ok(Some(found))
}

fn docker_file(root: &Path, id: &str) -> PathBuf {
    root.join(DOCKER).join(id).join("config.v2.json")
}

fn podman(root: &Path) -> io::Result<Vec<(ContainerId, String)>> {
    let mut found = Vec::new();
    for driver in PODMAN {
        let directory = format!("var/lib/containers/storage/{driver}-containers");
        if let Some(text) = read(&root.join(directory).join("containers.json"))? {
            found.extend(podman_names(&text)?);
        }
    }
    Ok(found)
}

fn of_directory(directory: &Path) -> io::Result<Vec<NamedContainer>> {
    Ok(entries(directory)?.into_iter().map(|name| (None, name)).collect())
}

/// Returns the names in a directory; none if it does not exist.
fn entries(directory: &Path) -> io::Result<Vec<String>> {
    let read = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let names =
        read.take(MOST_LISTED).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.collect())
}

/// Returns the content of a file that root alone can write, as all directories on the way. `None` if it does not exist.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = open_checked(File::open("/")?.as_fd(), path, (flags, Mode::empty()), |_, stat| {
        // The permissions of a link mean nothing.
        if is_link(stat) && is_own(stat.st_uid) || is_safe(stat) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    });
    let file = match opened {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        opened => opened?,
    };
    if !is_safe(&fstat(&file)?) {
        return Err(Errno::EPERM.into());
    }
    let file = File::from(file);
    if !file.metadata()?.is_file() {
        return Err(Errno::EINVAL.into());
    }
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(Errno::EFBIG.into());
    }
    Ok(Some(text))
}

/// Checks whether no other user can write a file or directory. A sticky directory such as `/tmp` counts as safe: its
/// entries belong to the one who created them, which is checked too.
fn is_safe(stat: &FileStat) -> bool {
    const STICKY: u32 = 0o1000;
    is_own(stat.st_uid) && (stat.st_mode & WRITABLE == 0 || stat.st_mode & STICKY != 0)
}

/// Checks whether a file belongs to root, or to the user who runs a test.
fn is_own(uid: u32) -> bool {
    uid == 0 || cfg!(test) && nix::unistd::geteuid().as_raw() == uid
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn key(engine: ContainerEngine) -> ContainerKey {
        ContainerKey { engine, id: ContainerId::parse(ID.as_bytes()).unwrap() }
    }

    fn write(root: &Path, path: &str, text: &str) -> PathBuf {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn names_in_the_files_of_engines() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for engine in ContainerEngine::ALL {
            assert_eq!(name(root, key(engine)).unwrap(), None, "{engine:?}");
        }
        let docker = format!("{DOCKER}/{ID}/config.v2.json");
        let file = write(root, &docker, "{\"ID\":\"x\",\"Name\":\"/web-1\",\"Config\":{}}");
        assert_eq!(name(root, key(ContainerEngine::Docker)).unwrap().as_deref(), Some("web-1"));
        let list = "var/lib/containers/storage/overlay-containers/containers.json";
        write(
            root,
            list,
            &format!("[{{\"id\":\"{ID}\",\"names\":[\"db\",\"x\"]}},{{\"id\":\"1\"}}]"),
        );
        assert_eq!(name(root, key(ContainerEngine::Podman)).unwrap().as_deref(), Some("db"));
        fs::create_dir_all(root.join("var/lib/lxc/101")).unwrap();
        let own = ContainerId::parse(ID.as_bytes());
        for (engine, expected) in [
            (ContainerEngine::Docker, Some(vec![(own, "web-1".to_owned())])),
            (ContainerEngine::Podman, Some(vec![(own, "db".to_owned())])),
            (ContainerEngine::Lxc, Some(vec![(None, "101".to_owned())])),
            (ContainerEngine::Nspawn, None),
        ] {
            assert_eq!(names(root, engine).unwrap(), expected, "{engine:?}");
        }
        // A file that others can write, in a directory that others can write, and no file at all.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o646)).unwrap();
        assert!(name(root, key(ContainerEngine::Docker)).is_err());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(file.parent().unwrap(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(name(root, key(ContainerEngine::Docker)).is_err());
        fs::set_permissions(file.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        for text in ["", "{}", "[]", "{\"Name\":1}", "{\"Name\":"] {
            fs::write(&file, text).unwrap();
            assert!(name(root, key(ContainerEngine::Docker)).is_err(), "{text}");
        }
        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, Mode::S_IRUSR).unwrap();
        assert!(name(root, key(ContainerEngine::Docker)).is_err());
    }

    #[test]
    fn a_file_that_is_too_large_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = write(root.path(), &format!("{DOCKER}/{ID}/config.v2.json"), "");
        File::options().write(true).open(file).unwrap().set_len(MAX_BYTES + 1).unwrap();
        let found = name(root.path(), key(ContainerEngine::Docker));
        assert_eq!(found.unwrap_err().raw_os_error(), Some(libc::EFBIG));
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_answer(text in "(\\[|\\]|\\{|\\}|\"id\":|\"Name\":|\"names\":|\"[a-f0-9/]{0,64}\"|,|.){0,20}") {
            let _name = docker_name(text.as_bytes());
            let _names = podman_names(text.as_bytes());
        }
    }
}
