// SPDX-License-Identifier: GPL-2.0

//! Fault injection: compiled out unless the module is built with `DRBD_FAULTS=y`.
//!
//! The parameters `enable_faults` (a bit for each [`Fault`]), `fault_rate` (of a hundred),
//! `fault_count` and `fault_devs` (a bit for each minor, 0 for all) are those of the C driver.

use drbd_bindings as shim;

/// What can be made to fail; the discriminant is the bit of `enable_faults`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fault {
    /// A write of metadata.
    MetaWrite = 0,
    /// A read of metadata.
    MetaRead = 1,
    /// A write of a resync.
    ResyncWrite = 2,
    /// A read for a resync.
    ResyncRead = 3,
    /// A write of data.
    DataWrite = 4,
    /// A read of data.
    DataRead = 5,
    /// Memory for the bitmap.
    BitmapAllocation = 7,
    /// Memory for a request of the peer.
    PeerRequestAllocation = 8,
    /// What was received is damaged.
    Receive = 9,
}

impl Fault {
    /// How the log names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MetaWrite => "Meta-data write",
            Self::MetaRead => "Meta-data read",
            Self::ResyncWrite => "Resync write",
            Self::ResyncRead => "Resync read",
            Self::DataWrite => "Data write",
            Self::DataRead => "Data read",
            Self::BitmapAllocation => "BM allocation",
            Self::PeerRequestAllocation => "EE allocation",
            Self::Receive => "receive data corruption",
        }
    }
}

/// Whether this chance for a fault becomes one. Any context.
pub fn strikes(minor: u32, fault: Fault) -> bool {
    // CAST: The discriminant is the number of the bit.
    // SAFETY: It reads parameters and rolls dice.
    shim::DRBD_SHIM_HAS_FAULTS != 0 && unsafe { shim::drbd_shim_fault_strikes(minor, fault as u32) }
}
