//! A [`Sink`] that keeps what it is given, for tests: it writes, refuses, or has no room, as told.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
};

use protocol::{
    outcome::Outcome,
    producer::{ProduceError, ProduceErrorKind, ProduceRecord, Receipt},
};

use super::Sink;

#[derive(Clone, Default)]
pub(crate) struct MemorySink(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    written: Vec<ProduceRecord>,
    room: Option<usize>,
    refusal: Option<(Outcome, ProduceErrorKind)>,
    held: bool,
}

impl MemorySink {
    pub(crate) fn written(&self) -> Vec<ProduceRecord> {
        self.0.lock().expect("lock").written.clone()
    }

    /// Takes so many records, then has no room.
    pub(crate) fn set_room(&self, records: usize) {
        self.0.lock().expect("lock").room = Some(records);
    }

    /// Every record fails in this way.
    pub(crate) fn refuse(&self, outcome: Outcome, kind: ProduceErrorKind) {
        self.0.lock().expect("lock").refusal = Some((outcome, kind));
    }

    /// Records are taken and never acknowledged.
    pub(crate) fn hold(&self) {
        self.0.lock().expect("lock").held = true;
    }
}

impl Sink for MemorySink {
    type Delivery = Pin<Box<dyn Future<Output = Result<Receipt, ProduceError>> + Send>>;

    async fn send(&self, record: ProduceRecord) -> Result<Self::Delivery, ProduceError> {
        let full = self.0.lock().expect("lock").room == Some(0);
        if full {
            std::future::pending::<()>().await;
        }
        let mut inner = self.0.lock().expect("lock");
        inner.room = inner.room.map(|room| room - 1);
        if let Some((outcome, kind)) = inner.refusal.clone() {
            let error = ProduceError { topic: record.topic, partition: record.partition, outcome, kind };
            return Ok(Box::pin(std::future::ready(Err(error))));
        }
        let receipt = Receipt {
            partition: record.partition.unwrap_or(0),
            offset: Some(inner.written.len() as i64),
            timestamp: record.timestamp.unwrap_or(0),
        };
        inner.written.push(record);
        if inner.held {
            return Ok(Box::pin(std::future::pending()));
        }
        Ok(Box::pin(std::future::ready(Ok(receipt))))
    }
}
