// SPDX-License-Identifier: GPL-2.0

//! Where a request goes: to the local disk, to the peer, to both, or nowhere (spec §5.5).

use crate::config::{OnNoData, ReadBalancing};
use crate::state::{ConnState, DiskState};
use crate::types::Sector;

/// The fields of the state word that decide where requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies {
    /// The local disk.
    pub disk: DiskState,
    /// The peer's disk.
    pub peer_disk: DiskState,
    /// The connection.
    pub conn: ConnState,
}

impl Copies {
    /// Whether writes are sent to the peer (spec §5.5).
    pub fn mirrors(&self) -> bool {
        let takes_part = self.peer_disk >= DiskState::Inconsistent
            && self.conn >= ConnState::WFBitMapT
            && self.conn < ConnState::Ahead;
        self.peer_disk == DiskState::UpToDate || takes_part
    }

    /// Whether the peer is only told which blocks a write left out of sync (spec §1.24, §5.5).
    pub fn sends_out_of_sync(&self) -> bool {
        !self.mirrors() && matches!(self.conn, ConnState::Ahead | ConnState::WFBitMapS)
    }

    /// Whether the local disk takes writes.
    pub fn writes_locally(&self) -> bool {
        self.disk >= DiskState::Inconsistent
    }

    /// Whether one of the copies is current; without one a write must not be accepted.
    fn has_current_data(&self) -> bool {
        self.disk == DiskState::UpToDate || self.peer_disk == DiskState::UpToDate
    }

