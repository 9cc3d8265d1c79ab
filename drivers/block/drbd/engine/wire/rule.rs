// SPDX-License-Identifier: GPL-2.0

//! Which packet may come in where, and how long its payload may be (Spec §1.7).
//!
//! Both receive loops ask here, before they read a byte of payload. Packets of the handshake
//! (initial packets, features, authentication) are refused: once the loops run they are out of
//! place, and before that the handshake reads them itself.

use super::bitmap::max_payload;
use super::{Command, Features, Socket, Version, MAX_DIGEST_SIZE};
use crate::types::MAX_REQUEST_SIZE;

/// Bytes that hold the fixed part of any packet.
pub const MAX_FIXED_SIZE: usize = 148;

/// How long a packet's payload may be, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadRule {
    /// The part that is always there.
    pub fixed: u32,
    /// The whole payload at its longest; [`Self::fixed`] where nothing may follow.
    pub max: u32,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// The connection goes to ProtocolError, and is tried again.
    ProtocolError,
    /// The connection goes to NetworkFailure, and is tried again.
    NetworkFailure,
    /// The connection goes to Disconnecting and ends StandAlone.
    Disconnecting,
}

/// Why a packet must not be where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// The command is unknown, or not one of this socket, version or set of features.
    Unexpected {
        /// The socket it came in on.
        socket: Socket,
        /// Its number.
        command: u16,
    },
    /// The payload is longer than it may be.
    TooLong {
        /// The socket it came in on.
        socket: Socket,
        /// Its command.
        command: Command,
        /// The longest payload, in bytes.
        max: u32,
        /// Bytes announced.
        found: u32,
    },
    /// The payload is shorter than its fixed part.
    TooShort {
        /// The socket it came in on.
        socket: Socket,
        /// Its command.
        command: Command,
        /// The fixed part, in bytes.
        expected: u32,
        /// Bytes announced.
        found: u32,
    },
}

impl PacketError {
    /// What the error does to the connection.
    pub const fn consequence(&self) -> Consequence {
        match self {
            Self::Unexpected {
                socket: Socket::Meta,
                ..
            } => Consequence::Disconnecting,
            Self::TooLong {
                socket: Socket::Meta,
                ..
            }
            | Self::TooShort {
                socket: Socket::Meta,
                ..
            } => Consequence::NetworkFailure,
            _ => Consequence::ProtocolError,
        }
    }
}

impl core::fmt::Display for PacketError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Unexpected { socket, command } => {
                let socket = match socket {
                    Socket::Data => "data",
                    Socket::Meta => "meta",
                };
                let name = Command::name_of(command);
                write!(f, "Unexpected {socket} packet {name} (0x{command:04x})")
            }
            Self::TooLong {
                socket: Socket::Meta,
                command,
                found,
                ..
            }
            | Self::TooShort {
                socket: Socket::Meta,
                command,
                found,
                ..
            } => {
                let number = command.number();
                write!(f, "Wrong packet size on meta (c: {number}, l: {found})")
            }
            Self::TooLong { command, found, .. } => {
                write!(f, "No payload expected {} l:{found}", command.name())
            }
            Self::TooShort {
                command,
                expected,
                found,
                ..
            } => {
                let name = command.name();
                write!(
                    f,
                    "{name}: unexpected packet size, expected:{expected} received:{found}"
                )
            }
        }
    }
}

impl PayloadRule {
    const fn exactly(size: u32) -> Self {
        Self {
            fixed: size,
            max: size,
        }
    }

    const fn with_up_to(fixed: u32, more: u32) -> Self {
        Self {
            fixed,
            max: fixed.saturating_add(more),
        }
    }

    /// Checks an announced length; returns how many bytes follow the fixed part.
    ///
    /// # Errors
    ///
    /// [`PacketError::TooShort`] and [`PacketError::TooLong`].
    pub const fn check(
        self,
        socket: Socket,
        command: Command,
        length: u32,
    ) -> Result<u32, PacketError> {
        if length > self.max {
            return Err(PacketError::TooLong {
                socket,
                command,
                max: self.max,
                found: length,
            });
        }
        match length.checked_sub(self.fixed) {
            Some(more) => Ok(more),
            None => Err(PacketError::TooShort {
                socket,
                command,
                expected: self.fixed,
                found: length,
            }),
        }
    }
}

