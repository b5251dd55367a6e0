//! The sections of cgconfig.conf from its tokens. Pure.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::token::{Between, Kind, Token, tokens};
use super::{Controller, GroupSection, Ownership, Parsed, Perm, Setting};
use crate::config::criteria::{Mention, NameKind};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::source_text::{Report, SourceText};
use crate::config::table::{did_you_mean, shortened};
use crate::rules::Origin;

const LEFT_OUT: &str = "cgrulesengd would not start; here only this section is left out";
/// Words that are names only within quotes.
const KEYWORDS: [&str; 9] =
    ["group", "template", "mount", "namespace", "default", "systemd", "perm", "task", "admin"];
/// Controllers of a section, and settings of a controller, for which 2.0.2 has room.
const ROOM: usize = 100;
/// Bytes of a value for which it has room.
const VALUE_MAX: usize = 4095;
/// The highest mode: permissions, set-id and sticky bits.
const MODE_MAX: i64 = 0o7777;

pub(super) fn parse(file: &Arc<Path>, text: &str) -> Parsed {
    let text = SourceText::new(file, text);
    let mut between = Between::default();
    let mut parser = Parser {
        report: Report::new(&text),
        tokens: tokens(text.as_str(), &mut between),
        at: 0,
        parsed: Parsed::default(),
    };
    if let Some(at) = between.carriage_return {
        let help = "cgrulesengd would not start; write lines that end without one";
        parser.refuse(Severity::Warning, at..at + 1, "a carriage return".to_owned(), help);
    }
    if let Some(at) = between.nul {
        let help = "cgrulesengd does not read what follows it either";
        parser.report.warning(Some(at..at + 1), "a NUL byte ends the file", help);
    }
    while parser.at < parser.tokens.len() {
        let start = parser.at;
        if parser.section().is_err() {
            parser.at = parser.at.max(start + 1);
            parser.recover();
        }
    }
    parser.remark();
    Parsed { diagnostics: parser.report.finish(), ..parser.parsed }
}

/// A fault that was reported.
struct Fault;

type Read<T> = Result<T, Fault>;

struct Parser<'t> {
    report: Report<'t>,
    tokens: Vec<Token>,
    at: usize,
    parsed: Parsed,
}

impl<'t> Parser<'t> {
    fn section(&mut self) -> Read<()> {
        let start = self.at;
        match self.keyword() {
            Some("group") => {
                let section = self.group_section(start)?;
                self.parsed.groups.push(section);
            }
            Some("template") => {
                let section = self.group_section(start)?;
                self.parsed.templates.push(section);
            }
            Some("mount") => {
                let settings = self.settings_section()?;
                self.parsed.mounts.extend(settings);
            }
            Some("namespace") => {
                let settings = self.settings_section()?;
                self.parsed.namespaces.extend(settings);
            }
            Some("systemd") => {
                let settings = self.settings_section()?;
                self.parsed.systemd.extend(settings);
            }
            Some("default") => {
                self.at += 1;
                self.take(Kind::Open)?;
                let perm = self.perm()?;
                self.take(Kind::Close)?;
                self.parsed.defaults.push(perm);
            }
            word => {
                let near = word.and_then(|word| did_you_mean(word, &KEYWORDS[..6]));
                return Err(self.unexpected(&match near {
                    Some(near) => format!("a section, such as `{near}`"),
                    None => "a section: group, template, mount, namespace, default".to_owned(),
                }));
            }
        }
        Ok(())
    }

    /// `group NAME { [perm] controllers }`
    fn group_section(&mut self, start: usize) -> Read<GroupSection> {
        self.at += 1;
        let text = self.name("the group's path")?;
        self.take(Kind::Open)?;
        let perm = match self.keyword() {
            Some("perm") => Some(self.perm()?),
            Some(_) | None => None,
        };
        let mut controllers: Vec<Controller> = Vec::new();
        while !self.is_at(Kind::Close) {
            if self.keyword() == Some("perm") {
                return Err(self.fault("perm must be the first thing in its section"));
            }
            let at = self.at;
            let controller = self.controller()?;
            if controllers.iter().any(|known| known.name == controller.name) {
                self.at = at;
                return Err(self.fault("the section has this controller already"));
            }
            controllers.push(controller);
            if controllers.len() == ROOM + 1 {
                self.no_room(at, format!("more than {ROOM} controllers"));
            }
        }
        if perm.is_none() && controllers.is_empty() {
            return Err(self.fault("the section is empty"));
        }
        self.take(Kind::Close)?;
        Ok(GroupSection { text, perm, controllers, origin: self.origin(start) })
    }

