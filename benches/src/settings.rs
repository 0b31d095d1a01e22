//! What both sides are given alike.

use std::{fmt, str::FromStr, time::Duration};

use clap::Args;
use protocol::record::Compression;
use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};

use crate::kafka::Kafka;

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Measured rounds of each side, after one that only warms the broker up
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Bytes of a value and records of a round, as BYTESxRECORDS
    #[arg(long, value_delimiter = ',', default_value = "100x2000000,1024x400000")]
    pub(crate) loads: Vec<Load>,
    /// Codecs: none, gzip, snappy, lz4, zstd
    #[arg(long, value_delimiter = ',', default_value = "none,lz4,zstd")]
    pub(crate) codecs: Vec<Codec>,
    #[arg(long, default_value_t = 4)]
    pub(crate) partitions: usize,
    /// Distinct keys; both sides partition them by murmur2. 0: no keys, each side's sticky partitioner
    #[arg(long, default_value_t = 1000)]
    pub(crate) keys: usize,
    #[arg(long, default_value_t = 5)]
    pub(crate) linger_ms: u64,
    #[arg(long, default_value_t = 65_536)]
    pub(crate) batch_size: usize,
    /// Bytes that a producer may buffer, and a consumer fetch ahead
    #[arg(long, default_value_t = 64 * 1024 * 1024)]
    pub(crate) memory: usize,
    #[arg(long, default_value_t = 52_428_800)]
    pub(crate) fetch_max_bytes: usize,
    #[arg(long, default_value_t = 1_048_576)]
    pub(crate) max_partition_fetch_bytes: usize,
    /// Threads of the runtime that our client runs on; librdkafka has its own
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
    /// A setting of librdkafka's, above those that the comparison makes, as KEY=VALUE; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    their: Vec<(String, String)>,
    /// Only one side: ours or theirs
    #[arg(long)]
    pub(crate) only: Option<Side>,
    /// A broker that runs already, instead of one of our own
    #[arg(long)]
    bootstrap: Option<String>,
    /// A command to run the children under, e.g. "perf record -g -o /tmp/perf.data --"
    #[arg(long)]
    pub(crate) under: Option<String>,
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
pub(crate) enum Side {
    Ours,
    Theirs,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) bytes: usize,
    pub(crate) records: usize,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Codec(pub(crate) Compression);

impl Settings {
    /// The broker to measure on: a started one has to be kept as long as its address is used.
    pub(crate) fn broker(&self) -> anyhow::Result<(String, Option<Kafka>)> {
        match &self.bootstrap {
            Some(address) => Ok((address.clone(), None)),
            None => {
                let kafka = Kafka::start()?;
                Ok((kafka.address().to_owned(), Some(kafka)))
            }
        }
    }

    /// `config` with what was asked for librdkafka alone.
    pub(crate) fn their(&self, mut config: ClientConfig) -> ClientConfig {
        for (key, value) in &self.their {
            config.set(key, value);
        }
        config
    }

    pub(crate) fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms)
    }
}

pub(crate) fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not of the form KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Theirs => "librdkafka",
        }
    }
}

impl FromStr for Load {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |part: &str| part.parse::<usize>().ok().filter(|number| *number > 0);
        let load = text.split_once('x').and_then(|(bytes, records)| Some((number(bytes)?, number(records)?)));
        let (bytes, records) = load.ok_or_else(|| format!("{text:?} is not of the form BYTESxRECORDS"))?;
        Ok(Self { bytes, records })
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.bytes, self.records)
    }
}

impl FromStr for Codec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|error: protocol::record::UnknownCompression| error.to_string())
    }
}

impl TryFrom<String> for Codec {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Codec> for String {
    fn from(codec: Codec) -> Self {
        codec.0.name().to_owned()
    }
}
