//! A real Apache Kafka, got by Maven and started by this process; gone with it.
//!
//! One node with the JVM's default JIT: what short tests want (a quick start) is not what is to be measured.

use std::{
    fs,
    io::Read as _,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

pub(crate) const VERSION: &str = "4.3.1";
const START_TIMEOUT: Duration = Duration::from_secs(90);

pub(crate) struct Kafka {
    address: String,
    shell: Child,
    _directory: tempfile::TempDir,
}

impl Kafka {
    pub(crate) fn start() -> Result<Self> {
        let root = repository().join("target/kafka");
        let lib = jars(&root)?;
        let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(&root)?;
        let [port, controller] = free_ports()?;
        let properties = directory.path().join("node.properties");
        let text = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=PLAINTEXT\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\nlog.dirs={}\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=5\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\nlog.segment.delete.delay.ms=1000\n",
            directory.path().join("data").display(),
        );
        fs::write(&properties, text)?;
        let class_path = format!("{}/*", lib.display());
        let formatted = Command::new("java")
            .args(["-XX:TieredStopAtLevel=1", "-cp", &class_path, "kafka.tools.StorageTool", "format"])
            .args(["-t", "AAAAAAAAQACAAAAAAAAAAA", "-c"])
            .arg(&properties)
            .output()
            .context("running java (17 or newer is needed)")?;
        ensure!(formatted.status.success(), "StorageTool: {}", String::from_utf8_lossy(&formatted.stderr));
        let log = directory.path().join("log");
        let output = fs::File::create(&log)?;
        // The shell reads this process's pipe: when it closes, for whatever reason, the JVM is killed.
        let script = r#""$@" </dev/null & jvm=$!; trap 'kill -9 $jvm' TERM; cat >/dev/null; kill -9 $jvm; wait"#;
        let shell = Command::new("sh")
            .args(["-c", script, "kafka", "java", "-Xms1g", "-Xmx1g", "-cp", &class_path, "kafka.Kafka"])
            .arg(&properties)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("starting the broker")?;
        let kafka = Self { address: format!("127.0.0.1:{port}"), shell, _directory: directory };
        let until = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(&kafka.address).is_err() {
            if Instant::now() > until {
                bail!("the broker does not answer: {}", fs::read_to_string(&log)?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(kafka)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// The sub-command `broker`.
pub(crate) fn keep() -> Result<()> {
    let kafka = Kafka::start()?;
    println!("{}", kafka.address());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

pub(crate) fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The class path, which the tests of the repository use as well.
fn jars(root: &Path) -> Result<PathBuf> {
    let directory = root.join(VERSION);
    let (lib, done) = (directory.join("lib"), directory.join("complete"));
    fs::create_dir_all(&directory)?;
    let lock = fs::File::create(directory.join("lock"))?;
    lock.lock().context("locking the jars' directory")?;
    if done.exists() {
        return Ok(lib);
    }
    eprintln!("fetching Apache Kafka {VERSION} by Maven (once; about 54 MB)");
    let pom = directory.join("pom.xml");
    fs::write(&pom, include_str!("../../tests/it/support/kafka-pom.xml").replace("KAFKA_VERSION", VERSION))?;
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", lib.display()))
        .output()
        .context("running mvn")?;
    ensure!(output.status.success(), "mvn failed: {}", String::from_utf8_lossy(&output.stdout));
    fs::write(done, "")?;
    Ok(lib)
}

/// Ports that were free a moment ago.
pub(crate) fn free_ports() -> Result<[u16; 2]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()])
}
