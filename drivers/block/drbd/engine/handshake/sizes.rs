// SPDX-License-Identifier: GPL-2.0

//! How large a device and its requests may be, by what both nodes have (Spec §1.10 to §1.12).
//!
//! P_SIZES is handled in two halves, because the device is resized in between: [`receive`] checks
//! the packet and says what size the device gets, [`follow_up`] says what comes of it.

use crate::state::{ConnState, DiskState, Role};
use crate::types::{Sector, MAX_REQUEST_SIZE};
use crate::wire::{ResizeFlags, Sizes, Version};

/// The smallest limit of a request's size that we keep to, in bytes, whatever a peer announces.
pub const MIN_BIO_SIZE: u32 = 4096;

/// The largest request we announce to take, in bytes. `disk` is our disk's own limit.
pub fn announced_bio_size(version: Version, disk: Option<u32>) -> u32 {
    match disk {
        Some(limit) => limit.min(version.max_request_size()),
        None => MAX_REQUEST_SIZE,
    }
}

/// The largest request we may send, in bytes. `announced` is what the peer takes by its P_SIZES.
///
/// Versions from 94 on split requests on the receiving side, so that the announced value does not
/// matter.
pub fn sendable_bio_size(version: Version, announced: u32) -> u32 {
    if version.is_at_least(94) {
        version.max_request_size()
    } else {
        announced.clamp(MIN_BIO_SIZE, version.max_request_size())
    }
}

/// What the size of a device comes from. Zero sectors mean "not known" or "no limit".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// What our disk can hold besides its metadata.
    pub own: Sector,
    /// What the peer's disk can hold.
    pub peer: Sector,
    /// What both nodes agreed on last.
    pub last_agreed: Sector,
    /// What the configuration asks for.
    pub user: Sector,
}

impl Candidates {
    /// The size of the device; `None` where nobody knows one: "Both nodes diskless!".
    ///
    /// A user's wish that is larger than what there is has no effect.
    pub fn size(&self) -> Option<Sector> {
        let size = match (known(self.own), known(self.peer), known(self.last_agreed)) {
            (Some(own), Some(peer), _) => own.min(peer),
            (own, peer, Some(agreed)) => agreed
                .min(own.unwrap_or(agreed))
                .min(peer.unwrap_or(agreed)),
            (own, peer, None) => own.or(peer)?,
        };
        Some(known(self.user).map_or(size, |user| user.min(size)))
    }

    /// The same if the peer had all the space that we have.
    #[must_use]
    pub const fn assuming_peer_has_space(self) -> Self {
        Self {
            peer: self.own,
            ..self
        }
    }
}

/// Our side when P_SIZES comes in.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    /// Our disk, if there is one.
    pub disk: Option<LocalDisk>,
    /// The size of the device now.
    pub device: Sector,
    /// The state of the connection.
    pub conn: ConnState,
    /// Our role.
    pub role: Role,
    /// The state of the peer's disk.
    pub peer_disk: DiskState,
}

/// Our disk when P_SIZES comes in.
#[derive(Clone, Copy, Debug)]
pub struct LocalDisk {
    /// Its state.
    pub state: DiskState,
    /// What it can hold besides its metadata.
    pub max_capacity: Sector,
    /// What both nodes agreed on last.
    pub last_agreed: Sector,
    /// What the configuration asks for; 0 for all there is.
    pub user: Sector,
}

/// What to do about the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// With a disk: determine the limits of requests, resize to this many sectors (also if that
    /// is no change) and write the metadata.
    Resize(Sector),
    /// Without a disk: take over the peer's size.
    Adopt(Sector),
    /// Without a disk: nothing new.
    Keep,
    /// Without a disk, and the peer has none either, but claims another size: warn.
    IgnoreDisklessPeer {
        /// What the peer claims.
        peer: Sector,
    },
}

/// Two sizes that differ by more than an eighth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What they are sizes of.
    pub what: &'static str,
    /// The peer's.
    pub peer: Sector,
    /// Ours.
    pub own: Sector,
}

impl core::fmt::Display for Difference {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { what, peer, own } = self;
        write!(f, "Considerable difference in {what}: {peer}s vs. {own}s")
    }
}

