//! Certificates for `localhost` as files, self-signed or from a test authority, with clients that
//! trust them.

use std::{path::Path, path::PathBuf, sync::Arc};

use larder::testing::server::tls::{Certificates, server_config};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, pem::PemObject},
};
use tempfile::TempDir;

pub(crate) struct Certificate {
    folder: TempDir,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Self::write(&made.cert.pem(), &made.signing_key.serialize_pem())
    }

    fn write(chain: &str, key: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), chain).unwrap();
        std::fs::write(folder.path().join("key.pem"), key).unwrap();
        Self { folder }
    }

    pub(crate) fn chain(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        server_config(Certificates::load(&self.chain(), &self.key()).unwrap()).unwrap()
    }

    pub(crate) fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        trusting(&self.chain(), alpn)
    }
}

/// A test authority, and a certificate signed by it for `localhost` and `127.0.0.1`.
pub(crate) struct SignedCertificate {
    pub(crate) server: Certificate,
    authority: PathBuf,
}

impl SignedCertificate {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate().unwrap();
        let chain = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        let server = Certificate::write(&chain.pem(), &key.serialize_pem());
        let file = server.folder.path().join("ca.pem");
        std::fs::write(&file, authority.pem()).unwrap();
        Self { server, authority: file }
    }

    /// Returns the file of the authority's certificate.
    pub(crate) fn authority(&self) -> &Path {
        &self.authority
    }

    /// Returns a client configuration that trusts the authority.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        trusting(&self.authority, &[])
    }
}

fn trusting(root: &Path, alpn: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}
