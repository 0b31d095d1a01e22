//! Fetched batches of one partition, cut into requests to the backend.
//!
//! It knows nothing of calls or answers. [`Pending`] holds what was fetched and not taken; [`Pending::cut`] takes the next
//! request's records; [`body_of`] writes the body of records that were cut before, for a retry: while a batch waits, no
//! body is kept.

use std::{collections::VecDeque, ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use protocol::{consumer::Lease, record::Place};

use super::{
    body::{self, BadRecord, Formats},
    source::{RawRecord, RecordBatch},
};
use crate::record::{CORRELATION_ID, SourceRecord, TRACEABILITY_ID, TraceIds, new_correlation_id};

/// About what a record's JSON takes beside its key and value: names, headers, numbers.
const JSON_OVERHEAD: usize = 256;

/// About what is kept of a record until it is finished, beside its bytes: its [`Entry`], its verdict, its place in the prefix.
pub(crate) const ENTRY_BYTES: usize = 384;

/// How large a request may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) records: usize,
    /// Decoded key and value bytes; one record may exceed it alone.
    pub(crate) bytes: usize,
}

/// One record that was taken for processing. Its bytes stay in its batch.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    /// As the headers say.
    pub(crate) ids: TraceIds,
    /// For a record whose headers have none: the one that the backend is told.
    pub(crate) generated_id: String,
    /// Bytes of its JSON; of key and value for a record that has none.
    pub(crate) size: usize,
    place: Place,
    batch: Arc<dyn RecordBatch>,
}

impl Entry {
    /// The Kafka header as read, then the verdict's, then the generated one.
    pub(crate) fn ids_with(&self, verdict: &TraceIds) -> (String, Option<String>) {
        let correlation = self.ids.correlation_id.as_ref().or(verdict.correlation_id.as_ref());
        let traceability = self.ids.traceability_id.as_ref().or(verdict.traceability_id.as_ref());
        (correlation.unwrap_or(&self.generated_id).clone(), traceability.cloned())
    }
}

/// What [`Pending::cut`] found at the cursor.
pub(crate) enum Work {
    /// Records for the backend and their request.
    Send { entries: Vec<Entry>, request: Request },
    /// Undecodable records in a row.
    Bad(Vec<(Entry, BadRecord)>),
    /// No records, only offsets that hold none.
    Nothing,
    /// No records: what follows is of another log than what was cut before, and begins at this offset (with leader epoch).
    Rewound { rewinds: u32, begins: (i64, i32) },
}

/// The body of a request and the trace context of its first record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) body: Bytes,
    pub(crate) traceparent: String,
}

/// A cut, and how far every record was taken by it.
pub(crate) struct Cut {
    pub(crate) work: Work,
    /// The end (with leader epoch) of the batches that are used up by this cut.
    pub(crate) covered: Option<(i64, i32)>,
}

/// Batches that were fetched and not fully taken.
pub(crate) struct Pending {
    lease: Lease,
    formats: Formats,
    batches: VecDeque<Measured>,
    /// Records of the first batch before it were taken.
    cursor: Place,
    /// Of the batches that were cut last.
    rewinds: u32,
}

/// With the bytes of keys and values: of all records, and of the largest one.
struct Measured {
    batch: Arc<dyn RecordBatch>,
    records: usize,
    bytes: usize,
    largest: usize,
}

impl Pending {
    pub(crate) fn new(lease: Lease, formats: Formats) -> Self {
        Self { lease, formats, batches: VecDeque::new(), cursor: Place::default(), rewinds: 0 }
    }

    pub(crate) fn push(&mut self, batch: Arc<dyn RecordBatch>) {
        let (mut records, mut bytes, mut largest) = (0, 0, 0);
        batch.visit(Place::default(), &mut |record| {
            let size = raw_size(&record);
            records += 1;
            bytes += size;
            largest = largest.max(size);
            ControlFlow::Continue(())
        });
        self.batches.push_back(Measured { batch, records, bytes, largest });
    }

