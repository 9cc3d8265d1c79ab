// SPDX-License-Identifier: GPL-2.0

//! Internal metadata of a device that grew while it was not in use: found where its end was, and
//! moved to where it is (Spec §9.3).

use super::area::{self, Area};
use super::recover;
use super::store::{Page, Store};
use super::Options;
use crate::failure::{Failure, Outcome};
use crate::note::Note;
use crate::terminal;
use drbd_engine::meta::Placement;

/// Loads the metadata of a device. Those at the end that the note remembers are moved first.
///
/// The activity log is applied before the move: it must not be lost on the way.
pub fn load(
    store: Store,
    placement: Placement,
    note: Option<&Note>,
    options: &Options,
) -> Outcome<Area> {
    let (store, failure) = match Area::load(store, placement) {
        Ok(area) => return Ok(area),
        Err(other) => other,
    };
    let size = store.size();
    let grown = note.filter(|note| placement.is_internal() && note.size < size);
    let Some(note) = grown else {
        return Err(failure);
    };
    let mut old = match Area::load(store.with_size(note.size), placement) {
        Ok(area) => area,
        Err(_) => return Err(failure),
    };
    check_identity(&old, note, options.force)?;
    recover::apply(&mut old, options.verbose)?;
    relocate(old, size)
}

fn check_identity(old: &Area, note: &Note, force: bool) -> Outcome {
    let found = old.superblock.device_uuid;
    if note.uuid == 0 || found == note.uuid {
        return Ok(());
    }
    eprintln!(
        "Last known and found uuid differ!? {:016X} != {found:016X}",
        note.uuid
    );
    let question = "Move internal meta data from last-known position?";
    if terminal::confirm(question, force) {
        Ok(())
    } else {
        Err(Failure::new(1, "Operation cancelled."))
    }
}

fn relocate(old: Area, size: u64) -> Outcome<Area> {
    println!("Moving the internal meta data to its proper location");
    let mut bitmap = Vec::new();
    old.for_each_bitmap_chunk(|_, pages| {
        bitmap.extend_from_slice(pages);
        Ok(())
    })?;
    let (placement, mut superblock) = (old.placement(), old.superblock);
    let old_sector = old.layout().superblock();
    let store = old.into_store().with_size(size);
    let layout = area::fresh_layout(&store, placement, superblock.ring)?;
    superblock.set_layout(&layout);
    let new = Area::fresh(store, placement, layout, superblock);
    new.zero_bitmap(layout.bitmap_sectors())?;
    if !bitmap.is_empty() {
        new.write_bitmap(0, &bitmap)?;
    }
    new.initialize_log()?;
    new.store().flush()?;
    new.save()?;
    // Only now there is a super block to be found at the new place.
    if !layout.sectors().contains(&old_sector.0) {
        new.store()
            .write(old_sector, &[Page::ZERO], "old super block")?;
        new.store().flush()?;
    }
    println!("Internal drbd meta data successfully moved.");
    Ok(new)
}
