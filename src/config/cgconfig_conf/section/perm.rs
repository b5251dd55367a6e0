//! Parses `perm` sections: owners and modes. It resolves no names.

use std::ops::Range;

use super::{ParseResult, Parser, Reported};
use crate::config::cgconfig_conf::token::TokenKind;
use crate::config::cgconfig_conf::{PermSection, SectionOwnership, WrittenOwner};
use crate::config::criteria::{NameKind, NameRef};

/// The highest mode: permissions, set-id and sticky bits.
const MODE_MAX: i64 = 0o7777;

impl Parser<'_> {
    /// Parses `perm { task { ... } admin { ... } }`, in any order.
    pub(super) fn perm(&mut self) -> ParseResult<PermSection> {
        if self.keyword() != Some("perm") {
            return Err(self.unexpected("`perm`"));
        }
        self.at += 1;
        self.take(TokenKind::Open)?;
        let mut task = None;
        let mut admin = None;
        while !self.is_at(TokenKind::Close) {
            let of = match self.keyword() {
                Some("task") if task.is_none() => &mut task,
                Some("admin") if admin.is_none() => &mut admin,
                Some(_) | None => return Err(self.unexpected("`task` or `admin` (each once)")),
            };
            let is_admin = self.keyword() == Some("admin");
            *of = Some(self.ownership(is_admin)?);
        }
        let (Some(task), Some(admin)) = (task, admin) else {
            return Err(self.fault("perm must have both task and admin"));
        };
        self.take(TokenKind::Close)?;
        Ok(PermSection { task, admin })
    }

    /// Parses `task { uid = ...; }` or `admin { uid = ...; }`.
    fn ownership(&mut self, is_admin: bool) -> ParseResult<SectionOwnership> {
        self.at += 1;
        self.take(TokenKind::Open)?;
        if self.is_at(TokenKind::Close) {
            return Err(self.fault("task and admin must not be empty"));
        }
        let mut found = SectionOwnership::default();
        while !self.is_at(TokenKind::Close) {
            let start = self.at;
            let (key, span) = self.pair()?;
            match &*key {
                "uid" => found.user = Some(self.owner(NameKind::User, span)),
                "gid" => found.group = Some(self.owner(NameKind::Group, span)),
                "fperm" => found.file_mode = Some(self.mode(span)?),
                "dperm" if is_admin => found.directory_mode = Some(self.mode(span)?),
                _ => {
                    let span = self.tokens[start].span.clone();
                    let help = "cgrulesengd ignores it too";
                    self.report.warning(Some(span), "unknown key ignored", help);
                }
            }
        }
        self.take(TokenKind::Close)?;
        Ok(found)
    }

    fn owner(&self, kind: NameKind, span: Range<usize>) -> WrittenOwner {
        let text = self.report.text();
        let name = self.text(span.clone()).to_owned();
        let (file, place) = (text.file().clone(), text.place(span.clone()));
        WrittenOwner { mention: NameRef { kind, name, span }, file, place }
    }

    fn mode(&mut self, span: Range<usize>) -> ParseResult<u32> {
        let Ok(mode) = i64::from_str_radix(self.text(span.clone()), 8) else {
            return Err(self.fault_at(span, "invalid mode: not an octal number".to_owned()));
        };
        if !(0..=MODE_MAX).contains(&mode) {
            let help = "only the last four octal digits are used";
            self.report.warning(Some(span), "invalid mode: higher than 7777", help);
        }
        u32::try_from(mode & MODE_MAX).map_err(|_| Reported)
    }
}
