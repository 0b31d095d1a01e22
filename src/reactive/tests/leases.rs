//! When a record counts as finished, and what revokes, losses and stops leave behind.

use std::sync::atomic::Ordering;

use futures_util::future::FutureExt;

use super::*;
use crate::{backend::Answer, reactive::script::verdicts};

#[tokio::test(start_paused = true)]
async fn an_offset_counts_only_when_its_dead_letter_is_acknowledged() {
    let backend = TestBackend::by(|call| verdicts(call, &[1]));
    let bed = setup().start(&backend);
    bed.kafka.hold(true);
    let log = Log::with(3, 3);
    bed.group.assign(0, &log);
    backend.called(1).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(log.committed(), -1);
    bed.kafka.hold(false);
    bed.committed(&log, 3).await;
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_offset_counts_only_when_its_audit_entry_is_acknowledged_but_dispatch_goes_on() {
    let backend = TestBackend::by(|call| verdicts(call, &[]));
    let mut setup = Setup { audit: true, ..setup() };
    setup.settings.dispatch.max_records = 10;
    let bed = setup.start(&backend);
    bed.kafka.hold(true);
    let log = Log::with(10, 50);
    bed.group.assign(0, &log);
    backend.called(5).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(log.committed(), -1);
    let status = bed.observer.status().partitions.remove(0);
    assert_eq!(status.in_flight, 50);
    assert!(status.oldest_unfinished_age >= Some(Duration::from_secs(60)));
    bed.kafka.hold(false);
    bed.committed(&log, 50).await;
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_waits_for_the_answer_on_its_way_and_sends_nothing_new() {
    let backend = TestBackend::new(|call| {
        let answer = verdicts(call, &[0]);
        tokio::time::sleep(Duration::from_secs(10)).map(|()| answer).boxed()
    });
    let mut setup = setup();
    setup.settings.dispatch.max_records = 1;
    let bed = setup.start(&backend);
    let log = Log::with(5, 5);
    let lease = bed.group.assign(0, &log);
    backend.called(1).await;
    let released = bed.group.revoke(&lease, DRAIN);
    let begin = Instant::now();
    released.await.expect("released");
    assert!(begin.elapsed() <= Duration::from_millis(10_010), "{:?}", begin.elapsed());
    assert_eq!((backend.calls().len(), log.committed()), (1, 1));
    assert_eq!(bed.dead_letters(), [(0, 1)], "what was answered is settled in full");
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_membership_is_in_doubt_nothing_begins() {
    let backend = TestBackend::new(|call| {
        let answer = verdicts(call, &[0]);
        tokio::time::sleep(Duration::from_secs(10)).map(|()| answer).boxed()
    });
    let mut setup = setup();
    setup.settings.dispatch.max_records = 1;
    let bed = setup.start(&backend);
    let log = Log::with(3, 3);
    let lease = bed.group.assign(0, &log);
    backend.called(1).await;
    lease.set_suspect(true);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(bed.dead_letters().is_empty() && backend.calls().len() == 1);
    lease.set_suspect(false);
    bed.committed(&log, 3).await;
    assert_eq!(bed.dead_letters(), [(0, 1)]);
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_deadline_and_a_failed_batch_is_not_tried_again() {
    let hanging = TestBackend::new(|_| std::future::pending().boxed());
    let bed = setup().retries(0).start(&hanging);
    let log = Log::with(5, 5);
    bed.group.assign(0, &log);
    hanging.called(1).await;
    let begin = Instant::now();
    bed.stop().await;
    assert_eq!(begin.elapsed(), DRAIN);
    assert_eq!(log.committed(), -1);

    let failing = TestBackend::new(|_| {
        let answer = Answer::Refused { status: 500, retry_after: None };
        tokio::time::sleep(Duration::from_secs(1)).map(|()| answer).boxed()
    });
    let bed = setup().start(&failing);
    bed.group.assign(0, &Log::with(1, 1));
    failing.called(1).await;
    let begin = Instant::now();
    bed.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert_eq!(failing.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_partition_leaves_no_dead_letter_and_no_commit() {
    let backend = TestBackend::new(|call| {
        let answer = verdicts(call, &[0, 1, 2]);
        tokio::time::sleep(Duration::from_secs(10)).map(|()| answer).boxed()
    });
    let bed = setup().start(&backend);
    let log = Log::with(3, 3);
    let lease = bed.group.assign(0, &log);
    backend.called(1).await;
    bed.group.lose(&lease);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((log.committed(), backend.calls().len()), (-1, 1));
    assert!(bed.dead_letters().is_empty() && bed.observer.status().partitions.is_empty());
    // Assigned again, the same records come again.
    bed.group.assign(0, &log);
    bed.committed(&log, 3).await;
    assert_eq!(bed.dead_letters(), [(0, 1), (1, 1), (2, 1)]);
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_commit_is_tried_again() {
    let backend = TestBackend::by(|call| verdicts(call, &[]));
    let bed = setup().start(&backend);
    bed.group.fail_commits.store(true, Ordering::SeqCst);
    let log = Log::with(3, 3);
    bed.group.assign(0, &log);
    backend.called(1).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(bed.metric(|metrics| &metrics.commit_failures) >= 5);
    bed.group.fail_commits.store(false, Ordering::SeqCst);
    bed.committed(&log, 3).await;
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn faults_are_told_by_partition_and_by_group() {
    let backend = TestBackend::by(|call| verdicts(call, &[]));
    let bed = setup().start(&backend);
    let log = Log::with(3, 3);
    bed.group.assign(0, &log);
    bed.committed(&log, 3).await;
    let fault = |partition, kind| Fault { topic: Some("t".into()), partition, offset: Some(3), kind };
    bed.group.fault(fault(Some(0), FaultKind::CorruptBatch("crc".into())));
    let code = protocol::error_code::ErrorCode(29);
    bed.group.fault(fault(None, FaultKind::Broker { code, message: "refused".into() }));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = bed.observer.status();
    assert!(matches!(&status.partitions[0].state, PartitionState::Standing { offset: Some(3), .. }), "{status:?}");
    assert!(status.fault.expect("a fault").starts_with("t: refused"));
    // It is looked at again and goes on by itself once the bytes can be read.
    log.append("4");
    bed.committed(&log, 4).await;
    assert_eq!(bed.observer.status().partitions[0].state, PartitionState::Running);
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_goes_back_under_records_in_flight_is_read_anew_and_their_ends_count_for_nothing() {
    let backend = TestBackend::new(|call| {
        let answer = verdicts(call, &[]);
        tokio::time::sleep(Duration::from_secs(10)).map(|()| answer).boxed()
    });
    let bed = setup().start(&backend);
    let log = Log::with(4, 4);
    let lease = bed.group.assign(0, &log);
    bed.committed(&log, 4).await;
    (4..8).for_each(|value| log.append(&value.to_string()));
    backend.called(2).await;
    // 4 to 7 are with the backend; the log is cut at 2, and others are written there.
    log.replace(&lease, 2, &["22", "33", "44"]);
    bed.committed(&log, 2).await;
    bed.committed(&log, 5).await;
    assert_eq!(backend.offsets(0), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![2, 3, 4]]);
    log.append("55");
    bed.committed(&log, 6).await;
    assert_eq!(bed.metric(|metrics| &metrics.commit_failures), 0);
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_new_log_counts_before_the_old_one_is_audited() {
    let backend = TestBackend::by(|call| verdicts(call, &[]));
    let bed = Setup { audit: true, ..setup() }.start(&backend);
    bed.kafka.hold(true);
    let log = Log::with(4, 4);
    let lease = bed.group.assign(0, &log);
    backend.called(1).await;
    log.replace(&lease, 0, &["0", "1"]);
    backend.called(2).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(log.committed(), -1);
    bed.kafka.hold(false);
    bed.committed(&log, 2).await;
    assert_eq!(bed.observer.status().partitions[0].in_flight, 0);
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_stands_goes_on_as_soon_as_its_log_is_another_one() {
    let backend = TestBackend::by(|call| verdicts(call, &[]));
    let mut setup = setup();
    setup.settings.bad_record_policy = BadRecordPolicy::Stop;
    let bed = setup.start(&backend);
    let log = Log::with(4, 2);
    let lease = bed.group.assign(0, &log);
    bed.committed(&log, 2).await;
    // A record that cannot be decoded, and before it is looked at again another log.
    log.append("{");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(matches!(bed.observer.status().partitions[0].state, PartitionState::Standing { .. }));
    log.replace(&lease, 0, &["0", "1", "2", "3"]);
    bed.committed(&log, 4).await;
    // Bytes that cannot be read, and another log.
    let kind = FaultKind::CorruptBatch("crc".into());
    bed.group.fault(Fault { topic: Some("t".into()), partition: Some(0), offset: Some(4), kind });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(matches!(bed.observer.status().partitions[0].state, PartitionState::Standing { .. }));
    let replaced = Instant::now();
    log.replace(&lease, 1, &["1", "2"]);
    bed.committed(&log, 3).await;
    assert!(replaced.elapsed() < Duration::from_secs(1), "it does not wait for the next look");
    assert_eq!(bed.observer.status().partitions[0].state, PartitionState::Running);
    bed.stop().await;
}
