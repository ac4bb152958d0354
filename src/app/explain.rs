//! Explaining requests: by a configuration alone, or by a running node.

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

/// Explains requests by a configuration alone, as if nothing were stored.
///
/// Connects nowhere, and reads no certificates: it works where only the file is.
pub struct Explainer {
    site: ConfigSnapshot,
    identity_source: IdentitySource,
    /// Tasks of the configuration wait here, and never run.
    runtime: Option<Runtime>,
}

impl Explainer {
    /// An explainer of this configuration.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().build().context("no runtime can be made")?;
        let entered = runtime.enter();
        let (identity, version) = (ViaIdentity::random(), config.store.version.as_str().into());
        let config = without_io(config);
        let identity_source = config.user.identity_source.clone();
        let own = (&identity, &version, &IssuerKeys::new());
        let site = assemble::site(&config, own, &Metrics::new(), None)?;
        drop(entered);
        Ok(Self { site, identity_source, runtime: Some(runtime) })
    }

    /// An explainer of tests of this configuration, which name claims in place of tokens.
    pub(super) fn for_tests(config: &Config) -> anyhow::Result<Self> {
        Self::new(&claims::with_test_key(config.clone()))
    }

    /// Explains a request that would come now.
    ///
    /// # Errors
    /// If what is asked about is no request, or its response is none.
    pub fn explain(&self, asked: &ExplainRequest) -> Result<Explanation, InvalidExplainRequest> {
        explain::offline(&self.site, asked, SystemTime::now().into())
    }

    /// The same for a request whose user has these claims. Of [`Self::for_tests`].
    ///
    /// # Errors
    /// If what is asked about is no request, or its response is none.
    pub(super) fn explain_for(
        &self,
        asked: &ExplainRequest,
        claims: Option<&TestClaims>,
    ) -> Result<Explanation, InvalidExplainRequest> {
        match claims {
            Some(claims) => {
                self.explain(&claims::with_claims(asked, claims, &self.identity_source))
            }
            None => self.explain(asked),
        }
    }
}

impl Drop for Explainer {
    /// Waits for nothing, so that it may be dropped on another runtime.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The configuration without what needs files or connections and decides nothing about caching.
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

/// Explains what is asked of a running node.
pub(super) fn for_node(pipeline: &Arc<Pipeline<TieredStore>>) -> ExplainFn {
    let pipeline = Arc::clone(pipeline);
    Box::new(move |body| {
        let (pipeline, asked) = (Arc::clone(&pipeline), read(body));
        async move {
            let explanation = pipeline.explain(&asked?).await.map_err(|error| error.to_string())?;
            let json = serde_json::to_vec(&explanation).map_err(|error| error.to_string())?;
            Ok(RenderedExplanation { json, text: explanation.to_string() })
        }
        .boxed()
    })
}

/// Reads the body of a call; what is wrong is said without anything of the body.
fn read(body: &[u8]) -> Result<ExplainRequest, String> {
    serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("The body is not of the expected form (line {line}, column {column}). {FORM}")
    })
}

const FORM: &str = r#"Send JSON: {"method": "GET", "url": "https://host/path", "headers": ["name: value"], "from": "address of the client", "response": {"status": 200, "headers": ["name: value"], "body": ""}}; all but `url` may be left out."#;
