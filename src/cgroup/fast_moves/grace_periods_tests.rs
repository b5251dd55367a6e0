use super::*;
use tempfile::TempDir;

struct Host {
    directory: TempDir,
    paths: SwitchPaths,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        let paths = SwitchPaths {
            expedited: file("expedited"),
            normal: file("normal"),
            reserved_cpus: file("nohz_full"),
            record: file("record"),
        };
        fs::write(&paths.expedited, "0\n").unwrap();
        fs::write(&paths.normal, "0\n").unwrap();
        fs::write(&paths.reserved_cpus, "(null)\n").unwrap();
        Self { directory, paths }
    }

    fn value(&self) -> u8 {
        fs::read(&self.paths.expedited).unwrap()[0]
    }

    fn record(&self) -> u8 {
        fs::read(&self.paths.record).unwrap()[0]
    }

    fn refusal(&self) -> String {
        GracePeriodSwitch::open(&self.paths).unwrap_err().to_string()
    }
}

#[test]
fn the_switch_is_set_for_one_move_and_recorded() {
    let host = Host::new();
    let switch = GracePeriodSwitch::open(&host.paths).unwrap();
    let expedited = switch.expedite().unwrap();
    assert_eq!((host.value(), host.record()), (b'1', b'1'));
    assert!(switch.expedite().is_none());
    drop(expedited);
    assert_eq!((host.value(), host.record()), (b'0', b'0'));
}

#[test]
fn a_switch_of_the_administrator_stays_set() {
    let host = Host::new();
    let switch = GracePeriodSwitch::open(&host.paths).unwrap();
    fs::write(&host.paths.expedited, "1\n").unwrap();
    assert!(switch.expedite().is_none());
    assert_eq!(host.value(), b'1');
    assert!(!host.paths.restore().unwrap());
    assert_eq!(host.value(), b'1');
}

#[test]
fn a_crash_between_the_two_writes_is_mended() {
    let host = Host::new();
    let switch = GracePeriodSwitch::open(&host.paths).unwrap();
    std::mem::forget(switch.expedite().unwrap());
    assert_eq!(host.value(), b'1');
    assert!(host.paths.restore().unwrap());
    assert_eq!((host.value(), host.record()), (b'0', b'0'));
    assert!(!host.paths.restore().unwrap());
}

#[test]
fn the_reason_against_it_is_said() {
    let host = Host::new();
    fs::write(&host.paths.normal, "1\n").unwrap();
    assert!(host.refusal().contains("normal is 1"), "{}", host.refusal());
    fs::write(&host.paths.normal, "0\n").unwrap();
    fs::write(&host.paths.reserved_cpus, "2-5\n").unwrap();
    assert!(host.refusal().contains("CPUs 2-5 are reserved"), "{}", host.refusal());
    fs::write(&host.paths.reserved_cpus, "\n").unwrap();
    // A record elsewhere than in a directory of root could be a link to any file.
    std::os::unix::fs::symlink(host.directory.path().join("other"), &host.paths.record).unwrap();
    assert!(host.refusal().contains("record"), "{}", host.refusal());
    fs::remove_file(&host.paths.record).unwrap();
    fs::remove_file(&host.paths.expedited).unwrap();
    assert!(host.refusal().contains("expedited"), "{}", host.refusal());
}