/// What a P_SIZES means for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reception {
    /// The size that the configuration asks for from now on, where it changes.
    pub user: Option<Sector>,
    /// Sizes that the admin should look at.
    pub warnings: [Option<Difference>; 2],
    /// What to do about the device.
    pub device: Device,
}

/// Why the nodes' devices do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizesError {
    /// The peer's disk would shrink a device whose data is usable.
    DiskTooSmall {
        /// The size the device would get.
        size: Sector,
        /// Its size now.
        device: Sector,
    },
    /// The peer's device is smaller than ours, which is in use.
    DeviceTooSmall {
        /// The peer's.
        peer: Sector,
        /// Ours.
        device: Sector,
    },
    /// No size is known at all.
    Unknown,
}

impl core::fmt::Display for SizesError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::DiskTooSmall { size, device } => {
                write!(
                    f,
                    "The peer's disk size is too small! ({size} < {device} sectors)"
                )
            }
            Self::DeviceTooSmall { peer, device } => write!(
                f,
                "The peer's device size is too small! ({peer} < {device} sectors); demote me first!"
            ),
            Self::Unknown => f.write_str("Both nodes diskless!"),
        }
    }
}

/// Checks a peer's P_SIZES and says what size the device gets.
///
/// # Errors
///
/// [`SizesError`]; the connection goes to Disconnecting and the device stays as it is.
pub fn receive(local: &Local, theirs: &Sizes) -> Result<Reception, SizesError> {
    match &local.disk {
        // The bitmap of one that is being attached is not in core yet, and may not be written.
        Some(disk) if disk.state >= DiskState::Negotiating => with_disk(local, disk, theirs),
        _ => Ok(Reception {
            user: None,
            warnings: [None, None],
            device: without_disk(local, theirs)?,
        }),
    }
}

fn with_disk(local: &Local, disk: &LocalDisk, theirs: &Sizes) -> Result<Reception, SizesError> {
    let user = if local.conn == ConnState::WFReportParams {
        min_known(disk.user, theirs.user)
    } else {
        theirs.user
    };
    let candidates = Candidates {
        own: disk.max_capacity,
        peer: theirs.disk,
        last_agreed: disk.last_agreed,
        user,
    };
    let is_connecting = local.conn < ConnState::Connected;
    let size = candidates.size().ok_or(SizesError::Unknown)?;
    // An admin may shrink a device that is in use, by a wish on either node; a disk may not.
    let takes_from_user =
        local.role == Role::Primary && known(theirs.disk).is_some_and(|peer| peer < local.device);
    if size < local.device
        && disk.state >= DiskState::Outdated
        && (is_connecting || local.peer_disk == DiskState::Diskless || takes_from_user)
    {
        return Err(SizesError::DiskTooSmall {
            size,
            device: local.device,
        });
    }
    let size = if theirs.flags.contains(ResizeFlags::FORCED) && is_connecting {
        candidates
            .assuming_peer_has_space()
            .size()
            .ok_or(SizesError::Unknown)?
    } else {
        size
    };
    Ok(Reception {
        user: (user != disk.user).then_some(user),
        warnings: [
            difference("lower level device sizes", theirs.disk, disk.max_capacity),
            difference("user requested size", theirs.user, disk.user),
        ],
        device: Device::Resize(size),
    })
}

fn without_disk(local: &Local, theirs: &Sizes) -> Result<Device, SizesError> {
    let known_size = known(theirs.current)
        .or(known(theirs.user))
        .or(known(theirs.disk));
    let Some(peer) = known_size.filter(|size| *size != local.device) else {
        return Ok(Device::Keep);
    };
    if known(local.device).is_some() && known(theirs.disk).is_none() {
        return Ok(Device::IgnoreDisklessPeer { peer });
    }
    if peer < local.device && local.role == Role::Primary {
        return Err(SizesError::DeviceTooSmall {
            peer,
            device: local.device,
        });
    }
    Ok(Device::Adopt(peer))
}

/// How things stand once the device has its size.
#[derive(Clone, Copy, Debug)]
pub struct Resized {
    /// The state of the connection.
    pub conn: ConnState,
    /// The state of our disk.
    pub disk: DiskState,
    /// The state of the peer's disk.
    pub peer_disk: DiskState,
    /// The size of the device.
    pub device: Sector,
    /// Whether the device grew just now.
    pub has_grown: bool,
    /// Whether our backing device changed its size since we last looked.
    pub backing_changed: bool,
    /// Whether an admin's resize here was waiting for this answer.
    pub was_pending: bool,
}

