//! A directory and a log in memory: they implement the same traits as the real ones, and fail on command.

use scimtail::directory::{
    AttributeList, Baseline, GroupPattern, Id, Kind, Known, Limits, ReasonCode, Status, Strategy, SyncStatus,
};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use scimtail::account::{Account, Habits, MAX_PRINCIPALS};
use scimtail::avro::wire::{ChangeEvent, SyncStatus as SyncRecord};
use scimtail::avro::{Codec, Decoder, Registry, SchemaIds};
use scimtail::log::{Batch, CommitError, EndKind, Ended, Log, Positions, Record, Topic};
use scimtail::scim::ReadError;
use scimtail::scim::directory::parse_row;
use scimtail::scim::envelope::raw_row;
use scimtail::scim::resource::Reading;
use scimtail::shards::restore::{self, Ends, Purpose, Stopped};
use scimtail::source::{Answer, Directory, Page, Parsed, RawRow};
use scimtail::sync::{self, OwnedAccount};
use serde_json::{Value, json};

pub const IDS: SchemaIds = SchemaIds([1, 2, 3, 4, 5, 6]);

/// A resource as the simulated server holds it.
pub type Resources = BTreeMap<String, Value>;

/// Faults of the simulated server.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Ids that lists leave out although GET finds them.
    pub unlisted: BTreeSet<String>,
    /// Page (from 0) of the kind's list that answers with an error.
    pub fails_at: Option<(usize, Kind)>,
    /// Lists of this kind are empty, with a total of 0.
    pub empty: Option<Kind>,
    /// GET by id answers 405.
    pub get_not_offered: bool,
    /// GET by id answers 404 to any id.
    pub get_always_404: bool,
    /// GET by id does not answer.
    pub get_times_out: bool,
    /// Members that a group's list leaves out although GET of the group shows them.
    pub list_hides_members_of: BTreeSet<String>,
    /// The totals count every resource, listed or not.
    pub truthful_totals: bool,
    /// The first GET of this id answers 404, later ones find it.
    pub first_get_404: Option<String>,
    /// GET of these ids does not answer.
    pub mute: BTreeSet<String>,
    /// GET of these ids answers 404.
    pub gone: BTreeSet<String>,
    /// GET of this id does not answer.
    pub silent: Option<String>,
    /// Only the first walk leaves `unlisted` out: the rows slid.
    pub first_walk_only: bool,
    /// A filter finds every user.
    pub filters_ignored: bool,
    /// A filter finds no user, without saying that it cannot.
    pub filters_find_nothing: bool,
    /// Memberships of these (group or user, as the strategy asks) cannot be read.
    pub memberships_unread: BTreeSet<String>,
    /// The list shows this principal without its id.
    pub nameless: Option<String>,
    /// Lists show these users without `active`.
    pub without_active: BTreeSet<String>,
    /// The list shows this user twice, the second time with the opposite `active`.
    pub contradicted: Option<String>,
    /// Members of these groups have no `value` in lists.
    pub members_unreadable: BTreeSet<String>,
    /// GET shows neither `title` nor `externalId`.
    pub get_is_poorer: bool,
    /// A group that lists a device beside its members.
    pub with_a_device: Option<String>,
    /// The list never answers.
    pub never_answers: bool,
    /// The list of groups never answers.
    pub groups_never_answer: bool,
    /// Users say that they are in these groups indirectly.
    pub indirect: BTreeSet<String>,
}

#[derive(Default)]
pub struct MemoryDirectory {
    pub users: Resources,
    pub groups: Resources,
    pub faults: Faults,
    /// How it shows memberships; in the list of groups unless said otherwise.
    pub strategy: Option<Strategy>,
    /// Users show the names of their groups, not the ids.
    pub groups_by_name: bool,
    pub gets: AtomicUsize,
    pub filters: AtomicUsize,
    pub walks: AtomicUsize,
}

const PAGE: usize = 3;

