//! How the log names processes and rules.

use std::fmt;

use super::Subject;
use crate::rules::Rule;

/// `process 123 of alice (/usr/bin/x)`
pub(super) struct Described<'a>(pub(super) &'a Subject<'a>);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.0;
        write!(f, "process {} of ", subject.look.pid)?;
        match subject.user {
            Some(name) => f.write_str(name)?,
            None => write!(f, "uid {}", subject.grip.uid)?,
        }
        match subject.exe {
            Some(exe) => write!(f, " ({})", exe.escape_ascii()),
            None => Ok(()),
        }
    }
}

/// `rule 'web', /etc/cgruled/rules.d/50-web.toml:3`
pub(super) struct Named<'a>(pub(super) &'a Rule);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule '{}', {}", self.0.name.escape_debug(), self.0.origin)
    }
}
