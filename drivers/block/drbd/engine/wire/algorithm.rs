// SPDX-License-Identifier: GPL-2.0

//! Names of hash algorithms as packets carry them: NUL-terminated, at most 63 bytes (Spec §1.8).

use super::PayloadError;

/// Bytes of a name's field, the NUL included.
pub(super) const FIELD_SIZE: usize = 64;

/// The name of a hash algorithm; empty means none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AlgorithmName {
    /// Zero from the end of the name on; the last byte is always zero.
    bytes: [u8; FIELD_SIZE],
}

impl AlgorithmName {
    /// No algorithm.
    pub const NONE: Self = Self {
        bytes: [0; FIELD_SIZE],
    };
    /// Bytes of the longest name, without the NUL.
    pub const MAX_LENGTH: usize = 63;

    /// The name `name`, which is cut at the first NUL it contains.
    ///
    /// # Errors
    ///
    /// [`PayloadError::Name`] where more than [`Self::MAX_LENGTH`] bytes are left.
    pub fn new(name: &[u8]) -> Result<Self, PayloadError> {
        let mut bytes = [0; FIELD_SIZE];
        let mut slots = bytes.iter_mut().take(Self::MAX_LENGTH);
        for byte in name.iter().take_while(|byte| **byte != 0) {
            *slots.next().ok_or(PayloadError::Name)? = *byte;
        }
        Ok(Self { bytes })
    }

    /// The name in a field that must contain its NUL.
    ///
    /// # Errors
    ///
    /// [`PayloadError::Name`] where the NUL is missing.
    pub(super) fn from_field(field: &[u8]) -> Result<Self, PayloadError> {
        if !field.contains(&0) {
            return Err(PayloadError::Name);
        }
        Self::new(field)
    }

    /// The name padded with NULs to the size of its field.
    pub(super) const fn field(&self) -> &[u8; FIELD_SIZE] {
        &self.bytes
    }

    /// The name without its NUL.
    pub fn as_bytes(&self) -> &[u8] {
        match self.bytes.split_at_checked(self.len()) {
            Some((name, _)) => name,
            None => &[],
        }
    }

    /// The name as text. Bytes of a peer that are no text give `None`.
    pub fn as_str(&self) -> Option<&str> {
        core::str::from_utf8(self.as_bytes()).ok()
    }

    /// Bytes of the name without its NUL.
    pub fn len(&self) -> usize {
        self.bytes.iter().take_while(|byte| **byte != 0).count()
    }

    /// Whether this names no algorithm.
    pub const fn is_empty(&self) -> bool {
        matches!(self.bytes, [0, ..])
    }
}

impl Default for AlgorithmName {
    fn default() -> Self {
        Self::NONE
    }
}

impl core::fmt::Display for AlgorithmName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.as_bytes().escape_ascii().fmt(f)
    }
}

impl core::fmt::Debug for AlgorithmName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_at_its_nul() {
        let name = AlgorithmName::from_field(b"sha256\0garbage").unwrap();
        assert_eq!(name.as_str(), Some("sha256"));
        assert_eq!(name, AlgorithmName::new(b"sha256").unwrap());
    }

    #[test]
    fn names_without_nul_or_too_long_are_refused() {
        assert_eq!(
            AlgorithmName::from_field(b"sha256"),
            Err(PayloadError::Name)
        );
        assert!(AlgorithmName::new(&[b'x'; 63]).is_ok());
        assert_eq!(AlgorithmName::new(&[b'x'; 64]), Err(PayloadError::Name));
    }

    #[test]
    fn bytes_of_a_peer_reach_the_log_escaped() {
        let name = AlgorithmName::new(b"a\n\xff").unwrap();
        assert_eq!(std::format!("{name}"), "a\\n\\xff");
    }
}
