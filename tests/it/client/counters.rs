//! What the client counts of its requests and sockets.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fake_broker::ApiKey;
use protocol::{
    connection::{Requests, Sockets},
    producer::ProducerConfig,
};

use super::scene::{Scene, TOPIC};
use crate::support::client::{PATIENCE, producer, send_values};

fn requests(scene: &Scene, api: &str) -> Requests {
    let counted = scene.client.cluster().counters().requests();
    counted.into_iter().find(|(name, _)| *name == api).map(|(_, requests)| requests).unwrap_or_default()
}

fn sockets(scene: &Scene, node: i32) -> Result<Sockets> {
    let counted = scene.client.cluster().counters().brokers();
    Ok(counted.into_iter().find(|(known, _)| *known == node).context("counted")?.1)
}

#[tokio::test(start_paused = true)]
async fn requests_are_counted_by_what_became_of_them_and_sockets_by_broker() -> Result<()> {
    let scene = Scene::with(1, 1, |config| config.bootstrap.insert(0, ("nobody".to_owned(), 1))).await?;
    let producer = producer(&scene.client, ProducerConfig { batch_size: 1, ..ProducerConfig::default() })?;
    let slow = scene.fake.on(ApiKey::Produce).delay(Duration::from_secs(2));
    send_values(&producer, TOPIC, None, 0..1).await?;
    assert_eq!(slow.hits(), 1);
    let before = sockets(&scene, 1)?;
    assert_eq!((before.failed, before.throttled), (0, Duration::ZERO));
    assert!(before.open > 0 && before.open == before.opened, "{before:?}");
    assert!(before.sent_bytes > 0 && before.received_bytes > 0, "{before:?}");

    let lost = scene.fake.on(ApiKey::Produce).drop_answer();
    let throttled = scene.fake.on(ApiKey::Produce).throttle(Duration::from_secs(3));
    send_values(&producer, TOPIC, None, 1..3).await?;
    assert_eq!((lost.hits(), throttled.hits()), (1, 1));
    let produced = requests(&scene, "Produce");
    assert!(produced.answered >= 3 && produced.unknown > 0, "{produced:?}");
    assert!(produced.time >= Duration::from_secs(2), "{produced:?}");
    let after = sockets(&scene, 1)?;
    assert_eq!((after.opened, after.open), (before.opened + 1, before.open), "the lost one was opened again");
    assert_eq!(after.throttled, Duration::from_secs(3));
    assert!(after.sent_bytes > before.sent_bytes && after.received_bytes > before.received_bytes);

    let nobody = sockets(&scene, -1)?;
    assert!(nobody.failed > 0 && nobody.opened > 0, "the first server is not there, the second is: {nobody:?}");
    assert!(requests(&scene, "Metadata").not_sent > 0);
    assert_eq!(producer.close(PATIENCE).await, 0);
    assert!(scene.client.close(PATIENCE).await);
    assert_eq!(sockets(&scene, 1)?.open, 0);
    Ok(())
}
