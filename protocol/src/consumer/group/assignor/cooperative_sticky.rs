//! cooperative-sticky (KIP-429): everybody keeps what it has as far as balance allows, and what changes its owner is given
//! out only in the next round, when the old owner has let go of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Member, Plan, Slot};

pub(super) fn assign(members: &[Member], partitions: &BTreeMap<Arc<str>, i32>) -> Plan {
    let owners = owners(members, partitions);
    let mut plan: Plan = members.iter().map(|member| (member.id.clone(), Vec::new())).collect();
    for (slot, owner) in &owners {
        plan.entry(owner.clone()).or_default().push(slot.clone());
    }
    let subscribers = |topic: &Arc<str>| -> Vec<&str> {
        members.iter().filter(|member| member.topics.contains(topic)).map(|member| member.id.as_str()).collect()
    };
    // What nobody has goes to whoever has least.
    for (topic, count) in partitions {
        let candidates = subscribers(topic);
        for partition in 0..*count {
            let slot = (topic.clone(), partition);
            if owners.contains_key(&slot) {
                continue;
            }
            if let Some(least) = candidates.iter().min_by_key(|id| (size(&plan, id), **id)) {
                plan.entry((*least).to_owned()).or_default().push(slot);
            }
        }
    }
    balance(&mut plan, &subscribers);
    // The old owner has to let go first.
    for (id, slots) in &mut plan {
        slots.retain(|slot| owners.get(slot).is_none_or(|owner| owner == id));
        slots.sort();
    }
    plan
}

/// Who may keep what: of two claims on a partition the one of the higher generation, of the same generation none.
fn owners(members: &[Member], partitions: &BTreeMap<Arc<str>, i32>) -> BTreeMap<Slot, String> {
    let mut claims: BTreeMap<Slot, (i32, Option<String>)> = BTreeMap::new();
    for member in members {
        let owned: BTreeSet<&Slot> = member.owned.iter().collect();
        for slot in owned {
            let exists = partitions.get(&slot.0).is_some_and(|count| (0..*count).contains(&slot.1));
            if !exists || !member.topics.contains(&slot.0) {
                continue;
            }
            let claim = (member.generation, Some(member.id.clone()));
            match claims.get_mut(slot) {
                None => {
                    claims.insert(slot.clone(), claim);
                }
                Some(known) if member.generation > known.0 => *known = claim,
                Some(known) if member.generation == known.0 => known.1 = None,
                Some(_) => {}
            }
        }
    }
    claims.into_iter().filter_map(|(slot, (_, owner))| Some((slot, owner?))).collect()
}

fn size(plan: &Plan, id: &str) -> usize {
    plan.get(id).map_or(0, Vec::len)
}

/// Moves single partitions from those with most to those with least, as long as that evens things out. Each move lowers the
/// sum of the squares of the sizes, so it ends.
fn balance<'a>(plan: &mut Plan, subscribers: &impl Fn(&Arc<str>) -> Vec<&'a str>) {
    loop {
        let mut by_size: Vec<(usize, String)> = plan.iter().map(|(id, slots)| (slots.len(), id.clone())).collect();
        by_size.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut best: Option<(String, usize, String)> = None;
        'donors: for (has, donor) in &by_size {
            let Some(slots) = plan.get(donor) else { continue };
            for (place, slot) in slots.iter().enumerate().rev() {
                let taker = subscribers(&slot.0).into_iter().min_by_key(|id| (size(plan, id), *id));
                if let Some(taker) = taker
                    && size(plan, taker) + 1 < *has
                {
                    best = Some((donor.clone(), place, taker.to_owned()));
                    break 'donors;
                }
            }
        }
        let Some((donor, place, taker)) = best else { return };
        let Some(slot) = plan.get_mut(&donor).map(|slots| slots.remove(place)) else { return };
        plan.entry(taker).or_default().push(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, owned: &[i32], generation: i32) -> Member {
        Member {
            id: id.into(),
            topics: vec!["t".into()],
            owned: owned.iter().map(|partition| ("t".into(), *partition)).collect(),
            generation,
            ..Member::default()
        }
    }

    fn numbers(plan: &Plan, id: &str) -> Vec<i32> {
        plan[id].iter().map(|slot| slot.1).collect()
    }

    #[test]
    fn what_moves_is_given_out_in_the_next_round() {
        let partitions = BTreeMap::from([("t".into(), 4)]);
        let first = assign(&[member("a", &[0, 1, 2, 3], 5), member("b", &[], -1)], &partitions);
        assert_eq!((numbers(&first, "a").len(), numbers(&first, "b").len()), (2, 0));
        let kept = numbers(&first, "a");
        let second = assign(&[member("a", &kept, 6), member("b", &[], 6)], &partitions);
        assert_eq!(numbers(&second, "a"), kept);
        assert_eq!(numbers(&second, "b").len(), 2);
    }

    #[test]
    fn of_two_claims_the_newer_generation_wins_and_of_equal_ones_none() {
        let partitions = BTreeMap::from([("t".into(), 2)]);
        let plan = assign(&[member("a", &[0, 1], 3), member("b", &[1], 4)], &partitions);
        assert_eq!((numbers(&plan, "a"), numbers(&plan, "b")), (vec![0], vec![1]));
        let owners = owners(&[member("a", &[0], 3), member("b", &[0], 3)], &partitions);
        assert!(owners.is_empty());
    }
}
