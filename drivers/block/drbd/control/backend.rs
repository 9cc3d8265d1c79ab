// SPDX-License-Identifier: GPL-2.0

//! What control asks of the data path: the objects that exist, their status, and the commands.
//!
//! Control reads a request, finds its objects, checks what can be checked without the state machine
//! and calls [`Backend`]; the shell (`io/`) implements it. Every call may sleep, and calls run
//! concurrently: the family has no lock of its own, so that a `primary` that waits for a fencing
//! handler does not keep that handler from asking for the status. Therefore
//!
//! * the backend serialises the commands of one resource itself,
//! * creation and removal are atomic in the backend; an object that vanished since control saw it
//!   is answered with the return code for an unknown one,
//! * control's own checks of existing objects serve better texts, they are not relied upon.
//!
//! A command that is not built keeps its default body, which answers [`RetCode::PACKET_NUMBER`] and
//! says so.

use core::fmt::{self, Write};
use drbd_engine::config::info::{
    ConnectionInfo, ConnectionStatistics, DeviceStatistics, PeerDeviceStatistics,
    ResourceStatistics, StateInfo,
};
use drbd_engine::config::text::{Bytes, Text};
use drbd_engine::config::{
    context::{ADDRESS_SIZE_MAX, RESOURCE_NAME_LENGTH_MAX},
    DiskConf, NetConf, ResourceOptions, RetCode, Settings,
};
use drbd_engine::state::{ConnState, State};
use drbd_engine::types::{Minor, VolumeNr};

/// A resource as long as the module is loaded: numbers are given in the order of creation, from 1
/// on, and never again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ResourceId(pub(crate) u64);

/// Name of a resource.
pub(crate) type ResourceName = Text<RESOURCE_NAME_LENGTH_MAX>;

/// What control must know of a device to check a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceSummary {
    /// The resource it belongs to.
    pub(crate) resource: ResourceId,
    /// Its volume number there.
    pub(crate) volume: VolumeNr,
    /// Its state.
    pub(crate) state: State,
    /// Whether a backing device is attached or being attached.
    pub(crate) has_disk: bool,
}

/// What control must know of a resource to check a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResourceSummary {
    /// The state of its connection, never above `WFReportParams`.
    pub(crate) connection_state: ConnState,
    /// Whether it has net options, which is from CONNECT until StandAlone.
    pub(crate) has_net: bool,
    /// Protocol version agreed with the peer; of use while connected only.
    pub(crate) agreed_protocol: u32,
    /// Whether any of its volumes resyncs, as target or as source.
    pub(crate) resync_runs: bool,
    /// Whether any of its volumes verifies.
    pub(crate) verify_runs: bool,
    /// Whether any volume here is Primary.
    pub(crate) is_primary: bool,
    /// Whether any volume is Primary on the peer.
    pub(crate) peer_is_primary: bool,
    /// Whether any volume has the fencing policy resource-and-stonith.
    pub(crate) fences_with_stonith: bool,
}

/// A resource for status reports.
#[derive(Clone, Debug)]
pub(crate) struct ResourceSnapshot {
    /// Its name.
    pub(crate) name: ResourceName,
    /// Its options.
    pub(crate) options: ResourceOptions,
    /// Its statistics.
    pub(crate) statistics: ResourceStatistics,
}

impl ResourceSnapshot {
    /// Nothing known yet.
    pub(crate) const EMPTY: Self = Self {
        name: Text::EMPTY,
        options: ResourceOptions::DEFAULT,
        statistics: ResourceStatistics::DEFAULT,
    };
}

/// A connection for status reports.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionSnapshot {
    /// This node's address as CONNECT gave it.
    pub(crate) my_address: Bytes<ADDRESS_SIZE_MAX>,
    /// The peer's address as CONNECT gave it.
    pub(crate) peer_address: Bytes<ADDRESS_SIZE_MAX>,
    /// Its options.
    pub(crate) net: NetConf,
    /// Connection state and the highest role of the peer over all volumes.
    pub(crate) info: ConnectionInfo,
    /// Its statistics.
    pub(crate) statistics: ConnectionStatistics,
}

