// SPDX-License-Identifier: GPL-2.0

//! The exchange of whole bitmaps before a resync, packet by packet (Spec §1.22).
//!
//! Either side sends its bitmap in order, plain (P_BITMAP) or compressed (P_COMPRESSED_BITMAP), and
//! the receiver merges it. Where a plain packet ends follows from the header's size, so both must
//! count alike. A transfer that ends plain has an empty P_BITMAP last.

use super::page::words_of;
use super::{rle, words_for, Bitmap, Words, WORD_BITS};

/// Bytes of a packet with its header at most.
pub const MAX_PACKET: usize = 4096;

const WORD_BYTES: u64 = 8;

/// The packet that a sender has filled the payload of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// P_BITMAP with this many bytes of payload; with none it is the terminator.
    Plain(usize),
    /// P_COMPRESSED_BITMAP with this many bytes of payload.
    Compressed(usize),
}

/// Why a peer's bitmap packet is refused; the connection is to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferError {
    /// A P_BITMAP of another length than the position in the bitmap asks for, in bytes.
    Length {
        /// What must come.
        want: u64,
        /// What came.
        got: u64,
    },
    /// An encoding that is not known.
    Encoding(u8),
    /// The packet ends too early.
    Truncated,
    /// A code that is not known.
    UnknownCode,
    /// A run that goes beyond the end of the volume.
    BeyondEnd,
    /// A packet after the transfer was complete.
    Complete,
}

/// What a received packet did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bits that were not set before.
    pub set: u64,
    /// This was the last packet.
    pub complete: bool,
}

/// What was transferred, headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Bytes of plain packets.
    pub plain_bytes: u64,
    /// Plain packets, the terminator included.
    pub plain_packets: u32,
    /// Bytes of compressed packets.
    pub compressed_bytes: u64,
    /// Compressed packets.
    pub compressed_packets: u32,
}

impl Statistics {
    /// All bytes.
    pub const fn total_bytes(&self) -> u64 {
        self.plain_bytes.saturating_add(self.compressed_bytes)
    }
}

/// Where a transfer is: the same on both sides.
#[derive(Clone, Copy, Debug)]
struct Progress {
    bits: u64,
    header_size: usize,
    /// The next bit to be described.
    position: u64,
    complete: bool,
    statistics: Statistics,
}

impl Progress {
    const fn new(bits: u64, header_size: usize) -> Self {
        Self {
            bits,
            header_size,
            position: 0,
            complete: false,
            statistics: Statistics {
                plain_bytes: 0,
                plain_packets: 0,
                compressed_bytes: 0,
                compressed_packets: 0,
            },
        }
    }

    fn max_payload(&self) -> usize {
        MAX_PACKET.saturating_sub(self.header_size)
    }

    /// The first word of the next plain packet. A compressed one may have ended within it, then it
    /// is sent once more.
    fn word(&self) -> u64 {
        if self.position == self.bits {
            words_for(self.bits)
        } else {
            self.position / WORD_BITS
        }
    }

    /// Words of the next plain packet.
    fn plain_words(&self) -> u64 {
        let room = u64::try_from(self.max_payload()).unwrap_or(0) / WORD_BYTES;
        words_for(self.bits).saturating_sub(self.word()).min(room)
    }

    fn advance_plain(&mut self, words: u64) {
        let end = self.word().saturating_add(words).saturating_mul(WORD_BITS);
        self.position = end.min(self.bits);
        self.complete = words == 0;
        let bytes = self.packet_size(words.saturating_mul(WORD_BYTES));
        self.statistics.plain_bytes = self.statistics.plain_bytes.saturating_add(bytes);
        self.statistics.plain_packets = self.statistics.plain_packets.saturating_add(1);
    }

    fn advance_compressed(&mut self, end: u64, payload: usize) {
        self.position = end;
        self.complete = end == self.bits;
        let bytes = self.packet_size(u64::try_from(payload).unwrap_or(0));
        self.statistics.compressed_bytes = self.statistics.compressed_bytes.saturating_add(bytes);
        self.statistics.compressed_packets = self.statistics.compressed_packets.saturating_add(1);
    }

    fn packet_size(&self, payload: u64) -> u64 {
        u64::try_from(self.header_size)
            .unwrap_or(0)
            .saturating_add(payload)
    }

    /// What the transfer saved against a plain one, in permille; `None` where it saved nothing
    /// worth a line in the log.
    fn saved_permille(&self) -> Option<u32> {
        let data = u64::try_from(self.max_payload()).unwrap_or(0);
        let words = words_for(self.bits);
        let packets = words.checked_next_multiple_of(data)?.checked_div(data)?;
        let headers = self
            .packet_size(0)
            .saturating_mul(packets.saturating_add(1));
        let plain = words.saturating_mul(WORD_BYTES).saturating_add(headers);
        let total = self.statistics.total_bytes();
        if total == 0 || total >= plain {
            return None;
        }
        let used = total.saturating_mul(1000).checked_div(plain)?;
        u32::try_from(1000u64.saturating_sub(used)).ok()
    }
}

