//! The commands as programs and terminals see them: JSON documents, exit codes that tell changes, tables that fit.

use std::collections::BTreeSet;
use std::time::SystemTime;

use axum::routing::get;
use scimtail::demo::directory::{SimulatedDirectory, Vendor};
use serde_json::{Value, json};

use crate::program::{AccountText, Ended, Program};
use crate::services::{services, unique_prefix};

const TOKEN: &str = "machine-test-token";

async fn directory() -> SimulatedDirectory {
    SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 5, SystemTime::now).await.expect("a directory")
}

/// The document that a command printed; it states the exit code too.
fn document(ended: &Ended) -> Value {
    assert_eq!(ended.out.lines().count(), 1, "{ended:?}");
    let document: Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(document["exit_code"], ended.code, "{document}");
    document
}

/// Every key of a JSON value.
fn keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            into.insert(name.clone());
            keys(value, into);
        }),
        Value::Array(values) => values.iter().for_each(|value| keys(value, into)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_plan_and_run_once_print_one_document_whose_fields_are_documented() {
    let directory = directory().await;
    let nowhere = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("http://{}/scim/v2", listener.local_addr().expect("its address"))
    };
    let account = |name, base_url| AccountText { name, provider: "chargebee", base_url, more: "" };
    let accounts = [account("zulu", directory.base_url()), account("lost", nowhere)];
    let program = Program::new(services(), &unique_prefix("documents"), TOKEN, "5m", &accounts);
    let text = std::fs::read_to_string(program.file()).expect("the configuration");
    std::fs::write(program.file(), format!("{text}\n[http]\nlisten = \"127.0.0.1:0\"\n")).expect("it is written");
    let mut found = BTreeSet::new();
    let mut run = async |program: &Program, arguments: &[&str]| {
        let ended = program.run(&[arguments, &["--format", "json"]].concat()).await;
        let document = document(&ended);
        keys(&document, &mut found);
        (document, ended)
    };

    let (first, ended) = run(&program, &["plan"]).await;
    assert_eq!((ended.code, &first["accounts"][0]["account"]), (69, &json!("zulu")), "the configuration's order");
    assert_eq!(first["accounts"][0]["baseline"]["users"], 40);
    assert_eq!(
        (&first["accounts"][1]["result"], &first["accounts"][1]["reason_code"]),
        (&json!("failed"), &json!("unreachable"))
    );
    assert!(ended.err.lines().any(|line| line.starts_with("error: lost: ")), "{}", ended.err);
    let detailed = program.run(&["plan", "zulu", "--detailed-exitcode"]).await;
    assert_eq!(detailed.code, 3, "a first sync writes the state: {detailed:?}");

    let (baseline, ended) = run(&program, &["run", "--once"]).await;
    assert_eq!(ended.code, 69);
    let zulu = &baseline["accounts"][0];
    assert_eq!((&zulu["result"], &zulu["users_read"], &zulu["exit_code"]), (&json!("baseline"), &json!(40), &json!(0)));
    assert_eq!(baseline["accounts"][1]["reason_code"], "unreachable");
    let plan = program.run(&["plan", "zulu", "--detailed-exitcode"]).await;
    assert!(plan.code == 0 && plan.out.ends_with("\n+0 ~0 !0 -0   0 changes; nothing was written\n"), "{plan:?}");

    for wanted in ["user.added", "user.updated"] {
        while directory.change() != wanted {}
    }
    let plan = program.run(&["plan", "zulu", "--detailed-exitcode"]).await;
    let last = plan.out.lines().last().expect("a line");
    assert!(plan.code == 3 && last.starts_with('+') && !last.starts_with("+0"), "{plan:?}");
    let (planned, _) = run(&program, &["plan", "zulu"]).await;
    let zulu = &planned["accounts"][0];
    let total: u64 =
        ["added", "updated", "disabled", "removed"].iter().map(|of| zulu["total"][of].as_u64().expect("a count")).sum();
    assert_eq!(zulu["changes"].as_array().map(Vec::len), Some(total as usize));
    assert_eq!(planned["total"], zulu["total"]);
    let (synced, _) = run(&program, &["run", "--once", "--account", "zulu"]).await;
    assert_eq!(
        (&synced["accounts"][0]["result"], &synced["accounts"][0]["events_published"]),
        (&json!("completed"), &json!(total))
    );

    // Any loss at all is above the limit of this guard.
    let text = std::fs::read_to_string(program.file()).expect("a configuration");
    let guard = "name = \"zulu\"\nguard = { min_losses = 1, max_ratio = 0.0 }";
    let program = Program::with_text(&program.prefix, TOKEN, &text.replacen("name = \"zulu\"", guard, 1));
    while directory.change() != "user.removed" {}
    let (held, ended) = run(&program, &["plan", "zulu"]).await;
    assert_eq!((ended.code, &held["accounts"][0]["result"]), (75, &json!("held")));
    let (once, ended) = run(&program, &["run", "--once", "--account", "zulu"]).await;
    assert_eq!((ended.code, &once["accounts"][0]["hold_id"]), (75, &held["accounts"][0]["hold_id"]));
    let (checked, ended) = run(&program, &["check", "--record", "recording.json"]).await;
    assert_eq!((ended.code, &checked["problems"], &checked["held"]), (75, &json!(1), &json!(1)));
    assert_eq!((&checked["accounts"][0]["exit_code"], &checked["accounts"][1]["exit_code"]), (&json!(75), &json!(69)));
    let fail = checked["accounts"][1]["findings"].as_array().into_iter().flatten().find(|of| of["result"] == "fail");
    assert_eq!(fail.map(|fail| &fail["topic"]), Some(&json!("reach")));

    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/json.md")).expect("the page");
    let documented: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(found, documented, "the fields of the documents, and those of docs/json.md");
    let usage = program.run(&["run", "--format", "json"]).await;
    assert!(usage.code == 2 && usage.err.contains("--once"), "{usage:?}");
}

