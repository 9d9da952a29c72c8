//! `status`, and the pages of the HTTP listener: how accounts stand, told from the topics alone.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

use scimtail::demo::directory::{SimulatedDirectory, Vendor};
use scimtail::kafka::partition_of;
use serde_json::Value;

use crate::program::{AccountText, Ended, Program};
use crate::services::{services, unique_prefix};

const TOKEN: &str = "status-canary";
const HTTP_TOKEN: &str = "http-canary-0123456789";
/// For what the service is to do.
const WAIT: Duration = Duration::from_secs(60);
/// Between two looks.
const POLL: Duration = Duration::from_millis(200);

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address")
}

/// Three accounts: one that is calm, one whose guard holds any loss, one whose directory is down.
struct World {
    program: Program,
    guarded: SimulatedDirectory,
    _calm: SimulatedDirectory,
    listen: SocketAddr,
}

impl World {
    async fn start(more: &str) -> World {
        let directory = |vendor| SimulatedDirectory::start(vendor, TOKEN, 7, SystemTime::now);
        let calm = directory(Vendor::Stripe).await.expect("a directory");
        let guarded = directory(Vendor::Chargebee).await.expect("a directory");
        let listen = free_address();
        let accounts = [
            AccountText { name: "calm", provider: "stripe", base_url: calm.base_url(), more: "" },
            AccountText {
                name: "guarded",
                provider: "chargebee",
                base_url: guarded.base_url(),
                more: "guard = { min_losses = 1, max_ratio = 0.0 }",
            },
            AccountText {
                name: "down",
                provider: "generic",
                base_url: format!("http://{}/scim/v2", free_address()),
                more: "",
            },
        ];
        let program = Program::new(services(), &unique_prefix("status"), TOKEN, "1s", &accounts);
        let text = std::fs::read_to_string(program.file()).expect("the configuration");
        let text = format!("{text}\n[http]\nlisten = \"{listen}\"\n{more}\n");
        std::fs::write(program.file(), text).expect("it is written");
        World { program, guarded, _calm: calm, listen }
    }

    fn serve(&self) -> Service {
        let mut child = self.program.spawn(&["run"]);
        let mut log = child.stderr.take().expect("standard error");
        // A service that cannot write its log blocks.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Service { child }
    }

