//! The topics that the sidecar itself writes to: looked up once, made where they are missing and may be made.
//!
//! It does not write. [`TargetTopics`] is its main type; many writers of one topic wait for one look and one creation.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OnceCell;

use super::sink::Topics;

/// How many partitions a topic gets that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Partitions<'a> {
    /// As many as this topic has.
    Of(&'a str),
    /// The broker's default.
    Default,
}

/// Topics with their partition counts as far as they were looked up.
pub(crate) struct TargetTopics {
    topics: Arc<dyn Topics>,
    known: Mutex<BTreeMap<String, Arc<OnceCell<i32>>>>,
}

/// Why there is no partition count.
enum Unknown {
    /// It is not there, or not told yet; whoever writes to it finds out.
    Untold,
    /// It could not be made.
    Unmade(String),
}

impl TargetTopics {
    pub(crate) fn new(topics: Arc<dyn Topics>) -> Self {
        Self { topics, known: Mutex::default() }
    }

    /// How many partitions the topic has, None if that is not told; makes it first if it is missing and `make` says how.
    ///
    /// Dropping the future may leave the topic made.
    ///
    /// # Errors
    /// It is missing and could not be made, with the reason.
    pub(crate) async fn ready(&self, topic: &str, make: Option<Partitions<'_>>) -> Result<Option<i32>, String> {
        let cell = self.known().entry(topic.to_owned()).or_default().clone();
        match cell.get_or_try_init(|| self.look_up(topic, make)).await {
            Ok(count) => Ok(Some(*count)),
            Err(Unknown::Untold) => Ok(None),
            Err(Unknown::Unmade(reason)) => Err(format!("the topic {topic} cannot be created: {reason}")),
        }
    }

    /// The topic is not as it was: it is looked up afresh.
    pub(crate) fn forget(&self, topic: &str) {
        self.known().remove(topic);
    }

    async fn look_up(&self, topic: &str, make: Option<Partitions<'_>>) -> Result<i32, Unknown> {
        if let Some(count) = self.topics.partition_count(topic).await {
            return Ok(count);
        }
        let wanted = match make {
            None => return Err(Unknown::Untold),
            Some(Partitions::Default) => None,
            Some(Partitions::Of(source)) => {
                let count = self.topics.partition_count(source).await;
                Some(count.ok_or_else(|| Unknown::Unmade(format!("how many partitions {source} has is not told")))?)
            }
        };
        self.topics.create(topic, wanted).await.map_err(Unknown::Unmade)?;
        match wanted {
            Some(count) => Ok(count),
            None => self.topics.partition_count(topic).await.ok_or(Unknown::Untold),
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<OnceCell<i32>>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::memory::MemoryKafka;

    #[tokio::test]
    async fn many_writers_look_once_and_make_the_topic_once() {
        let kafka = Arc::new(MemoryKafka::with_topics(&[("t", 5)]));
        let targets = TargetTopics::new(kafka.clone());
        let ready = || targets.ready("t.dlq", Some(Partitions::Of("t")));
        let all = futures_util::future::join_all((0..10).map(|_| ready())).await;
        assert!(all.iter().all(|count| *count == Ok(Some(5))), "{all:?}");
        assert_eq!((kafka.creations(), kafka.partitions("t.dlq")), (1, Some(5)));
        targets.forget("t.dlq");
        assert_eq!(ready().await, Ok(Some(5)));
        assert_eq!(kafka.creations(), 1);
    }

    #[tokio::test]
    async fn a_missing_topic_is_made_only_if_it_may_be_and_asked_for_again_until_it_is_there() {
        let kafka = Arc::new(MemoryKafka::default());
        let targets = TargetTopics::new(kafka.clone());
        assert_eq!(targets.ready("a", None).await, Ok(None));
        kafka.refuse_creation(Some("denied"));
        let refused = targets.ready("a", Some(Partitions::Default)).await;
        assert_eq!(refused, Err("the topic a cannot be created: denied".to_owned()));
        kafka.refuse_creation(None);
        assert_eq!(targets.ready("a", Some(Partitions::Default)).await, Ok(Some(1)));
        let nobody = targets.ready("b", Some(Partitions::Of("nobody"))).await;
        assert!(nobody.is_err_and(|reason| reason.contains("nobody")));
    }
}
