//! Parses the tokens of cgconfig.conf into sections; it resolves no names.

mod perm;

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::token::{Skipped, Token, TokenKind, tokens};
use super::{CgconfigSetting, ControllerSection, GroupSection, ParsedCgconfig};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::source_text::{Diagnostics, SourceText};
use crate::config::table::{did_you_mean, shortened};
use crate::rules::Origin;

const LEFT_OUT: &str = "cgrulesengd would not start; cgruled ignores only this section";
/// Words that can be names only in quotes.
const KEYWORDS: [&str; 9] =
    ["group", "template", "mount", "namespace", "default", "systemd", "perm", "task", "admin"];
/// The maximum number of controllers in a section, and of settings for a controller, in cgrulesengd
/// 2.0.2.
const ROOM: usize = 100;
/// The longest value in bytes that cgrulesengd 2.0.2 accepts.
const VALUE_MAX: usize = 4095;

pub(super) fn parse(file: &Arc<Path>, text: &str) -> ParsedCgconfig {
    let text = SourceText::new(file, text);
    let mut between = Skipped::default();
    let mut parser = Parser {
        report: Diagnostics::new(&text),
        tokens: tokens(text.as_str(), &mut between),
        at: 0,
        parsed: ParsedCgconfig::default(),
    };
    if let Some(at) = between.carriage_return {
        let help = "cgrulesengd would not start; save the file with LF line endings";
        parser.refuse(Severity::Warning, at..at + 1, "unexpected carriage return".to_owned(), help);
    }
    if let Some(at) = between.nul {
        let help = "remove it; cgrulesengd stops reading there too";
        parser.report.warning(Some(at..at + 1), "NUL byte: the rest of the file is ignored", help);
    }
    while parser.at < parser.tokens.len() {
        let start = parser.at;
        if parser.section().is_err() {
            parser.at = parser.at.max(start + 1);
            parser.recover();
        }
    }
    parser.warning();
    ParsedCgconfig { diagnostics: parser.report.finish(), ..parser.parsed }
}

/// A syntax error that was reported.
struct Reported;

type ParseResult<T> = Result<T, Reported>;

struct Parser<'t> {
    report: Diagnostics<'t>,
    tokens: Vec<Token>,
    at: usize,
    parsed: ParsedCgconfig,
}

