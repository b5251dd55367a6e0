//! Converts the cgroups of ananicy to tables; it adds no rules.

use serde_json::Value;

use super::{AnanicyFile, NAMES, ObjectKind, RuleSet, group, kind};
use crate::compat::convert::cgconfig::pair;
use crate::compat::convert::toml_text::destination;
use crate::rules::destination::Destination;

/// The period of a CPU quota in microseconds.
const PERIOD: u64 = 100_000;

impl RuleSet<'_> {
    /// Adds the tables of the cgroups of a file.
    pub(super) fn groups(&mut self, file: &AnanicyFile<'_>) {
        for (number, object) in &file.objects {
            let Some(ObjectKind::Group(name)) = kind(object) else { continue };
            let path = destination(&group(name));
            if let Err(error) = Destination::parse(&path) {
                let help = "a [cgroup] table cannot have this path";
                self.draft.lost(&file.lines, *number, &error.message, help);
                continue;
            }
            self.draft.blank();
            if let Err(why) = self.draft.table(&path, &file.lines, *number) {
                self.draft.lost(&file.lines, *number, &why, "remove one of them");
                continue;
            }
            for (key, value) in object.iter().filter(|(key, _)| !NAMES.contains(&key.as_str())) {
                self.limit(file, *number, key, value);
            }
        }
    }

    /// Writes a limit. A quota is a percentage of the CPU time of the whole machine.
    fn limit(&mut self, file: &AnanicyFile<'_>, number: u32, key: &str, value: &Value) {
        let percent = value.as_u64().filter(|percent| (1..=100).contains(percent));
        match (key, percent) {
            ("CPUQuota", Some(percent)) => {
                let cpus = self.host.cpus;
                let quota = percent * cpus * (PERIOD / 100);
                self.draft.comment(&format!("# {percent} % of {cpus} CPUs"));
                self.draft.lines(&pair("cpu.max", &format!("{quota} {PERIOD}"), false));
            }
            ("CPUQuota", None) => {
                let help = "write a number from 1 to 100, or remove CPUQuota";
                self.draft.lost(&file.lines, number, "invalid CPUQuota: not a percentage", help);
            }
            (other, _) => {
                let why = format!("{} has no counterpart", other.escape_debug());
                self.draft.lost(&file.lines, number, &why, "see cgruled-rules(5) for settings");
            }
        }
    }
}
