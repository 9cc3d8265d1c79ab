// SPDX-License-Identifier: GPL-2.0

//! Writes blocks that say what they are, tells which of them were acknowledged, and checks them.
//!
//! `ledger write DEVICE BLOCKS ROUND` writes 4 KiB blocks past the page cache, each lane (a thread)
//! its own ones in random order, until its standard input ends, and prints a line `BLOCK VERSION`
//! whenever a write is acknowledged. Now and then a lane reads back what it wrote.
//!
//! `ledger check DEVICE BLOCKS` reads such lines, the last acknowledged version of each block, and
//! then every block: each sector must be of its block and not older. A newer one is right: the
//! machine died before it could tell. Sectors of one block may differ only in that.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;

const BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// How many blocks are checked at a time.
const CHUNK_BLOCKS: u64 = 64;
const LANES: u64 = 8;
const MAGIC: u64 = 0x6c65_6467_6572_0001;
const O_DIRECT: i32 = 0o40000;

/// A block in memory that may be written and read past the page cache.
#[repr(C, align(4096))]
struct Block([u8; BLOCK]);

/// Blocks in a row, likewise.
#[repr(C, align(4096))]
struct Chunk([u8; CHUNK_BLOCKS as usize * BLOCK]);

impl Block {
    fn new() -> Box<Self> {
        Box::new(Self([0; BLOCK]))
    }

    /// What `block` holds in its `version`: every sector names both, the rest depends on them.
    fn fill(&mut self, block: u64, version: u64) {
        for (number, sector) in self.0.chunks_exact_mut(SECTOR).enumerate() {
            let mut word = MAGIC ^ (block << 20) ^ version ^ number as u64;
            for bytes in sector.chunks_exact_mut(8) {
                word = next(word);
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            sector[..8].copy_from_slice(&MAGIC.to_le_bytes());
            sector[8..16].copy_from_slice(&block.to_le_bytes());
            sector[16..24].copy_from_slice(&version.to_le_bytes());
        }
    }
}

/// The oldest version among the sectors of a block, 0 for one never written; or what is wrong.
fn oldest(data: &[u8], block: u64) -> Result<u64, String> {
    let mut wanted = Block::new();
    let mut oldest = u64::MAX;
    for (number, sector) in data.chunks_exact(SECTOR).enumerate() {
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&sector[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let version = if sector.iter().all(|&byte| byte == 0) {
            0
        } else {
            word(16)
        };
        if version != 0 {
            wanted.fill(block, version);
            if sector != &wanted.0[number * SECTOR..(number + 1) * SECTOR] {
                return Err(format!(
                    "sector {number} is torn or foreign: it says block {} version {version:#x}",
                    word(8)
                ));
            }
        }
        oldest = oldest.min(version);
    }
    Ok(oldest)
}

fn next(mut word: u64) -> u64 {
    word ^= word << 13;
    word ^= word >> 7;
    word ^ (word << 17)
}

fn open(device: &str, write: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(O_DIRECT)
        .open(device)
}

fn lane(device: &File, lane: u64, blocks: u64, round: u64, end: &AtomicBool) -> io::Result<()> {
    let mut data = Block::new();
    let mut random = next(MAGIC ^ (round << 8) ^ lane);
    let mut written: Vec<(u64, u64)> = Vec::new();
    let mut version = round << 32;
    while !end.load(Ordering::Relaxed) {
        random = next(random);
        let block = random % (blocks / LANES) * LANES + lane;
        version += 1;
        data.fill(block, version);
        device.write_all_at(&data.0, block * BLOCK as u64)?;
        // One write for the line, so that lanes do not mix.
        io::stdout()
            .lock()
            .write_all(format!("{block} {version}\n").as_bytes())?;
        written.retain(|&(known, _)| known != block);
        written.push((block, version));
        if random >> 40 & 7 == 0 {
            let (block, version) = written[(random >> 43) as usize % written.len()];
            device.read_exact_at(&mut data.0, block * BLOCK as u64)?;
            let found = oldest(&data.0, block);
            if found != Ok(version) {
                return Err(io::Error::other(format!(
                    "block {block}: {version:#x} was acknowledged, {found:x?} is read"
                )));
            }
        }
    }
    Ok(())
}

fn write(device: &str, blocks: u64, round: u64) -> io::Result<()> {
    let device = Arc::new(open(device, true)?);
    let end = Arc::new(AtomicBool::new(false));
    let lanes: Vec<_> = (0..LANES)
        .map(|number| {
            let (device, end) = (device.clone(), end.clone());
            thread::spawn(move || lane(&device, number, blocks, round, &end))
        })
        .collect();
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    end.store(true, Ordering::Relaxed);
    lanes
        .into_iter()
        .try_for_each(|lane| lane.join().unwrap_or(Err(io::ErrorKind::Other.into())))
}

fn check(device: &str, blocks: u64) -> io::Result<bool> {
    let mut acknowledged = HashMap::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.split(' ').map(str::parse::<u64>);
        let (Some(Ok(block)), Some(Ok(version))) = (words.next(), words.next()) else {
            return Err(io::Error::other(format!(
                "not a line of the ledger: {line}"
            )));
        };
        acknowledged.insert(block, version);
    }
    let mut device = open(device, false)?;
    let mut chunk = Box::new(Chunk([0; CHUNK_BLOCKS as usize * BLOCK]));
    let mut good = true;
    for first in (0..blocks).step_by(CHUNK_BLOCKS as usize) {
        let count = CHUNK_BLOCKS.min(blocks - first) as usize;
        let part = &mut chunk.0[..count * BLOCK];
        device.read_exact(part)?;
        for (block, data) in (first..).zip(part.chunks_exact(BLOCK)) {
            let wanted = acknowledged.get(&block).copied().unwrap_or(0);
            let trouble = match oldest(data, block) {
                Ok(found) if found >= wanted => continue,
                Ok(found) => format!("{wanted:#x} was acknowledged, {found:#x} is there"),
                Err(trouble) => trouble,
            };
            println!("block {block}: {trouble}");
            good = false;
        }
    }
    println!("{} blocks were acknowledged", acknowledged.len());
    Ok(good)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize| {
        arguments
            .get(at)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    };
    let outcome = match arguments.get(1).map(String::as_str) {
        Some("write") => write(&arguments[2], number(3), number(4)).map(|()| true),
        Some("check") => check(&arguments[2], number(3)),
        _ => Err(io::Error::other(
            "usage: ledger write|check DEVICE BLOCKS [ROUND]",
        )),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ledger: {error}");
            ExitCode::from(2)
        }
    }
}
