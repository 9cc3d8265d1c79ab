// SPDX-License-Identifier: GPL-2.0

//! Why a command ended early: what to tell the admin, and the exit code that scripts ask for.

use std::fmt;
use std::io;

/// A command's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    exit: u8,
    text: String,
}

/// What a command comes to.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with this exit code; an empty text is not shown.
    pub fn new(exit: u8, text: impl Into<String>) -> Self {
        Self {
            exit,
            text: text.into(),
        }
    }

    /// The exit code.
    pub fn exit(&self) -> u8 {
        self.exit
    }

    /// Tells the admin, and returns the exit code.
    pub fn report(&self) -> u8 {
        if !self.text.is_empty() {
            eprintln!("{}", self.text);
        }
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Output could not be written. Nobody reads it any more where the pipe is closed, so nothing is
/// said.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(20, ""),
            _ => Self::new(20, format!("cannot write output: {error}")),
        }
    }
}