    fn controller(&mut self) -> Read<Controller> {
        let name = self.name("a controller")?;
        let settings = self.settings(true)?;
        Ok(Controller { name, settings })
    }

    /// `mount { settings }` and the like.
    fn settings_section(&mut self) -> Read<Vec<Setting>> {
        self.at += 1;
        let settings = self.settings(false)?;
        if settings.is_empty() {
            self.at -= 1;
            return Err(self.fault("the section is empty"));
        }
        Ok(settings)
    }

    /// `{ name = value; ... }`, where a name may stand once only if it `is_unique`.
    fn settings(&mut self, is_unique: bool) -> Read<Vec<Setting>> {
        self.take(Kind::Open)?;
        let mut settings = Vec::new();
        while !self.is_at(Kind::Close) {
            let (at, origin) = (self.at, self.origin(self.at));
            let (name, value) = self.pair()?;
            if is_unique && settings.iter().any(|known: &Setting| known.name == name) {
                self.at = at;
                return Err(self.fault("the section says this already"));
            }
            if is_unique && value.len() > VALUE_MAX {
                self.no_room(at, format!("a value of more than {VALUE_MAX} bytes"));
            }
            settings.push(Setting { name, value: self.text(value).to_owned(), origin });
            if is_unique && settings.len() == ROOM + 1 {
                self.no_room(at, format!("more than {ROOM} settings of a controller"));
            }
        }
        self.take(Kind::Close)?;
        Ok(settings)
    }

    /// `name = value;`, with the place of the value.
    fn pair(&mut self) -> Read<(String, Range<usize>)> {
        let name = self.name("a name")?;
        self.take(Kind::Equals)?;
        let value = self.word("a value")?;
        self.take(Kind::Semicolon)?;
        Ok((name, value))
    }

    /// `perm { task { ... } admin { ... } }`, in any order.
    fn perm(&mut self) -> Read<Perm> {
        if self.keyword() != Some("perm") {
            return Err(self.unexpected("`perm`"));
        }
        self.at += 1;
        self.take(Kind::Open)?;
        let (mut task, mut admin) = (None, None);
        while !self.is_at(Kind::Close) {
            let of = match self.keyword() {
                Some("task") if task.is_none() => &mut task,
                Some("admin") if admin.is_none() => &mut admin,
                Some(_) | None => return Err(self.unexpected("`task` and `admin`, each once")),
            };
            let is_admin = self.keyword() == Some("admin");
            *of = Some(self.ownership(is_admin)?);
        }
        let (Some(task), Some(admin)) = (task, admin) else {
            return Err(self.fault("perm must have both task and admin"));
        };
        self.take(Kind::Close)?;
        Ok(Perm { task, admin })
    }

    /// `task { uid = ...; }`
    fn ownership(&mut self, is_admin: bool) -> Read<Ownership> {
        self.at += 1;
        self.take(Kind::Open)?;
        if self.is_at(Kind::Close) {
            return Err(self.fault("task and admin must not be empty"));
        }
        let mut found = Ownership::default();
        while !self.is_at(Kind::Close) {
            let start = self.at;
            let (key, span) = self.pair()?;
            let name = self.text(span.clone()).to_owned();
            match &*key {
                "uid" => found.user = Some(Mention { kind: NameKind::User, name, span }),
                "gid" => found.group = Some(Mention { kind: NameKind::Group, name, span }),
                "fperm" => found.file_mode = Some(self.mode(span)?),
                "dperm" if is_admin => found.directory_mode = Some(self.mode(span)?),
                _ => {
                    let span = self.tokens[start].span.clone();
                    let help = "cgrulesengd does not read it either";
                    self.report.warning(Some(span), "this is not read", help);
                }
            }
        }
        self.take(Kind::Close)?;
        Ok(found)
    }

    fn mode(&mut self, span: Range<usize>) -> Read<u32> {
        let Ok(mode) = i64::from_str_radix(self.text(span.clone()), 8) else {
            return Err(self.fault_at(span, "a mode is an octal number".to_owned()));
        };
        if !(0..=MODE_MAX).contains(&mode) {
            let help = "only the last four digits count";
            self.report.warning(Some(span), "no mode is higher than 7777", help);
        }
        u32::try_from(mode & MODE_MAX).map_err(|_| Fault)
    }

