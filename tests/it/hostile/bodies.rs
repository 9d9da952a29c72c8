//! Bodies that arrive whole and are not a list.

use serde_json::{Value, json};

use super::script::{Effect, GROUPS, Rule, USERS, on};
use super::truth::text;
use super::world::{HISTORY, HostileWorld};
use scimtail::scim::value::ID_BYTES_MAX;

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

/// A page that is not a list fails the sync, whichever page it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_a_list_fails_the_sync_and_publishes_nothing() {
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
        instead("\"Resources\""),
        instead(r#"{"totalResults":0,"Resources":[]}}"#),
        instead(r#"{"totalResults":0,"Resources":[]} {"totalResults":0,"Resources":[]}"#),
        instead(r#"{"totalResults":7,"Resources":{}}"#),
        instead(r#"{"totalResults":7,"Resources":"none"}"#),
        instead(r#"{"totalResults":7,"Resources":7}"#),
        instead(r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"403","totalResults":0}"#),
        // Truncated at any of some places.
        Effect::rewrite(|body| body.as_bytes()[..body.len() - 1].to_vec()),
        Effect::rewrite(|body| body.as_bytes()[..body.len() / 2].to_vec()),
        Effect::rewrite(|body| body.as_bytes()[..1].to_vec()),
        // UTF-16, bytes that are not UTF-8, a NUL.
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
        // Two values where there can be only one: which of them is the truth?
        replaced("\"Resources\":", "\"Resources\":[],\"Resources\":"),
        replaced("\"Resources\":", "\"resources\":[],\"Resources\":"),
        replaced("\"totalResults\":", "\"totalResults\":1,\"totalResults\":"),
    ] {
        for page in [1, 3] {
            world.fails([on(USERS).page(page).then(effect.clone())], "not_a_list_response").await;
            assert_eq!(world.server.requests().len(), page, "a body that is not a list is not asked for again");
        }
    }
    for body in [login, "{}", "", "[1]"] {
        world.fails([on(GROUPS).page(1).then(instead(body))], "not_a_list_response").await;
    }
    world.calm(HISTORY).await;
}

/// Objects without rows: on the first page they are not a list, behind it they are its end, and the total tells whether
/// anything is missing.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_without_rows_is_not_a_list_on_the_first_page_and_is_the_end_on_any_other() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    for body in [
        "{}",
        r#"{"totalResults":7}"#,
        r#"{"totalResults":-1}"#,
        r#"{"Resources":null}"#,
        r#"{"data":[]}"#,
        r#"{"error":"invalid_token","error_description":"…"}"#,
    ] {
        world.fails([on(USERS).page(1).then(instead(body))], "not_a_list_response").await;
        assert_eq!(world.server.requests().len(), 1, "a body that is not a list is not asked for again: {body}");
        // Two of seven are missing: GET finds the remaining user.
        world.server.script([on(USERS).page(3).then(instead(body))]);
        world.sync().await;
        assert!(!world.lines().iter().any(|line| line.starts_with("user.removed") && !line.contains("u05")), "{body}");
    }
    world.server.script([]);
    world.completed().await;
    assert_eq!(world.lines(), *HISTORY);
    // The page behind the last row, in every form.
    for end in ["{}", r#"{"Resources":null}"#, r#"{"totalResults":7}"#, r#"{"totalResults":0}"#, r#"{"Resources":[]}"#]
    {
        let status = world.publishes([on(USERS).page(4).then(instead(end))], &[]).await;
        assert_eq!((status.users_read, status.groups_read), (Some(7), Some(2)), "{end}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_order_mark_and_odd_schemas_are_read() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    let mark = Effect::rewrite(|body| [&[0xef, 0xbb, 0xbf], body.as_bytes()].concat());
    world.publishes([on(USERS).then(mark.clone()), on(GROUPS).then(mark)], HISTORY).await;
    for schemas in [json!("urn:ietf:params:scim:api:messages:2.0:ListResponse"), json!(null), json!(7), json!([null])] {
        world.publishes([on(USERS).then(Effect::field("schemas", schemas))], &[]).await;
    }
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

/// Edits the row of one user or group, on any page.
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
async fn g3_a_row_without_an_id_forbids_removals_of_its_kind_in_that_sync_and_nothing_else() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
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
    ] {
        let said = broken.clone();
        world.server.script([row(USERS, "u01", move |row| *row = said.clone())]);
        let status = world.completed().await;
        // The owner of the row is unknown. u05 has gone, and its removal is published only once every row can be read.
        assert_eq!(world.lines(), ["user.added new"], "{broken}");
        assert_eq!(status.unreadable_rows, 1, "{broken}");
        assert!(
            status.findings[0].starts_with("Users: 1 row cannot be read in full: row 3 (no usable id)"),
            "{broken}"
        );
    }
    world.calm(&["user.removed u05 (not_found)"]).await;
    // If no row of a directory can be read, the directory is not read.
    world.server.change(|truth| truth.habits.search = false);
    let nameless = Effect::edit(|body| {
        for row in body["Resources"].as_array_mut().expect("rows") {
            row.as_object_mut().expect("an object").remove("id");
        }
    });
    world.fails([on(USERS).then(nameless)], "not_a_resource").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_of_a_row_stays_as_last_seen_and_the_rest_goes_on() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    let roles = nested(100);
    let status = world.publishes([row(USERS, "u01", move |row| row["roles"] = roles.clone())], HISTORY).await;
    assert!(status.findings[0].contains("u01 (roles)"), "{:?}", status.findings);
    for members in
        [json!("u00"), json!([7]), json!(["u00"]), json!([{ "display": "Ann" }]), json!({ "display": "Ann" })]
    {
        let said = members.clone();
        let status = world.publishes([row(GROUPS, "g1", move |row| row["members"] = said.clone())], &[]).await;
        assert!(status.findings[0].contains("Groups: 1 row cannot be read in full: g1 (members)"), "{members}");
        assert_eq!((status.unreadable_rows, status.memberships_read), (1, None), "{members}");
    }
    // Spellings of an empty list of members; GET still shows the members.
    for members in [json!({}), json!(""), json!([null]), json!([{}]), json!(null)] {
        let said = members.clone();
        let status = world.publishes([row(GROUPS, "g1", move |row| row["members"] = said.clone())], &[]).await;
        assert_eq!(status.unreadable_rows, 0, "{members}");
    }
    // More attributes than any resource has.
    let many = row(USERS, "u02", |row| (0..600).for_each(|n| row[format!("a{n}")] = json!(n)));
    let status = world.publishes([many], &[]).await;
    assert!(status.findings[0].contains("u02 (all but its id)"), "{:?}", status.findings);
    let status = world.calm(&[]).await;
    assert_eq!((status.unreadable_rows, status.findings.len()), (0, 0));
    world.assert_state_is_the_truth();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attribute_that_contradicts_itself_stays_as_last_seen() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    world.calm(HISTORY).await;
    for (said, twice, attribute) in [
        (r#""userName":"name1""#, r#""userName":"name1","userName":"other""#, "userName"),
        (r#""userName":"name1""#, r#""userName":"name1","active":false"#, "active"),
        (r#""userName":"name1""#, r#""userName":"name1","ACTIVE":false"#, "active"),
        (r#""userName":"name1""#, r#""userName":"name1","title":"U""#, "title"),
    ] {
        let status = world.publishes([on(USERS).page(1).then(replaced(said, twice))], &[]).await;
        assert!(status.findings[0].contains(&format!("u01 ({attribute})")), "{:?}", status.findings);
    }
    for twice in [r#""id":"u02","id":"u01""#, r#""ID":"u02","id":"u01""#] {
        let status = world.publishes([on(USERS).page(1).then(replaced(r#""id":"u01""#, twice))], &[]).await;
        assert!(status.findings[0].contains("row 3 (no usable id)"), "{:?}", status.findings);
    }
    let members = replaced(r#""displayName":"Admins""#, r#""displayName":"Admins","members":[]"#);
    let status = world.publishes([on(GROUPS).page(1).then(members)], &[]).await;
    assert!(status.findings[0].contains("g1 (members)"), "{:?}", status.findings);
    // Twice, but nothing that is read.
    let unread = replaced(r#""userName":"name1""#, r#""userName":"name1","nickName":"a","nickName":"b""#);
    world.publishes([on(USERS).page(1).then(unread)], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_character_is_replaced_and_text_that_is_none_fails_the_sync() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    for broken in [r#""userName":"\x41""#, r#""userName":"\u12""#] {
        world.fails([on(USERS).page(1).then(replaced(r#""userName":"name1""#, broken))], "not_a_list_response").await;
    }
    world.calm(HISTORY).await;
    let half = replaced(r#""userName":"name1""#, r#""userName":"name\ud800""#);
    world.publishes([on(USERS).page(1).then(half)], &["user.updated u01 userName \"name1\" → \"name\u{fffd}\""]).await;
}

/// `{"a":{"a":…` or `[[…`, this deep, ending in 1.
fn deep(open: &str, close: &str, depth: usize) -> String {
    [open.repeat(depth), "1".to_owned(), close.repeat(depth)].concat()
}

/// G11: no depth exhausts the stack: not in the list, not in a row, not in an attribute that is read.
#[tokio::test(flavor = "multi_thread")]
async fn g11_json_nested_without_end_does_not_crash_the_process() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    const DEPTH: usize = 100_000;
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), (r#"[{"a":"#, "}]")] {
        let bomb = deep(open, close, DEPTH);
        let lists = [bomb.clone(), bomb[..bomb.len() / 2].to_owned(), format!(r#"{{"totalResults":{bomb}}}"#)];
        for body in lists {
            world.fails([on(USERS).page(1).then(instead(body))], "not_a_list_response").await;
        }
        for body in [format!(r#"{{"Resources":[{bomb}]}}"#), format!(r#"{{"Resources":[{{"id":{bomb}}}]}}"#)] {
            world.server.script([on(USERS).page(1).then(instead(body))]);
            world.sync().await;
            assert!(!world.lines().iter().any(|line| line.contains("removed u01")), "{open}");
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
