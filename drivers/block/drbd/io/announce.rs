// SPDX-License-Identifier: GPL-2.0

//! What this node tells the peer about itself: parameters, sizes, generations, state.

use drbd_engine::{
    config::{
        DiskConf,
        NetConf, //
    },
    handshake::{
        sizes::announced_bio_size,
        sync_param::DEFAULTS, //
    },
    state::{
        DiskState,
        State, //
    },
    types::{
        Sector,
        SECTOR_SIZE, //
    },
    wire::{
        AlgorithmName,
        Command,
        ConnectionFlags,
        Controller,
        Features,
        Protocol,
        QueueLimits,
        ResizeFlags,
        Sizes,
        StateWord,
        SyncParam,
        UuidFlags,
        Uuids, //
    },
};
use drbd_sys::bdev::BlockDevice;
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    device::{
        flag,
        Device, //
    },
    resource::Resource,
    sender::NotSent, //
};

/// P_PROTOCOL as this node has it configured.
pub(crate) fn protocol_of(net: &NetConf) -> Protocol {
    let mut flags = ConnectionFlags::default();
    if net.discard_my_data {
        flags = flags.with(ConnectionFlags::DISCARD_MY_DATA);
    }
    if net.tentative {
        flags = flags.with(ConnectionFlags::DRY_RUN);
    }
    Protocol {
        protocol: net.wire_protocol.number(),
        after_sb_0p: net.after_sb_0p.number(),
        after_sb_1p: net.after_sb_1p.number(),
        after_sb_2p: net.after_sb_2p.number(),
        flags,
        two_primaries: u32::from(net.two_primaries),
        integrity_algorithm: algorithm(net.integrity_alg.as_bytes()),
    }
}

/// A configured algorithm's name as it goes onto the wire. Longer ones are not accepted by the
/// configuration.
pub(crate) fn algorithm(name: &[u8]) -> AlgorithmName {
    AlgorithmName::new(name).unwrap_or(AlgorithmName::NONE)
}

fn sync_param(conf: Option<&DiskConf>, net: &NetConf) -> SyncParam {
    let mut packet = DEFAULTS;
    if let Some(conf) = conf {
        packet.resync_rate_kib = conf.resync_rate;
        packet.controller = Some(Controller {
            plan_ahead_ds: conf.c_plan_ahead,
            delay_target_ds: conf.c_delay_target,
            fill_target_sectors: conf.c_fill_target,
            max_rate_kib: conf.c_max_rate,
        });
    }
    packet.verify_algorithm = algorithm(net.verify_alg.as_bytes());
    packet.csums_algorithm = algorithm(net.csums_alg.as_bytes());
    packet
}

fn queue_limits(backing: &BlockDevice) -> QueueLimits {
    QueueLimits {
        physical_block_size: backing.physical_block_size_bytes(),
        logical_block_size: backing.logical_block_size_bytes(),
        alignment_offset: 0,
        io_min: backing.physical_block_size_bytes(),
        io_opt: 0,
        discard_enabled: u8::from(backing.max_discard_sectors() != 0),
        discard_zeroes_data: 0,
        write_same_capable: 0,
    }
}

impl Resource {
    /// Sends P_PROTOCOL, or its update. May sleep.
    pub(crate) fn send_protocol(&self, command: Command) -> Result<(), NotSent> {
        let config = self.connection.config().ok_or(NotSent)?;
        let version = self.connection.version();
        let mut payload = [0; Protocol::MAX_SIZE];
        let size = protocol_of(&config.net).encode(version, &mut payload);
        self.send_data(
            Default::default(),
            command,
            payload.get(..size).ok_or(NotSent)?,
        )
    }
}

