// SPDX-License-Identifier: GPL-2.0

//! The life of one request as a word of bits and the one function that changes it (spec §5.3,
//! §5.6).
//!
//! Local completions, the sender, the receiver of acks and the cleanup after a lost connection all
//! report to the same request at the same time, from interrupt context too. Each of them runs
//! [`apply`] in a compare-exchange loop over the request's atomic word. What must happen in
//! consequence is computed from the old and the new word, so exactly one of them is told to do it.
//!
//! What one of them is told takes it a while, and the next event may be the last. So whoever has
//! something to carry out is counted in the word, and the request stays until all of them have
//! reported by [`settle`]: it is not released before its application was told, nor its slot used
//! again by another request while somebody still acts for this one.

use core::ops::BitOr;

/// The progress of one request: a set of bits that fits an atomic `u32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RequestState(pub u32);

impl RequestState {
    /// The local bio is in flight.
    pub const LOCAL_PENDING: Self = Self(1 << 0);
    /// The local bio came back.
    pub const LOCAL_COMPLETED: Self = Self(1 << 1);
    /// The local part succeeded.
    pub const LOCAL_OK: Self = Self(1 << 2);
    /// The local disk was given up while the bio was in flight; nobody waits for it any more.
    pub const LOCAL_ABORTED: Self = Self(1 << 3);
    /// The peer owes an answer.
    pub const NET_PENDING: Self = Self(1 << 4);
    /// The sender holds the request.
    pub const NET_QUEUED: Self = Self(1 << 5);
    /// The packet was handed to the socket.
    pub const NET_SENT: Self = Self(1 << 6);
    /// Nothing more is to come from the network.
    pub const NET_DONE: Self = Self(1 << 7);
    /// The network part succeeded, as far as the protocol promises.
    pub const NET_OK: Self = Self(1 << 8);
    /// The peer marked the blocks in sync.
    pub const NET_SET_IN_SYNC: Self = Self(1 << 9);
    /// A flush comes before the write.
    pub const FLUSHES_FIRST: Self = Self(1 << 10);
    /// The request changes data: write, discard or write-zeroes.
    pub const WRITE: Self = Self(1 << 11);
    /// The request is an empty flush.
    pub const FLUSH: Self = Self(1 << 12);
    /// A failed read may be tried on the other node (it is no read-ahead), and a failed flush.
    pub const RETRYABLE: Self = Self(1 << 13);
    /// The network part is only the message that the blocks are out of sync.
    pub const OUT_OF_SYNC_ONLY: Self = Self(1 << 14);
    /// The peer asked for the write to be sent again.
    pub const POSTPONED: Self = Self(1 << 17);
    /// Completion is held back while I/O is suspended.
    pub const COMPLETION_SUSPENDED: Self = Self(1 << 18);
    /// Protocol B: a receive ack fulfils the promise.
    pub const EXPECT_RECEIVE_ACK: Self = Self(1 << 19);
    /// Protocol C: a write ack fulfils the promise.
    pub const EXPECT_WRITE_ACK: Self = Self(1 << 20);
    /// The request stays until the barrier ack of its epoch.
    pub const EXPECT_BARRIER_ACK: Self = Self(1 << 21);
    /// The submitter still holds the request.
    pub const SUBMITTING: Self = Self(1 << 22);
    /// The application's bio was ended or handed over to a retry.
    pub const COMPLETED: Self = Self(1 << 23);
    /// Nothing refers to the request any more.
    pub const RELEASED: Self = Self(1 << 24);
    /// The blocks were marked out of sync on behalf of this request.
    pub const MARKED_OUT_OF_SYNC: Self = Self(1 << 25);

    /// The local disk is not UpToDate, so what it holds vouches for no write.
    pub const LOCAL_STALE: Self = Self(1 << 26);
    /// The peer's disk was not UpToDate when it answered: it was the target of a resync, and what
    /// only it has is overwritten by the next one.
    pub const NET_STALE: Self = Self(1 << 27);

    const EMPTY: Self = Self(0);

    /// How many carry out consequences, in the uppermost bits.
    const BUSY: Self = Self(0xf << 28);
    const BUSY_ONE: u32 = 1 << 28;

    /// Whether every bit of `bits` is set.
    pub const fn has(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }

    /// Whether one of `bits` is set.
    pub const fn has_any(self, bits: Self) -> bool {
        self.0 & bits.0 != 0
    }

