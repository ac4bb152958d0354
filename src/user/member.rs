//! A member of a partition: what an identity comes to for the responses of one route.

use std::{fmt, sync::Arc};

use crate::{
    field::Timestamp,
    key::{DigestKey, digest::hex},
};

/// Who asks, as a member of the partition of a route.
#[derive(Clone)]
pub struct PartitionMember {
    /// The partition in the key: a keyed digest of its kind, the issuer, the claims that it is made of, and
    /// what narrows them.
    pub partition_digest: [u8; 16],
    /// By which purges select what belongs to it: a keyed digest of issuer and claims, whatever narrows
    /// them. None if nothing in the partition belongs to anyone (`"authenticated"`).
    pub owner: Option<Arc<str>>,
    /// The user as the claim says it, for `{user}`.
    pub user: Option<Box<str>>,
    /// The issuer; empty for a gateway.
    pub issuer: Box<str>,
    /// A keyed digest of the credential itself.
    pub credential: u128,
    /// When the credential ends, by the system's clock.
    pub expires: Option<Timestamp>,
}

impl PartitionMember {
    /// Returns the name by which the purge log ends the credential: its digest in hexadecimal.
    pub fn credential_name(&self) -> String {
        hex(self.credential.to_be_bytes())
    }
}

impl fmt::Debug for PartitionMember {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// The kind of partition, as digests name it: no two kinds share a response.
pub(super) const USER: &[u8] = b"user";
pub(super) const CLAIM: &[u8] = b"claim";
pub(super) const AUTHENTICATED: &[u8] = b"authenticated";
pub(super) const CREDENTIAL: &[u8] = b"credential";
const OWNER: &[u8] = b"owner";

/// The owner by which purges select: a keyed digest of some texts, in hexadecimal.
pub(super) fn owner<'a>(
    digests: &DigestKey,
    kind: &'a [u8],
    texts: impl IntoIterator<Item = &'a [u8]>,
) -> Arc<str> {
    hex(digest(digests, [OWNER, kind].into_iter().chain(texts))).into()
}

/// The keyed digest of some texts, each after its length, so that no two lists are the same.
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
