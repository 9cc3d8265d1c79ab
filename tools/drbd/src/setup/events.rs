// SPDX-License-Identifier: GPL-2.0

//! `events2`: what is there, and then everything that changes (Spec §3.4 b, c).

use super::object::{properties, Key, Kind, Property, Sort};
use super::{driver_if_loaded, Call, Filter};
use crate::clock::Moment;
use crate::failure::{Failure, Outcome};
use crate::host::reason;
use crate::netlink::message::Received;
use crate::netlink::{Driver, Message, Request};
use drbd_engine::config::command::Command;
use drbd_engine::config::info::{HelperInfo, NotificationHeader, NotificationKind};
use drbd_engine::config::Field;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Options of `events2`.
pub const OPTIONS: &[Field] = &[
    Field::flag("timestamps"),
    Field::flag("statistics"),
    Field::flag("now"),
];

/// Prints the objects there are, and unless `--now` is given what happens to them from then on.
pub fn run(call: &Call<'_>) -> Outcome {
    let now_only = call.is_on("now");
    let mut listener = Listener {
        filter: call.filter(),
        statistics: call.is_on("statistics"),
        timestamps: call.is_on("timestamps"),
        known: BTreeMap::new(),
        stamp: None,
        last_sequence: None,
    };
    let mut out = io::stdout().lock();
    let Some(mut driver) = driver_if_loaded()? else {
        writeln!(out, "exists -")?;
        return Ok(());
    };
    if !now_only {
        driver.subscribe()?;
    }
    let request = driver.send(&Request::new(Command::GetInitialState))?;
    let mut complete = false;
    while let Some(received) = driver.next(None)? {
        let ours = received.sequence() == request;
        match received {
            Received::Message(message) => {
                if let Some(line) = listener.line(&message) {
                    writeln!(out, "{line}")?;
                    out.flush()?;
                }
            }
            Received::Error { error, .. } if ours => {
                let text = reason(&io::Error::from_raw_os_error(error));
                return Err(Failure::new(
                    20,
                    format!("received netlink error reply: {text}"),
                ));
            }
            Received::Done { .. } if ours => complete = true,
            _ => {}
        }
        if complete && now_only {
            return Ok(());
        }
    }
    Ok(())
}

struct Listener {
    filter: Filter,
    statistics: bool,
    timestamps: bool,
    known: BTreeMap<Key, Vec<Property>>,
    /// When the group of messages came that the next one belongs to.
    stamp: Option<Moment>,
    last_sequence: Option<u32>,
}

impl Listener {
    /// The line that tells a message, if it is to be told.
    fn line(&mut self, message: &Message) -> Option<String> {
        let header: Box<NotificationHeader> = message.settings()?;
        let kind = NotificationKind::from_header(header.kind)?;
        let stamp = self.stamp.take().unwrap_or_else(Moment::now);
        if header.kind & NotificationKind::CONTINUES != 0 {
            self.stamp = Some(stamp);
        }
        let skipped = self.count_skipped(kind, message.sequence);
        let told = self.tell(kind, message)?;
        let line = match self.timestamps {
            true => format!("{} {told}", stamp.event_stamp()),
            false => told,
        };
        Some(match skipped {
            0 => line,
            count => format!("- skipped {count}\n{line}"),
        })
    }

    /// How many notifications got lost before this one. The initial state is not counted.
    fn count_skipped(&mut self, kind: NotificationKind, sequence: u32) -> u32 {
        if kind == NotificationKind::Exists {
            return 0;
        }
        let last = self.last_sequence.replace(sequence);
        last.map_or(0, |last| sequence.wrapping_sub(last).wrapping_sub(1))
    }

    fn tell(&mut self, kind: NotificationKind, message: &Message) -> Option<String> {
        match Command::from_number(message.command)? {
            Command::InitialStateDone => return Some("exists -".to_owned()),
            Command::Helper => return self.tell_helper(kind, message),
            _ => {}
        }
        let key = Key::of(Kind::of(message)?, message);
        if !self.admits(&key) {
            return None;
        }
        let verb = match kind {
            NotificationKind::Exists => "exists",
            NotificationKind::Create => "create",
            NotificationKind::Change => "change",
            NotificationKind::Destroy => "destroy",
            NotificationKind::Call | NotificationKind::Response => return None,
        };
        let mut line = format!("{verb} {} {}", key.kind.name(), key.shown());
        if kind == NotificationKind::Destroy {
            self.known.remove(&key);
            return Some(line);
        }
        let new = properties(key.kind, message);
        let old = match kind {
            NotificationKind::Create => None,
            // An event may have told about an object before the initial state came to it.
            _ => self.known.get(&key),
        };
        for property in self.worth_telling(old, &new) {
            line.push_str(&format!(" {}:{}", property.name, property.value));
        }
        self.known.insert(key, new);
        Some(line)
    }

    fn worth_telling<'a>(
        &self,
        old: Option<&'a Vec<Property>>,
        new: &'a [Property],
    ) -> impl Iterator<Item = &'a Property> {
        let statistics = self.statistics;
        new.iter().filter(move |property| {
            let changed = old.is_none_or(|old| !old.contains(property));
            match property.sort {
                Sort::State => changed,
                Sort::Condition => statistics && changed,
                Sort::Counter => statistics,
            }
        })
    }

    fn tell_helper(&self, kind: NotificationKind, message: &Message) -> Option<String> {
        let helper: Box<HelperInfo> = message.settings()?;
        let context = message.context();
        // The object that the helper is called for: a volume on a connection, or one of the two.
        let key = Key {
            kind: match context.peer_address {
                Some(_) => Kind::PeerDevice,
                None => Kind::Device,
            },
            resource: message.resource_name(),
            volume: context.volume,
            minor: context.volume.map(|_| message.header().minor),
            peer_address: context.peer_address.map(<[u8]>::to_vec),
        };
        if !self.admits(&key) {
            return None;
        }
        let object = key.shown();
        Some(match kind {
            NotificationKind::Call => format!("call helper {object} helper:{}", helper.name),
            NotificationKind::Response => format!(
                "response helper {object} helper:{} status:{}",
                helper.name, helper.status
            ),
            _ => return None,
        })
    }

    fn admits(&self, key: &Key) -> bool {
        match (&self.filter, key.minor) {
            (Filter::Minor(wanted), Some(minor)) => *wanted == minor,
            (filter, _) => filter.admits_resource(&key.resource),
        }
    }
}

/// Dumps of one kind of objects, restricted to a resource by the driver.
pub fn dump(driver: &mut Driver, command: Command, filter: &Filter) -> Outcome<Vec<Message>> {
    let request = Request::new(command);
    driver.dump(&match filter {
        Filter::Resource(name) => request.resource(name),
        _ => request,
    })
}
