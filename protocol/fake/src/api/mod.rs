//! From a request's bytes to its answer's: which APIs are served, in which versions, and by whom.
//!
//! Each API says how it serves a request and how it refuses one with an error everywhere; the rest is the same for all.

mod admin;
mod cluster;
mod configs;
mod fetch;
mod groups;
mod membership;
mod metadata;
mod offsets;
mod produce;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest, FetchRequest, FindCoordinatorRequest,
    HeartbeatRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest,
    ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest,
    ProduceRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::Request;
use protocol::error_code::ErrorCode;
use protocol::message::{DecodeError, decode_request, encode_response};

use crate::shared::Shared;

/// Who asks, and how.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The node that was asked.
    pub(crate) node: i32,
    /// Of the client.
    pub(crate) host: String,
    pub(crate) client_id: String,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
}

/// What a fault wants of the answer.
#[derive(Debug)]
pub(crate) struct Orders {
    pub(crate) refuse: Option<ErrorCode>,
    pub(crate) throttle: Duration,
}

/// What is to be done about a request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Header and body.
    Answer(BytesMut),
    /// It wants none.
    Silence,
    Undecodable(DecodeError),
    NotServed,
    Close,
}

/// What serving a request came to.
enum Served<T> {
    Answer(T),
    /// It wants none.
    Silence,
    /// It wants none and failed, or nobody is left to answer: the connection is closed.
    Close,
}

/// An API as this cluster serves it.
trait Api: Request + Send {
    fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> impl Future<Output = Served<Self::Response>> + Send;

    /// The answer that carries `code` wherever it has a place for one.
    fn refuse(&self, version: i16, code: i16) -> Self::Response;

    /// Says for how long the client is not served after this answer, milliseconds.
    fn throttle(response: &mut Self::Response, millis: i32);
}

/// Serves one request.
pub(crate) async fn serve(shared: &Arc<Shared>, caller: &Caller, api: ApiKey, body: Bytes, orders: &Orders) -> Reply {
    if !versions::is_served(&shared.settings, api, caller.version) {
        return match api {
            ApiKey::ApiVersions => versions::unsupported(caller.correlation_id),
            _ => Reply::NotServed,
        };
    }
    match api {
        ApiKey::ApiVersions => one::<ApiVersionsRequest>(shared, caller, body, orders).await,
        ApiKey::Produce => one::<ProduceRequest>(shared, caller, body, orders).await,
        ApiKey::Fetch => one::<FetchRequest>(shared, caller, body, orders).await,
        ApiKey::ListOffsets => one::<ListOffsetsRequest>(shared, caller, body, orders).await,
        ApiKey::Metadata => one::<MetadataRequest>(shared, caller, body, orders).await,
        ApiKey::OffsetCommit => one::<OffsetCommitRequest>(shared, caller, body, orders).await,
        ApiKey::OffsetFetch => one::<OffsetFetchRequest>(shared, caller, body, orders).await,
        ApiKey::FindCoordinator => one::<FindCoordinatorRequest>(shared, caller, body, orders).await,
        ApiKey::JoinGroup => one::<JoinGroupRequest>(shared, caller, body, orders).await,
        ApiKey::Heartbeat => one::<HeartbeatRequest>(shared, caller, body, orders).await,
        ApiKey::LeaveGroup => one::<LeaveGroupRequest>(shared, caller, body, orders).await,
        ApiKey::SyncGroup => one::<SyncGroupRequest>(shared, caller, body, orders).await,
        ApiKey::DescribeGroups => one::<DescribeGroupsRequest>(shared, caller, body, orders).await,
        ApiKey::ListGroups => one::<ListGroupsRequest>(shared, caller, body, orders).await,
        ApiKey::CreateTopics => one::<CreateTopicsRequest>(shared, caller, body, orders).await,
        ApiKey::DeleteTopics => one::<DeleteTopicsRequest>(shared, caller, body, orders).await,
        ApiKey::CreatePartitions => one::<CreatePartitionsRequest>(shared, caller, body, orders).await,
        ApiKey::InitProducerId => one::<InitProducerIdRequest>(shared, caller, body, orders).await,
        ApiKey::OffsetForLeaderEpoch => one::<OffsetForLeaderEpochRequest>(shared, caller, body, orders).await,
        ApiKey::DescribeConfigs => one::<DescribeConfigsRequest>(shared, caller, body, orders).await,
        ApiKey::DescribeCluster => one::<DescribeClusterRequest>(shared, caller, body, orders).await,
        _ => Reply::NotServed,
    }
}

async fn one<R: Api>(shared: &Arc<Shared>, caller: &Caller, body: Bytes, orders: &Orders) -> Reply {
    let request: R = match decode_request(caller.version, body) {
        Ok(request) => request,
        Err(error) => return Reply::Undecodable(error),
    };
    let served = match orders.refuse {
        Some(code) => Served::Answer(request.refuse(caller.version, code.0)),
        None => request.serve(shared, caller).await,
    };
    let mut response = match served {
        Served::Answer(response) => response,
        Served::Silence => return Reply::Silence,
        Served::Close => return Reply::Close,
    };
    R::throttle(&mut response, i32::try_from(orders.throttle.as_millis()).unwrap_or(i32::MAX));
    match encode_response::<R>(&response, caller.version, caller.correlation_id) {
        Ok(bytes) => Reply::Answer(bytes),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written");
            Reply::Close
        }
    }
}

/// `throttle_time_ms` is a field of every response.
macro_rules! throttled {
    () => {
        fn throttle(response: &mut Self::Response, millis: i32) {
            response.throttle_time_ms = millis;
        }
    };
}
use throttled;
