//! A broker whose frames are right and whose answers are these bytes: a producer, a member of a group and an admin ask it.
//! Each piece is an API key and the body of its next answer; a request for which no piece is left ends the connection.
#![no_main]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use fuzz::peer::{self, Answers, Peer};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, api_versions_response::ApiVersion};
use protocol::{
    budget::Budget,
    client::Client,
    cluster::ClusterConfig,
    consumer::{Consumer, ConsumerConfig, Event},
    message::{self, SUPPORTED},
    producer::{ProduceRecord, ProducerConfig},
};

/// How long all of them are left to it, on paused time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Delay of whatever is tried again: a few tries are enough.
const BACKOFF: Duration = Duration::from_secs(4);
const BUDGET: usize = 1 << 20;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut bodies: BTreeMap<i16, VecDeque<Bytes>> = BTreeMap::new();
    let mut rest = input;
    while let Some(piece) = peer::piece(&mut rest) {
        if let Some(([api], body)) = fuzz::choices(piece) {
            bodies.entry(i16::from(api)).or_default().push_back(Bytes::copy_from_slice(body));
        }
    }
    fuzz::bounded(input, 512, || peer::run(serve(bodies)));
});

async fn serve(bodies: BTreeMap<i16, VecDeque<Bytes>>) {
    let bodies = Arc::new(Mutex::new(bodies));
    let connect = move || {
        let bodies = bodies.clone();
        Some(Box::new(move |request: &[u8]| answer(request, &bodies)) as Answers)
    };
    let mut config = ClusterConfig::new(vec![("peer".to_owned(), 9092)]);
    (config.retry_backoff, config.retry_backoff_max) = (BACKOFF, BACKOFF);
    (config.reconnect_backoff, config.reconnect_backoff_max) = (BACKOFF, BACKOFF);
    let client = Client::with_connector(config, Arc::new(Peer(connect)));
    let asked = async { tokio::join!(produce(&client), consume(&client), ask(&client)) };
    let _ = tokio::time::timeout(PATIENCE, asked).await;
    assert!(client.close(Duration::from_secs(600)).await, "a task does not end");
}

fn answer(request: &[u8], bodies: &Mutex<BTreeMap<i16, VecDeque<Bytes>>>) -> Option<Vec<u8>> {
    let header = message::decode_request_header(&mut Bytes::copy_from_slice(request)).expect("our own header");
    let response = if header.api_key == ApiKey::ApiVersions as i16 {
        let ranges = SUPPORTED.iter().map(|api| {
            let (key, min, max) = (api.api as i16, api.min, api.max);
            ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max)
        });
        let versions = ApiVersionsResponse::default().with_api_keys(ranges.collect());
        let written = message::encode_response::<ApiVersionsRequest>(&versions, header.version, header.correlation_id);
        written.expect("our own answer").to_vec()
    } else {
        let body = bodies.lock().expect("one thread").get_mut(&header.api_key)?.pop_front()?;
        let api = ApiKey::try_from(header.api_key).expect("an API that is spoken");
        let tags: &[u8] = if api.response_header_version(header.version) >= 1 { &[0] } else { &[] };
        [&header.correlation_id.to_be_bytes(), tags, &body[..]].concat()
    };
    let length = u32::try_from(response.len()).expect("small").to_be_bytes();
    Some([&length[..], &response].concat())
}

async fn produce(client: &Client) {
    let config = ProducerConfig { retry_backoff: BACKOFF, retry_backoff_max: BACKOFF, ..ProducerConfig::default() };
    let producer = client.producer(config, Budget::new(BUDGET)).expect("the defaults agree");
    for value in [&b"one"[..], b"two"] {
        let value = Some(Bytes::from_static(value));
        if let Ok(delivery) =
            producer.send(ProduceRecord { topic: "topic".into(), value, ..ProduceRecord::default() }).await
        {
            let _ = delivery.await;
        }
    }
    producer.close(Duration::from_secs(1)).await;
}

async fn consume(client: &Client) {
    let config = ConsumerConfig {
        group_id: "group".to_owned(),
        topics: vec!["topic".to_owned()],
        drain_timeout: Duration::from_secs(1),
        ..ConsumerConfig::default()
    };
    let mut consumer = client.consumer(config, Budget::new(BUDGET));
    while let Some(event) = consumer.next().await {
        if let Event::Assigned(streams) = event {
            for mut stream in streams {
                // The next event may be that it is taken away again.
                let _ = tokio::time::timeout(Duration::from_secs(2), async {
                    while let Some(records) = stream.next().await {
                        finish(&consumer, records).await;
                    }
                })
                .await;
            }
        }
    }
}

async fn finish(consumer: &Consumer, records: protocol::consumer::FetchedRecords) {
    let mut last = None;
    for record in records.iter() {
        assert!(
            record.offset >= records.position && record.offset < records.next_offset,
            "an offset that was not asked for"
        );
        assert!(last.is_none_or(|last| last <= record.offset), "offsets go back");
        last = Some(record.offset);
    }
    let _ = consumer.committer().commit(vec![records.end()]).await;
}

async fn ask(client: &Client) {
    let admin = client.admin();
    let _ = admin.create_topic("topic", 1, Duration::from_secs(5)).await;
    let _ = admin.log_ends("topic").await;
    let _ = admin.committed("group").await;
}
