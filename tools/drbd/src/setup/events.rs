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

#[cfg(test)]
mod tests {
    use super::*;
    use drbd_engine::config::attr::Writer;
    use drbd_engine::config::context::NO_MINOR;
    use drbd_engine::config::field::Secrets;
    use drbd_engine::config::info::ConnectionInfo;
    use drbd_engine::config::{Context, Settings, UserHeader};

    /// What a C driver sent to GET_INITIAL_STATE: messages with their length in front.
    const RECORDED: &[u8] = include_bytes!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/engine/data/netlink-initial-state.bin"
    ));

    fn recorded() -> Vec<Message> {
        let mut rest = RECORDED;
        let mut messages = Vec::new();
        while let Some((length, tail)) = rest.split_first_chunk() {
            let (message, tail) = tail.split_at(u32::from_le_bytes(*length) as usize);
            messages.push(Message::for_test(message[0], 0, &message[4..]));
            rest = tail;
        }
        messages
    }

    fn listener(statistics: bool) -> Listener {
        Listener {
            filter: Filter::All,
            statistics,
            timestamps: false,
            known: BTreeMap::new(),
            stamp: None,
            last_sequence: None,
        }
    }

    fn connection_change(sequence: u32, state: u32) -> Message {
        let mut buffer = [0; 256];
        let mut writer = Writer::new(&mut buffer);
        UserHeader::reply(NO_MINOR, 101).encode(&mut writer);
        let context = Context {
            resource_name: Some(b"r0"),
            peer_address: Some(&[2; 16]),
            ..Context::default()
        };
        context.encode(&mut writer);
        let kind = NotificationKind::Change.number();
        NotificationHeader { kind }.encode(&mut writer, Secrets::Blank);
        let info = ConnectionInfo {
            connection_state: state,
            role: 2,
        };
        info.encode(&mut writer, Secrets::Blank);
        let command = Command::ConnectionState.number();
        Message::for_test(command, sequence, writer.finish().unwrap())
    }

    #[test]
    fn the_recorded_initial_state_is_told_as_stock_drbdsetup_tells_it() {
        let mut listener = listener(false);
        let lines = recorded()
            .iter()
            .filter_map(|message| listener.line(message))
            .collect::<Vec<_>>();
        assert_eq!(
            lines,
            [
                "exists resource name:r0 role:Secondary suspended:no",
                "exists connection name:r0 peer-node-id:0 conn-name:peer \
                 connection:Connected role:Secondary",
                "exists device name:r0 volume:0 minor:2 disk:UpToDate",
                "exists peer-device name:r0 peer-node-id:0 conn-name:peer volume:0 \
                 replication:Established peer-disk:UpToDate resync-suspended:no",
                "exists -",
            ]
        );
    }

    #[test]
    fn a_change_tells_what_changed_and_nothing_else() {
        let mut listener = listener(true);
        let object = "change connection name:r0 peer-node-id:0 conn-name:peer";
        let mut line =
            |sequence, state| listener.line(&connection_change(sequence, state)).unwrap();
        let first = line(1, 8);
        assert_eq!(
            first,
            format!("{object} connection:Connecting role:Secondary congested:no")
        );
        assert_eq!(line(2, 2), format!("{object} connection:Unconnected"));
        assert_eq!(line(3, 2), object);
    }

    #[test]
    fn lost_notifications_are_counted() {
        let mut listener = listener(false);
        listener.line(&connection_change(u32::MAX, 8)).unwrap();
        let line = listener.line(&connection_change(3, 8)).unwrap();
        assert!(line.starts_with("- skipped 3\n"), "{line}");
    }

    #[test]
    fn other_resources_are_not_told_about() {
        let mut listener = Listener {
            filter: Filter::Resource("r1".to_owned()),
            ..listener(false)
        };
        assert_eq!(listener.line(&connection_change(1, 8)), None);
    }

    #[test]
    fn one_change_of_several_objects_has_one_time_stamp() {
        let mut listener = Listener {
            timestamps: true,
            ..listener(false)
        };
        let lines = recorded()
            .iter()
            .filter_map(|message| listener.line(message))
            .collect::<Vec<_>>();
        let stamps: Vec<_> = lines.iter().map(|line| line.split(' ').next()).collect();
        assert!(
            stamps[..4].iter().all(|stamp| *stamp == stamps[0]),
            "{lines:?}"
        );
    }
}
