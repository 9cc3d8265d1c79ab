// SPDX-License-Identifier: GPL-2.0

//! What a device holds already, as far as its first bytes tell: nobody shall lose data to metadata.

use super::store::{Page, Store};
use crate::failure::Outcome;
use zerocopy::IntoBytes;

/// Pages from the start of a device that are looked at: all signatures known here lie in them.
const HEAD_PAGES: usize = 64;

/// Something found on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub name: &'static str,
    /// Whether it is known to be somebody's data.
    pub known: bool,
    /// Bytes of the device that it uses, where it says so.
    pub used_bytes: Option<u64>,
}

/// Looks at a device; `None` where its start is all zeroes.
pub fn find(store: &Store) -> Outcome<Option<Found>> {
    let mut pages = vec![Page::ZERO; HEAD_PAGES];
    store.read_head(&mut pages)?;
    Ok(identify(pages.as_bytes()))
}

fn identify(head: &[u8]) -> Option<Found> {
    let head = Head(head);
    let known = [ext, xfs, btrfs, lvm, swap, luks, md_raid, partitions]
        .iter()
        .find_map(|look| look(head));
    let data = Found {
        name: "some data",
        known: false,
        used_bytes: None,
    };
    known.or_else(|| head.0.iter().any(|byte| *byte != 0).then_some(data))
}

/// Bytes from the start of a device.
#[derive(Clone, Copy)]
struct Head<'a>(&'a [u8]);

impl Head<'_> {
    fn has(self, offset: usize, magic: &[u8]) -> bool {
        self.0
            .get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    }

    fn array<const N: usize>(self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..)?.first_chunk().copied()
    }

    fn le32(self, offset: usize) -> Option<u64> {
        self.array(offset).map(u32::from_le_bytes).map(u64::from)
    }

    fn le64(self, offset: usize) -> Option<u64> {
        self.array(offset).map(u64::from_le_bytes)
    }
}

fn known(name: &'static str, used_bytes: Option<u64>) -> Option<Found> {
    Some(Found {
        name,
        known: true,
        used_bytes,
    })
}

fn ext(head: Head<'_>) -> Option<Found> {
    const SUPERBLOCK: usize = 1024;
    const HAS_JOURNAL: u64 = 4;
    const EXTENTS: u64 = 0x40;
    const MANY_BLOCKS: u64 = 0x80;
    if !head.has(SUPERBLOCK + 56, &[0x53, 0xef]) {
        return None;
    }
    let compatible = head.le32(SUPERBLOCK + 92)?;
    let incompatible = head.le32(SUPERBLOCK + 96)?;
    let mut blocks = head.le32(SUPERBLOCK + 4)?;
    if incompatible & MANY_BLOCKS != 0 {
        blocks |= head.le32(SUPERBLOCK + 336)? << 32;
    }
    let block_size = u32::try_from(head.le32(SUPERBLOCK + 24)?)
        .ok()
        .and_then(|shift| 1024u64.checked_shl(shift));
    let name = match (compatible & HAS_JOURNAL, incompatible & EXTENTS) {
        (0, 0) => "ext2 filesystem",
        (_, 0) => "ext3 filesystem",
        _ => "ext4 filesystem",
    };
    known(name, block_size.and_then(|size| blocks.checked_mul(size)))
}

fn xfs(head: Head<'_>) -> Option<Found> {
    if !head.has(0, b"XFSB") {
        return None;
    }
    let block_size = head.array(4).map(u32::from_be_bytes).map(u64::from)?;
    let blocks = head.array(8).map(u64::from_be_bytes)?;
    known("xfs filesystem", blocks.checked_mul(block_size))
}

fn btrfs(head: Head<'_>) -> Option<Found> {
    const SUPERBLOCK: usize = 0x1_0000;
    if !head.has(SUPERBLOCK + 0x40, b"_BHRfS_M") {
        return None;
    }
    known("btrfs filesystem", head.le64(SUPERBLOCK + 0x70))
}

fn lvm(head: Head<'_>) -> Option<Found> {
    // The label lies in one of the first four sectors and says how far behind itself its body is.
    let label = [0, 512, 1024, 1536]
        .into_iter()
        .find(|sector| head.has(*sector, b"LABELONE") && head.has(sector + 24, b"LVM2 001"))?;
    let body = usize::try_from(head.le32(label + 20)?).ok()?;
    let size_at = label.checked_add(body)?.checked_add(32)?;
    known("LVM2 physical volume signature", head.le64(size_at))
}

