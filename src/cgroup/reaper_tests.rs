use super::*;

/// Creates directories that imitate a hierarchy.
fn top(groups: &[&str]) -> tempfile::TempDir {
    let top = tempfile::tempdir().unwrap();
    groups.iter().for_each(|group| fs::create_dir_all(top.path().join(group)).unwrap());
    top
}

#[test]
fn a_table_with_fields_is_for_groups_of_ours() {
    let top = top(&["root/sites/a/x", "root/sites/b", "root/sites/c", "sites/d"]);
    let mut marks = OwnerTags::default();
    let mut mark = |path: &str, text: &str| marks.put(&top.path().join(path), text.to_owned());
    mark("root/sites/a", "sites/%u");
    mark("root/sites/c", "sites/%p");
    mark("root/sites/a/x", "sites/%u/%p");
    let paths = |root, text| {
        let mut found = walk::paths(top.path(), root, text, &marks);
        found.sort();
        found
    };
    assert_eq!(paths("/root", "sites/%u"), ["/root/sites/a"]);
    assert_eq!(paths("/root", "sites/%p"), ["/root/sites/c"]);
    assert_eq!(paths("/root/", "sites/%u/%p"), ["/root/sites/a/x"]);
    assert_eq!(paths("", "sites/%u"), [""; 0]);
}

#[test]
fn a_table_that_is_written_out_is_for_whatever_is_there() {
    let top = top(&["root/sites"]);
    let marks = OwnerTags::default();
    assert_eq!(walk::paths(top.path(), "/root", "sites", &marks), ["/root/sites"]);
    assert_eq!(walk::paths(top.path(), "/root", "", &marks), ["/root"]);
    assert_eq!(walk::paths(top.path(), "", "", &marks), [""]);
    assert_eq!(walk::paths(top.path(), "/root", "other", &marks), [""; 0]);
    assert_eq!(walk::paths(top.path(), "/other", "", &marks), [""; 0]);
}

#[test]
fn a_mark_is_gone_with_its_group() {
    let top = top(&["a"]);
    let group = top.path().join("a");
    let mut marks = OwnerTags::default();
    assert_eq!(marks.of(&group), None);
    marks.put(&group, "%u".to_owned());
    assert_eq!(marks.of(&group).as_deref(), Some("%u"));
    fs::remove_dir(&group).unwrap();
    marks.forget(&group);
    assert_eq!(marks.of(&group), None);
    fs::create_dir(&group).unwrap();
    assert_eq!(marks.of(&group), None);
}

/// Imitates a v1 cgroup with `text` in its `cgroup.procs`.
fn fill(group: &Path, text: &str) {
    fs::write(group.join("cgroup.procs"), text).unwrap();
}

#[test]
fn a_time_begins_when_the_last_process_leaves() {
    const SECOND: u64 = 1_000_000_000;
    let top = top(&["a/below"]);
    let (group, below) = (top.path().join("a"), top.path().join("a/below"));
    fill(&group, "");
    fill(&below, "7\n");
    let mut vacancies = EmptyTracker::open();
    let after = Duration::from_secs(4);
    vacancies.watch(super::super::mounts::Version::V1, &group, after, Nanos(0));
    let mut expired = |seconds: u64| vacancies.take_expired(Nanos(seconds * SECOND));
    assert_eq!(expired(9), [""; 0].map(PathBuf::from));
    fill(&below, "");
    // First seen empty at 10 s, polled every second.
    assert_eq!(expired(10), [""; 0].map(PathBuf::from));
    assert_eq!(expired(13), [""; 0].map(PathBuf::from));
    fill(&group, "8\n");
    assert_eq!(expired(14), [""; 0].map(PathBuf::from));
    fill(&group, "");
    assert_eq!(expired(15), [""; 0].map(PathBuf::from));
    assert_eq!(expired(18), [""; 0].map(PathBuf::from));
    assert_eq!(expired(19), [group.as_path()]);
    assert_eq!(expired(30), [""; 0].map(PathBuf::from));
    vacancies.again(&group, Nanos(30 * SECOND));
    assert_eq!(vacancies.next(Nanos(30 * SECOND)).1, Some(Nanos(34 * SECOND)));
    fs::remove_dir_all(&group).unwrap();
    assert_eq!(vacancies.take_expired(Nanos(99 * SECOND)), [""; 0].map(PathBuf::from));
    assert!(!vacancies.has(&group));
}
