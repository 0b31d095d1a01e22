//! A group of two members that reads while nodes come and go, and somebody who compares its commits with what was delivered.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use protocol::{client::Client, consumer::ConsumerConfig};
use tokio::task::JoinHandle;

use super::scene::{PARTITIONS, Scene};
use crate::support::{
    client::group_of,
    member::{History, Member, Seen},
    operator::{Operator, PATIENCE},
};

/// Between two looks at the commits.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

pub(super) struct Readers {
    pub(super) history: History,
    group: String,
    members: Vec<Member>,
    clients: Vec<Client>,
    operator: Arc<Operator>,
    looking: JoinHandle<Result<()>>,
    looks: Arc<AtomicUsize>,
}

impl Readers {
    /// Two members that share the topic, each with a client of its own.
    pub(super) async fn start(scene: &Scene, set: impl Fn(&mut ConsumerConfig)) -> Result<Self> {
        let history = History::default();
        let (mut members, mut clients) = (Vec::new(), Vec::new());
        for name in ["a", "b"] {
            let client = scene.client()?;
            let mut config = group_of(&scene.topic, &scene.topic);
            set(&mut config);
            members.push(Member::start(&client, config, name, &history, Duration::ZERO));
            clients.push(client);
            let shares: &[usize] = if members.len() == 1 { &[6] } else { &[3, 3] };
            history.wait_until("a share for each", |seen| seen.shares() == shares).await?;
        }
        let operator = Arc::new(Operator::of(scene.kafka)?);
        let looks = Arc::default();
        let looking = tokio::spawn(look(operator.clone(), scene.topic.clone(), history.clone(), Arc::clone(&looks)));
        Ok(Self { history, group: scene.topic.clone(), members, clients, operator, looking, looks })
    }

    /// Waits until everything below these offsets came.
    pub(super) async fn have(&self, ends: &BTreeMap<i32, i64>) -> Result<()> {
        self.history.wait_until("what was written", |seen| seen.has_all(ends)).await
    }

    /// Waits until so many further records of each partition came.
    pub(super) async fn more(&self, count: i64) -> Result<()> {
        let ends = {
            let seen = self.history.look();
            (0..PARTITIONS).map(|partition| (partition, seen.end(partition) + count)).collect()
        };
        self.have(&ends).await
    }

    /// Waits for the rest and for its commits, and leaves. Nobody looked in vain, nothing was refused or in two hands.
    pub(super) async fn finish(self, ends: &BTreeMap<i32, i64>) -> Result<History> {
        self.have(ends).await?;
        let committed = async {
            while self.operator.committed(&self.group, &self.group).await? != *ends {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(PATIENCE, committed).await {
            Ok(committed) => committed?,
            Err(_) => anyhow::bail!("not everything is committed: {ends:?}"),
        }
        self.looking.abort();
        if let Ok(looked) = self.looking.await {
            looked?;
        }
        ensure!(self.looks.load(Ordering::SeqCst) > 10, "there must be looks at the commits");
        for member in self.members {
            member.leave().await?;
        }
        for client in self.clients {
            ensure!(client.close(PATIENCE).await, "every task ends");
        }
        if let Ok(operator) = Arc::try_unwrap(self.operator) {
            operator.close().await;
        }
        {
            let seen = self.history.look();
            ensure!(seen.faults.is_empty(), "{:?}", seen.faults);
            let shared = seen.shared_by_two();
            ensure!(shared.is_empty(), "{shared:?}; lost {:?}", seen.lost);
            eprintln!("  lost {:?}, refused {:?}, {} came again", seen.lost, seen.refused, seen.repeated().len());
        }
        Ok(self.history)
    }
}

/// What was lost by nobody and came to nobody twice.
pub(super) fn undisturbed(seen: &Seen) -> Result<()> {
    ensure!(seen.lost.is_empty(), "lost: {:?}", seen.lost);
    ensure!(seen.repeated().is_empty(), "{} came again: {:?}", seen.repeated().len(), seen.repeated().first());
    ensure!(seen.refused.is_empty(), "refused: {:?}", seen.refused);
    Ok(())
}

async fn look(operator: Arc<Operator>, group: String, history: History, looks: Arc<AtomicUsize>) -> Result<()> {
    loop {
        let committed = operator.committed(&group, &group).await?;
        // What was delivered by now was perhaps not when the broker answered; what was not delivered now was not then.
        for (partition, committed) in committed {
            ensure!(
                history.look().has_below(partition, committed),
                "partition {partition}: {committed} is committed, and something below was never delivered"
            );
        }
        looks.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
