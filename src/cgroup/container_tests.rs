//! Tests the paths of container engines, and paths that only look like them.

use proptest::prelude::*;

use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Returns `engine[@UID]:name:id`, and the path of the container's own cgroup.
fn found(path: &str) -> Option<(String, &str)> {
    let found = PathContainer::of(path.as_bytes())?;
    let owner = found.owner.map(|owner| format!("@{owner}")).unwrap_or_default();
    let name = String::from_utf8(found.name.unwrap_or_default().into_owned()).unwrap();
    let id = if found.id.is_some() { "ID" } else { "" };
    Some((format!("{}{owner}:{name}:{id}", found.engine.name()), &path[..found.end]))
}

#[test]
fn paths_of_engines() {
    let user = "/user.slice/user-1000.slice/user@1000.service";
    let pods = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1b_2c.slice";
    let table = [
        (format!("/docker/{ID}"), "", "docker::ID"),
        (format!("/docker/{ID}"), "/init.scope", "docker::ID"),
        (format!("/system.slice/docker-{ID}.scope"), "/a", "docker::ID"),
        (format!("/own.slice/own-a.slice/docker-{ID}.scope"), "", "docker::ID"),
        (format!("/machine.slice/libpod-{ID}.scope"), "/container", "podman::ID"),
        (format!("/machine.slice/machine-libpod_pod_1.slice/libpod-{ID}.scope"), "", "podman::ID"),
        (format!("/libpod_parent/libpod-{ID}"), "", "podman::ID"),
        (format!("/libpod_parent/{ID}/libpod-{ID}"), "", "podman::ID"),
        (format!("/system.slice/web.service/libpod-payload-{ID}"), "", "podman::ID"),
        (format!("{user}/user.slice/libpod-{ID}.scope"), "/container", "podman@1000::ID"),
        (format!("{user}/app.slice/web.service/libpod-payload-{ID}"), "", "podman@1000::ID"),
        (format!("{user}/user.slice/docker-{ID}.scope"), "", "docker@1000::ID"),
        (format!("{user}/docker/{ID}"), "", "docker@1000::ID"),
        (format!("{user}/a/b/c/lxc.payload.web"), "/x", "lxc@1000:web:"),
        (
            "/user.slice/user-1000.slice/session-1.scope/lxc.payload.web".to_owned(),
            "",
            "lxc@1000:web:",
        ),
        (format!("/user.slice/user-0.slice/session-1.scope/libpod-{ID}"), "", "podman::ID"),
        ("/lxc.payload.web".to_owned(), "/system.slice/docker.service", "lxc:web:"),
        ("/lxc/101".to_owned(), "/ns/init.scope", "lxc:101:"),
        ("/lxc.payload/101".to_owned(), "", "lxc:101:"),
        ("/machine.slice/systemd-nspawn@web-1.service".to_owned(), "/payload", "nspawn:web-1:"),
        ("/machine.slice/machine-web\\x2d1.scope".to_owned(), "/payload", "nspawn:web-1:"),
        ("/machine.slice/machine-box.scope".to_owned(), "", "nspawn:box:"),
        (format!("{pods}/cri-containerd-{ID}.scope"), "", "k8s:1b-2c:ID"),
        (format!("{pods}/crio-{ID}.scope"), "/x", "k8s:1b-2c:ID"),
        (format!("{pods}/docker-{ID}.scope"), "", "k8s:1b-2c:ID"),
        (
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1b_2c.slice/crio-{ID}.scope"
            ),
            "",
            "k8s:1b-2c:ID",
        ),
        (format!("/kubepods/burstable/pod1b-2c/{ID}"), "", "k8s:1b-2c:ID"),
        (format!("/kubepods/pod1b-2c/{ID}"), "/x", "k8s:1b-2c:ID"),
        // A container in a container.
        (format!("/docker/{ID}"), "/docker/x", "docker::ID"),
    ];
    for (own, below, expected) in table {
        let path = format!("{own}{below}");
        assert_eq!(found(&path), Some((expected.to_owned(), &*own)), "{path}");
    }
}

#[test]
fn other_paths() {
    for path in [
        "",
        "/",
        "docker/x",
        "/docker",
        "/docker/web",
        "/docker/0123456789AB",
        "/system.slice",
        "/system.slice/docker.service",
        "/system.slice/docker-1.scope",
        "/system.slice/cron.service",
        "/system.slice/web.service/lxc.payload.x",
        "/system.slice/web.service/lxc/x",
        "/lxc",
        "/lxc/",
        "/lxc.payload.",
        "/lxc.monitor.web",
        "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
        "/machine.slice/machine-.scope",
        "/kubepods/burstable/x/y",
        "/kubepods.slice/kubepods-pod1.slice/x.scope",
        "/user.slice/user-1000.slice/session-1.scope",
        "/people/lxc/x",
    ] {
        assert_eq!(found(path), None, "{path}");
    }
    for path in [
        format!("/system.slice/x.service/docker/{ID}"),
        format!("/system.slice/x.service/docker-{ID}.scope"),
        format!("/machine.slice/libpod-conmon-{ID}.scope"),
        format!("/people/docker/{ID}"),
        format!("/a/b/docker-{ID}.scope"),
        format!("/docker/{}", ID.to_uppercase()),
        format!("/docker/{ID}0"),
    ] {
        assert_eq!(found(&path), None, "{path}");
    }
}

proptest! {
    /// Below the slice of a user nothing is a container of root.
    #[test]
    fn any_path_below_a_users_slice_is_of_that_user(
        rest in "(/(lxc|docker|x|[0-9a-f]{64}|lxc.payload.a|libpod-[0-9a-f]{64}(.scope)?|user-0.slice|a.slice|kubepods-podx.slice)){0,6}"
    ) {
        let path = format!("/user.slice/user-7.slice{rest}");
        if let Some(found) = PathContainer::of(path.as_bytes()) {
            prop_assert_eq!(found.owner, Some(Uid(7)));
        }
    }

    #[test]
    fn any_bytes_have_an_answer(path in "(/|lxc|docker|kubepods|pod|-|\\.slice|\\.scope|[0-9a-f]{64}|.){0,30}") {
        if let Some(found) = PathContainer::of(path.as_bytes()) {
            prop_assert!(found.end <= path.len() && found.end > 1);
            prop_assert!(path.len() == found.end || path.as_bytes()[found.end] == b'/');
            prop_assert!(found.name.is_some() || found.id.is_some());
        }
    }
}

#[test]
fn the_usual_cgroup_shows_the_container() {
    for engine in ContainerEngine::ALL {
        for owner in [0, 1000] {
            for name in ["web", "0123456789ab"] {
                let path = usual_cgroup(engine, Uid(owner), name);
                let found = PathContainer::of(path.as_bytes()).unwrap();
                assert_eq!(found.engine, engine, "{path}");
                assert_eq!(found.owner, (owner != 0).then_some(Uid(owner)), "{path}");
            }
        }
    }
}
