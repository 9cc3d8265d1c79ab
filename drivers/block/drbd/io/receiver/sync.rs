// SPDX-License-Identifier: GPL-2.0

//! The sync handshake: whose data is newer, and what follows from it (Spec §1.14).

use drbd_engine::{
    config::AfterSplitBrain,
    handshake::{
        peer_state::Proposal,
        split_brain::{
            Policies,
            Policy, //
        },
        sync_decision::{
            sync_decision,
            Facts,
            LogLine,
            Outcome,
            Step, //
        },
        uuid_compare::{
            self,
            uuid_compare,
            Comparison,
            Correction,
            UuidSet, //
        },
    },
    meta,
    state::{
        Change,
        ConnState,
        Role, //
    },
    wire::{
        Features,
        UuidFlags,
        Uuids, //
    },
};
use drbd_sys::log;
use kernel::sync::Arc;

use crate::io::{
    connection::{
        flag as connection_flag,
        Config, //
    },
    device::{
        flag,
        Device,
        LocalRef, //
    },
    helper,
    resync,
    state::How, //
};

/// One comparison with the peer's generations, with what it reads.
pub(super) struct Handshake<'a> {
    device: &'a Arc<Device>,
    proposal: &'a Proposal,
}

impl<'a> Handshake<'a> {
    pub(super) fn new(device: &'a Arc<Device>, proposal: &'a Proposal) -> Self {
        Self { device, proposal }
    }

    /// The volume's next connection state; `None` where the nodes cannot go together. May sleep,
    /// for helpers too.
    pub(super) fn run(&self) -> Option<ConnState> {
        let device = self.device;
        let local = device.local()?;
        let config = device.resource.connection.config()?;
        let (peer, sent_bits) = {
            let peer = device.peer.lock();
            (peer.uuids?, peer.sent_bits)
        };
        log_sets(device, &local, &peer);
        let comparison = loop {
            let own = own_set(&local);
            let comparison = self.compare(own, &local, &peer, sent_bits);
            log!(Info, device, "{}", comparison);
            if self.correct(&local, own, comparison.correction) {
                break comparison;
            }
        };
        let facts = self.facts(&local, &config, &peer, sent_bits);
        let outcome = self.decide(&comparison, facts);
        drop(local);
        match outcome {
            Outcome::Proceed { conn, set_all_bits } => {
                if set_all_bits {
                    let why = "full sync required after drbd_sync_handshake.";
                    resync::set_all_and_write(device, why).ok()?;
                }
                Some(conn)
            }
            Outcome::Refuse | Outcome::TryDemotion => None,
        }
    }

    fn compare(&self, own: UuidSet, local: &LocalRef, peer: &Uuids, sent_bits: u64) -> Comparison {
        let connection = &self.device.resource.connection;
        let state = self.proposal.old;
        uuid_compare(&uuid_compare::Facts {
            own,
            peer: peer_set(peer),
            apv: connection.version().number(),
            crashed_primary: self.device.flags.any(flag::CRASHED_PRIMARY),
            peer_crashed_primary: peer.flags.contains(UuidFlags::CRASHED_PRIMARY),
            is_primary: state.role.is_primary(),
            peer_is_primary: self.proposal.peer.role.is_primary(),
            has_write_same: connection.features().contains(Features::WRITE_SAME),
            resolves_conflicts: connection.flags.any(connection_flag::RESOLVE_CONFLICTS),
            own_bits: sent_bits.max(local.bitmap.set_bits()),
            peer_bits: peer.bits_set,
        })
    }

    /// Puts right what a lost message left behind, on disk or in what is known of the peer.
    /// `false`, and nothing done, where the own generation is not `before` any more.
    fn correct(&self, local: &LocalRef, before: UuidSet, correction: Correction) -> bool {
        if correction == Correction::None {
            return true;
        }
        let device = self.device;
        let mut peer_volume = device.peer.lock();
        let Some(mut peer) = peer_volume.uuid_set() else {
            return true;
        };
        let mut own = before;
        correction.apply(&mut own, &mut peer);
        if own == before {
            if own_set(local) != before {
                return false;
            }
            peer_volume.set_uuid_set(peer);
            log!(Info, device, "the peer's UUIDs are taken for {}", peer);
            return true;
        }
        let is_present = local.change(device, |superblock| {
            let is_present = set_of(superblock.uuids) == before;
            if is_present {
                superblock.uuids = meta::Uuids {
                    current: own.current,
                    bitmap: own.bitmap,
                    history: own.history,
                };
            }
            is_present
        });
        if !is_present {
            return false;
        }
        peer_volume.set_uuid_set(peer);
        drop(peer_volume);
        log!(Info, device, "corrected my UUIDs to {}", own);
        // An error costs the disk.
        let _ = local.sync(device);
        true
    }

