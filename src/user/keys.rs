//! The current verification keys: configured, or published by the issuer and kept up to date.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    error::IdentityError,
    jwks,
    jwt::{
        Jwt,
        key::{KeyFingerprint, VerificationKey},
    },
};
use crate::{
    origin::{
        SetupError,
        document::{DocumentClient, DocumentError},
        document_url::DocumentUrl,
    },
    telemetry::JwksMetrics,
};

/// Schedule of key fetches, and the validity of fetched keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct FetchTiming {
    /// Timeout of a fetch.
    pub(super) timeout: Duration,
    /// Minimum time between two fetches, however many tokens name unknown keys.
    pub(super) min_interval: Duration,
    /// Time between two fetches if no token names an unknown key.
    pub(super) interval: Duration,
    /// Validity of keys after the last successful fetch.
    pub(super) max_age: Duration,
}

impl FetchTiming {
    const DEFAULT: Self = Self {
        timeout: Duration::from_secs(5),
        min_interval: Duration::from_secs(10),
        interval: Duration::from_mins(5),
        max_age: Duration::from_hours(24),
    };
}

/// A snapshot of the keys.
#[derive(Debug)]
pub(super) struct KeySet {
    /// Number of the snapshot, which changes with the keys.
    pub(super) generation: u64,
    keys: Box<[VerificationKey]>,
    origin: KeyOrigin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyOrigin {
    /// Configured keys; tokens may use any key ID.
    Configured,
    /// Published keys; the token's `kid` selects one.
    Published,
    /// No keys: none were fetched yet, or the last fetch was too long ago.
    Missing,
}

impl KeySet {
    /// Returns whether the set contains a key.
    pub(super) fn has(&self, key: KeyFingerprint) -> bool {
        self.keys.iter().any(|known| known.id == key)
    }

    /// Finds the key that signed the token. Of published keys, only the one with the token's `kid`
    /// is tried. A token without `kid` is verified only if exactly one key fits its algorithm.
    pub(super) fn find_signer(&self, token: &Jwt<'_>) -> Result<KeyFingerprint, IdentityError> {
        let kid = token.kid.as_deref();
        let is_named = |key: &&VerificationKey| {
            self.origin == KeyOrigin::Configured || kid.is_none() || key.kid.as_deref() == kid
        };
        if self.origin == KeyOrigin::Missing {
            return Err(IdentityError::NoKeys);
        }
        if !self.keys.iter().any(|key| is_named(&key)) {
            return Err(IdentityError::UnknownKey);
        }
        let fitting =
            || self.keys.iter().filter(is_named).filter(|key| key.is_for(token.algorithm));
        if fitting().next().is_none() {
            return Err(IdentityError::Algorithm);
        }
        if self.origin == KeyOrigin::Published && kid.is_none() && fitting().count() > 1 {
            return Err(IdentityError::UnknownKey);
        }
        let signed =
            |key: &&VerificationKey| key.verifies(token.algorithm, token.signed, &token.signature);
        fitting().find(signed).map(|key| key.id).ok_or(IdentityError::Signature)
    }
}

/// The source of the current keys.
pub struct TokenKeys {
    set: ArcSwap<KeySet>,
    /// Requests a fetch; `None` for configured keys.
    fetch_requests: Option<mpsc::Sender<()>>,
}

impl TokenKeys {
    /// Creates a source of fixed keys.
    pub fn configured(keys: &[VerificationKey]) -> Arc<Self> {
        let set = KeySet { generation: 0, keys: keys.into(), origin: KeyOrigin::Configured };
        Arc::new(Self { set: ArcSwap::from_pointee(set), fetch_requests: None })
    }

    /// Creates a source of keys that an issuer publishes. Fetches them periodically on the current
    /// runtime until the value is dropped. There are no keys until the first fetch succeeds.
    pub fn published(url: &DocumentUrl, metrics: JwksMetrics) -> Result<Arc<Self>, SetupError> {
        Self::published_with_timing(url, metrics, FetchTiming::DEFAULT)
    }

