use super::*;
use crate::record::memory::MemoryKafka;

fn record(topic: &str, partition: i32) -> SourceRecord {
    SourceRecord {
        topic: topic.into(),
        partition,
        offset: 41,
        timestamp: 1_730_000_000_000,
        key: Some(Bytes::from_static(b"\xffk")),
        value: None,
        headers: vec![
            (Bytes::from_static(b"a"), Some(Bytes::from_static(b"\xfe"))),
            (Bytes::from_static(b"\xfd"), None),
            (Bytes::from_static(b"a"), Some(Bytes::from_static(b"2"))),
        ],
    }
}

fn writer(kafka: &Arc<MemoryKafka>, create_topic: bool) -> DeadLetters {
    let settings = settings::DeadLetter { enabled: true, topic_ext: ".dlq".into(), create_topic };
    DeadLetters::new(kafka.clone(), kafka.clone(), &settings, "g")
}

fn lease() -> Lease {
    Lease::new("t".into(), 1, 1)
}

fn cause(reason: &str) -> Cause {
    Cause { reason: reason.into(), attempts: 3, ..Cause::default() }
}

fn headers(record: &ProduceRecord) -> Vec<(String, Option<String>)> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    record.headers.iter().map(|(name, value)| (text(name), value.as_ref().map(text))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_the_record_unchanged_and_says_where_it_came_from() {
    let kafka = Arc::new(MemoryKafka::with_topics(&[("t", 3)]));
    let ids = TraceIds { correlation_id: Some("c".into()), traceability_id: None };
    let cause = Cause { stacktrace: Some("at X".into()), ids, ..cause("refused") };
    writer(&kafka, true).write(record("t", 1), &cause, &lease()).await.expect("not lost");
    let written = kafka.records().remove(0);
    assert_eq!((&*written.topic, written.partition), ("t.dlq", Some(1)));
    assert_eq!(kafka.partitions("t.dlq"), Some(3), "made with the source's partition count");
    assert_eq!((written.key, written.value), (Some(Bytes::from_static(b"\xffk")), None));
    assert_eq!(written.timestamp, Some(1_730_000_000_000));
    assert_eq!(written.headers[..3], record("t", 1).headers);
    let added = headers(&kafka.records()[0]).split_off(3);
    let expected = [
        ("X-Correlation-Id", "c"),
        (TOPIC, "t"),
        (PARTITION, "1"),
        (OFFSET, "41"),
        (GROUP, "g"),
        (REASON, "refused"),
        (ATTEMPTS, "3"),
        (STACK_TRACE, "at X"),
    ];
    assert_eq!(added, expected.map(|(name, value)| (name.to_owned(), Some(value.to_owned()))));
}

#[tokio::test(start_paused = true)]
async fn it_goes_by_key_where_the_dead_letter_topic_has_fewer_partitions() {
    let kafka = Arc::new(MemoryKafka::with_topics(&[("t", 9), ("t.dlq", 2)]));
    let letters = writer(&kafka, true);
    letters.write(record("t", 1), &cause("x"), &lease()).await.expect("not lost");
    letters.write(record("t", 2), &cause("x"), &lease()).await.expect("not lost");
    assert_eq!(kafka.records().iter().map(|r| r.partition).collect::<Vec<_>>(), [Some(1), None]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_is_repeated_until_it_is_acknowledged() {
    let kafka = Arc::new(MemoryKafka::with_topics(&[("t", 2)]));
    kafka.refuse_creation(Some("TOPIC_AUTHORIZATION_FAILED"));
    let letters = Arc::new(writer(&kafka, true));
    let write = tokio::spawn({
        let letters = letters.clone();
        async move { letters.write(record("t", 1), &cause("x"), &lease()).await }
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(letters.metrics().waiting.load(Ordering::Relaxed), 1);
    assert!(letters.metrics().failures.load(Ordering::Relaxed) > 20);
    kafka.fail_next(ProduceErrorKind::DeliveryTimeout { last: "no leader".into() });
    kafka.refuse_creation(None);
    assert_eq!(write.await.expect("no panic"), Ok(()));
    assert_eq!(kafka.records().len(), 1);
    assert_eq!(letters.metrics().waiting.load(Ordering::Relaxed), 0);
    assert_eq!(letters.metrics().written.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_ends_the_waiting() {
    let kafka = Arc::new(MemoryKafka::with_topics(&[("t", 2)]));
    let lease = lease();
    let letters = writer(&kafka, false);
    let (record, cause) = (record("t", 1), cause("x"));
    let write = letters.write(record, &cause, &lease);
    tokio::pin!(write);
    assert!(tokio::time::timeout(Duration::from_secs(5), &mut write).await.is_err());
    lease.lose();
    assert_eq!(write.await, Err(Lost));
    assert_eq!(kafka.partitions("t.dlq"), None, "creation is switched off");
}

#[tokio::test(start_paused = true)]
async fn a_topic_with_the_suffix_is_its_own_dead_letter_topic_and_keeps_the_origin() {
    let kafka = Arc::new(MemoryKafka::with_topics(&[("t", 2), ("t.dlq", 2)]));
    let letters = writer(&kafka, true);
    let first = Cause { stacktrace: Some("old".into()), ..cause("first") };
    letters.write(record("t", 1), &first, &lease()).await.expect("not lost");
    let read = kafka.records().remove(0);
    let again = SourceRecord { topic: "t.dlq".into(), offset: 0, headers: read.headers, ..record("t.dlq", 1) };
    letters.write(again, &cause("second"), &lease()).await.expect("not lost");
    let written = kafka.records().remove(1);
    assert_eq!(&*written.topic, "t.dlq");
    let value = |name: &str| {
        let all: Vec<_> = headers(&written).into_iter().filter(|(found, _)| found == name).collect();
        assert!(all.len() <= 1, "{name} piles up");
        all.into_iter().next().and_then(|(_, value)| value)
    };
    assert_eq!(value(TOPIC).as_deref(), Some("t"));
    assert_eq!(value(OFFSET).as_deref(), Some("41"));
    assert_eq!(value(REASON).as_deref(), Some("second"));
    assert_eq!(value(STACK_TRACE), None);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_is_too_large_goes_without_its_stack_trace() {
    let kafka = Arc::new(MemoryKafka::with_topics(&[("t", 2), ("t.dlq", 2)]));
    kafka.fail_next(ProduceErrorKind::TooLarge { size: 2, limit: Some(1) });
    let cause = Cause { stacktrace: Some("long".into()), ..cause("x") };
    writer(&kafka, true).write(record("t", 0), &cause, &lease()).await.expect("not lost");
    assert!(headers(&kafka.records()[0]).iter().all(|(name, _)| name != STACK_TRACE));
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_is_too_large_without_its_stack_trace_is_held_until_it_is_allowed() {
    let kafka = Arc::new(MemoryKafka::with_topics(&[("t", 2), ("t.dlq", 2)]));
    for limit in [Some(1), None, None, None] {
        kafka.fail_next(ProduceErrorKind::TooLarge { size: 2, limit });
    }
    let letters = writer(&kafka, true);
    let cause = Cause { stacktrace: Some("long".into()), ..cause("x") };
    letters.write(record("t", 0), &cause, &lease()).await.expect("not lost");
    assert_eq!(letters.metrics().failures.load(Ordering::Relaxed), 3, "the one with the stack trace is none");
    let written = headers(&kafka.records()[0]);
    assert!(written.contains(&(REASON.to_owned(), Some("x".to_owned()))), "{written:?}");
    assert!(written.iter().all(|(name, _)| name != STACK_TRACE));
}

#[test]
fn the_setting_that_refuses_a_large_letter_is_named() {
    let too_large = |limit| too_large_for(&ProduceErrorKind::TooLarge { size: 2, limit });
    assert!(too_large(Some(1)).is_some_and(|setting| setting.contains("max.request.size")));
    assert!(too_large(None).is_some_and(|setting| setting.contains("max.message.bytes")));
    assert_eq!(too_large_for(&ProduceErrorKind::UnknownTopic), None);
}

#[test]
fn a_stack_trace_is_cut_between_characters() {
    assert_eq!(cut("aé", 2), "a");
    assert_eq!(cut("aé", 3), "aé");
    assert_eq!(cut("", 3), "");
}
