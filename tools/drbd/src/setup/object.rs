// SPDX-License-Identifier: GPL-2.0

//! The driver's objects as dumps and notifications describe them, and their properties in words.

use crate::netlink::Message;
use drbd_engine::config::command::Command;
use drbd_engine::config::info::{
    ConnectionInfo, ConnectionStatistics, DeviceInfo, DeviceStatistics, PeerDeviceInfo,
    PeerDeviceStatistics, ResourceInfo, ResourceStatistics,
};
use drbd_engine::config::Settings;
use drbd_engine::state::{ConnState, DiskState, Role};

/// What identifies an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// What it is.
    pub kind: Kind,
    /// The resource.
    pub resource: String,
    /// The volume, of devices and peer devices.
    pub volume: Option<u32>,
    /// The minor, of devices.
    pub minor: Option<u32>,
    /// The peer's address, of connections and peer devices that are configured.
    pub peer_address: Option<Vec<u8>>,
}

/// The kinds of objects, in the order in which they are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A resource.
    Resource,
    /// A connection.
    Connection,
    /// A device.
    Device,
    /// A volume on the peer.
    PeerDevice,
}

impl Kind {
    /// The kind that a message is about; dumps and notifications have commands of their own.
    pub fn of(message: &Message) -> Option<Self> {
        match Command::from_number(message.command)? {
            Command::GetResources | Command::ResourceState => Some(Self::Resource),
            Command::GetConnections | Command::ConnectionState => Some(Self::Connection),
            Command::GetDevices | Command::DeviceState => Some(Self::Device),
            Command::GetPeerDevices | Command::PeerDeviceState => Some(Self::PeerDevice),
            _ => None,
        }
    }

    /// Its name in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resource => "resource",
            Self::Connection => "connection",
            Self::Device => "device",
            Self::PeerDevice => "peer-device",
        }
    }
}

impl Key {
    /// The object that a message is about.
    pub fn of(kind: Kind, message: &Message) -> Self {
        let context = message.context();
        let has_volume = matches!(kind, Kind::Device | Kind::PeerDevice);
        let has_peer = matches!(kind, Kind::Connection | Kind::PeerDevice);
        Self {
            kind,
            resource: message.resource_name(),
            volume: context.volume.filter(|_| has_volume),
            minor: (kind == Kind::Device).then(|| message.header().minor),
            peer_address: context
                .peer_address
                .filter(|_| has_peer)
                .map(<[u8]>::to_vec),
        }
    }

    /// How events name the object. A connection without a configuration has no name.
    pub fn shown(&self) -> String {
        let mut text = format!("name:{}", self.resource);
        if matches!(self.kind, Kind::Connection | Kind::PeerDevice) {
            text.push_str(" peer-node-id:0");
            if self.peer_address.is_some() {
                text.push_str(" conn-name:peer");
            }
        }
        if let Some(volume) = self.volume {
            text.push_str(&format!(" volume:{volume}"));
        }
        if let Some(minor) = self.minor {
            text.push_str(&format!(" minor:{minor}"));
        }
        text
    }
}

/// A property of an object in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// How it behaves.
    pub sort: Sort,
}

/// How a property behaves in events and in status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// A state: events tell it when it changed.
    State,
    /// A condition among the statistics: events tell it when it changed.
    Condition,
    /// A counter: events that tell statistics tell it each time.
    Counter,
}

/// The states and statistics of an object.
pub fn properties(kind: Kind, message: &Message) -> Vec<Property> {
    match kind {
        Kind::Resource => resource(message),
        Kind::Connection => connection(message),
        Kind::Device => device(message),
        Kind::PeerDevice => peer_device(message),
    }
}

fn get<S: Settings>(message: &Message) -> Box<S> {
    message.settings().unwrap_or_else(|| Box::new(S::DEFAULT))
}

fn property(sort: Sort, name: &'static str, value: impl ToString) -> Property {
    Property {
        name,
        value: value.to_string(),
        sort,
    }
}

fn resource(message: &Message) -> Vec<Property> {
    let info: Box<ResourceInfo> = get(message);
    let statistics: Box<ResourceStatistics> = get(message);
    vec![
        property(Sort::State, "role", role(info.role)),
        property(Sort::State, "suspended", suspended(&info)),
        property(
            Sort::Condition,
            "write-ordering",
            write_ordering(statistics.write_ordering),
        ),
    ]
}

