// SPDX-License-Identifier: GPL-2.0

//! What runs: the answer of `drbdsetup show`, which has the shape of a configuration file.

use crate::source::Sources;
use crate::tree::{self, Statement};

/// Options that are set, by name.
pub(crate) type Options = Vec<(String, String)>;

/// A resource as the kernel has it.
#[derive(Debug, Default)]
pub(crate) struct Running {
    /// Options of the resource.
    pub(crate) options: Options,
    /// Options of the connection.
    pub(crate) net: Options,
    /// This node's address, as drbdsetup takes it.
    pub(crate) own_address: Option<String>,
    /// The peer's address.
    pub(crate) peer_address: Option<String>,
    /// The volumes.
    pub(crate) volumes: Vec<RunningVolume>,
}

/// A volume as the kernel has it.
#[derive(Debug, Default)]
pub(crate) struct RunningVolume {
    /// Its number.
    pub(crate) number: u16,
    /// Its minor.
    pub(crate) minor: u32,
    /// The backing device, if it is attached.
    pub(crate) disk: Option<String>,
    /// Where its metadata is: `internal`, or a device, or a device and an index.
    pub(crate) meta: Vec<String>,
    /// Options of the disk.
    pub(crate) options: Options,
}

/// Reads what the answer says of one resource; `None` if there is no such resource.
pub(crate) fn parse(text: &str, name: &str) -> Option<Running> {
    let mut sources = Sources::default();
    let source = sources.add("drbdsetup show", text.to_owned());
    let statements = tree::parse(source, text).ok()?;
    let is_named = |one: &&Statement| {
        one.head.text == "resource" && one.arguments.first().is_some_and(|word| word.text == name)
    };
    let resource = statements.iter().find(is_named)?;
    let mut running = Running::default();
    for entry in resource.body.as_deref()? {
        match (entry.head.text.as_str(), entry.body.as_deref()) {
            ("options", Some(body)) => running.options = options(body),
            ("net", Some(body)) => running.net = options(body),
            ("_remote_host", Some(body)) => running.peer_address = address(body),
            ("_this_host", Some(body)) => {
                running.own_address = address(body);
                running.volumes = body.iter().filter_map(volume).collect();
            }
            _ => {}
        }
    }
    Some(running)
}

fn options(body: &[Statement]) -> Options {
    let entries = body.iter().filter(|entry| entry.body.is_none());
    entries
        .map(|entry| {
            let value = entry.arguments.first().map_or("yes", |word| &word.text);
            (entry.head.text.clone(), value.to_owned())
        })
        .collect()
}

fn address(body: &[Statement]) -> Option<String> {
    let entry = body.iter().find(|entry| entry.head.text == "address")?;
    let words: Vec<_> = entry
        .arguments
        .iter()
        .map(|word| word.text.as_str())
        .collect();
    Some(words.join(":"))
}

fn volume(entry: &Statement) -> Option<RunningVolume> {
    if entry.head.text != "volume" {
        return None;
    }
    let mut volume = RunningVolume {
        number: entry.arguments.first()?.text.parse().ok()?,
        ..RunningVolume::default()
    };
    for entry in entry.body.as_deref()? {
        let words = || entry.arguments.iter().map(|word| word.text.clone());
        match (entry.head.text.as_str(), entry.body.as_deref()) {
            ("device", None) => volume.minor = entry.arguments.last()?.text.parse().ok()?,
            ("disk", None) => volume.disk = words().next(),
            ("disk", Some(body)) => volume.options = options(body),
            ("meta-disk", None) => {
                // The index stands in brackets, which may be words of their own.
                let bare = words().map(|word| word.trim_matches(['[', ']']).to_owned());
                volume.meta = bare.filter(|word| !word.is_empty()).collect();
            }
            _ => {}
        }
    }
    Some(volume)
}
