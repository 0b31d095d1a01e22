//! Certificates and private keys out of stores: PEM, PKCS#12 or JKS, told apart by their content.
//!
//! It knows nothing of TLS. [`certificates`] and [`identity`] are the doors.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use p12_keystore::{KeyStore, Pkcs12Archive, Pkcs12ImportPolicy};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha1::{Digest, Sha1};

use super::{java_key, pem};

/// Why a store gives nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyStoreError {
    #[error("it is neither PEM nor PKCS#12 nor JKS")]
    Unknown,
    #[error("the PEM text is damaged: {0}")]
    Pem(String),
    #[error("the PKCS#12 store cannot be read (a wrong password?): {0}")]
    Pkcs12(String),
    #[error("the JKS store ends in the middle of its {0}")]
    JksTruncated(&'static str),
    #[error("the JKS store has version {0}, known are 1 and 2")]
    JksVersion(u32),
    #[error("the JKS store has an entry of kind {0}, known are 1 (key) and 2 (certificate)")]
    JksEntry(u32),
    #[error("the JKS store's digest does not match: damaged, or the password is wrong")]
    JksDigest,
    #[error("it has no private key with a certificate")]
    NoIdentity,
    #[error("its private key needs a password")]
    KeyPasswordMissing,
    #[error("its private key cannot be decrypted (a wrong key password?)")]
    KeyPassword,
}

/// What proves to others who we are: a private key, and its certificate with those that signed it.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

enum Format<'a> {
    Jks,
    Pkcs12,
    Pem(&'a str),
}

fn format(store: &[u8]) -> Result<Format<'_>, KeyStoreError> {
    match store {
        [0xfe, 0xed, 0xfe, 0xed, ..] => Ok(Format::Jks),
        [0x30, ..] => Ok(Format::Pkcs12),
        _ => match std::str::from_utf8(store) {
            Ok(text) if text.contains("-----BEGIN ") => Ok(Format::Pem(text)),
            _ => Err(KeyStoreError::Unknown),
        },
    }
}

/// The trusted certificates of a store, DER-encoded. PEM needs no password; a missing one is the empty password.
pub(crate) fn certificates(
    store: &[u8],
    password: Option<&str>,
) -> Result<Vec<CertificateDer<'static>>, KeyStoreError> {
    match format(store)? {
        Format::Jks => Ok(jks(store, password)?.trusted),
        Format::Pkcs12 => {
            let archive = Pkcs12Archive::from_pkcs12(store, password.unwrap_or_default());
            let archive = archive.map_err(|error| KeyStoreError::Pkcs12(error.to_string()))?;
            Ok(archive.certs.iter().map(|bag| CertificateDer::from(bag.cert.as_der().to_vec())).collect())
        }
        Format::Pem(text) => pem::certificates(text),
    }
}

/// The first private key of a store with its certificates. The key has a password of its own in JKS and encrypted PEM:
/// `key_password`, else that of the store.
pub(crate) fn identity(
    store: &[u8],
    password: Option<&str>,
    key_password: Option<&str>,
) -> Result<Identity, KeyStoreError> {
    match format(store)? {
        Format::Jks => {
            let (key, chain) = jks(store, password)?.key.ok_or(KeyStoreError::NoIdentity)?;
            let password = key_password.or(password).ok_or(KeyStoreError::KeyPasswordMissing)?;
            let key = java_key::decrypt(&key, password).ok_or(KeyStoreError::KeyPassword)?;
            whole(chain, PrivatePkcs8KeyDer::from(key).into())
        }
        Format::Pkcs12 => {
            let password = password.unwrap_or_default();
            let opened = KeyStore::from_pkcs12(store, password, Pkcs12ImportPolicy::Relaxed);
            let opened = opened.map_err(|error| KeyStoreError::Pkcs12(error.to_string()))?;
            let (_, found) = opened.private_key_chain().ok_or(KeyStoreError::NoIdentity)?;
            let chain = found.certs().iter().map(|cert| CertificateDer::from(cert.as_der().to_vec())).collect();
            whole(chain, PrivatePkcs8KeyDer::from(found.key().as_der().to_vec()).into())
        }
        Format::Pem(text) => whole(pem::certificates(text)?, pem::private_key(text, key_password.or(password))?),
    }
}

