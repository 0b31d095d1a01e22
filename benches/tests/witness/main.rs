//! librdkafka as a witness, on real brokers: what we write it reads, what it writes we read, and both in one group.
//!
//! It stands here and not among the tests of the sidecar, because nobody who tests those should have to compile a peer. The
//! records and our own side are those of the other witnesses.

// Parts of these are for the tests of the sidecar alone.
#[allow(dead_code)]
#[path = "../../../tests/it/support"]
mod support {
    pub(crate) mod kafka;
}
#[path = "../../../tests/it/witness"]
mod witness {
    pub(crate) mod ours;
    pub(crate) mod samples;
}
mod librdkafka;
mod one_group;

use anyhow::Result;
use protocol::{producer::ProducerConfig, record::Compression};

use support::kafka::{self, VERSIONS};
use witness::{
    ours::{self, Logs, PATIENCE, assert_same, numbered},
    samples::{self, Sample},
};

/// `call` blocks: the other threads of the runtime go on.
fn blocking<T>(call: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(call)
}

fn topics(prefix: &str) -> Vec<(Compression, String)> {
    Compression::ALL.into_iter().map(|codec| (codec, format!("{prefix}-{codec}"))).collect()
}

/// It knows header names as text only.
fn table() -> Vec<Sample> {
    samples::table().into_iter().filter(Sample::has_text_names).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_we_write_librdkafka_reads_in_every_codec() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "what_we_write_librdkafka_reads") else { continue };
        let client = ours::client(&kafka.bootstrap())?;
        let mut expected = Logs::new();
        for (codec, topic) in topics("for-librdkafka") {
            client.admin().create_topic(&topic, 1, PATIENCE).await?;
            let config = ProducerConfig { compression: codec, ..ProducerConfig::default() };
            ours::write(&client, config, &topic, Some(0), &table()).await?;
            expected.insert((topic, 0), numbered(&table()));
        }
        let names: Vec<&str> = expected.keys().map(|(topic, _)| topic.as_str()).collect();
        assert_same(&blocking(|| librdkafka::read(kafka, &names))?, &expected, version);
        assert!(client.close(PATIENCE).await, "every task ends");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_librdkafka_writes_we_read_in_every_codec() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "what_librdkafka_writes_we_read") else { continue };
        let client = ours::client(&kafka.bootstrap())?;
        // To it, a time of 0 is none.
        let rows: Vec<Sample> =
            table().into_iter().map(|row| Sample { timestamp: row.timestamp.max(1), ..row }).collect();
        let mut expected = Logs::new();
        for (index, (codec, topic)) in topics("from-librdkafka").into_iter().enumerate() {
            client.admin().create_topic(&topic, 1, PATIENCE).await?;
            let idempotent = if index % 2 == 0 { "true" } else { "false" };
            let settings =
                [("compression.type", codec.name()), ("enable.idempotence", idempotent), ("linger.ms", "50")];
            blocking(|| librdkafka::write(kafka, &settings, &topic, Some(0), &rows))?;
            expected.insert((topic, 0), numbered(&rows));
        }
        let names: Vec<String> = expected.keys().map(|(topic, _)| topic.clone()).collect();
        let count = expected.values().map(Vec::len).sum();
        let found = ours::read(&client, ours::member("readers-of-librdkafka", &names), count).await?;
        assert_same(&found, &expected, version);
        assert!(client.close(PATIENCE).await, "every task ends");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_land_where_librdkafka_puts_them_by_murmur2() -> Result<()> {
    let version = VERSIONS[0];
    let Some(kafka) = kafka::shared(version, "keys_land_where_librdkafka_puts_them") else { return Ok(()) };
    let client = ours::client(&kafka.bootstrap())?;
    for topic in ["keys-by-us", "keys-by-librdkafka"] {
        client.admin().create_topic(topic, 7, PATIENCE).await?;
    }
    let row = |key| Sample { key: Some(key), value: None, headers: Vec::new(), timestamp: 1_700_000_000_000 };
    let rows: Vec<Sample> = samples::keys().into_iter().map(row).collect();
    let receipts = ours::write(&client, ProducerConfig::default(), "keys-by-us", None, &rows).await?;
    let ours: Vec<i32> = receipts.iter().map(|receipt| receipt.partition).collect();
    let settings = [("partitioner", "murmur2_random")];
    let theirs = blocking(|| librdkafka::write(kafka, &settings, "keys-by-librdkafka", None, &rows))?;
    let places = |partitions: Vec<i32>| rows.iter().cloned().zip(partitions).collect::<Vec<_>>();
    assert_eq!(places(ours), places(theirs));
    assert!(client.close(PATIENCE).await, "every task ends");
    Ok(())
}
