//! No broker at all for a while.

use std::time::Duration;

use anyhow::{Result, ensure};
use protocol::{outcome::Outcome, producer::ProducerConfig};

use super::{
    readers::Readers,
    scene::{SOME, Scene},
    writer::Writer,
};
use crate::support::kafka::Signal::{self, Kill, Terminate};

/// Short, so that records are given up while all brokers are away.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(4);
/// Nodes without a quorum do not end in order, so at most one does.
const ENDS: [[Signal; 3]; 2] = [[Kill, Kill, Kill], [Terminate, Kill, Kill]];

pub(super) async fn after_all_nodes_were_away_everything_goes_on_and_every_outcome_was_true(
    scene: &Scene,
) -> Result<()> {
    let client = scene.client()?;
    let readers = Readers::start(scene, |_| {}).await?;
    let config = ProducerConfig { delivery_timeout: DELIVERY_TIMEOUT, ..ProducerConfig::default() };
    let writer = Writer::start(&client, config, &scene.topic)?;
    let patient = Writer::start(&client, ProducerConfig::default(), &scene.another_topic("patient").await?)?;
    for signals in ENDS {
        writer.more(SOME).await?;
        for (node, signal) in signals.into_iter().enumerate() {
            scene.signal(node, signal)?;
        }
        writer.given_up().await?;
        scene.start_again()?;
        writer.more(SOME).await?;
        patient.more(SOME).await?;
        readers.more(SOME as i64).await?;
    }
    let (written, patient) = (writer.finish().await?, patient.finish().await?);
    scene.whole().await?;
    written.failed_by_time_only()?;
    ensure!(written.failures().any(|error| error.outcome == Outcome::NotSent), "some were never sent");
    patient.all_succeeded()?;
    patient.is_what_stands_there(scene)?;
    let ends = written.is_what_stands_there(scene)?;
    readers.finish(&ends).await?;
    client.close(crate::support::client::PATIENCE).await;
    scene.close().await
}
