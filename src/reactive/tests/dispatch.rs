//! What goes to the backend, in which order, and what its answers lead to.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::FutureExt;

use super::*;
use crate::{backend::Answer, reactive::script::verdicts};

#[tokio::test(start_paused = true)]
async fn records_go_out_in_order_and_are_committed() {
    let backend = TestBackend::by(|call| verdicts(call, &[]));
    let bed = setup().start(&backend);
    let log = Log::with(30, 250);
    bed.group.assign(0, &log);
    bed.committed(&log, 250).await;
    in_order(&backend.offsets(0), 250);
    let sizes: Vec<_> = backend.offsets(0).iter().map(Vec::len).collect();
    assert_eq!(sizes, [100, 100, 50], "a request spans fetched batches");
    assert!(bed.dead_letters().is_empty());
    let calls = backend.calls();
    assert_eq!((calls[0].1.attempt, calls[0].1.topic.as_str()), (1, "t"));
    assert_eq!(bed.observer.status().backend, BackendState::Up);
    let status = bed.observer.status().partitions.remove(0);
    assert_eq!(
        (status.position, status.finished, status.committed, status.in_flight),
        (Some(250), Some(250), Some(250), 0)
    );
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn fetching_begins_when_the_backend_accepts_a_connection() {
    let backend = TestBackend::by(|call| verdicts(call, &[]));
    backend.refuse_connections(10);
    let bed = setup().start(&backend);
    let log = Log::with(10, 10);
    bed.group.assign(0, &log);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(log.paused() && backend.calls().is_empty());
    assert!(matches!(bed.observer.status().backend, BackendState::Waiting { why } if why == "connection refused"));
    assert_eq!(bed.observer.status().partitions[0].state, PartitionState::Waiting);
    bed.committed(&log, 10).await;
    assert!(!log.paused());
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_health_path_is_waited_for_only_if_asked_for() {
    let backend = TestBackend::by(|call| verdicts(call, &[]));
    let bed = Setup { ask_health: true, ..setup() }.start(&backend);
    let log = Log::with(10, 10);
    bed.group.assign(0, &log);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(backend.calls().is_empty());
    backend.healthy.store(true, Ordering::SeqCst);
    bed.committed(&log, 10).await;
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn refused_records_are_dead_letters_and_their_neighbours_are_not() {
    let backend = TestBackend::by(|call| verdicts(call, &[3, 7]));
    let bed = setup().start(&backend);
    let log = Log::with(10, 10);
    bed.group.assign(2, &log);
    bed.committed(&log, 10).await;
    assert_eq!(bed.dead_letters(), [(3, 1), (7, 1)]);
    assert_eq!(backend.offsets(2).len(), 1);
    assert_eq!(bed.metric(|metrics| &metrics.records_refused), 2);
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_culprit_is_found_by_halving_and_no_neighbour_is_charged() {
    for (answer, name) in
        [(Answer::Refused { status: 500, retry_after: None }, "500"), (Answer::Malformed("x".into()), "malformed")]
    {
        let backend = TestBackend::by(move |call| match call.offsets.contains(&37) {
            true => answer.clone(),
            false => verdicts(call, &[]),
        });
        let bed = setup().retries(2).start(&backend);
        let log = Log::with(100, 100);
        bed.group.assign(0, &log);
        bed.committed(&log, 100).await;
        in_order(&backend.offsets(0), 100);
        assert_eq!(bed.dead_letters(), [(37, 3)], "{name}");
        let offsets = backend.offsets(0);
        let settled: Vec<i64> = offsets.iter().filter(|offsets| !offsets.contains(&37)).flatten().copied().collect();
        assert!(settled.iter().copied().eq((0..100).filter(|offset| *offset != 37)), "{name}: {settled:?}");
        let given_up = offsets.iter().rposition(|offsets| offsets.contains(&37));
        let passed = offsets.iter().position(|offsets| offsets.contains(&38) && !offsets.contains(&37));
        assert!(given_up < passed, "{name}: {offsets:?}");
        let alone = backend.offsets(0).iter().filter(|offsets| **offsets == [37]).count();
        assert_eq!(alone, 3, "{name}: the first attempt and two retries");
        bed.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn retries_are_for_ever_unless_a_bound_is_set() {
    let failures = Arc::new(AtomicUsize::new(500));
    let left = failures.clone();
    let backend = TestBackend::by(move |call| {
        let failing = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if failing { Answer::Refused { status: 500, retry_after: None } } else { verdicts(call, &[]) }
    });
    let bed = setup().start(&backend);
    let log = Log::with(4, 4);
    bed.group.assign(0, &log);
    bed.committed(&log, 4).await;
    assert!(bed.dead_letters().is_empty());
    in_order(&backend.offsets(0), 4);
    let calls = backend.calls();
    let gaps = calls.windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert!(gaps.max() <= Some(Duration::from_secs(2)));
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_absent_backend_costs_no_record_an_attempt_and_gets_work_soon_after_it_is_back() {
    for absent in [
        Answer::Unreachable("refused".into()),
        Answer::Refused { status: 503, retry_after: Some(Duration::from_secs(3600)) },
    ] {
        let up = Arc::new(AtomicBool::new(false));
        let is_up = up.clone();
        let backend = TestBackend::by(move |call| match is_up.load(Ordering::SeqCst) {
            true => verdicts(call, &[]),
            false => absent.clone(),
        });
        let bed = setup().retries(0).start(&backend);
        let logs: Vec<_> = (0..20).map(|_| Log::with(10, 10)).collect();
        for (partition, log) in logs.iter().enumerate() {
            bed.group.assign(partition as i32, log);
        }
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(matches!(bed.observer.status().backend, BackendState::Down { .. }));
        let tries = backend.calls().len();
        assert!(tries < 20 + 700, "one attempt at a time: {tries}");
        assert!(backend.calls().iter().all(|(_, call)| call.offsets.len() == 10), "nothing is halved");
        up.store(true, Ordering::SeqCst);
        let back = Instant::now();
        for log in &logs {
            bed.committed(log, 10).await;
        }
        assert!(back.elapsed() <= Duration::from_millis(2500), "{:?}", back.elapsed());
        assert!(bed.dead_letters().is_empty());
        bed.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hang_is_charged_only_alone_and_only_if_the_backend_answers_otherwise() {
    // (another partition is answered meanwhile, the health path answers) -> a dead letter
    for (neighbour, healthy, expected) in
        [(false, false, &[][..]), (true, false, &[(1, 1)][..]), (false, true, &[(1, 1)][..])]
    {
        let backend = TestBackend::new(|call| {
            if call.partition == 0 && call.offsets.contains(&1) {
                return tokio::time::sleep(Duration::from_secs(300)).map(|()| Answer::Late).boxed();
            }
            let answer = verdicts(call, &[]);
            let pause = Duration::from_secs(if call.partition == 1 { 10 } else { 0 });
            tokio::time::sleep(pause).map(|()| answer).boxed()
        });
        let mut setup = Setup { ask_health: true, ..setup().retries(0) };
        setup.settings.dispatch.max_records = 4;
        backend.healthy.store(true, Ordering::SeqCst);
        let bed = setup.start(&backend);
        let log = Log::with(4, 4);
        bed.group.assign(0, &log);
        if neighbour {
            bed.group.assign(1, &Log::with(1, 4000));
        }
        backend.called(1).await;
        backend.healthy.store(healthy, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(2000)).await;
        assert_eq!(bed.dead_letters(), expected, "neighbour {neighbour}, healthy {healthy}");
        let offsets = backend.offsets(0);
        assert_eq!(offsets[..4], [vec![0, 1, 2, 3], vec![0, 1], vec![0], vec![1]]);
        assert_eq!(log.committed(), if expected.is_empty() { 1 } else { 4 });
        let Bed { stop, flow, .. } = bed;
        stop.cancel();
        flow.await.expect("no panic").expect("drained or released");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_charged_only_if_it_was_new_and_the_backend_is_still_there() {
    for (still_there, expected) in [(true, &[(1, 1)][..]), (false, &[][..])] {
        let backend = TestBackend::new(|call| {
            if call.partition == 0 && call.offsets == [1] {
                return tokio::time::sleep(Duration::from_secs(1)).map(|()| Answer::Lost("reset".into())).boxed();
            }
            let answer = verdicts(call, &[]);
            tokio::time::sleep(Duration::from_millis(100)).map(|()| answer).boxed()
        });
        let mut setup = setup().retries(0);
        setup.settings.dispatch.max_records = 1;
        let bed = setup.start(&backend);
        bed.group.assign(0, &Log::with(4, 4));
        bed.group.assign(1, &Log::with(1, 4000));
        backend.called(1).await;
        backend.refuse_connections(if still_there { 0 } else { 1000 });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(bed.dead_letters(), expected, "still there: {still_there}");
        let calls = backend.calls().into_iter().map(|(_, call)| call).filter(|call| call.offsets == [1]);
        let own: Vec<bool> = calls.filter(|call| call.partition == 0).map(|call| call.own_connection).collect();
        assert!(!own[0] && own[1..].iter().all(|own| *own), "{own:?}");
        assert!(own.len() == 2 || !still_there, "{own:?}");
        bed.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_standing_partition_does_not_stop_its_neighbours() {
    let backend = TestBackend::by(|call| match call.partition {
        0 => Answer::Refused { status: 500, retry_after: None },
        _ => verdicts(call, &[]),
    });
    let bed = setup().start(&backend);
    let (bad, good) = (Log::with(1, 1), Log::with(10, 1000));
    bed.group.assign(0, &bad);
    bed.group.assign(1, &good);
    bed.committed(&good, 1000).await;
    assert_eq!(bad.committed(), -1);
    bed.stop().await;
    assert_eq!(bad.committed(), -1, "a shutdown makes no dead letter and no commit");
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_than_allowed_are_in_flight() {
    let now = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (counted, peak) = (now.clone(), most.clone());
    let backend = TestBackend::new(move |call| {
        let answer = verdicts(call, &[]);
        peak.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let counted = counted.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            counted.fetch_sub(1, Ordering::SeqCst);
            answer
        }
        .boxed()
    });
    let mut setup = setup();
    setup.settings.dispatch.max_concurrency = 3;
    let bed = setup.start(&backend);
    let logs: Vec<_> = (0..10).map(|_| Log::with(5, 5)).collect();
    for (partition, log) in logs.iter().enumerate() {
        bed.group.assign(partition as i32, log);
    }
    for log in &logs {
        bed.committed(log, 5).await;
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_undecodable_record_is_dead_lettered_or_skipped_by_policy() {
    for (policy, letters, skipped) in
        [(BadRecordPolicy::DeadLetter, &[(2, 0)][..], 0), (BadRecordPolicy::Skip, &[][..], 1)]
    {
        let backend = TestBackend::by(|call| verdicts(call, &[]));
        let mut setup = Setup { audit: true, ..setup() };
        setup.settings.bad_record_policy = policy;
        let bed = setup.start(&backend);
        let log = Log::with(5, 5);
        log.set(2, Some("{broken"));
        bed.group.assign(0, &log);
        bed.committed(&log, 5).await;
        assert_eq!(bed.dead_letters(), letters);
        assert_eq!(bed.metric(|metrics| &metrics.records_undecodable), 1);
        assert_eq!(bed.metric(|metrics| &metrics.records_skipped), skipped);
        assert_eq!(backend.offsets(0), [vec![0, 1], vec![3, 4]]);
        let audited = bed.kafka.records().into_iter().filter(|record| &*record.topic == "audit").count();
        assert_eq!(audited, 5);
        bed.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopped_partition_stands_until_the_record_is_gone() {
    let backend = TestBackend::by(|call| verdicts(call, &[]));
    let mut setup = setup();
    setup.settings.bad_record_policy = BadRecordPolicy::Stop;
    let bed = setup.start(&backend);
    let (log, neighbour) = (Log::with(5, 5), Log::with(5, 5));
    log.set(2, Some("{broken"));
    bed.group.assign(0, &log);
    bed.group.assign(1, &neighbour);
    bed.committed(&neighbour, 5).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(log.committed(), 2);
    let status = bed.observer.status().partitions.remove(0);
    let PartitionState::Standing { offset: Some(2), why } = status.state else { panic!("{status:?}") };
    assert!(why.contains("value cannot be decoded"), "{why}");
    assert_eq!(bed.metric(|metrics| &metrics.records_undecodable), 1, "told once");
    log.set(2, None);
    bed.committed(&log, 5).await;
    assert_eq!(backend.offsets(0), [vec![0, 1], vec![3, 4]]);
    assert_eq!(bed.observer.status().partitions[0].state, PartitionState::Running);
    assert!(bed.dead_letters().is_empty());
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_dead_letters_a_refused_record_is_audited_and_finished() {
    let backend = TestBackend::by(|call| verdicts(call, &[1]));
    let mut setup = Setup { audit: true, ..setup() };
    setup.settings.dead_letter.enabled = false;
    let bed = setup.start(&backend);
    let log = Log::with(3, 3);
    bed.group.assign(0, &log);
    bed.committed(&log, 3).await;
    assert_eq!(bed.metric(|metrics| &metrics.records_dropped), 1);
    let mut audited: Vec<_> = bed.kafka.records().into_iter().map(|record| record.value.expect("JSON")).collect();
    audited.sort_by_key(|value| value.windows(10).position(|window| window == b"\"offset\":1"));
    let failures = audited.iter().filter(|value| value.windows(9).any(|window| window == b"\"FAILURE\"")).count();
    assert_eq!((audited.len(), failures), (3, 1));
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_to_fill_only_if_told_to() {
    let backend = TestBackend::by(|call| verdicts(call, &[]));
    let mut setup = setup();
    setup.settings.dispatch.batch_wait = Some(Duration::from_secs(1));
    setup.settings.dispatch.min_bytes = Some(3);
    let bed = setup.start(&backend);
    let log = Log::new(1);
    bed.group.assign(0, &log);
    log.append("1");
    let begin = Instant::now();
    backend.called(1).await;
    assert_eq!(begin.elapsed(), Duration::from_secs(1), "not enough: it waits its time");
    ["2", "3", "4"].into_iter().for_each(|value| log.append(value));
    let begin = Instant::now();
    backend.called(2).await;
    assert!(begin.elapsed() < Duration::from_secs(1), "enough: it goes");
    bed.committed(&log, 4).await;
    assert_eq!(backend.offsets(0), [vec![0], vec![1, 2, 3]]);
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rolled_back_batch_goes_out_whole_and_then_its_refused_records_are_dead_letters() {
    let backend = TestBackend::by(|call| verdicts(call, &[0, 1, 2, 3]));
    let mut setup = setup();
    setup.settings.dispatch.rollback_threshold = Some(30);
    let bed = setup.start(&backend);
    let log = Log::with(10, 10);
    bed.group.assign(0, &log);
    bed.committed(&log, 10).await;
    assert_eq!(backend.offsets(0), vec![(0..10).collect::<Vec<_>>(); 4]);
    assert_eq!(backend.calls().iter().map(|(_, call)| call.attempt).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(bed.dead_letters(), [(0, 4), (1, 4), (2, 4), (3, 4)]);
    bed.stop().await;
}
