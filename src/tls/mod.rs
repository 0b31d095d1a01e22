//! TLS towards others: stores of certificates and keys, and rustls configurations out of them, on ring.
//!
//! It knows nothing of who connects where. [`ClientTls`] is what a part wants; [`Followed`] keeps it true to its files.

mod followed;
mod java_key;
mod key_store;
mod pem;
mod verifier;

use std::sync::Arc;

pub(crate) use followed::Followed;
use key_store::KeyStoreError;
use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, SupportedProtocolVersion, WantsVerifier, crypto::ring, version,
};

use crate::config::settings::{ClientTls, Place, Secret, Store, TlsVersion};

/// Why no TLS configuration could be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("{key}: {path} cannot be read")]
    Unreadable { key: String, path: String, source: std::io::Error },
    #[error("{key}: {place} cannot be used")]
    Store { key: String, place: String, source: KeyStoreError },
    #[error("{key}: {place} has no certificate that can be trusted")]
    Empty { key: String, place: String },
    #[error("no certificates are configured, and this system has none ({reason}): set {key}")]
    NoPlatform { key: String, reason: String },
    #[error("the TLS library refuses the configuration")]
    Tls(#[from] rustls::Error),
    #[error("the certificates cannot be used")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// A rustls configuration, read from the stores as they are now.
pub(crate) fn client_config(tls: &ClientTls) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for store in &tls.trust {
        trust(&mut roots, store)?;
    }
    if tls.trust_platform
        && let Err(reason) = verifier::add_platform(&mut roots)
        && tls.trust.is_empty()
    {
        return Err(TlsError::NoPlatform { key: tls.trust_key.clone(), reason });
    }
    let verifier = verifier::verifier(roots, tls.verify_hostname)?;
    let builder = builder(&versions(&tls.versions))?.dangerous().with_custom_certificate_verifier(verifier);
    match &tls.identity {
        Some(store) => {
            let (bytes, place) = read(store)?;
            let key_password = tls.key_password.as_ref().map(Secret::reveal);
            let identity = key_store::identity(&bytes, password(store), key_password)
                .map_err(|source| TlsError::Store { key: store.key.clone(), place, source })?;
            Ok(builder.with_client_auth_cert(identity.chain, identity.key)?)
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

fn versions(allowed: &[TlsVersion]) -> Vec<&'static SupportedProtocolVersion> {
    if allowed.is_empty() {
        return rustls::ALL_VERSIONS.to_vec();
    }
    let library = |allowed: &TlsVersion| match allowed {
        TlsVersion::V1_2 => &version::TLS12,
        TlsVersion::V1_3 => &version::TLS13,
    };
    allowed.iter().map(library).collect()
}

/// A configuration that trusts nobody, for plain http: it reads nothing from disk.
pub(crate) fn nothing() -> Result<ClientConfig, TlsError> {
    Ok(builder(rustls::ALL_VERSIONS)?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn builder(
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider).with_protocol_versions(versions)?)
}

fn trust(roots: &mut RootCertStore, store: &Store) -> Result<(), TlsError> {
    let (bytes, place) = read(store)?;
    let certificates = key_store::certificates(&bytes, password(store)).map_err(|source| TlsError::Store {
        key: store.key.clone(),
        place: place.clone(),
        source,
    })?;
    let (added, ignored) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(TlsError::Empty { key: store.key.clone(), place });
    }
    if ignored > 0 {
        tracing::warn!(key = store.key, path = %place, ignored, "certificates that cannot be trusted were left out");
    }
    Ok(())
}

/// The bytes, and what to call them.
fn read(store: &Store) -> Result<(Vec<u8>, String), TlsError> {
    match &store.place {
        Place::File(path) => {
            let shown = path.display().to_string();
            let bytes = std::fs::read(path).map_err(|source| TlsError::Unreadable {
                key: store.key.clone(),
                path: shown.clone(),
                source,
            })?;
            Ok((bytes, shown))
        }
        Place::Inline(text) => Ok((text.reveal().as_bytes().to_vec(), "the PEM text".to_owned())),
    }
}

fn password(store: &Store) -> Option<&str> {
    store.password.as_ref().map(Secret::reveal)
}
