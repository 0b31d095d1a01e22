//! Produce requests as no good client sends them, and what the broker says.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use kafka_protocol::messages::{
    InitProducerIdRequest, ProduceRequest, ProducerId,
    produce_request::{PartitionProduceData, TopicProduceData},
    produce_response::PartitionProduceResponse,
};
use protocol::{
    error_code::ErrorCode,
    record::{BatchBuilder, BatchHeader, Compression, RawBatch},
};
use uuid::Uuid;

use super::{
    bed::Bed,
    raw::{Codes, Raw, ready_topic, topic_name},
    records::configured_topic,
};

/// Some time that every broker takes.
const TIME: i64 = 1_700_000_000_000;
const ALL: i16 = -1;

/// A batch of so many records.
pub(super) fn batch(records: usize) -> Result<RawBatch> {
    let mut builder = BatchBuilder::new(Compression::None, None, 0);
    for _ in 0..records {
        builder.append(TIME, Some(b"k"), Some(b"value"), &[])?;
    }
    Ok(RawBatch::try_from(builder.seal()?.bytes())?)
}

/// The batch under another header, with a CRC that fits.
pub(super) fn with(batch: &RawBatch, change: impl FnOnce(&mut BatchHeader)) -> Result<Bytes> {
    let mut header = batch.header;
    change(&mut header);
    Ok(RawBatch::assemble(header, &batch.payload())?.bytes)
}

/// Produces these bytes to one partition, naming the topic, in version 9.
pub(super) async fn produce(
    raw: &mut Raw,
    topic: &str,
    partition: i32,
    records: Bytes,
) -> Result<PartitionProduceResponse> {
    produce_with(raw, 9, ALL, topic, Uuid::nil(), partition, records).await
}

async fn produce_with(
    raw: &mut Raw,
    version: i16,
    acks: i16,
    topic: &str,
    id: Uuid,
    partition: i32,
    records: Bytes,
) -> Result<PartitionProduceResponse> {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let topic =
        TopicProduceData::default().with_name(topic_name(topic)).with_topic_id(id).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(acks).with_timeout_ms(10_000).with_topic_data(vec![topic]);
    let answer = raw.ask(version, &request).await?;
    let topic = answer.responses.into_iter().next().context("a topic")?;
    topic.partition_responses.into_iter().next().context("a partition")
}

/// The id that the broker gives to a producer.
async fn producer_id(raw: &mut Raw) -> Result<i64> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    loop {
        let answer = raw.ask(4, &request).await?;
        if answer.error_code == 0 {
            return Ok(answer.producer_id.0);
        }
    }
}

pub(super) async fn sequences_are_checked(bed: &Bed) -> Result<()> {
    ready_topic(bed, "raw-sequences", 1).await?;
    let mut raw = bed.raw().await?;
    let id = producer_id(&mut raw).await?;
    let mut codes = Codes::default();
    let ten = batch(10)?;
    // What is sent, and the offset or the error that comes back.
    for (what, epoch, sequence, expected) in [
        ("the first batch", 3, 0, Ok(0)),
        ("the next one", 3, 10, Ok(10)),
        ("a gap", 3, 30, Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER)),
        ("the last one again", 3, 10, Ok(10)),
        ("the first one again", 3, 0, Ok(0)),
        ("the third", 3, 20, Ok(20)),
        ("the fourth", 3, 30, Ok(30)),
        ("the fifth", 3, 40, Ok(40)),
        ("the sixth", 3, 50, Ok(50)),
        ("the fifth last again", 3, 10, Ok(10)),
        ("the sixth last again", 3, 0, Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER)),
        ("half of one again", 3, 55, Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER)),
        ("an older epoch", 2, 60, Err(ErrorCode::INVALID_PRODUCER_EPOCH)),
        ("an older epoch, repeating", 2, 50, Err(ErrorCode::INVALID_PRODUCER_EPOCH)),
        ("a newer epoch in the middle", 4, 60, Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER)),
        ("a newer epoch from the start", 4, 0, Ok(60)),
        ("the former epoch", 3, 60, Err(ErrorCode::INVALID_PRODUCER_EPOCH)),
        ("after the refusals", 4, 10, Ok(70)),
    ] {
        let stamped = with(&ten, |header| {
            (header.producer_id, header.producer_epoch, header.base_sequence) = (id, epoch, sequence);
        })?;
        let answer = produce(&mut raw, "raw-sequences", 0, stamped).await?;
        codes.check(what, answer.error_code, expected.err().unwrap_or(ErrorCode::NONE));
        codes.same(what, answer.base_offset, expected.unwrap_or(-1));
    }
    let unheard_of = producer_id(&mut raw).await?;
    let stamped = with(&ten, |header| {
        (header.producer_id, header.producer_epoch, header.base_sequence) = (unheard_of, 7, 33);
    })?;
    let answer = produce(&mut raw, "raw-sequences", 0, stamped).await?;
    codes.check("a producer that the partition does not know, in the middle", answer.error_code, ErrorCode::NONE);
    codes.end()
}

