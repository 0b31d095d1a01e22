//! Who gets which partition: what the leader of a classic group computes. Pure, bounded, and the same for the same input.
//!
//! Racks are not looked at (KIP-881): that only matters for which of two fair plans is made.

mod cooperative_sticky;
mod range;

use std::{collections::BTreeMap, sync::Arc};

use super::super::Assignor;

/// A topic and one of its partitions.
pub(super) type Slot = (Arc<str>, i32);

/// A member as the leader sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: String,
    /// `group.instance.id`; members are sorted by it where they have one.
    pub(super) instance_id: Option<String>,
    pub(super) topics: Vec<Arc<str>>,
    pub(super) owned: Vec<Slot>,
    /// The generation in which it owned them; -1 = unknown.
    pub(super) generation: i32,
}

/// By member id.
pub(super) type Plan = BTreeMap<String, Vec<Slot>>;

/// `partitions` holds the count of each topic; a topic that does not exist (yet) is left out. Member ids are distinct.
pub(super) fn assign(assignor: Assignor, members: &[Member], partitions: &BTreeMap<Arc<str>, i32>) -> Plan {
    match assignor {
        Assignor::Range => range::assign(members, partitions),
        Assignor::CooperativeSticky => cooperative_sticky::assign(members, partitions),
    }
}

