//! Every row of the produce error table: what is sent next, with which sequence, and what the caller hears.

use kafka_protocol::messages::produce_response::{BatchIndexAndErrorMessage, LeaderIdAndEpoch};

use super::*;

/// What became of the request with the batch.
#[derive(Debug, Clone, Copy)]
enum Came {
    Code(ErrorCode),
    /// NOT_LEADER_OR_FOLLOWER with the new leader's name.
    Hint,
    /// INVALID_RECORD that names these records.
    Culprits(&'static [i32]),
    /// An answer without the partition.
    LeftOut,
    Lost(Outcome),
    /// The socket took it, and no answer is expected.
    Unanswered,
    /// No broker of that version.
    Unsupported,
}

/// Of the batch with sequences 10 to 12 in epoch 0 (each -1 without idempotence).
#[derive(Debug, Clone, PartialEq)]
enum Then {
    Written(Option<i64>),
    /// The same bytes, and if they are not sent in time: this.
    Again(Outcome),
    /// Stamped anew in the next epoch, and if it is not sent in time: refused.
    NewEpoch,
    /// Parts with these sequences and counts.
    Parts(Vec<(i32, i32)>),
    Failed(Outcome),
}

fn end(rig: &mut Rig, came: Came) -> Sent {
    let invalid = |culprits: &[i32]| {
        let named = |index: &i32| BatchIndexAndErrorMessage::default().with_batch_index(*index);
        code(ErrorCode::INVALID_RECORD).with_record_errors(culprits.iter().map(named).collect())
    };
    match came {
        Came::Code(ErrorCode::NONE) => rig.answer(0, written(40)),
        Came::Code(told) => rig.answer(0, code(told)),
        Came::Hint => {
            let leader = LeaderIdAndEpoch::default().with_leader_id(2.into()).with_leader_epoch(1);
            rig.answer(0, code(ErrorCode::NOT_LEADER_OR_FOLLOWER).with_current_leader(leader))
        }
        Came::Culprits(culprits) => rig.answer(0, invalid(culprits)),
        Came::LeftOut => rig.end(0, |_| Ok(Some(Answers::new()))),
        Came::Lost(outcome) => rig.end(0, |_| Err(lost(outcome))),
        Came::Unanswered => rig.end(0, |_| Ok(None)),
        Came::Unsupported => rig.end(0, |_| {
            let kind = RequestErrorKind::UnsupportedVersion { api: "Produce", address: "b:1".into() };
            Err(RequestError::not_sent(kind))
        }),
    }
}

/// What a batch comes to that is on its way, as the oldest of its partition.
fn then(rig: &mut Rig, came: Came) -> Then {
    let number = rig.next_number;
    let sent = end(rig, came);
    let heard = rig.heard();
    if let [(told, records, outcome)] = &heard[..]
        && records.len() == 3
    {
        assert_eq!(*told, number);
        rig.pass(REST);
        assert!(rig.open.is_empty(), "what is over is not sent again");
        return match outcome {
            Ok(offset) => Then::Written(*offset),
            Err((outcome, _)) => Then::Failed(*outcome),
        };
    }
    rig.pass(REST);
    let mut parts = Vec::new();
    let first = rig.on_their_way();
    while !rig.open.is_empty() {
        assert_eq!(rig.open.len(), 1, "what is repeated travels alone");
        let (_, sequence, count) = rig.open[0].stamp(0);
        parts.push((sequence, count));
        // Of what is sent again unchanged one look is enough.
        if rig.open[0].bytes(0) == sent.bytes(0) || first[0].0 != sent.stamp(0).0 {
            break;
        }
        rig.answer(0, written(50));
        rig.pass(REST);
    }
    if let Some(repeated) = rig.open.first() {
        let expected = if repeated.bytes(0) == sent.bytes(0) { sent.stamp(0) } else { (1, 0, 3) };
        assert_eq!(first, [expected]);
        // It is refused in passing as long as there is time.
        let same = repeated.bytes(0) == sent.bytes(0);
        end(rig, Came::Lost(Outcome::NotSent));
        rig.lead(0, None);
        rig.pass(TIMEOUT);
        let heard = rig.heard();
        let [(_, _, Err((outcome, ProduceErrorKind::DeliveryTimeout { last })))] = &heard[..] else {
            panic!("{heard:?}")
        };
        assert_eq!(last, "its partition has no leader");
        if same {
            return Then::Again(*outcome);
        }
        assert_eq!(*outcome, Outcome::Rejected);
        return Then::NewEpoch;
    }
    Then::Parts(parts)
}

#[test]
fn each_row_decides_what_is_sent_next_and_what_the_caller_hears() {
    use Outcome::{NotSent, Rejected, Unknown};
    let (refused, doubted) = (|| Then::Again(Rejected), || Then::Again(Unknown));
    let code = Came::Code;
    // (what came, what then, whether metadata is asked for)
    for (came, expected, refresh) in [
        (code(ErrorCode::NONE), Then::Written(Some(40)), false),
        (code(ErrorCode::DUPLICATE_SEQUENCE_NUMBER), Then::Written(None), false),
        (Came::Unanswered, Then::Written(None), false),
        // Nobody knows whether it was written.
        (code(ErrorCode::REQUEST_TIMED_OUT), doubted(), false),
        (code(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND), doubted(), false),
        (Came::Lost(Unknown), doubted(), true),
        (Came::LeftOut, doubted(), false),
        // A leader that is deposed while it waits for its followers may have handed it on.
        (code(ErrorCode::NOT_LEADER_OR_FOLLOWER), doubted(), true),
        (Came::Hint, doubted(), false),
        (code(ErrorCode::KAFKA_STORAGE_ERROR), doubted(), true),
        // It was not written.
        (code(ErrorCode::NOT_ENOUGH_REPLICAS), refused(), false),
        (code(ErrorCode::CORRUPT_MESSAGE), refused(), false),
        (code(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS), refused(), false),
        (code(ErrorCode::LEADER_NOT_AVAILABLE), refused(), true),
        (code(ErrorCode::FENCED_LEADER_EPOCH), refused(), true),
        (code(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION), refused(), true),
        (code(ErrorCode::UNKNOWN_TOPIC_ID), refused(), true),
        (Came::Lost(NotSent), Then::Again(NotSent), true),
        // Nobody knows the sequence before it.
        (code(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER), Then::NewEpoch, false),
        (code(ErrorCode::UNKNOWN_PRODUCER_ID), Then::NewEpoch, false),
        (code(ErrorCode::INVALID_PRODUCER_EPOCH), Then::NewEpoch, false),
        (code(ErrorCode::INVALID_PRODUCER_ID_MAPPING), Then::NewEpoch, false),
        (code(ErrorCode::MESSAGE_TOO_LARGE), Then::Parts(vec![(10, 2), (12, 1)]), false),
        (code(ErrorCode::RECORD_LIST_TOO_LARGE), Then::Parts(vec![(10, 2), (12, 1)]), false),
        (Came::Culprits(&[1]), Then::Parts(vec![(10, 2)]), false),
        (Came::Culprits(&[0, 1, 2]), Then::Failed(Rejected), false),
        (code(ErrorCode::INVALID_RECORD), Then::Failed(Rejected), false),
        (code(ErrorCode::TOPIC_AUTHORIZATION_FAILED), Then::Failed(Rejected), false),
        (code(ErrorCode::CLUSTER_AUTHORIZATION_FAILED), Then::Failed(Rejected), false),
        (code(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE), Then::Failed(Rejected), false),
        (code(ErrorCode::UNKNOWN_SERVER_ERROR), Then::Failed(Rejected), false),
        (code(ErrorCode(9999)), Then::Failed(Rejected), false),
        (Came::Unsupported, Then::Failed(NotSent), true),
    ] {
        let mut rig = Rig::settled(config());
        rig.seal(0, 3);
        let refreshes = rig.refreshes;
        // Told by a rig of its own: later refreshes are for what the test does next.
        let mut other = Rig::settled(config());
        other.seal(0, 3);
        end(&mut other, came);
        assert_eq!(other.refreshes > refreshes, refresh, "{came:?}");
        assert_eq!(then(&mut rig, came), expected, "{came:?}");
    }
}

#[test]
fn what_a_try_left_in_doubt_stays_in_doubt_whatever_a_later_try_says() {
    use Outcome::{NotSent, Rejected, Unknown};
    for (first, second, told) in [
        (Came::Lost(Unknown), Came::Code(ErrorCode::TOPIC_AUTHORIZATION_FAILED), Unknown),
        (Came::Lost(Unknown), Came::Unsupported, Unknown),
        (Came::LeftOut, Came::Code(ErrorCode::INVALID_RECORD), Unknown),
        (Came::Code(ErrorCode::NOT_ENOUGH_REPLICAS), Came::Unsupported, Rejected),
        (Came::Lost(NotSent), Came::Unsupported, NotSent),
    ] {
        let mut rig = Rig::settled(config());
        rig.seal(0, 3);
        end(&mut rig, first);
        rig.pass(REST);
        end(&mut rig, second);
        let heard = rig.heard();
        assert!(
            matches!(heard[..], [(2, _, Err((outcome, _)))] if outcome == told),
            "{first:?}, {second:?}: {heard:?}"
        );
    }
}

#[test]
fn a_batch_that_is_not_the_oldest_waits_for_the_oldest_where_the_sequence_is_broken() {
    for told in [
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorCode::UNKNOWN_PRODUCER_ID,
        ErrorCode::INVALID_PRODUCER_EPOCH,
        ErrorCode::NOT_LEADER_OR_FOLLOWER,
    ] {
        let mut rig = Rig::settled(config());
        rig.seal(0, 3);
        rig.seal(0, 2);
        let second = rig.open.pop().expect("both are on their way");
        let answers = BTreeMap::from([(key(0), code(told))]);
        rig.step([Event::Answered { request: second.request, answer: Ok(Some(answers)) }]);
        rig.seal(0, 1);
        rig.pass(REST);
        assert_eq!(rig.on_their_way(), [(0, 10, 3)], "{told}: nothing goes out before the oldest is answered");
        rig.answer(0, written(10));
        assert_eq!(rig.on_their_way(), [(0, 13, 2)], "{told}: the same again, alone");
        assert_eq!(rig.open[0].bytes(0), second.bytes(0));
        rig.answer(0, written(13));
        assert_eq!(rig.on_their_way(), [(0, 15, 1)]);
    }
}

#[test]
fn without_idempotence_nothing_is_stamped_and_a_broken_sequence_is_final() {
    for (came, expected) in [
        (Came::Code(ErrorCode::NONE), Then::Written(Some(40))),
        (Came::Code(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER), Then::Failed(Outcome::Rejected)),
        (Came::Code(ErrorCode::UNKNOWN_PRODUCER_ID), Then::Failed(Outcome::Rejected)),
        (Came::Lost(Outcome::Unknown), Then::Again(Outcome::Unknown)),
        (Came::Code(ErrorCode::NOT_LEADER_OR_FOLLOWER), Then::Again(Outcome::Rejected)),
        (Came::Code(ErrorCode::MESSAGE_TOO_LARGE), Then::Parts(vec![(-1, 2), (-1, 1)])),
        (Came::Unanswered, Then::Written(None)),
    ] {
        let mut rig = Rig::settled(without_idempotence());
        rig.seal(0, 3);
        assert_eq!(rig.on_their_way(), [(-1, -1, 3)]);
        assert_eq!(then(&mut rig, came), expected, "{came:?}");
    }
}

#[test]
fn a_single_record_that_is_too_large_is_told_so() {
    let mut rig = Rig::settled(config());
    let number = rig.seal(0, 1);
    let size = rig.open[0].bytes(0).len();
    rig.answer(0, code(ErrorCode::MESSAGE_TOO_LARGE));
    let kind = ProduceErrorKind::TooLarge { size, limit: None };
    assert_eq!(rig.heard(), [(number, vec![0], Err((Outcome::Rejected, kind)))]);
}

#[test]
fn the_culprits_hear_of_it_at_once_and_the_others_when_they_are_written() {
    let mut rig = Rig::settled(config());
    let number = rig.seal(0, 3);
    let named = BatchIndexAndErrorMessage::default().with_batch_index(1);
    let named = named.with_batch_index_error_message(Some("no key".into()));
    // The second names nothing that there is.
    let errors = vec![named, BatchIndexAndErrorMessage::default().with_batch_index(9)];
    rig.answer(0, code(ErrorCode::INVALID_RECORD).with_record_errors(errors));
    let kind = ProduceErrorKind::Broker { code: ErrorCode::INVALID_RECORD, message: Some("no key".to_owned()) };
    assert_eq!(rig.heard(), [(number, vec![1], Err((Outcome::Rejected, kind)))]);
    assert_eq!(rig.on_their_way(), [(0, 10, 2)], "without a rest");
    rig.answer(0, written(10));
    assert_eq!(rig.heard(), [(number, vec![0, 2], Ok(Some(10)))]);
}

#[test]
fn retries_are_counted_where_they_are_limited() {
    let mut rig = Rig::settled(ProducerConfig { retries: Some(2), ..config() });
    rig.seal(0, 1);
    for _ in 0..2 {
        rig.answer(0, code(ErrorCode::NOT_ENOUGH_REPLICAS));
        assert!(rig.heard.is_empty());
        rig.pass(REST);
    }
    rig.answer(0, code(ErrorCode::NOT_ENOUGH_REPLICAS));
    let heard = rig.heard();
    let [(_, _, Err((Outcome::Rejected, ProduceErrorKind::DeliveryTimeout { last })))] = &heard[..] else {
        panic!("{heard:?}")
    };
    assert!(last.contains("after 3 tries (retries=2)"), "{last}");
}