impl MemoryDirectory {
    /// One line a resource:
    /// `user u1 ann title=Analyst`, `user u2 bob inactive`, `group g1 Admins: u1 u2 group:g2`.
    pub fn parse(text: &str) -> MemoryDirectory {
        let mut directory = MemoryDirectory::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (kind, rest) = line.split_once(' ').expect("a line begins with user or group");
            if kind == "user" {
                let mut words = rest.split_whitespace();
                let (id, name) = (words.next().expect("an id"), words.next().expect("a name"));
                let mut user = json!({ "id": id, "userName": name, "active": true });
                for word in words {
                    match word.split_once('=') {
                        Some((attribute, value)) => user[attribute] = json!(value),
                        None if word == "inactive" => user["active"] = json!(false),
                        None if word == "unknown" => user["active"] = json!("perhaps"),
                        None => panic!("{word} is neither inactive, unknown nor attribute=value"),
                    }
                }
                directory.users.insert(id.to_owned(), user);
            } else {
                let (head, members) = rest.split_once(':').expect("a group has a colon");
                let (id, name) = head.split_once(' ').expect("an id and a name");
                let members: Vec<Value> = members
                    .split_whitespace()
                    .map(|word| match word.strip_prefix("group=") {
                        Some(id) => json!({ "value": id, "type": "Group" }),
                        None => json!({ "value": word }),
                    })
                    .collect();
                directory.groups.insert(id.to_owned(), json!({ "id": id, "displayName": name, "members": members }));
            }
        }
        directory
    }

    fn resources(&self, kind: Kind) -> &Resources {
        match kind {
            Kind::User => &self.users,
            Kind::Group => &self.groups,
        }
    }

    pub fn showing(self, strategy: Strategy) -> MemoryDirectory {
        MemoryDirectory { strategy: Some(strategy), ..self }
    }

    fn shows(&self) -> Strategy {
        self.strategy.unwrap_or(Strategy::List)
    }

    /// The resource as this directory shows it, in a list or by GET.
    fn shown(&self, kind: Kind, id: &str, in_list: bool) -> Value {
        let mut value = self.resources(kind)[id].clone();
        let members = self.shows() == Strategy::List || (self.shows() == Strategy::Get && !in_list);
        if kind == Kind::Group && !members {
            value["members"] = json!([]);
        }
        if kind == Kind::User && self.shows() == Strategy::User {
            let groups = self.groups.iter().filter(|(_, group)| has_member(group, id));
            let groups: Vec<Value> = groups
                .map(|(group_id, group)| {
                    let kind = if self.faults.indirect.contains(group_id) { "indirect" } else { "direct" };
                    match self.groups_by_name {
                        true => json!({ "display": group["displayName"], "type": kind }),
                        false => json!({ "value": group_id, "type": kind }),
                    }
                })
                .collect();
            value["groups"] = json!(groups);
        }
        value
    }

    fn row(value: &Value) -> RawRow {
        raw_row(Bytes::from(value.to_string()))
    }

    fn rows(&self, kind: Kind, walk: usize) -> Vec<RawRow> {
        if self.faults.empty == Some(kind) {
            return Vec::new();
        }
        let slid = !self.faults.first_walk_only || walk == 0;
        self.resources(kind)
            .keys()
            .filter(|id| !(slid && self.faults.unlisted.contains(*id)))
            .flat_map(|id| self.listed(kind, id))
            .collect()
    }

    /// The rows by which a list shows one resource: one, unless something goes wrong.
    fn listed(&self, kind: Kind, id: &String) -> Vec<RawRow> {
        let faults = &self.faults;
        let mut value = self.shown(kind, id, true);
        if faults.list_hides_members_of.contains(id) {
            value["members"] = json!([]);
        }
        if faults.members_unreadable.contains(id) {
            value["members"] = json!([{ "display": "nobody" }]);
        }
        if faults.with_a_device.as_ref() == Some(id)
            && let Some(members) = value["members"].as_array_mut()
        {
            members.push(json!({ "value": "u1", "type": "Device" }));
        }
        if faults.without_active.contains(id) {
            value.as_object_mut().expect("a resource").remove("active");
        }
        if faults.nameless.as_ref() == Some(id) {
            value.as_object_mut().expect("a resource").remove("id");
        }
        let mut rows = vec![Self::row(&value)];
        if faults.contradicted.as_ref() == Some(id) && kind == Kind::User {
            value["active"] = json!(value["active"] == json!(false));
            rows.push(Self::row(&value));
        }
        rows
    }
}

