// SPDX-License-Identifier: GPL-2.0

//! What the peer's acks do to our requests (Spec §1.16 to §1.20, §5.6).

use drbd_engine::{
    request::Event,
    state::{
        ConnState,
        StateError,
        Success, //
    },
    transfer_log::BarrierError,
    types::{
        BlockId,
        Sector,
        VolumeNr, //
    },
    wire::{
        check_request,
        header,
        BarrierAck,
        BlockAck,
        Command,
        RequestKind,
        Socket,
        StateReply, //
    },
};
use drbd_sys::{
    log,
    time::monotonic_ns, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::io::{
    connection::flag,
    device::{
        flag as device_flag,
        Device, //
    },
    receiver::{
        note_sequence,
        ConnectionError, //
    },
    request::Request,
    resource::Resource,
    resync::{
        self,
        verify, //
    },
};

/// Writes of the largest epoch whose ack a soft interrupt takes.
const SOFT_EPOCH_MAX: u32 = 64;

/// Handles a packet of the meta socket that is no ping.
pub(super) fn dispatch(
    resource: &Arc<Resource>,
    command: Command,
    volume: VolumeNr,
    payload: &[u8],
) -> Result<(), ConnectionError> {
    match command {
        Command::BarrierAck => barrier_ack(resource, payload),
        Command::StateChangeReply | Command::ConnStateChangeReply => state_reply(resource, payload),
        Command::DelayProbe => Ok(()),
        _ => {
            let Some(device) = resource.volume(volume) else {
                let name = command.name();
                log!(
                    Error,
                    resource,
                    "{} packet for unknown volume {}",
                    name,
                    volume
                );
                return Err(ConnectionError);
            };
            block_ack(resource, &device, command, payload)
        }
    }
}

/// Takes the packets at the start of `bytes` that say that requests are done, as far as they are
/// complete and `budget` goes; returns how many bytes they had. Whatever is wrong with one is left
/// to [`dispatch`]. Any context.
pub(super) fn take_acks(resource: &Arc<Resource>, bytes: &[u8], budget: &mut u32) -> usize {
    let mut rest = bytes;
    while let Some(left) = budget.checked_sub(1) {
        let Some(next) = take_ack(resource, rest) else {
            break;
        };
        *budget = left;
        rest = next;
    }
    bytes.len().saturating_sub(rest.len())
}

/// Takes one packet; returns what follows it, or `None` where it is not to be taken.
fn take_ack<'a>(resource: &Arc<Resource>, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let connection = &resource.connection;
    let (version, features) = (connection.version(), connection.features());
    let (front, rest) = bytes.split_at_checked(header::size(version))?;
    let header = header::decode(version, front).ok()?;
    let (command, _) = header.admit(Socket::Meta, version, features).ok()?;
    let length = usize::try_from(header.length).ok()?;
    let (payload, rest) = rest.split_at_checked(length)?;
    let taken = match command {
        Command::RecvAck | Command::WriteAck | Command::RsWriteAck => {
            let device = resource.volume(header.volume)?;
            take_block_ack(resource, &device, command, payload)
        }
        Command::BarrierAck => {
            let ack = BarrierAck::decode(payload).ok()?;
            ack.set_size <= SOFT_EPOCH_MAX && epoch_acked(resource, &ack).is_ok()
        }
        _ => false,
    };
    taken.then_some(rest)
}

fn take_block_ack(
    resource: &Arc<Resource>,
    device: &Arc<Device>,
    command: Command,
    payload: &[u8],
) -> bool {
    let Ok(ack) = BlockAck::decode(payload) else {
        return false;
    };
    let kind = RequestKind::Discard(resource.connection.features());
    if check_request(ack.sector, ack.size, Sector(device.capacity()), kind).is_err() {
        return false;
    }
    note_sequence(device, ack.seq_num);
    if ack.block_id == BlockId::SYNCER {
        return resync::receive_ack(device, command, ack);
    }
    let request = request_of(resource, &ack);
    let event = event_of(command);
    request
        .zip(event)
        .is_some_and(|(request, event)| request.happens(event))
}

/// The request that an ack is about.
fn request_of<'a>(resource: &'a Resource, ack: &BlockAck) -> Option<&'a Arc<Request>> {
    let log = &resource.connection.log;
    let found = log.lock().lookup(ack.block_id, ack.sector, ack.size);
    resource.requests.get(found.ok()?)
}

/// Remembers that the peer has refused a write, if it has.
fn note_refusal(device: &Device, is_refused: bool) {
    if is_refused {
        device.flags.set(device_flag::PEER_REFUSED);
    }
}

/// What an ack means for its request.
fn event_of(command: Command) -> Option<Event> {
    Some(match command {
        Command::RecvAck => Event::ReceiveAcked,
        Command::WriteAck => Event::WriteAcked { in_sync: false },
        Command::RsWriteAck => Event::WriteAcked { in_sync: true },
        Command::Superseded => Event::ConflictResolved,
        Command::RetryWrite => Event::Postponed,
        Command::NegAck | Command::NegDReply => Event::NegAcked,
        _ => return None,
    })
}

fn malformed(resource: &Resource, why: impl core::fmt::Display) -> ConnectionError {
    log!(Error, resource, "{}", why);
    ConnectionError
}

