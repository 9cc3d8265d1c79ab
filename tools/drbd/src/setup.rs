// SPDX-License-Identifier: GPL-2.0

//! `drbdsetup`: configures the driver and shows its state (Spec §9.1).
//!
//! The syntax is that of DRBD 8.4, `drbdsetup COMMAND ARGUMENTS`; that of 8.3 with the device in
//! front, `drbdsetup /dev/drbd2 primary -o`, is understood for commands about a device.

pub mod address;
pub mod change;
pub mod events;
pub mod events_legacy;
pub mod help;
pub mod object;
pub mod option;
pub mod show;
pub mod state;
pub mod status;
pub mod wait;

use crate::arguments::{unknown, Arguments, Word};
use crate::failure::{Failure, Outcome};
use crate::host;
use crate::netlink::message::Message;
use crate::netlink::request::{OwnedValue, Request};
use crate::netlink::Driver;
use drbd_engine::config::command::Command as Netlink;
use drbd_engine::config::Field;
use std::ffi::OsString;

/// What a command's first argument names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A device, by its minor.
    Minor,
    /// A resource.
    Resource,
    /// A connection, by the addresses of both ends.
    Connection,
    /// A resource, a device or everything.
    Anything,
}

/// What a command does once its command line is read.
#[derive(Clone, Copy)]
pub enum Action {
    /// It is one request to the driver.
    Change(&'static change::Change),
    /// It shows something, or waits.
    Show(fn(&Call<'_>) -> Outcome),
}

/// A command.
#[derive(Clone, Copy)]
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// What its first argument names.
    pub subject: Subject,
    /// Its further arguments.
    pub arguments: &'static [&'static str],
    /// Options of its own that take no value, or one.
    pub options: &'static [&'static [Field]],
    /// What it does.
    pub action: Action,
}

/// A command line that was read.
pub struct Call<'a> {
    /// The command.
    pub command: &'a Command,
    /// The arguments, as many as the command has at most.
    pub arguments: Vec<String>,
    /// The options: their rows and values.
    pub options: Vec<(&'static Field, OwnedValue)>,
    /// Options that are not mentioned go back to their defaults.
    pub set_defaults: bool,
}

impl Call<'_> {
    /// An argument, counted from 0; empty if it was not given.
    pub fn argument(&self, index: usize) -> &str {
        self.arguments.get(index).map_or("", String::as_str)
    }

    /// The value of an option of that name, if it was given.
    pub fn option(&self, name: &str) -> Option<&OwnedValue> {
        let mut all = self.options.iter().rev();
        all.find(|(field, _)| field.name == name)
            .map(|(_, value)| value)
    }

    /// Whether a switch is on.
    pub fn is_on(&self, name: &str) -> bool {
        let on = OwnedValue::Plain(drbd_engine::config::Value::Flag(true));
        self.option(name) == Some(&on)
    }

    /// The minor that the first argument names.
    pub fn minor(&self) -> Outcome<u32> {
        minor(self.argument(0))
    }

    /// The resource or device that output is restricted to.
    pub fn filter(&self) -> Filter {
        match self.argument(0) {
            "" | "all" => Filter::All,
            name if is_resource(name) => Filter::Resource(name.to_owned()),
            name => match minor_of_device(name) {
                Some(minor) => Filter::Minor(minor),
                None => Filter::Resource(name.to_owned()),
            },
        }
    }
}

/// What output is restricted to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Nothing: all of it.
    All,
    /// A resource.
    Resource(String),
    /// A device.
    Minor(u32),
}

impl Filter {
    /// Whether a resource's objects are shown, as far as its name decides it.
    pub fn admits_resource(&self, name: &str) -> bool {
        match self {
            Self::Resource(wanted) => wanted == name,
            _ => true,
        }
    }
}

fn minor(device: &str) -> Outcome<u32> {
    host::minor(device).ok_or_else(|| {
        let text = format!("Cannot determine minor device number of device '{device}'");
        Failure::new(20, text)
    })
}

/// Whether a number is the name of a resource that there is, and so is not meant as a minor.
fn is_resource(name: &str) -> bool {
    if !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let Ok(Some(mut driver)) = driver_if_loaded() else {
        return false;
    };
    let request = Request::new(Netlink::GetResources).resource(name);
    let is_named = |message: &Message| message.resource_name() == name;
    driver
        .dump(&request)
        .is_ok_and(|messages| messages.iter().any(is_named))
}

/// The minor, where a name can only be meant as a device: a number or a path.
fn minor_of_device(name: &str) -> Option<u32> {
    let is_device = name.starts_with('/') || name.bytes().all(|byte| byte.is_ascii_digit());
    is_device.then(|| host::minor(name)).flatten()
}

/// Runs `drbdsetup` with its name and arguments and returns its exit code.
pub fn main(arguments: Vec<OsString>) -> u8 {
    match run(arguments) {
        Ok(()) => 0,
        Err(failure) => failure.report(),
    }
}

