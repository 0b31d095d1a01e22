//! What never waits for what: heartbeats for joins, commits for joins, leaving for anything; and what happens when nobody
//! answers.

use super::*;

/// Two members, a third that comes, and the second kept from joining again: the group gathers until its time is up.
async fn gathering(bed: &mut Bed) -> Result<(Vec<Member>, fake_broker::Held)> {
    let mut members = vec![bed.member("a", config())];
    bed.shared(&[4]).await?;
    members.push(bed.member("b", config()));
    bed.shared(&[2, 2]).await?;
    bed.one_more().await?;
    let held =
        bed.cluster.on(ApiKey::JoinGroup).when(|request| request.client_id.as_deref() == Some("b")).hold_request();
    members.push(bed.member("c", config()));
    tokio::time::timeout(PATIENCE, held.reached(1)).await?;
    let joining =
        bed.cluster.wait_for(|log| log.iter().any(|r| is_of(r, "a", ApiKey::JoinGroup) && r.answered.is_none()));
    tokio::time::timeout(PATIENCE, joining).await?;
    Ok((members, held))
}

#[tokio::test(start_paused = true)]
async fn while_a_join_is_held_heartbeats_fetches_commits_and_produce_go_on() -> Result<()> {
    let mut bed = Bed::new().await?;
    let (members, held) = gathering(&mut bed).await?;
    assert_eq!(bed.cluster.group_state(GROUP), Some("PreparingRebalance"));
    bed.cluster.forget_requests();
    for _ in 0..3 {
        bed.one_more().await?;
        bed.answered("a", ApiKey::Heartbeat, 1).await?;
        bed.answered("b", ApiKey::Heartbeat, 1).await?;
        bed.cluster.forget_requests();
    }
    assert_eq!(bed.cluster.group_state(GROUP), Some("PreparingRebalance"), "all that while");
    held.release();
    bed.shared(&[2, 1, 1]).await?;
    bed.one_more().await?;
    bed.is_unharmed();
    assert_eq!(bed.history.look().repeated(), 0);
    bed.end_all(members).await
}

#[tokio::test(start_paused = true)]
async fn joins_have_a_socket_of_their_own() -> Result<()> {
    let mut bed = Bed::new().await?;
    let members = vec![bed.member("a", config()), bed.member("b", config())];
    bed.shared(&[2, 2]).await?;
    bed.one_more().await?;
    let log = bed.cluster.requests();
    let held = |api| matches!(api, ApiKey::JoinGroup | ApiKey::SyncGroup);
    let others = |connection| {
        log.iter().filter(move |r| r.connection == connection && !held(r.api) && r.api != ApiKey::ApiVersions)
    };
    let joins: Vec<&LoggedRequest> = log.iter().filter(|request| held(request.api)).collect();
    assert!(joins.len() > 4);
    for join in joins {
        assert_eq!(others(join.connection).count(), 0);
    }
    for name in ["a", "b"] {
        let short = |r: &&LoggedRequest| is_of(r, name, ApiKey::Heartbeat) || is_of(r, name, ApiKey::OffsetCommit);
        let sockets: std::collections::BTreeSet<u64> = log.iter().filter(short).map(|r| r.connection).collect();
        assert_eq!(sockets.len(), 1, "commits are in order, so they share one");
    }
    bed.end_all(members).await
}

#[tokio::test(start_paused = true)]
async fn whoever_is_told_to_leave_while_its_join_is_held_leaves_at_once() -> Result<()> {
    let mut bed = Bed::new().await?;
    let (mut members, held) = gathering(&mut bed).await?;
    let first = members.remove(0);
    let before = tokio::time::Instant::now();
    first.leave().await?;
    assert!(before.elapsed() < HEARTBEAT, "{:?}", before.elapsed());
    assert_eq!(bed.cluster.group_state(GROUP), Some("PreparingRebalance"), "the join would be held still");
    assert!(!bed.cluster.members(GROUP).iter().any(|member| member.client_id == "a"));
    // A newcomer in its very first join leaves no ghost for which the group would wait.
    let delayed = |request: &LoggedRequest| is_of(request, "d", ApiKey::JoinGroup);
    bed.cluster.on(ApiKey::JoinGroup).when(delayed).delay(HEARTBEAT / 2);
    let newcomer = bed.member("d", config());
    tokio::time::timeout(PATIENCE, bed.cluster.wait_for(|log| log.iter().any(delayed))).await?;
    newcomer.leave().await?;
    bed.answered("d", ApiKey::LeaveGroup, 1).await?;
    held.release();
    bed.shared(&[2, 2]).await?;
    bed.one_more().await?;
    bed.is_unharmed();
    bed.end_all(members).await
}

