//! The published keys of token issuers, kept across reloads.

use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::{
    telemetry::Metrics,
    user::{DocumentUrl, IdentitySource, KeySource, TokenKeys},
};

/// The JWKS fetchers of issuers.
pub(super) struct IssuerKeys {
    current: Mutex<Option<(DocumentUrl, Arc<TokenKeys>)>>,
    runtime: Handle,
}

impl IssuerKeys {
    /// Creates an empty set of fetchers. Must be called on the runtime that fetches keys.
    pub(super) fn new() -> Self {
        Self { current: Mutex::new(None), runtime: Handle::current() }
    }

    /// Returns the keys for these settings; `None` if no tokens are used. A fetcher for the same
    /// URL is kept.
    pub(super) fn keys(
        &self,
        identity_source: &IdentitySource,
        metrics: &Metrics,
    ) -> anyhow::Result<Option<Arc<TokenKeys>>> {
        let IdentitySource::Token(rules) = identity_source else { return Ok(None) };
        let source = match &rules.keys {
            KeySource::Configured(keys) => return Ok(Some(TokenKeys::configured(keys))),
            KeySource::Jwks(source) => source,
        };
        let mut current = self.current.lock();
        if let Some((known, keys)) = &*current
            && known == source
        {
            return Ok(Some(Arc::clone(keys)));
        }
        let _runtime = self.runtime.enter();
        let keys = TokenKeys::published(source, metrics.jwks.clone())
            .context("cannot set up `user.jwt.jwks`")?;
        *current = Some((source.clone(), Arc::clone(&keys)));
        Ok(Some(keys))
    }
}
