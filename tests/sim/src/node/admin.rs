// SPDX-License-Identifier: GPL-2.0

//! What the admin commands, and the changes that both nodes must agree to.

use std::rc::Rc;

use drbd_engine::config::OnIoError;
use drbd_engine::state::promote::{self, Attempt, PromoteStep};
use drbd_engine::state::{
    self, change, needs_peer, Change as Request, ConnState, DiskState, Flags, Role, StateError,
    Success,
};
use drbd_engine::types::VolumeNr;

use super::device::Device;
use super::state::Phase;
use super::{after, fence, resync, Node};
use crate::canary::Canary;
use crate::packet::Packet;
use crate::sim::MS;

/// How long a peer's request waits for the end of a change that was asked for here.
const CROSSING_WAIT_MS: u64 = 1000;
/// Pause before a change that the peer consented to is tried again.
const RETRY_MS: u64 = 100;
/// How long application I/O has to end.
const HOLD_IO_MS: u64 = 10_000;
/// How often it is tried.
const ATTEMPTS_MAX: u32 = 300;

impl Device {
    /// Makes a change of the volume, with the peer's consent where it takes that. What the peer
    /// consents to, and something under way here refuses, is tried again.
    async fn request_state(self: &Rc<Self>, request: Request) -> Result<Success, StateError> {
        let node = self.node();
        let mut consented = false;
        for _ in 0..ATTEMPTS_MAX {
            self.sim.until(|| !node.flags.agreement.get()).await;
            node.flags.agreement.set(true);
            let (answer, consents) = self.agree(request).await;
            node.flags.agreement.set(false);
            self.sim.touch();
            consented |= consents;
            if !consented || answer != Err(StateError::InTransientState) {
                if let (true, Err(error)) = (consents, answer) {
                    self.blame_for_refusal(error);
                }
                return answer;
            }
            self.sim.sleep(self.owner, RETRY_MS * MS).await;
        }
        Err(StateError::InTransientState)
    }

    /// What the peer consented to is refused here: it ended the resync that this node goes on with.
    fn blame_for_refusal(&self, error: StateError) {
        if self.state().conn > ConnState::Connected {
            let mut oracle = self.oracle.borrow_mut();
            oracle.violation(format!("the peer consented, and then: {error}"));
        }
    }

    /// The outcome, and whether the peer was asked and consents.
    async fn agree(self: &Rc<Self>, request: Request) -> (Result<Success, StateError>, bool) {
        let old = self.state();
        let changed = match change(old, request, Flags::SOFT, &self.context()) {
            Ok(changed) => changed,
            Err(error) => return (Err(error), false),
        };
        if !needs_peer(old, changed.new) {
            return (self.change_state(request, Flags::SOFT), false);
        }
        // The peer must not leave a resync by it of which it does not know that it has ended.
        if self.flags.end_untold.get() {
            self.sim.until(|| !self.flags.end_untold.get()).await;
        }
        let node = self.node();
        let answered = &node.flags.change_answer;
        answered.set(None);
        let packet = Packet::ChangeRequest(request.mask, request.val);
        if self.send_data(packet).await.is_ok() {
            self.sim
                .until(|| answered.get().is_some() || self.state().conn < ConnState::Connected)
                .await;
        }
        let answer = answered.take();
        if answer.is_some_and(|code| code < Success::Done.code()) {
            return (Err(StateError::RefusedByPeer), false);
        }
        let changed = self.change_state(request, Flags::SOFT);
        if answer.is_some() && changed.is_err() {
            // The peer has made the change already: tell it how things are.
            self.send_state(self.state()).await;
        }
        (changed, answer.is_some())
    }

    /// The peer asks for a change.
    pub(crate) async fn receive_change_request(self: &Rc<Self>, request: Request) {
        let node = self.node();
        let resolves = node
            .session
            .borrow()
            .as_ref()
            .is_some_and(|session| session.resolver == node.id);
        if !resolves {
            // What the peer asks for may count on its consent to our change, which is on its way.
            self.sim
                .until_timeout(self.owner, CROSSING_WAIT_MS * MS, || {
                    !node.flags.agreement.get() || node.is_interrupted()
                })
                .await;
        }
        let code = if resolves && node.flags.agreement.get() {
            StateError::ConcurrentStateChange.code()
        } else {
            let request = request.convert_peer();
            let changed = if request.wanted_conn() == Some(ConnState::TearDown) {
                let flags = Flags {
                    hard: false,
                    ignore_outdate_failure: true,
                };
                node.change_connection(request, flags)
            } else {
                self.change_state(request, Flags::SOFT)
            };
            changed.map_or_else(StateError::code, Success::code)
        };
        self.send_meta(Packet::ChangeReply(code)).await.ok();
    }

    /// `drbdadm primary [--force]`.
    ///
    /// Applications wait until the metadata say that this node is Primary.
    pub async fn promote(self: &Rc<Self>, force: bool) -> Result<(), StateError> {
        self.gate.set(self.gate.get() + 1);
        let promoted = self.promote_held(force).await;
        self.gate.set(self.gate.get() - 1);
        self.sim.touch();
        promoted
    }

