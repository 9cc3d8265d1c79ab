// SPDX-License-Identifier: GPL-2.0

//! Dumps: a stream of messages about all objects, or those of one resource (spec §3.2, §3.4).
//!
//! A dump holds nothing between two messages but a cursor: the number of the resource and of the
//! volume it has come to. Objects that come or go meanwhile are listed or not.

use super::backend::{volumes, Backend, ConnectionSnapshot, ResourceId};
use super::command::secrets_for;
use super::event::Events;
use super::message::{self, Head, Occasion};
use super::request::{Parsed, Request, Unanswerable};
use super::{Control, Objects, Scratch};
use drbd_engine::config::attr::Writer;
use drbd_engine::config::command::{Command, Usage};
use drbd_engine::config::field::Secrets;
use drbd_engine::config::info::NotificationKind;
use drbd_engine::config::{RetCode, Settings};
use drbd_engine::types::Minor;

/// Where a dump stands; zero at its start.
pub(crate) type Cursor = [u64; 6];

/// A message of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DumpMessage {
    /// Its command number.
    pub(crate) command: Command,
    /// Whether it is addressed as part of a dump; the initial state is not.
    pub(crate) addressed: bool,
}

/// What a dump lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Resource,
    Connection,
    Device(Minor),
    PeerDevice(Minor),
    /// Stands for a resource without volumes, where volumes are listed.
    NoVolume,
}

/// Which kinds of items a dump lists, in this order.
const STATUS: &[Kind] = &[Kind::DeviceOrNone];
const RESOURCES: &[Kind] = &[Kind::Resource];
const DEVICES: &[Kind] = &[Kind::Device];
const CONNECTIONS: &[Kind] = &[Kind::Connection];
const PEER_DEVICES: &[Kind] = &[Kind::PeerDevice];
const EVERYTHING: &[Kind] = &[
    Kind::Resource,
    Kind::AnyConnection,
    Kind::Device,
    Kind::AnyPeerDevice,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Resource,
    Connection,
    /// Also one that is not configured.
    AnyConnection,
    Device,
    DeviceOrNone,
    PeerDevice,
    /// Also where the connection is not configured.
    AnyPeerDevice,
}

/// The cursor's meaning.
#[derive(Clone, Copy, Debug)]
struct Position {
    /// The resource at hand; 0 before the first.
    resource: ResourceId,
    /// The kind of items at hand, an index into the list.
    kind: usize,
    /// The first volume that was not listed yet.
    volume: u32,
    /// The dump is of one resource only.
    single: bool,
    /// There are no more resources.
    ended: bool,
    /// The message that ends the initial state is written.
    closed: bool,
}

impl<B: Backend, E: Events> Control<B, E> {
    /// Writes the next message of a dump and moves the cursor on; `None` at the end.
    pub(crate) fn dump(
        &self,
        request: &Request<'_>,
        cursor: &mut Cursor,
        scratch: &mut Scratch,
        out: &mut Writer<'_>,
    ) -> Result<Option<DumpMessage>, Unanswerable> {
        let parsed = Parsed::new(request)?;
        if !matches!(parsed.command.usage(), Usage::Dump | Usage::DoOrDump) {
            return Err(Unanswerable::UnknownCommand);
        }
        let mut position = Position::read(cursor);
        if position.resource == ResourceId::default() && !position.ended {
            match self.start(&parsed, &mut position) {
                Ok(()) => {}
                Err(RetCode::RESOURCE_NOT_KNOWN) if parsed.command == Command::GetStatus => {
                    return Err(Unanswerable::NoSuchObject);
                }
                Err(code) => {
                    message::head(out, None, code);
                    position.ended = true;
                    position.write(cursor);
                    return Ok(Some(DumpMessage {
                        command: parsed.command,
                        addressed: true,
                    }));
                }
            }
        }
        let message = self.next(request, parsed.command, &mut position, scratch, out);
        position.write(cursor);
        out.finish()
            .map(|_| message)
            .map_err(|_| Unanswerable::TooLarge)
    }

    /// Goes to the resource that the request names, or to the first one.
    fn start(&self, parsed: &Parsed<'_>, position: &mut Position) -> Result<(), RetCode> {
        let named = match parsed.command {
            Command::GetResources | Command::GetInitialState => None,
            _ => parsed.context.resource_name,
        };
        match named {
            Some(name) => {
                position.single = true;
                position.resource = self
                    .backend
                    .resource(name)
                    .ok_or(RetCode::RESOURCE_NOT_KNOWN)?;
            }
            None => position.next_resource(&self.backend),
        }
        Ok(())
    }

