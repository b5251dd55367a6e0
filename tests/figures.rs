//! Draws the figures of README.md from the samples of a benchmark, and compares them with the files in `docs`.
//! CONTRIBUTING.md has the commands.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

use std::fmt::Write;

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Names of the subjects in the samples and in the figures. Their classes differ in more than colour.
const SUBJECTS: [(&str, &str, &str); 3] = [
    ("cgruled auto v2", "cgruled (default)", "default"),
    ("cgruled off v2", "cgruled, fast_moves off", "off"),
    ("cgrulesengd v1", "cgrulesengd", "other"),
];
const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-size:15px;font-weight:600}.note{fill:#59636e}\
.paper{fill:#fff}.grid{stroke:#d1d9e0;fill:none}.curve{fill:none;stroke-width:2}.end{text-anchor:end}\
.mid{text-anchor:middle}.default{stroke:#0969da}.off{stroke:#1a7f37;stroke-dasharray:6 3}\
.other{stroke:#bc4c00;stroke-width:3}.bar{stroke-width:14}\
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.note{fill:#9198a1}.paper{fill:#0d1117}.grid{stroke:#3d444d}\
.default{stroke:#4493f8}.off{stroke:#3fb950}.other{stroke:#f0883e}}";
const PANEL: (f64, f64) = (330.0, 190.0);
/// Limits of the logarithmic axis in microseconds.
const AXIS: (f64, f64) = (10.0, 100_000.0);
const TICKS: [&str; 5] = ["10 µs", "100 µs", "1 ms", "10 ms", "100 ms"];

/// Lines of the file that `--samples` of the benchmark wrote: facts, then samples of each case and subject.
fn samples() -> (Value, Vec<Value>) {
    let text = std::fs::read_to_string(format!("{ROOT}/benches/samples.jsonl")).unwrap();
    let mut lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    (lines.next().unwrap(), lines.collect())
}

struct Figure(String);

impl Figure {
    fn new(size: (f64, f64), title: &str, notes: &[&str]) -> Self {
        let (width, height) = size;
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\"><title>{title}</title><style>{STYLE}</style>\n\
             <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n"
        );
        text += &format!("<text class=\"title\" x=\"20\" y=\"28\">{title}</text>\n");
        for (index, note) in notes.iter().enumerate() {
            let y = 48 + 17 * index;
            writeln!(text, "<text class=\"note\" x=\"20\" y=\"{y}\">{note}</text>").unwrap();
        }
        Self(text)
    }

    fn text(&mut self, class: &str, at: (f64, f64), text: &str) {
        let (x, y) = at;
        writeln!(self.0, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>")
            .unwrap();
    }

    fn path(&mut self, class: &str, path: &str) {
        writeln!(self.0, "<path class=\"{class}\" d=\"{path}\"/>").unwrap();
    }

    /// Writes the figure with `UPDATE_GOLDEN=1`, and compares it with the file.
    fn check(self, name: &str) {
        let (path, text) = (format!("{ROOT}/docs/{name}.svg"), self.0 + "</svg>\n");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(written == text, "{path}: write it with UPDATE_GOLDEN=1 cargo test --test figures");
    }
}

/// Returns the conditions of the measurement.
fn conditions(facts: &Value) -> String {
    let [kernel, cpus, date, load, length] = ["kernel", "CPUs", "date", "load before", "length"]
        .map(|name| facts[name].as_str().unwrap());
    let quick = if length == "full" { "" } else { "; a short run, not for quoting" };
    let load = load.split(' ').next().unwrap();
    format!("Linux {kernel}, {cpus} CPUs, load average {load} before, {date}{quick}")
}

fn sum(counts: &Value) -> u64 {
    counts.as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum()
}

fn time(us: f64) -> String {
    if us < 1000.0 { format!("{us:.0} µs") } else { format!("{:.1} ms", us / 1000.0) }
}

/// Diagram of the share of moves that are complete after a time.
struct Panel {
    left: f64,
    top: f64,
}

impl Panel {
    fn x(&self, us: f64) -> f64 {
        let us = us.clamp(AXIS.0, AXIS.1);
        self.left + PANEL.0 * (us / AXIS.0).log10() / (AXIS.1 / AXIS.0).log10()
    }

    fn y(&self, share: f64) -> f64 {
        self.top + PANEL.1 * (1.0 - share)
    }

    fn draw(&self, figure: &mut Figure, pause: u64, all: &[Value]) {
        let (Self { left, top }, (width, height)) = (self, PANEL);
        let heading = format!("Pause of {} ms before each move", pause / 1000);
        figure.text("mid", (left + width / 2.0, top - 10.0), &heading);
        for (index, label) in TICKS.into_iter().enumerate() {
            let x = left + width * index as f64 / 4.0;
            figure.path("grid", &format!("M{x:.1} {top}v{height}"));
            figure.text("note mid", (x, top + height + 16.0), label);
        }
        for percent in [0, 25, 50, 75, 100] {
            let level = self.y(f64::from(percent) / 100.0);
            figure.path("grid", &format!("M{left} {level:.1}h{width}"));
            figure.text("note end", (left - 6.0, level + 4.0), &format!("{percent} %"));
        }
        let mut row = top + height + 40.0;
        for (column, label) in [(195.0, "moves"), (260.0, "median"), (340.0, "99 %")] {
            figure.text("note end", (left + column, row), label);
        }
        for (subject, label, class) in SUBJECTS {
            let mut of_pause = all.iter().filter(|one| one["pause_us"] == pause);
            let Some(found) = of_pause.find(|one| one["latency"] == subject) else { continue };
            row += 18.0;
            figure.path(&format!("curve {class}"), &format!("M{} {}h22", left - 30.0, row - 4.0));
            figure.text("", (self.left, row), label);
            self.curve(figure, class, row, found);
        }
    }

    /// Draws the curve of a subject and writes its numbers into a row of the legend.
    fn curve(&self, figure: &mut Figure, class: &str, row: f64, found: &Value) {
        let us = found["us"].as_array().unwrap().iter();
        let us: Vec<f64> = us.map(|us| us.as_f64().unwrap()).collect();
        // Late moves count, so a curve with such does not reach 100 %.
        let count = us.len() + usize::try_from(found["late"].as_u64().unwrap()).unwrap();
        let step = us.len().div_ceil(250).max(1);
        let mut path = String::new();
        for (index, us) in us.iter().enumerate().filter(|(index, _)| (index + 1) % step == 0) {
            let letter = if path.is_empty() { 'M' } else { 'L' };
            let share = (index + 1) as f64 / count as f64;
            write!(path, "{letter}{:.1} {:.1}", self.x(*us), self.y(share)).unwrap();
        }
        figure.path(&format!("curve {class}"), &path);
        figure.text("end", (self.left + 195.0, row), &count.to_string());
        for (column, percent) in [(260.0, 50), (340.0, 99)] {
            let at = us.get((count * percent / 100).min(count - 1)).copied();
            figure.text("end", (self.left + column, row), &at.map_or("late".into(), time));
        }
    }
}

#[test]
fn latency() {
    let (facts, all) = samples();
    let notes = [
        "Share of moves that are complete after a time, from setresuid(2) to the event cgroup_attach_task.",
        &conditions(&facts),
    ];
    let mut figure = Figure::new((820.0, 410.0), "Time until a process is in its cgroup", &notes);
    Panel { left: 60.0, top: 110.0 }.draw(&mut figure, 100_000, &all);
    Panel { left: 450.0, top: 110.0 }.draw(&mut figure, 5_000, &all);
    figure.check("latency");
}

#[test]
fn escaped_processes() {
    let (facts, all) = samples();
    let notes = [
        "Share of processes still outside their cgroup six seconds after the last fork, over all rounds.",
        &conditions(&facts),
    ];
    let mut cases: Vec<&str> = all.iter().filter_map(|one| one["case"].as_str()).collect();
    cases.dedup();
    let height = 100.0 + 74.0 * cases.len() as f64;
    let mut figure = Figure::new((800.0, height), "Escaped processes", &notes);
    let mut row = 96.0;
    for case in cases {
        figure.text("", (20.0, row), case.trim_start_matches("Loss: "));
        for (subject, label, class) in [SUBJECTS[0], SUBJECTS[2]] {
            let mut of_case = all.iter().filter(|one| one["case"] == case);
            let Some(found) = of_case.find(|one| one["loss"] == subject) else { continue };
            let [outside, lost] = ["outside", "lost"].map(|key| sum(&found[key]));
            let total = found["survivors"].as_u64().unwrap();
            row += 20.0;
            figure.text("end", (150.0, row), label);
            let length = 380.0 * lost as f64 / total as f64;
            figure.path(&format!("bar {class}"), &format!("M160 {}h{length:.1}", row - 4.0));
            let rounds = found["lost"].as_array().unwrap().len();
            let counts =
                format!("{lost} of {total} in {rounds} rounds; after one second {outside}");
            figure.text("note", (168.0 + length, row), &counts);
        }
        row += 34.0;
    }
    figure.check("escaped");
}
