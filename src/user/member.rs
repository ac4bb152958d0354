//! Partition members: an identity as it applies to one route's responses.

use std::{fmt, sync::Arc};

use crate::{
    field::Timestamp,
    key::{DigestKey, digest::hex},
};

/// A client as a member of a route's partition.
#[derive(Clone)]
pub struct PartitionMember {
    /// The partition in the key. A keyed digest of the kind of partition, the issuer, the
    /// identifying claims and the narrowing claims.
    pub partition_digest: [u8; 16],
    /// The owner by which purges select the member's responses. A keyed digest of issuer and
    /// identifying claims only. `None` if the partition has no owner (`"authenticated"`).
    pub owner: Option<Arc<str>>,
    /// The user's name from the claim, which replaces `{user}` in tags.
    pub user: Option<Box<str>>,
    /// The issuer; empty for a gateway.
    pub issuer: Box<str>,
    /// A keyed digest of the credential.
    pub credential: u128,
    /// Expiry of the credential by the system clock.
    pub expires: Option<Timestamp>,
}

impl PartitionMember {
    /// Returns the name of the credential in the purge log: its digest in hexadecimal.
    pub fn credential_name(&self) -> String {
        hex(self.credential.to_be_bytes())
    }
}

impl fmt::Debug for PartitionMember {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// The kind of a partition by user. Digests include the kind, so no two kinds share a response.
pub(super) const USER: &[u8] = b"user";
pub(super) const CLAIM: &[u8] = b"claim";
pub(super) const AUTHENTICATED: &[u8] = b"authenticated";
pub(super) const CREDENTIAL: &[u8] = b"credential";
const OWNER: &[u8] = b"owner";

/// Returns the owner of responses: a keyed digest of texts that identify the owner, in hexadecimal.
pub(super) fn owner<'a>(
    digests: &DigestKey,
    kind: &'a [u8],
    texts: impl IntoIterator<Item = &'a [u8]>,
) -> Arc<str> {
    hex(digest(digests, [OWNER, kind].into_iter().chain(texts))).into()
}

/// Returns the keyed digest of texts and their lengths, so that different lists of texts differ.
pub(super) fn digest<'a>(
    digests: &DigestKey,
    texts: impl IntoIterator<Item = &'a [u8]>,
) -> [u8; 16] {
    let mut bytes = Vec::with_capacity(128);
    for text in texts {
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text);
    }
    digests.digest(&bytes)
}
