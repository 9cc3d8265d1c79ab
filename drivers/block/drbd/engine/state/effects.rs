// SPDX-License-Identifier: GPL-2.0

//! What follows from a stored change: at once, under the lock (spec §4.7), and later, on the worker
//! (spec §4.8).
//!
//! Both are sets; iterating one gives its members in the order in which they are to be carried out.

mod after;
mod now;

pub use after::{
    begins_when_io_goes_on, begins_while_suspended, effects_after, holds_writes, restart_is_seen,
    AfterContext,
};
pub use now::effects_now;

macro_rules! effect_set {
    (
        $(#[$set_doc:meta])* $set:ident,
        $(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every effect, in the order in which they are carried out.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            const fn bit(self) -> u64 {
                // Lossless; there are fewer effects than bits, as the assertion below says.
                1u64.wrapping_shl(self as u32)
            }
        }

        const _: () = assert!($name::ALL.len() <= 64);

        $(#[$set_doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $set(u64);

        impl $set {
            /// No effect.
            pub const NONE: Self = Self(0);

            /// Whether nothing is to be done.
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Whether this effect is among them.
            pub const fn contains(self, effect: $name) -> bool {
                self.0 & effect.bit() != 0
            }

            /// The effects in the order in which they are carried out.
            pub fn iter(self) -> impl Iterator<Item = $name> {
                $name::ALL.iter().copied().filter(move |&effect| self.contains(effect))
            }

            fn add_if(&mut self, effect: $name, condition: bool) {
                if condition {
                    self.0 |= effect.bit();
                }
            }
        }
    };
}

effect_set! {
    /// The immediate effects of one change.
    ImmediateEffects,
    /// What is done under the lock that the change was stored under; nothing here may sleep.
    Immediate {
        /// A resync begins: it is not done yet (flag RS_DONE).
        ClearResyncDone,
        /// Writes begin or cease to be replicated: close the epoch of the transfer log.
        CloseEpoch,
        /// Log the UUIDs the disk was attached with.
        LogAttachedUuids,
        /// The last volume left WFReportParams: clear STATE_SENT.
        ClearStateSent,
        /// Wake those who wait for a state, for room or for a ping.
        WakeWaiters,
        /// A verify ended: the next starts at the end of the device less what was left.
        RememberVerifyStart,
        /// A paused resync goes on: account the pause.
        AccountPause,
        /// The target goes on: kick the resync timer.
        KickResyncTimer,
        /// A resync was paused: stamp the progress mark.
        StampPause,
        /// A verify begins: set up position, marks and controller.
        BeginVerify,
        /// This node drives the verify: start the resync timer.
        StartVerifyTimer,
        /// The disk comes into use, or its node is to be the target: the peer may know of blocks
        /// that are out of sync here and that the bitmap does not tell of. Nothing is read from
        /// an Inconsistent disk.
        DistrustBitmap,
        /// The bitmaps were exchanged, or nothing is out of sync here: what the bitmap calls clean
        /// may be read from an Inconsistent disk.
        TrustBitmap,
        /// Recompute the flags of the metadata (spec §2.1).
        UpdateMetadataFlags,
        /// The disk became trustworthy: its current UUID is what users see.
        ExposeCurrentUuid,
        /// The users see the peer's data, and nothing of this node's: remember it.
        UsersSeePeer,
        /// There are no users, or they see this node's data: forget that they saw the peer's.
        UsersSeeDisk,
        /// There are no users: nobody waits to be told that a write may not be on stable storage
        /// (see `Consequences::STABILITY_LOST`), and nobody was told that one is done.
        NoUsers,
        /// The disk comes into use and has what the peer has, or what it had before it was given
        /// up: it need not have what the peer had not flushed (see `Consequences::PEER_UNFLUSHED`).
        DoubtUnflushed,
        /// The peer was synced from this node's disk, and has flushed that.
        PeerSynced,
        /// The peer was forced Primary on inconsistent data: run the handshake at its next state
        /// (flag CONSIDER_RESYNC).
        ConsiderResync,
        /// The connection ends: stop the receiver.
        StopReceiver,
        /// The connection broke: let the receiver clean up and start over.
        RestartReceiver,
        /// Connected again: the activity log is of use again.
        ResumeActivityLog,
        /// Connected again: answers of helpers that were started before are void.
        CountConnect,
        /// The disk is in use from now on: disk-timeout counts from here.
        RecordReattach,
        /// Queue the deferred effects on the worker.
        QueueDeferred,
    }
}

effect_set! {
    /// The deferred effects of one change.
    DeferredEffects,
    /// What is done on the connection's worker after the change; it may sleep.
    Deferred {
        /// Tell netlink listeners about resource, connections, devices and peer devices.
        Notify,
        /// Both disks are UpToDate: forget CRASHED_PRIMARY here and in the peer's UUID flags.
        ClearCrashedPrimary,
        /// Broadcast the legacy event.
        BroadcastEvent,
        /// Run the pri-on-incon-degr helper.
        HelperPriOnInconDegr,
        /// The peer's data is lost while I/O is suspended: remember that a new current UUID is due
        /// (flag NEW_CUR_UUID).
        RememberNewCurrentUuid,
        /// The peer's data is lost, or a diskless peer writes: new current UUID, and send the
        /// UUIDs.
        NewCurrentUuid,
        /// All volumes are connected again: resend frozen requests, then clear `susp_nod`.
        ResendForNoData,
        /// All disks are back: restart frozen disk I/O, then clear `susp_nod`.
        RestartDiskIoForNoData,
        /// All volumes are connected again: clear NEW_CUR_UUID, resend frozen requests, clear
        /// `susp_fen`.
        ResendForFencing,
        /// All volumes are connected again: resend frozen requests. That I/O is suspended is the
        /// admin's matter.
        ResendForAdmin,
        /// Generate the UUID of the resync and send it, before any P_STATE.
        SendSyncUuid,
        /// The peer attached a disk: reset the resync counters, send UUIDs and state.
        GreetPeerDisk,
        /// Queue sending the bitmap.
        SendBitmap,
        /// A diskless peer was demoted: write the bitmap.
        WriteBitmapForPeerDemotion,
        /// This node was demoted: write the bitmap.
        WriteBitmapForDemotion,
        /// A disk was attached while connected: send sizes, UUIDs and state.
        SendDisk,
        /// A pause of this node changed: send the state.
        SendStateForPause,
        /// The resync was paused: volumes that come after this one may be affected.
        SuspendDependents,
        /// The handshake is done: send the state.
        SendStateForHandshake,
        /// The link is congested: send the state.
        SendStateForAhead,
        /// Set all bits and write them, then go to WFSyncUUID; to Connected where writing fails.
        StartFullSyncAsTarget,
        /// Set all bits and write them, then start the resync as source; to Connected where writing
        /// fails.
        StartFullSyncAsSource,
        /// Run the local-io-error helper, before the disk is let go.
        HelperLocalIoError,
        /// The disk failed: abort its requests if forced, send the state, cancel the resync, sync
        /// metadata, drop the disk's reference.
        ReleaseFailedDisk,
        /// The disk is gone: send the state, drop the reference.
        ReleaseDisk,
        /// The disk fell back to Inconsistent: send the state.
        SendStateForInconsistent,
        /// The device grew during the handshake: resync the new storage.
        ResyncNewStorage,
        /// The same, and a resync is due anyway.
        ForgetNewStorage,
        /// The resync, the verify or a pause ended: volumes that come after this one may go on.
        ResumeDependents,
        /// The resync ended: send the state, the source waits for it.
        SendStateForResyncEnd,
        /// The verify ended at its stop sector: send the state.
        SendStateForVerifyEnd,
        /// Write the bitmap pages that the resync changed.
        WriteChangedBitmap,
        /// The volume is unconfigured: volumes that came after it may go on.
        ResumeDependentsOfUnconfigured,
        /// Write the metadata if it changed.
        SyncMetadata,
    }
}

#[cfg(test)]
mod tests;
