//! The outcome of a batch, waited for by everybody who has a record in it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use super::{ProduceError, Receipt};

/// One per batch as it was filled; its parts may get their outcomes apart, if the batch is divided on the way.
#[derive(Debug, Default)]
pub(super) struct Completion {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By the record's index in the batch as it was filled.
    outcomes: BTreeMap<usize, Result<Receipt, ProduceError>>,
    /// Records in the batch; 0 until it is sealed.
    count: usize,
}

impl Completion {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn sealed(&self, count: usize) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).count = count;
    }

    /// The first outcome of a record is its outcome.
    pub(super) fn set(&self, outcomes: impl Iterator<Item = (usize, Result<Receipt, ProduceError>)>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, outcome) in outcomes {
            state.outcomes.entry(index).or_insert(outcome);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    pub(super) fn is_done(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.count > 0 && state.outcomes.len() >= state.count
    }

    pub(super) async fn outcome(&self, index: usize) -> Result<Receipt, ProduceError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let found = self.state.lock().unwrap_or_else(PoisonError::into_inner).outcomes.get(&index).cloned();
            match found {
                Some(outcome) => return outcome,
                None => changed.await,
            }
        }
    }

    pub(super) async fn done(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_done() {
                return;
            }
            changed.await;
        }
    }
}
