// SPDX-License-Identifier: GPL-2.0

//! What two nodes agree to speak, out of what each can (Spec §1.4).

use crate::wire::{Command, ConnectionFeatures, Features, Header, Version};

/// What we can speak.
pub const OFFER: ConnectionFeatures = ConnectionFeatures {
    protocol_min: Version::MIN.number(),
    protocol_max: Version::MAX.number(),
    feature_flags: Features::OURS.bits(),
};

/// What both nodes speak from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The protocol version.
    pub version: Version,
    /// The optional parts.
    pub features: Features,
}

/// Why the nodes cannot talk. It will not get better by trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeaturesError {
    /// The first packet is another one.
    Command {
        /// Its number.
        found: u16,
    },
    /// The packet is not of the one length it may have.
    Length {
        /// Bytes announced.
        found: u32,
    },
    /// No version is common.
    Incompatible {
        /// The peer's oldest version.
        min: u32,
        /// The peer's newest version.
        max: u32,
    },
}

impl core::fmt::Display for FeaturesError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Command { found } => {
                let name = Command::name_of(found);
                write!(
                    f,
                    "expected ConnectionFeatures packet, received: {name} (0x{found:04x})"
                )
            }
            Self::Length { found } => write!(
                f,
                "expected ConnectionFeatures length: {}, received: {found}",
                ConnectionFeatures::SIZE
            ),
            Self::Incompatible { min, max } => write!(
                f,
                "incompatible DRBD dialects: I support {}-{}, peer supports {min}-{max}",
                Version::MIN,
                Version::MAX
            ),
        }
    }
}

/// Checks the header of the peer's first packet; [`ConnectionFeatures::SIZE`] bytes follow it.
///
/// # Errors
///
/// [`FeaturesError::Command`] and [`FeaturesError::Length`].
pub fn check_header(header: &Header) -> Result<(), FeaturesError> {
    if header.command != Command::ConnectionFeatures.number() {
        return Err(FeaturesError::Command {
            found: header.command,
        });
    }
    if usize::try_from(header.length) != Ok(ConnectionFeatures::SIZE) {
        return Err(FeaturesError::Length {
            found: header.length,
        });
    }
    Ok(())
}

/// Agrees on the newest version that both nodes know, and on what features both have.
///
/// # Errors
///
/// [`FeaturesError::Incompatible`].
pub fn negotiate(peer: &ConnectionFeatures) -> Result<Agreement, FeaturesError> {
    let min = peer.protocol_min;
    let max = if peer.protocol_max == 0 {
        min
    } else {
        peer.protocol_max
    };
    let newest_common = max.min(Version::MAX.number());
    match Version::new(newest_common) {
        Some(version) if min <= Version::MAX.number() => Ok(Agreement {
            version,
            features: Features::from_bits(peer.feature_flags),
        }),
        _ => Err(FeaturesError::Incompatible { min, max }),
    }
}

/// Shows the features of an agreement as the log names them.
#[derive(Clone, Copy, Debug)]
pub struct FeatureNames(pub Features);

impl core::fmt::Display for FeatureNames {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let names = [
            (Features::TRIM, " TRIM"),
            (Features::THIN_RESYNC, " THIN_RESYNC"),
            (Features::WRITE_SAME, " WRITE_SAME"),
            (Features::WRITE_ZEROES, " WRITE_ZEROES"),
        ];
        write!(f, "0x{:x}", self.0.bits())?;
        for (feature, name) in names {
            if self.0.contains(feature) {
                f.write_str(name)?;
            }
        }
        if self.0 == Features::NONE {
            f.write_str(" none")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::VolumeNr;
    use std::format;

    fn agree(min: u32, max: u32, flags: u32) -> Result<(u32, u32), FeaturesError> {
        negotiate(&ConnectionFeatures {
            protocol_min: min,
            protocol_max: max,
            feature_flags: flags,
        })
        .map(|agreement| (agreement.version.number(), agreement.features.bits()))
    }

    #[test]
    fn the_newest_common_version_and_the_common_features_win() {
        assert_eq!(agree(86, 101, 0xf), Ok((101, 0xf)));
        assert_eq!(agree(86, 91, 0), Ok((91, 0)));
        assert_eq!(agree(86, 121, 0x3ff), Ok((101, 0xf)));
        assert_eq!(agree(101, 101, 0x1), Ok((101, 1)));
    }

    #[test]
    fn a_newest_version_of_zero_is_the_oldest() {
        assert_eq!(agree(86, 0, 0), Ok((86, 0)));
        assert!(agree(80, 0, 0).is_err());
    }

    #[test]
    fn nodes_without_a_common_version_part() {
        assert!(agree(80, 85, 0).is_err());
        let error = agree(102, 121, 0).unwrap_err();
        assert_eq!(
            format!("{error}"),
            "incompatible DRBD dialects: I support 86-101, peer supports 102-121"
        );
    }

    #[test]
    fn another_packet_or_length_is_refused() {
        let header = |command, length| Header {
            volume: VolumeNr(0),
            command,
            length,
        };
        assert_eq!(check_header(&header(0xfffe, 72)), Ok(()));
        assert_eq!(
            format!("{}", check_header(&header(0x0b, 72)).unwrap_err()),
            "expected ConnectionFeatures packet, received: ReportProtocol (0x000b)"
        );
        assert_eq!(
            format!("{}", check_header(&header(0xfffe, 8)).unwrap_err()),
            "expected ConnectionFeatures length: 72, received: 8"
        );
    }

    #[test]
    fn feature_names_read_as_in_the_c_drivers_log() {
        assert_eq!(
            format!("{}", FeatureNames(Features::OURS)),
            "0xf TRIM THIN_RESYNC WRITE_SAME WRITE_ZEROES"
        );
        assert_eq!(format!("{}", FeatureNames(Features::NONE)), "0x0 none");
    }
}
