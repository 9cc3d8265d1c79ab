// SPDX-License-Identifier: GPL-2.0

//! Return codes of commands and their texts (spec §3.7, §4.4).

use crate::state::{StateError, Success};
use core::fmt;

macro_rules! ret_codes {
    ($($number:literal $name:ident $text:literal;)+) => {
        impl RetCode {
            $(
                #[doc = concat!($text, ".")]
                pub const $name: Self = Self($number);
            )+

            /// What the code says, if it is a known one.
            pub const fn text(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($text),)+
                    _ => None,
                }
            }
        }
    };
}

/// Outcome of a command as the reply's header carries it.
///
/// Positive numbers up to 4 are successful state changes, 101 is success of everything else,
/// negative numbers are refused state changes, and the rest are errors. Zero means an unknown
/// error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RetCode(pub i32);

impl RetCode {
    /// Whether the command succeeded.
    pub const fn is_success(self) -> bool {
        matches!(self.0, 1..=4) || self.0 == Self::NO_ERROR.0
    }

    /// The exit code of drbdsetup for this outcome (spec §9.1).
    pub const fn exit_code(self) -> u8 {
        match self {
            code if code.is_success() => 0,
            Self::NO_UP_TO_DATE_DISK => 17,
            Self::LOWER_THAN_OUTDATED => 5,
            Self::NO_LOCAL_DISK => 16,
            Self(102..=170) => 10,
            Self(-22..=0) => 11,
            _ => 20,
        }
    }
}

impl From<StateError> for RetCode {
    fn from(error: StateError) -> Self {
        Self(error.code())
    }
}

impl From<Success> for RetCode {
    fn from(success: Success) -> Self {
        Self(success.code())
    }
}

impl From<Result<Success, StateError>> for RetCode {
    fn from(outcome: Result<Success, StateError>) -> Self {
        match outcome {
            Ok(success) => success.into(),
            Err(error) => error.into(),
        }
    }
}

impl fmt::Display for RetCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.write_str(text),
            None => write!(f, "Unknown return code {}", self.0),
        }
    }
}

