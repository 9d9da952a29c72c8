//! The work of a sync, part by part. Callgrind counts the instructions: `benches/instructions/check`.
//!
//! Each part prepares what it needs, and then works inside [`measured`], which alone is counted. An argument names the
//! part. Nothing is asserted but that the work was done, because a count of other work is void.

#![allow(clippy::print_stdout, reason = "the names of the parts are what it prints")]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::Stream;
use scimtail::account::Account;
use scimtail::avro::{Codec, Decoder, EventContext, Registry, SchemaIds};
use scimtail::directory::{AttributeList, Baseline, Id, Kind, Known, Status, SyncStatus};
use scimtail::log::{Batch, CommitError, Log, Positions, Record, Topic};
use scimtail::scim::ReadError;
use scimtail::scim::directory::parse_row;
use scimtail::scim::envelope::split_list;
use scimtail::scim::places::{Places, split_expected};
use scimtail::scim::resource::{Reading, read_resource};
use scimtail::shards::restore;
use scimtail::source::{Answer, Directory, Page, Parsed, RawRow};
use scimtail::sync::{self, OwnedAccount, Planned};
use serde_json::json;

const PARTS: [&str; 8] = ["split", "places", "parse", "diff", "encode", "decode", "poll", "churn"];
const USERS: usize = 2_000;
const GROUPS: usize = 100;
const MEMBERS_EACH: usize = 20;
const PAGE: usize = 500;
/// Every so many users changes for the part `churn`: 0.1 % of them.
const CHURN_EACH: usize = 1_000;
const IDS: SchemaIds = SchemaIds([1, 2, 3, 4, 5, 6]);

/// Callgrind counts what is done in here.
#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    std::hint::black_box(work())
}

fn main() {
    let Some(part) = std::env::args().nth(1).filter(|part| !part.starts_with("--")) else {
        PARTS.iter().for_each(|part| println!("{part}"));
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(&part));
}

async fn run(part: &str) {
    let directory = Pages::new(0);
    let bodies = directory.users.iter().chain(&directory.groups);
    match part {
        "split" => {
            let rows: usize = measured(|| bodies.map(|body| split_list(body).expect("a list").rows.len()).sum());
            assert_eq!(rows, USERS + GROUPS);
        }
        "places" => {
            let mut places = Places::default();
            directory.rows(Kind::User).iter().for_each(|row| places.push(row));
            let all = || {
                let mut place = 0;
                for body in &directory.users {
                    (_, place) = split_expected(body, &places, place).expect("as expected");
                }
                place
            };
            assert_eq!(measured(all), USERS);
        }
        "parse" => {
            let rows = Kind::BOTH.map(|kind| directory.rows(kind));
            let reading = Reading::plain(AttributeList::default());
            let read = |kind: Kind, row: &RawRow| {
                read_resource(kind, row.bytes.sent().expect("bytes"), &reading).expect("a resource").members.len()
            };
            let members: usize = measured(|| {
                let of = |kind: Kind| rows[kind as usize].iter().map(move |row| read(kind, row)).sum::<usize>();
                Kind::BOTH.into_iter().map(of).sum()
            });
            assert_eq!(members, GROUPS * MEMBERS_EACH);
        }
        "diff" => {
            let (account, known) = (account(), Known::new(1));
            let planning = sync::plan(&account, &directory, &known, || 1);
            let planned = measured(|| futures::executor::block_on(planning));
            let Planned::Changes(_, changes) = planned else { panic!("it is read") };
            assert_eq!(changes.units.len(), USERS + GROUPS * (1 + MEMBERS_EACH));
        }
        "encode" => {
            let (account, known) = (account(), Known::new(1));
            let Planned::Changes(status, changes) = sync::plan(&account, &directory, &known, || 1).await else {
                panic!("it is read")
            };
            let (context, codec) = (EventContext::new(&account, &known, &status), Codec { ids: IDS });
            let (mut sequence, mut bytes, mut events) = (0, 0, 0);
            measured(|| {
                for unit in changes.units {
                    let encoded = codec.encode_change(&context, &known, &unit, &mut sequence);
                    events += unit.events.len() as i64;
                    bytes += encoded.records.iter().map(Record::len).sum::<usize>();
                }
            });
            assert!(bytes > 1_000_000 && sequence == events);
        }
        "decode" => {
            let mut owned = owned();
            completed(&mut owned, &directory).await;
            let records = std::mem::take(&mut *owned.log.0.lock().expect("one thread"));
            let registry = Registry::new("http://127.0.0.1:9").expect("a URL that is never asked");
            let (mut decoder, mut known) = (Decoder::of_writer(IDS, registry), Known::new(1));
            measured(|| {
                for record in records.iter().filter(|record| Topic::STATE.contains(&record.topic)) {
                    restore::take(&mut known, &mut decoder, record.topic, &record.key, record.value.as_deref(), None)
                        .expect("it reads back");
                }
            });
            assert_eq!(known.state_records(), USERS + GROUPS * (1 + MEMBERS_EACH));
        }
        "poll" | "churn" => {
            let mut owned = owned();
            completed(&mut owned, &directory).await;
            let revision = usize::from(part == "churn");
            let next = Pages { places: directory.places, ..Pages::new(revision) };
            let published = measured(|| futures::executor::block_on(completed(&mut owned, &next)));
            assert_eq!(published.events_published(), (revision * USERS / CHURN_EACH) as i64);
        }
        other => panic!("{other} is none of {PARTS:?}"),
    }
}

