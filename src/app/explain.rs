//! Explains requests, with a configuration alone or on a running node.

use std::{sync::Arc, time::SystemTime};

use anyhow::Context as _;
use futures_util::FutureExt as _;
use tokio::runtime::{Builder, Runtime};

use super::{
    assemble,
    claims::{self, TestClaims},
    issuers::IssuerKeys,
};
use crate::{
    admin::{ExplainFn, RenderedExplanation},
    config::{AccessLogFormat, Config},
    forward::ViaIdentity,
    origin::settings::{OriginScheme, OriginTls},
    pipeline::{
        ConfigSnapshot, Pipeline,
        explain::{self, ExplainRequest, Explanation, InvalidExplainRequest},
    },
    store::TieredStore,
    telemetry::Metrics,
    user::IdentitySource,
};

/// Explains requests with a configuration alone, as if nothing were stored.
///
/// Opens no connections and reads no certificates, so it needs only the configuration file.
pub struct Explainer {
    site: ConfigSnapshot,
    identity_source: IdentitySource,
    /// A runtime for tasks that the configuration spawns. They never run.
    runtime: Option<Runtime>,
}

impl Explainer {
    /// Creates an explainer of this configuration.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().build().context("cannot create a runtime")?;
        let entered = runtime.enter();
        let (identity, version) = (ViaIdentity::random(), config.store.version.as_str().into());
        let config = without_io(config);
        let identity_source = config.user.identity_source.clone();
        let own = (&identity, &version, &IssuerKeys::new());
        let site = assemble::site(&config, own, &Metrics::new(), None)?;
        drop(entered);
        Ok(Self { site, identity_source, runtime: Some(runtime) })
    }

    /// Creates an explainer for configuration tests, which list claims in place of tokens.
    pub(super) fn for_tests(config: &Config) -> anyhow::Result<Self> {
        Self::new(&claims::with_test_key(config.clone()))
    }

    /// Explains a request that arrives now.
    ///
    /// # Errors
    /// Fails if the request or the response is invalid.
    pub fn explain(&self, request: &ExplainRequest) -> Result<Explanation, InvalidExplainRequest> {
        explain::offline(&self.site, request, SystemTime::now().into())
    }

    /// Explains a request from a user with these claims. Requires [`Self::for_tests`].
    ///
    /// # Errors
    /// Fails if the request or the response is invalid.
    pub(super) fn explain_for(
        &self,
        request: &ExplainRequest,
        claims: Option<&TestClaims>,
    ) -> Result<Explanation, InvalidExplainRequest> {
        match claims {
            Some(claims) => {
                self.explain(&claims::with_claims(request, claims, &self.identity_source))
            }
            None => self.explain(request),
        }
    }
}

impl Drop for Explainer {
    /// Shuts the runtime down without waiting, which is allowed inside another runtime.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Removes the parts of a configuration that need files or connections and do not affect caching.
fn without_io(config: &Config) -> Config {
    let mut config = config.clone();
    config.log.access = AccessLogFormat::Off;
    config.origin.tls = OriginTls::default();
    config.origin.health = None;
    for url in &mut config.origin.urls {
        url.scheme = OriginScheme::Http;
    }
    config
}

/// Returns the function with which a running node explains requests.
pub(super) fn for_node(pipeline: &Arc<Pipeline<TieredStore>>) -> ExplainFn {
    let pipeline = Arc::clone(pipeline);
    Box::new(move |body| {
        let (pipeline, request) = (Arc::clone(&pipeline), read(body));
        async move {
            let explanation =
                pipeline.explain(&request?).await.map_err(|error| error.to_string())?;
            let json = serde_json::to_vec(&explanation).map_err(|error| error.to_string())?;
            Ok(RenderedExplanation { json, text: explanation.to_string() })
        }
        .boxed()
    })
}

/// Parses the body of a call. The error does not quote the body.
fn read(body: &[u8]) -> Result<ExplainRequest, String> {
    serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("The body is invalid (line {line}, column {column}). {FORM}")
    })
}

const FORM: &str = r#"Send JSON: {"method": "GET", "url": "https://host/path", "headers": ["name: value"], "from": "address of the client", "response": {"status": 200, "headers": ["name: value"], "body": ""}}; all but `url` may be left out."#;
