// SPDX-License-Identifier: GPL-2.0

//! Netlink attributes over byte slices: a total reader and a writer into a lent buffer.
//!
//! An attribute is a header of four bytes, host endian (u16 length with the header, u16 type), its
//! payload, and padding to four bytes. The two highest bits of the type are flags. Reading is
//! liberal: what does not look like an attribute ends the list, and unknown attributes are for the
//! caller to skip. What a request may hold is checked before, see [`super::shape`].

use super::field::Value;

/// Bytes of an attribute's header.
pub const HEADER_SIZE: usize = 4;
/// Marks an attribute whose payload is a list of attributes.
pub const FLAG_NESTED: u16 = 1 << 15;
/// The bits of the type that are the attribute's number.
pub const NUMBER_MASK: u16 = !(FLAG_NESTED | 1 << 14);

const ALIGNMENT: usize = 4;

/// One attribute of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its number, without the flag bits.
    pub number: u16,
    /// Its content, without padding.
    pub payload: &'a [u8],
    /// The attribute as it stands in the message: header and payload, without padding.
    pub raw: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The attributes inside this one.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.payload)
    }

    /// Whether it says of itself that it holds a list of attributes.
    pub fn is_nest(&self) -> bool {
        let kind = self.raw.get(2..HEADER_SIZE).and_then(<[u8]>::first_chunk);
        kind.is_some_and(|kind| u16::from_ne_bytes(*kind) & FLAG_NESTED != 0)
    }

    /// The payload as u8. Longer payloads are accepted, as the kernel's liberal parser does.
    pub fn as_u8(&self) -> Option<u8> {
        self.payload.first().copied()
    }

    /// The payload as host-endian u32; `None` if it is too short.
    pub fn as_u32(&self) -> Option<u32> {
        let (head, _) = self.payload.split_first_chunk()?;
        Some(u32::from_ne_bytes(*head))
    }

    /// The payload as host-endian i32; `None` if it is too short.
    pub fn as_i32(&self) -> Option<i32> {
        let (head, _) = self.payload.split_first_chunk()?;
        Some(i32::from_ne_bytes(*head))
    }

    /// The payload as host-endian u64; `None` if it is too short.
    pub fn as_u64(&self) -> Option<u64> {
        let (head, _) = self.payload.split_first_chunk()?;
        Some(u64::from_ne_bytes(*head))
    }

    /// The payload up to its NUL; `None` if there is none.
    pub fn as_text(&self) -> Option<&'a [u8]> {
        let end = self.payload.iter().position(|&byte| byte == 0)?;
        self.payload.get(..end)
    }
}

/// The attributes in a stretch of bytes, in their order.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Reads the attributes in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What was not read yet; at the end what does not look like an attribute.
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The last attribute with this number, which is the one that counts.
    pub fn find(self, number: u16) -> Option<Attribute<'a>> {
        self.filter(|attribute| attribute.number == number).last()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let (length, rest) = self.0.split_first_chunk()?;
        let (kind, _) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_ne_bytes(*length));
        let (raw, rest) = self.0.split_at_checked(length)?;
        let payload = raw.get(HEADER_SIZE..)?;
        self.0 = rest.get(padding(length)..).unwrap_or_default();
        Some(Attribute {
            number: u16::from_ne_bytes(*kind) & NUMBER_MASK,
            payload,
            raw,
        })
    }
}

/// Bytes that follow `length` bytes up to the next aligned offset.
const fn padding(length: usize) -> usize {
    length.wrapping_neg() % ALIGNMENT
}

/// The buffer was too small for the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSpace;

/// An attribute under construction, to be given back to [`Writer::end`].
#[must_use]
#[derive(Debug)]
pub struct Nest {
    start: usize,
}

/// Writes attributes into a lent buffer.
///
/// Running out of room is remembered, not reported by every call: ask [`Writer::finish`] once.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    used: usize,
    full: bool,
}

