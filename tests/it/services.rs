//! The real services that the tests run against: Apache Kafka and Apicurio Registry, without
//! containers, from the jars that `tests/services/pom.xml` pins.
//!
//! [`services`] starts both once per test process, in about five seconds. Everything that is
//! started here ends with the test process, however that ends: see [`Supervised`]. Needs a Unix
//! system.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, mem, process, thread};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// How long a broker may take until it serves clients. A restart after SIGKILL waits, within
/// this, until the session of the killed process has timed out.
const BROKER_READY_MAX: Duration = Duration::from_secs(60);
/// How long the registry may take until it answers.
const REGISTRY_READY_MAX: Duration = Duration::from_secs(60);
/// How long formatting the storage of a broker may take.
const FORMAT_MAX: Duration = Duration::from_secs(60);
/// How long Maven may take to fetch 200 MB, once per target directory.
pub const FETCH_MAX: Duration = Duration::from_secs(900);
/// How long a service may take to end by itself (SIGTERM) before it is killed.
const STOP_SECONDS_MAX: u32 = 5;
/// How often readiness is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long one look at an HTTP service may take.
const PROBE_MAX: Duration = Duration::from_secs(5);
/// How much of a log a failure shows.
const LOG_LINES_SHOWN: usize = 20;

/// Kafka 4 refuses to run on anything older.
const JAVA_VERSION_MIN: u32 = 17;
const BROKER_HEAP_MIB: u32 = 768;
const REGISTRY_HEAP_MIB: u32 = 256;
/// The partitions of Kafka's own topics: 50 by default, which only makes a start slower.
const INTERNAL_TOPIC_PARTITIONS: u32 = 2;
/// How long the cleaner rests when there was nothing to compact.
const CLEANER_REST_MS: u32 = 100;
/// How often transactions that ran into their timeout are looked for.
const TIMEOUT_CHECK_MS: u32 = 500;
/// An extra broker is there to be killed, and starts again only when the session of the killed
/// process is over: 9 s by default.
const EXTRA_BROKER_SESSION_MS: u32 = 2_000;
const EXTRA_BROKER_HEARTBEAT_MS: u32 = 500;
/// Members of a group that are killed on purpose are not waited for any longer: 6 s at least by default.
const EXTRA_BROKER_GROUP_SESSION_MS: u32 = 1_000;

/// Ports for services are below the ranges from which Linux and macOS take the local ports of
/// outgoing connections. The port of a killed broker stays free for its restart, and a client
/// that tries to reconnect meanwhile cannot connect to itself.
const PORT_MIN: u16 = 20_000;
const PORT_COUNT: u16 = 12_000;
/// Test processes that run at once begin to look this far apart.
const PORTS_PER_PROCESS: u16 = 24;

/// Where clients find the broker and the registry.
#[derive(Debug, Clone)]
pub struct Services {
    /// `host:port` of the broker.
    pub bootstrap: String,
    /// Base URL of the registry's Confluent-compatible API.
    pub registry: String,
}

/// The broker and the registry of this test process; the first call starts them.
///
/// `KAFKA_BOOTSTRAP` and `SCHEMA_REGISTRY_URL`, where set, name existing ones to use instead.
///
/// # Panics
/// If they cannot be started, with what to install or with the end of their log: tests that need
/// them never skip.
pub fn services() -> &'static Services {
    static STARTED: OnceLock<Result<Started, String>> = OnceLock::new();
    // A failure is kept too: a suite of tests must not wait for it once per test.
    match STARTED.get_or_init(|| start_services().map_err(|error| format!("{error:#}"))) {
        Ok(started) => &started.services,
        Err(reason) => panic!("cannot start the services of the tests: {reason}"),
    }
}

/// Services that run for the whole test process; `None` where an existing service is used.
struct Started {
    services: Services,
    _broker: Option<Broker>,
    _registry: Option<Supervised>,
}

fn start_services() -> Result<Started> {
    // At the same time, because each takes some seconds.
    let (broker, registry) = thread::scope(|scope| {
        let registry = scope.spawn(|| match existing("SCHEMA_REGISTRY_URL") {
            Some(url) => Ok((url, None)),
            None => start_registry().map(|(url, registry)| (url, Some(registry))),
        });
        let broker = match existing("KAFKA_BOOTSTRAP") {
            Some(bootstrap) => Ok((bootstrap, None)),
            None => start_broker(&Node::default()).map(|broker| (broker.bootstrap.clone(), Some(broker))),
        };
        let registry = registry.join().expect("starting the registry returns its errors");
        (broker, registry)
    });
    let (bootstrap, broker) = broker?;
    let (registry, registry_process) = registry?;
    Ok(Started { services: Services { bootstrap, registry }, _broker: broker, _registry: registry_process })
}

