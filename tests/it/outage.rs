//! An outage of Kafka as operators see it: one error line, the probe, the gauge, and one line when it is over.

use std::time::{Duration, Instant};

use crate::broker::directory::LargeDirectory;
use crate::program::{AccountText, Program, await_line};
use crate::services::{Services, broker, free_port, http_status, services, unique_prefix};

const TOKEN: &str = "outage-test-token";
/// Until the service says what it must say.
const WAIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// Waits until `/readyz` answers so.
fn until_ready_is(port: u16, status: u16) {
    let deadline = Instant::now() + WAIT;
    while http_status(port, "/readyz") != Some(status) {
        assert!(Instant::now() < deadline, "/readyz does not answer {status}");
        std::thread::sleep(POLL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_kafka_is_one_error_line_and_its_end_another() {
    let mut broker = broker();
    let services = Services { bootstrap: broker.bootstrap.clone(), registry: services().registry.clone() };
    let directory = LargeDirectory::start(5, 1, 3, 5, TOKEN).await;
    let account = AccountText { name: "acme", provider: "generic", base_url: directory.base_url(), more: "" };
    let program = Program::new(&services, &unique_prefix("outage"), TOKEN, "1s", &[account]);
    let port = free_port().expect("a free port");
    let text = std::fs::read_to_string(program.file()).expect("a configuration");
    std::fs::write(program.file(), format!("{text}\n[http]\nlisten = \"127.0.0.1:{port}\"\n")).expect("it is written");
    let mut service = program.spawn(&["run"]);
    await_line(&mut service, "sync completed");
    until_ready_is(port, 200);
    broker.kill();
    let begins = await_line(&mut service, "Kafka cannot be used");
    assert!(begins.contains("ERROR") && begins.contains("connection refused"), "{begins}");
    assert_eq!(http_status(port, "/healthz"), Some(200), "the process itself is well");
    until_ready_is(port, 503);
    broker.restart();
    let ends = await_line(&mut service, "Kafka can be used again");
    assert!(ends.contains("INFO") && ends.contains("outage_s"), "{ends}");
    until_ready_is(port, 200);
    await_line(&mut service, "sync completed");
    service.kill().expect("it runs");
    service.wait().expect("it ended");
}