    /// Whether the application is told success: one of the copies has, or delivered, the data (spec
    /// §5.3).
    ///
    /// A write that only an outdated disk has would be overwritten by the next resync.
    pub const fn is_ok(self) -> bool {
        let remotely = self.has(Self::NET_OK) && !self.is_doubtful(Self::NET_STALE);
        let locally = self.has(Self::LOCAL_OK) && !self.is_doubtful(Self::LOCAL_STALE);
        remotely || locally
    }

    const fn is_doubtful(self, stale: Self) -> bool {
        self.is_data_write() && self.has(stale)
    }

    /// Whether the application was told that a write is done which the peer may not have flushed.
    const fn is_unflushed_by_peer(self) -> bool {
        let told = Self(Self::COMPLETED.0 | Self::NET_OK.0);
        self.is_data_write() && self.has(told) && !self.has(Self::NET_DONE)
    }

    /// Whether this node's disk did not do its part, if it had one.
    const fn failed_here(self) -> bool {
        self.has_any(Self(Self::LOCAL_COMPLETED.0 | Self::LOCAL_ABORTED.0))
            && !self.has(Self::LOCAL_OK)
    }

    /// Whether this node's disk, which was good, made a flush of what it had when this began.
    const fn has_flushed_here(self) -> bool {
        self.has_any(Self(Self::FLUSH.0 | Self::FLUSHES_FIRST.0))
            && self.has(Self::LOCAL_OK)
            && !self.has(Self::LOCAL_STALE)
    }

    /// Whether the peer does not have the data, and will not get it by this request.
    const fn is_lost_to_peer(self) -> bool {
        let on_its_way = self.has_any(Self(Self::NET_PENDING.0 | Self::NET_QUEUED.0));
        !self.has(Self::NET_OK)
            && (self.has(Self::NET_DONE) || self.has(Self::OUT_OF_SYNC_ONLY) || !on_its_way)
    }

    const fn without(self, bits: Self) -> Self {
        Self(self.0 & !bits.0)
    }

    /// The same with what the present state of the local disk means for it, until it is over.
    const fn judged_by(self, context: Context) -> Self {
        if self.has(Self::COMPLETED) {
            self
        } else if context.local_is_current {
            self.without(Self::LOCAL_STALE)
        } else {
            Self(self.0 | Self::LOCAL_STALE.0)
        }
    }

    const fn is_data_write(self) -> bool {
        self.has(Self::WRITE) && !self.has(Self::FLUSH)
    }

    const fn is_on_both(self) -> bool {
        self.has(Self(Self::LOCAL_OK.0 | Self::NET_OK.0))
    }

    const fn is_in_sync(self) -> bool {
        self.is_data_write() && self.is_on_both() && self.has(Self::NET_SET_IN_SYNC)
    }

    /// Written to the socket and not known to be on the peer's disk (`ap_in_flight`).
    const fn is_in_flight(self) -> bool {
        self.is_data_write() && self.has(Self::NET_SENT) && !self.has(Self::NET_DONE)
    }

    /// Whether neither a part nor the submitter keeps the application's bio from ending.
    ///
    /// The message that blocks are out of sync is none of the application's business: it is sent
    /// because the link is congested.
    const fn may_complete(self) -> bool {
        let held = Self::NET_PENDING.0 | Self::COMPLETION_SUSPENDED.0 | Self::SUBMITTING.0;
        let local_done = !self.has(Self::LOCAL_PENDING) || self.has(Self::LOCAL_ABORTED);
        let data_queued = self.has(Self::NET_QUEUED) && !self.has(Self::OUT_OF_SYNC_ONLY);
        !self.has_any(Self(held)) && local_done && !data_queued
    }

    /// One more carries out consequences. Those who can are fewer than fit; a request with more
    /// would stay for ever.
    const fn entered(self) -> Self {
        if self.has(Self::BUSY) {
            self
        } else {
            Self(self.0.wrapping_add(Self::BUSY_ONE))
        }
    }

    const fn left(self) -> Self {
        if self.has(Self::BUSY) || !self.has_any(Self::BUSY) {
            self
        } else {
            Self(self.0.wrapping_sub(Self::BUSY_ONE))
        }
    }

    /// Whether this node's disk refused what is admitted again, and whether the peer did. What
    /// was not sent nobody refused, nor what is written again.
    pub const fn refused_by(self) -> (bool, bool) {
        let locally = self.failed_here();
        let remotely = !locally && self.has(Self::NET_SENT);
        let counts = !self.is_data_write();
        (counts && locally, counts && remotely)
    }

    /// Whether the application is not told although everything else is there.
    pub const fn is_held_back(self) -> bool {
        self.has(Self::COMPLETION_SUSPENDED) && !self.has(Self::COMPLETED)
    }