impl Directory for MemoryDirectory {
    type Error = ReadError;

    fn list(&self, kind: Kind, since: Option<i64>) -> impl Stream<Item = Result<Page, ReadError>> + Send {
        let walk = if kind == Kind::User { self.walks.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let mut rows = self.rows(kind, walk);
        if let Some(since) = since {
            rows.retain(|row| modified_at(row).is_some_and(|at| at >= since));
        }
        let total = if self.faults.truthful_totals { self.resources(kind).len() } else { rows.len() } as u64;
        let mut pages: Vec<Result<Page, ReadError>> =
            rows.chunks(PAGE).map(|rows| Ok(page(rows.to_vec(), Some(total)))).collect();
        pages.push(Ok(page(Vec::new(), Some(total))));
        if let Some((page, failing)) = self.faults.fails_at
            && failing == kind
        {
            pages.truncate(page);
            pages.push(Err(ReadError::new(ReasonCode::HttpStatus, "the server answers HTTP 500")));
        }
        let silence = self.faults.never_answers || self.faults.groups_never_answer && kind == Kind::Group;
        futures::stream::once(async move {
            if silence {
                std::future::pending::<()>().await;
            }
            futures::stream::iter(pages)
        })
        .flatten()
    }

    fn read(&self, kind: Kind, page: &Page, row: &RawRow) -> Parsed {
        let groups_on_user = self.shows() == Strategy::User;
        parse_row(kind, page, row, &Reading { groups_on_user, ..Reading::plain(AttributeList::default()) })
    }

    async fn get(&self, kind: Kind, id: &Id) -> Answer {
        self.gets.fetch_add(1, Ordering::Relaxed);
        if self.faults.get_not_offered {
            return Answer::NotOffered;
        }
        if self.faults.get_times_out {
            return Answer::Unproven("HTTP 500".to_owned());
        }
        if self.faults.silent.as_deref() == Some(id) || self.faults.mute.contains(&**id) {
            return Answer::Unproven("HTTP 500".to_owned());
        }
        let walk = self.walks.load(Ordering::Relaxed);
        if self.faults.first_get_404.as_deref() == Some(id) && walk == 1 {
            return Answer::NotFound;
        }
        if self.shows() == Strategy::Get && kind == Kind::Group && self.faults.memberships_unread.contains(&**id) {
            return Answer::Unproven("HTTP 500".to_owned());
        }
        let is_gone = self.faults.get_always_404 || self.faults.gone.contains(&**id);
        if is_gone || !self.resources(kind).contains_key(&**id) {
            return Answer::NotFound;
        }
        let mut shown = self.shown(kind, id, false);
        if self.faults.get_is_poorer {
            let shown = shown.as_object_mut().expect("a resource");
            shown.retain(|name, _| name != "title" && name != "externalId");
        }
        let row = Self::row(&shown);
        match self.read(kind, &page(Vec::new(), None), &row) {
            Parsed::Resource(observed) => Answer::Found(observed),
            other => panic!("a stored resource reads: {other:?}"),
        }
    }

    async fn matching(&self, kind: Kind, attribute: &'static str, id: &Id) -> Result<Vec<Id>, ReadError> {
        self.filters.fetch_add(1, Ordering::Relaxed);
        if self.faults.memberships_unread.contains(&**id) {
            return Err(ReadError::new(ReasonCode::Unavailable, "the server answers HTTP 503"));
        }
        if self.faults.filters_ignored {
            return Ok(self.resources(kind).keys().map(|id| id.as_str().into()).collect());
        }
        if self.faults.filters_find_nothing {
            return Ok(Vec::new());
        }
        let found: Vec<&String> = match (kind, attribute) {
            (Kind::User, "groups.value") => {
                let members = |user: &&String| self.groups.get(&**id).is_some_and(|group| has_member(group, user));
                self.users.keys().filter(members).collect()
            }
            (Kind::Group, "members.value") => {
                self.groups.iter().filter(|(_, group)| has_member(group, id)).map(|(group, _)| group).collect()
            }
            other => panic!("{other:?} is not asked"),
        };
        Ok(found.into_iter().map(|id| id.as_str().into()).collect())
    }
}

fn modified_at(row: &RawRow) -> Option<i64> {
    let value: Value = serde_json::from_slice(row.bytes.sent()?).expect("a stored resource");
    value["meta"]["lastModified"].as_str()?.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

fn has_member(group: &Value, id: &str) -> bool {
    group["members"].as_array().is_some_and(|members| members.iter().any(|member| member["value"] == id))
}

fn page(rows: Vec<RawRow>, total: Option<u64>) -> Page {
    Page { rows, total, received_at: clock(), ..Page::default() }
}

/// Where the log stops working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    Before(usize),
    /// The commit is durable, but the program is not told.
    After(usize),
    /// The transaction is aborted; the acquisition goes on.
    Abort(usize),
}

/// A transactional log: the contents of `records` are committed.
#[derive(Default)]
pub struct MemoryLog {
    pub records: Mutex<Vec<Record>>,
    /// Offsets of each topic whose records are gone, as compaction and losses leave them.
    pub holes: Mutex<BTreeMap<Topic, i64>>,
    pub commits: AtomicUsize,
    pub crash: Mutex<Option<Crash>>,
}

impl Log for MemoryLog {
    async fn commit(&self, batch: Batch) -> Result<Positions, CommitError> {
        let number = self.commits.fetch_add(1, Ordering::Relaxed);
        let crash = *self.crash.lock().unwrap();
        let ended = || CommitError::Ended(Ended { kind: EndKind::Failed, reason: "crashed on purpose".into() });
        if crash == Some(Crash::Before(number)) {
            return Err(ended());
        }
        if crash == Some(Crash::Abort(number)) {
            return Err(CommitError::Aborted("aborted on purpose".into()));
        }
        let mut records = self.records.lock().unwrap();
        let mut reached = Positions::new();
        for record in batch.records {
            records.push(record.clone());
            reached.insert(record.topic, self.end(&records, record.topic));
        }
        records.extend((batch.closing)(&reached).expect("the closing records encode"));
        if crash == Some(Crash::After(number)) {
            return Err(ended());
        }
        Ok(reached)
    }
}

impl MemoryLog {
    fn end(&self, records: &[Record], topic: Topic) -> i64 {
        let holes = self.holes.lock().unwrap().get(&topic).copied().unwrap_or(0);
        records.iter().filter(|record| record.topic == topic).count() as i64 + holes
    }