    /// The account as JSON shows it.
    async fn standing(&self, account: &str) -> Value {
        let ended = self.program.run(&["status", "--format", "json", account]).await;
        let line = ended.out.lines().next().unwrap_or_else(|| panic!("{ended:?}"));
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    async fn until(&self, account: &str, status: &str) -> Value {
        let deadline = Instant::now() + WAIT;
        loop {
            let standing = self.standing(account).await;
            if standing["status"] == status {
                return standing;
            }
            assert!(Instant::now() < deadline, "{account} does not become {status}: {standing:#}");
            tokio::time::sleep(POLL).await;
        }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let mut request = client.get(format!("http://{}{path}", self.listen));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }
}

/// A service that ends with the test.
struct Service {
    child: Child,
}

impl Service {
    fn stop(mut self) {
        let id = self.child.id().to_string();
        let sent = std::process::Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
        assert!(sent.success());
        self.child.wait().expect("it ends");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn row<'o>(ended: &'o Ended, account: &str) -> &'o str {
    ended.out.lines().find(|line| line.starts_with(account)).unwrap_or_else(|| panic!("{account}: {ended:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_state_of_an_account_has_its_label_its_reason_and_the_command_to_copy() {
    let world = World::start("").await;
    assert_eq!(world.program.run(&["topics", "--create"]).await.code, 0);
    let unknown = world.program.run(&["status"]).await;
    assert!(row(&unknown, "calm").contains("Syncing") && row(&unknown, "calm").contains("never"), "{unknown:?}");

    let service = world.serve();
    let calm = world.until("calm", "connected").await;
    assert!(calm["users"].as_i64() > Some(0) && calm["groups"].as_i64() > Some(0), "{calm:#}");
    assert_eq!((&calm["needs_person"], &calm["owner"]), (&false.into(), &"127.0.0.1".into()), "{calm:#}");
    assert!(calm["completed_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{calm:#}");
    let down = world.until("down", "failing").await;
    assert_eq!(down["reason_code"], "unreachable", "{down:#}");
    assert!(down["reason"].as_str().is_some_and(|reason| reason.contains("connection refused")), "{down:#}");

    world.until("guarded", "connected").await;
    while world.guarded.change() != "user.removed" {}
    let held = world.until("guarded", "held").await;
    let hold = held["hold_id"].as_str().expect("a hold").to_owned();
    assert_eq!((&held["needs_person"], &held["hold"]["users_removed"]), (&true.into(), &1.into()), "{held:#}");
    let release = format!("scimtail release guarded --hold {hold}");
    assert_eq!(held["commands"], serde_json::json!(["scimtail plan guarded", release]));
    assert_eq!(world.program.run(&["pause", "calm", "--reason", "audit\u{202e}<b>"]).await.code, 0);
    world.until("calm", "paused").await;

    let shown = world.program.run(&["status"]).await;
    assert_eq!(shown.code, 75, "one needs a person: {shown:?}");
    assert!(row(&shown, "guarded").contains("Held") && shown.out.contains(&release), "{shown:?}");
    assert!(shown.out.contains("3 accounts: 1 held, 1 failing, 1 paused; 1 needs a person"), "{shown:?}");
    assert!(shown.out.contains("paused: by tester: audit\\u{202e}<b>") && shown.out.contains("scimtail resume calm"));
    assert!(shown.out.lines().take(4).all(|line| line.chars().count() <= 80), "{shown:?}");
    assert_eq!(world.program.run(&["status", "calm", "down"]).await.code, 0, "none of these needs a person");
    let state = world.program.run(&["state", "users", "--account", "guarded"]).await;
    assert!(state.err.contains("is held; → scimtail status"), "{state:?}");

    // The page shows the same, and what people wrote is text in it.
    let (code, page) = world.get("/", &[]).await;
    assert_eq!(code, 200, "{page}");
    assert!(page.contains("3 accounts: 1 held, 1 failing, 1 paused; 1 needs a person"), "{page}");
    assert!(page.contains(&release) && page.contains("audit\\u{202e}&lt;b&gt;"), "{page}");
    assert!(!page.contains("audit\u{202e}") && !page.contains("audit<b>") && !page.contains("canary"), "{page}");
    let (code, json) = world.get("/status", &[]).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, &json["accounts"][0]["account"]), (200, &"guarded".into()), "the gravest is first: {json:#}");
    assert_eq!(json["accounts"][0]["hold_id"], hold);

    // Released, its removal arrives, also on the page.
    assert_eq!(world.program.run(&["release", "guarded", "--hold", &hold]).await.code, 0);
    world.until("guarded", "connected").await;
    let deadline = Instant::now() + WAIT;
    while !world.get("/", &[]).await.1.contains("user.removed") {
        assert!(Instant::now() < deadline, "the page does not show the removal");
        tokio::time::sleep(POLL).await;
    }

    service.stop();
    let gone = world.until("guarded", "waiting").await;
    assert_eq!((&gone["needs_person"], &gone["owner"]), (&true.into(), &Value::Null), "{gone:#}");
    assert_eq!(gone["reason"], "no instance of scimtail runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_answers_only_who_may_ask_and_stays_up_while_connections_hang() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    std::fs::write(&token, HTTP_TOKEN).expect("a token");
    let world = World::start(&format!("token_file = \"{}\"", token.display())).await;
    let _service = world.serve();
    let deadline = Instant::now() + WAIT;
    while TcpStream::connect(world.listen).is_err() {
        assert!(Instant::now() < deadline, "it does not listen");
        tokio::time::sleep(POLL).await;
    }
    let bearer = format!("Bearer {HTTP_TOKEN}");
    for path in ["/", "/metrics", "/status", "/live", "/page.js"] {
        let (code, text) = world.get(path, &[]).await;
        assert!(code == 401 && text.contains("→") && !text.contains("canary"), "{path}: {code} {text}");
        assert_eq!(world.get(path, &[("authorization", "Bearer http-canary-0123456788")]).await.0, 401, "{path}");
        assert_eq!(world.get(path, &[("authorization", &bearer), ("host", "evil.example")]).await.0, 421, "{path}");
    }
    assert_eq!(world.get("/metrics", &[("authorization", &bearer)]).await.0, 200);
    assert_eq!(world.get("/healthz", &[("host", "10.0.0.1:9464")]).await.0, 200, "probes need no token");
    // Rotation takes effect without a restart.
    std::fs::write(&token, "another-canary-0123456789").expect("a token");
    assert_eq!(world.get("/metrics", &[("authorization", &bearer)]).await.0, 401);

    // More half requests than the listener takes at once.
    const HANGING: usize = 400;
    let hanging: Vec<TcpStream> = (0..HANGING)
        .map(|_| {
            let mut stream = TcpStream::connect(world.listen).expect("the kernel takes it");
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-half: ").expect("it is sent");
            stream
        })
        .collect();
    // Those that were taken are closed, and this one comes to its turn.
    let client = reqwest::Client::builder().no_proxy().timeout(WAIT).build().expect("a client");
    let answer = client.get(format!("http://{}/healthz", world.listen)).send().await.expect("an answer in time");
    assert_eq!(answer.status(), 200);
    let mut first = &hanging[0];
    first.set_read_timeout(Some(WAIT)).expect("a time-out");
    let mut rest = Vec::new();
    assert!(first.read_to_end(&mut rest).is_ok(), "half a request is not kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_the_listener_from_listening_and_answering_is_named_by_check_in_the_words_of_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    let world = World::start(&format!("token_file = \"{}\"", token.display())).await;
    assert_eq!(world.program.run(&["topics", "--create"]).await.code, 0);

    // Another program has the address, and the token is missing.
    let other = TcpListener::bind(world.listen).expect("the address is free");
    let taken = format!("[http] listen = \"{}\": address in use", world.listen);
    let check = world.program.run(&["check", "calm"]).await;
    assert_eq!(check.code, 78, "{check:?}");
    assert!(check.out.contains("FAIL  listen") && check.out.contains(&taken), "{check:?}");
    let unread = "[http] the token cannot be read, so that no request is answered";
    assert!(check.out.contains("FAIL  token") && check.out.contains(unread), "{check:?}");
    assert!(check.out.contains("1 account, Kafka and the registry: 2 problems"), "{check:?}");
    world.program.run(&["run"]).await.refused(78, &[&taken, "→ use another address"]);
    drop(other);

    // The address is free again. The service answers no request until there is a token.
    let mut service = world.program.spawn(&["run"]);
    crate::program::await_line(&mut service, "status page at /");
    let (code, text) = world.get("/metrics", &[]).await;
    assert!(code == 503 && text.contains("→"), "{code} {text}");
    assert!(crate::program::await_line(&mut service, unread).contains("→"));
    std::fs::write(&token, HTTP_TOKEN).expect("a token");
    let check = world.program.run(&["check", "calm"]).await;
    assert_eq!(check.code, 0, "{check:?}");
    assert!(check.out.contains("a running scimtail has the address"), "{check:?}");
    drop(Service { child: service });
    let check = world.program.run(&["check", "calm", "--format", "json"]).await;
    let json: Value = serde_json::from_str(&check.out).expect("JSON");
    assert_eq!((&json["http"]["exit_code"], &json["http"]["findings"][0]["result"]), (&0.into(), &"ok".into()));
    assert_eq!(json["http"]["address"], world.listen.to_string());
}

/// The topics do not say it. The instance that owns the account does.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_that_an_account_is_stopped_whose_records_cannot_be_understood() {
    let world = World::start("").await;
    world.program.run(&["run", "--once", "--account", "calm"]).await;
    let partition = partition_of("calm", 2);
    crate::meddling::write(
        &services().bootstrap,
        &world.program.topic("users"),
        partition,
        Some("calm/Users/1"),
        Some(b"no Avro"),
    );
    let _service = world.serve();
    let deadline = Instant::now() + WAIT;
    while TcpStream::connect(world.listen).is_err() {
        assert!(Instant::now() < deadline, "it does not listen");
        tokio::time::sleep(POLL).await;
    }
    loop {
        let (_, json) = world.get("/status", &[]).await;
        let json: Value = serde_json::from_str(&json).expect("JSON");
        let accounts = json["accounts"].as_array().cloned().unwrap_or_default();
        let calm = accounts.iter().find(|account| account["account"] == "calm").cloned().unwrap_or_default();
        if calm["status"] == "stopped" {
            assert_eq!(calm["needs_person"], true, "{calm:#}");
            assert!(calm["reason"].as_str().is_some_and(|reason| reason.contains("no Confluent framing")), "{calm:#}");
            break;
        }
        assert!(Instant::now() < deadline, "the page does not say it: {json:#}");
        tokio::time::sleep(POLL).await;
    }
    let (_, page) = world.get("/", &[]).await;
    assert!(page.contains("Stopped") && page.contains("no Confluent framing"), "{page}");
}

#[tokio::test]
async fn beyond_loopback_the_listener_needs_a_token() {
    for listen in ["0.0.0.0:9464", "[::]:9464", "192.0.2.7:9464"] {
        let text = format!(
            "[kafka]\nbrokers = [\"localhost:1\"]\n[registry]\nurl = \"http://localhost:1\"\n[http]\nlisten = \"{listen}\"\n\
             [[account]]\nname = \"acme\"\nprovider = \"generic\"\nbase_url = \"https://acme.example\"\ntoken_env = \"SCIM_TOKEN\"\n"
        );
        let program = Program::with_text(&unique_prefix("listen"), TOKEN, &text);
        program.run(&["run"]).await.refused(78, &[listen, "can be reached from other machines", "→ token_file"]);
    }
}
