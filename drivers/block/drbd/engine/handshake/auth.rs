// SPDX-License-Identifier: GPL-2.0

//! Mutual authentication by a shared secret (Spec §1.5).
//!
//! Each side sends a challenge, answers the peer's with its HMAC, and checks the peer's answer.
//! The shell draws the random bytes and computes the HMACs; the order of things, the lengths and
//! the comparison are here. Each step is a type of its own that the one before turns into, so no
//! step can be left out:
//!
//! 1. [`AwaitChallenge`]: send [`AwaitChallenge::challenge`], read the peer's challenge;
//! 2. [`AwaitResponse`]: send the HMAC of the peer's challenge, read the peer's response;
//! 3. [`AwaitResponse::verify`] compares it with the HMAC of our own challenge.

use crate::wire::{Command, Header};

/// Bytes of the challenges that we send, and of the shortest that we take.
pub const CHALLENGE_SIZE: usize = 64;
/// Bytes of the longest challenge that we take.
pub const MAX_CHALLENGE_SIZE: usize = 2 * CHALLENGE_SIZE;

/// What a failed authentication does to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Clean up and try again.
    Retry,
    /// Give up: the connection ends StandAlone.
    GiveUp,
}

/// Why the peer is not authentic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// Another packet came in place of the challenge; a peer without a secret does so.
    NoChallenge {
        /// Its number.
        found: u16,
    },
    /// The challenge is too long.
    ChallengeTooBig,
    /// The challenge is too short.
    ChallengeTooSmall,
    /// The peer sent our own challenge back to have us answer it.
    Reflected,
    /// Another packet came in place of the response.
    NoResponse {
        /// Its number.
        found: u16,
    },
    /// The response is not as long as the hash's digest.
    ResponseSize,
    /// The response is wrong: the peer does not know the secret.
    Mismatch,
}

impl AuthError {
    /// What the error does to the connection.
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::NoResponse { .. } | Self::ResponseSize => Verdict::Retry,
            _ => Verdict::GiveUp,
        }
    }
}

impl core::fmt::Display for AuthError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::NoChallenge { found } => {
                let name = Command::name_of(found);
                write!(
                    f,
                    "expected AuthChallenge packet, received: {name} (0x{found:04x})"
                )
            }
            Self::ChallengeTooBig => f.write_str("expected AuthChallenge payload too big."),
            Self::ChallengeTooSmall => f.write_str("AuthChallenge payload too small."),
            Self::Reflected => f.write_str("Peer presented the same challenge!"),
            Self::NoResponse { found } => {
                let name = Command::name_of(found);
                write!(
                    f,
                    "expected AuthResponse packet, received: {name} (0x{found:04x})"
                )
            }
            Self::ResponseSize => f.write_str("expected AuthResponse payload of wrong size"),
            Self::Mismatch => f.write_str("Authentication of peer failed"),
        }
    }
}

/// Our challenge is on its way, the peer's is yet to come.
#[derive(Clone, Copy)]
pub struct AwaitChallenge {
    own: [u8; CHALLENGE_SIZE],
}

impl AwaitChallenge {
    /// Begins with a challenge of cryptographically random bytes.
    pub const fn new(random: [u8; CHALLENGE_SIZE]) -> Self {
        Self { own: random }
    }

    /// Our challenge: the payload of P_AUTH_CHALLENGE.
    pub const fn challenge(&self) -> &[u8; CHALLENGE_SIZE] {
        &self.own
    }

    /// Checks the header of what came; returns how many bytes of challenge follow, at most
    /// [`MAX_CHALLENGE_SIZE`].
    ///
    /// # Errors
    ///
    /// [`AuthError::NoChallenge`], [`AuthError::ChallengeTooBig`],
    /// [`AuthError::ChallengeTooSmall`].
    pub fn check_header(&self, header: &Header) -> Result<usize, AuthError> {
        if header.command != Command::AuthChallenge.number() {
            return Err(AuthError::NoChallenge {
                found: header.command,
            });
        }
        match usize::try_from(header.length) {
            Ok(0..CHALLENGE_SIZE) => Err(AuthError::ChallengeTooSmall),
            Ok(length @ CHALLENGE_SIZE..=MAX_CHALLENGE_SIZE) => Ok(length),
            _ => Err(AuthError::ChallengeTooBig),
        }
    }

    /// Takes the peer's challenge, whose HMAC is to be sent in P_AUTH_RESPONSE.
    ///
    /// # Errors
    ///
    /// [`AuthError::Reflected`], [`AuthError::ChallengeTooSmall`].
    pub fn receive(self, challenge: &[u8]) -> Result<AwaitResponse, AuthError> {
        let front = challenge
            .get(..CHALLENGE_SIZE)
            .ok_or(AuthError::ChallengeTooSmall)?;
        if is_equal(front, &self.own) {
            return Err(AuthError::Reflected);
        }
        Ok(AwaitResponse { own: self.own })
    }
}