impl ConnectionSnapshot {
    /// Nothing known yet.
    pub(crate) const EMPTY: Self = Self {
        my_address: Bytes::EMPTY,
        peer_address: Bytes::EMPTY,
        net: NetConf::DEFAULT,
        info: ConnectionInfo::DEFAULT,
        statistics: ConnectionStatistics::DEFAULT,
    };
}

/// A device, and the volume on the peer, for status reports.
#[derive(Clone, Debug)]
pub(crate) struct DeviceSnapshot {
    /// Its minor number.
    pub(crate) minor: Minor,
    /// Its volume number.
    pub(crate) volume: VolumeNr,
    /// Its state.
    pub(crate) state: State,
    /// Whether a backing device is attached; `disk` and the attributes of an attached disk count
    /// then.
    pub(crate) attached: bool,
    /// The disk options.
    pub(crate) disk: DiskConf,
    /// For GET_STATUS and EVENT. Control fills in `reason`, the states and the helper.
    pub(crate) status: StateInfo,
    /// Statistics of the device.
    pub(crate) statistics: DeviceStatistics,
    /// Statistics of the volume on the peer.
    pub(crate) peer_statistics: PeerDeviceStatistics,
}

impl DeviceSnapshot {
    /// Nothing known yet.
    pub(crate) const EMPTY: Self = Self {
        minor: Minor(0),
        volume: VolumeNr(0),
        state: State::NEW,
        attached: false,
        disk: DiskConf::DEFAULT,
        status: StateInfo::DEFAULT,
        statistics: DeviceStatistics::DEFAULT,
        peer_statistics: PeerDeviceStatistics::DEFAULT,
    };
}

/// What RESIZE wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResizeRequest {
    /// The new size in sectors; 0 for as large as possible.
    pub(crate) size: u64,
    /// Go on without the peer's consent.
    pub(crate) force: bool,
    /// Do not resync the new space.
    pub(crate) no_resync: bool,
    /// New number of stripes of the activity log on disk; `None` keeps it.
    pub(crate) al_stripes: Option<u32>,
    /// New size of such a stripe in KiB; `None` keeps it.
    pub(crate) al_stripe_size_kib: Option<u32>,
}

/// Text for the admin beside a return code: which object, what was wrong, what to do.
///
/// What does not fit is cut off. Several lines are fine.
#[derive(Debug)]
pub(crate) struct InfoText {
    bytes: [u8; Self::CAPACITY],
    used: usize,
}

impl InfoText {
    /// Most bytes of a text.
    pub(crate) const CAPACITY: usize = 512;
    /// No text.
    pub(crate) const EMPTY: Self = Self {
        bytes: [0; Self::CAPACITY],
        used: 0,
    };

    /// The text so far.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    /// Forgets the text.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
    }

    /// Appends a text and passes the return code through: `return info.say(CODE, format_args!(…))`.
    pub(crate) fn say(&mut self, code: RetCode, text: fmt::Arguments<'_>) -> RetCode {
        // Writing does not fail, it cuts off.
        let _ = self.write_fmt(text);
        code
    }
}

impl Write for InfoText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = self.bytes.get_mut(self.used..).unwrap_or_default();
        for (to, from) in free.iter_mut().zip(text.as_bytes()) {
            *to = *from;
        }
        self.used = self.used.saturating_add(text.len()).min(Self::CAPACITY);
        Ok(())
    }
}

/// Answers a command that is not built.
pub(crate) fn not_built(command: &str, info: &mut InfoText) -> RetCode {
    info.say(
        RetCode::PACKET_NUMBER,
        format_args!("{command} is not built into this driver"),
    )
}

/// The data path as control sees it. See the module's description for what is guaranteed to whom.
pub(crate) trait Backend: Send + Sync {
    /// The device with this minor number.
    fn device(&self, minor: Minor) -> Option<DeviceSummary>;

    /// The resource with this name.
    fn resource(&self, name: &[u8]) -> Option<ResourceId>;

