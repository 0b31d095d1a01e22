//! A member of a group that works as a sidecar does, and a history that several members write.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use protocol::{
    budget::Budget,
    client::Client,
    consumer::{CommitOffset, Committer, Consumer, ConsumerConfig, Event, Lease, PartitionStream},
    error_code::ErrorCode,
};
use tokio::{sync::watch, task::JoinHandle};

/// What a test waits for at most.
const PATIENCE: Duration = Duration::from_secs(120);
const BUDGET: usize = 4 << 20;

/// Who owned what when, and what was delivered to whom. Several members write it, foreign ones too.
#[derive(Clone, Default)]
pub(crate) struct History(Arc<Inner>);

#[derive(Default)]
struct Inner {
    seen: Mutex<Seen>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
pub(crate) struct Seen {
    /// The time in milliseconds, the member, the partition, and whether it got it or gave it up.
    turns: Vec<(u64, String, i32, bool)>,
    /// By partition and offset: to whom, one after the other.
    delivered: BTreeMap<i32, BTreeMap<i64, Vec<Arc<str>>>>,
    /// Partitions that were lost and not given up, in the order in which that was told.
    pub(crate) lost: Vec<(String, i32)>,
    pub(crate) faults: Vec<String>,
    /// Commits that were refused, with the code.
    pub(crate) refused: Vec<(i32, Option<ErrorCode>)>,
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl History {
    fn write(&self, what: impl FnOnce(&mut Seen)) {
        what(&mut self.look());
        self.0.changes.send_modify(|changes| *changes += 1);
    }

    pub(crate) fn look(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().expect("not poisoned")
    }

    /// A member has partitions from now on, or has them no longer. `at` in milliseconds since the epoch.
    pub(crate) fn turn(&self, at: u64, member: &str, partitions: impl IntoIterator<Item = i32>, begins: bool) {
        self.write(|seen| {
            seen.turns.extend(partitions.into_iter().map(|partition| (at, member.to_owned(), partition, begins)));
        });
    }

    /// Records with these offsets came to a member.
    pub(crate) fn delivered(&self, member: &str, partition: i32, offsets: impl IntoIterator<Item = i64>) {
        let member: Arc<str> = member.into();
        self.write(|seen| {
            let records = seen.delivered.entry(partition).or_default();
            offsets.into_iter().for_each(|offset| records.entry(offset).or_default().push(member.clone()));
        });
    }

    /// Waits until this is true of it; what it is about, for whoever reads the error.
    pub(crate) async fn wait_until(&self, what: &str, condition: impl Fn(&Seen) -> bool) -> Result<()> {
        let mut changes = self.0.changes.subscribe();
        let waited = tokio::time::timeout(PATIENCE, async {
            while !condition(&self.look()) {
                changes.changed().await.expect("the sender stands in self");
            }
        });
        waited.await.map_err(|_| {
            let seen = self.look();
            anyhow::anyhow!("{what} does not come; owners {:?}, faults {:?}", seen.owners(), seen.faults)
        })
    }
}

impl Seen {
    /// What each member has now; those with nothing are left out.
    pub(crate) fn owners(&self) -> BTreeMap<String, BTreeSet<i32>> {
        let mut owners: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
        for (_, member, partition, begins) in &self.turns {
            let owned = owners.entry(member.clone()).or_default();
            if *begins {
                owned.insert(*partition)
            } else {
                owned.remove(partition)
            };
        }
        owners.retain(|_, owned| !owned.is_empty());
        owners
    }

    /// How many partitions each member has, the most first.
    pub(crate) fn shares(&self) -> Vec<usize> {
        let mut shares: Vec<usize> = self.owners().values().map(BTreeSet::len).collect();
        shares.sort_unstable_by(|a, b| b.cmp(a));
        shares
    }

    /// Whether every record below these ends was delivered, by partition.
    pub(crate) fn has_all(&self, ends: &BTreeMap<i32, i64>) -> bool {
        ends.iter().all(|(partition, end)| {
            let records = self.delivered.get(partition);
            records.map_or(0, |records| records.range(..end).count()) as i64 == *end
        })
    }

    /// The offset behind the last record of a partition that was delivered.
    pub(crate) fn end(&self, partition: i32) -> i64 {
        let last = self.delivered.get(&partition).and_then(|records| records.keys().next_back());
        last.map_or(0, |last| last + 1)
    }

    /// Whether every record of a partition below this offset was delivered.
    pub(crate) fn has_below(&self, partition: i32, end: i64) -> bool {
        self.has_all(&BTreeMap::from([(partition, end)]))
    }

