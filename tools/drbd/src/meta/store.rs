// SPDX-License-Identifier: GPL-2.0

//! The device that metadata lie on: pages of 4 KiB, past the page cache, as the driver does it.

use crate::failure::{Failure, Outcome};
use crate::host::reason;
use crate::terminal;
use drbd_engine::types::{Sector, SECTOR_SIZE};
use rustix::fs::{fallocate, fsync, FallocateFlags, OFlags};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use zerocopy::IntoBytes;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;
/// Sectors of a page.
pub const PAGE_SECTORS: u64 = 8;

/// A page, aligned as direct I/O wants it.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
pub struct Page(pub [u8; PAGE_SIZE]);

impl Page {
    /// A page of zeroes.
    pub const ZERO: Self = Self([0; PAGE_SIZE]);
}

/// Who else may have a device open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody.
    Alone,
    /// Other volumes, of which each has a slot of its own there.
    Slots,
}

/// An open device.
#[derive(Debug)]
pub struct Store {
    file: File,
    path: String,
    size: u64,
    dry_run: bool,
}

impl Store {
    /// Opens a block device, for this program alone unless others are to have their part of it.
    ///
    /// Where somebody else has it already, the admin is asked, unless `force` says yes. In a dry
    /// run writes are told instead of done.
    pub fn open(path: &str, sharing: Sharing, force: bool, dry_run: bool) -> Outcome<Self> {
        let exclusive = match sharing {
            Sharing::Alone => OFlags::EXCL,
            Sharing::Slots => OFlags::empty(),
        };
        let file = match open(path, exclusive) {
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                eprintln!("open({path}) failed: {}", reason(&error));
                if !terminal::confirm("Exclusive open failed. Do it anyways?", force) {
                    return Err(Failure::new(20, "Operation canceled."));
                }
                open(path, OFlags::empty())
            }
            other => other,
        };
        let file = file.map_err(|error| Self::failed("open", path, &error))?;
        let kind = file
            .metadata()
            .map_err(|error| Self::failed("fstat", path, &error))?
            .file_type();
        if !kind.is_block_device() {
            return Err(Failure::new(20, format!("'{path}' is not a block device!")));
        }
        Self::of(file, path, dry_run)
    }

    /// Takes an open file for the device.
    pub fn of(mut file: File, path: &str, dry_run: bool) -> Outcome<Self> {
        let size = file
            .seek(SeekFrom::End(0))
            .map_err(|error| Self::failed("lseek", path, &error))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            size,
            dry_run,
        })
    }

    /// The same device, taken for one that ends at `size` bytes.
    pub fn with_size(self, size: u64) -> Self {
        Self { size, ..self }
    }

    /// The device's path as the admin gave it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The device's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The device's size in whole sectors.
    pub fn sectors(&self) -> u64 {
        self.size / u64::from(SECTOR_SIZE)
    }

    /// Whether nothing is written.
    pub fn dry_run(&self) -> bool {
        self.dry_run
    }

    /// Reads pages from a sector on.
    pub fn read(&self, from: Sector, pages: &mut [Page]) -> Outcome {
        self.file
            .read_exact_at(pages.as_mut_bytes(), self.offset(from)?)
            .map_err(|error| Self::failed("pread", &self.path, &error))
    }

    /// Reads bytes from the device's start, as many as there are.
    pub fn read_head(&self, pages: &mut [Page]) -> Outcome {
        let count = usize::try_from(self.size / 4096).unwrap_or(usize::MAX);
        let count = count.min(pages.len());
        self.read(Sector(0), pages.get_mut(..count).unwrap_or_default())
    }

    /// Writes pages from a sector on; `what` says in a dry run what they are.
    pub fn write(&self, to: Sector, pages: &[Page], what: &str) -> Outcome {
        let offset = self.offset(to)?;
        let bytes = pages.as_bytes();
        if self.dry_run {
            let length = bytes.len();
            eprintln!(" {what:<26}: pwrite({length}, {offset}) SKIPPED DUE TO DRY-RUN");
            return Ok(());
        }
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| Self::failed("pwrite", &self.path, &error))
    }

    /// Lets the device zero a range without data being sent to it; an error where it cannot.
    pub fn zero_range(&self, from: Sector, sectors: u64) -> io::Result<()> {
        if self.dry_run {
            return Ok(());
        }
        let bytes = sectors.saturating_mul(u64::from(SECTOR_SIZE));
        let start = from.bytes().ok_or(io::ErrorKind::InvalidInput)?;
        let how = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, how, start, bytes)?)
    }

    /// Waits until everything written is on the medium.
    pub fn flush(&self) -> Outcome {
        if self.dry_run {
            return Ok(());
        }
        fsync(&self.file).map_err(|error| Self::failed("fsync", &self.path, &error.into()))
    }

    fn offset(&self, sector: Sector) -> Outcome<u64> {
        let offset = sector.bytes().filter(|offset| *offset < self.size);
        offset.ok_or_else(|| {
            Failure::new(
                20,
                format!("{}: sector {sector} is beyond its end", self.path),
            )
        })
    }

    fn failed(call: &str, path: &str, error: &io::Error) -> Failure {
        Failure::new(20, format!("{call}({path}) failed: {}", reason(error)))
    }
}

fn open(path: &str, exclusive: OFlags) -> io::Result<File> {
    let with = |flags: OFlags| {
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)
    };
    match with(exclusive | OFlags::DIRECT) {
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => with(exclusive),
        other => other,
    }
}