fn account() -> Account {
    Account { baseline: Baseline::Events, ..Account::unconfigured("acme", "scim", 0) }
}

fn owned() -> OwnedAccount<Kept> {
    let known = Known::new(1);
    OwnedAccount { account: account().into(), known, log: Kept::default(), codec: Codec { ids: IDS }, clock: || 1 }
}

async fn completed(owned: &mut OwnedAccount<Kept>, directory: &Pages) -> SyncStatus {
    let before = owned.known.completed.as_ref().map_or(0, SyncStatus::events_published);
    let status = sync::sync(owned, directory).await.expect("the log works");
    assert_eq!(status.status, Status::Completed, "{:?}", status.reason);
    assert!(before == 0 || status.events_published() < before, "the counts are those of one sync");
    status
}

/// A log that keeps its records.
#[derive(Default)]
struct Kept(Mutex<Vec<Record>>);

impl Log for Kept {
    async fn commit(&self, batch: Batch) -> Result<Positions, CommitError> {
        let mut records = self.0.lock().expect("one thread");
        let mut reached = Positions::new();
        for record in &batch.records {
            *reached.entry(record.topic).or_default() += 1;
        }
        records.extend(batch.records);
        records.extend((batch.closing)(&reached).expect("the closing records encode"));
        Ok(reached)
    }
}

/// A directory whose pages lie in memory as a server sends them.
struct Pages {
    users: Vec<Bytes>,
    groups: Vec<Bytes>,
    /// Of the last walk.
    places: Arc<Mutex<[Arc<Places>; 2]>>,
}

impl Pages {
    /// `revision`: changes the title of some users.
    fn new(revision: usize) -> Pages {
        let users: Vec<String> = (0..USERS).map(|number| user(number, revision)).collect();
        let groups: Vec<String> = (0..GROUPS).map(group).collect();
        let pages = |rows: &[String]| rows.chunks(PAGE).map(|page| body(page, rows.len())).collect();
        Pages { users: pages(&users), groups: pages(&groups), places: Arc::default() }
    }

    fn bodies(&self, kind: Kind) -> &[Bytes] {
        match kind {
            Kind::User => &self.users,
            Kind::Group => &self.groups,
        }
    }

    fn rows(&self, kind: Kind) -> Vec<RawRow> {
        self.bodies(kind).iter().flat_map(|body| split_list(body).expect("a list").rows).collect()
    }
}

