//! Rounds of both sides, alternating, and one before them that only warms up.

use anyhow::Result;

use crate::settings::{Settings, Side};

/// Runs every round; returns each side's results, those of one index from one round.
pub(crate) fn alternate<T>(settings: &Settings, mut measure: impl FnMut(Side) -> Result<T>) -> Result<[Vec<T>; 2]> {
    let [mut ours, mut theirs] = [Vec::new(), Vec::new()];
    for round in 0..=settings.rounds {
        // A B B A: neither side always comes second.
        let order = if round % 2 == 0 { [Side::Ours, Side::Theirs] } else { [Side::Theirs, Side::Ours] };
        for side in order.into_iter().filter(|side| settings.only.is_none_or(|only| only == *side)) {
            let measured = measure(side)?;
            if round == 0 {
                continue;
            }
            match side {
                Side::Ours => ours.push(measured),
                Side::Theirs => theirs.push(measured),
            }
        }
    }
    Ok([ours, theirs])
}