    fn next(
        &self,
        request: &Request<'_>,
        command: Command,
        position: &mut Position,
        scratch: &mut Scratch,
        out: &mut Writer<'_>,
    ) -> Option<DumpMessage> {
        let kinds = kinds(command);
        while !position.ended {
            let Some(item) = position.next_item(&self.backend, kinds) else {
                position.next_resource(&self.backend);
                continue;
            };
            let objects = &mut scratch.objects;
            let lists_all = command == Command::GetInitialState;
            if !self.describe(position.resource, item, lists_all, objects) {
                continue;
            }
            if command == Command::GetInitialState {
                let more = (*position).next_item_of_copy(&self.backend, kinds);
                return Some(self.write_initial(position.resource, item, more, objects, out));
            }
            self.write(
                command,
                position.resource,
                item,
                objects,
                secrets_for(request),
                out,
            );
            return Some(DumpMessage {
                command,
                addressed: true,
            });
        }
        if command != Command::GetInitialState || position.closed {
            return None;
        }
        position.closed = true;
        message::initial_state_done(out);
        Some(DumpMessage {
            command: Command::InitialStateDone,
            addressed: false,
        })
    }

    /// Describes an item; false if it is gone, or has no configured connection although it needs
    /// one, which it does not if the dump `lists_all`.
    fn describe(
        &self,
        resource: ResourceId,
        item: Item,
        lists_all: bool,
        objects: &mut Objects,
    ) -> bool {
        let backend = &self.backend;
        let found = match item {
            Item::Resource | Item::NoVolume => objects.describe_resource(backend, resource),
            Item::Connection => objects.describe_resource(backend, resource),
            Item::Device(minor) | Item::PeerDevice(minor) => {
                objects.describe_device(backend, minor)
            }
        };
        let needs_connection = matches!(item, Item::Connection | Item::PeerDevice(_));
        if !found || !needs_connection || objects.has_connection {
            return found;
        }
        // StandAlone, and nothing is known of a peer.
        objects.connection.clone_from(&ConnectionSnapshot::EMPTY);
        lists_all
    }

    fn resource_info(&self, resource: ResourceId) -> drbd_engine::config::info::ResourceInfo {
        message::resource_info(volumes(&self.backend, resource).map(|(_, device)| device.state))
    }

    /// Writes an item as the reply to a list command.
    fn write(
        &self,
        command: Command,
        resource: ResourceId,
        item: Item,
        objects: &mut Objects,
        secrets: Secrets,
        out: &mut Writer<'_>,
    ) {
        let minor = match item {
            Item::Device(minor) | Item::PeerDevice(minor) => Some(minor.0),
            _ => None,
        };
        message::head(out, minor, RetCode::NO_ERROR);
        if command == Command::GetStatus {
            return match item {
                Item::NoVolume => message::status_without_volume(out, objects, secrets),
                _ => message::status(out, objects, Occasion::Asked, secrets),
            };
        }
        let (names_connection, names_device) = match item {
            Item::Resource | Item::NoVolume => (false, false),
            Item::Connection => (true, false),
            Item::Device(_) => (false, true),
            Item::PeerDevice(_) => (true, true),
        };
        let Objects {
            resource: snapshot,
            connection,
            device,
            ..
        } = objects;
        let connection_name = names_connection.then_some(&*connection);
        let device_name = names_device.then_some(&*device);
        message::context(snapshot, connection_name, device_name).encode(out);
        match item {
            Item::Resource | Item::NoVolume => {
                snapshot.options.encode(out, secrets);
                self.resource_info(resource).encode(out, secrets);
                snapshot.statistics.encode(out, secrets);
            }
            Item::Connection => {
                connection.net.encode(out, secrets);
                connection.info.encode(out, secrets);
                connection.statistics.encode(out, secrets);
            }
            Item::Device(_) => {
                if device.attached {
                    device.disk.encode(out, secrets);
                }
                message::device_info(device.state).encode(out, secrets);
                device.statistics.encode(out, secrets);
            }
            Item::PeerDevice(_) => {
                message::peer_device_info(device.state).encode(out, secrets);
                device.peer_statistics.encode(out, secrets);
            }
        }
    }

