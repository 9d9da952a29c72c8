//! The main job against third-party servers: scim2-server, Apache Kafka, Apicurio Registry. confluent-kafka and
//! fastavro read the topics back.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::program::{AccountText, Program};
use crate::reader::{ReadRecord, compacted, read};
use crate::scim2_server::Scim2Server;
use crate::services::{Services, services, unique_prefix};

const USERS: usize = 300;
const GROUPS: usize = 40;
const MEMBERSHIPS: usize = 900;
const STATE: [&str; 3] = ["users", "groups", "memberships"];

/// The directory as this test made it.
struct World {
    services: &'static Services,
    server: Scim2Server,
    program: Program,
    /// id → (userName, active)
    users: BTreeMap<String, (String, bool)>,
    /// id → (displayName, members)
    groups: BTreeMap<String, (String, BTreeSet<String>)>,
    events_seen: usize,
    syncs: i64,
}

impl World {
    async fn start() -> World {
        let (services, server) = (services(), Scim2Server::start());
        let account =
            AccountText { name: "acme", provider: "generic", base_url: server.base_url().to_owned(), more: "" };
        let program = Program::new(services, &unique_prefix("end-to-end"), server.token(), "5m", &[account]);
        let mut world = World {
            services,
            server,
            program,
            users: BTreeMap::new(),
            groups: BTreeMap::new(),
            events_seen: 0,
            syncs: 0,
        };
        for number in 0..USERS {
            world.add_user(&format!("user{number:03}")).await;
        }
        let ids: Vec<String> = world.users.keys().cloned().collect();
        for number in 0..GROUPS {
            // 900 memberships over 40 groups: 22 or 23 each.
            let count = MEMBERSHIPS / GROUPS + usize::from(number < MEMBERSHIPS % GROUPS);
            let members: BTreeSet<String> =
                (0..count).map(|member| ids[(number * 7 + member) % USERS].clone()).collect();
            world.add_group(&format!("group{number:02}"), members).await;
        }
        world
    }

    async fn add_user(&mut self, name: &str) -> String {
        let user = json!({ "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": name, "active": true, "title": "Analyst",
            "emails": [{ "value": format!("{name}@example.com"), "primary": true }] });
        let id = self.server.create_user(user).await;
        self.users.insert(id.clone(), (name.to_owned(), true));
        id
    }

    async fn add_group(&mut self, name: &str, members: BTreeSet<String>) -> String {
        let listed: Vec<Value> = members.iter().map(|id| json!({ "value": id, "type": "User" })).collect();
        let group = json!({ "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": name, "members": listed });
        let id = self.server.create_group(group).await;
        self.groups.insert(id.clone(), (name.to_owned(), members));
        id
    }

    async fn patch(&self, kind: &str, id: &str, path: &str, value: Value) {
        self.server.patch(kind, id, json!([{ "op": "replace", "path": path, "value": value }])).await;
    }

    async fn set_members(&mut self, group: &str, members: BTreeSet<String>) {
        let listed: Vec<Value> = members.iter().map(|id| json!({ "value": id, "type": "User" })).collect();
        self.patch("Groups", group, "members", json!(listed)).await;
        self.groups.get_mut(group).expect("the group exists").1 = members;
    }

    fn topics(&self) -> Vec<String> {
        ["events", "users", "groups", "memberships", "syncs"].map(|suffix| self.program.topic(suffix)).to_vec()
    }

    /// Syncs once and returns the new events as `type key`, after checking everything that always holds.
    async fn sync(&mut self) -> Vec<String> {
        let ended = self.program.run(&["run", "--once"]).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        self.syncs += 1;
        let records = read(self.services, &self.topics()).await;
        self.check_state(&records);
        self.check_syncs(&records);
        self.check_events(&records)
    }

