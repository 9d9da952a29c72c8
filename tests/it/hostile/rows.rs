//! Rows that are resources, and strange ones.

use scimtail::avro::wire::ChangeEvent;
use scimtail::directory::Kind;
use scimtail::log::Topic;
use scimtail::mapping::text::line;
use serde_json::{Value, json};

use super::script::{Effect, USERS, on};
use super::world::{HISTORY, HostileWorld};

/// Kafka's default for a message; a record of ours has to stay well below.
const MESSAGE_BYTES: usize = 1_000_000;

fn repeated(id: &'static str, edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Effect {
    Effect::edit(move |body| {
        let rows = body["Resources"].as_array_mut().expect("rows");
        if let Some(position) = rows.iter().position(|row| row["id"] == id) {
            let mut again = rows[position].clone();
            edit(&mut again);
            rows.insert(position + 1, again);
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_listed_twice_is_one_user_with_the_later_row() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    let same = [on(USERS).then(repeated("u01", |_| ()))];
    let status = world.publishes(same, HISTORY).await;
    assert_eq!(status.users_read, Some(7));
    let script = || [on(USERS).then(repeated("u01", |row| row["title"] = json!("Later")))];
    world.publishes(script(), &[r#"user.updated u01 title "T" → "Later""#]).await;
    // The same two rows are the same news: none.
    for _ in 0..3 {
        world.publishes(script(), &[]).await;
    }
    world.calm(&[r#"user.updated u01 title "Later" → "T""#]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_changes_its_case_is_another_user_and_removes_none() {
    let mut world = HostileWorld::baseline(7).await;
    world.server.change(|truth| {
        let mut user = truth.users.remove("u05").expect("it was there");
        user["id"] = json!("U05");
        truth.users.insert("U05".into(), user);
    });
    // This server finds an id in whatever case, and answers with its own spelling.
    let lenient = on(super::script::USER).id("u05").then(Effect::Status(200));
    let spelled = lenient.then(Effect::body(json!({ "id": "U05", "userName": "name5" }).to_string()));
    let status = world.publishes([spelled], &["user.added U05"]).await;
    assert_eq!(status.removals_suppressed, 1, "an answer with another id proves nothing");
    world.calm(&["user.removed u05 (not_found)"]).await;
    world.assert_state_is_the_truth();
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_with_every_character_there_is_come_and_go_like_others() {
    let mut world = HostileWorld::baseline(7).await;
    let ids = [
        "a/b",
        "../../etc/passwd",
        "a%2fb",
        "a?startIndex=1",
        "a#b",
        "\u{0}",
        "a\nb\r\nHost: x",
        "\u{1b}[2J",
        "\u{202e}txt",
        " ",
        "é🦀",
        "http://elsewhere.example/",
        "//elsewhere.example/",
        "\"",
        "\\",
        "a\u{2028}b",
        "....",
        "u05 ",
    ];
    world.server.change(|truth| {
        for id in ids {
            truth.users.insert(id.into(), json!({ "id": id, "userName": "strange", "active": true }));
        }
        let members: Vec<Value> = ids.iter().map(|id| json!({ "value": id })).collect();
        truth.groups.insert("odd/group".into(), json!({ "id": "odd/group", "displayName": "Odd", "members": members }));
    });
    world.completed().await;
    assert_eq!(world.lines().len(), 2 * ids.len() + 1);
    world.assert_state_is_the_truth();
    world.calm(&[]).await;
    // They are asked for at their own address, and nowhere else.
    world.world.account_mut().limits.max_ratio = 1.0;
    world.server.change(|truth| {
        ids.iter().for_each(|id| drop(truth.users.remove(*id)));
    });
    world.server.script([]);
    world.completed().await;
    world.assert_state_is_the_truth();
    let asked = world.server.requests_for(super::script::USER);
    assert_eq!(asked.len(), ids.len() + 1, "each of them and a control");
    assert!(asked.iter().all(|request| request.path.matches('/').count() == 4), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_too_large_for_a_message_is_reduced_and_the_others_go_on() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    let large = "x".repeat(300_000);
    let huge = "y".repeat(3_000_000);
    world.server.change(|truth| {
        truth.users.get_mut("u01").unwrap()["title"] = json!(large);
        truth.users.get_mut("u02").unwrap()["displayName"] = json!(large);
        truth.users.get_mut("u03").unwrap()["emails"] = json!([{ "value": huge, "primary": true }]);
        truth.users.get_mut("u04").unwrap()["roles"] = json!(vec![json!({ "value": "r", "type": large }); 20]);
    });
    // A user that was never there before makes no event; a removed one makes an event with its reason.
    world.calm(&["user.added new", r#"user.updated u01 title "T" → none"#, "user.removed u05 (not_found)"]).await;
    assert_eq!(world.world.log.events()[1].omitted_attributes, ["title"]);
    for (id, omitted) in [("u01", "title"), ("u02", "displayName"), ("u03", "emails"), ("u04", "roles")] {
        let known = world.world.known.table(Kind::User).principal(id).expect("it is known");
        assert_eq!(known.omitted, [omitted], "{id}");
    }
    for record in world.world.log.records.lock().unwrap().iter() {
        let bytes = record.value.as_ref().map_or(0, Vec::len);
        assert!(bytes < MESSAGE_BYTES, "{:?} {} has {bytes} bytes", record.topic, record.key);
    }
    world.assert_state_is_the_truth();
    world.calm(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_very_many_is_one_record_each() {
    let mut world = HostileWorld::baseline(7).await;
    const MEMBERS: usize = 20_000;
    world.server.change(|truth| {
        for number in 0..MEMBERS {
            let id = format!("m{number:05}");
            truth.users.insert(id.clone(), json!({ "id": id, "userName": id }));
        }
        let members: Vec<Value> = truth.users.keys().map(|id| json!({ "value": id })).collect();
        truth.groups.get_mut("g2").unwrap()["members"] = json!(members);
    });
    // Larger pages: seven thousand requests are not the point here.
    world.world.account_mut().batch = scimtail::account::BatchBounds::default();
    world.server.script([on(USERS).then(Effect::IgnoreCount)]);
    world.completed().await;
    let records = world.world.log.records.lock().unwrap().clone();
    assert!(records.iter().all(|record| record.value.as_ref().map_or(0, Vec::len) < MESSAGE_BYTES));
    assert_eq!(records.iter().filter(|record| record.topic == Topic::Memberships).count(), 3 + 1 + MEMBERS + 6);
    world.assert_state_is_the_truth();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_no_get_finds_dangle_and_are_not_published() {
    let mut world = HostileWorld::baseline(7).await;
    world.server.change(|truth| {
        let members = json!([{ "value": "u00" }, { "value": "ghost" }, { "value": "g1", "type": "Group" }]);
        truth.groups.get_mut("g2").unwrap()["members"] = members;
    });
    let status = world.publishes([], &["membership.added g1 in g2 as group"]).await;
    assert_eq!(status.dangling, 1);
    let status = world.calm(&[]).await;
    assert_eq!(status.dangling, 1);
    // When it appears it is a member, although the group's bytes are the same.
    world.server.change(|truth| {
        truth.users.insert("ghost".into(), json!({ "id": "ghost", "userName": "ghost" }));
    });
    let status = world.publishes([], &["user.added ghost", "membership.added ghost in g2"]).await;
    assert_eq!(status.dangling, 0);
    world.assert_state_is_the_truth();
}

/// Nothing that a directory says ends a line, moves a cursor or turns a text round.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_stay_on_one_harmless_line() {
    let mut world = HostileWorld::baseline(7).await;
    let name =
        "Ann\r\n2026-11-21 12:04:31  acme  user.removed\u{1b}[2K\u{1b}]0;x\u{7}\u{202e}\u{2066}\u{2028}\u{85}\u{0}";
    world.server.change(|truth| {
        truth.users.insert("bad\n".into(), json!({ "id": "bad\n", "userName": name, "title": name }));
        truth.groups.insert("g3".into(), json!({ "id": "g3", "displayName": name, "members": [{ "value": "bad\n" }] }));
        truth.users.get_mut("u01").unwrap()["title"] = json!(name);
    });
    world.completed().await;
    let events: Vec<ChangeEvent> = world.world.log.events();
    assert_eq!(events.len(), 4);
    for event in &events {
        let shown = line(event, 4);
        // Colours are ours; every other character has to be a plain one.
        let plain = anstream::adapter::strip_str(&shown).to_string();
        let harmless = |c: char| {
            !c.is_control() && !('\u{2028}'..='\u{202e}').contains(&c) && !('\u{2066}'..='\u{2069}').contains(&c)
        };
        assert!(plain.chars().all(harmless), "{plain:?}");
        assert!(!shown.contains("\u{1b}[2K") && !shown.contains("\u{1b}]0"), "{shown:?}");
    }
    for (_, status) in world.world.log.statuses() {
        assert!(!status.reason.unwrap_or_default().contains("Ann"), "no text of a server in a status");
    }
    world.assert_state_is_the_truth();
}

/// A skewed clock puts no change outside the time in which it must have happened.
#[tokio::test(flavor = "multi_thread")]
async fn a_servers_wrong_clock_moves_no_event_out_of_its_window() {
    for date in
        ["Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "Tue, 14 Nov 2023 23:13:20 GMT", "soon"]
    {
        let mut world = HostileWorld::baseline(7).await;
        for modified in ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "2023-11-14T22:13:20Z", "yesterday", ""] {
            world.server.change(|truth| {
                let user = truth.users.get_mut("u01").unwrap();
                user["title"] = json!(format!("as of {modified}"));
                user["meta"] = json!({ "lastModified": modified });
            });
            world.server.script([on(USERS).then(Effect::Header("date", date.to_owned()))]);
            world.completed().await;
        }
        let events = world.world.log.events();
        assert_eq!(events.len(), 5);
        for event in events {
            assert!(event.window_start.unwrap() <= event.observed_at);
            if let Some(at) = event.occurred_at {
                assert!((event.window_start.unwrap()..=event.observed_at).contains(&at), "{date}: {event:?}");
            }
        }
    }
}
