//! The seed of the fuzz target `broker`: a broker that answers everything well.

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        fetch_response::{FetchableTopicResponse, PartitionData},
        find_coordinator_response::Coordinator,
        join_group_response::JoinGroupResponseMember,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
        offset_fetch_response::{OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics},
        produce_response::{PartitionProduceResponse, TopicProduceResponse},
        *,
    },
    protocol::{Request, StrBytes},
};
use uuid::Uuid;

use crate::message::{encode_assignment, encode_response, encode_subscription, supported};

const TOPIC_ID: Uuid = Uuid::from_u128(7);
const BROKER: BrokerId = BrokerId(1);

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic() -> TopicName {
    TopicName(text("topic"))
}

/// A piece of the target: its length, the API key, the body in the newest version.
fn piece<R: Request>(response: &R::Response) -> Vec<u8> {
    let version = *supported(R::KEY).expect("an API that is spoken").end();
    let frame = encode_response::<R>(response, version, 0).expect("encodes");
    let header = if ApiKey::try_from(R::KEY).expect("known").response_header_version(version) >= 1 { 5 } else { 4 };
    let body = &frame[header..];
    [&(body.len() as u16 + 1).to_be_bytes()[..], &[R::KEY as u8], body].concat()
}

fn metadata() -> MetadataResponse {
    let broker = MetadataResponseBroker::default().with_node_id(BROKER).with_host(text("peer")).with_port(9092);
    let partition = MetadataResponsePartition::default()
        .with_leader_id(BROKER)
        .with_leader_epoch(3)
        .with_replica_nodes(vec![BROKER])
        .with_isr_nodes(vec![BROKER]);
    let topic = MetadataResponseTopic::default()
        .with_name(Some(topic()))
        .with_topic_id(TOPIC_ID)
        .with_partitions(vec![partition]);
    MetadataResponse::default().with_brokers(vec![broker]).with_controller_id(BROKER).with_topics(vec![topic])
}

fn joined() -> JoinGroupResponse {
    let subscription = ConsumerProtocolSubscription::default().with_topics(vec![text("topic")]);
    let member = JoinGroupResponseMember::default()
        .with_member_id(text("m"))
        .with_metadata(encode_subscription(&subscription, 3).expect("encodes"));
    JoinGroupResponse::default()
        .with_generation_id(1)
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text("cooperative-sticky")))
        .with_leader(text("m"))
        .with_member_id(text("m"))
        .with_members(vec![member])
}

fn assigned() -> SyncGroupResponse {
    let slots = consumer_protocol_assignment::TopicPartition::default().with_topic(topic()).with_partitions(vec![0]);
    let assignment = ConsumerProtocolAssignment::default().with_assigned_partitions(vec![slots]);
    SyncGroupResponse::default().with_assignment(encode_assignment(&assignment, 3).expect("encodes"))
}

fn committed() -> OffsetFetchResponse {
    let partition = OffsetFetchResponsePartitions::default().with_committed_offset(-1);
    let topic = OffsetFetchResponseTopics::default().with_name(topic()).with_partitions(vec![partition]);
    let group = OffsetFetchResponseGroup::default().with_group_id(GroupId(text("group"))).with_topics(vec![topic]);
    OffsetFetchResponse::default().with_groups(vec![group])
}

fn fetched() -> FetchResponse {
    let records = Bytes::from_static(include_bytes!("../../record/golden/java-zstd.bin"));
    let partition =
        PartitionData::default().with_high_watermark(9).with_last_stable_offset(9).with_records(Some(records));
    let topic = FetchableTopicResponse::default().with_topic_id(TOPIC_ID).with_partitions(vec![partition]);
    FetchResponse::default().with_session_id(4).with_responses(vec![topic])
}

#[test]
fn the_seeds_of_the_fuzz_targets_have_a_broker_that_answers_well() {
    let coordinator =
        Coordinator::default().with_key(text("group")).with_node_id(BROKER).with_host(text("peer")).with_port(9092);
    let produced = TopicProduceResponse::default()
        .with_topic_id(TOPIC_ID)
        .with_partition_responses(vec![PartitionProduceResponse::default().with_base_offset(5)]);
    let ends = ListOffsetsTopicResponse::default()
        .with_name(topic())
        .with_partitions(vec![ListOffsetsPartitionResponse::default().with_offset(0).with_leader_epoch(3)]);
    let twice = [
        piece::<MetadataRequest>(&metadata()),
        piece::<FindCoordinatorRequest>(&FindCoordinatorResponse::default().with_coordinators(vec![coordinator])),
        piece::<OffsetFetchRequest>(&committed()),
        piece::<ListOffsetsRequest>(&ListOffsetsResponse::default().with_topics(vec![ends])),
        piece::<ProduceRequest>(&ProduceResponse::default().with_responses(vec![produced])),
        piece::<FetchRequest>(&fetched()),
        piece::<HeartbeatRequest>(&HeartbeatResponse::default()),
    ]
    .concat();
    let once = [
        piece::<InitProducerIdRequest>(&InitProducerIdResponse::default().with_producer_id(ProducerId(77))),
        piece::<CreateTopicsRequest>(&CreateTopicsResponse::default()),
        piece::<JoinGroupRequest>(&JoinGroupResponse::default().with_error_code(79).with_member_id(text("m"))),
        piece::<JoinGroupRequest>(&joined()),
        piece::<SyncGroupRequest>(&assigned()),
        piece::<OffsetCommitRequest>(&OffsetCommitResponse::default()),
    ]
    .concat();
    crate::seeds::check("broker", "all-is-well", &[&twice[..], &once, &twice].concat());
}
