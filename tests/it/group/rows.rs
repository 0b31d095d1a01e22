//! The error tables through the wire: each error once, and what becomes of the member.

use protocol::error_code::ErrorCode;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It goes on with what it has.
    GoesOn,
    /// It loses everything and comes back.
    ComesBack,
    /// The same, after it said what somebody has to mend.
    Complains,
}

/// A member that holds everything gets one such answer.
async fn check(api: ApiKey, code: ErrorCode, expected: Then) -> Result<()> {
    let mut bed = Bed::new().await?;
    let first = bed.member("a", config());
    bed.shared(&[4]).await?;
    bed.one_more().await?;
    let fault = bed.cluster.on(api).when(|request| request.client_id.as_deref() == Some("a")).reply_error(code);
    // What makes it ask: a newcomer for joins, records for commits, time for heartbeats.
    let second = match api {
        ApiKey::JoinGroup | ApiKey::SyncGroup => Some(bed.member("b", config())),
        ApiKey::FindCoordinator => {
            let node = bed.cluster.coordinator(GROUP).unwrap_or(1) % 3 + 1;
            bed.cluster.move_coordinator(GROUP, node)?;
            None
        }
        _ => None,
    };
    if api == ApiKey::OffsetCommit {
        bed.one_more().await?;
    }
    let hit = bed.cluster.wait_until(|_| fault.hits() == 1);
    tokio::time::timeout(PATIENCE, hit).await?;
    bed.cluster.forget_requests();
    bed.answered("a", ApiKey::Heartbeat, 2).await?;
    bed.shared(if second.is_some() { &[2, 2] } else { &[4] }).await?;
    bed.one_more().await?;
    {
        let seen = bed.history.look();
        let then = match (seen.lost.is_empty(), seen.faults.is_empty()) {
            (true, true) => Then::GoesOn,
            (false, true) => Then::ComesBack,
            (_, false) => Then::Complains,
        };
        assert_eq!(then, expected, "{api:?}: {code}: {:?}", seen.faults);
        assert_eq!(seen.shared_by_two(), Vec::<String>::new());
    }
    bed.end_all([first].into_iter().chain(second)).await
}

