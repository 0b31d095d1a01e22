use super::*;
use crate::record::memory::MemoryKafka;

fn entry(offset: i64) -> AuditEntry {
    AuditEntry {
        audit_type: AuditType::Producer,
        topic: "t".into(),
        partition: Some(0),
        offset: Some(offset),
        correlation_id: format!("c{offset}"),
        traceability_id: None,
        key: None,
        success: true,
        stacktrace: None,
        timestamp: None,
    }
}

fn settings(target: AuditTarget, file: PathBuf) -> settings::Audit {
    settings::Audit { enabled: true, target, topic: "audit".into(), file, file_max_bytes: 1 << 20, file_max_history: 1 }
}

fn to_topic(kafka: &Arc<MemoryKafka>) -> (Audit, AuditWriter) {
    let settings = settings(AuditTarget::Topic, PathBuf::new());
    open(&settings, "s", kafka.clone(), kafka.clone(), true).expect("a topic needs nothing")
}

#[tokio::test(start_paused = true)]
async fn an_entry_is_acknowledged_when_the_broker_has_it_and_the_missing_topic_is_made() {
    let kafka = Arc::new(MemoryKafka::default());
    let (audit, writer) = to_topic(&kafka);
    let task = tokio::spawn(writer.run(CancellationToken::new()));
    let ack = audit.record(entry(7)).await.expect("room");
    assert_eq!(ack.await, Ok(()));
    let written = kafka.records().remove(0);
    assert_eq!((&*written.topic, written.key.as_deref()), ("audit", Some(&b"c7"[..])));
    let value = String::from_utf8(written.value.expect("a value").to_vec()).expect("UTF-8");
    assert!(value.contains(r#""auditType":"PRODUCER""#) && !value.contains("null"), "{value}");
    drop(audit);
    assert_eq!(task.await.expect("no panic"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_slows_its_callers_and_drops_nothing() {
    let kafka = Arc::new(MemoryKafka::with_topics(&[("audit", 1)]));
    kafka.hold(true);
    let (audit, writer) = to_topic(&kafka);
    let metrics = audit.metrics().clone();
    let task = tokio::spawn(writer.run(CancellationToken::new()));
    let caller = tokio::spawn(async move {
        for offset in 0..3000 {
            audit.record(entry(offset)).await.expect("the writer lives");
        }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!caller.is_finished());
    assert_eq!(metrics.pending.load(Ordering::Relaxed), (QUEUE + 512) as u64);
    kafka.hold(false);
    caller.await.expect("no panic");
    assert_eq!(task.await.expect("no panic"), 0);
    let mut keys: Vec<_> = kafka.records().into_iter().map(|record| record.key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 3000);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_cannot_be_made_is_tried_until_it_can() {
    let kafka = Arc::new(MemoryKafka::default());
    kafka.refuse_creation(Some("denied"));
    let (audit, writer) = to_topic(&kafka);
    let task = tokio::spawn(writer.run(CancellationToken::new()));
    let mut ack = audit.record(entry(1)).await.expect("room");
    assert!(tokio::time::timeout(Duration::from_secs(30), &mut ack).await.is_err());
    assert!(audit.metrics().failures.load(Ordering::Relaxed) > 10);
    kafka.refuse_creation(None);
    assert_eq!(ack.await, Ok(()));
    drop(audit);
    task.await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_the_writer_says_what_it_left() {
    let kafka = Arc::new(MemoryKafka::with_topics(&[("audit", 1)]));
    kafka.hold(true);
    let (audit, writer) = to_topic(&kafka);
    let give_up = CancellationToken::new();
    let task = tokio::spawn(writer.run(give_up.clone()));
    let ack = audit.record(entry(1)).await.expect("room");
    give_up.cancel();
    assert_eq!(task.await.expect("no panic"), 1);
    assert_eq!(ack.await, Err(NotWritten));
    assert!(audit.record(entry(2)).await.is_err());
}

#[tokio::test]
async fn a_file_has_one_line_per_entry_when_the_handles_are_gone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log/sidecar-audit.log");
    let kafka = Arc::new(MemoryKafka::default());
    let settings = settings(AuditTarget::LogFile, path.clone());
    let (audit, writer) = open(&settings, "s", kafka.clone(), kafka, true).expect("opened");
    let task = tokio::spawn(writer.run(CancellationToken::new()));
    for offset in 0..600 {
        audit.record(entry(offset)).await.expect("room");
    }
    drop(audit);
    assert_eq!(task.await.expect("no panic"), 0);
    let text = std::fs::read_to_string(path).expect("there");
    assert_eq!(text.lines().count(), 600);
    for (offset, line) in text.lines().enumerate() {
        assert!(line.contains(&format!(r#""offset":{offset},"#)) && line.contains(r#""key":null"#), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_crashes_goes_on_and_no_entry_is_lost_or_holds_another() {
    let kafka = Arc::new(MemoryKafka::with_topics(&[("audit", 1)]));
    kafka.crash_next(7);
    let (audit, writer) = to_topic(&kafka);
    let metrics = audit.metrics().clone();
    let task = tokio::spawn(writer.run(CancellationToken::new()));
    let mut acks = Vec::new();
    for offset in 0..700 {
        acks.push(audit.record(entry(offset)).await.expect("room"));
    }
    drop(audit);
    for ack in acks {
        assert_eq!(ack.await, Ok(()));
    }
    assert_eq!(task.await.expect("no panic"), 0);
    let keys: std::collections::BTreeSet<_> = kafka.records().into_iter().map(|record| record.key).collect();
    assert_eq!((keys.len(), kafka.records().len()), (700, 700));
    assert_eq!(metrics.restarts.load(Ordering::Relaxed), 7);
    assert_eq!(metrics.pending.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_a_file_gets_the_lines_that_it_does_not_have_yet() {
    let (sender, queue) = mpsc::channel(QUEUE);
    let metrics = Arc::<AuditMetrics>::default();
    let audit = Audit { queue: sender, metrics: metrics.clone() };
    for offset in 0..600 {
        audit.record(entry(offset)).await.expect("room");
    }
    let mut ack = audit.record(entry(600)).await.expect("room");
    drop(audit);
    let written = Arc::<std::sync::Mutex<Vec<Vec<u8>>>>::default();
    let into = written.clone();
    let mut calls = 0;
    let append = move |lines: &mut std::collections::VecDeque<Vec<u8>>| {
        calls += 1;
        let take = if calls == 2 { 100 } else { lines.len() };
        into.lock().expect("whole").extend(lines.drain(..take));
        assert!(calls != 2, "after {take} lines");
        Ok(())
    };
    write_lines("memory", append, queue, "s", &metrics).await;
    assert_eq!((&mut ack).await, Ok(()));
    let written = written.lock().expect("whole");
    assert_eq!(written.len(), 601);
    for (offset, line) in written.iter().enumerate() {
        assert!(String::from_utf8_lossy(line).contains(&format!(r#""offset":{offset},"#)), "{offset}");
    }
    assert_eq!((metrics.restarts.load(Ordering::Relaxed), metrics.failures.load(Ordering::Relaxed)), (1, 1));
}
