// SPDX-License-Identifier: GPL-2.0

//! The messages that describe objects, attribute by attribute as the C driver sends them (spec
//! §3.3, §3.4).

use super::backend::{ConnectionSnapshot, DeviceSnapshot, ResourceSnapshot};
use super::Objects;
use drbd_engine::config::attr::{Writer, FLAG_NESTED};
use drbd_engine::config::context::NO_MINOR;
use drbd_engine::config::field::Secrets;
use drbd_engine::config::info::{
    ConnectionInfo, DeviceInfo, HelperInfo, NotificationHeader, NotificationKind, PeerDeviceInfo,
    ResourceInfo, StateInfo, StateInfoReason,
};
use drbd_engine::config::{Context, RetCode, Settings, UserHeader};
use drbd_engine::state::{Aggregate, ConnState, State};
use drbd_engine::types::Minor;

/// Why a status message is sent, with what is told beside the status.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Occasion<'a> {
    /// It was asked for.
    Asked,
    /// The state changed.
    Changed {
        /// The state before.
        old: State,
        /// The state after.
        new: State,
    },
    /// A helper is about to run.
    HelperBefore {
        /// Its name.
        name: &'a [u8],
    },
    /// A helper has run.
    HelperAfter {
        /// Its name.
        name: &'a [u8],
        /// Its wait status.
        status: u32,
    },
    /// A resync made progress.
    Progress,
}

impl Occasion<'_> {
    const fn reason(self) -> StateInfoReason {
        match self {
            Self::Asked => StateInfoReason::Status,
            Self::Changed { .. } => StateInfoReason::StateChange,
            Self::HelperBefore { .. } => StateInfoReason::HelperBefore,
            Self::HelperAfter { .. } => StateInfoReason::HelperAfter,
            Self::Progress => StateInfoReason::SyncProgress,
        }
    }
}

/// Starts a message that carries no object's minor, or this one.
pub(crate) fn head(writer: &mut Writer<'_>, minor: Option<u32>, code: RetCode) {
    UserHeader::reply(minor.unwrap_or(NO_MINOR), code.0).encode(writer);
}

/// Names an object.
pub(crate) fn context<'a>(
    resource: &'a ResourceSnapshot,
    connection: Option<&'a ConnectionSnapshot>,
    device: Option<&DeviceSnapshot>,
) -> Context<'a> {
    // A connection that is not configured has no addresses.
    let is_there = |address: &&[u8]| !address.is_empty();
    Context {
        volume: device.map(|device| u32::from(device.volume.0)),
        resource_name: Some(resource.name.as_bytes()),
        my_address: connection
            .map(|connection| connection.my_address.as_bytes())
            .filter(is_there),
        peer_address: connection
            .map(|connection| connection.peer_address.as_bytes())
            .filter(is_there),
    }
}

/// The full status of the device in `objects`, from the context on.
pub(crate) fn status(
    writer: &mut Writer<'_>,
    objects: &mut Objects,
    occasion: Occasion<'_>,
    secrets: Secrets,
) {
    let device = &mut objects.device;
    device.status.reason = occasion.reason().number();
    device.status.current_state = device.state.to_word();
    let connection = objects.has_connection.then_some(&objects.connection);
    context(&objects.resource, connection, Some(device)).encode(writer);
    objects.resource.options.encode(writer, secrets);
    if device.attached {
        device.disk.encode(writer, secrets);
    }
    if let Some(connection) = connection {
        connection.net.encode(writer, secrets);
    }
    state_info(writer, device, occasion);
}

/// The status of the resource in `objects`, which has no volume.
pub(crate) fn status_without_volume(writer: &mut Writer<'_>, objects: &Objects, secrets: Secrets) {
    context(&objects.resource, objects.connection(), None).encode(writer);
    if let Some(connection) = objects.connection() {
        connection.net.encode(writer, secrets);
    }
}

fn state_info(writer: &mut Writer<'_>, device: &mut DeviceSnapshot, occasion: Occasion<'_>) {
    let nest = writer.begin(StateInfo::ATTRIBUTE, 0);
    let syncing = (ConnState::SyncSource..=ConnState::PausedSyncT).contains(&device.state.conn);
    let status = &mut device.status;
    status.encode_only(writer, StateInfo::ALWAYS);
    if device.attached {
        status.encode_only(writer, StateInfo::ATTACHED);
        if syncing {
            status.encode_only(writer, StateInfo::SYNCING);
        }
    }
    match occasion {
        Occasion::Asked | Occasion::Progress => {}
        Occasion::Changed { old, new } => {
            status.previous_state = old.to_word();
            status.new_state = new.to_word();
            status.encode_only(writer, StateInfo::CHANGE);
        }
        Occasion::HelperBefore { name } => writer.put_text(HELPER_NAME, name),
        Occasion::HelperAfter { name, status } => {
            writer.put_u32(HELPER_STATUS, status);
            writer.put_text(HELPER_NAME, name);
        }
    }
    writer.end(nest);
}

/// Numbers inside [`StateInfo`]; the name is borrowed, so it is written without passing through
/// there.
const HELPER_NAME: u16 = 13;
const HELPER_STATUS: u16 = 14;

/// The head of a notification.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    kind: NotificationKind,
    continues: bool,
}

impl Head {
    /// The only or last message of what happened.
    pub(crate) const fn last(kind: NotificationKind) -> Self {
        Self {
            kind,
            continues: false,
        }
    }

