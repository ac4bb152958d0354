//! The keys in force: those of the operator, or those that the issuer publishes, kept up to date.

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
        key::{KeyId, VerificationKey},
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

/// When keys are fetched, and how long they count.
#[derive(Debug, Clone, Copy)]
pub(super) struct FetchTiming {
    /// How long the issuer's answer may take.
    pub(super) timeout: Duration,
    /// The time between two fetches, however many tokens name unknown keys.
    pub(super) min_interval: Duration,
    /// The time between two fetches if no token names an unknown key.
    pub(super) interval: Duration,
    /// How long keys count without a word from the issuer.
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

/// Keys at one time.
#[derive(Debug)]
pub(super) struct KeySet {
    /// Which set it is: another one has another number.
    pub(super) generation: u64,
    keys: Box<[VerificationKey]>,
    origin: KeyOrigin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyOrigin {
    /// The operator. Tokens may call the keys what they like.
    Configured,
    /// The issuer. Tokens name the key.
    Published,
    /// Nothing was published yet, or for too long.
    Missing,
}

impl KeySet {
    /// Whether it has this key.
    pub(super) fn has(&self, key: KeyId) -> bool {
        self.keys.iter().any(|known| known.id == key)
    }

    /// Returns the key whose signature the token has.
    ///
    /// Of published keys only the one of the token's `kid` is tried. A token without `kid` is verified only if
    /// exactly one key is for its algorithm.
    pub(super) fn find_signer(&self, token: &Jwt<'_>) -> Result<KeyId, IdentityError> {
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

/// The keys in force.
pub struct TokenKeys {
    set: ArcSwap<KeySet>,
    /// Where a fetch is asked for; none if the operator gives the keys.
    fetch_requests: Option<mpsc::Sender<()>>,
}

impl TokenKeys {
    /// Keys that stay as they are.
    pub fn configured(keys: &[VerificationKey]) -> Arc<Self> {
        let set = KeySet { generation: 0, keys: keys.into(), origin: KeyOrigin::Configured };
        Arc::new(Self { set: ArcSwap::from_pointee(set), fetch_requests: None })
    }

    /// The keys that an issuer publishes. They are fetched on the current runtime, now and again and again, as
    /// long as the value is kept. Until the first fetch succeeds there are none.
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

    /// The set in force.
    pub(super) fn current(&self) -> Guard<Arc<KeySet>> {
        self.set.load()
    }

    /// Asks for a fetch: a token names a key that is not known. Returns at once.
    pub(super) fn request_fetch(&self) {
        if let Some(fetch_requests) = &self.fetch_requests {
            // A full channel has a fetch coming already.
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
    /// The validator of the document in force.
    tag: Option<HeaderValue>,
    /// When the keys were last fetched, or the updater began.
    fetched: Instant,
    /// Whether the last fetch failed: it is logged once.
    is_failing: bool,
    metrics: JwksMetrics,
}

/// A set of keys, and its validator.
struct JwksDocument {
    keys: Vec<VerificationKey>,
    tag: Option<HeaderValue>,
}

/// Why keys were not fetched. For the log.
#[derive(Debug, thiserror::Error)]
enum JwksFetchError {
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("the answer is no set of keys (RFC 7517)")]
    Form,
}

impl JwksUpdater {
    /// Runs until the keys are dropped.
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
            // Not before `min_interval` is over, whatever is asked for.
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

    /// Puts what was fetched in force; whether there was something.
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
                    tracing::warn!(%error, "could not fetch the keys of tokens; trying again");
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