/// The value of an environment variable that names an existing service.
#[expect(clippy::disallowed_methods, reason = "settings of the tests are none of the program's configuration")]
fn existing(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|value| !value.is_empty())
}

/// A topic prefix that no other test uses, neither of this process nor of any other that shares
/// the broker: `test`, made fit for a topic name, and a suffix.
pub fn unique_prefix(test: &str) -> String {
    static RUN: OnceLock<u32> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // Random rather than the process id, which comes back on a broker that outlives its machines.
    let run = RUN.get_or_init(|| {
        let random = RandomState::new().hash_one(process::id());
        u32::try_from(random >> 32).expect("the upper half of 64 bits has 32")
    });
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name: String = test
        .chars()
        .map(|character| match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' => character,
            // Also `.` and `_`, which Kafka takes for the same character in its metrics.
            _ => '-',
        })
        .collect();
    format!("{name}-{run:08x}-{count}")
}

/// A broker; a test that kills it gets a separate one from [`broker`].
#[derive(Debug)]
pub struct Broker {
    /// `host:port`, also after a restart.
    pub bootstrap: String,
    controller_port: u16,
    directory: PathBuf,
    /// Further options of the Java machine.
    java: Vec<String>,
    /// Kafka, or a stand-in: the directory has an owner at any time.
    process: Supervised,
}

/// Starts an extra broker. It ends, and its data goes, when it is dropped.
///
/// # Panics
/// If it cannot be started, as [`services`] does.
pub fn broker() -> Broker {
    start_broker(&Node { may_die: true, ..Node::default() })
        .unwrap_or_else(|error| panic!("cannot start an extra broker: {error:#}"))
}

/// Starts an extra broker with further lines for its `server.properties`.
///
/// # Panics
/// If it cannot be started, as [`services`] does.
pub fn broker_with(settings: &str) -> Broker {
    start_broker(&Node { settings: settings.to_owned(), ..Node::default() })
        .unwrap_or_else(|error| panic!("cannot start an extra broker: {error:#}"))
}

/// Another listener of a broker, on the loopback interface, for clients that know it as `localhost`.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    pub name: &'static str,
    /// `SSL`, `SASL_SSL`, …
    pub protocol: &'static str,
    pub port: u16,
}

/// Starts an extra broker with further listeners, users (`SCRAM-SHA-512=[name=…,password=…]`), lines for its
/// `server.properties`, and options of the Java machine.
///
/// # Panics
/// If it cannot be started, as [`services`] does.
pub fn secured_broker(listeners: Vec<Listener>, users: Vec<String>, settings: String, java: Vec<String>) -> Broker {
    start_broker(&Node { listeners, users, settings, java, ..Node::default() })
        .unwrap_or_else(|error| panic!("cannot start a secured broker: {error:#}"))
}

