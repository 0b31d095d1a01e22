//! A Fetch response, walked without building the generated tree.
//!
//! Knows versions 4 to 18 and where each partition's records lie; does not look into the records. Its main type is
//! [`FetchResponse`]: one flat list of [`FetchedPartition`]s whose records are slices of the frame.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::error_code::ErrorCode;

use super::cursor::Cursor;
use super::error::{DecodeError, Direction, Reason};

const MIN_VERSION: i16 = 4;
const MAX_VERSION: i16 = 18;
const FLEXIBLE: i16 = 12;
const TOPIC_IDS: i16 = 13;

/// What a broker answered to a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchResponse {
    /// How long the broker asks to be left alone (KIP-219), in milliseconds.
    pub throttle_time_ms: i32,
    /// The error of the whole request; that of the fetch session, mostly. None before version 7.
    pub error: ErrorCode,
    /// 0 when there is no session (KIP-227).
    pub session_id: i32,
    pub partitions: Vec<FetchedPartition>,
    /// Where the leaders named in `current_leader` listen (version 16 and above, KIP-951).
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// How a response names a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TopicKey {
    /// Up to version 12.
    Name(StrBytes),
    /// From version 13 on (KIP-516).
    Id(Uuid),
}

/// One partition's part of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedPartition {
    pub topic: TopicKey,
    pub partition: i32,
    pub error: ErrorCode,
    pub high_watermark: i64,
    /// -1 when the broker does not say.
    pub last_stable_offset: i64,
    /// -1 when the broker does not say, and before version 5.
    pub log_start_offset: i64,
    /// In the order of the response; empty for `read_uncommitted`.
    pub aborted_transactions: Vec<AbortedTransaction>,
    /// The replica to fetch from instead (KIP-392).
    pub preferred_read_replica: Option<i32>,
    /// Set when the log has diverged from what this consumer has read (KIP-595).
    pub diverging_epoch: Option<DivergingEpoch>,
    /// Set when the partition is led by another broker (KIP-951).
    pub current_leader: Option<CurrentLeader>,
    /// Record batches, the last one possibly cut off. A slice of the frame: holding it holds the frame.
    pub records: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DivergingEpoch {
    pub epoch: i32,
    pub end_offset: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CurrentLeader {
    pub leader: i32,
    pub epoch: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEndpoint {
    pub node: i32,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

impl FetchResponse {
    /// Reads the body of a response of this version; the header has been taken off.
    ///
    /// # Errors
    /// When the bytes are not exactly such a response.
    pub fn decode(version: i16, body: &Bytes) -> Result<Self, DecodeError> {
        let cursor = Cursor::new(body);
        let mut walk = Walk { body, cursor, version, flexible: version >= FLEXIBLE, topic: None, partition: None };
        if !(MIN_VERSION..=MAX_VERSION).contains(&version) {
            return Err(walk.fault("", Reason::UnknownVersion { min: MIN_VERSION, max: MAX_VERSION }));
        }
        let mut response = Self {
            throttle_time_ms: walk.get("throttle_time_ms", Cursor::i32)?,
            error: if version >= 7 { ErrorCode(walk.get("error_code", Cursor::i16)?) } else { ErrorCode::NONE },
            session_id: if version >= 7 { walk.get("session_id", Cursor::i32)? } else { 0 },
            partitions: Vec::new(),
            node_endpoints: Vec::new(),
        };
        let topics = walk.count("responses", walk.min_topic_len())?;
        for topic in 0..topics {
            walk.topic = Some(topic);
            walk.topic(&mut response.partitions)?;
        }
        walk.topic = None;
        walk.tagged(|walk, tag, mut value| {
            if tag == 0 && version >= 16 {
                response.node_endpoints = walk.inner("node_endpoints", tag, &mut value, node_endpoints)?;
            }
            Ok(())
        })?;
        match walk.cursor.left() {
            0 => Ok(response),
            left => Err(walk.fault("", Reason::LeftOver(left))),
        }
    }
}

/// Where the walk stands. Nothing is reserved by a claimed count: lists grow as elements turn out to be there.
struct Walk<'a> {
    body: &'a Bytes,
    cursor: Cursor<'a>,
    version: i16,
    flexible: bool,
    topic: Option<usize>,
    partition: Option<usize>,
}

impl<'a> Walk<'a> {
    fn topic(&mut self, out: &mut Vec<FetchedPartition>) -> Result<(), DecodeError> {
        let flexible = self.flexible;
        let topic = if self.version >= TOPIC_IDS {
            TopicKey::Id(Uuid::from_bytes(self.get("topic_id", Cursor::array)?))
        } else {
            let name = self.get("topic", |cursor| cursor.string(flexible)?.ok_or(Reason::Null))?;
            let name = StrBytes::from_utf8(self.body.slice_ref(name.as_bytes()));
            TopicKey::Name(name.map_err(|_| self.fault("topic", Reason::BadUtf8))?)
        };
        let partitions = self.count("partitions", self.min_partition_len())?;
        for partition in 0..partitions {
            self.partition = Some(partition);
            let partition = self.partition(topic.clone())?;
            out.push(partition);
        }
        self.partition = None;
        self.tagged(|_, _, _| Ok(()))
    }

    fn partition(&mut self, topic: TopicKey) -> Result<FetchedPartition, DecodeError> {
        let (version, flexible) = (self.version, self.flexible);
        let mut partition = FetchedPartition {
            topic,
            partition: self.get("partition_index", Cursor::i32)?,
            error: ErrorCode(self.get("error_code", Cursor::i16)?),
            high_watermark: self.get("high_watermark", Cursor::i64)?,
            last_stable_offset: self.get("last_stable_offset", Cursor::i64)?,
            log_start_offset: if version >= 5 { self.get("log_start_offset", Cursor::i64)? } else { -1 },
            aborted_transactions: self.get("aborted_transactions", |cursor| aborted_transactions(cursor, flexible))?,
            preferred_read_replica: None,
            diverging_epoch: None,
            current_leader: None,
            records: Bytes::new(),
        };
        if version >= 11 {
            let replica = self.get("preferred_read_replica", Cursor::i32)?;
            partition.preferred_read_replica = (replica >= 0).then_some(replica);
        }
        if let Some(records) = self.get("records", |cursor| cursor.bytes(flexible))? {
            partition.records = self.body.slice_ref(records);
        }
        self.tagged(|walk, tag, mut value| {
            match tag {
                0 => {
                    let (epoch, end_offset) = walk.inner("diverging_epoch", tag, &mut value, |cursor| {
                        let read = (cursor.i32()?, cursor.i64()?);
                        skip_tagged(cursor).map(|()| read)
                    })?;
                    let known = epoch >= 0 && end_offset >= 0;
                    partition.diverging_epoch = known.then_some(DivergingEpoch { epoch, end_offset });
                }
                1 => {
                    let (leader, epoch) = walk.inner("current_leader", tag, &mut value, |cursor| {
                        let read = (cursor.i32()?, cursor.i32()?);
                        skip_tagged(cursor).map(|()| read)
                    })?;
                    partition.current_leader = (leader >= 0).then_some(CurrentLeader { leader, epoch });
                }
                // Of a KRaft controller's log: not a consumer's business, but no excuse for a lie.
                2 => walk.inner("snapshot_id", tag, &mut value, |cursor| {
                    cursor.i64()?;
                    cursor.i32()?;
                    skip_tagged(cursor)
                })?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(partition)
    }

    fn get<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Cursor<'a>) -> Result<T, Reason>,
    ) -> Result<T, DecodeError> {
        read(&mut self.cursor).map_err(|reason| self.fault(field, reason))
    }

    fn count(&mut self, field: &'static str, min_len: usize) -> Result<usize, DecodeError> {
        let flexible = self.flexible;
        self.get(field, |cursor| cursor.count(flexible, min_len)?.ok_or(Reason::Null))
    }

    fn tagged(
        &mut self,
        mut each: impl FnMut(&Self, u32, Cursor<'a>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        if !self.flexible {
            return Ok(());
        }
        let mut cursor = self.cursor.clone();
        cursor.tagged(|tag, value| each(self, tag, Cursor::new(value)).map_err(Fault::Inner)).map_err(|fault| {
            match fault {
                Fault::Inner(error) => error,
                Fault::Section(reason) => self.fault("tagged_fields", reason),
            }
        })?;
        self.cursor = cursor;
        Ok(())
    }

    /// Reads a known tagged field, which must use exactly the bytes it declares.
    fn inner<T>(
        &self,
        field: &'static str,
        tag: u32,
        value: &mut Cursor<'a>,
        read: impl FnOnce(&mut Cursor<'a>) -> Result<T, Reason>,
    ) -> Result<T, DecodeError> {
        let declared = value.left();
        let read = read(value).map_err(|reason| self.fault(field, reason))?;
        match value.left() {
            0 => Ok(read),
            left => Err(self.fault(field, Reason::TagSize { tag, declared, used: declared - left })),
        }
    }

    fn min_topic_len(&self) -> usize {
        let name = if self.version >= TOPIC_IDS { 16 } else { 2 - usize::from(self.flexible) };
        if self.flexible { name + 2 } else { name + 4 }
    }

    fn min_partition_len(&self) -> usize {
        let fixed = 4 + 2 + 8 + 8;
        if self.flexible { fixed + 8 + 1 + 4 + 1 + 1 } else { fixed + 4 + 4 }
    }

    fn fault(&self, field: &str, reason: Reason) -> DecodeError {
        let field = match (self.topic, self.partition) {
            (Some(topic), Some(partition)) => format!("responses[{topic}].partitions[{partition}].{field}"),
            (Some(topic), None) => format!("responses[{topic}].{field}"),
            (None, _) => field.to_owned(),
        };
        DecodeError { api: "Fetch", version: self.version, direction: Direction::Response, field, reason }
    }
}

enum Fault {
    Section(Reason),
    Inner(DecodeError),
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        Self::Section(reason)
    }
}

fn aborted_transactions(cursor: &mut Cursor<'_>, flexible: bool) -> Result<Vec<AbortedTransaction>, Reason> {
    let mut aborted = Vec::new();
    for _ in 0..cursor.count(flexible, 16 + usize::from(flexible))?.unwrap_or(0) {
        aborted.push(AbortedTransaction { producer_id: cursor.i64()?, first_offset: cursor.i64()? });
        if flexible {
            skip_tagged(cursor)?;
        }
    }
    Ok(aborted)
}

fn node_endpoints(cursor: &mut Cursor<'_>) -> Result<Vec<NodeEndpoint>, Reason> {
    let mut endpoints = Vec::new();
    for _ in 0..cursor.count(true, 4 + 1 + 4 + 1 + 1)?.ok_or(Reason::Null)? {
        endpoints.push(NodeEndpoint {
            node: cursor.i32()?,
            host: cursor.string(true)?.ok_or(Reason::Null)?.to_owned(),
            port: cursor.i32()?,
            rack: cursor.string(true)?.map(str::to_owned),
        });
        skip_tagged(cursor)?;
    }
    Ok(endpoints)
}

fn skip_tagged(cursor: &mut Cursor<'_>) -> Result<(), Reason> {
    cursor.tagged(|_, _| Ok(()))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::FetchRequest;

    use super::super::layout::{self, sample};
    use super::super::{decode_response, scan};
    use super::*;

    #[test]
    fn the_walk_sees_what_the_generated_decoder_sees() {
        let (_, layout) = layout::of(1).unwrap();
        for (version, nulls) in (layout.min..=layout.max).flat_map(|version| [(version, false), (version, true)]) {
            let body = Bytes::from(sample::sample(layout, version, nulls).bytes);
            let walked = FetchResponse::decode(version, &body).unwrap();
            let tree = decode_response::<FetchRequest>(version, body).unwrap();
            assert_eq!(walked.throttle_time_ms, tree.throttle_time_ms);
            assert_eq!((walked.error, walked.session_id), (ErrorCode(tree.error_code), tree.session_id));
            let endpoints = tree.node_endpoints.iter().map(|endpoint| NodeEndpoint {
                node: endpoint.node_id.0,
                host: endpoint.host.to_string(),
                port: endpoint.port,
                rack: endpoint.rack.as_ref().map(ToString::to_string),
            });
            assert_eq!(walked.node_endpoints, endpoints.collect::<Vec<_>>());
            assert_eq!(walked.node_endpoints.len(), if version >= 16 { 2 } else { 0 });
            let partitions = tree.responses.iter().flat_map(|topic| {
                let key =
                    if version >= 13 { TopicKey::Id(topic.topic_id) } else { TopicKey::Name(topic.topic.0.clone()) };
                topic.partitions.iter().map(move |partition| (key.clone(), partition))
            });
            let partitions = partitions.map(|(topic, partition)| FetchedPartition {
                topic,
                partition: partition.partition_index,
                error: ErrorCode(partition.error_code),
                high_watermark: partition.high_watermark,
                last_stable_offset: partition.last_stable_offset,
                log_start_offset: partition.log_start_offset,
                aborted_transactions: partition
                    .aborted_transactions
                    .iter()
                    .flatten()
                    .map(|aborted| AbortedTransaction {
                        producer_id: aborted.producer_id.0,
                        first_offset: aborted.first_offset,
                    })
                    .collect(),
                preferred_read_replica: (version >= 11).then_some(partition.preferred_read_replica.0),
                diverging_epoch: (version >= 12).then_some(DivergingEpoch {
                    epoch: partition.diverging_epoch.epoch,
                    end_offset: partition.diverging_epoch.end_offset,
                }),
                current_leader: (version >= 12).then_some(CurrentLeader {
                    leader: partition.current_leader.leader_id.0,
                    epoch: partition.current_leader.leader_epoch,
                }),
                records: partition.records.clone().unwrap_or_default(),
            });
            assert_eq!(walked.partitions, partitions.collect::<Vec<_>>());
            assert_eq!(walked.partitions.len(), 4);
        }
    }

    #[test]
    fn what_the_broker_does_not_say_is_none() {
        let response = kafka_protocol::messages::FetchResponse::default().with_responses(vec![
            kafka_protocol::messages::fetch_response::FetchableTopicResponse::default()
                .with_partitions(vec![kafka_protocol::messages::fetch_response::PartitionData::default()]),
        ]);
        let body = super::super::encode_response::<FetchRequest>(&response, 12, 1).unwrap().freeze().slice(5..);
        let walked = FetchResponse::decode(12, &body).unwrap();
        let partition = &walked.partitions[0];
        assert_eq!(partition.preferred_read_replica, None);
        assert_eq!(partition.current_leader, None);
        assert_eq!(partition.diverging_epoch, None);
        assert!(partition.records.is_empty() && partition.aborted_transactions.is_empty());
    }

    #[test]
    fn records_are_slices_of_the_frame() {
        let (_, layout) = layout::of(1).unwrap();
        let body = Bytes::from(sample::sample(layout, 12, false).bytes);
        let frame = body.as_ptr() as usize..body.as_ptr() as usize + body.len();
        for partition in FetchResponse::decode(12, &body).unwrap().partitions {
            assert!(frame.contains(&(partition.records.as_ptr() as usize)));
        }
    }

    #[test]
    fn the_walk_refuses_what_the_scan_refuses() {
        let (_, layout) = layout::of(1).unwrap();
        let mut random = fastrand::Rng::with_seed(3);
        for version in layout.min..=layout.max {
            let sample = sample::sample(layout, version, false);
            let cut = (0..sample.bytes.len()).map(|cut| sample.bytes[..cut].to_vec());
            let lies = sample.counts.iter().chain(&sample.lengths).map(|place| sample::with_greatest(&sample, *place));
            for bytes in cut.chain(lies).collect::<Vec<_>>() {
                let error = FetchResponse::decode(version, &bytes.into()).unwrap_err();
                assert_eq!((error.api, error.version, error.direction), ("Fetch", version, Direction::Response));
            }
            for _ in 0..500 {
                let mut bytes = sample.bytes.clone();
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
                let scanned = scan::scan(layout, version, &bytes);
                let walked = FetchResponse::decode(version, &bytes.into()).map(drop);
                assert_eq!(walked.is_ok(), scanned.is_ok(), "v{version}: {walked:?}, {scanned:?}");
            }
        }
    }

    #[test]
    fn an_error_names_the_partition() {
        let (_, layout) = layout::of(1).unwrap();
        let sample = sample::sample(layout, 7, false);
        let body = Bytes::from(sample::with_greatest(&sample, *sample.lengths.last().unwrap()));
        assert_eq!(
            FetchResponse::decode(7, &body).unwrap_err().to_string(),
            "Fetch v7 response: responses[1].partitions[1].records: claims 2147483647 bytes, 9 left"
        );
    }
}
