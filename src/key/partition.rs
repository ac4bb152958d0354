//! The partition in a key: the set of clients that share its responses.

use smallvec::SmallVec;

use super::OriginTarget;

/// A partition as part of a key; empty for responses that are shared as RFC 9111 allows.
///
/// It consists of a byte for its kind, a digest, and optional bytes that subdivide it.
pub(crate) type PartitionKey = SmallVec<[u8; 40]>;

/// The first byte of a partition of one identity.
const OWN: u8 = b'1';

/// The first byte of a partition of several identities.
const SHARED: u8 = b'n';

/// Returns the partition of the identity with this digest.
///
/// Appending bytes makes a further partition of the same identity.
pub(crate) fn of_identity(digest: &[u8; 16]) -> PartitionKey {
    part(OWN, digest)
}

/// Returns a partition that several identities share.
pub(crate) fn of_several(digest: &[u8; 16]) -> PartitionKey {
    part(SHARED, digest)
}

fn part(holder: u8, digest: &[u8; 16]) -> PartitionKey {
    let mut part = PartitionKey::new();
    part.push(holder);
    part.extend_from_slice(digest);
    part
}

/// Returns the identity that exclusively owns responses with this key text.
///
/// The identity is a digest. `None` if other identities may share the responses.
pub(crate) fn identity(text: &[u8]) -> Option<u128> {
    let (holder, digest) = OriginTarget::partition_in(text)?.split_first()?;
    let digest = digest.first_chunk::<16>().filter(|_| *holder == OWN)?;
    Some(u128::from_le_bytes(*digest))
}

/// Returns whether responses with this key text belong to a partition.
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
