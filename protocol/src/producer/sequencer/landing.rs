//! Requests that are answered or dead: what becomes of their batches.

use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use tokio::time::Instant;

use super::{Action, Answers, RequestId, Sequencer};
use crate::{
    connection::RequestError,
    error_code::ErrorCode,
    producer::{
        Acks, Outcome, ProduceErrorKind,
        batch::{Batch, Key, failure},
        completion::Written,
        verdict::{Case, Verdict, verdict},
    },
};

impl Sequencer {
    pub(super) fn answered(&mut self, request: RequestId, answer: Result<Option<Answers>, RequestError>, now: Instant) {
        let Some((node, sent)) = self.requests.remove(&request) else { return };
        if let Some(broker) = self.brokers.get_mut(&node) {
            broker.requests = broker.requests.saturating_sub(1);
        }
        for (key, place) in sent {
            let Some(batch) = self.lanes.get_mut(&key).and_then(|lane| lane.land(place, now)) else { continue };
            match &answer {
                Ok(None) => self.written(&key, batch, None, -1, now),
                Ok(Some(answers)) => match answers.get(&key) {
                    Some(answer) => self.judged(&key, batch, answer, now),
                    None => {
                        let fault = "the broker's answer left the partition out".to_owned();
                        self.again(&key, batch, Outcome::Unknown, fault, now);
                    }
                },
                Err(error) => self.unanswered(&key, batch, error, now),
            }
        }
    }

    fn unanswered(&mut self, key: &Key, mut batch: Batch, error: &RequestError, now: Instant) {
        tracing::debug!(topic = %key.0, partition = key.1, error = %error.chain(), "a batch got no answer");
        self.refresh = true;
        if error.retriable() {
            self.again(key, batch, error.outcome, error.chain(), now);
        } else {
            batch.learn(error.outcome);
            self.fail(key, &batch, ProduceErrorKind::DeliveryTimeout { last: error.chain() });
        }
    }

    fn judged(&mut self, key: &Key, mut batch: Batch, answer: &PartitionProduceResponse, now: Instant) {
        let code = ErrorCode(answer.error_code);
        let case = Case {
            code,
            idempotent: self.config.idempotence,
            replicated: self.config.acks == Acks::All,
            is_first: self.lane(key, now).is_first(&batch),
            records: batch.records(),
            culprits: answer.record_errors.len(),
        };
        let verdict = verdict(case);
        if batch.given_up && !matches!(verdict, Verdict::Written | Verdict::WrittenBefore) {
            // If that leaves a gap in the sequence, the next batch will hear of it and begin a new epoch.
            return;
        }
        match verdict {
            Verdict::Written => {
                self.written(key, batch, Some(answer.base_offset), answer.log_append_time_ms, now);
            }
            Verdict::WrittenBefore => self.written(key, batch, None, answer.log_append_time_ms, now),
            Verdict::Again { in_doubt, refresh } => {
                tracing::debug!(topic = %key.0, partition = key.1, %code, "sending a batch again");
                // A leader that the answer names is known by now.
                self.refresh |= refresh && answer.current_leader.leader_id.0 < 0;
                let outcome = if in_doubt { Outcome::Unknown } else { Outcome::Rejected };
                self.again(key, batch, outcome, code.to_string(), now);
            }
            Verdict::NewEpoch => {
                tracing::info!(topic = %key.0, partition = key.1, %code, "beginning a new producer epoch for the partition");
                self.begin_epoch(key, &batch, now);
                self.again(key, batch, Outcome::Rejected, code.to_string(), now);
            }
            Verdict::Divide => {
                batch.learn(Outcome::Rejected);
                let half = batch.records().div_ceil(2);
                self.divide(key, &batch, |place| Some(usize::from(place >= half)), now);
            }
            Verdict::WithoutCulprits => {
                batch.learn(Outcome::Rejected);
                let mut culprits = Vec::new();
                for error in &answer.record_errors {
                    let Ok(place) = usize::try_from(error.batch_index) else { continue };
                    let message = error.batch_index_error_message.as_ref().or(answer.error_message.as_ref());
                    let kind = ProduceErrorKind::Broker { code, message: message.map(|message| message.to_string()) };
                    let failed = Err(failure(key, batch.fate(), kind));
                    self.actions.extend(batch.settlement_at(place, failed).map(Action::Settle));
                    culprits.push(place);
                }
                self.divide(key, &batch, |place| (!culprits.contains(&place)).then_some(0), now);
            }
            Verdict::Failed => {
                batch.learn(Outcome::Rejected);
                let kind = match code {
                    ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => {
                        ProduceErrorKind::TooLarge { size: batch.sealed().len(), limit: None }
                    }
                    code => {
                        let message = answer.error_message.as_ref().map(|message| message.to_string());
                        ProduceErrorKind::Broker { code, message }
                    }
                };
                self.fail(key, &batch, kind);
            }
        }
    }

    fn written(&mut self, key: &Key, batch: Batch, offset: Option<i64>, append_time: i64, now: Instant) {
        self.lane(key, now).written();
        if !batch.given_up {
            let append_time = Some(append_time).filter(|time| *time >= 0);
            self.settle(batch.settlement(Ok(Written { partition: key.1, offset, append_time })));
        }
    }

    fn fail(&mut self, key: &Key, batch: &Batch, kind: ProduceErrorKind) {
        if !batch.given_up {
            self.settle(batch.failure(key, batch.fate(), kind));
        }
    }

    /// Puts a batch back in its place, after a try that came to `outcome`.
    fn again(&mut self, key: &Key, mut batch: Batch, outcome: Outcome, fault: String, now: Instant) {
        batch.learn(outcome);
        if batch.given_up {
            return;
        }
        if let Some(retries) = self.config.retries
            && batch.tries() > retries
        {
            let last = format!("{fault} after {} tries (retries={retries})", batch.tries());
            self.fail(key, &batch, ProduceErrorKind::DeliveryTimeout { last });
            return;
        }
        let lane = self.lane(key, now);
        lane.fault = fault.into();
        lane.again(batch, now);
    }

    /// A batch of an epoch that was given up already only takes its place in the one that is.
    fn begin_epoch(&mut self, key: &Key, batch: &Batch, now: Instant) {
        let lane = self.lane(key, now);
        let Some((id, _)) = lane.identity().filter(|own| batch.stamp().is_some_and(|stamp| stamp.identity == *own))
        else {
            return;
        };
        lane.begin_epoch();
        if lane.identity().is_none() && self.id.fresh.is_some_and(|fresh| fresh.0 == id) {
            // No epoch is left. Other partitions keep the id that they have.
            self.id.fresh = None;
        }
    }

    /// Sends parts of a batch that was refused as a whole.
    fn divide(&mut self, key: &Key, batch: &Batch, part: impl Fn(usize) -> Option<usize>, now: Instant) {
        match batch.divide(part) {
            Ok(parts) => {
                let lane = self.lane(key, now);
                parts.into_iter().for_each(|part| lane.put(part, now));
            }
            Err(error) => {
                let kind = ProduceErrorKind::DeliveryTimeout { last: error.to_string() };
                self.fail(key, batch, kind);
            }
        }
    }
}