    async fn promote_held(self: &Rc<Self>, force: bool) -> Result<(), StateError> {
        let mut attempt = Attempt::FIRST;
        let forced = loop {
            let answer = self.request_state(attempt.change).await;
            match promote::next(answer, attempt, force, self.state()) {
                PromoteStep::Promoted { forced } => break forced,
                PromoteStep::NothingToDo => return Ok(()),
                PromoteStep::Retry(next) | PromoteStep::LastRequest(next) => {
                    if next.made >= promote::MAX_ATTEMPTS {
                        return Err(StateError::Unknown);
                    }
                    attempt = next;
                    self.sim.sleep(self.owner, 10 * MS).await;
                }
                PromoteStep::WaitForPing(next) => {
                    attempt = next;
                    self.sim.sleep(self.owner, 600 * MS).await;
                }
                PromoteStep::FencePeer(next) => {
                    let error = answer.err().unwrap_or(StateError::Unknown);
                    let fenced = fence::fence_peer(&self.node()).await;
                    (attempt, _) = promote::after_fencing(error, next, fenced, force);
                }
                PromoteStep::Refused(error) => return Err(error),
            }
        };
        if forced {
            self.oracle.borrow_mut().forced(self.node_id);
        }
        self.sim.until(|| self.application_pending.get() == 0).await;
        self.wait_for_peer_writes().await;
        self.flags.discard_my_data.set(false);
        let bitmap_is_zero = self.local().is_some_and(|local| local.uuids().bitmap == 0);
        let begins = promote::starts_new_generation(self.state(), bitmap_is_zero, forced);
        if begins {
            after::new_current_uuid(self).await;
        }
        if let Some(local) = self.local() {
            local.change(|superblock| superblock.uuids.enter_primary());
        }
        self.announce_role(forced || begins).await;
        Ok(())
    }

    /// What the peer wrote may be on its way to this disk still.
    async fn wait_for_peer_writes(self: &Rc<Self>) {
        if self.config.has(Canary::PromotedTooEarly) {
            return;
        }
        let node = self.node();
        let is_over = || node.conn() >= ConnState::WFReportParams || node.peer_requests.get() == 0;
        self.sim
            .until_timeout(self.owner, 30_000 * MS, is_over)
            .await;
    }

    /// `drbdadm secondary`.
    pub async fn demote(self: &Rc<Self>) -> Result<(), StateError> {
        self.gate.set(self.gate.get() + 1);
        let demoted = self.demote_held().await;
        self.gate.set(self.gate.get() - 1);
        self.sim.touch();
        demoted
    }

    async fn demote_held(self: &Rc<Self>) -> Result<(), StateError> {
        if self.is_primary() && !self.config.has(Canary::DemotedWithoutFlush) {
            self.put_on_stable_storage().await;
        }
        if self.is_primary() {
            after::begin_generation_for_demotion(self).await;
        }
        let success = self.request_state(Request::role(Role::Secondary)).await?;
        if self.config.freezes && success == Success::NothingToDo {
            return Ok(());
        }
        self.sim.until(|| self.application_pending.get() == 0).await;
        // What was not acked in time.
        after::begin_generation_for_demotion(self).await;
        if let Some(local) = self.local() {
            local.change(|superblock| superblock.uuids.enter_secondary());
        }
        self.announce_role(false).await;
        Ok(())
    }

    /// Has both nodes flush what was written here, as far as that can be had in time.
    async fn put_on_stable_storage(self: &Rc<Self>) {
        let node = self.node();
        node.log.borrow_mut().close_epoch();
        self.sim.touch();
        self.sim
            .until_timeout(self.owner, 2000 * MS, || {
                self.application_bios.get() == 0 && !node.has_requests(self)
            })
            .await;
        if let Some(local) = self.local() {
            local.flush_data(self).await;
        }
    }

    async fn announce_role(self: &Rc<Self>, with_uuids: bool) {
        if self.state().conn >= ConnState::WFReportParams {
            if with_uuids {
                self.send_uuids(0).await;
            }
            self.send_state(self.state()).await;
        }
        if let Some(local) = self.local() {
            local.sync(self).await;
        }
    }

    /// `drbdadm detach`.
    pub async fn detach(self: &Rc<Self>) -> Result<(), StateError> {
        self.request_state(Request::disk(DiskState::Failed)).await?;
        self.sim
            .until(|| self.state().disk <= DiskState::Diskless)
            .await;
        Ok(())
    }

    /// `drbdadm invalidate` (as target) and `invalidate-remote`.
    pub async fn invalidate(self: &Rc<Self>, own: bool) -> Result<(), StateError> {
        if own && self.state().conn < ConnState::Connected {
            return Err(StateError::NeedConnection);
        }
        let conn = if own {
            ConnState::StartingSyncT
        } else {
            ConnState::StartingSyncS
        };
        self.request_state(Request::conn(conn)).await?;
        let loser = if own { self.node_id } else { 1 - self.node_id };
        self.oracle.borrow_mut().declared_worthless(loser);
        Ok(())
    }

