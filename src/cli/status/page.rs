//! Page of 80 columns about the daemon's status. Must depend on nothing but the status and the output
//! options.

use std::fmt::{self, Write};

use crate::cli::format::{counted, date, grouped, microseconds, span};
use crate::config::escape::Escaped;
use crate::control::history::message::HistoryStatus;
use crate::control::status::{HierarchyStatus, MoveLatency, Status};

/// Columns of the longest bar, and of a bar with its number.
const BAR: u64 = 46;
const CHART: usize = 63;
/// Maximum rows of the chart; the longest moves share the last row if there are more.
const ROWS: usize = 16;

/// Capabilities of the terminal that shows the page.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageOptions {
    pub(super) is_colored: bool,
    pub(super) is_unicode: bool,
}

impl PageOptions {
    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn alarm(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.is_colored { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Formats a number that should be 0, highlighted if it is not.
    fn bad(self, number: u64, what: &str) -> String {
        let text = format!("{} {what}", grouped(number));
        if number == 0 { text } else { self.alarm(&text) }
    }
}

/// Returns the page, with a line end after each line.
pub(super) fn render(status: &Status, style: PageOptions) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(status, style, &mut text);
    text
}

fn write_all(status: &Status, style: PageOptions, out: &mut String) -> fmt::Result {
    head(status, style, out)?;
    rules(status, style, out)?;
    let events = status.counter("events");
    let lost = status.counter("lost_events") + status.counter("lost_forks");
    row(
        style,
        out,
        "Events",
        &format!("{} received, {}", grouped(events), style.bad(lost, "lost")),
    )?;
    let scans = counted(status.counter("scans"), "scan", "scans");
    let looks = counted(status.counter("evaluations"), "evaluation", "evaluations");
    row(style, out, "Processes", &format!("{looks}, {scans} of /proc"))?;
    let placed = if status.dry_run { "would_place" } else { "placed" };
    let verb = if status.dry_run { "would be moved" } else { "moved" };
    let all = status.counter(placed);
    let timed = status.latency.count;
    // The other moves followed a scan or a request: there is no event to measure the latency from.
    let part = match timed < all && !status.dry_run {
        true => format!(", {} of them timed (after an event)", grouped(timed)),
        false => String::new(),
    };
    row(style, out, "Moves", &format!("{} {verb}{part}", grouped(all)))?;
    external_moves(status, style, out)?;
    left_alone(status, style, out)?;
    failures(status, style, out)?;
    history(&status.history, style, out)?;
    latency(&status.latency, style, out)
}

fn head(status: &Status, style: PageOptions, out: &mut String) -> fmt::Result {
    let name = style.bold(&format!("cgruled {}", Escaped(&status.version)));
    let pid = status.pid;
    let since = date(status.started);
    writeln!(out, "{name}, process {pid}, running for {} since {since}", span(status.uptime))?;
    if status.stalled {
        let text = "The placement thread does not respond.";
        writeln!(out, "{}", style.alarm(text))?;
    }
    if status.dry_run {
        writeln!(out, "Dry run: no process is moved.")?;
    }
    Ok(())
}

fn rules(status: &Status, style: PageOptions, out: &mut String) -> fmt::Result {
    let rules = &status.rules;
    let files = counted(rules.files.len() as u64, "file", "files");
    let age = span((status.started + status.uptime).saturating_sub(rules.since));
    let text = format!("{} from {files}, read {age} ago", counted(rules.count, "rule", "rules"));
    row(style, out, "Rules", &text)?;
    if rules.observing > 0 {
        let matches = counted(status.counter("would_match"), "match", "matches");
        let text = format!("{} only observing: {matches} so far", grouped(rules.observing));
        row(style, out, "", &text)?;
        let not_observed = status.counter("not_observed");
        if not_observed > 0 {
            let evaluations = counted(not_observed, "evaluation", "evaluations");
            let text = format!("{evaluations} without them: data were not read in time");
            row(style, out, "", &text)?;
        }
    }
    if rules.errors + rules.warnings > 0 {
        let errors = style.bad(rules.errors, if rules.errors == 1 { "error" } else { "errors" });
        let warnings = counted(rules.warnings, "warning", "warnings");
        row(style, out, "", &format!("{errors}, {warnings}: run 'cgrulectl check'"))?;
    }
    if let Some(refused) = &status.refused_reload {
        let errors = counted(refused.errors.len() as u64, "new error", "new errors");
        row(style, out, "", &style.alarm(&format!("{errors}: run 'cgrulectl check'")))?;
        let place = refused.kept.first().map_or("", |kept| &kept.first_error);
        row(style, out, "", &tail(&Escaped(place).to_string()))?;
        let files = match refused.kept.len() {
            1 => "file kept at last valid version".to_owned(),
            more => format!("first error; {more} files kept at last valid version"),
        };
        row(style, out, "", &files)?;
    }
    let places = match &status.legacy_root {
        Some(legacy) if *legacy != status.root => {
            row(style, out, "Cgroups", &format!("of TOML rules below {},", Escaped(&status.root)))?;
            row(style, out, "", &format!("of cgrules.conf below {} in", Escaped(legacy)))
        }
        Some(_) | None => {
            row(style, out, "Cgroups", &format!("below {} in", Escaped(&status.root)))
        }
    };
    places?;
    let (old, unified): (Vec<_>, Vec<_>) =
        status.hierarchies.iter().partition(|tree| tree.version == 1);
    unified.into_iter().try_for_each(|tree| row(style, out, "", &hierarchy(tree)))?;
    // One line for each v1 hierarchy would take up half a screen.
    let old = old.into_iter().map(|tree| Escaped(&tree.controllers.join("+")).to_string());
    let old = lines(old, 64).into_iter().enumerate();
    old.into_iter().try_for_each(|(index, line)| {
        row(style, out, "", &format!("{} {line}", if index == 0 { "v1" } else { "  " }))
    })
}

fn external_moves(status: &Status, style: PageOptions, out: &mut String) -> fmt::Result {
    // The field is empty in the answer of an older daemon.
    if status.external_moves.is_empty() || status.external_moves == "off" {
        return Ok(());
    }
    let action = if status.external_moves == "revert" { "reverted" } else { "reported" };
    let found = match status.external_moves_by.as_str() {
        "trace" => "traced by the kernel",
        _ => "not traced: a scan finds them within 60 s",
    };
    row(style, out, "", &format!("external moves are {action}; {found}"))
}

/// Returns the end of a text that is too long for a row.
fn tail(text: &str) -> String {
    match text.chars().count().checked_sub(68) {
        None | Some(0) => text.to_owned(),
        Some(more) => format!("...{}", text.chars().skip(more + 3).collect::<String>()),
    }
}

fn hierarchy(tree: &HierarchyStatus) -> String {
    let place = format!("v{} {}", tree.version, Escaped(&tree.mount_point));
    let controllers = tree.controllers.join(" ");
    // Of 80 columns 12 are the margin, and 7 the parentheses with the ellipsis.
    let room = 61usize.saturating_sub(place.chars().count());
    match controllers.char_indices().nth(room) {
        _ if controllers.is_empty() => place,
        None => format!("{place} ({controllers})"),
        Some((end, _)) => {
            let shown = controllers[..end].rsplit_once(' ').map_or("", |(first, _)| first);
            format!("{place} ({shown} ...)")
        }
    }
}

/// Writes the numbers of evaluations without a move, by reason.
fn left_alone(status: &Status, style: PageOptions, out: &mut String) -> fmt::Result {
    const REASONS: [(&str, &str); 11] = [
        ("in_place", "in place"),
        ("no_rule", "without a matching rule"),
        ("ignored", "ignored by rule"),
        ("inapplicable", "with a rule that cannot be applied"),
        ("protected", "protected"),
        ("sticky", "sticky"),
        ("kept_in_unit", "kept in their unit"),
        ("kept_in_container", "kept in a container"),
        ("kept_in_job", "kept in another user's job"),
        ("gone", "exited"),
        ("deferred", "deferred for other users"),
    ];
    let parts = REASONS.iter().filter_map(|(name, text)| {
        let count = *status.counters.get(*name)?;
        (count > 0).then(|| format!("{} {text}", grouped(count)))
    });
    let mut heading = "Not moved";
    for line in lines(parts, 66) {
        row(style, out, heading, &line)?;
        heading = "";
    }
    Ok(())
}

/// Joins parts into lines of at most `width` columns.
fn lines(parts: impl Iterator<Item = String>, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.len() + part.len() + 2 <= width => {
                line.push_str(", ");
                line.push_str(&part);
            }
            Some(line) => {
                line.push(',');
                lines.push(part);
            }
            None => lines.push(part),
        }
    }
    lines
}

