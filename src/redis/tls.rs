//! TLS towards Redis.

use std::sync::Arc;

use rustls::ClientConfig;

use super::settings::Tls;
use crate::trust::{self, Files};

/// Why TLS towards Redis cannot be set up.
pub use crate::trust::TrustError as TlsError;

/// A client that trusts and identifies as told.
pub(super) fn client_config(settings: &Tls) -> Result<Arc<ClientConfig>, TlsError> {
    let Tls { ca, cert, key } = settings;
    let files = Files { ca: ca.as_deref(), cert: cert.as_deref(), key: key.as_deref() };
    Ok(Arc::new(trust::client_config(files)?))
}
