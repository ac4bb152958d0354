//! The keys that an issuer publishes, kept over reloads.

use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::{
    telemetry::Metrics,
    user::{DocumentUrl, IdentitySource, KeySource, TokenKeys},
};

/// What fetches the keys that tokens are verified with.
pub(super) struct IssuerKeys {
    current: Mutex<Option<(DocumentUrl, Arc<TokenKeys>)>>,
    runtime: Handle,
}

impl IssuerKeys {
    /// Fetches on the current runtime, once there are settings.
    pub(super) fn new() -> Self {
        Self { current: Mutex::new(None), runtime: Handle::current() }
    }

    /// Returns the keys that these settings need, if tokens prove who asks. Those of the same URL stay.
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
            .context("`user.jwt.jwks` cannot be set up")?;
        *current = Some((source.clone(), Arc::clone(&keys)));
        Ok(Some(keys))
    }
}