fn swap(head: Head<'_>) -> Option<Found> {
    head.has(4086, b"SWAPSPACE2")
        .then(|| known("swap space signature", None))?
}

fn luks(head: Head<'_>) -> Option<Found> {
    head.has(0, b"LUKS\xba\xbe")
        .then(|| known("LUKS encrypted volume", None))?
}

fn md_raid(head: Head<'_>) -> Option<Found> {
    const MAGIC: [u8; 4] = 0xa92b_4efcu32.to_le_bytes();
    (head.has(0, &MAGIC) || head.has(4096, &MAGIC)).then(|| known("linux raid member", None))?
}

fn partitions(head: Head<'_>) -> Option<Found> {
    if head.has(512, b"EFI PART") {
        return known("GPT partition table", None);
    }
    let entries = head.0.get(446..510)?;
    let plausible = entries
        .chunks(16)
        .all(|entry| matches!(entry.first(), Some(0 | 0x80)));
    let used = entries.iter().any(|byte| *byte != 0);
    (head.has(510, &[0x55, 0xaa]) && plausible && used)
        .then(|| known("DOS partition table", None))?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes at an offset.
    type Part<'a> = (usize, &'a [u8]);

    fn head(parts: &[Part<'_>]) -> Vec<u8> {
        let mut head = vec![0; HEAD_PAGES * 4096];
        for (offset, bytes) in parts {
            head[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        head
    }

    #[test]
    fn nothing_is_found_on_zeroes_and_some_data_where_a_byte_is_set() {
        assert_eq!(identify(&head(&[])), None);
        let found = identify(&head(&[(70_000, &[1])])).unwrap();
        assert_eq!((found.name, found.known), ("some data", false));
    }

    #[test]
    fn an_ext_filesystem_tells_its_generation_and_size() {
        let superblock: &[Part<'_>] = &[
            (1024 + 4, &20u32.to_le_bytes()),
            (1024 + 24, &2u32.to_le_bytes()),
            (1024 + 56, &[0x53, 0xef]),
        ];
        let journal: &[Part<'_>] = &[(1024 + 92, &[4])];
        let extents: &[Part<'_>] = &[(1024 + 96, &[0x40])];
        let named = |parts: &[&[Part<'_>]]| identify(&head(&parts.concat())).unwrap();
        assert_eq!(named(&[superblock]).name, "ext2 filesystem");
        assert_eq!(named(&[superblock, journal]).name, "ext3 filesystem");
        assert_eq!(
            named(&[superblock, journal, extents]).name,
            "ext4 filesystem"
        );
        assert_eq!(named(&[superblock]).used_bytes, Some(20 * 4096));
    }

    #[test]
    fn a_size_that_makes_no_sense_counts_as_unknown() {
        let parts: &[Part<'_>] = &[(0, b"XFSB\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")];
        let found = identify(&head(parts)).unwrap();
        assert_eq!((found.name, found.used_bytes), ("xfs filesystem", None));
    }

    #[test]
    fn other_owners_are_recognised() {
        let cases: &[(&str, &[Part<'_>])] = &[
            ("swap space signature", &[(4086, b"SWAPSPACE2")]),
            ("LUKS encrypted volume", &[(0, b"LUKS\xba\xbe")]),
            ("linux raid member", &[(4096, &[0xfc, 0x4e, 0x2b, 0xa9])]),
            ("GPT partition table", &[(512, b"EFI PART")]),
            (
                "DOS partition table",
                &[(446, &[0x80, 1]), (510, &[0x55, 0xaa])],
            ),
            (
                "LVM2 physical volume signature",
                &[(512, b"LABELONE"), (532, &[32]), (536, b"LVM2 001")],
            ),
        ];
        for (name, parts) in cases {
            assert_eq!(identify(&head(parts)).unwrap().name, *name);
        }
    }

    #[test]
    fn a_short_device_is_looked_at_without_a_panic() {
        for length in 0..2000 {
            identify(&vec![0xff; length]);
        }
    }
}
