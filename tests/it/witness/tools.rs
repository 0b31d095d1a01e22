//! The clients of `kafka-tools`: console producer and consumer, verifiable producer and consumer.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use protocol::{
    producer::{ProducerConfig, Receipt},
    record::Compression,
};
use serde_json::Value;

use super::{
    ours::{self, Logs, PATIENCE, assert_same, numbered},
    samples::{self, Sample},
};
use crate::support::kafka::{self, Kafka, VERSIONS};

/// Runs a tool to its end with these lines as input; returns what it prints.
fn run(mut command: Command, input: &[u8]) -> Result<Vec<u8>> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut pipe = child.stdin.take().context("a pipe")?;
    let input = input.to_vec();
    let writer = std::thread::spawn(move || pipe.write_all(&input));
    let output = child.wait_with_output()?;
    let text = || format!("{}{}", output.stdout.escape_ascii(), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?} failed: {}", text());
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?.with_context(text)?;
    Ok(output.stdout)
}

/// A tool with `--bootstrap-server` and `--topic` given.
fn tool(kafka: &Kafka, class: &str, topic: &str) -> Command {
    // The console producer moved between the versions.
    let package = if kafka.version().starts_with('3') && class == "ConsoleProducer" {
        "kafka.tools"
    } else {
        "org.apache.kafka.tools"
    };
    let mut command = kafka.tool();
    command.arg(format!("{package}.{class}"));
    command.args(["--bootstrap-server", &kafka.bootstrap_servers(), "--topic", topic]);
    command
}

/// Adds a property by the option's name in version 4; before, all had one name.
fn property(command: &mut Command, kafka: &Kafka, option: &str, property: &str) {
    let option = if kafka.version().starts_with('3') { "--property" } else { option };
    command.args([option, property]);
}

/// The rows that a tool with lines, tabs and colons can tell: no signs that separate.
fn rows_of_text() -> Vec<Sample> {
    let plain = |bytes: &[u8]| {
        std::str::from_utf8(bytes).is_ok_and(|text| text.chars().all(|sign| !sign.is_control() && !":,".contains(sign)))
            && bytes != b"null"
    };
    let rows: Vec<Sample> = samples::table()
        .into_iter()
        .filter(|row| {
            let headers = row.headers.iter().flat_map(|(name, value)| [Some(name), value.as_ref()]);
            [row.key.as_ref(), row.value.as_ref()].into_iter().chain(headers).flatten().all(|bytes| plain(bytes))
        })
        .collect();
    assert!(rows.len() >= 25, "{} rows", rows.len());
    rows
}

