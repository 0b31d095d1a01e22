//! A rustls configuration that is read again when one of its files has changed.
//!
//! The files are looked at when somebody is about to connect: certificates count from the next connection on, and nobody has
//! to be told. Files that cannot be used leave what was read before in force.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rustls::ClientConfig;

use super::{TlsError, client_config};
use crate::config::settings::{ClientTls, Place};

pub(crate) struct Followed {
    tls: ClientTls,
    files: Vec<PathBuf>,
    state: Mutex<State>,
}

struct State {
    /// As the files were when they were last read, with or without success.
    stamps: Vec<Stamp>,
    config: Arc<ClientConfig>,
}

/// What changes with a file; None while it is not there.
type Stamp = Option<(SystemTime, u64)>;

impl Followed {
    /// Reads everything once.
    pub(crate) fn new(tls: ClientTls) -> Result<Self, TlsError> {
        let files: Vec<PathBuf> = tls
            .trust
            .iter()
            .chain(&tls.identity)
            .filter_map(|store| match &store.place {
                Place::File(path) => Some(path.clone()),
                Place::Inline(_) => None,
            })
            .collect();
        // Stamps first: a file that changes while it is read is read again.
        let stamps = stamps(&files);
        let config = Arc::new(client_config(&tls)?);
        Ok(Self { tls, files, state: Mutex::new(State { stamps, config }) })
    }

    /// The configuration of the files as they are now, or as they last could be used.
    pub(crate) fn current(&self) -> Arc<ClientConfig> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.files);
        if stamps != state.stamps {
            state.stamps = stamps;
            match client_config(&self.tls) {
                Ok(config) => {
                    tracing::info!(files = ?self.files, "TLS files have changed and count from the next connection on");
                    state.config = Arc::new(config);
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(
                        error,
                        "TLS files have changed and cannot be used; what was read before stays in force"
                    );
                }
            }
        }
        state.config.clone()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Store;

    #[test]
    fn a_changed_file_counts_and_a_broken_one_does_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ca.pem");
        let certificate =
            |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate").cert.pem();
        std::fs::write(&path, certificate("one")).expect("written");
        let store =
            Store { key: "ssl.truststore.location".to_owned(), place: Place::File(path.clone()), password: None };
        let followed = Followed::new(ClientTls { trust: vec![store], ..ClientTls::default() }).expect("readable");
        let first = followed.current();
        assert!(Arc::ptr_eq(&first, &followed.current()), "nothing has changed");
        std::fs::write(&path, "no certificate").expect("written");
        assert!(Arc::ptr_eq(&first, &followed.current()), "what cannot be used does not count");
        std::fs::write(&path, format!("{}{}", certificate("two"), certificate("three"))).expect("written");
        assert!(!Arc::ptr_eq(&first, &followed.current()), "a new store counts");
        std::fs::remove_file(&path).expect("removed");
        followed.current();
    }
}