    /// Drops what is of the log that was cut last; the next batch begins where it begins. What is of a later log stays.
    pub(crate) fn clear(&mut self) {
        self.batches.retain(|measured| measured.batch.rewinds() != self.rewinds);
        self.cursor = Place::default();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether so many records or so many bytes of keys and values are here. A batch that is partly taken counts in full.
    pub(crate) fn holds(&self, limits: Limits) -> bool {
        let records: usize = self.batches.iter().map(|batch| batch.records).sum();
        let bytes: usize = self.batches.iter().map(|batch| batch.bytes).sum();
        records >= limits.records || bytes >= limits.bytes
    }

    /// About the size of the next request's body.
    pub(crate) fn next_size(&self, limits: Limits) -> usize {
        let (mut records, mut bytes, mut largest) = (0, 0, limits.bytes);
        for batch in &self.batches {
            records += batch.records;
            bytes += batch.bytes;
            largest = largest.max(batch.largest);
        }
        bytes.min(largest).saturating_add(records.min(limits.records).saturating_mul(JSON_OVERHEAD))
    }

    /// Whether the first record is the one at `offset` and cannot be decoded.
    pub(crate) fn begins_with_undecodable(&self, offset: i64) -> bool {
        let mut undecodable = false;
        if let Some(first) = self.batches.front() {
            first.batch.visit(self.cursor, &mut |record| {
                let mut scratch = Vec::new();
                let written = body::write_record(self.formats, &self.lease, &record, "", &mut scratch);
                undecodable = record.offset == offset && written.is_err();
                ControlFlow::Break(())
            });
        }
        undecodable
    }

    /// Takes the records of the next request: at least one if there is any, no more than fit, all of one log.
    pub(crate) fn cut(&mut self, limits: Limits) -> Cut {
        if let Some(Measured { batch, .. }) = self.batches.front()
            && batch.rewinds() != self.rewinds
        {
            self.rewinds = batch.rewinds();
            let begins = (batch.position(), batch.leader_epoch());
            return Cut { work: Work::Rewound { rewinds: self.rewinds, begins }, covered: None };
        }
        let size = self.next_size(limits);
        let mut cutter = Cutter {
            limits,
            formats: self.formats,
            lease: &self.lease,
            entries: Vec::new(),
            bad: Vec::new(),
            body: opened(size),
            bytes: 0,
            traceparent: None,
        };
        let mut covered = None;
        while let Some(Measured { batch, .. }) = self.batches.front()
            && batch.rewinds() == self.rewinds
        {
            let stopped_at = cutter.take_from(batch, self.cursor);
            match stopped_at {
                Some(place) => {
                    self.cursor = place;
                    break;
                }
                None => {
                    covered = Some((batch.next_offset(), batch.leader_epoch()));
                    self.batches.pop_front();
                    self.cursor = Place::default();
                }
            }
        }
        Cut { work: cutter.finish(), covered }
    }
}

struct Cutter<'a> {
    limits: Limits,
    formats: Formats,
    lease: &'a Lease,
    entries: Vec<Entry>,
    bad: Vec<(Entry, BadRecord)>,
    body: Vec<u8>,
    bytes: usize,
    traceparent: Option<String>,
}

