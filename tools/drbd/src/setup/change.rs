// SPDX-License-Identifier: GPL-2.0

//! Commands that are one request to the driver.

use super::address;
use super::option::Table;
use super::{minor, Call, Subject};
use crate::failure::{Failure, Outcome};
use crate::host::reason;
use crate::netlink::request::OwnedValue;
use crate::netlink::{check, Driver, Request};
use crate::numbers;
use drbd_engine::config::command::Command;
use drbd_engine::config::options::{META_INDEX_FLEX_EXTERNAL, META_INDEX_INTERNAL, VOLUME_MAX};
use drbd_engine::config::{DiskConf, Field, RetCode, Settings, Value};
use std::fs::File;
use std::os::unix::fs::FileTypeExt;

/// A command that changes something.
pub struct Change {
    /// The request.
    pub command: Command,
    /// The options that it carries.
    pub table: Option<Table>,
    /// Whether options that are not mentioned can go back to their defaults; then only what can be
    /// changed while in use is an option.
    pub sets_defaults: bool,
}

impl Change {
    /// A request without options.
    pub const fn plain(command: Command) -> Self {
        Self {
            command,
            table: None,
            sets_defaults: false,
        }
    }

    /// A request with options.
    pub const fn with(command: Command, table: Table) -> Self {
        Self {
            command,
            table: Some(table),
            sets_defaults: false,
        }
    }

    /// A request that changes options.
    pub const fn options(command: Command, table: Table) -> Self {
        Self {
            command,
            table: Some(table),
            sets_defaults: true,
        }
    }

    /// The rows of the options.
    pub fn fields(&self) -> impl Iterator<Item = &'static Field> + '_ {
        let fields = self.table.map_or(&[][..], |table| table.fields);
        // What a command names by its arguments is none of its options.
        let is_option = |field: &&Field| !field.required;
        let is_free = |field: &&Field| !(self.sets_defaults && field.invariant);
        fields.iter().filter(is_option).filter(is_free)
    }
}

/// Sends the request that the command line asks for.
pub fn run(change: &Change, call: &Call<'_>) -> Outcome {
    let (mut request, subject) = match call.command.subject {
        Subject::Connection => connection(change, call)?,
        Subject::Minor => {
            let minor = call.minor()?;
            let request = Request::about_minor(change.command, minor);
            (request, call.argument(0).to_owned())
        }
        Subject::Resource | Subject::Anything => resource(change, call)?,
    };
    let mut options: Vec<_> = call
        .options
        .iter()
        .map(|(field, value)| (field.number, value.clone()))
        .collect();
    if change.command == Command::Attach {
        options.extend(backing_device(call)?);
    }
    request = request.setting_defaults(call.set_defaults);
    if let Some(table) = change.table {
        request = request.options(table.attribute, options);
    }
    let mut driver = Driver::open()?;
    let reply = driver.ask(&request)?;
    let gone = change.command == Command::Down && reply.ret_code() == RetCode::RESOURCE_NOT_KNOWN;
    if gone {
        return Ok(());
    }
    check(&reply, &subject)
}

/// A request about a connection. As in DRBD 8.3 a device of its resource may name it.
fn connection(change: &Change, call: &Call<'_>) -> Outcome<(Request, String)> {
    let request = Request::new(change.command);
    if let Some(minor) = super::minor_of_device(call.argument(0)) {
        let status = Request::about_minor(Command::GetStatus, minor);
        let reply = Driver::open()?.ask(&status)?;
        check(&reply, call.argument(0))?;
        let context = reply.context();
        let (Some(mine), Some(peer)) = (context.my_address, context.peer_address) else {
            let text = format!("{}: has no connection", call.argument(0));
            return Err(Failure::new(10, text));
        };
        let request = request.connection(None, mine.to_vec(), peer.to_vec());
        return Ok((request, call.argument(0).to_owned()));
    }
    let mine = address::parse(call.argument(0))?;
    let peer = address::parse(call.argument(1))?;
    let (mine_bytes, peer_bytes) = (address::to_bytes(mine), address::to_bytes(peer));
    let request = request.connection(None, mine_bytes, peer_bytes);
    Ok((request, format!("{mine} {peer}")))
}

fn resource(change: &Change, call: &Call<'_>) -> Outcome<(Request, String)> {
    let mut name = call.argument(0).to_owned();
    if name.is_empty() {
        return Err(Failure::new(1, "Resource name is empty."));
    }
    let request = match change.command {
        Command::NewMinor => {
            let minor = minor(call.argument(1))?;
            let volume = u32::try_from(numbers::parse(call.argument(2), 1)?)
                .ok()
                .filter(|volume| *volume <= u32::from(VOLUME_MAX))
                .ok_or_else(|| {
                    let text = format!("volume number must be from 0 to {VOLUME_MAX}");
                    Failure::new(10, format!("{}: {text}", call.argument(2)))
                })?;
            Request::about_minor(change.command, minor).volume_of(&name, Some(volume))
        }
        Command::Connect => {
            let mine = address::to_bytes(address::parse(call.argument(1))?);
            let peer = address::to_bytes(address::parse(call.argument(2))?);
            Request::new(change.command).connection(Some(&name), mine, peer)
        }
        Command::Down => {
            name = resource_of_device(&name)?.unwrap_or(name);
            Request::new(change.command).resource(&name)
        }
        _ => Request::new(change.command).resource(&name),
    };
    Ok((request, name))
}

/// The resource that a device belongs to, where one is named instead of a resource.
fn resource_of_device(name: &str) -> Outcome<Option<String>> {
    if super::is_resource(name) {
        return Ok(None);
    }
    let Some(minor) = super::minor_of_device(name) else {
        return Ok(None);
    };
    let request = Request::about_minor(Command::GetStatus, minor);
    let reply = Driver::open()?.ask(&request)?;
    let resource = reply.resource_name();
    Ok((reply.ret_code().is_success() && !resource.is_empty()).then_some(resource))
}

/// The arguments of attach as options. The devices are looked at first: the driver's refusal would
/// not say what is wrong with them.
fn backing_device(call: &Call<'_>) -> Outcome<Vec<(u16, OwnedValue)>> {
    let (data, meta) = (call.argument(1), call.argument(2));
    check_block_device(data)?;
    check_block_device(meta)?;
    let index = match call.argument(3) {
        "internal" | "flex-internal" => META_INDEX_INTERNAL,
        "flexible" | "flex-external" => META_INDEX_FLEX_EXTERNAL,
        number => i32::try_from(numbers::parse(number, 1)?)
            .map_err(|_| Failure::new(20, format!("{number}: out of range")))?,
    };
    let values = [
        ("backing-dev", OwnedValue::Text(data.as_bytes().to_vec())),
        ("meta-dev", OwnedValue::Text(meta.as_bytes().to_vec())),
        ("meta-dev-idx", OwnedValue::Plain(Value::I32(index))),
    ];
    values
        .into_iter()
        .map(|(name, value)| {
            let field = DiskConf::field_named(name).filter(|field| field.allows(value.borrow()));
            let field = field.ok_or_else(|| {
                Failure::new(20, format!("{name}: {} is not allowed", value.borrow()))
            })?;
            Ok((field.number, value))
        })
        .collect()
}

fn check_block_device(path: &str) -> Outcome {
    let file = File::open(path).map_err(|error| {
        Failure::new(
            20,
            format!("Can not open device '{path}': {}", reason(&error)),
        )
    })?;
    match file.metadata() {
        Ok(status) if status.file_type().is_block_device() => Ok(()),
        _ => Err(Failure::new(20, format!("{path} is not a block device!"))),
    }
}