    /// G2, G8: the compacted topics are the directory.
    fn check_state(&self, records: &[ReadRecord]) {
        let [users, groups, memberships] = STATE.map(|suffix| compacted(records, &self.program.topic(suffix)));
        let found: BTreeMap<String, (String, bool)> = users
            .iter()
            .map(|(key, record)| {
                let value = &record.value;
                let id = value["id"].as_str().expect("an id").to_owned();
                assert_eq!(*key, format!("acme/Users/{id}"));
                assert_eq!(
                    value["email"],
                    json!(format!("{}@example.com", value["user_name"].as_str().expect("a name")))
                );
                (
                    id,
                    (
                        value["user_name"].as_str().expect("a name").to_owned(),
                        value["active"].as_bool().expect("a state"),
                    ),
                )
            })
            .collect();
        assert_eq!(found, self.users);
        let found: BTreeMap<String, String> =
            groups.values().map(|record| (text(&record.value, "id"), text(&record.value, "display_name"))).collect();
        let expected: BTreeMap<String, String> =
            self.groups.iter().map(|(id, (name, _))| (id.clone(), name.clone())).collect();
        assert_eq!(found, expected);
        let found: BTreeSet<String> = memberships.keys().cloned().collect();
        let alive = |(id, (_, members)): (&String, &(String, BTreeSet<String>))| {
            let users = &self.users;
            let keys = members.iter().filter(move |member| users.contains_key(*member));
            keys.map(|member| format!("acme/Users/{member}/Groups/{id}")).collect::<Vec<_>>()
        };
        assert_eq!(found, self.groups.iter().flat_map(alive).collect::<BTreeSet<_>>());
    }

    /// The marker says which state exists, and up to which positions to read.
    fn check_syncs(&self, records: &[ReadRecord]) {
        let topic = self.program.topic("syncs");
        let syncs: Vec<&ReadRecord> = records.iter().filter(|record| record.topic == topic).collect();
        assert_eq!(syncs.last().expect("a syncs record").key.as_deref(), Some("acme/latest"), "latest is written last");
        let newest = compacted(records, &topic);
        assert_eq!(newest["acme"].value, newest["acme/latest"].value);
        let marker = &newest["acme"].value;
        assert_eq!((marker["status"].as_str(), marker["sync"].as_i64()), (Some("completed"), Some(self.syncs)));
        assert_eq!(marker["users_read"], json!(self.users.len()));
        assert_eq!(marker["groups_read"], json!(self.groups.len()));
        let live: usize = STATE.iter().map(|suffix| compacted(records, &self.program.topic(suffix)).len()).sum();
        assert_eq!(marker["state_records"], json!(live));
        let positions = marker["positions"].as_array().expect("positions");
        assert_eq!(positions.len(), 4);
        for position in positions {
            let of_topic = records.iter().filter(|record| position["topic"] == json!(record.topic));
            let last = of_topic.map(|record| record.offset + 1).max().unwrap_or(0);
            assert_eq!(position["next_offset"], json!(last), "{position}");
        }
    }

    /// G6: gapless sequence in partition order; keys, headers and values agree.
    fn check_events(&mut self, records: &[ReadRecord]) -> Vec<String> {
        let topic = self.program.topic("events");
        let events: Vec<&ReadRecord> = records.iter().filter(|record| record.topic == topic).collect();
        let partitions: BTreeSet<i32> = events.iter().map(|record| record.partition).collect();
        assert!(partitions.len() <= 1, "an account lives in one partition");
        let mut ids = BTreeSet::new();
        for (index, record) in events.iter().enumerate() {
            let value = &record.value;
            assert_eq!(value["sequence"], json!(index + 1));
            assert_eq!(record.headers["ce_sequence"], format!("{:019}", index + 1));
            assert_eq!(record.headers["ce_id"], text(value, "event_id"));
            assert_eq!(record.headers["ce_type"], format!("scimtail.{}", text(value, "event_type")));
            assert_eq!(record.headers["ce_source"], "scimtail/acme");
            assert_eq!(record.headers["content-type"], "application/avro");
            assert!(ids.insert(text(value, "event_id")), "an event id occurs once");
            let endpoint = if value["principal_type"] == json!("user") { "Users" } else { "Groups" };
            assert_eq!(
                record.key.as_deref(),
                Some(format!("acme/{endpoint}/{}", text(value, "principal_id")).as_str())
            );
            assert!(!record.is_tombstone() && value["window_start"].is_i64());
        }
        let new = events[self.events_seen..].iter().map(|record| {
            assert_eq!(record.value["sync"], json!(self.syncs));
            format!("{} {}", text(&record.value, "event_type"), text(&record.value, "principal_id"))
        });
        let new: Vec<String> = new.collect();
        self.events_seen = events.len();
        new
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("{field} is not a text in {value}")).to_owned()
}

