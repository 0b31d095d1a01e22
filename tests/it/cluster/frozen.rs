//! A broker that hangs: its sockets are open, and nothing comes from them.

use std::time::Duration;

use anyhow::Result;
use protocol::producer::ProducerConfig;

use super::{
    readers::{Readers, undisturbed},
    scene::{SOME, Scene},
    writer::Writer,
};
use crate::support::kafka::Signal;

/// The time that a hanging leader costs. Of metadata and coordinators the default counts, 30 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) async fn a_node_that_hangs_and_wakes_holds_nothing_up_and_writes_nothing_twice(scene: &Scene) -> Result<()> {
    let client = scene.client()?;
    let readers = Readers::start(scene, |config| config.request_timeout = REQUEST_TIMEOUT).await?;
    let config = ProducerConfig { request_timeout: REQUEST_TIMEOUT, ..ProducerConfig::default() };
    let writer = Writer::start(&client, config, &scene.topic)?;
    let coordinator = scene.coordinator(&scene.topic).await?;
    for node in [coordinator, (coordinator + 1) % scene.kafka.count()] {
        scene.spread_leaders().await?;
        writer.more(SOME).await?;
        scene.signal(node, Signal::Stop)?;
        writer.more(SOME).await?;
        readers.more(SOME as i64).await?;
        scene.signal(node, Signal::Continue)?;
        writer.more(SOME).await?;
    }
    let written = writer.finish().await?;
    written.all_succeeded()?;
    scene.whole().await?;
    let ends = written.is_what_stands_there(scene)?;
    let history = readers.finish(&ends).await?;
    undisturbed(&history.look())?;
    client.close(crate::support::client::PATIENCE).await;
    scene.close().await
}
