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
    jwks,
    refusal::Refusal,
    token::{
        Token,
        key::{Key, KeyId},
    },
};
use crate::{
    origin::{
        SetupError,
        document::{DocumentClient, DocumentError},
        source::Source,
    },
    telemetry::JwksMetrics,
};

/// When keys are fetched, and how long they count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How long the issuer's answer may take.
    pub(super) limit: Duration,
    /// The time between two fetches, however many tokens name unknown keys.
    pub(super) least: Duration,
    /// The time between two fetches if no token names an unknown key.
    pub(super) usual: Duration,
    /// How long keys count without a word from the issuer.
    pub(super) kept: Duration,
}

impl Pace {
    const USUAL: Self = Self {
        limit: Duration::from_secs(5),
        least: Duration::from_secs(10),
        usual: Duration::from_mins(5),
        kept: Duration::from_hours(24),
    };
}

/// Keys at one time.
#[derive(Debug)]
pub(super) struct KeySet {
    /// Which set it is: another one has another number.
    pub(super) generation: u64,
    keys: Box<[Key]>,
    origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The operator. Tokens may call the keys what they like.
    Given,
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
    pub(super) fn signer_of(&self, token: &Token<'_>) -> Result<KeyId, Refusal> {
        let kid = token.kid.as_deref();
        let is_named =
            |key: &&Key| self.origin == Origin::Given || kid.is_none() || key.kid.as_deref() == kid;
        if self.origin == Origin::Missing {
            return Err(Refusal::NoKeys);
        }
        if !self.keys.iter().any(|key| is_named(&key)) {
            return Err(Refusal::UnknownKey);
        }
        let fitting =
            || self.keys.iter().filter(is_named).filter(|key| key.is_for(token.algorithm));
        if fitting().next().is_none() {
            return Err(Refusal::Algorithm);
        }
        if self.origin == Origin::Published && kid.is_none() && fitting().count() > 1 {
            return Err(Refusal::UnknownKey);
        }
        let signed = |key: &&Key| key.verifies(token.algorithm, token.signed, &token.signature);
        fitting().find(signed).map(|key| key.id).ok_or(Refusal::Signature)
    }
}

/// The keys in force.
pub struct Keys {
    set: ArcSwap<KeySet>,
    /// Where a fetch is asked for; none if the operator gives the keys.
    wanted: Option<mpsc::Sender<()>>,
}

impl Keys {
    /// Keys that stay as they are.
    pub fn given(keys: &[Key]) -> Arc<Self> {
        let set = KeySet { generation: 0, keys: keys.into(), origin: Origin::Given };
        Arc::new(Self { set: ArcSwap::from_pointee(set), wanted: None })
    }

    /// The keys that an issuer publishes. They are fetched on the current runtime, now and again and again, as
    /// long as the value is kept. Until the first fetch succeeds there are none.
    pub fn published(source: &Source, metrics: JwksMetrics) -> Result<Arc<Self>, SetupError> {
        Self::published_at(source, metrics, Pace::USUAL)
    }

    pub(super) fn published_at(
        source: &Source,
        metrics: JwksMetrics,
        pace: Pace,
    ) -> Result<Arc<Self>, SetupError> {
        let client = DocumentClient::new(source, pace.limit)?;
        let (wanted, requests) = mpsc::channel(1);
        let set = KeySet { generation: 0, keys: Box::default(), origin: Origin::Missing };
        let keys = Arc::new(Self { set: ArcSwap::from_pointee(set), wanted: Some(wanted) });
        let updater = Updater {
            keys: Arc::downgrade(&keys),
            client,
            pace,
            tag: None,
            fetched: Instant::now(),
            is_away: false,
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
        if let Some(wanted) = &self.wanted {
            // A full channel has a fetch coming already.
            let _coming = wanted.try_send(());
        }
    }

    fn replace(&self, keys: Box<[Key]>, origin: Origin) {
        let current = self.set.load();
        if *current.keys != *keys || current.origin != origin {
            let generation = current.generation + 1;
            self.set.store(Arc::new(KeySet { generation, keys, origin }));
        }
    }
}

/// Keeps published keys up to date.
struct Updater {
    keys: Weak<Keys>,
    client: DocumentClient,
    pace: Pace,
    /// The validator of the document in force.
    tag: Option<HeaderValue>,
    /// When the keys were last fetched, or the updater began.
    fetched: Instant,
    /// Whether the last fetch failed: it is logged once.
    is_away: bool,
    metrics: JwksMetrics,
}

/// A set of keys, and its validator.
struct Document {
    keys: Vec<Key>,
    tag: Option<HeaderValue>,
}

/// Why keys were not fetched. For the log.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("the answer is no set of keys (RFC 7517)")]
    Form,
}

impl Updater {
    /// Runs until the keys are dropped.
    async fn run(mut self, mut requests: mpsc::Receiver<()>) {
        loop {
            let began = Instant::now();
            let outcome = self.fetch().await;
            let Some(keys) = self.keys.upgrade() else { return };
            let wait = if self.apply(&keys, outcome) { self.pace.usual } else { self.pace.least };
            drop(keys);
            // Not before `least` is over, whatever is asked for.
            sleep_until(began + self.pace.least).await;
            let next = began + wait;
            if let Ok(None) = timeout_at(next, requests.recv()).await {
                return;
            }
        }
    }

    async fn fetch(&self) -> Result<Option<Document>, FetchError> {
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
        let keys = jwks::parse(response.body()).ok_or(FetchError::Form)?;
        let tag = response.headers().get(header::ETAG).cloned();
        Ok(Some(Document { keys, tag }))
    }

    /// Puts what was fetched in force; whether there was something.
    fn apply(&mut self, keys: &Keys, outcome: Result<Option<Document>, FetchError>) -> bool {
        let now = Instant::now();
        let is_fetched = outcome.is_ok();
        match outcome {
            Ok(document) => {
                self.fetched = now;
                if let Some(Document { keys: found, tag }) = document {
                    self.tag = tag;
                    keys.replace(found.into(), Origin::Published);
                }
            }
            Err(error) => {
                if !self.is_away {
                    tracing::warn!(%error, "could not fetch the keys of tokens; trying again");
                }
                if now.duration_since(self.fetched) >= self.pace.kept {
                    self.tag = None;
                    keys.replace(Box::default(), Origin::Missing);
                }
            }
        }
        self.is_away = !is_fetched;
        self.metrics.fetched(is_fetched, keys.current().keys.len());
        is_fetched
    }
}
