//! What the log says of partitions that do not move.

use std::{
    io,
    sync::{LazyLock, Mutex, atomic::Ordering},
};

use futures_util::future::FutureExt;
use tracing::{Dispatch, subscriber::DefaultGuard};

use super::*;
use crate::{backend::Answer, reactive::script::verdicts};

const STALLED: &str = "the partition does not move";
const MOVES: &str = "the partition moves again";

/// What this thread logs.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn capture() -> (Self, DefaultGuard) {
        // While no subscriber lives, what another thread logs first is taken for something that nobody wants, and stays so for
        // a moment after this one has come.
        static LISTENING: LazyLock<Dispatch> =
            LazyLock::new(|| Dispatch::new(tracing_subscriber::fmt().with_writer(io::sink).finish()));
        LazyLock::force(&LISTENING);
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    fn with(&self, text: &str) -> Vec<String> {
        let bytes = self.0.lock().expect("no panic while it was held");
        let all = String::from_utf8_lossy(&bytes);
        all.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic while it was held").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_waits_for_its_answer_is_named_once_a_minute_and_its_end_once() {
    let (lines, _guard) = Lines::capture();
    let backend = TestBackend::new(|call| {
        let answer = verdicts(call, &[]);
        tokio::time::sleep(Duration::from_secs(150)).map(|()| answer).boxed()
    });
    let bed = setup().start(&backend);
    let log = Log::with(3, 3);
    bed.group.assign(2, &log);
    bed.committed(&log, 3).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let (stalled, moves) = (lines.with(STALLED), lines.with(MOVES));
    assert_eq!((stalled.len(), moves.len()), (2, 1), "{stalled:?} {moves:?}");
    for part in ["WARN", "topic=t", "partition=2", "offset=0", "age_seconds=60", "waits_for=the backend's answer"] {
        assert!(stalled[0].contains(part), "{part}: {}", stalled[0]);
    }
    assert!(moves[0].contains("INFO") && moves[0].contains("partition=2"), "{}", moves[0]);
    bed.stop().await;
}

/// The last thing the log says two minutes after a partition of three records was assigned; nothing is finished by then.
async fn waits_for(bed: &Bed, lines: &Lines) -> String {
    let log = Log::with(3, 3);
    bed.group.assign(0, &log);
    tokio::time::sleep(Duration::from_secs(125)).await;
    assert_eq!(log.committed(), -1);
    let last = lines.with(STALLED).pop().expect("a line");
    last.split_once("waits_for=").expect("the field").1.to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_away_is_what_a_partition_waits_for() {
    let (lines, _guard) = Lines::capture();
    let bed = setup().start(&TestBackend::by(|_| Answer::Unreachable("refused".into())));
    assert_eq!(waits_for(&bed, &lines).await, "the backend, which is away");
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_is_not_acknowledged_is_what_a_partition_waits_for() {
    let (lines, _guard) = Lines::capture();
    let bed = setup().start(&TestBackend::by(|call| verdicts(call, &[0])));
    bed.kafka.hold(true);
    assert_eq!(waits_for(&bed, &lines).await, "the broker's acknowledgement of its dead letter");
}

#[tokio::test(start_paused = true)]
async fn an_audit_entry_that_is_not_written_is_what_a_partition_waits_for() {
    let (lines, _guard) = Lines::capture();
    let bed = Setup { audit: true, ..setup() }.start(&TestBackend::by(|call| verdicts(call, &[])));
    bed.kafka.hold(true);
    assert_eq!(waits_for(&bed, &lines).await, "its audit entry to be written");
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_fails_is_what_a_partition_waits_for() {
    let (lines, _guard) = Lines::capture();
    let bed = setup().start(&TestBackend::by(|call| verdicts(call, &[])));
    bed.group.fail_commits.store(true, Ordering::SeqCst);
    assert_eq!(waits_for(&bed, &lines).await, "its commit");
}

#[tokio::test(start_paused = true)]
async fn a_membership_in_doubt_is_what_a_partition_waits_for() {
    let (lines, _guard) = Lines::capture();
    let mut setup = setup();
    setup.settings.dispatch.max_records = 1;
    let bed = setup.start(&TestBackend::by(|call| verdicts(call, &[])));
    let log = Log::with(3, 3);
    let lease = bed.group.assign(0, &log);
    lease.set_suspect(true);
    tokio::time::sleep(Duration::from_secs(125)).await;
    let last = lines.with(STALLED).pop().expect("a line");
    assert!(last.contains("the group membership, which is in doubt"), "{last}");
}
