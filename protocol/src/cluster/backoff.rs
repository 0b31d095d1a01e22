//! Exponential back-off with jitter (KIP-580).

use std::time::Duration;

/// Kafka spreads each delay by so much to both sides.
const JITTER: f64 = 0.2;

/// Doubling delays between two bounds, each spread by ±20 %.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    tries: u32,
}

impl Backoff {
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max: max.max(first), tries: 0 }
    }

    /// The delay before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(self.tries).unwrap_or(u32::MAX));
        self.tries = self.tries.saturating_add(1);
        doubled.min(self.max).mul_f64(1.0 + JITTER * (2.0 * fastrand::f64() - 1.0))
    }

    /// Starts afresh after a success.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    pub fn tries(&self) -> u32 {
        self.tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_bound_and_are_spread_by_a_fifth() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for expected in [100, 200, 400, 800, 1000, 1000] {
            let delay = backoff.next_delay().as_millis() as i64;
            assert!((delay - expected).abs() <= expected / 5 + 1, "{delay} is not near {expected}");
        }
        for _ in 0..100 {
            backoff.next_delay();
        }
        assert!(backoff.next_delay() <= Duration::from_millis(1200));
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(120));
    }
}
