// SPDX-License-Identifier: GPL-2.0

//! Sections with options, those of DRBD 8.3 among them.

use super::{argument, bad_value, body, missing, no_arguments, no_body, surplus, unknown};
use super::{Outcome, Reader};
use crate::config::Sections;
use crate::diagnostic::Diagnostic;
use crate::option::{is_discard_node, OptionList, Rule, Section, Setting};
use crate::tree::Statement;

/// Options of `syncer` that DRBD 8.4 has under another name.
const SYNCER_RENAMED: [(&str, &str); 2] = [("rate", "resync-rate"), ("after", "resync-after")];
/// Options of `syncer` that no longer do anything.
const SYNCER_IGNORED: [&str; 4] = [
    "delay-probe-volume",
    "delay-probe-interval",
    "throttle-threshold",
    "hold-off-threshold",
];
/// Options of `syncer` that kept their names.
const SYNCER_KEPT: [&str; 11] = [
    "al-extents",
    "csums-alg",
    "verify-alg",
    "use-rle",
    "cpu-mask",
    "on-no-data-accessible",
    "c-plan-ahead",
    "c-delay-target",
    "c-fill-target",
    "c-max-rate",
    "c-min-rate",
];

impl Reader<'_> {
    /// Reads a section with options, `syncer`, or `protocol`; false if the statement is none of
    /// them.
    pub(super) fn option_section(
        &mut self,
        statement: &Statement,
        sections: &mut Sections,
    ) -> Outcome<bool> {
        let head = statement.head.text.as_str();
        match Section::named(head) {
            Some(section) => {
                no_arguments(statement)?;
                self.once(&format!("section '{head}'"), statement.head.span)?;
                for entry in body(statement)? {
                    self.option(entry, section, sections.of_mut(section))?;
                }
            }
            None if head == "syncer" => self.syncer(statement, sections)?,
            None if head == "protocol" => {
                self.option(statement, Section::Net, sections.of_mut(Section::Net))?;
            }
            None => return Ok(false),
        }
        Ok(true)
    }

    fn syncer(&mut self, statement: &Statement, sections: &mut Sections) -> Outcome {
        no_arguments(statement)?;
        self.once("section 'syncer'", statement.head.span)?;
        for entry in body(statement)? {
            let head = entry.head.text.as_str();
            if SYNCER_IGNORED.contains(&head) {
                continue;
            }
            let renamed = SYNCER_RENAMED.iter().find(|(old, _)| *old == head);
            let name = renamed.map_or(head, |(_, new)| new);
            let bare = head.strip_prefix("no-").unwrap_or(head);
            if renamed.is_none() && !SYNCER_KEPT.contains(&bare) {
                let known = SYNCER_RENAMED.iter().map(|(old, _)| *old);
                let known = known.chain(SYNCER_KEPT);
                return Err(unknown(&entry.head, "option of 'syncer'", known));
            }
            let mut entry = entry.clone();
            entry.head.text = name.to_owned();
            let mut sections_of_old = [Section::Disk, Section::Net, Section::Options].into_iter();
            let section = sections_of_old
                .find(|section| rule_and_name(*section, name).is_some())
                .unwrap_or(Section::Disk);
            self.setting(&entry, section, sections.of_mut(section), true)?;
        }
        Ok(())
    }

    /// Reads one option.
    pub(super) fn option(
        &mut self,
        statement: &Statement,
        section: Section,
        list: &mut OptionList,
    ) -> Outcome {
        self.setting(statement, section, list, false)
    }

    fn setting(
        &mut self,
        statement: &Statement,
        section: Section,
        list: &mut OptionList,
        from_syncer: bool,
    ) -> Outcome {
        no_body(statement)?;
        let head = &statement.head;
        let Some((rule, name, negated)) = rule_and_name(section, &head.text) else {
            let what = format!("option of '{}'", section.name());
            return Err(hint_other_section(
                unknown(head, &what, section.names()),
                &head.text,
            ));
        };
        let value = match (rule, negated) {
            (_, true) => {
                no_arguments(statement)?;
                "no".to_owned()
            }
            (rule, _) if rule.is_flag() && statement.arguments.is_empty() => "yes".to_owned(),
            (Rule::Hosts, _) => hosts(statement)?,
            (Rule::Any, _) => {
                let words: Vec<_> = statement
                    .arguments
                    .iter()
                    .map(|w| w.text.as_str())
                    .collect();
                words.join(" ")
            }
            (rule, _) => checked(statement, rule)?,
        };
        if name == "use-bmbv" {
            return Ok(());
        }
        let setting = Setting {
            // The old name of the handler.
            name: if name == "outdate-peer" {
                "fence-peer"
            } else {
                name
            }
            .to_owned(),
            value,
            span: head.span,
            from_syncer,
        };
        if let Some(first) = list.set(setting) {
            let text = format!("'{name}' is given twice; the second one counts");
            self.warnings.push(
                Diagnostic::new(head.span, text).related(first.span, "the first one is here"),
            );
        }
        Ok(())
    }
}

/// The rule of an option, its proper name, and whether it is written as `no-…`.
fn rule_and_name(section: Section, written: &str) -> Option<(Rule, &str, bool)> {
    if let Some(rule) = section.rule(written) {
        return Some((rule, written, false));
    }
    let name = written.strip_prefix("no-")?;
    let rule = section.rule(name).filter(|rule| rule.is_flag())?;
    Some((rule, name, true))
}

/// Options moved between sections from 8.3 to 8.4, and people mix them up.
fn hint_other_section(diagnostic: Diagnostic, name: &str) -> Diagnostic {
    let mut sections = Section::ALL.into_iter();
    match sections.find(|section| rule_and_name(*section, name).is_some()) {
        Some(section) => diagnostic.help(format!(
            "'{name}' belongs into the section '{}'",
            section.name()
        )),
        None => diagnostic,
    }
}

fn hosts(statement: &Statement) -> Outcome<String> {
    if statement.arguments.is_empty() {
        return Err(missing(statement, "a host's name or 'both'"));
    }
    let names: Vec<_> = statement
        .arguments
        .iter()
        .map(|word| word.text.as_str())
        .collect();
    Ok(names.join(" "))
}

fn checked(statement: &Statement, rule: Rule) -> Outcome<String> {
    let expected = match rule {
        Rule::Command => "a command".to_owned(),
        rule => rule
            .check("\0")
            .err()
            .map_or("a value".into(), |error| error.text),
    };
    let word = match statement.arguments.as_slice() {
        [first, second, ..] if second.span.start > first.span.end => {
            return Err(surplus(second, "';'"));
        }
        _ => argument(statement, &expected)?,
    };
    if let (Rule::Field(_), true) = (rule, is_discard_node(&word.text)) {
        return Ok(word.text.clone());
    }
    match rule.check(&word.text) {
        Ok(()) => Ok(word.text.clone()),
        Err(expected) => {
            Err(bad_value(statement, word, &expected.text).did_you_mean(&word.text, expected.words))
        }
    }
}
