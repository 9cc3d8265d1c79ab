// SPDX-License-Identifier: GPL-2.0

//! The peer's disk: a file with the data, and one beside it with generations and bitmap.

use drbd_engine::bitmap::{words_for, Bitmap};
use drbd_engine::meta::Uuids;
use drbd_engine::state::DiskState;
use drbd_engine::types::{Sector, BIT_SIZE};
use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The generation of a disk that was never used.
const JUST_CREATED: u64 = 4;

/// The disk.
pub(crate) struct Disk {
    file: File,
    beside: PathBuf,
    /// Sectors of the file.
    pub(crate) max: Sector,
    /// Sectors that both sides agreed on; 0 before.
    pub(crate) size: Sector,
    /// Data generations.
    pub(crate) uuids: Uuids,
    /// What the data is worth.
    pub(crate) state: DiskState,
    /// It was Primary when it was last stopped.
    pub(crate) was_primary: bool,
    words: Vec<Cell<u64>>,
}

impl Disk {
    /// Opens a disk, or makes one.
    pub(crate) fn open(path: &Path, kib: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.set_len(kib * 1024)?;
        let mut disk = Self {
            file,
            beside: path.with_extension("meta"),
            max: Sector(kib * 2),
            size: Sector(0),
            uuids: Uuids {
                current: JUST_CREATED,
                ..Uuids::default()
            },
            state: DiskState::Inconsistent,
            was_primary: false,
            words: Vec::new(),
        };
        disk.load()?;
        Ok(disk)
    }

    fn load(&mut self) -> io::Result<()> {
        let bytes = match std::fs::read(&self.beside) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let numbers: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|chunk| {
                chunk
                    .iter()
                    .rev()
                    .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
            })
            .collect();
        let [current, bitmap, younger, older, size, state, primary, words @ ..] = &numbers[..]
        else {
            return Ok(());
        };
        self.uuids = Uuids {
            current: *current,
            bitmap: *bitmap,
            history: [*younger, *older],
        };
        self.size = Sector(*size);
        self.state = DiskState::from_bits((*state & 15) as u8).unwrap_or(DiskState::Inconsistent);
        self.was_primary = *primary != 0;
        self.words = words.iter().copied().map(Cell::new).collect();
        Ok(())
    }

    /// Writes down everything but the data.
    pub(crate) fn save(&self, primary: bool) -> io::Result<()> {
        let Uuids {
            current,
            bitmap,
            history: [younger, older],
        } = self.uuids;
        let state = u64::from(self.state.bits());
        let front = [
            current,
            bitmap,
            younger,
            older,
            self.size.0,
            state,
            u64::from(primary),
        ];
        let numbers = front.into_iter().chain(self.words.iter().map(Cell::get));
        let bytes: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
        std::fs::write(&self.beside, bytes)
    }

    /// Takes the size both agreed on.
    pub(crate) fn resize(&mut self, size: Sector) {
        let bits = drbd_engine::bitmap::bits_for(size);
        self.words.resize(words_for(bits) as usize, Cell::new(0));
        self.size = size;
    }

    /// What is out of sync.
    pub(crate) fn bitmap(&self) -> Bitmap<&[Cell<u64>]> {
        Bitmap::new(&self.words[..], self.size).expect("there are words for all bits")
    }

    /// Bytes from a sector on.
    pub(crate) fn read(&self, sector: Sector, size: u32) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; size as usize];
        self.file.read_exact_at(&mut bytes, sector.0 * 512)?;
        Ok(bytes)
    }

    /// Writes bytes from a sector on.
    pub(crate) fn write(&self, sector: Sector, bytes: &[u8]) -> io::Result<()> {
        if sector.0 * 512 + bytes.len() as u64 > self.size.0 * 512 {
            return Err(crate::link::nonsense("a write beyond the end"));
        }
        self.file.write_all_at(bytes, sector.0 * 512)
    }

    /// Bits that are set.
    pub(crate) fn dirty_bits(&self) -> u64 {
        self.bitmap().count()
    }

    /// The blocks from `from` on that a request of at most `max` bytes may ask for.
    pub(crate) fn next_dirty(&self, from: u64, max: u32) -> Option<(Sector, u32)> {
        let bitmap = self.bitmap();
        let bits = u64::from(max / BIT_SIZE);
        let run = bitmap.next_run(drbd_engine::types::BitNr(from), bits)?;
        let sector = run.first.first_sector();
        let left = (self.size.0 - sector.0) * 512;
        let size = (run.bits * u64::from(BIT_SIZE)).min(left);
        Some((sector, size as u32))
    }
}
