// SPDX-License-Identifier: GPL-2.0

//! What becomes of the resync parameters that the peer sends (Spec §1.11).

use crate::wire::{AlgorithmName, Controller, SyncParam, Version};

/// What a node without a disk sends: the defaults.
pub const DEFAULTS: SyncParam = SyncParam {
    resync_rate_kib: 250,
    verify_algorithm: AlgorithmName::NONE,
    csums_algorithm: AlgorithmName::NONE,
    controller: Some(Controller {
        plan_ahead_ds: 20,
        delay_target_ds: 10,
        fill_target_sectors: 100,
        max_rate_kib: 102400,
    }),
};

/// The hashes that both nodes must share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashes {
    /// For online verify.
    pub verify: AlgorithmName,
    /// For checksum-based resync.
    pub csums: AlgorithmName,
}

/// What to take over: the last node that sends its parameters wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// The new resync rate in KiB/s; of no use without a disk.
    pub resync_rate_kib: u32,
    /// The new controller settings, from version 95 on; of no use without a disk.
    pub controller: Option<Controller>,
    /// The new hash for online verify, where it changes. Not having it means Disconnecting.
    pub verify: Option<AlgorithmName>,
    /// The new hash for checksum-based resync, where it changes. Not having it means
    /// Disconnecting.
    pub csums: Option<AlgorithmName>,
}

/// The hash that the nodes do not share. The connection goes to Disconnecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// The name of the setting in the configuration.
    pub setting: &'static str,
    /// What we have.
    pub ours: &'a AlgorithmName,
    /// What the peer has.
    pub theirs: &'a AlgorithmName,
}

impl core::fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            setting,
            ours,
            theirs,
        } = self;
        write!(
            f,
            "Different {setting} settings. me=\"{ours}\" peer=\"{theirs}\""
        )
    }
}

/// Decides what to take over of the peer's parameters.
///
/// A hash that `version` does not carry is left as it is. Numbers are brought into the range that
/// the configuration allows, because they size tables and divide.
///
/// # Errors
///
/// [`Refusal`] where a hash differs while the connection is still shaking hands; later the peer's
/// is taken over.
pub fn adopt<'a>(
    ours: &'a Hashes,
    theirs: &'a SyncParam,
    version: Version,
    is_handshake: bool,
) -> Result<Adoption, Refusal<'a>> {
    let changed = |setting, since, ours: &'a AlgorithmName, theirs: &'a AlgorithmName| {
        if !version.is_at_least(since) || ours == theirs {
            Ok(None)
        } else if is_handshake {
            Err(Refusal {
                setting,
                ours,
                theirs,
            })
        } else {
            Ok(Some(*theirs))
        }
    };
    Ok(Adoption {
        verify: changed("verify-alg", 88, &ours.verify, &theirs.verify_algorithm)?,
        csums: changed("csums-alg", 89, &ours.csums, &theirs.csums_algorithm)?,
        resync_rate_kib: theirs.resync_rate_kib.clamp(1, 4 << 20),
        controller: theirs.controller.map(in_range),
    })
}

fn in_range(controller: Controller) -> Controller {
    Controller {
        plan_ahead_ds: controller.plan_ahead_ds.min(300),
        delay_target_ds: controller.delay_target_ds.clamp(1, 100),
        fill_target_sectors: controller.fill_target_sectors.min(1 << 20),
        max_rate_kib: controller.max_rate_kib.clamp(250, 4 << 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(verify: &[u8], csums: &[u8]) -> Hashes {
        Hashes {
            verify: AlgorithmName::new(verify).unwrap(),
            csums: AlgorithmName::new(csums).unwrap(),
        }
    }

    fn version(number: u32) -> Version {
        Version::new(number).unwrap()
    }

    #[test]
    fn the_peers_rates_are_taken_over() {
        let theirs = SyncParam {
            resync_rate_kib: 20480,
            ..DEFAULTS
        };
        let adoption = adopt(&hashes(b"", b""), &theirs, Version::MAX, true).unwrap();
        assert_eq!(adoption.resync_rate_kib, 20480);
        assert_eq!(adoption.controller, DEFAULTS.controller);
        assert_eq!((adoption.verify, adoption.csums), (None, None));
    }

    #[test]
    fn numbers_out_of_range_are_brought_into_it() {
        let wild = Controller {
            plan_ahead_ds: u32::MAX,
            delay_target_ds: 0,
            fill_target_sectors: u32::MAX,
            max_rate_kib: 0,
        };
        let theirs = SyncParam {
            resync_rate_kib: 0,
            controller: Some(wild),
            ..DEFAULTS
        };
        let adoption = adopt(&hashes(b"", b""), &theirs, Version::MAX, true).unwrap();
        assert_eq!(adoption.resync_rate_kib, 1);
        let tamed = Controller {
            plan_ahead_ds: 300,
            delay_target_ds: 1,
            fill_target_sectors: 1 << 20,
            max_rate_kib: 250,
        };
        assert_eq!(adoption.controller, Some(tamed));
    }

    #[test]
    fn another_hash_ends_the_handshake_and_is_taken_over_later() {
        let theirs = SyncParam {
            verify_algorithm: hashes(b"sha1", b"").verify,
            ..DEFAULTS
        };
        let ours = hashes(b"crc32c", b"");
        let refusal = adopt(&ours, &theirs, Version::MAX, true).unwrap_err();
        assert_eq!(
            std::format!("{refusal}"),
            "Different verify-alg settings. me=\"crc32c\" peer=\"sha1\""
        );
        let adoption = adopt(&ours, &theirs, Version::MAX, false).unwrap();
        assert_eq!(adoption.verify, Some(theirs.verify_algorithm));
        assert_eq!(adoption.csums, None);
    }

    #[test]
    fn a_hash_that_the_version_cannot_carry_is_not_compared() {
        let ours = hashes(b"crc32c", b"sha1");
        let theirs = SyncParam {
            controller: None,
            ..DEFAULTS
        };
        assert!(adopt(&ours, &theirs, version(87), true).is_ok());
        assert_eq!(
            adopt(&ours, &theirs, version(88), true)
                .unwrap_err()
                .setting,
            "verify-alg"
        );
        let agreed = SyncParam {
            verify_algorithm: ours.verify,
            ..theirs
        };
        assert!(adopt(&ours, &agreed, version(88), true).is_ok());
        assert_eq!(
            adopt(&ours, &agreed, version(89), true)
                .unwrap_err()
                .setting,
            "csums-alg"
        );
    }
}