/// G2, G6, G8 on the real broker, and every kind of change there is.
#[tokio::test(flavor = "multi_thread")]
async fn g8_the_directory_of_another_project_arrives_in_kafka_change_by_change() {
    let mut world = World::start().await;
    assert_eq!(world.sync().await, [""; 0], "the baseline is state only");
    assert_eq!(world.sync().await, [""; 0], "nothing changed");
    let ids: Vec<String> = world.users.keys().cloned().collect();
    let groups: Vec<String> = world.groups.keys().cloned().collect();

    let added = world.add_user("newcomer").await;
    assert_eq!(world.sync().await, [format!("user.added {added}")]);

    world.patch("Users", &ids[0], "active", json!(false)).await;
    world.users.get_mut(&ids[0]).expect("the user").1 = false;
    assert_eq!(world.sync().await, [format!("user.disabled {}", ids[0])]);

    world.patch("Users", &ids[0], "active", json!(true)).await;
    world.users.get_mut(&ids[0]).expect("the user").1 = true;
    assert_eq!(world.sync().await, [format!("user.enabled {}", ids[0])]);

    // Renamed and disabled at once, and another one only retitled.
    world.patch("Users", &ids[1], "title", json!("Manager")).await;
    world.patch("Users", &ids[2], "title", json!("Former")).await;
    world.patch("Users", &ids[2], "active", json!(false)).await;
    world.users.get_mut(&ids[2]).expect("the user").1 = false;
    let events = world.sync().await;
    assert_eq!(
        events,
        [format!("user.updated {}", ids[1]), format!("user.updated {}", ids[2]), format!("user.disabled {}", ids[2])]
    );

    // Memberships come and go.
    let mut members = world.groups[&groups[0]].1.clone();
    let gone = members.pop_first().expect("a member");
    members.insert(added.clone());
    world.set_members(&groups[0], members).await;
    assert_eq!(world.sync().await, [format!("membership.removed {gone}"), format!("membership.added {added}")]);

    // A group is added, one renamed, one removed with its memberships.
    let new_group = world.add_group("newcomers", [added.clone()].into()).await;
    world.patch("Groups", &groups[1], "displayName", json!("renamed")).await;
    world.groups.get_mut(&groups[1]).expect("the group").0 = "renamed".into();
    world.server.delete("Groups", &groups[2]).await;
    let (_, lost) = world.groups.remove(&groups[2]).expect("the group");
    let mut expected = vec![format!("group.added {new_group}"), format!("group.updated {}", groups[1])];
    expected.extend(lost.iter().map(|member| format!("membership.removed {member}")));
    expected.push(format!("membership.added {added}"));
    expected.push(format!("group.removed {}", groups[2]));
    assert_eq!(world.sync().await, expected);

    // Removed users go with their memberships, although the server keeps listing them in its groups.
    let removed = [ids[10].clone(), ids[11].clone()];
    let mut expected: Vec<String> = Vec::new();
    for id in &removed {
        world.server.delete("Users", id).await;
        world.users.remove(id);
    }
    for members in world.groups.values().map(|(_, members)| members) {
        let lost = removed.iter().filter(|id| members.contains(*id));
        expected.extend(lost.map(|id| format!("membership.removed {id}")));
    }
    expected.extend(removed.iter().map(|id| format!("user.removed {id}")));
    let events = world.sync().await;
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    assert_eq!(events[events.len() - 2..], expected[expected.len() - 2..], "users go last");
    assert_eq!(sorted(events), sorted(expected));
    assert_eq!(world.sync().await, [""; 0], "and nothing brings the dangling memberships back");

    // The command-line output about all of that.
    let tail = world.program.run(&["tail", "--from-beginning", "--exit"]).await;
    assert_eq!((tail.code, tail.out.lines().count()), (0, world.events_seen), "{}", tail.err);
    let state = world.program.run(&["state", "access", "--format", "csv"]).await;
    let memberships: usize = world
        .groups
        .values()
        .map(|(_, members)| members.iter().filter(|id| world.users.contains_key(*id)).count())
        .sum();
    assert_eq!((state.code, state.out.lines().count()), (0, memberships + 1), "{}", state.err);
    assert!(state.err.contains(&format!("complete as of sync {}", world.syncs)), "{}", state.err);
    let plan = world.program.run(&["plan"]).await;
    assert!(plan.code == 0 && plan.out.contains("0 changes; nothing was written"), "{plan:?}");
}
