//! TLS around another connector's stream (rustls).
//!
//! Which certificates are trusted and shown is the caller's: it hands over a rustls configuration, afresh for each connection,
//! so that renewed certificates count from the next connection on.

use std::{io, sync::Arc};

use rustls::{AlertDescription, CertificateError, ClientConfig, Error as TlsError, pki_types::ServerName};
use tokio_rustls::TlsConnector as Handshake;

use super::{BoxFuture, Connector, Stream};

/// The configuration for the next connection.
pub type TlsConfig = Arc<dyn Fn() -> Arc<ClientConfig> + Send + Sync>;

/// Speaks TLS on what another connector opens.
pub struct TlsConnector {
    inner: Arc<dyn Connector>,
    config: TlsConfig,
}

impl TlsConnector {
    pub fn new(inner: Arc<dyn Connector>, config: TlsConfig) -> Self {
        Self { inner, config }
    }
}

impl Connector for TlsConnector {
    fn connect(&self, host: &str, port: u16) -> BoxFuture<io::Result<Box<dyn Stream>>> {
        // A trailing dot is no part of the name in a certificate.
        let host = host.trim_end_matches('.').to_owned();
        let (inner, config) = (self.inner.connect(&host, port), self.config.clone());
        Box::pin(async move {
            let stream = inner.await?;
            let name = ServerName::try_from(host.clone())
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{host:?} is no name for TLS")))?;
            let stream = Handshake::from(config()).connect(name, stream).await.map_err(explain)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// The error with what it means here. What is none of TLS stays as it is, once the handshake is over.
pub(super) fn explain_later(error: io::Error) -> io::Error {
    if error.get_ref().is_some_and(|source| source.is::<TlsError>()) { explain(error) } else { error }
}

fn explain(error: io::Error) -> io::Error {
    let tls = error.get_ref().and_then(|source| source.downcast_ref::<TlsError>());
    let meaning = match tls {
        Some(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "the broker's certificate is not signed by anyone in the truststore"
        }
        Some(TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            "the broker's certificate has expired"
        }
        Some(TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => {
            "the broker's certificate is for another host name (ssl.endpoint.identification.algorithm: \"\" turns the check off)"
        }
        Some(TlsError::InvalidCertificate(_)) => "the broker's certificate is not accepted",
        Some(TlsError::InvalidMessage(_)) => "the peer does not speak TLS; is this a PLAINTEXT listener?",
        Some(TlsError::AlertReceived(AlertDescription::CertificateExpired)) => {
            "the broker says that our certificate has expired (ssl.keystore)"
        }
        Some(TlsError::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::HandshakeFailure
            | AlertDescription::AccessDenied,
        )) => "the broker does not accept our certificate (ssl.keystore)",
        Some(_) => "the TLS handshake failed",
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the peer closed the connection during the TLS handshake; is this a PLAINTEXT listener?"
        }
        None => "the TLS handshake failed",
    };
    io::Error::new(error.kind(), format!("{meaning} ({error})"))
}