fn whole(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Identity, KeyStoreError> {
    if chain.is_empty() { Err(KeyStoreError::NoIdentity) } else { Ok(Identity { chain, key }) }
}

/// What a Java key store has: its first key, still encrypted, with the certificates of that; and whom it trusts.
#[derive(Default)]
struct Jks {
    key: Option<(Vec<u8>, Vec<CertificateDer<'static>>)>,
    trusted: Vec<CertificateDer<'static>>,
}

/// Java's own key store: a header, entries, and the SHA-1 of password, a constant and all before it. Certificates are
/// not encrypted; without a password the digest is not checked, as Java does.
fn jks(store: &[u8], password: Option<&str>) -> Result<Jks, KeyStoreError> {
    const DIGEST_BYTES: usize = 20;
    let split = store.len().checked_sub(DIGEST_BYTES).ok_or(KeyStoreError::JksTruncated("digest"))?;
    let (content, digest) = store.split_at_checked(split).ok_or(KeyStoreError::JksTruncated("digest"))?;
    if let Some(password) = password {
        let mut hash = Sha1::new();
        for unit in password.encode_utf16() {
            hash.update(unit.to_be_bytes());
        }
        hash.update(b"Mighty Aphrodite");
        hash.update(content);
        if hash.finalize().as_slice() != digest {
            return Err(KeyStoreError::JksDigest);
        }
    }
    let mut rest = Cursor(content);
    rest.u32("magic")?;
    let version = rest.u32("version")?;
    if !matches!(version, 1 | 2) {
        return Err(KeyStoreError::JksVersion(version));
    }
    let entries = rest.u32("entry count")?;
    let mut found = Jks::default();
    for _ in 0..entries {
        let kind = rest.u32("entry")?;
        let alias = rest.u16("alias")?;
        rest.take(usize::from(alias), "alias")?;
        rest.take(8, "entry date")?;
        match kind {
            1 => {
                let length = rest.u32("key")?;
                let key = rest.take(length as usize, "key")?;
                let mut chain = Vec::new();
                for _ in 0..rest.u32("certificate chain")? {
                    chain.push(CertificateDer::from(rest.certificate(version)?.to_vec()));
                }
                found.key.get_or_insert_with(|| (key.to_vec(), chain));
            }
            2 => found.trusted.push(CertificateDer::from(rest.certificate(version)?.to_vec())),
            other => return Err(KeyStoreError::JksEntry(other)),
        }
    }
    Ok(found)
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], KeyStoreError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(KeyStoreError::JksTruncated(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, KeyStoreError> {
        Ok(self.take(4, what)?.iter().fold(0, |sum, byte| (sum << 8) | u32::from(*byte)))
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, KeyStoreError> {
        Ok(self.take(2, what)?.iter().fold(0, |sum, byte| (sum << 8) | u16::from(*byte)))
    }

    fn certificate(&mut self, version: u32) -> Result<&'a [u8], KeyStoreError> {
        if version == 2 {
            let kind = self.u16("certificate type")?;
            self.take(usize::from(kind), "certificate type")?;
        }
        let length = self.u32("certificate")?;
        self.take(length as usize, "certificate")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store as `keytool -importcert -storetype JKS` writes it, with two certificates that are only bytes here.
    fn java_store(password: &str, certificates: &[&[u8]]) -> Vec<u8> {
        let mut store = vec![0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2];
        store.extend((certificates.len() as u32).to_be_bytes());
        for certificate in certificates {
            store.extend([0, 0, 0, 2, 0, 2, b'c', b'a']);
            store.extend(1_730_000_000_000u64.to_be_bytes());
            store.extend([0, 5]);
            store.extend(b"X.509");
            store.extend((certificate.len() as u32).to_be_bytes());
            store.extend(*certificate);
        }
        let mut hash = Sha1::new();
        hash.update(password.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>());
        hash.update(b"Mighty Aphrodite");
        hash.update(&store);
        store.extend_from_slice(&hash.finalize());
        store
    }

    #[test]
    fn a_java_store_gives_its_certificates() {
        let store = java_store("changeit", &[b"one", b"two"]);
        let found = certificates(&store, Some("changeit")).expect("readable");
        assert_eq!(found.iter().map(|der| der.as_ref()).collect::<Vec<_>>(), [b"one", b"two"]);
        assert_eq!(certificates(&store, None).map(|found| found.len()), Ok(2));
    }

    #[test]
    fn a_damaged_java_store_is_an_error_and_never_a_panic() {
        let store = java_store("changeit", &[b"one"]);
        assert_eq!(certificates(&store, Some("wrong")), Err(KeyStoreError::JksDigest));
        for end in 0..store.len() {
            assert!(certificates(&store[..end], Some("changeit")).is_err(), "{end} bytes");
            let _ = certificates(&store[..end], None);
        }
        let mut hostile = store;
        hostile[8..12].fill(0xff);
        assert_eq!(certificates(&hostile, None), Err(KeyStoreError::JksTruncated("entry")));
    }

    #[test]
    fn pkcs12_and_pem_are_told_by_their_content() {
        let issued = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
        let der = issued.cert.der().to_vec();
        assert_eq!(certificates(issued.cert.pem().as_bytes(), None), Ok(vec![der.clone().into()]));
        let mut store = p12_keystore::KeyStore::new();
        let certificate = p12_keystore::Certificate::from_der(&der).expect("our own certificate");
        store.add_entry("ca", p12_keystore::KeyStoreEntry::Certificate(certificate));
        let written = store.writer("secret").write().expect("a store");
        assert_eq!(certificates(&written, Some("secret")), Ok(vec![der.into()]));
        assert!(matches!(certificates(&written, Some("wrong")), Err(KeyStoreError::Pkcs12(_))));
        assert_eq!(certificates(b"hello", None), Err(KeyStoreError::Unknown));
    }
}
