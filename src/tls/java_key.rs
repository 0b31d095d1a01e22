//! The protection that Java gives a private key in a JKS store: a stream of SHA-1 digests, and a digest to check the result.
//!
//! ```text
//! SEQUENCE { SEQUENCE { OID 1.3.6.1.4.1.42.2.17.1.1, NULL }, OCTET STRING { salt 20, key ^ stream, digest 20 } }
//! ```

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use sha1::{Digest, Sha1};

const DIGEST_BYTES: usize = 20;
const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
const OBJECT: u8 = 0x06;
/// 1.3.6.1.4.1.42.2.17.1.1
const PROTECTOR: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x2a, 0x02, 0x11, 0x01, 0x01];

/// The key in PKCS#8; None if the password is wrong or the bytes are none of that.
pub(super) fn decrypt(protected: &[u8], password: &str) -> Option<Vec<u8>> {
    let (whole, _) = element(protected, SEQUENCE)?;
    let (algorithm, rest) = element(whole, SEQUENCE)?;
    let (object, _) = element(algorithm, OBJECT)?;
    let (sealed, _) = element(rest, OCTET_STRING)?;
    if object != PROTECTOR {
        return None;
    }
    let (salt, sealed) = sealed.split_at_checked(DIGEST_BYTES)?;
    let (sealed, digest) = sealed.split_at_checked(sealed.len().checked_sub(DIGEST_BYTES)?)?;
    let password: Vec<u8> = password.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let mut key = Vec::with_capacity(sealed.len());
    let mut stream = salt.to_vec();
    for block in sealed.chunks(DIGEST_BYTES) {
        stream = Sha1::new().chain_update(&password).chain_update(&stream).finalize().to_vec();
        key.extend(block.iter().zip(&stream).map(|(byte, mask)| byte ^ mask));
    }
    let found = Sha1::new().chain_update(&password).chain_update(&key).finalize();
    (found.as_slice() == digest).then_some(key)
}

/// The content of a DER element with this tag, and what stands behind it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The protection, the other way round.
    fn protect(key: &[u8], password: &str) -> Vec<u8> {
        let password: Vec<u8> = password.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let mut sealed = vec![7; DIGEST_BYTES];
        let mut stream = sealed.clone();
        for block in key.chunks(DIGEST_BYTES) {
            stream = Sha1::new().chain_update(&password).chain_update(&stream).finalize().to_vec();
            sealed.extend(block.iter().zip(&stream).map(|(byte, mask)| byte ^ mask));
        }
        sealed.extend_from_slice(&Sha1::new().chain_update(&password).chain_update(key).finalize());
        let wrap = |tag: u8, content: &[u8]| [&[tag, 0x81, content.len() as u8][..], content].concat();
        let algorithm = wrap(SEQUENCE, &[wrap(OBJECT, PROTECTOR), vec![5, 0]].concat());
        wrap(SEQUENCE, &[algorithm, wrap(OCTET_STRING, &sealed)].concat())
    }

    #[test]
    fn the_password_opens_it_and_nothing_else_does() {
        let key: Vec<u8> = (0..50).collect();
        let protected = protect(&key, "gehäim");
        assert_eq!(decrypt(&protected, "gehäim"), Some(key));
        assert_eq!(decrypt(&protected, "geheim"), None);
        for end in 0..protected.len() {
            assert_eq!(decrypt(&protected[..end], "gehäim"), None, "{end} bytes");
        }
    }
}
