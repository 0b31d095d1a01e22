use std::sync::Mutex;

use bytes::Bytes;
use futures_util::FutureExt as _;
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
};

use super::*;
use crate::{
    config::{self, settings::Format},
    produce::memory_sink::MemorySink,
};

fn settings() -> Settings {
    let mut settings = config::load(config::Sources::default()).expect("the shipped configuration").settings;
    settings.server.http = ([127, 0, 0, 1], 0).into();
    settings.sidecar.probes = Some(([127, 0, 0, 1], 0).into());
    settings.sidecar.probes_explicit = false;
    settings
}

fn encode(_: Format, raw: &RawValue) -> Result<Option<Bytes>, String> {
    Ok(Some(Bytes::copy_from_slice(raw.get().as_bytes())))
}

fn ok() -> Check {
    Arc::new(|| std::future::ready(Ok(())).boxed())
}

fn parts(sink: &MemorySink) -> Parts<MemorySink> {
    Parts {
        produce: Some((sink.clone(), encode)),
        produce_audit: None,
        consumer: None,
        explanations: Vec::new(),
        writers: Vec::new(),
        close_producer: None,
        brokers: ok(),
        backend: None,
        numbers: Vec::new(),
        bodies: Budget::new(1_000_000),
    }
}

/// A part that notes its stop and then does `last`.
fn stoppable(
    name: &'static str,
    log: &Arc<Mutex<Vec<String>>>,
    last: impl Future<Output = Result<(), String>> + Send + 'static,
) -> Stoppable {
    let stop = CancellationToken::new();
    let run = {
        let (stop, log) = (stop.clone(), log.clone());
        async move {
            stop.cancelled().await;
            log.lock().expect("lock").push(name.to_owned());
            last.await
        }
    };
    Stoppable { name, run: run.boxed(), stop, cut: CancellationToken::new() }
}

async fn post(address: SocketAddr) -> String {
    let body = r#"{"records":[{"value":1}]}"#;
    let head = "POST /producers/t HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close";
    exchange(address, &format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await
}

async fn get(address: SocketAddr, path: &str) -> String {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
}

async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.expect("connect");
    socket.write_all(request.as_bytes()).await.expect("write");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("read");
    answer
}

#[tokio::test]
async fn everything_is_taken_down_in_order_and_the_data_listener_serves_while_the_consumer_finishes() {
    let (sink, log) = (MemorySink::default(), Arc::new(Mutex::new(Vec::new())));
    let (address_known, address) = oneshot::channel::<SocketAddr>();
    let consumer = {
        let log = log.clone();
        stoppable("consumer", &log.clone(), async move {
            let answer = post(address.await.expect("started")).await;
            log.lock()
                .expect("lock")
                .push(format!("produced during the drain: {}", answer.starts_with("HTTP/1.1 200")));
            Ok(())
        })
    };
    let close_log = log.clone();
    let parts = Parts {
        consumer: Some(consumer),
        writers: vec![stoppable("audit", &log, std::future::ready(Ok(())))],
        close_producer: Some(Box::new(move |_| {
            close_log.lock().expect("lock").push("producer".to_owned());
            std::future::ready(0).boxed()
        })),
        ..parts(&sink)
    };
    let sidecar = Sidecar::start(&settings(), parts, Metrics::new()).await.expect("start");
    let probes = sidecar.probes_address().expect("open");
    address_known.send(sidecar.data_address()).expect("waiting");
    sidecar.health().ready().await;
    assert!(get(probes, "/health/readiness").await.ends_with("\r\n\r\nOK"));
    assert!(get(sidecar.data_address(), "/health/readiness").await.ends_with("\r\n\r\nOK"));
    let metrics = get(probes, "/metrics").await;
    assert!(metrics.contains("process_start_time_seconds"), "{metrics}");

    let stop = Stop::default();
    stop.drain.cancel();
    assert_eq!(sidecar.run(&stop).await, End::Completed);
    assert_eq!(*log.lock().expect("lock"), ["consumer", "produced during the drain: true", "audit", "producer"]);
    assert_eq!(sink.written().len(), 1);
}

#[tokio::test]
async fn a_task_that_ends_by_itself_stops_the_process_but_in_order() {
    let (sink, log) = (MemorySink::default(), Arc::new(Mutex::new(Vec::new())));
    for (result, reason) in [(Ok(()), "it ended by itself"), (Err("no".to_owned()), "no")] {
        let crash = Stoppable {
            name: "reactive consumer",
            run: std::future::ready(result).boxed(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        let writers = vec![stoppable("audit", &log, std::future::ready(Ok(())))];
        let parts = Parts { consumer: Some(crash), writers, ..parts(&sink) };
        let sidecar = Sidecar::start(&settings(), parts, Metrics::new()).await.expect("start");
        let end = sidecar.run(&Stop::default()).await;
        assert_eq!(end, End::Crashed { task: "reactive consumer", reason: reason.to_owned() });
    }
    assert_eq!(log.lock().expect("lock").len(), 2, "the audit was drained all the same");
}

#[tokio::test]
async fn what_was_not_done_is_told() {
    let (sink, log) = (MemorySink::default(), Arc::new(Mutex::new(Vec::new())));
    let mut settings = settings();
    // Long enough that the listeners can close after what does not end, on a busy machine too.
    settings.server.graceful_period = Some(Duration::from_millis(2400));
    let parts = Parts {
        consumer: Some(stoppable("reactive consumer", &log, std::future::pending())),
        close_producer: Some(Box::new(|_| std::future::ready(3).boxed())),
        ..parts(&sink)
    };
    let sidecar = Sidecar::start(&settings, parts, Metrics::new()).await.expect("start");
    let stop = Stop::default();
    stop.drain.cancel();
    let End::Left(left) = sidecar.run(&stop).await else { panic!("something was left") };
    assert_eq!(left, ["reactive consumer: it did not end in time", "3 records not acknowledged"]);
}

#[tokio::test]
async fn a_second_signal_cuts_the_shutdown_short() {
    let (sink, log) = (MemorySink::default(), Arc::new(Mutex::new(Vec::new())));
    let parts = Parts { consumer: Some(stoppable("reactive consumer", &log, std::future::pending())), ..parts(&sink) };
    let sidecar = Sidecar::start(&settings(), parts, Metrics::new()).await.expect("start");
    let stop = Stop::default();
    stop.drain.cancel();
    stop.cut.cancel();
    assert_eq!(sidecar.run(&stop).await, End::Left(vec!["cut short by a second signal".to_owned()]));
}

#[tokio::test]
async fn a_taken_probes_address_is_fatal_only_if_it_was_written_down() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let sink = MemorySink::default();
    let mut settings = settings();
    settings.sidecar.probes = Some(taken.local_addr().expect("address"));
    let sidecar = Sidecar::start(&settings, parts(&sink), Metrics::new()).await.expect("a warning only");
    assert_eq!(sidecar.probes_address(), None);
    settings.sidecar.probes_explicit = true;
    let error = Sidecar::start(&settings, parts(&sink), Metrics::new()).await.err().expect("taken");
    assert!(error.to_string().starts_with("the probes listener cannot be opened on 127.0.0.1:"), "{error}");
}

#[test]
fn the_budgets_add_up_and_a_quarter_is_for_producing() {
    let budgets = Budgets::new(1003);
    assert_eq!(budgets.bodies.limit() + budgets.producing.limit(), 250);
    let shares = budgets.shares().map(|(name, budget)| (name, budget.limit()));
    assert_eq!(shares[2..], [("fetched", 251), ("unpacked", 251), ("calls", 251)]);
    assert_eq!(budgets.largest_answer(), 753);
}
