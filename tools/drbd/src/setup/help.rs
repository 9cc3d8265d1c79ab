// SPDX-License-Identifier: GPL-2.0

//! The commands, and what `help` says about them.

use super::change::Change;
use super::option::{expected, Table};
use super::{events, events_legacy, find, show, state, status, wait, Action, Command, Subject};
use crate::failure::{Failure, Outcome};
use drbd_engine::config::command::Command as Request;
use drbd_engine::config::field::Kind;
use drbd_engine::config::{
    Detach, Disconnect, DiskConf, Field, NetConf, NewCurrentUuid, Resize, ResourceOptions, SetRole,
    StartVerify,
};
use std::ffi::OsString;

const COLUMNS: usize = 80;

const fn change(
    name: &'static str,
    subject: Subject,
    arguments: &'static [&'static str],
    change: &'static Change,
) -> Command {
    Command {
        name,
        subject,
        arguments,
        options: &[],
        action: Action::Change(change),
    }
}

const fn plain(name: &'static str, what: &'static Change) -> Command {
    change(name, Subject::Minor, &[], what)
}

const fn shows(
    name: &'static str,
    subject: Subject,
    options: &'static [&'static [Field]],
    run: fn(&super::Call<'_>) -> Outcome,
) -> Command {
    Command {
        name,
        subject,
        arguments: &[],
        options,
        action: Action::Show(run),
    }
}

const DISK: Table = Table::of::<DiskConf>();
const NET: Table = Table::of::<NetConf>();
const RESOURCE: Table = Table::of::<ResourceOptions>();
const ROLE: Table = Table::of::<SetRole>();

/// Every command.
pub static COMMANDS: &[Command] = &[
    change(
        "primary",
        Subject::Minor,
        &[],
        &Change::with(Request::Primary, ROLE),
    ),
    plain("secondary", &Change::plain(Request::Secondary)),
    change(
        "attach",
        Subject::Minor,
        &["lower_dev", "meta_data_dev", "meta_data_index"],
        &Change::with(Request::Attach, DISK),
    ),
    plain(
        "disk-options",
        &Change::options(Request::ChangeDiskOptions, DISK),
    ),
    plain(
        "detach",
        &Change::with(Request::Detach, Table::of::<Detach>()),
    ),
    change(
        "connect",
        Subject::Resource,
        &["local_addr", "remote_addr"],
        &Change::with(Request::Connect, NET),
    ),
    change(
        "net-options",
        Subject::Connection,
        &[],
        &Change::options(Request::ChangeNetOptions, NET),
    ),
    change(
        "disconnect",
        Subject::Connection,
        &[],
        &Change::with(Request::Disconnect, Table::of::<Disconnect>()),
    ),
    plain(
        "resize",
        &Change::with(Request::Resize, Table::of::<Resize>()),
    ),
    change(
        "resource-options",
        Subject::Resource,
        &[],
        &Change::options(Request::ResourceOptions, RESOURCE),
    ),
    plain(
        "new-current-uuid",
        &Change::with(Request::NewCurrentUuid, Table::of::<NewCurrentUuid>()),
    ),
    plain("invalidate", &Change::plain(Request::Invalidate)),
    plain("invalidate-remote", &Change::plain(Request::InvalidatePeer)),
    plain("pause-sync", &Change::plain(Request::PauseSync)),
    plain("resume-sync", &Change::plain(Request::ResumeSync)),
    plain("suspend-io", &Change::plain(Request::SuspendIo)),
    plain("resume-io", &Change::plain(Request::ResumeIo)),
    plain("outdate", &Change::plain(Request::Outdate)),
    plain(
        "verify",
        &Change::with(Request::StartVerify, Table::of::<StartVerify>()),
    ),
    change(
        "down",
        Subject::Resource,
        &[],
        &Change::plain(Request::Down),
    ),
    shows("role", Subject::Minor, &[], state::role),
    shows("sh-status", Subject::Anything, &[], state::sh_status),
    shows("cstate", Subject::Minor, &[], state::cstate),
    shows("dstate", Subject::Minor, &[], state::dstate),
    shows("show-gi", Subject::Minor, &[], state::show_gi),
    shows("get-gi", Subject::Minor, &[], state::get_gi),
    shows("show", Subject::Anything, &[show::OPTIONS], show::run),
    shows("status", Subject::Anything, &[status::OPTIONS], status::run),
    shows("check-resize", Subject::Minor, &[], state::check_resize),
    shows("events", Subject::Anything, &[], events_legacy::run),
    shows(
        "events2",
        Subject::Anything,
        &[events::OPTIONS],
        events::run,
    ),
    shows(
        "wait-connect",
        Subject::Minor,
        &[wait::OPTIONS],
        wait::wait_connect,
    ),
    shows(
        "wait-sync",
        Subject::Minor,
        &[wait::OPTIONS],
        wait::wait_sync,
    ),
    change(
        "new-resource",
        Subject::Resource,
        &[],
        &Change::with(Request::NewResource, RESOURCE),
    ),
    change(
        "new-minor",
        Subject::Resource,
        &["minor", "volume"],
        &Change::plain(Request::NewMinor),
    ),
    plain("del-minor", &Change::plain(Request::DelMinor)),
    change(
        "del-resource",
        Subject::Resource,
        &[],
        &Change::plain(Request::DelResource),
    ),
];