    const fn may_release(self) -> bool {
        let held =
            Self::LOCAL_PENDING.0 | Self::NET_PENDING.0 | Self::NET_QUEUED.0 | Self::SUBMITTING.0;
        self.has(Self::COMPLETED)
            && !self.has_any(Self(held | Self::BUSY.0))
            && (!self.has(Self::EXPECT_BARRIER_ACK) || self.has(Self::NET_DONE))
    }
}

impl BitOr for RequestState {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What happened to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The submitter is through with the request.
    SubmitterDone,
    /// The local bio succeeded.
    LocalOk,
    /// The local bio failed.
    LocalFailed,
    /// The disk is given up by force; do not wait for the local bio (spec §5.7).
    LocalAborted,
    /// The packet, of whatever kind, was handed to the socket.
    HandedOver,
    /// The sender dropped the request without sending it, or failed to send it.
    NotSent,
    /// P_RECV_ACK arrived.
    ReceiveAcked,
    /// P_WRITE_ACK or P_RS_WRITE_ACK arrived; the latter says that the peer set the blocks in sync.
    WriteAcked {
        /// The peer set the blocks in sync.
        in_sync: bool,
    },
    /// P_NEG_ACK or P_NEG_DREPLY arrived: the peer failed.
    NegAcked,
    /// P_SUPERSEDED arrived, or the write that a postponed one had to wait for is done (spec
    /// §1.18).
    ConflictResolved,
    /// P_RETRY_WRITE arrived (spec §1.18).
    Postponed,
    /// The barrier ack of the request's epoch arrived.
    BarrierAcked,
    /// P_DATA_REPLY arrived and its data is in the application's pages.
    DataReceived,
    /// The connection is gone, the peer's answer will never come.
    ConnectionLost,
    /// The connection is gone while I/O is suspended: what the peer is not known to have, should it
    /// come back, is sent again or marked out of sync.
    ConnectionFrozen {
        /// A peer that was restarted is known as such when it is back: what it acked counts until
        /// then.
        restart_is_seen: bool,
    },
    /// The peer is back after [`Event::ConnectionFrozen`], and was restarted: what it may have lost
    /// is marked out of sync, and what neither copy has is admitted again when I/O goes on.
    PeerRestarted,
    /// The connection is back after [`Event::ConnectionFrozen`] to a peer that was not restarted,
    /// or another disk is: what failed meanwhile is admitted again.
    Resend,
    /// I/O goes on, if the context says so; nothing changed for the request.
    Resumed,
    /// I/O was suspended for want of data, and a disk with them is back, while the connection is
    /// the one that the request was sent by: what neither copy has is admitted again.
    DiskReturned,
    /// The same after [`Event::ConnectionFrozen`], without a connection.
    DiskReturnedAlone,
}

impl Event {
    /// Whether no answer comes by the connection that requests were sent by.
    pub const fn ends_connection(self) -> bool {
        matches!(
            self,
            Self::ConnectionLost | Self::ConnectionFrozen { .. } | Self::DiskReturnedAlone
        )
    }
}

/// Facts beside the request that [`apply`] needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// I/O of the device is suspended: hold back completions (spec §5.3).
    pub suspended: bool,
    /// Every write to the device that was admitted since this one was sent was mirrored as well.
    ///
    /// The answer to a write that the application was told about long ago (protocols A and B) may
    /// come after a later write to the same blocks that the peer never got; its blocks must not be
    /// called in sync then. A counter per device, stepped when mirroring ends and compared with its
    /// value at admission, answers this.
    pub mirrored_since_sent: bool,
    /// The local disk is UpToDate. While it is the target of a resync, only the peer's copy counts.
    pub local_is_current: bool,
    /// The peer's disk is UpToDate. While it is the target of a resync, only the local copy counts.
    pub peer_is_current: bool,
    /// The peer's disk is known not to be UpToDate: the next resync overwrites what only it has.
    pub peer_is_stale: bool,
}

/// What the caller of [`apply`] has to do, each told to one caller only: in the order of the
/// constants, but what is to be remembered of a disk before the application is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consequences(u32);

