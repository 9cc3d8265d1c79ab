// SPDX-License-Identifier: GPL-2.0

//! The peer's configuration: the protocol, resync parameters, and sizes (Spec §1.11).

use drbd_engine::{
    config::{
        AfterSplitBrain,
        DiskConf,
        NetConf,
        Protocol as Mode, //
    },
    handshake::{
        protocol,
        sizes::{
            self,
            NewStorage, //
        },
        sync_param::{
            adopt,
            Adoption,
            Hashes, //
        },
    },
    state::ConnState,
    types::Sector,
    wire::{
        AlgorithmName,
        Protocol,
        ResizeFlags,
        Sizes,
        SyncParam, //
    },
};
use drbd_sys::log;
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    ConnectionError,
    Receiver, //
};
use crate::io::{
    announce::{
        algorithm,
        protocol_of, //
    },
    connection::flag as connection_flag,
    device::{
        flag,
        Device, //
    },
    handshake::hash_named,
    resync,
    size::{
        self,
        Resized, //
    },
};

/// No device is larger, in sectors: 1 EiB.
const SECTORS_MAX: u64 = 1 << 51;

impl Receiver {
    /// P_PROTOCOL.
    pub(super) fn protocol(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        let theirs = self.decoded(Protocol::decode(self.version, payload))?;
        let connection = &self.resource.connection;
        let config = connection.config().ok_or(ConnectionError)?;
        if protocol::is_dry_run(&theirs) {
            connection.flags.set(connection_flag::DRY_RUN);
        }
        let ours = protocol_of(&config.net);
        if let Err(refusal) = protocol::check(&ours, &theirs) {
            log!(Error, self.resource, "{}", refusal);
            return Err(self.disconnect());
        }
        self.set_integrity(&theirs.integrity_algorithm)
    }

    /// P_PROTOCOL_UPDATE: the peer's admin changed options, which hold for both nodes.
    pub(super) fn protocol_update(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        let theirs = self.decoded(Protocol::decode(self.version, payload))?;
        let adopted = protocol::adopt(&theirs).map_err(|refusal| {
            log!(Error, self.resource, "{}", refusal);
            self.disconnect()
        })?;
        if adopted.two_primaries != 0 {
            log!(
                Error,
                self.resource,
                "the peer allows two Primaries, which is not built into this driver"
            );
            return Err(self.disconnect());
        }
        self.edit(|net| take_over(net, &adopted))?;
        self.set_integrity(&theirs.integrity_algorithm)
    }

    /// Changes the options.
    fn edit(&self, edit: impl FnOnce(&mut NetConf)) -> Result<(), ConnectionError> {
        match self.resource.connection.edit_net(edit) {
            Ok(true) => Ok(()),
            _ => Err(ConnectionError),
        }
    }

    /// What the peer protects its data with from the next packet on.
    fn set_integrity(&mut self, name: &AlgorithmName) -> Result<(), ConnectionError> {
        self.integrity = hash_named(name.as_bytes()).map_err(|_| {
            log!(
                Error,
                self.resource,
                "peer data-integrity-alg {} not supported",
                name
            );
            self.disconnect()
        })?;
        if !name.is_empty() {
            log!(Info, self.resource, "peer data-integrity-alg: {}", name);
        }
        Ok(())
    }

    /// P_SYNC_PARAM and P_SYNC_PARAM89.
    #[inline(never)] // Keeps its frame off the stack of the other packets.
    pub(super) fn sync_param(
        &mut self,
        device: &Arc<Device>,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        let theirs = self.decoded(SyncParam::decode(self.version, payload))?;
        let config = self.resource.connection.config().ok_or(ConnectionError)?;
        let hashes = Hashes {
            verify: algorithm(config.net.verify_alg.as_bytes()),
            csums: algorithm(config.net.csums_alg.as_bytes()),
        };
        let shakes_hands = device.state().conn == ConnState::WFReportParams;
        let adoption = adopt(&hashes, &theirs, self.version, shakes_hands).map_err(|refusal| {
            log!(Error, device, "{}", refusal);
            self.disconnect()
        })?;
        self.adopt_hashes(device, &adoption)?;
        adopt_rates(device, &adoption)
    }

    /// Hashes that the peer changed while connected.
    fn adopt_hashes(&self, device: &Device, adoption: &Adoption) -> Result<(), ConnectionError> {
        let changes = [
            ("verify-alg", adoption.verify),
            ("csums-alg", adoption.csums),
        ];
        let mut changed = false;
        for (setting, name) in changes {
            let Some(name) = name else { continue };
            if hash_named(name.as_bytes()).is_err() {
                log!(
                    Error,
                    device,
                    "{} {} of the peer not supported",
                    setting,
                    name
                );
                return Err(self.disconnect());
            }
            log!(Info, device, "using {}: \"{}\"", setting, name);
            changed = true;
        }
        if !changed {
            return Ok(());
        }
        self.edit(|net| {
            let places = [
                (adoption.verify, &mut net.verify_alg),
                (adoption.csums, &mut net.csums_alg),
            ];
            for (name, place) in places {
                // A name from the wire is not longer than an option may be.
                let _ = name.map(|name| place.set(name.as_bytes()));
            }
        })
    }

