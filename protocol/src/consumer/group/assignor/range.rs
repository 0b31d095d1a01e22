//! Java's RangeAssignor: per topic contiguous chunks to the members in their order, the first ones one more.

use std::{collections::BTreeMap, sync::Arc};

use super::{Member, Plan};

pub(super) fn assign(members: &[Member], partitions: &BTreeMap<Arc<str>, i32>) -> Plan {
    let mut plan: Plan = members.iter().map(|member| (member.id.clone(), Vec::new())).collect();
    for (topic, count) in partitions {
        let mut subscribed: Vec<&Member> = members.iter().filter(|member| member.topics.contains(topic)).collect();
        // Members with an instance id come first, in its order; the others by member id.
        subscribed.sort_by_key(|m| (m.instance_id.is_none(), m.instance_id.clone(), m.id.clone()));
        let Some(each) = count.checked_div(subscribed.len() as i32) else { continue };
        let more = count % subscribed.len() as i32;
        let mut next = 0;
        for (index, member) in subscribed.iter().enumerate() {
            let take = each + i32::from((index as i32) < more);
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
}
