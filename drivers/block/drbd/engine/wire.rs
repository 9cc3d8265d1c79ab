// SPDX-License-Identifier: GPL-2.0

//! The wire protocol, versions 86 to 101: headers, packets and what a peer may put into them.
//!
//! The way of a packet is: read [`header::size`] bytes, [`header::decode`] them, ask
//! [`Header::admit`] what payload may follow, read the rule's fixed part, decode it into its type.
//! Everything here is total: bytes of a peer give a value or an error, never a panic. Nothing
//! sleeps, nothing allocates, so all of it may be called in any context (Spec §1.2, §1.7, §1.8).

/// Makes `decode` and `encode` of a payload whose size never changes out of its wire layout.
///
/// `$packet` converts from and into `$layout`, a zerocopy structure of exactly `$size` bytes.
macro_rules! fixed_payload {
    ($packet:ident, $layout:ident, $size:literal) => {
        impl $packet {
            /// Bytes of this payload on the wire.
            pub const SIZE: usize = $size;

            /// Reads the payload out of exactly [`Self::SIZE`] bytes. Pads are ignored.
            ///
            /// # Errors
            ///
            /// [`PayloadError::Length`] for any other number of bytes.
            pub fn decode(bytes: &[u8]) -> Result<Self, $crate::wire::PayloadError> {
                <$layout as zerocopy::FromBytes>::read_from_bytes(bytes)
                    .map(Self::from)
                    .map_err(|_| $crate::wire::PayloadError::Length {
                        expected: $size,
                        found: bytes.len(),
                    })
            }

            /// The payload as it goes onto the wire. Pads are zero.
            pub fn encode(&self) -> [u8; $size] {
                zerocopy::transmute!($layout::from(*self))
            }
        }
    };
}

mod algorithm;
pub mod bitmap;
mod block;
mod command;
mod data;
mod epoch;
mod features;
pub mod header;
mod protocol;
mod request;
mod rule;
mod sizes;
mod state;
mod sync_param;
mod uuids;
mod version;

pub use algorithm::AlgorithmName;
pub use bitmap::CompressedBitmapHeader;
pub use block::{BlockAck, BlockDescriptor, BlockRequest, VerifyResult};
pub use command::{Command, Scope, Socket};
pub use data::{Data, DataFlags, Trim};
pub use epoch::{Barrier, BarrierAck, BarrierCookie, DelayProbe};
pub use features::{ConnectionFeatures, Features};
pub use header::{Header, HeaderError};
pub use protocol::{ConnectionFlags, Protocol};
pub use request::{check_request, RequestError, RequestKind};
pub use rule::{Consequence, PacketError, PayloadRule, MAX_FIXED_SIZE};
pub use sizes::{QueueLimits, ResizeFlags, Sizes};
pub use state::{StateReply, StateRequest, StateWord};
pub use sync_param::{Controller, SyncParam};
pub use uuids::{SyncUuid, UuidFlags, Uuids};
pub use version::Version;

/// Bytes of the scratch buffer that header, fixed part and digest of any packet fit into, and
/// with its header the largest bitmap packet (Spec §1.2).
pub const SCRATCH_SIZE: u32 = 4096;
/// Longest digest of any hash the kernel offers.
pub const MAX_DIGEST_SIZE: u32 = 64;

/// Why the bytes of a payload are not what their command says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadError {
    /// The payload is shorter or longer than its command and the agreed version allow.
    Length {
        /// Bytes that were expected.
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
    /// An algorithm name is longer than 63 bytes or does not end in a NUL.
    Name,
    /// The pad bits or the encoding of a compressed bitmap are not known.
    Encoding(u8),
}

impl core::fmt::Display for PayloadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Length { expected, found } => {
                write!(
                    f,
                    "unexpected packet size, expected:{expected} received:{found}"
                )
            }
            Self::Name => f.write_str("algorithm name is not terminated"),
            Self::Encoding(byte) => write!(f, "unknown bitmap encoding 0x{byte:02x}"),
        }
    }
}
