//! The hash of a bundle on the wire: whole, or not told (protocol R-RENEW-5).

use bytes::Bytes;

use crate::limits::HASH_BYTES;

/// Reads it: none when it is empty, an error when it has another length.
pub(super) fn optional_hash(bytes: &[u8]) -> Result<Option<[u8; HASH_BYTES]>, &'static str> {
    if bytes.is_empty() {
        return Ok(None);
    }
    bytes.try_into().map(Some).map_err(|_| "the hash of the bundle has not 32 bytes")
}

/// Its wire form.
pub(super) fn hash_bytes(hash: Option<[u8; HASH_BYTES]>) -> Bytes {
    hash.map_or_else(Bytes::new, |hash| Bytes::copy_from_slice(&hash))
}
