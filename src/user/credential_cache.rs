//! Cache of verified credentials, which saves verifying a signature per request.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use aws_lc_rs::digest::{SHA256, digest};
use quick_cache::{OptionsBuilder, Weighter, sync::Cache};

use super::{error::IdentityError, jwt::key::KeyFingerprint, member::PartitionMember};
use crate::field::Timestamp;

/// Maximum number of cached credentials, if none weighs more than [`MIN_WEIGHT`].
const CAPACITY: usize = 64 << 10;

/// Minimum weight of an entry in bytes, which limits the cache to 64 MiB.
const MIN_WEIGHT: u64 = 1 << 10;

/// Approximate weight of an entry's partition members, in bytes.
const MEMBERS_WEIGHT: u64 = 512;

/// Maximum number of cached forged tokens, of 24 bytes each.
const FORGED_CAPACITY: usize = 4096;

/// A verified identity, as a member of each partition that routes use.
#[derive(Debug)]
pub(super) struct VerifiedIdentity {
    /// Expiry by the system clock; `None` if the identity does not expire.
    pub(super) expires: Option<Timestamp>,
    /// The key that verified the token; `None` for a gateway.
    pub(super) key: Option<KeyFingerprint>,
    /// The latest key set generation that is known to contain the key.
    generation: AtomicU64,
    /// The identity as a member of each partition, in the order of the authenticator's partitions.
    pub(super) members: Box<[Result<Arc<PartitionMember>, IdentityError>]>,
}

impl VerifiedIdentity {
    pub(super) fn new(
        expires: Option<Timestamp>,
        key: Option<(KeyFingerprint, u64)>,
        members: Box<[Result<Arc<PartitionMember>, IdentityError>]>,
    ) -> Self {
        let (key, generation) = key.unzip();
        Self { expires, key, generation: generation.unwrap_or_default().into(), members }
    }

    /// Returns whether the key is known to be in this generation of keys.
    pub(super) fn has_generation(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Relaxed) == generation
    }

    /// Records that the key is in this generation.
    pub(super) fn set_generation(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
    }
}

/// Credentials that have been verified or found forged.
pub(super) struct CredentialCache {
    verified: Cache<Box<[u8]>, Arc<VerifiedIdentity>, CredentialWeighter>,
    /// Digests of forged credentials, with the key generation that rejected their signature. Kept
    /// apart, so that forged tokens evict no valid tokens.
    forged: Cache<u128, u64>,
}

impl CredentialCache {
    pub(super) fn new() -> Self {
        let weight = CAPACITY as u64 * MIN_WEIGHT;
        let verified = match OptionsBuilder::new()
            .estimated_items_capacity(CAPACITY)
            .weight_capacity(weight)
            .build()
        {
            Ok(options) => Cache::with_options(
                options,
                CredentialWeighter,
                quick_cache::DefaultHashBuilder::default(),
                quick_cache::sync::DefaultLifecycle::default(),
            ),
            Err(_) => Cache::with_weighter(CAPACITY, weight, CredentialWeighter),
        };
        Self { verified, forged: Cache::new(FORGED_CAPACITY) }
    }

    /// Returns the cached identity of these credentials. Compares all bytes, not only a digest.
    pub(super) fn get(&self, credentials: &[u8]) -> Option<Arc<VerifiedIdentity>> {
        self.verified.get(credentials)
    }

    pub(super) fn insert(&self, credentials: &[u8], verified: Arc<VerifiedIdentity>) {
        self.verified.insert(credentials.into(), verified);
    }

    pub(super) fn remove(&self, credentials: &[u8]) {
        self.verified.remove(credentials);
    }

    /// Returns whether the signature of these credentials is wrong for this generation of keys.
    pub(super) fn is_forged(&self, credentials: &[u8], generation: u64) -> bool {
        self.forged.get(&digest_of(credentials)) == Some(generation)
    }

    pub(super) fn insert_forged(&self, credentials: &[u8], generation: u64) {
        self.forged.insert(digest_of(credentials), generation);
    }
}

fn digest_of(credentials: &[u8]) -> u128 {
    let sum = digest(&SHA256, credentials);
    sum.as_ref().first_chunk().map_or(0, |sum| u128::from_be_bytes(*sum))
}

#[derive(Clone)]
struct CredentialWeighter;

impl Weighter<Box<[u8]>, Arc<VerifiedIdentity>> for CredentialWeighter {
    fn weight(&self, credentials: &Box<[u8]>, _: &Arc<VerifiedIdentity>) -> u64 {
        (credentials.len() as u64 + MEMBERS_WEIGHT).max(MIN_WEIGHT)
    }
}