#[tokio::test(start_paused = true)]
async fn each_row_for_a_member_that_holds_partitions() -> Result<()> {
    use Then::{ComesBack, Complains, GoesOn};
    for (api, code, then) in [
        (ApiKey::Heartbeat, ErrorCode::REBALANCE_IN_PROGRESS, GoesOn),
        (ApiKey::Heartbeat, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, GoesOn),
        (ApiKey::Heartbeat, ErrorCode::COORDINATOR_NOT_AVAILABLE, GoesOn),
        (ApiKey::Heartbeat, ErrorCode::NOT_COORDINATOR, GoesOn),
        (ApiKey::Heartbeat, ErrorCode::ILLEGAL_GENERATION, ComesBack),
        (ApiKey::Heartbeat, ErrorCode::UNKNOWN_MEMBER_ID, ComesBack),
        (ApiKey::Heartbeat, ErrorCode::FENCED_INSTANCE_ID, Complains),
        (ApiKey::Heartbeat, ErrorCode::GROUP_AUTHORIZATION_FAILED, Complains),
        (ApiKey::JoinGroup, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, GoesOn),
        (ApiKey::JoinGroup, ErrorCode::COORDINATOR_NOT_AVAILABLE, GoesOn),
        (ApiKey::JoinGroup, ErrorCode::NOT_COORDINATOR, GoesOn),
        (ApiKey::JoinGroup, ErrorCode::REBALANCE_IN_PROGRESS, GoesOn),
        (ApiKey::JoinGroup, ErrorCode::UNKNOWN_MEMBER_ID, ComesBack),
        (ApiKey::JoinGroup, ErrorCode::INCONSISTENT_GROUP_PROTOCOL, Complains),
        (ApiKey::JoinGroup, ErrorCode::INVALID_SESSION_TIMEOUT, Complains),
        (ApiKey::JoinGroup, ErrorCode::GROUP_AUTHORIZATION_FAILED, Complains),
        (ApiKey::JoinGroup, ErrorCode::GROUP_MAX_SIZE_REACHED, Complains),
        (ApiKey::SyncGroup, ErrorCode::REBALANCE_IN_PROGRESS, GoesOn),
        (ApiKey::SyncGroup, ErrorCode::COORDINATOR_NOT_AVAILABLE, GoesOn),
        (ApiKey::SyncGroup, ErrorCode::NOT_COORDINATOR, GoesOn),
        (ApiKey::SyncGroup, ErrorCode::ILLEGAL_GENERATION, ComesBack),
        (ApiKey::SyncGroup, ErrorCode::UNKNOWN_MEMBER_ID, ComesBack),
        (ApiKey::SyncGroup, ErrorCode::GROUP_AUTHORIZATION_FAILED, Complains),
        (ApiKey::OffsetCommit, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, GoesOn),
        (ApiKey::OffsetCommit, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, GoesOn),
        (ApiKey::OffsetCommit, ErrorCode::COORDINATOR_NOT_AVAILABLE, GoesOn),
        (ApiKey::OffsetCommit, ErrorCode::NOT_COORDINATOR, GoesOn),
        (ApiKey::OffsetCommit, ErrorCode::REQUEST_TIMED_OUT, GoesOn),
        (ApiKey::OffsetCommit, ErrorCode::REBALANCE_IN_PROGRESS, GoesOn),
        (ApiKey::OffsetCommit, ErrorCode::ILLEGAL_GENERATION, ComesBack),
        (ApiKey::OffsetCommit, ErrorCode::UNKNOWN_MEMBER_ID, ComesBack),
        (ApiKey::OffsetCommit, ErrorCode::FENCED_INSTANCE_ID, Complains),
        (ApiKey::FindCoordinator, ErrorCode::COORDINATOR_NOT_AVAILABLE, GoesOn),
        (ApiKey::FindCoordinator, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, GoesOn),
        (ApiKey::FindCoordinator, ErrorCode::GROUP_AUTHORIZATION_FAILED, Complains),
    ] {
        check(api, code, then).await.map_err(|error| error.context(format!("{api:?}: {code}")))?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_can_never_be_is_refused_and_the_member_goes_on() -> Result<()> {
    for code in [
        ErrorCode::OFFSET_METADATA_TOO_LARGE,
        ErrorCode::INVALID_COMMIT_OFFSET_SIZE,
        ErrorCode::TOPIC_AUTHORIZATION_FAILED,
        ErrorCode::GROUP_AUTHORIZATION_FAILED,
    ] {
        let mut bed = Bed::new().await?;
        let member = bed.member("a", config());
        bed.shared(&[4]).await?;
        let fault = bed.cluster.on(ApiKey::OffsetCommit).reply_error(code);
        let value = ProduceRecord { topic: TOPIC.into(), partition: Some(0), ..ProduceRecord::default() };
        let producer = bed.client("producer").producer(ProducerConfig::default(), Budget::new(1 << 20))?;
        producer.send(value).await?.await?;
        bed.history.wait_until("the refusal", |seen| seen.refused == [(0, Some(code))]).await?;
        assert_eq!(fault.hits(), 1);
        bed.one_more().await?;
        assert!(bed.history.look().lost.is_empty());
        bed.end_all([member]).await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn committed_offsets_that_cannot_be_read_yet_are_not_taken_for_none() -> Result<()> {
    for code in [
        ErrorCode::UNSTABLE_OFFSET_COMMIT,
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode::NOT_COORDINATOR,
        ErrorCode::GROUP_AUTHORIZATION_FAILED,
    ] {
        let mut bed = Bed::new().await?;
        let first = bed.member("a", config());
        bed.shared(&[4]).await?;
        bed.one_more().await?;
        first.leave().await?;
        let fault = bed.cluster.on(ApiKey::OffsetFetch).times(3).reply_error(code);
        let second = bed.member("b", config());
        bed.shared(&[4]).await?;
        assert_eq!(fault.hits(), 3);
        bed.one_more().await?;
        assert_eq!(bed.history.look().repeated(), 0, "{code}");
        bed.end_all([second]).await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_is_gone_whatever_the_coordinator_says_first() -> Result<()> {
    for code in
        [ErrorCode::NOT_COORDINATOR, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, ErrorCode::COORDINATOR_NOT_AVAILABLE]
    {
        let mut bed = Bed::new().await?;
        let member = bed.member("a", config());
        bed.shared(&[4]).await?;
        let fault = bed.cluster.on(ApiKey::LeaveGroup).times(2).reply_error(code);
        member.leave().await?;
        assert_eq!(fault.hits(), 2);
        assert!(bed.cluster.members(GROUP).is_empty(), "{code}");
        bed.end_all([]).await?;
    }
    Ok(())
}