impl Device {
    /// Sends the resync parameters. May sleep.
    pub(crate) fn send_sync_param(self: &Arc<Self>) -> Result<(), NotSent> {
        let config = self.resource.connection.config().ok_or(NotSent)?;
        let version = self.resource.connection.version();
        let conf = self.local().map(|local| local.conf());
        let mut payload = [0; SyncParam::MAX_SIZE];
        let size = sync_param(conf.as_deref(), &config.net).encode(version, &mut payload);
        let payload = payload.get(..size).ok_or(NotSent)?;
        self.resource
            .send_data(self.volume, SyncParam::command(version), payload)
    }

    /// Sends the sizes. With `trigger_reply` the peer is asked for its own. May sleep.
    pub(crate) fn send_sizes(
        self: &Arc<Self>,
        trigger_reply: bool,
        flags: ResizeFlags,
    ) -> Result<(), NotSent> {
        let connection = &self.resource.connection;
        let local = self
            .local()
            .filter(|_| self.state().disk >= DiskState::Negotiating);
        let own_limit = local
            .as_ref()
            .map(|local| local.backing.max_hw_sectors().saturating_mul(SECTOR_SIZE));
        let limits = local.as_ref().map(|local| queue_limits(&local.backing));
        // What the peer told while the disk was attached was taken over by the device alone: told
        // that the disk has another size the peer answers.
        let current = match &local {
            Some(local) if self.state().disk == DiskState::Negotiating => {
                local.last_agreed_size().0
            }
            _ => self.capacity(),
        };
        let sizes = Sizes {
            disk: local
                .as_ref()
                .map_or(Sector(0), |local| local.layout.usable()),
            user: local
                .as_ref()
                .map_or(Sector(0), |local| Sector(local.conf().disk_size)),
            current: Sector(if trigger_reply { 0 } else { current }),
            max_bio_size: announced_bio_size(connection.version(), own_limit),
            queue_order_type: 0,
            flags,
            queue_limits: connection
                .features()
                .contains(Features::WRITE_SAME)
                .then(|| limits.unwrap_or_default()),
        };
        let mut payload = [0; Sizes::MAX_SIZE];
        let size = sizes.encode(&mut payload);
        let payload = payload.get(..size).ok_or(NotSent)?;
        self.resource
            .send_data(self.volume, Command::Sizes, payload)
    }

    /// Sends the generations. May sleep; without a disk there are none to send.
    pub(crate) fn send_uuids(self: &Arc<Self>, extra: UuidFlags) -> Result<(), NotSent> {
        let Some(local) = self.local() else {
            return Ok(());
        };
        let state = self.state();
        if state.disk < DiskState::Negotiating {
            return Ok(());
        }
        let uuids = local.uuids();
        let bits_set = local.bitmap.set_bits();
        self.peer.lock().sent_bits = bits_set;
        let mut flags = extra;
        if self.flags.any(flag::DISCARD_MY_DATA) {
            flags = flags.with(UuidFlags::DISCARD_MY_DATA);
        }
        if self.flags.any(flag::CRASHED_PRIMARY) {
            flags = flags.with(UuidFlags::CRASHED_PRIMARY);
        }
        // Told only of a disk whose attaching the peer has a say in; of others the state speaks.
        let (negotiated, _) = self.resource.control.lock().negotiated(self);
        if state.disk == DiskState::Negotiating && negotiated == DiskState::Inconsistent {
            flags = flags.with(UuidFlags::INCONSISTENT);
        }
        let packet = Uuids {
            current: uuids.current,
            bitmap: uuids.bitmap,
            history: uuids.history,
            bits_set,
            flags,
        };
        self.resource
            .send_data(self.volume, Command::Uuids, &packet.encode())
    }

    /// Sends a state of this volume. May sleep.
    pub(crate) fn send_state(&self, state: State) -> Result<(), NotSent> {
        let packet = StateWord(state.to_word());
        self.resource
            .send_data(self.volume, Command::State, &packet.encode())
    }

    /// Sends the present state. May sleep.
    pub(crate) fn send_present_state(&self) -> Result<(), NotSent> {
        self.send_state(self.state())
    }
}
