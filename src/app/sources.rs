//! Names source topics that do not exist (yet). The consumer itself waits for them as long as it takes.
//!
//! It decides nothing. [`follow`] is its whole life.

use std::{collections::BTreeSet, sync::Arc};

use protocol::{cluster::Metadata, error_code::ErrorCode};
use tokio::sync::watch;

/// Says once that a topic is missing, and once that it is there. Ends when there is no more news, with the client.
pub(super) async fn follow(topics: Vec<String>, mut changes: watch::Receiver<Arc<Metadata>>) {
    let mut missing = BTreeSet::new();
    loop {
        let metadata = changes.borrow_and_update().clone();
        let (gone, found) = compare(&topics, &metadata, &missing);
        if !gone.is_empty() {
            tracing::warn!(
                topics = gone.join(", "),
                "source topics do not exist: they are consumed as soon as they do (kafka-consumer.topic)"
            );
        }
        if !found.is_empty() {
            tracing::info!(topics = found.join(", "), "source topics that were missing exist now");
        }
        missing.extend(gone);
        missing.retain(|topic| !found.contains(topic));
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Topics that are newly missing, and missing ones that are there. A topic of which no broker has spoken is neither.
fn compare(topics: &[String], metadata: &Metadata, missing: &BTreeSet<String>) -> (Vec<String>, Vec<String>) {
    let (mut gone, mut found) = (Vec::new(), Vec::new());
    for name in topics {
        let Some(topic) = metadata.topics.get(name.as_str()) else { continue };
        let is_missing = topic.error == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        match missing.contains(name) {
            false if is_missing => gone.push(name.clone()),
            true if topic.error.is_none() => found.push(name.clone()),
            _ => {}
        }
    }
    (gone, found)
}

#[cfg(test)]
mod tests {
    use protocol::cluster::Topic;

    use super::*;

    fn metadata(topics: &[(&str, ErrorCode)]) -> Metadata {
        let topic = |error| Topic { id: Default::default(), error, partitions: Vec::new() };
        let mut metadata = Metadata::default();
        metadata.topics = topics.iter().map(|(name, error)| (Arc::from(*name), topic(*error))).collect();
        metadata
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_topic_is_missing_when_a_broker_says_so_and_there_when_it_answers_for_it() {
        let topics = names(&["a", "b", "c"]);
        let none = BTreeSet::new();
        assert_eq!(compare(&topics, &metadata(&[]), &none), (vec![], vec![]), "nobody has spoken yet");
        let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        let two = metadata(&[("a", unknown), ("b", ErrorCode::NONE), ("c", unknown), ("other", unknown)]);
        assert_eq!(compare(&topics, &two, &none), (names(&["a", "c"]), vec![]));
        let missing = BTreeSet::from_iter(names(&["a", "c"]));
        assert_eq!(compare(&topics, &two, &missing), (vec![], vec![]), "it was said");
        let being_made = metadata(&[("a", ErrorCode::LEADER_NOT_AVAILABLE), ("c", ErrorCode::NONE)]);
        assert_eq!(compare(&topics, &being_made, &missing), (vec![], names(&["c"])));
    }

    #[tokio::test]
    async fn following_ends_with_the_client() {
        let (news, changes) = watch::channel(Arc::new(metadata(&[("a", ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)])));
        let following = tokio::spawn(follow(names(&["a"]), changes));
        news.send_replace(Arc::new(metadata(&[("a", ErrorCode::NONE)])));
        drop(news);
        following.await.expect("no panic");
    }
}
