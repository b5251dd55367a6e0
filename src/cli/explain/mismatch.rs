//! Names of criteria for programs that read JSON.

use crate::rules::context::ContextMismatch;
use crate::rules::explain::Mismatch;

impl Mismatch {
    /// Returns the name used in JSON, which must not change.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Exe => "exe",
            Self::ForeignExe => "exe-of-another-namespace",
            Self::UnknownExe => "exe-unknown",
            Self::NotUser => "not-user",
            Self::NotGroup => "not-group",
            Self::NotExe => "not-exe",
            Self::Circumstances => "circumstances",
            Self::Context(ContextMismatch::Unit) => "unit",
            Self::Context(ContextMismatch::From) => "from",
            Self::Context(ContextMismatch::Below) => "below",
            Self::Context(ContextMismatch::Container) => "container",
            Self::Context(ContextMismatch::Login) => "login",
            Self::Context(ContextMismatch::NotUnit) => "not-unit",
            Self::Context(ContextMismatch::NotFrom) => "not-from",
            Self::Context(ContextMismatch::NotBelow) => "not-below",
            Self::Context(ContextMismatch::NotContainer) => "not-container",
            Self::Context(ContextMismatch::NotLogin) => "not-login",
            Self::Context(ContextMismatch::Argument) => "argument",
            Self::Context(ContextMismatch::NotArgument) => "not-argument",
            Self::Context(ContextMismatch::UnknownArguments) => "argument-unknown",
            Self::Context(ContextMismatch::Place) => "place",
            Self::Observes => "observes",
        }
    }
}