    fn decoder() -> Decoder {
        // Nothing is fetched: the ids are our own. The set-up of an HTTP client is the only cost.
        static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::new("http://127.0.0.1:9").expect("a URL"));
        Decoder::of_writer(IDS, REGISTRY.clone())
    }

    /// The state that a new owner would restore, by the code that restores from Kafka.
    pub fn restore(&self, account: &Account) -> Known {
        self.try_restore(account).unwrap_or_else(|stopped| panic!("{}", stopped.reason))
    }

    pub fn try_restore(&self, account: &Account) -> Result<Known, Stopped> {
        let mut known = Known::new(1);
        let mut decoder = Self::decoder();
        for record in self.records.lock().unwrap().iter().filter(|record| Topic::STATE.contains(&record.topic)) {
            let sequence = record.headers.get("ce_sequence");
            restore::take(&mut known, &mut decoder, record.topic, &record.key, record.value.as_deref(), sequence)
                .expect("every record reads back");
        }
        // Requests are made up as they are applied.
        let control = known.latest.as_ref().map_or(0, |latest| latest.control_offset);
        let records = self.records.lock().unwrap();
        let topics = Topic::ALL.into_iter().map(|topic| (topic, self.end(&records, topic))).collect();
        restore::complete(account, Purpose::Own { acquisition: 1 }, known, BTreeMap::new(), &Ends { topics, control })
    }

