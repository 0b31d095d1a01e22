//! The process in numbers, from `/proc/self`; on a system without it there are none.
//!
//! [`Process`] is its main type.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use super::samples::{Sample, Source};

/// What Linux calls USER_HZ; it is 100 on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

pub(crate) struct Process {
    proc_self: PathBuf,
    /// Seconds since the epoch.
    started: f64,
}

impl Process {
    /// To be made when the process starts.
    pub(crate) fn new() -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Self { proc_self: PathBuf::from("/proc/self"), started }
    }
}

impl Source for Process {
    fn samples(&self, out: &mut Vec<Sample>) {
        out.push(Sample::gauge("process_start_time_seconds", "When the process started", self.started));
        if let Ok(status) = std::fs::read_to_string(self.proc_self.join("status")) {
            for (field, name, help) in [
                ("VmRSS:", "process_resident_memory_bytes", "Memory that the process has in RAM"),
                ("VmHWM:", "process_resident_memory_peak_bytes", "The most memory that the process ever had in RAM"),
                ("VmSize:", "process_virtual_memory_bytes", "Address space of the process"),
            ] {
                if let Some(bytes) = kibibytes(&status, field) {
                    out.push(Sample::gauge(name, help, bytes));
                }
            }
            if let Some(threads) = number(&status, "Threads:") {
                out.push(Sample::gauge("process_threads", "Threads of the process", threads));
            }
        }
        if let Ok(files) = std::fs::read_dir(self.proc_self.join("fd")) {
            out.push(Sample::gauge("process_open_fds", "Open files and sockets", files.count() as f64));
        }
        if let Some(ticks) =
            std::fs::read_to_string(self.proc_self.join("stat")).ok().and_then(|stat| processor_ticks(&stat))
        {
            let help = "Processor time of the process, user and system";
            out.push(Sample::counter("process_cpu_seconds", help, ticks / TICKS_PER_SECOND));
        }
    }
}

fn number(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn kibibytes(status: &str, field: &str) -> Option<f64> {
    number(status, field).map(|kibibytes| kibibytes * 1024.0)
}

/// utime and stime, the 14th and 15th field; the second one, the command in parentheses, may hold blanks.
fn processor_ticks(stat: &str) -> Option<f64> {
    let (_, after_command) = stat.rsplit_once(')')?;
    let mut fields = after_command.split_ascii_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_file_is_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t7\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(1_048_576.0));
        assert_eq!(number(status, "Threads:"), Some(7.0));
        assert_eq!(kibibytes(status, "VmSwap:"), None);
    }

    #[test]
    fn processor_time_is_found_behind_a_command_with_blanks_and_parentheses() {
        let stat = "1 (a ) b) S 0 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(processor_ticks(stat), Some(300.0));
        assert_eq!(processor_ticks("1 (a"), None);
    }

    #[test]
    fn without_proc_only_the_start_is_told() {
        let process = Process { proc_self: PathBuf::from("/nonexistent"), started: 1.0 };
        let mut samples = Vec::new();
        process.samples(&mut samples);
        assert_eq!(samples.len(), 1);
    }
}
