//! Which versions of which API this client speaks.
//!
//! The table is the newest that the generated messages know, cut where this client means less than the newest version
//! says; the cut's reason stands beside it.

use std::ops::RangeInclusive;

use kafka_protocol::messages::ApiKey;

/// The versions of one API that this client speaks.
#[derive(Debug)]
pub struct ApiSupport {
    pub api: ApiKey,
    pub min: i16,
    pub max: i16,
    /// The newest version that names topics by name, where newer ones know topic ids only (KIP-516).
    pub max_by_name: Option<i16>,
    /// Why not all that the generated messages know.
    pub why: &'static str,
}

/// Every API that this client speaks, in the order of the keys.
pub const SUPPORTED: &[ApiSupport] = &[
    api(
        ApiKey::Produce,
        3,
        13,
        "13 and above name topics by id alone; a transaction has to stay below 12, which means KIP-890",
    )
    .by_name(12),
    api(ApiKey::Fetch, 4, 18, "13 and above name topics by id alone").by_name(12),
    api(ApiKey::ListOffsets, 1, 10, ""),
    api(ApiKey::Metadata, 1, 13, "0 cannot ask for no topic at all"),
    api(ApiKey::OffsetCommit, 2, 9, ""),
    api(ApiKey::OffsetFetch, 1, 9, ""),
    api(ApiKey::FindCoordinator, 0, 6, ""),
    api(ApiKey::JoinGroup, 2, 9, "0 has no rebalance timeout, 1 no throttle time"),
    api(ApiKey::Heartbeat, 0, 4, ""),
    api(ApiKey::LeaveGroup, 0, 5, ""),
    api(ApiKey::SyncGroup, 0, 5, ""),
    api(ApiKey::DescribeGroups, 0, 6, ""),
    api(ApiKey::ListGroups, 0, 5, ""),
    api(ApiKey::SaslHandshake, 0, 1, ""),
    api(ApiKey::ApiVersions, 0, 4, ""),
    api(ApiKey::CreateTopics, 2, 7, ""),
    api(ApiKey::DeleteTopics, 1, 6, ""),
    api(ApiKey::DeleteRecords, 0, 2, ""),
    api(ApiKey::InitProducerId, 0, 5, ""),
    api(ApiKey::OffsetForLeaderEpoch, 2, 4, ""),
    api(ApiKey::AddPartitionsToTxn, 0, 3, "4 and above are for brokers only (KIP-890)"),
    api(ApiKey::AddOffsetsToTxn, 0, 4, ""),
    api(
        ApiKey::EndTxn,
        0,
        4,
        "5 bumps the epoch with each transaction (KIP-890), which has to be agreed on as a feature",
    ),
    api(ApiKey::TxnOffsetCommit, 0, 4, "5 adds the group to the transaction by itself (KIP-890), likewise"),
    api(ApiKey::DescribeConfigs, 1, 4, ""),
    api(ApiKey::SaslAuthenticate, 0, 2, ""),
    api(ApiKey::CreatePartitions, 0, 3, ""),
    api(ApiKey::DeleteGroups, 0, 2, ""),
    api(ApiKey::IncrementalAlterConfigs, 0, 1, ""),
    api(ApiKey::OffsetDelete, 0, 0, ""),
    api(ApiKey::DescribeCluster, 0, 2, ""),
    api(ApiKey::ConsumerGroupHeartbeat, 0, 1, ""),
    api(ApiKey::ConsumerGroupDescribe, 0, 1, ""),
];

const fn api(api: ApiKey, min: i16, max: i16, why: &'static str) -> ApiSupport {
    ApiSupport { api, min, max, max_by_name: None, why }
}

impl ApiSupport {
    const fn by_name(self, max: i16) -> Self {
        Self { max_by_name: Some(max), ..self }
    }
}

/// The versions of an API that this client speaks; `None` for an API that it does not speak.
pub fn supported(api_key: i16) -> Option<RangeInclusive<i16>> {
    find(api_key).map(|support| support.min..=support.max)
}

/// The newest version that both sides speak; `None` when there is none.
///
/// Without topic ids (the broker's Metadata stays below version 10, or answers with zero ids) the versions that know a
/// topic by its id alone are left out.
pub fn negotiate(api_key: i16, broker_min: i16, broker_max: i16, topic_ids_available: bool) -> Option<i16> {
    let support = find(api_key)?;
    let ours = match support.max_by_name {
        Some(max) if !topic_ids_available => max,
        _ => support.max,
    };
    let version = ours.min(broker_max);
    (version >= support.min && version >= broker_min).then_some(version)
}

fn find(api_key: i16) -> Option<&'static ApiSupport> {
    SUPPORTED.iter().find(|support| support.api as i16 == api_key)
}

#[cfg(test)]
mod tests {
    use super::super::layout;
    use super::*;

    #[test]
    fn every_version_that_is_offered_has_a_layout() {
        for support in SUPPORTED {
            let (request, response) = layout::of(support.api as i16).unwrap();
            assert_eq!(request.message, format!("{:?}", support.api));
            let (min, max) = (request.min.max(response.min), request.max.min(response.max));
            assert!(min <= support.min && support.max <= max, "{:?}", support.api);
            let cut = (min, max) != (support.min, support.max) || support.max_by_name.is_some();
            assert_eq!(cut, !support.why.is_empty(), "{:?}", support.api);
            assert_eq!(supported(support.api as i16), Some(support.min..=support.max));
        }
        assert_eq!(supported(9999), None);
    }

    #[test]
    fn the_newest_common_version_is_taken() {
        let cases = [
            // API, the broker's range, topic ids, expected
            (ApiKey::Produce, 3, 13, true, Some(13)),
            (ApiKey::Produce, 3, 13, false, Some(12)),
            (ApiKey::Produce, 0, 8, true, Some(8)),
            (ApiKey::Fetch, 4, 18, true, Some(18)),
            (ApiKey::Fetch, 4, 99, true, Some(18)),
            (ApiKey::Fetch, 4, 17, false, Some(12)),
            (ApiKey::Fetch, 13, 17, false, None),
            (ApiKey::Fetch, 0, 3, true, None),
            (ApiKey::Metadata, 0, 0, true, None),
            (ApiKey::EndTxn, 0, 5, true, Some(4)),
            (ApiKey::JoinGroup, 10, 12, true, None),
            (ApiKey::ShareFetch, 0, 1, true, None),
        ];
        for (api, min, max, ids, expected) in cases {
            assert_eq!(negotiate(api as i16, min, max, ids), expected, "{api:?} {min}..={max} ids {ids}");
        }
    }
}
