// SPDX-License-Identifier: GPL-2.0

//! The commands: numbers, names and where each may travel (Spec §1.7).

/// One of the two sockets of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    /// Bulk, ordered data and configuration.
    Data,
    /// Acks, pings and replies to state changes.
    Meta,
}

/// What a command's volume number means, and what an unknown volume does to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The connection as a whole; the volume number is 0 and means nothing.
    Connection,
    /// A volume's parameters. For an unknown volume the payload is drained and ignored with a
    /// warning, because the peer created the volume first.
    Configuration,
    /// A volume. An unknown one drops the connection.
    Volume,
}

macro_rules! commands {
    ($(
        $(#[$doc:meta])*
        $variant:ident = $number:literal, $name:literal, $sockets:ident, $since:literal;
    )*) => {
        /// A command of the wire protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Command {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Command {
            /// Every command, by ascending number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The command with this number, or `None` where 8.4 has none.
            pub const fn from_u16(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The name in kernel logs.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The first protocol version that knows the command.
            pub const fn since(self) -> u32 {
                match self {
                    $(Self::$variant => $since,)*
                }
            }

            const fn sockets(self) -> Sockets {
                match self {
                    $(Self::$variant => Sockets::$sockets,)*
                }
            }
        }
    };
}

/// The sockets a command may come in on.
enum Sockets {
    Data,
    Meta,
    Both,
}

commands! {
    /// A replicated write.
    Data = 0x00, "Data", Data, 86;
    /// The answer to [`Command::DataRequest`].
    DataReply = 0x01, "DataReply", Data, 86;
    /// Resync data.
    RsDataReply = 0x02, "RSDataReply", Data, 86;
    /// The end of an epoch.
    Barrier = 0x03, "Barrier", Data, 86;
    /// A part of the bitmap in plain words.
    Bitmap = 0x04, "ReportBitMap", Data, 86;
    /// Historic, never sent and refused.
    BecomeSyncTarget = 0x05, "BecomeSyncTarget", Data, 86;
    /// Historic, never sent and refused.
    BecomeSyncSource = 0x06, "BecomeSyncSource", Data, 86;
    /// A hint that nothing more is coming for now.
    UnplugRemote = 0x07, "UnplugRemote", Data, 86;
    /// An application's read.
    DataRequest = 0x08, "DataRequest", Data, 86;
    /// A resync read.
    RsDataRequest = 0x09, "RSDataRequest", Data, 86;
    /// Resync parameters up to version 88.
    SyncParam = 0x0a, "SyncParam", Data, 86;
    /// The parameters that both ends must share.
    Protocol = 0x0b, "ReportProtocol", Data, 86;
    /// The generation UUIDs.
    Uuids = 0x0c, "ReportUUIDs", Data, 86;
    /// The sizes of device, disk and requests.
    Sizes = 0x0d, "ReportSizes", Data, 86;
    /// The state word.
    State = 0x0e, "ReportState", Data, 86;
    /// The UUID that a starting resync gives to its target.
    SyncUuid = 0x0f, "ReportSyncUUID", Data, 86;
    /// Handshake: random bytes to authenticate with.
    AuthChallenge = 0x10, "AuthChallenge", Data, 86;
    /// Handshake: the HMAC of the peer's challenge.
    AuthResponse = 0x11, "AuthResponse", Data, 86;
    /// Asks the peer to agree to a change of a volume's state.
    StateChangeRequest = 0x12, "StateChgRequest", Data, 86;
    /// Are you there?
    Ping = 0x13, "Ping", Meta, 86;
    /// I am.
    PingAck = 0x14, "PingAck", Meta, 86;
    /// A write was received (protocol B).
    RecvAck = 0x15, "RecvAck", Meta, 86;
    /// A write is on stable storage (protocol C).
    WriteAck = 0x16, "WriteAck", Meta, 86;
    /// A write is done and its blocks are in sync now.
    RsWriteAck = 0x17, "RSWriteAck", Meta, 86;
    /// A write lost against a concurrent one.
    Superseded = 0x18, "Superseded", Meta, 86;
    /// A write failed, or there is no disk.
    NegAck = 0x19, "NegAck", Meta, 86;
    /// A read failed.
    NegDReply = 0x1a, "NegDReply", Meta, 86;
    /// A resync read failed.
    NegRsDReply = 0x1b, "NegRSDReply", Meta, 86;
    /// All writes of an epoch are done.
    BarrierAck = 0x1c, "BarrierAck", Meta, 86;
    /// The answer to [`Command::StateChangeRequest`].
    StateChangeReply = 0x1d, "StateChgReply", Meta, 86;
    /// Online verify: asks for a block's digest.
    OvRequest = 0x1e, "OVRequest", Data, 88;
    /// Online verify: the digest.
    OvReply = 0x1f, "OVReply", Data, 88;
    /// Online verify: whether the block is in sync.
    OvResult = 0x20, "OVResult", Meta, 88;
    /// A resync read that carries the digest of what is there already.
    CsumRsRequest = 0x21, "CsumRSRequest", Data, 89;
    /// The digests are equal, the blocks are in sync.
    RsIsInSync = 0x22, "CsumRSIsInSync", Meta, 89;
    /// Resync parameters from version 89 on.
    SyncParam89 = 0x23, "SyncParam89", Data, 89;
    /// A part of the bitmap, run-length encoded.
    CompressedBitmap = 0x24, "CBitmap", Data, 90;
    /// Received and ignored, never sent.
    DelayProbe = 0x27, "DelayProbe", Both, 93;
    /// These blocks were written here and not sent.
    OutOfSync = 0x28, "OutOfSync", Data, 96;
    /// A resync read is not answered, its source went Ahead.
    RsCancel = 0x29, "RSCancel", Meta, 96;
    /// Asks the peer to agree to a change of the whole connection's state.
    ConnStateChangeRequest = 0x2a, "conn_st_chg_req", Data, 100;
    /// The answer to [`Command::ConnStateChangeRequest`].
    ConnStateChangeReply = 0x2b, "conn_st_chg_reply", Meta, 100;
    /// A write met a concurrent one and must be sent again.
    RetryWrite = 0x2c, "retry_write", Meta, 100;
    /// As [`Command::Protocol`], to be adopted while connected.
    ProtocolUpdate = 0x2d, "protocol_update", Data, 100;
    /// A replicated discard.
    Trim = 0x31, "Trim", Data, 86;
    /// A resync read that may be answered with [`Command::RsDeallocated`].
    RsThinRequest = 0x32, "rs_thin_req", Data, 86;
    /// The blocks asked for are a hole.
    RsDeallocated = 0x33, "rs_deallocated", Data, 86;
    /// Historic: refused, although [`super::Features::WRITE_SAME`] is agreed.
    WriteSame = 0x34, "WriteSame", Data, 86;
    /// A replicated write-zeroes.
    Zeroes = 0x36, "Zeroes", Data, 86;
    /// The first packet of the meta socket.
    InitialMeta = 0xfff1, "InitialMeta", Meta, 80;
    /// The first packet of the data socket.
    InitialData = 0xfff2, "InitialData", Data, 80;
    /// What a node can speak.
    ConnectionFeatures = 0xfffe, "ConnectionFeatures", Data, 80;
}

impl Command {
    /// The number in the header.
    pub const fn number(self) -> u16 {
        // Lossless: the enum is `repr(u16)`.
        self as u16
    }

    /// The name in kernel logs for a number that need not be a command's.
    pub const fn name_of(number: u16) -> &'static str {
        match Self::from_u16(number) {
            Some(command) => command.name(),
            None => "Unknown",
        }
    }

    /// Whether the command may come in on `socket`.
    pub const fn travels_on(self, socket: Socket) -> bool {
        matches!(
            (self.sockets(), socket),
            (Sockets::Both, _) | (Sockets::Data, Socket::Data) | (Sockets::Meta, Socket::Meta)
        )
    }

    /// What the volume number in the header means.
    pub const fn scope(self) -> Scope {
        match self {
            Self::Ping
            | Self::PingAck
            | Self::Barrier
            | Self::BarrierAck
            | Self::Protocol
            | Self::ProtocolUpdate
            | Self::ConnStateChangeRequest
            | Self::ConnStateChangeReply
            | Self::AuthChallenge
            | Self::AuthResponse
            | Self::DelayProbe
            | Self::InitialMeta
            | Self::InitialData
            | Self::ConnectionFeatures => Scope::Connection,
            Self::SyncParam | Self::SyncParam89 | Self::Sizes | Self::Uuids | Self::State => {
                Scope::Configuration
            }
            _ => Scope::Volume,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_commands_are_each_others_inverse() {
        for command in Command::ALL {
            assert_eq!(Command::from_u16(command.number()), Some(*command));
        }
        let known = (0..=u16::MAX)
            .filter(|number| Command::from_u16(*number).is_some())
            .count();
        assert_eq!(known, Command::ALL.len());
    }

    #[test]
    fn protocol_d_and_drbd_9_commands_are_unknown() {
        for number in [0x25, 0x26, 0x2e, 0x2f, 0x30, 0x35, 0x40, 0x59, 0x100] {
            assert_eq!(Command::from_u16(number), None);
        }
    }

    #[test]
    fn acks_travel_on_meta_only_and_delay_probes_on_both() {
        assert!(Command::WriteAck.travels_on(Socket::Meta));
        assert!(!Command::WriteAck.travels_on(Socket::Data));
        assert!(Command::DelayProbe.travels_on(Socket::Meta));
        assert!(Command::DelayProbe.travels_on(Socket::Data));
    }
}
