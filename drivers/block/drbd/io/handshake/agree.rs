// SPDX-License-Identifier: GPL-2.0

//! The first packets on the data socket: what both can speak, and whether the peer is who it says
//! (Spec §1.4, §1.5).

use drbd_engine::{
    handshake::{
        auth::{
            AuthError,
            AwaitChallenge,
            Verdict,
            CHALLENGE_SIZE,
            MAX_CHALLENGE_SIZE, //
        },
        features::{
            check_header,
            negotiate,
            Agreement,
            FeatureNames,
            OFFER, //
        },
    },
    wire::{
        header,
        Command,
        ConnectionFeatures,
        Header,
        Version, //
    },
};
use drbd_sys::{
    hash::{
        Digest,
        Hmac, //
    },
    log, random,
    socket::{
        Reader,
        SendOptions,
        Sender,
        Stall, //
    },
};
use kernel::prelude::*;

use super::{
    with_c_str,
    Config,
    Failure,
    Resource, //
};

/// Bytes of the longest packet of the handshake.
const PACKET_BYTES: usize = header::MAX_SIZE + MAX_CHALLENGE_SIZE;

/// Agrees on a version and features, and stores them.
pub(super) fn features(
    resource: &Resource,
    sender: &mut Sender,
    reader: &mut Reader,
) -> Result<Agreement, Failure> {
    let offer = OFFER.encode();
    send(
        resource,
        sender,
        Version::ASSUMED,
        Command::ConnectionFeatures,
        &offer,
    )?;
    let header = receive_header(resource, reader, Version::ASSUMED)?;
    let give_up = |error| {
        log!(Error, resource, "{}", error);
        Failure::GiveUp
    };
    check_header(&header).map_err(give_up)?;
    let mut payload = [0; ConnectionFeatures::SIZE];
    receive(resource, reader, &mut payload)?;
    let theirs = ConnectionFeatures::decode(&payload).map_err(|_| Failure::GiveUp)?;
    let agreement = negotiate(&theirs).map_err(give_up)?;
    resource
        .connection
        .set_agreed(agreement.version, agreement.features);
    log!(
        Info,
        resource,
        "Handshake successful: Agreed network protocol version {}",
        agreement.version
    );
    log!(
        Info,
        resource,
        "Feature flags enabled on protocol level: {}.",
        FeatureNames(agreement.features)
    );
    Ok(agreement)
}

/// Proves that both nodes know the secret.
pub(super) fn authenticate(
    resource: &Resource,
    config: &Config,
    version: Version,
    sender: &mut Sender,
    reader: &mut Reader,
) -> Result<(), Failure> {
    let result = prove(resource, config, version, sender, reader);
    match result {
        Ok(bytes) => log!(
            Info,
            resource,
            "Peer authenticated using {} bytes HMAC",
            bytes
        ),
        Err(Failure::Retry) => {
            log!(
                Error,
                resource,
                "Authentication of peer failed, trying again."
            );
        }
        Err(_) => log!(Error, resource, "Authentication of peer failed"),
    }
    result.map(|_| ())
}

/// The exchange; returns how many bytes the proofs have.
fn prove(
    resource: &Resource,
    config: &Config,
    version: Version,
    sender: &mut Sender,
    reader: &mut Reader,
) -> Result<usize, Failure> {
    let fail = |error: AuthError| {
        if error != AuthError::Mismatch {
            log!(Error, resource, "{}", error);
        }
        match error.verdict() {
            Verdict::Retry => Failure::Retry,
            Verdict::GiveUp => Failure::GiveUp,
        }
    };
    let mut hmac = hmac_of(resource, config)?;
    let mut random = [0; CHALLENGE_SIZE];
    random::bytes(&mut random);
    let ours = AwaitChallenge::new(random);
    send(
        resource,
        sender,
        version,
        Command::AuthChallenge,
        ours.challenge(),
    )?;
    let header = receive_header(resource, reader, version)?;
    let length = ours.check_header(&header).map_err(fail)?;
    let mut challenge = [0; MAX_CHALLENGE_SIZE];
    let challenge = challenge.get_mut(..length).ok_or(Failure::GiveUp)?;
    receive(resource, reader, challenge)?;
    let challenged = ours.receive(challenge).map_err(fail)?;
    let answer = digest(resource, &mut hmac, challenge)?;
    send(
        resource,
        sender,
        version,
        Command::AuthResponse,
        answer.as_bytes(),
    )?;
    let header = receive_header(resource, reader, version)?;
    let size = hmac.digest_bytes();
    challenged.check_header(&header, size).map_err(fail)?;
    let mut response = [0; MAX_CHALLENGE_SIZE];
    let response = response.get_mut(..size).ok_or(Failure::GiveUp)?;
    receive(resource, reader, response)?;
    let expected = digest(resource, &mut hmac, challenged.challenge())?;
    challenged
        .verify(response, expected.as_bytes())
        .map_err(fail)?;
    Ok(size)
}

fn hmac_of(resource: &Resource, config: &Config) -> Result<Hmac, Failure> {
    let secret = config.net.shared_secret;
    let algorithm = config.net.cram_hmac_alg;
    let made = with_c_str(algorithm.as_bytes(), |name| {
        Hmac::new(name, secret.as_bytes())
    });
    made.map_err(|_| {
        log!(
            Error,
            resource,
            "cram-hmac-alg {} is not available",
            algorithm
        );
        Failure::GiveUp
    })
}

fn digest(resource: &Resource, hmac: &mut Hmac, bytes: &[u8]) -> Result<Digest, Failure> {
    hmac.digest(bytes).map_err(|error| {
        log!(
            Error,
            resource,
            "crypto_hash_digest() failed with {}",
            error.to_errno()
        );
        Failure::GiveUp
    })
}

/// Sends a packet of the handshake, before anybody else has the socket.
pub(super) fn send(
    resource: &Resource,
    sender: &mut Sender,
    version: Version,
    command: Command,
    payload: &[u8],
) -> Result<(), Failure> {
    let mut front = [0; header::MAX_SIZE];
    let length = u32::try_from(payload.len()).map_err(|_| Failure::Retry)?;
    let used = header::encode(version, Default::default(), command, length, &mut front);
    let mut packet = [0; PACKET_BYTES];
    let bytes = Iterator::chain(front.iter().take(used), payload);
    let mut total = 0usize;
    for (to, from) in packet.iter_mut().zip(bytes) {
        *to = *from;
        total = total.saturating_add(1);
    }
    let packet = packet.get(..total).ok_or(Failure::Retry)?;
    sender
        .send(packet, SendOptions::default(), &mut |_| Stall::GiveUp)
        .map_err(|error| {
            log!(
                Warning,
                resource,
                "{} could not be sent: {:?}",
                command.name(),
                error
            );
            Failure::Retry
        })
}

fn receive_header(
    resource: &Resource,
    reader: &mut Reader,
    version: Version,
) -> Result<Header, Failure> {
    let mut bytes = [0; header::MAX_SIZE];
    let bytes = bytes
        .get_mut(..header::size(version))
        .ok_or(Failure::Retry)?;
    receive(resource, reader, bytes)?;
    header::decode(version, bytes).map_err(|error| {
        log!(Error, resource, "{}", error);
        Failure::Retry
    })
}

fn receive(resource: &Resource, reader: &mut Reader, to: &mut [u8]) -> Result<(), Failure> {
    reader.read_exact(to).map_err(|_| {
        log!(Warning, resource, "short read (expected size {})", to.len());
        Failure::Retry
    })
}
