// SPDX-License-Identifier: GPL-2.0

//! The values of the fields of the state word and their names (spec §4.1).
//!
//! Numbers and names are ABI: on the wire, in netlink, in `/proc/drbd` and in the output of the
//! tools.

macro_rules! values {
    ($(#[$doc:meta])* $name:ident, $mask:literal {
        $($(#[$variant_doc:meta])* $variant:ident = $value:literal $text:literal,)*
    }) => {
        $(#[$doc])*
        ///
        /// The order of the values is the order the rules compare by.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $value,)*
        }

        impl $name {
            /// The field's bits, all set.
            pub const MASK: u8 = $mask;
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name that `/proc/drbd`, the tools and the log use.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// The value that a field holds; `None` where the number stands for nothing.
            #[inline]
            pub const fn from_bits(bits: u8) -> Option<Self> {
                match bits {
                    $($value => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The value that a name stands for.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The number in the field.
            pub const fn bits(self) -> u8 {
                // Lossless: the enum is `repr(u8)`.
                self as u8
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

values! {
    /// Who may use the device.
    Role, 3 {
        /// The peer is not there to say.
        Unknown = 0 "Unknown",
        /// The device may be opened for writing.
        Primary = 1 "Primary",
        /// The device only follows its peer.
        Secondary = 2 "Secondary",
    }
}

values! {
    /// The state of the connection, or of the replication of one volume over it.
    ConnState, 31 {
        /// No network configuration in use.
        StandAlone = 0 "StandAlone",
        /// The admin disconnects; [`ConnState::StandAlone`] follows.
        Disconnecting = 1 "Disconnecting",
        /// About to look for the peer.
        Unconnected = 2 "Unconnected",
        /// The peer did not answer in time.
        Timeout = 3 "Timeout",
        /// The socket broke while sending.
        BrokenPipe = 4 "BrokenPipe",
        /// The network failed.
        NetworkFailure = 5 "NetworkFailure",
        /// The peer sent something that makes no sense.
        ProtocolError = 6 "ProtocolError",
        /// The peer disconnects.
        TearDown = 7 "TearDown",
        /// Waits for the peer to appear.
        WFConnection = 8 "WFConnection",
        /// The sockets stand; the parameters are exchanged.
        WFReportParams = 9 "WFReportParams",
        /// Replicates.
        Connected = 10 "Connected",
        /// The admin started a full sync from this node.
        StartingSyncS = 11 "StartingSyncS",
        /// The admin started a full sync to this node.
        StartingSyncT = 12 "StartingSyncT",
        /// Exchanges the bitmap, to become the source.
        WFBitMapS = 13 "WFBitMapS",
        /// Exchanges the bitmap, to become the target.
        WFBitMapT = 14 "WFBitMapT",
        /// Waits for the UUID of the resync.
        WFSyncUUID = 15 "WFSyncUUID",
        /// Resyncs the peer from this node.
        SyncSource = 16 "SyncSource",
        /// Resyncs this node from the peer.
        SyncTarget = 17 "SyncTarget",
        /// Verifies, and drives it.
        VerifyS = 18 "VerifyS",
        /// Verifies at the peer's request.
        VerifyT = 19 "VerifyT",
        /// Resync paused, this node is the source.
        PausedSyncS = 20 "PausedSyncS",
        /// Resync paused, this node is the target.
        PausedSyncT = 21 "PausedSyncT",
        /// Only marks blocks: the link is congested.
        Ahead = 22 "Ahead",
        /// The peer is ahead.
        Behind = 23 "Behind",
    }
}

values! {
    /// The state of the data on a disk.
    DiskState, 15 {
        /// No backing device.
        Diskless = 0 "Diskless",
        /// The backing device is being opened and read.
        Attaching = 1 "Attaching",
        /// The backing device failed and is being let go.
        Failed = 2 "Failed",
        /// Attached while connected: the handshake decides what the data is worth.
        Negotiating = 3 "Negotiating",
        /// A mixture of old and new blocks.
        Inconsistent = 4 "Inconsistent",
        /// Consistent, but known to be old.
        Outdated = 5 "Outdated",
        /// The peer's disk while the peer is away.
        DUnknown = 6 "DUnknown",
        /// Consistent; whether it is the newest is not known.
        Consistent = 7 "Consistent",
        /// The newest data.
        UpToDate = 8 "UpToDate",
    }
}

impl ConnState {
    /// The name of a value of the field; `TOO_LARGE` where the number stands for nothing (spec
    /// §4.1).
    pub const fn name_of_bits(bits: u8) -> &'static str {
        match Self::from_bits(bits) {
            Some(state) => state.name(),
            None => "TOO_LARGE",
        }
    }

    /// What `events2` and `status` call the connection in this state.
    pub fn connection_name(self) -> &'static str {
        match self {
            Self::WFConnection => "Connecting",
            other if other >= Self::WFReportParams => "Connected",
            other => other.name(),
        }
    }

    /// What `events2` and `status` call the replication of a volume in this state.
    pub fn replication_name(self) -> &'static str {
        match self {
            Self::Connected => "Established",
            other if other <= Self::WFReportParams => "Off",
            other => other.name(),
        }
    }

    /// Whether this node gives the blocks of a resync: what the target acks is in sync then. Acks
    /// that come when the resync was given up tell nothing of what was written since.
    pub const fn is_resync_source(self) -> bool {
        matches!(self, Self::SyncSource | Self::PausedSyncS)
    }

    /// Whether this is one of the four states of a resync that has begun.
    pub const fn is_resync(self) -> bool {
        matches!(
            self,
            Self::SyncSource | Self::SyncTarget | Self::PausedSyncS | Self::PausedSyncT
        )
    }

    /// Whether an online verify runs.
    pub const fn is_verify(self) -> bool {
        matches!(self, Self::VerifyS | Self::VerifyT)
    }

    /// Whether the connection broke and waits for its cleanup: Timeout..=TearDown.
    pub fn is_failure(self) -> bool {
        self >= Self::Timeout && self <= Self::TearDown
    }
}

impl Role {
    /// Whether this is [`Role::Primary`].
    pub const fn is_primary(self) -> bool {
        matches!(self, Self::Primary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_back_from_its_bits_and_its_name() {
        for &role in Role::ALL {
            assert_eq!(Role::from_bits(role.bits()), Some(role));
            assert_eq!(Role::from_name(role.name()), Some(role));
        }
        for &conn in ConnState::ALL {
            assert_eq!(ConnState::from_bits(conn.bits()), Some(conn));
            assert_eq!(ConnState::from_name(conn.name()), Some(conn));
        }
        for &disk in DiskState::ALL {
            assert_eq!(DiskState::from_bits(disk.bits()), Some(disk));
            assert_eq!(DiskState::from_name(disk.name()), Some(disk));
        }
    }

    #[test]
    fn values_are_numbered_without_a_hole() {
        assert_eq!(Role::ALL.len(), 3);
        assert_eq!(ConnState::ALL.len(), 24);
        assert_eq!(DiskState::ALL.len(), 9);
        assert_eq!(ConnState::from_bits(24), None);
        assert_eq!(DiskState::from_bits(9), None);
        assert_eq!(Role::from_bits(3), None);
    }

    #[test]
    fn a_connection_state_out_of_range_is_called_too_large() {
        assert_eq!(ConnState::name_of_bits(24), "TOO_LARGE");
        assert_eq!(ConnState::name_of_bits(23), "Behind");
    }

    #[test]
    fn events2_renames_the_connection_and_the_replication() {
        assert_eq!(ConnState::WFConnection.connection_name(), "Connecting");
        assert_eq!(ConnState::WFReportParams.connection_name(), "Connected");
        assert_eq!(ConnState::SyncSource.connection_name(), "Connected");
        assert_eq!(ConnState::StandAlone.connection_name(), "StandAlone");
        assert_eq!(ConnState::WFReportParams.replication_name(), "Off");
        assert_eq!(ConnState::StandAlone.replication_name(), "Off");
        assert_eq!(ConnState::Connected.replication_name(), "Established");
        assert_eq!(ConnState::SyncTarget.replication_name(), "SyncTarget");
    }
}
