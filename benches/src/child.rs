//! A measurement in a process of its own.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    consume, latency, produce,
    settings::{Codec, Load, Settings, Side},
};

/// What a child is to do; it gets it as JSON in its argument.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) side: Side,
    pub(crate) bootstrap: String,
    pub(crate) topic: String,
    pub(crate) load: Load,
    pub(crate) codec: Codec,
    pub(crate) settings: Settings,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Work {
    Produce,
    Consume,
    Latency(latency::Pace),
}

impl Job {
    /// Runs it in a child and reads what the child reports.
    pub(crate) fn measure<T: DeserializeOwned>(&self) -> Result<T> {
        let mut words = self.settings.under.iter().flat_map(|command| command.split_whitespace());
        let bench = std::env::current_exe()?;
        let mut command = match words.next() {
            Some(program) => {
                let mut command = Command::new(program);
                command.args(words).arg(bench);
                command
            }
            None => Command::new(bench),
        };
        let output = command
            .arg("child")
            .arg(serde_json::to_string(self)?)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("starting a child")?;
        ensure!(output.status.success(), "a child failed: {self:?}");
        serde_json::from_slice(&output.stdout).context("the child's report")
    }
}

/// The sub-command `child`.
pub(crate) fn run(job: &str) -> Result<()> {
    let job: Job = serde_json::from_str(job)?;
    let report = match job.work {
        Work::Produce => serde_json::to_value(produce::run(&job)?)?,
        Work::Consume => serde_json::to_value(consume::run(&job)?)?,
        Work::Latency(pace) => serde_json::to_value(latency::run(&job, pace)?)?,
    };
    println!("{report}");
    Ok(())
}

/// The runtime that our client runs on in a child.
pub(crate) fn runtime(settings: &Settings) -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(settings.threads).enable_all().build()?)
}
