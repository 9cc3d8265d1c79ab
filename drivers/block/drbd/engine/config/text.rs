// SPDX-License-Identifier: GPL-2.0

//! Strings and byte strings of bounded length, stored inline: there is no allocation here.

use core::fmt;

/// The content is longer than the type can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Up to `N` bytes (at most 255). Unused bytes are zero, so equality is plain.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bytes<const N: usize> {
    length: u8,
    bytes: [u8; N],
}

impl<const N: usize> Bytes<N> {
    /// No bytes at all.
    pub const EMPTY: Self = Self {
        length: 0,
        bytes: [0; N],
    };

    /// Takes over `content`; on error nothing changes.
    pub fn set(&mut self, content: &[u8]) -> Result<(), TooLong> {
        let length = u8::try_from(content.len()).map_err(|_| TooLong)?;
        if content.len() > N {
            return Err(TooLong);
        }
        self.length = length;
        let content = content.iter().copied().chain(core::iter::repeat(0));
        for (to, from) in self.bytes.iter_mut().zip(content) {
            *to = from;
        }
        Ok(())
    }

    /// The content.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }

    /// Whether there is no content.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl<const N: usize> Default for Bytes<N> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<const N: usize> fmt::Debug for Bytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_bytes(), f)
    }
}

/// A string of up to `N` bytes without its NUL: a name, a path, an algorithm.
///
/// The bytes are what the admin typed and need not be UTF-8; showing replaces what is not.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Text<const N: usize>(Bytes<N>);

impl<const N: usize> Text<N> {
    /// The empty string.
    pub const EMPTY: Self = Self(Bytes::EMPTY);

    /// Takes over `content`; on error nothing changes.
    pub fn set(&mut self, content: &[u8]) -> Result<(), TooLong> {
        self.0.set(content)
    }

    /// The string's bytes, without NUL.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The string, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        core::str::from_utf8(self.as_bytes()).ok()
    }

    /// Whether the string is empty, which stands for "not set" in every option.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Lossy(self.as_bytes()), f)
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Shows bytes as text, with a replacement character for what is not UTF-8.
#[derive(Clone, Copy, Debug)]
pub struct Lossy<'a>(pub &'a [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_str("\u{fffd}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_text_holds_exactly_its_capacity() {
        let mut text = Text::<3>::EMPTY;
        assert_eq!(text.set(b"abc"), Ok(()));
        assert_eq!(text.set(b"abcd"), Err(TooLong));
        assert_eq!(text.as_bytes(), b"abc");
    }

    #[test]
    fn a_shorter_content_leaves_nothing_of_the_longer_one() {
        let mut text = Text::<8>::EMPTY;
        text.set(b"secret").unwrap();
        text.set(b"r0").unwrap();
        let mut fresh = Text::<8>::EMPTY;
        fresh.set(b"r0").unwrap();
        assert_eq!(text, fresh);
    }

    #[test]
    fn what_is_not_utf8_is_shown_replaced() {
        let mut text = Text::<8>::EMPTY;
        text.set(b"a\xffb").unwrap();
        assert_eq!(text.to_string(), "a\u{fffd}b");
        assert_eq!(text.as_str(), None);
    }
}
