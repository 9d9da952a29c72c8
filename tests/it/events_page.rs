//! `docs/events.md` is generated from the samples and the real output of the mappings, so it cannot go stale.

use expect_test::expect_file;
use scimtail::avro::wire::ChangeEvent;
use scimtail::mapping::{Change, asim, cim, ecs, ocsf, set};
use serde_json::Value;

use crate::samples::{Sample, samples};

const INTRODUCTION: &str = "\
# Events

Every record of the `events` topic is one `ChangeEvent` of one of ten types. `schemas/ChangeEvent.avsc` describes each
field. `docs/asyncapi.json` describes this topic and the five others to programs.

`scimtail tail --format FORMAT` prints the events as one JSON object a line. For readers that cannot decode Avro,
`[outputs]` of the configuration writes `ocsf` and `ecs` to topics of their own, `scim.events.ocsf` and
`scim.events.ecs` ([recipes](consumers/pipelines.md#events-as-json-without-avro)).

| `--format` | what |
|---|---|
| `json` | the event as it is |
| `ocsf` | Open Cybersecurity Schema Framework 1.8.0: Account Change (3001), Entity Management (3004), Group Management (3006), User Inventory Info (5003) |
| `ecs` | Elastic Common Schema 9.4, category `iam` |
| `cim` | Splunk Common Information Model, data model Change, dataset Account_Management (tags `change`, `account`) |
| `asim` | Microsoft Sentinel ASIM, schema UserManagement 0.1.2; an update is one row for each changed attribute |
| `set` | claims of a security event token (RFC 8417) of the SCIM profile (RFC 9967); with `--set-key FILE` the signed token (compact JWS, ES256 for an elliptic curve P-256 key, RS256 for an RSA key) |

Those two topics hold what `tail --format` prints, one object in each record. A topic begins when it is switched on.
Earlier events are only in `scim.events`. If a record would be larger than Kafka takes by default, it leaves out its
largest attributes. It names them in `omitted_attributes`, where `*` means all of them. OCSF also sets
`metadata.is_truncated`. The event in `scim.events` is complete.

The sections below say when each type occurs and what each format makes of it. Each section has an example. The column
CIM has `action` and `object_category`, and `result` in parentheses. The column RFC 9967 leaves out
`urn:ietf:params:scim:event:` and has the subject in parentheses.

## What holds for all of them

- **Time.** `occurred_at` is the time when the change happened. It is set only if the directory says it. OCSF `time`,
  ECS `@timestamp`, CIM `_time`, ASIM `TimeGenerated` and SET `toe` have this time. If it is not set, SET has no `toe`,
  and the others have the time when the change was read. `observed_at` is always set (OCSF `metadata.processed_time`,
  ECS `event.created`, SET `iat`). The change happened after `window_start`. Only `json` has a field of its own for it.
- **Actor.** Polling shows changes but not who made them. So no format has an actor. ECS expects the only user of an
  event at its root. There, `user.*` is the user that the event is about.
- **Before an update.** ECS `user.target` and OCSF `entity` are the user before the update, made of `changes`. They say
  whether the account was active only if the update says it. If `active` changed in the same sync, this change is an
  event of its own. Both events show the user after both changes.
- **Baseline.** The first sync publishes no events. With `baseline = \"events\"` it publishes events with
  `snapshot: true`. Such an event says that something exists, not that it is new. It is mapped as inventory. If a user,
  group or membership disappears before the first sync is complete, its event is mapped as a removal.
- **Privileges.** A profile says which attributes decide about privileges. `privileges` names those that an update
  changes, and those that a new user has. The header `ce_privileges` has them too, separated by commas. Such an update
  is above informational: OCSF `severity_id` and ECS `event.severity` are 2, ASIM `EventSeverity` is `Low`. CIM has no
  severity, and has `scimtail.privileges`. [Rules](consumers/pipelines.md#privileges) that find these events are short.
- **De-duplicating.** `event_id` is OCSF `metadata.uid`, ECS `event.id`, CIM `scimtail.event_id`, ASIM
  `EventOriginalUid` (the same on all rows of an update), SET `jti`. `correlation_id` is the same on a removed user and
  on the memberships that go with it. It is SET `txn`. Without a `correlation_id`, `txn` is `event_id`.
- **Members that are groups.** Their `principal_type` is `group`. OCSF has activities for subgroups. The other formats
  show a changed group.

## What a format has no field for

| format | not mapped | where it is instead |
|---|---|---|
| `ocsf` | attributes without an OCSF name, `window_start`, `removal_reason`, `removal_means`, `entitlement_*`, `sync`, `snapshot` | `unmapped`, under their names; old and new values of an update in `entity.data` and `entity_result.data` |
| `ecs` | the same, `active`, old and new values of attributes that ECS does not name | `labels`, without those values and without other attributes; only `json` has these |
| `cim` | the same | `scimtail.*`; attributes of a user beyond name, address and `active` only as `changes` |
| `asim` | the same | `AdditionalFields`; attributes only as changed properties |
| `set` | `sequence`, `sync`, `provider`, `window_start`, `entitlement_*`, `removal_reason` beyond the choice of the event, the user's name if only its id is needed | nowhere |

RFC 9967 has no event for memberships. A membership is a `PATCH` of the group's `members`. In a baseline, users and
groups are `feed:add`, and memberships are still such a patch. `feed:add` is about a resource and has no data. So it
could name the group but not the member. Every token of a baseline has the claim `\"scimtail_baseline\": true`. By this
claim a receiver tells such a patch from a change.

The RFC has three events for a removed user or group, which are one in the other formats:

- `prov:delete`: the directory says that it does not know the user or group any more.
- `prov:deactivate`: the directory says the same, and at this vendor a deactivated user looks like that.
- `feed:remove`: every other removal, for example if only the lists show it.

No audience (`aud`) is set, and `iss` is `scimtail/<account>`.
";

const TYPES: [(&str, &str); 10] = [
    (
        "user.added",
        "The directory lists a user that was not known. A user that is inactive when it is first seen is added with \
         `active: false`, and is not also disabled. A user that comes back under an old id is added again.",
    ),
    (
        "user.updated",
        "Listed attributes of a known user changed. One event has all of them. `active` is not among them, except if \
         it was unknown and is now known to be true, or if the server no longer states it for many users and a person has \
         released that.",
    ),
    ("user.disabled", "`active` of a known user is now false."),
    ("user.enabled", "`active` of a known user was false and is now true."),
    (
        "user.removed",
        "A user is gone, and this is proven. `removal_reason` is `not_found` if GET by id says 404 or 410. It is \
         `absent` if GET does not work there and three complete walks lacked the user. It is `erased` if the removal \
         was made on request. `removal_means` is `deactivated` if deactivated users disappear at this vendor. `user` \
         is the user as last known. The removals of the memberships come first, with the same `correlation_id`.",
    ),
    ("group.added", "The directory lists a group that was not known."),
    (
        "group.updated",
        "Listed attributes of a known group changed. Changes of its members are events of their own. If a rename \
         changes the entitlement, the event names each changed `entitlement_*`.",
    ),
    ("group.removed", "A group is gone, and this is proven as for users. The removals of its memberships come first."),
    (
        "membership.added",
        "A user or a group is now a direct member of a group. If the server does not say which members are direct, \
         indirect members count too. The key is the member's.",
    ),
    (
        "membership.removed",
        "A completely read group no longer shows the member (`not_listed`). Or the membership goes with its user or \
         group, and has the reason of that removal.",
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
    page.push_str("\n`tests/golden/` has each of these events in every format.\n");
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
