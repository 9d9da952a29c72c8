//! The view of a person at the command line. Bad input is refused in one line with its remedy and the right exit code,
//! and nothing is written.

use std::time::SystemTime;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use scimtail::demo::directory::{SimulatedDirectory, Vendor};
use serde_json::json;

use crate::program::{AccountText, Program};
use crate::reader::read;
use crate::services::{Services, services, unique_prefix};

const TOKEN: &str = "cli-test-token";

async fn chargebee() -> SimulatedDirectory {
    SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 5, SystemTime::now).await.expect("a directory")
}

fn program(services: &Services, base_url: String) -> Program {
    let account = AccountText { name: "acme", provider: "chargebee", base_url, more: "" };
    Program::new(services, &unique_prefix("cli"), TOKEN, "5m", &[account])
}

fn closed_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port()
}

async fn create_topic(name: &str, partitions: i32, policy: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &services().bootstrap).create().expect("a client");
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1)).set("cleanup.policy", policy);
    for result in admin.create_topics(&[topic], &AdminOptions::new()).await.expect("the broker answers") {
        result.expect("the topic is created");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_configuration_is_refused_in_one_line() {
    for (text, words) in [
        ("[kafka\n", vec!["scimtail.toml:1"]),
        (
            "[kafka]\nbrokers = [\"localhost:9092\"]\nbroker = 1\n",
            vec!["scimtail.toml:3", "unknown key `broker`", "did you mean `brokers`"],
        ),
        ("[kafka]\nbrokers = [\"localhost:9092\"]\n[registry]\nurl = \"http://localhost:1\"\n", vec!["no [[account]]"]),
    ] {
        let program = Program::with_text("none", TOKEN, text);
        program.run(&["run", "--once"]).await.refused(78, &words);
    }
    let program = Program::with_text("none", TOKEN, "");
    program.run(&["--config", "absent.toml", "check"]).await.refused(78, &["absent.toml", "cannot be read"]);
    let usage = program.run(&["rum"]).await;
    assert_eq!(usage.code, 2, "{usage:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_profile_is_refused_in_one_line_that_names_its_file() {
    let program = Program::with_text(
        "none",
        TOKEN,
        "[kafka]\nbrokers = [\"localhost:9092\"]\n[registry]\nurl = \"http://localhost:1\"\n\
         [providers]\nacme = \"acme.toml\"\n\
         [[account]]\nname = \"acme\"\nprovider = \"acme\"\nbase_url = \"https://acme.example/scim/v2\"\n\
         token_env = \"SCIMTAIL_TEST_TOKEN\"\n",
    );
    let file = program.file().with_file_name("acme.toml");
    program.run(&["run", "--once"]).await.refused(78, &["[providers] acme: acme.toml cannot be read"]);
    std::fs::write(&file, "title = \"Acme\"\npage_sise = 50\n").expect("a profile");
    let words = ["scimtail.toml: [providers] acme: acme.toml:2: unknown key `page_sise`; did you mean `page_size`?"];
    for command in [["run", "--once"].as_slice(), &["check"], &["providers"], &["providers", "acme"]] {
        program.run(command).await.refused(78, &words);
    }
    std::fs::write(&file, "extends = \"slack\"\ntitle = \"Acme\"\npage_size = 50\n").expect("a profile");
    let shown = program.run(&["providers", "acme"]).await;
    assert_eq!(shown.code, 0, "{shown:?}");
    let line = shown.out.lines().find(|line| line.trim_start().starts_with("page_size")).expect("the field");
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["page_size", "50", "no", "source"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_are_shown_without_a_configuration_and_an_unknown_one_is_refused() {
    let program = Program::with_text("none", TOKEN, "");
    std::fs::remove_file(program.file()).expect("the file was there");
    let all = program.run(&["providers"]).await;
    assert_eq!(all.code, 0, "{all:?}");
    for (provider, words) in [("entra", vec!["oauth2", "cursor_forced", "groups_filter"]), ("stripe", vec!["removed"])]
    {
        let line = all.out.lines().find(|line| line.starts_with(provider)).expect("a line");
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }
    let one = program.run(&["providers", "gitlab"]).await;
    assert!(
        one.out.contains("safe default (generic): RFC 7644")
            && one.out.contains("not_read             [\"groups and memberships\""),
        "{one:?}"
    );
    assert!(one.out.contains("provider = \"gitlab\"") && !one.out.contains('\u{1b}'), "{}", one.out);
    program.run(&["providers", "slcak"]).await.refused(78, &["unknown provider `slcak`; did you mean `slack`?"]);
    program.run(&["--config", "absent.toml", "providers"]).await.refused(78, &["absent.toml", "cannot be read"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_services_end_with_69_and_say_which() {
    let directory = chargebee().await;
    let real = services();
    let nowhere = format!("127.0.0.1:{}", closed_port());
    let no_registry = Services { bootstrap: real.bootstrap.clone(), registry: format!("http://{nowhere}") };
    program(&no_registry, directory.base_url())
        .run(&["run", "--once"])
        .await
        .refused(69, &["registry", "cannot be reached", "→"]);
    let no_kafka = Services { bootstrap: nowhere, registry: real.registry.clone() };
    program(&no_kafka, directory.base_url())
        .run(&["run", "--once"])
        .await
        .refused(69, &["kafka", "connection refused", "→"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_another_shape_are_refused_and_nothing_is_written() {
    let directory = chargebee().await;
    let partitions = program(services(), directory.base_url());
    create_topic(&partitions.topic("users"), 5, "compact").await;
    partitions
        .run(&["run", "--once"])
        .await
        .refused(78, &[&partitions.topic("users"), "5 partitions", "kafka.partitions says 2"]);

    let policy = program(services(), directory.base_url());
    create_topic(&policy.topic("groups"), 2, "delete").await;
    policy
        .run(&["run", "--once"])
        .await
        .refused(78, &[&policy.topic("groups"), "cleanup.policy=delete", "must be compact"]);
    let records = read(services(), &[policy.topic("syncs"), policy.topic("users")]).await;
    assert_eq!(records, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_the_registry_refuses_stops_the_start() {
    let directory = chargebee().await;
    let program = program(services(), directory.base_url());
    let subject = format!("{}-value", program.topic("events"));
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let base = &services().registry;
    let set = client
        .put(format!("{base}/config/{subject}"))
        .json(&json!({ "compatibility": "FULL_TRANSITIVE" }))
        .send()
        .await;
    assert!(set.expect("the registry answers").status().is_success());
    // A required field without a default: no later schema can be compatible.
    let foreign = json!({ "type": "record", "name": "ChangeEvent", "namespace": "scimtail", "fields": [{ "name": "foreign", "type": "string" }] });
    let registered = client
        .post(format!("{base}/subjects/{subject}/versions"))
        .json(&json!({ "schema": foreign.to_string() }))
        .send()
        .await;
    assert!(registered.expect("the registry answers").status().is_success());
    program.run(&["run", "--once"]).await.refused(78, &["refuses the schema", &subject, "→"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_fails_its_account_and_names_the_variable() {
    let directory = chargebee().await;
    let account = AccountText {
        name: "acme",
        provider: "chargebee",
        base_url: directory.base_url(),
        more: "token_file = \"/etc/absent-secret\"",
    };
    let program = Program::new(services(), &unique_prefix("secret"), TOKEN, "5m", &[account]);
    let ended = program.run(&["run", "--once"]).await;
    assert_eq!(ended.code, 78, "{ended:?}");
    assert!(
        ended.out.contains("acme") && ended.out.contains("secret file /etc/absent-secret cannot be read"),
        "{}",
        ended.out
    );
    assert_eq!(directory.page_requests(), 0);
    assert_eq!(read(services(), &[program.topic("users")]).await, []);
}

/// Answers every request alike.
async fn stub(status: u16, content_type: &'static str, body: &'static str) -> String {
    let answer = move || async move {
        let mut response = axum::response::Response::new(axum::body::Body::from(body));
        *response.status_mut() = axum::http::StatusCode::from_u16(status).expect("a status");
        response.headers_mut().insert("content-type", content_type.parse().expect("a header"));
        response.headers_mut().insert("location", "http://169.254.169.254/".parse().expect("a header"));
        response
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    format!("http://{address}/scim/v2")
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_no_list_fail_the_sync_and_publish_nothing() {
    for (status, content_type, body, words) in [
        (200, "text/html", "<html><body>Sign in</body></html>", "is not a SCIM list"),
        (200, "application/json", "{\"totalResults\": 3, \"Resources\": [{\"id\": \"1\"", "is not a SCIM list"),
        (200, "application/json", "{}", "is not a SCIM list"),
        (302, "text/plain", "", "redirects"),
        (404, "text/plain", "", "there is no SCIM list at this address"),
    ] {
        let program = program(services(), stub(status, content_type, body).await);
        let ended = program.run(&["run", "--once"]).await;
        assert_eq!((ended.code, ended.out.lines().count()), (78, 1), "{ended:?}");
        assert!(ended.out.contains("failed") && ended.out.contains(words), "{}", ended.out);
        let records =
            read(services(), &["events", "users", "groups", "memberships"].map(|suffix| program.topic(suffix))).await;
        assert_eq!(records, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_credentials_are_exchanged_for_a_token_and_stand_in_no_output() {
    let directory = chargebee().await;
    for (status, answer, code, words) in [
        (200, r#"{"access_token": "cli-test-token", "token_type": "Bearer", "expires_in": 3600}"#, 0, "baseline"),
        (401, r#"{"error": "invalid_client"}"#, 78, "the token endpoint refused the client credentials"),
        (500, "", 69, "the token endpoint answers HTTP 500"),
    ] {
        let token_url = stub(status, "application/json", answer).await;
        let lines = format!(
            "client_id = \"acme\"\nclient_secret_file = \"client-secret\"\ntoken_url = \"{token_url}\"\n\
             [account.profile]\nauth = \"oauth2\""
        );
        let account =
            AccountText { name: "acme", provider: "chargebee", base_url: directory.base_url(), more: lines.leak() };
        let program = Program::new(services(), &unique_prefix("oauth2"), TOKEN, "5m", &[account]);
        std::fs::write(program.file().with_file_name("client-secret"), "secret-canary\n").expect("a file");
        let ended = program.run(&["--log-level", "trace", "run", "--once"]).await;
        assert!(ended.code == code && ended.out.contains(words), "{status}: {} {}", ended.code, ended.out);
        let output = format!("{}{}", ended.out, ended.err);
        assert!(!output.contains("canary") && !output.contains(TOKEN), "{status}: a secret got out");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_apart_what_is_wrong() {
    let directory = chargebee().await;
    let good = program(services(), directory.base_url());
    let fresh = good.run(&["check"]).await;
    assert_eq!(fresh.code, 0, "{fresh:?}");
    assert!(fresh.out.contains("40 listed") && fresh.out.contains("none of the 6 topics exists yet"), "{}", fresh.out);
    assert_eq!(good.run(&["run", "--once"]).await.code, 0);
    let whole = good.run(&["check"]).await;
    assert!(whole.out.contains("6 of 6, 2 partitions") && whole.out.contains("6 of 6 subjects"), "{}", whole.out);

    let wrong_token = good.command(&["check"]).env(crate::program::TOKEN_VARIABLE, "wrong").output().expect("it runs");
    let wrong_token = crate::program::Ended::from(wrong_token);
    assert_eq!(wrong_token.code, 78);
    assert!(
        wrong_token.out.contains("FAIL  token       Users: 401: Chargebee refused the token"),
        "{}",
        wrong_token.out
    );

    let wrong_url = program(services(), directory.base_url().replace("/scim/v2", "/wrong")).run(&["check"]).await;
    assert_eq!(wrong_url.code, 78);
    assert!(wrong_url.out.contains("FAIL  users       Users: 404"), "{}", wrong_url.out);

    let nobody = program(services(), format!("http://127.0.0.1:{}/scim/v2", closed_port())).run(&["check"]).await;
    assert_eq!(nobody.code, 69);
    assert!(nobody.out.contains("FAIL  reach") && nobody.out.contains("connection refused"), "{}", nobody.out);

    let nowhere = format!("127.0.0.1:{}", closed_port());
    let off = Services { bootstrap: nowhere.clone(), registry: format!("http://{nowhere}") };
    let off = program(&off, directory.base_url()).run(&["check"]).await;
    assert_eq!(off.code, 69);
    assert!(off.out.contains("connection refused") && off.out.contains("2 problems"), "{}", off.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_sync_is_shown_released_and_published() {
    let directory = chargebee().await;
    let account = AccountText {
        name: "acme",
        provider: "chargebee",
        base_url: directory.base_url(),
        // Any loss at all is above the limit of the guard.
        more: "guard = { min_losses = 1, max_ratio = 0.0 }",
    };
    let program = Program::new(services(), &unique_prefix("held"), TOKEN, "5m", &[account]);
    assert_eq!(program.run(&["run", "--once"]).await.code, 0);
    while directory.change() != "user.removed" {}
    let plan = program.run(&["plan"]).await;
    assert!(plan.code == 75 && plan.out.contains("user.removed") && plan.out.contains("held:"), "{plan:?}");
    let check = program.run(&["check"]).await;
    assert!(check.code == 75 && check.out.contains("HELD  sync        a sync would publish nothing"), "{check:?}");
    assert!(check.out.ends_with("1 account, Kafka and the registry: no problem, 1 held\n"), "{}", check.out);
    let held = program.run(&["run", "--once"]).await;
    assert_eq!(held.code, 75, "{held:?}");
    let hold = held.out.split("--hold ").nth(1).expect("the hold is named").trim().to_owned();
    assert!(held.out.contains("Nothing was published."), "{}", held.out);
    assert_eq!(read(services(), &[program.topic("events")]).await, []);

    let shown = program.run(&["release", "acme"]).await;
    assert!(shown.code == 0 && shown.out.contains(&hold), "{shown:?}");
    let wrong = program.run(&["release", "acme", "--hold", "1-u99-g0-m0-d0-a0"]).await;
    wrong.refused(1, &["is not held now", &hold]);
    assert_eq!(program.run(&["release", "acme", "--hold", &hold, "--reason", "they left"]).await.code, 0);
    let published = program.run(&["run", "--once"]).await;
    assert_eq!(published.code, 0, "{published:?}");
    let records = read(services(), &[program.topic("events"), program.topic("syncs")]).await;
    assert!(records.iter().any(|record| record.value["event_type"] == "user.removed"));
    let last = records.last().expect("a record");
    assert_eq!((&last.value["released_by"], &last.value["hold_id"]), (&json!("tester"), &json!(hold)));
    let nothing = program.run(&["release", "acme"]).await;
    assert!(nothing.out.contains("nothing is held"), "{nothing:?}");
}

/// Linux has a device that is always full.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn output_that_cannot_be_written_is_an_error() {
    let directory = chargebee().await;
    let account = AccountText {
        name: "acme",
        provider: "chargebee",
        base_url: directory.base_url(),
        more: "baseline = \"events\"",
    };
    let program = Program::new(services(), &unique_prefix("full"), TOKEN, "5m", &[account]);
    assert_eq!(program.run(&["run", "--once"]).await.code, 0);
    for arguments in [
        &["tail", "--from", "beginning", "--exit"][..],
        &["tail", "--from", "beginning", "--exit", "--format", "json"],
        &["tail", "--from", "beginning"],
        &["state", "users"],
        &["topics"],
        &["schemas"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("the device");
        let output = program.command(arguments).stdout(full).output().expect("it runs");
        let ended = crate::program::Ended::from(output);
        // `state` has said on standard error how complete it is, and `tail` what it reads.
        let said = |line: &&str| {
            line.contains("complete as of") || line.contains("complete for what") || line.starts_with("reading ")
        };
        let lines = ended.err.lines().filter(|line| !said(line)).collect::<Vec<_>>();
        let words = "error: standard output cannot be written: No space left on device";
        assert!(ended.code == 1 && lines.len() == 1 && lines[0].starts_with(words), "{arguments:?}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_by_itself_with_a_replay_that_equals_the_directories() {
    let program = Program::with_text("none", TOKEN, "");
    let demo = program.run(&["demo", "--syncs", "3", "--seed", "11", "--interval", "1s"]).await;
    assert_eq!(demo.code, 0, "{demo:?}");
    let last = demo.out.split("replay: ").nth(1).expect("the replay comes last");
    let words: Vec<&str> = last.split_whitespace().collect();
    assert!(words.join(" ").ends_with("the compacted topics equal the directories"), "{}", demo.out);
    assert!(!demo.out.contains('\u{1b}'), "a pipe gets plain text");
    assert_eq!(demo.out.lines().filter(|line| line.starts_with("baseline")).count(), 2);
}