/// Runs a tool of Kafka, e.g. `kafka.admin.AclCommand`. Returns what it prints.
///
/// # Panics
/// It fails.
pub fn kafka_tool(class: &str, arguments: &[&str]) -> String {
    let jars = jars().expect("Kafka was fetched");
    let output = Command::new("java")
        .args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-cp"])
        .arg(jars.join("kafka/*"))
        .arg(class)
        .args(arguments)
        .output()
        .expect("java runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{class} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Starts a second broker in the cluster of `first`, because topics can then have two replicas.
///
/// # Panics
/// If it cannot be started, as [`services`] does.
pub fn broker_beside(first: &Broker) -> Broker {
    start_broker(&Node { may_die: true, beside: Some(first.controller_port), ..Node::default() })
        .unwrap_or_else(|error| panic!("cannot start a second broker: {error:#}"))
}

/// Starts an extra broker that can also be reached through a proxy. A client that connects to
/// the returned address is told to come back to the port `advertised`. [`Broker::bootstrap`] and
/// the broker's own connections go around it.
///
/// # Panics
/// If it cannot be started, as [`services`] does.
pub fn broker_behind(advertised: u16) -> (Broker, SocketAddr) {
    let start = || -> Result<(Broker, SocketAddr)> {
        let port = free_port()?;
        let node = Node { second: Some((port, advertised)), ..Node::default() };
        Ok((start_broker(&node)?, (Ipv4Addr::LOCALHOST, port).into()))
    };
    start().unwrap_or_else(|error| panic!("cannot start a broker behind a proxy: {error:#}"))
}

/// The settings in which brokers differ.
#[derive(Default)]
struct Node {
    /// It is there to be killed: its session ends soon.
    may_die: bool,
    /// The ports of another listener: its own, and the one it advertises.
    second: Option<(u16, u16)>,
    /// The port of the controller whose cluster it joins; `None` for a separate cluster.
    beside: Option<u16>,
    /// Further listeners.
    listeners: Vec<Listener>,
    /// Users that the storage is formatted with.
    users: Vec<String>,
    /// Further lines for `server.properties`.
    settings: String,
    /// Further options of the Java machine.
    java: Vec<String>,
}

fn start_broker(node: &Node) -> Result<Broker> {
    let mut broker = Broker::format(node)?;
    broker.start()?;
    Ok(broker)
}

impl Broker {
    /// Ends the broker with SIGKILL. When this returns, the process is gone; its data stays.
    pub fn kill(&mut self) {
        let stand_in = Supervised::start("stand-in", &self.directory, ["tail", "-f", "/dev/null"])
            .expect("every system has sh and tail");
        mem::replace(&mut self.process, stand_in).leave();
    }

    /// Starts a killed broker again, on the same port and with the data of before.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn restart(&mut self) {
        self.start().unwrap_or_else(|error| panic!("cannot restart the extra broker: {error:#}"));
    }

    /// A configured broker with formatted storage, not yet running.
    fn format(node: &Node) -> Result<Self> {
        let jars = jars()?;
        let port = free_port()?;
        let (id, roles, controller_port, controller) = match node.beside {
            Some(controller_port) => (2, "broker", controller_port, String::new()),
            None => {
                let controller_port = free_port()?;
                (1, "broker,controller", controller_port, format!(",CONTROLLER://127.0.0.1:{controller_port}"))
            }
        };
        let listener = |port| format!(",SECOND://127.0.0.1:{port}");
        let (second, second_advertised) =
            node.second.map_or_else(Default::default, |(port, advertised)| (listener(port), listener(advertised)));
        let further = |host: &str| -> String {
            node.listeners.iter().map(|listener| format!(",{}://{host}:{}", listener.name, listener.port)).collect()
        };
        let protocols: String =
            node.listeners.iter().map(|listener| format!(",{}:{}", listener.name, listener.protocol)).collect();
        let session = if node.may_die {
            format!(
                "broker.session.timeout.ms={EXTRA_BROKER_SESSION_MS}\n\
                 broker.heartbeat.interval.ms={EXTRA_BROKER_HEARTBEAT_MS}\n\
                 group.min.session.timeout.ms={EXTRA_BROKER_GROUP_SESSION_MS}\n"
            )
        } else {
            String::new()
        };
        let directory = fresh_directory("kafka")?;
        fs::write(
            directory.path().join("server.properties"),
            format!(
                "process.roles={roles}\n\
                 node.id={id}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port}{controller}{second}{listening}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{port}{second_advertised}{advertised}\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECOND:PLAINTEXT{protocols}\n\
                 inter.broker.listener.name=PLAINTEXT\n\
                 controller.listener.names=CONTROLLER\n\
                 controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}\n\
                 log.dirs={data}\n\
                 auto.create.topics.enable=false\n\
                 default.replication.factor=1\n\
                 offsets.topic.num.partitions={INTERNAL_TOPIC_PARTITIONS}\n\
                 offsets.topic.replication.factor=1\n\
                 transaction.state.log.num.partitions={INTERNAL_TOPIC_PARTITIONS}\n\
                 transaction.state.log.replication.factor=1\n\
                 transaction.state.log.min.isr=1\n\
                 transaction.abort.timed.out.transaction.cleanup.interval.ms={TIMEOUT_CHECK_MS}\n\
                 group.initial.rebalance.delay.ms=0\n\
                 log.cleaner.backoff.ms={CLEANER_REST_MS}\n\
                 {session}{settings}",
                listening = further("127.0.0.1"),
                advertised = further("localhost"),
                settings = node.settings,
                data = directory.path().join("data").display(),
            ),
        )?;
        let directory = directory.keep();
        let mut format = java_command(&directory, BROKER_HEAP_MIB);
        format.extend([
            "-cp".into(),
            jars.join("kafka/*").display().to_string(),
            "kafka.tools.StorageTool".into(),
            "format".into(),
            "--cluster-id".into(),
            // The same for all: nothing here tells clusters apart.
            "c2NpbXRhaWwtdGVzdHMtMQ".into(),
            "--config".into(),
            directory.join("server.properties").display().to_string(),
        ]);
        if node.beside.is_none() {
            format.push("--standalone".into());
        }
        for user in &node.users {
            format.extend(["--add-scram".to_owned(), user.clone()]);
        }
        let process = Supervised::start("format", &directory, format)?
            .finish(FORMAT_MAX)
            .context("cannot format the storage of a Kafka broker")?;
        let java = node.java.clone();
        Ok(Self { bootstrap: format!("127.0.0.1:{port}"), controller_port, directory, java, process })
    }

    fn start(&mut self) -> Result<()> {
        let mut command = java_command(&self.directory, BROKER_HEAP_MIB);
        command.extend(self.java.clone());
        command.extend([
            "-cp".into(),
            jars()?.join("kafka/*").display().to_string(),
            "kafka.Kafka".into(),
            self.directory.join("server.properties").display().to_string(),
        ]);
        let kafka = Supervised::start("kafka", &self.directory, command)?;
        mem::replace(&mut self.process, kafka).leave();
        // Its port accepts connections before the broker may lead partitions; this line comes
        // after both.
        self.process.wait_until(BROKER_READY_MAX, |log| log.lines().any(|line| line.ends_with("Kafka Server started")))
    }
}

/// Starts a registry that keeps everything in memory; returns its URL.
fn start_registry() -> Result<(String, Supervised)> {
    const API: &str = "/apis/ccompat/v7";
    let jars = jars()?;
    let directory = fresh_directory("apicurio")?;
    let port = free_port()?;
    let runner = find(&jars.join("apicurio"), "-runner.jar")?;
    let mut command = java_command(directory.path(), REGISTRY_HEAP_MIB);
    command.extend([
        "-Dquarkus.http.host=127.0.0.1".into(),
        format!("-Dquarkus.http.port={port}"),
        "-jar".into(),
        runner.display().to_string(),
    ]);
    let registry = Supervised::start("apicurio", &directory.keep(), command)?;
    let subjects = format!("{API}/subjects");
    registry.wait_until(REGISTRY_READY_MAX, |_log| http_status(port, &subjects) == Some(200))?;
    Ok((format!("http://127.0.0.1:{port}{API}"), registry))
}

/// `java` with the options that all services share.
pub fn java_command(directory: &Path, heap_mib: u32) -> Vec<String> {
    vec![
        "java".into(),
        format!("-Xmx{heap_mib}m"),
        "-XX:+UseSerialGC".into(),
        // Services that live for a minute: half the start-up time without the optimising compiler.
        "-XX:TieredStopAtLevel=1".into(),
        // No files outside the directory, which a killed process would leave behind.
        "-XX:-UsePerfData".into(),
        format!("-Djava.io.tmpdir={}", directory.display()),
    ]
}

/// The directory with the jars of the services; the first call in a target directory fetches them.
fn jars() -> Result<&'static Path> {
    static JARS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    JARS.get_or_init(|| fetch_jars().map_err(|error| format!("{error:#}")))
        .as_deref()
        .map_err(|reason| anyhow::Error::msg(reason.clone()))
}

