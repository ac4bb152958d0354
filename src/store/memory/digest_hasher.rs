//! A hasher for keys that are digests.

use std::hash::{BuildHasher, Hasher};

/// Uses 64 bits of a key as its hash, because keys are digests already.
#[derive(Clone, Default)]
pub(super) struct DigestBuildHasher;

impl BuildHasher for DigestBuildHasher {
    type Hasher = DigestHasher;

    fn build_hasher(&self) -> DigestHasher {
        DigestHasher(0)
    }
}

pub(super) struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any 64 bits of a digest are as good")]
    fn write_u128(&mut self, digest: u128) {
        self.0 = digest as u64;
    }
}
