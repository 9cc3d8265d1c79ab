// SPDX-License-Identifier: GPL-2.0

//! The connection's configuration, and its beginning and end (spec §3.5, §3.6).

use drbd_engine::{
    config::{
        text::{
            Bytes,
            Lossy, //
        },
        NetConf,
        OnCongestion,
        RetCode, //
    },
    state::{
        Change,
        ConnState,
        DiskState,
        StateError,
        Success, //
    },
    wire::Command,
};
use drbd_sys::{
    hash::{
        Hash,
        Hmac, //
    },
    socket::SocketAddr, //
};
use kernel::{
    prelude::*,
    str::CString,
    sync::Arc, //
};

use super::Outcome;
use crate::{
    control::backend::{
        InfoText,
        ResourceId, //
    },
    io::{
        connection::Config,
        limits::COMMAND_WAIT_MS,
        registry::Registry,
        resource::Resource,
        state::How, //
    },
    notify,
};

/// From this protocol version on the peer can be told of changed options.
const PROTOCOL_UPDATE: u32 = 100;

/// The resource whose connection is configured so. May sleep.
pub(super) fn find(registry: &Registry, matches: impl Fn(&Config) -> bool) -> Option<ResourceId> {
    registry.id_where(|resource| {
        resource
            .connection
            .config()
            .is_some_and(|config| matches(&config))
    })
}

/// Whether a connection of another resource is configured so. May sleep.
pub(super) fn other_uses(
    registry: &Registry,
    except: ResourceId,
    matches: impl Fn(&Config) -> bool,
) -> bool {
    let except = registry.resource(except);
    let found = registry.id_where(|resource| {
        let is_excepted = except
            .as_ref()
            .is_some_and(|except| core::ptr::eq(&**except, resource));
        !is_excepted
            && resource
                .connection
                .config()
                .is_some_and(|config| matches(&config))
    });
    found.is_some()
}

/// CONNECT.
pub(super) fn connect(
    registry: &Registry,
    resource: &Arc<Resource>,
    addresses: (&[u8], &[u8]),
    net: &NetConf,
    info: &mut InfoText,
) -> Outcome {
    let connection = &resource.connection;
    if connection.config().is_some() || resource.cstate() != ConnState::StandAlone {
        return Err(RetCode::NET_CONFIGURED);
    }
    check(net, info)?;
    let config = config(addresses, net, info)?;
    resource.ensure_worker().map_err(|_| RetCode::NO_MEMORY)?;
    claim_addresses(registry, resource, &config)?;
    connection.set_config(Some(config));
    connection.set_protocol(net.wire_protocol);
    for device in resource.volumes() {
        device.counters.sent.reset();
        device.counters.received.reset();
    }
    notify::connection_created(resource);
    match resource.change_connection(Change::conn(ConnState::Unconnected), How::VERBOSE) {
        Ok(success) => Ok(success.into()),
        Err(error) => {
            notify::connection_destroyed(resource);
            connection.set_config(None);
            Err(error.into())
        }
    }
}

/// Nobody else may use one of the addresses. Two commands that come at the same time see each other
/// or both refuse, so that no address is ever used twice.
fn claim_addresses(
    registry: &Registry,
    resource: &Arc<Resource>,
    config: &Arc<Config>,
) -> Result<(), RetCode> {
    let id = registry
        .id_of(resource)
        .ok_or(RetCode::RESOURCE_NOT_KNOWN)?;
    resource.connection.set_config(Some(config.clone()));
    let taken = if other_uses(registry, id, |other| other.my_address == config.my_address) {
        RetCode::LOCAL_ADDRESS
    } else if other_uses(registry, id, |other| {
        other.peer_address == config.peer_address
    }) {
        RetCode::PEER_ADDRESS
    } else {
        return Ok(());
    };
    resource.connection.set_config(None);
    Err(taken)
}

#[inline(never)] // All net options are on its stack.
fn config(
    (my_address, peer_address): (&[u8], &[u8]),
    net: &NetConf,
    info: &mut InfoText,
) -> Result<Arc<Config>, RetCode> {
    let local = parse(my_address, info)?;
    let remote = parse(peer_address, info)?;
    let config = Config {
        my_address: address_bytes(my_address)?,
        peer_address: address_bytes(peer_address)?,
        net: net.clone(),
        local,
        remote,
    };
    Arc::new(config, GFP_KERNEL).map_err(|_| RetCode::NO_MEMORY)
}

fn address_bytes<const N: usize>(address: &[u8]) -> Result<Bytes<N>, RetCode> {
    let mut bytes = Bytes::EMPTY;
    let stored = bytes.set(address);
    stored.map_err(|_| RetCode::INVALID_REQUEST)?;
    Ok(bytes)
}

fn parse(address: &[u8], info: &mut InfoText) -> Result<SocketAddr, RetCode> {
    SocketAddr::from_bytes(address).map_err(|_| {
        let text = format_args!("only ipv4 and ipv6 addresses are built into this driver");
        info.say(RetCode::INVALID_REQUEST, text)
    })
}