pub(super) async fn sequences_go_on_at_zero_after_the_largest(bed: &Bed) -> Result<()> {
    ready_topic(bed, "raw-wrapping", 1).await?;
    let mut raw = bed.raw().await?;
    let id = producer_id(&mut raw).await?;
    let mut codes = Codes::default();
    let ten = batch(10)?;
    for (what, sequence, expected) in [
        ("near the largest", i32::MAX - 14, ErrorCode::NONE),
        ("over it", i32::MAX - 4, ErrorCode::NONE),
        ("over it, again", i32::MAX - 4, ErrorCode::NONE),
        ("from zero", 0, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER),
        ("after it", 5, ErrorCode::NONE),
    ] {
        let stamped = with(&ten, |header| {
            (header.producer_id, header.producer_epoch, header.base_sequence) = (id, 0, sequence);
        })?;
        codes.check(what, produce(&mut raw, "raw-wrapping", 0, stamped).await?.error_code, expected);
    }
    codes.end()
}

pub(super) async fn batches_that_are_no_good_are_refused(bed: &Bed) -> Result<()> {
    ready_topic(bed, "raw-batches", 1).await?;
    let mut raw = bed.raw().await?;
    let mut codes = Codes::default();
    let good = batch(3)?;
    let byte = |at: usize, value: u8| {
        let mut bytes = good.bytes.to_vec();
        bytes[at] = value;
        Bytes::from(bytes)
    };
    let last = good.bytes.len() - 1;
    let rows = [
        ("a good one", good.bytes.clone(), ErrorCode::NONE),
        ("nothing", Bytes::new(), ErrorCode::INVALID_RECORD),
        ("half of one", good.bytes.slice(..70), ErrorCode::INVALID_RECORD),
        ("two", [good.bytes.clone(), good.bytes.clone()].concat().into(), ErrorCode::INVALID_RECORD),
        ("one of format 1", byte(16, 1), ErrorCode::INVALID_RECORD),
        ("one of format 3", byte(16, 3), ErrorCode::CORRUPT_MESSAGE),
        ("a flipped bit", byte(last, 0x55), ErrorCode::CORRUPT_MESSAGE),
        ("a length below a header's", byte(11, 5), ErrorCode::CORRUPT_MESSAGE),
        ("a base offset", with(&good, |h| h.base_offset = 5)?, ErrorCode::INVALID_RECORD),
        ("a control batch", with(&good, |h| h.attributes |= 0x20)?, ErrorCode::INVALID_RECORD),
        ("a count that is too small", with(&good, |h| h.record_count = 2)?, ErrorCode::INVALID_RECORD),
        (
            "a huge count",
            with(&good, |h| (h.record_count, h.last_offset_delta) = (i32::MAX, i32::MAX - 1))?,
            ErrorCode::INVALID_RECORD,
        ),
        ("no sequence", with(&good, |h| (h.producer_id, h.producer_epoch) = (1, 0))?, ErrorCode::INVALID_RECORD),
        ("what is not zstd", with(&good, |h| h.attributes |= 4)?, ErrorCode::UNKNOWN_SERVER_ERROR),
        ("an unknown codec", with(&good, |h| h.attributes |= 7)?, ErrorCode::UNKNOWN_SERVER_ERROR),
        (
            "a transaction without its id",
            with(&good, |h| {
                h.attributes |= 0x10;
                (h.producer_id, h.producer_epoch, h.base_sequence) = (1, 0, 0);
            })?,
            ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ),
        ("another good one", good.bytes.clone(), ErrorCode::NONE),
    ];
    for (what, bytes, expected) in rows {
        let answer = produce(&mut raw, "raw-batches", 0, bytes).await.context(what)?;
        codes.check(what, answer.error_code, expected);
    }
    let zstd = {
        let mut builder = BatchBuilder::new(Compression::Zstd, None, 0);
        builder.append(TIME, None, Some(b"value"), &[])?;
        builder.seal()?.bytes()
    };
    for (what, version, expected) in
        [("zstd in version 6", 6, ErrorCode::UNSUPPORTED_COMPRESSION_TYPE), ("zstd in version 7", 7, ErrorCode::NONE)]
    {
        let answer = produce_with(&mut raw, version, ALL, "raw-batches", Uuid::nil(), 0, zstd.clone()).await?;
        codes.check(what, answer.error_code, expected);
    }
    codes.end()
}

