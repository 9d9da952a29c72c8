//! `check --record` as a person calls it, on a directory in which every value is a canary.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use axum::Router;
use axum::body::Body;
use axum::http::{Response, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::program::{AccountText, Ended, Program, TOKEN_VARIABLE};
use crate::services::Services;

const TOKEN: &str = "canary-token-8731";
const BASE: &str = "/tenant-canary/scim/v2";
/// Numbers and ids that only a person or a group has.
const NUMBERS: [&str; 4] = ["7305551234", "7305559876", "8f14e45f-ceea-467f-9c4a-73055512aaaa", "7305550077"];

fn user(n: usize) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User", "urn:canary:schemas:extension:canary:2.0:User"],
        "id": format!("canary-u{n}"), "externalId": NUMBERS[2], "userName": format!("Canary.U{n}@canary.test"),
        "displayName": format!("Canary O'Canary-{n}"), "active": n != 2, "nickName": "CANARY", "title": "admin canary",
        "name": {"givenName": "Canary", "familyName": "Cánary canary", "formatted": "canary\ncanary"},
        "emails": [{"value": format!("canary.u{n}@canary.test"), "type": "work", "primary": true}],
        "phoneNumbers": [{"value": format!("+49 {}", NUMBERS[0]), "type": "mobile"}],
        "photos": [{"value": "https://canary.test:8443/canary/canary.png?canary=canary#canary", "type": "photo"}],
        "profileUrl": "https://canary:canary@canary.test/~canary",
        "urn:canary:schemas:extension:canary:2.0:User": {"canaryBadge": NUMBERS[1], "seat": 7_305_550_077_u64},
        "canary@canary.test": {"canary": ["canary", "Y2FuYXJ5", "%63anary", "\u{2028}canary"]},
        "meta": {"resourceType": "User", "created": "2031-07-30T05:55:12.345Z", "version": "W/\"canary\"",
            "location": format!("https://canary.test{BASE}/Users/canary-u{n}")},
    })
}

fn group(n: usize) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "id": format!("canary-g{n}"),
        "displayName": format!("CB/canary.test/ROLE/canary, {n}"),
        "members": [
            {"value": "canary-u1", "display": "Canary.U1@canary.test", "$ref": "../Users/canary-u1", "type": "User"},
            {"value": "canary-u2", "display": "canary", "$ref": format!("https://canary.test{BASE}/Users/canary-u2")},
        ],
    })
}

fn list(rows: Vec<Value>) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"], "totalResults": rows.len(),
        "itemsPerPage": rows.len(), "startIndex": 1, "Resources": rows, "canary": "canary",
    })
}

fn answer(uri: &Uri) -> (u16, String) {
    let error = |status: u16| {
        let detail = format!("canary: token {TOKEN} may not read {uri}");
        let schemas = ["urn:ietf:params:scim:api:messages:2.0:Error"];
        (status, json!({"schemas": schemas, "status": status.to_string(), "detail": detail}).to_string())
    };
    let query = uri.query().unwrap_or_default();
    match uri.path().strip_prefix(BASE).unwrap_or_default() {
        "/Users" if query.contains("startIndex=4") => error(400),
        "/Users" => (200, list((1..4).map(user).collect()).to_string()),
        "/Groups" => (200, list((1..3).map(group).collect()).to_string()),
        "/ServiceProviderConfig" => (
            200,
            json!({"documentationUri": "https://canary.test/canary", "filter": {"supported": true, "maxResults": 200},
                "authenticationSchemes": [{"type": "oauthbearertoken", "name": "Canary", "description": "canary canary"}]})
            .to_string(),
        ),
        "/Schemas" => (
            200,
            list(vec![json!({"id": "urn:canary:schemas:extension:canary:2.0:User", "name": "Canary",
                "attributes": [{"name": "canaryBadge", "type": "string"}, {"name": "seat", "type": "integer"}]})])
            .to_string(),
        ),
        "/ResourceTypes" => (403, format!("<html><title>canary</title>{TOKEN}</html>")),
        path => {
            let one = |all: Vec<Value>, id: &str| all.into_iter().find(|row| row["id"] == id).map(|row| row.to_string());
            let users = path.strip_prefix("/Users/").and_then(|id| one((1..4).map(user).collect(), id));
            let groups = path.strip_prefix("/Groups/").and_then(|id| one((1..3).map(group).collect(), id));
            users.or(groups).map_or_else(|| error(404), |body| (200, body))
        }
    }
}

async fn start() -> (String, JoinSet<()>) {
    let serve = |uri: Uri| async move {
        let (status, body) = answer(&uri);
        Response::builder()
            .status(status)
            .header("content-type", "application/scim+json; charset=utf-8; canary=canary")
            .header("etag", "W/\"canary\"")
            .header("link", format!("<https://canary.test{BASE}/Users?cursor=canary>; rel=\"next\""))
            .header("x-ratelimit-remaining", "99")
            .header("x-ratelimit-reset", "canary")
            .header("x-canary", "canary")
            .header("set-cookie", "canary=canary")
            .body(Body::from(body))
            .unwrap()
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, Router::new().fallback(serve)).await.expect("it serves") });
    (format!("{address}{BASE}"), serving)
}

/// Kafka and the registry are not there: a recording does not need them.
fn program(base_url: String) -> Program {
    let nowhere = format!("127.0.0.1:{}", closed_port());
    let services = Services { bootstrap: nowhere.clone(), registry: format!("http://{nowhere}") };
    let account = AccountText { name: "canary-acme", provider: "chargebee", base_url, more: "" };
    Program::new(&services, "canary", TOKEN, "5m", &[account])
}

fn closed_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port()
}