/// Counters of limits that were reached, with their meaning: see the table in docs/design.md.
const REACHED: [(&str, &str); 5] = [
    (
        "refused_examinations",
        "examinations of executables refused: the limit of a user is 256 in the queue",
    ),
    ("lost_ancestors", "processes without recorded ancestors: the limit is 262,144"),
    ("lost_origins", "processes without the rule of their origin: the limit is 262,144"),
    ("control_refused", "control connections refused: the limit of a user is 4"),
    (
        "groups_over_limit",
        "processes share a cgroup: the limit of a user is 1,024 new cgroups a minute",
    ),
];

fn failures(status: &Status, style: PageOptions, out: &mut String) -> fmt::Result {
    let refused = style.bad(status.counter("refused"), "refused");
    let taken = style.bad(status.counter("external_moves_found"), "external moves");
    let abandoned = style.bad(status.counter("abandoned"), "not reverted");
    let dropped = style.bad(status.counter("dropped_log_records"), "log lines dropped");
    row(style, out, "Failures", &format!("{refused}, {taken}, {abandoned}, {dropped}"))?;
    let over_limit = status.counter("sticky_over_limit");
    if over_limit > 0 {
        let pins = counted(over_limit, "pin", "pins");
        row(style, out, "", &format!("{pins} refused: the limit of a user is 4,096 processes"))?;
    }
    for (counter, meaning) in REACHED {
        let count = status.counter(counter);
        if count > 0 {
            row(style, out, "", &format!("{} {meaning}", grouped(count)))?;
        }
    }
    for refusal in &status.refusals {
        let errno = Escaped(&refusal.errno);
        let meaning = Escaped(&refusal.meaning);
        row(style, out, "", &format!("{} refused: {meaning} ({errno})", grouped(refusal.count)))?;
    }
    for taker in &status.external_movers {
        let name = Escaped(&taker.name);
        row(style, out, "", &format!("{} moved to {name}", grouped(taker.count)))?;
    }
    Ok(())
}