impl Command {
    /// How long the command's payload may be on this socket and between these peers.
    ///
    /// # Errors
    ///
    /// [`PacketError::Unexpected`] where the command must not come in at all.
    pub const fn payload(
        self,
        socket: Socket,
        version: Version,
        features: Features,
    ) -> Result<PayloadRule, PacketError> {
        let agreed = version.is_at_least(self.since())
            && features.contains(self.feature())
            && self.travels_on(socket);
        match self.size(version, features) {
            Some(rule) if agreed => Ok(rule),
            _ => Err(PacketError::Unexpected {
                socket,
                command: self.number(),
            }),
        }
    }

    /// The feature that must be agreed before the command is used.
    pub const fn feature(self) -> Features {
        match self {
            Self::Trim => Features::TRIM,
            Self::RsThinRequest | Self::RsDeallocated => Features::THIN_RESYNC,
            Self::WriteSame => Features::WRITE_SAME,
            Self::Zeroes => Features::WRITE_ZEROES,
            _ => Features::NONE,
        }
    }

    /// The size rule, or `None` for commands that no receive loop handles.
    const fn size(self, version: Version, features: Features) -> Option<PayloadRule> {
        Some(match self {
            Self::Data | Self::DataReply | Self::RsDataReply => {
                PayloadRule::with_up_to(24, MAX_DIGEST_SIZE + MAX_REQUEST_SIZE)
            }
            Self::Trim | Self::Zeroes => PayloadRule::exactly(28),
            Self::Barrier | Self::BarrierAck | Self::DelayProbe | Self::SyncUuid => {
                PayloadRule::exactly(8)
            }
            Self::Bitmap => PayloadRule::with_up_to(0, max_payload(version)),
            Self::CompressedBitmap => {
                PayloadRule::with_up_to(1, max_payload(version).saturating_sub(1))
            }
            Self::UnplugRemote | Self::Ping | Self::PingAck => PayloadRule::exactly(0),
            Self::OvReply | Self::CsumRsRequest => PayloadRule::with_up_to(24, MAX_DIGEST_SIZE),
            Self::DataRequest
            | Self::RsDataRequest
            | Self::RsThinRequest
            | Self::OvRequest
            | Self::RecvAck
            | Self::WriteAck
            | Self::RsWriteAck
            | Self::Superseded
            | Self::NegAck
            | Self::NegDReply
            | Self::NegRsDReply
            | Self::OvResult
            | Self::RsIsInSync
            | Self::RsCancel
            | Self::RetryWrite => PayloadRule::exactly(24),
            Self::OutOfSync | Self::RsDeallocated => PayloadRule::exactly(16),
            Self::SyncParam | Self::SyncParam89 => sync_param(version),
            Self::Protocol | Self::ProtocolUpdate => protocol(version),
            Self::Uuids => PayloadRule::exactly(48),
            Self::Sizes if features.contains(Features::WRITE_SAME) => PayloadRule::exactly(56),
            Self::Sizes => PayloadRule::exactly(32),
            Self::StateChangeRequest | Self::ConnStateChangeRequest => PayloadRule::exactly(8),
            Self::State | Self::StateChangeReply | Self::ConnStateChangeReply => {
                PayloadRule::exactly(4)
            }
            Self::BecomeSyncTarget
            | Self::BecomeSyncSource
            | Self::WriteSame
            | Self::AuthChallenge
            | Self::AuthResponse
            | Self::InitialMeta
            | Self::InitialData
            | Self::ConnectionFeatures => return None,
        })
    }
}

/// Resync parameters; the name of version 88 follows the rate and has its NUL at least.
const fn sync_param(version: Version) -> PayloadRule {
    match version.number() {
        95.. => PayloadRule::exactly(148),
        89..=94 => PayloadRule::exactly(132),
        88 => PayloadRule::with_up_to(5, 63),
        _ => PayloadRule::exactly(4),
    }
}

