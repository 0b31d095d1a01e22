//! Brokers that are killed in the midst of their work, and come back.

use anyhow::Result;
use protocol::producer::ProducerConfig;

use super::{
    readers::{Readers, undisturbed},
    scene::{SOME, Scene},
    writer::Writer,
};
use crate::support::kafka::Signal;

pub(super) async fn leaders_that_are_killed_in_turn_cost_no_acknowledged_record_and_write_none_twice(
    scene: &Scene,
) -> Result<()> {
    let client = scene.client()?;
    let writer = Writer::start(&client, ProducerConfig::default(), &scene.topic)?;
    for node in 0..scene.kafka.count() {
        scene.spread_leaders().await?;
        writer.more(SOME).await?;
        scene.signal(node, Signal::Kill)?;
        writer.more(SOME).await?;
        scene.start_again()?;
    }
    writer.more(SOME).await?;
    let written = writer.finish().await?;
    written.all_succeeded()?;
    scene.whole().await?;
    written.is_what_stands_there(scene)?;
    client.close(crate::support::client::PATIENCE).await;
    scene.close().await
}

pub(super) async fn a_group_whose_coordinator_is_killed_goes_on_and_nothing_is_lost(scene: &Scene) -> Result<()> {
    let client = scene.client()?;
    let readers = Readers::start(scene, |_| {}).await?;
    let writer = Writer::start(&client, ProducerConfig::default(), &scene.topic)?;
    for _ in 0..2 {
        scene.spread_leaders().await?;
        readers.more(SOME as i64).await?;
        let node = scene.coordinator(&scene.topic).await?;
        scene.signal(node, Signal::Kill)?;
        writer.more(SOME).await?;
        readers.more(SOME as i64).await?;
        scene.start_again()?;
    }
    let written = writer.finish().await?;
    written.all_succeeded()?;
    let ends = written.is_what_stands_there(scene)?;
    let history = readers.finish(&ends).await?;
    undisturbed(&history.look())?;
    client.close(crate::support::client::PATIENCE).await;
    scene.close().await
}
