//! The keys under which things stand in Redis; `docs/redis.md` describes them.

use bytes::Bytes;

/// Names keys: `{prefix}:{version}:` and what follows it.
///
/// A lease and those who wait for it carry the digest in braces, so that in a cluster one script reaches
/// both.
#[derive(Debug, Clone)]
pub(super) struct NamespaceKeys {
    prefix: Box<str>,
}

/// Bytes of a digest in hexadecimal.
const DIGITS: usize = 32;

impl NamespaceKeys {
    /// The keys of one namespace.
    pub(super) fn new(name: &str, version: &str) -> Self {
        Self { prefix: format!("{name}:{version}:").into() }
    }

    /// The entry with this digest.
    pub(super) fn entry(&self, digest: u128) -> Bytes {
        self.key(b"e:", digest, b"")
    }

    /// The parts of a body that does not stand in its entry. `body_id` tells them from those of an
    /// older or a newer body.
    pub(super) fn chunks(
        &self,
        digest: u128,
        body_id: u64,
        count: u32,
    ) -> impl Iterator<Item = Bytes> + Send + use<> {
        let prefix = format!("{}c:{digest:032x}:{body_id:016x}:", self.prefix);
        (0..count).map(move |number| Bytes::from(format!("{prefix}{number}")))
    }

    /// Who fetches what has this digest.
    pub(super) fn lease(&self, digest: u128) -> Bytes {
        self.key(b"l:{", digest, b"}")
    }

    /// The nodes that wait for it.
    pub(super) fn waiters(&self, digest: u128) -> Bytes {
        self.key(b"w:{", digest, b"}")
    }

    /// The channel of a node, without the node.
    pub(super) fn channel_prefix(&self) -> String {
        format!("{}n:", self.prefix)
    }

    /// An entry that is never there, to be asked for.
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

/// A digest in hexadecimal, as messages carry it.
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