fn fetch_jars() -> Result<PathBuf> {
    const HINT: &str = "Maven fetches Kafka and the registry: \
         apt-get install maven (Debian, Ubuntu), brew install maven (macOS)";
    require_java()?;
    built_once("services", include_str!("../services/pom.xml"), |directory| {
        require("mvn", HINT)?;
        let services_directory = format!("-Dservices.dir={}", directory.display());
        let fetch = [
            "mvn",
            "--quiet",
            "--batch-mode",
            "--file",
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/pom.xml"),
            "package",
            &services_directory,
        ];
        Supervised::start("mvn", directory, fetch)?
            .finish(FETCH_MAX)
            .context("Maven cannot fetch Kafka and the registry")
    })
}

pub fn require_java() -> Result<()> {
    const HINT: &str = "Kafka, the registry and Keycloak need Java 17 or newer: \
         apt-get install openjdk-17-jre-headless (Debian, Ubuntu), brew install openjdk (macOS)";
    let version = require("java", HINT)?;
    let major =
        version.split_whitespace().nth(1).and_then(|number| number.split(['.', '-', '+']).next()?.parse::<u32>().ok());
    match major {
        Some(major) if major < JAVA_VERSION_MIN => {
            bail!("java is too old ({}). {HINT}", version.trim())
        }
        // A Java with an unknown version format may still work.
        Some(_) | None => Ok(()),
    }
}

