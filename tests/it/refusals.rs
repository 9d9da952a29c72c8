//! Configurations and topics with which the program must not even begin: each refusal ends it with 78 and says what to
//! do. (`cli.rs` has the refusals of partition counts and cleanup policies.)

use std::time::{Duration, Instant};

use scimtail::avro::wire::SyncStatus;
use scimtail::avro::{Decoder, schema};
use scimtail::kafka::partition_of;
use scimtail::kafka::read::read_to_end;
use scimtail::log::Topic;
use serde_json::{Value, json};

use crate::broker::directory::LargeDirectory;
use crate::broker::{self, shared_program};
use crate::meddling;
use crate::program::{AccountText, Program};
use crate::python::python;
use crate::services::{Services, broker_with, services, unique_prefix};

const WAIT: Duration = Duration::from_secs(60);

/// Both ways of running refuse at the start, and nothing is written.
async fn refused(program: &Program, words: &[&str]) {
    let once = program.run(&["run", "--once"]).await;
    assert_eq!(once.code, 78, "{once:?}");
    let mut service = program.spawn(&["run"]);
    let deadline = Instant::now() + WAIT;
    let code = loop {
        if let Some(status) = service.try_wait().expect("the child can be asked") {
            break status.code();
        }
        if Instant::now() > deadline {
            service.kill().expect("SIGKILL");
            panic!("the service goes on");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let output = service.wait_with_output().expect("its output");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code, Some(78), "{text}");
    let error = text.lines().last().expect("an error");
    for word in words {
        assert!(once.out.contains(word), "`{word}` is missing in {once:?}");
        assert!(error.starts_with("error: ") && error.contains(word), "`{word}` is missing in {error}");
    }
}

/// An account that has completed a sync.
async fn synced(test: &str) -> (LargeDirectory, Program) {
    let (directory, program, ..) = shared_program(test).await;
    let ended = program.run(&["run", "--once"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    (directory, program)
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_with_more_replicas_than_brokers_have_registered_wait_for_the_brokers() {
    let directory = LargeDirectory::start(2, 1, 2, 2, "replicas-token").await;
    let account = AccountText { name: "acme", provider: "generic", base_url: directory.base_url(), more: "" };
    let program = Program::new(services(), &unique_prefix("replicas"), "replicas-token", "5m", &[account]);
    let text = std::fs::read_to_string(program.file()).expect("a configuration");
    std::fs::write(program.file(), text.replace("replication = 1", "replication = 3")).expect("a configuration");
    let what = "1 broker has registered, and replication = 3 needs 3";
    let remedy = "→ start the missing brokers, or lower kafka.replication";
    let kafka = format!("kafka {}: {what}; {remedy}", services().bootstrap);
    for arguments in [&["run", "--once"][..], &["run"], &["topics", "--create"]] {
        let ended = program.run(arguments).await;
        assert_eq!(ended.code, 69, "{arguments:?}: {ended:?}");
        assert!(ended.err.contains(&kafka), "{arguments:?}: {ended:?}");
    }
    let check = program.run(&["check"]).await;
    assert!(check.code == 69 && check.out.contains(what) && check.out.contains(remedy), "{check:?}");
    std::fs::write(program.file(), text).expect("a configuration");
    let ended = program.run(&["run", "--once"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_a_newer_version_wrote_is_refused() {
    let (_directory, program, shared, config) = shared_program("newer").await;
    let ended = program.run(&["run", "--once"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let (kafka, partition) = (shared.kafka.clone(), config.account.partition);
    let mut decoder = Decoder::of_reader(shared.registry.clone());
    let newest = tokio::task::spawn_blocking(move || {
        let mut newest = None;
        let each = |record: scimtail::kafka::read::ReadRecord<'_>| {
            let value = record.value.expect("no tombstone");
            newest = Some(decoder.decode::<SyncStatus>(Topic::Syncs, value).expect("it decodes"));
            Ok(())
        };
        read_to_end(&kafka, &[&[Topic::Syncs]], &[partition], each, |_| Ok(())).expect("it is read");
        newest.expect("a record")
    });
    let record = SyncStatus { scimtail_version: "99.0.0".to_owned(), ..newest.await.expect("it was read") };
    let mut bytes = vec![0];
    bytes.extend(shared.codec.ids.of(Topic::Syncs).to_be_bytes());
    schema::writer(Topic::Syncs).write_ser(&mut bytes, &record).expect("it encodes");
    let syncs = program.topic("syncs");
    meddling::write(&services().bootstrap, &syncs, partition, Some("acme/latest"), Some(&bytes));
    refused(&program, &["scimtail 99.0.0 wrote the records of acme", "→ run that version or a newer one"]).await;
    // Readers of any version read records of any version.
    let state = program.run(&["tail", "--from", "beginning", "--exit"]).await;
    assert_eq!(state.code, 0, "{state:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_with_a_newer_schema_is_refused() {
    let (_directory, program) = synced("schema").await;
    let mut newer: Value = serde_json::from_str(schema::text(Topic::Memberships)).expect("JSON");
    let field = json!({ "name": "from_the_future", "type": ["null", "string"], "default": null, "doc": "Not yet.", "pii": "none" });
    newer["fields"].as_array_mut().expect("fields").push(field);
    let newer = newer.to_string();
    let url = format!("{}/subjects/{}-value/versions", services().registry, program.topic("memberships"));
    let registered: Value = reqwest::Client::new()
        .post(url)
        .json(&json!({ "schema": newer }))
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    let id = registered["id"].as_u64().unwrap_or_else(|| panic!("{registered}")) as u32;
    let schema = apache_avro::Schema::parse_str(&newer).expect("a schema");
    let mut record = apache_avro::types::Record::new(&schema).expect("a record");
    for (name, value) in [
        ("account", "acme"),
        ("provider", "generic"),
        ("principal_type", "user"),
        ("principal_id", "u"),
        ("group_id", "g"),
    ] {
        record.put(name, value);
    }
    for name in ["first_seen_at", "sequence", "sync"] {
        let at = if name == "first_seen_at" { apache_avro::types::Value::TimestampMillis(1) } else { 1_i64.into() };
        record.put(name, at);
    }
    for name in ["direct", "from_the_future"] {
        record.put(name, None::<String>);
    }
    let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&schema).build().expect("a writer");
    let mut bytes = vec![0];
    bytes.extend(id.to_be_bytes());
    writer.write_value(&mut bytes, apache_avro::types::Value::from(record)).expect("it encodes");
    let (topic, partition) = (program.topic("memberships"), partition_of("acme", 2));
    meddling::write(&services().bootstrap, &topic, partition, Some("acme/Users/u/Groups/g"), Some(&bytes));
    refused(&program, &["acme: ", "written with a newer schema", "→ run the version that wrote it"]).await;
}

/// A broker that permits everything except one operation, which is denied to one prefix: a `transactional.id`, or the
/// group.
#[tokio::test(flavor = "multi_thread")]
async fn a_transactional_id_and_a_group_that_are_not_permitted_are_refused() {
    let broker = broker_with(
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
         allow.everyone.if.no.acl.found=true\n\
         super.users=User:nobody\n",
    );
    let directory = LargeDirectory::start(5, 1, 2, 5, broker::TOKEN).await;
    let own = Services { bootstrap: broker.bootstrap.clone(), registry: services().registry.clone() };
    for denied in ["TRANSACTIONAL_ID", "GROUP"] {
        let account = AccountText { name: "acme", provider: "generic", base_url: directory.base_url(), more: "" };
        let prefix = unique_prefix("acl");
        let program = Program::new(&own, &prefix, broker::TOKEN, "1s", &[account]);
        let created = program.run(&["topics", "--create"]).await;
        assert_eq!(created.code, 0, "{created:?}");
        deny(&broker.bootstrap, denied, &prefix);
        if denied == "TRANSACTIONAL_ID" {
            refused(&program, &["the transactional.id is not permitted (ACL)", "→ scimtail topics --print"]).await;
            continue;
        }
        // `--once` joins no group.
        assert_eq!(program.run(&["run", "--once"]).await.code, 0);
        let service = tokio::time::timeout(WAIT, program.run(&["run"])).await.expect("the service ends");
        let error = service.err.lines().last().expect("an error");
        assert!(service.code == 78 && error.contains("the consumer group is not permitted (ACL)"), "{service:?}");
    }
}

/// By a client that can create ACLs; ours cannot.
fn deny(bootstrap: &str, what: &str, prefix: &str) {
    const SCRIPT: &str = "
import sys
from confluent_kafka.admin import *
acl = AclBinding(ResourceType[sys.argv[3]], sys.argv[2], ResourcePatternType.PREFIXED, 'User:ANONYMOUS', '*',
                 AclOperation.ALL, AclPermissionType.DENY)
admin = AdminClient({'bootstrap.servers': sys.argv[1]})
for done in admin.create_acls([acl]).values():
    done.result(30)
";
    let output = std::process::Command::new(python()).args(["-c", SCRIPT, bootstrap, prefix, what]).output();
    let output = output.expect("the interpreter that `python` returned can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