    pub(super) fn published_with_timing(
        url: &DocumentUrl,
        metrics: JwksMetrics,
        timing: FetchTiming,
    ) -> Result<Arc<Self>, SetupError> {
        let client = DocumentClient::new(url, timing.timeout)?;
        let (fetch_requests, requests) = mpsc::channel(1);
        let set = KeySet { generation: 0, keys: Box::default(), origin: KeyOrigin::Missing };
        let keys = Arc::new(Self {
            set: ArcSwap::from_pointee(set),
            fetch_requests: Some(fetch_requests),
        });
        let updater = JwksUpdater {
            keys: Arc::downgrade(&keys),
            client,
            timing,
            tag: None,
            fetched: Instant::now(),
            is_failing: false,
            metrics,
        };
        tokio::spawn(updater.run(requests));
        Ok(keys)
    }

    /// Returns the current keys.
    pub(super) fn current(&self) -> Guard<Arc<KeySet>> {
        self.set.load()
    }

    /// Requests a fetch after a token named an unknown key. Does not wait.
    pub(super) fn request_fetch(&self) {
        if let Some(fetch_requests) = &self.fetch_requests {
            // A full channel means that a fetch is pending.
            let _coming = fetch_requests.try_send(());
        }
    }

    fn replace(&self, keys: Box<[VerificationKey]>, origin: KeyOrigin) {
        let current = self.set.load();
        if *current.keys != *keys || current.origin != origin {
            let generation = current.generation + 1;
            self.set.store(Arc::new(KeySet { generation, keys, origin }));
        }
    }
}

/// Keeps published keys up to date.
struct JwksUpdater {
    keys: Weak<TokenKeys>,
    client: DocumentClient,
    timing: FetchTiming,
    /// The entity tag of the current document; `None` without a tag.
    tag: Option<HeaderValue>,
    /// Time of the last fetch, or of the start.
    fetched: Instant,
    /// Whether the last fetch failed, so that failures are logged once.
    is_failing: bool,
    metrics: JwksMetrics,
}

/// A key set and its entity tag.
struct JwksDocument {
    keys: Vec<VerificationKey>,
    tag: Option<HeaderValue>,
}

/// The reason why a fetch failed, for the log.
#[derive(Debug, thiserror::Error)]
enum JwksFetchError {
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("the response is not a JSON Web Key Set (RFC 7517)")]
    Form,
}

impl JwksUpdater {
    /// Fetches the keys periodically and on request, until the keys are dropped.
    async fn run(mut self, mut requests: mpsc::Receiver<()>) {
        loop {
            let began = Instant::now();
            let outcome = self.fetch().await;
            let Some(keys) = self.keys.upgrade() else { return };
            let wait = if self.apply(&keys, outcome) {
                self.timing.interval
            } else {
                self.timing.min_interval
            };
            drop(keys);
            // Requests do not shorten `min_interval`.
            sleep_until(began + self.timing.min_interval).await;
            let next = began + wait;
            if let Ok(None) = timeout_at(next, requests.recv()).await {
                return;
            }
        }
    }

    async fn fetch(&self) -> Result<Option<JwksDocument>, JwksFetchError> {
        let mut fields = HeaderMap::new();
        if let Some(tag) = &self.tag {
            fields.insert(header::IF_NONE_MATCH, tag.clone());
        }
        let response = self.client.get(fields).await?;
        match response.status() {
            StatusCode::NOT_MODIFIED if self.tag.is_some() => return Ok(None),
            StatusCode::OK => {}
            status => return Err(DocumentError::Status(status).into()),
        }
        let keys = jwks::parse(response.body()).ok_or(JwksFetchError::Form)?;
        let tag = response.headers().get(header::ETAG).cloned();
        Ok(Some(JwksDocument { keys, tag }))
    }

    /// Installs a fetched document. Returns whether the fetch succeeded.
    fn apply(
        &mut self,
        keys: &TokenKeys,
        outcome: Result<Option<JwksDocument>, JwksFetchError>,
    ) -> bool {
        let now = Instant::now();
        let is_fetched = outcome.is_ok();
        match outcome {
            Ok(document) => {
                self.fetched = now;
                if let Some(JwksDocument { keys: found, tag }) = document {
                    self.tag = tag;
                    keys.replace(found.into(), KeyOrigin::Published);
                }
            }
            Err(error) => {
                if !self.is_failing {
                    tracing::warn!(%error, "failed to fetch the token verification keys; retrying");
                }
                if now.duration_since(self.fetched) >= self.timing.max_age {
                    self.tag = None;
                    keys.replace(Box::default(), KeyOrigin::Missing);
                }
            }
        }
        self.is_failing = !is_fetched;
        self.metrics.record_fetch(is_fetched, keys.current().keys.len());
        is_fetched
    }
}
