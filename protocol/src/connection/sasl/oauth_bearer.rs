//! OAUTHBEARER (RFC 7628, KIP-255, extensions of KIP-342): the message that carries a token, and the refusal that answers it.

use super::{SaslError, Step};
use crate::connection::BoxFuture;

/// Gives tokens. A provider caches them itself; it is asked for each connection and each re-authentication.
pub trait TokenProvider: Send + Sync {
    /// The error is a sentence without secrets. Dropping the future gives up.
    fn token(&self) -> BoxFuture<Result<Token, String>>;
}

/// A bearer token with the extensions that go with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub value: String,
    /// Key and value, as `sasl.jaas.config` has them in `extension_…`.
    pub extensions: Vec<(String, String)>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.extensions.iter().map(|(name, _)| name).collect();
        f.debug_struct("Token").field("extensions", &names).finish_non_exhaustive()
    }
}

pub(super) fn first_message(token: &Token) -> Result<Vec<u8>, SaslError> {
    // RFC 6750's b64token.
    let of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if token.value.is_empty() || !token.value.bytes().all(of_token) {
        return Err(SaslError::BadToken("it is empty or holds a character that no bearer token has"));
    }
    let mut message = format!("n,,\u{1}auth=Bearer {}", token.value);
    for (name, value) in &token.extensions {
        let named = !name.is_empty() && name != "auth" && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        let fits = |byte: u8| matches!(byte, 0x21..=0x7e | b' ' | b'\t' | b'\r' | b'\n');
        if !named || !value.bytes().all(fits) {
            return Err(SaslError::BadToken("an extension has a name of other than letters, or an unprintable value"));
        }
        message.push_str(&format!("\u{1}{name}={value}"));
    }
    message.push_str("\u{1}\u{1}");
    Ok(message.into_bytes())
}

/// The broker says nothing to a token that it takes; else it says why as JSON, and waits for an empty answer to that.
pub(super) fn step(refusal: &mut Option<String>, message: &[u8]) -> Result<Step, SaslError> {
    if let Some(refusal) = refusal.take() {
        return Err(SaslError::Refused(refusal));
    }
    if message.is_empty() {
        return Ok(Step::Done);
    }
    *refusal = Some(String::from_utf8_lossy(message).chars().filter(|c| !c.is_control()).take(500).collect());
    Ok(Step::Send(vec![1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(value: &str, extensions: &[(&str, &str)]) -> Token {
        let extensions = extensions.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Token { value: value.to_owned(), extensions }
    }

    #[test]
    fn a_token_goes_out_with_its_extensions() {
        let message = first_message(&token("a.b-c", &[("logicalCluster", "lkc-1"), ("identityPoolId", "p")]));
        let expected = b"n,,\x01auth=Bearer a.b-c\x01logicalCluster=lkc-1\x01identityPoolId=p\x01\x01";
        assert_eq!(message.unwrap(), expected);
        assert_eq!(first_message(&token("a", &[])).unwrap(), b"n,,\x01auth=Bearer a\x01\x01");
    }

    #[test]
    fn what_would_change_the_message_is_refused() {
        for (value, extensions) in [
            ("", &[][..]),
            ("a\u{1}b", &[]),
            ("a b", &[]),
            ("a", &[("auth", "x")]),
            ("a", &[("n1", "x")]),
            ("a", &[("n", "x\u{1}y")]),
        ] {
            assert!(matches!(first_message(&token(value, extensions)), Err(SaslError::BadToken(_))), "{value:?}");
        }
    }

    #[test]
    fn a_refusal_is_answered_and_kept() {
        let mut refusal = None;
        let said = r#"{"status":"invalid_token"}"#;
        assert_eq!(step(&mut refusal, said.as_bytes()), Ok(Step::Send(vec![1])));
        assert_eq!(step(&mut refusal, b""), Err(SaslError::Refused(said.to_owned())));
        assert_eq!(step(&mut None, b""), Ok(Step::Done));
    }
}
