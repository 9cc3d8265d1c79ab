// SPDX-License-Identifier: GPL-2.0

//! Whether two nodes are configured alike: P_PROTOCOL and P_PROTOCOL_UPDATE (Spec §1.11).

use crate::wire::{ConnectionFlags, Protocol};

/// The peer's policy "discard-local".
const DISCARD_LOCAL: u32 = 5;
/// The peer's policy "discard-remote".
const DISCARD_REMOTE: u32 = 6;

/// The setting that the nodes do not share. The connection goes to Disconnecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The replication protocol A, B or C.
    Protocol,
    /// after-sb-0pri.
    AfterSb0p,
    /// after-sb-1pri.
    AfterSb1p,
    /// after-sb-2pri.
    AfterSb2p,
    /// Both want to discard their data.
    DiscardMyData,
    /// allow-two-primaries.
    TwoPrimaries,
    /// data-integrity-alg.
    IntegrityAlgorithm,
}

impl Refusal {
    /// The name of the setting in the configuration.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::AfterSb0p => "after-sb-0pri",
            Self::AfterSb1p => "after-sb-1pri",
            Self::AfterSb2p => "after-sb-2pri",
            Self::DiscardMyData => "discard-my-data",
            Self::TwoPrimaries => "allow-two-primaries",
            Self::IntegrityAlgorithm => "data-integrity-alg",
        }
    }
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "incompatible {} settings", self.setting())
    }
}

/// Checks the peer's P_PROTOCOL against what we sent ourselves.
///
/// A peer that passes may still have asked for a dry run, which [`is_dry_run`] tells.
///
/// # Errors
///
/// [`Refusal`] names the first setting that differs.
pub fn check(ours: &Protocol, theirs: &Protocol) -> Result<(), Refusal> {
    let discard = ConnectionFlags::DISCARD_MY_DATA;
    let same = [
        (ours.protocol == theirs.protocol, Refusal::Protocol),
        (
            ours.after_sb_0p == mirrored(theirs.after_sb_0p),
            Refusal::AfterSb0p,
        ),
        (
            ours.after_sb_1p == mirrored(theirs.after_sb_1p),
            Refusal::AfterSb1p,
        ),
        (
            ours.after_sb_2p == mirrored(theirs.after_sb_2p),
            Refusal::AfterSb2p,
        ),
        (
            !(ours.flags.contains(discard) && theirs.flags.contains(discard)),
            Refusal::DiscardMyData,
        ),
        (
            (ours.two_primaries != 0) == (theirs.two_primaries != 0),
            Refusal::TwoPrimaries,
        ),
        (
            ours.integrity_algorithm == theirs.integrity_algorithm,
            Refusal::IntegrityAlgorithm,
        ),
    ];
    for (is_same, refusal) in same {
        if !is_same {
            return Err(refusal);
        }
    }
    Ok(())
}

/// Takes over a peer's P_PROTOCOL_UPDATE: its settings as we have to configure them.
///
/// `integrity_algorithm` is what the peer protects its data with from the next packet on; our own
/// choice is not touched by it.
///
/// # Errors
///
/// [`Refusal`] names a setting whose value means nothing.
pub fn adopt(theirs: &Protocol) -> Result<Protocol, Refusal> {
    let adopted = Protocol {
        after_sb_0p: mirrored(theirs.after_sb_0p),
        after_sb_1p: mirrored(theirs.after_sb_1p),
        after_sb_2p: mirrored(theirs.after_sb_2p),
        flags: ConnectionFlags::default(),
        two_primaries: u32::from(theirs.two_primaries != 0),
        ..*theirs
    };
    if !matches!(adopted.protocol, 1..=3) {
        return Err(Refusal::Protocol);
    }
    if !matches!(adopted.after_sb_0p, 0..=6) {
        return Err(Refusal::AfterSb0p);
    }
    if !matches!(adopted.after_sb_1p, 0 | 7..=10) {
        return Err(Refusal::AfterSb1p);
    }
    if !matches!(adopted.after_sb_2p, 0 | 9 | 10) {
        return Err(Refusal::AfterSb2p);
    }
    Ok(adopted)
}

