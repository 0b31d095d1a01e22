//! The reactive consumer as a part of the process: its task, its numbers, and what it says of its health.
//!
//! It decides nothing about records; [`crate::reactive`] does. [`part`] builds the task, [`Numbers`] shows what it observes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::{Check, Stoppable};
use crate::{
    dead_letter,
    reactive::{self, BackendState, Membership, Observer, PartitionState, ReactiveParts, Status},
    telemetry::samples::{Sample, Source},
};

/// The flow's task, and `beside` it for as long. It ends by `parts.stop`; cut, it abandons what is in flight.
pub(crate) fn part<M: Membership>(
    parts: ReactiveParts<M>,
    beside: impl Future<Output = ()> + Send + 'static,
) -> Stoppable {
    let (stop, cut) = (parts.stop.clone(), CancellationToken::new());
    let cut_short = cut.clone();
    let run = async move {
        let beside = async {
            beside.await;
            std::future::pending::<std::convert::Infallible>().await
        };
        tokio::select! {
            biased;
            ended = reactive::run(parts) => ended.map_err(|error| error.to_string()),
            never = beside => match never {},
            () = cut_short.cancelled() => Err("what was in flight will be delivered again".to_owned()),
        }
    };
    Stoppable { name: "reactive consumer", run: run.boxed(), stop, cut }
}

/// Explains, and never decides: a stuck partition must not take the backend's own traffic away.
pub(crate) fn check(observer: Arc<Observer>) -> Check {
    Arc::new(move || std::future::ready(complaint(&observer.status()).map_or(Ok(()), Err)).boxed())
}

/// The first thing that is wrong.
fn complaint(status: &Status) -> Option<String> {
    if let Some(fault) = &status.fault {
        return Some(fault.clone());
    }
    let standing = status.partitions.iter().find_map(|partition| match &partition.state {
        PartitionState::Standing { offset, why } => {
            let offset = offset.map_or_else(String::new, |offset| format!("@{offset}"));
            Some(format!("{}{offset} stands: {why}", partition.partition))
        }
        _ => None,
    });
    standing.or_else(|| match &status.backend {
        BackendState::Up => None,
        // It was not asked yet: nothing is known against it.
        BackendState::Waiting { why } if why.is_empty() => None,
        BackendState::Waiting { why } | BackendState::Down { why, .. } => Some(format!("the backend is away: {why}")),
    })
}

/// What the flow and its dead letters count.
pub(crate) struct Numbers {
    pub(crate) observer: Arc<Observer>,
    pub(crate) dead_letters: Option<Arc<dead_letter::Metrics>>,
}

impl Source for Numbers {
    fn samples(&self, out: &mut Vec<Sample>) {
        let status = self.observer.status();
        partitions(&status, out);
        let up = if status.backend == BackendState::Up { 1.0 } else { 0.0 };
        out.push(Sample::gauge("backend_up", "1 while the backend answers", up));

        let metrics = &self.observer.metrics;
        let counter = |name, help, number: &AtomicU64| Sample::counter(name, help, read(number));
        out.push(counter("backend_requests", "Requests to the backend", &metrics.calls));
        let seconds = read(&metrics.call_micros) / 1e6;
        out.push(Sample::counter("backend_request_seconds", "Time until the backend's answers, in sum", seconds));
        let waiting = read(&metrics.calls_in_flight);
        out.push(Sample::gauge("backend_requests_in_flight", "Requests whose answer is awaited", waiting));
        for (reason, number) in [
            ("unavailable", &metrics.answers_unavailable),
            ("refused", &metrics.answers_refused),
            ("malformed", &metrics.answers_malformed),
            ("late", &metrics.answers_late),
            ("lost", &metrics.answers_lost),
        ] {
            out.push(counter("backend_failures", "Requests without verdicts", number).label("reason", reason));
        }
        out.push(counter("backend_records_sent", "Records in requests, repetitions included", &metrics.records_sent));
        for (result, number) in [
            ("processed", &metrics.records_processed),
            ("refused", &metrics.records_refused),
            ("exhausted", &metrics.records_exhausted),
            ("undecodable", &metrics.records_undecodable),
            ("skipped", &metrics.records_skipped),
            ("dropped", &metrics.records_dropped),
        ] {
            out.push(counter("reactive_records", "Records by what became of them", number).label("result", result));
        }
        out.push(counter("reactive_halvings", "Batches that were halved to find a culprit", &metrics.halvings));
        out.push(counter("reactive_rollbacks", "Batches sent again as a whole", &metrics.rollbacks));
        out.push(counter("kafka_consumer_commits", "Commits that succeeded", &metrics.commits));
        out.push(counter("kafka_consumer_commit_failures", "Commits that failed", &metrics.commit_failures));
        out.push(counter("kafka_consumer_faults", "Faults of partitions, topics and the group", &metrics.faults));
        let lost = "Partitions that were lost before they could be given up";
        out.push(counter("kafka_consumer_partitions_lost", lost, &metrics.partitions_lost));
        if let Some(letters) = &self.dead_letters {
            out.push(counter("dead_letters_written", "Dead letters acknowledged by a broker", &letters.written));
            out.push(counter(
                "dead_letter_write_failures",
                "Writes that failed and were tried again",
                &letters.failures,
            ));
            let held = "Records held until their dead letter is acknowledged";
            out.push(Sample::gauge("dead_letters_waiting", held, read(&letters.waiting)));
        }
    }
}