impl Cutter<'_> {
    /// Takes what fits; the place of the first record that does not, None if all did.
    fn take_from(&mut self, batch: &Arc<dyn RecordBatch>, from: Place) -> Option<Place> {
        let mut stopped_at = None;
        batch.visit(from, &mut |record| {
            if self.entries.len().max(self.bad.len()) >= self.limits.records {
                stopped_at = Some(record.place);
                return ControlFlow::Break(());
            }
            let id = |name| record.header_text(name).filter(|id| !id.is_empty()).map(str::to_owned);
            let ids = TraceIds { correlation_id: id(CORRELATION_ID), traceability_id: id(TRACEABILITY_ID) };
            let mut entry = Entry {
                offset: record.offset,
                leader_epoch: batch.leader_epoch(),
                generated_id: if ids.correlation_id.is_none() { new_correlation_id() } else { String::new() },
                ids,
                size: raw_size(&record),
                place: record.place,
                batch: batch.clone(),
            };
            let before = self.body.len();
            if !self.entries.is_empty() {
                self.body.push(b',');
            }
            match body::write_record(self.formats, self.lease, &record, &entry.generated_id, &mut self.body) {
                Ok(bytes) => {
                    let full = !self.entries.is_empty() && self.bytes + bytes > self.limits.bytes;
                    if full || !self.bad.is_empty() {
                        self.body.truncate(before);
                        stopped_at = Some(record.place);
                        return ControlFlow::Break(());
                    }
                    if self.entries.is_empty() {
                        self.traceparent = Some(body::traceparent(&record));
                    }
                    self.bytes += bytes;
                    entry.size = self.body.len() - before;
                    self.entries.push(entry);
                }
                Err(reason) => {
                    self.body.truncate(before);
                    if !self.entries.is_empty() {
                        stopped_at = Some(record.place);
                        return ControlFlow::Break(());
                    }
                    self.bad.push((entry, reason));
                }
            }
            ControlFlow::Continue(())
        });
        stopped_at
    }

    fn finish(self) -> Work {
        if !self.bad.is_empty() {
            return Work::Bad(self.bad);
        }
        match self.traceparent {
            None => Work::Nothing,
            Some(traceparent) => {
                let request = Request { body: closed(self.body), traceparent };
                Work::Send { entries: self.entries, request }
            }
        }
    }
}

/// The request for records that were cut before.
pub(crate) fn body_of(formats: Formats, lease: &Lease, entries: &[Entry]) -> Request {
    let mut body = opened(size_of(entries));
    let mut traceparent = None;
    visit(entries, |entry, record| {
        let before = body.len();
        if traceparent.is_some() {
            body.push(b',');
        }
        // It was decodable when it was cut, and bytes do not change.
        match body::write_record(formats, lease, &record, &entry.generated_id, &mut body) {
            Ok(_) => traceparent = traceparent.take().or_else(|| Some(body::traceparent(&record))),
            Err(_) => body.truncate(before),
        }
    });
    Request { body: closed(body), traceparent: traceparent.unwrap_or_default() }
}

/// The bytes of the records, and of a body of them at most.
pub(crate) fn size_of(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| entry.size + 1).sum::<usize>() + 2
}

fn opened(size: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(size);
    body.push(b'[');
    body
}

fn closed(mut body: Vec<u8>) -> Bytes {
    body.push(b']');
    body.shrink_to_fit();
    body.into()
}

fn raw_size(record: &RawRecord<'_>) -> usize {
    record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)
}

/// The records as they were read, with bytes of their own, in order.
pub(crate) fn sources_of(lease: &Lease, entries: &[Entry]) -> Vec<SourceRecord> {
    let mut sources = Vec::with_capacity(entries.len());
    visit(entries, |_, record| sources.push(record.to_source(lease)));
    sources
}

