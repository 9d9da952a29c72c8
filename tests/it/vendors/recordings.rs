//! A recording of each vendor's replay: it has the vendor's shapes and none of the company's data. So it can become a
//! replay, and be sent by those who read the real vendor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use futures::StreamExt;
use scimtail::config::Config;
use scimtail::connect::{AnyDirectory, Connection};
use scimtail::directory::{Kind, NOBODY};
use scimtail::recording::{self, Account};
use scimtail::schedule::now_millis;
use scimtail::scim::ScimDirectory;
use scimtail::scim::envelope::split_list;
use scimtail::scim::resource::{Resource, read_resource};
use scimtail::scim::tape::{Exchange, OF_A_FORM_MAX, Tape, Taped};
use scimtail::source::{Directory, Parsed};
use serde_json::Value;

use super::company::Company;
use super::server::{Replay, TOKEN};
use super::truth::Truth;
use super::{Replayed, accounts, vendors};
use crate::program::TOKEN_VARIABLE;

#[tokio::test(flavor = "multi_thread")]
async fn the_recording_of_each_vendor_has_its_shapes_and_no_data_of_its_people() {
    let company = Arc::new(RwLock::new(Company::new()));
    let mut all = Vec::new();
    for vendor in vendors() {
        let replay = Replay::start(vendor.clone(), company.clone()).await;
        all.push(Replayed { vendor, replay, truth: Truth::default(), events_seen: 0, faults: Vec::new() });
    }
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let text = format!(
        "[kafka]\nbrokers = [\"localhost:1\"]\n[registry]\nurl = \"http://localhost:1\"\n[defaults]\ninterval = \"5m\"\n{}",
        accounts(&all).replace(&format!("_env = \"{TOKEN_VARIABLE}\""), &format!("_file = \"{}\"", token.display()))
    );
    let config = Config::parse("scimtail.toml", &text).unwrap();
    assert_eq!(config.accounts.len(), all.len());
    let recorded = config.accounts.iter().zip(&all).map(async |(account, one)| {
        let tape = Tape::default();
        let directory = Connection::new(account, now_millis).directory().unwrap().on_tape(&tape);
        let AnyDirectory::Scim(directory) = directory else { panic!("a replay speaks SCIM") };
        read(&directory).await;
        let (exchanges, left_out) = tape.exchanges();
        let taped = Account {
            name: &account.account.name,
            provider: &account.account.provider,
            base_url: &account.base_url,
            exchanges: exchanges.clone(),
            left_out,
        };
        let text = recording::text(vec![taped], 0x5EED_5EED_5EED_5EED).unwrap();
        let mut comparison = Comparison { name: one.vendor.name.clone(), ..Comparison::default() };
        comparison.compare(&directory, &exchanges, &serde_json::from_str(&text).unwrap());
        no_data(one, &company.read().unwrap(), &text);
        comparison
    });
    let compared = futures::future::join_all(recorded).await;
    assert_eq!(compared.len(), all.len());
    let mut some_memberships = 0;
    for Comparison { name, users, groups, memberships, .. } in compared {
        let has_groups = all.iter().any(|one| one.vendor.name == name && one.vendor.groups);
        assert!(users > 0 && (!has_groups || groups > 0), "{name}: {users} users, {groups} groups, {memberships}");
        some_memberships += usize::from(memberships > 0);
    }
    // The others show theirs by filters only.
    assert!(some_memberships > all.len() / 2, "{some_memberships} of {} show memberships", all.len());
}

/// What `check` asks, in short: both lists, GET by id of the first and of no row, and the schemas.
async fn read(directory: &ScimDirectory) {
    directory.advertised().await;
    let client = &directory.client;
    client.get(client.urls().of(&["Schemas"], &[])).await.ok();
    for kind in Kind::BOTH.into_iter().filter(|kind| *kind == Kind::User || client.profile().groups) {
        let pages: Vec<_> = directory.list(kind, None).collect().await;
        let rows = pages.iter().flat_map(|page| &page.as_ref().unwrap().rows);
        let mut ids = rows.filter_map(|row| match directory.read(kind, &Default::default(), row) {
            Parsed::Resource(observed) => Some(observed.principal.id),
            Parsed::NoId | Parsed::Aside(_) | Parsed::Stale => None,
        });
        for id in [ids.next().expect("a row"), NOBODY.into()] {
            directory.get(kind, &id).await;
        }
        directory.matching(Kind::User, "groups.value", &NOBODY.into()).await.ok();
    }
}

/// What was found to be the same.
#[derive(Default)]
struct Comparison {
    name: String,
    users: usize,
    groups: usize,
    memberships: usize,
    /// An id, and what stands for it.
    ids: BTreeMap<String, String>,
    /// Ids of members, or of the groups of a user, and what stands for them; each in an order of its own.
    related: Vec<[BTreeSet<String>; 2]>,
}