    pub fn events(&self) -> Vec<ChangeEvent> {
        let mut decoder = Self::decoder();
        let records = self.records.lock().unwrap();
        let events = records.iter().filter(|record| record.topic == Topic::Events);
        events
            .map(|record| {
                decoder
                    .decode(Topic::Events, record.value.as_deref().expect("events are never null"))
                    .expect("an event decodes")
            })
            .collect()
    }

    /// Checks the promise of every completeness marker: all of its state is before its positions.
    pub fn assert_positions_cover_the_state(&self) {
        let records = self.records.lock().unwrap().clone();
        let mut written: BTreeMap<Topic, i64> = BTreeMap::new();
        let mut statuses = self.statuses().into_iter();
        for record in &records {
            if record.topic != Topic::Syncs {
                *written.entry(record.topic).or_default() += 1;
                continue;
            }
            let (_, status) = statuses.next().expect("every syncs record decodes");
            for position in &status.positions {
                let topic = Topic::of("test", &position.topic).expect("a topic of ours");
                assert_eq!(position.next_offset, written.get(&topic).copied().unwrap_or(0), "{topic:?} in {status:?}");
            }
        }
    }

    pub fn statuses(&self) -> Vec<(String, SyncRecord)> {
        let mut decoder = Self::decoder();
        let records = self.records.lock().unwrap();
        let syncs = records.iter().filter(|record| record.topic == Topic::Syncs);
        syncs
            .map(|record| {
                let value = record.value.as_deref().expect("no account was retired");
                (record.key.clone(), decoder.decode(Topic::Syncs, value).expect("a status decodes"))
            })
            .collect()
    }

    /// Live value bytes by key, as compaction leaves them, apart from `syncs`.
    pub fn state(&self) -> BTreeMap<(Topic, String), Vec<u8>> {
        let mut state = BTreeMap::new();
        for record in self.records.lock().unwrap().iter() {
            if matches!(record.topic, Topic::Users | Topic::Groups | Topic::Memberships) {
                match &record.value {
                    Some(value) => drop(state.insert((record.topic, record.key.clone()), value.clone())),
                    None => drop(state.remove(&(record.topic, record.key.clone()))),
                }
            }
        }
        state
    }
}

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(1_700_000_000_000) };
}

/// A clock that moves by a millisecond at every look; each test has its own.
pub fn clock() -> i64 {
    advance(1);
    NOW.get()
}

/// Lets time pass.
pub fn advance(milliseconds: i64) {
    NOW.set(NOW.get() + milliseconds);
}

pub fn account(name: &str) -> Account {
    Account {
        name: name.to_owned(),
        provider: "generic".to_owned(),
        attributes: AttributeList::default(),
        privileges: vec!["roles".to_owned(), "entitlements".to_owned()],
        pattern: Some(
            GroupPattern::parse("CB/{domain}/{kind:ROLE=role|BE=business_entity}/{name}").expect("a pattern"),
        ),
        not_read: vec!["guests".to_owned()],
        profile_fingerprint: "test".to_owned(),
        habits: Habits { empty_members_are_none: true, ..Habits::default() },
        baseline: Baseline::State,
        limits: Limits::default(),
        // Small enough that most syncs need several transactions.
        batch: scimtail::account::BatchBounds { principals: 3, units: 4, bytes: 1 << 20 },
        outputs: Vec::new(),
        max_principals: MAX_PRINCIPALS,
        topic_prefix: "test".to_owned(),
        partition: 0,
    }
}

