// SPDX-License-Identifier: GPL-2.0

//! The three headers and who may use which (Spec §1.2).

use super::{Command, PacketError, PayloadRule, Socket, Version};
use crate::types::VolumeNr;
use zerocopy::big_endian::{U16, U32};
use zerocopy::FromBytes;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes};

const MAGIC_80: u32 = 0x8374_0267;
const MAGIC_95: u16 = 0x835a;
const MAGIC_100: u32 = 0x8620_ec20;

/// From this payload length on versions 95 to 99 take the header with the long length field.
const LONG_LENGTH: u32 = 32768;

/// Bytes of the longest header.
pub const MAX_SIZE: usize = 16;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The volume the packet is about; 0 where the version has none.
    pub volume: VolumeNr,
    /// The command's number, which need not be one we know.
    pub command: u16,
    /// Bytes of payload that follow the header.
    pub length: u32,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The buffer does not hold exactly [`size`] bytes.
    Length {
        /// Bytes that were given.
        found: usize,
    },
    /// None of the magics that the version allows.
    Magic {
        /// The first four bytes.
        found: u32,
        /// The agreed version.
        version: Version,
    },
    /// The pad of a long header is not zero.
    Pad,
}

impl core::fmt::Display for HeaderError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Length { found } => write!(f, "Header of {found} bytes"),
            Self::Magic { found, version } => {
                write!(
                    f,
                    "Wrong magic value 0x{found:08x} in protocol version {version}"
                )
            }
            Self::Pad => f.write_str("Header padding is not zero"),
        }
    }
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Layout80 {
    magic: U32,
    command: U16,
    length: U16,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Layout95 {
    magic: U16,
    command: U16,
    length: U32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Layout100 {
    magic: U32,
    volume: U16,
    command: U16,
    length: U32,
    pad: U32,
}

/// Bytes of every header in this version.
pub const fn size(version: Version) -> usize {
    if version.has_volumes() {
        16
    } else {
        8
    }
}

/// Reads a header out of exactly [`size`] bytes.
///
/// # Errors
///
/// [`HeaderError`]; the stream is lost then, and the connection with it.
pub fn decode(version: Version, bytes: &[u8]) -> Result<Header, HeaderError> {
    if bytes.len() != size(version) {
        return Err(HeaderError::Length { found: bytes.len() });
    }
    if version.has_volumes() {
        decode_100(version, bytes)
    } else {
        decode_short(version, bytes)
    }
}

fn decode_100(version: Version, bytes: &[u8]) -> Result<Header, HeaderError> {
    let header = Layout100::read_from_bytes(bytes)
        .map_err(|_| HeaderError::Length { found: bytes.len() })?;
    if header.magic != MAGIC_100 {
        return Err(HeaderError::Magic {
            found: header.magic.get(),
            version,
        });
    }
    if header.pad != 0 {
        return Err(HeaderError::Pad);
    }
    Ok(Header {
        volume: VolumeNr(header.volume.get()),
        command: header.command.get(),
        length: header.length.get(),
    })
}

fn decode_short(version: Version, bytes: &[u8]) -> Result<Header, HeaderError> {
    let short = || HeaderError::Length { found: bytes.len() };
    let header = Layout80::read_from_bytes(bytes).map_err(|_| short())?;
    if header.magic == MAGIC_80 {
        return Ok(Header {
            volume: VolumeNr(0),
            command: header.command.get(),
            length: u32::from(header.length.get()),
        });
    }
    let long = Layout95::read_from_bytes(bytes).map_err(|_| short())?;
    if long.magic == MAGIC_95 {
        return Ok(Header {
            volume: VolumeNr(0),
            command: long.command.get(),
            length: long.length.get(),
        });
    }
    Err(HeaderError::Magic {
        found: header.magic.get(),
        version,
    })
}

/// Writes the header that the version demands to the front of `out`; returns its size in bytes.
///
/// Versions below 100 have no volume numbers: `volume` is left out there. A length that the short
/// header cannot hold gets the long one in any version; a peer too old for it has not announced
/// requests of that length, and drops the connection.
pub fn encode(
    version: Version,
    volume: VolumeNr,
    command: Command,
    length: u32,
    out: &mut [u8; MAX_SIZE],
) -> usize {
    if version.has_volumes() {
        *out = zerocopy::transmute!(Layout100 {
            magic: MAGIC_100.into(),
            volume: volume.0.into(),
            command: command.number().into(),
            length: length.into(),
            pad: U32::ZERO,
        });
        return 16;
    }
    let header: [u8; 8] = match u16::try_from(length) {
        Ok(short) if !version.is_at_least(95) || length <= LONG_LENGTH => {
            zerocopy::transmute!(Layout80 {
                magic: MAGIC_80.into(),
                command: command.number().into(),
                length: short.into(),
            })
        }
        _ => zerocopy::transmute!(Layout95 {
            magic: MAGIC_95.into(),
            command: command.number().into(),
            length: length.into(),
        }),
    };
    *out = zerocopy::transmute!([header, [0; 8]]);
    8
}

impl Header {
    /// The command, and what payload it may have, or why the packet must not be here.
    ///
    /// The header's length has been checked against the rule when this returns.
    ///
    /// # Errors
    ///
    /// [`PacketError`], whose [`PacketError::consequence`] says what becomes of the connection.
    pub fn admit(
        &self,
        socket: Socket,
        version: Version,
        features: super::Features,
    ) -> Result<(Command, PayloadRule), PacketError> {
        let unexpected = PacketError::Unexpected {
            socket,
            command: self.command,
        };
        let command = Command::from_u16(self.command).ok_or(unexpected)?;
        let rule = command.payload(socket, version, features)?;
        rule.check(socket, command, self.length)?;
        Ok((command, rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn version(number: u32) -> Version {
        Version::new(number).unwrap()
    }

    fn encoded(version: Version, volume: u16, command: Command, length: u32) -> Vec<u8> {
        let mut out = [0; MAX_SIZE];
        let size = encode(version, VolumeNr(volume), command, length, &mut out);
        out[..size].to_vec()
    }

    #[test]
    fn pings_are_the_interop_vectors() {
        assert_eq!(
            encoded(version(94), 0, Command::Ping, 0),
            [0x83, 0x74, 0x02, 0x67, 0x00, 0x13, 0x00, 0x00]
        );
        assert_eq!(
            encoded(version(100), 0, Command::Ping, 0),
            [0x86, 0x20, 0xec, 0x20, 0, 0, 0, 0x13, 0, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn features_go_out_with_the_header_of_the_assumed_version() {
        assert_eq!(
            encoded(Version::ASSUMED, 0, Command::ConnectionFeatures, 72),
            [0x83, 0x74, 0x02, 0x67, 0xff, 0xfe, 0x00, 0x48]
        );
    }

    #[test]
    fn the_long_length_is_used_from_version_95_above_32_kib() {
        let magic =
            |number, length| encoded(version(number), 0, Command::Data, length)[..2].to_vec();
        assert_eq!(magic(94, 32768 + 24), [0x83, 0x74]);
        assert_eq!(magic(95, 32768), [0x83, 0x74]);
        assert_eq!(magic(95, 32769), [0x83, 0x5a]);
        assert_eq!(magic(100, 32769), [0x86, 0x20]);
    }

    #[test]
    fn eight_byte_headers_take_both_magics_and_long_ones_only_their_own() {
        let long = encoded(version(95), 0, Command::Data, 65536);
        let expected = Header {
            volume: VolumeNr(0),
            command: 0,
            length: 65536,
        };
        assert_eq!(decode(version(86), &long), Ok(expected));
        let mut padded = long.clone();
        padded.resize(16, 0);
        assert!(matches!(
            decode(version(100), &padded),
            Err(HeaderError::Magic { .. })
        ));
    }

    #[test]
    fn a_long_header_whose_pad_is_not_zero_is_refused() {
        let mut bytes = encoded(version(101), 3, Command::Data, 24);
        assert_eq!(decode(version(101), &bytes).unwrap().volume, VolumeNr(3));
        bytes[15] = 1;
        assert_eq!(decode(version(101), &bytes), Err(HeaderError::Pad));
    }

    #[test]
    fn a_buffer_of_the_wrong_size_is_refused() {
        assert_eq!(
            decode(version(101), &[0; 8]),
            Err(HeaderError::Length { found: 8 })
        );
        assert_eq!(
            decode(version(99), &[0; 16]),
            Err(HeaderError::Length { found: 16 })
        );
    }
}