impl Consequences {
    /// Nothing to do.
    pub const NONE: Self = Self(0);
    /// The peer's packet makes no sense for this request; the word did not change. Drop the
    /// connection.
    pub const PROTOCOL_ERROR: Self = Self(1 << 0);
    /// Mark the blocks out of sync.
    pub const SET_OUT_OF_SYNC: Self = Self(1 << 1);
    /// Mark the fully covered blocks in sync.
    pub const SET_IN_SYNC: Self = Self(1 << 2);
    /// If the request belongs to the current epoch, close it: what the application writes from now
    /// on may depend on this write.
    pub const CLOSE_EPOCH: Self = Self(1 << 3);
    /// The local bio came back (local request count, `disk-timeout`).
    pub const LOCAL_ENDED: Self = Self(1 << 4);
    /// The peer's answer is no longer awaited (`ap_pending`, `ko-count`).
    pub const ANSWERED: Self = Self(1 << 5);
    /// The peer's answer is awaited again.
    pub const UNANSWERED: Self = Self(1 << 6);
    /// Add the request's size to the sectors in flight to the peer.
    pub const ADD_IN_FLIGHT: Self = Self(1 << 7);
    /// Subtract the request's size from the sectors in flight to the peer.
    pub const SUB_IN_FLIGHT: Self = Self(1 << 8);
    /// Give the request to the sender again.
    pub const QUEUE: Self = Self(1 << 9);
    /// End the application's bio: success if [`RequestState::is_ok`]. Let waiting overlapping
    /// requests go first.
    pub const COMPLETE: Self = Self(1 << 10);
    /// Do not end the application's bio but admit it again, as a new request.
    pub const RETRY: Self = Self(1 << 11);
    /// Nothing refers to the request any more: take it out of the tables, release its activity log
    /// reference, free it.
    pub const RELEASE: Self = Self(1 << 12);
    /// Report by [`settle`] when all else is carried out. If completions may go on since the
    /// context was looked at, let [`Event::Resumed`] happen before.
    pub const SETTLE: Self = Self(1 << 13);
    /// The application was told that a write is done which only the peer has, and the connection is
    /// lost before the peer has said that it is on stable storage. No flush that comes later says
    /// anything about it: the peer may have lost it with its power, and this node's disk, synced
    /// from the peer, never gets it. So the next one fails, whoever is to make it. The C driver
    /// does not flush at all.
    pub const STABILITY_LOST: Self = Self(1 << 14);
    /// This node's disk, which is good, made a flush, and what the application was told done before
    /// the peer was lost was there when it began: [`Self::PEER_UNFLUSHED`] is over.
    pub const FLUSHED: Self = Self(1 << 15);
    /// As [`Self::STABILITY_LOST`], but this node's good disk has the write too. The next flush
    /// fails if that disk does not make it; a disk that comes into use later makes it
    /// [`Self::STABILITY_LOST`]. It is over when this disk has flushed, or the peer is synced from
    /// it.
    pub const PEER_UNFLUSHED: Self = Self(1 << 16);
    /// The application is about to be told that a write is done which this node's disk did not
    /// take, and the disk is good still: when the error was judged the peer's was not, so that this
    /// one was the best there was. It is to be judged again, as one that lacks what the peer has.
    pub const DISK_LACKS: Self = Self(1 << 17);
    /// The application is told that a write is done which only this node's disk has, or it was told
    /// so and the peer refuses it, or is lost and need not have got it (protocol A). Should that
    /// disk be lost too, the users must not be given the peer's data, unless that was synced from
    /// here since.
    pub const TOLD_ALONE: Self = Self(1 << 18);

    /// Whether `consequence` is among them.
    pub const fn has(self, consequence: Self) -> bool {
        self.0 & consequence.0 == consequence.0
    }

    /// Whether there is nothing to do.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    fn add_if(&mut self, condition: bool, consequence: Self) {
        if condition {
            self.0 |= consequence.0;
        }
    }
}

impl BitOr for Consequences {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The bits that an event clears, then sets.
struct Step {
    clear: RequestState,
    set: RequestState,
}

impl Step {
    const NOTHING: Self = Self::clear(RequestState::EMPTY);

    const fn clear(clear: RequestState) -> Self {
        Self {
            clear,
            set: RequestState::EMPTY,
        }
    }

    const fn set(set: RequestState) -> Self {
        Self {
            clear: RequestState::EMPTY,
            set,
        }
    }

    const fn and_set(self, set: RequestState) -> Self {
        Self {
            clear: self.clear,
            set: RequestState(self.set.0 | set.0),
        }
    }

