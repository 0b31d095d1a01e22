//! A sidecar while those who run the brokers do their work, and while there are none.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::scene::{PARTITIONS, SOME, Scene};
use crate::{
    sidecar::{produce::http, scene::Reactive},
    support::{
        backend::{Backend, Reply},
        kafka::Signal,
        operator::PATIENCE,
        process::Sidecar,
    },
};

/// Between two requests, and two looks at the health.
const PACE: Duration = Duration::from_millis(20);

/// Posts a record to each partition again and again; how many requests were answered.
async fn post(url: String, stop: Arc<AtomicBool>) -> Result<usize> {
    let client = http()?;
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        let records = (0..PARTITIONS).map(|partition| json!({ "partition": partition, "value": { "n": number } }));
        let body = json!({ "records": Value::from_iter(records) }).to_string();
        let request = client.post(&url).header("content-type", "application/json").timeout(PATIENCE).body(body);
        let answer = request.send().await.with_context(|| format!("request {number}"))?;
        let (status, body) = (answer.status().as_u16(), answer.text().await?);
        let entries: Value = serde_json::from_str(&body)?;
        let written = entries["offsets"].as_array().is_some_and(|all| all.iter().all(|one| one["error"].is_null()));
        ensure!(status == 200 && written, "request {number}: {status} {body}");
        number += 1;
        tokio::time::sleep(PACE).await;
    }
    Ok(number)
}

/// What readiness answered last, and since when.
async fn watch_health(url: String, seen: watch::Sender<Option<u16>>, asked: Arc<AtomicUsize>) -> Result<()> {
    let client = http()?;
    loop {
        let alive = client.get(format!("{url}/health/liveness")).send().await?.status().as_u16();
        ensure!(alive == 200, "liveness says {alive}");
        let answer = client.get(format!("{url}/health/readiness")).send().await?;
        let status = answer.status().as_u16();
        let body = answer.text().await?;
        asked.fetch_add(1, Ordering::SeqCst);
        seen.send_if_modified(|last| {
            if *last == Some(status) {
                return false;
            }
            eprintln!("  readiness: {status} {body}");
            *last = Some(status);
            true
        });
        tokio::time::sleep(PACE).await;
    }
}

pub(super) async fn a_sidecar_loses_nothing_when_the_brokers_are_restarted_in_turn_and_one_is_killed(
    scene: &Scene,
) -> Result<()> {
    let backend = Backend::start(|_| Reply::Processed).await?;
    let settings = Reactive::new(scene.kafka, &scene.topic, &backend.url())
        .with("health.useJson", true)
        .with("sidecar.readinessGraceMs", 2000);
    let sidecar = settings.start()?;
    let outcome = go(scene, &backend, &sidecar).await;
    let log = sidecar.stop()?;
    outcome.with_context(|| format!("the sidecar logged {log:#?}"))?;
    ensure!(!log.iter().any(|line| line.contains("\"ERROR\"")), "{log:#?}");
    scene.close().await
}

async fn go(scene: &Scene, backend: &Backend, sidecar: &Sidecar) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let posting = tokio::spawn(post(format!("{}/producers/{}", sidecar.url, scene.topic), stop.clone()));
    let (seen, mut health) = watch::channel(None);
    let asked = Arc::new(AtomicUsize::new(0));
    let watching = tokio::spawn(watch_health(sidecar.url.clone(), seen, asked.clone()));
    let ready = async |health: &mut watch::Receiver<Option<u16>>, status: u16| {
        let told = tokio::time::timeout(PATIENCE, health.wait_for(|last| *last == Some(status))).await;
        told.with_context(|| format!("readiness does not become {status}"))?.map(drop).context("nobody asks")
    };
    ready(&mut health, 200).await?;
    more(backend).await?;
    health.mark_unchanged();
    for node in 0..scene.kafka.count() {
        scene.signal(node, Signal::Terminate)?;
        more(backend).await?;
        scene.start_again()?;
        scene.spread_leaders().await?;
    }
    scene.signal(0, Signal::Kill)?;
    more(backend).await?;
    scene.start_again()?;
    more(backend).await?;
    ensure!(!health.has_changed()?, "two brokers were there all the time: {:?}", *health.borrow());
    for node in 0..scene.kafka.count() {
        scene.signal(node, Signal::Kill)?;
    }
    ready(&mut health, 400).await?;
    scene.start_again()?;
    ready(&mut health, 200).await?;
    more(backend).await?;
    stop.store(true, Ordering::SeqCst);
    let posted = tokio::time::timeout(PATIENCE, posting).await.context("the answer does not come")???;
    let all = posted * PARTITIONS as usize;
    backend.until("every record has a verdict", PATIENCE, |history| history.finished() >= all).await?;
    watching.abort();
    if let Ok(watched) = watching.await {
        watched?;
    }
    ensure!(asked.load(Ordering::SeqCst) > 100, "somebody looks at the health all the time");
    came_in_order_and_once(backend, posted)
}

/// Waits until the backend has finished some more records of each partition.
async fn more(backend: &Backend) -> Result<()> {
    let wanted: BTreeMap<i32, i64> = {
        let history = backend.history();
        (0..PARTITIONS).map(|partition| (partition, history.lowest_unfinished(partition) + SOME as i64)).collect()
    };
    let reached = backend.until("there is more", PATIENCE, |history| {
        wanted.iter().all(|(partition, wanted)| history.lowest_unfinished(*partition) >= *wanted)
    });
    reached.await
}

/// Each partition got every number in order. Nobody came or left, so nothing had to come twice.
fn came_in_order_and_once(backend: &Backend, posted: usize) -> Result<()> {
    let history = backend.history();
    ensure!(history.overlaps.is_empty(), "{:?}", history.overlaps);
    for partition in 0..PARTITIONS {
        let calls = history.calls().iter().filter(|seen| seen.call.partition == partition);
        let numbers = calls.flat_map(|seen| seen.call.records.iter().map(|record| record["value"]["n"].as_u64()));
        let numbers: Vec<Option<u64>> = numbers.collect();
        let expected: Vec<Option<u64>> = (0..posted as u64).map(Some).collect();
        let differs = numbers.iter().zip(&expected).position(|(number, expected)| number != expected);
        ensure!(
            numbers == expected,
            "partition {partition}: {} of {posted}; they differ from {differs:?} on: {:?}",
            numbers.len(),
            differs.map(|place| numbers.iter().skip(place).take(5).collect::<Vec<_>>())
        );
    }
    Ok(())
}
