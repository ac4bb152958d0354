//! The partition in a key: who shares the responses under it.

use smallvec::SmallVec;

use super::OriginTarget;

/// A partition as a key has it: a byte that says who shares it, a digest, and what else tells it from
/// others. Empty for responses that are shared as RFC 9111 allows.
pub(crate) type PartitionKey = SmallVec<[u8; 40]>;

/// The first byte of a partition that belongs to one identity.
const OWN: u8 = b'1';

/// The first byte of a partition that several identities share.
const SHARED: u8 = b'n';

/// The partition of one identity, whose digest this is. What is appended makes a further partition of the
/// same identity.
pub(crate) fn of_identity(digest: &[u8; 16]) -> PartitionKey {
    part(OWN, digest)
}

/// A partition that several identities share.
pub(crate) fn of_several(digest: &[u8; 16]) -> PartitionKey {
    part(SHARED, digest)
}

fn part(holder: u8, digest: &[u8; 16]) -> PartitionKey {
    let mut part = PartitionKey::new();
    part.push(holder);
    part.extend_from_slice(digest);
    part
}

/// The digest of the one identity that has the responses under a key with this text. `None` if others may
/// have them, too.
pub(crate) fn identity(text: &[u8]) -> Option<u128> {
    let (holder, digest) = OriginTarget::partition_in(text)?.split_first()?;
    let digest = digest.first_chunk::<16>().filter(|_| *holder == OWN)?;
    Some(u128::from_le_bytes(*digest))
}

/// Whether responses under a key with this text are kept for some requests only.
pub(crate) fn is_partitioned(text: &[u8]) -> bool {
    OriginTarget::partition_in(text).is_some_and(|partition| !partition.is_empty())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::key::{CacheKey, uri::Scheme};

    fn key(partition: &[u8]) -> CacheKey {
        let plain = OriginTarget::plain(Scheme::Http, "h", "/a");
        OriginTarget { partition: Cow::Borrowed(partition), ..plain }.key()
    }

    #[test]
    fn a_key_says_whether_one_identity_has_its_responses() {
        let digest = 7_u128.to_le_bytes();
        let (mut own, shared) = (of_identity(&digest), of_several(&digest));
        assert_eq!(identity(key(&own).text()), Some(7));
        assert_eq!(identity(key(&own).variant(b"x").text()), Some(7));
        own.extend_from_slice(b"further");
        assert_eq!(identity(key(&own).text()), Some(7), "the same identity");
        assert_eq!(identity(key(&shared).text()), None);
        assert_eq!(identity(key(b"").text()), None);
        assert_eq!(identity(b"no text of a target"), None);
    }

    #[test]
    fn a_key_says_whether_it_has_a_partition() {
        let digest = [7; 16];
        for part in [of_identity(&digest), of_several(&digest)] {
            assert!(is_partitioned(key(&part).text()));
            assert!(is_partitioned(key(&part).variant(b"x").text()));
        }
        assert!(!is_partitioned(key(b"").text()) && !is_partitioned(b""));
    }
}
