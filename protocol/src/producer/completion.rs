//! The outcome of a batch, waited for by everybody who has a record in it.
//!
//! A batch that is written or refused as a whole has one outcome, whatever the number of its records; only what was divided
//! on the way keeps one for each.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
    task::{Poll, Waker},
};

use super::ProduceError;

/// Where the first of some records was written, or why they were not.
pub(super) type Outcome = Result<Written, ProduceError>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) partition: i32,
    /// None: the broker does not tell it (any more).
    pub(super) offset: Option<i64>,
    /// The broker's time; None: the record's own counts.
    pub(super) append_time: Option<i64>,
}

impl Written {
    /// Of the record that stands `place` behind the first.
    pub(super) fn at(self, place: usize) -> Self {
        Self { offset: self.offset.map(|first| first.saturating_add(place as i64)), ..self }
    }
}

/// One per batch as it was filled; its parts may get their outcomes apart, if the batch is divided on the way.
#[derive(Debug, Default)]
pub(super) struct Completion {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    outcomes: Outcomes,
    /// Records in the batch; 0 until it is sealed.
    count: usize,
    waiting: Vec<Waker>,
    /// How often everybody who waited was woken: a place in `waiting` is of one round.
    round: u32,
}

#[derive(Debug, Default)]
enum Outcomes {
    #[default]
    Open,
    Whole(Outcome),
    /// By the record's index in the batch as it was filled.
    Apart(BTreeMap<usize, Outcome>),
}

/// Where somebody waits; nowhere at first.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seat(Option<(u32, usize)>);

impl Completion {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sealed(&self, count: usize) {
        self.state().count = count;
    }

    /// The outcome of every record that has none yet.
    pub(super) fn set_all(&self, outcome: Outcome) {
        let mut state = self.state();
        let count = state.count;
        match &mut state.outcomes {
            open @ Outcomes::Open => *open = Outcomes::Whole(outcome),
            Outcomes::Whole(_) => {}
            Outcomes::Apart(outcomes) => {
                for index in 0..count {
                    outcomes.entry(index).or_insert_with(|| outcome.clone().map(|first| first.at(index)));
                }
            }
        }
        let waiting = state.rise();
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The outcome of some records, by their index; the first outcome of a record is its outcome.
    pub(super) fn set(&self, some: impl Iterator<Item = (usize, Outcome)>) {
        let mut state = self.state();
        if let Outcomes::Open = state.outcomes {
            state.outcomes = Outcomes::Apart(BTreeMap::new());
        }
        if let Outcomes::Apart(outcomes) = &mut state.outcomes {
            for (index, outcome) in some {
                outcomes.entry(index).or_insert(outcome);
            }
        }
        let waiting = state.rise();
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(super) fn is_done(&self) -> bool {
        self.state().is_done()
    }

    /// The outcome of one record.
    pub(super) fn poll_outcome(&self, index: usize, seat: &mut Seat, waker: &Waker) -> Poll<Outcome> {
        let mut state = self.state();
        let found = match &state.outcomes {
            Outcomes::Open => None,
            Outcomes::Whole(outcome) => Some(outcome.clone().map(|first| first.at(index))),
            Outcomes::Apart(outcomes) => outcomes.get(&index).cloned(),
        };
        match found {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                state.wait(seat, waker);
                Poll::Pending
            }
        }
    }

    /// Waits until every record has its outcome.
    pub(super) async fn done(&self) {
        let mut seat = Seat::default();
        poll_fn(|context| {
            let mut state = self.state();
            if state.is_done() {
                return Poll::Ready(());
            }
            state.wait(&mut seat, context.waker());
            Poll::Pending
        })
        .await;
    }
}

impl State {
    fn is_done(&self) -> bool {
        match &self.outcomes {
            Outcomes::Open => false,
            Outcomes::Whole(_) => true,
            Outcomes::Apart(outcomes) => self.count > 0 && outcomes.len() >= self.count,
        }
    }

