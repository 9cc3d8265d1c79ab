// SPDX-License-Identifier: GPL-2.0

//! `dump-md`: the metadata as text.

use super::area::Area;
use super::store::Page;
use super::Options;
use crate::failure::{Failure, Outcome};
use drbd_engine::meta::superblock::Magic;
use drbd_engine::types::Sector;
use std::io::Write;

/// Words that a line shows.
const LINE_WORDS: usize = 4;
/// Words after which a line says where in the volume it is.
const MARK_WORDS: u64 = 32;
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
    let mut lines = BitmapLines::default();
    area.for_each_bitmap_chunk(|_, pages| {
        for line in lines_of(pages) {
            let set = line.iter().map(|word| u64::from(word.count_ones()));
            bits_set = bits_set.saturating_add(set.sum());
            lines.add(line);
        }
        Ok(out.write_all(lines.take().as_bytes())?)
    })?;
    lines.end_run();
    out.write_all(lines.take().as_bytes())?;
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

/// Four words of the bitmap.
type Line = [u64; LINE_WORDS];

fn lines_of(pages: &[Page]) -> impl Iterator<Item = Line> + '_ {
    let words = pages.iter().flat_map(|page| page.0.chunks_exact(8));
    let mut words = words.filter_map(|word| word.try_into().ok().map(u64::from_le_bytes));
    std::iter::from_fn(move || {
        let mut line = [0; LINE_WORDS];
        for word in &mut line {
            *word = words.next()?;
        }
        Some(line)
    })
}

/// The bitmap as text: lines of four words, or a count where zeroes or ones go on for longer.
#[derive(Debug, Default)]
struct BitmapLines {
    text: String,
    /// How many words are in the text.
    words: u64,
    /// Equal lines that are not in the text yet.
    run: Option<(Line, u64)>,
}

impl BitmapLines {
    fn add(&mut self, line: Line) {
        match &mut self.run {
            Some((repeated, count)) if *repeated == line => {
                *count = count.saturating_add(1);
                return;
            }
            _ => self.end_run(),
        }
        if line == [0; LINE_WORDS] || line == [u64::MAX; LINE_WORDS] {
            self.run = Some((line, 1));
        } else {
            self.write(line, 1);
        }
    }

    fn end_run(&mut self) {
        if let Some((line, count)) = self.run.take() {
            self.write(line, count);
        }
    }

    fn write(&mut self, line: Line, count: u64) {
        if self.words % MARK_WORDS == 0 {
            let kib = self.words.saturating_mul(WORD_KIB);
            self.text.push_str(&format!("   # at {kib}kB\n"));
        }
        let words = count.saturating_mul(LINE_WORDS as u64);
        let [first, second, third, fourth] = line;
        self.text.push_str(&match count {
            1 => format!("    0x{first:016X}; 0x{second:016X}; 0x{third:016X}; 0x{fourth:016X};\n"),
            _ => format!("    {words} times 0x{first:016X};\n"),
        });
        self.words = self.words.saturating_add(words);
    }

    /// The text so far.
    fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[u64]) -> String {
        let mut lines = BitmapLines::default();
        for line in words.chunks_exact(LINE_WORDS) {
            lines.add(line.try_into().unwrap());
        }
        lines.end_run();
        lines.take()
    }

    #[test]
    fn long_runs_of_zeroes_and_ones_are_counted_and_others_are_written_out() {
        let mut words = vec![0; 40];
        words[38] = 5;
        words.extend([u64::MAX; 8]);
        words.extend([7; 8]);
        words.extend([0; 4]);
        let zero = "0x0000000000000000;";
        let seven = ["0x0000000000000007;"; 4].join(" ");
        assert_eq!(
            shown(&words),
            format!(
                "   # at 0kB\n    36 times {zero}\n    \
                 {zero} {zero} 0x0000000000000005; {zero}\n    \
                 8 times 0xFFFFFFFFFFFFFFFF;\n    {seven}\n    {seven}\n    \
                 {zero} {zero} {zero} {zero}\n"
            )
        );
    }

    #[test]
    fn every_thirty_second_word_says_where_it_is() {
        let text = shown(&[1; 64]);
        let marks: Vec<_> = text.lines().filter(|line| line.contains('#')).collect();
        assert_eq!(marks, ["   # at 0kB", "   # at 8192kB"]);
    }
}
