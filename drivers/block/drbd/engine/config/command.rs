// SPDX-License-Identifier: GPL-2.0

//! Command numbers and the constants of the family (spec §3.1, §3.2).

/// Name of the generic netlink family.
pub const FAMILY_NAME: &str = "drbd";
/// Version of the family.
pub const FAMILY_VERSION: u8 = 1;
/// Name of the only multicast group.
pub const EVENTS_GROUP: &str = "events";

/// How a command is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// A request with one reply.
    Do,
    /// A request with a stream of replies.
    Dump,
    /// Either of both.
    DoOrDump,
    /// Sent by the kernel only.
    Notification,
}

/// The object that a request must name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// None.
    Nothing,
    /// A minor, in the user header.
    Minor,
    /// A resource, by name.
    Resource,
    /// A connection, by both addresses.
    Connection,
}

macro_rules! commands {
    ($($(#[$doc:meta])* $number:literal $name:ident $text:literal $usage:ident $needs:ident;)+) => {
        /// A command of the family.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Command {
            $($(#[$doc])* $name = $number,)+
        }

        impl Command {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The command with this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// Its number.
            pub const fn number(self) -> u8 {
                match self {
                    $(Self::$name => $number,)+
                }
            }

            /// Its name in messages for humans.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// How it is used.
            pub const fn usage(self) -> Usage {
                match self {
                    $(Self::$name => Usage::$usage,)+
                }
            }

            /// What a request must name.
            pub const fn needs(self) -> Needs {
                match self {
                    $(Self::$name => Needs::$needs,)+
                }
            }
        }
    };
}

commands! {
    /// The status of a minor changed.
    1 Event "event" Notification Nothing;
    /// Report the status of one minor, or of all.
    2 GetStatus "get-status" DoOrDump Minor;
    /// Create a device for a volume of a resource.
    5 NewMinor "new-minor" Do Resource;
    /// Remove a device.
    6 DelMinor "del-minor" Do Minor;
    /// Create a resource.
    7 NewResource "new-resource" Do Nothing;
    /// Remove a resource.
    8 DelResource "del-resource" Do Resource;
    /// Change a resource's options.
    9 ResourceOptions "resource-options" Do Resource;
    /// Connect a resource to its peer.
    10 Connect "connect" Do Resource;
    /// Disconnect.
    11 Disconnect "disconnect" Do Connection;
    /// Attach a backing device.
    12 Attach "attach" Do Minor;
    /// Follow a changed size of the backing devices.
    13 Resize "resize" Do Minor;
    /// Become Primary.
    14 Primary "primary" Do Minor;
    /// Become Secondary.
    15 Secondary "secondary" Do Minor;
    /// Start a new data generation.
    16 NewCurrentUuid "new-current-uuid" Do Minor;
    /// Start an online verify.
    17 StartVerify "verify" Do Minor;
    /// Detach the backing device.
    18 Detach "detach" Do Minor;
    /// Resync all from the peer.
    19 Invalidate "invalidate" Do Minor;
    /// Resync all to the peer.
    20 InvalidatePeer "invalidate-remote" Do Minor;
    /// Pause the resync.
    21 PauseSync "pause-sync" Do Minor;
    /// Resume the resync.
    22 ResumeSync "resume-sync" Do Minor;
    /// Freeze application I/O.
    23 SuspendIo "suspend-io" Do Minor;
    /// Thaw application I/O.
    24 ResumeIo "resume-io" Do Minor;
    /// Declare this node's data to be outdated.
    25 Outdate "outdate" Do Minor;
    /// Report which timeout applies to waiting for the connection.
    26 GetTimeoutType "get-timeout-type" Do Minor;
    /// Demote, disconnect, detach and remove all of a resource.
    27 Down "down" Do Resource;
    /// Change a volume's disk options.
    28 ChangeDiskOptions "disk-options" Do Minor;
    /// Change a connection's net options.
    29 ChangeNetOptions "net-options" Do Connection;
    /// List resources.
    30 GetResources "get-resources" Dump Nothing;
    /// List devices.
    31 GetDevices "get-devices" Dump Nothing;
    /// List connections.
    32 GetConnections "get-connections" Dump Nothing;
    /// List volumes on the peer.
    33 GetPeerDevices "get-peer-devices" Dump Nothing;
    /// Something happened to a resource.
    34 ResourceState "resource-state" Notification Nothing;
    /// Something happened to a device.
    35 DeviceState "device-state" Notification Nothing;
    /// Something happened to a connection.
    36 ConnectionState "connection-state" Notification Nothing;
    /// Something happened to a volume on the peer.
    37 PeerDeviceState "peer-device-state" Notification Nothing;
    /// List everything as notifications.
    38 GetInitialState "get-initial-state" Dump Nothing;
    /// A helper is called, or has returned.
    40 Helper "helper" Notification Nothing;
    /// The list that GET_INITIAL_STATE asked for is complete.
    41 InitialStateDone "initial-state-done" Notification Nothing;
}
