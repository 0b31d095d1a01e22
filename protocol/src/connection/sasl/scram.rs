//! SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677) on ring.
//!
//! As Kafka's own client: no channel binding, no SASLprep. The broker's nonce, its iteration count and its signature are checked.

use std::{num::NonZeroU32, ops::RangeInclusive};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ring::{
    digest, hmac, pbkdf2,
    rand::{SecureRandom, SystemRandom},
};

use super::{Password, SaslError, Step};

/// Kafka refuses to store credentials with fewer than 4096 rounds. The upper end bounds what a peer can make us compute: about
/// a quarter of a second.
pub(super) const ITERATIONS: RangeInclusive<u32> = 4096..=262_144;

/// "n,," in base64: no channel binding.
const CHANNEL_BINDING: &str = "biws";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScramHash {
    Sha256,
    Sha512,
}

impl ScramHash {
    pub(super) fn mechanism(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        self.hmac().digest_algorithm()
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }
}

/// One exchange.
pub(in crate::connection) struct Scram {
    hash: ScramHash,
    password: String,
    nonce: String,
    /// `client-first-message-bare`, part of what is signed.
    first_bare: String,
    state: State,
}

enum State {
    AwaitsFirst,
    /// The key and the text with which the broker signs.
    AwaitsFinal {
        server_key: hmac::Key,
        signed: String,
    },
    Ended,
}

/// 24 random bytes in base64, which has no comma.
pub(super) fn nonce() -> Result<String, SaslError> {
    let mut bytes = [0; 24];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SaslError::NoRandom)?;
    Ok(BASE64.encode(bytes))
}

impl Scram {
    pub(super) fn begin(hash: ScramHash, password: &Password, nonce: &str) -> (Self, Vec<u8>) {
        let name = password.username.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={name},r={nonce}");
        let first = format!("n,,{first_bare}").into_bytes();
        let (password, nonce) = (password.password.clone(), nonce.to_owned());
        (Self { hash, password, nonce, first_bare, state: State::AwaitsFirst }, first)
    }

    pub(super) fn step(&mut self, message: &[u8]) -> Result<Step, SaslError> {
        let message = std::str::from_utf8(message).map_err(|_| self.malformed("it is no UTF-8"))?;
        match std::mem::replace(&mut self.state, State::Ended) {
            State::AwaitsFirst => self.answer_first(message),
            State::AwaitsFinal { server_key, signed } => {
                if let Some(error) = message.strip_prefix("e=") {
                    return Err(SaslError::Refused(error.chars().filter(|c| !c.is_control()).take(200).collect()));
                }
                let signature = message.strip_prefix("v=").and_then(|rest| rest.split(',').next());
                let signature = signature.ok_or_else(|| self.malformed("it has no signature"))?;
                let signature = BASE64.decode(signature).map_err(|_| self.malformed("its signature is no base64"))?;
                hmac::verify(&server_key, signed.as_bytes(), &signature).map_err(|_| SaslError::ServerSignature)?;
                Ok(Step::Done)
            }
            State::Ended => Err(self.malformed("the exchange is over")),
        }
    }

    fn answer_first(&mut self, message: &str) -> Result<Step, SaslError> {
        let (mut nonce, mut salt, mut iterations) = (None, None, None);
        for part in message.split(',') {
            match part.split_once('=') {
                Some(("r", value)) if nonce.is_none() => nonce = Some(value),
                Some(("s", value)) if salt.is_none() => salt = BASE64.decode(value).ok(),
                Some(("i", value)) if iterations.is_none() => iterations = value.parse::<u32>().ok(),
                Some(("e", value)) => {
                    return Err(SaslError::Refused(value.chars().filter(|c| !c.is_control()).take(200).collect()));
                }
                Some(("m", _)) => return Err(self.malformed("it asks for an extension that nobody knows")),
                // RFC 5802: other attributes are ignored.
                _ => {}
            }
        }
        let nonce = nonce.ok_or_else(|| self.malformed("it has no nonce"))?;
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(self.malformed("its nonce does not go on from ours"));
        }
        let salt = salt.filter(|salt| !salt.is_empty()).ok_or_else(|| self.malformed("it has no salt"))?;
        let iterations = iterations.ok_or_else(|| self.malformed("it has no iteration count"))?;
        let rounds = NonZeroU32::new(iterations)
            .filter(|rounds| ITERATIONS.contains(&rounds.get()))
            .ok_or(SaslError::Iterations(iterations))?;

