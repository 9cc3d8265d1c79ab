// SPDX-License-Identifier: GPL-2.0

//! Reads configuration files: from statements to a [`Config`] (spec §9.4).

mod host;
mod include;
mod section;

pub(crate) use include::read_text;

use crate::check;
use crate::config::{Config, Global, Resource, Sections, Volume};
use crate::diagnostic::Diagnostic;
use crate::option::Section;
use crate::source::{Sources, Span};
use crate::tree::{self, Statement, Word};
use std::path::{Path, PathBuf};

const TOP: [&str; 5] = ["global", "common", "resource", "skip", "include"];
const GLOBAL: [&str; 8] = [
    "usage-count",
    "minor-count",
    "dialog-refresh",
    "disable-ip-verification",
    "udev-always-use-vnr",
    "cmd-timeout-short",
    "cmd-timeout-medium",
    "cmd-timeout-long",
];
/// Keywords of a resource besides its sections with options.
const RESOURCE: [&str; 13] = [
    "protocol",
    "on",
    "floating",
    "stacked-on-top-of",
    "volume",
    "device",
    "disk",
    "meta-disk",
    "flexible-meta-disk",
    "syncer",
    "connection-mesh",
    "skip",
    "include",
];

/// A configuration that was read, with what is doubtful about it.
#[derive(Debug)]
pub(crate) struct Reading {
    /// What the files say.
    pub(crate) config: Config,
    /// What the admin should hear; nothing of it keeps drbdadm from working.
    pub(crate) warnings: Vec<Diagnostic>,
}

/// Reads `text`, the content of `path`, and what it includes, and checks the whole.
pub(crate) fn read(
    sources: &mut Sources,
    path: &Path,
    text: String,
) -> Result<Reading, Vec<Diagnostic>> {
    let mut reader = Reader {
        sources,
        config: Config {
            file: path.to_owned(),
            ..Config::default()
        },
        warnings: Vec::new(),
        seen: Vec::new(),
        open_files: vec![path.to_owned()],
    };
    reader.file(path, text).map_err(|error| vec![error])?;
    let Reader {
        mut config,
        warnings,
        ..
    } = reader;
    finish(&mut config);
    let errors = check::check(&config, sources);
    if errors.is_empty() {
        Ok(Reading { config, warnings })
    } else {
        Err(errors)
    }
}

/// Lets resources inherit from `common`, and volumes from their resource.
fn finish(config: &mut Config) {
    for resource in &mut config.resources {
        if let Some(common) = &config.common {
            resource.sections.inherit(common);
        }
        let disk = resource.sections.of_mut(Section::Disk);
        disk.fix_syncer_rate();
        let disk = disk.clone();
        for host in &mut resource.hosts {
            for volume in &mut host.volumes {
                volume.options.inherit(&disk);
            }
        }
    }
}

/// What a reading has come to so far.
struct Reader<'a> {
    sources: &'a mut Sources,
    config: Config,
    warnings: Vec<Diagnostic>,
    /// Top-level sections and sections of the current resource, to find doubles.
    seen: Vec<(String, Span)>,
    /// The files that are being read, outermost first.
    open_files: Vec<PathBuf>,
}

type Outcome<T = ()> = Result<T, Diagnostic>;

