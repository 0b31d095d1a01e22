//! Real Apache Kafka: got by Maven, started by this process, gone with it.
//!
//! The jars are kept under `target/kafka/<version>`. Each broker is a JVM behind a small shell that reads this process's
//! pipe: when the pipe closes, for whatever reason, the shell kills the JVM, so an interrupted run leaves nothing behind.
//! Another shell waits in the same way to remove what the cluster has stored. What the brokers logged last stays under
//! `target/kafka/logs`.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

/// The versions that every behaviour is tested on.
pub(crate) const VERSIONS: [&str; 2] = ["4.3.1", "3.9.2"];
/// How long a broker may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// Runs a JVM, sends it the signals that it is told by name, and ends with it. It is killed when there is nobody to tell
/// more. The JVM gets /dev/null as input; only the shells hold the pipe.
const KEEPER: &str = r#"exec 3<&0
"$@" </dev/null 3<&- & jvm=$!
{ while read -r signal; do kill -s "$signal" $jvm; done; kill -9 $jvm; } <&3 & reader=$!
trap 'kill -9 $jvm' TERM
wait $jvm; kill $reader; wait"#;

/// Removes a directory once the pipe is closed. Whoever writes there is being killed meanwhile.
const CLEANER: &str =
    r#"trap '' INT TERM; cat >/dev/null; for try in 1 2 3 4 5; do rm -rf "$1" && exit; sleep 1; done"#;

/// A cluster of real brokers. Each is killed when it is dropped.
pub(crate) struct Kafka {
    version: &'static str,
    directory: PathBuf,
    nodes: Vec<Mutex<Node>>,
    /// Names and ports of the further listeners of a single node.
    listeners: Vec<(String, u16)>,
    cleaner: Option<Child>,
}

struct Node {
    port: u16,
    properties: PathBuf,
    log: PathBuf,
    shell: Option<Child>,
}

/// What can be sent to a broker's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// It ends at once.
    Kill,
    /// It hands its leaderships over and ends.
    Terminate,
    /// It stands still with all its sockets open.
    Stop,
    Continue,
}