/// Our response is on its way, the peer's is yet to come.
#[derive(Clone, Copy)]
pub struct AwaitResponse {
    own: [u8; CHALLENGE_SIZE],
}

impl AwaitResponse {
    /// Our challenge, whose HMAC the peer must answer with.
    pub const fn challenge(&self) -> &[u8; CHALLENGE_SIZE] {
        &self.own
    }

    /// Checks the header of what came; `digest_size` bytes of response follow.
    ///
    /// # Errors
    ///
    /// [`AuthError::NoResponse`], [`AuthError::ResponseSize`].
    pub fn check_header(&self, header: &Header, digest_size: usize) -> Result<(), AuthError> {
        if header.command != Command::AuthResponse.number() {
            return Err(AuthError::NoResponse {
                found: header.command,
            });
        }
        if usize::try_from(header.length) != Ok(digest_size) {
            return Err(AuthError::ResponseSize);
        }
        Ok(())
    }

    /// Compares the peer's response with the HMAC of our own challenge, in constant time.
    ///
    /// # Errors
    ///
    /// [`AuthError::Mismatch`], also where the expected digest is empty.
    pub fn verify(self, response: &[u8], expected: &[u8]) -> Result<(), AuthError> {
        if !expected.is_empty() && is_equal(response, expected) {
            Ok(())
        } else {
            Err(AuthError::Mismatch)
        }
    }
}

/// Whether both are equal, in a time that depends on nothing but their length.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |difference, (a, b)| {
        // Keeps the compiler from leaving the loop at the first difference.
        core::hint::black_box(difference | (a ^ b))
    });
    a.len() == b.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::VolumeNr;

    fn header(command: Command, length: u32) -> Header {
        Header {
            volume: VolumeNr(0),
            command: command.number(),
            length,
        }
    }

    #[test]
    fn a_peer_that_knows_the_secret_passes() {
        let begun = AwaitChallenge::new([1; 64]);
        assert_eq!(
            begun.check_header(&header(Command::AuthChallenge, 64)),
            Ok(64)
        );
        let challenged = begun.receive(&[2; 64]).unwrap();
        assert_eq!(challenged.challenge(), &[1; 64]);
        assert_eq!(
            challenged.check_header(&header(Command::AuthResponse, 32), 32),
            Ok(())
        );
        assert_eq!(challenged.verify(&[7; 32], &[7; 32]), Ok(()));
    }

    #[test]
    fn a_wrong_response_gives_up() {
        let challenged = AwaitChallenge::new([1; 64]).receive(&[2; 64]).unwrap();
        let mut wrong = [7; 32];
        wrong[31] ^= 1;
        let error = challenged.verify(&wrong, &[7; 32]).unwrap_err();
        assert_eq!(
            (error, error.verdict()),
            (AuthError::Mismatch, Verdict::GiveUp)
        );
        assert_eq!(
            challenged.verify(&[7; 31], &[7; 32]),
            Err(AuthError::Mismatch)
        );
        assert_eq!(challenged.verify(&[], &[]), Err(AuthError::Mismatch));
    }

    #[test]
    fn our_own_challenge_thrown_back_gives_up() {
        let begun = AwaitChallenge::new([1; 64]);
        assert_eq!(begun.receive(&[1; 64]).err(), Some(AuthError::Reflected));
        let mut longer = [1; 100];
        longer[99] = 2;
        assert_eq!(begun.receive(&longer).err(), Some(AuthError::Reflected));
    }

    #[test]
    fn challenges_have_64_to_128_bytes() {
        let begun = AwaitChallenge::new([1; 64]);
        let check = |length| begun.check_header(&header(Command::AuthChallenge, length));
        assert_eq!(check(63), Err(AuthError::ChallengeTooSmall));
        assert_eq!(check(128), Ok(128));
        assert_eq!(check(129), Err(AuthError::ChallengeTooBig));
        assert_eq!(check(u32::MAX), Err(AuthError::ChallengeTooBig));
        assert_eq!(
            begun.receive(&[2; 63]).err(),
            Some(AuthError::ChallengeTooSmall)
        );
    }

    #[test]
    fn a_peer_without_a_secret_gives_up_and_a_bad_response_packet_is_tried_again() {
        let begun = AwaitChallenge::new([1; 64]);
        let error = begun
            .check_header(&header(Command::Protocol, 64))
            .unwrap_err();
        assert_eq!(error, AuthError::NoChallenge { found: 0x0b });
        assert_eq!(error.verdict(), Verdict::GiveUp);
        let challenged = begun.receive(&[2; 64]).unwrap();
        for (command, length) in [(Command::AuthResponse, 31), (Command::Protocol, 32)] {
            let error = challenged
                .check_header(&header(command, length), 32)
                .unwrap_err();
            assert_eq!(error.verdict(), Verdict::Retry);
        }
    }
}
