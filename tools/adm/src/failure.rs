// SPDX-License-Identifier: GPL-2.0

//! Why drbdadm gives up, and the exit code it says so with.

use crate::diagnostic::Diagnostic;
use crate::source::Sources;

/// Wrong use: unknown command, option or resource.
pub(crate) const USAGE: i32 = 1;
/// The configuration is not valid.
pub(crate) const BAD_CONFIG: i32 = 10;
/// A program or a file cannot be had.
pub(crate) const NOT_POSSIBLE: i32 = 20;

/// A text for the admin and an exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: i32,
    /// The text, without the newline at its end; may be empty.
    pub(crate) text: String,
}

/// What most functions here return.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// The admin asked for something that does not exist.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self {
            code: USAGE,
            text: text.into(),
        }
    }

    /// The configuration is wrong.
    pub(crate) fn config(errors: &[Diagnostic], sources: &Sources) -> Self {
        let texts: Vec<_> = errors
            .iter()
            .map(|one| one.render(sources, "error"))
            .collect();
        Self {
            code: BAD_CONFIG,
            text: texts.join("").trim_end().to_owned(),
        }
    }

    /// Something outside of drbdadm failed.
    pub(crate) fn not_possible(text: impl Into<String>) -> Self {
        Self {
            code: NOT_POSSIBLE,
            text: text.into(),
        }
    }
}

/// Output that nobody reads ends the program without a word.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::not_possible(""),
            _ => Self::not_possible(format!("cannot write: {error}")),
        }
    }
}