pub(super) async fn what_the_topic_does_not_take_is_refused(bed: &Bed) -> Result<()> {
    ready_topic(bed, "raw-topic", 1).await?;
    let mut raw = bed.raw().await?;
    let mut codes = Codes::default();
    let good = batch(3)?;
    for (what, topic, partition, expected) in [
        ("an unknown topic", "raw-nowhere", 0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        ("an unknown partition", "raw-topic", 1, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        ("a partition below zero", "raw-topic", -1, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
    ] {
        codes.check(what, produce(&mut raw, topic, partition, good.bytes.clone()).await?.error_code, expected);
    }
    let answer = produce_with(&mut raw, 9, 2, "raw-topic", Uuid::nil(), 0, good.bytes.clone()).await?;
    codes.check("acks of 2", answer.error_code, ErrorCode::INVALID_REQUIRED_ACKS);
    if raw.serves::<ProduceRequest>(13).await? {
        let id = Uuid::from_u128(0x1234);
        let answer = produce_with(&mut raw, 13, ALL, "", id, 0, good.bytes.clone()).await?;
        codes.check("an unknown topic id", answer.error_code, ErrorCode::UNKNOWN_TOPIC_ID);
    }
    configured_topic(bed, "raw-small", "max.message.bytes", "100").await?;
    configured_topic(bed, "raw-compacted", "cleanup.policy", "compact").await?;
    configured_topic(bed, "raw-punctual", "message.timestamp.after.max.ms", "3600000").await?;
    for topic in ["raw-small", "raw-compacted", "raw-punctual"] {
        ready_topic(bed, topic, 1).await?;
    }
    let mut keyless = BatchBuilder::new(Compression::None, None, 0);
    for key in [Some(&b"k"[..]), None, Some(b"k"), None] {
        keyless.append(TIME, key, Some(b"v"), &[])?;
    }
    let mut tomorrow = BatchBuilder::new(Compression::None, None, 0);
    tomorrow.append(4_000_000_000_000, None, Some(b"v"), &[])?;
    let culprits = |answer: &PartitionProduceResponse| {
        answer.record_errors.iter().map(|record| record.batch_index).collect::<Vec<_>>()
    };
    for (what, topic, bytes, expected, records) in [
        ("one that is too large", "raw-small", batch(10)?.bytes, ErrorCode::MESSAGE_TOO_LARGE, vec![]),
        ("no key", "raw-compacted", keyless.seal()?.bytes(), ErrorCode::INVALID_RECORD, vec![1, 3]),
        ("the far future", "raw-punctual", tomorrow.seal()?.bytes(), ErrorCode::INVALID_TIMESTAMP, vec![0]),
    ] {
        let answer = produce(&mut raw, topic, 0, bytes).await?;
        codes.check(what, answer.error_code, expected);
        codes.same(what, culprits(&answer), records);
    }
    codes.end()
}