    /// To whom the records came that came more than once.
    pub(crate) fn repeated(&self) -> Vec<&[Arc<str>]> {
        self.delivered.values().flat_map(BTreeMap::values).filter(|to| to.len() > 1).map(Vec::as_slice).collect()
    }

    /// Moments at which two members had one partition.
    pub(crate) fn shared_by_two(&self) -> Vec<String> {
        let mut turns = self.turns.clone();
        // Of what happens in one millisecond the end comes first.
        turns.sort_by_key(|(at, _, _, begins)| (*at, *begins));
        let mut owners: BTreeMap<i32, BTreeSet<String>> = BTreeMap::new();
        let mut faults = Vec::new();
        for (at, member, partition, begins) in turns {
            let owners = owners.entry(partition).or_default();
            if begins {
                owners.insert(member)
            } else {
                owners.remove(&member)
            };
            if owners.len() > 1 {
                faults.push(format!("{partition} at {at}: {owners:?}"));
            }
        }
        faults
    }
}

/// One of our members, in a task of its own: it reads, commits each batch, and drains what is taken back.
pub(crate) struct Member {
    stop: tokio_util::sync::CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl Member {
    /// `drain`: how long a batch in flight takes when its partition is taken back.
    pub(crate) fn start(
        client: &Client,
        config: ConsumerConfig,
        name: &str,
        history: &History,
        drain: Duration,
    ) -> Self {
        let stop = tokio_util::sync::CancellationToken::new();
        let consumer = client.consumer(config, Budget::new(BUDGET));
        let work = Work { committer: consumer.committer(), name: name.to_owned(), history: history.clone(), drain };
        let task = tokio::spawn(work.run(consumer, stop.clone()));
        Self { stop, task }
    }

    /// Gives everything up and leaves the group.
    pub(crate) async fn leave(self) -> Result<()> {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.context("it does not leave")??
    }
}

#[derive(Clone)]
struct Work {
    committer: Committer,
    name: String,
    history: History,
    drain: Duration,
}

impl Work {
    async fn run(self, mut consumer: Consumer, stop: tokio_util::sync::CancellationToken) -> Result<()> {
        let mut lanes: Vec<(Lease, JoinHandle<()>)> = Vec::new();
        let mut stopping = false;
        loop {
            let event = tokio::select! {
                event = consumer.next() => event,
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    consumer.close();
                    continue;
                }
            };
            match event {
                None if stopping => return Ok(()),
                None => bail!("{} left the group by itself", self.name),
                Some(Event::Assigned(streams)) => {
                    let partitions = streams.iter().map(|stream| stream.lease().partition());
                    self.history.turn(now_ms(), &self.name, partitions, true);
                    for stream in streams {
                        let lease = stream.lease().clone();
                        lanes.push((lease, tokio::spawn(self.clone().read(stream))));
                    }
                }
                Some(Event::Revoking(revocation)) => {
                    let (going, staying) =
                        lanes.into_iter().partition(|(lease, _)| revocation.leases.iter().any(|gone| gone.same(lease)));
                    lanes = staying;
                    let (history, name) = (self.history.clone(), self.name.clone());
                    // Other events are not waited with until these are drained.
                    tokio::spawn(async move {
                        let going: Vec<(Lease, JoinHandle<()>)> = going;
                        for (_, lane) in going {
                            lane.await.expect("no lane panics");
                        }
                        let partitions = revocation.leases.iter().map(Lease::partition).collect::<Vec<_>>();
                        history.turn(now_ms(), &name, partitions, false);
                        revocation.released();
                    });
                }
                Some(Event::Lost(leases)) => {
                    self.history.turn(now_ms(), &self.name, leases.iter().map(Lease::partition), false);
                    self.history.write(|seen| {
                        seen.lost.extend(leases.iter().map(|lease| (self.name.clone(), lease.partition())));
                    });
                }
                Some(Event::Fault(fault)) => {
                    self.history.write(|seen| seen.faults.push(format!("{}: {}", self.name, fault.kind)));
                }
            }
        }
    }

    async fn read(self, mut stream: PartitionStream) {
        let lease = stream.lease().clone();
        while let Some(records) = stream.next().await {
            self.history.delivered(&self.name, lease.partition(), records.iter().map(|record| record.offset));
            let offset = CommitOffset {
                lease: lease.clone(),
                offset: records.next_offset,
                leader_epoch: records.leader_epoch,
                metadata: String::new(),
            };
            if let Err(error) = self.committer.commit(vec![offset]).await {
                self.history.write(|seen| seen.refused.push((lease.partition(), error.code)));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(self.drain) => {}
            () = lease.lost() => {}
        }
    }
}
