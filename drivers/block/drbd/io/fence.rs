// SPDX-License-Identifier: GPL-2.0

//! Runs the helper that fences a lost peer, in a thread of its own (spec §5.8).

use drbd_engine::{
    config::Fencing,
    fencing::{
        self,
        Verdict, //
    },
    state::{
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
    state::How,
    worker::chore, //
};

/// A Primary that has just lost its peer keeps it from going on by itself, if it is configured so.
/// That takes a thread of its own: the connection is tried again meanwhile. May sleep.
pub(crate) fn fence_lost_peer(resource: &Arc<Resource>) {
    if !is_due(resource) || policy(resource) == Some(Fencing::DontCare) {
        return;
    }
    let mut threads = resource.threads.lock();
    threads.fencer_wanted = true;
    if threads.fencer_runs {
        // It asks about a peer that was back meanwhile, and asks again.
        return;
    }
    let subject = resource.clone();
    let run = move |context: &kthread::Context| fence_while_wanted(&subject, context);
    let spawned = Thread::spawn(resource.environment.module, c"drbd_async_h", run);
    match spawned {
        Ok(fencer) => {
            threads.fencer_runs = true;
            threads.fencer = Some(fencer);
        }
        Err(error) => log!(
            Error,
            resource,
            "failed to invoke fence-peer helper: {}",
            error.to_errno()
        ),
    }
}

fn fence_while_wanted(resource: &Arc<Resource>, context: &kthread::Context) {
    loop {
        {
            let mut threads = resource.threads.lock();
            let wanted = core::mem::replace(&mut threads.fencer_wanted, false);
            if !wanted || context.should_stop() {
                threads.fencer_runs = false;
                return;
            }
        }
        if is_due(resource) {
            let _ = fence_peer(resource);
        }
    }
}

fn is_due(resource: &Resource) -> bool {
    let control = resource.control.lock();
    fencing::is_due(control.conn(), &control.aggregate())
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
                Warning,
                resource,
                "Not fencing peer, I'm not even Consistent myself."
            );
            resource.chore(chore::NOT_FENCED);
            return false;
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
    let is_old = resource.control.lock().connect_count != connect_count;
    if is_old {
        log!(Info, resource, "Ignoring fence-peer exit code");
        return true;
    }
    // Refused, and said so, where the state changed meanwhile. A peer that is on its way back tells
    // what it is at by itself.
    let _ = resource.change_connection_if(change, How::VERBOSE, |conn| {
        conn < ConnState::WFReportParams
    });
    true
}