/// What is to be done about storage that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewStorage {
    /// There is none, or nothing is to be done.
    Leave,
    /// Resync it: "Resync of new storage after online grow".
    Resync,
    /// It is clean: "Resync of new storage suppressed with --assume-clean".
    AssumeClean,
    /// Resync it when both disks are there.
    ResyncAfterNegotiation,
}

/// What comes of a P_SIZES after the device got its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowUp {
    /// Answer with our sizes, with the peer's flags.
    pub send_sizes: bool,
    /// What to do about storage that was added.
    pub new_storage: NewStorage,
}

/// Says what comes of the peer's P_SIZES after the device got its size.
pub fn follow_up(resized: &Resized, theirs: &Sizes) -> FollowUp {
    if resized.conn <= ConnState::WFReportParams {
        return FollowUp {
            send_sizes: false,
            new_storage: NewStorage::Leave,
        };
    }
    let is_growing =
        resized.was_pending || (resized.has_grown && resized.conn == ConnState::Connected);
    let has_disks =
        resized.disk >= DiskState::Inconsistent && resized.peer_disk >= DiskState::Inconsistent;
    let new_storage = match (is_growing, has_disks) {
        (false, _) => NewStorage::Leave,
        (true, false) => NewStorage::ResyncAfterNegotiation,
        (true, true) if theirs.flags.contains(ResizeFlags::NO_RESYNC) => NewStorage::AssumeClean,
        (true, true) => NewStorage::Resync,
    };
    FollowUp {
        send_sizes: theirs.current != resized.device || resized.backing_changed,
        new_storage,
    }
}

/// Whether this node is the source of the resync of new storage: the primary is, or the node that
/// resolves conflicts if the roles are equal.
pub fn is_source_of_new_storage(role: Role, peer_role: Role, resolves_conflicts: bool) -> bool {
    if role == peer_role {
        resolves_conflicts
    } else {
        role == Role::Primary
    }
}

/// The size, if it is one.
fn known(size: Sector) -> Option<Sector> {
    (size.0 != 0).then_some(size)
}

/// The smaller of two sizes of which any may be unknown.
fn min_known(a: Sector, b: Sector) -> Sector {
    match (known(a), known(b)) {
        (Some(a), Some(b)) => a.min(b),
        (a, b) => a.or(b).unwrap_or_default(),
    }
}