impl Reader<'_> {
    fn file(&mut self, path: &Path, text: String) -> Outcome {
        let source = self.sources.add(path, text);
        let statements = tree::parse(source, self.sources.text(source))?;
        for statement in &statements {
            self.top_level(statement)?;
        }
        Ok(())
    }

    fn top_level(&mut self, statement: &Statement) -> Outcome {
        match statement.head.text.as_str() {
            "skip" => body(statement).map(drop),
            "include" => self.include(statement, Self::top_level),
            "global" => self.global(statement),
            "common" => self.common(statement),
            "resource" => self.resource(statement),
            _ => Err(unknown(&statement.head, "keyword", TOP)),
        }
    }

    /// Notes a section, and refuses a second one of the same kind in the same place.
    fn once(&mut self, what: &str, span: Span) -> Outcome {
        match self.seen.iter().find(|(seen, _)| seen == what) {
            Some((_, first)) => Err(Diagnostic::new(span, format!("second {what}"))
                .related(*first, "the first one is here")),
            None => {
                self.seen.push((what.to_owned(), span));
                Ok(())
            }
        }
    }

    fn global(&mut self, statement: &Statement) -> Outcome {
        no_arguments(statement)?;
        self.once("section 'global'", statement.head.span)?;
        let mut global = Global::default();
        for entry in body(statement)? {
            let head = entry.head.text.as_str();
            match head {
                "disable-ip-verification" => {
                    flag_only(entry)?;
                    global.disable_ip_verification = true;
                }
                "udev-always-use-vnr" => flag_only(entry)?,
                "usage-count" => {
                    let word = argument(entry, "'yes', 'no' or 'ask'")?;
                    if !matches!(word.text.as_str(), "yes" | "no" | "ask") {
                        return Err(bad_value(entry, word, "'yes', 'no' or 'ask'")
                            .did_you_mean(&word.text, ["yes", "no", "ask"]));
                    }
                    global.usage_count = Some(word.text.clone());
                }
                "minor-count" => global.minor_count = Some(number(entry, 1, 255)?),
                "dialog-refresh" => global.dialog_refresh = Some(number(entry, 0, 600)?),
                _ => match GLOBAL[5..].iter().find(|name| **name == head) {
                    Some(name) => global.timeouts.push((name, number(entry, 0, 900)?)),
                    None => return Err(unknown(&entry.head, "option of 'global'", GLOBAL)),
                },
            }
        }
        self.config.global = global;
        Ok(())
    }

    fn common(&mut self, statement: &Statement) -> Outcome {
        no_arguments(statement)?;
        self.once("section 'common'", statement.head.span)?;
        let outer = std::mem::take(&mut self.seen);
        let mut sections = Sections::default();
        for entry in body(statement)? {
            if !self.option_section(entry, &mut sections)? {
                let known = section_names().chain(["protocol", "syncer"]);
                return Err(unknown(&entry.head, "section of 'common'", known));
            }
        }
        self.seen = outer;
        self.config.common = Some(sections);
        Ok(())
    }

    fn resource(&mut self, statement: &Statement) -> Outcome {
        let name = match statement.arguments.as_slice() {
            [name] => name,
            [] => return Err(missing(statement, "the resource's name")),
            [_, extra, ..] => return Err(surplus(extra, "'{'")),
        };
        check_name(name)?;
        self.once(&format!("resource '{}'", name.text), name.span)?;
        let outer = std::mem::take(&mut self.seen);
        let mut draft = Draft {
            resource: Resource {
                name: name.text.clone(),
                span: statement.head.span,
                sections: Sections::default(),
                hosts: Vec::new(),
                stacked: false,
            },
            volumes: Vec::new(),
        };
        for entry in body(statement)? {
            self.resource_entry(entry, &mut draft)?;
        }
        self.seen = outer;
        self.config.resources.push(draft.finish());
        Ok(())
    }

    fn resource_entry(&mut self, entry: &Statement, draft: &mut Draft) -> Outcome {
        let resource = &mut draft.resource;
        match entry.head.text.as_str() {
            "skip" => body(entry).map(drop),
            "include" => self.include(entry, |reader, entry| reader.resource_entry(entry, draft)),
            "on" => {
                let host = self.host(entry, false)?;
                resource.hosts.push(host);
                Ok(())
            }
            "floating" => {
                let host = self.host(entry, true)?;
                resource.hosts.push(host);
                Ok(())
            }
            "stacked-on-top-of" => {
                resource.stacked = true;
                body(entry).map(drop)
            }
            "connection-mesh" | "connection" | "path" => Err(Diagnostic::new(
                entry.head.span,
                format!("'{}' belongs to DRBD 9", entry.head.text),
            )
            .help("a resource of DRBD 8.4 has two 'on HOST' sections, each with its address")),
            _ if self.volume_entry(entry, &mut draft.volumes)? => Ok(()),
            _ if self.option_section(entry, &mut resource.sections)? => Ok(()),
            _ => {
                let known = section_names().chain(RESOURCE);
                Err(unknown(&entry.head, "keyword of a resource", known))
            }
        }
    }
}

