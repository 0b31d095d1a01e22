//! Which backends are trusted: a rustls configuration out of client.yml, on ring.
//!
//! It knows nothing of HTTP. [`client_config`] is the door; an `https` backend without any trust is an error.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::key_store::{self, KeyStoreError};
use crate::config::settings;

/// Why no trust could be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    #[error(
        "the backend is https and nothing is trusted: set client.caFile or client.trustStore, or client.loadDefaultTrustStore: true"
    )]
    Nothing,
    #[error("{key}: {path} cannot be read")]
    Unreadable { key: &'static str, path: String, source: std::io::Error },
    #[error("{key}: {path} is no trust store")]
    Store { key: &'static str, path: String, source: KeyStoreError },
    #[error("{key}: {path} has no certificate that can be trusted")]
    Empty { key: &'static str, path: String },
    #[error("client.loadDefaultTrustStore: this system has no certificates ({0})")]
    NoPlatform(String),
    #[error("the TLS library refuses the configuration")]
    Tls(#[from] rustls::Error),
    #[error("the certificates cannot be used")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// What client.yml says: PEM file, trust store, platform store, all together where several are set. `http2` is offered by ALPN.
pub(crate) fn client_config(client: &settings::Client, http2: bool) -> Result<ClientConfig, TrustError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &client.ca_file {
        add(&mut roots, "client.caFile", path, None)?;
    }
    if let Some(path) = &client.trust_store {
        let password = client.trust_store_password.as_ref().map(settings::Secret::reveal);
        add(&mut roots, "client.trustStore", path, password)?;
    }
    if client.load_default_trust_store {
        let platform = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(platform.certs);
        if added == 0 && client.ca_file.is_none() && client.trust_store.is_none() {
            let reasons: Vec<_> = platform.errors.iter().map(ToString::to_string).collect();
            return Err(TrustError::NoPlatform(reasons.join("; ")));
        }
    }
    if roots.is_empty() {
        return Err(TrustError::Nothing);
    }
    let provider = Arc::new(ring::default_provider());
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let verifier: Arc<dyn ServerCertVerifier> = if client.verify_hostname { inner } else { Arc::new(ChainOnly(inner)) };
    let mut config = builder(provider)?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    if http2 {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    Ok(config)
}

/// A configuration that trusts nobody, for plain http: it reads nothing from disk.
pub(crate) fn nothing() -> Result<ClientConfig, TrustError> {
    let provider = Arc::new(ring::default_provider());
    Ok(builder(provider)?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn builder(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TrustError> {
    Ok(ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?)
}

fn add(roots: &mut RootCertStore, key: &'static str, path: &Path, password: Option<&str>) -> Result<(), TrustError> {
    let shown = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| TrustError::Unreadable { key, path: shown.clone(), source })?;
    let certificates = key_store::certificates(&bytes, password).map_err(|source| TrustError::Store {
        key,
        path: shown.clone(),
        source,
    })?;
    let (added, ignored) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(TrustError::Empty { key, path: shown });
    }
    if ignored > 0 {
        tracing::warn!(key, path = %shown, ignored, "certificates that cannot be trusted were left out");
    }
    Ok(())
}

/// Checks the chain, validity and signatures as ever, and not the name.
#[derive(Debug)]
struct ChainOnly(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
        // The name is looked at last: an error about it means that everything else was in order.
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