/// Shows each entry with its record; walks each batch once, from the first entry in it. Entries are in order.
fn visit(entries: &[Entry], mut show: impl FnMut(&Entry, RawRecord<'_>)) {
    for group in entries.chunk_by(|one, next| Arc::ptr_eq(&one.batch, &next.batch)) {
        let Some(first) = group.first() else { continue };
        let mut wanted = group.iter().peekable();
        first.batch.visit(first.place, &mut |record| {
            if let Some(entry) = wanted.next_if(|entry| entry.offset == record.offset) {
                show(entry, record);
            }
            if wanted.peek().is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::settings::Format,
        reactive::script::{batch, rewound},
    };

    const ALL: Limits = Limits { records: 100, bytes: 1 << 20 };

    fn pending(batches: &[&[(i64, &str)]]) -> Pending {
        let formats = Formats { key: Format::String, value: Format::Json };
        let mut pending = Pending::new(Lease::new("t".into(), 0, 1), formats);
        let mut position = 0;
        for records in batches {
            let next = records.last().map_or(position, |(offset, _)| offset + 1);
            pending.push(Arc::new(batch(position, next, records)));
            position = next;
        }
        pending
    }

    /// Every cut as the offsets in it (bad ones with a minus), and what it covers.
    fn cuts(mut pending: Pending, limits: Limits) -> Vec<(Vec<i64>, Option<i64>)> {
        let mut all = Vec::new();
        while !pending.is_empty() {
            let cut = pending.cut(limits);
            let offsets = match &cut.work {
                Work::Send { entries, request } => {
                    let values: Vec<serde_json::Value> = serde_json::from_slice(&request.body).expect("JSON");
                    let sent: Vec<_> = values.iter().map(|value| value["offset"].as_i64().expect("a number")).collect();
                    assert_eq!(sent, entries.iter().map(|entry| entry.offset).collect::<Vec<_>>());
                    assert_eq!(&body_of(pending.formats, &pending.lease, entries).body, &request.body);
                    sent
                }
                Work::Bad(bad) => bad.iter().map(|(entry, _)| -entry.offset).collect(),
                Work::Nothing => Vec::new(),
                Work::Rewound { begins, .. } => vec![begins.0],
            };
            all.push((offsets, cut.covered.map(|(end, _)| end)));
        }
        all
    }

    #[test]
    fn a_request_spans_batches_and_is_cut_by_records_and_bytes() {
        let three: &[&[(i64, &str)]] = &[&[(1, "1"), (2, "2")], &[(3, "333")], &[(9, "4"), (12, "5")]];
        assert_eq!(cuts(pending(three), ALL), [(vec![1, 2, 3, 9, 12], Some(13))]);
        let by_two = Limits { records: 2, ..ALL };
        assert_eq!(cuts(pending(three), by_two), [(vec![1, 2], Some(3)), (vec![3, 9], Some(4)), (vec![12], Some(13))]);
        let by_bytes = Limits { bytes: 2, ..ALL };
        assert_eq!(
            cuts(pending(three), by_bytes),
            [(vec![1, 2], Some(3)), (vec![3], Some(4)), (vec![9, 12], Some(13))],
            "a record beyond the bound goes alone"
        );
    }

    #[test]
    fn undecodable_records_stand_apart_in_their_turn() {
        let mixed: &[&[(i64, &str)]] = &[&[(1, "1"), (2, "{"), (3, "")], &[(4, "x"), (5, "5")]];
        assert_eq!(cuts(pending(mixed), ALL), [(vec![1], None), (vec![-2, -3, -4], Some(4)), (vec![5], Some(6))]);
    }

    #[test]
    fn batches_without_records_only_move_the_position() {
        let empty: &[&[(i64, &str)]] = &[&[]];
        assert_eq!(cuts(pending(empty), ALL), [(vec![], Some(0))]);
    }

    #[test]
    fn records_of_two_logs_never_go_out_together() {
        let all = || {
            let mut all = pending(&[&[(1, "1"), (2, "2")], &[(3, "3")]]);
            all.push(Arc::new(rewound(1, batch(2, 2, &[]))));
            all.push(Arc::new(rewound(1, batch(2, 4, &[(2, "22"), (3, "33")]))));
            all
        };
        let expected = [(vec![1, 2, 3], Some(4)), (vec![2], None), (vec![2, 3], Some(4))];
        assert_eq!(cuts(all(), ALL), expected);
        let mut rest = all();
        rest.clear();
        assert_eq!(cuts(rest, ALL), expected[1..]);
    }

    #[test]
    fn the_records_themselves_can_be_had_again() {
        let mut pending = pending(&[&[(1, "1"), (2, "2")], &[(3, "3"), (4, "4")]]);
        let Work::Send { entries, .. } = pending.cut(ALL).work else { panic!("nothing to send") };
        let sources = sources_of(&pending.lease, &entries[1..3]);
        assert_eq!(sources.iter().map(|source| source.offset).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(sources[1].value.as_deref(), Some(&b"3"[..]));
    }
}
