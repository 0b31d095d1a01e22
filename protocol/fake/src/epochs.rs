//! Which leader epoch began at which offset (KIP-101, KIP-279): what OffsetForLeaderEpoch answers from.

/// The epoch that stands for "none".
pub(crate) const NO_EPOCH: i32 = -1;
/// The offset that stands for "none".
pub(crate) const NO_OFFSET: i64 = -1;

/// The leader epochs of one partition, oldest first.
#[derive(Debug, Default, Clone)]
pub(crate) struct LeaderEpochs {
    starts: Vec<(i32, i64)>,
}

impl LeaderEpochs {
    /// A leader of `epoch` begins to write at `offset`. An epoch that wrote nothing is forgotten.
    pub(crate) fn begin(&mut self, epoch: i32, offset: i64) {
        if self.starts.last().is_some_and(|(last, _)| *last >= epoch) {
            return;
        }
        self.starts.retain(|(_, start)| *start < offset);
        self.starts.push((epoch, offset));
    }

    /// Forgets epochs that began at `offset` or later.
    pub(crate) fn truncate(&mut self, offset: i64) {
        self.starts.retain(|(_, start)| *start < offset);
    }

    /// Forgets epochs that ended at `offset` or before; the one that covers `offset` then begins there.
    pub(crate) fn advance(&mut self, offset: i64) {
        let covering = self.starts.iter().rposition(|(_, start)| *start <= offset);
        if let Some(index) = covering {
            self.starts.drain(..index);
            if let Some((_, start)) = self.starts.first_mut() {
                *start = (*start).max(offset);
            }
        }
    }

    /// The epoch of the record at `offset`.
    pub(crate) fn of(&self, offset: i64) -> i32 {
        self.starts.iter().rev().find(|(_, start)| *start <= offset).map_or(NO_EPOCH, |(epoch, _)| *epoch)
    }

    /// The newest epoch at or below `requested` and the offset after its last record; `(-1, -1)` where nothing is known.
    pub(crate) fn end_of(&self, requested: i32, log_end: i64) -> (i32, i64) {
        let Some((latest, _)) = self.starts.last() else {
            return (NO_EPOCH, NO_OFFSET);
        };
        if requested == NO_EPOCH || requested > *latest {
            return (NO_EPOCH, NO_OFFSET);
        }
        if requested == *latest {
            return (requested, log_end);
        }
        let above = self.starts.iter().find(|(epoch, _)| *epoch > requested).map_or(log_end, |(_, start)| *start);
        let below = self.starts.iter().rev().find(|(epoch, _)| *epoch <= requested);
        (below.map_or(requested, |(epoch, _)| *epoch), above)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs() -> LeaderEpochs {
        let mut epochs = LeaderEpochs::default();
        for (epoch, offset) in [(0, 0), (2, 10), (3, 25)] {
            epochs.begin(epoch, offset);
        }
        epochs
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_begins() {
        let epochs = epochs();
        let rows = [
            (-1, (-1, -1)), // none was asked for
            (0, (0, 10)),
            (1, (0, 10)), // never led: the one before
            (2, (2, 25)),
            (3, (3, 40)), // leads now: the end of the log
            (4, (-1, -1)),
        ];
        for (requested, answer) in rows {
            assert_eq!(epochs.end_of(requested, 40), answer, "epoch {requested}");
        }
    }

    #[test]
    fn epochs_that_wrote_nothing_leave_no_trace() {
        let mut epochs = epochs();
        epochs.begin(4, 40);
        epochs.begin(5, 40);
        assert_eq!(epochs.end_of(4, 50), (3, 40));
        assert_eq!(epochs.of(39), 3);
        assert_eq!(epochs.of(40), 5);
    }

    #[test]
    fn truncation_and_retention_forget_what_is_not_there() {
        let mut epochs = epochs();
        epochs.truncate(25);
        assert_eq!(epochs.end_of(3, 25), (-1, -1));
        epochs.advance(12);
        assert_eq!(epochs.of(11), -1);
        assert_eq!(epochs.end_of(0, 25), (0, 12), "an epoch before all that is known ends where the log begins");
    }
}
