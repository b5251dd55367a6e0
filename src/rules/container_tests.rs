//! Tests which containers the tests of rules accept, and which names they need.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::config::rules_toml;
use crate::rules::glob::Glob;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Names that are known, and which of them were read.
#[derive(Default)]
struct Names {
    owner: Option<&'static str>,
    container: Option<&'static str>,
    reads: Vec<&'static str>,
}

impl ContainerNames for Names {
    type Error = ();

    fn owner_name(&mut self, _: Uid) -> Result<Option<String>, ()> {
        self.reads.push("owner");
        self.owner.map(|name| Some(name.to_owned())).ok_or(())
    }

    fn container_name(&mut self, _: ContainerKey) -> Result<Option<String>, ()> {
        self.reads.push("container");
        self.container.map(|name| Some(name.to_owned())).ok_or(())
    }
}

/// Creates the test `[ENGINE|*][@OWNER]:NAME`.
fn test(text: &str) -> ContainerTest {
    let (kind, name) = text.split_once(':').unwrap();
    let (engine, owner) = kind.split_once('@').unwrap_or((kind, ""));
    let glob = |text: &str| Glob::parse(text.as_bytes()).unwrap();
    let owner = match owner.parse() {
        Ok(uid) => Some(UserTest::Ids(Uid(uid), Uid(uid))),
        Err(_) => Some(UserTest::Glob(glob(owner))).filter(|_| !owner.is_empty()),
    };
    let name = match Glob::is_glob(name.as_bytes()) {
        true => TextTest::Matches(glob(name)),
        false => TextTest::Is(name.as_bytes().into()),
    };
    ContainerTest { engine: ContainerEngine::of_name(engine), owner, name }
}

fn by_id(engine: ContainerEngine, owner: u32) -> Container {
    let id = ContainerId::parse(ID.as_bytes());
    Container { engine: Some(engine), owner: Uid(owner), name: None, id }
}

fn by_name(engine: ContainerEngine, owner: u32) -> Container {
    Container { name: Some(b"web-1".to_vec()), id: None, ..by_id(engine, owner) }
}

#[test]
fn engines_owners_names_and_ids() {
    let docker = by_id(ContainerEngine::Docker, 0);
    let lxc = by_name(ContainerEngine::Lxc, 0);
    let of_user = by_name(ContainerEngine::Lxc, 7);
    let unknown = Container { engine: None, owner: Uid(7), name: None, id: None };
    let full = format!("docker:{ID}");
    for (tests, container, expected) in [
        (&["docker:web-1"][..], &docker, true),
        (&["docker:web-*"], &docker, true),
        (&["podman:web-*"], &docker, false),
        (&["docker:db"], &docker, false),
        (&["podman:x", "docker:db", "*:web-?"], &docker, true),
        (&["docker:0123456789ab"], &docker, true),
        (&["docker:0123*"], &docker, true),
        (&["docker:0123456789a?"], &docker, true),
        (&["docker:0123*cdef"], &docker, true),
        (&["docker:0123*8"], &docker, false),
        (&["docker:0123456789a"], &docker, false),
        (&["docker:0123456789ac"], &docker, false),
        (&[&full], &docker, true),
        (&["lxc:web-1"], &lxc, true),
        (&["lxc:web"], &lxc, false),
        (&["*:*"], &lxc, true),
        (&["lxc:*"], &of_user, false),
        (&["*:*"], &of_user, false),
        (&["lxc@7:*"], &of_user, true),
        (&["lxc@8:*"], &of_user, false),
        (&["lxc@ali*:web-1"], &of_user, true),
        (&["*@b*:web-1"], &of_user, false),
        (&["lxc@0:*"], &lxc, true),
        (&["*@*:*"], &unknown, true),
        (&["*@7:*"], &unknown, true),
        (&["*@7:x*"], &unknown, false),
        (&["*:*"], &unknown, false),
        (&["lxc@7:*"], &unknown, false),
        (&[], &docker, false),
    ] {
        let tests: Vec<ContainerTest> = tests.iter().map(|text| test(text)).collect();
        let mut names = Names { owner: Some("alice"), container: Some("web-1"), reads: vec![] };
        assert_eq!(accept(&tests, container, &mut names), Ok(expected), "{tests:?} {container:?}");
    }
}

#[test]
fn no_name_is_read_in_vain() {
    let docker = by_id(ContainerEngine::Docker, 0);
    for (tests, container, expected, reads) in [
        (&["docker:*"][..], docker.clone(), Ok(true), &[][..]),
        (&["docker:0123456789ab", "docker:db"], docker.clone(), Ok(true), &[]),
        (&["lxc:web"], docker.clone(), Ok(false), &[]),
        (&["docker:web"], docker.clone(), Err(()), &["container"]),
        (&["docker@b*:web"], docker, Err(()), &["owner"]),
        // A user could choose any name.
        (&["docker:web"], by_id(ContainerEngine::Docker, 7), Ok(false), &[]),
        (&["docker@7:web"], by_id(ContainerEngine::Docker, 7), Ok(false), &[]),
        (&["k8s:web"], by_id(ContainerEngine::Kubernetes, 0), Ok(false), &[]),
        (&["lxc:db"], by_name(ContainerEngine::Lxc, 0), Ok(false), &[]),
        (&["lxc@7:web-1"], by_name(ContainerEngine::Lxc, 7), Ok(true), &[]),
    ] {
        let tests: Vec<ContainerTest> = tests.iter().map(|text| test(text)).collect();
        let mut names = Names::default();
        assert_eq!(accept(&tests, &container, &mut names), expected, "{tests:?}");
        assert_eq!(names.reads, reads, "{tests:?}");
    }
}

#[test]
fn only_one_test_accepts_each_container_of_root() {
    assert!(test("*:*").is_any());
    for text in ["*@7:*", "lxc:*", "*:web", "*:web-*"] {
        assert!(!test(text).is_any(), "{text}");
    }
}

#[test]
fn ids_have_64_digits_in_lower_case() {
    assert_eq!(ContainerId::parse(ID.as_bytes()).unwrap().shown(), "0123456789ab");
    for text in ["", "0123456789ab", &ID.to_uppercase(), &format!("{ID}0"), &ID.replace('0', "g")] {
        assert_eq!(ContainerId::parse(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn the_name_of_the_owner_is_needed_for_patterns_of_users() {
    for (keys, expected) in [
        ("container = \"podman@ali*:*\"", true),
        ("container = [\"lxc:*\", \"podman@b*:web\"]", true),
        ("container = \"podman@*:web\"", false),
        ("container = \"podman@7:*\"", false),
        ("container = true", false),
        ("user = \"5\"\nnot = { container = \"podman@ali*:*\" }", true),
        ("user = \"5\"\ncontainers = [\"podman@ali*:*\"]", true),
        ("user = \"5\"\ncontainers = true", false),
        ("user = \"ali*\"", false),
    ] {
        let text = format!("version = 1\n[[rule]]\n{keys}\ncgroup = \"a\"\n");
        let parsed = rules_toml::parse(&Arc::from(Path::new("/a.toml")), &text);
        let found = parsed.rules.first().map(|one| one.rule.needs_container_owner());
        assert_eq!(found, Some(expected), "{keys}: {:?}", parsed.diagnostics);
    }
}
