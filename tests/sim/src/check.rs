// SPDX-License-Identifier: GPL-2.0

//! What an observer who sees both disks at once can check.

use drbd_engine::bitmap::bits_for;
use drbd_engine::meta::MdFlags;
use drbd_engine::types::{BitNr, Sector};

use crate::drive::{Content, Sectors};
use crate::node::device::Device;
use crate::node::{Config, Hardware};
use crate::tools;

/// A volume on one node, running or not.
pub struct Side<'a> {
    /// The volume while its node has power.
    pub device: Option<&'a Device>,
    /// Its disks.
    pub hardware: &'a Hardware,
}

fn is_zero(content: &Option<Content>) -> bool {
    matches!(content, None | Some(Content::Data(0)))
}

/// The sectors in which two disks differ; what was never written is all zeroes.
fn differences<'a>(one: &'a Sectors, other: &'a Sectors) -> impl Iterator<Item = u64> + 'a {
    let missing = |from: &'a Sectors, to: &'a Sectors| {
        from.iter().filter_map(move |(sector, content)| {
            let there = to
                .binary_search_by_key(sector, |(at, _)| *at)
                .ok()
                .and_then(|index| to.get(index));
            let equal = match there {
                Some((_, there)) => there == content,
                None => is_zero(content),
            };
            (!equal).then_some(*sector)
        })
    };
    missing(one, other).chain(missing(other, one))
}

/// The first sector found in which two disks differ.
pub fn first_difference(one: &Sectors, other: &Sectors) -> Option<u64> {
    differences(one, other).next()
}

/// Which blocks a node would ask to have synced, were it to lose its power now; one entry a bit.
fn known(side: &Side<'_>, config: &Config) -> Vec<bool> {
    let bits = bits_for(Sector(config.capacity_sectors));
    let mut known = vec![false; usize::try_from(bits).unwrap_or(0)];
    let attached = side
        .device
        .and_then(|device| device.attached_disk().map(|local| (device, local)))
        .filter(|(_, local)| local.in_core.get());
    let extents = if let Some((device, local)) = attached {
        let view = local.view(device);
        for (bit, known) in (0..).zip(&mut known) {
            *known = view.test(BitNr(bit));
        }
        if local.superblock.borrow().flags.contains(MdFlags::FULL_SYNC) {
            known.fill(true);
        }
        let hot = local.activity_log.borrow().hot().collect();
        hot
    } else {
        from_disk(side, config, &mut known)
    };
    for extent in extents {
        let first = usize::try_from(extent.0)
            .unwrap_or(usize::MAX)
            .saturating_mul(1024);
        let end = first.saturating_add(1024).min(known.len());
        if let Some(bits) = known.get_mut(first..end) {
            bits.fill(true);
        }
    }
    known
}

fn from_disk(
    side: &Side<'_>,
    config: &Config,
    known: &mut [bool],
) -> Vec<drbd_engine::types::ExtentNr> {
    let meta = &side.hardware.meta;
    for (page, bits) in (0..).zip(known.chunks_mut(32768)) {
        let content = tools::read_bitmap_page(meta, config, page);
        for (bit, known) in bits.iter_mut().enumerate() {
            *known = content[bit / 8] & (1 << (bit % 8)) != 0;
        }
    }
    match tools::read_superblock(meta, config) {
        Some(superblock) if superblock.flags.contains(MdFlags::FULL_SYNC) => {
            known.fill(true);
            Vec::new()
        }
        Some(superblock) if superblock.check_clean().is_ok() => Vec::new(),
        _ => tools::hot_extents(meta, config),
    }
}

/// A sector that differs and that no bit and no hot extent of either node covers.
pub fn uncovered(sides: &[Side<'_>; 2], config: &Config) -> Option<u64> {
    let [one, other] = sides;
    let data = |side: &Side<'_>| side.hardware.data.peek(0, config.capacity_sectors);
    let (mine, theirs) = (data(one), data(other));
    let mut differing = differences(&mine, &theirs).peekable();
    differing.peek()?;
    let (mine, theirs) = (known(one, config), known(other, config));
    differing.find(|sector| {
        let bit = usize::try_from(sector / 8).unwrap_or(usize::MAX);
        let covered = |known: &[bool]| known.get(bit).copied().unwrap_or(false);
        !covered(&mine) && !covered(&theirs)
    })
}
