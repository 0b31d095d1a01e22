//! Who gets which partition: what the leader of a classic group computes. Pure and bounded.

mod cooperative_sticky;
mod range;

use std::{collections::BTreeMap, sync::Arc};

use super::super::Assignor;

/// A topic and one of its partitions.
pub(super) type Slot = (Arc<str>, i32);

/// A member as the leader sees it.
#[derive(Debug, Clone, Default)]
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

/// `partitions` holds the count of each topic; a topic that does not exist (yet) is left out.
pub(super) fn assign(assignor: Assignor, members: &[Member], partitions: &BTreeMap<Arc<str>, i32>) -> Plan {
    match assignor {
        Assignor::Range => range::assign(members, partitions),
        Assignor::CooperativeSticky => cooperative_sticky::assign(members, partitions),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn group() -> impl Strategy<Value = (Vec<Member>, BTreeMap<Arc<str>, i32>)> {
        let topics = proptest::collection::vec(0..8i32, 1..4);
        let members = proptest::collection::vec(
            (
                proptest::collection::vec(any::<bool>(), 4),
                proptest::collection::vec((0..4usize, 0..8i32), 0..10),
                -1..3i32,
            ),
            1..6,
        );
        (topics, members).prop_map(|(topics, members)| {
            let names: Vec<Arc<str>> = (0..4).map(|index| format!("t{index}").into()).collect();
            let counts = topics.iter().enumerate().map(|(index, count)| (names[index].clone(), *count)).collect();
            let members = members.into_iter().enumerate().map(|(index, (subscribed, owned, generation))| Member {
                id: format!("m{index}"),
                instance_id: None,
                topics: names.iter().zip(subscribed).filter(|(_, yes)| *yes).map(|(name, _)| name.clone()).collect(),
                owned: owned.into_iter().map(|(topic, partition)| (names[topic].clone(), partition)).collect(),
                generation,
            });
            (members.collect(), counts)
        })
    }

    proptest! {
        #[test]
        fn nothing_is_given_twice_or_to_a_member_that_does_not_subscribe((members, counts) in group()) {
            for assignor in [Assignor::Range, Assignor::CooperativeSticky] {
                let plan = assign(assignor, &members, &counts);
                let mut seen = BTreeSet::new();
                for (id, slots) in &plan {
                    let member = members.iter().find(|member| member.id == *id).expect("a member");
                    for slot in slots {
                        prop_assert!(seen.insert(slot.clone()), "{slot:?} twice");
                        prop_assert!(member.topics.contains(&slot.0));
                        prop_assert!(slot.1 < counts[&slot.0]);
                    }
                }
                prop_assert_eq!(plan.len(), members.len());
            }
        }

        #[test]
        fn a_second_round_of_cooperative_sticky_gives_everything_out_evenly(count in 0..30i32, size in 1..6usize) {
            let counts: BTreeMap<Arc<str>, i32> = BTreeMap::from([(Arc::from("t"), count)]);
            let mut members: Vec<Member> = (0..size)
                .map(|index| Member { id: format!("m{index}"), topics: vec!["t".into()], generation: 1, ..Member::default() })
                .collect();
            members[0].owned = (0..count).map(|partition| ("t".into(), partition)).collect();
            for round in 2..4 {
                let plan = assign(Assignor::CooperativeSticky, &members, &counts);
                for member in &mut members {
                    member.owned = plan[&member.id].clone();
                    member.generation = round;
                }
            }
            let sizes: Vec<usize> = members.iter().map(|member| member.owned.len()).collect();
            prop_assert_eq!(sizes.iter().sum::<usize>(), count as usize);
            prop_assert!(sizes.iter().max().unwrap_or(&0) - sizes.iter().min().unwrap_or(&0) <= 1, "{:?}", sizes);
            let before = members.clone();
            let again = assign(Assignor::CooperativeSticky, &members, &counts);
            for member in before {
                let (mut was, mut is) = (member.owned, again[&member.id].clone());
                was.sort();
                is.sort();
                prop_assert_eq!(was, is, "a balanced group does not move");
            }
        }
    }
}