/// A warning where both sizes are known and one is more than an eighth of itself off the other.
fn difference(what: &'static str, peer: Sector, own: Sector) -> Option<Difference> {
    let (known_peer, known_own) = (known(peer)?, known(own)?);
    let off = known_peer.0.abs_diff(known_own.0);
    (off > known_peer.0 >> 3 || off > known_own.0 >> 3).then_some(Difference { what, peer, own })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(own: u64, peer: u64, last_agreed: u64, user: u64) -> Option<u64> {
        let candidates = Candidates {
            own: Sector(own),
            peer: Sector(peer),
            last_agreed: Sector(last_agreed),
            user: Sector(user),
        };
        candidates.size().map(|size| size.0)
    }

    fn local() -> Local {
        Local {
            disk: Some(LocalDisk {
                state: DiskState::UpToDate,
                max_capacity: Sector(1000),
                last_agreed: Sector(1000),
                user: Sector(0),
            }),
            device: Sector(1000),
            conn: ConnState::WFReportParams,
            role: Role::Secondary,
            peer_disk: DiskState::DUnknown,
        }
    }

    fn sizes(disk: u64, user: u64, current: u64) -> Sizes {
        Sizes {
            disk: Sector(disk),
            user: Sector(user),
            current: Sector(current),
            ..Sizes::default()
        }
    }

    #[test]
    fn the_smaller_disk_decides_and_the_agreed_size_stands_in_for_a_missing_one() {
        assert_eq!(size(1000, 900, 800, 0), Some(900));
        assert_eq!(size(1000, 0, 800, 0), Some(800));
        assert_eq!(size(1000, 0, 1200, 0), Some(1000));
        assert_eq!(size(0, 700, 800, 0), Some(700));
        assert_eq!(size(0, 0, 800, 0), Some(800));
        assert_eq!(size(1000, 0, 0, 0), Some(1000));
        assert_eq!(size(0, 0, 0, 500), None);
    }

    #[test]
    fn the_users_size_can_only_shrink() {
        assert_eq!(size(1000, 900, 0, 500), Some(500));
        assert_eq!(size(1000, 900, 0, 950), Some(900));
    }

    #[test]
    fn a_disk_that_is_being_attached_is_not_resized() {
        let mut local = local();
        let disk = local.disk.as_mut().unwrap();
        (disk.state, disk.max_capacity) = (DiskState::Attaching, Sector(2000));
        let theirs = sizes(2000, 0, 1000);
        assert_eq!(receive(&local, &theirs).unwrap().device, Device::Keep);
        local.disk.as_mut().unwrap().state = DiskState::Negotiating;
        let resized = Device::Resize(Sector(2000));
        assert_eq!(receive(&local, &theirs).unwrap().device, resized);
    }

    #[test]
    fn a_smaller_peer_must_not_shrink_usable_data_while_connecting() {
        let refused = receive(&local(), &sizes(900, 0, 900));
        let error = SizesError::DiskTooSmall {
            size: Sector(900),
            device: Sector(1000),
        };
        assert_eq!(refused, Err(error));
        assert_eq!(
            std::format!("{error}"),
            "The peer's disk size is too small! (900 < 1000 sectors)"
        );
        let connected = Local {
            conn: ConnState::Connected,
            peer_disk: DiskState::UpToDate,
            ..local()
        };
        let reception = receive(&connected, &sizes(900, 0, 900)).unwrap();
        assert_eq!(reception.device, Device::Resize(Sector(900)));
        let in_use = Local {
            role: Role::Primary,
            ..connected
        };
        assert_eq!(receive(&in_use, &sizes(900, 0, 900)), Err(error));
        let wished = receive(&in_use, &sizes(1000, 900, 900)).unwrap();
        assert_eq!(wished.device, Device::Resize(Sector(900)));
        let mut inconsistent = local();
        inconsistent.disk.as_mut().unwrap().state = DiskState::Inconsistent;
        let reception = receive(&inconsistent, &sizes(900, 0, 900)).unwrap();
        assert_eq!(reception.device, Device::Resize(Sector(900)));
    }

    #[test]
    fn the_users_sizes_are_joined_while_connecting_and_the_peers_counts_later() {
        let mut ours = local();
        ours.disk.as_mut().unwrap().user = Sector(1000);
        assert_eq!(receive(&ours, &sizes(1000, 0, 0)).unwrap().user, None);
        ours.conn = ConnState::Connected;
        ours.peer_disk = DiskState::UpToDate;
        assert_eq!(
            receive(&ours, &sizes(1000, 0, 0)).unwrap().user,
            Some(Sector(0))
        );
    }

    #[test]
    fn sizes_that_are_an_eighth_apart_are_told() {
        let warn = |peer| receive(&local(), &sizes(peer, 0, 0)).unwrap().warnings[0];
        assert_eq!(warn(1125), None);
        assert_eq!(
            std::format!("{}", warn(1200).unwrap()),
            "Considerable difference in lower level device sizes: 1200s vs. 1000s"
        );
    }

    #[test]
    fn without_a_disk_the_peers_size_is_taken_over() {
        let ours = Local {
            disk: None,
            device: Sector(0),
            ..local()
        };
        let device = |ours: &Local, theirs| receive(ours, &theirs).map(|r| r.device);
        assert_eq!(
            device(&ours, sizes(1000, 0, 900)),
            Ok(Device::Adopt(Sector(900)))
        );
        assert_eq!(
            device(&ours, sizes(1000, 800, 0)),
            Ok(Device::Adopt(Sector(800)))
        );
        assert_eq!(
            device(&ours, sizes(1000, 0, 0)),
            Ok(Device::Adopt(Sector(1000)))
        );
        assert_eq!(device(&ours, sizes(0, 0, 0)), Ok(Device::Keep));
        let ours = Local {
            device: Sector(900),
            ..ours
        };
        assert_eq!(device(&ours, sizes(1000, 0, 900)), Ok(Device::Keep));
        assert_eq!(
            device(&ours, sizes(0, 0, 800)),
            Ok(Device::IgnoreDisklessPeer { peer: Sector(800) })
        );
        assert_eq!(
            device(&ours, sizes(800, 0, 800)),
            Ok(Device::Adopt(Sector(800)))
        );
        let primary = Local {
            role: Role::Primary,
            ..ours
        };
        assert_eq!(
            device(&primary, sizes(800, 0, 800)),
            Err(SizesError::DeviceTooSmall {
                peer: Sector(800),
                device: Sector(900)
            })
        );
    }

    #[test]
    fn new_storage_is_resynced_unless_it_is_clean_or_a_disk_is_missing() {
        let grown = Resized {
            conn: ConnState::Connected,
            disk: DiskState::UpToDate,
            peer_disk: DiskState::UpToDate,
            device: Sector(1000),
            has_grown: true,
            backing_changed: false,
            was_pending: false,
        };
        let theirs = sizes(1000, 0, 1000);
        let expected = FollowUp {
            send_sizes: false,
            new_storage: NewStorage::Resync,
        };
        assert_eq!(follow_up(&grown, &theirs), expected);
        let clean = Sizes {
            flags: ResizeFlags::NO_RESYNC,
            ..theirs
        };
        assert_eq!(
            follow_up(&grown, &clean).new_storage,
            NewStorage::AssumeClean
        );
        let missing = Resized {
            peer_disk: DiskState::Diskless,
            ..grown
        };
        let later = NewStorage::ResyncAfterNegotiation;
        assert_eq!(follow_up(&missing, &theirs).new_storage, later);
        let syncing = Resized {
            conn: ConnState::SyncSource,
            ..grown
        };
        assert_eq!(follow_up(&syncing, &theirs).new_storage, NewStorage::Leave);
        let waited = Resized {
            was_pending: true,
            ..syncing
        };
        assert_eq!(follow_up(&waited, &theirs).new_storage, NewStorage::Resync);
        let connecting = Resized {
            conn: ConnState::WFReportParams,
            ..waited
        };
        assert_eq!(
            follow_up(&connecting, &theirs).new_storage,
            NewStorage::Leave
        );
    }

    #[test]
    fn a_peer_that_knows_another_size_is_answered() {
        let resized = Resized {
            conn: ConnState::Connected,
            disk: DiskState::UpToDate,
            peer_disk: DiskState::UpToDate,
            device: Sector(1000),
            has_grown: false,
            backing_changed: false,
            was_pending: false,
        };
        assert!(!follow_up(&resized, &sizes(1000, 0, 1000)).send_sizes);
        assert!(follow_up(&resized, &sizes(1000, 0, 0)).send_sizes);
        let changed = Resized {
            backing_changed: true,
            ..resized
        };
        assert!(follow_up(&changed, &sizes(1000, 0, 1000)).send_sizes);
    }

    #[test]
    fn requests_keep_to_what_the_version_and_old_peers_can_take() {
        let version = |number| Version::new(number).unwrap();
        assert_eq!(announced_bio_size(version(94), Some(1 << 20)), 32 << 10);
        assert_eq!(announced_bio_size(version(95), Some(1 << 20)), 128 << 10);
        assert_eq!(announced_bio_size(version(101), Some(512 << 10)), 512 << 10);
        assert_eq!(announced_bio_size(version(86), None), 1 << 20);
        assert_eq!(sendable_bio_size(version(93), 8192), 8192);
        assert_eq!(sendable_bio_size(version(93), 0), 4096);
        assert_eq!(sendable_bio_size(version(94), 8192), 32 << 10);
        assert_eq!(sendable_bio_size(version(97), 8192), 128 << 10);
        assert_eq!(sendable_bio_size(version(100), 8192), 1 << 20);
    }

    #[test]
    fn the_primary_is_the_source_of_new_storage() {
        assert!(is_source_of_new_storage(
            Role::Primary,
            Role::Secondary,
            false
        ));
        assert!(!is_source_of_new_storage(
            Role::Secondary,
            Role::Primary,
            true
        ));
        assert!(is_source_of_new_storage(
            Role::Secondary,
            Role::Secondary,
            true
        ));
    }
}