/// Refuses what is not built and algorithms that the kernel does not know.
fn check(net: &NetConf, info: &mut InfoText) -> Result<(), RetCode> {
    let missing = [
        ("allow-two-primaries", net.two_primaries),
        ("on-congestion", net.on_congestion != OnCongestion::Block),
    ];
    if let Some((name, _)) = missing.iter().find(|(_, wanted)| *wanted) {
        return Err(info.say(
            RetCode::INVALID_REQUEST,
            format_args!("{name} is not built into this driver"),
        ));
    }
    let digests = [
        (net.csums_alg.as_bytes(), RetCode::CSUMS_ALG),
        (net.verify_alg.as_bytes(), RetCode::VERIFY_ALG),
        (net.integrity_alg.as_bytes(), RetCode::INTEGRITY_ALG),
    ];
    for (name, code) in digests {
        with_name(name, |name| Hash::new(name).map(|_| ())).map_err(|_| code)?;
    }
    let secret = net.shared_secret.as_bytes();
    with_name(net.cram_hmac_alg.as_bytes(), |name| {
        Hmac::new(name, secret).map(|_| ())
    })
    .map_err(|_| RetCode::AUTH_ALG)
}

/// CHG_NET_OPTS.
pub(super) fn change_options(
    resource: &Arc<Resource>,
    net: &NetConf,
    info: &mut InfoText,
) -> Outcome {
    let connection = &resource.connection;
    let Some(old) = connection.config() else {
        return Err(no_connection(info));
    };
    check(net, info)?;
    let is_connected = resource.cstate() >= ConnState::WFReportParams;
    if is_connected && net.integrity_alg != old.net.integrity_alg {
        let text = format_args!("data-integrity-alg can not change while connected");
        return Err(info.say(RetCode::INVALID_REQUEST, text));
    }
    let changed = connection.edit_net(|present| {
        // What holds for one connection may have been forgotten since the others were looked at.
        let discards = present.discard_my_data;
        present.clone_from(net);
        present.discard_my_data = discards;
    });
    if !changed.map_err(|_| RetCode::NO_MEMORY)? {
        return Err(no_connection(info));
    }
    if resource.cstate() < ConnState::WFReportParams {
        return Ok(RetCode::NO_ERROR);
    }
    // What cannot be sent has cost the connection.
    if connection.version().is_at_least(PROTOCOL_UPDATE) {
        let _ = resource.send_protocol(Command::ProtocolUpdate);
    }
    for device in resource.volumes() {
        let _ = device.send_sync_param();
    }
    Ok(RetCode::NO_ERROR)
}

fn no_connection(info: &mut InfoText) -> RetCode {
    let text = format_args!("net conf missing, try connect");
    info.say(RetCode::INVALID_REQUEST, text)
}

/// DISCONNECT.
///
/// Waits for what the connection asked of the disks, but not for a disk that hangs: then the
/// command fails, the connection goes on ending by itself, and the command can be given again.
pub(super) fn disconnect(resource: &Arc<Resource>, force: bool, info: &mut InfoText) -> Outcome {
    if resource.cstate() == ConnState::StandAlone {
        return Ok(RetCode::SUCCESS);
    }
    let answer = match force {
        true => resource.change_connection(DISCONNECT, How::HARD),
        false => disconnect_gracefully(resource),
    };
    match answer {
        Ok(_) | Err(StateError::AlreadyStandAlone) => {}
        Err(error) => return Err(error.into()),
    }
    // The receiver is started by the worker, and ends by itself.
    let has_ended = resource.flush_worker_within(COMMAND_WAIT_MS)
        && resource.stop_receiver_within(COMMAND_WAIT_MS);
    if !has_ended {
        let text = format_args!(
            "the connection waits for a backing device that does not answer; it ends when that does"
        );
        return Err(info.say(RetCode::INTERRUPTED, text));
    }
    // Hard, so it is refused only where the connection is StandAlone already.
    let _ = resource.change_connection(Change::conn(ConnState::StandAlone), How::HARD);
    resource.flush_worker_within(COMMAND_WAIT_MS);
    Ok(RetCode::SUCCESS)
}

/// What a forced disconnect does before its turn: whoever waits for the peer need not any more,
/// so that a command which does cannot keep this one.
pub(super) fn hang_up(resource: &Resource) {
    if resource.cstate() > ConnState::StandAlone {
        // Refused where the connection is ending.
        let _ = resource.change_connection(DISCONNECT, How::HARD);
    }
}

const DISCONNECT: Change = Change::conn(ConnState::Disconnecting);

/// Takes leave of the peer; where that is not possible as it is, one of the data is declared
/// outdated.
fn disconnect_gracefully(resource: &Arc<Resource>) -> Result<Success, StateError> {
    match resource.request_connection(DISCONNECT, How::QUIET) {
        // A Primary may go if the peer is outdated by it.
        Err(StateError::PrimaryNop) => {
            let change = DISCONNECT.with_pdsk(DiskState::Outdated);
            match resource.request_connection(change, How::QUIET) {
                Err(StateError::OutdateWithoutConnection) => {
                    resource.request_connection(DISCONNECT, How::VERBOSE)
                }
                answer => answer,
            }
        }
        // The peer refuses if it is Primary with fencing; we may go if we are outdated by it.
        Err(StateError::RefusedByPeer) if resource.cstate() <= ConnState::WFConnection => {
            resource.change_connection(DISCONNECT, How::HARD)
        }
        Err(StateError::RefusedByPeer) => {
            let change = DISCONNECT.with_disk(DiskState::Outdated);
            match resource.request_connection(change, How::QUIET) {
                Err(StateError::IsDiskless | StateError::LowerThanOutdated) => {
                    resource.change_connection(DISCONNECT, How::HARD)
                }
                answer => answer,
            }
        }
        answer => answer,
    }
}

/// Calls `act` with a name as C wants it, unless it is empty.
fn with_name(name: &[u8], act: impl FnOnce(&CStr) -> Result) -> Result {
    if name.is_empty() {
        return Ok(());
    }
    let shown = Lossy(name);
    act(&CString::try_from_fmt(format_args!("{shown}"))?)
}
