//! Secured Kafka: what each wrong setting is said to be, and what works.

mod broker;
mod issuer;
mod oauth;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::Semaphore;

use crate::broker::directory::LargeDirectory;
use crate::program::{AccountText, Ended, Program, await_line};
use crate::secured::broker::{Secured, another, secured};
use crate::services::{Services, free_port, kafka_tool, services, unique_prefix};

const TOKEN: &str = "secured-token";
/// The file of the right password.
const RIGHT: &str = "password";
/// Two starts of a broker, and the time after which new clients are made.
const OUTLIVED_MAX: Duration = Duration::from_secs(300);
/// Programs that run at once.
const PROGRAMS: usize = 6;

fn account(base_url: String) -> AccountText {
    AccountText { name: "acme", provider: "generic", base_url, more: "" }
}

/// A program for a listener (`host:port`), with further lines of `[kafka.properties]`. A password is a secret.
fn program(brokers: &str, prefix: &str, base_url: &str, lines: &[String]) -> Program {
    let services = Services { bootstrap: brokers.to_owned(), registry: services().registry.clone() };
    let program = Program::new(&services, prefix, TOKEN, "5m", &[account(base_url.to_owned())]);
    let text = std::fs::read_to_string(program.file()).expect("a configuration");
    let (secrets, properties): (Vec<&String>, Vec<&String>) =
        lines.iter().partition(|line| line.starts_with("\"sasl.password\""));
    let joined = |lines: Vec<&String>| lines.into_iter().map(|line| format!("{line}\n")).collect::<String>();
    let with = format!("[kafka.properties]\n{}[kafka.secrets]\n{}[registry]", joined(properties), joined(secrets));
    std::fs::write(program.file(), text.replacen("[registry]", &with, 1)).expect("a configuration");
    program
}

fn sync_each_second(program: &Program) {
    let text = std::fs::read_to_string(program.file()).expect("a configuration");
    std::fs::write(program.file(), text.replace("interval = \"5m\"", "interval = \"1s\"")).expect("it is written");
}

fn property(name: &str, value: &str) -> String {
    format!("\"{name}\" = \"{value}\"")
}

/// `password`: the name of a file.
fn scram(secured: &Secured, user: &str, password: &str) -> Vec<String> {
    vec![
        property("security.protocol", "sasl_ssl"),
        property("sasl.mechanism", "SCRAM-SHA-512"),
        property("sasl.username", user),
        format!("\"sasl.password\" = {{ file = \"{}\" }}", secured.file(password).display()),
        secured.ca(),
    ]
}

/// With the client certificate.
fn certified(secured: &Secured) -> Vec<String> {
    vec![
        property("security.protocol", "ssl"),
        secured.ca(),
        property("ssl.certificate.location", &secured.file("client.crt").display().to_string()),
        property("ssl.key.location", &secured.file("client.key").display().to_string()),
    ]
}

/// One way to be wrong.
struct Wrong {
    name: &'static str,
    brokers: String,
    properties: Vec<String>,
    code: i32,
    words: &'static str,
}

/// `host:port` of what refuses each request, as web servers refuse what they do not understand. It ends with the process.
fn web_server() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            // A client that has gone has its answer.
            drop(client.read(&mut [0; 64]).and_then(|_| client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")));
        }
    });
    address.to_string()
}

