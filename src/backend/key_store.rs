//! Certificates out of trust stores: PEM, PKCS#12 or JKS, told apart by their content.
//!
//! It knows nothing of TLS and reads no private keys. [`certificates`] is the door.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use p12_keystore::Pkcs12Archive;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha1::{Digest, Sha1};

/// Why a trust store gives no certificates.
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
}

/// The trusted certificates of a store, DER-encoded. PEM needs no password; a missing one is the empty password.
pub(crate) fn certificates(
    store: &[u8],
    password: Option<&str>,
) -> Result<Vec<CertificateDer<'static>>, KeyStoreError> {
    match store {
        [0xfe, 0xed, 0xfe, 0xed, ..] => jks(store, password),
        [0x30, ..] => pkcs12(store, password.unwrap_or_default()),
        _ if store.windows(11).any(|window| window == b"-----BEGIN ") => CertificateDer::pem_slice_iter(store)
            .collect::<Result<_, _>>()
            .map_err(|error| KeyStoreError::Pem(error.to_string())),
        _ => Err(KeyStoreError::Unknown),
    }
}

fn pkcs12(store: &[u8], password: &str) -> Result<Vec<CertificateDer<'static>>, KeyStoreError> {
    let archive =
        Pkcs12Archive::from_pkcs12(store, password).map_err(|error| KeyStoreError::Pkcs12(error.to_string()))?;
    Ok(archive.certs.iter().map(|bag| CertificateDer::from(bag.cert.as_der().to_vec())).collect())
}

/// Java's own key store: a header, entries, and the SHA-1 of password, a constant and all before it. Certificates are
/// not encrypted; without a password the digest is not checked, as Java does.
fn jks(store: &[u8], password: Option<&str>) -> Result<Vec<CertificateDer<'static>>, KeyStoreError> {
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
    let mut found = Vec::new();
    for _ in 0..entries {
        let kind = rest.u32("entry")?;
        let alias = rest.u16("alias")?;
        rest.take(usize::from(alias), "alias")?;
        rest.take(8, "entry date")?;
        match kind {
            1 => {
                let key = rest.u32("key")?;
                rest.take(key as usize, "key")?;
                for _ in 0..rest.u32("certificate chain")? {
                    rest.certificate(version)?;
                }
            }
            2 => found.push(CertificateDer::from(rest.certificate(version)?.to_vec())),
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
