//! TLS for Redis connections.

use std::sync::Arc;

use rustls::ClientConfig;

use super::settings::TlsSettings;
use crate::tls::{self, PemFiles};

/// An error while setting up TLS.
pub use crate::tls::TlsError;

/// Creates a client configuration with these authorities and this client certificate.
pub(super) fn client_config(settings: &TlsSettings) -> Result<Arc<ClientConfig>, TlsError> {
    let TlsSettings { ca, cert, key } = settings;
    let files = PemFiles { ca: ca.as_deref(), cert: cert.as_deref(), key: key.as_deref() };
    Ok(Arc::new(tls::client_config(files)?))
}