    /// P_SIZES.
    #[inline(never)] // Keeps its frame off the stack of the other packets.
    pub(super) fn sizes(
        &mut self,
        device: &Arc<Device>,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        let theirs = self.decoded(Sizes::decode(payload))?;
        for sectors in [theirs.disk, theirs.user, theirs.current] {
            if sectors.0 > SECTORS_MAX {
                return Err(self.refuse(format_args!(
                    "ReportSizes packet with impossible size {sectors}s"
                )));
            }
        }
        {
            let mut peer = device.peer.lock();
            peer.disk_sectors = theirs.disk.0;
            peer.max_bio_bytes = theirs.max_bio_size;
        }
        let reception = sizes::receive(&own_sizes(device), &theirs).map_err(|error| {
            log!(Error, device, "{}", error);
            self.disconnect()
        })?;
        for warning in reception.warnings.into_iter().flatten() {
            log!(Warning, device, "{}", warning);
        }
        if let Some(user) = reception.user {
            self.adopt_user_size(device, user)?;
        }
        let resized = self.resize(device, &reception.device, &theirs)?;
        self.after_resize(device, resized, &theirs)
    }

    /// The size that the admin asked for, here or at the peer.
    fn adopt_user_size(&self, device: &Arc<Device>, user: Sector) -> Result<(), ConnectionError> {
        let Some(local) = device.local() else {
            return Ok(());
        };
        log!(
            Info,
            device,
            "Peer sets u_size to {} sectors (old: {})",
            user,
            local.conf().disk_size
        );
        local
            .edit_conf(|conf| conf.disk_size = user.0)
            .map_err(|_| ConnectionError)
    }

    fn resize(
        &self,
        device: &Arc<Device>,
        decision: &sizes::Device,
        theirs: &Sizes,
    ) -> Result<Resized, ConnectionError> {
        let resized = match *decision {
            sizes::Device::Resize(size) => {
                size::update_limits(device);
                let assume_clean = theirs.flags.contains(ResizeFlags::NO_RESYNC);
                let resized = size::resize(device, size, assume_clean);
                resized.map_err(|error| {
                    log!(Error, device, "could not be resized: {}", error.to_errno());
                    ConnectionError
                })?
            }
            sizes::Device::Adopt(size) => {
                size::update_limits(device);
                size::adopt(device, size);
                Resized::Unchanged
            }
            sizes::Device::Keep => {
                size::update_limits(device);
                Resized::Unchanged
            }
            sizes::Device::IgnoreDisklessPeer { peer } => {
                log!(
                    Warning,
                    device,
                    "Ignored diskless peer device size (peer:{} != me:{} sectors)!",
                    peer,
                    device.capacity()
                );
                Resized::Unchanged
            }
        };
        Ok(resized)
    }

    /// What the new size asks for: an answer, and a resync of what was added.
    fn after_resize(
        &self,
        device: &Arc<Device>,
        resized: Resized,
        theirs: &Sizes,
    ) -> Result<(), ConnectionError> {
        let state = device.state();
        let pending = device.flags.clear(flag::RESIZE_PENDING) & flag::RESIZE_PENDING != 0;
        let facts = sizes::Resized {
            conn: state.conn,
            disk: state.disk,
            peer_disk: state.pdsk,
            device: Sector(device.capacity()),
            has_grown: resized == Resized::Grown,
            backing_changed: false,
            was_pending: pending,
        };
        let follow_up = sizes::follow_up(&facts, theirs);
        if follow_up.send_sizes {
            device
                .send_sizes(false, theirs.flags)
                .map_err(|_| ConnectionError)?;
        }
        match follow_up.new_storage {
            NewStorage::Leave => {}
            NewStorage::AssumeClean => {
                log!(
                    Info,
                    device,
                    "Resync of new storage suppressed with --assume-clean"
                );
            }
            NewStorage::ResyncAfterNegotiation => {
                device.flags.set(flag::RESYNC_AFTER_NEGOTIATION);
            }
            NewStorage::Resync => {
                log!(Info, device, "Resync of new storage after online grow");
                resync::resync_new_storage(device);
            }
        }
        Ok(())
    }
}

/// This node's side, as the rules about sizes read it.
fn own_sizes(device: &Arc<Device>) -> sizes::Local {
    let state = device.state();
    let disk = device.local().map(|local| sizes::LocalDisk {
        state: state.disk,
        max_capacity: local.layout.usable(),
        last_agreed: local.last_agreed_size(),
        user: Sector(local.conf().disk_size),
    });
    sizes::Local {
        disk,
        device: Sector(device.capacity()),
        conn: state.conn,
        role: state.role,
        peer_disk: state.pdsk,
    }
}

/// What P_PROTOCOL_UPDATE changes of our options. Its numbers are checked.
fn take_over(net: &mut NetConf, adopted: &Protocol) {
    net.wire_protocol = match adopted.protocol {
        1 => Mode::A,
        2 => Mode::B,
        _ => Mode::C,
    };
    let policies = [
        (adopted.after_sb_0p, &mut net.after_sb_0p),
        (adopted.after_sb_1p, &mut net.after_sb_1p),
        (adopted.after_sb_2p, &mut net.after_sb_2p),
    ];
    for (number, place) in policies {
        if let Some(policy) = AfterSplitBrain::from_number(number) {
            *place = policy;
        }
    }
    net.two_primaries = adopted.two_primaries != 0;
}

/// The resync rates of the peer, which hold from now on.
fn adopt_rates(device: &Arc<Device>, adoption: &Adoption) -> Result<(), ConnectionError> {
    let Some(local) = device.local() else {
        return Ok(());
    };
    local
        .edit_conf(|conf| take_rates(conf, adoption))
        .map_err(|_| ConnectionError)
}

/// The last node that sends its rates wins.
fn take_rates(conf: &mut DiskConf, adoption: &Adoption) {
    conf.resync_rate = adoption.resync_rate_kib;
    if let Some(controller) = adoption.controller {
        conf.c_plan_ahead = controller.plan_ahead_ds;
        conf.c_delay_target = controller.delay_target_ds;
        conf.c_fill_target = controller.fill_target_sectors;
        conf.c_max_rate = controller.max_rate_kib;
    }
}