    /// Writes an item as a notification that it exists.
    fn write_initial(
        &self,
        resource: ResourceId,
        item: Item,
        more: bool,
        objects: &Objects,
        out: &mut Writer<'_>,
    ) -> DumpMessage {
        let head = Head::last(NotificationKind::Exists).then(usize::from(more));
        let state = objects.device.state;
        let command = match item {
            Item::Resource | Item::NoVolume => {
                let info = self.resource_info(resource);
                message::resource_notification(out, objects, head, Some(info));
                Command::ResourceState
            }
            Item::Connection => {
                let info = objects.connection.info;
                message::connection_notification(out, objects, head, Some(info));
                Command::ConnectionState
            }
            Item::Device(_) => {
                message::device_notification(out, objects, head, Some(message::device_info(state)));
                Command::DeviceState
            }
            Item::PeerDevice(_) => {
                let info = message::peer_device_info(state);
                message::peer_device_notification(out, objects, head, Some(info));
                Command::PeerDeviceState
            }
        };
        DumpMessage {
            command,
            addressed: false,
        }
    }
}

/// What the command lists.
fn kinds(command: Command) -> &'static [Kind] {
    match command {
        Command::GetStatus => STATUS,
        Command::GetResources => RESOURCES,
        Command::GetDevices => DEVICES,
        Command::GetConnections => CONNECTIONS,
        Command::GetPeerDevices => PEER_DEVICES,
        Command::GetInitialState => EVERYTHING,
        _ => &[],
    }
}

impl Position {
    /// Reads a cursor; anything that was never written is taken as the end.
    fn read(cursor: &Cursor) -> Self {
        let [resource, kind, volume, single, ended, closed] = *cursor;
        Self {
            resource: ResourceId(resource),
            kind: usize::try_from(kind).unwrap_or(usize::MAX),
            volume: u32::try_from(volume).unwrap_or(u32::MAX),
            single: single != 0,
            ended: ended != 0,
            closed: closed != 0,
        }
    }

    fn write(self, cursor: &mut Cursor) {
        *cursor = [
            self.resource.0,
            u64::try_from(self.kind).unwrap_or(u64::MAX),
            u64::from(self.volume),
            u64::from(self.single),
            u64::from(self.ended),
            u64::from(self.closed),
        ];
    }

    fn next_resource<B: Backend>(&mut self, backend: &B) {
        let next = match self.single {
            true => None,
            false => backend.next_resource(self.resource),
        };
        match next {
            Some(resource) => {
                *self = Self {
                    resource,
                    kind: 0,
                    volume: 0,
                    ..*self
                }
            }
            None => self.ended = true,
        }
    }

    /// The next item of this resource.
    fn next_item<B: Backend>(&mut self, backend: &B, kinds: &[Kind]) -> Option<Item> {
        while let Some(kind) = kinds.get(self.kind) {
            let item = match kind {
                Kind::Resource => self.once(Item::Resource),
                Kind::Connection => match self.has_connection(backend) {
                    true => self.once(Item::Connection),
                    false => None,
                },
                Kind::AnyConnection => self.once(Item::Connection),
                Kind::AnyPeerDevice => self.next_volume(backend).map(Item::PeerDevice),
                Kind::Device => self.next_volume(backend).map(Item::Device),
                Kind::DeviceOrNone => self.next_device_or_none(backend),
                Kind::PeerDevice => match self.has_connection(backend) {
                    true => self.next_volume(backend).map(Item::PeerDevice),
                    false => None,
                },
            };
            if item.is_some() {
                return item;
            }
            self.kind = self.kind.saturating_add(1);
            self.volume = 0;
        }
        None
    }

    /// Whether this resource has another item.
    fn next_item_of_copy<B: Backend>(mut self, backend: &B, kinds: &[Kind]) -> bool {
        self.next_item(backend, kinds).is_some()
    }

    /// An item that a resource has once.
    fn once(&mut self, item: Item) -> Option<Item> {
        let first = self.volume == 0;
        self.volume = 1;
        first.then_some(item)
    }

    fn has_connection<B: Backend>(&self, backend: &B) -> bool {
        backend
            .summary(self.resource)
            .is_some_and(|resource| resource.has_net)
    }

    fn next_volume<B: Backend>(&mut self, backend: &B) -> Option<Minor> {
        let (volume, minor) = backend.next_volume(self.resource, self.volume)?;
        self.volume = u32::from(volume.0).saturating_add(1);
        Some(minor)
    }

    fn next_device_or_none<B: Backend>(&mut self, backend: &B) -> Option<Item> {
        let before = self.volume;
        match self.next_volume(backend) {
            Some(minor) => Some(Item::Device(minor)),
            None if before == 0 && backend.summary(self.resource).is_some() => {
                self.volume = u32::MAX;
                Some(Item::NoVolume)
            }
            None => None,
        }
    }
}
