// SPDX-License-Identifier: GPL-2.0

//! Status, statistics and notifications: what the kernel tells about its objects (spec §3.3, §3.4).

use super::field::{settings, Field};
use super::text::{Bytes, Text};

/// Longest name of a helper, without NUL.
pub const HELPER_NAME_LENGTH_MAX: usize = 31;
/// Bytes of the generation UUIDs of a device: current, bitmap and two history UUIDs of eight bytes.
pub const UUIDS_SIZE: usize = 32;

/// Why a message with [`StateInfo`] was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum StateInfoReason {
    /// In reply to GET_STATUS.
    Status = 1,
    /// The state changed.
    StateChange = 2,
    /// A helper is about to run.
    HelperBefore = 3,
    /// A helper has run.
    HelperAfter = 4,
    /// A resync made progress.
    SyncProgress = 5,
}

/// What happened to the object of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum NotificationKind {
    /// It exists: part of the initial state.
    Exists = 0,
    /// It came into being.
    Create = 1,
    /// It changed.
    Change = 2,
    /// It is gone.
    Destroy = 3,
    /// A helper is about to run.
    Call = 4,
    /// A helper has run.
    Response = 5,
}

impl StateInfoReason {
    /// The reason's number.
    pub const fn number(self) -> u32 {
        // Lossless: the enum is `repr(u32)`.
        self as u32
    }
}

impl NotificationKind {
    /// More messages of the same change follow.
    pub const CONTINUES: u32 = 0x8000;

    /// The kind's number.
    pub const fn number(self) -> u32 {
        // Lossless: the enum is `repr(u32)`.
        self as u32
    }

    /// The kind in a notification header, without the flag for more.
    pub const fn from_header(kind: u32) -> Option<Self> {
        match kind & !Self::CONTINUES {
            0 => Some(Self::Exists),
            1 => Some(Self::Create),
            2 => Some(Self::Change),
            3 => Some(Self::Destroy),
            4 => Some(Self::Call),
            5 => Some(Self::Response),
            _ => None,
        }
    }
}

settings! {
    /// Status of one volume as GET_STATUS and EVENT messages carry it.
    ///
    /// Which attributes a message has depends on the occasion: see the lists of this type.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    StateInfo(8) {
        /// Why the message was sent, see [`StateInfoReason`].
        1 reason: u32 = 0, Field::any_u32("sib-reason");
        /// The state word.
        2 current_state: u32 = 0, Field::any_u32("current-state");
        /// Size of the device in sectors.
        3 capacity: u64 = 0, Field::any_u64("capacity");
        /// UUID of the data that applications see.
        4 exposed_uuid: u64 = 0, Field::any_u64("ed-uuid");
        /// The state word before the change.
        5 previous_state: u32 = 0, Field::any_u32("prev-state");
        /// The state word after the change.
        6 new_state: u32 = 0, Field::any_u32("new-state");
        /// Current, bitmap and history UUIDs, host endian.
        7 uuids: Bytes<UUIDS_SIZE> = Bytes::EMPTY, Field::bytes("uuids", UUIDS_SIZE);
        /// The metadata flags.
        8 disk_flags: u32 = 0, Field::any_u32("disk-flags");
        /// Bits in the bitmap.
        9 bits_total: u64 = 0, Field::any_u64("bits-total");
        /// Bits out of sync.
        10 bits_out_of_sync: u64 = 0, Field::any_u64("bits-oos");
        /// Bits that the running resync started with.
        11 bits_resync_total: u64 = 0, Field::any_u64("bits-rs-total");
        /// Bits that the running resync could not sync.
        12 bits_resync_failed: u64 = 0, Field::any_u64("bits-rs-failed");
        /// Name of the helper.
        13 helper: Text<HELPER_NAME_LENGTH_MAX> = Text::EMPTY,
            Field::text("helper", HELPER_NAME_LENGTH_MAX);
        /// Wait status of the helper.
        14 helper_exit_code: u32 = 0, Field::any_u32("helper-exit-code");
        /// Sectors sent to the peer.
        15 sent: u64 = 0, Field::any_u64("send-cnt");
        /// Sectors received from the peer.
        16 received: u64 = 0, Field::any_u64("recv-cnt");
        /// Sectors read from the backing device.
        17 read: u64 = 0, Field::any_u64("read-cnt");
        /// Sectors written to the backing device.
        18 written: u64 = 0, Field::any_u64("writ-cnt");
        /// Writes of the activity log.
        19 activity_log_writes: u64 = 0, Field::any_u64("al-writ-cnt");
        /// Writes of the bitmap.
        20 bitmap_writes: u64 = 0, Field::any_u64("bm-writ-cnt");
        /// Application requests in flight.
        21 application_requests: u32 = 0, Field::any_u32("ap-bio-cnt");
        /// Writes the peer has not acknowledged.
        22 application_pending: u32 = 0, Field::any_u32("ap-pending-cnt");
        /// Resync requests without an answer.
        23 resync_pending: u32 = 0, Field::any_u32("rs-pending-cnt");
    }
}

impl StateInfo {
    /// What every message has, in the order of the C driver.
    pub const ALWAYS: &'static [u16] = &[1, 2, 4, 3, 15, 16, 17, 18, 19, 20, 21, 22, 23];
    /// What follows if a disk is attached.
    pub const ATTACHED: &'static [u16] = &[7, 8, 9, 10];
    /// What follows while a resync or verify runs.
    pub const SYNCING: &'static [u16] = &[11, 12];
    /// What follows with the reason [`StateInfoReason::StateChange`].
    pub const CHANGE: &'static [u16] = &[5, 6];
    /// What follows with the reason [`StateInfoReason::HelperBefore`].
    pub const HELPER_BEFORE: &'static [u16] = &[13];
    /// What follows with the reason [`StateInfoReason::HelperAfter`].
    pub const HELPER_AFTER: &'static [u16] = &[14, 13];
}

