//! What a client has asked, of whom, and what came of it: numbers since its start, for whoever wants to show them.
//!
//! It knows no way of showing them. [`Counters`] is its main type.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::outcome::Outcome;

/// The numbers of one client.
#[derive(Debug, Default)]
pub struct Counters {
    requests: Mutex<BTreeMap<&'static str, Requests>>,
    brokers: Mutex<BTreeMap<i32, Arc<BrokerCounters>>>,
}

/// The requests of one API, by what became of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Requests {
    /// The broker answered, be it with an error code.
    pub answered: u64,
    pub not_sent: u64,
    /// Sent, perhaps in part, and without an answer that could be read.
    pub unknown: u64,
    /// From when they were taken to be written until their answers had come, of those that were answered. A broker's waiting (for
    /// records, for members) is part of it.
    pub time: Duration,
}

/// The sockets to one broker.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sockets {
    /// Open now.
    pub open: u64,
    /// Ever opened.
    pub opened: u64,
    /// Tries to open one that failed.
    pub failed: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// For so long the broker asked us not to write (KIP-219).
    pub throttled: Duration,
}

/// Where the sockets to one broker count.
#[derive(Debug, Default)]
pub(crate) struct BrokerCounters {
    opened: AtomicU64,
    closed: AtomicU64,
    failed: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    throttled_ms: AtomicU64,
}

impl Counters {
    /// By the name of the API.
    pub fn requests(&self) -> Vec<(&'static str, Requests)> {
        self.lock_requests().iter().map(|(api, requests)| (*api, *requests)).collect()
    }

    /// By node id; -1 stands for the bootstrap servers, before they are known by their ids.
    pub fn brokers(&self) -> Vec<(i32, Sockets)> {
        let brokers = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        brokers.iter().map(|(node, broker)| (*node, broker.read())).collect()
    }

    pub(crate) fn broker(&self, node: i32) -> Arc<BrokerCounters> {
        let mut brokers = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        brokers.entry(node.max(-1)).or_default().clone()
    }

    pub(crate) fn answered(&self, api: &'static str, took: Duration) {
        let mut requests = self.lock_requests();
        let counted = requests.entry(api).or_default();
        counted.answered += 1;
        counted.time += took;
    }

    pub(crate) fn failed(&self, api: &'static str, outcome: Outcome) {
        let mut requests = self.lock_requests();
        let counted = requests.entry(api).or_default();
        match outcome {
            Outcome::NotSent => counted.not_sent += 1,
            Outcome::Rejected | Outcome::Unknown => counted.unknown += 1,
        }
    }

    fn lock_requests(&self) -> MutexGuard<'_, BTreeMap<&'static str, Requests>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BrokerCounters {
    fn read(&self) -> Sockets {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // First what closed: of a socket that opens and closes meanwhile no more may be closed than opened.
        let closed = number(&self.closed);
        let opened = number(&self.opened);
        Sockets {
            open: opened.saturating_sub(closed),
            opened,
            failed: number(&self.failed),
            sent_bytes: number(&self.sent_bytes),
            received_bytes: number(&self.received_bytes),
            throttled: Duration::from_millis(number(&self.throttled_ms)),
        }
    }

    pub(crate) fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn throttled(&self, milliseconds: u64) {
        self.throttled_ms.fetch_add(milliseconds, Ordering::Relaxed);
    }
}
