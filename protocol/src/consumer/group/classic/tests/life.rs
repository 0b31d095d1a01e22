//! How a member lives: rounds, hand-overs, doubt, moves of the coordinator, the way out.

use super::*;

#[test]
fn a_new_member_joins_with_the_id_that_it_is_given_and_beats_before_it_is_assigned_anything() {
    let mut rig = Rig::new(&[Assignor::CooperativeSticky]);
    rig.step(Event::Found(Ok(FIRST)));
    rig.answer(is_join, Ok(join_refused(ErrorCode::MEMBER_ID_REQUIRED, "m")));
    let request = rig.answer(is_join, Ok(joined(5, None)));
    assert!(
        matches!(request, Call::Join { member_id, owned, owned_generation: -1, .. } if member_id == "m" && owned.is_empty())
    );
    rig.answer_heartbeat(ErrorCode::NONE);
    let request = rig.answer(is_sync, Ok(synced(&[0, 1])));
    assert!(matches!(request, Call::Sync { generation: 5, plan, .. } if plan.is_empty()));
    assert!(rig.leases.is_empty(), "nothing is told before its offset is known");
    rig.fetch_offsets();
    assert_eq!(rig.leases.keys().collect::<Vec<_>>(), [&0, &1]);
    rig.pass(Duration::from_millis(500));
    rig.answer_heartbeat(ErrorCode::NONE);
    for _ in 0..5 {
        rig.pass(HEARTBEAT);
        rig.answer_heartbeat(ErrorCode::NONE);
    }
}

fn member(id: &str) -> Member {
    Member { id: id.into(), topics: vec!["t".into()], ..Member::default() }
}

#[test]
fn a_leader_plans_for_all_and_again_when_partitions_came_while_it_was_syncing() {
    let mut rig = Rig::new(&[Assignor::Range]);
    rig.step(Event::Found(Ok(FIRST)));
    let Answer::Joined(answer) = joined(1, Some(vec![member("m"), member("n")])) else { unreachable!() };
    rig.answer(is_join, Ok(Answer::Joined(Joined { protocol: "range".into(), ..answer })));
    let Phase::Describing(call, _) = rig.membership.phase else { panic!("it asks for the counts") };
    rig.step(Event::Described { call, counts: BTreeMap::from([("t".into(), 3)]) });
    let (_, request) = rig.find(is_sync).expect("SyncGroup");
    let Call::Sync { plan, protocol: Assignor::Range, .. } = request else { panic!("{request:?}") };
    assert_eq!(plan, Plan::from([("m".into(), slots(&[0, 1])), ("n".into(), slots(&[2]))]));
    rig.step(Event::Partitions(BTreeMap::from([("t".into(), 4)])));
    assert!(rig.find(is_join).is_none(), "not while it syncs");
    rig.answer(is_sync, Ok(synced(&[0, 1])));
    assert!(rig.find(is_join).is_some());
}

#[test]
fn an_assignor_that_we_do_not_speak_is_a_fault() {
    let mut rig = Rig::new(&[Assignor::Range]);
    rig.step(Event::Found(Ok(FIRST)));
    rig.answer(is_join, Ok(joined(1, None)));
    assert_eq!(rig.faults, [ErrorCode::INCONSISTENT_GROUP_PROTOCOL]);
    rig.pass(FATAL_DELAY);
    assert!(rig.find(is_join).is_some());
}

