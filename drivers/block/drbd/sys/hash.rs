// SPDX-License-Identifier: GPL-2.0

//! Digests: checksums and message authentication by the kernel's name of the algorithm.
//!
//! C headers: [`include/crypto/hash.h`](srctree/include/crypto/hash.h),
//! [`include/linux/crc32.h`](srctree/include/linux/crc32.h)

use core::ptr::NonNull;
use drbd_bindings::shash_desc;
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi::c_uint,
    prelude::*,
    str::CString, //
};

use crate::segment::Segment;

/// The longest digest of any algorithm in the kernel, in bytes.
pub const DIGEST_BYTES_MAX: usize = 64;

/// An algorithm and the state of a computation with it.
///
/// # Invariants
///
/// The pointer is a descriptor with its transformation, both ours; the digest has at most
/// [`DIGEST_BYTES_MAX`] bytes.
struct Descriptor(NonNull<shash_desc>);

// SAFETY: A descriptor is plain memory and may be used by one thread after another.
unsafe impl Send for Descriptor {}
// SAFETY: What changes it takes `&mut self`.
unsafe impl Sync for Descriptor {}

impl Descriptor {
    fn new(algorithm: &CStr) -> Result<Self> {
        // SAFETY: The name is a C string.
        let raw = unsafe { drbd_bindings::drbd_shim_hash_alloc(algorithm.as_char_ptr()) };
        let raw = from_err_ptr(raw)?;
        let this = Self(NonNull::new(raw).ok_or(ENOMEM)?);
        if this.digest_bytes() > DIGEST_BYTES_MAX {
            return Err(EINVAL);
        }
        // INVARIANT: Just checked.
        Ok(this)
    }

    fn digest_bytes(&self) -> usize {
        // SAFETY: The descriptor is valid. CAST: 32 bits fit on all architectures with this driver.
        unsafe { drbd_bindings::drbd_shim_hash_size(self.0.as_ptr()) as usize }
    }

    fn set_key(&mut self, key: &[u8]) -> Result {
        let len = c_uint::try_from(key.len()).map_err(|_| EINVAL)?;
        // SAFETY: The descriptor is valid, and `key` readable.
        to_result(unsafe {
            drbd_bindings::drbd_shim_hash_setkey(self.0.as_ptr(), key.as_ptr(), len)
        })
    }

    fn begin(&mut self) -> Result {
        // SAFETY: The descriptor is valid.
        to_result(unsafe { drbd_bindings::drbd_shim_hash_init(self.0.as_ptr()) })
    }

    /// # Safety
    ///
    /// `len` bytes at `data` are readable; they may change meanwhile.
    unsafe fn update(&mut self, data: *const u8, len: usize) -> Result {
        let len = c_uint::try_from(len).map_err(|_| EINVAL)?;
        // SAFETY: By the requirements, and the descriptor is valid.
        to_result(unsafe { drbd_bindings::drbd_shim_hash_update(self.0.as_ptr(), data, len) })
    }

    fn finish(&mut self) -> Result<Digest> {
        let mut digest = Digest {
            bytes: [0; DIGEST_BYTES_MAX],
            len: self.digest_bytes(),
        };
        // SAFETY: By the invariant, the digest fits.
        to_result(unsafe {
            drbd_bindings::drbd_shim_hash_final(self.0.as_ptr(), digest.bytes.as_mut_ptr())
        })?;
        Ok(digest)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: Ours, and used no more.
        unsafe { drbd_bindings::drbd_shim_hash_free(self.0.as_ptr()) };
    }
}

/// The result of a hash function.
#[derive(Clone, Copy)]
pub struct Digest {
    bytes: [u8; DIGEST_BYTES_MAX],
    len: usize,
}

impl Digest {
    /// Its bytes, as many as the algorithm makes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

/// A hash function without a key, such as `sha1` or `crc32c`, and the memory it works with.
///
/// Each thread that hashes has its own. Creation may sleep (it may load a module); the digests do
/// not and may be made in any context but hard interrupts.
pub struct Hash(Descriptor);

impl Hash {
    /// Looks up `algorithm`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOENT` where the kernel has none of that name, `EINVAL` where it needs a key, `ENOMEM`.
    pub fn new(algorithm: &CStr) -> Result<Self> {
        let mut descriptor = Descriptor::new(algorithm)?;
        // One that needs a key fails here already, not with the first block.
        descriptor.begin().map_err(|_| EINVAL)?;
        Ok(Self(descriptor))
    }

    /// How many bytes a digest has.
    pub fn digest_bytes(&self) -> usize {
        self.0.digest_bytes()
    }

    /// The digest of all `segments` in turn.
    pub fn digest_segments<'a>(
        &mut self,
        segments: impl IntoIterator<Item = Segment<'a>>,
    ) -> Result<Digest> {
        self.0.begin()?;
        for segment in segments {
            // SAFETY: The piece is readable during the call.
            segment.each_piece(|data, len| unsafe { self.0.update(data, len) })?;
        }
        self.0.finish()
    }

    /// The digest of `bytes`.
    pub fn digest(&mut self, bytes: &[u8]) -> Result<Digest> {
        digest(&mut self.0, bytes)
    }
}

/// A keyed hash, `hmac(<algorithm>)`.
pub struct Hmac(Descriptor);

impl Hmac {
    /// Looks up `hmac(<algorithm>)` and gives it its key. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOENT` where the kernel has none of that name, `ENOMEM`; `EINVAL` for a key it refuses.
    pub fn new(algorithm: &CStr, key: &[u8]) -> Result<Self> {
        let name = CString::try_from_fmt(fmt!("hmac({})", algorithm))?;
        let mut descriptor = Descriptor::new(&name)?;
        descriptor.set_key(key)?;
        Ok(Self(descriptor))
    }

    /// How many bytes a digest has.
    pub fn digest_bytes(&self) -> usize {
        self.0.digest_bytes()
    }

    /// The digest of `bytes`.
    pub fn digest(&mut self, bytes: &[u8]) -> Result<Digest> {
        digest(&mut self.0, bytes)
    }
}

fn digest(descriptor: &mut Descriptor, bytes: &[u8]) -> Result<Digest> {
    descriptor.begin()?;
    // SAFETY: `bytes` is readable.
    unsafe { descriptor.update(bytes.as_ptr(), bytes.len()) }?;
    descriptor.finish()
}

/// CRC-32C of `bytes` after `seed`, without inversion before or after. Any context.
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    // SAFETY: `bytes` is readable.
    unsafe { drbd_bindings::crc32c(seed, bytes.as_ptr().cast(), bytes.len()) }
}

/// Whether both are equal, in a time that does not tell where they differ. Any context.
pub fn secrets_equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    // SAFETY: Both are readable for that length.
    let differ =
        unsafe { drbd_bindings::drbd_shim_memneq(a.as_ptr().cast(), b.as_ptr().cast(), a.len()) };
    !differ
}
