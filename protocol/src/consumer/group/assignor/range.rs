//! Java's RangeAssignor: per topic contiguous chunks to the members in their order, the first ones one more.

use std::{collections::BTreeMap, sync::Arc};

use super::{Member, Plan, sorted};

pub(super) fn assign(members: &[Member], partitions: &BTreeMap<Arc<str>, i32>) -> Plan {
    let mut plan: Plan = members.iter().map(|member| (member.id.clone(), Vec::new())).collect();
    let sorted = sorted(members);
    for (topic, count) in partitions {
        let subscribed: Vec<&Member> = sorted.iter().copied().filter(|member| member.topics.contains(topic)).collect();
        let members = i32::try_from(subscribed.len()).unwrap_or(i32::MAX);
        let (Some(each), Some(more)) = (count.checked_div(members), count.checked_rem(members)) else { continue };
        let mut next = 0;
        for (index, member) in (0i32..).zip(subscribed) {
            let take = each + i32::from(index < more);
            let chunk = (next..next + take).map(|partition| (topic.clone(), partition));
            plan.entry(member.id.clone()).or_default().extend(chunk);
            next += take;
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_members_get_one_more_of_each_topic() {
        let member = |id: &str| Member { id: id.into(), topics: vec!["a".into(), "b".into()], ..Member::default() };
        let plan = assign(&[member("y"), member("x")], &BTreeMap::from([("a".into(), 3), ("b".into(), 1)]));
        assert_eq!(plan["x"], [("a".into(), 0), ("a".into(), 1), ("b".into(), 0)]);
        assert_eq!(plan["y"], [("a".into(), 2)]);
    }

    #[test]
    fn members_with_an_instance_id_come_first() {
        let member = |id: &str, instance: Option<&str>| Member {
            id: id.into(),
            instance_id: instance.map(Into::into),
            topics: vec!["t".into()],
            ..Member::default()
        };
        let members = [member("a", None), member("b", Some("z")), member("c", Some("y"))];
        let plan = assign(&members, &BTreeMap::from([("t".into(), 3)]));
        let order: Vec<i32> = ["c", "b", "a"].iter().map(|id| plan[*id][0].1).collect();
        assert_eq!(order, [0, 1, 2]);
    }
}