/// An account with its log and its known state; its fields are those of [`OwnedAccount`].
pub struct World(OwnedAccount<MemoryLog>);

impl Deref for World {
    type Target = OwnedAccount<MemoryLog>;

    fn deref(&self) -> &OwnedAccount<MemoryLog> {
        &self.0
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut OwnedAccount<MemoryLog> {
        &mut self.0
    }
}

impl World {
    pub fn new(account: Account) -> World {
        let log = MemoryLog::default();
        let known = log.restore(&account);
        let account = Arc::new(account);
        World(OwnedAccount { account, known, log, codec: Codec { ids: IDS }, clock })
    }

    /// The account's settings, to be changed.
    pub fn account_mut(&mut self) -> &mut Account {
        Arc::make_mut(&mut self.account)
    }

    pub async fn try_sync(&mut self, directory: &MemoryDirectory) -> Result<SyncStatus, Ended> {
        directory.walks.store(0, Ordering::Relaxed);
        self.account_mut().habits.memberships = Some(directory.shows());
        self.try_sync_with(directory).await
    }

    /// As [`World::try_sync`], with any implementation of [`Directory`].
    pub async fn try_sync_with<D: Directory>(&mut self, directory: &D) -> Result<SyncStatus, Ended> {
        sync::sync(&mut self.0, directory).await
    }

    /// Syncs with any directory, e.g. one behind HTTP.
    pub async fn sync_with<D: Directory>(&mut self, directory: &D) -> SyncStatus {
        let status = self.try_sync_with(directory).await.expect("the log works");
        self.assert_known_is_the_log();
        status
    }

    pub async fn sync(&mut self, directory: &MemoryDirectory) -> SyncStatus {
        let status = self.try_sync(directory).await.expect("the log works");
        self.assert_known_is_the_log();
        status
    }

    /// Syncs and requires completion.
    pub async fn completed(&mut self, directory: &MemoryDirectory) -> SyncStatus {
        let status = self.sync(directory).await;
        assert_eq!(status.status, Status::Completed, "{:?}", status.reason);
        status
    }

    /// As after a restart: the known state is the state in the log.
    pub fn restart(&mut self) {
        *self.log.crash.lock().unwrap() = None;
        self.known = self.log.restore(&self.account);
    }

    /// The known state never leads the log, and never lags behind it either.
    pub fn assert_known_is_the_log(&self) {
        let restored = self.log.restore(&self.account);
        assert_eq!(restored.state_digest(), self.known.state_digest());
        assert_eq!(restored.state_records(), self.known.state_records());
        assert_eq!(restored.latest, self.known.latest);
        assert_eq!(restored.completed, self.known.completed);
    }

    /// Events as short lines, from the given number on.
    pub fn lines(&self, from: usize) -> Vec<String> {
        self.log.events()[from..].iter().map(line).collect()
    }
}

/// `user.updated u1 title "A" → "B"`, `membership.removed u1 in g1 (not_found)`.
pub fn line(event: &ChangeEvent) -> String {
    let mut line = format!("{} {}", event.event_type, event.principal_id);
    if event.event_type.starts_with("membership.") {
        line.push_str(&format!(" in {}", event.group_id.as_deref().unwrap_or_default()));
        if event.principal_type == "group" {
            line.push_str(" as group");
        }
    }
    for change in &event.changes {
        let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".into());
        line.push_str(&format!(" {} {} → {}", change.attribute, side(&change.old_value), side(&change.new_value)));
    }
    if let Some(reason) = &event.removal_reason {
        line.push_str(&format!(" ({reason})"));
    }
    if event.snapshot {
        line.push_str(" snapshot");
    }
    line
}