/// The first line of `program --version`; an error with `hint` if it is missing.
pub fn require(program: &str, hint: &str) -> Result<String> {
    let output = match Command::new(program).arg("--version").output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("{program} is not installed. {hint}")
        }
        Err(error) => return Err(error).with_context(|| format!("cannot run {program}. {hint}")),
    };
    // macOS has a `java` that only says that there is none.
    if !output.status.success() {
        bail!("{program} does not work ({}). {hint}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// A directory of the target directory that `build` fills once, for as long as `definition`
/// stays the same. Test processes that build it at once do not disturb each other: each fills a
/// separate directory, and the first that finishes gives its directory the name.
pub fn built_once(name: &str, definition: &str, build: impl FnOnce(&Path) -> Result<Supervised>) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    definition.hash(&mut hasher);
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{:016x}", hasher.finish()));
    if built.exists() {
        return Ok(built);
    }
    let directory = fresh_directory(name)?;
    let owner = build(directory.path())?;
    match fs::rename(directory.path(), &built) {
        // The owner finds nothing to remove any more.
        Ok(()) => owner.leave(),
        // Renaming onto a directory that is not empty fails: another process was first.
        Err(_) if built.exists() => drop(owner),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot create {}", built.display()));
        }
    }
    Ok(built)
}

/// A new, empty directory in the target directory. `keep` it for the [`Supervised`] that owns it.
pub fn fresh_directory(name: &str) -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix(&format!("{name}-"))
        .suffix("-running")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .context("cannot create a directory in the target directory")
}

/// The file in `directory` whose name ends with `suffix`.
fn find(directory: &Path, suffix: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.as_os_str().to_string_lossy().ends_with(suffix) {
            return Ok(path);
        }
    }
    bail!("{} holds no *{suffix}", directory.display())
}

/// A port of 127.0.0.1 without a listener that this process has not handed out before.
pub fn free_port() -> Result<u16> {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let processes = u32::from(PORT_COUNT / PORTS_PER_PROCESS);
    let slot = u16::try_from(process::id() % processes).expect("there are fewer slots than ports");
    for _ in 0..PORT_COUNT {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed) % PORT_COUNT;
        let port = PORT_MIN + (slot * PORTS_PER_PROCESS + tried) % PORT_COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("all ports from {PORT_MIN} on are in use")
}

/// The status with which `GET path` is answered on a port of 127.0.0.1; `None` while it is not.
///
/// By hand, because the callers may run inside a test's runtime, where nothing can be awaited.
pub fn http_status(port: u16, path: &str) -> Option<u16> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PROBE_MAX).ok()?;
    stream.set_read_timeout(Some(PROBE_MAX)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n").ok()?;
    let mut status_line = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut status_line).ok()?;
    str::from_utf8(&status_line).ok()?.split(' ').nth(1)?.parse().ok()
}

/// A process that ends when the test process does, be it by success, failure, Ctrl-C or SIGKILL.
///
/// It runs under a small supervisor in a separate process group. This struct holds the standard
/// input of the supervisor open. When that closes, the supervisor ends the process and removes
/// the directory. The supervisor outlives the process, so the directory never lacks an owner:
/// the next process in a directory is started first, and then the one before it may
/// [`leave`](Self::leave).
#[derive(Debug)]
pub struct Supervised {
    name: &'static str,
    directory: PathBuf,
    supervisor: Child,
    /// Taken when it is closed. Rust opens pipes in such a way that no other child process
    /// inherits them: nothing else holds this one open.
    orders: Option<ChildStdin>,
}

