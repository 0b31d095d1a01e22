//! cooperative-sticky (KIP-429): everybody keeps what it has as far as balance allows, and what changes its owner is given
//! out only in the next round, when the old owner has let go of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Member, Plan, sorted};

/// So many pairs of members are looked at for a better balance. A group in which all subscribe to the same topics needs one
/// for each partition that moves; a stranger one may end less even, but it ends.
const MAX_PAIRS: usize = 1_000_000;

pub(super) fn assign(members: &[Member], partitions: &BTreeMap<Arc<str>, i32>) -> Plan {
    let members = sorted(members);
    let topics = Topics::new(&members, partitions);
    let claims = claims(&members, &topics);
    let mut loads = Loads::new(members.len());
    for (place, claim) in &claims {
        if let Some(owner) = claim.owner {
            loads.give(owner, *place, true);
        }
    }
    // What nobody has goes to whoever has least; first what fewest may have.
    let mut free: Vec<Place> =
        topics.places().filter(|place| claims.get(place).is_none_or(|c| c.owner.is_none())).collect();
    free.sort_by_key(|(topic, partition)| (topics.subscribers(*topic).len(), *topic, *partition));
    for place in free {
        if let Some(least) = loads.least(topics.subscribers(place.0)) {
            loads.give(least, place, false);
        }
    }
    loads.balance(&topics);
    let mut plan = Plan::new();
    for (index, member) in members.iter().enumerate() {
        let due = loads.of(index).filter(|place| claims.get(place).is_none_or(|claim| claim.owner == Some(index)));
        let named = due.filter_map(|(topic, partition)| Some((topics.name(topic)?.clone(), partition)));
        plan.insert(member.id.clone(), named.collect());
    }
    plan
}

/// The number of a topic, and a partition.
type Place = (usize, i32);

struct Topics<'a> {
    all: Vec<Topic<'a>>,
    numbers: BTreeMap<&'a Arc<str>, usize>,
}

struct Topic<'a> {
    name: &'a Arc<str>,
    partitions: i32,
    /// By their number, ascending.
    subscribers: Vec<usize>,
}

impl<'a> Topics<'a> {
    fn new(members: &[&'a Member], partitions: &'a BTreeMap<Arc<str>, i32>) -> Self {
        let mut numbers = BTreeMap::new();
        let mut all = Vec::new();
        for (name, count) in partitions {
            numbers.insert(name, all.len());
            all.push(Topic { name, partitions: *count, subscribers: Vec::new() });
        }
        for (index, member) in members.iter().enumerate() {
            let subscribed: BTreeSet<usize> = member.topics.iter().filter_map(|t| numbers.get(t).copied()).collect();
            for topic in subscribed {
                if let Some(topic) = all.get_mut(topic) {
                    topic.subscribers.push(index);
                }
            }
        }
        Self { all, numbers }
    }

    fn name(&self, topic: usize) -> Option<&'a Arc<str>> {
        self.all.get(topic).map(|topic| topic.name)
    }

    fn subscribers(&self, topic: usize) -> &[usize] {
        self.all.get(topic).map_or(&[], |topic| &topic.subscribers)
    }

    fn is_subscriber(&self, topic: usize, member: usize) -> bool {
        self.subscribers(topic).binary_search(&member).is_ok()
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        self.all.iter().enumerate().flat_map(|(index, topic)| (0..topic.partitions).map(move |p| (index, p)))
    }

    fn place(&self, topic: &Arc<str>, partition: i32) -> Option<Place> {
        let number = *self.numbers.get(topic)?;
        let exists = self.all.get(number).is_some_and(|topic| (0..topic.partitions).contains(&partition));
        exists.then_some((number, partition))
    }
}

/// What members say of one partition. Of two claims the one of the higher generation wins, of the same generation none; but
/// whoever claims it may be consuming it, so nobody else gets it in this round.
struct Claim {
    generation: i32,
    owner: Option<usize>,
}

fn claims(members: &[&Member], topics: &Topics<'_>) -> BTreeMap<Place, Claim> {
    let mut claims: BTreeMap<Place, Claim> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        let owned: BTreeSet<Place> =
            member.owned.iter().filter_map(|(t, partition)| topics.place(t, *partition)).collect();
        for place in owned {
            // A claim on what it no longer subscribes to is only something that it has to let go of.
            let owner = topics.is_subscriber(place.0, index).then_some(index);
            match claims.get_mut(&place) {
                None => {
                    claims.insert(place, Claim { generation: member.generation, owner });
                }
                Some(known) if member.generation > known.generation => {
                    *known = Claim { generation: member.generation, owner };
                }
                Some(known) if member.generation == known.generation => known.owner = None,
                Some(_) => {}
            }
        }
    }
    claims
}

/// Who has what while the plan is made.
struct Loads {
    members: Vec<BTreeMap<usize, Share>>,
    sizes: Vec<usize>,
    order: BTreeSet<(usize, usize)>,
}

/// Partitions of one topic: those that the member has already, and those that it would get.
#[derive(Default)]
struct Share {
    kept: BTreeSet<i32>,
    new: BTreeSet<i32>,
}

impl Loads {
    fn new(members: usize) -> Self {
        Self {
            members: (0..members).map(|_| BTreeMap::new()).collect(),
            sizes: vec![0; members],
            order: (0..members).map(|member| (0, member)).collect(),
        }
    }

    fn size(&self, member: usize) -> usize {
        self.sizes.get(member).copied().unwrap_or(0)
    }

