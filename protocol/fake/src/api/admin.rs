//! CreateTopics, DeleteTopics, CreatePartitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, TopicName,
};
use protocol::error_code::ErrorCode;

use super::produce::NO_TOPIC_ID;
use super::{Api, Caller, Served, throttled};
use crate::names::{text, topic_name};
use crate::shared::Shared;
use crate::state::State;
use crate::topic::TopicConfig;

/// Why replicas that a client chose are refused: here leaders go round the nodes.
const CHOSEN: &str = "This cluster places replicas itself";
/// A key that this topic was given.
const FROM_TOPIC: i8 = 1;

type Refused = (ErrorCode, String);

impl Api for CreateTopicsRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        let mut counts: BTreeMap<&TopicName, usize> = BTreeMap::new();
        for topic in &self.topics {
            *counts.entry(&topic.name).or_default() += 1;
        }
        let topics = shared.change(|state| {
            let mut results = Vec::with_capacity(self.topics.len());
            for topic in &self.topics {
                let created = match counts.remove(&topic.name) {
                    Some(1) => create(state, topic, self.validate_only),
                    Some(_) => Err((ErrorCode::INVALID_REQUEST, "Duplicate topic name.".to_owned())),
                    // It was answered already.
                    None => continue,
                };
                results.push(created_answer(topic, caller.version, created));
            }
            results
        });
        Served::Answer(CreateTopicsResponse::default().with_topics(topics))
    }

    fn refuse(&self, version: i16, code: i16) -> Self::Response {
        let refused = |topic: &CreatableTopic| {
            created_answer(topic, version, Err((ErrorCode(code), ErrorCode(code).to_string())))
        };
        CreateTopicsResponse::default().with_topics(self.topics.iter().map(refused).collect())
    }

    throttled!();
}

/// A topic that was created, or would have been.
struct Created {
    id: uuid::Uuid,
    replicas: Vec<Vec<i32>>,
    config: TopicConfig,
}

fn create(state: &mut State, topic: &CreatableTopic, validate_only: bool) -> Result<Created, Refused> {
    let mut config = TopicConfig::default();
    let name = topic.name.as_str();
    if !topic.assignments.is_empty() {
        return Err((ErrorCode::INVALID_REPLICA_ASSIGNMENT, CHOSEN.to_owned()));
    }
    let replication = match topic.replication_factor {
        -1 => state.default_replication(),
        replication => replication,
    };
    let partitions = match topic.num_partitions {
        -1 => state.settings.default_partitions,
        partitions => partitions,
    };
    let replicas = state.plan_topic(name, partitions, replication)?;
    for given in &topic.configs {
        let value = given.value.as_deref().unwrap_or_default();
        config.set(&given.name, value).map_err(|message| (ErrorCode::INVALID_CONFIG, message))?;
    }
    let id = if validate_only { NO_TOPIC_ID } else { state.add_topic(name, replicas.clone(), config.clone()) };
    Ok(Created { id, replicas, config })
}

fn created_answer(topic: &CreatableTopic, version: i16, created: Result<Created, Refused>) -> CreatableTopicResult {
    let answer = CreatableTopicResult::default().with_name(topic.name.clone());
    let created = match created {
        Ok(created) => created,
        Err((code, message)) => {
            let answer = answer.with_error_code(code.0).with_error_message(Some(text(&message)));
            let none = if version >= 5 { Some(Vec::new()) } else { None };
            return answer.with_num_partitions(-1).with_replication_factor(-1).with_configs(none);
        }
    };
    let answer = if version >= 7 { answer.with_topic_id(created.id) } else { answer };
    if version < 5 {
        return answer;
    }
    let configs = created.config.given().map(|(key, value)| {
        let config = CreatableTopicConfigs::default().with_name(text(key)).with_value(Some(text(value)));
        config.with_config_source(FROM_TOPIC)
    });
    answer
        .with_num_partitions(i32::try_from(created.replicas.len()).unwrap_or(i32::MAX))
        .with_replication_factor(created.replicas.first().map_or(-1, |first| i16::try_from(first.len()).unwrap_or(-1)))
        .with_configs(Some(configs.collect()))
}

