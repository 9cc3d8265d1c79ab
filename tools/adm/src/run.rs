// SPDX-License-Identifier: GPL-2.0

//! Runs drbdsetup and drbdmeta, or prints what would be run.

use crate::failure::{Failure, Outcome};
use crate::world::World;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Where programs are looked for besides `PATH`.
const PROGRAM_DIRS: [&str; 4] = ["/sbin", "/usr/sbin", "/lib/drbd", "/usr/lib/drbd"];

/// A program that drbdadm runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// Talks to the kernel.
    Setup,
    /// Works on metadata.
    Meta,
}

/// One run of a program.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    program: Program,
    arguments: Vec<String>,
}

impl Step {
    /// A run of drbdsetup.
    pub(crate) fn setup(arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            program: Program::Setup,
            arguments: arguments.into_iter().map(Into::into).collect(),
        }
    }

    /// A run of drbdmeta.
    pub(crate) fn meta(arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            program: Program::Meta,
            arguments: arguments.into_iter().map(Into::into).collect(),
        }
    }

    /// The same with more arguments at its end.
    pub(crate) fn with(mut self, more: impl IntoIterator<Item = String>) -> Self {
        self.arguments.extend(more);
        self
    }
}

/// A program as it is started and as it is shown.
#[derive(Debug)]
struct Found {
    path: PathBuf,
    shown: String,
}

/// Runs steps.
#[derive(Debug)]
pub(crate) struct Runner {
    setup: Found,
    meta: Found,
    /// Only print.
    pub(crate) dry_run: bool,
    /// Print and run.
    pub(crate) verbose: bool,
}

impl Runner {
    /// Finds the programs: those the admin named, those beside drbdadm, those in `PATH` and in the
    /// usual places, where the ones of drbd-utils for DRBD 8.4 have a suffix.
    pub(crate) fn new(setup: Option<&str>, meta: Option<&str>) -> Self {
        Self {
            setup: find(setup, &["drbdsetup", "drbdsetup-84"]),
            meta: find(meta, &["drbdmeta"]),
            dry_run: false,
            verbose: false,
        }
    }

    fn command(&self, step: &Step) -> (Command, String) {
        let found = match step.program {
            Program::Setup => &self.setup,
            Program::Meta => &self.meta,
        };
        let mut command = Command::new(&found.path);
        command.args(&step.arguments);
        let mut line = escaped(&found.shown);
        for argument in &step.arguments {
            line.push(' ');
            line.push_str(&escaped(argument));
        }
        (command, line)
    }

    /// Prints what is or would be run; says whether to go on.
    fn announce(&self, line: &str, world: &mut World<'_>) -> Outcome<bool> {
        if self.dry_run || self.verbose {
            writeln!(world.out, "{line}")?;
        }
        world.out.flush()?;
        Ok(!self.dry_run)
    }

    /// Runs a step with drbdadm's own input and output; returns its exit code.
    pub(crate) fn run(&self, step: &Step, world: &mut World<'_>) -> Outcome<i32> {
        let (mut command, line) = self.command(step);
        if !self.announce(&line, world)? {
            return Ok(0);
        }
        let status = command
            .status()
            .map_err(|error| cannot_run(&command, &error))?;
        Ok(status.code().unwrap_or(crate::failure::NOT_POSSIBLE))
    }

    /// Runs a step, and says so if it fails.
    pub(crate) fn run_or_tell(&self, step: &Step, world: &mut World<'_>) -> Outcome<i32> {
        let code = self.run(step, world)?;
        if code != 0 {
            let (_, line) = self.command(step);
            writeln!(
                world.err,
                "Command '{line}' terminated with exit code {code}"
            )?;
        }
        Ok(code)
    }

    /// Runs a step and keeps what it prints; `None` in a dry run.
    pub(crate) fn output(&self, step: &Step, world: &mut World<'_>) -> Outcome<Option<Output>> {
        let (mut command, line) = self.command(step);
        if !self.announce(&line, world)? {
            return Ok(None);
        }
        let output = command.stdin(Stdio::null()).output();
        output
            .map(Some)
            .map_err(|error| cannot_run(&command, &error))
    }

    /// Asks without changing anything; dry runs ask as well.
    pub(crate) fn query(&self, step: &Step) -> Outcome<Output> {
        let (mut command, _) = self.command(step);
        let output = command.stdin(Stdio::null()).output();
        output.map_err(|error| cannot_run(&command, &error))
    }

    /// Starts a step in the background; `None` in a dry run.
    pub(crate) fn start(&self, step: &Step, world: &mut World<'_>) -> Outcome<Option<Child>> {
        let (mut command, line) = self.command(step);
        if !self.announce(&line, world)? {
            return Ok(None);
        }
        let child = command.stdin(Stdio::null()).spawn();
        child
            .map(Some)
            .map_err(|error| cannot_run(&command, &error))
    }
}

fn cannot_run(command: &Command, error: &std::io::Error) -> Failure {
    let program = Path::new(command.get_program()).display();
    match error.kind() {
        ErrorKind::NotFound => Failure::not_possible(format!(
            "cannot find the program '{program}'; name it with --drbdsetup or --drbdmeta"
        )),
        _ => Failure::not_possible(format!("cannot run '{program}': {error}")),
    }
}

fn find(named: Option<&str>, names: &[&str]) -> Found {
    if let Some(named) = named {
        return Found {
            path: named.into(),
            shown: named.into(),
        };
    }
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(Path::to_owned);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path: Vec<_> = std::env::split_paths(&path).collect();
    let dirs: Vec<PathBuf> = beside
        .into_iter()
        .chain(in_path)
        .chain(PROGRAM_DIRS.map(PathBuf::from))
        .collect();
    let plain = names.first().copied().unwrap_or_default();
    for name in names {
        if let Some(path) = dirs
            .iter()
            .map(|dir| dir.join(name))
            .find(|path| path.is_file())
        {
            let shown = (*name).to_owned();
            return Found { path, shown };
        }
    }
    Found {
        path: plain.into(),
        shown: plain.into(),
    }
}

/// A word as a shell needs it, escaped as drbdadm always has.
pub(crate) fn escaped(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+=,@%".contains(c) || !c.is_ascii();
    let mut text = String::new();
    for c in word.chars() {
        if !plain(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}
