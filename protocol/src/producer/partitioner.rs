//! Which partition a record goes to. Pure.

use crate::cluster::Partition;

/// Java's murmur2, seed included: keyed records land where a Java producer would put them.
fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut h: u32 = 0x9747_b28c ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = chunk.iter().rev().fold(0u32, |word, byte| word << 8 | u32::from(*byte)).wrapping_mul(M);
        k ^= k >> R;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        h ^= rest.iter().rev().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    (h ^ h >> 15) as i32
}

/// The partition of a key among `count` (at least 1).
pub(super) fn of_key(key: &[u8], count: usize) -> i32 {
    (murmur2(key) & i32::MAX) % i32::try_from(count.max(1)).unwrap_or(i32::MAX)
}

/// Records without a key stay on one partition until its batch is sealed (KIP-480), then move to a random one that has a
/// leader.
#[derive(Debug, Default)]
pub(super) struct Sticky {
    current: Option<i32>,
}

impl Sticky {
    /// One of `partitions`, which are all of the topic, by index.
    pub(super) fn choose(&mut self, partitions: &[Partition]) -> i32 {
        let usable = |partition: i32| partitions.get(partition as usize).is_some_and(|found| found.leader.is_some());
        if let Some(current) = self.current.filter(|current| usable(*current)) {
            return current;
        }
        let all = 0..partitions.len().max(1) as i32;
        let chosen = fastrand::choice(all.clone().filter(|partition| usable(*partition)).collect::<Vec<_>>())
            .unwrap_or_else(|| fastrand::i32(all));
        self.current = Some(chosen);
        chosen
    }

    /// The batch of the current partition is sealed: move on.
    pub(super) fn sealed(&mut self, partition: i32) {
        if self.current == Some(partition) {
            self.current = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error_code::ErrorCode;

    #[test]
    fn keys_hash_as_in_java() {
        // Values of Kafka's own test of Utils.murmur2.
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
        assert_eq!(of_key(b"foobar", 3), ((-790_332_482i32 & i32::MAX) % 3));
    }

    #[test]
    fn unkeyed_records_stay_until_their_batch_is_sealed_and_avoid_the_leaderless() {
        let mut sticky = Sticky::default();
        let led = |leaders: [Option<i32>; 4]| {
            leaders.map(|leader| {
                let (leader_epoch, error) = (0, ErrorCode::NONE);
                Partition { index: 0, leader, leader_epoch, error, replicas: Vec::new() }
            })
        };
        let some = led([None, Some(1), Some(2), None]);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let first = sticky.choose(&some);
            assert!((1..=2).contains(&first));
            assert_eq!(sticky.choose(&some), first);
            seen.insert(first);
            sticky.sealed(first);
        }
        assert_eq!(seen.len(), 2);
        assert!((0..4).contains(&Sticky::default().choose(&led([None; 4]))), "none has a leader: any will do");
    }
}
