//! `docs/events.md` is generated from the samples and the real output of the mappings, so it cannot go stale.

use expect_test::expect_file;
use scimtail::avro::wire::ChangeEvent;
use scimtail::mapping::{Change, asim, cim, ecs, ocsf, set};
use serde_json::Value;

use crate::samples::{Sample, samples};

const INTRODUCTION: &str = "\
# Events

Every record of the `events` topic is one `ChangeEvent` (`schemas/ChangeEvent.avsc` describes each field), of one of
ten types. `docs/asyncapi.json` describes this topic and the five others to programs. `scimtail tail --format FORMAT`
prints the events as one JSON object a line, and for readers that cannot decode Avro `[outputs]` writes `ocsf` and `ecs`
to topics of their own, `scim.events.ocsf` and `scim.events.ecs`
([recipes](consumers/pipelines.md#events-as-json-without-avro)):

| `--format` | what |
|---|---|
| `json` | the event as it is |
| `ocsf` | Open Cybersecurity Schema Framework 1.8.0: Account Change (3001), Entity Management (3004), Group Management (3006), User Inventory Info (5003) |
| `ecs` | Elastic Common Schema 9.4, category `iam` |
| `cim` | Splunk Common Information Model, data model Change, dataset Account_Management (tags `change`, `account`) |
| `asim` | Microsoft Sentinel ASIM, schema UserManagement 0.1.2; an update is one row for each changed attribute |
| `set` | claims of a security event token (RFC 8417) of the SCIM profile (RFC 9967); with `--set-key FILE` the signed token (compact JWS; elliptic curve P-256: ES256, RSA: RS256) |

Those topics hold what `tail --format` prints, one object a record. Each begins when it is switched on: earlier events
are only in `scim.events`. A record that would be larger than Kafka takes by default leaves out its largest attributes
and names them in `omitted_attributes` (`*`: all of them), in OCSF with `metadata.is_truncated`; the event in
`scim.events` stays whole.

Below, each type with when it occurs, what becomes of it, and an example. CIM stands as `action` of `object_category`,
with `result` in parentheses; RFC 9967 without `urn:ietf:params:scim:event:`.

## What holds for all of them

- **Time.** OCSF `time`, ECS `@timestamp`, CIM `_time`, ASIM `TimeGenerated` and SET `toe` say when it happened, which
  is known only where the directory says so (`occurred_at`); otherwise, `toe` aside, they say when it was read. Always
  there: `observed_at` (OCSF `metadata.processed_time`, ECS `event.created`, SET `iat`). The change lies after
  `window_start`, for which no format but ours has a field.
- **Actor.** A poller does not see who did it. No actor is filled in, in any format. ECS asks for the only user of an
  event at its root: there, `user.*` is whom the event is about.
- **Before an update.** ECS `user.target` and OCSF `entity` are the user before it, made of `changes`. Whether the
  account was active is only there where the update says it: a switch in the same sync is an event of its own, and both
  show the user after both.
- **Baseline.** The first sync publishes no events, or with `baseline = \"events\"` such with `snapshot: true`. They say
  that something is there, not that it is new, and are mapped as inventory. Who vanishes before the first sync is
  complete is a removal there, too.
- **De-duplicating.** `event_id` is OCSF `metadata.uid`, ECS `event.id`, CIM `scimtail.event_id`, ASIM
  `EventOriginalUid` (the same on all rows of an update), SET `jti`. `correlation_id`, the same on a removed user and
  the memberships that go with it, is SET `txn`, which is `event_id` where there is no such cause.
- **Members that are groups.** `principal_type` is `group`: OCSF has subgroups, the others see a changed group.

## What has no place

| format | not mapped | where it is instead |
|---|---|---|
| `ocsf` | attributes without an OCSF name, `window_start`, `removal_reason`, `removal_means`, `entitlement_*`, `sync`, `snapshot` | `unmapped`, under their names; old and new values of an update in `entity.data` and `entity_result.data` |
| `ecs` | the same, `active`, old and new values of attributes that ECS does not name | `labels`, without those values and without other attributes: only `json` has these |
| `cim` | the same | `scimtail.*`; attributes of a user beyond name, address and `active` only as `changes` |
| `asim` | the same | `AdditionalFields`; attributes only as changed properties |
| `set` | `sequence`, `sync`, `provider`, `window_start`, `entitlement_*`, `removal_reason` beyond the choice of the event, the user's name where only its id is needed | nowhere |

RFC 9967 has no event for memberships: they are a `PATCH` of the group's `members`. In a baseline, users and groups are
`feed:add`, and memberships still such a patch: `feed:add` is about a resource and has no data, so it could name the
group but not the member. Every token of a baseline bears the claim `\"scimtail_baseline\": true`, by which a receiver
tells such a patch from a change. The RFC tells apart what the other formats do not: `prov:delete` (the directory says
that it does not know the user any more), `prov:deactivate` (it says so, and at this vendor that is how a deactivated
user looks), `feed:remove` (only the lists say so). No audience (`aud`) is set, and `iss` is `scimtail/<account>`.
";

const TYPES: [(&str, &str); 10] = [
    (
        "user.added",
        "A user is listed who was not known. Somebody first seen inactive is added with `active: false`, not also \
         disabled; somebody back under an old id is added again.",
    ),
    (
        "user.updated",
        "Listed attributes of a user differ: all of them in one event. Not `active`, except that it becomes known to be \
         true.",
    ),
    ("user.disabled", "`active` of a known user is now false."),
    ("user.enabled", "`active` of a known user was false and is now true."),
    (
        "user.removed",
        "A user is gone, and proven to be: `removal_reason` `not_found` (GET by id says 404 or 410), `absent` (GET does \
         not work there, and three complete walks lacked the user) or `erased` (on request). `removal_means: \
         deactivated` where the vendor's deactivation is disappearance. `user` is as last known. The memberships go \
         first, with the same `correlation_id`.",
    ),
    ("group.added", "A group is listed that was not known."),
    (
        "group.updated",
        "Listed attributes of a group differ; members are events of their own. A rename that alters the entitlement \
         names each changed `entitlement_*`.",
    ),
    ("group.removed", "A group is gone, proven as for users. Its memberships go first."),
    (
        "membership.added",
        "A user, or a group, is a direct member of a group (where the server says which are direct). Its key is the member's.",
    ),
    (
        "membership.removed",
        "A completely read group no longer shows the member (`not_listed`), or the membership goes with its user or group \
         and carries that one's reason.",
    ),
];

/// The special property of a sample, by the rest of its name.
fn special(sample: &Sample) -> String {
    let event = &sample.event;
    let mut words = Vec::new();
    if event.snapshot {
        words.push("baseline".to_owned());
    }
    if event.event_type.starts_with("membership.") && event.principal_type == "group" {
        words.push("the member is a group".to_owned());
    }
    if event.event_type == "user.added" && event.user.as_ref().is_some_and(|user| user.active == Some(false)) {
        words.push("inactive".to_owned());
    }
    if let Some(reason) = &event.removal_reason {
        words.push(format!("`{reason}`"));
    }
    if let Some(means) = &event.removal_means {
        words.push(format!("means `{means}`"));
    }
    words.join(", ")
}

fn row(event: &ChangeEvent) -> String {
    let change = Change::of(event).expect("its type is known");
    let (ocsf, ecs, cim) = (ocsf::value(&change), ecs::value(&change), cim::value(&change));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let types: Vec<String> = ecs["event"]["type"].as_array().expect("types").iter().map(text).collect();
    let result = cim["result"].as_str().map_or_else(String::new, |result| format!(" ({result})"));
    let claims = set::value(&change);
    let events = claims["events"].as_object().expect("events");
    let uri = events.keys().next().expect("one event").rsplit("event:").next().expect("a name").to_owned();
    let of = if claims["sub_id"]["uri"].as_str().expect("a uri").starts_with("/Users") { "user" } else { "group" };
    format!(
        "{} {} | {}: {}, {} | {} {}{result} | {} | {uri} ({of}) |",
        ocsf["type_uid"],
        text(&ocsf["type_name"]),
        text(&ecs["event"]["kind"]),
        types.join(" "),
        text(&ecs["event"]["action"]),
        text(&cim["action"]),
        text(&cim["object_category"]),
        text(&asim::values(&change)[0]["EventType"]),
    )
}

fn page() -> String {
    let mut page = "<!-- Made by `UPDATE_EXPECT=1 cargo test --test it events_page`; do not edit. -->\n\n".to_owned();
    page.push_str(INTRODUCTION);
    for (event_type, when) in TYPES {
        page.push_str(&format!("\n## {event_type}\n\n{when}\n\n"));
        page.push_str(
            "| | OCSF `type_uid` | ECS `event.kind`, `type`, `action` | CIM | ASIM `EventType` | RFC 9967 |\n",
        );
        page.push_str("|---|---|---|---|---|---|\n");
        let samples: Vec<Sample> =
            samples().into_iter().filter(|sample| sample.event.event_type == event_type).collect();
        let mut rows: Vec<String> = Vec::new();
        for sample in &samples {
            let row = format!("| {} | {}\n", special(sample), row(&sample.event));
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        page.push_str(&rows.concat());
        let example = samples.iter().find(|sample| sample.name == event_type).expect("the plain sample");
        let json = serde_json::to_string_pretty(&example.event).expect("it is JSON");
        page.push_str(&format!("\n```json\n{json}\n```\n"));
    }
    page.push_str("\nEach of these in every format, whole: `tests/golden/`.\n");
    page
}

#[test]
fn the_page_about_events_says_what_the_mappings_do() {
    expect_file![concat!(env!("CARGO_MANIFEST_DIR"), "/docs/events.md")].assert_eq(&page());
}

#[test]
fn the_page_about_events_has_a_section_for_every_type_of_the_samples() {
    for Sample { name, event } in samples() {
        assert!(TYPES.iter().any(|(event_type, _)| *event_type == event.event_type), "{name}");
    }
}
