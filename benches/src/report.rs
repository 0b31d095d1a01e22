//! Tables: medians of the rounds with their spread, and ratios of rounds that ran side by side.

use hdrhistogram::Histogram;

use crate::{meter::Measured, settings::Side};

/// A figure of a measurement: its name, how to get it, and with how many decimals it is shown.
type Figure = (&'static str, fn(&Measured) -> f64, usize);

const FIGURES: [Figure; 4] = [
    ("records/s", Measured::records_per_second, 0),
    ("MB/s", Measured::megabytes_per_second, 1),
    ("CPU us/record", Measured::cpu_us_per_record, 3),
    ("max RSS MiB", |measured| measured.max_rss_kib as f64 / 1024.0, 1),
];
const ALLOCATIONS: Figure = ("allocations/record", Measured::allocations_per_record, 4);

/// Prints the rounds of both sides; either may be empty.
pub(crate) fn print(title: &str, [ours, theirs]: &[Vec<Measured>; 2]) {
    println!("\n### {title}\n");
    println!("| | {} | {} | ratio |", Side::Ours.name(), Side::Theirs.name());
    println!("|---|---|---|---|");
    for (name, figure, decimals) in FIGURES {
        let (ours, theirs): (Vec<f64>, Vec<f64>) =
            (ours.iter().map(figure).collect(), theirs.iter().map(figure).collect());
        let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
        println!("| {name} | {} | {} | {} |", spread(ours, decimals), spread(theirs, decimals), spread(ratios, 2));
    }
    let (name, figure, decimals) = ALLOCATIONS;
    println!("| {name} | {} | not counted | |", spread(ours.iter().map(figure).collect(), decimals));
}

/// "median (least to most)".
pub(crate) fn spread(mut figures: Vec<f64>, decimals: usize) -> String {
    figures.sort_by(f64::total_cmp);
    let (Some(first), Some(last)) = (figures.first(), figures.last()) else { return String::new() };
    let middle = figures.len() / 2;
    let median = if figures.len() % 2 == 1 { figures[middle] } else { (figures[middle - 1] + figures[middle]) / 2.0 };
    if figures.len() == 1 {
        return format!("{median:.decimals$}");
    }
    format!("{median:.decimals$} ({first:.decimals$} to {last:.decimals$})")
}

pub(crate) const LATENCY_HEAD: &str = "| | p50 ms | p99 ms | p99.9 ms | max ms | records |\n|---|---|---|---|---|---|";

/// A row of a table of latencies, which are in microseconds.
pub(crate) fn latency_row(name: &str, histogram: &Histogram<u64>) -> String {
    let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    format!(
        "| {name} | {:.2} | {:.2} | {:.2} | {:.2} | {} |",
        at(0.5),
        at(0.99),
        at(0.999),
        histogram.max() as f64 / 1000.0,
        histogram.len()
    )
}

/// The longest wait that is told from longer ones: an hour, in microseconds.
const LONGEST_US: u64 = 3_600_000_000;

/// Of microseconds, with three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LONGEST_US, 3).unwrap_or_else(|error| unreachable!("these bounds are allowed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_median_between_the_extremes() {
        assert_eq!(spread(vec![], 1), "");
        assert_eq!(spread(vec![2.0], 1), "2.0");
        assert_eq!(spread(vec![3.0, 1.0, 2.0], 0), "2 (1 to 3)");
        assert_eq!(spread(vec![4.0, 1.0], 1), "2.5 (1.0 to 4.0)");
    }

    #[test]
    fn a_long_wait_is_not_cut_off() {
        let mut histogram = histogram();
        histogram.saturating_record(1_000_000);
        assert_eq!(latency_row("x", &histogram), "| x | 1000.45 | 1000.45 | 1000.45 | 1000.45 | 1 |");
    }
}