impl<'a> Writer<'a> {
    /// Starts an empty message in `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self {
            buffer,
            used: 0,
            full: false,
        }
    }

    /// Drops what was written, and the memory of having run out of room.
    pub fn clear(&mut self) {
        self.used = 0;
        self.full = false;
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.used == 0 && !self.full
    }

    /// The message so far.
    pub fn finish(&self) -> Result<&[u8], NoSpace> {
        if self.full {
            return Err(NoSpace);
        }
        self.buffer.get(..self.used).ok_or(NoSpace)
    }

    /// Appends bytes as they are, padded to the alignment of attributes.
    pub fn put_raw(&mut self, bytes: &[u8]) {
        self.append(bytes);
        self.pad(bytes.len());
    }

    /// Appends an attribute.
    pub fn put_bytes(&mut self, number: u16, payload: &[u8]) {
        self.put(number, payload, &[]);
    }

    /// Appends a string with its NUL.
    pub fn put_text(&mut self, number: u16, text: &[u8]) {
        self.put(number, text, &[0]);
    }

    /// Appends a u8.
    pub fn put_u8(&mut self, number: u16, value: u8) {
        self.put_bytes(number, &[value]);
    }

    /// Appends a u32.
    pub fn put_u32(&mut self, number: u16, value: u32) {
        self.put_bytes(number, &value.to_ne_bytes());
    }

    /// Appends a u64. It is not aligned to eight bytes: every reader copies it out.
    pub fn put_u64(&mut self, number: u16, value: u64) {
        self.put_bytes(number, &value.to_ne_bytes());
    }

    /// Appends a value in its own representation.
    pub fn put_value(&mut self, number: u16, value: Value<'_>) {
        match value {
            Value::Flag(value) => self.put_u8(number, u8::from(value)),
            Value::U32(value) => self.put_u32(number, value),
            Value::I32(value) => self.put_bytes(number, &value.to_ne_bytes()),
            Value::U64(value) => self.put_u64(number, value),
            Value::Text(value) => self.put_text(number, value),
            Value::Bytes(value) => self.put_bytes(number, value),
        }
    }

    /// Starts a list of attributes inside an attribute; `flags` is [`FLAG_NESTED`] or 0 (the C
    /// driver leaves the flag away on some, spec §3.1).
    pub fn begin(&mut self, number: u16, flags: u16) -> Nest {
        let nest = Nest { start: self.used };
        self.append(&0u16.to_ne_bytes());
        self.append(&(number | flags).to_ne_bytes());
        nest
    }

    /// Ends the list that `nest` started.
    pub fn end(&mut self, nest: Nest) {
        let length = self.used.saturating_sub(nest.start);
        let header = self
            .buffer
            .get_mut(nest.start..)
            .and_then(<[u8]>::first_chunk_mut);
        match (u16::try_from(length), header) {
            (Ok(length), Some(header)) => *header = length.to_ne_bytes(),
            _ => self.full = true,
        }
    }

    fn put(&mut self, number: u16, payload: &[u8], tail: &[u8]) {
        let length = HEADER_SIZE
            .saturating_add(payload.len())
            .saturating_add(tail.len());
        let Ok(header) = u16::try_from(length) else {
            self.full = true;
            return;
        };
        self.append(&header.to_ne_bytes());
        self.append(&number.to_ne_bytes());
        self.append(payload);
        self.append(tail);
        self.pad(length);
    }

    fn pad(&mut self, length: usize) {
        let zeros = [0; ALIGNMENT];
        self.append(zeros.get(..padding(length)).unwrap_or_default());
    }

    fn append(&mut self, bytes: &[u8]) {
        let free = self.buffer.get_mut(self.used..).unwrap_or_default();
        if self.full || free.len() < bytes.len() {
            self.full = true;
            return;
        }
        for (to, from) in free.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.used = self.used.saturating_add(bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn a_written_attribute_has_header_payload_and_padding() {
        let mut buffer = [0xff; 16];
        let mut writer = Writer::new(&mut buffer);
        writer.put_text(2, b"r0");
        let expected: &[u8] = if cfg!(target_endian = "little") {
            b"\x07\x00\x02\x00r0\x00\x00"
        } else {
            b"\x00\x07\x00\x02r0\x00\x00"
        };
        assert_eq!(writer.finish(), Ok(expected));
    }

    #[test]
    fn nested_attributes_come_back_without_their_flag() {
        let mut buffer = [0; 64];
        let mut writer = Writer::new(&mut buffer);
        let nest = writer.begin(5, FLAG_NESTED);
        writer.put_u32(1, 7);
        writer.put_u8(2, 1);
        writer.end(nest);
        let outer = Attributes::new(writer.finish().unwrap()).find(5).unwrap();
        assert_eq!(outer.nested().find(1).unwrap().as_u32(), Some(7));
        assert_eq!(outer.nested().find(2).unwrap().as_u8(), Some(1));
    }

    #[test]
    fn a_full_buffer_is_reported_once_at_the_end() {
        let mut buffer = [0; 10];
        let mut writer = Writer::new(&mut buffer);
        writer.put_u32(1, 1);
        writer.put_u32(2, 2);
        writer.put_raw(&[]);
        assert_eq!(writer.finish(), Err(NoSpace));
        writer.clear();
        assert_eq!(writer.finish(), Ok(&[][..]));
    }

    #[test]
    fn the_last_of_equal_numbers_counts() {
        let mut buffer = [0; 32];
        let mut writer = Writer::new(&mut buffer);
        writer.put_u32(1, 1);
        writer.put_u32(1, 2);
        let found = Attributes::new(writer.finish().unwrap()).find(1).unwrap();
        assert_eq!(found.as_u32(), Some(2));
    }

    proptest! {
        #[test]
        fn reading_arbitrary_bytes_ends_and_stays_inside(
            bytes in prop::collection::vec(any::<u8>(), 0..256),
        ) {
            let mut total = 0;
            for attribute in Attributes::new(&bytes) {
                prop_assert!(attribute.raw.len() >= HEADER_SIZE);
                prop_assert_eq!(attribute.number & !NUMBER_MASK, 0);
                total += attribute.raw.len();
            }
            prop_assert!(total <= bytes.len());
        }

        #[test]
        fn what_is_written_is_read(
            list in prop::collection::vec(
                (0..NUMBER_MASK, prop::collection::vec(any::<u8>(), 0..20)), 0..8),
        ) {
            let mut buffer = [0; 512];
            let mut writer = Writer::new(&mut buffer);
            for (number, payload) in &list {
                writer.put_bytes(*number, payload);
            }
            let read: Vec<_> = Attributes::new(writer.finish().unwrap())
                .map(|attribute| (attribute.number, attribute.payload.to_vec()))
                .collect();
            prop_assert_eq!(read, list);
        }
    }
}
