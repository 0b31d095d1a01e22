//! The audits of this process: one writer for each distinct target, however many flows write to it.
//!
//! [`Audits`] is its main type.

use std::sync::{Arc, atomic::Ordering};

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::Stoppable;
use crate::{
    audit::{self, Audit, AuditError, AuditMetrics},
    config::settings::{self, AuditTarget},
    record::sink::{RecordSink, Topics},
    telemetry::samples::{Sample, Source},
};

pub(crate) struct Audits {
    service_id: String,
    sink: Arc<dyn RecordSink>,
    topics: Arc<dyn Topics>,
    create_topic: bool,
    open: Vec<(String, Audit)>,
    pub(crate) writers: Vec<Stoppable>,
    pub(crate) numbers: Vec<Arc<dyn Source>>,
}

impl Audits {
    pub(crate) fn new(
        service_id: &str,
        sink: Arc<dyn RecordSink>,
        topics: Arc<dyn Topics>,
        create_topic: bool,
    ) -> Self {
        Self {
            service_id: service_id.to_owned(),
            sink,
            topics,
            create_topic,
            open: Vec::new(),
            writers: Vec::new(),
            numbers: Vec::new(),
        }
    }

    /// The audit that these settings ask for; None if they ask for none.
    pub(crate) fn get(&mut self, settings: &settings::Audit) -> Result<Option<Audit>, AuditError> {
        if !settings.enabled {
            return Ok(None);
        }
        let target = match settings.target {
            AuditTarget::Topic => format!("topic {}", settings.topic),
            AuditTarget::LogFile => format!("file {}", settings.file.display()),
        };
        if let Some((_, audit)) = self.open.iter().find(|(known, _)| *known == target) {
            return Ok(Some(audit.clone()));
        }
        let (sink, topics) = (self.sink.clone(), self.topics.clone());
        let (audit, writer) = audit::open(settings, &self.service_id, sink, topics, self.create_topic)?;
        let cut = CancellationToken::new();
        let give_up = cut.clone();
        let run = async move {
            match writer.run(give_up).await {
                0 => Ok(()),
                entries => Err(format!("{entries} entries were not written")),
            }
        };
        // It ends by itself when its queue is empty and nobody can write to it any more.
        self.writers.push(Stoppable { name: "audit writer", run: run.boxed(), stop: CancellationToken::new(), cut });
        self.open.push((target, audit.clone()));
        self.numbers = vec![Arc::new(Numbers(
            self.open.iter().map(|(target, audit)| (target.clone(), audit.metrics().clone())).collect(),
        ))];
        Ok(Some(audit))
    }
}

/// All audits in one source, so that a metric's name is written out once.
struct Numbers(Vec<(String, Arc<AuditMetrics>)>);

impl Source for Numbers {
    fn samples(&self, out: &mut Vec<Sample>) {
        for (target, metrics) in &self.0 {
            let number = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed) as f64;
            let pending =
                Sample::gauge("audit_entries_pending", "Entries taken and not yet durable", number(&metrics.pending));
            let written = Sample::counter("audit_entries_written", "Entries made durable", number(&metrics.written));
            let failures = Sample::counter(
                "audit_write_failures",
                "Writes that failed and were tried again",
                number(&metrics.failures),
            );
            let restarts = Sample::counter(
                "audit_writer_restarts",
                "Crashes of the writer, after which it went on with what was not durable yet",
                number(&metrics.restarts),
            );
            out.extend([pending, written, failures, restarts].map(|sample| sample.label("target", target.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::memory::MemoryKafka;

    fn settings(topic: &str) -> settings::Audit {
        settings::Audit {
            enabled: true,
            target: AuditTarget::Topic,
            topic: topic.to_owned(),
            file: std::path::PathBuf::new(),
            file_max_bytes: 0,
            file_max_history: 0,
        }
    }

    #[test]
    fn flows_with_one_target_share_one_writer() {
        let kafka = Arc::new(MemoryKafka::default());
        let mut audits = Audits::new("me", kafka.clone(), kafka, false);
        for topic in ["a", "b", "a"] {
            assert!(audits.get(&settings(topic)).expect("no file").is_some());
        }
        assert!(audits.get(&settings::Audit { enabled: false, ..settings("c") }).expect("off").is_none());
        assert_eq!(audits.writers.len(), 2);
        let mut samples = Vec::new();
        audits.numbers[0].samples(&mut samples);
        assert_eq!(samples.len(), 8);
    }
}
