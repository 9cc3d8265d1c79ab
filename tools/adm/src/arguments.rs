// SPDX-License-Identifier: GPL-2.0

//! The command line of drbdadm.
//!
//! Options may stand anywhere. What is not an option of drbdadm itself belongs to the program that
//! it runs, and so does every option behind `--`: `drbdadm -- -o primary all`.

use crate::failure::{Failure, Outcome};
use std::path::PathBuf;

/// What the admin typed.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    /// The command.
    pub(crate) command: Option<String>,
    /// Resources, `RES/VOL`, or `all`.
    pub(crate) names: Vec<String>,
    /// Options for the program that is run, to be checked against what it knows.
    pub(crate) options: Vec<String>,
    /// Options for the program that is run, unchecked: they stood behind `--` or `-W`.
    pub(crate) passed_through: Vec<String>,
    /// Print what would be run.
    pub(crate) dry_run: bool,
    /// Print what is run.
    pub(crate) verbose: bool,
    /// Act on stacked resources.
    pub(crate) stacked: bool,
    /// Print versions.
    pub(crate) version: bool,
    /// Print help.
    pub(crate) help: bool,
    /// The configuration file.
    pub(crate) config: Option<PathBuf>,
    /// A configuration file to be checked only.
    pub(crate) config_to_test: Option<PathBuf>,
    /// The program to run as drbdsetup.
    pub(crate) drbdsetup: Option<String>,
    /// The program to run as drbdmeta.
    pub(crate) drbdmeta: Option<String>,
    /// Which peer is meant where there are several.
    pub(crate) peer: Option<String>,
}

const OPTIONS: [(&str, char, bool); 13] = [
    ("stacked", 'S', false),
    ("dry-run", 'd', false),
    ("verbose", 'v', false),
    ("config-file", 'c', true),
    ("config-to-test", 't', true),
    ("drbdsetup", 's', true),
    ("drbdmeta", 'm', true),
    ("drbd-proxy-ctl", 'p', true),
    ("sh-varname", 'n', true),
    ("peer", 'P', true),
    ("version", 'V', false),
    ("setup-option", 'W', true),
    ("help", 'h', false),
];

/// The list of options in a usage text.
pub(crate) fn usage() -> String {
    let mut text = String::from("GENERAL OPTIONS:\n");
    for (name, letter, has_value) in OPTIONS {
        let dots = if has_value {
            ("=...", " ...")
        } else {
            ("", "")
        };
        text.push_str(&format!("  --{name}{}, -{letter}{}\n", dots.0, dots.1));
    }
    text
}

/// Reads the arguments behind the program's name.
pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Outcome<Arguments> {
    let mut arguments = Arguments::default();
    let mut words = words.into_iter();
    let mut behind_dashes = false;
    while let Some(word) = words.next() {
        if behind_dashes && word.starts_with('-') {
            arguments.passed_through.push(word);
        } else if word == "--" {
            behind_dashes = true;
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            match OPTIONS.iter().find(|(known, ..)| *known == name) {
                Some((_, letter, true)) => {
                    let value = value.or_else(|| words.next());
                    arguments.set(*letter, value.ok_or_else(|| no_value(&word))?);
                }
                Some((_, letter, false)) if value.is_none() => {
                    arguments.set(*letter, String::new());
                }
                Some(_) => return Err(Failure::usage(format!("'--{name}' takes no value"))),
                None => arguments.options.push(word),
            }
        } else if word.len() > 1 && word.starts_with('-') {
            arguments.short(&word, &mut words)?;
        } else if arguments.command.is_none() {
            arguments.command = Some(word);
        } else {
            arguments.names.push(word);
        }
    }
    Ok(arguments)
}

fn no_value(option: &str) -> Failure {
    Failure::usage(format!("option '{option}' needs a value"))
}

impl Arguments {
    /// Reads `-dv` or `-cFILE` or `-c FILE`.
    fn short(&mut self, word: &str, words: &mut impl Iterator<Item = String>) -> Outcome {
        let mut letters = word.chars().skip(1);
        while let Some(letter) = letters.next() {
            match OPTIONS.iter().find(|(_, known, _)| *known == letter) {
                Some((_, _, false)) => self.set(letter, String::new()),
                Some((_, _, true)) => {
                    let rest: String = letters.collect();
                    let value = if rest.is_empty() {
                        words.next()
                    } else {
                        Some(rest)
                    };
                    self.set(letter, value.ok_or_else(|| no_value(word))?);
                    return Ok(());
                }
                None => {
                    return Err(Failure::usage(format!(
                        "invalid option '-{letter}'\n\
                         (an option for drbdsetup goes behind '--': drbdadm -- {word} COMMAND)"
                    )))
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, letter: char, value: String) {
        match letter {
            'S' => self.stacked = true,
            'd' => self.dry_run = true,
            'v' => self.verbose = true,
            'V' => self.version = true,
            'h' => self.help = true,
            'c' => self.config = Some(value.into()),
            't' => self.config_to_test = Some(value.into()),
            's' => self.drbdsetup = Some(value),
            'm' => self.drbdmeta = Some(value),
            'P' => self.peer = Some(value),
            'W' => self.passed_through.push(value),
            // The path of the proxy's program, and a name of variables: nothing here uses them.
            _ => {}
        }
    }

    /// All options for the program that is run.
    pub(crate) fn pass(&self) -> Vec<String> {
        self.options
            .iter()
            .chain(&self.passed_through)
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Arguments {
        parse(line.split_whitespace().map(str::to_owned)).unwrap()
    }

    #[test]
    fn options_behind_dashes_go_to_drbdsetup_and_the_rest_stays() {
        let arguments = parsed("-d -- -o primary all");
        assert!(arguments.dry_run);
        assert_eq!(arguments.command.as_deref(), Some("primary"));
        assert_eq!(arguments.names, ["all"]);
        assert_eq!(arguments.passed_through, ["-o"]);
    }

    #[test]
    fn values_may_stand_apart_or_together() {
        for line in [
            "-c x up",
            "-cx up",
            "--config-file=x up",
            "--config-file x up",
            "up -dc x",
        ] {
            assert_eq!(parsed(line).config, Some("x".into()), "{line}");
            assert_eq!(parsed(line).command.as_deref(), Some("up"), "{line}");
        }
    }

    #[test]
    fn an_option_without_its_value_is_refused() {
        assert!(parse(["up".to_owned(), "-c".to_owned()]).is_err());
        assert!(parse(["--dry-run=1".to_owned()]).is_err());
    }
}
