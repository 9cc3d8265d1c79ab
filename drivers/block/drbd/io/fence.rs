// SPDX-License-Identifier: GPL-2.0

//! Fencing: a Primary that lost its peer has the peer's data outdated before it goes on alone (spec
//! §5.8).

use drbd_engine::{
    config::Fencing,
    state::{
        Aggregate,
        Change,
        ConnState,
        DiskState, //
    },
};
use drbd_sys::{
    kthread::{
        self,
        Thread, //
    },
    log, //
};
use kernel::sync::Arc;

use super::{
    helper,
    resource::Resource,
    state::How, //
};

/// What the helper found out, by its exit code.
#[derive(Clone, Copy)]
enum Verdict {
    /// The peer's data are Inconsistent or worse.
    Inconsistent,
    /// The peer's data were outdated.
    Outdated,
    /// The peer cannot be reached and is taken for dead.
    Unreachable,
    /// The peer is Primary: our data are the outdated ones.
    Active,
    /// The peer was switched off.
    Stonithed,
}

impl Verdict {
    const fn from_exit_code(code: i32) -> Option<Self> {
        Some(match code {
            3 => Self::Inconsistent,
            4 => Self::Outdated,
            5 => Self::Unreachable,
            6 => Self::Active,
            7 => Self::Stonithed,
            _ => return None,
        })
    }

    /// What follows from it, and how the log puts it.
    fn act(self, volumes: &Aggregate) -> (Change, &'static str) {
        let outdated = Change::pdsk(DiskState::Outdated);
        match self {
            Self::Inconsistent => {
                let change = Change::pdsk(DiskState::Inconsistent);
                (change, "peer is inconsistent or worse")
            }
            Self::Outdated => (outdated, "peer was fenced"),
            Self::Unreachable if volumes.highest_disk == DiskState::UpToDate => {
                (outdated, "peer is unreachable, assumed to be dead")
            }
            Self::Unreachable => {
                let why = "peer unreachable, doing nothing since disk != UpToDate";
                (Change::NONE, why)
            }
            Self::Active => (Change::disk(DiskState::Outdated), "peer is active"),
            Self::Stonithed => (outdated, "peer was stonithed"),
        }
    }
}

/// Fences the peer that was just lost, on a thread of its own: the connection is tried again
/// meanwhile. May sleep.
pub(crate) fn fence_lost_peer(resource: &Arc<Resource>) {
    if policy(resource) == Some(Fencing::DontCare) {
        return;
    }
    let mut threads = resource.threads.lock();
    if threads
        .fencer
        .as_ref()
        .is_some_and(|fencer| !fencer.is_finished())
    {
        log!(Warning, resource, "the fence-peer helper runs still");
        return;
    }
    let subject = resource.clone();
    let run = move |_: &kthread::Context| {
        let _ = fence_peer(&subject);
    };
    let spawned = Thread::spawn(resource.environment.module, c"drbd_async_h", run);
    match spawned {
        Ok(fencer) => threads.fencer = Some(fencer),
        Err(error) => log!(
            Error,
            resource,
            "failed to invoke fence-peer helper: {}",
            error.to_errno()
        ),
    }
}

/// Fences the peer of a connection that is down; whether its data are known to be outdated then.
/// May sleep, for as long as the helper takes.
pub(crate) fn fence_peer(resource: &Resource) -> bool {
    if resource.cstate() >= ConnState::WFReportParams {
        log!(Error, resource, "Expected cstate < C_WF_REPORT_PARAMS");
        return false;
    }
    let connect_count = resource.control.lock().connect_count;
    match policy(resource) {
        None => {
            log!(
                Info,
                resource,
                "Not fencing peer, I'm not even Consistent myself."
            );
            let change = Change::NONE.with_susp_fen(false);
            // Refused where nothing is suspended.
            let _ = resource.change_connection(change, How::VERBOSE);
        }
        Some(Fencing::DontCare) => return true,
        Some(policy) => {
            if !ask(resource, policy, connect_count) {
                return false;
            }
        }
    }
    resource.control.lock().aggregate().highest_pdsk <= DiskState::Outdated
}

/// The strictest policy of the disks with data that are worth it.
fn policy(resource: &Resource) -> Option<Fencing> {
    resource
        .volumes()
        .filter(|device| device.state().disk >= DiskState::Consistent)
        .filter_map(|device| Some(device.local()?.conf().fencing))
        .max_by_key(|policy| policy.number())
}

/// Runs the helper and does what it found; `false` where it is broken.
fn ask(resource: &Resource, policy: Fencing, connect_count: u32) -> bool {
    let status = helper::run_for_resource(resource, "fence-peer");
    let code = (status >> 8) & 0xff;
    let Some(verdict) = Verdict::from_exit_code(code) else {
        log!(
            Error,
            resource,
            "fence-peer helper broken, returned {}",
            code
        );
        return false;
    };
    match verdict {
        Verdict::Active => log!(Warning, resource, "Peer is primary, outdating myself."),
        Verdict::Stonithed if policy != Fencing::ResourceAndStonith => {
            log!(
                Error,
                resource,
                "fence-peer() = 7 && fencing != Stonith !!!"
            );
        }
        _ => {}
    }
    let volumes = resource.control.lock().aggregate();
    let (change, text) = verdict.act(&volumes);
    log!(
        Info,
        resource,
        "fence-peer helper returned {} ({})",
        code,
        text
    );
    let control = resource.control.lock();
    let is_old = control.connect_count != connect_count;
    let is_connecting = control.conn() >= ConnState::WFReportParams || control.is_state_sent();
    drop(control);
    if is_old {
        log!(Info, resource, "Ignoring fence-peer exit code");
    } else if !is_connecting {
        // Refused, and said so, where the state changed meanwhile.
        let _ = resource.change_connection(change, How::VERBOSE);
    }
    true
}