/// The one-node cluster of a version that all tests of a run share; None (and a line on stderr) where there is no Java or
/// no Maven. With `CI=true` that is a failure.
pub(crate) fn shared(version: &'static str, test: &str) -> Option<&'static Kafka> {
    static SHARED: [OnceLock<Option<Kafka>>; VERSIONS.len()] = [const { OnceLock::new() }; VERSIONS.len()];
    let index = VERSIONS.iter().position(|known| *known == version).expect("a version of the list");
    let kafka = SHARED[index].get_or_init(|| match missing() {
        Some(_) => None,
        None => {
            Some(Kafka::start(version, 1).unwrap_or_else(|error| panic!("Kafka {version} does not start: {error:#}")))
        }
    });
    if kafka.is_none() {
        skip(test, missing().unwrap_or("a part"), "openjdk-17-jdk-headless maven");
    }
    kafka.as_ref()
}

/// Says that a test did not run and why, where `.ci/run` counts it; `packages` are Debian's.
pub(crate) fn skip(test: &str, missing: &str, packages: &str) {
    assert!(std::env::var("CI").is_err(), "{test} needs {missing}, and a CI run must not leave it out");
    let line = format!("NOT RUN: {test} needs {missing} (Debian: apt-get install {packages})");
    eprintln!("{line}");
    let report = target_directory().join("tests-not-run");
    let mut file = fs::OpenOptions::new().create(true).append(true).open(report).expect("target can be written");
    writeln!(file, "{line}").expect("target can be written");
}

/// What real brokers need and this machine lacks.
pub(crate) fn missing() -> Option<&'static str> {
    let runs = |program: &str, argument: &str| {
        Command::new(program)
            .arg(argument)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    static MISSING: OnceLock<Option<&'static str>> = OnceLock::new();
    *MISSING.get_or_init(|| match (runs("java", "-version"), runs("mvn", "-version")) {
        (true, true) => None,
        (false, _) => Some("a Java runtime (17 or newer)"),
        (true, false) => Some("Maven"),
    })
}

pub(crate) fn target_directory() -> PathBuf {
    let exe = std::env::current_exe().expect("the test binary has a path");
    // target/<profile>/deps/it-…
    exe.ancestors().nth(3).expect("the test binary lies in the target directory").to_owned()
}

/// The class path of a Kafka version, fetched by Maven the first time.
pub(crate) fn jars(version: &str) -> Result<PathBuf> {
    let directory = target_directory().join("kafka").join(version);
    let (lib, done) = (directory.join("lib"), directory.join("complete"));
    fs::create_dir_all(&directory)?;
    let lock = fs::File::create(directory.join("lock"))?;
    lock.lock().context("locking the jars' directory")?;
    if done.exists() {
        return Ok(lib);
    }
    eprintln!("fetching Apache Kafka {version} by Maven (once; about 54 MB)");
    fs::write(directory.join("pom.xml"), include_str!("kafka-pom.xml").replace("KAFKA_VERSION", version))?;
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(directory.join("pom.xml"))
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", lib.display()))
        .output()
        .context("running mvn")?;
    ensure!(output.status.success(), "mvn failed: {}", String::from_utf8_lossy(&output.stdout));
    fs::write(done, "")?;
    Ok(lib)
}

impl Kafka {
    /// Starts a cluster of combined broker and controller nodes.
    pub(crate) fn start(version: &'static str, nodes: usize) -> Result<Self> {
        Self::start_with(version, nodes, &[])
    }

    /// Starts a cluster with more broker properties.
    pub(crate) fn start_with(version: &'static str, count: usize, more: &[(&str, &str)]) -> Result<Self> {
        Self::start_listening(version, count, &[], &[], more)
    }

    /// Starts a cluster with more listeners (name and security protocol), SCRAM users (`SCRAM-SHA-256=[name=…,password=…]`)
    /// and broker properties.
    pub(crate) fn start_listening(
        version: &'static str,
        count: usize,
        listeners: &[(&str, &str)],
        scram: &[&str],
        more: &[(&str, &str)],
    ) -> Result<Self> {
        static CLUSTERS: AtomicUsize = AtomicUsize::new(0);
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let lib = jars(version)?;
        let root = target_directory().join("kafka");
        let directory = tempfile::Builder::new().prefix("kafka-").tempdir_in(&root)?.keep();
        let mut cleaner = Command::new("sh");
        cleaner.args(["-c", CLEANER, "cleaner"]).arg(&directory).stdin(Stdio::piped());
        let mut kafka = Self {
            version,
            directory: directory.clone(),
            nodes: Vec::new(),
            listeners: listeners.iter().map(|(name, _)| (*name).to_owned()).zip(free_ports(listeners.len())?).collect(),
            cleaner: Some(cleaner.spawn().context("starting a shell")?),
        };
        fs::create_dir_all(root.join("logs"))?;
        let ports: Vec<(u16, u16)> = free_ports(count * 2)?.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let voters: Vec<String> =
            ports.iter().enumerate().map(|(index, (_, port))| format!("{}@127.0.0.1:{port}", index + 1)).collect();
        for (index, (port, controller)) in ports.iter().enumerate() {
            let id = index + 1;
            let properties = directory.join(format!("node-{id}.properties"));
            let further = kafka.listeners.iter().map(|(name, port)| format!(",{name}://127.0.0.1:{port}"));
            let further: String = further.collect();
            let protocols: String = listeners.iter().map(|(name, protocol)| format!(",{name}:{protocol}")).collect();
            let mut text = format!(
                "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{further}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{port}{further}\ncontroller.listener.names=CONTROLLER\n\
                 inter.broker.listener.name=PLAINTEXT\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}\nlog.dirs={}\n",
                voters.join(","),
                directory.join(format!("data-{id}")).display(),
            );
            let replicas = count.min(3);
            for topic in ["offsets.topic", "transaction.state.log", "share.coordinator.state.topic"] {
                text += &format!("{topic}.replication.factor={replicas}\n");
            }
            text += &format!(
                "transaction.state.log.min.isr=1\nshare.coordinator.state.topic.min.isr=1\n\
                 default.replication.factor={replicas}\nmin.insync.replicas={}\n",
                if count >= 3 { 2 } else { 1 }
            );
            text += "offsets.topic.num.partitions=5\ntransaction.state.log.num.partitions=5\n\
                 group.initial.rebalance.delay.ms=0\ngroup.min.session.timeout.ms=1000\nbroker.session.timeout.ms=3000\n\
                 group.coordinator.rebalance.protocols=classic,consumer\nnum.partitions=3\n\
                 log.retention.check.interval.ms=1000\n";
            // Tests write records that are older than a week; retention is for the topics that ask for it.
            text += "log.retention.ms=-1\n";
            for (key, value) in more {
                text += &format!("{key}={value}\n");
            }
            fs::write(&properties, text)?;
            let formatted = java(&lib)
                .args(["kafka.tools.StorageTool", "format", "-t", "AAAAAAAAQACAAAAAAAAAAA", "-c"])
                .arg(&properties)
                .args(scram.iter().flat_map(|user| ["--add-scram", user]))
                .output()
                .context("running StorageTool")?;
            ensure!(
                formatted.status.success(),
                "formatting failed: {}{}",
                String::from_utf8_lossy(&formatted.stdout),
                String::from_utf8_lossy(&formatted.stderr)
            );
            let log = root.join("logs").join(format!("cluster-{number}-{version}-node-{id}.log"));
            fs::write(&log, "")?;
            kafka.nodes.push(Mutex::new(Node { port: *port, properties, log, shell: None }));
        }
        kafka.start_again()?;
        Ok(kafka)
    }

    /// `host:port` of every node.
    pub(crate) fn bootstrap(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.lock().expect("not poisoned").port)).collect()
    }

    pub(crate) fn bootstrap_servers(&self) -> String {
        self.bootstrap().join(",")
    }

    /// The address of a further listener.
    pub(crate) fn listener(&self, name: &str) -> String {
        let (_, port) = self.listeners.iter().find(|(known, _)| known == name).expect("a listener that was asked for");
        format!("127.0.0.1:{port}")
    }

    pub(crate) fn version(&self) -> &'static str {
        self.version
    }

    /// The directory where a node keeps a partition.
    pub(crate) fn log_directory(&self, index: usize, topic: &str, partition: i32) -> PathBuf {
        self.directory.join(format!("data-{}", index + 1)).join(format!("{topic}-{partition}"))
    }

    pub(crate) fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Sends a signal; waits for the end of a process that is to end.
    pub(crate) fn signal(&self, index: usize, signal: Signal) -> Result<()> {
        let mut node = self.nodes[index].lock().expect("not poisoned");
        let (name, ends) = match signal {
            Signal::Kill => ("KILL", true),
            Signal::Terminate => ("TERM", true),
            Signal::Stop => ("STOP", false),
            Signal::Continue => ("CONT", false),
        };
        let shell = node.shell.as_mut().with_context(|| format!("node {} does not run", index + 1))?;
        writeln!(shell.stdin.as_mut().context("a pipe")?, "{name}")?;
        if ends {
            shell.wait()?;
            node.shell = None;
        }
        Ok(())
    }

    /// Starts every node that does not run, with what it had stored, and waits until it listens. One alone of several does
    /// not, while it finds no quorum.
    pub(crate) fn start_again(&self) -> Result<()> {
        let away: Vec<usize> = (0..self.nodes.len()).filter(|index| !self.is_running(*index)).collect();
        away.iter().try_for_each(|index| self.launch(*index))?;
        away.iter().try_for_each(|index| self.wait_until_open(*index))
    }

    fn is_running(&self, index: usize) -> bool {
        self.nodes[index].lock().expect("not poisoned").shell.is_some()
    }

    /// A tool of `kafka-tools`, with its class and arguments still to be given.
    pub(crate) fn tool(&self) -> Command {
        java(&jars(self.version).expect("they are there: the broker runs from them"))
    }

    fn launch(&self, index: usize) -> Result<()> {
        let lib = jars(self.version)?;
        let mut node = self.nodes[index].lock().expect("not poisoned");
        let log = fs::OpenOptions::new().append(true).open(&node.log)?;
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "kafka", "java", "-Xmx512m"]);
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
        command.arg(format!("{}/*", lib.display())).arg("kafka.Kafka").arg(&node.properties);
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        node.shell = Some(command.spawn().context("starting a broker")?);
        Ok(())
    }

    fn wait_until_open(&self, index: usize) -> Result<()> {
        let (port, log) = {
            let node = self.nodes[index].lock().expect("not poisoned");
            (node.port, node.log.clone())
        };
        let until = Instant::now() + START_TIMEOUT;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > until {
                bail!("node {} does not answer: {}", index + 1, fs::read_to_string(log)?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let shells = self.nodes.iter_mut().filter_map(|node| node.get_mut().expect("not poisoned").shell.take());
        shells.chain(self.cleaner.take()).for_each(end);
    }
}

/// Closing the pipe is the order; waiting makes sure of it.
fn end(mut shell: Child) {
    drop(shell.stdin.take());
    let _ = shell.wait();
}

fn java(lib: &Path) -> Command {
    let mut command = Command::new("java");
    command
        .args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"])
        .arg(format!("{}/*", lib.display()));
    command
}

/// Ports that were free a moment ago.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
    Ok(listeners.iter().map(|listener| listener.local_addr().map(|a| a.port())).collect::<std::io::Result<_>>()?)
}
