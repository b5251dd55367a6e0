//! Writes the table of README.md that compares the daemon with cgrulesengd, from `benches/RESULTS.md`, and compares it
//! with the file. CONTRIBUTING.md has the command.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write;
use std::fs;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const START: &str = "| measured on ";
const OURS: &str = "cgruled auto v2";
const REAL_TIME: &str = "cgruled auto, real-time v2";
const THEIRS: &str = "cgrulesengd v1";
/// Rows that are no measurements.
const DIFFERENCES: &str = "\
| an invalid line in a rule file | the daemon does not start | only the invalid rule is disabled; the error shows file, line and column |
| events that arrive faster than they are read | 256 are queued; losses are not noticed | 16 MiB are queued; losses are counted and cause a scan |
";

/// The measurements as text.
struct Results(String);

impl Results {
    fn read() -> Self {
        Self(fs::read_to_string(format!("{ROOT}/benches/RESULTS.md")).unwrap())
    }

    /// Returns the cells of a row, whose first cells are `start`, in the section whose title begins with `title`.
    fn row(&self, title: &str, start: &str) -> Vec<&str> {
        let section = self.0.split("\n## ").find(|section| section.starts_with(title));
        let section = section.unwrap_or_else(|| panic!("no section {title}"));
        let row = section.lines().find(|line| line.starts_with(&format!("| {start} |")));
        let row = row.unwrap_or_else(|| panic!("no row {start} in {title}"));
        row.trim_matches('|').split('|').map(str::trim).collect()
    }

    /// Returns the median and the 99th percentile of a latency in milliseconds.
    fn latency(&self, title: &str, subject: &str) -> [String; 2] {
        let row = self.row(title, subject);
        [3, 5].map(|column| milliseconds(row[column].parse().unwrap()))
    }

    fn median(&self, title: &str, subject: &str) -> String {
        let [median, _] = self.latency(title, subject);
        median
    }

    /// Returns the processes that were outside to the end, by round.
    fn outside(&self, title: &str, subject: &str) -> String {
        let counts = self.row(title, subject)[3].replace(' ', ", ");
        if counts.chars().all(|c| "0, ".contains(c)) { "0".to_owned() } else { counts }
    }

    fn table(&self) -> String {
        let mut rows = vec![[
            format!("measured on {}, {}, stock kernel", self.fact("kernel"), self.fact("CPUs")),
            "cgrulesengd 2.0.2".to_owned(),
            "cgruled".to_owned(),
        ]];
        rows.push(["---"; 3].map(str::to_owned));
        rows.extend(self.losses());
        rows.extend(self.latencies());
        rows.extend(self.costs());
        let mut table = String::new();
        for row in rows {
            writeln!(table, "| {} |", row.join(" | ")).unwrap();
        }
        table.replace("| --- | --- | --- |", "|---|---|---|") + DIFFERENCES
    }

    fn fact(&self, name: &str) -> String {
        let line = self.0.lines().find(|line| line.starts_with(&format!("- {name}: "))).unwrap();
        let value = line.split_once(": ").unwrap().1;
        match name {
            "kernel" => {
                format!("Linux {}", value.splitn(3, '.').take(2).collect::<Vec<_>>().join("."))
            }
            name => format!("{value} {name}"),
        }
    }

    fn losses(&self) -> Vec<[String; 3]> {
        let cases = [
            (
                "processes outside their cgroup after a fork tree of 781, by round",
                "Loss: a fork tree of 781",
            ),
            ("the same after a fork tree of 9,724", "Loss: a fork tree of 9,724"),
            ("the same after 1,000 daemons set their UID, fork and exit", "Loss: 1,000 orphans"),
        ];
        let mut rows: Vec<_> = cases
            .map(|(name, title)| {
                [name.to_owned(), self.outside(title, THEIRS), self.outside(title, OURS)]
            })
            .into();
        let storm = ["cgrulesengd v1", "cgruled off v2"].map(|subject| {
            let row = self.row("Exec storm", subject);
            let [checked, misplaced, dropped] = [2, 3, 4].map(|column| row[column]);
            let misplaced: u64 =
                misplaced.split(" / ").map(|count| count.parse::<u64>().unwrap()).sum();
            format!("{misplaced} of {checked}; {dropped} events lost")
        });
        let [theirs, ours] = storm;
        rows.push([
            "misplaced in an exec storm with mixed rules, of those checked".to_owned(),
            theirs,
            ours,
        ]);
        rows
    }