    fn resize(&mut self, member: usize, change: isize) {
        if let Some(size) = self.sizes.get_mut(member) {
            self.order.remove(&(*size, member));
            *size = size.saturating_add_signed(change);
            self.order.insert((*size, member));
        }
    }

    fn give(&mut self, member: usize, (topic, partition): Place, keeps: bool) {
        let Some(shares) = self.members.get_mut(member) else { return };
        let share = shares.entry(topic).or_default();
        let fresh = if keeps { share.kept.insert(partition) } else { share.new.insert(partition) };
        if fresh {
            self.resize(member, 1);
        }
    }

    /// Of those given, who has least; of equals the first.
    fn least(&self, of: &[usize]) -> Option<usize> {
        if of.len() == self.members.len() {
            return self.order.first().map(|(_, member)| *member);
        }
        of.iter().copied().min_by_key(|member| (self.size(*member), *member))
    }

    /// Moves single partitions from those with most to those with least, as long as that evens things out. Each move lowers
    /// the sum of the squares of the sizes, so it ends.
    fn balance(&mut self, topics: &Topics<'_>) {
        let mut pairs = 0;
        while let Some((from, to, topic)) = self.uneven(topics, &mut pairs) {
            let Some(share) = self.members.get_mut(from).and_then(|shares| shares.get_mut(&topic)) else { return };
            let Some(partition) = share.new.pop_last().or_else(|| share.kept.pop_last()) else { return };
            self.resize(from, -1);
            self.give(to, (topic, partition), false);
        }
    }

    /// Who could give one partition of which topic to whom.
    fn uneven(&self, topics: &Topics<'_>, pairs: &mut usize) -> Option<(usize, usize, usize)> {
        for (least, to) in &self.order {
            for (most, from) in self.order.iter().rev() {
                if *most < least + 2 || *pairs >= MAX_PAIRS {
                    break;
                }
                *pairs += 1;
                let shares = self.members.get(*from)?;
                let held = shares.iter().filter(|(_, share)| !share.new.is_empty() || !share.kept.is_empty());
                let movable = held.map(|(topic, _)| *topic).filter(|topic| topics.is_subscriber(*topic, *to));
                // Of several the one of which most is there, so that topics stay spread.
                let amount = |topic: &usize| shares.get(topic).map_or(0, |share| share.new.len() + share.kept.len());
                if let Some(topic) = movable.max_by_key(|topic| (amount(topic), *topic)) {
                    return Some((*from, *to, topic));
                }
            }
        }
        None
    }

    /// Sorted by topic and partition.
    fn of(&self, member: usize) -> impl Iterator<Item = Place> {
        let shares = self.members.get(member).into_iter().flatten();
        shares.flat_map(|(topic, share)| share.kept.union(&share.new).map(|partition| (*topic, *partition)))
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

    fn check(members: &[Member], count: i32, expected: &[&[i32]]) {
        let plan = assign(members, &BTreeMap::from([("t".into(), count)]));
        let numbers: Vec<Vec<i32>> = members.iter().map(|m| plan[&m.id].iter().map(|slot| slot.1).collect()).collect();
        assert_eq!(numbers, expected, "{members:?}");
    }

    #[test]
    fn what_moves_is_given_out_in_the_next_round() {
        check(&[member("a", &[0, 1, 2, 3], 5), member("b", &[], -1)], 4, &[&[0, 1], &[]]);
        check(&[member("a", &[0, 1], 6), member("b", &[], 6)], 4, &[&[0, 1], &[2, 3]]);
    }

    #[test]
    fn of_two_claims_the_newer_generation_wins_and_of_equal_ones_none() {
        check(&[member("a", &[0, 1], 3), member("b", &[1], 4)], 2, &[&[0], &[1]]);
        check(&[member("a", &[0, 1], 4), member("b", &[1], 3)], 2, &[&[0], &[]]);
        // Neither keeps what both claim, and nobody gets it before both let go of it.
        check(&[member("a", &[0], 3), member("b", &[0], 3)], 1, &[&[], &[]]);
        check(&[member("a", &[], 4), member("b", &[], 4)], 1, &[&[0], &[]]);
    }

    #[test]
    fn a_claim_on_what_does_not_exist_or_is_not_subscribed_gives_nothing() {
        let mut stranger = member("b", &[0], 9);
        stranger.topics = vec!["other".into()];
        check(&[member("a", &[7, -1, i32::MAX], 3), stranger.clone()], 2, &[&[1], &[]]);
        stranger.owned.clear();
        check(&[member("a", &[1], 4), stranger], 2, &[&[0, 1], &[]]);
    }

    #[test]
    fn a_member_that_alone_subscribes_to_a_topic_is_spared_the_others() {
        let names: [Arc<str>; 2] = ["t".into(), "u".into()];
        let both = Member { id: "a".into(), topics: names.to_vec(), ..Member::default() };
        let plan =
            assign(&[both, member("b", &[], -1)], &BTreeMap::from([(names[0].clone(), 3), (names[1].clone(), 3)]));
        assert_eq!(plan["a"], [(names[1].clone(), 0), (names[1].clone(), 1), (names[1].clone(), 2)]);
        assert_eq!(plan["b"].len(), 3);
    }

    #[test]
    fn ten_thousand_partitions_are_planned_in_a_blink() {
        let owned: Vec<i32> = (0..10_000).collect();
        let mut members = vec![member("a", &owned, 1)];
        members.extend((0..100).map(|index| member(&format!("b{index}"), &[], -1)));
        let started = std::time::Instant::now();
        let plan = assign(&members, &BTreeMap::from([("t".into(), 10_000)]));
        assert_eq!(plan["a"].len(), 100);
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
    }
}
