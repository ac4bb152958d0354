//! Credentials that were verified before: requests with the same ones cost no signature.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use aws_lc_rs::digest::{SHA256, digest};
use quick_cache::{OptionsBuilder, Weighter, sync::Cache};

use super::{error::IdentityError, jwt::key::KeyId, member::PartitionMember};
use crate::field::Timestamp;

/// Credentials remembered, if none is longer than [`MIN_WEIGHT`] with its members.
const CAPACITY: usize = 64 << 10;

/// What the smallest entry counts for, in bytes: altogether they take at most 64 MiB.
const MIN_WEIGHT: u64 = 1 << 10;

/// Roughly what the members of an entry take, in bytes.
const MEMBERS_WEIGHT: u64 = 512;

/// Forged tokens remembered; 24 bytes each.
const FORGED_CAPACITY: usize = 4096;

/// A verified identity, as a member of each partition that the routes use.
#[derive(Debug)]
pub(super) struct VerifiedIdentity {
    /// When it ends, by the system's clock.
    pub(super) expires: Option<Timestamp>,
    /// The key that verified it, if a key did.
    pub(super) key: Option<KeyId>,
    /// The generation of keys that had the key when it was last looked at.
    generation: AtomicU64,
    /// In the order of the partitions.
    pub(super) members: Box<[Result<Arc<PartitionMember>, IdentityError>]>,
}

impl VerifiedIdentity {
    pub(super) fn new(
        expires: Option<Timestamp>,
        key: Option<(KeyId, u64)>,
        members: Box<[Result<Arc<PartitionMember>, IdentityError>]>,
    ) -> Self {
        let (key, generation) = key.unzip();
        Self { expires, key, generation: generation.unwrap_or_default().into(), members }
    }

    /// Whether its key is in this generation of keys, as far as it is known without looking.
    pub(super) fn has_generation(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Relaxed) == generation
    }

    /// Notes that its key is in this generation, too.
    pub(super) fn set_generation(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
    }
}

/// Credentials that were looked at before.
pub(super) struct CredentialCache {
    verified: Cache<Box<[u8]>, Arc<VerifiedIdentity>, CredentialWeighter>,
    /// Digests of credentials with a wrong signature, and the generation of keys that it is wrong for. Apart
    /// from the others, so that forged tokens evict none that are good.
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

    /// Returns what these credentials were verified as. Compares all of their bytes.
    pub(super) fn get(&self, credentials: &[u8]) -> Option<Arc<VerifiedIdentity>> {
        self.verified.get(credentials)
    }

    pub(super) fn insert(&self, credentials: &[u8], verified: Arc<VerifiedIdentity>) {
        self.verified.insert(credentials.into(), verified);
    }

    pub(super) fn remove(&self, credentials: &[u8]) {
        self.verified.remove(credentials);
    }

    /// Whether these credentials have a wrong signature by this generation of keys.
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
