// SPDX-License-Identifier: GPL-2.0

//! The generation UUIDs of a volume and everything that may happen to them (Spec §2.7).
//!
//! `current` names the generation of the data, `bitmap` the generation against which the bitmap
//! counts changes (0 when nothing is being counted), and the history holds the generations before.
//! Bit 0 of `current` says that its node was Primary.

/// The current UUID of metadata that never held data.
pub const JUST_CREATED: u64 = 4;
/// What a resync source adds to its bitmap UUID to name the resync, so that a lost P_SYNC_UUID can
/// be recognised.
pub const NEW_BITMAP_OFFSET: u64 = 1 << 48;

const PRIMARY_BIT: u64 = 1;

/// The four generation UUIDs, own or a peer's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uuids {
    /// The generation of the data.
    pub current: u64,
    /// The generation that the bitmap is relative to, or 0.
    pub bitmap: u64,
    /// Former generations, the youngest first.
    pub history: [u64; 2],
}

/// What an event asks for that may begin a new generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewCurrent {
    /// The generation goes on.
    No,
    /// Begin a new generation now, and tell the peer when connected.
    Now,
    /// I/O is suspended: remember it (NEW_CUR_UUID), begin the generation when I/O resumes.
    OnResume,
}

impl Uuids {
    /// The UUIDs of fresh metadata.
    pub const JUST_CREATED: Self = Self {
        current: JUST_CREATED,
        bitmap: 0,
        history: [0; 2],
    };

    /// Sets the current UUID; bit 0 says whether this node is Primary. The exposed UUID is to
    /// follow it.
    pub fn set_current(&mut self, value: u64, primary: bool) {
        self.current = (value & !PRIMARY_BIT) | u64::from(primary);
    }

    /// Begins a new generation named by the random number given: the bitmap counts from the old one
    /// on.
    ///
    /// Returns the bitmap UUID that was overwritten when it was set already, which deserves a
    /// warning.
    pub fn begin_generation(&mut self, random: u64, primary: bool) -> Option<u64> {
        let overwritten = (self.bitmap != 0).then_some(self.bitmap);
        self.bitmap = self.current;
        self.set_current(random, primary);
        overwritten
    }

    /// The same, unless the bitmap counts from a generation already: two may find a new one due at
    /// the same time, and the second would forget which the bits are of. Whether it has begun.
    pub fn begin_generation_once(&mut self, random: u64, primary: bool) -> bool {
        let is_due = self.bitmap == 0;
        if is_due {
            self.begin_generation(random, primary);
        }
        is_due
    }

    /// Sets the bitmap UUID; 0 ends the counting and moves the UUID into the history.
    pub fn set_bitmap(&mut self, value: u64) {
        if value == 0 {
            self.replace_bitmap(0);
        } else {
            self.bitmap = value & !PRIMARY_BIT;
        }
    }

    /// Sets the bitmap UUID and moves the one before into the history.
    pub fn replace_bitmap(&mut self, value: u64) {
        self.push_history(self.bitmap);
        self.bitmap = value;
    }

    /// Names the resync that this node is about to feed: the UUID to send as P_SYNC_UUID (Spec
    /// §1.22).
    pub fn start_as_sync_source(&mut self, random: u64) -> u64 {
        let sync_uuid = match self.bitmap {
            0 | JUST_CREATED => random,
            bitmap => bitmap.wrapping_add(NEW_BITMAP_OFFSET),
        };
        self.replace_bitmap(sync_uuid);
        sync_uuid
    }

    /// Takes over a generation without counting against another: the target of P_SYNC_UUID, or two
    /// new disks declared equal.
    pub fn adopt_current(&mut self, uuid: u64, primary: bool) {
        self.set_current(uuid, primary);
        self.bitmap = 0;
    }

    /// The resync that this node fed is complete.
    pub fn finish_as_sync_source(&mut self) {
        self.set_bitmap(0);
    }

