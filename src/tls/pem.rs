//! PEM text: certificates and private keys, also where a properties file has put all of it on one line.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

use super::key_store::KeyStoreError;

pub(super) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, KeyStoreError> {
    let sections = sections(text)?;
    Ok(sections
        .into_iter()
        .filter(|(label, _)| matches!(*label, "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE"))
        .map(|(_, der)| CertificateDer::from(der))
        .collect())
}

/// The first private key: PKCS#8, plain or encrypted, or what OpenSSL wrote before that.
pub(super) fn private_key(text: &str, password: Option<&str>) -> Result<PrivateKeyDer<'static>, KeyStoreError> {
    for (label, der) in sections(text)? {
        return Ok(match label {
            "PRIVATE KEY" => PrivatePkcs8KeyDer::from(der).into(),
            "RSA PRIVATE KEY" => PrivatePkcs1KeyDer::from(der).into(),
            "EC PRIVATE KEY" => PrivateSec1KeyDer::from(der).into(),
            "ENCRYPTED PRIVATE KEY" => {
                let password = password.ok_or(KeyStoreError::KeyPasswordMissing)?;
                let encrypted = EncryptedPrivateKeyInfoRef::try_from(der.as_slice())
                    .map_err(|error| KeyStoreError::Pem(error.to_string()))?;
                let key = encrypted.decrypt(password).map_err(|_| KeyStoreError::KeyPassword)?;
                PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into()
            }
            _ => continue,
        });
    }
    Err(KeyStoreError::NoIdentity)
}

/// Each `-----BEGIN label-----…-----END label-----` with its bytes. What stands around them is no matter.
fn sections(text: &str) -> Result<Vec<(&str, Vec<u8>)>, KeyStoreError> {
    let damaged = |label: &str, why: &str| KeyStoreError::Pem(format!("{label:?} {why}"));
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, begun)) = rest.split_once("-----BEGIN ") {
        let (label, body) = begun.split_once("-----").ok_or_else(|| damaged("BEGIN", "has no end"))?;
        let end = format!("-----END {label}-----");
        let (body, after) = body.split_once(end.as_str()).ok_or_else(|| damaged(label, "has no end"))?;
        if body.contains("Proc-Type:") {
            return Err(damaged(label, "is encrypted in OpenSSL's old way; convert it with openssl pkcs8 -topk8"));
        }
        // "\n" written out is how some tools keep it on one line.
        let letters: String = body.replace("\\n", "").replace("\\r", "").split_whitespace().collect();
        let der = BASE64.decode(letters).map_err(|_| damaged(label, "is no base64"))?;
        found.push((label, der));
        rest = after;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_on_one_line_is_read_as_well() {
        let issued = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
        let (pem, der) = (issued.cert.pem(), issued.cert.der().clone());
        for text in [pem.clone(), pem.replace('\n', " "), pem.replace('\n', "\\n"), format!("subject=x\n{pem}{pem}")] {
            assert_eq!(certificates(&text).expect("readable").first(), Some(&der), "{text}");
        }
        let key = issued.signing_key.serialize_pem();
        let found = private_key(&format!("{pem}{key}"), None).expect("a key");
        assert_eq!(found.secret_der(), issued.signing_key.serialize_der());
    }

    #[test]
    fn damaged_text_is_an_error() {
        for (text, expected) in [
            ("-----BEGIN CERTIFICATE-----\nQUJD", "\"CERTIFICATE\" has no end"),
            ("-----BEGIN CERTIFICATE", "\"BEGIN\" has no end"),
            ("-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----", "\"CERTIFICATE\" is no base64"),
        ] {
            assert_eq!(certificates(text), Err(KeyStoreError::Pem(expected.to_owned())), "{text}");
        }
        assert_eq!(certificates("nothing"), Ok(Vec::new()));
        assert!(matches!(private_key("nothing", None), Err(KeyStoreError::NoIdentity)));
    }
}
