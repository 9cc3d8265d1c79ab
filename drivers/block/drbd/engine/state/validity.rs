// SPDX-License-Identifier: GPL-2.0

//! Which states a soft change may lead to (spec §4.4, "State validity").

use super::context::Context;
use super::error::StateError;
use super::policy::Fencing;
use super::values::{ConnState, DiskState, Role};
use super::word::State;

/// The first protocol with online verify.
const VERIFY_APV: u32 = 88;

/// Whether a soft change may lead to this state.
///
/// Hard changes, those that only tell what happened, are not asked.
///
/// # Errors
///
/// The first rule that the state breaks.
pub fn is_valid_soft(state: State, context: &Context) -> Result<(), StateError> {
    promotion_is_valid(state, context)?;
    resync_disks_are_valid(state)?;
    verify_is_valid(state, context)?;
    if state.lacks_data() {
        return Err(StateError::NoUpToDateDisk);
    }
    peer_disk_is_known(state)
}

fn promotion_is_valid(state: State, context: &Context) -> Result<(), StateError> {
    let primary = state.role.is_primary();
    if primary && !context.two_primaries {
        if state.peer.is_primary() {
            return Err(StateError::TwoPrimaries);
        }
        if context.highest_peer_role.is_primary() {
            return Err(StateError::OtherVolumePeerPrimary);
        }
    }
    if state.role == Role::Secondary && context.open_count > 0 {
        return Err(StateError::DeviceInUse);
    }
    let alone = primary && state.conn < ConnState::Connected;
    if alone && state.disk < DiskState::UpToDate {
        return Err(StateError::NoUpToDateDisk);
    }
    let fences = context.fencing >= Fencing::ResourceOnly;
    if fences && alone && state.pdsk >= DiskState::DUnknown {
        return Err(StateError::PrimaryNop);
    }
    if primary && state.disk <= DiskState::Inconsistent && state.pdsk <= DiskState::Inconsistent {
        return Err(StateError::NoUpToDateDisk);
    }
    Ok(())
}

fn resync_disks_are_valid(state: State) -> Result<(), StateError> {
    if state.conn > ConnState::Connected {
        if state.disk < DiskState::Inconsistent {
            return Err(StateError::NoLocalDisk);
        }
        if state.pdsk < DiskState::Inconsistent {
            return Err(StateError::NoRemoteDisk);
        }
        if state.disk < DiskState::UpToDate && state.pdsk < DiskState::UpToDate {
            return Err(StateError::NoUpToDateDisk);
        }
    }
    let replicates_from_here = matches!(
        state.conn,
        ConnState::Connected
            | ConnState::WFBitMapS
            | ConnState::SyncSource
            | ConnState::PausedSyncS
    );
    if replicates_from_here && state.disk == DiskState::Outdated {
        return Err(StateError::ConnectedOutdates);
    }
    Ok(())
}

fn verify_is_valid(state: State, context: &Context) -> Result<(), StateError> {
    if state.conn.is_verify() {
        if !context.has_verify_alg {
            return Err(StateError::NoVerifyAlg);
        }
        if context.apv < VERIFY_APV {
            return Err(StateError::NotSupported);
        }
    }
    Ok(())
}

fn peer_disk_is_known(state: State) -> Result<(), StateError> {
    if state.pdsk != DiskState::DUnknown {
        return Ok(());
    }
    if matches!(
        state.conn,
        ConnState::StartingSyncS | ConnState::StartingSyncT
    ) {
        return Err(StateError::NeedConnection);
    }
    if state.conn >= ConnState::Connected {
        return Err(StateError::ConnectedOutdates);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