ret_codes! {
    4 SUCCESS_NO_NEED "No need for a cluster-wide state change";
    3 SUCCESS_CLUSTER_WIDE "Cluster-wide state change succeeded";
    2 NOTHING_TO_DO "Nothing to do";
    1 SUCCESS "Success";
    0 UNKNOWN_ERROR "Unknown error";
    -1 TWO_PRIMARIES "Multiple primaries not allowed by config";
    -2 NO_UP_TO_DATE_DISK "Need access to UpToDate data";
    -4 NO_LOCAL_DISK "Can not resync without local disk";
    -5 NO_REMOTE_DISK "Can not resync without remote disk";
    -6 CONNECTED_OUTDATES "Refusing to be Outdated while Connected";
    -7 PRIMARY_NOT_OUTDATED "Refusing to be Primary while peer is not outdated";
    -8 RESYNC_RUNNING "Can not start OV/resync since it is already active";
    -9 ALREADY_STANDALONE "Can not disconnect a StandAlone device";
    -10 REFUSED_BY_PEER "State change was refused by peer node";
    -11 IS_DISKLESS "Device is diskless, the requested operation requires a disk";
    -12 DEVICE_IN_USE "Device is held open by someone";
    -13 NO_NET_CONFIG "Have no net/connection configuration";
    -14 NO_VERIFY_ALG "Need a verify algorithm to start online verify";
    -15 NEED_CONNECTION "Need a connection to start verify or resync";
    -16 LOWER_THAN_OUTDATED "Disk state is lower than outdated";
    -17 NOT_SUPPORTED "Peer does not support protocol";
    -18 IN_TRANSIENT_STATE "In transient state, retry after next state change";
    -19 CONCURRENT_STATE_CHANGE "Concurrent state changes detected and aborted";
    -20 OTHER_VOLUME_PEER_PRIMARY "Other vol primary on peer not allowed by config";
    -21 OUTDATE_WITHOUT_CONNECTION "Need a connection for a graceful disconnect/outdate peer";
    101 NO_ERROR "No further Information available.";
    102 LOCAL_ADDRESS "Local address(port) already in use.";
    103 PEER_ADDRESS "Remote address(port) already in use.";
    104 OPEN_DISK "Can not open backing device.";
    105 OPEN_META_DISK "Can not open meta device.";
    107 DISK_NOT_BLOCK_DEVICE "Lower device is not a block device.";
    108 META_NOT_BLOCK_DEVICE "Meta device is not a block device.";
    111 DISK_TOO_SMALL "Low.dev. smaller than requested DRBD-dev. size.";
    112 META_DISK_TOO_SMALL "Meta device too small.";
    114 CLAIM_DISK "Lower device is already claimed. This usually means it is mounted.";
    115 CLAIM_META_DISK "Meta device is already claimed. This usually means it is mounted.";
    116 META_INDEX_INVALID "Lower device / meta device / index combination invalid.";
    118 IO_META_DISK "IO error(s) occurred during initial access to meta-data.";
    119 META_INVALID "No valid meta-data signature found.";
    120 AUTH_ALG "The 'cram-hmac-alg' you specified is not known in the kernel.";
    121 AUTH_ALG_NO_DIGEST "The 'cram-hmac-alg' you specified is not a digest.";
    122 NO_MEMORY "Out of memory.";
    123 DISCARD_IMPOSSIBLE "--discard-my-data not allowed when primary.";
    124 DISK_CONFIGURED "Device is attached to a disk (use detach first)";
    125 NET_CONFIGURED "Device has a net-config (use disconnect first)";
    126 MANDATORY_TAG "A required option is missing or has an invalid value.";
    127 MINOR_INVALID "Device minor not allocated";
    129 INTERRUPTED "Interrupted by Signal";
    130 RESIZE_RESYNC "Resize not allowed during resync.";
    131 NO_PRIMARY "Need one Primary node to resize.";
    132 RESYNC_AFTER "The resync-after minor number is invalid";
    133 RESYNC_AFTER_CYCLE "This would cause a resync-after dependency cycle";
    134 PAUSE_IS_SET "Sync-pause flag is already set";
    135 PAUSE_IS_CLEAR "Sync-pause flag is already cleared";
    137 PACKET_NUMBER "Kernel does not know how to handle your request.";
    138 NO_DISK "Device does not have a disk-config";
    139 NOT_PROTOCOL_C "Protocol C required";
    140 NO_MEMORY_BITMAP "Out of memory for the bitmap.";
    141 INTEGRITY_ALG "The 'data-integrity-alg' you specified is not known in the kernel.";
    142 INTEGRITY_ALG_NO_DIGEST "The 'data-integrity-alg' you specified is not a digest.";
    143 CPU_MASK_PARSE "Invalid cpu-mask";
    144 CSUMS_ALG "The 'csums-alg' you specified is not known in the kernel.";
    145 CSUMS_ALG_NO_DIGEST "The 'csums-alg' you specified is not a digest.";
    146 VERIFY_ALG "The 'verify-alg' you specified is not known in the kernel.";
    147 VERIFY_ALG_NO_DIGEST "The 'verify-alg' you specified is not a digest.";
    148 CSUMS_RESYNC_RUNNING "Can not change csums-alg while resync is in progress";
    149 VERIFY_RUNNING "Can not change verify-alg while online verify runs";
    150 DATA_NOT_CURRENT "Can only attach to the data we lost last (see kernel log).";
    151 CONNECTED "Need to be StandAlone";
    152 PERMISSION "Permission denied. CAP_SYS_ADMIN necessary";
    153 NEED_PROTOCOL_93 "Protocol version 93 required to use --assume-clean";
    154 STONITH_AND_PROTOCOL_A
        "Fencing policy resource-and-stonith only with prot B or C allowed";
    155 CONGESTION_NOT_PROTOCOL_A "on-congestion policy pull-ahead only with prot A allowed";
    156 PAUSED_BY_DEPENDENCY
        "Sync-pause flag is already cleared. Resync paused by a local resync-after dependency.";
    157 PAUSED_BY_PEER "Sync-pause flag is already cleared. Resync paused by the peer node.";
    158 RESOURCE_NOT_KNOWN "Unknown resource";
    159 RESOURCE_IN_USE "Resource still in use (delete all minors first)";
    160 MINOR_CONFIGURED "Minor still configured (down it first)";
    161 MINOR_OR_VOLUME_EXISTS "Minor or volume exists already (delete it first)";
    162 INVALID_REQUEST "Invalid configuration request";
    163 NEED_PROTOCOL_100
        "Prot version 100 required in order to change these network options while connected";
    164 NEED_ALLOW_TWO_PRIMARIES
        "Can not clear allow_two_primaries as long as there a primaries on both sides";
    165 META_UNCLEAN "Unclean meta-data found. You need to 'drbdadm apply-al res'";
    166 META_LAYOUT_CONNECTED "DRBD need to be connected for online MD layout change";
    167 META_LAYOUT_TOO_BIG "Resulting AL area too big";
    168 META_LAYOUT_TOO_SMALL "Resulting AL area too small";
    169 META_LAYOUT_NO_FIT "Resulting AL does not fit into available meta data space";
    170 IMPLICIT_SHRINK "Implicit device shrinking not allowed. See kernel log.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn success_is_what_drbdsetup_takes_for_success() {
        assert!(RetCode::NO_ERROR.is_success());
        assert!(RetCode::SUCCESS.is_success());
        assert!(!RetCode::UNKNOWN_ERROR.is_success());
        assert!(!RetCode::TWO_PRIMARIES.is_success());
        assert!(!RetCode::INVALID_REQUEST.is_success());
    }

    #[test]
    fn exit_codes_tell_the_failures_apart_that_scripts_ask_for() {
        assert_eq!(RetCode::NOTHING_TO_DO.exit_code(), 0);
        assert_eq!(RetCode::MINOR_INVALID.exit_code(), 10);
        assert_eq!(RetCode::NO_UP_TO_DATE_DISK.exit_code(), 17);
        assert_eq!(RetCode::LOWER_THAN_OUTDATED.exit_code(), 5);
        assert_eq!(RetCode::NO_LOCAL_DISK.exit_code(), 16);
        assert_eq!(RetCode::DEVICE_IN_USE.exit_code(), 11);
        assert_eq!(RetCode(-30).exit_code(), 20);
    }

    #[test]
    fn refused_state_changes_keep_their_text() {
        for &error in StateError::ALL {
            assert_eq!(RetCode::from(error).text(), Some(error.text()));
        }
        assert_eq!(RetCode::from(Ok(Success::Done)), RetCode::SUCCESS);
        assert_eq!(
            RetCode::from(Ok(Success::PeerNotNeeded)),
            RetCode::SUCCESS_NO_NEED
        );
    }

    #[test]
    fn an_unknown_code_is_shown_with_its_number() {
        assert_eq!(RetCode(99).to_string(), "Unknown return code 99");
    }
}