/// An empty directory that says what it can do only once another one is asked too.
async fn slow(answering: std::sync::Arc<tokio::sync::Barrier>) -> String {
    let advertised = move || {
        let answering = answering.clone();
        async move {
            answering.wait().await;
            axum::Json(json!({ "filter": { "supported": false }, "patch": { "supported": false } }))
        }
    };
    let empty = async || {
        axum::Json(json!({
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
            "totalResults": 0, "startIndex": 1, "itemsPerPage": 0, "Resources": [],
        }))
    };
    let router = axum::Router::new().route("/ServiceProviderConfig", get(advertised));
    let router = router.route("/Users", get(empty)).route("/Groups", get(empty));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_checked_side_by_side_and_told_one_after_the_other() {
    let both = std::sync::Arc::new(tokio::sync::Barrier::new(2));
    let account = |name, base_url| AccountText { name, provider: "generic", base_url, more: "" };
    let accounts = [account("zulu", slow(both.clone()).await), account("alpha", slow(both).await)];
    let program = Program::new(services(), &unique_prefix("beside"), TOKEN, "5m", &accounts);
    let ended = program.run(&["check"]).await;
    assert_eq!((ended.code, ended.out.matches("  ok    advertised").count()), (0, 2), "{ended:?}");
    let headings: Vec<&str> = ended.out.lines().filter(|line| !line.starts_with(' ')).collect();
    let first = |line: &&str| line.split_whitespace().next().map(str::to_owned);
    assert_eq!(headings[..4].iter().filter_map(first).collect::<Vec<_>>(), ["zulu", "alpha", "kafka", "registry"]);
    assert_eq!(headings[4..], ["2 accounts, Kafka and the registry: no problem"]);
}

/// A directory of one user.
async fn directory_of(id: &'static str, name: &'static str) -> String {
    let list = |resources: Value| {
        let count = resources.as_array().map_or(0, Vec::len);
        axum::Json(json!({
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
            "totalResults": count, "startIndex": 1, "itemsPerPage": count, "Resources": resources,
        }))
    };
    let users = move || async move { list(json!([{ "id": id, "userName": name, "active": true }])) };
    let groups = move || async move { list(json!([])) };
    let router = axum::Router::new().route("/Users", get(users)).route("/Groups", get(groups));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_as_wide_as_the_terminal_and_colours_follow_no_color_in_logs_too() {
    let name = "株式会社エーシーエムイー日本支社の山田太郎";
    let base_url = directory_of("4f7c9a30-7a44-4f6e-a7a3-0c9f1b1f9a01", name).await;
    let account = AccountText { name: "acme", provider: "generic", base_url, more: "" };
    let program = Program::new(services(), &unique_prefix("width"), TOKEN, "5m", &[account]);
    let once = ["--log-level", "info", "run", "--once"];
    let (code, shown) = program.on_terminal(&once, 80, &[("NO_COLOR", "1")]).await;
    assert!(code == 0 && shown.contains("INFO") && !shown.contains('\u{1b}'), "{shown:?}");
    let (_, shown) = program.on_terminal(&once, 80, &[]).await;
    let log = shown.lines().find(|line| line.contains("INFO")).expect("a log line");
    assert!(log.contains('\u{1b}'), "{shown:?}");

    let width = |line: &str| unicode_width::UnicodeWidthStr::width(line);
    let table = |shown: &str| -> Vec<String> {
        shown.lines().filter(|line| !line.contains("complete as of")).map(str::to_owned).collect()
    };
    for (columns, whole) in [(80, true), (40, false)] {
        let (_, shown) = program.on_terminal(&["state", "users"], columns, &[]).await;
        let narrow = table(&shown);
        assert!(narrow.len() == 2 && narrow.iter().all(|line| width(line) <= usize::from(columns)), "{narrow:#?}");
        assert!(narrow[1].contains('…') && narrow[0].ends_with("since") == whole, "{narrow:#?}");
    }
    let (_, shown) = program.on_terminal(&["state", "users", "--wide"], 60, &[]).await;
    assert!(shown.contains(name), "{shown}");
    assert!(program.run(&["state", "users"]).await.out.contains(name), "a pipe gets everything");
    let (_, shown) = program.on_terminal(&["providers"], 70, &[("NO_COLOR", "1")]).await;
    assert!(shown.lines().count() > 5 && shown.lines().all(|line| width(line) <= 70), "{shown}");
    let (_, shown) = program.on_terminal(&["providers", "--wide"], 70, &[("NO_COLOR", "1")]).await;
    assert!(shown.lines().any(|line| width(line) > 70), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn state_lists_one_user_or_group_and_a_name_that_is_nobodys_is_an_error() {
    let directory = directory().await;
    let account = AccountText { name: "acme", provider: "chargebee", base_url: directory.base_url(), more: "" };
    let program = Program::new(services(), &unique_prefix("filter"), TOKEN, "5m", &[account]);
    assert_eq!(program.run(&["run", "--once"]).await.code, 0);
    let rows = async |arguments: &[&str]| -> Vec<Value> {
        let ended = program.run(&[&["state"], arguments, &["--format", "json"]].concat()).await;
        assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
        ended.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let access = rows(&["access"]).await;
    let one = access.iter().find(|row| row["principal_type"] == "user").expect("a user in a group");
    let (name, id) = (one["principal"].as_str().expect("a name"), one["principal_id"].as_str().expect("an id"));
    let (group, group_id) = (one["group"].as_str().expect("a name"), one["group_id"].as_str().expect("an id"));
    let of =
        |field: &str, value: &str| -> Vec<Value> { access.iter().filter(|row| row[field] == value).cloned().collect() };
    assert!(of("principal", name).len() < access.len() && of("group", group).len() < access.len(), "they are not all");
    for who in [name, &name.to_uppercase(), id] {
        assert_eq!(rows(&["access", "--user", who]).await, of("principal", name), "{who}");
    }
    assert_eq!(rows(&["access", "--group", group]).await, of("group", group));
    assert_eq!(rows(&["access", "--group", group_id]).await, of("group_id", group_id));
    let both = rows(&["access", "--user", name, "--group", group]).await;
    assert_eq!(both, std::slice::from_ref(one));
    let users = rows(&["users", "--user", name]).await;
    assert_eq!(users.iter().map(|user| &user["id"]).collect::<Vec<_>>(), [id]);
    let memberships = rows(&["memberships", "--group", group_id]).await;
    assert!(!memberships.is_empty() && memberships.iter().all(|row| row["group_id"] == group_id));
    let groups = rows(&["groups", "--group", group]).await;
    assert_eq!(groups.iter().map(|group| &group["id"]).collect::<Vec<_>>(), [group_id]);

    let nobody = program.run(&["state", "access", "--user", "nobody@acme.example", "--user", name]).await;
    assert!(nobody.code == 1 && nobody.err.contains("no user `nobody@acme.example`; →"), "{nobody:?}");
    assert!(nobody.out.contains(group), "the others are listed: {nobody:?}");
    program.run(&["state", "users", "--group", group]).await.refused(2, &["`state users` has no --group", "→"]);
    program.run(&["state", "groups", "--user", name]).await.refused(2, &["`state groups` has no --user", "→"]);
}
