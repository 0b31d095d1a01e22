//! A broker that hangs: its sockets are open, or seem about to open, and nothing comes from them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fake_broker::ApiKey;
use kafka_protocol::messages::MetadataRequest;
use protocol::{cluster::Purpose, connection::RequestErrorKind, outcome::Outcome};
use tokio::time::Instant;

use super::scene::Scene;

const TIMEOUT: Duration = Duration::from_secs(3);

#[tokio::test(start_paused = true)]
async fn one_broker_that_hangs_does_not_hold_up_what_any_broker_can_answer() -> Result<()> {
    let scene = Scene::new(3, 1).await?;
    scene.client.admin().describe_cluster().await;
    for _ in 0..3 {
        // The one that is asked first because it answered last.
        let requests = scene.fake.requests();
        let last = requests.iter().rev().find(|request| request.api == ApiKey::Metadata).context("a request")?;
        let held = scene.fake.on(ApiKey::Metadata).node(last.node).always().hold_request();
        for _ in 0..3 {
            let asked = tokio::time::timeout(TIMEOUT, scene.client.admin().describe_cluster()).await;
            asked.with_context(|| format!("node {} hangs", last.node))?;
        }
        assert!(held.count() > 0, "node {} was asked", last.node);
        held.release();
        scene.fake.clear_faults();
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_for_a_socket_to_open_than_for_an_answer_and_what_is_late_is_not_sent() -> Result<()> {
    let scene = Scene::new(1, 1).await?;
    scene.client.admin().describe_cluster().await;
    let held = scene.fake.on(ApiKey::ApiVersions).hold_request();
    let before = Instant::now();
    let ask = |_| MetadataRequest::default().with_topics(Some(Vec::new()));
    let asked = scene.client.cluster().call::<MetadataRequest>(1, Purpose::Join(7), TIMEOUT, ask).await;
    let error = asked.err().context("it was answered")?;
    assert!(matches!(error.kind, RequestErrorKind::Timeout { timeout: TIMEOUT, .. }), "{error}");
    assert_eq!((error.outcome, held.count()), (Outcome::NotSent, 1));
    assert!(before.elapsed() < 2 * TIMEOUT, "{:?}", before.elapsed());
    scene.fake.forget_requests();
    held.release();
    // The next one goes by the same socket, once it is open.
    scene.client.cluster().call::<MetadataRequest>(1, Purpose::Join(7), TIMEOUT, ask).await?;
    let requests = scene.fake.requests();
    assert_eq!(requests.iter().filter(|request| request.api == ApiKey::Metadata).count(), 1, "{requests:?}");
    Ok(())
}
