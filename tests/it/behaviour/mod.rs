//! One suite of behaviours, on the fake and on real Kafka. Where they differ, the fake is wrong.

mod bed;
mod groups;
mod positions;
mod raw;
mod raw_admin;
mod raw_fetch;
mod raw_groups;
mod raw_produce;
mod reading;
mod records;
mod topics;

/// A test of each behaviour on each kind of cluster.
macro_rules! behaviours {
    ($($module:ident { $($name:ident)+ })+) => {
        /// In memory, on a paused clock.
        mod on_the_fake {
            $(mod $module {
                $(#[tokio::test(start_paused = true)]
                async fn $name() -> anyhow::Result<()> {
                    super::super::bed::Bed::fake().await?.run(super::super::$module::$name).await
                })+
            })+
        }

        behaviours!(@real on_kafka_4_3_1 "4.3.1" $($module { $($name)+ })+);
        behaviours!(@real on_kafka_3_9_2 "3.9.2" $($module { $($name)+ })+);
    };
    (@real $suite:ident $version:literal $($module:ident { $($name:ident)+ })+) => {
        mod $suite {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread")]
                async fn $name() -> anyhow::Result<()> {
                    let test = concat!("behaviour::", stringify!($suite), "::", stringify!($module), "::", stringify!($name));
                    match super::super::bed::Bed::kafka($version, test).await? {
                        Some(bed) => bed.run(super::super::$module::$name).await,
                        None => Ok(()),
                    }
                })+
            })+
        }
    };
}

behaviours! {
    records {
        what_is_produced_is_consumed_in_every_codec
        each_acks_is_written_and_only_zero_learns_no_offset
        a_key_stays_on_its_partition_and_unkeyed_records_go_round_in_batches
        the_brokers_time_counts_where_the_topic_says_so
        a_record_that_the_broker_finds_too_large_fails_alone
    }
    groups {
        two_members_share_and_one_takes_over_when_the_other_leaves
        a_member_that_vanishes_is_replaced_when_its_session_ends
        what_is_committed_survives_the_group
        a_commit_of_a_former_generation_is_refused
        members_with_range_alone_share_too
    }
    positions {
        earliest_begins_at_the_start_and_latest_at_the_end
        without_a_reset_policy_a_partition_stands_until_a_seek
        a_seek_goes_back_and_forward
        pause_keeps_what_was_fetched
        a_time_finds_the_first_record_that_is_not_older
    }
    topics {
        an_unknown_topic_is_made_by_producing_to_it
        without_leave_to_make_it_an_unknown_topic_is_an_error
        a_topic_that_comes_later_is_picked_up
        partitions_that_are_added_later_are_picked_up
    }
    raw_produce {
        sequences_are_checked
        sequences_go_on_at_zero_after_the_largest
        batches_that_are_no_good_are_refused
        what_the_topic_does_not_take_is_refused
    }
    raw_fetch {
        a_session_names_only_what_changed
        limits_hold_and_the_first_batch_comes_whole
        a_long_poll_ends_when_something_comes
        what_cannot_be_fetched_is_an_error
        offsets_are_listed
        the_end_of_an_epoch_is_told
    }
    raw_groups {
        nobody_is_known_to_an_unknown_group
        a_group_takes_only_members_that_fit
        generations_are_checked
        a_rebalance_is_told_to_all_and_waits_for_them
    }
    raw_admin {
        topics_that_cannot_be_are_refused
        metadata_says_what_there_is
        configurations_are_described
        a_version_that_nobody_serves_is_answered_with_those_that_are
    }
}
