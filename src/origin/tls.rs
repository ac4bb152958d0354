//! TLS towards origin servers.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, pem, pem::PemObject},
};

use super::settings::Tls;

/// Why TLS towards an origin cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds no PEM of the right kind.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A certificate without its key, or a key without its certificate.
    #[error("a client certificate needs both `cert` and `key`")]
    Half,
    /// A certificate or key that cannot be used.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
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
    let roots = match &settings.ca {
        Some(ca) => own_roots(ca)?,
        None => system_roots(),
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match (&settings.cert, &settings.key) {
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|source| file(key, source))?;
            builder.with_client_auth_cert(certificates(cert)?, key)?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(TlsError::Half),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn own_roots(ca: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// The system's roots; Mozilla's where the system has none (a minimal container).
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|source| file(path, source))?;
    if certificates.is_empty() {
        let empty = io::Error::new(io::ErrorKind::InvalidData, "no certificate in it");
        return Err(file(path, pem::Error::Io(empty)));
    }
    Ok(certificates)
}

fn file(path: &Path, source: pem::Error) -> TlsError {
    TlsError::File { path: path.to_path_buf(), source }
}
