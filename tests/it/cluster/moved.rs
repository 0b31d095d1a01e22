//! Leaders that are moved by those who run the cluster, while everything works.

use anyhow::Result;
use protocol::producer::ProducerConfig;

use super::{
    readers::{Readers, undisturbed},
    scene::{PARTITIONS, SOME, Scene},
    writer::Writer,
};

pub(super) async fn leaders_that_are_moved_are_followed_without_an_error_and_nothing_comes_twice(
    scene: &Scene,
) -> Result<()> {
    let client = scene.client()?;
    let readers = Readers::start(scene, |_| {}).await?;
    let writer = Writer::start(&client, ProducerConfig::default(), &scene.topic)?;
    writer.more(SOME).await?;
    let nodes = scene.kafka.count() as i32;
    let node = |place: i32| place % nodes + 1;
    // To another order of the same nodes, of which the first is made the leader; then away from a node at all, twice.
    for (round, replicas) in [(1, 3), (2, 3), (1, 2), (2, 2), (0, 3)] {
        let places: Vec<Vec<i32>> = (0..PARTITIONS)
            .map(|partition| (0..replicas).map(|replica| node(partition + replica + round)).collect())
            .collect();
        scene.reassign(&places)?;
        scene.spread_leaders().await?;
        for (partition, place) in (0..PARTITIONS).zip(&places) {
            scene.led_by(partition, place[0]).await?;
        }
        writer.more(SOME).await?;
        readers.more(SOME as i64).await?;
    }
    let written = writer.finish().await?;
    written.all_succeeded()?;
    let ends = written.is_what_stands_there(scene)?;
    let history = readers.finish(&ends).await?;
    undisturbed(&history.look())?;
    client.close(crate::support::client::PATIENCE).await;
    scene.close().await
}
