//! One cause has one exit code, whichever command meets it.

use std::time::SystemTime;

use axum::http::StatusCode;
use futures::future::join_all;
use scimtail::demo::directory::{SimulatedDirectory, Vendor};

use crate::program::{AccountText, Program};
use crate::services::{Services, services, unique_prefix};

const TOKEN: &str = "causes-test-token";
const UNREACHABLE: i32 = 69;
const TRY_LATER: i32 = 75;
const CONFIGURATION: i32 = 78;

/// What asks the directory.
const READING: [&[&str]; 3] = [&["check"], &["plan"], &["run", "--once"]];
/// What asks Kafka, and the registry as well.
const WITH_BOTH: [&[&str]; 7] = [
    &["check"],
    &["plan"],
    &["run", "--once"],
    &["state", "users"],
    &["state", "access", "--as-of", "0s"],
    &["tail", "--exit"],
    &["poll", "acme"],
];

/// Fails if a command ends with another code. All at once, because each takes its time to be sure.
async fn all_end_with(cause: &str, code: i32, program: &Program, commands: &[&[&str]]) {
    let ended = join_all(commands.iter().map(|arguments| program.run(arguments))).await;
    for (arguments, ended) in commands.iter().zip(ended) {
        assert_eq!(ended.code, code, "{cause}: {arguments:?}: {ended:?}");
    }
}

/// As [`all_end_with`], one after the other, because `run` creates the topics that the others read.
async fn each_ends_with(cause: &str, code: i32, program: &Program, commands: &[&[&str]]) {
    for command in commands {
        all_end_with(cause, code, program, &[command]).await;
    }
}

async fn directory() -> SimulatedDirectory {
    SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 5, SystemTime::now).await.expect("a directory")
}

fn program(services: &Services, base_url: String, more: &'static str) -> Program {
    let account = AccountText { name: "acme", provider: "chargebee", base_url, more };
    Program::new(services, &unique_prefix("causes"), TOKEN, "5m", &[account])
}

/// The same program with another text in its configuration.
fn instead(program: &Program, from: &str, to: &str) -> Program {
    let text = std::fs::read_to_string(program.file()).expect("a configuration");
    assert!(text.contains(from), "{from} is not in {text}");
    Program::with_text(&program.prefix, TOKEN, &text.replacen(from, to, 1))
}