impl Comparison {
    fn compare(&mut self, directory: &ScimDirectory, exchanges: &[Exchange], recording: &Value) {
        let name = self.name.clone();
        assert_eq!(recording["scimtail_recording"], recording::FORM);
        let account = &recording["accounts"][0];
        assert_eq!(account["provider"], *name);
        let requests = account["requests"].as_array().unwrap();
        assert_eq!(requests.len(), exchanges.len(), "{name}");
        for (exchange, request) in exchanges.iter().zip(requests) {
            let place = format!("{name}: {request:.300}");
            assert_eq!(request["status"], exchange.status, "{place}");
            assert_eq!(request["query"].as_object().unwrap().len(), exchange.query.len(), "{place}");
            let Taped::Whole(body) = &exchange.body else { panic!("{place}") };
            let again = Bytes::from(request["body"].to_string());
            let path = exchange.path.clone().expect("below the base");
            let kind = Kind::BOTH.into_iter().find(|kind| directory.client.profile().path(*kind) == path[0]);
            match (kind, exchange.status, path.len()) {
                (Some(kind), 200, 1) => {
                    let (page, again) = (split_list(body).unwrap(), split_list(&again).expect(&place));
                    assert_eq!(
                        (page.rows.len(), page.total, page.items_per_page, page.has_resources),
                        (again.rows.len(), again.total, again.items_per_page, again.has_resources),
                        "{place}"
                    );
                    assert_eq!(page.next_cursor.is_some(), again.next_cursor.is_some(), "{place}");
                    for (row, again) in page.rows.iter().zip(&again.rows) {
                        let rows = [row, again].map(|row| row.bytes.sent().expect("a row"));
                        self.resource(directory, kind, rows, &place);
                    }
                }
                (Some(kind), 200, 2) => self.resource(directory, kind, [body, &again], &place),
                _ => {}
            }
        }
        let back: BTreeSet<&String> = self.ids.values().collect();
        assert_eq!(back.len(), self.ids.len(), "{name}: two ids have one placeholder");
        for [originals, placeholders] in &self.related {
            assert_eq!(originals.len(), placeholders.len(), "{name}");
            for placeholder in originals.iter().filter_map(|original| self.ids.get(original)) {
                assert!(placeholders.contains(placeholder), "{name}: a member is not the user {placeholder}");
            }
        }
        // The same placeholder in the path of the request as in the body of its answer.
        let ids: BTreeSet<&str> = self.ids.values().map(String::as_str).collect();
        let by_id = requests.iter().filter_map(|request| request["path"].as_str()?.split_once('/')).map(|(_, id)| id);
        for id in by_id {
            assert!(id == NOBODY || ids.contains(id), "{name}: GET of {id}, which no answer has");
        }
    }

    fn resource(&mut self, directory: &ScimDirectory, kind: Kind, rows: [&Bytes; 2], place: &str) {
        let [one, again] = rows.map(|row| read_resource(kind, row, &directory.reading).expect("a resource"));
        let form = |of: &Resource| {
            (
                of.principal.active,
                of.principal.email.is_some(),
                of.principal.display_name.is_some(),
                of.principal.user_name.is_some(),
                of.principal.last_modified.is_some(),
                of.unreadable.clone(),
                of.composed_name,
                of.other_members,
            )
        };
        assert_eq!(form(&one), form(&again), "{place}");
        let [original, placeholder] = [&one, &again].map(|of| of.principal.id.to_string());
        let known = self.ids.entry(original.clone()).or_insert_with(|| placeholder.clone());
        assert_eq!(*known, placeholder, "{place}: {original} has two placeholders");
        let related = [one, again].map(|of| {
            let groups = of.groups.into_iter().filter_map(|group| group.id);
            of.members.into_iter().map(|member| member.id).chain(groups).map(|id| id.to_string()).collect()
        });
        let [ids, _]: &[BTreeSet<String>; 2] = &related;
        self.memberships += ids.len();
        self.related.push(related);
        match kind {
            Kind::User => self.users += 1,
            Kind::Group => self.groups += 1,
        }
    }
}

/// Neither a person nor a group nor the server is in the text.
fn no_data(one: &Replayed, company: &Company, text: &str) {
    /// A shorter text may be part of another by chance.
    const BYTES_MIN: usize = 6;
    let vendor = &one.vendor;
    let people = company
        .people
        .iter()
        .flat_map(|(n, person)| [vendor.user_id(*n, person), vendor.display_name(*n, person), format!("person{n:03}")]);
    let teams = company.teams.iter().flat_map(|(n, team)| [vendor.group_id(*n), team.name.to_owned()]);
    let others = [TOKEN, "example.org", one.replay.address.trim_start_matches("http://"), "127.0.0.1", "TENANT_ID"];
    let text = text.to_lowercase();
    for data in people.chain(teams).chain(others.map(str::to_owned)).filter(|data| data.len() >= BYTES_MIN) {
        assert!(!text.contains(&data.to_lowercase()), "{}: {data} is in the recording", vendor.name);
    }
    assert!(text.matches("\"method\"").count() <= 20 * OF_A_FORM_MAX, "{}: the tape has an end", vendor.name);
}