    /// The resync that this node received is complete: it now has the peer's generation, and the
    /// peer's past.
    ///
    /// The caller then takes these UUIDs for the peer's as well.
    pub fn finish_as_sync_target(&mut self, peer: &Self, primary: bool) {
        let sync_uuid = self.current;
        self.bitmap = peer.bitmap;
        self.history = peer.history;
        self.replace_bitmap(sync_uuid);
        self.set_current(peer.current, primary);
        self.set_bitmap(0);
    }

    /// Takes back the start of a resync as its source, which the peer never heard of: rules 51 and
    /// 71 of the sync handshake.
    pub fn undo_sync_start(&mut self) {
        let [youngest, older] = self.history;
        self.bitmap = youngest;
        self.history = [older, older];
    }

    /// This node became Primary.
    pub fn enter_primary(&mut self) {
        self.current |= PRIMARY_BIT;
    }

    /// This node became Secondary.
    pub fn enter_secondary(&mut self) {
        self.current &= !PRIMARY_BIT;
    }

    /// The current UUID without its role bit, as comparisons want it.
    pub const fn generation(&self) -> u64 {
        self.current & !PRIMARY_BIT
    }

    /// Whether a promotion begins a generation: `peer_has_no_data` is conn < Connected or pdsk <=
    /// Failed.
    pub const fn on_promotion(&self, peer_has_no_data: bool, forced: bool) -> NewCurrent {
        if forced || (peer_has_no_data && self.bitmap == 0) {
            NewCurrent::Now
        } else {
            NewCurrent::No
        }
    }

    /// Whether losing the peer's copy of the data begins a generation (Spec §4.8 item 10).
    pub const fn on_peer_data_lost(
        &self,
        someone_is_primary: bool,
        disk_up_to_date: bool,
        suspended: bool,
    ) -> NewCurrent {
        match someone_is_primary && disk_up_to_date && self.bitmap == 0 {
            false => NewCurrent::No,
            true if suspended => NewCurrent::OnResume,
            true => NewCurrent::Now,
        }
    }

    /// Whether a peer without data that becomes Primary begins a generation (Spec §4.8 item 11).
    pub const fn on_diskless_peer_promoted(&self, disk_up_to_date: bool) -> NewCurrent {
        self.on_peer_data_lost(true, disk_up_to_date, false)
    }

