//! Reads certificates from PEM files, and configures TLS for clients.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};

/// The reasons why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds no PEM of the right kind.
    #[error("{path}: {source}")]
    File { path: PathBuf, source: pem::Error },
    /// A certificate has no key, or a key has no certificate.
    #[error("a client certificate needs both `cert` and `key`")]
    IncompleteIdentity,
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// PEM files with trusted authorities and a client certificate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PemFiles<'a> {
    /// Trusted authorities; the system's if `None`.
    pub ca: Option<&'a Path>,
    /// The client certificate and its chain.
    pub cert: Option<&'a Path>,
    /// The client certificate's key.
    pub key: Option<&'a Path>,
}

/// Reads the files and returns a client configuration, without ALPN.
pub(crate) fn client_config(files: PemFiles<'_>) -> Result<ClientConfig, TlsError> {
    let roots = match files.ca {
        Some(ca) => own_roots(ca)?,
        None => system_roots(),
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match (files.cert, files.key) {
        (Some(cert), Some(key)) => {
            Ok(builder.with_client_auth_cert(certificates(cert)?, private_key(key)?)?)
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(TlsError::IncompleteIdentity),
    }
}

fn own_roots(ca: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// Returns the system's roots, or Mozilla's if the system has none (a minimal container).
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// Reads a certificate chain; fails if the file has none.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|source| file(path, source))?;
    if certificates.is_empty() {
        let empty = io::Error::new(io::ErrorKind::InvalidData, "no certificate found");
        return Err(file(path, pem::Error::Io(empty)));
    }
    Ok(certificates)
}

/// Reads a private key.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| file(path, source))
}

fn file(path: &Path, source: pem::Error) -> TlsError {
    TlsError::File { path: path.to_path_buf(), source }
}
