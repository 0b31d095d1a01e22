//! What a stretch of work of this process costs.

use std::time::Instant;

use anyhow::Result;
use nix::sys::{
    resource::{Usage, UsageWho, getrusage},
    time::TimeValLike as _,
};
use serde::{Deserialize, Serialize};
use stats_alloc::Stats;

/// Running since it was made.
pub(crate) struct Meter {
    since: Instant,
    cpu_us: i64,
    allocations: Stats,
}

/// One measurement, as a child reports it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) records: u64,
    /// Of keys and values.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// User and system time of the whole process.
    pub(crate) cpu_seconds: f64,
    /// Calls of Rust's allocator (malloc and realloc).
    pub(crate) allocations: u64,
    /// The process's largest resident set, in KiB.
    pub(crate) max_rss_kib: u64,
}

impl Meter {
    pub(crate) fn start() -> Result<Self> {
        let cpu_us = cpu_us(&getrusage(UsageWho::RUSAGE_SELF)?);
        Ok(Self { allocations: crate::ALLOCATOR.stats(), cpu_us, since: Instant::now() })
    }

    pub(crate) fn stop(self, records: u64, bytes: u64) -> Result<Measured> {
        let seconds = self.since.elapsed().as_secs_f64();
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let allocations = crate::ALLOCATOR.stats() - self.allocations;
        Ok(Measured {
            records,
            bytes,
            seconds,
            cpu_seconds: (cpu_us(&usage) - self.cpu_us) as f64 / 1e6,
            allocations: (allocations.allocations + allocations.reallocations) as u64,
            max_rss_kib: u64::try_from(usage.max_rss())?,
        })
    }
}

fn cpu_us(usage: &Usage) -> i64 {
    usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
}

impl Measured {
    pub(crate) fn records_per_second(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    pub(crate) fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }

    pub(crate) fn cpu_us_per_record(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.records as f64
    }

    pub(crate) fn allocations_per_record(&self) -> f64 {
        self.allocations as f64 / self.records as f64
    }
}