    fn reads_locally(&self, is_clean: bool) -> bool {
        match self.disk {
            DiskState::UpToDate => true,
            DiskState::Inconsistent => is_clean,
            _ => false,
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<T> {
    /// It goes there.
    Go(T),
    /// There is no current data within reach; it waits until there is, or until the admin resumes
    /// I/O (`suspend-io`).
    Suspend,
    /// There is no current data within reach; it fails with EIO ("IO ERROR: neither local nor
    /// remote data").
    Fail,
}

impl<T> Route<T> {
    fn no_data(policy: OnNoData) -> Self {
        match policy {
            OnNoData::IoError => Self::Fail,
            OnNoData::SuspendIo => Self::Suspend,
        }
    }
}

/// The parts of a write, discard, write-zeroes or flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteRoute {
    /// Submit it to the local disk.
    pub local: bool,
    /// Send it to the peer. A flush is not sent: close the epoch instead.
    pub remote: bool,
    /// Set the bits, and send the peer P_OUT_OF_SYNC, see [`tells_out_of_sync`].
    pub out_of_sync: bool,
    /// Set the bits in the same step as the request enters the transfer log: the peer gets neither
    /// the data nor that message.
    ///
    /// Were they set when the local disk is through, the bitmaps could be exchanged in between.
    pub marks: bool,
}

/// The node that serves a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// This node's disk.
    Local,
    /// The peer.
    Remote,
}

/// What the routing of a read depends on, beside the state.
#[derive(Clone, Copy, Debug)]
pub struct ReadInputs {
    /// The first sector.
    pub sector: Sector,
    /// No bit of the range is set in the bitmap, and the bitmap may be trusted (see
    /// `Immediate::TrustBitmap`). Of interest only while the disk is Inconsistent.
    pub is_clean: bool,
    /// The connection's policy.
    pub balancing: ReadBalancing,
    /// Application requests in flight to the local disk.
    pub local_pending: u32,
    /// Application and resync requests that the peer owes an answer to.
    pub remote_pending: u32,
    /// The previous read in turns went to the peer (`round-robin`).
    pub last_was_remote: bool,
    /// The read failed on the local disk before.
    pub failed_locally: bool,
    /// The peer failed to serve the read before.
    pub failed_remotely: bool,
}

/// Routes a write, a discard or write-zeroes.
pub fn route_write(copies: Copies, on_no_data: OnNoData) -> Route<WriteRoute> {
    let route = WriteRoute {
        local: copies.writes_locally(),
        remote: copies.mirrors(),
        out_of_sync: copies.sends_out_of_sync(),
        marks: (copies.writes_locally() && !copies.mirrors() && !copies.sends_out_of_sync())
            || (copies.disk == DiskState::Negotiating && copies.mirrors()),
    };
    if !copies.has_current_data() || !(route.local || route.remote) {
        return Route::no_data(on_no_data);
    }
    Route::Go(route)
}

/// Whether the peer is told of a write that it does not get ([`WriteRoute::out_of_sync`]), which
/// set so many bits anew.
///
/// Where all were set the peer knows of them, unless the disk has failed since the last resync
/// (`is_marked_untold`): that sets bits too, and maybe after the bitmap was sent. The peer would
/// call its disk UpToDate without the write. The C driver does not tell it.
pub const fn tells_out_of_sync(newly_set: u64, is_marked_untold: bool) -> bool {
    newly_set != 0 || is_marked_untold
}

/// Routes an empty flush: to one good disk.
///
/// The local one makes it, and a peer follows with the barrier that ends the epoch. Where there is
/// none, or where it failed to (`disk_flushes` is false), the peer makes it: the route is remote
/// alone, and the flush is done when the peer has acknowledged the barriers of all that was written
/// before (`TransferLog::mark`). The C driver calls it done at once, on the word of nobody.
pub fn route_flush(copies: Copies, disk_flushes: bool, on_no_data: OnNoData) -> Route<WriteRoute> {
    let local = disk_flushes && copies.disk == DiskState::UpToDate;
    let peer_flushes = copies.peer_disk == DiskState::UpToDate;
    if local || peer_flushes {
        return Route::Go(WriteRoute {
            local,
            remote: copies.mirrors(),
            out_of_sync: false,
            marks: false,
        });
    }
    if copies.has_current_data() {
        Route::Fail
    } else {
        Route::no_data(on_no_data)
    }
}

/// Routes a read. A copy that failed to serve it before is not asked again.
pub fn route_read(copies: Copies, inputs: &ReadInputs, on_no_data: OnNoData) -> Route<Destination> {
    let local = copies.reads_locally(inputs.is_clean) && !inputs.failed_locally;
    let remote = copies.peer_disk == DiskState::UpToDate && !inputs.failed_remotely;
    match (local, remote) {
        (true, true) if prefers_remote(inputs) => Route::Go(Destination::Remote),
        (true, _) => Route::Go(Destination::Local),
        (false, true) => Route::Go(Destination::Remote),
        // Both copies were asked and answered with an error: waiting would not help.
        (false, false) if copies.has_current_data() => Route::Fail,
        (false, false) => Route::no_data(on_no_data),
    }
}

/// Whether [`route_read`] gives a read to the local disk whatever its other inputs are.
///
/// `stays_local`: [`never_prefers_remote`] for the connection's policy.
pub fn reads_here(copies: Copies, stays_local: bool, failed_locally: bool) -> bool {
    let alone = stays_local || copies.peer_disk != DiskState::UpToDate;
    copies.disk == DiskState::UpToDate && alone && !failed_locally
}

/// Whether a policy leaves no read to the peer that the local disk can serve.
pub const fn never_prefers_remote(balancing: ReadBalancing) -> bool {
    // The block layer no longer tells whether a backing device is congested.
    matches!(
        balancing,
        ReadBalancing::PreferLocal | ReadBalancing::WhenCongestedRemote
    )
}

fn prefers_remote(inputs: &ReadInputs) -> bool {
    let stripe = |shift: u32| inputs.sector.0.checked_shr(shift).unwrap_or(0) & 1 == 1;
    match inputs.balancing {
        ReadBalancing::PreferLocal | ReadBalancing::WhenCongestedRemote => false,
        ReadBalancing::PreferRemote => true,
        ReadBalancing::RoundRobin => !inputs.last_was_remote,
        ReadBalancing::LeastPending => inputs.local_pending > inputs.remote_pending,
        ReadBalancing::Striping32K => stripe(6),
        ReadBalancing::Striping64K => stripe(7),
        ReadBalancing::Striping128K => stripe(8),
        ReadBalancing::Striping256K => stripe(9),
        ReadBalancing::Striping512K => stripe(10),
        ReadBalancing::Striping1M => stripe(11),
    }
}