    fn latencies(&self) -> Vec<[String; 3]> {
        let [apart, isolated, close] =
            ["Latency, processes 5 s", "Latency, processes 100 ms", "Latency, 5 ms apart, 32"];
        let floors = ["floor v2", "floor, expedited v2"].map(|floor| self.median(apart, floor));
        let [theirs, real_time, ours] =
            [THEIRS, REAL_TIME, OURS].map(|subject| self.latency(close, subject).join(" and "));
        let rules = "Latency with 10,000 rules, 5 ms";
        let many = "10,000 rules";
        let late = self.row(rules, &format!("{THEIRS}, {many}"));
        let all: u64 = late[1].parse::<u64>().unwrap() + late[2].parse::<u64>().unwrap();
        let ratio =
            self.row(rules, &format!("cgruled off v2, {many}"))[7].split(' ').next().unwrap();
        vec![
            [
                "median time from system call to placement, moves 5 s apart, as logins are"
                    .to_owned(),
                format!("{} ms", self.median(apart, THEIRS)),
                format!(
                    "{} ms (a C program that only moves: {} ms, {} ms with the same technique)",
                    self.median(apart, OURS),
                    floors[0],
                    floors[1]
                ),
            ],
            [
                "moves 100 ms apart".to_owned(),
                format!("{} ms", self.median(isolated, THEIRS)),
                format!("{} ms", self.median(isolated, OURS)),
            ],
            [
                "5 ms apart with 32 processes that compute: median and 99th percentile".to_owned(),
                format!("{theirs} ms"),
                format!("{real_time} ms with real-time scheduling, else {ours} ms"),
            ],
            [
                "5 ms apart with 10,000 rules".to_owned(),
                format!("{} of {all} not placed within 0.7 s", late[2]),
                format!("{ratio} times the value with one rule"),
            ],
        ]
    }

    fn costs(&self) -> Vec<[String; 3]> {
        let memory = [THEIRS, "cgruled off v2"].map(|subject| {
            let of = |rules: &str| {
                let row = self.row("Resident memory", &format!("{subject} | {rules}"));
                row[2].split(' ').next().unwrap().to_owned()
            };
            format!("{} and {} MiB", of("1 rule"), of("10,000 rules"))
        });
        let cpu = [THEIRS, "cgruled off v2"].map(|subject| {
            let row = self.row("CPU per exec", &format!("{subject} | 1 rule"));
            format!("{} µs", spread(row[2]))
        });
        let rate = |title| [THEIRS, OURS].map(|subject| spread(self.row(title, subject)[2]));
        let rows = [
            ("memory with 1 and with 10,000 rules", memory),
            ("CPU time per exec that matches no rule", cpu),
            ("fork rate of the machine relative to no daemon", rate("Fork rate")),
            ("exec rate relative to no daemon", rate("Exec rate")),
        ];
        rows.map(|(name, [theirs, ours])| [name.to_owned(), theirs, ours]).into()
    }
}

/// Returns a time in milliseconds with one decimal, below 0.15 ms with two.
fn milliseconds(us: f64) -> String {
    if us < 150.0 { format!("{:.2}", us / 1000.0) } else { format!("{:.1}", us / 1000.0) }
}

/// Formats a median and its spread, `0.988 (0.927..1.271)`, with two significant decimals.
fn spread(cell: &str) -> String {
    let (median, rest) = cell.split_once(" (").unwrap();
    let (least, most) = rest.trim_end_matches(')').split_once("..").unwrap();
    let short = |number: &str| {
        let number: f64 = number.parse().unwrap();
        if number >= 10.0 { format!("{number:.0}") } else { format!("{number:.2}") }
    };
    format!("{} ({} to {})", short(median), short(least), short(most))
}

#[test]
fn the_table_of_the_readme_is_that_of_the_results() {
    let path = format!("{ROOT}/README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let start = readme.find(START).unwrap();
    let end = start + readme[start..].find("\n\n").unwrap() + 1;
    let table = Results::read().table();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, [&readme[..start], &table, &readme[end..]].concat()).unwrap();
        return;
    }
    let hint = "write it with UPDATE_GOLDEN=1 cargo test --test comparison";
    assert!(readme[start..end] == table, "{path}: {hint}\n{table}");
}