settings! {
    /// State of a resource.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    ResourceInfo(15) {
        /// The role's number.
        1 role: u32 = 0, Field::any_u32("role");
        /// I/O is suspended by the admin.
        2 suspended: bool = false, Field::flag("susp");
        /// I/O is suspended for lack of data.
        3 suspended_no_data: bool = false, Field::flag("susp-nod");
        /// I/O is suspended until the peer is fenced.
        4 suspended_fencing: bool = false, Field::flag("susp-fen");
    }
}

settings! {
    /// State of a device.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    DeviceInfo(16) {
        /// The disk state's number.
        1 disk_state: u32 = 0, Field::any_u32("disk-state");
    }
}

settings! {
    /// State of a connection.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    ConnectionInfo(17) {
        /// The connection state's number.
        1 connection_state: u32 = 0, Field::any_u32("connection-state");
        /// The peer's role's number.
        2 role: u32 = 0, Field::any_u32("role");
    }
}

settings! {
    /// State of a volume on the peer.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    PeerDeviceInfo(18) {
        /// The replication state's number: the connection state from WFReportParams on.
        1 replication_state: u32 = 0, Field::any_u32("repl-state");
        /// The peer's disk state's number.
        2 disk_state: u32 = 0, Field::any_u32("disk-state");
        /// Resync is paused by this node's admin.
        3 resync_suspended_user: u32 = 0, Field::any_u32("resync-susp-user");
        /// Resync is paused by the peer.
        4 resync_suspended_peer: u32 = 0, Field::any_u32("resync-susp-peer");
        /// Resync waits for another one.
        5 resync_suspended_dependency: u32 = 0, Field::any_u32("resync-susp-dependency");
    }
}

settings! {
    /// Statistics of a resource.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    ResourceStatistics(19) {
        /// How writes are ordered: 0 none, 1 drain, 2 flush, 3 barrier.
        1 write_ordering: u32 = 0, Field::any_u32("write-ordering");
    }
}

settings! {
    /// Statistics of a device.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    DeviceStatistics(20) {
        /// Size in sectors.
        1 size: u64 = 0, Field::any_u64("size");
        /// Sectors read from the backing device.
        2 read: u64 = 0, Field::any_u64("read");
        /// Sectors written to the backing device.
        3 written: u64 = 0, Field::any_u64("written");
        /// Writes of the activity log.
        4 activity_log_writes: u64 = 0, Field::any_u64("al-writes");
        /// Writes of the bitmap.
        5 bitmap_writes: u64 = 0, Field::any_u64("bm-writes");
        /// Application requests in flight.
        6 upper_pending: u32 = 0, Field::any_u32("upper-pending");
        /// Requests to the backing device in flight.
        7 lower_pending: u32 = 0, Field::any_u32("lower-pending");
        /// Application requests are held back.
        8 upper_blocked: bool = false, Field::flag("upper-blocked");
        /// The backing device is congested.
        9 lower_blocked: bool = false, Field::flag("lower-blocked");
        /// The activity log is suspended.
        10 activity_log_suspended: bool = false, Field::flag("al-suspended");
        /// UUID of the data that applications see.
        11 exposed_uuid: u64 = 0, Field::any_u64("exposed-data-uuid");
        /// UUID of the data on disk.
        12 current_uuid: u64 = 0, Field::any_u64("current-uuid");
        /// The metadata flags.
        13 disk_flags: u32 = 0, Field::any_u32("disk-flags");
        /// The history UUIDs, host endian; two of them and zeroes up to 32 bytes.
        14 history_uuids: Bytes<UUIDS_SIZE> = Bytes::EMPTY,
            Field::bytes("history-uuids", UUIDS_SIZE);
    }
}

settings! {
    /// Statistics of a connection.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    ConnectionStatistics(21) {
        /// The send queue is congested.
        1 congested: bool = false, Field::flag("congested");
    }
}

settings! {
    /// Statistics of a volume on the peer.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    PeerDeviceStatistics(22) {
        /// Sectors received.
        1 received: u64 = 0, Field::any_u64("received");
        /// Sectors sent.
        2 sent: u64 = 0, Field::any_u64("sent");
        /// Requests without an answer from the peer.
        3 pending: u32 = 0, Field::any_u32("pending");
        /// Requests of the peer without an answer from here.
        4 unacked: u32 = 0, Field::any_u32("unacked");
        /// Sectors out of sync.
        5 out_of_sync: u64 = 0, Field::any_u64("out-of-sync");
        /// Sectors that the running resync could not sync.
        6 resync_failed: u64 = 0, Field::any_u64("resync-failed");
        /// The bitmap UUID.
        7 bitmap_uuid: u64 = 0, Field::any_u64("bitmap-uuid");
        /// Metadata flags about the peer: 1 connected, 2 outdated, 4 fencing impossible, 8 full
        /// sync.
        9 flags: u32 = 0, Field::any_u32("flags");
    }
}

settings! {
    /// Head of a notification.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    NotificationHeader(23) {
        /// A [`NotificationKind`], with [`NotificationKind::CONTINUES`] if more follows.
        1 kind: u32 = 0, Field::any_u32("nh-type");
    }
}

settings! {
    /// Notification about a helper.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    HelperInfo(24) {
        /// The helper's name.
        1 name: Text<HELPER_NAME_LENGTH_MAX> = Text::EMPTY,
            Field::text("helper-name", HELPER_NAME_LENGTH_MAX);
        /// Its wait status.
        2 status: u32 = 0, Field::any_u32("helper-status");
    }
}
