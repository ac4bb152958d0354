//! TLS towards Redis.

use std::sync::Arc;

use rustls::ClientConfig;

use super::settings::TlsSettings;
use crate::tls::{self, PemFiles};

/// Why TLS towards Redis cannot be set up.
pub use crate::tls::TlsError;

/// A client that trusts and identifies as told.
pub(super) fn client_config(settings: &TlsSettings) -> Result<Arc<ClientConfig>, TlsError> {
    let TlsSettings { ca, cert, key } = settings;
    let files = PemFiles { ca: ca.as_deref(), cert: cert.as_deref(), key: key.as_deref() };
    Ok(Arc::new(tls::client_config(files)?))
}
