// SPDX-License-Identifier: GPL-2.0

//! Digests of blocks that are compared with the peer's: verify and checksum-based resync.

use drbd_engine::config::{
    options::NAME_LENGTH_MAX,
    Text, //
};
use drbd_sys::{
    hash::{
        secrets_equal,
        Digest as Computed,
        Hash, //
    },
    page::Segments, //
};
use kernel::{
    alloc::KBox,
    prelude::*, //
};

use super::{
    connection::Connection,
    handshake::hash_named, //
};

/// Bytes of the longest digest.
pub(crate) const DIGEST_BYTES: usize = drbd_engine::wire::MAX_DIGEST_SIZE as usize;

/// A digest as the peer sent it.
pub(crate) struct Digest {
    bytes: [u8; DIGEST_BYTES],
    len: usize,
}

impl Digest {
    /// A digest of `len` bytes that `fill` writes.
    pub(crate) fn read<E>(
        len: usize,
        malformed: E,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut bytes = [0; DIGEST_BYTES];
        let Some(place) = bytes.get_mut(..len) else {
            return Err(malformed);
        };
        fill(place)?;
        Ok(Self { bytes, len })
    }

    /// The same, for a request that takes it along. May sleep.
    pub(crate) fn boxed(self) -> Result<KBox<Self>> {
        Ok(KBox::new(self, GFP_KERNEL)?)
    }

    /// Its bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// Whether it is the digest that was computed here.
    pub(crate) fn is(&self, computed: &Computed) -> bool {
        secrets_equal(self.as_bytes(), computed.as_bytes())
    }
}

/// What blocks are compared for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Online verify: `verify-alg`.
    Verify,
    /// Checksum-based resync: `csums-alg`.
    Resync,
}

/// The algorithms in use, with their memory; the worker's.
#[derive(Default)]
pub(crate) struct Checksums {
    verify: Option<Named>,
    resync: Option<Named>,
}

struct Named {
    name: Text<NAME_LENGTH_MAX>,
    hash: Hash,
}

impl Connection {
    /// The digest of blocks by the algorithm that is configured now. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOENT` where none is configured.
    pub(crate) fn digest_of(&self, purpose: Purpose, data: Segments<'_>) -> Result<Computed> {
        self.with_hash(purpose, |hash| hash.digest_segments(data))
    }

    /// How many bytes these digests have. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOENT` where no algorithm is configured.
    pub(crate) fn digest_bytes(&self, purpose: Purpose) -> Result<usize> {
        self.with_hash(purpose, |hash| Ok(hash.digest_bytes()))
    }

    fn with_hash<T>(
        &self,
        purpose: Purpose,
        act: impl FnOnce(&mut Hash) -> Result<T>,
    ) -> Result<T> {
        let config = self.config().ok_or(ENOENT)?;
        let name = match purpose {
            Purpose::Verify => config.net.verify_alg,
            Purpose::Resync => config.net.csums_alg,
        };
        let mut checksums = self.checksums.lock();
        let place = match purpose {
            Purpose::Verify => &mut checksums.verify,
            Purpose::Resync => &mut checksums.resync,
        };
        match place {
            Some(named) if named.name.as_bytes() == name.as_bytes() => act(&mut named.hash),
            _ => {
                let hash = hash_named(name.as_bytes())?.ok_or(ENOENT)?;
                act(&mut place.insert(Named { name, hash }).hash)
            }
        }
    }
}