/// The supervisor in POSIX shell; its arguments are `DIRECTORY NAME STOP_TICKS COMMAND…`.
///
/// Its standard input tells it what to do. The end of that input is an order too: the kernel
/// closes it when the test process ends, for any reason.
const SUPERVISOR: &str = r#"
directory=$1 ended=$1/$2.ended ticks=$3
shift 3
# A terminal that goes away ends the test process, and only that end is to end the service.
trap '' HUP INT
exec 3<&0
"$@" </dev/null 3<&- &
service=$!
# The supervisor survives the signal that it sends to its group, and no other process stops it.
trap '' TERM
{
    if read -r order <&3; then
        # The only order in words: leave.
        [ -e "$ended" ] || kill -KILL "$service"
        exit 0
    fi
    # The group: the service may have child processes.
    kill -TERM 0
    while [ ! -e "$ended" ] && [ "$ticks" -gt 0 ]; do
        sleep 0.1
        ticks=$((ticks - 1))
    done
    [ -e "$ended" ] || kill -KILL "$service"
    exit 1
} &
listener=$!
wait "$service"
echo "$?" >"$ended"
# Once more if a child process was still writing when it was told to end.
wait "$listener" || rm -rf "$directory" || { sleep 1; rm -rf "$directory"; }
"#;
/// How often the supervisor looks whether the process has ended.
const STOP_TICKS_PER_SECOND: u32 = 10;

impl Supervised {
    /// Starts `command`, which from now on owns `directory`. Its output goes to `NAME.log` there.
    pub fn start(
        name: &'static str,
        directory: &Path,
        command: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Self> {
        let process = || directory.join(name);
        // Left by a process of the same name, if this is a restart.
        match fs::remove_file(process().with_extension("ended")) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let log = File::create(process().with_extension("log"))?;
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "supervisor"])
            .arg(directory)
            .arg(name)
            .arg((STOP_SECONDS_MAX * STOP_TICKS_PER_SECOND).to_string())
            .args(command)
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C goes to the process group of the terminal, and this is not to be in it.
            .process_group(0)
            .spawn()
            .context("cannot run sh")?;
        Ok(Self { name, directory: directory.to_owned(), orders: supervisor.stdin.take(), supervisor })
    }

    /// Waits until `ready`, which is given the log.
    pub fn wait_until(&self, bound: Duration, mut ready: impl FnMut(&str) -> bool) -> Result<()> {
        let deadline = Instant::now() + bound;
        while !ready(&self.file("log")) {
            if let Some(status) = self.status() {
                bail!("{} ended with status {status}.{}", self.name, self.end_of_log());
            }
            if Instant::now() >= deadline {
                bail!("{} was not ready after {bound:?}.{}", self.name, self.end_of_log());
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Waits until the process has ended, which must be with success. It keeps the directory.
    pub fn finish(self, bound: Duration) -> Result<Self> {
        let deadline = Instant::now() + bound;
        loop {
            match self.status() {
                Some(0) => return Ok(self),
                Some(status) => {
                    bail!("{} failed with status {status}.{}", self.name, self.end_of_log())
                }
                None if Instant::now() >= deadline => {
                    bail!("{} still runs after {bound:?}.{}", self.name, self.end_of_log())
                }
                None => thread::sleep(POLL_INTERVAL),
            }
        }
    }

    /// Leaves the directory as it is to its present owner: a process that still runs is ended
    /// with SIGKILL, and is gone when this returns.
    pub fn leave(mut self) {
        if let Some(mut orders) = self.orders.take() {
            orders.write_all(b"leave\n").expect("a supervisor listens until it is told to end");
            self.wait();
        }
    }

    fn wait(&mut self) {
        self.supervisor.wait().expect("a child process can be waited for");
    }

    /// The exit status of the process, once it has ended.
    fn status(&self) -> Option<i32> {
        self.file("ended").trim().parse().ok()
    }

    fn end_of_log(&self) -> String {
        let log = self.file("log");
        let lines: Vec<&str> = log.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        format!(" The end of its log:\n{}", shown.join("\n"))
    }

    fn file(&self, extension: &str) -> String {
        let path = self.directory.join(self.name).with_extension(extension);
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if let Some(orders) = self.orders.take() {
            drop(orders);
            self.wait();
        }
    }
}