/// The shared parameters; from version 87 on a name follows and has its NUL at least.
const fn protocol(version: Version) -> PayloadRule {
    if version.names_integrity_algorithm() {
        PayloadRule::with_up_to(25, 63)
    } else {
        PayloadRule::exactly(24)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    fn rule(command: Command, number: u32, features: Features) -> Option<(u32, u32)> {
        [Socket::Data, Socket::Meta].into_iter().find_map(|socket| {
            let rule = command
                .payload(socket, Version::new(number)?, features)
                .ok()?;
            Some((rule.fixed, rule.max))
        })
    }

    #[test]
    fn only_what_was_agreed_may_come() {
        assert_eq!(rule(Command::OutOfSync, 95, Features::OURS), None);
        assert_eq!(rule(Command::OutOfSync, 96, Features::NONE), Some((16, 16)));
        assert_eq!(rule(Command::Trim, 101, Features::NONE), None);
        assert_eq!(rule(Command::Trim, 101, Features::TRIM), Some((28, 28)));
        assert_eq!(rule(Command::WriteSame, 101, Features::OURS), None);
        assert_eq!(rule(Command::AuthChallenge, 101, Features::OURS), None);
        assert_eq!(rule(Command::BecomeSyncTarget, 86, Features::NONE), None);
    }

    #[test]
    fn sizes_depend_on_version_and_features() {
        assert_eq!(rule(Command::Sizes, 101, Features::NONE), Some((32, 32)));
        assert_eq!(rule(Command::Sizes, 101, Features::OURS), Some((56, 56)));
        assert_eq!(rule(Command::Bitmap, 91, Features::NONE), Some((0, 4088)));
        assert_eq!(rule(Command::Bitmap, 101, Features::NONE), Some((0, 4080)));
        assert_eq!(rule(Command::Protocol, 86, Features::NONE), Some((24, 24)));
        assert_eq!(rule(Command::Protocol, 87, Features::NONE), Some((25, 88)));
        assert_eq!(rule(Command::SyncParam, 88, Features::NONE), Some((5, 68)));
    }

    #[test]
    fn the_scratch_buffers_hold_every_fixed_part() {
        for command in Command::ALL {
            for number in 86..=101 {
                if let Some((fixed, _)) = rule(*command, number, Features::OURS) {
                    assert!(usize::try_from(fixed).unwrap() <= MAX_FIXED_SIZE);
                }
            }
        }
    }

    #[test]
    fn refusals_read_as_in_the_c_driver_and_say_what_they_do() {
        let cases = [
            (
                PacketError::Unexpected {
                    socket: Socket::Data,
                    command: 0x34,
                },
                "Unexpected data packet WriteSame (0x0034)",
                Consequence::ProtocolError,
            ),
            (
                PacketError::Unexpected {
                    socket: Socket::Meta,
                    command: 0x51,
                },
                "Unexpected meta packet Unknown (0x0051)",
                Consequence::Disconnecting,
            ),
            (
                check(Socket::Data, Command::Barrier, 9),
                "No payload expected Barrier l:9",
                Consequence::ProtocolError,
            ),
            (
                check(Socket::Data, Command::Barrier, 7),
                "Barrier: unexpected packet size, expected:8 received:7",
                Consequence::ProtocolError,
            ),
            (
                check(Socket::Meta, Command::Ping, 4),
                "Wrong packet size on meta (c: 19, l: 4)",
                Consequence::NetworkFailure,
            ),
        ];
        for (error, text, consequence) in cases {
            assert_eq!(format!("{error}"), text);
            assert_eq!(error.consequence(), consequence);
        }
    }

    fn check(socket: Socket, command: Command, length: u32) -> PacketError {
        let rule = command
            .payload(socket, Version::MAX, Features::OURS)
            .unwrap();
        rule.check(socket, command, length).unwrap_err()
    }
}
