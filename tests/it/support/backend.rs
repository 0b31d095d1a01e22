//! A backend that speaks HTTP/1.1 and does as a test says: answers, refuses, hangs, lies, cuts connections, goes and returns.
//!
//! It writes down every call and what became of it; [`History`] draws the conclusions. [`Backend`] is its main type.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::history::History;

/// One request with records.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// From 0, in the order in which calls began.
    pub(crate) number: usize,
    /// The connection that it came by.
    pub(crate) connection: u64,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) partition: i32,
    pub(crate) offsets: Vec<i64>,
    pub(crate) records: Vec<Value>,
}

/// What the backend does with a call.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// 200, a verdict for each record: all processed.
    Processed,
    /// 200, a verdict for each record: these offsets refused, the others processed.
    Refused(Vec<i64>),
    /// This status and body, whatever was asked.
    Literal(u16, String),
    /// The connection is closed without an answer.
    Close,
    /// The same after a while: a backend that works.
    After(Duration, Box<Reply>),
}

impl Reply {
    pub(crate) fn after(self, millis: u64) -> Self {
        Self::After(Duration::from_millis(millis), Box::new(self))
    }
}

type Script = dyn Fn(&Call) -> Reply + Send + Sync;

/// A running backend. It ends when it is dropped.
pub(crate) struct Backend {
    address: SocketAddr,
    tls: Option<tokio_rustls::TlsAcceptor>,
    shared: Arc<Shared>,
    serving: Mutex<Option<Serving>>,
}

struct Serving {
    accepting: JoinHandle<()>,
    gone: CancellationToken,
}

struct Shared {
    script: Box<Script>,
    history: Mutex<History>,
    changed: watch::Sender<usize>,
    held: watch::Sender<BTreeSet<i32>>,
    /// So many requests are cut off before their bodies are read.
    cuts: AtomicUsize,
    connections: AtomicU64,
}

impl Backend {
    /// Listens on a free port and does with each call what the script says.
    pub(crate) async fn start(script: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Result<Self> {
        Self::start_with(script, None).await
    }

    /// The same behind TLS.
    pub(crate) async fn start_tls(
        script: impl Fn(&Call) -> Reply + Send + Sync + 'static,
        tls: rustls::ServerConfig,
    ) -> Result<Self> {
        Self::start_with(script, Some(Arc::new(tls).into())).await
    }

    async fn start_with(
        script: impl Fn(&Call) -> Reply + Send + Sync + 'static,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let shared = Shared {
            script: Box::new(script),
            history: Mutex::default(),
            changed: watch::Sender::new(0),
            held: watch::Sender::new(BTreeSet::new()),
            cuts: AtomicUsize::new(0),
            connections: AtomicU64::new(0),
        };
        let address = listener.local_addr()?;
        let backend = Self { address, tls, shared: Arc::new(shared), serving: Mutex::default() };
        backend.serve(listener);
        Ok(backend)
    }

    /// `http://host:port`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.shared.history()
    }

    /// Waits until the history is as wanted; looked at after every event.
    pub(crate) async fn until(&self, what: &str, patience: Duration, wanted: impl Fn(&History) -> bool) -> Result<()> {
        let mut changed = self.shared.changed.subscribe();
        let met = changed.wait_for(|_| wanted(&self.history()));
        match tokio::time::timeout(patience, met).await {
            Ok(met) => met.map(drop).context("the backend lives"),
            Err(_) => anyhow::bail!("waited in vain until {what}: {}", self.history().summary()),
        }
    }

    /// A receiver that wakes at every event of the history.
    pub(crate) fn events(&self) -> watch::Receiver<usize> {
        self.shared.changed.subscribe()
    }

    /// Calls of this partition are not answered until it is released.
    pub(crate) fn hold(&self, partition: i32) {
        self.shared.held.send_if_modified(|held| held.insert(partition));
    }

    pub(crate) fn release(&self, partition: i32) {
        self.shared.held.send_if_modified(|held| held.remove(&partition));
    }

    /// The next requests are cut off before their bodies are read.
    pub(crate) fn cut(&self, requests: usize) {
        self.shared.cuts.store(requests, Ordering::SeqCst);
    }

    /// Stops listening and cuts every connection, as a process that is killed.
    pub(crate) async fn go(&self) {
        let serving = self.serving.lock().expect("not poisoned").take();
        if let Some(Serving { accepting, gone }) = serving {
            accepting.abort();
            // The listener is closed when its task is gone.
            let _ = accepting.await;
            gone.cancel();
        }
    }

    /// Listens again, on the same port.
    pub(crate) async fn come_back(&self) -> Result<()> {
        let listener = TcpListener::bind(self.address).await.context("the port of before")?;
        ensure!(self.serving.lock().expect("not poisoned").is_none(), "it is not gone");
        self.serve(listener);
        Ok(())
    }

    fn serve(&self, listener: TcpListener) {
        let (shared, tls, gone) = (self.shared.clone(), self.tls.clone(), CancellationToken::new());
        let cut = gone.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (shared, tls, cut) = (shared.clone(), tls.clone(), cut.clone());
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                shared.note(History::connected);
                tokio::spawn(async move {
                    let served = async {
                        match tls {
                            None => serve_connection(&shared, number, socket, &cut).await,
                            Some(tls) => match tls.accept(socket).await {
                                Ok(socket) => serve_connection(&shared, number, socket, &cut).await,
                                Err(error) => shared.history().handshake_failed(error.to_string()),
                            },
                        }
                    };
                    served.await;
                    shared.note(History::disconnected);
                });
            }
        });
        *self.serving.lock().expect("not poisoned") = Some(Serving { accepting, gone });
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.lock().expect("not poisoned").take() {
            serving.accepting.abort();
            serving.gone.cancel();
        }
    }
}