/// A resource under construction.
struct Draft {
    resource: Resource,
    /// What is said outside of hosts.
    volumes: Vec<Volume>,
}

impl Draft {
    /// Hands what is said outside of hosts to each host.
    fn finish(mut self) -> Resource {
        for host in &mut self.resource.hosts {
            for shared in &self.volumes {
                let mut volumes = host.volumes.iter_mut();
                match volumes.find(|volume| volume.number == shared.number) {
                    Some(volume) => volume.inherit(shared),
                    None => host.volumes.push(shared.clone()),
                }
            }
        }
        self.resource
    }
}

fn section_names() -> impl Iterator<Item = &'static str> {
    Section::ALL.into_iter().map(Section::name)
}

fn check_name(name: &Word) -> Outcome {
    let good = |c: char| !c.is_whitespace() && !c.is_control() && c != '/';
    let expected = "1 to 127 bytes without '/' and blanks";
    if name.text.is_empty() || name.text.len() > 127 || !name.text.chars().all(good) {
        let text = format!("'{}' cannot be a resource's name", name.text);
        return Err(Diagnostic::new(name.span, text).expected(expected));
    }
    if name.text == "all" {
        return Err(
            Diagnostic::new(name.span, "a resource cannot be named 'all'")
                .help("'drbdadm COMMAND all' means every resource"),
        );
    }
    Ok(())
}

/// The content of what must be a section.
fn body(statement: &Statement) -> Outcome<&[Statement]> {
    statement.body.as_deref().ok_or_else(|| {
        let head = &statement.head.text;
        Diagnostic::new(statement.end, format!("'{head}' is a section")).expected("'{'")
    })
}

fn no_body(statement: &Statement) -> Outcome {
    match statement.body {
        None => Ok(()),
        Some(_) => {
            let head = &statement.head.text;
            Err(
                Diagnostic::new(statement.end, format!("'{head}' is not a section"))
                    .expected("';'"),
            )
        }
    }
}

fn no_arguments(statement: &Statement) -> Outcome {
    let next = if statement.body.is_some() {
        "'{'"
    } else {
        "';'"
    };
    match statement.arguments.first() {
        None => Ok(()),
        Some(extra) => Err(surplus(extra, next)),
    }
}

fn flag_only(statement: &Statement) -> Outcome {
    no_body(statement)?;
    no_arguments(statement)
}

/// The only argument of a statement.
fn argument<'s>(statement: &'s Statement, expected: &str) -> Outcome<&'s Word> {
    no_body(statement)?;
    match statement.arguments.as_slice() {
        [word] => Ok(word),
        [] => Err(missing(statement, expected)),
        [_, extra, ..] => Err(surplus(extra, "';'")),
    }
}

fn number(statement: &Statement, min: u32, max: u32) -> Outcome<u32> {
    let expected = format!("a number from {min} to {max}");
    let word = argument(statement, &expected)?;
    match word.text.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(bad_value(statement, word, &expected)),
    }
}

fn unknown<'w>(head: &Word, what: &str, known: impl IntoIterator<Item = &'w str>) -> Diagnostic {
    let known: Vec<_> = known.into_iter().collect();
    let diagnostic = Diagnostic::new(head.span, format!("unknown {what} '{}'", head.text))
        .did_you_mean(&head.text, known.iter().copied());
    if known.len() <= 8 {
        let list: Vec<_> = known.iter().map(|word| format!("'{word}'")).collect();
        return diagnostic.expected(format!("one of {}", list.join(", ")));
    }
    diagnostic
}

fn missing(statement: &Statement, expected: &str) -> Diagnostic {
    let head = &statement.head.text;
    Diagnostic::new(statement.end, format!("'{head}' lacks a value")).expected(expected)
}

/// Most often the `;` of the line before is missing.
fn surplus(extra: &Word, expected: &str) -> Diagnostic {
    Diagnostic::new(extra.span, format!("'{}' is too much here", extra.text)).expected(expected)
}

fn bad_value(statement: &Statement, word: &Word, expected: &str) -> Diagnostic {
    let text = format!("'{}' is no value for '{}'", word.text, statement.head.text);
    Diagnostic::new(word.span, text).expected(expected)
}
