//! SASL OAUTHBEARER with tokens of an OAuth2 server, on a real broker that verifies them.

use std::path::Path;
use std::process::Child;

use super::issuer::{CLIENT, TokenServer};
use super::{TOKEN, grant_all, program, property};
use crate::broker::directory::LargeDirectory;
use crate::program::{Ended, Program, await_line};
use crate::secured::broker::{Secured, secured};
use crate::services::unique_prefix;

/// The lines of `[kafka.oauth]`. `secret`: the name of a file.
fn oauth(secured: &Secured, url: &str, secret: &str) -> String {
    let file = secured.file(secret).display().to_string();
    format!(
        "[kafka.oauth]\ntoken_url = \"{url}\"\nclient_id = \"{CLIENT}\"\nclient_secret_file = \"{file}\"\n\
         scope = \"kafka\"\nextensions = {{ logicalCluster = \"lkc-1\" }}\n"
    )
}

fn with_tokens(secured: &Secured, prefix: &str, base_url: &str, oauth: &str) -> Program {
    let lines = [property("security.protocol", "sasl_ssl"), secured.ca()];
    let program = program(&secured.at("OAUTH"), prefix, base_url, &lines);
    change(&program.file(), "[kafka.secrets]\n", oauth);
    program
}

fn change(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).expect("a configuration");
    assert!(text.contains(from), "{text}");
    std::fs::write(file, text.replacen(from, to, 1)).expect("a configuration");
}

