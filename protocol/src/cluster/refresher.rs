//! The task that keeps the metadata new.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use kafka_protocol::{
    messages::{MetadataRequest, MetadataResponse, TopicName, metadata_request::MetadataRequestTopic},
    protocol::StrBytes,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Backoff, Cluster, Trouble, bootstrap_index};
use crate::connection::{RequestError, RequestErrorKind};

/// The first version that tells brokers whether they may create what is asked for.
const TELLS_AUTO_CREATE: i16 = 4;

/// Refreshes when asked, when the picture is old, and again with back-off while no broker answers.
pub(super) async fn run(cluster: Cluster, cancel: CancellationToken) {
    let config = cluster.config().clone();
    let mut backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
    let mut last: Option<Instant> = None;
    loop {
        let max_age = if misses_topics(&cluster) { config.retry_backoff_max } else { config.metadata_max_age };
        let old = last.map_or_else(Instant::now, |last| last + max_age);
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = cluster.0.refresh.notified() => {}
            () = tokio::time::sleep_until(old) => {}
        }
        // Not too soon after the last, but for a topic that is asked for the first time.
        let not_before = last.map_or_else(Instant::now, |last| last + config.retry_backoff);
        while !cluster.0.new_topic.swap(false, Ordering::AcqRel) && not_before > Instant::now() {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = cluster.0.refresh.notified() => {}
                () = tokio::time::sleep_until(not_before) => {}
            }
        }
        loop {
            let ticket = cluster.0.tickets.load(Ordering::Acquire);
            let asked = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                asked = ask(&cluster) => asked,
            };
            last = Some(Instant::now());
            match asked {
                Ok((answer, watched)) => {
                    take(&cluster, &answer, &watched, ticket);
                    if backoff.tries() > 0 {
                        tracing::info!(brokers = answer.brokers.len(), "the brokers answer again");
                    }
                    backoff.reset();
                    break;
                }
                Err(error) => {
                    let text: Arc<str> = error.chain().into();
                    if backoff.tries() == 0 {
                        tracing::warn!(error = %text, "no broker answers; trying again until one does");
                    } else {
                        tracing::debug!(error = %text, "still no broker answers");
                    }
                    let authentication = matches!(error.kind, RequestErrorKind::Authentication { .. });
                    cluster.0.trouble.send_replace(Some(Trouble { text, authentication }));
                    if wait(&cancel, backoff.next_delay()).await {
                        return;
                    }
                }
            }
        }
    }
}

/// Whether a watched topic is not there (yet): it is asked for until it is.
fn misses_topics(cluster: &Cluster) -> bool {
    let metadata = cluster.metadata();
    cluster.watched().keys().any(|name| metadata.topics.get(name).is_none_or(|topic| topic.partitions.is_empty()))
}

/// Waits; true if the client was closed meanwhile.
async fn wait(cancel: &CancellationToken, delay: Duration) -> bool {
    tokio::select! {
        biased;
        () = cancel.cancelled() => true,
        () = tokio::time::sleep(delay) => false,
    }
}

type Asked = (MetadataResponse, BTreeSet<Arc<str>>);

async fn ask(cluster: &Cluster) -> Result<Asked, RequestError> {
    let watched = cluster.watched();
    let create: Vec<Arc<str>> = watched.iter().filter(|(_, create)| **create).map(|(name, _)| name.clone()).collect();
    let keep: Vec<Arc<str>> = watched.iter().filter(|(_, create)| !**create).map(|(name, _)| name.clone()).collect();
    // What may be created and what may not go in requests of their own: the flag stands for a whole request.
    let mut answer = question(cluster, keep, false).await?;
    if !create.is_empty() {
        let created = question(cluster, create, true).await?;
        answer.topics.extend(created.topics);
        answer.brokers = created.brokers;
        answer.controller_id = created.controller_id;
    }
    Ok((answer, watched.into_keys().collect()))
}

async fn question(cluster: &Cluster, names: Vec<Arc<str>>, create: bool) -> Result<MetadataResponse, RequestError> {
    let build = move |version: i16| {
        let topics = names.iter().map(|name| {
            MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_string(name.to_string()))))
        });
        // Before version 4 brokers create as they please: there is no flag, and no harm in leaving its default.
        let create = create || version < TELLS_AUTO_CREATE;
        MetadataRequest::default().with_topics(Some(topics.collect())).with_allow_auto_topic_creation(create)
    };
    cluster.call_any(cluster.config().request_timeout, build).await.map(|(_, answer)| answer)
}

fn take(cluster: &Cluster, answer: &MetadataResponse, watched: &BTreeSet<Arc<str>>, ticket: u64) {
    cluster.0.metadata.send_modify(|metadata| *metadata = Arc::new(metadata.advance(answer, watched, ticket)));
    cluster.0.trouble.send_replace(None);
    let metadata = cluster.metadata();
    let coordinators = cluster.0.extra_brokers.lock().unwrap_or_else(PoisonError::into_inner).clone();
    cluster.0.pool.retain(|node| {
        bootstrap_index(node).is_none() && (metadata.brokers.contains_key(&node) || coordinators.contains_key(&node))
    });
}