/// What to type, and the names of all commands.
pub fn overview() -> String {
    let mut text = String::from(
        "\nUSAGE: drbdsetup command device arguments options\n\n\
         Device is usually /dev/drbdX or /dev/drbd/X.\n\nCommands are:\n",
    );
    for row in COMMANDS.chunks(3) {
        let mut line = String::from("   ");
        for command in row {
            line.push_str(&format!(" {:<19}", command.name));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push_str("\nTo get more details about a command issue 'drbdsetup help cmd'.\n");
    text
}

/// How a command is called, with its options and what they take.
pub fn usage(command: &Command) -> String {
    let mut text = format!("USAGE:\n drbdsetup {}", command.name);
    let mut column = text.len().saturating_sub("USAGE:\n".len());
    let arguments = command.needed_arguments();
    let arguments = arguments.iter().map(|name| format!("{{{name}}}"));
    let optional = match command.subject {
        Subject::Anything => vec!["[{resource|minor|all}]".to_owned()],
        _ => Vec::new(),
    };
    let options = command.fields().into_iter().map(|field| match field.kind {
        Kind::Flag if matches!(command.action, Action::Show(_)) => format!("[--{}]", field.name),
        _ => format!("[--{}={}]", field.name, expected(field)),
    });
    let defaults = command
        .sets_defaults()
        .then(|| "[--set-defaults]".to_owned());
    for word in arguments.chain(optional).chain(options).chain(defaults) {
        if column.saturating_add(word.len()).saturating_add(1) > COLUMNS {
            text.push_str("\n   ");
            column = 3;
        }
        text.push(' ');
        text.push_str(&word);
        column = column.saturating_add(word.len()).saturating_add(1);
    }
    text
}

/// Explains a command with all its options, or lists the commands.
pub fn help(name: Option<&OsString>) -> Outcome {
    let Some(name) = name.and_then(|name| name.to_str()) else {
        println!("{}", overview());
        return Ok(());
    };
    let command = find(name)
        .ok_or_else(|| Failure::new(20, format!("{}\n\ninvalid command '{name}'", overview())))?;
    println!("{}", usage(command));
    for field in command.fields() {
        if !field.help.is_empty() {
            println!(
                "\n  --{}={}\n      {}",
                field.name,
                expected(field),
                field.help
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_names_arguments_and_options() {
        let text = usage(find("attach").unwrap());
        assert!(text.starts_with(
            "USAGE:\n drbdsetup attach {minor} {lower_dev} {meta_data_dev} {meta_data_index}\n"
        ));
        assert!(text.contains("[--on-io-error={pass_on|call-local-io-error|detach}]"));
        assert!(!text.contains("backing-dev"));
    }

    #[test]
    fn only_what_can_change_in_use_is_an_option_of_disk_options() {
        let text = usage(find("disk-options").unwrap());
        assert!(text.contains("--resync-rate") && text.contains("--set-defaults"));
        assert!(!text.contains("--size"));
    }

    #[test]
    fn no_command_is_listed_twice() {
        let mut names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COMMANDS.len());
    }
}