impl Shared {
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("no panic while it was held")
    }

    fn note<T>(&self, change: impl FnOnce(&mut History) -> T) -> T {
        let done = change(&mut self.history());
        self.changed.send_modify(|count| *count += 1);
        done
    }
}

/// Serves requests until the peer or the backend goes. Errors of the socket end it: the peer is to cope with that.
async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    connection: u64,
    socket: S,
    gone: &CancellationToken,
) {
    let mut socket = BufReader::new(socket);
    loop {
        let request = tokio::select! {
            request = read_request(shared, connection, &mut socket) => request,
            () = gone.cancelled() => return,
        };
        let Some(mut call) = request else { return };
        if call.offsets.is_empty() {
            // The health path.
            if socket.write_all(response(200, "OK").as_bytes()).await.is_err() {
                return;
            }
            continue;
        }
        call.number = shared.note(|history| history.began(&call));
        let reply = tokio::select! {
            reply = work(shared, &call) => reply,
            () = gone.cancelled() => None,
            // Nobody sends a second request before the first is answered: what can be read here is the end.
            _ = socket.fill_buf() => None,
        };
        let answer = match reply {
            Some(Reply::Literal(status, body)) => {
                shared.note(|history| history.failed(&call));
                response(status, &body)
            }
            Some(Reply::Processed) => verdicts(shared, &call, &[]),
            Some(Reply::Refused(offsets)) => verdicts(shared, &call, &offsets),
            Some(Reply::Close | Reply::After(..)) | None => {
                shared.note(|history| history.failed(&call));
                return;
            }
        };
        if socket.write_all(answer.as_bytes()).await.is_err() || closes(&call) {
            return;
        }
    }
}

fn closes(call: &Call) -> bool {
    call.headers.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
}

/// What the script says, once its time has come and the partition is not held.
async fn work(shared: &Shared, call: &Call) -> Option<Reply> {
    let mut reply = (shared.script)(call);
    while let Reply::After(time, then) = reply {
        tokio::time::sleep(time).await;
        reply = *then;
    }
    let mut held = shared.held.subscribe();
    held.wait_for(|held| !held.contains(&call.partition)).await.ok()?;
    Some(reply)
}

/// The answer; what it says is history before anybody can act on it.
fn verdicts(shared: &Shared, call: &Call, refused: &[i64]) -> String {
    shared.note(|history| history.settled(call));
    let verdicts = call.records.iter().zip(&call.offsets).map(|(record, offset)| {
        let processed = !refused.contains(offset);
        let stacktrace = (!processed).then_some("at line 1");
        json!({ "record": record, "processed": processed, "stacktrace": stacktrace })
    });
    response(200, &Value::from_iter(verdicts).to_string())
}

fn response(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} S\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// The next request; None at the end of the connection, or where it is cut.
async fn read_request<S: AsyncRead + Unpin>(
    shared: &Shared,
    connection: u64,
    socket: &mut BufReader<S>,
) -> Option<Call> {
    let mut line = String::new();
    if socket.read_line(&mut line).await.ok()? == 0 {
        return None;
    }
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        socket.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(Some(0), |text| text.parse().ok())?;
    let cut = |cuts: usize| cuts.checked_sub(1);
    if length > 0 && shared.cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, cut).is_ok() {
        return None;
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.ok()?;
    let records: Vec<Value> = if length == 0 { Vec::new() } else { serde_json::from_slice(&body).ok()? };
    let offsets = records.iter().filter_map(|record| record["offset"].as_i64()).collect();
    let partition = records.first().and_then(|record| record["partition"].as_i64()).unwrap_or(-1) as i32;
    Some(Call { number: 0, connection, path, headers, partition, offsets, records })
}
