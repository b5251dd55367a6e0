//! `cgrulectl groups`: creates the `group` sections of cgconfig.conf, as `cgconfigparser -l` does.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use super::command::{Command, Failure, Flag, Given};
use super::convert::{paths, read, unreadable};
use crate::cgroup::make::{Made, Plan, Step, complaint, plan};
use crate::cgroup::provision::Gift;
use crate::cgroup::tree;
use crate::config::diagnostic::has_errors;
use crate::load::{self, NameService, Sources};

pub(super) const COMMAND: Command = Command {
    name: "groups",
    operands: "[PATH]...",
    summary: "Create the cgroups of cgconfig.conf, as cgconfigparser does",
    flags: &[
        Flag::new("dry-run", "print the actions, execute none"),
        Flag { short: Some('v'), ..Flag::new("verbose", "print each action") },
    ],
    examples: &[
        (
            "groups",
            "create the cgroups of /etc/cgconfig.conf and cgconfig.d; exit status 1 if the kernel refuses \
             an action, 65 if a file has errors; the rest is created all the same",
        ),
        ("groups --dry-run web.conf", "print the cgroups to create and the values to write"),
    ],
    ends_at_operand: false,
    run,
};

fn run(given: &Given, out: &mut dyn Write) -> Result<u8, Failure> {
    let Sources { cgconfig_conf, cgconfig_d, .. } = Sources::default();
    let mut files = Vec::new();
    for path in paths(given, &[cgconfig_conf, cgconfig_d])? {
        let text = read(&path).map_err(|error| unreadable(&path, &error))?;
        files.push((Arc::from(std::path::absolute(&path).unwrap_or(path)), text));
    }
    if files.is_empty() {
        let message = "nothing to create: /etc/cgconfig.conf and /etc/cgconfig.d do not exist";
        return Err(Failure::Failed(message.to_owned()));
    }
    let described = load::groups(&files, &NameService::default());
    described.diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
    let hierarchies = tree::discover()
        .map_err(|error| Failure::Failed(format!("cannot read /proc/self/mountinfo: {error}")))?;
    let mut maker = Maker { out, given, failed: false };
    for gift in &described.groups {
        match plan(gift, &hierarchies) {
            Some(plan) => maker.group(gift, &plan)?,
            None => maker.complain(gift, "the path leads out of the hierarchy"),
        }
    }
    let is_bad = has_errors(&described.diagnostics);
    Ok(if is_bad { 65 } else { u8::from(maker.failed) })
}

struct Maker<'o> {
    out: &'o mut dyn Write,
    given: &'o Given,
    failed: bool,
}

impl Maker<'_> {
    fn group(&mut self, gift: &Gift, plan: &Plan) -> Result<(), Failure> {
        for name in &plan.missing {
            let name = name.escape_debug();
            self.complain(
                gift,
                &format!("no cgroup hierarchy of this host has the controller \"{name}\""),
            );
        }
        for remark in &plan.remarks {
            let message = &remark.complaint.message;
            eprintln!("{}: {}: {}", remark.origin, message.escape_debug(), remark.complaint.help);
        }
        // The path of a directory that could not be created: steps below it are skipped.
        let mut without: Option<PathBuf> = None;
        for step in &plan.steps {
            if without.as_ref().is_some_and(|path| step.path().starts_with(path)) {
                continue;
            }
            if self.given.has("dry-run") {
                if !matches!(step, Step::Create(path) if path.is_dir()) {
                    writeln!(self.out, "{step}")?;
                }
                continue;
            }
            match step.take() {
                Ok(Made::Done) if self.given.has("verbose") => writeln!(self.out, "{step}")?,
                Ok(Made::Done | Made::Already) => {}
                Err((path, error)) => {
                    self.complain(gift, &complaint(&path, &error));
                    if let Step::Create(path) = step {
                        without = Some(path.clone());
                    }
                }
            }
        }
        Ok(())
    }

    fn complain(&mut self, gift: &Gift, message: &str) {
        eprintln!("{}: group {}: {message}", gift.origin, gift.text.escape_debug());
        self.failed = true;
    }
}
