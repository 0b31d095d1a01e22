//! What requests under way may take of the byte budget, and that nobody waits for ever where it is small.

use futures_util::future::FutureExt;
use tokio::sync::Notify;

use super::*;
use crate::{backend::Answer, reactive::script::verdicts};

/// Room for no body at all: one goes alone, and one beyond the limit.
fn tight() -> Setup {
    Setup { memory: Budget::new(1), ..setup() }
}

/// Reads no request before it is told to, once for each.
fn unread(read: &Arc<Notify>) -> Arc<TestBackend> {
    let read = read.clone();
    TestBackend::new(move |call| {
        let (answer, body, read) = (verdicts(call, &[]), call.body.clone(), read.clone());
        async move {
            read.notified().await;
            drop(body);
            answer
        }
        .boxed()
    })
}

fn partitions(backend: &TestBackend) -> Vec<i32> {
    backend.calls().iter().map(|(_, call)| call.partition).collect()
}

#[tokio::test(start_paused = true)]
async fn bodies_wait_for_room_in_turn_and_one_always_goes_on() {
    let read = Arc::<Notify>::default();
    let backend = unread(&read);
    let bed = tight().start(&backend);
    let logs = [(); 4].map(|()| Log::with(3, 3));
    for (partition, log) in (0..).zip(&logs) {
        bed.group.assign(partition, log);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(partitions(&backend), [0, 1], "the others wait");
    for read_so_far in 1..=4 {
        read.notify_one();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (called, most) = (partitions(&backend), (read_so_far + 2).min(4));
        assert!(called.len() <= most && called[..] == [0, 1, 2, 3][..called.len()], "{called:?}");
        assert!(called.len() >= read_so_far.max(2), "{called:?}");
    }
    for log in &logs {
        bed.committed(log, 3).await;
    }
    let memory = bed.memory.clone();
    bed.stop().await;
    assert_eq!(memory.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_partition_that_waits_for_room_lets_go_at_once() {
    let read = Arc::<Notify>::default();
    let backend = unread(&read);
    let bed = tight().start(&backend);
    let logs = [(); 4].map(|()| Log::with(3, 3));
    let mut leases = Vec::new();
    for (partition, log) in (0..).zip(&logs) {
        leases.push(bed.group.assign(partition, log));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let begin = Instant::now();
    bed.group.revoke(&leases[2], DRAIN).await.expect("released");
    assert_eq!(begin.elapsed(), Duration::ZERO);
    for _ in 0..2 {
        read.notify_one();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(partitions(&backend), [0, 1, 3], "its turn went to the next one");
    let memory = bed.memory.clone();
    let begin = Instant::now();
    bed.stop().await;
    assert_eq!(begin.elapsed(), DRAIN, "what the backend does not read is given up at the deadline");
    assert_eq!(memory.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_has_read_its_requests_holds_no_room_while_it_works() {
    let backend = TestBackend::new(|call| {
        let answer = verdicts(call, &[]);
        tokio::time::sleep(Duration::from_secs(100)).map(|()| answer).boxed()
    });
    let bed = tight().start(&backend);
    for partition in 0..4 {
        bed.group.assign(partition, &Log::with(3, 3));
    }
    backend.called(4).await;
    assert!(bed.memory.used() >= 12 * work::ENTRY_BYTES, "what is kept of the records counts");
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn partitions_whose_records_are_tried_again_for_ever_leave_room_for_their_neighbours() {
    let backend = TestBackend::by(|call| match call.partition {
        2 => verdicts(call, &[]),
        _ => Answer::Refused { status: 500, retry_after: None },
    });
    let bed = tight().start(&backend);
    let healthy = Log::with(10, 300);
    bed.group.assign(0, &Log::with(3, 3));
    bed.group.assign(1, &Log::with(3, 3));
    backend.called(8).await;
    bed.group.assign(2, &healthy);
    bed.committed(&healthy, 300).await;
    in_order(&backend.offsets(2), 300);
    bed.stop().await;
}
