// SPDX-License-Identifier: GPL-2.0

//! `show`: the configuration in use, in a form that `drbdadm adjust` can read.

use super::option::shown;
use super::{address, driver_if_loaded, Call, Filter};
use crate::failure::{Failure, Outcome};
use crate::netlink::{check, Message, Request};
use drbd_engine::config::command::Command;
use drbd_engine::config::context::NO_MINOR;
use drbd_engine::config::options::{META_INDEX_FIXED_INTERNAL, META_INDEX_INTERNAL};
use drbd_engine::config::{DiskConf, Field, NetConf, ResourceOptions, Settings};
use std::io::{self, Write};

/// Options of `show`.
pub const OPTIONS: &[Field] = &[Field::flag("show-defaults")];

/// The order in which disk options are shown.
const DISK_ORDER: &[u16] = &[
    4, 5, 6, 7, 16, 17, 18, 19, 8, 9, 10, 23, 24, 26, 11, 12, 13, 14, 15, 20, 21, 25,
];
/// The order in which net options are shown.
const NET_ORDER: &[u16] = &[
    28, 25, 6, 8, 15, 14, 16, 7, 9, 11, 12, 13, 24, 2, 1, 17, 18, 19, 27, 20, 10, 3, 26, 21, 22,
    23, 5, 33, 4, 29, 34,
];
const RESOURCE_ORDER: &[u16] = &[1, 2];

/// Prints the configuration of all resources, of one, or of the one that has a device.
pub fn run(call: &Call<'_>) -> Outcome {
    let defaults = call.is_on("show-defaults");
    let filter = call.filter();
    let Some(mut driver) = driver_if_loaded()? else {
        return Ok(());
    };
    let messages = match &filter {
        Filter::Minor(minor) => {
            let reply = driver.ask(&Request::about_minor(Command::GetStatus, *minor))?;
            check(&reply, call.argument(0))?;
            vec![reply]
        }
        Filter::Resource(name) => driver
            .dump(&Request::new(Command::GetStatus).as_dump().resource(name))
            .map_err(|_| Failure::new(20, format!("{name}: No such resource")))?,
        Filter::All => driver.dump(&Request::new(Command::GetStatus).as_dump())?,
    };
    let text = shown_all(&messages, defaults);
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// Messages about the volumes of a resource stand together.
fn shown_all(messages: &[Message], defaults: bool) -> String {
    let known = |message: &&Message| message.ret_code().is_success();
    let messages: Vec<_> = messages.iter().filter(known).collect();
    let same = |one: &&Message, other: &&Message| one.resource_name() == other.resource_name();
    messages
        .chunk_by(same)
        .map(|volumes| resource_text(volumes, defaults))
        .collect()
}

fn resource_text(volumes: &[&Message], defaults: bool) -> String {
    let Some(first) = volumes.first() else {
        return String::new();
    };
    let mut text = format!("resource {} {{\n", first.resource_name());
    text.push_str(&section::<ResourceOptions>(
        first,
        "options",
        4,
        RESOURCE_ORDER,
        defaults,
    ));
    text.push_str(&section::<NetConf>(first, "net", 4, NET_ORDER, defaults));
    let context = first.context();
    if let Some(peer) = context.peer_address {
        let shown = address::shown(peer);
        text.push_str(&format!(
            "    _remote_host {{\n        address\t\t\t{shown};\n    }}\n"
        ));
    }
    text.push_str("    _this_host {\n");
    if let Some(mine) = context.my_address {
        text.push_str(&format!("        address\t\t\t{};\n", address::shown(mine)));
    }
    for volume in volumes {
        text.push_str(&volume_text(volume, defaults));
    }
    text.push_str("    }\n}\n");
    text
}

fn volume_text(message: &Message, defaults: bool) -> String {
    let minor = message.header().minor;
    let (Some(volume), true) = (message.context().volume, minor != NO_MINOR) else {
        return String::new();
    };
    let mut text = format!("        volume {volume} {{\n            device\t\t\tminor {minor};\n");
    if let Some(disk) = message.settings::<DiskConf>() {
        text.push_str(&format!(
            "            disk\t\t\t\"{}\";\n",
            disk.backing_dev
        ));
        let meta = match disk.meta_dev_idx {
            META_INDEX_INTERNAL | META_INDEX_FIXED_INTERNAL => "internal".to_owned(),
            index if index < 0 => format!("\"{}\"", disk.meta_dev),
            index => format!("\"{}\" [ {index} ]", disk.meta_dev),
        };
        text.push_str(&format!("            meta-disk\t\t\t{meta};\n"));
    }
    text.push_str(&section::<DiskConf>(
        message, "disk", 12, DISK_ORDER, defaults,
    ));
    text.push_str("        }\n");
    text
}

/// A section with the options of a set that differ from their defaults, or with all of them.
fn section<S: Settings>(
    message: &Message,
    name: &str,
    indent: usize,
    order: &[u16],
    defaults: bool,
) -> String {
    let Some(attribute) = message.attributes().find(S::ATTRIBUTE) else {
        return String::new();
    };
    let margin = " ".repeat(indent);
    let mut text = format!("{margin}{name} {{\n");
    for &number in order {
        let Some(field) = S::field(number).filter(|field| !field.argument) else {
            continue;
        };
        let given = attribute.nested().find(number);
        let Some(value) = given.and_then(|given| field.decode(&given)) else {
            continue;
        };
        let is_default = S::DEFAULT.value(number) == Some(value);
        if is_default && !defaults {
            continue;
        }
        let comments: Vec<_> = [field.unit, if is_default { "default" } else { "" }]
            .into_iter()
            .filter(|comment| !comment.is_empty())
            .collect();
        let comment = match comments.as_slice() {
            [] => String::new(),
            comments => format!(" # {}", comments.join(", ")),
        };
        let value = shown(field, value);
        text.push_str(&format!(
            "{margin}    {:<16}\t{value};{comment}\n",
            field.name
        ));
    }
    text.push_str(&format!("{margin}}}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reply of a C driver to GET_STATUS: one volume, connected.
    const RECORDED: &[u8] = include_bytes!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/engine/data/netlink-status.bin"
    ));
    /// What stock drbdsetup shows of it.
    const SHOWN: &str = include_str!("../../tests/data/status.show");

    #[test]
    fn a_recorded_configuration_is_shown_as_stock_drbdsetup_shows_it() {
        let message = Message::for_test(Command::GetStatus.number(), 1, RECORDED);
        assert_eq!(shown_all(&[message], false), SHOWN);
    }

    #[test]
    fn with_defaults_every_option_is_shown() {
        let message = Message::for_test(Command::GetStatus.number(), 1, RECORDED);
        let text = shown_all(&[message], true);
        for number in NET_ORDER {
            let field = NetConf::field(*number).unwrap();
            assert_eq!(text.contains(field.name), !field.argument, "{}", field.name);
        }
        assert!(text.contains("        timeout         \t60; # 1/10 seconds, default\n"));
    }

    #[test]
    fn every_option_has_its_place_in_the_order() {
        fn missing<S: Settings>(order: &[u16]) -> Vec<&'static str> {
            let options = S::FIELDS.iter().filter(|field| !field.required);
            options
                .filter(|field| !order.contains(&field.number))
                .map(|field| field.name)
                .collect()
        }
        assert_eq!(missing::<DiskConf>(DISK_ORDER), [""; 0]);
        assert_eq!(missing::<NetConf>(NET_ORDER), [""; 0]);
        assert_eq!(missing::<ResourceOptions>(RESOURCE_ORDER), [""; 0]);
    }
}
