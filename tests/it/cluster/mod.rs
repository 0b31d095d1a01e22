//! Three real nodes of which one after the other is killed, stopped, frozen and moved away from: what a client is for.
//!
//! Topics have three replicas of which two must have a record before it is acknowledged. The tests of this folder share a
//! cluster per version and run one after the other: each has all nodes for itself.

mod frozen;
mod killed;
mod moved;
mod outage;
mod readers;
mod rolling;
mod scene;
mod writer;

/// A test of each scenario on each version.
macro_rules! scenarios {
    ($($module:ident { $($name:ident)+ })+) => {
        scenarios!(@version on_kafka_4_3_1 "4.3.1" $($module { $($name)+ })+);
        scenarios!(@version on_kafka_3_9_2 "3.9.2" $($module { $($name)+ })+);
    };
    (@version $suite:ident $version:literal $($module:ident { $($name:ident)+ })+) => {
        mod $suite {
            $($(#[tokio::test(flavor = "multi_thread")]
            async fn $name() -> anyhow::Result<()> {
                let test = concat!("cluster::", stringify!($suite), "::", stringify!($name));
                match super::scene::Scene::new($version, test, stringify!($module)).await? {
                    Some(scene) => super::$module::$name(&scene).await,
                    None => Ok(()),
                }
            })+)+
        }
    };
}

scenarios! {
    killed {
        leaders_that_are_killed_in_turn_cost_no_acknowledged_record_and_write_none_twice
        a_group_whose_coordinator_is_killed_goes_on_and_nothing_is_lost
    }
    moved {
        leaders_that_are_moved_are_followed_without_an_error_and_nothing_comes_twice
    }
    outage {
        after_all_nodes_were_away_everything_goes_on_and_every_outcome_was_true
    }
    frozen {
        a_node_that_hangs_and_wakes_holds_nothing_up_and_writes_nothing_twice
    }
    rolling {
        a_sidecar_loses_nothing_when_the_brokers_are_restarted_in_turn_and_one_is_killed
    }
}
