//! kcat, which is librdkafka at the command line.

use anyhow::Result;
use protocol::{
    producer::{ProducerConfig, Receipt},
    record::Compression,
};

use super::{
    ours::{self, Logs, PATIENCE, assert_same, numbered},
    samples::{self, Sample},
};
use crate::support::{
    kafka::{self, Kafka, VERSIONS},
    kcat,
};

/// Where a record ends and where its key ends on kcat's input. No sample contains them.
const END: &str = "<<end>>";
const KEY: &str = "<<key>>";

/// What it prints of a record: partition, offset, time, lengths (-1 is null), then the bytes.
const FORMAT: &str = "%p %o %T %K %S\n%k%s%h\n";

/// The clusters on which this test can run: real brokers and kcat must be there.
fn clusters(test: &str) -> Vec<&'static Kafka> {
    if !kcat::is_there(test) {
        return Vec::new();
    }
    VERSIONS.into_iter().filter_map(|version| kafka::shared(version, test)).collect()
}

/// Runs kcat to its end; returns what it prints, which is nothing but records.
fn run(kafka: &Kafka, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let servers = kafka.bootstrap_servers();
    tokio::task::block_in_place(|| kcat::run(&[&["-q", "-b", &servers], arguments].concat(), input))
}

/// A record as [`FORMAT`] shows it.
fn printed(partition: i32, offset: i64, row: &Sample) -> Vec<u8> {
    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(-1, |bytes| bytes.len() as i64);
    let (key, value) = (length(&row.key), length(&row.value));
    let mut text = format!("{partition} {offset} {} {key} {value}\n", row.timestamp).into_bytes();
    text.extend(row.key.iter().chain(&row.value).flatten());
    // It prints a header's value as C does text: up to a zero byte.
    let shown = |value: &Option<Vec<u8>>| match value {
        Some(value) => value.split(|byte| *byte == 0).next().unwrap_or_default().to_vec(),
        None => b"NULL".to_vec(),
    };
    let headers: Vec<Vec<u8>> =
        row.headers.iter().map(|(name, value)| [name, &b"="[..], &shown(value)].concat()).collect();
    text.extend(headers.join(&b","[..]));
    text.push(b'\n');
    text
}