#[test]
fn partitions_that_do_not_move_never_pause_and_those_that_do_are_committed_before_they_go() {
    let mut rig = Rig::stable(&[0, 1]);
    let kept = rig.leases[&0].clone();
    rig.pass(HEARTBEAT);
    rig.answer_heartbeat(ErrorCode::REBALANCE_IN_PROGRESS);
    assert!(kept.is_active());
    // The group gathers for long: commits go on, and so do heartbeats.
    rig.commit(1, 0, 11);
    rig.answer_commit(ErrorCode::NONE);
    assert!(rig.replies[&1].is_ok());
    rig.pass(HEARTBEAT);
    rig.answer_heartbeat(ErrorCode::REBALANCE_IN_PROGRESS);
    let request = rig.answer(is_join, Ok(joined(2, None)));
    assert!(matches!(request, Call::Join { owned, owned_generation: 1, .. } if owned == slots(&[0, 1])));
    rig.answer(is_sync, Ok(synced(&[0])));
    let moved = rig.leases[&1].clone();
    assert!(kept.is_active() && !moved.is_active() && !moved.is_lost());
    assert_eq!(rig.revocations[0].1, [1]);
    // Its last commit carries the new generation, and the join waits for the answer.
    rig.commit(2, 1, 15);
    rig.release();
    assert!(moved.is_lost());
    assert!(rig.find(is_join).is_none());
    let request = rig.answer_commit(ErrorCode::NONE);
    assert!(matches!(request, Call::Commit { generation: 2, .. }));
    let (_, request) = rig.find(is_join).expect("it comes without the partition");
    assert!(matches!(request, Call::Join { owned, owned_generation: 2, .. } if owned == slots(&[0])));
    assert!(kept.is_active() && rig.lost.is_empty());
}

#[test]
fn a_rebalance_does_not_wait_for_a_slow_drain() {
    let mut rig = Rig::stable(&[0, 1]);
    rig.pass(HEARTBEAT);
    rig.answer_heartbeat(ErrorCode::REBALANCE_IN_PROGRESS);
    rig.join_round(2, &[0]);
    rig.answer_heartbeat(ErrorCode::REBALANCE_IN_PROGRESS);
    let (_, request) = rig.find(is_join).expect("at once");
    assert!(matches!(request, Call::Join { owned, .. } if owned == slots(&[0, 1])), "what drains is claimed");
    // It drains while the group still gathers; whoever leads believes that we have it.
    rig.release();
    assert_eq!(rig.held(), [0]);
    rig.join_round(3, &[0]);
    let (_, request) = rig.find(is_join).expect("once more, to say so");
    assert!(matches!(request, Call::Join { owned, .. } if owned == slots(&[0])));
    rig.join_round(4, &[0]);
    assert!(rig.find(is_join).is_none());
    assert!(rig.leases[&0].is_active());
}

#[test]
fn what_is_assigned_again_while_it_drains_comes_back_under_a_new_lease() {
    for drains_before_the_assignment in [true, false] {
        let mut rig = Rig::stable(&[0, 1]);
        let old = rig.leases[&1].clone();
        rig.pass(HEARTBEAT);
        rig.answer_heartbeat(ErrorCode::REBALANCE_IN_PROGRESS);
        rig.join_round(2, &[0]);
        rig.answer_heartbeat(ErrorCode::REBALANCE_IN_PROGRESS);
        if drains_before_the_assignment {
            rig.release();
            rig.join_round(3, &[0, 1]);
        } else {
            rig.join_round(3, &[0, 1]);
            assert!(!old.is_lost() && !old.is_active(), "it drains on");
            rig.release();
            rig.fetch_offsets();
        }
        assert!(old.is_lost() && rig.leases[&1].is_active() && !rig.leases[&1].same(&old));
        assert!(rig.find(is_join).is_none(), "the group knows already");
    }
}

#[test]
fn a_drain_that_is_too_slow_ends_at_its_deadline_and_the_others_never_notice() {
    let mut rig = Rig::stable(&[0, 1]);
    rig.pass(HEARTBEAT);
    rig.answer_heartbeat(ErrorCode::REBALANCE_IN_PROGRESS);
    rig.join_round(2, &[0]);
    rig.answer_heartbeat(ErrorCode::NONE);
    let until = rig.now + DRAIN;
    while rig.now + HEARTBEAT < until {
        assert!(rig.leases[&0].is_active() && !rig.leases[&1].is_lost());
        rig.pass(HEARTBEAT);
        rig.answer_heartbeat(ErrorCode::NONE);
    }
    rig.pass(until - rig.now);
    assert!(rig.leases[&0].is_active() && rig.leases[&1].is_lost());
    assert!(rig.find(is_join).is_some());
}

