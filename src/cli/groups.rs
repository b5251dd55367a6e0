//! `cgrulectl groups`: creates the `group` sections of cgconfig.conf, as `cgconfigparser -l` does.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use super::command::{DaemonFlags, ToolError};
use super::convert::{paths, read, unreadable};
use crate::cgroup::config::GroupSpec;
use crate::cgroup::make::{CreatePlan, CreateResult, CreateStep, diagnostic, plan};
use crate::cgroup::tree;
use crate::config::diagnostic::has_errors;
use crate::policy::load::{self, NameService, Sources};

#[derive(clap::Args)]
#[command(
    about = "Create the cgroups of cgconfig.conf, as cgconfigparser does",
    after_help = "\
Examples:
  cgrulectl groups
      create the cgroups of /etc/cgconfig.conf and cgconfig.d; exit status 1
      if the kernel refuses an action, 65 if a file has errors; the rest is
      created all the same
  cgrulectl groups --dry-run web.conf
      print the cgroups to create and the values to write"
)]
pub(super) struct GroupsArgs {
    /// print the actions, execute none
    #[arg(long)]
    dry_run: bool,
    /// print each action
    #[arg(short, long)]
    verbose: bool,
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    daemon: DaemonFlags,
}

pub(super) fn run(given: &GroupsArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    let Sources { cgconfig_conf, cgconfig_d, .. } = Sources::default();
    let mut files = Vec::new();
    for path in paths(&given.paths, &[cgconfig_conf, cgconfig_d])? {
        let text = read(&path).map_err(|error| unreadable(&path, &error))?;
        files.push((Arc::from(std::path::absolute(&path).unwrap_or(path)), text));
    }
    if files.is_empty() {
        let message = "nothing to create: /etc/cgconfig.conf and /etc/cgconfig.d do not exist";
        return Err(ToolError::Failed(message.to_owned()));
    }
    let described = load::groups(&files, &NameService::default());
    described.diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
    let hierarchies = tree::discover()
        .map_err(|error| ToolError::Failed(format!("cannot read /proc/self/mountinfo: {error}")))?;
    let mut maker = GroupsCommand { out, given, failed: false };
    for spec in &described.groups {
        match plan(spec, &hierarchies) {
            Some(plan) => maker.group(spec, &plan)?,
            None => maker.report_error(spec, "the path leads out of the hierarchy"),
        }
    }
    let is_bad = has_errors(&described.diagnostics);
    Ok(if is_bad { 65 } else { u8::from(maker.failed) })
}

struct GroupsCommand<'o> {
    out: &'o mut dyn Write,
    given: &'o GroupsArgs,
    failed: bool,
}

impl GroupsCommand<'_> {
    fn group(&mut self, spec: &GroupSpec, plan: &CreatePlan) -> Result<(), ToolError> {
        for name in &plan.missing {
            let name = name.escape_debug();
            self.report_error(
                spec,
                &format!("no cgroup hierarchy of this host has the controller \"{name}\""),
            );
        }
        for warning in &plan.warnings {
            let message = &warning.diagnostic.message;
            eprintln!(
                "{}: {}: {}",
                warning.origin,
                message.escape_debug(),
                warning.diagnostic.help
            );
        }
        // The path of a directory that could not be created: steps below it are skipped.
        let mut without: Option<PathBuf> = None;
        for step in &plan.steps {
            if without.as_ref().is_some_and(|path| step.path().starts_with(path)) {
                continue;
            }
            if self.given.dry_run {
                if !matches!(step, CreateStep::Create(path) if path.is_dir()) {
                    writeln!(self.out, "{step}")?;
                }
                continue;
            }
            match step.take() {
                Ok(CreateResult::Done) if self.given.verbose => {
                    writeln!(self.out, "{step}")?;
                }
                Ok(CreateResult::Done | CreateResult::Already) => {}
                Err((path, error)) => {
                    self.report_error(spec, &diagnostic(step, &path, &error));
                    if let CreateStep::Create(path) = step {
                        without = Some(path.clone());
                    }
                }
            }
        }
        Ok(())
    }

    fn report_error(&mut self, spec: &GroupSpec, message: &str) {
        eprintln!("{}: group {}: {message}", spec.origin, spec.text.escape_debug());
        self.failed = true;
    }
}