    const fn and_clear(self, clear: RequestState) -> Self {
        Self {
            clear: RequestState(self.clear.0 | clear.0),
            set: self.set,
        }
    }
}

/// Moves a request along: the new word, and what its caller has to do if it is the one who stores
/// it.
///
/// Pure; for a compare-exchange loop in any context, where the context is looked at after the old
/// word was. Events that come too late (the local bio of a
/// released request cannot, an ack after the connection was lost can) change nothing.
pub fn apply(old: RequestState, event: Event, context: Context) -> (RequestState, Consequences) {
    if old.has(RequestState::RELEASED) {
        return (old, Consequences::NONE);
    }
    let judged = old.judged_by(context);
    let Some(step) = step(judged, event, context) else {
        return (old, Consequences::PROTOCOL_ERROR);
    };
    let mut new = judged.without(step.clear) | step.set;
    if !old.has(RequestState::NET_OK) && new.has(RequestState::NET_OK) && !context.peer_is_current {
        new = new | RequestState::NET_STALE;
    }
    if context.suspended && !ends_suspension(event) && !old.has(RequestState::COMPLETED) {
        new = new | RequestState::COMPLETION_SUSPENDED;
    }
    let mut todo = Consequences::NONE;
    if !new.has(RequestState::COMPLETED) && new.may_complete() {
        new = new | RequestState::COMPLETED;
        // The peer has it, and was overtaken since: no copy that counts does.
        if new.is_data_write() && new.failed_here() && context.peer_is_stale {
            new = new | RequestState::NET_STALE;
        }
        let again = must_retry(new);
        todo.add_if(again, Consequences::RETRY);
        todo.add_if(!again, Consequences::COMPLETE);
        let in_epoch = new.has(RequestState::EXPECT_BARRIER_ACK);
        todo.add_if(in_epoch, Consequences::CLOSE_EPOCH);
        // A flush that began before the peer was lost may have left out what was told done since.
        let covers = new.has_flushed_here() && context.mirrored_since_sent;
        todo.add_if(covers && !again, Consequences::FLUSHED);
        let lacks = new.is_data_write() && new.failed_here() && new.is_ok();
        todo.add_if(
            lacks && context.local_is_current && !again,
            Consequences::DISK_LACKS,
        );
        let is_alone = new.is_data_write() && new.is_ok() && !new.has(RequestState::NET_OK);
        todo.add_if(is_alone && !again, Consequences::TOLD_ALONE);
    }
    let is_given_up = matches!(
        event,
        Event::ConnectionLost | Event::PeerRestarted | Event::DiskReturnedAlone
    );
    if is_given_up && old.is_unflushed_by_peer() {
        // A disk that has become good since got it from this peer, unless it came alone.
        let has_it = match event {
            Event::DiskReturnedAlone => old.has(RequestState::LOCAL_OK),
            _ => !old.failed_here(),
        };
        let is_here = context.local_is_current && has_it;
        todo.add_if(!is_here, Consequences::STABILITY_LOST);
        todo.add_if(is_here, Consequences::PEER_UNFLUSHED);
        // What else the peer has acked it has got.
        todo.add_if(need_not_have_got(old), Consequences::TOLD_ALONE);
    }
    let is_frozen = matches!(event, Event::ConnectionFrozen { .. });
    if is_frozen && old.is_unflushed_by_peer() && need_not_have_got(old) {
        // It is not sent again. This node's disk has it, which counts if it is good.
        let is_here = context.local_is_current && old.has(RequestState::LOCAL_OK);
        let lost = Consequences::TOLD_ALONE | Consequences::STABILITY_LOST;
        todo.add_if(!is_here, lost);
    }
    if event == Event::NegAcked && old.is_unflushed_by_peer() {
        todo.add_if(true, Consequences::TOLD_ALONE);
    }
    // Blocks that the peer will not get are marked at once and not when the local disk is through:
    // the bitmaps may be exchanged before.
    let differs = new.has(RequestState::COMPLETED) && !new.is_on_both();
    let is_due = new.is_data_write() && (differs || new.is_lost_to_peer());
    if is_due && !new.has(RequestState::MARKED_OUT_OF_SYNC) {
        new = new | RequestState::MARKED_OUT_OF_SYNC;
        todo.add_if(true, Consequences::SET_OUT_OF_SYNC);
    }
    todo = todo | edges(old, new, context);
    if new.may_release() {
        new = new | RequestState::RELEASED;
        todo.add_if(true, Consequences::RELEASE);
    } else if !todo.is_none() || new.is_held_back() {
        new = new.entered();
        todo.add_if(true, Consequences::SETTLE);
    }
    (new, todo)
}

/// Somebody is through with what [`apply`], or [`enter`], had told it: the new word, and whether to
/// release the request.
pub const fn settle(old: RequestState) -> (RequestState, bool) {
    let new = old.left();
    if new.may_release() {
        (RequestState(new.0 | RequestState::RELEASED.0), true)
    } else {
        (new, false)
    }
}

/// Keeps a request for somebody who is no part of it, as who walks over all of them, until it
/// reports by [`settle`]. `None` where there is none.
pub const fn enter(old: RequestState) -> Option<RequestState> {
    if old.has(RequestState::RELEASED) {
        None
    } else {
        Some(old.entered())
    }
}

/// Events after which a request's completion is not held back, whatever the device's state (spec
/// §5.6).
const fn ends_suspension(event: Event) -> bool {
    matches!(
        event,
        Event::ConnectionLost
            | Event::BarrierAcked
            | Event::Resend
            | Event::DiskReturned
            | Event::DiskReturnedAlone
    )
}

const fn must_retry(state: RequestState) -> bool {
    state.has(RequestState::POSTPONED) || (state.has(RequestState::RETRYABLE) && !state.is_ok())
}

/// The consequences of bits that changed.
fn edges(old: RequestState, new: RequestState, context: Context) -> Consequences {
    let set = |bit| !old.has(bit) && new.has(bit);
    let cleared = |bit| old.has(bit) && !new.has(bit);
    let mut todo = Consequences::NONE;
    todo.add_if(
        !old.is_in_sync() && new.is_in_sync() && context.mirrored_since_sent,
        Consequences::SET_IN_SYNC,
    );
    todo.add_if(
        cleared(RequestState::LOCAL_PENDING),
        Consequences::LOCAL_ENDED,
    );
    todo.add_if(cleared(RequestState::NET_PENDING), Consequences::ANSWERED);
    todo.add_if(set(RequestState::NET_PENDING), Consequences::UNANSWERED);
    todo.add_if(
        !old.is_in_flight() && new.is_in_flight(),
        Consequences::ADD_IN_FLIGHT,
    );
    todo.add_if(
        old.is_in_flight() && !new.is_in_flight(),
        Consequences::SUB_IN_FLIGHT,
    );
    todo.add_if(set(RequestState::NET_QUEUED), Consequences::QUEUE);
    todo
}

/// What an event does to the bits; `None` if the peer may not say so.
fn step(old: RequestState, event: Event, context: Context) -> Option<Step> {
    match event {
        Event::SubmitterDone => Some(Step::clear(RequestState::SUBMITTING)),
        Event::LocalOk | Event::LocalFailed | Event::LocalAborted => Some(local_step(old, event)),
        Event::HandedOver => Some(handed_over(old)),
        Event::NotSent => Some(not_sent(old)),
        Event::ReceiveAcked => receive_acked(old),
        Event::WriteAcked { in_sync } => write_acked(old, in_sync),
        Event::NegAcked => neg_acked(old),
        Event::ConflictResolved => conflict_resolved(old),
        Event::Postponed => postponed(old),
        Event::BarrierAcked => barrier_acked(old),
        Event::DataReceived => data_received(old),
        Event::ConnectionLost => Some(connection_lost(old)),
        Event::ConnectionFrozen { restart_is_seen } => {
            let is_here = context.local_is_current && old.has(RequestState::LOCAL_OK);
            Some(connection_frozen(old, restart_is_seen, is_here))
        }
        Event::PeerRestarted => Some(given_up_by_peer(old)),
        Event::Resend => Some(resend(old)),
        Event::Resumed => Some(Step::clear(RequestState::COMPLETION_SUSPENDED)),
        Event::DiskReturned => Some(disk_returned(old)),
        Event::DiskReturnedAlone => Some(disk_returned_alone(old)),
    }
}

fn local_step(old: RequestState, event: Event) -> Step {
    if !old.has(RequestState::LOCAL_PENDING) {
        return Step::NOTHING;
    }
    let ended = Step::clear(RequestState::LOCAL_PENDING).and_set(RequestState::LOCAL_COMPLETED);
    match event {
        Event::LocalAborted => Step::set(RequestState::LOCAL_ABORTED),
        // After an abort the application was told about a failed disk; a late success changes
        // nothing.
        Event::LocalOk if !old.has(RequestState::LOCAL_ABORTED) => {
            ended.and_set(RequestState::LOCAL_OK)
        }
        _ => ended,
    }
}

/// Protocol A promises no more than that the data was handed over.
const fn is_protocol_a_write(state: RequestState) -> bool {
    state.has(RequestState::EXPECT_BARRIER_ACK)
        && !state.has_any(RequestState(
            RequestState::EXPECT_RECEIVE_ACK.0 | RequestState::EXPECT_WRITE_ACK.0,
        ))
}

fn handed_over(old: RequestState) -> Step {
    if !old.has(RequestState::NET_QUEUED) {
        return Step::NOTHING;
    }
    let taken = Step::clear(RequestState::NET_QUEUED);
    if old.has(RequestState::OUT_OF_SYNC_ONLY) {
        return taken.and_set(RequestState::NET_SENT | RequestState::NET_DONE);
    }
    if old.has(RequestState::NET_DONE) {
        // The connection was lost, or the answer was there, while the socket took the data.
        return taken;
    }
    let sent = taken.and_set(RequestState::NET_SENT);
    if is_protocol_a_write(old) && old.has(RequestState::NET_PENDING) {
        return sent
            .and_clear(RequestState::NET_PENDING)
            .and_set(RequestState::NET_OK);
    }
    sent
}

fn not_sent(old: RequestState) -> Step {
    let taken = Step::clear(RequestState::NET_QUEUED);
    if old.has(RequestState::OUT_OF_SYNC_ONLY) {
        // The bits are set; the next handshake tells the peer.
        return taken.and_set(RequestState::NET_DONE);
    }
    taken
}

fn receive_acked(old: RequestState) -> Option<Step> {
    if old.has(RequestState::NET_DONE) {
        return Some(Step::NOTHING);
    }
    let awaited = RequestState::EXPECT_RECEIVE_ACK | RequestState::NET_PENDING;
    old.has(awaited)
        .then(|| Step::clear(RequestState::NET_PENDING).and_set(RequestState::NET_OK))
}

fn write_acked(old: RequestState, in_sync: bool) -> Option<Step> {
    if !old.has(RequestState::EXPECT_BARRIER_ACK) {
        return None;
    }
    if old.has(RequestState::NET_DONE) {
        return Some(Step::NOTHING);
    }
    let mark = if in_sync {
        RequestState::NET_SET_IN_SYNC
    } else {
        RequestState::EMPTY
    };
    if old.has(RequestState::NET_PENDING) {
        let answered = Step::clear(RequestState::NET_PENDING);
        return Some(answered.and_set(RequestState::NET_OK | mark));
    }
    // During a resync protocols A and B get a write ack on top, for the sake of the bitmap (spec
    // §1.16).
    (!old.has(RequestState::EXPECT_WRITE_ACK)).then(|| Step::set(mark))
}

fn neg_acked(old: RequestState) -> Option<Step> {
    if old.has(RequestState::NET_DONE) {
        return Some(Step::NOTHING);
    }
    let failed = Step::clear(RequestState::NET_PENDING | RequestState::NET_OK);
    if !old.has(RequestState::WRITE) {
        let awaited = old.has(RequestState::NET_PENDING);
        return awaited.then(|| failed.and_set(RequestState::NET_DONE));
    }
    // Under protocols A and B a peer's disk error comes after the promise was kept.
    let late = old.has(RequestState::EXPECT_BARRIER_ACK)
        && !old.has(RequestState::EXPECT_WRITE_ACK)
        && old.has(RequestState::NET_OK);
    (old.has(RequestState::NET_PENDING) || late).then_some(failed)
}

/// The write stays until its barrier ack, because the peer counts it in its epoch.
fn conflict_resolved(old: RequestState) -> Option<Step> {
    if old.has(RequestState::NET_DONE) {
        return Some(Step::NOTHING);
    }
    let awaited = RequestState::EXPECT_WRITE_ACK | RequestState::NET_PENDING;
    old.has(awaited)
        .then(|| Step::clear(RequestState::NET_PENDING).and_set(RequestState::NET_OK))
}

/// The answer stays awaited until the conflicting write is done: [`Event::ConflictResolved`] or the
/// loss of the connection follows.
fn postponed(old: RequestState) -> Option<Step> {
    if old.has(RequestState::NET_DONE) {
        return Some(Step::NOTHING);
    }
    let awaited = RequestState::EXPECT_WRITE_ACK | RequestState::NET_PENDING;
    old.has(awaited).then(|| Step::set(RequestState::POSTPONED))
}

fn barrier_acked(old: RequestState) -> Option<Step> {
    if !old.has(RequestState::EXPECT_BARRIER_ACK) {
        return None;
    }
    let done = Step::clear(RequestState::COMPLETION_SUSPENDED).and_set(RequestState::NET_DONE);
    if !old.has(RequestState::NET_PENDING) {
        return Some(done);
    }
    // The ack may overtake the sender, who has yet to report that it handed the data over.
    let overtook = is_protocol_a_write(old) && old.has(RequestState::NET_QUEUED);
    overtook.then(|| {
        done.and_clear(RequestState::NET_PENDING)
            .and_set(RequestState::NET_OK)
    })
}

fn data_received(old: RequestState) -> Option<Step> {
    if old.has(RequestState::NET_DONE) {
        return Some(Step::NOTHING);
    }
    let awaited = !old.has(RequestState::WRITE) && old.has(RequestState::NET_PENDING);
    awaited.then(|| {
        Step::clear(RequestState::NET_PENDING)
            .and_set(RequestState::NET_OK | RequestState::NET_DONE)
    })
}

/// Whether a write that is called done for the peer as well need not be there.
fn need_not_have_got(old: RequestState) -> bool {
    is_protocol_a_write(old) && !old.has(RequestState::NET_SET_IN_SYNC)
}

fn connection_lost(old: RequestState) -> Step {
    given_up_by_peer(old).and_clear(RequestState::COMPLETION_SUSPENDED)
}

fn given_up_by_peer(old: RequestState) -> Step {
    if old.has(RequestState::FLUSH) || old.has(RequestState::NET_DONE) {
        // The network part was over before; what it achieved stays.
        return Step::NOTHING;
    }
    Step::clear(RequestState::NET_PENDING | RequestState::NET_OK).and_set(RequestState::NET_DONE)
}

/// Protocol A's promise says nothing about the peer: what was handed to the socket may be lost, as
/// may what a peer acked that is restarted unnoticed. A request whose data is still at hand is sent
/// again; the others' blocks are marked before the next handshake compares bitmaps.
///
/// What only the peer has cannot be marked for it: that it may have lost it nobody will know.
fn connection_frozen(old: RequestState, restart_is_seen: bool, is_here: bool) -> Step {
    let is_over = old.has(RequestState::NET_DONE) || !old.has(RequestState::NET_OK);
    let may_be_lost =
        old.is_data_write() && !restart_is_seen && (is_here || !old.has(RequestState::COMPLETED));
    if is_over || !(may_be_lost || is_protocol_a_write(old)) {
        return Step::NOTHING;
    }
    let lost = Step::clear(RequestState::NET_OK);
    if old.has(RequestState::COMPLETED) {
        return lost.and_set(RequestState::NET_DONE);
    }
    lost.and_set(RequestState::NET_PENDING)
}

fn resend(old: RequestState) -> Step {
    let resumed = Step::clear(RequestState::COMPLETION_SUSPENDED);
    let has_net_part = old.has_any(
        RequestState::NET_PENDING
            | RequestState::NET_QUEUED
            | RequestState::NET_SENT
            | RequestState::NET_OK,
    );
    if !has_net_part || old.has(RequestState::FLUSH) || old.has(RequestState::NET_DONE) {
        return again_if_failed(old, resumed);
    }
    if old.has(RequestState::OUT_OF_SYNC_ONLY) {
        return resumed.and_set(RequestState::NET_QUEUED);
    }
    if old.has(RequestState::NET_OK) || old.has(RequestState::COMPLETED) {
        // The peer has it and was not restarted since, or the data is gone and the blocks are
        // marked.
        return resumed.and_set(RequestState::NET_DONE);
    }
    resumed
        .and_clear(RequestState::NET_SENT | RequestState::NET_SET_IN_SYNC)
        .and_set(RequestState::NET_PENDING | RequestState::NET_QUEUED)
}

/// What failed while no copy counted goes to the one that does now.
fn again_if_failed(old: RequestState, resumed: Step) -> Step {
    let held = RequestState::LOCAL_PENDING | RequestState::COMPLETED;
    if old.has_any(held) || old.is_ok() {
        resumed
    } else {
        resumed.and_set(RequestState::POSTPONED)
    }
}

/// A write that this node's disk did not take is admitted again whatever the peer will answer: its
/// disk was not good either.
fn disk_returned(old: RequestState) -> Step {
    let resumed = Step::clear(RequestState::COMPLETION_SUSPENDED);
    let is_awaited = old.has_any(RequestState::NET_PENDING | RequestState::NET_QUEUED);
    if is_awaited && !old.is_data_write() {
        return resumed;
    }
    again_if_failed(old, resumed)
}

fn disk_returned_alone(old: RequestState) -> Step {
    let lost = connection_lost(old);
    let left = old.without(lost.clear) | lost.set;
    again_if_failed(left, lost)
}
