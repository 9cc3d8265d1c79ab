// SPDX-License-Identifier: GPL-2.0

//! P_SYNC_PARAM and P_SYNC_PARAM89 in their four generations (Spec §1.8, §1.11).

use super::algorithm::FIELD_SIZE;
use super::{AlgorithmName, Command, PayloadError, Version};
use zerocopy::big_endian::U32;
use zerocopy::FromBytes;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes};

/// The dynamic resync controller, from version 95 on. Values are the peer's, unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controller {
    /// How far the controller plans ahead, in 0.1 s; 0 means a fixed rate.
    pub plan_ahead_ds: u32,
    /// Wanted delay on the way, in 0.1 s.
    pub delay_target_ds: u32,
    /// Wanted amount on the way, in sectors; 0 means by delay.
    pub fill_target_sectors: u32,
    /// The fastest resync, in KiB/s.
    pub max_rate_kib: u32,
}

/// Resync parameters of a volume. Values are the peer's, unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncParam {
    /// The rate of a resync to start with, in KiB/s.
    pub resync_rate_kib: u32,
    /// The hash of online verify, from version 88 on.
    pub verify_algorithm: AlgorithmName,
    /// The hash of checksum-based resync, from version 89 on.
    pub csums_algorithm: AlgorithmName,
    /// The dynamic controller, from version 95 on.
    pub controller: Option<Controller>,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Layout89 {
    resync_rate: U32,
    verify_algorithm: [u8; FIELD_SIZE],
    csums_algorithm: [u8; FIELD_SIZE],
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Layout95 {
    common: Layout89,
    plan_ahead: U32,
    delay_target: U32,
    fill_target: U32,
    max_rate: U32,
}

impl SyncParam {
    /// Bytes of the longest payload.
    pub const MAX_SIZE: usize = 148;

    /// The command that carries the parameters in this version.
    pub const fn command(version: Version) -> Command {
        if version.is_at_least(89) {
            Command::SyncParam89
        } else {
            Command::SyncParam
        }
    }

    /// Reads the payload; `bytes` is all of it.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] where the length does not fit the version or a name does not end.
    pub fn decode(version: Version, bytes: &[u8]) -> Result<Self, PayloadError> {
        match version.number() {
            95.. => Self::decode_95(bytes),
            89..=94 => {
                let wrong = PayloadError::Length {
                    expected: 132,
                    found: bytes.len(),
                };
                Self::from_89(&Layout89::read_from_bytes(bytes).map_err(|_| wrong)?)
            }
            number => Self::decode_old(number == 88, bytes),
        }
    }

    fn decode_95(bytes: &[u8]) -> Result<Self, PayloadError> {
        let wrong = PayloadError::Length {
            expected: Self::MAX_SIZE,
            found: bytes.len(),
        };
        let layout = Layout95::read_from_bytes(bytes).map_err(|_| wrong)?;
        Ok(Self {
            controller: Some(Controller {
                plan_ahead_ds: layout.plan_ahead.get(),
                delay_target_ds: layout.delay_target.get(),
                fill_target_sectors: layout.fill_target.get(),
                max_rate_kib: layout.max_rate.get(),
            }),
            ..Self::from_89(&layout.common)?
        })
    }

    fn from_89(layout: &Layout89) -> Result<Self, PayloadError> {
        Ok(Self {
            resync_rate_kib: layout.resync_rate.get(),
            verify_algorithm: AlgorithmName::from_field(&layout.verify_algorithm)?,
            csums_algorithm: AlgorithmName::from_field(&layout.csums_algorithm)?,
            controller: None,
        })
    }

    fn decode_old(has_name: bool, bytes: &[u8]) -> Result<Self, PayloadError> {
        let wrong = PayloadError::Length {
            expected: 4,
            found: bytes.len(),
        };
        let (rate, name) = U32::read_from_prefix(bytes).map_err(|_| wrong)?;
        let verify_algorithm = if has_name {
            AlgorithmName::from_field(name)?
        } else if name.is_empty() {
            AlgorithmName::NONE
        } else {
            return Err(wrong);
        };
        Ok(Self {
            resync_rate_kib: rate.get(),
            verify_algorithm,
            csums_algorithm: AlgorithmName::NONE,
            controller: None,
        })
    }

    /// Writes the payload to the front of `out`; returns its length in bytes.
    ///
    /// What the version cannot carry is left out; a controller it must carry is zero where none
    /// is set.
    pub fn encode(&self, version: Version, out: &mut [u8; Self::MAX_SIZE]) -> usize {
        let controller = self.controller.unwrap_or(Controller {
            plan_ahead_ds: 0,
            delay_target_ds: 0,
            fill_target_sectors: 0,
            max_rate_kib: 0,
        });
        *out = zerocopy::transmute!(Layout95 {
            common: Layout89 {
                resync_rate: self.resync_rate_kib.into(),
                verify_algorithm: *self.verify_algorithm.field(),
                csums_algorithm: *self.csums_algorithm.field(),
            },
            plan_ahead: controller.plan_ahead_ds.into(),
            delay_target: controller.delay_target_ds.into(),
            fill_target: controller.fill_target_sectors.into(),
            max_rate: controller.max_rate_kib.into(),
        });
        match version.number() {
            95.. => Self::MAX_SIZE,
            89..=94 => 132,
            // The name follows the rate at once, with its NUL: at most 4 + 63 + 1.
            88 => self.verify_algorithm.len().saturating_add(5),
            _ => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> SyncParam {
        SyncParam {
            resync_rate_kib: 20480,
            verify_algorithm: AlgorithmName::new(b"crc32c").unwrap(),
            csums_algorithm: AlgorithmName::new(b"sha1").unwrap(),
            controller: Some(Controller {
                plan_ahead_ds: 20,
                delay_target_ds: 10,
                fill_target_sectors: 100,
                max_rate_kib: 102400,
            }),
        }
    }

    #[test]
    fn every_generation_carries_what_it_knows() {
        let full = parameters();
        let cases = [
            (95, 148, full),
            (
                94,
                132,
                SyncParam {
                    controller: None,
                    ..full
                },
            ),
            (
                88,
                11,
                SyncParam {
                    controller: None,
                    csums_algorithm: AlgorithmName::NONE,
                    ..full
                },
            ),
            (
                87,
                4,
                SyncParam {
                    controller: None,
                    csums_algorithm: AlgorithmName::NONE,
                    verify_algorithm: AlgorithmName::NONE,
                    ..full
                },
            ),
        ];
        for (number, length, expected) in cases {
            let version = Version::new(number).unwrap();
            let mut out = [0; SyncParam::MAX_SIZE];
            assert_eq!(full.encode(version, &mut out), length);
            assert_eq!(SyncParam::decode(version, &out[..length]), Ok(expected));
            assert!(SyncParam::decode(version, &out[..length - 1]).is_err());
        }
    }

    #[test]
    fn an_empty_string_in_version_88_is_refused() {
        let version = Version::new(88).unwrap();
        assert_eq!(SyncParam::decode(version, &[0; 4]), Err(PayloadError::Name));
        assert!(SyncParam::decode(version, &[0; 5]).is_ok());
    }

    #[test]
    fn an_unterminated_name_is_refused() {
        let mut bytes = [0; 148];
        bytes[4..68].fill(b'x');
        assert_eq!(
            SyncParam::decode(Version::MAX, &bytes),
            Err(PayloadError::Name)
        );
    }
}