    /// What control must know of a resource.
    fn summary(&self, resource: ResourceId) -> Option<ResourceSummary>;

    /// The resource whose connection has exactly these addresses (and has net options).
    fn connection(&self, my_address: &[u8], peer_address: &[u8]) -> Option<ResourceId>;

    /// The next resource in the order of creation; `ResourceId(0)` starts.
    fn next_resource(&self, after: ResourceId) -> Option<ResourceId>;

    /// The resource's first volume with at least this number, and its minor.
    fn next_volume(&self, resource: ResourceId, from: u32) -> Option<(VolumeNr, Minor)>;

    /// Describes a resource; false if it is gone.
    fn describe_resource(&self, resource: ResourceId, into: &mut ResourceSnapshot) -> bool;

    /// Describes a resource's connection; false if it is gone or has no net options.
    fn describe_connection(&self, resource: ResourceId, into: &mut ConnectionSnapshot) -> bool;

    /// Describes a device; false if it is gone.
    fn describe_device(&self, minor: Minor, into: &mut DeviceSnapshot) -> bool;

    /// NEW_RESOURCE: creates a resource, StandAlone and without volumes. The name is not empty, has
    /// no `/` and is not in use; the latter is to be checked again ([`RetCode::INVALID_REQUEST`]).
    fn new_resource(&self, name: &[u8], options: &ResourceOptions, info: &mut InfoText) -> RetCode;

    /// DEL_RESOURCE: removes a resource that is StandAlone ([`RetCode::NET_CONFIGURED`]) and has no
    /// volumes ([`RetCode::RESOURCE_IN_USE`]).
    fn delete_resource(&self, resource: ResourceId, info: &mut InfoText) -> RetCode;

    /// NEW_MINOR: creates the device of a volume. Both numbers are in range and not in use; the
    /// latter is to be checked again ([`RetCode::MINOR_OR_VOLUME_EXISTS`]).
    fn new_device(
        &self,
        resource: ResourceId,
        volume: VolumeNr,
        minor: Minor,
        info: &mut InfoText,
    ) -> RetCode;

    /// DEL_MINOR: removes a device that is Diskless and Secondary ([`RetCode::MINOR_CONFIGURED`]).
    fn delete_device(&self, minor: Minor, info: &mut InfoText) -> RetCode;

    /// RESOURCE_OPTS: applies the options, all of them.
    fn resource_options(
        &self,
        _resource: ResourceId,
        _options: &ResourceOptions,
        info: &mut InfoText,
    ) -> RetCode {
        not_built("resource-options", info)
    }

    /// ATTACH: the device has no disk, the index is not below -3, and the fencing policy agrees
    /// with the protocol. Still to be checked: that the index agrees with the two devices.
    fn attach(&self, _minor: Minor, _disk: &DiskConf, info: &mut InfoText) -> RetCode {
        not_built("attach", info)
    }

    /// CHG_DISK_OPTS: applies the options, all of them; what cannot change is as it was.
    fn disk_options(&self, _minor: Minor, _disk: &DiskConf, info: &mut InfoText) -> RetCode {
        not_built("disk-options", info)
    }

    /// DETACH; with `force` it does not wait for requests that the backing device does not
    /// complete.
    fn detach(&self, _minor: Minor, _force: bool, info: &mut InfoText) -> RetCode {
        not_built("detach", info)
    }

    /// CONNECT, which sends [`Event::Created`](super::event::Event::Created) for the connection
    /// before its first state change: StandAlone, both addresses given, options that agree with
    /// each other. Still to be checked: that no other connection uses an address
    /// ([`Backend::local_address_in_use`] was asked, but see the race in the module's description),
    /// and that the algorithms exist.
    fn connect(
        &self,
        _resource: ResourceId,
        _my_address: &[u8],
        _peer_address: &[u8],
        _net: &NetConf,
        info: &mut InfoText,
    ) -> RetCode {
        not_built("connect", info)
    }

    /// Whether any connection that is configured, of whichever resource, has this address on this
    /// node.
    fn local_address_in_use(&self, _address: &[u8]) -> bool {
        false
    }

