//! How a process ends while something of it is at work.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{Method, StatusCode, Uri, header};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpSocket;
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use crate::broker::directory::LargeDirectory;
use crate::injected::client;
use crate::program::{AccountText, Program, await_line};
use crate::services::{Services, free_port, services, unique_prefix};
use crate::tls::Ca;

/// Of one process: enough that some of them are inside OpenSSL at every moment.
const CLIENTS: usize = 30;
/// Handshakes before a process is told to end.
const HANDSHAKES: usize = 300;
/// A quarter of them ended by a signal.
const PROCESSES: usize = 20;
/// Names the broker to the process that ends.
const BROKER: &str = "SCIMTAIL_TEST_BROKER";

/// Connections that wait to be accepted, besides one.
const BACKLOG: u32 = 1;
/// Between two looks.
const POLL: Duration = Duration::from_millis(20);

/// OpenSSL must not free what it has while threads of librdkafka use it: the process would end by SIGSEGV.
#[test]
fn a_process_ends_with_its_own_exit_code_while_its_clients_connect_by_tls() {
    if let Ok(brokers) = std::env::var(BROKER) {
        return connect_until_told(brokers);
    }
    let broker = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = broker.local_addr().expect("its address").to_string();
    let this = std::env::current_exe().expect("the path of this program");
    let name = "ending::a_process_ends_with_its_own_exit_code_while_its_clients_connect_by_tls";
    for process in 0..PROCESSES {
        let mut ending = Command::new(&this)
            .args([name, "--exact", "--nocapture"])
            .env(BROKER, &address)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("this program starts again");
        for _ in 0..HANDSHAKES {
            let (mut connection, _) = broker.accept().expect("a connection");
            // No TLS: the client reads it, frees what it has, and connects again.
            drop(connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        }
        drop(ending.stdin.take());
        let ended = ending.wait().expect("it ends");
        assert!(ended.success(), "process {process}: {ended}");
    }
}

/// Ends the process when its standard input ends.
fn connect_until_told(brokers: String) {
    // The CAs of the machine would take most of the time.
    let ca = Ca::new().pem();
    let properties = [
        ("security.protocol", "ssl"),
        ("ssl.ca.pem", &ca),
        ("reconnect.backoff.ms", "0"),
        ("reconnect.backoff.max.ms", "1"),
    ];
    let client = client(brokers, &properties);
    let _clients: Vec<_> = (0..CLIENTS).map(|_| client.reader("read_committed").expect("a client")).collect();
    std::io::stdin().read_to_end(&mut Vec::new()).expect("the end of standard input");
    std::process::exit(0);
}

/// The registry, until it accepts no connection any more.
struct Registry {
    /// Open as long as this lives, also when nothing accepts.
    socket: TcpListener,
    serving: AbortOnDropHandle<std::io::Result<()>>,
}

impl Registry {
    fn start() -> Registry {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let answer = move |method: Method, uri: Uri, body: Bytes| {
            let request = client.request(method, format!("{}{uri}", services().registry)).body(body);
            let request = request.header(header::CONTENT_TYPE, "application/vnd.schemaregistry.v1+json");
            async move {
                let answer = request.send().await.expect("the registry answers");
                let status = StatusCode::from_u16(answer.status().as_u16()).expect("a status");
                (status, [(header::CONNECTION, "close")], answer.bytes().await.expect("a body"))
            }
        };
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
        let listener = socket.listen(BACKLOG).expect("it listens");
        let socket = listener.into_std().expect("a socket");
        let listener = tokio::net::TcpListener::from_std(socket.try_clone().expect("the same")).expect("a socket");
        let served = async move { axum::serve(listener, Router::new().fallback(answer)).await };
        Registry { socket, serving: AbortOnDropHandle::new(tokio::spawn(served)) }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("its address")
    }

    /// From now on a client waits until it is connected.
    async fn hang(&self) -> Vec<TcpStream> {
        self.serving.abort();
        while !self.serving.is_finished() {
            tokio::task::yield_now().await;
        }
        // Linux answers no further connection when the queue of those that wait to be accepted is full.
        (0..=BACKLOG).map(|_| TcpStream::connect(self.address()).expect("a place in the queue")).collect()
    }

    /// Waits until a client waits until it is connected.
    async fn asked(&self) {
        const SYN_SENT: &str = "02";
        let remote = format!("0100007F:{:04X}", self.address().port());
        let waits = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(2..4) == Some(&[remote.as_str(), SYN_SENT])
        };
        while !std::fs::read_to_string("/proc/net/tcp").expect("Linux says").lines().any(waits) {
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The page reads records on threads that ask the registry, and such a thread uses the runtime.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_ends_without_a_panic_while_its_page_waits_for_the_registry() {
    let directory = LargeDirectory::start(2, 0, 0, 10, "ending-token").await;
    let account = AccountText { name: "acme", provider: "generic", base_url: directory.base_url(), more: "" };
    let registry = Registry::start();
    let through =
        Services { bootstrap: services().bootstrap.clone(), registry: format!("http://{}", registry.address()) };
    let program = Program::new(&through, &unique_prefix("ending"), "ending-token", "5m", &[account]);
    assert_eq!(program.run(&["topics", "--create"]).await.code, 0);
    assert_eq!(program.run(&["run", "--once"]).await.code, 0);

    let listen = format!("127.0.0.1:{}", free_port().expect("a port"));
    let text = std::fs::read_to_string(program.file()).expect("a configuration");
    std::fs::write(program.file(), format!("{text}\n[http]\nlisten = \"{listen}\"\n")).expect("a configuration");
    let mut service = program.spawn(&["run"]);
    let mut service = spawn_blocking(move || {
        await_line(&mut service, "shards assigned");
        service
    })
    .await
    .expect("the service runs");
    let _queue = registry.hang().await;
    let page = reqwest::Client::builder().no_proxy().build().expect("a client").get(format!("http://{listen}/"));
    let page = tokio::spawn(page.send());
    registry.asked().await;
    kill_process(Pid::from_child(&service), Signal::TERM).expect("it is there");
    let ended = spawn_blocking(move || {
        let mut log = String::new();
        service.stderr.take().expect("its log").read_to_string(&mut log).expect("a log in UTF-8");
        (service.wait().expect("it ends"), log)
    });
    let (ended, log) = ended.await.expect("the service was waited for");
    assert!(ended.success() && !log.contains("panicked"), "{ended}: {log}");
    // Its answer does not matter: the service ended before it was complete.
    drop(page.await);
}
