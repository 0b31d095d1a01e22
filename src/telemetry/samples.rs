//! Numbers that a part keeps itself and that are read when somebody scrapes.
//!
//! It knows no part; a part implements [`Source`] on the struct that holds its numbers.

use std::{collections::BTreeMap, fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// What a part has to say when somebody scrapes. It must neither block nor take long.
pub(crate) trait Source: Send + Sync + 'static {
    fn samples(&self, out: &mut Vec<Sample>);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// May go up and down.
    Gauge,
    /// Only goes up; its name gets the suffix `_total`.
    Counter,
}

/// One number. Names use base units; label values come from configuration, never from requests.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) value: f64,
}

impl Sample {
    pub(crate) fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, help, kind: Kind::Gauge, labels: Vec::new(), value }
    }

    pub(crate) fn counter(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, help, kind: Kind::Counter, labels: Vec::new(), value }
    }

    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match self.kind {
            Kind::Gauge => ConstGauge::new(self.value).encode(encoder),
            Kind::Counter => ConstCounter::new(self.value).encode(encoder),
        }
    }

    /// All samples of a name have the same labels.
    pub(crate) fn label(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((name, value.into()));
        self
    }
}

/// Makes a [`Source`] readable by the registry.
pub(crate) struct Scraped(pub(crate) Arc<dyn Source>);

impl fmt::Debug for Scraped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scraped")
    }
}

impl Collector for Scraped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut samples = Vec::new();
        self.0.samples(&mut samples);
        // One family is one block of lines, whatever the order in which its samples came.
        let mut families = BTreeMap::<&str, Vec<&Sample>>::new();
        for sample in &samples {
            families.entry(sample.name).or_default().push(sample);
        }
        for (name, samples) in families {
            let Some(first) = samples.first() else { continue };
            let kind = match first.kind {
                Kind::Gauge => MetricType::Gauge,
                Kind::Counter => MetricType::Counter,
            };
            let mut family = encoder.encode_descriptor(name, first.help, None, kind)?;
            if first.labels.is_empty() {
                first.encode(family)?;
                continue;
            }
            for sample in &samples {
                sample.encode(family.encode_family(&sample.labels)?)?;
            }
        }
        Ok(())
    }
}