    /// Whether any connection that is configured, of whichever resource, has this address on the
    /// peer.
    fn peer_address_in_use(&self, _address: &[u8]) -> bool {
        false
    }

    /// CHG_NET_OPTS: applies the options, all of them; they agree with each other and may change in
    /// the connection's state. Still to be checked: that the algorithms exist.
    fn net_options(&self, _resource: ResourceId, _net: &NetConf, info: &mut InfoText) -> RetCode {
        not_built("net-options", info)
    }

    /// DISCONNECT, including the repetitions of spec §3.5; StandAlone already is success.
    fn disconnect(&self, _resource: ResourceId, _force: bool, info: &mut InfoText) -> RetCode {
        not_built("disconnect", info)
    }

    /// PRIMARY, including the repetitions of spec §4.6.
    fn primary(&self, _minor: Minor, _force: bool, info: &mut InfoText) -> RetCode {
        not_built("primary", info)
    }

    /// SECONDARY; a device that is Secondary already is [`RetCode::NOTHING_TO_DO`].
    fn secondary(&self, _minor: Minor, info: &mut InfoText) -> RetCode {
        not_built("secondary", info)
    }

    /// RESIZE: there is a disk, no resync, and a Primary. Still to be checked: the layout of the
    /// activity log, if it is to change.
    fn resize(&self, _minor: Minor, _request: &ResizeRequest, info: &mut InfoText) -> RetCode {
        not_built("resize", info)
    }

    /// INVALIDATE.
    fn invalidate(&self, _minor: Minor, info: &mut InfoText) -> RetCode {
        not_built("invalidate", info)
    }

    /// INVAL_PEER.
    fn invalidate_peer(&self, _minor: Minor, info: &mut InfoText) -> RetCode {
        not_built("invalidate-remote", info)
    }

    /// PAUSE_SYNC (`paused`) and RESUME_SYNC: sets the admin's pause flag and answers as the state
    /// change ends; control turns [`RetCode::NOTHING_TO_DO`] into what the tools expect.
    fn pause_sync(&self, _minor: Minor, _paused: bool, info: &mut InfoText) -> RetCode {
        not_built("pause-sync", info)
    }

    /// SUSPEND_IO.
    fn suspend_io(&self, _minor: Minor, info: &mut InfoText) -> RetCode {
        not_built("suspend-io", info)
    }

    /// RESUME_IO.
    fn resume_io(&self, _minor: Minor, info: &mut InfoText) -> RetCode {
        not_built("resume-io", info)
    }

    /// OUTDATE.
    fn outdate(&self, _minor: Minor, info: &mut InfoText) -> RetCode {
        not_built("outdate", info)
    }

    /// START_OV: verifies the sectors from `start` (if absent, where the last verify stopped) to
    /// `stop`.
    fn start_verify(
        &self,
        _minor: Minor,
        _start: Option<u64>,
        _stop: u64,
        info: &mut InfoText,
    ) -> RetCode {
        not_built("verify", info)
    }

    /// NEW_C_UUID; there is a disk.
    fn new_current_uuid(&self, _minor: Minor, _clear_bitmap: bool, info: &mut InfoText) -> RetCode {
        not_built("new-current-uuid", info)
    }

    /// GET_TIMEOUT_TYPE: 0 default, 1 degraded, 2 peer outdated.
    fn timeout_type(&self, _minor: Minor) -> u32 {
        0
    }
}

/// The devices of a resource in the order of their volume numbers.
pub(crate) fn volumes<B: Backend + ?Sized>(
    backend: &B,
    resource: ResourceId,
) -> impl Iterator<Item = (Minor, DeviceSummary)> + '_ {
    let mut from = 0;
    core::iter::from_fn(move || {
        let (volume, minor) = backend.next_volume(resource, from)?;
        from = u32::from(volume.0).saturating_add(1);
        Some((minor, backend.device(minor)))
    })
    .filter_map(|(minor, device)| Some((minor, device?)))
}
