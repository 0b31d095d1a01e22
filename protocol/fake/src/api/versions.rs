//! ApiVersions (KIP-511), and the table that it shows.

use std::sync::Arc;

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use protocol::error_code::ErrorCode;
use protocol::message::encode_response;

use super::{Api, Caller, Reply, Served, throttled};
use crate::settings::Settings;
use crate::shared::Shared;

/// What is served. Kafka 4 names Produce from version 0, though it serves it from 3 on only, because older clients of librdkafka do
/// not compress unless they see it (KAFKA-18659); so does this.
const SERVED: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 3, 13),
    (ApiKey::Fetch, 4, 17),
    (ApiKey::ListOffsets, 1, 10),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::OffsetCommit, 2, 9),
    (ApiKey::OffsetFetch, 1, 9),
    (ApiKey::FindCoordinator, 0, 6),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 6),
    (ApiKey::ListGroups, 0, 5),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::InitProducerId, 0, 5),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::DescribeCluster, 0, 2),
];

/// The versions of an API that this cluster serves.
fn served(settings: &Settings, api: ApiKey) -> Option<(i16, i16)> {
    let (_, min, max) = SERVED.iter().find(|(served, ..)| *served == api)?;
    match settings.versions.get(&(api as i16)) {
        None => Some((*min, *max)),
        Some(None) => None,
        Some(Some((lowest, highest))) => {
            let (min, max) = (*lowest.max(min), *highest.min(max));
            (min <= max).then_some((min, max))
        }
    }
}

pub(super) fn is_served(settings: &Settings, api: ApiKey, version: i16) -> bool {
    served(settings, api).is_some_and(|(min, max)| (min..=max).contains(&version))
}

fn row(settings: &Settings, api: ApiKey) -> Option<ApiVersion> {
    let (min, max) = served(settings, api)?;
    let named_from_zero = api == ApiKey::Produce && !settings.versions.contains_key(&(api as i16));
    let min = if named_from_zero { 0 } else { min };
    Some(ApiVersion::default().with_api_key(api as i16).with_min_version(min).with_max_version(max))
}

/// The answer to a version that is not served: in the format of version 0, with the versions that are.
pub(super) fn unsupported(correlation_id: i32) -> Reply {
    let own = SERVED.iter().find(|(api, ..)| *api == ApiKey::ApiVersions);
    let row = own.map(|(api, min, max)| {
        ApiVersion::default().with_api_key(*api as i16).with_min_version(*min).with_max_version(*max)
    });
    let response = ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UNSUPPORTED_VERSION.0)
        .with_api_keys(row.into_iter().collect());
    encode_response::<ApiVersionsRequest>(&response, 0, correlation_id).map_or(Reply::Close, Reply::Answer)
}

/// Whether a client's name or version is one that Kafka takes.
fn is_valid_software(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let outer = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(outer) && text.ends_with(outer) && text.chars().all(inner)
}

impl Api for ApiVersionsRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        let named = is_valid_software(&self.client_software_name) && is_valid_software(&self.client_software_version);
        if caller.version >= 3 && !named {
            return Served::Answer(self.refuse(caller.version, ErrorCode::INVALID_REQUEST.0));
        }
        let rows = SERVED.iter().filter_map(|(api, ..)| row(&shared.settings, *api));
        Served::Answer(ApiVersionsResponse::default().with_api_keys(rows.collect()))
    }

    fn refuse(&self, _: i16, code: i16) -> Self::Response {
        ApiVersionsResponse::default().with_error_code(code)
    }

    throttled!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Builder;

    #[test]
    fn versions_can_be_narrowed_and_apis_taken_away_but_nothing_added() {
        let builder = Builder::default()
            .versions(ApiKey::Metadata, 1, 9)
            .versions(ApiKey::Produce, 3, 99)
            .versions(ApiKey::Fetch, 30, 40)
            .without(ApiKey::DescribeCluster);
        let rows = [
            (ApiKey::Metadata, Some((1, 9))),
            (ApiKey::Produce, Some((3, 13))),
            (ApiKey::Fetch, None),
            (ApiKey::DescribeCluster, None),
            (ApiKey::EndTxn, None),
            (ApiKey::JoinGroup, Some((0, 9))),
        ];
        for (api, expected) in rows {
            assert_eq!(served(&builder.settings, api), expected, "{api:?}");
        }
    }

    #[test]
    fn software_names_are_checked_as_kafka_checks_them() {
        for (text, valid) in
            [("kcat", true), ("apache-kafka-java", true), ("4.3.1", true), ("", false), ("-a", false), ("a b", false)]
        {
            assert_eq!(is_valid_software(text), valid, "{text:?}");
        }
    }
}
