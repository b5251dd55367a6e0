//! Parses the process of a test. A fact that is not given is absent; one with several values stands for
//! as many processes.

use std::fmt;

use toml::de::DeTable;

use super::container::{TestContainer, container};
use super::{MAX_TESTS, uid};
use crate::config::criteria::account::{AccountRef, account};
use crate::config::table::{TomlSection, Value, alternatives, shortened};
use crate::event::{Pid, Uid};
use crate::rules::context::UNIT_ENDINGS;

/// The keys of the process of a test.
pub const PROCESS_KEYS: [&str; 13] = [
    "user",
    "uid",
    "group",
    "groups",
    "exe",
    "invoked",
    "unit",
    "from",
    "below",
    "container",
    "login",
    "argument",
    "pid",
];

/// A process about which rules decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestProcess {
    /// The effective user.
    pub user: Option<AccountRef>,
    /// The UID of that user.
    pub uid: Option<Uid>,
    /// The effective group.
    pub group: Option<AccountRef>,
    /// The groups that list the user as a member.
    pub groups: Vec<AccountRef>,
    /// The path of the executable.
    pub exe: Option<String>,
    /// The path of the script or symbolic link that was invoked.
    pub invoked: Option<String>,
    /// The systemd unit.
    pub unit: Option<String>,
    /// The cgroup in which the process is.
    pub from: Option<String>,
    /// The paths of the programs that its ancestors of root run.
    pub below: Vec<String>,
    /// The container in which the process is.
    pub container: Option<TestContainer>,
    /// The user who logged in.
    pub login: Option<AccountRef>,
    /// The arguments of the program after its name.
    pub arguments: Vec<String>,
    /// The PID.
    pub pid: Option<Pid>,
}

impl fmt::Display for TestProcess {
    /// Formats `user alice, exe /usr/bin/make, argument all`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(ToString::to_string);
        let given = [
            ("user", user.or_else(|| self.uid.map(|uid| uid.to_string()))),
            ("group", self.group.as_ref().map(ToString::to_string)),
            ("groups", listed(&self.groups)),
            ("exe", self.exe.clone()),
            ("invoked", self.invoked.clone()),
            ("unit", self.unit.clone()),
            ("from", self.from.clone()),
            ("below", listed(&self.below)),
            ("container", self.container.as_ref().map(ToString::to_string)),
            ("login", self.login.as_ref().map(ToString::to_string)),
            ("argument", listed(&self.arguments)),
            ("pid", self.pid.map(|pid| pid.to_string())),
        ];
        let mut separator = "";
        for (key, value) in given {
            let Some(value) = value else { continue };
            write!(f, "{separator}{key} {value}")?;
            separator = ", ";
        }
        if separator.is_empty() { f.write_str("no facts") } else { Ok(()) }
    }
}

fn listed(values: &[impl ToString]) -> Option<String> {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(" "))
}

/// Reads the processes of a test, one for each combination of values. Of very many only those beyond
/// the bound are left out.
pub(super) fn read(value: &Value<'_>, piece: &mut TomlSection<'_, '_>) -> Vec<TestProcess> {
    let Some(table) = piece.table(value, "process") else { return Vec::new() };
    piece.only_keys(table, &PROCESS_KEYS);
    for [one, other] in [["unit", "from"], ["unit", "container"], ["from", "container"]] {
        if let (Some(value), true) = (table.get(other), table.contains_key(one)) {
            let message = format!("process with both {one} and {other}");
            piece.error_help(value.span(), message, "remove one of them");
        }
    }
    if let (Some(value), false) = (table.get("invoked"), table.contains_key("exe")) {
        let help = "exe is the path of the interpreter of a script, or of the target of a link";
        piece.error_help(value.span(), "invoked needs exe", help);
    }
    let own = TestProcess {
        uid: table.get("uid").and_then(|value| uid(value, piece)),
        group: table.get("group").and_then(|value| account(value, "group", piece)),
        groups: table.get("groups").map(|value| super::groups(value, piece)).unwrap_or_default(),
        below: each(table, "below", piece, path),
        arguments: table.get("argument").map(|value| arguments(value, piece)).unwrap_or_default(),
        pid: table.get("pid").and_then(|value| pid(value, piece)),
        ..TestProcess::default()
    };
    let mut all = vec![own];
    let users = each(table, "user", piece, account);
    all = combined(all, &users, |process, user| process.user = Some(user));
    let exes = each(table, "exe", piece, path);
    all = combined(all, &exes, |process, exe| process.exe = Some(exe));
    let invoked = each(table, "invoked", piece, path);
    all = combined(all, &invoked, |process, path| process.invoked = Some(path));
    let units = each(table, "unit", piece, unit);
    all = combined(all, &units, |process, unit| process.unit = Some(unit));
    let places = each(table, "from", piece, path);
    all = combined(all, &places, |process, path| process.from = Some(path));
    let containers = each(table, "container", piece, container);
    all = combined(all, &containers, |process, own| process.container = Some(own));
    let logins = each(table, "login", piece, account);
    combined(all, &logins, |process, user| process.login = Some(user))
}