/// The members in the order of Java's assignors: those with an instance id first, by it; the others by member id.
fn sorted(members: &[Member]) -> Vec<&Member> {
    let mut sorted: Vec<&Member> = members.iter().collect();
    sorted.sort_by_key(|member| (member.instance_id.is_none(), &member.instance_id, &member.id));
    sorted
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    type Group = (Vec<Member>, BTreeMap<Arc<str>, i32>);

    /// Groups in every disorder: claims that overlap, of topics that are gone or not subscribed, of any generation.
    fn group() -> impl Strategy<Value = Group> {
        let topics = proptest::collection::vec(0..8i32, 1..4);
        let members = proptest::collection::vec(
            (
                proptest::collection::vec(any::<bool>(), 4),
                proptest::collection::vec((0..4usize, -1..9i32), 0..10),
                -1..3i32,
                any::<bool>(),
            ),
            1..6,
        );
        (topics, members).prop_map(|(topics, members)| {
            let names: Vec<Arc<str>> = (0..4).map(|index| format!("t{index}").into()).collect();
            let counts = topics.iter().enumerate().map(|(index, count)| (names[index].clone(), *count)).collect();
            let members = members.into_iter().enumerate().map(|(index, (subscribed, owned, generation, is_static))| {
                let topics = names.iter().zip(subscribed).filter(|(_, yes)| *yes);
                Member {
                    id: format!("m{index}"),
                    instance_id: is_static.then(|| format!("i{}", 9 - index)),
                    topics: topics.map(|(name, _)| name.clone()).collect(),
                    owned: owned.into_iter().map(|(topic, partition)| (names[topic].clone(), partition)).collect(),
                    generation,
                }
            });
            (members.collect(), counts)
        })
    }

    fn assignable((members, counts): &Group) -> BTreeSet<Slot> {
        let subscribed = counts.iter().filter(|(topic, _)| members.iter().any(|member| member.topics.contains(topic)));
        subscribed.flat_map(|(topic, count)| (0..*count).map(|partition| (topic.clone(), partition))).collect()
    }

    /// What honest members do between two rounds: they keep what the plan and they agree on, and take what is new.
    fn obey(members: &mut [Member], plan: &Plan, generation: i32) -> bool {
        let mut revoked = false;
        for member in members {
            revoked |= member.owned.iter().any(|slot| !plan[&member.id].contains(slot));
            member.owned = plan[&member.id].clone();
            member.generation = generation;
        }
        revoked
    }

    proptest! {
        #[test]
        fn nothing_is_given_twice_or_to_a_member_that_does_not_subscribe(group in group()) {
            let (members, counts) = &group;
            for assignor in [Assignor::Range, Assignor::CooperativeSticky] {
                let plan = assign(assignor, members, counts);
                let mut seen = BTreeSet::new();
                for (id, slots) in &plan {
                    let member = members.iter().find(|member| member.id == *id).expect("a member");
                    for slot in slots {
                        prop_assert!(seen.insert(slot.clone()), "{slot:?} twice");
                        prop_assert!(member.topics.contains(&slot.0));
                        prop_assert!((0..counts[&slot.0]).contains(&slot.1));
                    }
                }
                prop_assert_eq!(plan.len(), members.len());
                if assignor == Assignor::Range {
                    prop_assert_eq!(seen, assignable(&group));
                }
                let mut reversed = members.clone();
                reversed.reverse();
                prop_assert_eq!(plan, assign(assignor, &reversed, counts), "the order of the answer does not matter");
            }
        }

        #[test]
        fn a_partition_that_another_member_claims_is_not_handed_out_before_it_let_go((members, counts) in group()) {
            let plan = assign(Assignor::CooperativeSticky, &members, &counts);
            for (id, slots) in &plan {
                for slot in slots {
                    let mut claims: Vec<&Member> = members.iter().filter(|member| member.owned.contains(slot)).collect();
                    claims.sort_by_key(|member| member.generation);
                    if let [.., newest] = claims[..] {
                        prop_assert_eq!(&newest.id, id, "{:?}", slot);
                        let rivals = claims.iter().filter(|claim| claim.generation == newest.generation && newest.topics.contains(&slot.0));
                        prop_assert_eq!(rivals.filter(|rival| rival.topics.contains(&slot.0)).count(), 1);
                    }
                }
            }
        }

        #[test]
        fn cooperative_rounds_end_with_everything_given_out_and_then_nothing_moves(group in group()) {
            let (mut members, counts) = group.clone();
            let mut rounds = 0;
            loop {
                let plan = assign(Assignor::CooperativeSticky, &members, &counts);
                rounds += 1;
                prop_assert!(rounds <= 4, "no end of rounds");
                if !obey(&mut members, &plan, 10 + rounds) {
                    break;
                }
            }
            let given: BTreeSet<Slot> = members.iter().flat_map(|member| member.owned.iter().cloned()).collect();
            prop_assert_eq!(given, assignable(&group));
            let again = assign(Assignor::CooperativeSticky, &members, &counts);
            for member in &members {
                prop_assert_eq!(&again[&member.id], &member.owned, "a settled group does not move");
            }
            // No single partition could still be moved to somebody who has at least two less.
            for poor in &members {
                for rich in members.iter().filter(|rich| rich.owned.len() > poor.owned.len() + 1) {
                    prop_assert!(!rich.owned.iter().any(|slot| poor.topics.contains(&slot.0)));
                }
            }
        }

        #[test]
        fn with_equal_subscriptions_sizes_differ_by_one_and_only_the_surplus_moves(
            sizes in proptest::collection::vec(0..12usize, 1..7), free in 0..10usize,
        ) {
            let total: usize = sizes.iter().sum::<usize>() + free;
            let counts: BTreeMap<Arc<str>, i32> = BTreeMap::from([(Arc::from("t"), total as i32)]);
            let mut next = 0;
            let mut members: Vec<Member> = sizes.iter().enumerate().map(|(index, size)| {
                let owned = (next..next + *size as i32).map(|partition| ("t".into(), partition)).collect();
                next += *size as i32;
                Member { id: format!("m{index}"), topics: vec!["t".into()], owned, generation: 1, ..Member::default() }
            }).collect();
            let before = members.clone();
            for round in 2..4 {
                let plan = assign(Assignor::CooperativeSticky, &members, &counts);
                obey(&mut members, &plan, round);
            }
            let after: Vec<usize> = members.iter().map(|member| member.owned.len()).collect();
            prop_assert_eq!(after.iter().sum::<usize>(), total);
            prop_assert!(after.iter().max().unwrap_or(&0) - after.iter().min().unwrap_or(&0) <= 1, "{:?}", after);
            for (was, is) in before.iter().zip(&members) {
                let kept = was.owned.iter().filter(|slot| is.owned.contains(slot)).count();
                prop_assert_eq!(kept, was.owned.len().min(is.owned.len()), "{:?}", after);
            }
        }
    }
}