    /// The same if `left` more messages follow.
    pub(crate) const fn then(self, left: usize) -> Self {
        Self {
            continues: left > 0,
            ..self
        }
    }

    fn encode(self, writer: &mut Writer<'_>) {
        let flag = match self.continues {
            true => NotificationKind::CONTINUES,
            false => 0,
        };
        NotificationHeader {
            kind: self.kind.number() | flag,
        }
        .encode(writer, Secrets::Show);
    }
}

/// A notification about the resource in `objects`.
pub(crate) fn resource_notification(
    writer: &mut Writer<'_>,
    objects: &Objects,
    notification: Head,
    info: Option<ResourceInfo>,
) {
    head(writer, None, RetCode::NO_ERROR);
    context(&objects.resource, None, None).encode(writer);
    notification.encode(writer);
    encode_present(writer, info);
    objects.resource.statistics.encode(writer, Secrets::Show);
}

/// A notification about the connection in `objects`.
pub(crate) fn connection_notification(
    writer: &mut Writer<'_>,
    objects: &Objects,
    notification: Head,
    info: Option<ConnectionInfo>,
) {
    head(writer, None, RetCode::NO_ERROR);
    context(&objects.resource, Some(&objects.connection), None).encode(writer);
    notification.encode(writer);
    encode_present(writer, info);
    objects.connection.statistics.encode(writer, Secrets::Show);
}

/// A notification about the device in `objects`.
pub(crate) fn device_notification(
    writer: &mut Writer<'_>,
    objects: &Objects,
    notification: Head,
    info: Option<DeviceInfo>,
) {
    head(writer, Some(objects.device.minor.0), RetCode::NO_ERROR);
    context(&objects.resource, None, Some(&objects.device)).encode(writer);
    notification.encode(writer);
    encode_present(writer, info);
    objects.device.statistics.encode(writer, Secrets::Show);
}

/// A notification about the volume on the peer of the device in `objects`.
pub(crate) fn peer_device_notification(
    writer: &mut Writer<'_>,
    objects: &Objects,
    notification: Head,
    info: Option<PeerDeviceInfo>,
) {
    head(writer, None, RetCode::NO_ERROR);
    context(
        &objects.resource,
        Some(&objects.connection),
        Some(&objects.device),
    )
    .encode(writer);
    notification.encode(writer);
    encode_present(writer, info);
    objects.device.peer_statistics.encode(writer, Secrets::Show);
}

/// A notification about a helper for the device (with a minor) or the resource in `objects`.
pub(crate) fn helper_notification(
    writer: &mut Writer<'_>,
    objects: &Objects,
    minor: Option<Minor>,
    name: &[u8],
    status: Option<u32>,
) {
    head(writer, minor.map(|minor| minor.0), RetCode::NO_ERROR);
    let device = minor.map(|_| &objects.device);
    context(&objects.resource, objects.connection(), device).encode(writer);
    let kind = match status {
        None => NotificationKind::Call,
        Some(_) => NotificationKind::Response,
    };
    Head::last(kind).encode(writer);
    let nest = writer.begin(HelperInfo::ATTRIBUTE, FLAG_NESTED);
    writer.put_text(1, name);
    writer.put_u32(2, status.unwrap_or(0));
    writer.end(nest);
}

/// The end of what GET_INITIAL_STATE lists.
pub(crate) fn initial_state_done(writer: &mut Writer<'_>) {
    head(writer, None, RetCode::NO_ERROR);
    Head::last(NotificationKind::Exists).encode(writer);
}

fn encode_present<S: Settings>(writer: &mut Writer<'_>, settings: Option<S>) {
    if let Some(settings) = settings {
        settings.encode(writer, Secrets::Show);
    }
}

/// The state of a resource as the states of its volumes add up to it.
pub(crate) fn resource_info(volumes: impl Iterator<Item = State>) -> ResourceInfo {
    let empty = ResourceInfo {
        role: u32::from(Aggregate::EMPTY.highest_role.bits()),
        ..ResourceInfo::DEFAULT
    };
    let fold = |(aggregate, info): (Aggregate, ResourceInfo), state: State| {
        let aggregate = aggregate.with(state);
        let info = ResourceInfo {
            role: u32::from(aggregate.highest_role.bits()),
            suspended: info.suspended | state.susp,
            suspended_no_data: info.suspended_no_data | state.susp_nod,
            suspended_fencing: info.suspended_fencing | state.susp_fen,
        };
        (aggregate, info)
    };
    volumes.fold((Aggregate::EMPTY, empty), fold).1
}

/// The state of a connection as the states of its volumes add up to it.
pub(crate) fn connection_info(
    connection_state: ConnState,
    volumes: impl Iterator<Item = State>,
) -> ConnectionInfo {
    ConnectionInfo {
        connection_state: u32::from(connection_state.bits()),
        role: u32::from(Aggregate::of(volumes).highest_peer.bits()),
    }
}

/// The state of a device.
pub(crate) fn device_info(state: State) -> DeviceInfo {
    DeviceInfo {
        disk_state: u32::from(state.disk.bits()),
    }
}

/// The state of a volume on the peer.
pub(crate) fn peer_device_info(state: State) -> PeerDeviceInfo {
    PeerDeviceInfo {
        replication_state: u32::from(state.conn.max(ConnState::WFReportParams).bits()),
        disk_state: u32::from(state.pdsk.bits()),
        resync_suspended_user: u32::from(state.user_isp),
        resync_suspended_peer: u32::from(state.peer_isp),
        resync_suspended_dependency: u32::from(state.aftr_isp),
    }
}