fn end(mut service: Child) {
    service.kill().expect("it runs");
    service.wait().expect("it ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_works_with_tokens_of_an_oauth2_server() {
    let secured = secured();
    let directory = LargeDirectory::start(5, 1, 3, 5, TOKEN).await;
    let server = TokenServer::start(3_600).await;
    let prefix = unique_prefix("oauth");
    grant_all(secured, CLIENT, &prefix);
    let program = with_tokens(secured, &prefix, &directory.base_url(), &oauth(secured, &server.url, "oauth-secret"));
    let mut said = String::new();
    let commands: [&[&str]; 8] = [
        &["check"],
        &["topics", "--create"],
        &["run", "--once"],
        &["plan"],
        &["state", "users"],
        &["tail", "--from", "beginning", "--exit"],
        &["pause", "acme"],
        &["resume", "acme"],
    ];
    for command in commands {
        let before = server.issued();
        let ended = program.run(&[&["--log-level", "trace"], command].concat()).await;
        assert_eq!(ended.code, 0, "{command:?}: {ended:?}");
        assert_eq!(server.issued() - before, 1, "all clients of {command:?} share one token");
        said.push_str(&ended.out);
        said.push_str(&ended.err);
    }
    assert!(said.len() > 1_000 && !said.contains("canary") && !said.contains("eyJ"), "a secret or a token is printed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_token_is_said_with_its_remedy_in_every_command() {
    let secured = secured();
    let directory = LargeDirectory::start(3, 1, 2, 3, TOKEN).await;
    let (server, other, away) =
        (TokenServer::start(3_600).await, TokenServer::start(3_600).await, TokenServer::start(3_600).await);
    other.change(|policy| policy.audience = "another");
    away.change(|policy| policy.available = false);
    let nowhere = "http://127.0.0.1:1/token".to_owned();
    let metadata = "https://169.254.169.254/token".to_owned();
    let wrongs = [
        ("metadata", metadata, "oauth-secret", 78, "[kafka.oauth]: token_url: the URL leads to a link-local"),
        ("secret", server.url.clone(), "wrong-password", 78, "401: the token endpoint refused the client credentials"),
        ("no file", server.url.clone(), "no-such-file", 78, "[kafka.oauth]: secret file"),
        ("audience", other.url.clone(), "oauth-secret", 78, "Kafka refuses the token (SASL OAUTHBEARER)"),
        ("away", away.url.clone(), "oauth-secret", 69, "[kafka.oauth]: the token endpoint answers HTTP 503"),
        ("nowhere", nowhere, "oauth-secret", 69, "[kafka.oauth]: token_url: nothing listens"),
    ];
    let commands: [&[&str]; 5] =
        [&["check"], &["run", "--once"], &["topics"], &["state", "users"], &["tail", "--exit"]];
    let mut complaints = Vec::new();
    for (name, url, secret, code, words) in wrongs {
        let program = with_tokens(secured, "wrong", &directory.base_url(), &oauth(secured, &url, secret));
        for command in commands {
            let ended = program.run(command).await;
            let Ended { out, err, .. } = &ended;
            let out = format!("{out}{err}");
            if ended.code != code || !out.contains(words) || out.contains("canary") {
                complaints.push(format!("{name}, {command:?}: {}, {out}", ended.code));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// No broker of Amazon's is here, so this ends where it would decide.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_amazon_msk_is_signed_with_the_credentials_of_the_machine_and_reaches_kafka() {
    let secured = secured();
    let directory = LargeDirectory::start(3, 1, 2, 3, TOKEN).await;
    let program = with_tokens(secured, "wrong", &directory.base_url(), "[kafka.msk_iam]\nregion = \"eu-central-1\"\n");
    let home = tempfile::tempdir().expect("a directory");
    let run = async |variables: &[(&str, &str)]| {
        let mut command = program.command(&["--log-level", "debug", "topics"]);
        // Nothing of this machine counts.
        command.env_clear().env("HOME", home.path()).env("AWS_EC2_METADATA_DISABLED", "true");
        command.envs(variables.iter().copied()).env("SCIMTAIL_TEST_TOKEN", TOKEN);
        let output = tokio::task::spawn_blocking(move || command.output().expect("it runs")).await;
        Ended::from(output.expect("it was waited for"))
    };
    let none = run(&[]).await;
    assert!(
        none.code == 78 && none.err.contains("[kafka.msk_iam]: there are no AWS credentials; → a role"),
        "{none:?}"
    );
    let keys = [("AWS_ACCESS_KEY_ID", "AKIACANARY"), ("AWS_SECRET_ACCESS_KEY", "canary-of-aws")];
    let refused = run(&keys).await;
    assert!(refused.code == 78 && refused.err.contains("Kafka refuses the token (SASL OAUTHBEARER)"), "{refused:?}");
    assert!(!refused.err.to_ascii_lowercase().contains("canary"), "{refused:?}");
}

/// The broker ends a connection if it outlives its token.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_outlives_its_tokens_and_an_outage_of_their_server() {
    const LIFE_SECONDS: u64 = 20;
    let secured = secured();
    let directory = LargeDirectory::start(20, 2, 5, 20, TOKEN).await;
    let server = TokenServer::start(LIFE_SECONDS).await;
    let prefix = unique_prefix("renewed");
    grant_all(secured, CLIENT, &prefix);
    let program = with_tokens(secured, &prefix, &directory.base_url(), &oauth(secured, &server.url, "oauth-secret"));
    change(&program.file(), "interval = \"5m\"", "interval = \"1s\"");
    let mut service = program.spawn(&["run"]);
    await_line(&mut service, "sync completed");
    let mut renewed = server.issued();
    for _ in 0..2 {
        renewed += 1;
        server.reached(renewed).await;
        directory.churn(0.3, renewed);
        let line = next_line_of(&mut service, &["sync completed", "ERROR", "WARN"]);
        assert!(line.contains("sync completed"), "{line}");
    }
    server.change(|policy| policy.available = false);
    let line = await_line(&mut service, "no new token for Kafka");
    assert!(line.contains("[kafka.oauth]: the token endpoint answers HTTP 503"), "{line}");
    let line = await_line(&mut service, "Kafka cannot be used");
    assert!(line.contains("[kafka.oauth]: the token endpoint answers HTTP 503"), "{line}");
    directory.churn(0.3, 99);
    server.change(|policy| policy.available = true);
    await_line(&mut service, "Kafka can be used again");
    await_line(&mut service, "sync completed");
    end(service);
}

/// The next line of a child's log that holds one of `texts`.
fn next_line_of(child: &mut Child, texts: &[&str]) -> String {
    loop {
        let line = await_line(child, "");
        if texts.iter().any(|text| line.contains(text)) {
            return line;
        }
    }
}