fn connection(message: &Message) -> Vec<Property> {
    let info: Box<ConnectionInfo> = get(message);
    let statistics: Box<ConnectionStatistics> = get(message);
    let state = conn(info.connection_state).map_or("?", ConnState::connection_name);
    vec![
        property(Sort::State, "connection", state),
        property(Sort::State, "role", role(info.role)),
        property(Sort::Condition, "congested", yes_no(statistics.congested)),
    ]
}

fn device(message: &Message) -> Vec<Property> {
    let info: Box<DeviceInfo> = get(message);
    let statistics: Box<DeviceStatistics> = get(message);
    let counter = |name, value: u64| property(Sort::Counter, name, value);
    let blocked = match (statistics.upper_blocked, statistics.lower_blocked) {
        (true, true) => "upper,lower",
        (true, false) => "upper",
        (false, true) => "lower",
        (false, false) => "no",
    };
    vec![
        property(Sort::State, "disk", disk(info.disk_state)),
        counter("size", statistics.size / 2),
        counter("read", statistics.read / 2),
        counter("written", statistics.written / 2),
        counter("al-writes", statistics.activity_log_writes),
        counter("bm-writes", statistics.bitmap_writes),
        counter("upper-pending", statistics.upper_pending.into()),
        counter("lower-pending", statistics.lower_pending.into()),
        property(
            Sort::Condition,
            "al-suspended",
            yes_no(statistics.activity_log_suspended),
        ),
        property(Sort::Condition, "blocked", blocked),
    ]
}

fn peer_device(message: &Message) -> Vec<Property> {
    let info: Box<PeerDeviceInfo> = get(message);
    let statistics: Box<PeerDeviceStatistics> = get(message);
    let counter = |name, value: u64| property(Sort::Counter, name, value);
    let state = conn(info.replication_state).map_or("?", ConnState::replication_name);
    vec![
        property(Sort::State, "replication", state),
        property(Sort::State, "peer-disk", disk(info.disk_state)),
        property(Sort::State, "resync-suspended", resync_suspended(&info)),
        counter("received", statistics.received / 2),
        counter("sent", statistics.sent / 2),
        counter("out-of-sync", statistics.out_of_sync / 2),
        counter("pending", statistics.pending.into()),
        counter("unacked", statistics.unacked.into()),
    ]
}

/// The connection state with this number.
pub fn conn(number: u32) -> Option<ConnState> {
    ConnState::from_bits(u8::try_from(number).ok()?)
}

/// The name of a disk state's number.
pub fn disk(number: u32) -> &'static str {
    u8::try_from(number)
        .ok()
        .and_then(DiskState::from_bits)
        .map_or("?", DiskState::name)
}

/// The name of a role's number.
pub fn role(number: u32) -> &'static str {
    u8::try_from(number)
        .ok()
        .and_then(Role::from_bits)
        .map_or("?", Role::name)
}

fn suspended(info: &ResourceInfo) -> String {
    list(&[
        (info.suspended, "user"),
        (info.suspended_no_data, "no-data"),
        (info.suspended_fencing, "fencing"),
    ])
}

fn resync_suspended(info: &PeerDeviceInfo) -> String {
    list(&[
        (info.resync_suspended_user != 0, "user"),
        (info.resync_suspended_peer != 0, "peer"),
        (info.resync_suspended_dependency != 0, "dependency"),
    ])
}

/// The reasons that hold, or `no`.
fn list(reasons: &[(bool, &str)]) -> String {
    let holding = reasons.iter().filter(|(holds, _)| *holds);
    let names: Vec<_> = holding.map(|(_, name)| *name).collect();
    if names.is_empty() {
        "no".to_owned()
    } else {
        names.join(",")
    }
}

fn write_ordering(number: u32) -> &'static str {
    match number {
        0 => "none",
        1 => "drain",
        2 => "flush",
        _ => "barrier",
    }
}

fn yes_no(yes: bool) -> &'static str {
    if yes {
        "yes"
    } else {
        "no"
    }
}