    fn facts(&self, local: &LocalRef, config: &Config, peer: &Uuids, sent_bits: u64) -> Facts {
        let device = self.device;
        let connection = &device.resource.connection;
        let net = &config.net;
        let state = self.proposal.old;
        let (negotiated_disk, _) = device.resource.control.lock().negotiated(device);
        Facts {
            role: state.role,
            peer_role: self.proposal.peer.role,
            disk: state.disk,
            negotiated_disk,
            peer_disk: self.proposal.peer_disk,
            told_alone: device.seen().alone,
            policies: Policies {
                none: policy(net.after_sb_0p),
                one: policy(net.after_sb_1p),
                two: policy(net.after_sb_2p),
            },
            always_asbp: net.always_asbp,
            rr_conflict: policy(net.rr_conflict),
            discard_my_data: device.flags.any(flag::DISCARD_MY_DATA),
            peer_discards_data: peer.flags.contains(UuidFlags::DISCARD_MY_DATA),
            began_primary: local.uuids().bitmap & 1 != 0,
            peer_began_primary: device
                .peer
                .lock()
                .uuid_set()
                .is_some_and(|set| set.bitmap & 1 != 0),
            sent_bits,
            peer_bits: peer.bits_set,
            set_bits: local.bitmap.set_bits(),
            resolves_conflicts: connection.flags.any(connection_flag::RESOLVE_CONFLICTS),
            dry_run: device.resource.is_dry_run(),
            demotion: None,
        }
    }

    /// Takes the decision, in two rounds where a Primary has to be demoted first.
    fn decide(&self, comparison: &Comparison, mut facts: Facts) -> Outcome {
        let decision = sync_decision(comparison, &facts);
        self.carry_out(decision.steps.iter());
        if decision.outcome != Outcome::TryDemotion {
            return decision.outcome;
        }
        let demote = Change::role(Role::Secondary);
        let demoted = self
            .device
            .resource
            .change_state(self.device, demote, How::VERBOSE);
        facts.demotion = Some(demoted.is_ok());
        let decision = sync_decision(comparison, &facts);
        self.carry_out(decision.steps.iter());
        decision.outcome
    }

    fn carry_out(&self, steps: impl Iterator<Item = Step>) {
        for step in steps {
            match step {
                Step::Log(line) => self.log_line(line),
                Step::Helper(name) => {
                    // How it ends changes nothing.
                    let _ = helper::run(self.device, name.name());
                }
            }
        }
    }

    fn log_line(&self, line: LogLine) {
        let device = self.device;
        match line {
            LogLine::Unrelated
            | LogLine::NeedsProtocol(_)
            | LogLine::NeedsFeatures { .. }
            | LogLine::SplitBrainUnresolved => log!(Alert, device, "{}", line),
            LogLine::InconsistentSource | LogLine::PrimaryTarget | LogLine::PeerLacksWrites => {
                log!(Error, device, "{}", line);
            }
            LogLine::Policy(_)
            | LogLine::SolvedAutomatically { .. }
            | LogLine::FullSyncForAmbiguity
            | LogLine::SolvedManually { .. }
            | LogLine::ViolatesStableData => log!(Warning, device, "{}", line),
            _ => log!(Info, device, "{}", line),
        }
    }
}

/// Both sides' generations, as the log shows them before every comparison.
fn log_sets(device: &Arc<Device>, local: &LocalRef, peer: &Uuids) {
    let sent_bits = device.peer.lock().sent_bits;
    log!(Info, device, "drbd_sync_handshake:");
    log!(
        Info,
        device,
        "self {} bits:{} flags:{:X}",
        own_set(local),
        sent_bits,
        0
    );
    log!(
        Info,
        device,
        "peer {} bits:{} flags:{:X}",
        peer_set(peer),
        peer.bits_set,
        peer.flags.0
    );
}

fn own_set(local: &LocalRef) -> UuidSet {
    set_of(local.uuids())
}

fn set_of(uuids: meta::Uuids) -> UuidSet {
    UuidSet {
        current: uuids.current,
        bitmap: uuids.bitmap,
        history: uuids.history,
    }
}

fn peer_set(peer: &Uuids) -> UuidSet {
    UuidSet {
        current: peer.current,
        bitmap: peer.bitmap,
        history: peer.history,
    }
}

/// A configured policy as the rules know it.
fn policy(configured: AfterSplitBrain) -> Policy {
    Policy::from_number(configured.number()).unwrap_or_default()
}