    fn push_history(&mut self, old: u64) {
        if old != 0 {
            let [youngest, _] = self.history;
            self.history = [old, youngest];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: u64 = 0x1111_0000_0000_0010;
    const NEW: u64 = 0x2222_0000_0000_0020;

    fn synced() -> Uuids {
        Uuids {
            current: OLD,
            bitmap: 0,
            history: [0x30, 0x40],
        }
    }

    #[test]
    fn the_current_uuid_carries_the_role() {
        let mut uuids = synced();
        uuids.set_current(NEW | 1, false);
        assert_eq!(uuids.current, NEW);
        uuids.enter_primary();
        assert_eq!((uuids.current, uuids.generation()), (NEW | 1, NEW));
        uuids.enter_secondary();
        assert_eq!(uuids.current, NEW);
    }

    #[test]
    fn a_new_generation_counts_from_the_old_one_with_its_role_bit() {
        let mut uuids = synced();
        uuids.enter_primary();
        assert_eq!(uuids.begin_generation(NEW, true), None);
        assert_eq!((uuids.current, uuids.bitmap), (NEW | 1, OLD | 1));
        assert_eq!(uuids.history, [0x30, 0x40]);
        assert_eq!(uuids.begin_generation(0x50, true), Some(OLD | 1));
    }

    #[test]
    fn a_generation_that_two_find_due_begins_once() {
        let mut uuids = synced();
        assert!(uuids.begin_generation_once(NEW, true));
        let begun = uuids;
        assert!(!uuids.begin_generation_once(0x50, true));
        assert_eq!((begun.current, begun.bitmap), (NEW | 1, OLD));
        assert_eq!(uuids, begun);
    }

    #[test]
    fn the_history_only_remembers_uuids_that_were_set() {
        let mut uuids = synced();
        uuids.set_bitmap(0);
        assert_eq!(uuids, synced());
        uuids.set_bitmap(NEW | 1);
        assert_eq!((uuids.bitmap, uuids.history), (NEW, [0x30, 0x40]));
        uuids.set_bitmap(0);
        assert_eq!((uuids.bitmap, uuids.history), (0, [NEW, 0x30]));
    }

    #[test]
    fn a_sync_source_ends_with_the_history_a_recorded_node_has() {
        let mut uuids = Uuids {
            current: 0x2ff1_5624_2827_9162,
            bitmap: 0x9d67_70c3_ea42_f557,
            history: [0xe648_04e8_e000_03f8, JUST_CREATED],
        };
        assert_eq!(uuids.start_as_sync_source(0), 0x9d68_70c3_ea42_f557);
        uuids.finish_as_sync_source();
        assert_eq!(uuids.bitmap, 0);
        assert_eq!(
            uuids.history,
            [0x9d68_70c3_ea42_f557, 0x9d67_70c3_ea42_f557]
        );
    }

    #[test]
    fn a_resync_of_new_metadata_gets_a_random_name() {
        let mut uuids = Uuids {
            bitmap: JUST_CREATED,
            ..synced()
        };
        assert_eq!(uuids.start_as_sync_source(NEW), NEW);
        assert_eq!((uuids.bitmap, uuids.history), (NEW, [JUST_CREATED, 0x30]));
    }

    #[test]
    fn source_and_target_agree_on_all_uuids_when_a_resync_ends() {
        let mut source = Uuids {
            current: NEW | 1,
            bitmap: OLD,
            history: [0x30, 0x40],
        };
        let mut target = synced();
        let sync_uuid = source.start_as_sync_source(0x77);
        target.adopt_current(sync_uuid, false);
        let source_as_the_target_knows_it = Uuids {
            bitmap: OLD,
            history: [0x30, 0x40],
            ..source
        };
        target.finish_as_sync_target(&source_as_the_target_knows_it, false);
        source.finish_as_sync_source();
        assert_eq!(target.generation(), source.generation());
        assert_eq!(
            (target.bitmap, target.history),
            (source.bitmap, source.history)
        );
    }

    #[test]
    fn a_resync_start_that_the_peer_missed_can_be_taken_back() {
        let mut source = Uuids {
            bitmap: OLD,
            ..synced()
        };
        source.start_as_sync_source(0);
        source.undo_sync_start();
        assert_eq!((source.bitmap, source.history[0]), (OLD, 0x30));
    }

    #[test]
    fn a_generation_begins_when_a_primary_goes_on_alone_and_only_then() {
        let counting = Uuids {
            bitmap: OLD,
            ..synced()
        };
        assert_eq!(synced().on_promotion(true, false), NewCurrent::Now);
        assert_eq!(synced().on_promotion(false, false), NewCurrent::No);
        assert_eq!(counting.on_promotion(true, false), NewCurrent::No);
        assert_eq!(counting.on_promotion(false, true), NewCurrent::Now);
        assert_eq!(
            synced().on_peer_data_lost(true, true, false),
            NewCurrent::Now
        );
        assert_eq!(
            synced().on_peer_data_lost(true, true, true),
            NewCurrent::OnResume
        );
        assert_eq!(
            synced().on_peer_data_lost(false, true, false),
            NewCurrent::No
        );
        assert_eq!(
            synced().on_peer_data_lost(true, false, false),
            NewCurrent::No
        );
        assert_eq!(
            counting.on_peer_data_lost(true, true, false),
            NewCurrent::No
        );
        assert_eq!(synced().on_diskless_peer_promoted(true), NewCurrent::Now);
        assert_eq!(counting.on_diskless_peer_promoted(true), NewCurrent::No);
    }
}
