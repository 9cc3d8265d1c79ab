// SPDX-License-Identifier: GPL-2.0

//! The command line, word by word.

use crate::failure::{Failure, Outcome};
use lexopt::{Arg, Parser};
use std::ffi::OsString;

/// A word of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// An option without its dashes; a single letter for a short one.
    Option(String),
    /// An argument.
    Argument(String),
}

/// What is left of a command line.
pub struct Arguments {
    parser: Parser,
}

impl Arguments {
    /// Starts behind the program's name.
    pub fn new(words: impl IntoIterator<Item = OsString>) -> Self {
        Self {
            parser: Parser::from_iter(words),
        }
    }

    /// The next word. What follows `--` are arguments.
    pub fn next_word(&mut self) -> Outcome<Option<Word>> {
        Ok(match self.parser.next().map_err(unusable)? {
            None => None,
            Some(Arg::Short(letter)) => Some(Word::Option(letter.to_string())),
            Some(Arg::Long(name)) => Some(Word::Option(name.to_owned())),
            Some(Arg::Value(word)) => Some(Word::Argument(text(word))),
        })
    }

    /// The value of the option that came last.
    pub fn value(&mut self) -> Outcome<String> {
        self.parser.value().map(text).map_err(unusable)
    }

    /// The value of the option that came last, if it stands behind a `=`.
    pub fn joined_value(&mut self) -> Option<String> {
        self.parser.optional_value().map(text)
    }
}

fn text(word: OsString) -> String {
    word.to_string_lossy().into_owned()
}

fn unusable(error: lexopt::Error) -> Failure {
    Failure::new(20, error.to_string())
}

/// An option that the command does not have.
pub fn unknown(command: &str, option: &str, usage: &str) -> Failure {
    let text = match option.chars().count() {
        1 => format!("{command}: invalid option -- '{option}'\n{usage}"),
        _ => format!("{command}: unrecognized option '--{option}'\n{usage}"),
    };
    Failure::new(20, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_arguments_may_be_mixed() {
        let words = ["drbdsetup", "primary", "-f", "0", "--size=3", "--", "-x"];
        let mut arguments = Arguments::new(words.map(OsString::from));
        let option = |name: &str| Some(Word::Option(name.to_owned()));
        let argument = |word: &str| Some(Word::Argument(word.to_owned()));
        assert_eq!(arguments.next_word().unwrap(), argument("primary"));
        assert_eq!(arguments.next_word().unwrap(), option("f"));
        assert_eq!(arguments.joined_value(), None);
        assert_eq!(arguments.next_word().unwrap(), argument("0"));
        assert_eq!(arguments.next_word().unwrap(), option("size"));
        assert_eq!(arguments.value().unwrap(), "3");
        assert_eq!(arguments.next_word().unwrap(), argument("-x"));
        assert_eq!(arguments.next_word().unwrap(), None);
    }
}
