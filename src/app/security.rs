//! What a Kafka client needs to pass for who it is: a connector with TLS, and a SASL mechanism.

use std::sync::Arc;

use protocol::connection::{Connector, Mechanism, Password, TcpConnector, TlsConnector};

use crate::{
    config::settings::{KafkaSecurity, Sasl, Secret},
    tls::{Followed, TlsError},
    token,
};

/// How sockets are opened. Reads certificates from disk; they are read again when they have changed.
pub(super) fn connector(security: &KafkaSecurity) -> Result<Arc<dyn Connector>, TlsError> {
    let tcp = Arc::new(TcpConnector);
    Ok(match &security.tls {
        None => tcp,
        Some(tls) => {
            let followed = Followed::new(tls.clone())?;
            Arc::new(TlsConnector::new(tcp, Arc::new(move || followed.current())))
        }
    })
}

pub(super) fn mechanism(security: &KafkaSecurity) -> Result<Option<Mechanism>, TlsError> {
    let password = |username: &String, password: &Secret| Password {
        username: username.clone(),
        password: password.reveal().to_owned(),
    };
    Ok(match &security.sasl {
        None => None,
        Some(Sasl::Plain { username, password: secret }) => Some(Mechanism::Plain(password(username, secret))),
        Some(Sasl::Scram { hash, username, password: secret }) => {
            Some(Mechanism::Scram(*hash, password(username, secret)))
        }
        Some(Sasl::OAuthBearer(oauth)) => Some(Mechanism::OAuthBearer(token::provider(oauth)?)),
    })
}
