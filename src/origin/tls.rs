//! TLS towards origin servers.

use std::sync::Arc;

use rustls::{ClientConfig, pki_types::InvalidDnsNameError};

use super::settings::OriginTls;
use crate::tls::{self, PemFiles, TlsError};

/// The reason why TLS towards an origin cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OriginTlsError {
    /// A certificate or a key is missing or cannot be used.
    #[error(transparent)]
    Client(#[from] TlsError),
    #[error("{name}: {source}")]
    Name { name: String, source: InvalidDnsNameError },
}

/// TLS settings with the configured authorities and client certificate, by offered protocols.
pub(super) struct ClientConfigs {
    /// The settings that offer `h2` and `http/1.1` by ALPN.
    pub(super) any: Arc<ClientConfig>,
    /// The settings that offer only `http/1.1` by ALPN.
    pub(super) http1: Arc<ClientConfig>,
}

impl ClientConfigs {
    pub(super) fn new(settings: &OriginTls) -> Result<Self, OriginTlsError> {
        let OriginTls { ca, cert, key, .. } = settings;
        let files = PemFiles { ca: ca.as_deref(), cert: cert.as_deref(), key: key.as_deref() };
        let mut http1 = tls::client_config(files)?;
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut any = http1.clone();
        any.alpn_protocols.insert(0, b"h2".to_vec());
        Ok(Self { any: Arc::new(any), http1: Arc::new(http1) })
    }
}
