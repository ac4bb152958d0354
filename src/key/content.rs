//! The digest of a request's content, which is part of the key.

use aws_lc_rs::digest::{Context, SHA256};
use http::{HeaderMap, HeaderName, header};
use smallvec::SmallVec;

/// The digest of a request's content and of the fields that describe it.
///
/// It has 256 bits because stores do not compare the content itself, and clients choose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentDigest([u8; Self::LENGTH]);

impl ContentDigest {
    pub(super) const LENGTH: usize = 32;

    /// Digests content as it is forwarded, with the fields that describe it.
    ///
    /// Each part is digested after its length. Takes about 1 µs for each 2 KiB.
    pub fn of(headers: &HeaderMap, content: &[u8]) -> Self {
        let mut digest = Context::new(&SHA256);
        let mut add = |part: &[u8]| {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part);
        };
        let mut names: SmallVec<[&HeaderName; 4]> =
            headers.keys().filter(|name| describes_content(name)).collect();
        names.sort_unstable_by_key(|name| name.as_str());
        for name in names {
            let lines = headers.get_all(name);
            add(name.as_str().as_bytes());
            add(&lines.iter().count().to_le_bytes());
            lines.iter().for_each(|line| add(line.as_bytes()));
        }
        // An empty name, which no field has, ends the fields.
        add(&[]);
        add(content);
        Self(digest.finish().as_ref().first_chunk().copied().unwrap_or_default())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// Returns whether a field of a request describes its content, as `Content-Type` does. Excludes
/// `Content-Length`, which follows from the content.
pub(crate) fn describes_content(name: &HeaderName) -> bool {
    let text = name.as_str();
    (text.starts_with("content-") && *name != header::CONTENT_LENGTH)
        || matches!(text, "digest" | "repr-digest")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn digest(fields: &[(&'static str, &'static str)], content: &str) -> ContentDigest {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        ContentDigest::of(&fields.iter().map(field).collect(), content.as_bytes())
    }

    #[test]
    fn content_and_the_fields_that_say_how_it_is_read_count_and_no_others() {
        let json = ("content-type", "application/json");
        let digests = [
            digest(&[], ""),
            digest(&[], "a"),
            digest(&[json], ""),
            digest(&[json], "a"),
            digest(&[json, json], "a"),
            digest(&[("content-type", "application/json, application/json")], "a"),
            digest(&[("content-encoding", "application/json")], "a"),
            digest(&[json, ("content-encoding", "gzip")], "a"),
            digest(&[json, ("content-digest", "sha-256=:AA==:")], "a"),
        ];
        for (place, one) in digests.iter().enumerate() {
            assert!(!digests[..place].contains(one), "{place}");
        }
        let others = [("accept", "a"), ("content-length", "1"), json];
        assert_eq!(digest(&[json], "a"), digest(&others, "a"));
        let coding = ("content-encoding", "gzip");
        assert_eq!(digest(&[json, coding], "a"), digest(&[coding, json], "a"));
        assert_eq!(ContentDigest::from_bytes(digests[0].as_bytes()), Some(digests[0]));
        assert_eq!(ContentDigest::from_bytes(b"short"), None);
    }
}
