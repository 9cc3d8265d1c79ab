// SPDX-License-Identifier: GPL-2.0

//! Which net options go together, and which may change while connected (spec §3.5, §3.6).

use super::backend::{InfoText, ResourceSummary};
use drbd_engine::config::{Fencing, NetConf, OnCongestion, Protocol, RetCode};
use drbd_engine::state::ConnState;

/// From this protocol version on the peer can be told of changed options.
const PROTOCOL_UPDATE: u32 = 100;

/// Checks the options for a connection; `old` are those in use, if any.
pub(crate) fn check(
    resource: &ResourceSummary,
    old: Option<&NetConf>,
    new: &NetConf,
    info: &mut InfoText,
) -> Result<(), RetCode> {
    if let Some(old) = old {
        check_change(resource, old, new, info)?;
    }
    if new.two_primaries && new.wire_protocol != Protocol::C {
        return Err(RetCode::NOT_PROTOCOL_C);
    }
    if resource.fences_with_stonith && new.wire_protocol == Protocol::A {
        return Err(RetCode::STONITH_AND_PROTOCOL_A);
    }
    if resource.is_primary && new.discard_my_data {
        return Err(RetCode::DISCARD_IMPOSSIBLE);
    }
    if new.on_congestion != OnCongestion::Block && new.wire_protocol != Protocol::A {
        return Err(RetCode::CONGESTION_NOT_PROTOCOL_A);
    }
    Ok(())
}

fn check_change(
    resource: &ResourceSummary,
    old: &NetConf,
    new: &NetConf,
    info: &mut InfoText,
) -> Result<(), RetCode> {
    let connected = resource.connection_state == ConnState::WFReportParams;
    if connected && resource.agreed_protocol < PROTOCOL_UPDATE {
        let changed = [
            ("protocol", old.wire_protocol != new.wire_protocol),
            (
                "allow-two-primaries",
                old.two_primaries != new.two_primaries,
            ),
            ("data-integrity-alg", old.integrity_alg != new.integrity_alg),
        ];
        if let Some((name, _)) = changed.iter().find(|(_, changed)| *changed) {
            return Err(info.say(
                RetCode::NEED_PROTOCOL_100,
                format_args!(
                    "{name} can not change: the peer speaks protocol version {} only",
                    resource.agreed_protocol
                ),
            ));
        }
    }
    if !new.two_primaries && resource.is_primary && resource.peer_is_primary {
        return Err(RetCode::NEED_ALLOW_TWO_PRIMARIES);
    }
    if resource.resync_runs && old.csums_alg != new.csums_alg {
        return Err(RetCode::CSUMS_RESYNC_RUNNING);
    }
    if resource.verify_runs && old.verify_alg != new.verify_alg {
        return Err(RetCode::VERIFY_RUNNING);
    }
    Ok(())
}

/// Checks that a disk's fencing policy goes with the connection's protocol.
pub(crate) fn check_fencing(fencing: Fencing, net: Option<&NetConf>) -> Result<(), RetCode> {
    match net {
        Some(net) if fencing == Fencing::ResourceAndStonith && net.wire_protocol == Protocol::A => {
            Err(RetCode::STONITH_AND_PROTOCOL_A)
        }
        _ => Ok(()),
    }
}
