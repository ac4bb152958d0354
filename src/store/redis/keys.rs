//! The names of keys in Redis, which `docs/redis.md` describes.

use bytes::Bytes;

/// Builds the names of keys: `{prefix}:{version}:` and a suffix.
///
/// A lease and the set of its waiters have the digest in braces, so that a cluster keeps both in
/// one slot for scripts.
#[derive(Debug, Clone)]
pub(super) struct NamespaceKeys {
    prefix: Box<str>,
}

const DIGITS: usize = 32;

impl NamespaceKeys {
    pub(super) fn new(name: &str, version: &str) -> Self {
        Self { prefix: format!("{name}:{version}:").into() }
    }

    /// Returns the key of the entry with this digest.
    pub(super) fn entry(&self, digest: u128) -> Bytes {
        self.key(b"e:", digest, b"")
    }

    /// Returns the keys of a body's chunks.
    ///
    /// `body_id` distinguishes the chunks of this body from those of older and newer bodies.
    pub(super) fn chunks(
        &self,
        digest: u128,
        body_id: u64,
        count: u32,
    ) -> impl Iterator<Item = Bytes> + Send + use<> {
        let prefix = format!("{}c:{digest:032x}:{body_id:016x}:", self.prefix);
        (0..count).map(move |number| Bytes::from(format!("{prefix}{number}")))
    }

    /// Returns the key of the lease for fetching the response with this digest.
    pub(super) fn lease(&self, digest: u128) -> Bytes {
        self.key(b"l:{", digest, b"}")
    }

    /// Returns the key of the set of nodes that wait for the lease with this digest.
    pub(super) fn waiters(&self, digest: u128) -> Bytes {
        self.key(b"w:{", digest, b"}")
    }

    /// Returns the prefix of the nodes' channel names.
    pub(super) fn channel_prefix(&self) -> String {
        format!("{}n:", self.prefix)
    }

    /// Returns the key of an entry that never exists, for probes.
    pub(super) fn probe(&self) -> Bytes {
        Bytes::from(format!("{}e:probe", self.prefix))
    }

    fn key(&self, kind: &[u8], digest: u128, end: &[u8]) -> Bytes {
        let length = self.prefix.len() + kind.len() + DIGITS + end.len();
        let mut key = Vec::with_capacity(length);
        key.extend_from_slice(self.prefix.as_bytes());
        key.extend_from_slice(kind);
        let mut digits = [0; DIGITS];
        let _always_fits = const_hex::encode_to_slice(digest.to_be_bytes(), &mut digits);
        key.extend_from_slice(&digits);
        key.extend_from_slice(end);
        Bytes::from(key)
    }
}

/// Formats a digest as 32 hexadecimal digits, as in messages.
pub(super) fn hex(digest: u128) -> String {
    format!("{digest:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_whose_and_what_they_are() {
        let keys = NamespaceKeys::new("shop", "v2");
        let digest = 0x0123_4567_89ab_cdef_0000_0000_0000_00ff;
        assert_eq!(hex(digest), "0123456789abcdef00000000000000ff");
        assert_eq!(keys.entry(digest), "shop:v2:e:0123456789abcdef00000000000000ff");
        let chunks: Vec<Bytes> = keys.chunks(digest, 10, 2).collect();
        let chunk = "shop:v2:c:0123456789abcdef00000000000000ff:000000000000000a:1";
        assert_eq!((chunks.len(), &*chunks[1]), (2, chunk.as_bytes()));
        assert_eq!(keys.lease(digest), "shop:v2:l:{0123456789abcdef00000000000000ff}");
        assert_eq!(keys.waiters(digest), "shop:v2:w:{0123456789abcdef00000000000000ff}");
        assert_eq!(keys.channel_prefix(), "shop:v2:n:");
    }
}
