//! Java's producer and consumer, and what the broker has on disk.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result};
use protocol::{
    consumer::Isolation,
    producer::{Acks, ProducerConfig, Receipt},
    record::Compression,
};
use serde_json::{Value, json};

use super::{
    disk::{self, StoredBatch},
    jvm::Witness,
    ours::{self, Logs, PATIENCE, assert_same, numbered},
    samples::{self, Sample},
};
use crate::support::kafka::{self, VERSIONS};

/// Partition 0 gets the whole table in as few batches as can be, partition 1 each record alone.
const TOGETHER: i32 = 0;
const ALONE: i32 = 1;

/// `call` blocks: the other threads of the runtime go on.
fn blocking<T>(call: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(call)
}

fn topics(prefix: &str) -> Vec<(Compression, String)> {
    Compression::ALL.into_iter().map(|codec| (codec, format!("{prefix}-{codec}"))).collect()
}

/// Java tells a header name that is no UTF-8 with replacement characters.
fn as_java_reads(sample: &Sample) -> Sample {
    let headers = sample.headers.iter().map(|(name, value)| {
        let name = String::from_utf8_lossy(name).into_owned();
        (name.into_bytes(), value.clone())
    });
    Sample { headers: headers.collect(), ..sample.clone() }
}

/// Receipts must tell the offsets from 0 on and the samples' own timestamps.
fn assert_receipts(receipts: &[Receipt], partition: i32, samples: &[Sample]) {
    let expected = numbered(samples);
    let expected: Vec<Receipt> = expected
        .iter()
        .map(|(offset, sample)| Receipt { partition, offset: Some(*offset), timestamp: sample.timestamp })
        .collect();
    assert_eq!(receipts, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_we_write_java_reads_and_the_disk_shows_in_every_codec() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "what_we_write_java_reads") else { continue };
        let client = ours::client(&kafka.bootstrap())?;
        let table = samples::table();
        let mut expected = Logs::new();
        for (codec, topic) in topics("ours") {
            client.admin().create_topic(&topic, 2, PATIENCE).await?;
            let together = ProducerConfig {
                compression: codec,
                linger: Duration::from_secs(1),
                batch_size: 1 << 20,
                ..ProducerConfig::default()
            };
            // The other half of the settings: no idempotence, one acknowledgement.
            let alone = ProducerConfig {
                compression: codec,
                batch_size: 1,
                idempotence: false,
                acks: Acks::Leader,
                ..ProducerConfig::default()
            };
            for (partition, config) in [(TOGETHER, together), (ALONE, alone)] {
                let receipts = ours::write(&client, config, &topic, Some(partition), &table)
                    .await
                    .with_context(|| format!("{topic}-{partition} on {version}"))?;
                assert_receipts(&receipts, partition, &table);
                let read: Vec<Sample> = table.iter().map(as_java_reads).collect();
                expected.insert((topic.clone(), partition), numbered(&read));
            }
        }
        let names: Vec<String> = topics("ours").into_iter().map(|(_, topic)| topic).collect();
        let (found, types) = blocking(|| Witness::of(kafka).read_with_types(&json!({}), &names))?;
        assert_same(&found, &expected, version);
        assert_eq!(types, BTreeSet::from(["CreateTime".to_owned()]));
        let places: Vec<(String, i32)> = expected.keys().cloned().collect();
        let stored = blocking(|| disk::dump(kafka, &places))?;
        for ((topic, partition), batches) in places.iter().zip(&stored) {
            let codec = topic.rsplit('-').next().unwrap_or_default();
            assert_stored(batches, codec, *partition, &table, &format!("{topic}-{partition} on {version}"));
        }
        assert!(client.close(PATIENCE).await, "every task ends");
    }
    Ok(())
}