fn run(mut words: Vec<OsString>) -> Outcome {
    device_behind_command(&mut words);
    let name = words.get(1).map(|word| word.to_string_lossy().into_owned());
    match name.as_deref() {
        None => return Err(Failure::new(20, help::overview())),
        Some("help" | "--help" | "-h") => return help::help(words.get(2)),
        Some("-V" | "--version") => {
            println!("drbdsetup {} (API 1)", env!("CARGO_PKG_VERSION"));
            return Ok(());
        }
        _ => {}
    }
    let name = name.unwrap_or_default();
    let command = find(&name).ok_or_else(|| {
        let text = format!("{}\n\ninvalid command '{name}'", help::overview());
        Failure::new(20, text)
    })?;
    if name == "state" {
        eprintln!("'drbdsetup ... state' is deprecated, use 'drbdsetup ... role' instead.");
    }
    words.remove(0);
    let call = read(command, words)?;
    match command.action {
        Action::Change(change) => change::run(change, &call),
        Action::Show(show) => show(&call),
    }
}

/// Brings `DEVICE COMMAND`, the order of DRBD 8.3, into the order of 8.4.
fn device_behind_command(words: &mut [OsString]) {
    let [_, device, command, ..] = words else {
        return;
    };
    let is_device = device
        .to_str()
        .is_some_and(|name| host::minor(name).is_some());
    let is_command = command.to_str().is_some_and(|name| find(name).is_some());
    if is_device && is_command {
        std::mem::swap(device, command);
    }
}

fn find(name: &str) -> Option<&'static Command> {
    let name = match name {
        "state" => "role",
        "disk" => "attach",
        other => other,
    };
    help::COMMANDS.iter().find(|command| command.name == name)
}

fn read(command: &Command, words: Vec<OsString>) -> Outcome<Call<'_>> {
    let mut call = Call {
        command,
        arguments: Vec::new(),
        options: Vec::new(),
        set_defaults: false,
    };
    let fields = command.fields();
    let mut arguments = Arguments::new(words);
    while let Some(word) = arguments.next_word()? {
        match word {
            Word::Argument(argument) => call.arguments.push(argument),
            Word::Option(name) if name == "set-defaults" && command.sets_defaults() => {
                call.set_defaults = true;
            }
            Word::Option(name) => {
                let field = option::find(&fields, &name)
                    .ok_or_else(|| unknown(command.name, &name, &help::usage(command)))?;
                let value = match arguments.joined_value() {
                    None if !option::is_switch(field) => Some(arguments.value()?),
                    joined => joined,
                };
                call.options
                    .push((field, option::parse(field, value.as_deref())?));
            }
        }
    }
    check_arguments(command, &call.arguments)?;
    Ok(call)
}

fn check_arguments(command: &Command, given: &[String]) -> Outcome {
    let usage = |text: String| Failure::new(20, format!("{text}\n{}", help::usage(command)));
    let mut needed = command.needed_arguments();
    if let (Subject::Connection, [device]) = (command.subject, given) {
        if minor_of_device(device).is_some() {
            needed.truncate(1);
        }
    }
    if let Some(missing) = needed.get(given.len()) {
        let text = match given.len() {
            0 => "Missing first argument".to_owned(),
            _ => format!("Missing argument '{missing}'"),
        };
        return Err(usage(text));
    }
    let most = match command.subject {
        Subject::Anything => 1,
        _ => needed.len(),
    };
    match given.get(most..) {
        Some([_, ..]) => {
            let excess = given.get(most..).unwrap_or_default().join(" ");
            Err(Failure::new(20, format!("Excess arguments: {excess}")))
        }
        _ => Ok(()),
    }
}

impl Command {
    /// All arguments that must be given.
    pub fn needed_arguments(&self) -> Vec<&'static str> {
        let subject: &[_] = match self.subject {
            Subject::Minor => &["minor"],
            Subject::Resource => &["resource"],
            Subject::Connection => &["local_addr", "remote_addr"],
            Subject::Anything => &[],
        };
        [subject, self.arguments].concat()
    }

    /// Whether it can set options back to their defaults.
    pub fn sets_defaults(&self) -> bool {
        matches!(self.action, Action::Change(change) if change.sets_defaults)
    }

    /// The rows of its options.
    pub fn fields(&self) -> Vec<&'static Field> {
        let own = self.options.iter().copied().flatten();
        match self.action {
            Action::Change(change) => own.chain(change.fields()).collect(),
            Action::Show(_) => own.collect(),
        }
    }
}

/// Opens the conversation with the driver, unless there is no driver: then there is nothing to
/// show.
pub fn driver_if_loaded() -> Outcome<Option<Driver>> {
    if crate::netlink::is_loaded() {
        Driver::open().map(Some)
    } else {
        Ok(None)
    }
}