/// Panics at the first difference with what stands around it.
fn assert_printed(found: &[u8], expected: &[Vec<u8>], what: &str) {
    let mut rest = found;
    for (index, expected) in expected.iter().enumerate() {
        let shown = |bytes: &[u8]| bytes[..bytes.len().min(300)].escape_ascii().to_string();
        let Some(left) = rest.strip_prefix(&expected[..]) else {
            panic!("{what}: record {index}: printed {} instead of {}", shown(rest), shown(expected));
        };
        rest = left;
    }
    assert!(rest.is_empty(), "{what}: more was printed: {} bytes", rest.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_prints_what_we_write_in_every_codec() -> Result<()> {
    for kafka in clusters("kcat_prints_what_we_write_in_every_codec") {
        let client = ours::client(&kafka.bootstrap())?;
        let table = samples::table();
        let expected: Vec<Vec<u8>> = numbered(&table).iter().map(|(offset, row)| printed(0, *offset, row)).collect();
        for codec in Compression::ALL {
            let topic = format!("for-kcat-{codec}");
            client.admin().create_topic(&topic, 1, PATIENCE).await?;
            let config = ProducerConfig { compression: codec, ..ProducerConfig::default() };
            ours::write(&client, config, &topic, Some(0), &table).await?;
            let found = run(kafka, &["-C", "-t", &topic, "-p", "0", "-o", "beginning", "-e", "-f", FORMAT], b"")?;
            assert_printed(&found, &expected, &format!("{codec} on {}", kafka.version()));
        }
        assert!(client.close(PATIENCE).await, "every task ends");
    }
    Ok(())
}

/// What kcat can be told to write: headers belong to the run, a name ends at its first `=`, and what is empty is either
/// null (`-Z`) or not.
struct Run {
    options: Vec<String>,
    rows: Vec<Sample>,
}

fn runs() -> Vec<Run> {
    let plain = |row: &&Sample| row.headers.is_empty();
    let table = samples::table();
    let keyed = |null: bool| -> Vec<Sample> {
        let fits = |bytes: &Option<Vec<u8>>| match bytes {
            None => null,
            Some(bytes) => !null || !bytes.is_empty(),
        };
        table.iter().filter(plain).filter(|row| fits(&row.key) && fits(&row.value)).cloned().collect()
    };
    let mut runs = vec![
        Run { options: Vec::new(), rows: keyed(false) },
        Run { options: vec!["-Z".to_owned()], rows: keyed(true) },
    ];
    // An argument ends at a zero byte and is text; a key that is not null is there in each.
    let told = |row: &&Sample| {
        let values = row.headers.iter().filter_map(|(_, value)| value.as_ref());
        let names = row.headers.iter().map(|(name, _)| name);
        !row.headers.is_empty()
            && row.key.is_some()
            && row.value.is_some()
            && row.headers.iter().all(|(name, _)| !name.is_empty() && !name.contains(&b'='))
            && values.chain(names).all(|bytes| std::str::from_utf8(bytes).is_ok_and(|text| !text.contains('\0')))
    };
    for row in table.iter().filter(told) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let options = row.headers.iter().flat_map(|(name, value)| {
            let header = match value {
                Some(value) => format!("{}={}", text(name), text(value)),
                None => text(name),
            };
            ["-H".to_owned(), header]
        });
        runs.push(Run { options: options.collect(), rows: vec![row.clone()] });
    }
    assert!(runs[0].rows.len() > 30 && runs[1].rows.len() > 30 && runs.len() > 8, "{} runs", runs.len());
    runs
}

#[tokio::test(flavor = "multi_thread")]
async fn we_read_what_kcat_writes_in_every_codec() -> Result<()> {
    for kafka in clusters("we_read_what_kcat_writes_in_every_codec") {
        let client = ours::client(&kafka.bootstrap())?;
        let mut expected = Logs::new();
        for codec in Compression::ALL {
            let topic = format!("from-kcat-{codec}");
            client.admin().create_topic(&topic, 1, PATIENCE).await?;
            let mut written = Vec::new();
            for Run { options, rows } in runs() {
                // The rows with headers are as many processes: once is enough.
                if rows.len() == 1 && codec != Compression::Zstd {
                    continue;
                }
                let mut arguments = vec!["-P", "-t", &topic, "-p", "0", "-z", codec.name(), "-K", KEY, "-D", END];
                arguments.extend(options.iter().map(String::as_str));
                let input = rows.iter().flat_map(|row| {
                    let (key, value) = (row.key.as_deref().unwrap_or(b""), row.value.as_deref().unwrap_or(b""));
                    [key, KEY.as_bytes(), value, END.as_bytes()].concat()
                });
                let input: Vec<u8> = input.collect();
                run(kafka, &arguments, &input)?;
                written.extend(rows);
            }
            expected.insert((topic, 0), numbered(&written));
        }
        let topics: Vec<String> = expected.keys().map(|(topic, _)| topic.clone()).collect();
        let count = expected.values().map(Vec::len).sum();
        let mut found = ours::read(&client, ours::member("readers-of-kcat", &topics), count).await?;
        for (found, expected) in found.values_mut().flatten().zip(expected.values().flatten()) {
            assert!(found.1.timestamp > 1_750_000_000_000, "the time of kcat, not {}", found.1.timestamp);
            found.1.timestamp = expected.1.timestamp;
        }
        assert_same(&found, &expected, kafka.version());
        assert!(client.close(PATIENCE).await, "every task ends");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_and_we_go_on_where_the_other_committed() -> Result<()> {
    for kafka in clusters("kcat_and_we_go_on_where_the_other_committed") {
        let client = ours::client(&kafka.bootstrap())?;
        let (topic, group) = ("in-turns-with-kcat".to_owned(), "in-turns-with-kcat");
        client.admin().create_topic(&topic, 3, PATIENCE).await?;
        let table: Vec<Sample> = samples::table().into_iter().filter(|row| row.key.is_some()).take(60).collect();
        let place = |receipt: &Receipt, row: &Sample| (receipt.partition, receipt.offset.unwrap_or(-1), row.clone());
        for (turn, rows) in table.chunks(20).enumerate() {
            let receipts = ours::write(&client, ProducerConfig::default(), &topic, None, rows).await?;
            let mut written: Vec<_> = receipts.iter().zip(rows).map(|(receipt, row)| place(receipt, row)).collect();
            written.sort_by_key(|(partition, offset, _)| (*partition, *offset));
            let what = format!("turn {turn} on {}", kafka.version());
            if turn == 1 {
                let mut expected = Logs::new();
                for (partition, offset, row) in written {
                    expected.entry((topic.clone(), partition)).or_default().push((offset, row));
                }
                let member = ours::member(group, std::slice::from_ref(&topic));
                assert_same(&ours::read(&client, member, rows.len()).await?, &expected, &what);
            } else {
                let expected: Vec<Vec<u8>> =
                    written.iter().map(|(partition, offset, row)| printed(*partition, *offset, row)).collect();
                let count = rows.len().to_string();
                let mut arguments = vec!["-G", group, "-c", &count, "-f", FORMAT];
                for setting in ["auto.offset.reset=earliest", "session.timeout.ms=6000", "heartbeat.interval.ms=1000"] {
                    arguments.extend(["-X", setting]);
                }
                arguments.push(&topic);
                let found = run(kafka, &arguments, b"")?;
                // Partitions come in any order: each record's bytes must be there, and nothing else.
                assert_eq!(found.len(), expected.iter().map(Vec::len).sum::<usize>(), "{what}");
                for record in &expected {
                    let there = found.windows(record.len()).any(|window| window == record);
                    assert!(there, "{what}: {} is not printed", record.escape_ascii());
                }
            }
        }
        assert!(client.close(PATIENCE).await, "every task ends");
    }
    Ok(())
}
