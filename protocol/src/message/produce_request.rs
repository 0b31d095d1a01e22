//! A Produce request, assembled around sealed record batches.
//!
//! Knows versions 3 to 13; does not look into the batches. The generated request would want each batch inside a tree of its own; here
//! they are copied once, into the frame.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use uuid::Uuid;

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
    /// When the version is not known, a name or the client id is too long, or version 13 is asked for without a topic id.
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
    let mut rest = len.unsigned_abs() + 1;
    while rest >= 0x80 {
        out.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
    Ok(())
}

fn put_no_tagged_fields(out: &mut BytesMut, flexible: bool) {
    if flexible {
        out.put_u8(0);
    }
}
