// SPDX-License-Identifier: GPL-2.0

//! `dump-md`: the metadata as text.

use super::area::Area;
use super::store::Page;
use super::Options;
use crate::failure::{Failure, Outcome};
use drbd_engine::meta::superblock::Magic;
use drbd_engine::types::Sector;
use std::fmt::Write as _;
use std::io::Write;

/// Words that a line shows.
const LINE_WORDS: usize = 4;
/// Words after which a line says where in the volume it is.
const MARK_WORDS: u64 = 32;
/// Equal words that are worth a repeat count.
const MIN_REPEAT: usize = 8;
/// KiB of storage that a word of the bitmap stands for.
const WORD_KIB: u64 = 256;

/// Writes the dump. Unclean metadata are dumped only with `--force`.
pub fn dump(area: &Area, options: &Options, out: &mut impl Write) -> Outcome {
    let unclean = area.superblock.magic == Magic::Unclean;
    if unclean {
        eprintln!("Found meta data is \"unclean\", please apply-al first");
        if !options.force {
            return Err(Failure::new(1, ""));
        }
    }
    out.write_all(head(area, options, unclean).as_bytes())?;
    let mut bits_set = 0u64;
    area.for_each_bitmap_chunk(|first, pages| {
        let words = words_of(pages);
        let set = words.iter().map(|word| u64::from(word.count_ones()));
        bits_set = bits_set.saturating_add(set.sum());
        out.write_all(bitmap_text(first, &words).as_bytes())?;
        Ok(())
    })?;
    write!(out, "}}\n# bits-set {bits_set};\n")?;
    Ok(())
}

fn head(area: &Area, options: &Options, unclean: bool) -> String {
    let superblock = &area.superblock;
    let layout = area.layout();
    let bytes = |sector: Sector| sector.bytes().unwrap_or(0);
    let warning = if unclean {
        "This_is_an_unclean_meta_data_dump._Don't_trust_the_bitmap.\n\
         # You should \"apply-al\" first, if you plan to restore this.\n\n"
    } else {
        ""
    };
    let [younger, older] = superblock.uuids.history;
    format!(
        "# DRBD meta data dump\n# {now}\n# {host}> {command}\n#\n\nversion \"v08\";\n\n{warning}\
         # md_size_sect {md_size}\n# md_offset {md}\n# al_offset {al}\n# bm_offset {bm}\n\n\
         uuid {{\n    0x{current:016X}; 0x{bitmap:016X}; 0x{younger:016X}; 0x{older:016X};\n    \
         flags 0x00000000;\n}}\n\
         # al-extents {extents};\nla-size-sect {size};\nbm-byte-per-bit 4096;\n\
         device-uuid 0x{device:016X};\nla-peer-max-bio-size {bio};\n\
         al-stripes {stripes};\nal-stripe-size-4k {stripe};\n# bm-bytes {bm_bytes};\nbm {{\n",
        now = crate::clock::stamp(),
        host = crate::host::name(),
        command = options.command_line,
        md_size = superblock.md_size_sectors,
        md = bytes(layout.superblock()),
        al = bytes(layout.activity_log()),
        bm = bytes(layout.bitmap()),
        current = superblock.uuids.current,
        bitmap = superblock.uuids.bitmap,
        extents = superblock.al_extents,
        size = superblock.last_agreed_size,
        device = superblock.device_uuid,
        bio = superblock.peer_max_bio_bytes,
        stripes = superblock.ring.stripes(),
        stripe = superblock.ring.stripe_blocks(),
        bm_bytes = area.bitmap_pages().saturating_mul(4096),
    )
}

fn words_of(pages: &[Page]) -> Vec<u64> {
    let chunks = pages.iter().flat_map(|page| page.0.chunks_exact(8));
    chunks
        .filter_map(|chunk| chunk.try_into().ok().map(u64::from_le_bytes))
        .collect()
}

/// Lines of four words, or a count of repeated words of zeroes or ones.
fn bitmap_text(first_page: u64, words: &[u64]) -> String {
    let mut text = String::new();
    let mut rest = words;
    let mut word = first_page.saturating_mul(512);
    while let Some(&value) = rest.first() {
        if word % MARK_WORDS == 0 {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "   # at {}kB", word.saturating_mul(WORD_KIB));
        }
        let equal = match value {
            0 | u64::MAX => rest.iter().take_while(|other| **other == value).count(),
            _ => 0,
        };
        let repeat = equal - equal % LINE_WORDS;
        let taken = if repeat >= MIN_REPEAT {
            let _ = writeln!(text, "    {repeat} times 0x{value:016X};");
            repeat
        } else {
            let line: Vec<_> = rest
                .iter()
                .take(LINE_WORDS)
                .map(|word| format!("0x{word:016X};"))
                .collect();
            let _ = writeln!(text, "    {}", line.join(" "));
            line.len()
        };
        rest = rest.get(taken..).unwrap_or_default();
        word = word.saturating_add(u64::try_from(taken).unwrap_or(0));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_of_zeroes_and_ones_are_counted_and_others_are_written_out() {
        let mut words = vec![0; 40];
        words[38] = 5;
        words.extend([u64::MAX; 8]);
        words.extend([7; 8]);
        let zero = "0x0000000000000000;";
        let seven = ["0x0000000000000007;"; 4].join(" ");
        assert_eq!(
            bitmap_text(0, &words),
            format!(
                "   # at 0kB\n    36 times {zero}\n    \
                 {zero} {zero} 0x0000000000000005; {zero}\n    \
                 8 times 0xFFFFFFFFFFFFFFFF;\n    {seven}\n    {seven}\n"
            )
        );
    }

    #[test]
    fn every_thirty_second_word_says_where_it_is() {
        let text = bitmap_text(1, &[1; 64]);
        let marks: Vec<_> = text.lines().filter(|line| line.contains('#')).collect();
        assert_eq!(marks, ["   # at 131072kB", "   # at 139264kB"]);
    }
}