/// A server that answers every request alike.
async fn answers(status: u16, body: &'static str) -> String {
    let answer = move || async move { (StatusCode::from_u16(status).expect("a status"), body) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    format!("http://{address}")
}

fn nowhere() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
    format!("127.0.0.1:{port}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_directory_has_one_code_in_check_plan_and_run() {
    let real = directory().await;
    for (cause, code, base_url, more) in [
        ("no secret", CONFIGURATION, real.base_url(), "token_file = \"/etc/absent-secret\""),
        ("401", CONFIGURATION, answers(401, "").await, ""),
        ("403", CONFIGURATION, answers(403, "").await, ""),
        ("404", CONFIGURATION, answers(404, "").await, ""),
        ("a redirect", CONFIGURATION, answers(302, "").await, ""),
        ("a web page", CONFIGURATION, answers(200, "<html></html>").await, ""),
        ("nothing listens", UNREACHABLE, format!("http://{}", nowhere()), ""),
    ] {
        each_ends_with(cause, code, &program(services(), base_url, more), &READING).await;
    }
    for (cause, code, token_url) in [
        ("a token endpoint that refuses", CONFIGURATION, answers(401, "{\"error\": \"invalid_client\"}").await),
        ("a token endpoint in trouble", UNREACHABLE, answers(500, "").await),
    ] {
        let lines = format!(
            "client_id = \"acme\"\nclient_secret_file = \"client-secret\"\ntoken_url = \"{token_url}\"\n\
             [account.profile]\nauth = \"oauth2\""
        );
        let program = program(services(), real.base_url(), lines.leak());
        std::fs::write(program.file().with_file_name("client-secret"), "secret\n").expect("a file");
        each_ends_with(cause, code, &program, &READING).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_has_one_code_in_check_plan_and_run() {
    let directory = directory().await;
    // Any loss at all is above the limit of the guard.
    let program = program(services(), directory.base_url(), "guard = { min_losses = 1, max_ratio = 0.0 }");
    assert_eq!(program.run(&["run", "--once"]).await.code, 0);
    while directory.change() != "user.removed" {}
    let held = [READING[0], READING[1], READING[2], &["plan", "--detailed-exitcode"]];
    each_ends_with("a hold", TRY_LATER, &program, &held).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_kafka_or_the_registry_has_one_code_in_every_command() {
    let directory = directory().await;
    let good = program(services(), directory.base_url(), "");
    assert_eq!(good.run(&["run", "--once"]).await.code, 0);
    let Services { bootstrap, registry } = services();
    let lost = format!("http://{}", nowhere());
    for (cause, code, program) in [
        ("no broker", UNREACHABLE, instead(&good, bootstrap, &nowhere())),
        ("no registry", UNREACHABLE, instead(&good, registry, &lost)),
        ("a registry that asks for credentials", CONFIGURATION, instead(&good, registry, &answers(401, "").await)),
        ("other partitions", CONFIGURATION, instead(&good, "partitions = 2", "partitions = 3")),
    ] {
        all_end_with(cause, code, &program, &WITH_BOTH).await;
    }
    let kafka_only: [&[&str]; 3] = [&["topics"], &["release", "acme"], &["topics", "--create"]];
    all_end_with("no broker", UNREACHABLE, &instead(&good, bootstrap, &nowhere()), &kafka_only).await;
    let registry_only: [&[&str]; 2] = [&["schemas"], &["schemas", "--register"]];
    all_end_with("no registry", UNREACHABLE, &instead(&good, registry, &lost), &registry_only).await;
    let strict = program(services(), directory.base_url(), "");
    let strict = instead(&strict, "replication = 1", "replication = 1\ncreate_topics = false");
    let needing: [&[&str]; 5] = [&["check"], &["run", "--once"], &["state", "users"], &["tail", "--exit"], &["topics"]];
    each_ends_with("no topics", CONFIGURATION, &strict, &needing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_configuration_or_the_arguments_has_one_code_in_every_command() {
    let program = program(services(), "http://127.0.0.1:1".to_owned(), "");
    let unknown: [&[&str]; 10] = [
        &["check", "acne"],
        &["plan", "acne"],
        &["run", "--once", "--account", "acne"],
        &["run", "--account", "acne"],
        &["state", "users", "--account", "acne"],
        &["tail", "--account", "acne"],
        &["release", "acne"],
        &["pause", "acne"],
        &["poll", "acne"],
        &["reseed", "acne"],
    ];
    for arguments in unknown {
        program.run(arguments).await.refused(CONFIGURATION, &["no account `acne` is configured", "acme"]);
    }
    let broken = instead(&program, "[registry]", "[registri]");
    let commands: [&[&str]; 10] = [
        &["check"],
        &["plan"],
        &["run"],
        &["run", "--once"],
        &["state", "users"],
        &["tail"],
        &["release", "acme"],
        &["retire", "acme"],
        &["topics"],
        &["schemas"],
    ];
    for arguments in commands {
        broken.run(arguments).await.refused(CONFIGURATION, &["registri"]);
    }
    for arguments in [&["--log-level", "infoo", "check"][..], &["--log-level", "infoo", "providers"]] {
        let words = ["log level \"infoo\" is not understood", "off, error, warn, info, debug, trace"];
        program.run(arguments).await.refused(2, &words);
    }
    let levels = program.run(&["--log-level", "scimtail=debug,rdkafka=trace", "providers"]).await;
    assert_eq!(levels.code, 0, "{levels:?}");
}