/// Writes how much of the past the history contains. The answer of an older daemon has none.
fn history(history: &HistoryStatus, style: PageOptions, out: &mut String) -> fmt::Result {
    let Some(oldest) = history.oldest_ms else { return Ok(()) };
    let kept = counted(history.kept, "evaluation", "evaluations");
    let lost = grouped(history.overwritten);
    let since = date(oldest / 1000);
    row(style, out, "History", &format!("{kept} since {since}, {lost} overwritten"))
}

fn latency(latency: &MoveLatency, style: PageOptions, out: &mut String) -> fmt::Result {
    if latency.count == 0 {
        return row(style, out, "Latency", "no move after an event yet");
    }
    let [p50, p90, p99, max] =
        [latency.p50_us, latency.p90_us, latency.p99_us, latency.max_us].map(microseconds);
    let moves = counted(latency.count, "move", "moves");
    row(style, out, "Latency", &format!("p50 {p50}, p90 {p90}, p99 {p99}, max {max} of {moves}"))?;
    let octaves = together(&latency.octaves);
    let most = octaves.iter().map(|&(_, count)| count).max().unwrap_or(1).max(1);
    let room = CHART.saturating_sub(grouped(most).len()) as u64;
    for (upper, count) in octaves {
        let bar = bar(count, most, room.min(BAR), style.is_unicode);
        let bar = style.paint("36", &bar);
        let label = format!("<= {}", microseconds(upper));
        let space = if bar.is_empty() { "" } else { " " };
        writeln!(out, "{label:>14}  {bar}{space}{}", grouped(count))?;
    }
    Ok(())
}

/// Combines the last rows into one if there are too many.
fn together(octaves: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut rows = octaves.to_vec();
    let tail = rows.split_off(rows.len().min(ROWS));
    if let (Some(last), Some(&(upper, _))) = (rows.last_mut(), tail.last()) {
        last.0 = upper;
        last.1 += tail.iter().map(|&(_, count)| count).sum::<u64>();
    }
    rows
}