#[test]
fn an_eager_member_gives_up_everything_before_it_joins_and_joins_in_time() {
    let mut rig = Rig::new(&[Assignor::CooperativeSticky, Assignor::Range]);
    rig.step(Event::Found(Ok(FIRST)));
    rig.join_round(1, &[0, 1]);
    rig.answer_heartbeat(ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(rig.revocations[0].1, [0, 1]);
    assert!(rig.find(is_join).is_none());
    rig.commit(1, 1, 15);
    rig.answer_commit(ErrorCode::NONE);
    rig.release();
    assert!(rig.leases.values().all(Lease::is_lost));
    let (_, request) = rig.find(is_join).expect("empty hands");
    let Call::Join { owned, rebalance_timeout, .. } = request else { panic!("{request:?}") };
    assert!(owned.is_empty());
    assert!(rebalance_timeout > DRAIN + FLUSH_BUDGET, "or the coordinator drops a member that drains");
    rig.join_round(2, &[0]);
    assert!(rig.leases[&0].is_active() && rig.leases[&1].is_lost());
    assert!(rig.find(is_join).is_none());
}

#[test]
fn a_membership_without_answers_is_in_doubt_and_goes_on_when_one_comes() {
    let mut rig = Rig::stable(&[0]);
    let (lease, asked) = (rig.leases[&0].clone(), rig.now);
    rig.commit(1, 0, 20);
    rig.answer(is_commit, Err(no_answer()));
    rig.pass(BACKOFF.1);
    rig.step(Event::Found(Ok(FIRST)));
    rig.pass(asked + SESSION - rig.now);
    assert!(rig.membership.in_doubt && rig.held() == [0], "not lost: perhaps nobody else has it");
    assert!(lease.is_active());
    rig.pass(SESSION);
    let commits = rig.open.iter().filter(|(_, _, request)| is_commit(request)).count();
    assert_eq!(commits, 1, "one was on its way, no other goes");
    rig.answer_commit(ErrorCode::NOT_COORDINATOR);
    rig.pass(BACKOFF.1);
    rig.step(Event::Found(Ok(2)));
    rig.pass(BACKOFF.1);
    assert!(rig.find(is_commit).is_none());
    rig.open.retain(|(_, node, _)| *node == 2);
    rig.answer_heartbeat(ErrorCode::NONE);
    assert!(!rig.membership.in_doubt && lease.may_start());
    rig.answer_commit(ErrorCode::NONE);
    assert!(rig.replies[&1].is_ok());
}

#[test]
fn a_membership_that_is_in_doubt_is_lost_when_the_coordinator_says_so() {
    let mut rig = Rig::stable(&[0]);
    rig.pass(SESSION);
    assert!(rig.membership.in_doubt);
    rig.answer_heartbeat(ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(rig.lost, [0]);
    assert!(rig.leases[&0].is_lost());
    let (_, request) = rig.find(is_join).expect("it joins again");
    assert!(
        matches!(request, Call::Join { member_id, owned, owned_generation: -1, .. } if member_id.is_empty() && owned.is_empty())
    );
}

#[test]
fn what_a_new_generation_adds_is_not_told_while_the_membership_is_in_doubt() {
    let mut rig = Rig::new(&[Assignor::CooperativeSticky]);
    rig.step(Event::Found(Ok(FIRST)));
    // The group gathered longer than a session lasts.
    rig.pass(SESSION + HEARTBEAT);
    rig.answer(is_join, Ok(joined(1, None)));
    rig.answer(is_sync, Ok(synced(&[0])));
    assert!(rig.find(is_offset_fetch).is_none());
    rig.answer_heartbeat(ErrorCode::NONE);
    rig.fetch_offsets();
    assert!(rig.leases[&0].may_start());
}

#[test]
fn when_the_coordinator_moves_nothing_is_waited_for_at_the_old_one() {
    let mut rig = Rig::stable(&[0]);
    rig.pass(HEARTBEAT);
    rig.answer_heartbeat(ErrorCode::REBALANCE_IN_PROGRESS);
    rig.commit(1, 0, 20);
    rig.pass(HEARTBEAT);
    // JoinGroup, OffsetCommit and Heartbeat are on their way to a broker that went silent.
    assert_eq!(rig.open.len(), 3);
    rig.answer(is_heartbeat, Err(no_answer()));
    rig.pass(BACKOFF.1);
    rig.step(Event::Found(Ok(2)));
    rig.pass(BACKOFF.1 * 2);
    let mut again: Vec<&Call> = rig.open.iter().filter(|(_, node, _)| *node == 2).map(|(_, _, call)| call).collect();
    again.sort_by_key(|call| (is_join(call), is_commit(call)));
    assert!(matches!(again[..], [Call::Heartbeat { .. }, Call::Commit { .. }, Call::Join { .. }]), "{again:?}");
    // What the old one says after all changes nothing.
    let old: Vec<CallId> = rig.open.iter().filter(|(_, node, _)| *node == FIRST).map(|(call, _, _)| *call).collect();
    for call in old {
        rig.step(Event::Answered { call, answer: Ok(joined(9, None)) });
    }
    assert_eq!(rig.membership.generation, 1);
    assert!(rig.leases[&0].is_active() && rig.lost.is_empty());
    rig.open.retain(|(_, node, _)| *node == 2);
    rig.answer_commit(ErrorCode::NONE);
    assert!(rig.replies[&1].is_ok());
}

#[test]
fn a_search_that_finds_the_same_coordinator_leaves_the_join_alone() {
    let mut rig = Rig::stable(&[0]);
    rig.pass(HEARTBEAT);
    rig.answer_heartbeat(ErrorCode::REBALANCE_IN_PROGRESS);
    rig.pass(HEARTBEAT);
    rig.answer(is_heartbeat, Err(no_answer()));
    rig.pass(BACKOFF.1);
    rig.step(Event::Found(Ok(FIRST)));
    rig.pass(BACKOFF.1);
    assert_eq!(rig.open.iter().filter(|(_, _, call)| is_join(call)).count(), 1);
    rig.join_round(2, &[0]);
    assert!(rig.leases[&0].is_active());
}

#[test]
fn whoever_is_told_to_leave_in_a_held_join_leaves_at_once() {
    let mut rig = Rig::stable(&[]);
    rig.pass(HEARTBEAT);
    rig.answer_heartbeat(ErrorCode::REBALANCE_IN_PROGRESS);
    assert!(rig.find(is_join).is_some());
    rig.step(Event::Leave);
    let request = rig.answer(is_leave, Ok(Answer::Left(ErrorCode::NONE)));
    assert!(matches!(request, Call::Leave { member_id } if member_id == "m"));
    assert!(rig.ended);
}

#[test]
fn whoever_leaves_before_it_has_an_id_waits_for_it_so_that_no_group_waits_for_a_ghost() {
    let mut rig = Rig::new(&[Assignor::CooperativeSticky]);
    rig.step(Event::Found(Ok(FIRST)));
    rig.step(Event::Leave);
    assert!(!rig.ended);
    rig.answer(is_join, Ok(join_refused(ErrorCode::MEMBER_ID_REQUIRED, "m")));
    let request = rig.answer(is_leave, Ok(Answer::Left(ErrorCode::NONE)));
    assert!(matches!(request, Call::Leave { member_id } if member_id == "m"));
    assert!(rig.ended);

    let mut rig = Rig::new(&[Assignor::CooperativeSticky]);
    rig.step(Event::Found(Ok(FIRST)));
    rig.step(Event::Leave);
    rig.pass(PART_BUDGET);
    assert!(rig.ended, "but not for long");

    let mut rig = Rig::new(&[Assignor::CooperativeSticky]);
    rig.step(Event::Leave);
    assert!(rig.ended, "nobody knows of it");
}

#[test]
fn whoever_leaves_drains_commits_and_then_says_so() {
    for joining in [false, true] {
        let mut rig = Rig::stable(&[0, 1]);
        if joining {
            rig.pass(HEARTBEAT);
            rig.answer_heartbeat(ErrorCode::REBALANCE_IN_PROGRESS);
        }
        rig.step(Event::Leave);
        assert_eq!(rig.revocations[0].1, [0, 1]);
        rig.commit(1, 0, 20);
        rig.answer_commit(ErrorCode::NONE);
        rig.commit(2, 1, 20);
        rig.release();
        assert!(rig.find(is_leave).is_none(), "the last commit is on its way");
        rig.answer_commit(ErrorCode::NONE);
        assert!(rig.replies[&2].is_ok());
        rig.answer(is_leave, Ok(Answer::Left(ErrorCode::NONE)));
        assert!(rig.ended);
    }
}

#[test]
fn leaving_ends_in_time_whatever_does_not_answer() {
    let mut rig = Rig::stable(&[0, 1]);
    rig.commit(1, 0, 20);
    rig.step(Event::Leave);
    rig.pass(DRAIN + FLUSH_BUDGET + PART_BUDGET);
    assert!(rig.ended && rig.leases.values().all(Lease::is_lost));
    assert!(rig.replies[&1].is_err());
}

#[test]
fn a_commit_in_a_rebalance_goes_out_again_in_the_new_generation_if_the_partition_is_still_ours() {
    let mut rig = Rig::stable(&[0, 1]);
    rig.pass(HEARTBEAT);
    rig.answer_heartbeat(ErrorCode::REBALANCE_IN_PROGRESS);
    rig.commit(1, 0, 20);
    rig.answer(is_join, Ok(joined(2, None)));
    rig.answer_commit(ErrorCode::ILLEGAL_GENERATION);
    rig.pass(BACKOFF.1);
    assert!(rig.find(is_commit).is_none(), "not before the assignment");
    rig.answer(is_sync, Ok(synced(&[0, 1])));
    rig.pass(BACKOFF.1);
    let request = rig.answer_commit(ErrorCode::NONE);
    assert!(matches!(request, Call::Commit { generation: 2, .. }));
    assert!(rig.replies[&1].is_ok() && rig.lost.is_empty());
}

#[test]
fn an_answer_from_an_older_generation_takes_nothing_away() {
    let mut rig = Rig::stable(&[0]);
    rig.pass(HEARTBEAT);
    rig.answer_heartbeat(ErrorCode::REBALANCE_IN_PROGRESS);
    rig.pass(HEARTBEAT);
    let (old, _) = rig.find(is_heartbeat).expect("a heartbeat of generation 1");
    rig.open.retain(|(call, _, _)| *call != old);
    rig.join_round(2, &[0]);
    rig.step(Event::Answered { call: old, answer: Ok(Answer::Heartbeat(ErrorCode::ILLEGAL_GENERATION)) });
    assert!(rig.leases[&0].is_active() && rig.lost.is_empty());
}

#[test]
fn partitions_that_a_member_does_not_subscribe_to_are_left_alone() {
    let mut rig = Rig::new(&[Assignor::CooperativeSticky]);
    rig.step(Event::Found(Ok(FIRST)));
    rig.answer(is_join, Ok(joined(1, None)));
    let assigned = Ok(vec![slot(0), ("foreign".into(), 0)]);
    rig.answer(is_sync, Ok(Answer::Synced { code: ErrorCode::NONE, assigned }));
    assert_eq!(rig.membership.held.keys().collect::<Vec<_>>(), [&slot(0)]);
}

#[test]
fn an_assignment_that_cannot_be_read_is_a_fault_and_everything_is_given_up() {
    let mut rig = Rig::stable(&[0]);
    rig.pass(HEARTBEAT);
    rig.answer_heartbeat(ErrorCode::REBALANCE_IN_PROGRESS);
    rig.answer(is_join, Ok(joined(2, None)));
    rig.answer(is_sync, Ok(Answer::Synced { code: ErrorCode::NONE, assigned: Err("cut short".into()) }));
    assert_eq!((&rig.lost[..], &rig.faults[..]), (&[0][..], &[ErrorCode::INCONSISTENT_GROUP_PROTOCOL][..]));
}

#[test]
fn an_abort_loses_everything_and_answers_everybody() {
    let mut rig = Rig::stable(&[0]);
    rig.commit(1, 0, 20);
    rig.commit(2, 0, 21);
    rig.step(Event::Abort);
    assert!(rig.ended && rig.leases[&0].is_lost());
    assert!(rig.replies[&1].is_err() && rig.replies[&2].is_err());
}