impl Directory for Pages {
    type Error = ReadError;

    fn list(&self, kind: Kind, _since: Option<i64>) -> impl Stream<Item = Result<Page, ReadError>> + Send {
        let expected = Arc::clone(&self.places.lock().expect("one thread")[kind as usize]);
        let (mut place, mut places) = (0, Places::default());
        let mut pages = Vec::new();
        for body in self.bodies(kind) {
            let list = match split_expected(body, &expected, place) {
                Some((list, next)) => {
                    place = next;
                    list
                }
                None => split_list(body).expect("a list"),
            };
            list.rows.iter().for_each(|row| places.push(row));
            pages.push(Ok(Page { rows: list.rows, total: list.total, received_at: 1, ..Page::default() }));
        }
        pages.push(Ok(Page::default()));
        self.places.lock().expect("one thread")[kind as usize] = Arc::new(places);
        futures::stream::iter(pages)
    }

    fn read(&self, kind: Kind, page: &Page, row: &RawRow) -> Parsed {
        parse_row(kind, page, row, &Reading::plain(AttributeList::default()))
    }

    async fn get(&self, _: Kind, _: &Id) -> Answer {
        Answer::NotOffered
    }

    async fn matching(&self, _: Kind, _: &'static str, _: &Id) -> Result<Vec<Id>, ReadError> {
        Ok(Vec::new())
    }
}

fn body(rows: &[String], total: usize) -> Bytes {
    let schema = "urn:ietf:params:scim:api:messages:2.0:ListResponse";
    let rows = rows.join(",");
    format!(r#"{{"schemas":["{schema}"],"totalResults":{total},"startIndex":1,"Resources":[{rows}]}}"#).into()
}

fn id(number: usize) -> String {
    format!("{number:08x}-5c52-8f0e-9c0e-73c16d746169")
}

fn user(number: usize, revision: usize) -> String {
    let revision = if number.is_multiple_of(CHURN_EACH) { revision } else { 0 };
    let enterprise = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
    let address = format!("person.{number}@acme.example");
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User", enterprise],
        "id": id(number),
        "externalId": format!("e-{number}"),
        "meta": {
            "resourceType": "User",
            "created": "2024-01-02T03:04:05.678Z",
            "lastModified": "2025-01-02T03:04:05.678Z",
            "location": format!("https://scim.acme.example/scim/v2/Users/{}", id(number)),
            "version": format!("W/\"{number}\""),
        },
        "userName": address,
        "name": { "formatted": format!("Person Number{number}"), "givenName": "Person", "familyName": format!("Number{number}") },
        "displayName": format!("Person Number{number}"),
        "active": true,
        "title": format!("Engineer {revision}"),
        "userType": "Employee",
        "preferredLanguage": "en-US",
        "emails": [
            { "value": address, "type": "work", "primary": true },
            { "value": format!("{number}@home.example"), "type": "home" },
        ],
        "phoneNumbers": [{ "value": "+1 555 0100", "type": "work" }],
        "addresses": [{ "type": "work", "streetAddress": "1 Main Street", "locality": "Springfield", "country": "US" }],
        "roles": [{ "value": "member", "display": "Member" }],
        enterprise: {
            "employeeNumber": number.to_string(),
            "department": format!("Department {}", number % 50),
            "organization": "Acme",
            "manager": { "value": id(number / 10), "displayName": format!("Person Number{}", number / 10) },
        },
    })
    .to_string()
}

fn group(number: usize) -> String {
    let member = |place: usize| {
        let user = id((number * MEMBERS_EACH + place) % USERS);
        json!({ "value": user, "type": "User", "$ref": format!("https://scim.acme.example/scim/v2/Users/{user}") })
    };
    let members: Vec<_> = (0..MEMBERS_EACH).map(member).collect();
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"],
        "id": format!("g-{}", id(number)),
        "displayName": format!("Group {number}"),
        "members": members,
    })
    .to_string()
}
