//! Which broker coordinates which group (FindCoordinator).

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use kafka_protocol::{
    messages::{FindCoordinatorRequest, FindCoordinatorResponse},
    protocol::StrBytes,
};

use super::{Broker, NodeId};
use crate::{connection::RequestError, error_code::ErrorCode};

/// FindCoordinator's key type of consumer groups.
const GROUP: i8 = 0;
/// The first version that asks for several keys at once.
const BATCHED: i16 = 4;

/// Why no coordinator is known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CoordinatorError {
    /// The broker's answer.
    #[error("no coordinator for the group: {code}")]
    Refused { code: ErrorCode },
    /// No broker answered.
    #[error("no broker told the group's coordinator")]
    Unanswered(#[source] RequestError),
}

impl CoordinatorError {
    /// Whether asking again later cannot help.
    pub fn fatal(&self) -> bool {
        match self {
            Self::Refused { code } => !code.retriable(),
            Self::Unanswered(error) => !error.retriable(),
        }
    }
}

#[derive(Default)]
pub(super) struct Coordinators(Mutex<BTreeMap<String, NodeId>>);

impl Coordinators {
    pub(super) fn get(&self, group: &str) -> Option<NodeId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(group).copied()
    }

    pub(super) fn set(&self, group: &str, node: NodeId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(group.to_owned(), node);
    }

    pub(super) fn forget(&self, group: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(group);
    }
}

pub(super) fn request(group: &str, version: i16) -> FindCoordinatorRequest {
    let key = StrBytes::from_string(group.to_owned());
    let request = FindCoordinatorRequest::default().with_key_type(GROUP);
    if version >= BATCHED { request.with_coordinator_keys(vec![key]) } else { request.with_key(key) }
}

/// The broker that an answer names.
pub(super) fn read(version: i16, answer: &FindCoordinatorResponse) -> Result<(NodeId, Broker), CoordinatorError> {
    let (code, node, host, port) = if version >= BATCHED {
        let Some(one) = answer.coordinators.first() else {
            return Err(CoordinatorError::Refused { code: ErrorCode::COORDINATOR_NOT_AVAILABLE });
        };
        (one.error_code, one.node_id.0, &one.host, one.port)
    } else {
        (answer.error_code, answer.node_id.0, &answer.host, answer.port)
    };
    match (ErrorCode(code), u16::try_from(port)) {
        (ErrorCode::NONE, Ok(port)) if node >= 0 => Ok((node, Broker { host: host.as_str().into(), port, rack: None })),
        (ErrorCode::NONE, _) => Err(CoordinatorError::Refused { code: ErrorCode::COORDINATOR_NOT_AVAILABLE }),
        (code, _) => Err(CoordinatorError::Refused { code }),
    }
}
