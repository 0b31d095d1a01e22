//! What a Produce response says, by partition; leader hints are taken on the way.

use std::{collections::BTreeMap, sync::Arc};

use kafka_protocol::messages::{ProduceRequest, produce_response::PartitionProduceResponse};

use super::batch::Key;
use crate::{
    cluster::{Broker, Cluster},
    connection::{Answer, Connection, RequestError},
    message,
};

/// Topics travel by id from this version on.
const BY_TOPIC_ID: i16 = 13;

pub(super) type Answers = BTreeMap<Key, PartitionProduceResponse>;

/// Reads the answer to a request for these topics.
pub(super) fn read(
    cluster: &Cluster,
    connection: &Connection,
    answer: Answer,
    names: &[(uuid::Uuid, Arc<str>)],
) -> Result<Answers, RequestError> {
    let version = answer.version;
    let response = message::decode_response::<ProduceRequest>(version, answer.body)
        .map_err(|error| RequestError::undecodable(connection.address(), error))?;
    connection.throttle(response.throttle_time_ms);
    let mut answers = Answers::new();
    for topic in response.responses {
        let found = names.iter().find(|(id, name)| {
            if version >= BY_TOPIC_ID { *id == topic.topic_id } else { **name == *topic.name.as_str() }
        });
        let Some((_, name)) = found else { continue };
        for partition in topic.partition_responses {
            let leader = &partition.current_leader;
            if leader.leader_id.0 >= 0 {
                let endpoint = response.node_endpoints.iter().find(|endpoint| endpoint.node_id == leader.leader_id);
                let endpoint = endpoint.and_then(|endpoint| {
                    let port = u16::try_from(endpoint.port).ok()?;
                    Some((endpoint.node_id.0, Broker { host: endpoint.host.as_str().into(), port, rack: None }))
                });
                let (node, epoch) = (leader.leader_id.0, leader.leader_epoch);
                cluster.apply_leader_hint(name, partition.index, node, epoch, endpoint);
            }
            answers.insert((name.clone(), partition.index), partition);
        }
    }
    Ok(answers)
}
