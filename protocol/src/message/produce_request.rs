//! A Produce request, assembled around sealed record batches.
//!
//! Knows versions 3 to 13; does not look into the batches. The generated request would want each batch inside a tree of
//! its own; here they are copied once, into the frame.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use uuid::Uuid;

use crate::wire;

use super::error::EncodeError;
use super::header;

const MIN_VERSION: i16 = 3;
const MAX_VERSION: i16 = 13;
const FLEXIBLE: i16 = 9;
const TOPIC_IDS: i16 = 13;

/// Batches for one broker. A broker takes exactly one batch for each partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawProduce {
    /// 0, 1 or -1 (all in-sync replicas).
    pub acks: i16,
    /// How long the broker may wait for its replicas, in milliseconds.
    pub timeout_ms: i32,
    pub transactional_id: Option<Arc<str>>,
    pub topics: Vec<ProduceTopic>,
}

/// The batches of one topic. Version 13 and above send the id, older ones the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceTopic {
    pub name: Arc<str>,
    /// Nil when the cluster has no topic ids.
    pub id: Uuid,
    /// Partition index and its one sealed batch.
    pub partitions: Vec<(i32, Bytes)>,
}

impl RawProduce {
    /// Writes the request's header and body, without the four bytes of length in front of a frame.
    ///
    /// # Errors
    /// When the version is not known, a name or the client id is too long, or version 13 is asked for without a topic
    /// id.
    pub fn encode(&self, version: i16, correlation_id: i32, client_id: &str) -> Result<BytesMut, EncodeError> {
        let fault = |reason| EncodeError { api: "Produce", version, reason };
        if !(MIN_VERSION..=MAX_VERSION).contains(&version) {
            return Err(fault(format!("version is outside {MIN_VERSION} to {MAX_VERSION}")));
        }
        let flexible = version >= FLEXIBLE;
        let mut out = BytesMut::with_capacity(self.max_len(client_id));
        let header_version = if flexible { 2 } else { 1 };
        header::put_request_header(
            &mut out,
            ApiKey::Produce as i16,
            version,
            header_version,
            correlation_id,
            client_id,
        )?;
        match &self.transactional_id {
            Some(id) => put_string(&mut out, id, flexible).map_err(fault)?,
            None if flexible => out.put_u8(0),
            None => out.put_i16(-1),
        }
        out.put_i16(self.acks);
        out.put_i32(self.timeout_ms);
        put_len(&mut out, self.topics.len(), flexible).map_err(fault)?;
        for topic in &self.topics {
            if version < TOPIC_IDS {
                put_string(&mut out, &topic.name, flexible).map_err(fault)?;
            } else if topic.id.is_nil() {
                return Err(fault(format!("topic {} has no id", topic.name)));
            } else {
                out.put_slice(topic.id.as_bytes());
            }
            put_len(&mut out, topic.partitions.len(), flexible).map_err(fault)?;
            for (partition, batch) in &topic.partitions {
                out.put_i32(*partition);
                put_len(&mut out, batch.len(), flexible).map_err(fault)?;
                out.put_slice(batch);
                put_no_tagged_fields(&mut out, flexible);
            }
            put_no_tagged_fields(&mut out, flexible);
        }
        put_no_tagged_fields(&mut out, flexible);
        Ok(out)
    }

    /// The length of the frame, at most: so that it is allocated once.
    fn max_len(&self, client_id: &str) -> usize {
        let partition = |(_, batch): &(i32, Bytes)| 4 + 5 + batch.len() + 1;
        let topic = |topic: &ProduceTopic| {
            5 + topic.name.len().max(16) + 5 + topic.partitions.iter().map(partition).sum::<usize>() + 1
        };
        let transactional_id = 5 + self.transactional_id.as_ref().map_or(0, |id| id.len());
        let fixed = header::request_header_len(client_id) + transactional_id + 2 + 4 + 5 + 1;
        fixed + self.topics.iter().map(topic).sum::<usize>()
    }
}