/// Reads a key with one value or several.
fn each<T>(
    table: &DeTable<'_>,
    key: &str,
    piece: &mut TomlSection<'_, '_>,
    read: fn(&Value<'_>, &str, &mut TomlSection<'_, '_>) -> Option<T>,
) -> Vec<T> {
    let Some(value) = table.get(key) else { return Vec::new() };
    let values = alternatives(value);
    if values.is_empty() {
        piece.error_help(value.span(), format!("{key} is an empty list"), "remove it");
    }
    values.iter().filter_map(|value| read(value, key, piece)).collect()
}

/// Returns each process with each of the values. One more than the bound of a file is enough to report
/// that.
fn combined<T: Clone>(
    processes: Vec<TestProcess>,
    values: &[T],
    set: fn(&mut TestProcess, T),
) -> Vec<TestProcess> {
    if values.is_empty() {
        return processes;
    }
    let all = processes.iter().flat_map(|process| {
        values.iter().map(|value| {
            let mut process = process.clone();
            set(&mut process, value.clone());
            process
        })
    });
    all.take(MAX_TESTS + 1).collect()
}

/// Reads a path. A pattern is literal text here: a process has one path.
fn path(value: &Value<'_>, key: &str, piece: &mut TomlSection<'_, '_>) -> Option<String> {
    let text = piece.string(value, key)?;
    let is_root = key == "from" && text == "/";
    let mut parts = text.split('/').skip(1);
    if text.starts_with('/') && (is_root || !parts.any(|part| matches!(part, "" | "." | ".."))) {
        return Some(text.to_owned());
    }
    let message = format!("{key} must be an absolute path, as the kernel shows it");
    piece.error_help(value.span(), message, "a process has one path, not a name or a pattern");
    None
}

fn unit(value: &Value<'_>, key: &str, piece: &mut TomlSection<'_, '_>) -> Option<String> {
    let text = piece.string(value, key)?;
    if UNIT_ENDINGS.iter().any(|ending| text.ends_with(ending)) && !text.contains('/') {
        return Some(text.to_owned());
    }
    let message = format!("\"{}\" is not a unit with processes", shortened(text));
    let help = "write the full name, such as \"nginx.service\", or from = \"/path\" for a cgroup";
    piece.error_help(value.span(), message, help);
    None
}

/// Reads the arguments after the name of the program: a string, or a list in their order.
fn arguments(value: &Value<'_>, piece: &mut TomlSection<'_, '_>) -> Vec<String> {
    let read = |value: &Value<'_>| {
        // Empty arguments are possible. A NUL byte would end one.
        match value.get_ref().as_str() {
            Some(text) if !text.contains('\0') => Some(text.to_owned()),
            Some(_) => {
                piece.error(value.span(), "argument contains a NUL character");
                None
            }
            None => {
                piece.wrong_type(value, "argument", "a string or a list of strings");
                None
            }
        }
    };
    alternatives(value).iter().filter_map(read).collect()
}

fn pid(value: &Value<'_>, piece: &mut TomlSection<'_, '_>) -> Option<Pid> {
    // PID_MAX_LIMIT of the kernel.
    let number = piece.integer(value, "pid", 1..=4_194_304)?;
    u32::try_from(number).ok().and_then(Pid::new)
}