/// Whether the peer wants to disconnect once the data generations are compared.
pub const fn is_dry_run(theirs: &Protocol) -> bool {
    theirs.flags.contains(ConnectionFlags::DRY_RUN)
}

/// A policy of the peer as we would call it: what is local to it is remote to us.
const fn mirrored(after_sb: u32) -> u32 {
    match after_sb {
        DISCARD_LOCAL => DISCARD_REMOTE,
        DISCARD_REMOTE => DISCARD_LOCAL,
        symmetric => symmetric,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::AlgorithmName;

    fn settings() -> Protocol {
        Protocol {
            protocol: 3,
            after_sb_0p: 3,
            after_sb_1p: 8,
            integrity_algorithm: AlgorithmName::new(b"sha256").unwrap(),
            ..Protocol::default()
        }
    }

    #[test]
    fn equal_settings_pass() {
        assert_eq!(check(&settings(), &settings()), Ok(()));
    }

    #[test]
    fn each_setting_that_differs_is_named() {
        let ours = settings();
        let discarding = Protocol {
            flags: ConnectionFlags::DISCARD_MY_DATA,
            ..ours
        };
        let cases = [
            (
                ours,
                Protocol {
                    protocol: 1,
                    ..ours
                },
                "protocol",
            ),
            (
                ours,
                Protocol {
                    after_sb_0p: 0,
                    ..ours
                },
                "after-sb-0pri",
            ),
            (
                ours,
                Protocol {
                    after_sb_1p: 0,
                    ..ours
                },
                "after-sb-1pri",
            ),
            (
                ours,
                Protocol {
                    after_sb_2p: 9,
                    ..ours
                },
                "after-sb-2pri",
            ),
            (discarding, discarding, "discard-my-data"),
            (
                ours,
                Protocol {
                    two_primaries: 1,
                    ..ours
                },
                "allow-two-primaries",
            ),
            (
                ours,
                Protocol {
                    integrity_algorithm: AlgorithmName::NONE,
                    ..ours
                },
                "data-integrity-alg",
            ),
        ];
        for (ours, theirs, setting) in cases {
            let refusal = check(&ours, &theirs).unwrap_err();
            assert_eq!(
                std::format!("{refusal}"),
                std::format!("incompatible {setting} settings")
            );
        }
    }

    #[test]
    fn one_side_may_discard_its_data() {
        let discarding = Protocol {
            flags: ConnectionFlags::DISCARD_MY_DATA,
            ..settings()
        };
        assert_eq!(check(&discarding, &settings()), Ok(()));
        assert_eq!(check(&settings(), &discarding), Ok(()));
    }

    #[test]
    fn discard_local_here_is_discard_remote_there() {
        let local = Protocol {
            after_sb_0p: DISCARD_LOCAL,
            ..settings()
        };
        let remote = Protocol {
            after_sb_0p: DISCARD_REMOTE,
            ..settings()
        };
        assert_eq!(check(&local, &remote), Ok(()));
        assert_eq!(check(&local, &local), Err(Refusal::AfterSb0p));
        assert_eq!(adopt(&local).unwrap().after_sb_0p, DISCARD_REMOTE);
    }

    #[test]
    fn an_update_with_values_that_mean_nothing_is_refused() {
        let valid = settings();
        assert!(adopt(&valid).is_ok());
        let refused = [
            (
                Protocol {
                    protocol: 0,
                    ..valid
                },
                Refusal::Protocol,
            ),
            (
                Protocol {
                    protocol: 4,
                    ..valid
                },
                Refusal::Protocol,
            ),
            (
                Protocol {
                    after_sb_0p: 7,
                    ..valid
                },
                Refusal::AfterSb0p,
            ),
            (
                Protocol {
                    after_sb_1p: 1,
                    ..valid
                },
                Refusal::AfterSb1p,
            ),
            (
                Protocol {
                    after_sb_2p: u32::MAX,
                    ..valid
                },
                Refusal::AfterSb2p,
            ),
        ];
        for (theirs, refusal) in refused {
            assert_eq!(adopt(&theirs), Err(refusal));
        }
    }
}
