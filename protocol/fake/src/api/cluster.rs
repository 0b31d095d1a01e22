//! DescribeCluster.

use std::sync::Arc;

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use protocol::error_code::ErrorCode;

use super::{Api, Caller, Served, throttled};
use crate::names::{broker_id, text};
use crate::shared::Shared;

/// The endpoints of brokers, as opposed to those of controllers.
const BROKERS: i8 = 1;

impl Api for DescribeClusterRequest {
    async fn serve(self, shared: &Arc<Shared>, caller: &Caller) -> Served<Self::Response> {
        if caller.version >= 1 && self.endpoint_type != BROKERS {
            return Served::Answer(self.refuse(caller.version, ErrorCode::MISMATCHED_ENDPOINT_TYPE.0));
        }
        let response = shared.quietly(|state| {
            let brokers = state.nodes.iter().filter(|(_, node)| node.alive).map(|(id, node)| {
                let broker = DescribeClusterBroker::default().with_broker_id(BrokerId(*id));
                broker.with_host(text(&node.host)).with_port(i32::from(node.port))
            });
            DescribeClusterResponse::default()
                .with_cluster_id(text(&state.settings.cluster_id))
                .with_controller_id(broker_id(state.alive().next()))
                .with_brokers(brokers.collect())
        });
        Served::Answer(response)
    }

    fn refuse(&self, _: i16, code: i16) -> Self::Response {
        DescribeClusterResponse::default().with_error_code(code).with_controller_id(BrokerId(-1))
    }

    throttled!();
}
