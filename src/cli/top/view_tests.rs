use super::*;

fn row(name: &str, cpu: f64) -> GroupRow {
    GroupRow {
        cgroup: name.to_owned(),
        shown: name.to_owned(),
        rule: "php-fpm pools of sites".to_owned(),
        rules: 1,
        cpu_percent: Some(cpu),
        memory_bytes: Some(512 << 20),
        io_bytes_per_second: Some(1_234_567.0),
        tasks: Some(12),
        pressure_percent: Some(3.21),
        pressure_of: Some("cpu"),
        throttled_percent: Some(0.4),
        oom_kills: Some(0),
        is_nested: false,
    }
}

const PLAIN: FrameOptions =
    FrameOptions { color: false, unicode: true, width: 80, height: Some(24) };
const FRAME: Frame = Frame { sort: Sort::Cpu, cpus: 2, rules: 3, is_interactive: true };

#[test]
fn the_table_of_eighty_columns() {
    let unknown = GroupRow {
        cgroup: "/db".to_owned(),
        shown: "/db".to_owned(),
        rule: "db".to_owned(),
        rules: 3,
        cpu_percent: None,
        memory_bytes: None,
        io_bytes_per_second: None,
        tasks: None,
        pressure_percent: None,
        pressure_of: None,
        throttled_percent: None,
        oom_kills: None,
        is_nested: false,
    };
    let busy = GroupRow { oom_kills: Some(2), ..row("/sites/a-user-with-a-long-name", 150.0) };
    let rows = [busy, row("/sites", 25.0), unknown];
    let shown = lines(&rows, FRAME, PLAIN).join("\n");
    let expected = "\
cgroups 3  CPU 175.0%  memory 1.0G  IO 2.4M/s  tasks 24  OOM kills 2
sort  c:*cpu m:memory i:io t:tasks p:pressure n:name  q:quit
CGROUP                   CPU%    MEM   IO/s TASKS PRESS THR% OOM RULE          \u{20}
…-with-a-long-name ███  150.0   512M   1.2M    12  3.2c    0   2 php-fpm pools…
/sites             ▌     25.0   512M   1.2M    12  3.2c    0   0 php-fpm pools…
/db                         -      -      -     -     -    -   - db +2
-  memory not enabled for the cgroup: see 'controllers' in cgruled-rules(5)";
    assert_eq!(shown, expected);
    let without_io = GroupRow { io_bytes_per_second: None, ..row("/a", 1.0) };
    let shown = lines(std::slice::from_ref(&without_io), FRAME, PLAIN);
    assert!(shown[4].starts_with("-  io not enabled"), "{shown:?}");
    let first = GroupRow { cpu_percent: None, ..without_io };
    assert_eq!(lines(&[first], FRAME, PLAIN).len(), 4, "no rates before the second sample");
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in [1, 40, 54, 55, 56, 60, 72, 80, 81, 120, 200] {
        for unicode in [true, false] {
            let style = FrameOptions { width, unicode, ..PLAIN };
            let rows = [row(&"/x".repeat(200), 1e9), row("/a", 0.0)];
            for line in lines(&rows, FRAME, style) {
                assert!(line.chars().count() <= width, "{width}: {line:?}");
            }
            let empty = lines(&[], FRAME, FrameOptions { color: true, width, ..style });
            let shown = |line: &str| {
                line.replace("\x1b[1m", "").replace("\x1b[7m", "").replace("\x1b[0m", "")
            };
            assert!(empty.iter().all(|line| shown(line).chars().count() <= width), "{empty:?}");
        }
    }
}

#[test]
fn what_does_not_fit_is_counted() {
    let rows: Vec<GroupRow> = (0..40).map(|n| row(&format!("/g{n}"), 1.0)).collect();
    let shown = lines(&rows, FRAME, PLAIN);
    assert_eq!((shown.len(), &*shown[23]), (24, "… 20 more cgroups"));
    assert_eq!(lines(&rows, FRAME, FrameOptions { height: None, ..PLAIN }).len(), 43);
    let empty = lines(&[], FRAME, PLAIN);
    assert!(
        empty[0].starts_with("cgroups 0  CPU 0.0%") && empty[3].starts_with("No cgroup of a rule")
    );
    assert!(lines(&[], Frame { rules: 0, ..FRAME }, PLAIN)[3].starts_with("No rules found"));
}

#[test]
fn colours_are_for_those_who_want_them() {
    let style = FrameOptions { color: true, ..PLAIN };
    let rows = [GroupRow { oom_kills: Some(1), pressure_percent: Some(50.0), ..row("/a", 1.0) }];
    let shown = lines(&rows, FRAME, style).join("\n");
    assert!(
        shown.contains("\u{1b}[31m  1\u{1b}[0m") && shown.contains("\u{1b}[31m50.0c\u{1b}[0m"),
        "{shown:?}"
    );
    assert!(!lines(&rows, FRAME, PLAIN).join("").contains('\u{1b}'));
}

#[test]
fn sizes_take_five_characters() {
    let cases = [
        (0, "0"),
        (1023, "1023"),
        (1024, "1.0K"),
        (12_345, "12.1K"),
        (999 << 10, "999K"),
        (1000 << 10, "1.0M"),
        (512 << 20, "512M"),
        (u64::MAX, "16.0E"),
    ];
    for (number, text) in cases {
        assert_eq!(bytes(number), text);
    }
}

#[test]
fn bars_are_a_part_of_the_machine() {
    assert_eq!(bar(0.5, PLAIN), "██  ");
    assert_eq!(bar(0.04, PLAIN), "▏   ");
    assert_eq!(bar(7.0, PLAIN), "████");
    assert_eq!(bar(0.5, FrameOptions { unicode: false, ..PLAIN }), "##  ");
}