/// The row as both console tools write it: headers, key and value between tabs.
fn console_line(row: &Sample, null: &str, no_headers: &str) -> Vec<u8> {
    let or_null = |bytes: &Option<Vec<u8>>| bytes.clone().unwrap_or_else(|| null.as_bytes().to_vec());
    let headers: Vec<Vec<u8>> =
        row.headers.iter().map(|(name, value)| [&name[..], b":", &or_null(value)].concat()).collect();
    let headers = if headers.is_empty() { no_headers.as_bytes().to_vec() } else { headers.join(&b","[..]) };
    [headers, or_null(&row.key), or_null(&row.value)].join(&b"\t"[..])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_consumer_prints_what_we_write() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "the_console_consumer_prints_what_we_write") else { continue };
        let client = ours::client(&kafka.bootstrap())?;
        let topic = "for-the-console";
        client.admin().create_topic(topic, 1, PATIENCE).await?;
        let rows = rows_of_text();
        // A part of the rows in each codec, one after the other.
        for (codec, rows) in Compression::ALL.into_iter().zip(rows.chunks(rows.len().div_ceil(5))) {
            let config = ProducerConfig { compression: codec, ..ProducerConfig::default() };
            ours::write(&client, config, topic, Some(0), rows).await?;
        }
        let mut command = tool(kafka, "consumer.ConsoleConsumer", topic);
        command.args(["--from-beginning", "--max-messages", &rows.len().to_string(), "--timeout-ms", "60000"]);
        for part in ["timestamp", "partition", "offset", "headers", "key", "value"] {
            property(&mut command, kafka, "--formatter-property", &format!("print.{part}=true"));
        }
        let printed = tokio::task::block_in_place(|| run(command, b""))?;
        let expected = numbered(&rows).into_iter().flat_map(|(offset, row)| {
            let place = format!("CreateTime:{}\tPartition:0\tOffset:{offset}\t", row.timestamp);
            [place.as_bytes(), &console_line(&row, "null", "NO_HEADERS"), b"\n"].concat()
        });
        let expected: Vec<u8> = expected.collect();
        let lines = |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').map(|l| l.escape_ascii().to_string()).collect();
        let (printed, expected): (Vec<String>, Vec<String>) = (lines(&printed), lines(&expected));
        assert_eq!(printed, expected, "on {version}");
        assert!(client.close(PATIENCE).await, "every task ends");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn we_read_what_the_console_producer_is_given() -> Result<()> {
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "we_read_what_the_console_producer_is_given") else { continue };
        let client = ours::client(&kafka.bootstrap())?;
        let topic = "from-the-console".to_owned();
        client.admin().create_topic(&topic, 1, PATIENCE).await?;
        // It cannot tell that there are no headers, and stamps its own time.
        let rows: Vec<Sample> = rows_of_text().into_iter().filter(|row| !row.headers.is_empty()).collect();
        let input: Vec<u8> =
            rows.iter().flat_map(|row| [console_line(row, "NULL", ""), b"\n".to_vec()].concat()).collect();
        let mut command = tool(kafka, "ConsoleProducer", &topic);
        command.args(["--compression-codec", "zstd"]);
        for setting in ["parse.key=true", "parse.headers=true", "null.marker=NULL"] {
            property(&mut command, kafka, "--reader-property", setting);
        }
        tokio::task::block_in_place(|| run(command, &input))?;
        let member = ours::member("readers-of-the-console", std::slice::from_ref(&topic));
        let mut found = ours::read(&client, member, rows.len()).await?;
        let expected = Logs::from([((topic.clone(), 0), numbered(&rows))]);
        for (found, expected) in found.values_mut().flatten().zip(expected.values().flatten()) {
            assert!(found.1.timestamp > 1_750_000_000_000, "the time of the console, not {}", found.1.timestamp);
            found.1.timestamp = expected.1.timestamp;
        }
        assert_same(&found, &expected, version);
        assert!(client.close(PATIENCE).await, "every task ends");
    }
    Ok(())
}

