//! Carries out what was decided about records, in the order that is the guarantee: dead letters acknowledged by the
//! broker, then audit entries taken, then the lease checked. Offsets follow in the finisher.
//!
//! It decides nothing. [`apply`] is the door.

use futures_util::future::try_join_all;
use protocol::consumer::Lease;

use super::{
    Shared,
    observer::{Stage, count},
    settle::{Failure, Fate},
    work::{self, Entry},
};
use crate::{
    audit::{Ack, AuditEntry, AuditType},
    dead_letter::Cause,
    record::TraceIds,
};

/// The lease was lost, or the audit ended: the records stay unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unfinished;

/// The offsets whose effects are durable, each with its audit entry's acknowledgement where there is an audit.
pub(super) async fn apply(
    shared: &Shared,
    lease: &Lease,
    entries: &[Entry],
    fates: Vec<Fate>,
    letters: bool,
) -> Result<Vec<(i64, Option<Ack>)>, Unfinished> {
    count_fates(shared, &fates);
    // Verdicts and copies of what failed are there already: they count, and nothing waits.
    let _memory = shared.memory.charge(bytes_of(entries, &fates));
    // While the membership is in doubt nothing begins; it is over (or revoked, which allows what is in flight) or confirmed.
    lease.confirmed().await;
    if letters {
        write_letters(shared, lease, entries, &fates).await?;
    }
    if shared.audit.is_some() {
        shared.observer.stage(lease, Stage::Audit);
    }
    let mut settled = Vec::with_capacity(entries.len());
    for (entry, fate) in entries.iter().zip(fates) {
        let ack = match &shared.audit {
            None => None,
            Some(audit) => {
                let taken = tokio::select! {
                    biased;
                    () = lease.lost() => return Err(Unfinished),
                    taken = audit.record(audit_entry(lease, entry, fate)) => taken,
                };
                Some(taken.map_err(|_| Unfinished)?)
            }
        };
        settled.push((entry.offset, ack));
    }
    shared.observer.stage(lease, Stage::Backend);
    if lease.is_lost() { Err(Unfinished) } else { Ok(settled) }
}

fn count_fates(shared: &Shared, fates: &[Fate]) {
    let metrics = &shared.observer.metrics;
    for fate in fates {
        let counter = match fate {
            Fate::Processed(_) => &metrics.records_processed,
            Fate::Failed { failure: Failure::Refused, .. } => &metrics.records_refused,
            Fate::Failed { failure: Failure::Exhausted, .. } => &metrics.records_exhausted,
            Fate::Failed { failure: Failure::Undecodable, .. } => &metrics.records_undecodable,
        };
        count(counter, 1);
    }
}

/// What fates take: the words of their verdicts and, of those that failed, the record as it is copied for its dead letter.
fn bytes_of(entries: &[Entry], fates: &[Fate]) -> usize {
    let bytes = entries.iter().zip(fates).map(|(entry, fate)| match fate {
        Fate::Processed(verdict) => verdict.text_bytes(),
        Fate::Failed { verdict, reason, .. } => 2 * (verdict.text_bytes() + reason.len()) + entry.size,
    });
    bytes.sum()
}

async fn write_letters(shared: &Shared, lease: &Lease, entries: &[Entry], fates: &[Fate]) -> Result<(), Unfinished> {
    let failed: Vec<(Entry, Cause)> = entries
        .iter()
        .zip(fates)
        .filter_map(|(entry, fate)| match fate {
            Fate::Processed(_) => None,
            Fate::Failed { verdict, reason, attempts, .. } => {
                let (correlation_id, traceability_id) = entry.ids_with(&verdict.ids);
                let cause = Cause {
                    reason: reason.clone(),
                    attempts: *attempts,
                    stacktrace: verdict.stacktrace.clone(),
                    ids: TraceIds { correlation_id: Some(correlation_id), traceability_id },
                };
                Some((entry.clone(), cause))
            }
        })
        .collect();
    let Some(dead_letters) = &shared.dead_letters else {
        count(&shared.observer.metrics.records_dropped, failed.len());
        for (entry, cause) in &failed {
            tracing::warn!(
                topic = %lease.topic(), partition = lease.partition(), offset = entry.offset,
                attempts = cause.attempts, reason = cause.reason,
                "the record failed and dead letters are off (deadLetterEnabled): it is finished"
            );
        }
        return Ok(());
    };
    let (failed, causes): (Vec<Entry>, Vec<Cause>) = failed.into_iter().unzip();
    let records = work::sources_of(lease, &failed);
    let mut writes = records.into_iter().zip(&causes).map(|(record, cause)| dead_letters.write(record, cause, lease));
    if !failed.is_empty() {
        shared.observer.stage(lease, Stage::DeadLetter);
    }
    // The first goes alone: once its topic is known, those behind it are taken as they come, and so in the source's order.
    if let Some(first) = writes.next() {
        first.await.map_err(|_| Unfinished)?;
    }
    try_join_all(writes).await.map(drop).map_err(|_| Unfinished)
}

fn audit_entry(lease: &Lease, entry: &Entry, fate: Fate) -> AuditEntry {
    let (success, verdict, reason) = match fate {
        Fate::Processed(verdict) => (true, verdict, None),
        Fate::Failed { verdict, reason, .. } => (false, verdict, Some(reason)),
    };
    let (correlation_id, traceability_id) = entry.ids_with(&verdict.ids);
    AuditEntry {
        audit_type: AuditType::ReactiveConsumer,
        topic: lease.topic().clone(),
        partition: Some(lease.partition()),
        offset: Some(entry.offset),
        correlation_id,
        traceability_id,
        key: verdict.key,
        success,
        stacktrace: reason.map(|reason| verdict.stacktrace.unwrap_or(reason)),
        timestamp: verdict.timestamp,
    }
}
