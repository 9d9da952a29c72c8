//! Bodies that arrive whole and are not what a list is.

use serde_json::{Value, json};

use super::script::{Effect, GROUPS, Rule, USERS, on};
use super::truth::text;
use super::world::{HISTORY, HostileWorld};
use scimtail::scim::wire::ID_BYTES_MAX;

fn instead(body: impl Into<Vec<u8>>) -> Effect {
    Effect::body(body)
}

/// Changes the page's JSON text.
fn replaced(from: &'static str, to: &'static str) -> Effect {
    Effect::rewrite(move |body| {
        assert!(body.contains(from), "{from} is not in {body}");
        body.replace(from, to).into_bytes()
    })
}

/// A page that is no list fails the sync, whichever it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_list_fails_the_sync_and_publishes_nothing() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    let seed = 42;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let noise: Vec<u8> = (0..4_000).map(|_| random.u8(..)).collect();
    let login = "<!DOCTYPE html><html><head><title>Sign in</title></head><body><form>…</form></body></html>";
    for effect in [
        instead(noise),
        instead(""),
        instead(" \n "),
        instead(login),
        instead("null"),
        instead("true"),
        instead("[]"),
        instead("{}"),
        instead("\"Resources\""),
        instead(r#"{"totalResults":0,"Resources":[]}}"#),
        instead(r#"{"totalResults":0,"Resources":[]} {"totalResults":0,"Resources":[]}"#),
        instead(r#"{"totalResults":7,"Resources":{}}"#),
        instead(r#"{"totalResults":7,"Resources":"none"}"#),
        instead(r#"{"totalResults":7,"Resources":7}"#),
        instead(r#"{"totalResults":7}"#),
        instead(r#"{"totalResults":-1}"#),
        instead(r#"{"Resources":null}"#),
        instead(r#"{"data":[]}"#),
        instead(r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"403","totalResults":0}"#),
        instead(r#"{"schemas":"urn:ietf:params:scim:api:messages:2.0:ListResponse","totalResults":0}"#),
        instead(r#"{"error":"invalid_token","error_description":"…"}"#),
        // Truncated at any of some places.
        Effect::rewrite(|body| body.as_bytes()[..body.len() - 1].to_vec()),
        Effect::rewrite(|body| body.as_bytes()[..body.len() / 2].to_vec()),
        Effect::rewrite(|body| body.as_bytes()[..1].to_vec()),
        // A byte order mark, UTF-16, bytes that are no UTF-8, a NUL.
        Effect::rewrite(|body| [&[0xef, 0xbb, 0xbf], body.as_bytes()].concat()),
        Effect::rewrite(|body| body.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        Effect::rewrite(|body| body.replace("\"T\"", "\"T\u{1}\"").into_bytes()),
        Effect::rewrite(|body| body.bytes().map(|byte| if byte == b'T' { 0xc3 } else { byte }).collect()),
        Effect::rewrite(|body| [body.as_bytes(), b"\0"].concat()),
        // Nearly JSON.
        replaced("\"active\":true", "\"active\":NaN"),
        replaced("\"active\":true", "\"active\":Infinity"),
        replaced("\"active\":true", "\"active\":True"),
        replaced("\"active\":true", "\"active\":0x1"),
        replaced("\"active\":true", "\"active\":true,"),
        replaced("\"active\":true", "'active':true"),
        replaced("\"active\":true", "active:true"),
        replaced("\"active\":true", "\"active\":true /* yes */"),
        // Two of what there can be one of: which of them is the truth?
        replaced("\"Resources\":", "\"Resources\":[],\"Resources\":"),
        replaced("\"Resources\":", "\"resources\":[],\"Resources\":"),
        replaced("\"totalResults\":", "\"totalResults\":1,\"totalResults\":"),
    ] {
        for page in [1, 3] {
            world.fails([on(USERS).page(page).then(effect.clone())], "not_a_list_response").await;
            assert_eq!(world.server.requests().len(), page, "what is no list is not asked for again");
        }
    }
    for body in [login, "{}", "", "[1]"] {
        world.fails([on(GROUPS).page(1).then(instead(body))], "not_a_list_response").await;
    }
    world.calm(HISTORY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_judged_by_what_it_is_and_not_by_its_content_type() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    let login = on(USERS).page(2).then(instead("<html>Sign in</html>"));
    world.fails([login.then(Effect::content_type("application/scim+json"))], "not_a_list_response").await;
    for wrong in ["text/html; charset=utf-8", "text/plain", "application/octet-stream", "no/such;;type", ""] {
        world.server.script([on(USERS).then(Effect::content_type(wrong))]);
        world.completed().await;
    }
    assert_eq!(world.lines(), *HISTORY);
}

/// Edits the row of one user or group, on whichever page it stands.
fn row(kind: super::script::Target, id: &'static str, edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Rule {
    on(kind).then(Effect::edit(move |body| {
        for row in body["Resources"].as_array_mut().expect("rows") {
            if row["id"] == id {
                edit(row);
            }
        }
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_no_resource_fails_the_sync() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    for broken in [
        json!(null),
        json!(7),
        json!("u01"),
        json!([]),
        json!({}),
        json!({ "id": null, "userName": "nobody" }),
        json!({ "id": "", "userName": "nobody" }),
        json!({ "id": ".", "userName": "nobody" }),
        json!({ "id": "..", "userName": "nobody" }),
        json!({ "id": true, "userName": "nobody" }),
        json!({ "id": ["u01"], "userName": "nobody" }),
        json!({ "id": { "value": "u01" }, "userName": "nobody" }),
        json!({ "id": "x".repeat(ID_BYTES_MAX + 1), "userName": "nobody" }),
        json!({ "userName": "nobody" }),
        json!({ "id": "u01", "roles": nested(127 + 1) }),
    ] {
        let said = broken.clone();
        world.fails([row(USERS, "u01", move |row| *row = said.clone())], "not_a_resource").await;
        assert!(world.server.requests().len() <= 3, "the walk ends there: {broken}");
    }
    for members in [json!({}), json!("u00"), json!([7]), json!(["u00"]), json!([{ "display": "Ann" }]), json!([null])] {
        let said = members.clone();
        world.fails([row(GROUPS, "g1", move |row| row["members"] = said.clone())], "not_a_resource").await;
    }
    world.calm(HISTORY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_contradicts_itself_fails_the_sync() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    for (said, twice) in [
        (r#""id":"u01""#, r#""id":"u02","id":"u01""#),
        (r#""id":"u01""#, r#""ID":"u02","id":"u01""#),
        (r#""userName":"name1""#, r#""userName":"name1","userName":"other""#),
        (r#""userName":"name1""#, r#""userName":"name1","active":false"#),
        (r#""userName":"name1""#, r#""userName":"name1","ACTIVE":false"#),
        (r#""userName":"name1""#, r#""userName":"name1","title":"U""#),
    ] {
        world.fails([on(USERS).page(1).then(replaced(said, twice))], "not_a_resource").await;
    }
    let members = (r#""displayName":"Admins""#, r#""displayName":"Admins","members":[]"#);
    world.fails([on(GROUPS).page(1).then(replaced(members.0, members.1))], "not_a_resource").await;
    // Twice, but nothing that anybody reads.
    let unread = replaced(r#""userName":"name1""#, r#""userName":"name1","nickName":"a","nickName":"b""#);
    world.publishes([on(USERS).page(1).then(unread)], HISTORY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_are_no_texts_fail_the_sync() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    for broken in [r#""userName":"\ud800""#, r#""userName":"\x41""#, r#""userName":"\u12""#] {
        world.server.script([on(USERS).page(1).then(replaced(r#""userName":"name1""#, broken))]);
        let status = world.sync().await;
        let code = status.reason_code.as_deref();
        assert!(matches!(code, Some("not_a_resource" | "not_a_list_response")), "{broken}: {code:?}");
        assert_eq!(world.lines(), [""; 0]);
    }
    world.calm(HISTORY).await;
}

/// `{"a":{"a":…` or `[[…`, this deep, ending in 1.
fn deep(open: &str, close: &str, depth: usize) -> String {
    [open.repeat(depth), "1".to_owned(), close.repeat(depth)].concat()
}

/// G11: no depth takes the stack: not in the list, not in a row, not in an attribute that is read.
#[tokio::test(flavor = "multi_thread")]
async fn g11_json_nested_without_end_does_not_crash_the_process() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    const DEPTH: usize = 100_000;
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), (r#"[{"a":"#, "}]")] {
        let bomb = deep(open, close, DEPTH);
        let lists = [
            bomb.clone(),
            bomb[..bomb.len() / 2].to_owned(),
            format!(r#"{{"schemas":{bomb},"totalResults":0}}"#),
            format!(r#"{{"totalResults":{bomb}}}"#),
        ];
        for body in lists {
            world.fails([on(USERS).page(1).then(instead(body))], "not_a_list_response").await;
        }
        for body in [format!(r#"{{"Resources":[{bomb}]}}"#), format!(r#"{{"Resources":[{{"id":{bomb}}}]}}"#)] {
            world.fails([on(USERS).page(1).then(instead(body))], "not_a_resource").await;
        }
        // Read whole, read in part, an extension, the times, not read at all.
        for attribute in ["title", "emails", "roles", "active", "userName", "meta", ENTERPRISE, "members", "nickName"] {
            let (said, bombed) =
                (r#""id":"u01","title":"T","userName":"name1""#, format!(r#""id":"u01","{attribute}":{bomb}"#));
            let (group, bombed_group) =
                (r#""displayName":"Admins","id":"g1""#, format!(r#""id":"g1","{attribute}":{bomb}"#));
            world.server.script([
                on(USERS).page(1).then(Effect::rewrite(move |body| body.replace(said, &bombed).into_bytes())),
                on(GROUPS).page(1).then(Effect::rewrite(move |body| body.replace(group, &bombed_group).into_bytes())),
            ]);
            world.sync().await;
            assert!(!world.lines().iter().any(|line| line.contains("removed u01")), "{attribute} {open}");
            assert_eq!(world.server.requests()[0].place.target, USERS);
        }
    }
    world.server.script([]);
    world.completed().await;
    world.assert_state_is_the_truth();
}

const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

#[tokio::test(flavor = "multi_thread")]
async fn lists_as_servers_really_spell_them_are_read() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    let lower = Effect::edit(|body| {
        let fields = body.as_object().expect("an object").clone();
        *body = fields.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
    });
    let spaced = Effect::rewrite(|body| {
        let value: Value = serde_json::from_str(&body).expect("JSON");
        format!("\r\n\t {} \n", serde_json::to_string_pretty(&value).expect("JSON")).into_bytes()
    });
    let absent_when_empty = Effect::edit(|body| {
        if body["Resources"].as_array().is_some_and(Vec::is_empty) {
            body.as_object_mut().expect("an object").remove("Resources");
            body["totalResults"] = json!(0);
        }
    });
    let unknown_fields = Effect::edit(|body| {
        body["_links"] = json!({ "next": "https://elsewhere.example/" });
        for row in body["Resources"].as_array_mut().expect("rows") {
            row["urn:x:unknown:1.0:Thing"] = json!({ "a": [1, 2.5e300, { "b": null }] });
            row["id"] = json!(text(&row["id"]));
        }
    });
    world.publishes([on(USERS).then(lower.clone()), on(GROUPS).then(lower)], HISTORY).await;
    for effect in [spaced, absent_when_empty, unknown_fields] {
        world.publishes([on(USERS).then(effect.clone()), on(GROUPS).then(effect)], &[]).await;
    }
}