        let mut salted = vec![0; self.hash.digest().output_len()];
        pbkdf2::derive(self.hash.pbkdf2(), rounds, &salt, self.password.as_bytes(), &mut salted);
        let salted = hmac::Key::new(self.hash.hmac(), &salted);
        let client_key = hmac::sign(&salted, b"Client Key");
        let server_key = hmac::sign(&salted, b"Server Key");
        let stored_key = digest::digest(self.hash.digest(), client_key.as_ref());

        let without_proof = format!("c={CHANNEL_BINDING},r={nonce}");
        let signed = format!("{},{message},{without_proof}", self.first_bare);
        let signature = hmac::sign(&hmac::Key::new(self.hash.hmac(), stored_key.as_ref()), signed.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(key, sign)| key ^ sign).collect();
        let server_key = hmac::Key::new(self.hash.hmac(), server_key.as_ref());
        self.state = State::AwaitsFinal { server_key, signed };
        Ok(Step::Send(format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes()))
    }

    fn malformed(&self, what: &'static str) -> SaslError {
        SaslError::Malformed { mechanism: self.hash.mechanism(), what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const FIRST: &[u8] = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const FINAL: &[u8] = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn begin(hash: ScramHash, user: &str) -> (Scram, Vec<u8>) {
        let password = Password { username: user.to_owned(), password: "pencil".to_owned() };
        Scram::begin(hash, &password, NONCE)
    }

    /// The exchange that RFC 7677 prints.
    #[test]
    fn the_example_of_the_rfc() {
        let (mut scram, first) = begin(ScramHash::Sha256, "user");
        assert_eq!(first, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let answer = scram.step(FIRST).unwrap();
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(answer, Step::Send(expected.as_bytes().to_vec()));
        assert_eq!(scram.step(FINAL), Ok(Step::Done));
        assert!(matches!(scram.step(FINAL), Err(SaslError::Malformed { .. })));
    }

    #[test]
    fn names_with_signs_of_the_syntax_are_written_otherwise() {
        assert_eq!(begin(ScramHash::Sha512, "a=b,c").1, b"n,,n=a=3Db=2Cc,r=rOprNGfwEbeRWgbNEkqO");
    }

    #[test]
    fn a_broker_that_does_not_know_the_password_is_found_out() {
        for (last, expected) in [
            (&b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5="[..], None),
            (b"v=AAAA", Some(SaslError::ServerSignature)),
            (b"e=invalid-proof", Some(SaslError::Refused("invalid-proof".to_owned()))),
            (b"", Some(SaslError::Malformed { mechanism: "SCRAM-SHA-256", what: "it has no signature" })),
        ] {
            let (mut scram, _) = begin(ScramHash::Sha256, "user");
            scram.step(FIRST).unwrap();
            let error = scram.step(last).unwrap_err();
            assert!(expected.is_none_or(|expected| expected == error), "{last:?}");
        }
    }

    #[test]
    fn first_messages_that_lie() {
        let malformed = |what| SaslError::Malformed { mechanism: "SCRAM-SHA-256", what };
        for (message, expected) in [
            ("r=other,s=QQ==,i=4096", malformed("its nonce does not go on from ours")),
            ("r=rOprNGfwEbeRWgbNEkqO,s=QQ==,i=4096", malformed("its nonce does not go on from ours")),
            ("s=QQ==,i=4096", malformed("it has no nonce")),
            ("r=rOprNGfwEbeRWgbNEkqOx,i=4096", malformed("it has no salt")),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=%%,i=4096", malformed("it has no salt")),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=QQ==", malformed("it has no iteration count")),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=QQ==,i=99999999999", malformed("it has no iteration count")),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=QQ==,i=4095", SaslError::Iterations(4095)),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=QQ==,i=0", SaslError::Iterations(0)),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=QQ==,i=4294967295", SaslError::Iterations(u32::MAX)),
            ("m=x,r=rOprNGfwEbeRWgbNEkqOx,s=QQ==,i=4096", malformed("it asks for an extension that nobody knows")),
            ("e=unknown-user", SaslError::Refused("unknown-user".to_owned())),
        ] {
            assert_eq!(begin(ScramHash::Sha256, "user").0.step(message.as_bytes()), Err(expected), "{message}");
        }
        let no_text = begin(ScramHash::Sha256, "user").0.step(&[0xff]);
        assert_eq!(no_text, Err(malformed("it is no UTF-8")));
    }
}