    fn wait(&mut self, seat: &mut Seat, waker: &Waker) {
        let taken = seat.0.filter(|(round, _)| *round == self.round).and_then(|(_, place)| self.waiting.get_mut(place));
        match taken {
            Some(taken) => taken.clone_from(waker),
            None => {
                *seat = Seat(Some((self.round, self.waiting.len())));
                self.waiting.push(waker.clone());
            }
        }
    }

    /// Takes everybody who waits, to be woken outside the lock.
    fn rise(&mut self) -> Vec<Waker> {
        self.round = self.round.wrapping_add(1);
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, task::Wake};

    use super::*;
    use crate::{outcome::Outcome as Certainty, producer::ProduceErrorKind};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    impl Woken {
        fn times(&self) -> usize {
            self.0.load(std::sync::atomic::Ordering::Relaxed)
        }
    }

    fn written(offset: i64) -> Outcome {
        Ok(Written { partition: 3, offset: Some(offset), append_time: None })
    }

    fn refused() -> Outcome {
        let (topic, kind) = ("t".into(), ProduceErrorKind::Closed);
        Err(ProduceError { topic, partition: Some(3), outcome: Certainty::Rejected, kind })
    }

    /// The offset, or that it was refused.
    fn seen(completion: &Completion, index: usize) -> Option<Result<Option<i64>, ()>> {
        match completion.poll_outcome(index, &mut Seat::default(), Waker::noop()) {
            Poll::Ready(outcome) => Some(outcome.map(|written| written.offset).map_err(drop)),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_outcome_is_that_of_each_record_at_its_own_offset() {
        let completion = Completion::new();
        completion.sealed(3);
        assert_eq!((seen(&completion, 0), completion.is_done()), (None, false));
        completion.set_all(written(40));
        completion.set_all(refused());
        completion.set([(1, refused())].into_iter());
        assert_eq!((seen(&completion, 0), seen(&completion, 2)), (Some(Ok(Some(40))), Some(Ok(Some(42)))));
        assert_eq!(seen(&completion, 1), Some(Ok(Some(41))), "the first outcome stays");
        assert!(completion.is_done());
    }

    #[test]
    fn parts_have_outcomes_of_their_own_and_the_rest_is_settled_at_once() {
        let completion = Completion::new();
        completion.sealed(3);
        completion.set([(1, refused()), (0, written(7))].into_iter());
        assert_eq!((seen(&completion, 1), seen(&completion, 2)), (Some(Err(())), None));
        assert!(!completion.is_done());
        completion.set_all(refused());
        assert_eq!((seen(&completion, 0), seen(&completion, 2)), (Some(Ok(Some(7))), Some(Err(()))));
        assert!(completion.is_done());
    }

    #[test]
    fn whoever_waits_is_woken_once_however_often_it_asked_and_again_if_it_was_not_its_turn() {
        let completion = Completion::new();
        completion.sealed(2);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut seat = Seat::default();
        for _ in 0..3 {
            assert!(completion.poll_outcome(1, &mut seat, &waker).is_pending());
        }
        completion.set([(0, written(1))].into_iter());
        assert_eq!(woken.times(), 1);
        let other = Arc::new(Woken::default());
        let mut seat_of_other = Seat::default();
        assert!(completion.poll_outcome(1, &mut seat_of_other, &Waker::from(other.clone())).is_pending());
        assert!(completion.poll_outcome(1, &mut seat, &waker).is_pending(), "its seat is another's now");
        completion.set_all(written(1));
        assert_eq!((woken.times(), other.times()), (2, 1));
    }

    #[tokio::test]
    async fn done_waits_for_the_last_record() {
        let completion = Completion::new();
        completion.sealed(2);
        let waiter = tokio::spawn({
            let completion = completion.clone();
            async move { completion.done().await }
        });
        completion.set([(0, written(1))].into_iter());
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        completion.set([(1, written(2))].into_iter());
        waiter.await.expect("no panic");
    }
}
