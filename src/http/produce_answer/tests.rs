use protocol::producer::ProduceError;

use super::*;

fn written(offset: Option<i64>) -> Result<Receipt, RecordFailure> {
    Ok(Receipt { partition: 3, offset, timestamp: 0 })
}

fn failed(outcome: Outcome, kind: ProduceErrorKind) -> Result<Receipt, RecordFailure> {
    Err(RecordFailure::Producer(ProduceError { topic: "t".into(), partition: None, outcome, kind }))
}

fn broker(code: i16) -> Result<Receipt, RecordFailure> {
    failed(Outcome::Rejected, ProduceErrorKind::Broker { code: ErrorCode(code), message: None })
}

fn late() -> Result<Receipt, RecordFailure> {
    failed(Outcome::Unknown, ProduceErrorKind::DeliveryTimeout { last: "no answer from broker 1".into() })
}

fn unfit() -> Result<Receipt, RecordFailure> {
    Err(RecordFailure::Unfit("records[0].value: no".into()))
}

async fn text(response: Response) -> String {
    let body = axum::body::to_bytes(response.into_body(), 100_000).await.expect("body");
    String::from_utf8(body.to_vec()).expect("text")
}

#[tokio::test]
async fn the_entries_keep_the_order_of_the_request() {
    let response = response(&[written(Some(42)), unfit(), written(None)], false);
    assert_eq!(response.status(), 200);
    assert_eq!(
        text(response).await,
        "{\"offsets\":[{\"partition\":3,\"offset\":42},\
          {\"errorCode\":42203,\"error\":\"records[0].value: no\",\"outcome\":\"not_sent\"},\
          {\"partition\":3}],\"requestStatus\":\"OK\"}"
    );
}

#[tokio::test]
async fn no_records_are_no_failure() {
    let response = response(&[], false);
    assert_eq!(response.status(), 200);
    assert_eq!(text(response).await, "{\"offsets\":[],\"requestStatus\":\"OK\"}");
}

#[tokio::test]
async fn where_nothing_was_written_a_status_carries_the_entries() {
    let response = response(&[late()], false);
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "2");
    assert_eq!(
        text(response).await,
        "{\"statusCode\":503,\"code\":\"ERR12615\",\"message\":\"KAFKA_UNAVAILABLE\",\
          \"description\":\"no record was written; records[0]: t: not delivered within delivery.timeout.ms; last: no answer from broker 1 (outcome unknown)\",\
          \"severity\":\"ERROR\",\"offsets\":[{\"errorCode\":50003,\
          \"error\":\"t: not delivered within delivery.timeout.ms; last: no answer from broker 1 (outcome unknown)\",\"outcome\":\"unknown\"}],\
          \"requestStatus\":\"OK\"}"
    );
}

#[tokio::test]
async fn a_partition_that_is_not_there_is_told_with_its_field() {
    let missing = failed(Outcome::NotSent, ProduceErrorKind::UnknownPartition { partitions: 2 });
    let response = response(&[missing], false);
    assert_eq!(response.status(), 422);
    let text = text(response).await;
    assert!(text.contains("records[0].partition: t: no such partition: the topic has 2"), "{text}");
}

#[test]
fn what_happened_to_all_records_decides_the_status() {
    let closed = || failed(Outcome::NotSent, ProduceErrorKind::Closed);
    let no_topic = || failed(Outcome::NotSent, ProduceErrorKind::UnknownTopic);
    let no_partition = || failed(Outcome::NotSent, ProduceErrorKind::UnknownPartition { partitions: 2 });
    let large = || failed(Outcome::NotSent, ProduceErrorKind::TooLarge { size: 9, limit: Some(8) });
    let no_room = || Err(RecordFailure::NoRoom);
    for (report, status, code, compatible) in [
        (vec![broker(58)], 401, "ERR12611", 200),
        (vec![broker(29), unfit()], 403, "ERR12612", 200),
        (vec![broker(31)], 403, "ERR12612", 200),
        (vec![no_topic(), no_topic()], 404, "ERR12613", 200),
        (vec![broker(3)], 404, "ERR12613", 200),
        (vec![large(), broker(10)], 413, "ERR12614", 200),
        (vec![broker(18)], 413, "ERR12614", 200),
        (vec![large(), unfit()], 422, "ERR12206", 400),
        (vec![unfit(), unfit()], 422, "ERR12206", 400),
        (vec![no_partition()], 422, "ERR12206", 400),
        (vec![broker(87)], 422, "ERR12206", 400),
        (vec![no_room()], 503, "ERR12615", 200),
        (vec![closed(), unfit()], 503, "ERR12615", 200),
        (vec![late(), large()], 503, "ERR12615", 200),
        (vec![written(Some(1)), broker(29)], 200, "", 200),
        (vec![written(None), late(), unfit(), large()], 200, "", 200),
    ] {
        assert_eq!(response(&report, false).status(), status, "{report:?}");
        assert_eq!(response(&report, true).status(), compatible, "{report:?}");
        let classes: Vec<_> = report.iter().filter_map(|result| result.as_ref().err().map(class)).collect();
        if status != 200 {
            assert_eq!(verdict(&classes).code(), code, "{report:?}");
        }
    }
}

#[test]
fn every_failure_has_its_number() {
    for (failure, expected) in [
        (broker(58), 40101),
        (broker(29), 40301),
        (broker(3), 40401),
        (failed(Outcome::NotSent, ProduceErrorKind::UnknownPartition { partitions: 1 }), 40402),
        (broker(10), 41301),
        (unfit(), 42203),
        (broker(87), 42203),
        (Err(RecordFailure::NoRoom), 50302),
        (late(), 50003),
    ] {
        assert_eq!(number(&failure.expect_err("failed")), expected);
    }
}

#[tokio::test]
async fn a_refusal_by_the_broker_shows_in_the_request_status_even_beside_written_records() {
    for (code, word) in [(58, "UNAUTHORIZED"), (29, "FORBIDDEN"), (10, "OK")] {
        let text = text(response(&[written(Some(0)), broker(code)], false)).await;
        assert!(text.ends_with(&format!("\"requestStatus\":\"{word}\"}}")), "{text}");
    }
}