#[tokio::test(start_paused = true)]
async fn when_the_coordinator_moves_nothing_is_lost_and_nothing_comes_twice() -> Result<()> {
    for config in [config(), range()] {
        let mut bed = Bed::new().await?;
        let members = vec![bed.member("a", config.clone()), bed.member("b", config)];
        bed.shared(&[2, 2]).await?;
        for _ in 0..4 {
            bed.one_more().await?;
            let node = bed.cluster.coordinator(GROUP).unwrap_or(1) % 3 + 1;
            bed.cluster.move_coordinator(GROUP, node)?;
            bed.one_more().await?;
        }
        let generation = bed.cluster.generation(GROUP);
        bed.cluster.forget_requests();
        bed.answered("a", ApiKey::Heartbeat, 3).await?;
        assert_eq!(bed.cluster.generation(GROUP), generation);
        bed.is_unharmed();
        assert_eq!(bed.history.look().repeated(), 0);
        bed.end_all(members).await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn when_the_coordinator_dies_in_a_join_the_group_goes_on_at_another() -> Result<()> {
    let mut bed = Bed::new().await?;
    let (members, held) = gathering(&mut bed).await?;
    bed.cluster.kill(bed.cluster.coordinator(GROUP).unwrap_or(1)).await?;
    held.release();
    bed.shared(&[2, 1, 1]).await?;
    bed.one_more().await?;
    bed.is_unharmed();
    bed.end_all(members).await
}

/// Heartbeats of a client are lost on their way.
fn lose_heartbeats(bed: &Bed, of: &'static str) -> fake_broker::Fault {
    bed.cluster
        .on(ApiKey::Heartbeat)
        .when(move |request| request.client_id.as_deref() == Some(of))
        .always()
        .close_before()
}

#[tokio::test(start_paused = true)]
async fn without_heartbeats_the_leases_fall_in_doubt_before_anybody_else_can_have_them_and_are_lost_when_that_is_known()
-> Result<()> {
    let mut bed = Bed::new().await?;
    let mut consumer = bed.client("a").consumer(config(), Budget::new(1 << 20));
    let streams = match consumer.next().await {
        Some(protocol::consumer::Event::Assigned(streams)) => streams,
        _ => anyhow::bail!("an assignment was expected"),
    };
    let leases: Vec<_> = streams.iter().map(|stream| stream.lease().clone()).collect();
    bed.cluster.forget_requests();
    bed.answered("a", ApiKey::Heartbeat, 1).await?;
    let sent = bed.cluster.requests().iter().rev().find(|r| is_of(r, "a", ApiKey::Heartbeat)).map(|r| r.at);
    let fault = lose_heartbeats(&bed, "a");
    // The coordinator ends the session; by then no lease may start anything.
    tokio::time::timeout(PATIENCE, bed.cluster.wait_until(|cluster| cluster.members(GROUP).is_empty())).await?;
    assert!(sent.is_some_and(|sent| sent.elapsed() >= SESSION));
    assert!(leases.iter().all(|lease| lease.is_active() && !lease.may_start()), "{leases:?}");
    // And it is not the end: they wait.
    let nothing = tokio::time::timeout(SESSION, consumer.next()).await;
    assert!(nothing.is_err(), "nobody knows yet");
    fault.remove();
    match tokio::time::timeout(PATIENCE, consumer.next()).await? {
        Some(protocol::consumer::Event::Lost(lost)) => assert_eq!(lost.len(), 4),
        _ => anyhow::bail!("a loss was expected"),
    }
    assert!(leases.iter().all(|lease| lease.is_lost()));
    match tokio::time::timeout(PATIENCE, consumer.next()).await? {
        Some(protocol::consumer::Event::Assigned(streams)) => {
            assert!(streams.iter().all(|stream| stream.lease().may_start()));
        }
        _ => anyhow::bail!("it joins again"),
    }
    drop(consumer);
    bed.end_all([]).await
}

#[tokio::test(start_paused = true)]
async fn when_only_the_answers_were_lost_the_doubt_ends_and_everything_goes_on() -> Result<()> {
    let mut bed = Bed::new().await?;
    let mut consumer = bed.client("a").consumer(config(), Budget::new(1 << 20));
    let streams = match consumer.next().await {
        Some(protocol::consumer::Event::Assigned(streams)) => streams,
        _ => anyhow::bail!("an assignment was expected"),
    };
    let lease = streams[0].lease().clone();
    let fault = bed.cluster.on(ApiKey::Heartbeat).always().drop_answer();
    while lease.may_start() {
        tokio::time::sleep(HEARTBEAT).await;
    }
    assert!(fault.hits() > 1);
    fault.remove();
    tokio::time::timeout(PATIENCE, lease.confirmed()).await?;
    assert!(streams.iter().all(|stream| stream.lease().may_start()), "the same leases");
    drop(consumer);
    bed.end_all([]).await
}

#[tokio::test(start_paused = true)]
async fn a_member_that_lost_its_session_gives_way_and_comes_back() -> Result<()> {
    let mut bed = Bed::new().await?;
    let members = vec![bed.member("a", config()), bed.member("b", config())];
    bed.shared(&[2, 2]).await?;
    bed.one_more().await?;
    let fault = lose_heartbeats(&bed, "a");
    let alone = bed.cluster.wait_until(|cluster| cluster.members(GROUP).len() == 1);
    tokio::time::timeout(PATIENCE, alone).await?;
    let whole = |seen: &crate::support::member::Seen| seen.owners().get("b").is_some_and(|owned| owned.len() == 4);
    bed.history.wait_until("all of it for the other one", whole).await?;
    fault.remove();
    bed.history.wait_until("the loss", |seen| seen.lost.len() == 2).await?;
    bed.shared(&[2, 2]).await?;
    bed.one_more().await?;
    bed.end_all(members).await
}
