//! What the process as a whole shows in its metrics: whether it is ready, which parts work, and its byte budgets.
//!
//! Parts count for themselves elsewhere. [`Readiness`] and [`Memory`] are its types.

use protocol::budget::Budget;

use crate::{
    health::{Health, Word},
    telemetry::samples::{Sample, Source},
};

/// The health pages in numbers.
pub(crate) struct Readiness(pub(crate) Health);

impl Source for Readiness {
    fn samples(&self, out: &mut Vec<Sample>) {
        let snapshot = self.0.snapshot();
        let number = |word: Word| if word == Word::Ok { 1.0 } else { 0.0 };
        out.push(Sample::gauge("sidecar_ready", "1 while the readiness page says OK", number(snapshot.status)));
        for part in snapshot.parts {
            let up = Sample::gauge("sidecar_part_up", "1 while the part works", number(part.status));
            out.push(up.label("part", part.name));
        }
    }
}

/// The shares of the byte budget by name.
pub(crate) struct Memory(pub(crate) Vec<(&'static str, Budget)>);

impl Source for Memory {
    fn samples(&self, out: &mut Vec<Sample>) {
        for (share, budget) in &self.0 {
            let used =
                Sample::gauge("sidecar_memory_used_bytes", "Bytes of records and bodies held", budget.used() as f64);
            let limit =
                Sample::gauge("sidecar_memory_budget_bytes", "The most bytes to be held", budget.limit() as f64);
            out.extend([used, limit].map(|sample| sample.label("share", *share)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lines(source: &dyn Source) -> Vec<String> {
        let mut samples = Vec::new();
        source.samples(&mut samples);
        samples.iter().map(|sample| format!("{} {:?} {}", sample.name, sample.labels, sample.value)).collect()
    }

    #[tokio::test]
    async fn readiness_and_its_parts_are_numbers() {
        let health = Health::new(Duration::from_secs(30));
        let (brokers, _lane) = (health.gate("brokers"), health.explain("lane"));
        let readiness = Readiness(health);
        assert_eq!(lines(&readiness)[..2], ["sidecar_ready [] 0", "sidecar_part_up [(\"part\", \"brokers\")] 0"]);
        brokers.ok();
        let part = |name: &str, up: u8| format!("sidecar_part_up [(\"part\", \"{name}\")] {up}");
        assert_eq!(lines(&readiness), ["sidecar_ready [] 1".to_owned(), part("brokers", 1), part("lane", 0)]);
    }

    #[test]
    fn every_share_of_the_budget_tells_what_it_holds() {
        let budget = Budget::new(100);
        let _held = budget.charge(30);
        let found = lines(&Memory(vec![("producing", budget)]));
        let share = "[(\"share\", \"producing\")]";
        assert_eq!(
            found,
            [format!("sidecar_memory_used_bytes {share} 30"), format!("sidecar_memory_budget_bytes {share} 100")]
        );
    }
}