impl<'t> Parser<'t> {
    fn section(&mut self) -> ParseResult<()> {
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
                self.take(TokenKind::Open)?;
                let perm = self.perm()?;
                self.take(TokenKind::Close)?;
                self.parsed.defaults.push(perm);
            }
            word => {
                let near = word.and_then(|word| did_you_mean(word, &KEYWORDS[..6]));
                return Err(self.unexpected(&match near {
                    Some(near) => format!("a section, such as `{near}`"),
                    None => "a section (group, template, mount, namespace or default)".to_owned(),
                }));
            }
        }
        Ok(())
    }

    /// Parses `group NAME { [perm] controllers }`.
    fn group_section(&mut self, start: usize) -> ParseResult<GroupSection> {
        self.at += 1;
        let text = self.name("the group's path")?;
        self.take(TokenKind::Open)?;
        let perm = match self.keyword() {
            Some("perm") => Some(self.perm()?),
            Some(_) | None => None,
        };
        let mut controllers: Vec<ControllerSection> = Vec::new();
        while !self.is_at(TokenKind::Close) {
            if self.keyword() == Some("perm") {
                return Err(self.fault("perm must come first in its section"));
            }
            let at = self.at;
            let controller = self.controller()?;
            if controllers.iter().any(|known| known.name == controller.name) {
                self.at = at;
                return Err(self.fault("duplicate controller in the section"));
            }
            controllers.push(controller);
            if controllers.len() == ROOM + 1 {
                self.no_space(at, format!("more than {ROOM} controllers"));
            }
        }
        if perm.is_none() && controllers.is_empty() {
            return Err(self.fault("empty section"));
        }
        self.take(TokenKind::Close)?;
        Ok(GroupSection { text, perm, controllers, origin: self.origin(start) })
    }

    fn controller(&mut self) -> ParseResult<ControllerSection> {
        let name = self.name("a controller")?;
        let settings = self.settings(true)?;
        Ok(ControllerSection { name, settings })
    }

    /// Parses `mount { settings }` and sections of the same form.
    fn settings_section(&mut self) -> ParseResult<Vec<CgconfigSetting>> {
        self.at += 1;
        let settings = self.settings(false)?;
        if settings.is_empty() {
            self.at -= 1;
            return Err(self.fault("empty section"));
        }
        Ok(settings)
    }

    /// Parses `{ name = value; ... }`. A name may occur only once if `is_unique`.
    fn settings(&mut self, is_unique: bool) -> ParseResult<Vec<CgconfigSetting>> {
        self.take(TokenKind::Open)?;
        let mut settings = Vec::new();
        let mut known = HashSet::new();
        while !self.is_at(TokenKind::Close) {
            let at = self.at;
            let origin = self.origin(at);
            let (name, value) = self.pair()?;
            if is_unique && !known.insert(name.clone()) {
                self.at = at;
                return Err(self.fault("duplicate setting in the section"));
            }
            if is_unique && value.len() > VALUE_MAX {
                self.no_space(at, format!("value longer than {VALUE_MAX} bytes"));
            }
            let place = self.report.text().place(value.clone());
            settings.push(CgconfigSetting {
                name,
                value: self.text(value).to_owned(),
                origin,
                place,
            });
            if is_unique && settings.len() == ROOM + 1 {
                self.no_space(at, format!("more than {ROOM} settings for one controller"));
            }
        }
        self.take(TokenKind::Close)?;
        Ok(settings)
    }

    /// Parses `name = value;`. Returns the name with the span of the value.
    fn pair(&mut self) -> ParseResult<(String, Range<usize>)> {
        let name = self.name("a name")?;
        self.take(TokenKind::Equals)?;
        let value = self.word("a value")?;
        self.take(TokenKind::Semicolon)?;
        Ok((name, value))
    }

    /// Returns the current word, unless it is quoted.
    fn keyword(&self) -> Option<&'t str> {
        let token = self.tokens.get(self.at)?;
        (token.kind == TokenKind::Word).then(|| self.text(token.span.clone()))
    }

    fn is_at(&self, kind: TokenKind) -> bool {
        self.tokens.get(self.at).is_some_and(|token| token.kind == kind)
    }

    fn take(&mut self, kind: TokenKind) -> ParseResult<()> {
        if self.is_at(kind) {
            self.at += 1;
            return Ok(());
        }
        Err(self.unexpected(match kind {
            TokenKind::Open => "`{`",
            TokenKind::Close => "`}`",
            TokenKind::Equals => "`=`",
            TokenKind::Semicolon => "`;`",
            TokenKind::Word | TokenKind::Quoted => "a word",
            TokenKind::LateComment | TokenKind::OpenQuote | TokenKind::Stray => "nothing",
        }))
    }

    fn name(&mut self, what: &str) -> ParseResult<String> {
        self.word(what).map(|span| self.text(span).to_owned())
    }

    /// Consumes a quoted word, or one that is not a keyword.
    fn word(&mut self, what: &str) -> ParseResult<Range<usize>> {
        if let Some(keyword) = self.keyword().filter(|word| KEYWORDS.contains(word)) {
            return Err(self.fault(&format!("`{keyword}` is a keyword: put it in quotes")));
        }
        match self.tokens.get(self.at) {
            Some(Token { kind: TokenKind::Word | TokenKind::Quoted, span }) => {
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

    /// Reports that the current token is not `wanted`.
    fn unexpected(&mut self, wanted: &str) -> Reported {
        let message = match self.tokens.get(self.at) {
            None => format!("expected {wanted}, found the end of the file"),
            Some(token) => match token.kind {
                TokenKind::LateComment => "a comment must be on its own line".to_owned(),
                TokenKind::OpenQuote => "missing closing quote".to_owned(),
                TokenKind::Word
                | TokenKind::Quoted
                | TokenKind::Open
                | TokenKind::Close
                | TokenKind::Equals
                | TokenKind::Semicolon
                | TokenKind::Stray => {
                    let found = shortened(self.text(token.span.clone()));
                    format!("expected {wanted}, found `{found}`")
                }
            },
        };
        self.fault(&message)
    }

    /// Reports an error at the current token.
    fn fault(&mut self, message: &str) -> Reported {
        let end = self.report.text().as_str().len();
        let span = self.tokens.get(self.at).map_or(end..end, |token| token.span.clone());
        self.fault_at(span, message.to_owned())
    }

    fn fault_at(&mut self, span: Range<usize>, message: String) -> Reported {
        self.refuse(Severity::Error, span, message, LEFT_OUT);
        Reported
    }

    /// Reports an error that prevents cgrulesengd 2.0.2 from starting.
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

    /// Warns at `token` about a limit of cgrulesengd 2.0.2 that is exceeded.
    fn no_space(&mut self, token: usize, message: String) {
        let span = self.tokens[token].span.clone();
        let help = "cgrulesengd would not start; cgruled accepts it";
        self.refuse(Severity::Warning, span, message, help);
    }

    /// Skips to the next section. Its keyword cannot be anything else, because as a name it needs
    /// quotes.
    fn recover(&mut self) {
        while self.at < self.tokens.len() && !self.begins_section() {
            self.at += 1;
        }
    }

    fn begins_section(&self) -> bool {
        let opens =
            |at: usize| self.tokens.get(at).is_some_and(|token| token.kind == TokenKind::Open);
        match self.keyword() {
            Some("group" | "template") => opens(self.at + 2),
            Some("mount" | "namespace" | "default" | "systemd") => opens(self.at + 1),
            Some(_) | None => false,
        }
    }

    fn warning(&mut self) {
        if let (false, Some(first)) =
            (self.parsed.mounts.is_empty(), self.parsed.namespaces.first())
        {
            let message = format!(
                "cgconfigparser refuses mount together with namespace (line {})",
                first.origin.line
            );
            self.report.warning(None, message, "cgruled ignores both");
        }
    }
}