/// Sends a bitmap.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    progress: Progress,
    compress: bool,
}

impl Sender {
    /// A transfer of `bits` bits in packets with headers of `header_size` bytes; compressed where
    /// `use-rle` and the peer allow it.
    pub const fn new(bits: u64, header_size: usize, compress: bool) -> Self {
        Self {
            progress: Progress::new(bits, header_size),
            compress,
        }
    }

    /// Fills the payload of the next packet; `None` when all were filled.
    ///
    /// Bits that are set while this runs may or may not be sent; the caller tells the peer of them
    /// otherwise.
    pub fn next<W: Words>(
        &mut self,
        bitmap: &Bitmap<W>,
        payload: &mut [u8; MAX_PACKET],
    ) -> Option<Packet> {
        if self.progress.complete {
            return None;
        }
        let room = payload.get_mut(..self.progress.max_payload())?;
        if self.compress {
            if let Some(filled) = rle::fill(bitmap, self.progress.position, room) {
                self.progress.advance_compressed(filled.end, filled.len);
                return Some(Packet::Compressed(filled.len));
            }
        }
        let words = self.progress.plain_words();
        let first = self.progress.word();
        let places = first..first.saturating_add(words);
        for (word, bytes) in places.zip(room.chunks_exact_mut(8)) {
            for (byte, value) in bytes.iter_mut().zip(bitmap.word(word).to_le_bytes()) {
                *byte = value;
            }
        }
        self.progress.advance_plain(words);
        usize::try_from(words.saturating_mul(WORD_BYTES))
            .ok()
            .map(Packet::Plain)
    }

    /// What was sent so far.
    pub const fn statistics(&self) -> Statistics {
        self.progress.statistics
    }

    /// What compression saved, in permille, for the log line about the transfer; `None`: no line.
    pub fn saved_permille(&self) -> Option<u32> {
        self.progress.saved_permille()
    }
}

/// Receives a bitmap.
#[derive(Clone, Copy, Debug)]
pub struct Receiver {
    progress: Progress,
    /// Bits that a packet set before it turned out to be malformed.
    stray_bits: u64,
}

impl Receiver {
    /// A transfer of `bits` bits in packets with headers of `header_size` bytes.
    pub const fn new(bits: u64, header_size: usize) -> Self {
        Self {
            progress: Progress::new(bits, header_size),
            stray_bits: 0,
        }
    }

    /// Merges the payload of a P_BITMAP.
    ///
    /// # Errors
    ///
    /// [`TransferError::Length`] unless it has exactly the words that are next,
    /// [`TransferError::Complete`] after the last packet.
    pub fn plain<W: Words>(
        &mut self,
        bitmap: &Bitmap<W>,
        payload: &[u8],
    ) -> Result<Received, TransferError> {
        let words = self.plain_words()?;
        let want = words.saturating_mul(WORD_BYTES);
        let got = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        if got != want {
            return Err(TransferError::Length { want, got });
        }
        let set = bitmap.or_words(self.progress.word(), words_of(payload));
        self.progress.advance_plain(words);
        Ok(Received {
            set,
            complete: self.progress.complete,
        })
    }

    /// Merges the payload of a P_COMPRESSED_BITMAP.
    ///
    /// # Errors
    ///
    /// Any but [`TransferError::Length`]. Bits that were merged before the error was found stay
    /// set, see [`Self::stray_bits`].
    pub fn compressed<W: Words>(
        &mut self,
        bitmap: &Bitmap<W>,
        payload: &[u8],
    ) -> Result<Received, TransferError> {
        if self.progress.complete || self.progress.position == self.progress.bits {
            return Err(TransferError::Complete);
        }
        let mut set = 0;
        let merged = rle::merge(bitmap, self.progress.position, payload, &mut set);
        let end = merged.inspect_err(|_| self.stray_bits = set)?;
        self.progress.advance_compressed(end, payload.len());
        Ok(Received {
            set,
            complete: self.progress.complete,
        })
    }

    /// Bits that were not set before, and were set by a packet that turned out to be malformed.
    pub const fn stray_bits(&self) -> u64 {
        self.stray_bits
    }

    /// What was received so far.
    pub const fn statistics(&self) -> Statistics {
        self.progress.statistics
    }

    /// What compression saved, in permille, for the log line about the transfer; `None`: no line.
    pub fn saved_permille(&self) -> Option<u32> {
        self.progress.saved_permille()
    }

    fn plain_words(&self) -> Result<u64, TransferError> {
        if self.progress.complete {
            return Err(TransferError::Complete);
        }
        Ok(self.progress.plain_words())
    }
}
