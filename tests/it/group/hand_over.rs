//! Partitions that move, and those that do not.

use super::*;

#[tokio::test(start_paused = true)]
async fn while_two_partitions_drain_slowly_the_two_others_go_on() -> Result<()> {
    let mut bed = Bed::new().await?;
    let drain = DRAIN - HEARTBEAT * 5;
    let mut members = vec![bed.slow_member("a", config(), drain)];
    bed.shared(&[4]).await?;
    bed.one_more().await?;
    members.push(bed.member("b", config()));
    let second = bed.cluster.wait_until(|cluster| cluster.members(GROUP).len() == 2);
    tokio::time::timeout(PATIENCE, second).await?;
    bed.answered("b", ApiKey::SyncGroup, 1).await?;
    let before = tokio::time::Instant::now();
    // All four are to be read and committed: two at once, two as soon as they are the other one's.
    let ends: BTreeMap<i32, i64> = BTreeMap::from([(0, 2), (1, 2), (2, 2), (3, 2)]);
    let producer = bed.client("producer").producer(ProducerConfig::default(), Budget::new(1 << 20))?;
    for partition in 0..PARTITIONS {
        let record = ProduceRecord { topic: TOPIC.into(), partition: Some(partition), ..ProduceRecord::default() };
        producer.send(record).await?.await?;
    }
    let two = |seen: &crate::support::member::Seen| {
        ends.iter().filter(|(partition, end)| seen.has_all(&BTreeMap::from([(**partition, **end)]))).count() >= 2
    };
    bed.history.wait_until("what does not move", two).await?;
    let committed = bed.cluster.wait_until(|cluster| {
        (0..PARTITIONS).filter(|partition| cluster.committed(GROUP, TOPIC, *partition) == Some(2)).count() >= 2
    });
    tokio::time::timeout(PATIENCE, committed).await?;
    assert!(before.elapsed() < drain / 2, "without waiting for the drain: {:?}", before.elapsed());
    bed.shared(&[2, 2]).await?;
    assert!(before.elapsed() >= drain / 2, "the others moved when they were drained: {:?}", before.elapsed());
    bed.history.wait_until("the rest", |seen| seen.has_all(&ends)).await?;
    bed.is_unharmed();
    assert_eq!(bed.history.look().repeated(), 0);
    bed.end_all(members).await
}

#[tokio::test(start_paused = true)]
async fn a_third_member_does_not_make_the_group_wait_for_a_slow_drain() -> Result<()> {
    let mut bed = Bed::new().await?;
    let drain = DRAIN - HEARTBEAT * 5;
    let mut members = vec![bed.slow_member("a", config(), drain)];
    bed.shared(&[4]).await?;
    members.push(bed.member("b", config()));
    bed.answered("b", ApiKey::SyncGroup, 1).await?;
    let before = tokio::time::Instant::now();
    members.push(bed.member("c", config()));
    bed.answered("c", ApiKey::SyncGroup, 1).await?;
    assert!(before.elapsed() < drain / 2, "{:?}", before.elapsed());
    bed.shared(&[2, 1, 1]).await?;
    bed.one_more().await?;
    bed.is_unharmed();
    bed.end_all(members).await
}

#[tokio::test(start_paused = true)]
async fn a_drain_beyond_its_time_gives_the_partitions_up_and_they_come_again_elsewhere() -> Result<()> {
    for config in [config(), range()] {
        let mut bed = Bed::new().await?;
        let mut members = vec![bed.slow_member("a", config.clone(), DRAIN * 4)];
        bed.shared(&[4]).await?;
        bed.one_more().await?;
        members.push(bed.member("b", config));
        let two = |seen: &crate::support::member::Seen| seen.owners().get("b").is_some_and(|owned| owned.len() == 2);
        bed.history.wait_until("two for the newcomer", two).await?;
        assert_eq!(bed.history.look().lost, [], "given up in time, so nobody is thrown out");
        bed.one_more().await?;
        bed.end_all(members).await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn members_come_and_go_and_every_record_comes_once() -> Result<()> {
    for config in [
        config(),
        range(),
        ConsumerConfig { assignors: vec![Assignor::CooperativeSticky, Assignor::Range], ..config() },
    ] {
        let mut bed = Bed::new().await?;
        let mut members = std::collections::VecDeque::new();
        members.push_back(bed.member("a", config.clone()));
        bed.shared(&[4]).await?;
        for (name, shares) in [("b", &[2, 2][..]), ("c", &[2, 1, 1]), ("d", &[1, 1, 1, 1])] {
            bed.one_more().await?;
            members.push_back(bed.member(name, config.clone()));
            bed.shared(shares).await?;
        }
        for shares in [&[2, 1, 1][..], &[2, 2], &[4]] {
            bed.one_more().await?;
            if let Some(first) = members.pop_front() {
                first.leave().await?;
            }
            bed.shared(shares).await?;
        }
        bed.one_more().await?;
        bed.is_unharmed();
        assert_eq!(bed.history.look().repeated(), 0);
        bed.end_all(members).await?;
    }
    Ok(())
}
