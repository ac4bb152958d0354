//! TLS towards clients, with certificates that can be replaced at run time.

use std::{fmt, path::Path, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::tls::{self, TlsError};

/// The reason why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error(transparent)]
    File(#[from] TlsError),
    /// The key's type is unknown, or the key does not belong to the certificate.
    #[error("the certificate and its key cannot be used: {0}")]
    Key(#[from] rustls::Error),
}

/// A certificate chain with its key, which can be replaced at run time.
pub struct Certificates {
    current: ArcSwap<CertifiedKey>,
}

impl Certificates {
    /// Reads the PEM files.
    pub fn load(chain: &Path, key: &Path) -> Result<Arc<Self>, CertificateError> {
        let current = ArcSwap::from_pointee(read(chain, key)?);
        Ok(Arc::new(Self { current }))
    }

    /// Replaces the certificate for later handshakes. Keeps the current certificate on an error.
    pub fn reload(&self, chain: &Path, key: &Path) -> Result<(), CertificateError> {
        self.current.store(Arc::new(read(chain, key)?));
        Ok(())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// Returns a configuration for TLS 1.2 and 1.3 with these certificates, ALPN `h2` and `http/1.1`,
/// and no client certificates.
pub fn server_config(
    certificates: Arc<Certificates>,
) -> Result<Arc<ServerConfig>, CertificateError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read(chain: &Path, key: &Path) -> Result<CertifiedKey, CertificateError> {
    let (chain, key) = (tls::certificates(chain)?, tls::private_key(key)?);
    Ok(CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_failed_reload_keeps_the_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        assert!(matches!(Certificates::load(&chain, &key), Err(CertificateError::File(_))));
        write(folder.path());
        let certificates = Certificates::load(&chain, &key).unwrap();
        let first = certificates.current.load_full();
        std::fs::write(&chain, "").unwrap();
        assert!(certificates.reload(&chain, &key).is_err());
        assert!(Arc::ptr_eq(&first, &certificates.current.load_full()));
        write(folder.path());
        certificates.reload(&chain, &key).unwrap();
        assert!(!Arc::ptr_eq(&first, &certificates.current.load_full()));
    }
}
