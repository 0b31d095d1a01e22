//! Members, generations, commits.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use protocol::{
    consumer::{Assignor, CommitOffset, ConsumerConfig, Event},
    producer::ProducerConfig,
};

use super::bed::Bed;
use crate::support::{
    client::{PATIENCE, group_of, member, member_with, producer, send_values},
    reading::{assigned, batches, commit, given_up, leave, next, rows},
};

pub(super) async fn two_members_share_and_one_takes_over_when_the_other_leaves(bed: &Bed) -> Result<()> {
    let client = bed.client();
    client.admin().create_topic("shared", 4, PATIENCE).await?;
    let mut first = member(&client, "two", "shared");
    let mut streams = assigned(&mut first, 4).await?;
    let producer = producer(&client, ProducerConfig::default())?;
    for partition in 0..4 {
        send_values(&producer, "shared", Some(partition), 0..10).await?;
    }
    let read = batches(&mut streams, 40).await?;
    commit(&first.committer(), &read).await?;
    let mut second = member(&client, "two", "shared");
    // The second gets what the first gives up, from where the first committed.
    let (given_up, mut taken) = tokio::try_join!(given_up(&mut first), assigned(&mut second, 2))?;
    assert_eq!((given_up, taken.len()), (2, 2));
    for partition in 0..4 {
        send_values(&producer, "shared", Some(partition), 10..20).await?;
    }
    let rest = rows(&mut taken, 20).await?;
    assert!(rest.iter().all(|row| row.offset >= 10), "what was committed does not come again: {rest:?}");
    let kept: Vec<i32> =
        streams.iter().filter(|stream| stream.lease().is_active()).map(|s| s.lease().partition()).collect();
    assert_eq!(kept.len(), 2, "the two others never stop");
    streams.retain(|stream| stream.lease().is_active());
    assert_eq!(rows(&mut streams, 20).await?.len(), 20);
    let (left, back) = tokio::join!(leave(second), assigned(&mut first, 2));
    left?;
    let mut back = back?;
    assert_eq!(rows(&mut back, 20).await?.len(), 20, "the second committed nothing, so the first reads it again");
    leave(first).await?;
    assert!(client.close(PATIENCE).await, "every task ends");
    Ok(())
}

pub(super) async fn a_member_that_vanishes_is_replaced_when_its_session_ends(bed: &Bed) -> Result<()> {
    let (client, other) = (bed.client(), bed.client());
    client.admin().create_topic("vanishing", 2, PATIENCE).await?;
    let mut first = member(&other, "vanishers", "vanishing");
    assigned(&mut first, 2).await?;
    let mut second = member(&client, "vanishers", "vanishing");
    tokio::try_join!(given_up(&mut first), assigned(&mut second, 1))?;
    // Its sockets close at once; nothing leaves the group.
    other.cluster().cancel_token().cancel();
    assert_eq!(assigned(&mut second, 1).await?.len(), 1);
    leave(second).await
}

pub(super) async fn what_is_committed_survives_the_group(bed: &Bed) -> Result<()> {
    let client = bed.client();
    client.admin().create_topic("kept", 1, PATIENCE).await?;
    let producer =
        producer(&client, ProducerConfig { linger: std::time::Duration::ZERO, ..ProducerConfig::default() })?;
    let topic: Arc<str> = "kept".into();
    for round in 0..3usize {
        send_values(&producer, "kept", Some(0), round * 10..round * 10 + 10).await?;
        let mut consumer = member(&client, "keepers", "kept");
        let mut streams = assigned(&mut consumer, 1).await?;
        let read = batches(&mut streams, 10).await?;
        assert_eq!(read.first().map(|records| records.position), Some(round as i64 * 10));
        commit(&consumer.committer(), &read).await?;
        leave(consumer).await?;
        let committed = client.admin().committed("keepers").await?;
        assert_eq!(committed.get(&(topic.clone(), 0)), Some(&(round as i64 * 10 + 10)));
    }
    Ok(())
}

pub(super) async fn a_commit_of_a_former_generation_is_refused(bed: &Bed) -> Result<()> {
    let client = bed.client();
    client.admin().create_topic("former", 1, PATIENCE).await?;
    let mut consumer = member(&client, "formers", "former");
    let streams = assigned(&mut consumer, 1).await?;
    let lease = streams.first().context("a stream")?.lease().clone();
    let committer = consumer.committer();
    let offset =
        |offset| CommitOffset { lease: lease.clone(), rewinds: 0, offset, leader_epoch: -1, metadata: String::new() };
    committer.commit(vec![offset(0)]).await?;
    leave(consumer).await?;
    if committer.commit(vec![offset(1)]).await.is_ok() {
        bail!("a commit after the group was left was acknowledged");
    }
    let committed = client.admin().committed("formers").await?;
    assert_eq!(committed.get(&(Arc::from("former"), 0)), Some(&0));
    Ok(())
}

pub(super) async fn members_with_range_alone_share_too(bed: &Bed) -> Result<()> {
    let client = bed.client();
    client.admin().create_topic("ranged", 3, PATIENCE).await?;
    let config = || ConsumerConfig { assignors: vec![Assignor::Range], ..group_of("rangers", "ranged") };
    let mut first = member_with(&client, config());
    assigned(&mut first, 3).await?;
    let mut second = member_with(&client, config());
    let both = async {
        // An eager group gives up everything and shares anew.
        let (mut given, mut taken) = (0, 0);
        while taken == 0 {
            match next(&mut first).await? {
                Event::Revoking(revocation) => given += revocation.leases.len(),
                Event::Assigned(streams) => taken += streams.len(),
                Event::Lost(leases) => bail!("lost {leases:?}"),
                Event::Fault(fault) => bail!("{fault:?}"),
            }
        }
        Ok((given, taken))
    };
    let ((given, taken), other) = tokio::try_join!(both, assigned(&mut second, 1))?;
    assert_eq!((given, taken + other.len()), (3, 3));
    leave(second).await?;
    leave(first).await
}