fn wrongs(secured: &Secured) -> Vec<Wrong> {
    let tls = || vec![property("security.protocol", "ssl"), secured.ca()];
    let wrong = |name, brokers: String, properties, code, words| Wrong { name, brokers, properties, code, words };
    let plain = secured.broker.bootstrap.clone();
    let other = property("ssl.ca.location", &secured.file("other.pem").display().to_string());
    let replaced = |mut properties: Vec<String>, name: &str, value: &str| {
        properties.retain(|line| !line.starts_with(&format!("\"{name}\"")));
        properties.push(property(name, value));
        properties
    };
    let credentials = || scram(secured, "scimtail", RIGHT);
    let registry = services().registry.trim_start_matches("http://");
    let registry = registry.split('/').next().unwrap_or(registry).to_owned();
    vec![
        // It waits for the end of a line that never comes.
        wrong("port of the registry", registry, Vec::new(), 69, "nothing answers as Kafka does"),
        wrong("port of a web server", web_server(), Vec::new(), 78, "is not Kafka"),
        wrong(
            "password",
            secured.at("SASLTLS"),
            scram(secured, "scimtail", "wrong-password"),
            78,
            "refuses the credentials (SASL SCRAM-SHA-512)",
        ),
        wrong(
            "user",
            secured.at("SASLTLS"),
            scram(secured, "ghost", RIGHT),
            78,
            "refuses the credentials (SASL SCRAM-SHA-512)",
        ),
        wrong(
            "password of PLAIN",
            secured.at("SASLTLS"),
            replaced(scram(secured, "scimtail", "wrong-password"), "sasl.mechanism", "PLAIN"),
            78,
            "refuses the credentials (SASL PLAIN)",
        ),
        wrong(
            "mechanism",
            secured.at("ONLYPLAIN"),
            credentials(),
            78,
            "does not offer the SASL mechanism SCRAM-SHA-512; it offers PLAIN",
        ),
        wrong(
            "CA",
            secured.at("TLS"),
            vec![property("security.protocol", "ssl"), other],
            78,
            "issued by a CA that is not trusted here",
        ),
        wrong(
            "no CA",
            secured.at("TLS"),
            vec![property("security.protocol", "ssl")],
            78,
            "TLS certificate is issued by a CA that is not trusted here",
        ),
        wrong("host name", secured.at("WRONGNAME"), tls(), 78, "certificate is for another host name"),
        wrong("expired", secured.at("EXPIRED"), tls(), 78, "certificate has expired"),
        wrong("client certificate", secured.at("MTLS"), tls(), 78, "refuses the client certificate, or asks for one"),
        wrong("TLS to plain text", plain.replace("127.0.0.1", "localhost"), tls(), 78, "probably does not speak TLS"),
        wrong("plain text to TLS", secured.at("TLS"), vec![], 78, "probably takes TLS only"),
        wrong(
            "SASL without TLS to TLS",
            secured.at("SASLTLS"),
            replaced(credentials(), "security.protocol", "sasl_plaintext"),
            78,
            "probably takes TLS only",
        ),
        wrong("no SASL to SASL", secured.at("SASLPLAIN"), vec![], 78, "probably asks for SASL"),
        wrong("TLS without SASL to SASL", secured.at("SASLTLS"), tls(), 78, "probably asks for SASL"),
        wrong("SASL to TLS", secured.at("TLS"), credentials(), 78, "takes no credentials (SASL)"),
        wrong("host", "nosuchhost.invalid:9092".to_owned(), tls(), 69, "host name cannot be resolved"),
        wrong("port", "127.0.0.1:1".to_owned(), vec![], 69, "connection refused"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_connection_has_its_sentence_remedy_and_exit_code_in_every_command() {
    let secured = secured();
    let directory = LargeDirectory::start(3, 1, 2, 3, TOKEN).await;
    let places = Arc::new(Semaphore::new(PROGRAMS));
    let commands: [&[&str]; 5] =
        [&["check"], &["run", "--once"], &["topics"], &["state", "users"], &["tail", "--exit"]];
    let all = wrongs(secured);
    let runs = all.iter().flat_map(|wrong| commands.map(|command| (wrong, command))).map(|(wrong, command)| {
        let (places, base_url) = (places.clone(), directory.base_url());
        async move {
            let _place = places.acquire().await.expect("it is not closed");
            let program = program(&wrong.brokers, "wrong", &base_url, &wrong.properties);
            let ended = program.run(command).await;
            (wrong, command, ended)
        }
    });
    let mut complaints = Vec::new();
    for (wrong, command, ended) in join_all(runs).await {
        let Ended { code, out, err } = &ended;
        let out = format!("{out}{err}");
        let right = *code == wrong.code && out.contains(wrong.words) && out.contains('→') && !out.contains("canary");
        if !right {
            complaints.push(format!("{}, {command:?}: {code}, {out}", wrong.name));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn scram_over_tls_and_client_certificates_publish() {
    let secured = secured();
    let directory = LargeDirectory::start(5, 1, 3, 5, TOKEN).await;
    let prefix = unique_prefix("mutual");
    let certificates = certified(secured);
    grant_all(secured, "scimtail", &prefix);
    grant_all(secured, "CN=scimtail-client", &prefix);
    for (brokers, properties) in
        [(secured.at("SASLTLS"), scram(secured, "scimtail", RIGHT)), (secured.at("MTLS"), certificates)]
    {
        let program = program(&brokers, &prefix, &directory.base_url(), &properties);
        let check = program.run(&["check"]).await;
        assert_eq!(check.code, 0, "{check:?}");
        let once = program.run(&["run", "--once"]).await;
        assert_eq!(once.code, 0, "{once:?}");
        let state = program.run(&["state", "users"]).await;
        assert_eq!(state.code, 0, "{state:?}");
        directory.churn(0.5, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_read_again_for_each_client_and_never_printed() {
    let secured = secured();
    let directory = LargeDirectory::start(3, 1, 2, 3, TOKEN).await;
    let prefix = unique_prefix("rotated");
    grant_all(secured, "scimtail", &prefix);
    let file = secured.file("rotated-password");
    std::fs::copy(secured.file("wrong-password"), &file).expect("a file");
    let lines = scram(secured, "scimtail", "rotated-password");
    let program = program(&secured.at("SASLTLS"), &prefix, &directory.base_url(), &lines);
    let mut said = String::new();
    let refused = program.run(&["--log-level", "trace", "topics", "--create"]).await;
    assert_eq!(refused.code, 78, "{refused:?}");
    std::fs::copy(secured.file("password"), &file).expect("a file");
    let created = program.run(&["--log-level", "trace", "topics", "--create"]).await;
    assert_eq!(created.code, 0, "{created:?}");
    std::fs::remove_file(&file).expect("the file");
    let absent = program.run(&["--log-level", "trace", "check"]).await;
    assert_eq!(absent.code, 78, "{absent:?}");
    assert!(
        absent.out.contains("[kafka.secrets] \"sasl.password\": ") && absent.out.contains("cannot be read"),
        "{absent:?}"
    );
    for ended in [refused, created, absent] {
        said.push_str(&ended.out);
        said.push_str(&ended.err);
    }
    assert!(said.len() > 1_000 && !said.contains("canary"), "a secret is printed");
}

/// The broker ends sessions after 10 s, as some clouds do after an hour. Connections that are broken have the same effect.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_outlives_the_password_that_it_started_with() {
    const SESSIONS: usize = 3;
    let secured = secured();
    let directory = LargeDirectory::start(20, 2, 5, 20, TOKEN).await;
    let prefix = unique_prefix("outlived");
    grant_all(secured, "rotated", &prefix);
    let file = secured.file("living-password");
    std::fs::copy(secured.file("password"), &file).expect("a file");
    let lines = scram(secured, "rotated", "living-password");
    let program = program(&secured.at("SESSIONS"), &prefix, &directory.base_url(), &lines);
    sync_each_second(&program);
    let mut service = program.spawn(&["run"]);
    crate::program::await_line(&mut service, "sync completed");
    for session in 0..SESSIONS {
        let password = format!("canary-of-session-{session}");
        // The file first, as a tool that rotates does.
        std::fs::write(&file, &password).expect("a password");
        let config = format!("SCRAM-SHA-512=[password={password}]");
        let user = ["--entity-type", "users", "--entity-name", "rotated", "--alter", "--add-config", &config];
        let arguments = [&["--bootstrap-server", secured.broker.bootstrap.as_str()][..], &user[..]].concat();
        kafka_tool("kafka.admin.ConfigCommand", &arguments);
        // The sessions of all clients end meanwhile.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(15);
        let mut seed = 0;
        while std::time::Instant::now() < until {
            seed += 1;
            directory.churn(0.3, seed);
            crate::program::await_line(&mut service, "sync completed");
        }
    }
    // The reader of requests has outlived it too.
    let requests = program.run(&["pause", "acme"]).await;
    assert_eq!(requests.code, 0, "{requests:?}");
    crate::program::await_line(&mut service, "paused");
    service.kill().expect("it runs");
    service.wait().expect("it ended");
}

/// A living client of librdkafka keeps the certificates that it was made with, so others take its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_outlives_the_certificates_that_it_started_with() {
    let mut secured = another();
    let directory = LargeDirectory::start(20, 2, 5, 20, TOKEN).await;
    let prefix = unique_prefix("certified");
    grant_all(&secured, "CN=scimtail-client", &prefix);
    let lines = certified(&secured);
    let program = program(&secured.at("MTLS"), &prefix, &directory.base_url(), &lines);
    sync_each_second(&program);
    let mut service = program.spawn(&["run"]);
    let process = Pid::from_child(&service);
    let waited = tokio::spawn(async move {
        // The log ends with the process, so that nothing below waits for ever.
        tokio::time::sleep(OUTLIVED_MAX).await;
        kill_process(process, Signal::KILL).expect("it is there");
    });
    await_line(&mut service, "sync completed");
    secured.change_certificates();
    await_line(&mut service, "joining the consumer group with a new client");
    await_line(&mut service, "shard acquired");
    directory.churn(0.3, 1);
    await_line(&mut service, "sync completed");
    // The reader of requests, and each command.
    let requests = program.run(&["pause", "acme"]).await;
    assert_eq!(requests.code, 0, "{requests:?}");
    await_line(&mut service, "paused");
    waited.abort();
    service.kill().expect("it runs");
    service.wait().expect("it ended");
}

/// Every right to what an installation with this prefix uses.
fn grant_all(secured: &Secured, principal: &str, prefix: &str) {
    let principal = format!("User:{principal}");
    for resource in ["--topic", "--group", "--transactional-id"] {
        acl(
            secured,
            &[
                "--add",
                "--allow-principal",
                &principal,
                "--operation",
                "All",
                resource,
                prefix,
                "--resource-pattern-type",
                "prefixed",
            ],
        );
    }
}

fn acl(secured: &Secured, arguments: &[&str]) -> String {
    let mut all = vec!["--bootstrap-server", secured.broker.bootstrap.as_str()];
    all.extend(arguments);
    kafka_tool("org.apache.kafka.tools.AclCommand", &all)
}

/// A rule as `topics --print` prints it: the arguments after the name of the tool and the brokers.
fn printed(out: &str, principal: &str) -> Vec<Vec<String>> {
    let user = format!("User:{principal}");
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let lines = out.lines().filter(|line| line.starts_with("kafka-acls.sh")).map(words);
    lines.filter(|words| words.contains(&user)).map(|words| words[3..].to_vec()).collect()
}

/// Each single rule of these lines: one operation on one resource.
fn single_rules(lines: &[Vec<String>]) -> BTreeSet<Vec<String>> {
    let mut rules = BTreeSet::new();
    for line in lines {
        let value = |name: &str| -> Vec<String> {
            line.windows(2).filter(|pair| pair[0] == name).map(|pair| pair[1].clone()).collect()
        };
        let pattern = value("--resource-pattern-type");
        for resource in ["--topic", "--group", "--transactional-id"] {
            for name in value(resource) {
                for operation in value("--operation") {
                    let mut rule = vec!["--allow-principal".to_owned(), value("--allow-principal")[0].clone()];
                    rule.extend(["--operation".to_owned(), operation, resource.to_owned(), name.clone()]);
                    if let Some(pattern) = pattern.first() {
                        rule.extend(["--resource-pattern-type".to_owned(), pattern.clone()]);
                    }
                    rules.insert(rule);
                }
            }
        }
    }
    rules
}

fn change(secured: &Secured, verb: &[&str], rule: &[String]) {
    let mut arguments = verb.to_vec();
    arguments.extend(rule.iter().map(String::as_str));
    acl(secured, &arguments);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_exactly_the_printed_rights_everything_works_and_check_names_each_that_is_missing() {
    let secured = secured();
    let directory = LargeDirectory::start(5, 1, 3, 5, TOKEN).await;
    let prefix = unique_prefix("rights");
    let as_user =
        |user: &str| program(&secured.at("SASLTLS"), &prefix, &directory.base_url(), &scram(secured, user, RIGHT));
    let (service, reader, operator) = (as_user("scimtail"), as_user("scim-reader"), as_user("scim-operator"));
    let none = service.run(&["check"]).await;
    assert_eq!(none.code, 78, "{none:?}");
    assert!(none.out.contains("may not be described (ACL)") && !none.out.contains("does not exist"), "{}", none.out);
    let text = service.run(&["topics", "--print"]).await.out;
    for principal in ["scimtail", "scim-reader", "scim-operator"] {
        for rule in printed(&text, principal) {
            // The line begins with its own `--add`.
            change(secured, &[], &rule);
        }
    }
    let before = service.run(&["check"]).await;
    assert_eq!(before.code, 0, "{before:?}");
    for arguments in [&["run", "--once"][..], &["check"], &["plan"], &["state", "users"]] {
        let ended = service.run(arguments).await;
        assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
    }
    for arguments in [&["state", "users"][..], &["tail", "--from", "beginning", "--exit"]] {
        let ended = reader.run(arguments).await;
        assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
    }
    for arguments in [&["pause", "acme"][..], &["resume", "acme"], &["poll", "acme"]] {
        let ended = operator.run(arguments).await;
        assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
    }
    let more = reader.run(&["pause", "acme"]).await;
    assert_eq!(more.code, 78, "a reader may not pause: {more:?}");

    // Without one of them, `check` fails and names it. Read and Write imply Describe, and Create is for missing topics.
    let rules = single_rules(&printed(&text, "scimtail"));
    let implied = |rule: &&Vec<String>| !rule.iter().any(|word| word == "Describe" || word == "Create");
    let events = format!("{prefix}.events");
    let chosen = |rule: &&Vec<String>| !rule.contains(&"--topic".to_owned()) || rule.contains(&events);
    let (mut tried, mut complaints) = (0, Vec::new());
    for rule in rules.iter().filter(implied).filter(chosen) {
        change(secured, &["--remove", "--force"], rule);
        let check = service.run(&["check"]).await;
        let named = rule.last().filter(|last| *last != "prefixed").unwrap_or(&rule[5]);
        let (operation, resource) = (&rule[3], named.trim_end_matches('-'));
        let line = check.out.lines().find(|line| line.contains("FAIL") && line.contains(resource));
        if check.code != 78 || line.is_none() {
            complaints.push(format!("{operation} on {resource}: {check:?}"));
        }
        change(secured, &["--add"], rule);
        tried += 1;
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert_eq!(tried, 6, "{rules:#?}");
    let after = service.run(&["check"]).await;
    assert_eq!(after.code, 0, "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_to_write_that_is_taken_away_is_said_to_need_a_person_and_works_again_when_it_is_back() {
    let secured = secured();
    let directory = LargeDirectory::start(20, 2, 5, 20, TOKEN).await;
    let prefix = unique_prefix("taken");
    let program = program(&secured.at("SASLTLS"), &prefix, &directory.base_url(), &scram(secured, "scimtail", RIGHT));
    let text = std::fs::read_to_string(program.file()).expect("a configuration");
    let port = free_port().expect("a free port");
    let text = text.replace("interval = \"5m\"", "interval = \"1s\"");
    let text = format!("{text}\n[http]\nlisten = \"127.0.0.1:{port}\"\n");
    std::fs::write(program.file(), text).expect("a configuration");
    let printed = printed(&program.run(&["topics", "--print"]).await.out, "scimtail");
    printed.iter().for_each(|rule| change(secured, &[], rule));
    let first = program.run(&["run", "--once"]).await;
    assert_eq!(first.code, 0, "{first:?}");
    let users = format!("{prefix}.users");
    let write = ["--allow-principal", "User:scimtail", "--operation", "Write", "--topic", &users].map(str::to_owned);
    change(secured, &["--remove", "--force"], &write);
    directory.churn(0.5, 1);
    let mut service = program.spawn(&["run"]);
    let line = await_line(&mut service, "acquisition ended: refused");
    // In the words of `check`.
    let words = format!("Write is not permitted on {users} (ACL)");
    assert!(line.contains("ERROR") && line.contains(&words), "{line}");
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let refused = async || {
        let answer = client.get(format!("http://127.0.0.1:{port}/metrics")).send().await.expect("an answer");
        let page = answer.text().await.expect("a text");
        let mut lines = page.lines().filter(|line| line.contains("reason=\"refused\""));
        let line = lines.next().unwrap_or_else(|| panic!("no such series in {page}")).to_owned();
        line.ends_with(" 1")
    };
    assert!(refused().await, "it needs a person");
    await_line(&mut service, "acquisition ended: refused");
    assert!(refused().await, "it still does");
    let check = program.run(&["check"]).await;
    assert!(check.code == 78 && check.out.contains(&words), "{check:?}");
    change(secured, &["--add"], &write);
    await_line(&mut service, "sync completed");
    let deadline = Instant::now() + Duration::from_secs(60);
    while refused().await {
        assert!(Instant::now() < deadline, "it needs no person any more");
    }
    service.kill().expect("it runs");
    service.wait().expect("it ended");
}
