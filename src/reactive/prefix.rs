//! Which offset may be committed: the one after the contiguous prefix of finished records.
//!
//! Pure; it knows nothing of commits on their way. Offsets may have gaps, where compaction removed records. It is of one log:
//! where the position goes back a new one begins. [`Prefix`] is its main type.

use std::collections::VecDeque;

use tokio::time::Instant;

/// Records that were taken, in order, and how far they are finished without a gap.
#[derive(Debug, Default)]
pub(crate) struct Prefix {
    open: VecDeque<Open>,
    /// Everything below is finished (or does not exist), and the leader epoch of the last of it.
    done: Option<(i64, i32)>,
    /// The end of what was taken, removed records included.
    covered: Option<(i64, i32)>,
    unfinished: usize,
}

#[derive(Debug)]
struct Open {
    offset: i64,
    epoch: i32,
    since: Instant,
    finished: bool,
}

impl Prefix {
    /// The record will be processed. Offsets only grow: within a log they do.
    pub(crate) fn take(&mut self, offset: i64, epoch: i32, now: Instant) {
        self.open.push_back(Open { offset, epoch, since: now, finished: false });
        self.unfinished += 1;
    }

    /// Every record below `next_offset` was taken, also where compaction removed the last ones.
    pub(crate) fn cover(&mut self, next_offset: i64, epoch: i32) {
        self.covered = Some((next_offset, epoch));
        self.advance();
    }

    /// The record is done with: its effect is durable. In any order; an unknown offset does nothing.
    pub(crate) fn finish(&mut self, offset: i64) {
        if let Ok(index) = self.open.binary_search_by_key(&offset, |open| open.offset)
            && let Some(open) = self.open.get_mut(index)
        {
            self.unfinished -= usize::from(!open.finished);
            open.finished = true;
        }
        self.advance();
    }

    /// The offset to commit and its leader epoch, None before anything is finished. Never above the lowest unfinished.
    pub(crate) fn done(&self) -> Option<(i64, i32)> {
        self.done
    }

    /// How many records were taken and are not finished.
    pub(crate) fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// The oldest unfinished record, and since when it is being processed.
    pub(crate) fn oldest(&self) -> Option<(i64, Instant)> {
        self.open.front().map(|open| (open.offset, open.since))
    }

    fn advance(&mut self) {
        while let Some(first) = self.open.pop_front_if(|first| first.finished) {
            self.done = Some((first.offset + 1, first.epoch));
        }
        if self.open.is_empty()
            && let Some((end, epoch)) = self.covered
            && self.done.is_none_or(|(done, _)| done < end)
        {
            self.done = Some((end, epoch));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(offsets: &[i64]) -> Prefix {
        let mut prefix = Prefix::default();
        for offset in offsets {
            prefix.take(*offset, 7, Instant::now());
        }
        prefix
    }

    #[test]
    fn only_the_contiguous_prefix_counts() {
        let mut prefix = taken(&[5, 6, 9]);
        assert_eq!(prefix.done(), None);
        prefix.finish(6);
        prefix.finish(9);
        assert_eq!((prefix.done(), prefix.unfinished()), (None, 1));
        prefix.finish(5);
        assert_eq!((prefix.done(), prefix.unfinished()), (Some((10, 7)), 0));
    }

    #[test]
    fn records_that_compaction_removed_count_once_their_batch_is_finished() {
        let mut prefix = taken(&[5]);
        prefix.cover(20, 8);
        assert_eq!(prefix.done(), None);
        prefix.finish(5);
        assert_eq!(prefix.done(), Some((20, 8)));
        prefix.cover(25, 8);
        assert_eq!(prefix.done(), Some((25, 8)));
        prefix.take(30, 8, Instant::now());
        prefix.finish(29);
        assert_eq!(prefix.done(), Some((25, 8)));
    }

    proptest! {
        #[test]
        fn what_is_committed_never_passes_the_lowest_unfinished(
            gaps in proptest::collection::vec(1..5i64, 1..40),
            order in any::<proptest::sample::Index>(),
            seed in any::<u64>(),
        ) {
            let offsets: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut prefix = taken(&offsets);
            let mut shuffled = offsets.clone();
            fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
            let finished = order.index(shuffled.len() + 1);
            for offset in &shuffled[..finished] {
                prefix.finish(*offset);
            }
            let lowest = shuffled[finished..].iter().min();
            let done = prefix.done().map_or(0, |(done, _)| done);
            prop_assert!(lowest.is_none_or(|lowest| done <= *lowest));
            let expected = offsets.iter().take_while(|offset| lowest.is_none_or(|lowest| *offset < lowest)).last();
            prop_assert_eq!(prefix.done(), expected.map(|last| (last + 1, 7)));
        }
    }
}