fn partitions(status: &Status, out: &mut Vec<Sample>) {
    for partition in &status.partitions {
        let mut gauge = |name, help, value: f64| {
            let of = &partition.partition;
            out.push(
                Sample::gauge(name, help, value)
                    .label("topic", &*of.topic)
                    .label("partition", of.partition.to_string()),
            );
        };
        let done = partition.finished.or(partition.committed);
        if let (Some(end), Some(done)) = (partition.high_watermark, done) {
            gauge("kafka_consumer_lag_records", "Records that are not finished yet", (end - done).max(0) as f64);
        }
        if let Some(committed) = partition.committed {
            gauge("kafka_consumer_committed_offset", "The last offset that was committed", committed as f64);
        }
        let in_flight = "Records that were taken and are not finished";
        gauge("kafka_consumer_records_in_flight", in_flight, partition.in_flight as f64);
        let age = partition.oldest_unfinished_age.unwrap_or_default().as_secs_f64();
        gauge("kafka_consumer_oldest_unfinished_seconds", "Age of the oldest unfinished record", age);
        let standing = if matches!(partition.state, PartitionState::Standing { .. }) { 1.0 } else { 0.0 };
        gauge("kafka_consumer_partition_standing", "1 while nothing moves until somebody does something", standing);
    }
}

fn read(number: &AtomicU64) -> f64 {
    number.load(Ordering::Relaxed) as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        reactive::{PartitionStatus, WaitsFor},
        record::TopicPartition,
    };

    fn partition(number: i32, state: PartitionState) -> PartitionStatus {
        PartitionStatus {
            partition: TopicPartition { topic: "t".into(), partition: number },
            position: Some(8),
            finished: Some(5),
            committed: Some(4),
            high_watermark: Some(12),
            in_flight: 3,
            oldest_unfinished: Some(5),
            oldest_unfinished_age: Some(Duration::from_millis(1500)),
            waits_for: WaitsFor::Answer,
            state,
        }
    }

    #[test]
    fn a_standing_partition_is_named_and_a_healthy_flow_says_nothing() {
        let standing = PartitionState::Standing { offset: Some(17), why: "it is no JSON".into() };
        let mut status = Status {
            backend: BackendState::Up,
            fault: None,
            partitions: vec![partition(0, PartitionState::Running), partition(1, standing)],
        };
        assert_eq!(complaint(&status).as_deref(), Some("t-1@17 stands: it is no JSON"));
        status.partitions.pop();
        assert_eq!(complaint(&status), None);
        status.backend = BackendState::Waiting { why: "refused".into() };
        assert_eq!(complaint(&status).as_deref(), Some("the backend is away: refused"));
        status.backend = BackendState::Waiting { why: String::new() };
        assert_eq!(complaint(&status), None);
        status.fault = Some("t: TOPIC_AUTHORIZATION_FAILED".into());
        assert_eq!(complaint(&status).as_deref(), Some("t: TOPIC_AUTHORIZATION_FAILED"));
    }

    #[test]
    fn lag_counts_from_what_is_finished() {
        let status =
            Status { backend: BackendState::Up, fault: None, partitions: vec![partition(0, PartitionState::Running)] };
        let mut samples = Vec::new();
        partitions(&status, &mut samples);
        let value = |name: &str| samples.iter().find(|sample| sample.name == name).map(|sample| sample.value);
        assert_eq!(value("kafka_consumer_lag_records"), Some(7.0));
        assert_eq!(value("kafka_consumer_oldest_unfinished_seconds"), Some(1.5));
        assert_eq!(value("kafka_consumer_partition_standing"), Some(0.0));
    }
}
