// SPDX-License-Identifier: GPL-2.0

//! The end of a connection: everything that waits for the peer ends, and nothing of it is left
//! (Spec §1.25).

use drbd_engine::{
    request::Event,
    state::{
        Change,
        ConnState, //
    },
};
use drbd_sys::{
    kthread::Thread,
    log, //
};
use kernel::sync::Arc;

use super::{
    acks, after,
    bitmap::Which as Pages,
    connection::{
        flag,
        Which, //
    },
    device::Device,
    resource::Resource,
    resync, sender,
    state::{
        How,
        Phase, //
    },
};

impl Resource {
    /// Cleans up after a connection, or an attempt; StandAlone or Unconnected afterwards. On the
    /// receiver, which ends where this says so: by the time it returns the next one may be wanted.
    pub(super) fn disconnect(self: &Arc<Self>, asender: Option<Thread>) -> bool {
        if self.cstate() == ConnState::StandAlone {
            return true;
        }
        let quiet = How {
            verbose: false,
            ..How::HARD
        };
        // Refused where something else was the reason.
        let _ = self.change_connection(Change::conn(ConnState::NetworkFailure), quiet);
        self.close_sockets(asender);
        // An attempt may have failed between sending the state and reporting it; the next one must
        // not be refused for that.
        self.control.lock().clear_state_sent();
        self.wait_for_peer_requests();
        self.connection.epochs.lock().reset();
        self.connection.pages.trim();
        // A write is told done as this node's alone only after that is a generation of its own on
        // disk.
        self.flush_worker();
        sender::drop_queued(self);
        self.end_pending_requests();
        for device in self.volumes() {
            let has_half_a_bitmap = device.peer.lock().forget();
            resync::connection_lost(&device);
            if let Some(local) = device.local() {
                if has_half_a_bitmap {
                    local.bitmap.mark_all_dirty();
                }
                // An error has cost the disk.
                let _ = local.sync(&device);
                let _ = local.bitmap.write(&device, &local, Pages::Dirty);
            }
        }
        log!(Info, self, "Connection closed");
        super::fence::fence_lost_peer(self);
        self.settle()
    }

    /// Nobody sends or receives from here on.
    fn close_sockets(&self, asender: Option<Thread>) {
        let connection = &self.connection;
        connection.interrupt();
        self.waiters.wake_all();
        connection.flags.clear(flag::ASENDER_RUNS);
        if let Some(asender) = asender {
            asender.request_stop();
            connection.asender_wait.wake_all();
            asender.stop();
        }
        let data = connection.data.lock().take();
        let meta = connection.meta.lock().take();
        drop((data, meta));
        connection.expose_socket(Which::Data, None);
        connection.expose_socket(Which::Meta, None);
        connection.set_congested(false);
    }

    /// What the peer asked for is at the disk, or waits for the worker, which also gives back what
    /// was put aside; nobody wants the answers any more.
    fn wait_for_peer_requests(self: &Arc<Self>) {
        let connection = &self.connection;
        let is_idle = || connection.peer_requests.get() == 0 && connection.flushes.get() == 0;
        while !is_idle() {
            connection
                .asender_wait
                .wait_until(|| !connection.done.is_empty() || is_idle());
            acks::settle_done(self);
        }
    }

    /// Requests that wait for the peer end, or are kept where I/O is frozen until the peer is back.
    fn end_pending_requests(&self) {
        if self.volumes().any(|device| device.state().is_suspended()) {
            for device in self.volumes() {
                let restart_is_seen = after::sees_restart(&device);
                let event = Event::ConnectionFrozen { restart_is_seen };
                self.walk_log(event, |own| Arc::ptr_eq(own, &device));
                after::begin_generation_while_suspended(&device);
            }
        } else {
            self.fail_for_lost_connection();
        }
    }

    /// Requests that wait for the peer end without it. May sleep.
    pub(crate) fn fail_for_lost_connection(&self) {
        self.walk_log(Event::ConnectionLost, |_| true);
    }

    /// The same for those of `device` alone, which is about to be removed. May sleep.
    pub(crate) fn fail_requests_of(&self, device: &Arc<Device>) {
        self.walk_log(Event::ConnectionLost, |own| Arc::ptr_eq(own, device));
    }

    /// The peer may have lost what it had been sent of these volumes while I/O was frozen, which it
    /// stays. May sleep.
    pub(crate) fn peer_restarted(&self, is_meant: impl Fn(&Arc<Device>) -> bool) {
        self.walk_log(Event::PeerRestarted, is_meant);
    }

    /// The peer is back: what it may not have got is sent again. May sleep.
    pub(crate) fn resend(&self) {
        self.walk_log(Event::Resend, |_| true);
    }

    /// I/O waited for data, and a disk with them is back. May sleep; on the worker, for which a
    /// handshake waits before the nodes tell each other their state.
    pub(crate) fn restart_at_disk(&self) {
        let event = match self.phase() {
            Phase::Away => Event::DiskReturnedAlone,
            Phase::Meeting => Event::Resend,
            Phase::Connected => Event::DiskReturned,
        };
        self.walk_log(event, |_| true);
    }

    /// I/O goes on, unless it is suspended for another reason: what was done meanwhile ends. May
    /// sleep.
    pub(crate) fn end_held_back(&self) {
        if !self.volumes().any(|device| device.glance().is_suspended()) {
            self.walk_log(Event::Resumed, |_| true);
        }
    }

    /// Tells every request in the log that is of a device that is meant of an event, oldest first.
    fn walk_log(&self, event: Event, is_meant: impl Fn(&Arc<Device>) -> bool) {
        let _one_walk = self.connection.walk.lock();
        {
            let mut log = self.connection.log.lock();
            if event.ends_connection() {
                log.connection_lost();
            }
            log.begin_walk();
        }
        loop {
            let index = self.connection.log.lock().next_of_walk();
            let Some(index) = index else { return };
            if let Some(request) = self.requests.get(index) {
                request.visit(event, &is_meant);
            }
        }
    }

    /// Goes where the next attempt begins, or the end is; whether it was that.
    fn settle(&self) -> bool {
        let quiet = How {
            verbose: false,
            ..How::HARD
        };
        // Refused where the connection is ending.
        let _ = self.change_connection(Change::conn(ConnState::Unconnected), quiet);
        self.cstate() == ConnState::Disconnecting
            && self
                .change_connection(Change::conn(ConnState::StandAlone), How::HARD)
                .is_ok()
    }
}