fn block_ack(
    resource: &Arc<Resource>,
    device: &Arc<Device>,
    command: Command,
    payload: &[u8],
) -> Result<(), ConnectionError> {
    let ack = BlockAck::decode(payload).map_err(|error| malformed(resource, error))?;
    note_sequence(device, ack.seq_num);
    let kind = RequestKind::Discard(resource.connection.features());
    check_request(ack.sector, ack.size, Sector(device.capacity()), kind).map_err(|error| {
        log!(Error, device, "{}: {}", command.name(), error);
        ConnectionError
    })?;
    let is_resync = matches!(
        command,
        Command::NegRsDReply | Command::RsIsInSync | Command::RsCancel
    );
    if is_resync || command == Command::OvResult || ack.block_id == BlockId::SYNCER {
        let is_awaited = match command {
            Command::OvResult => verify::receive_result(device, &ack),
            _ => resync::receive_ack(device, command, ack),
        };
        if is_awaited {
            return Ok(());
        }
        log!(
            Error,
            device,
            "{} for sector {}s, of which no resync knows",
            command.name(),
            ack.sector
        );
        return Err(ConnectionError);
    }
    let Some(event) = event_of(command) else {
        return Err(malformed(
            resource,
            format_args!("{} on meta", command.name()),
        ));
    };
    if command == Command::NegDReply {
        log!(
            Error,
            device,
            "Got NegDReply; Sector {}s, len {}.",
            ack.sector,
            ack.size
        );
    }
    let is_refused = command == Command::NegAck;
    // Before whoever waits for the answer goes on, and when the block is marked: the end of a
    // resync forgets it and counts the bits then.
    note_refusal(device, is_refused);
    match request_of(resource, &ack) {
        Some(request) if request.happens(event) => {
            note_refusal(device, is_refused);
            Ok(())
        }
        Some(_) => {
            log!(
                Error,
                device,
                "{} for sector {}s is out of place",
                command.name(),
                ack.sector
            );
            Err(ConnectionError)
        }
        // Under protocols A and B the request may be gone: its blocks are not on the peer's disk.
        None if is_refused => {
            if let Some(local) = device.local() {
                local.bitmap.set_out_of_sync(ack.sector, ack.size);
            }
            note_refusal(device, is_refused);
            Ok(())
        }
        None => {
            log!(
                Error,
                device,
                "{}: failed to find req 0x{:x}, sector {}s",
                command.name(),
                ack.block_id.0,
                ack.sector
            );
            Err(ConnectionError)
        }
    }
}

/// P_BARRIER_ACK: the peer has every write of an epoch.
fn barrier_ack(resource: &Arc<Resource>, payload: &[u8]) -> Result<(), ConnectionError> {
    let ack = BarrierAck::decode(payload).map_err(|error| malformed(resource, error))?;
    epoch_acked(resource, &ack).map_err(|error| {
        if let Some(error) = error {
            log_bad_barrier_ack(resource, barrier_number(&ack), ack.set_size, error);
        }
        resource.lose_connection(ConnState::ProtocolError);
        ConnectionError
    })
}

fn barrier_number(ack: &BarrierAck) -> u32 {
    u32::from_ne_bytes(ack.cookie.0)
}

/// Lets the writes of an epoch go. Any context.
///
/// # Errors
///
/// What is wrong with the ack; `None` where a write of the epoch is pending, which is in the log
/// then.
fn epoch_acked(resource: &Resource, ack: &BarrierAck) -> Result<(), Option<BarrierError>> {
    let log = &resource.connection.log;
    let number = barrier_number(ack);
    let checked = log.lock().barrier_ack(number, ack.set_size, monotonic_ns());
    checked.map_err(Some)?;
    loop {
        let index = log.lock().next_acked();
        let Some(index) = index else {
            // A flush may have waited for this epoch alone, all of which need not be released: its
            // disk may be given up and not have answered.
            resource.retry_delayed();
            return Ok(());
        };
        let Some(request) = resource.requests.get(index) else {
            continue;
        };
        if !request.happens(Event::BarrierAcked) {
            log!(
                Error,
                resource,
                "BarrierAck #{} while a write of it is pending",
                number
            );
            return Err(None);
        }
    }
}

fn log_bad_barrier_ack(resource: &Resource, number: u32, set_size: u32, error: BarrierError) {
    match error {
        BarrierError::NotExpected => {
            log!(
                Error,
                resource,
                "BAD! BarrierAck #{} received, but no epoch in tl!?",
                number
            );
        }
        BarrierError::WrongEpoch { expected } => {
            log!(
                Error,
                resource,
                "BAD! BarrierAck #{} received, expected #{}!",
                number,
                expected
            );
        }
        BarrierError::WrongSize { expected } => log!(
            Error,
            resource,
            "BAD! BarrierAck #{} received with n_writes={}, expected n_writes={}!",
            number,
            set_size,
            expected
        ),
    }
}

/// P_STATE_CHG_REPLY and P_CONN_ST_CHG_REPLY: whoever asked waits.
fn state_reply(resource: &Resource, payload: &[u8]) -> Result<(), ConnectionError> {
    let reply = StateReply::decode(payload).map_err(|error| malformed(resource, error))?;
    if !resource.connection.flags.any(flag::CHANGE_PENDING) {
        return Ok(());
    }
    let answer = if reply.code >= Success::Done.code() {
        flag::CHANGE_ACCEPTED
    } else {
        let error = StateError::from_code(reply.code);
        let text = error.map_or("Unknown error", StateError::text);
        log!(
            Error,
            resource,
            "Requested state change failed by peer: {} ({})",
            text,
            reply.code
        );
        match error {
            Some(StateError::ConcurrentStateChange) => flag::CHANGE_CONCURRENT,
            _ => flag::CHANGE_REFUSED,
        }
    };
    resource.connection.flags.set(answer);
    resource.waiters.wake_all();
    Ok(())
}