/// The batches that we wrote, as the broker kept them.
fn assert_stored(batches: &[StoredBatch], codec: &str, partition: i32, table: &[Sample], what: &str) {
    let mut rows = numbered(table).into_iter();
    let mut sequence = 0;
    let producer = &batches[0].header["producerId"];
    for StoredBatch { header, records } in batches {
        let count = records.len() as i64;
        let field = |name: &str| header.get(name).unwrap_or_else(|| panic!("{what}: no {name} in {header:?}")).as_str();
        let expect = |name: &str, value: &str| assert_eq!(field(name), value, "{what}: {name} of {header:?}");
        expect("isvalid", "true");
        expect("magic", "2");
        expect("compresscodec", codec);
        expect("isTransactional", "false");
        expect("isControl", "false");
        expect("partitionLeaderEpoch", "0");
        expect("count", &count.to_string());
        expect("producerId", producer);
        if partition == TOGETHER {
            assert_ne!(producer, "-1", "{what}: idempotent");
            expect("producerEpoch", "0");
            expect("baseSequence", &sequence.to_string());
            expect("lastSequence", &(sequence + count - 1).to_string());
        } else {
            expect("producerId", "-1");
            expect("baseSequence", "-1");
            expect("count", "1");
        }
        let mut latest = i64::MIN;
        for (place, record) in records.iter().enumerate() {
            let (offset, sample) = rows.next().unwrap_or_else(|| panic!("{what}: more records than were written"));
            latest = latest.max(sample.timestamp);
            let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(-1, |bytes| bytes.len() as i64).to_string();
            let names: Vec<_> = sample.headers.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
            let mut wanted = vec![
                ("offset", offset.to_string()),
                ("CreateTime", sample.timestamp.to_string()),
                ("keySize", length(&sample.key)),
                ("valueSize", length(&sample.value)),
                ("headerKeys", format!("[{}]", names.join(","))),
            ];
            if partition == TOGETHER {
                wanted.push(("sequence", (sequence + place as i64).to_string()));
            }
            for (name, value) in wanted {
                assert_eq!(record.get(name), Some(&value), "{what}: {name} of {record:?}");
            }
        }
        // The header's time is the greatest of the batch's records.
        expect("CreateTime", &latest.to_string());
        sequence += count;
    }
    assert_eq!(rows.next(), None, "{what}: fewer records than were written");
    let most = batches.iter().map(|batch| batch.records.len()).max().unwrap_or_default();
    let shape = if partition == TOGETHER { most > 30 } else { most == 1 };
    assert!(shape, "{what}: the largest batch has {most} records");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_java_writes_we_read_in_every_codec() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "what_java_writes_we_read") else { continue };
        let client = ours::client(&kafka.bootstrap())?;
        let witness = Witness::of(kafka);
        let table: Vec<Sample> = samples::table().into_iter().filter(Sample::has_text_names).collect();
        let mut expected = Logs::new();
        for (codec, topic) in topics("javas") {
            client.admin().create_topic(&topic, 2, PATIENCE).await?;
            let together = json!({
                "compression.type": codec.name(),
                "linger.ms": 1000,
                "batch.size": 1 << 20,
                "max.request.size": 2 << 20,
            });
            let alone = json!({
                "compression.type": codec.name(),
                "batch.size": 0,
                "enable.idempotence": false,
                "acks": 1,
                "max.in.flight.requests.per.connection": 1,
            });
            for (partition, settings) in [(TOGETHER, together), (ALONE, alone)] {
                let receipts = blocking(|| witness.write(&settings, &topic, Some(partition), &table))
                    .with_context(|| format!("{topic}-{partition} on {version}"))?;
                assert_receipts(&receipts, partition, &table);
                expected.insert((topic.clone(), partition), numbered(&table));
            }
        }
        let names: Vec<String> = topics("javas").into_iter().map(|(_, topic)| topic).collect();
        let count = expected.values().map(Vec::len).sum();
        let found = ours::read(&client, ours::member("readers-of-javas", &names), count).await?;
        assert_same(&found, &expected, version);
        assert!(client.close(PATIENCE).await, "every task ends");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_land_where_java_puts_them() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "keys_land_where_java_puts_them") else { continue };
        let client = ours::client(&kafka.bootstrap())?;
        let keys = samples::keys();
        let samples: Vec<Sample> = keys
            .iter()
            .map(|key| Sample {
                key: Some(key.clone()),
                value: None,
                headers: Vec::new(),
                timestamp: 1_700_000_000_000,
            })
            .collect();
        for partitions in [7, 16] {
            let (by_us, by_java) = (format!("keys-by-us-{partitions}"), format!("keys-by-java-{partitions}"));
            for topic in [&by_us, &by_java] {
                client.admin().create_topic(topic, partitions, PATIENCE).await?;
            }
            let places = |receipts: Vec<Receipt>| -> Vec<(String, i32)> {
                let names = keys.iter().map(|key| key.escape_ascii().to_string());
                names.zip(receipts.iter().map(|receipt| receipt.partition)).collect()
            };
            let ours = places(ours::write(&client, ProducerConfig::default(), &by_us, None, &samples).await?);
            let javas = places(blocking(|| Witness::of(kafka).write(&json!({}), &by_java, None, &samples))?);
            assert_eq!(ours, javas, "{partitions} partitions on {version}");
            let used: BTreeSet<i32> = javas.iter().map(|(_, partition)| *partition).collect();
            assert_eq!(used.len() as i32, partitions, "keys for every partition");
        }
        assert!(client.close(PATIENCE).await, "every task ends");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_java_aborts_is_read_only_by_those_who_ask_for_it() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "what_java_aborts") else { continue };
        let client = ours::client(&kafka.bootstrap())?;
        let witness = Witness::of(kafka);
        let topic = "transactions".to_owned();
        client.admin().create_topic(&topic, 1, PATIENCE).await?;
        let table: Vec<Sample> = samples::table().into_iter().filter(Sample::has_text_names).take(60).collect();
        let (mut all, mut committed) = (Vec::new(), Vec::new());
        for (index, rows) in table.chunks(10).enumerate() {
            let codec = Compression::ALL[index % Compression::ALL.len()];
            // Two producers take turns; each marker takes an offset of its own.
            let settings = json!({"transactional.id": format!("t{}", index % 2), "compression.type": codec.name()});
            let end = if index % 3 == 1 { "abort" } else { "commit" };
            let receipts = blocking(|| witness.write_and_end(&settings, &topic, Some(0), rows, end))?;
            let rows = receipts.iter().zip(rows).map(|(receipt, row)| (receipt.offset.unwrap_or(-1), row.clone()));
            let rows: Vec<(i64, Sample)> = rows.collect();
            all.extend(rows.clone());
            if end == "commit" {
                committed.extend(rows);
            }
        }
        // The last one is committed: whoever let an aborted record through has one more before it.
        let last = *table.last().iter().next().context("a last row")?;
        let receipts =
            ours::write(&client, ProducerConfig::default(), &topic, Some(0), std::slice::from_ref(last)).await?;
        let last = (receipts[0].offset.context("an offset")?, last.clone());
        all.push(last.clone());
        committed.push(last);
        let place = (topic.clone(), 0);
        for (isolation, name, rows) in [
            (Isolation::ReadUncommitted, "read_uncommitted", all),
            (Isolation::ReadCommitted, "read_committed", committed),
        ] {
            let config = protocol::consumer::ConsumerConfig {
                isolation,
                ..ours::member(&format!("{topic}-{name}"), std::slice::from_ref(&topic))
            };
            let count = rows.len();
            let expected = Logs::from([(place.clone(), rows)]);
            assert_same(&ours::read(&client, config, count).await?, &expected, &format!("{name} by us on {version}"));
            let settings = json!({"isolation.level": name});
            let javas = blocking(|| witness.read(&settings, std::slice::from_ref(&topic)))?;
            assert_same(&javas, &expected, &format!("{name} by Java on {version}"));
        }
        assert!(client.close(PATIENCE).await, "every task ends");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_topic_with_the_brokers_time_both_sides_see_that_time() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "on_a_topic_with_the_brokers_time") else { continue };
        let client = ours::client(&kafka.bootstrap())?;
        let witness = Witness::of(kafka);
        let table: Vec<Sample> = samples::table().into_iter().filter(Sample::has_text_names).take(30).collect();
        let mut expected = Logs::new();
        for (codec, topic) in topics("append-time") {
            let configs: Value = json!({"message.timestamp.type": "LogAppendTime"});
            blocking(|| witness.create_topic(&topic, 2, &configs))?;
            let config = ProducerConfig { compression: codec, ..ProducerConfig::default() };
            let ours = ours::write(&client, config, &topic, Some(0), &table).await?;
            let settings = json!({"compression.type": codec.name()});
            let javas = blocking(|| witness.write(&settings, &topic, Some(1), &table))?;
            for (partition, receipts) in [(0, ours), (1, javas)] {
                let rows = receipts.iter().zip(&table).map(|(receipt, row)| {
                    assert!(receipt.timestamp > TIME_OF_WRITING, "the broker's time, not {}", receipt.timestamp);
                    (receipt.offset.unwrap_or(-1), Sample { timestamp: receipt.timestamp, ..row.clone() })
                });
                expected.insert((topic.clone(), partition), rows.collect());
            }
        }
        let names: Vec<String> = topics("append-time").into_iter().map(|(_, topic)| topic).collect();
        let (javas, types) = blocking(|| witness.read_with_types(&json!({}), &names))?;
        assert_same(&javas, &expected, &format!("by Java on {version}"));
        assert_eq!(types, BTreeSet::from(["LogAppendTime".to_owned()]));
        let count = expected.values().map(Vec::len).sum();
        let ours = ours::read(&client, ours::member("readers-of-append-time", &names), count).await?;
        assert_same(&ours, &expected, &format!("by us on {version}"));
        assert!(client.close(PATIENCE).await, "every task ends");
    }
    Ok(())
}

/// No sample is so young, every broker's clock is later.
const TIME_OF_WRITING: i64 = 1_750_000_000_000;
