// SPDX-License-Identifier: GPL-2.0

//! How a state change ended: the codes that travel to the peer and to the tools, and their texts
//! (spec §4.4).

/// A state change that succeeded, or that needed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    /// The state changed.
    Done,
    /// The state was already so.
    NothingToDo,
    /// The peer agreed.
    PeerAgreed,
    /// The peer's consent is no longer needed.
    PeerNotNeeded,
}

impl Success {
    /// The number in replies.
    pub const fn code(self) -> i32 {
        match self {
            Self::Done => 1,
            Self::NothingToDo => 2,
            Self::PeerAgreed => 3,
            Self::PeerNotNeeded => 4,
        }
    }
}

macro_rules! errors {
    ($($(#[$doc:meta])* $variant:ident = $code:literal $text:literal,)*) => {
        /// Why a state change is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(i32)]
        pub enum StateError {
            $($(#[$doc])* $variant = $code,)*
        }

        impl StateError {
            /// Every error, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The number in replies to the peer and to the tools: negative, or 0 for an unknown
            /// error.
            pub const fn code(self) -> i32 {
                self as i32
            }

            /// The error with this number.
            pub const fn from_code(code: i32) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// What the log and the tools say.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

errors! {
    /// Something that has no code of its own.
    Unknown = 0 "Unknown error",
    /// The peer is Primary already.
    TwoPrimaries = -1 "Multiple primaries not allowed by config",
    /// A Primary would be without the newest data.
    NoUpToDateDisk = -2 "Need access to UpToDate data",
    /// This node's disk cannot take part in a resync.
    NoLocalDisk = -4 "Can not resync without local disk",
    /// The peer's disk cannot take part in a resync.
    NoRemoteDisk = -5 "Can not resync without remote disk",
    /// A disk that replicates is not outdated.
    ConnectedOutdates = -6 "Refusing to be Outdated while Connected",
    /// Fencing demands that the peer is outdated first.
    PrimaryNop = -7 "Refusing to be Primary while peer is not outdated",
    /// One resync or verify at a time.
    ResyncRunning = -8 "Can not start OV/resync since it is already active",
    /// There is no connection to end.
    AlreadyStandAlone = -9 "Can not disconnect a StandAlone device",
    /// The peer refused.
    RefusedByPeer = -10 "State change was refused by peer node",
    /// There is no disk.
    IsDiskless = -11 "Device is diskless, the requested operation requires a disk",
    /// A Secondary cannot have users.
    DeviceInUse = -12 "Device is held open by someone",
    /// There is nothing to connect to.
    NoNetConfig = -13 "Have no net/connection configuration",
    /// Verifying needs an algorithm.
    NoVerifyAlg = -14 "Need a verify algorithm to start online verify",
    /// Verify and resync need a peer.
    NeedConnection = -15 "Need a connection to start verify or resync",
    /// The disk is worse than outdated.
    LowerThanOutdated = -16 "Disk state is lower than outdated",
    /// The peer's protocol is too old.
    NotSupported = -17 "Peer does not support protocol",
    /// A change is under way: try again after it.
    InTransientState = -18 "In transient state, retry after next state change",
    /// Both nodes wanted a change at the same time.
    ConcurrentStateChange = -19 "Concurrent state changes detected and aborted",
    /// The peer is Primary on another volume.
    OtherVolumePeerPrimary = -20 "Other vol primary on peer not allowed by config",
    /// The peer is not there to be outdated.
    OutdateWithoutConnection = -21 "Need a connection for a graceful disconnect/outdate peer",
}

impl core::fmt::Display for StateError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

impl From<super::word::InvalidState> for StateError {
    fn from(_: super::word::InvalidState) -> Self {
        Self::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back() {
        for &error in StateError::ALL {
            assert_eq!(StateError::from_code(error.code()), Some(error));
        }
        assert_eq!(StateError::from_code(-3), None);
        assert_eq!(StateError::from_code(-22), None);
        assert_eq!(StateError::ALL.len(), 21);
    }
}
