// SPDX-License-Identifier: GPL-2.0

//! The configured policies that the state rules read (spec §4.3, §5.8).

/// What to do when a Primary loses its peer: the disk's `fencing` option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fencing {
    /// Nothing.
    #[default]
    DontCare,
    /// Run the fence-peer helper; I/O goes on.
    ResourceOnly,
    /// Run the fence-peer helper; I/O is frozen until it has answered.
    ResourceAndStonith,
}

impl Fencing {
    /// The policy with this number in the configuration.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::DontCare),
            1 => Some(Self::ResourceOnly),
            2 => Some(Self::ResourceAndStonith),
            _ => None,
        }
    }
}

/// What to do with I/O when no data is accessible: the resource's `on-no-data-accessible` option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnNoData {
    /// Fail it.
    #[default]
    IoError,
    /// Freeze it until there is data again.
    SuspendIo,
}

impl OnNoData {
    /// The policy with this number in the configuration.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::IoError),
            1 => Some(Self::SuspendIo),
            _ => None,
        }
    }
}
