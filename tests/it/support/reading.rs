//! Reading as a consumer's owner does, for tests that want what is read in their hands.

use anyhow::{Context as _, Result, bail};
use futures_util::future::select_all;
use protocol::consumer::{Committer, Consumer, Event, FetchedRecords, PartitionStream};

use super::client::PATIENCE;

/// One record with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Row {
    /// The only header of that name, as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name.as_bytes());
        let value = found.next().and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok());
        value.filter(|_| found.next().is_none())
    }
}

/// Waits until the group gave us so many partitions (more).
pub(crate) async fn assigned(consumer: &mut Consumer, count: usize) -> Result<Vec<PartitionStream>> {
    let mut all = Vec::new();
    while all.len() < count {
        match next(consumer).await.context("while partitions were expected")? {
            Event::Assigned(streams) => all.extend(streams),
            Event::Revoking(revocation) => revocation.released(),
            Event::Fault(fault) => bail!("{fault:?}"),
            Event::Lost(leases) => bail!("lost {leases:?}"),
        }
    }
    Ok(all)
}

/// Waits until the group takes partitions back, gives them up, and says how many they were.
pub(crate) async fn given_up(consumer: &mut Consumer) -> Result<usize> {
    loop {
        if let Event::Revoking(revocation) = next(consumer).await.context("while a revocation was expected")? {
            return Ok(revocation.leases.len());
        }
    }
}

/// The next event.
pub(crate) async fn next(consumer: &mut Consumer) -> Result<Event> {
    let event = tokio::time::timeout(PATIENCE, consumer.next()).await.context("no event")?;
    event.context("the group ended")
}

/// Batches of these partitions as they come, until there are so many records.
pub(crate) async fn batches(streams: &mut [PartitionStream], count: usize) -> Result<Vec<FetchedRecords>> {
    let (mut read, mut seen) = (Vec::new(), 0);
    while seen < count {
        let any = select_all(streams.iter_mut().map(|stream| Box::pin(stream.next())));
        let (records, ..) = tokio::time::timeout(PATIENCE, any).await.with_context(|| format!("only {seen} came"))?;
        let records = records.context("the stream ended")?;
        seen += records.iter().count();
        read.push(records);
    }
    Ok(read)
}

/// The records of these partitions, until there are so many: by partition, and in it as they came.
pub(crate) async fn rows(streams: &mut [PartitionStream], count: usize) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = batches(streams, count).await?.iter().flat_map(rows_of).collect();
    rows.sort_by_key(|row| row.partition);
    Ok(rows)
}

fn rows_of(records: &FetchedRecords) -> Vec<Row> {
    let row = |record: protocol::record::RecordView<'_>| Row {
        partition: records.lease.partition(),
        offset: record.offset,
        timestamp: record.timestamp,
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers: record.headers.iter().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect(),
    };
    records.iter().map(row).collect()
}

/// Commits all of these.
pub(crate) async fn commit(committer: &Committer, read: &[FetchedRecords]) -> Result<()> {
    for records in read {
        committer.commit(vec![records.end()]).await?;
    }
    Ok(())
}

/// Leaves the group, giving up what is asked back.
pub(crate) async fn leave(mut consumer: Consumer) -> Result<()> {
    consumer.close();
    let drained = async {
        while let Some(event) = consumer.next().await {
            drop(event);
        }
    };
    tokio::time::timeout(PATIENCE, drained).await.context("leaving takes for ever")
}
