//! Topics made, grown and deleted by hand; metadata; versions that nobody serves.

use anyhow::{Context as _, Result};
use kafka_protocol::messages::{
    ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeConfigsRequest, MetadataRequest,
    create_partitions_request::CreatePartitionsTopic,
    create_topics_request::{CreatableTopic, CreatableTopicConfig},
    delete_topics_request::DeleteTopicState,
    describe_configs_request::DescribeConfigsResource,
    metadata_request::MetadataRequestTopic,
};
use protocol::error_code::ErrorCode;
use uuid::Uuid;

use super::{
    bed::Bed,
    raw::{Codes, ready_topic, text, topic_name},
};

fn topic(name: &str, partitions: i32, replicas: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replicas)
}

pub(super) async fn topics_that_cannot_be_are_refused(bed: &Bed) -> Result<()> {
    let id = ready_topic(bed, "raw-admin", 2).await?;
    let mut raw = bed.raw().await?;
    let mut codes = Codes::default();
    let configured = |key: &str, value: &str| {
        let config = CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)));
        topic("raw-other", 1, 1).with_configs(vec![config])
    };
    let long = "n".repeat(250);
    for (what, topic, expected) in [
        ("one that is there", topic("raw-admin", 1, 1), ErrorCode::TOPIC_ALREADY_EXISTS),
        ("a bad name", topic("raw admin", 1, 1), ErrorCode::INVALID_TOPIC_EXCEPTION),
        ("a long name", topic(&long, 1, 1), ErrorCode::INVALID_TOPIC_EXCEPTION),
        ("no partitions", topic("raw-other", 0, 1), ErrorCode::INVALID_PARTITIONS),
        ("too many replicas", topic("raw-other", 1, 7), ErrorCode::INVALID_REPLICATION_FACTOR),
        ("no replicas", topic("raw-other", 1, 0), ErrorCode::INVALID_REPLICATION_FACTOR),
        ("an unknown key", configured("no.such.key", "1"), ErrorCode::INVALID_CONFIG),
        ("a bad value", configured("max.message.bytes", "many"), ErrorCode::INVALID_CONFIG),
        ("a good one", configured("max.message.bytes", "1000"), ErrorCode::NONE),
    ] {
        let request =
            CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000).with_validate_only(true);
        let answer = raw.ask(7, &request).await?;
        codes.check(what, answer.topics.first().context(what)?.error_code, expected);
    }
    let twice = vec![topic("raw-twice", 1, 1), topic("raw-twice", 1, 1)];
    let answer = raw.ask(7, &CreateTopicsRequest::default().with_topics(twice).with_timeout_ms(30_000)).await?;
    let told: Vec<i16> = answer.topics.iter().map(|topic| topic.error_code).collect();
    codes.same("one twice", told, vec![ErrorCode::INVALID_REQUEST.0]);
    for (what, name, count, expected) in [
        ("fewer", "raw-admin", 1, ErrorCode::INVALID_PARTITIONS),
        ("as many", "raw-admin", 2, ErrorCode::INVALID_PARTITIONS),
        ("of an unknown topic", "raw-nowhere", 2, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        ("more", "raw-admin", 3, ErrorCode::NONE),
    ] {
        let topic =
            CreatePartitionsTopic::default().with_name(topic_name(name)).with_count(count).with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(30_000)
            .with_validate_only(true);
        let answer = raw.ask(3, &request).await?;
        codes.check(what, answer.results.first().context(what)?.error_code, expected);
    }
    for (what, name, id, expected) in [
        ("an unknown name", Some("raw-nowhere"), Uuid::nil(), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        ("an unknown id", None, Uuid::from_u128(9), ErrorCode::UNKNOWN_TOPIC_ID),
        ("by its id", None, id, ErrorCode::NONE),
        ("it again", None, id, ErrorCode::UNKNOWN_TOPIC_ID),
    ] {
        let topic = DeleteTopicState::default().with_name(name.map(topic_name)).with_topic_id(id);
        let request = DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        let answer = raw.ask(6, &request).await?;
        codes.check(what, answer.responses.first().context(what)?.error_code, expected);
    }
    codes.end()
}

pub(super) async fn metadata_says_what_there_is(bed: &Bed) -> Result<()> {
    let id = ready_topic(bed, "raw-metadata", 2).await?;
    let mut raw = bed.raw().await?;
    let mut codes = Codes::default();
    let by_name = |name: &str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let by_id = |id| MetadataRequestTopic::default().with_name(None).with_topic_id(id);
    for (what, topic, expected) in [
        ("by name", by_name("raw-metadata"), ErrorCode::NONE),
        ("by id", by_id(id), ErrorCode::NONE),
        ("an unknown name", by_name("raw-nowhere"), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        ("an unknown id", by_id(Uuid::from_u128(9)), ErrorCode::UNKNOWN_TOPIC_ID),
        ("a bad name", by_name("raw metadata"), ErrorCode::INVALID_TOPIC_EXCEPTION),
    ] {
        let request = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
        let answer = raw.ask(12, &request).await?;
        let told = answer.topics.first().context(what)?;
        codes.check(what, told.error_code, expected);
        if expected == ErrorCode::NONE {
            let name = told.name.as_ref().map(|name| name.to_string());
            codes.same(what, (name, told.topic_id), (Some("raw-metadata".to_owned()), id));
            let partitions: Vec<_> = told
                .partitions
                .iter()
                .map(|p| (p.error_code, p.leader_id.0, p.leader_epoch, p.isr_nodes.len()))
                .collect();
            codes.same(what, partitions, vec![(0, 1, 0, 1), (0, 1, 0, 1)]);
        }
    }
    let none = raw.ask(12, &MetadataRequest::default().with_topics(Some(vec![]))).await?;
    codes.same("no topics", (none.topics.len(), none.brokers.len()), (0, 1));
    let all = raw.ask(12, &MetadataRequest::default().with_topics(None)).await?;
    let found = all.topics.iter().filter(|topic| topic.topic_id == id).count();
    codes.same("all topics", found, 1);
    let cluster = raw.ask(1, &DescribeClusterRequest::default().with_endpoint_type(1)).await?;
    codes.same("the cluster", (cluster.error_code, cluster.brokers.len()), (0, 1));
    codes.same("its id", Some(cluster.cluster_id), all.cluster_id);
    codes.end()
}

pub(super) async fn configurations_are_described(bed: &Bed) -> Result<()> {
    super::records::configured_topic(bed, "raw-described", "max.message.bytes", "1234").await?;
    ready_topic(bed, "raw-described", 1).await?;
    let mut raw = bed.raw().await?;
    let mut codes = Codes::default();
    for (what, kind, name, key, expected) in [
        ("given", 2, "raw-described", "max.message.bytes", Some(("1234", 1))),
        ("by default", 2, "raw-described", "cleanup.policy", Some(("delete", 5))),
        ("of a broker", 4, "1", "num.partitions", Some(("3", 4))),
        ("unknown", 2, "raw-described", "no.such.key", None),
    ] {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configuration_keys(Some(vec![text(key)]));
        let answer = raw.ask(4, &DescribeConfigsRequest::default().with_resources(vec![resource])).await?;
        let result = answer.results.first().context(what)?;
        codes.check(what, result.error_code, ErrorCode::NONE);
        let found = result.configs.first();
        let found = found.map(|config| (config.value.as_ref().map(|value| value.to_string()), config.config_source));
        codes.same(what, found, expected.map(|(value, source)| (Some(value.to_owned()), source)));
    }
    let nowhere = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text("raw-nowhere"));
    let answer = raw.ask(4, &DescribeConfigsRequest::default().with_resources(vec![nowhere])).await?;
    let code = answer.results.first().context("a result")?.error_code;
    codes.check("of an unknown topic", code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    codes.end()
}

pub(super) async fn a_version_that_nobody_serves_is_answered_with_those_that_are(bed: &Bed) -> Result<()> {
    let mut raw = bed.raw().await?;
    let mut codes = Codes::default();
    let answer = raw.unheard_of_versions().await?;
    codes.check("ApiVersions 99", answer.error_code, ErrorCode::UNSUPPORTED_VERSION);
    codes.same("it names itself alone", answer.api_keys.iter().map(|api| api.api_key).collect(), vec![18]);
    let named =
        ApiVersionsRequest::default().with_client_software_name(text("raw")).with_client_software_version(text("1.0"));
    let answer = raw.ask(3, &named).await?;
    codes.check("on the same connection", answer.error_code, ErrorCode::NONE);
    let nameless = ApiVersionsRequest::default();
    codes.check("without a name", raw.ask(3, &nameless).await?.error_code, ErrorCode::INVALID_REQUEST);
    codes.end()
}