fn put_string(out: &mut BytesMut, value: &str, flexible: bool) -> Result<(), String> {
    let len = i16::try_from(value.len())
        .map_err(|_| format!("a string of {} bytes, at most 32767 can be sent", value.len()))?;
    match flexible {
        true => put_len(out, value.len(), true)?,
        false => out.put_i16(len),
    }
    out.put_slice(value.as_bytes());
    Ok(())
}

/// The length of an array or of a byte field.
fn put_len(out: &mut BytesMut, len: usize, flexible: bool) -> Result<(), String> {
    let len = i32::try_from(len).map_err(|_| format!("{len} bytes or elements in one field"))?;
    if !flexible {
        out.put_i32(len);
        return Ok(());
    }
    wire::put_uvarint(out, len.unsigned_abs() + 1);
    Ok(())
}

fn put_no_tagged_fields(out: &mut BytesMut, flexible: bool) {
    if flexible {
        out.put_u8(0);
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::ProduceRequest;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::protocol::StrBytes;

    use super::super::encode_request;
    use super::*;

    fn request(id: Uuid) -> RawProduce {
        let batch = |len: usize| Bytes::from(vec![7; len]);
        RawProduce {
            acks: -1,
            timeout_ms: 30_000,
            transactional_id: None,
            topics: vec![
                ProduceTopic { name: "orders".into(), id, partitions: vec![(0, batch(61)), (3, batch(200))] },
                ProduceTopic { name: "x".repeat(300).into(), id, partitions: vec![(1, batch(20_000))] },
            ],
        }
    }

    #[test]
    fn the_frame_is_the_one_that_the_generated_request_makes() {
        let id = Uuid::from_u128(5);
        for (version, transactional_id) in (3..=13).flat_map(|version| [(version, None), (version, Some("t"))]) {
            let raw = RawProduce { transactional_id: transactional_id.map(Arc::from), ..request(id) };
            let topics = raw.topics.iter().map(|topic| {
                let partitions = topic.partitions.iter().map(|(index, batch)| {
                    PartitionProduceData::default().with_index(*index).with_records(Some(batch.clone()))
                });
                let data = TopicProduceData::default().with_partition_data(partitions.collect());
                match version {
                    13.. => data.with_topic_id(topic.id),
                    _ => data.with_name(StrBytes::from_string(topic.name.to_string()).into()),
                }
            });
            let generated = ProduceRequest::default()
                .with_acks(raw.acks)
                .with_timeout_ms(raw.timeout_ms)
                .with_transactional_id(transactional_id.map(|id| StrBytes::from_static_str(id).into()))
                .with_topic_data(topics.collect());
            let frame = raw.encode(version, 42, "sidecar").unwrap();
            assert_eq!(frame, encode_request(&generated, version, 42, "sidecar").unwrap(), "v{version}");
        }
    }

    #[test]
    fn the_frame_is_allocated_once() {
        let raw = request(Uuid::from_u128(5));
        for version in 3..=13 {
            assert!(raw.encode(version, 1, "sidecar").unwrap().len() <= raw.max_len("sidecar"));
        }
    }

    #[test]
    fn what_a_broker_could_not_read_is_not_written() {
        let long = "x".repeat(40_000);
        let named = |name: &str| RawProduce {
            topics: vec![ProduceTopic { name: name.into(), id: Uuid::nil(), partitions: Vec::new() }],
            ..request(Uuid::nil())
        };
        let cases = [
            (named("a").encode(13, 1, "c"), "Produce v13 cannot be written: topic a has no id"),
            (named("a").encode(2, 1, "c"), "Produce v2 cannot be written: version is outside 3 to 13"),
            (
                named(&long).encode(3, 1, "c"),
                "Produce v3 cannot be written: a string of 40000 bytes, at most 32767 can be sent",
            ),
            (
                named(&long).encode(9, 1, "c"),
                "Produce v9 cannot be written: a string of 40000 bytes, at most 32767 can be sent",
            ),
            (
                named("a").encode(9, 1, &long),
                "Produce v9 cannot be written: the client id has 40000 bytes, at most 32767 can be sent",
            ),
        ];
        for (result, expected) in cases {
            assert_eq!(result.unwrap_err().to_string(), expected);
        }
    }
}