    /// `drbdsetup disk-options --on-io-error`.
    pub fn change_on_io_error(&self, policy: OnIoError) -> Result<(), StateError> {
        self.local().ok_or(StateError::IsDiskless)?;
        self.on_io_error.set(policy);
        Ok(())
    }

    /// `drbdsetup disk-options --al-extents`.
    pub async fn change_al_extents(&self, slots: usize) -> Result<(), StateError> {
        let local = self.local().ok_or(StateError::IsDiskless)?;
        self.gate.set(self.gate.get() + 1);
        let held = self.sim.until_timeout(self.owner, HOLD_IO_MS * MS, || {
            self.application_bios.get() == 0
        });
        let changed = if held.await {
            local.change_log(self, slots).await
        } else {
            Err(StateError::DeviceInUse)
        };
        self.gate.set(self.gate.get() - 1);
        self.sim.touch();
        changed?;
        self.al_slots.set(slots);
        Ok(())
    }
}

impl Node {
    /// `drbdadm suspend-io`.
    pub fn suspend_io(&self) -> Result<(), StateError> {
        self.devices[0].change_state(Request::NONE.with_susp(true), Flags::SOFT)?;
        Ok(())
    }

    /// `drbdadm resume-io`.
    pub async fn resume_io(self: &Rc<Self>) -> Result<(), StateError> {
        for _ in 0..ATTEMPTS_MAX {
            self.sim.until(|| !self.flags.agreement.get()).await;
            match self.phase() {
                Phase::Meeting => self.sim.sleep(self.owner, RETRY_MS * MS).await,
                phase => {
                    self.flags.agreement.set(true);
                    let answer = self.go_on(phase == Phase::Away).await;
                    self.flags.agreement.set(false);
                    self.sim.touch();
                    return answer;
                }
            }
        }
        Err(StateError::InTransientState)
    }

    async fn go_on(self: &Rc<Self>, alone: bool) -> Result<(), StateError> {
        if alone {
            for device in &self.devices {
                let is_due = device.flags.new_current_uuid.replace(false);
                if !state::begins_when_io_goes_on(device.state(), is_due) {
                    continue;
                }
                if device.local().is_some() {
                    after::begin_generation_once(device).await;
                } else {
                    // What is written from now on is nowhere.
                    device.exposed_uuid.set(self.sim.random());
                }
            }
        } else {
            after::settle_generations(self).await;
        }
        let change = Request::susp(false)
            .with_susp_nod(false)
            .with_susp_fen(false);
        self.devices[0].change_state(change, Flags::SOFT)?;
        if alone {
            self.fail_for_lost_connection();
        }
        self.end_held_back();
        Ok(())
    }

    /// `drbdadm connect [--discard-my-data]`.
    pub async fn connect(&self, discard_my_data: bool) -> Result<(), StateError> {
        if self.conn() != ConnState::StandAlone {
            return Err(StateError::Unknown);
        }
        self.configured.set(true);
        for device in &self.devices {
            device.flags.discard_my_data.set(discard_my_data);
            if discard_my_data {
                device.oracle.borrow_mut().declared_worthless(self.id);
            }
        }
        self.flags.split_brain.set(false);
        self.change_connection(Request::conn(ConnState::Unconnected), Flags::SOFT)?;
        Ok(())
    }

    /// `drbdadm disconnect`.
    pub async fn disconnect(&self) -> Result<(), StateError> {
        let request = Request::conn(ConnState::Disconnecting);
        let is_connected = || self.aggregate().lowest_conn >= ConnState::Connected;
        self.sim.until(|| !self.flags.agreement.get()).await;
        self.flags.agreement.set(true);
        if state::connection_needs_peer(self.conn(), request) && is_connected() {
            let answered = &self.flags.change_answer;
            answered.set(None);
            let packet = Packet::ChangeRequest(request.mask, request.val);
            if self.send_data(VolumeNr(0), packet).await.is_ok() {
                self.sim
                    .until_timeout(self.owner, 500 * MS, || {
                        answered.get().is_some() || !is_connected()
                    })
                    .await;
            }
        }
        let changed = self.change_connection(request, Flags::HARD);
        self.flags.agreement.set(false);
        changed?;
        self.sim
            .until(|| self.conn() == ConnState::StandAlone)
            .await;
        Ok(())
    }

    /// `drbdsetup net-options --max-epoch-size`.
    pub fn change_max_epoch_size(&self, writes: u32) -> Result<(), StateError> {
        self.log.borrow_mut().set_max_epoch_size(writes);
        Ok(())
    }

    /// Whether neither data nor resync is on its way.
    pub fn is_quiet(&self) -> bool {
        self.is_idle() && resync::is_quiet(self)
    }
}
