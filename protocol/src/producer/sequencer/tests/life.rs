//! Producer ids, leaders, topics, time and the end.

use super::*;

fn timed_out(last: &str) -> ProduceErrorKind {
    ProduceErrorKind::DeliveryTimeout { last: last.to_owned() }
}

// The producer id.

#[test]
fn nothing_is_sent_before_there_is_an_id_and_the_delivery_timeout_tells_what_kept_it() {
    let mut rig = Rig::new(config());
    let number = rig.seal(0, 1);
    for _ in 0..200 {
        if rig.asked {
            rig.refuse_id(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
        }
        rig.pass(REST);
    }
    assert!(rig.open.is_empty());
    let last = "InitProducerId: COORDINATOR_LOAD_IN_PROGRESS";
    let heard = rig.heard();
    assert!(
        matches!(&heard[..], [(told, _, Err((Outcome::NotSent, ProduceErrorKind::DeliveryTimeout { last: told_last })))]
        if *told == number && told_last.starts_with(last)),
        "{heard:?}"
    );
    goes_on_once_there_is_an_id(&mut rig);
}

/// What comes after a failure asks again, and is sent.
fn goes_on_once_there_is_an_id(rig: &mut Rig) {
    rig.seal(0, 1);
    rig.pass(REST);
    rig.identify((ID, 0));
    assert_eq!(rig.on_their_way(), [(0, 0, 1)]);
}

#[test]
fn an_id_that_is_refused_for_good_fails_what_waits_at_once_and_is_asked_for_again() {
    let mut rig = Rig::new(config());
    let number = rig.seal(0, 2);
    rig.refuse_id(ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
    let heard = rig.heard();
    assert!(
        matches!(&heard[..], [(told, _, Err((Outcome::NotSent, ProduceErrorKind::Broker { code, .. })))]
        if *told == number && *code == ErrorCode::CLUSTER_AUTHORIZATION_FAILED),
        "{heard:?}"
    );
    goes_on_once_there_is_an_id(&mut rig);
}

#[test]
fn an_answer_that_is_awaited_for_ever_does_not_stop_the_delivery_timeout() {
    let mut rig = Rig::new(config());
    let number = rig.seal(0, 1);
    rig.pass(TIMEOUT);
    assert_eq!(rig.heard(), [(number, vec![0], Err((Outcome::NotSent, timed_out("it has no producer id yet"))))]);
    rig.seal(0, 1);
    rig.identify((ID, 0));
    assert_eq!(rig.on_their_way(), [(0, 0, 1)]);
}

#[test]
fn only_one_batch_is_on_its_way_until_the_first_of_its_epoch_is_written() {
    let mut rig = Rig::new(config());
    rig.seal_many(8, 1);
    rig.identify((ID, 0));
    assert_eq!(rig.on_their_way(), [(0, 0, 1)]);
    rig.answer(0, code(ErrorCode::NOT_ENOUGH_REPLICAS));
    rig.pass(REST);
    assert_eq!(rig.on_their_way(), [(0, 0, 1)]);
    rig.answer(0, written(0));
    assert_eq!(rig.on_their_way(), (1..6).map(|sequence| (0, sequence, 1)).collect::<Vec<_>>());
}

#[test]
fn sequence_numbers_go_on_at_zero_after_the_largest() {
    let mut rig = Rig::settled(config());
    rig.sequencer.lanes.get_mut(&key(0)).expect("it was used").stand_at((ID, 0), i32::MAX - 1);
    rig.seal(0, 3);
    rig.seal(0, 1);
    assert_eq!(rig.on_their_way(), [(0, i32::MAX - 1, 3), (0, 1, 1)]);
    // The halves of a batch over the end, too.
    rig.answer(0, code(ErrorCode::MESSAGE_TOO_LARGE));
    rig.answer(0, code(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
    assert_eq!(rig.on_their_way(), []);
    rig.pass(REST);
    for expected in [(0, i32::MAX - 1, 2), (0, 0, 1), (0, 1, 1)] {
        assert_eq!(rig.on_their_way(), [expected]);
        rig.answer(0, written(0));
    }
}

#[test]
fn after_the_last_epoch_a_new_id_is_asked_for_and_other_partitions_keep_theirs() {
    let mut rig = Rig::settled(config());
    rig.sequencer.lanes.get_mut(&key(0)).expect("it was used").stand_at((ID, i16::MAX), 10);
    rig.seal(1, 5);
    rig.answer(1, written(0));
    rig.seal(0, 2);
    rig.seal(0, 1);
    rig.answer(0, code(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
    rig.answer(0, code(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
    rig.seal(1, 1);
    rig.pass(REST);
    assert!(rig.asked && rig.open.is_empty());
    rig.identify((ID + 1, 0));
    let sent = |rig: &Rig, partition: i32| {
        let bytes = rig.open.iter().flat_map(|sent| &sent.batches).find(|(key, _)| key.1 == partition);
        let header = BatchHeader::parse(&bytes.expect("it is on its way").1).expect("whole");
        (header.producer_id, header.producer_epoch, header.base_sequence)
    };
    assert_eq!((sent(&rig, 0), sent(&rig, 1)), ((ID + 1, 0, 0), (ID, 0, 5)));
    rig.answer(0, written(0));
    assert_eq!(sent(&rig, 0), (ID + 1, 0, 2));
}

#[test]
fn batches_of_a_former_epoch_take_their_place_in_the_present_one() {
    let mut rig = Rig::settled(config());
    rig.seal_many(5, 2);
    assert_eq!(rig.open.len(), 5);
    // The first begins an epoch; one of the others is divided, and its parts are of the new epoch as well.
    rig.answer(0, code(ErrorCode::UNKNOWN_PRODUCER_ID));
    rig.answer(0, code(ErrorCode::MESSAGE_TOO_LARGE));
    (0..3).for_each(|_| drop(rig.answer(0, code(ErrorCode::UNKNOWN_PRODUCER_ID))));
    rig.pass(REST);
    for expected in [(1, 0, 2), (1, 2, 1), (1, 3, 1), (1, 4, 2), (1, 6, 2), (1, 8, 2)] {
        assert_eq!(rig.on_their_way(), [expected]);
        rig.answer(0, written(0));
    }
    assert_eq!(rig.heard().len(), 6);
}

// Leaders and topics.

#[test]
fn without_a_leader_metadata_is_asked_for_again_and_again_and_a_leader_is_used_at_once() {
    let mut rig = Rig::settled(config());
    rig.lead(0, None);
    let before = rig.refreshes;
    rig.seal(0, 1);
    assert_eq!(rig.refreshes, before + 1);
    rig.pass(Duration::from_secs(30));
    let asked = rig.refreshes - before;
    assert!((25..=45).contains(&asked), "with back-off: {asked} times in 30 s");
    assert!(rig.open.is_empty());
    rig.lead(0, Some(2));
    assert_eq!((rig.open[0].leader, rig.on_their_way()), (2, vec![(0, 10, 1)]));
}

#[test]
fn a_topic_that_is_gone_fails_what_waits_when_its_time_is_up() {
    let mut rig = Rig::settled(config());
    let topic = rig.metadata.topics.remove("t").expect("it was there");
    let (first, second) = (rig.seal(0, 1), rig.seal(0, 1));
    rig.pass(TIMEOUT);
    let failed = || Err((Outcome::NotSent, timed_out("its partition has no leader")));
    assert_eq!(rig.heard(), [(first, vec![0], failed()), (second, vec![0], failed())]);
    rig.metadata.topics.insert("t".into(), topic);
    rig.seal(0, 1);
    assert_eq!(rig.on_their_way(), [(0, 10, 1)], "what was never sent left no gap");
}

#[test]
fn a_new_leader_gets_nothing_before_the_old_one_has_answered() {
    let mut rig = Rig::settled(config());
    rig.seal(0, 1);
    rig.lead(0, Some(2));
    rig.seal(0, 1);
    assert_eq!(rig.open.iter().map(|sent| sent.leader).collect::<Vec<_>>(), [1]);
    rig.answer(0, written(10));
    assert_eq!(rig.open.iter().map(|sent| sent.leader).collect::<Vec<_>>(), [2]);
    assert_eq!(rig.on_their_way(), [(0, 11, 1)], "the sequence goes on");
}

#[test]
fn a_topic_made_anew_gets_one_batch_alone_and_then_the_sequence_goes_on() {
    let mut rig = Rig::settled(config());
    rig.seal(0, 1);
    rig.make_anew(2);
    rig.seal_many(3, 1);
    assert_eq!(rig.on_their_way(), [(0, 10, 1)], "the old one is to answer first");
    rig.answer(0, code(ErrorCode::UNKNOWN_TOPIC_ID));
    rig.pass(REST);
    for expected in [(0, 10, 1), (0, 11, 1)] {
        assert_eq!(rig.on_their_way()[0], expected);
        rig.answer(0, written(0));
    }
    assert_eq!(rig.on_their_way(), [(0, 12, 1), (0, 13, 1)]);
    // Nothing was on its way when it was made anew once more: then, too, the log knows nothing of us.
    (0..2).for_each(|_| drop(rig.answer(0, written(0))));
    rig.metadata.topics.get_mut("t").expect("it is there").id = Uuid::nil();
    rig.seal(0, 1);
    rig.seal(0, 1);
    assert_eq!(rig.open.len(), 2, "an id that is not told is no other id");
    (0..2).for_each(|_| drop(rig.answer(0, written(0))));
    rig.make_anew(3);
    rig.seal_many(2, 1);
    assert_eq!(rig.on_their_way(), [(0, 16, 1)]);
}

// Requests.

#[test]
fn a_request_is_no_larger_than_allowed_and_the_partitions_take_turns() {
    let size = batch(1, 1, Instant::now()).sealed().len();
    let mut rig = Rig::new(ProducerConfig { max_request_size: 5 * size / 2, max_in_flight: 1, ..config() });
    for _ in 0..3 {
        let batches = (0..4).map(|partition| (key(partition), batch(rig.number(), 1, rig.now + TIMEOUT))).collect();
        rig.step([Event::Sealed(batches)]);
    }
    rig.identify((ID, 0));
    let mut seen = Vec::new();
    while let Some(sent) = rig.open.first() {
        assert_eq!(rig.open.len(), 1, "one request in flight for each broker");
        seen.push(sent.batches.iter().map(|(key, _)| key.1).collect::<Vec<_>>());
        let partition = sent.batches[0].0.1;
        rig.answer(partition, written(0));
    }
    assert_eq!(seen, [[0, 1], [2, 3], [0, 1], [2, 3], [0, 1], [2, 3]]);
}

#[test]
fn a_batch_that_is_larger_than_a_request_may_be_travels_alone() {
    let mut rig = Rig::new(ProducerConfig { max_request_size: 1, ..config() });
    let batches = (0..2).map(|partition| (key(partition), batch(rig.number(), 3, rig.now + TIMEOUT))).collect();
    rig.step([Event::Sealed(batches)]);
    rig.identify((ID, 0));
    assert_eq!(rig.open.iter().map(|sent| sent.batches.len()).collect::<Vec<_>>(), [1, 1]);
}

// Time.

#[test]
fn the_delivery_timeout_is_heard_in_flight_and_in_the_queue_and_a_late_answer_changes_nothing() {
    let mut rig = Rig::settled(config());
    let numbers = rig.seal_many(6, 1);
    rig.pass(TIMEOUT);
    let heard: BTreeMap<u64, Heard> = rig.heard().into_iter().map(|(number, _, heard)| (number, heard)).collect();
    for number in &numbers[..5] {
        assert_eq!(heard[number], Err((Outcome::Unknown, timed_out("the broker has not answered"))));
    }
    assert_eq!(heard[&numbers[5]], Err((Outcome::NotSent, timed_out("it waited for its turn"))));
    let next = rig.seal(0, 1);
    assert_eq!(rig.open.len(), 5, "they keep their place until they are answered");
    rig.answer(0, written(10));
    rig.answer(0, code(ErrorCode::NOT_ENOUGH_REPLICAS));
    rig.answer(0, code(ErrorCode::MESSAGE_TOO_LARGE));
    rig.end(0, |_| Err(lost(Outcome::Unknown)));
    rig.answer(0, code(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
    assert_eq!(rig.heard(), []);
    rig.pass(REST);
    assert_eq!(rig.on_their_way(), [(0, 15, 1)], "no epoch is begun for what was given up");
    rig.answer(0, code(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
    rig.pass(REST);
    assert_eq!(rig.on_their_way(), [(1, 0, 1)], "the gap is real");
    rig.answer(0, written(11));
    assert_eq!(rig.heard(), [(next, vec![0], Ok(Some(11)))]);
}

#[test]
fn a_partition_that_is_idle_is_forgotten_and_comes_back_in_a_later_epoch() {
    let mut rig = Rig::settled(config());
    rig.seal(1, 1);
    rig.answer(1, written(0));
    rig.pass(MAX_IDLE / 2);
    rig.seal(1, 1);
    rig.answer(1, written(1));
    rig.pass(MAX_IDLE);
    assert!(!rig.sequencer.lanes.contains_key(&key(0)));
    assert!(rig.forgotten.is_empty(), "its topic is still written to");
    rig.pass(2 * MAX_IDLE);
    assert!(rig.sequencer.lanes.is_empty());
    assert_eq!(rig.forgotten, ["t".into()]);
    let watched = rig.watched.len();
    rig.seal(0, 1);
    rig.seal(0, 1);
    assert_eq!(rig.watched.len(), watched + 1);
    let (epoch, sequence, _) = rig.open[0].stamp(0);
    assert!(epoch > 0 && sequence == 0, "its broker may remember the former");
    assert_eq!(rig.open.len(), 1, "or not");
}

#[test]
fn what_is_on_its_way_keeps_its_partition_from_being_forgotten() {
    let mut rig = Rig::settled(config());
    rig.seal(0, 1);
    rig.pass(3 * MAX_IDLE);
    assert_eq!(rig.sequencer.lanes.get(&key(0)).expect("kept").in_flight(), 1);
    rig.answer(0, written(10));
    rig.pass(3 * MAX_IDLE);
    assert!(rig.sequencer.lanes.is_empty());
}

#[test]
fn a_forgotten_partition_that_used_the_last_epoch_comes_back_with_a_new_id() {
    let mut rig = Rig::settled(config());
    rig.sequencer.lanes.get_mut(&key(0)).expect("it was used").stand_at((ID, i16::MAX), 10);
    rig.pass(3 * MAX_IDLE);
    rig.seal(0, 1);
    assert!(rig.open.is_empty());
    rig.identify((ID + 1, 0));
    assert_eq!(rig.on_their_way(), [(0, 0, 1)]);
}

// The end.

#[test]
fn whatever_waits_is_failed_at_the_end_with_what_is_known_of_it() {
    let mut rig = Rig::new(config());
    rig.seal(0, 1);
    rig.step([Event::Close]);
    assert_eq!(rig.heard(), [(1, vec![0], Err((Outcome::NotSent, ProduceErrorKind::Closed)))]);
    let mut rig = Rig::settled(config());
    let numbers = rig.seal_many(4, 1);
    rig.end(0, |_| Err(lost(Outcome::Unknown)));
    rig.answer(0, code(ErrorCode::NOT_ENOUGH_REPLICAS));
    rig.end(0, |_| Err(lost(Outcome::NotSent)));
    rig.step([Event::Close]);
    let heard: BTreeMap<u64, Heard> = rig.heard().into_iter().map(|(number, _, heard)| (number, heard)).collect();
    let told = numbers.iter().map(|number| heard[number].clone().map_err(|(outcome, _)| outcome));
    let (unknown, rejected, not_sent) = (Err(Outcome::Unknown), Err(Outcome::Rejected), Err(Outcome::NotSent));
    assert_eq!(told.collect::<Vec<_>>(), [unknown, rejected, not_sent, unknown]);
    rig.answer(0, written(10));
    assert_eq!(rig.heard(), [], "each heard its end once");
}
