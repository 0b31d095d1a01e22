//! Which version of each API a broker speaks (ApiVersions, KIP-511).
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::{
    messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse},
    protocol::StrBytes,
};

use crate::{
    error_code::ErrorCode,
    message::{self, DecodeError},
};

/// The first Metadata version that tells topic ids.
const METADATA_WITH_TOPIC_IDS: i16 = 10;

/// A broker's version ranges.
#[derive(Debug, Clone, Default)]
pub struct ApiVersions {
    ranges: BTreeMap<i16, (i16, i16)>,
}

/// What an ApiVersions answer asks for.
pub(super) enum Negotiation {
    Done(ApiVersions),
    /// UNSUPPORTED_VERSION: ask again in this version.
    Again(i16),
    Refused(ErrorCode),
}

impl ApiVersions {
    /// The highest version that both sides speak. Produce and Fetch stay below their topic-id versions where the broker's
    /// metadata tells no topic ids, and where we do not know those of the request (`topic_ids`): what we know may be of an
    /// older broker of the cluster.
    pub fn pick(&self, api: i16, topic_ids: bool) -> Option<i16> {
        let &(min, max) = self.ranges.get(&api)?;
        let tells_ids =
            self.ranges.get(&(ApiKey::Metadata as i16)).is_some_and(|range| range.1 >= METADATA_WITH_TOPIC_IDS);
        message::negotiate(api, min, max, tells_ids && topic_ids)
    }

    fn from_answer(answer: &ApiVersionsResponse) -> Self {
        let ranges = answer.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        Self { ranges }
    }
}

pub(super) fn request() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("kafka-sidecar"))
        .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")))
}

/// Reads the answer to a request in `version`. A broker that does not know that version answers in version 0, and may name
/// nothing but the ApiVersions API itself, or nothing at all.
pub(super) fn read(version: i16, body: Bytes) -> Result<Negotiation, DecodeError> {
    let code = body.first_chunk::<2>().map(|code| ErrorCode(i16::from_be_bytes(*code)));
    let unsupported = code == Some(ErrorCode::UNSUPPORTED_VERSION) && version > 0;
    match message::decode_response::<ApiVersionsRequest>(version, body) {
        Ok(answer) if unsupported => {
            let own = answer.api_keys.iter().find(|api| api.api_key == ApiKey::ApiVersions as i16);
            Ok(Negotiation::Again(own.map_or(0, |api| api.max_version).clamp(0, version - 1)))
        }
        Err(_) if unsupported => Ok(Negotiation::Again(0)),
        Ok(answer) => Ok(match ErrorCode(answer.error_code) {
            ErrorCode::NONE => Negotiation::Done(ApiVersions::from_answer(&answer)),
            code => Negotiation::Refused(code),
        }),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsupported_version_is_asked_again_in_what_the_broker_names() {
        // error 35, one entry: key 18, versions 0 to 3
        let body = [0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 3];
        assert!(matches!(read(4, Bytes::copy_from_slice(&body)), Ok(Negotiation::Again(3))));
        assert!(matches!(read(4, Bytes::from_static(&[0, 35])), Ok(Negotiation::Again(0))));
    }
}