impl Api for DeleteTopicsRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        let responses = shared.change(|state| {
            let mut responses = Vec::new();
            for (name, id) in asked(&self, caller.version) {
                let (name, unknown) = match name {
                    Some(name) => (Some(name), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
                    None => (state.name_of(id).map(topic_name), ErrorCode::UNKNOWN_TOPIC_ID),
                };
                let id = name.as_ref().and_then(|name| state.topic(name)).map_or(id, |topic| topic.id);
                let gone = name.as_ref().is_some_and(|name| state.delete_topic(name));
                let code = if gone { ErrorCode::NONE } else { unknown };
                responses.push(deleted(name, id, caller.version, code));
            }
            responses
        });
        Served::Answer(DeleteTopicsResponse::default().with_responses(responses))
    }

    fn refuse(&self, version: i16, code: i16) -> Self::Response {
        let refused = asked(self, version).into_iter().map(|(name, id)| deleted(name, id, version, ErrorCode(code)));
        DeleteTopicsResponse::default().with_responses(refused.collect())
    }

    throttled!();
}

/// Names, or from version 6 on names or ids.
fn asked(request: &DeleteTopicsRequest, version: i16) -> Vec<(Option<TopicName>, uuid::Uuid)> {
    if version >= 6 {
        return request.topics.iter().map(|topic| (topic.name.clone(), topic.topic_id)).collect();
    }
    request.topic_names.iter().map(|name| (Some(name.clone()), NO_TOPIC_ID)).collect()
}

fn deleted(name: Option<TopicName>, id: uuid::Uuid, version: i16, code: ErrorCode) -> DeletableTopicResult {
    let answer = DeletableTopicResult::default().with_name(name).with_error_code(code.0);
    let answer = if version >= 6 { answer.with_topic_id(id) } else { answer };
    let message = (version >= 5 && !code.is_none()).then(|| text(&code.to_string()));
    answer.with_error_message(message)
}

impl Api for CreatePartitionsRequest {
    async fn serve(self, shared: &Arc<Shared>, _: &Caller) -> Served<Self::Response> {
        let results = shared.change(|state| {
            let mut results = Vec::with_capacity(self.topics.len());
            for topic in &self.topics {
                results.push(grown_answer(topic, grow(state, topic, self.validate_only)));
            }
            results
        });
        Served::Answer(CreatePartitionsResponse::default().with_results(results))
    }

    fn refuse(&self, _: i16, code: i16) -> Self::Response {
        let refused = |topic| grown_answer(topic, Err((ErrorCode(code), ErrorCode(code).to_string())));
        CreatePartitionsResponse::default().with_results(self.topics.iter().map(refused).collect())
    }

    throttled!();
}

fn grow(state: &mut State, topic: &CreatePartitionsTopic, validate_only: bool) -> Result<(), Refused> {
    let unknown = || (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic".to_owned());
    let there = state.topic(&topic.name).ok_or_else(unknown)?;
    let existing = there.partitions.len();
    let more = i64::from(topic.count) - i64::try_from(existing).unwrap_or(i64::MAX);
    if more <= 0 {
        let message = format!("The topic has {existing} partitions, which is not less than {}", topic.count);
        return Err((ErrorCode::INVALID_PARTITIONS, message));
    }
    if topic.assignments.is_some() {
        return Err((ErrorCode::INVALID_REPLICA_ASSIGNMENT, CHOSEN.to_owned()));
    }
    let replication = there.partitions.first().map_or(1, |first| i16::try_from(first.replicas.len()).unwrap_or(1));
    let replicas = state.plan_partitions(existing, i32::try_from(more).unwrap_or(i32::MAX), replication)?;
    if !validate_only {
        state.add_partitions(&topic.name, replicas);
    }
    Ok(())
}

fn grown_answer(topic: &CreatePartitionsTopic, grown: Result<(), Refused>) -> CreatePartitionsTopicResult {
    let answer = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
    match grown {
        Ok(()) => answer,
        Err((code, message)) => answer.with_error_code(code.0).with_error_message(Some(text(&message))),
    }
}