/// The text as it is, and as it is once escapes of JSON and of URLs are resolved.
fn readings(text: &str) -> [String; 2] {
    let resolved = percent_encoding::percent_decode_str(text).decode_utf8_lossy().to_lowercase();
    [text.to_lowercase(), resolved]
}

/// The fields of a recording, the answers themselves aside. A request with a body is seldom sent.
fn fields(recording: &Value) -> BTreeSet<String> {
    let account = &recording["accounts"][0];
    let requests = account["requests"].as_array().unwrap().iter();
    let objects = [recording, account].into_iter().chain(requests).map(|value| value.as_object().unwrap());
    objects.flat_map(|object| object.keys().cloned()).chain(["sent".to_owned()]).collect()
}

fn documented() -> BTreeSet<String> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/recordings.md")).unwrap();
    let table = page.split("## What is in the file").nth(1).unwrap().to_owned();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    rows.flat_map(|(names, _)| names.split("`, `").map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_holds_no_canary_in_any_encoding_and_the_same_placeholder_for_the_same_value() {
    let (base_url, _serving) = start().await;
    let port = base_url.trim_start_matches("http://127.0.0.1:").split('/').next().unwrap().to_owned();
    let program = program(base_url);
    let ended = program.run(&["check", "--record", "recording.json"]).await;
    assert_eq!(ended.code, 69, "Kafka is not there: {ended:?}");
    let path = program.file().with_file_name("recording.json");
    let text = std::fs::read_to_string(&path).unwrap();
    // Base64 at each offset: the characters that depend on the canary alone.
    let encoded = [("canary", 0..8), ("xcanary", 2..9), ("xxcanary", 3..10)]
        .map(|(text, part)| STANDARD_NO_PAD.encode(text)[part].to_owned());
    let canaries = ["canary", "cánary", "8731", "tenant", "127.0.0.1", "8443", "2031-07-30", "05:55:12", &port];
    let canaries = canaries.into_iter().chain(NUMBERS).map(str::to_owned).chain(encoded);
    for canary in canaries {
        for reading in readings(&text) {
            assert!(!reading.contains(&canary.to_lowercase()), "{canary}:\n{text}");
        }
    }

    let recording: Value = serde_json::from_str(&text).unwrap();
    let requests = recording["accounts"][0]["requests"].as_array().unwrap();
    let of = |path: &str| requests.iter().filter(|request| request["path"] == path).collect::<Vec<_>>();
    let user = &of("Users")[0]["body"]["Resources"][0];
    let members = &of("Groups")[0]["body"]["Resources"][0]["members"];
    let (id, name) = (user["id"].as_str().unwrap(), &user["userName"]);
    assert_eq!((&members[0]["value"], &members[0]["display"]), (&json!(id), name));
    assert_eq!(members[0]["$ref"], format!("../Users/{id}"));
    assert!(user["meta"]["location"].as_str().unwrap().ends_with(&format!("/scim/v2/Users/{id}")), "{user}");
    assert!(!of(&format!("Users/{id}")).is_empty(), "the id in a path is the id in a body");
    let group = of("Groups")[0]["body"]["Resources"][0]["displayName"].as_str().unwrap();
    assert!(group.starts_with("CB/") && group.split('/').nth(2) == Some("ROLE"), "{group}");
    assert_eq!(of("ServiceProviderConfig")[0]["body"]["filter"]["maxResults"], 200);
    assert_eq!(of("ResourceTypes")[0]["body_left_out"], "not JSON");
    assert_eq!(of("Users")[0]["headers"]["x-ratelimit-remaining"], "99");
    assert!(of("Users").iter().any(|request| request["status"] == 400), "the page behind the last row");
    assert!(text.contains("\"seat\""), "a name of the server's schemas stays");

    assert_eq!(fields(&recording), documented(), "docs/recordings.md, and a file");

    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let said = format!("recording.json: {} requests and their answers", requests.len());
    assert!(ended.out.contains(&said) && ended.out.ends_with("→ read it before you send it\n"), "{}", ended.out);

    let again = program.run(&["check", "--record", "recording.json"]).await;
    again.refused(2, &["recording.json: there is a file of this name", "→ name a file that does not exist"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let other = program.run(&["check", "--format", "json", "--record", "other.json"]).await;
    let document: Value = serde_json::from_str(&other.out).unwrap();
    assert_eq!(
        (&document["recording"]["file"], &document["recording"]["requests"]),
        (&json!("other.json"), &json!(requests.len()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_cannot_be_written_leaves_nothing_behind() {
    let (base_url, _serving) = start().await;
    let here = program(base_url);
    let names = || {
        let folder = std::fs::read_dir(here.file().parent().unwrap()).unwrap();
        folder.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
    };
    let before = names();
    here.run(&["check", "--record", "absent/recording.json"])
        .await
        .refused(1, &["--record absent/recording.json cannot be written", "→ name a file in a folder"]);
    // A disk without room, as far as the program can tell: no file may grow.
    let mut full = Command::new("sh");
    full.current_dir(here.file().parent().unwrap())
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" check --record recording.json"])
        .arg(env!("CARGO_BIN_EXE_scimtail"))
        .env(TOKEN_VARIABLE, TOKEN);
    let full = tokio::task::spawn_blocking(move || full.output().expect("it runs")).await.unwrap();
    let full = Ended::from(full);
    assert!(full.code == 1 && full.err.contains("--record recording.json cannot be written"), "{full:?}");
    assert_eq!(names(), before);

    let nobody = program(format!("http://127.0.0.1:{}/scim/v2", closed_port()));
    let ended = nobody.run(&["check", "--record", "recording.json"]).await;
    assert_eq!(ended.code, 69, "{ended:?}");
    assert!(ended.out.contains("no recording: no directory answered a request"), "{}", ended.out);
    assert!(!nobody.file().with_file_name("recording.json").exists());
}