/// The JSON lines that a verifiable tool printed of one kind of event.
fn events(printed: &[u8], name: &str) -> Result<Vec<Value>> {
    let lines = std::str::from_utf8(printed)?.lines().filter(|line| line.starts_with('{'));
    let events: Vec<Value> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
    Ok(events.into_iter().filter(|event| event["name"] == name).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn we_read_what_the_verifiable_producer_got_acknowledged() -> Result<()> {
    const COUNT: usize = 500;
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "we_read_what_the_verifiable_producer") else { continue };
        let client = ours::client(&kafka.bootstrap())?;
        let topic = "verifiable-by-java".to_owned();
        client.admin().create_topic(&topic, 3, PATIENCE).await?;
        let mut command = tool(kafka, "VerifiableProducer", &topic);
        command.args(["--max-messages", &COUNT.to_string(), "--value-prefix", "7", "--repeating-keys", "11"]);
        command.args(["--message-create-time", "1600000000000"]);
        let printed = tokio::task::block_in_place(|| run(command, b""))?;
        let mut expected = Logs::new();
        for event in events(&printed, "producer_send_success")? {
            let partition = i32::try_from(event["partition"].as_i64().context("a partition")?)?;
            let text = |name: &str| event[name].as_str().map(|text| text.as_bytes().to_vec());
            // The time is not told; it is checked below.
            let sample = Sample { key: text("key"), value: text("value"), headers: Vec::new(), timestamp: 0 };
            let offset = event["offset"].as_i64().context("an offset")?;
            expected.entry((topic.clone(), partition)).or_default().push((offset, sample));
        }
        let acknowledged: usize = expected.values().map(Vec::len).sum();
        assert_eq!(acknowledged, COUNT, "on {version}");
        let member = ours::member("readers-of-verifiable", std::slice::from_ref(&topic));
        let mut found = ours::read(&client, member, COUNT).await?;
        for (_, sample) in found.values_mut().flatten() {
            let since = sample.timestamp - 1_600_000_000_000;
            assert!((0..60_000_000).contains(&since), "{sample:?}");
            sample.timestamp = 0;
        }
        assert_same(&found, &expected, version);
        assert!(client.close(PATIENCE).await, "every task ends");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verifiable_consumer_gets_what_we_write_and_we_go_on_where_it_committed() -> Result<()> {
    const COUNT: usize = 500;
    for version in VERSIONS {
        let Some(kafka) = kafka::shared(version, "the_verifiable_consumer_gets_what_we_write") else { continue };
        let client = ours::client(&kafka.bootstrap())?;
        let (topic, group) = ("verifiable-by-us".to_owned(), "verifiable-readers");
        client.admin().create_topic(&topic, 3, PATIENCE).await?;
        let numbers = |range: std::ops::Range<usize>| -> Vec<Sample> {
            let row = |number: usize| Sample {
                key: Some(format!("k{}", number % 11).into_bytes()),
                value: Some(format!("{number}").into_bytes()),
                headers: Vec::new(),
                timestamp: 1_600_000_000_000 + number as i64,
            };
            range.map(row).collect()
        };
        let rows = numbers(0..COUNT);
        let config = || ProducerConfig { compression: Compression::Lz4, ..ProducerConfig::default() };
        let receipts = ours::write(&client, config(), &topic, None, &rows).await?;
        let mut command = tool(kafka, "VerifiableConsumer", &topic);
        command.args(["--group-id", group, "--max-messages", &COUNT.to_string(), "--verbose"]);
        command.args(["--session-timeout", "6000", "--reset-policy", "earliest"]);
        let printed = tokio::task::block_in_place(|| run(command, b""))?;
        let place = |receipt: &Receipt, row: &Sample| {
            let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|b| String::from_utf8_lossy(b).into_owned());
            (receipt.partition, receipt.offset.unwrap_or(-1), text(&row.key), text(&row.value))
        };
        let mut written: Vec<_> = receipts.iter().zip(&rows).map(|(receipt, row)| place(receipt, row)).collect();
        let seen = events(&printed, "record_data")?.into_iter().map(|event| {
            let partition = i32::try_from(event["partition"].as_i64().context("a partition")?)?;
            let text = |name: &str| event[name].as_str().map(str::to_owned);
            Ok((partition, event["offset"].as_i64().context("an offset")?, text("key"), text("value")))
        });
        let mut seen = seen.collect::<Result<Vec<_>>>()?;
        written.sort();
        seen.sort();
        assert_eq!(seen, written, "on {version}");
        // What it committed is where a member of ours begins.
        let more = numbers(COUNT..COUNT + 20);
        let receipts = ours::write(&client, config(), &topic, None, &more).await?;
        let mut expected = Logs::new();
        for (receipt, row) in receipts.iter().zip(more) {
            let log = expected.entry((topic.clone(), receipt.partition)).or_default();
            log.push((receipt.offset.context("an offset")?, row));
        }
        let found = ours::read(&client, ours::member(group, std::slice::from_ref(&topic)), 20).await?;
        assert_same(&found, &expected, version);
        assert!(client.close(PATIENCE).await, "every task ends");
    }
    Ok(())
}
