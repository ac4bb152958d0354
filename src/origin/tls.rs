//! TLS towards origin servers.

use std::sync::Arc;

use rustls::{ClientConfig, pki_types::InvalidDnsNameError};

use super::settings::Tls;
use crate::trust::{self, Files, TrustError};

/// Why TLS towards an origin cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or a key is missing or cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The server's name is not a name.
    #[error("{name}: {source}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: InvalidDnsNameError,
    },
}

/// A client that trusts and identifies as told; ALPN `h2` and `http/1.1`.
pub(super) fn client_config(settings: &Tls) -> Result<Arc<ClientConfig>, TlsError> {
    let Tls { ca, cert, key, .. } = settings;
    let files = Files { ca: ca.as_deref(), cert: cert.as_deref(), key: key.as_deref() };
    let mut config = trust::client_config(files)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
