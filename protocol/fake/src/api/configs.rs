//! DescribeConfigs: topics by what they were given, brokers by the cluster's settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use protocol::error_code::ErrorCode;

use super::{Api, Caller, Served, throttled};
use crate::names::text;
use crate::shared::Shared;
use crate::state::State;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

const FROM_TOPIC: i8 = 1;
const FROM_STATIC_BROKER: i8 = 4;
const FROM_DEFAULT: i8 = 5;

type Configs = BTreeMap<String, (String, i8)>;

fn of_topic(state: &State, name: &str) -> Result<Configs, ErrorCode> {
    let topic = state.topic(name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    let (config, settings) = (&topic.config, &state.settings);
    let max_bytes = config.max_message_bytes(settings.max_message_bytes).to_string();
    let retention = config.retention_bytes(settings.retention_bytes).map_or("-1".to_owned(), |bytes| bytes.to_string());
    let mut configs: Configs = [
        ("cleanup.policy", "delete".to_owned()),
        ("compression.type", "producer".to_owned()),
        ("max.message.bytes", max_bytes),
        ("message.timestamp.type", "CreateTime".to_owned()),
        ("min.insync.replicas", "1".to_owned()),
        ("retention.bytes", retention),
        ("retention.ms", "604800000".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), (value, FROM_DEFAULT)))
    .into();
    for (key, value) in config.given() {
        configs.insert(key.to_owned(), (value.to_owned(), FROM_TOPIC));
    }
    Ok(configs)
}

fn of_broker(state: &State, name: &str) -> Result<Configs, ErrorCode> {
    let known = name.is_empty() || name.parse().is_ok_and(|id: i32| state.nodes.contains_key(&id));
    if !known {
        return Err(ErrorCode::INVALID_REQUEST);
    }
    let settings = &state.settings;
    let configs = [
        ("auto.create.topics.enable", settings.auto_create.to_string()),
        ("default.replication.factor", state.default_replication().to_string()),
        ("group.initial.rebalance.delay.ms", settings.join_delay.as_millis().to_string()),
        ("group.max.session.timeout.ms", settings.max_session_timeout.as_millis().to_string()),
        ("group.min.session.timeout.ms", settings.min_session_timeout.as_millis().to_string()),
        ("message.max.bytes", settings.max_message_bytes.to_string()),
        ("num.partitions", settings.default_partitions.to_string()),
    ];
    Ok(configs.map(|(key, value)| (key.to_owned(), (value, FROM_STATIC_BROKER))).into())
}

fn described(
    resource: &DescribeConfigsResource,
    version: i16,
    found: Result<Configs, ErrorCode>,
) -> DescribeConfigsResult {
    let answer = DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone());
    let configs = match found {
        Ok(configs) => configs,
        Err(code) => return answer.with_error_code(code.0).with_error_message(Some(text(&code.to_string()))),
    };
    let wanted = |key: &str| {
        resource.configuration_keys.as_ref().is_none_or(|keys| keys.iter().any(|wanted| wanted.as_str() == key))
    };
    let configs = configs.into_iter().filter(|(key, _)| wanted(key)).map(|(key, (value, source))| {
        let config = DescribeConfigsResourceResult::default()
            .with_name(text(&key))
            .with_value(Some(text(&value)))
            .with_config_source(source)
            .with_read_only(source == FROM_STATIC_BROKER);
        // 2 is a string: the type is only a hint to tools.
        if version >= 3 { config.with_config_type(2) } else { config }
    });
    answer.with_configs(configs.collect())
}

impl Api for DescribeConfigsRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        let results = shared.quietly(|state| {
            let one = |resource: &DescribeConfigsResource| {
                let found = match resource.resource_type {
                    TOPIC => of_topic(state, &resource.resource_name),
                    BROKER => of_broker(state, &resource.resource_name),
                    _ => Err(ErrorCode::INVALID_REQUEST),
                };
                described(resource, caller.version, found)
            };
            self.resources.iter().map(one).collect()
        });
        Served::Answer(DescribeConfigsResponse::default().with_results(results))
    }

    fn refuse(&self, version: i16, code: i16) -> Self::Response {
        let results = self.resources.iter().map(|resource| described(resource, version, Err(ErrorCode(code))));
        DescribeConfigsResponse::default().with_results(results.collect())
    }

    throttled!();
}