    /// The word that stands here, unless it is quoted.
    fn keyword(&self) -> Option<&'t str> {
        let token = self.tokens.get(self.at)?;
        (token.kind == Kind::Word).then(|| self.text(token.span.clone()))
    }

    fn is_at(&self, kind: Kind) -> bool {
        self.tokens.get(self.at).is_some_and(|token| token.kind == kind)
    }

    fn take(&mut self, kind: Kind) -> Read<()> {
        if self.is_at(kind) {
            self.at += 1;
            return Ok(());
        }
        Err(self.unexpected(match kind {
            Kind::Open => "`{`",
            Kind::Close => "`}`",
            Kind::Equals => "`=`",
            Kind::Semicolon => "`;`",
            Kind::Word | Kind::Quoted => "a word",
            Kind::LateComment | Kind::OpenQuote | Kind::Stray => "nothing",
        }))
    }

    fn name(&mut self, what: &str) -> Read<String> {
        self.word(what).map(|span| self.text(span).to_owned())
    }

    /// A word that is no keyword, or a quoted one.
    fn word(&mut self, what: &str) -> Read<Range<usize>> {
        if let Some(keyword) = self.keyword().filter(|word| KEYWORDS.contains(word)) {
            return Err(
                self.fault(&format!("`{keyword}` has a meaning of its own: put it in quotes"))
            );
        }
        match self.tokens.get(self.at) {
            Some(Token { kind: Kind::Word | Kind::Quoted, span }) => {
                self.at += 1;
                Ok(span.clone())
            }
            Some(_) | None => Err(self.unexpected(what)),
        }
    }

    fn text(&self, span: Range<usize>) -> &'t str {
        &self.report.text().as_str()[span]
    }

    fn origin(&self, at: usize) -> Origin {
        let text = self.report.text();
        let start = self.tokens.get(at).map_or(usize::MAX, |token| token.span.start);
        Origin { file: text.file().clone(), line: text.line(start) }
    }

    /// Complains about what stands here instead of `wanted`.
    fn unexpected(&mut self, wanted: &str) -> Fault {
        let message = match self.tokens.get(self.at) {
            None => format!("the file ends where {wanted} is expected"),
            Some(token) => match token.kind {
                Kind::LateComment => "a comment must have a line of its own".to_owned(),
                Kind::OpenQuote => "the quote is not closed".to_owned(),
                Kind::Word
                | Kind::Quoted
                | Kind::Open
                | Kind::Close
                | Kind::Equals
                | Kind::Semicolon
                | Kind::Stray => {
                    let found = shortened(self.text(token.span.clone()));
                    format!("`{found}` stands where {wanted} is expected")
                }
            },
        };
        self.fault(&message)
    }

    /// Complains about what stands here.
    fn fault(&mut self, message: &str) -> Fault {
        let end = self.report.text().as_str().len();
        let span = self.tokens.get(self.at).map_or(end..end, |token| token.span.clone());
        self.fault_at(span, message.to_owned())
    }

    fn fault_at(&mut self, span: Range<usize>, message: String) -> Fault {
        self.refuse(Severity::Error, span, message, LEFT_OUT);
        Fault
    }

    /// Reports what 2.0.2 takes for a reason not to start.
    fn refuse(&mut self, severity: Severity, span: Range<usize>, message: String, help: &str) {
        if self.parsed.refusal.is_none() {
            let text = self.report.text();
            self.parsed.refusal = Some(Diagnostic {
                place: Some(text.place(span.clone())),
                ..Diagnostic::about(text.file(), severity, &*message).with_help(help)
            });
        }
        self.report.add(severity, Some(span), message, Some(help.to_owned()));
    }

    /// Warns of what is too much for 2.0.2, at this token.
    fn no_room(&mut self, token: usize, message: String) {
        let span = self.tokens[token].span.clone();
        let help = "cgrulesengd would not start; here it is read";
        self.refuse(Severity::Warning, span, message, help);
    }

    /// Goes on to the next section. Its keyword can be nothing else, since as a name it has quotes.
    fn recover(&mut self) {
        while self.at < self.tokens.len() && !self.begins_section() {
            self.at += 1;
        }
    }

    fn begins_section(&self) -> bool {
        let opens = |at: usize| self.tokens.get(at).is_some_and(|token| token.kind == Kind::Open);
        match self.keyword() {
            Some("group" | "template") => opens(self.at + 2),
            Some("mount" | "namespace" | "default" | "systemd") => opens(self.at + 1),
            Some(_) | None => false,
        }
    }

    fn remark(&mut self) {
        if let (false, Some(first)) =
            (self.parsed.mounts.is_empty(), self.parsed.namespaces.first())
        {
            let message = format!(
                "mount and namespace (line {}) do not go together for cgconfigparser",
                first.origin.line
            );
            self.report.warning(None, message, "neither has a meaning here");
        }
    }
}