/// Returns a bar, with eighths of a cell where the terminal has them. Any count above 0 is visible.
fn bar(count: u64, most: u64, width: u64, is_unicode: bool) -> String {
    if count == 0 {
        return String::new();
    }
    let eighths = u64::try_from(u128::from(count) * u128::from(width * 8) / u128::from(most));
    let eighths = eighths.unwrap_or(width * 8).max(1);
    let whole = usize::try_from(eighths / 8).unwrap_or(0);
    if !is_unicode {
        return "#".repeat(whole.max(1));
    }
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let part = rest.get(usize::try_from(eighths % 8).unwrap_or(0)).copied().unwrap_or_default();
    format!("{}{part}", "█".repeat(whole))
}

fn row(style: PageOptions, out: &mut String, heading: &str, text: &str) -> fmt::Result {
    let padding = " ".repeat(12usize.saturating_sub(heading.len()));
    let heading = if heading.is_empty() { String::new() } else { style.bold(heading) };
    writeln!(out, "{heading}{padding}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::{
        ActiveRulesStatus, ExternalMover, KeptFile, RefusedMoves, RefusedReload,
    };

    const PLAIN: PageOptions = PageOptions { is_colored: false, is_unicode: false };

    const UNIFIED: &str = "cpuset cpu io memory hugetlb pids rdma misc dmem perf_event";

    fn hierarchy(version: u8, mount_point: &str, controllers: &str) -> HierarchyStatus {
        let controllers = controllers.split(' ').map(str::to_owned).collect();
        HierarchyStatus { version, mount_point: mount_point.to_owned(), controllers }
    }

    fn status() -> Status {
        let counters = [
            ("events", 1_234_567),
            ("scans", 2),
            ("evaluations", 99_000),
            ("placed", 4_321),
            ("in_place", 12_345),
            ("no_rule", 80_000),
            ("ignored", 7),
            ("protected", 150),
            ("gone", 2_184),
            ("refused", 3),
            ("external_moves_found", 2),
            ("abandoned", 1),
        ];
        Status {
            version: "0.2.0".into(),
            pid: 712,
            started: 1_795_528_531,
            uptime: 90_000,
            rules: ActiveRulesStatus {
                count: 12,
                observing: 0,
                since: 1_795_528_531 + 82_800,
                generation: 3,
                files: vec!["/a".into(), "/b".into()],
                errors: 1,
                warnings: 2,
            },
            root: "/".into(),
            hierarchies: vec![
                hierarchy(1, "/sys/fs/cgroup/freezer", "freezer"),
                hierarchy(1, "/sys/fs/cgroup/net_cls,net_prio", "net_cls net_prio"),
                hierarchy(2, "/sys/fs/cgroup", UNIFIED),
            ],
            counters: counters.map(|(name, value)| (name.to_owned(), value)).into(),
            refusals: vec![RefusedMoves {
                errno: "EBUSY".into(),
                meaning: "Device or resource busy".into(),
                count: 3,
            }],
            external_moves: "revert".into(),
            external_moves_by: "trace".into(),
            external_movers: vec![ExternalMover { name: "user@1000.service".into(), count: 2 }],
            history: HistoryStatus {
                capacity: 196_608,
                kept: 96_000,
                overwritten: 3_000,
                oldest_ms: Some(1_795_528_531_000),
            },
            latency: MoveLatency {
                count: 4_321,
                p50_us: 112,
                p90_us: 240,
                p99_us: 1_280,
                max_us: 10_123,
                sum_us: 0,
                octaves: vec![(64, 400), (128, 2_600), (256, 1_200), (512, 0), (1024, 121)],
            },
            ..Status::default()
        }
    }

    #[test]
    fn moves_that_are_not_timed_are_told_from_those_that_are() {
        let mut status = status();
        status.latency.count = 4_000;
        let page = render(&status, PLAIN);
        let wanted = "Moves       4,321 moved, 4,000 of them timed (after an event)\n";
        assert!(page.contains(wanted), "{page}");
        assert!(page.contains("of 4,000 moves\n"), "{page}");
    }

    #[test]
    fn the_page_reads_well() {
        let expected = "\
cgruled 0.2.0, process 712, running for 1 d 1 h since 2026-11-24 13:55:31 UTC
Rules       12 rules from 2 files, read 2 h 0 min ago
            1 error, 2 warnings: run 'cgrulectl check'
Cgroups     below / in
            v2 /sys/fs/cgroup (cpuset cpu io memory hugetlb pids rdma misc ...)
            v1 freezer, net_cls+net_prio
Events      1,234,567 received, 0 lost
Processes   99,000 evaluations, 2 scans of /proc
Moves       4,321 moved
            external moves are reverted; traced by the kernel
Not moved   12,345 in place, 80,000 without a matching rule, 7 ignored by rule,
            150 protected, 2,184 exited
Failures    3 refused, 2 external moves, 1 not reverted, 0 log lines dropped
            3 refused: Device or resource busy (EBUSY)
            2 moved to user@1000.service
History     96,000 evaluations since 2026-11-24 13:55:31 UTC, 3,000 overwritten
Latency     p50 112 us, p90 240 us, p99 1.2 ms, max 10.1 ms of 4,321 moves
      <= 64 us  ####### 400
     <= 128 us  ############################################## 2,600
     <= 256 us  ##################### 1,200
     <= 512 us  0
     <= 1.0 ms  ## 121
";
        assert_eq!(render(&status(), PLAIN), expected);
    }

    #[test]
    fn it_fits_80_columns_whatever_the_daemon_says() {
        let mut status = status();
        status.refused_reload = Some({
            let first_error = format!("/{}.toml:4", "a".repeat(100));
            let kept = vec![KeptFile { first_error, ..KeptFile::default() }; 2];
            RefusedReload { at: 0, errors: vec!["a".into(); 3], kept }
        });
        status.stalled = true;
        status.latency.octaves = (0..40).map(|power| (1 << power, u64::MAX / 64)).collect();
        let page = render(&status, PageOptions { is_colored: false, is_unicode: true });
        assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
        assert!(page.lines().count() <= 24 + ROWS);
    }

    #[test]
    fn many_hierarchies_take_few_lines() {
        let mut status = status();
        let names = "cpu,cpuacct cpuset memory devices freezer net_cls,net_prio blkio perf_event \
                     hugetlb pids rdma misc name=systemd";
        let version_1 = names.split_whitespace().map(|names| HierarchyStatus {
            version: 1,
            mount_point: format!("/sys/fs/cgroup/{names}"),
            controllers: names.split(',').map(str::to_owned).collect(),
        });
        status.hierarchies.splice(0..0, version_1);
        let page = render(&status, PLAIN);
        let expected = "
            v1 cpu+cpuacct, cpuset, memory, devices, freezer, net_cls+net_prio,
               blkio, perf_event, hugetlb, pids, rdma, misc, name=systemd";
        assert!(page.contains(expected), "{page}");
    }

    #[test]
    fn names_cannot_drive_the_terminal() {
        let mut status = status();
        status.external_movers =
            vec![ExternalMover { name: "\x1b]0;x\x07\nFailures".into(), count: 1 }];
        let page = render(&status, PLAIN);
        assert!(
            !page.contains('\x1b') && page.lines().filter(|l| l.starts_with("Fa")).count() == 1
        );
        assert!(
            render(&status, PageOptions { is_colored: true, ..PLAIN })
                .contains("\x1b[31m3 refused")
        );
    }

    #[test]
    fn the_root_of_legacy_rules_is_shown_if_it_differs() {
        let mut status = status();
        status.root = "/pool".into();
        status.legacy_root = Some("/pool".into());
        assert!(render(&status, PLAIN).contains("Cgroups     below /pool in\n"));
        status.legacy_root = Some("/".into());
        let expected =
            "Cgroups     of TOML rules below /pool,\n            of cgrules.conf below / in\n";
        let page = render(&status, PLAIN);
        assert!(page.contains(expected), "{page}");
    }

    #[test]
    fn limits_that_were_reached_are_shown() {
        let mut status = status();
        assert!(!render(&status, PLAIN).contains("the limit of a user is 4\n"));
        for (counter, _) in REACHED {
            status.counters.insert(counter.to_owned(), 7);
        }
        let page = render(&status, PLAIN);
        assert!(
            REACHED.iter().all(|(_, meaning)| page.contains(&format!("7 {meaning}\n"))),
            "{page}"
        );
    }
}
