//! The spine: one sync of one account, from the first page to the last commit.
//!
//! ```text
//! walk → diff(known, observed) → admit (guard, proof) → commit in bounded transactions → apply to known
//! ```
//!
//! It sees the world through two traits, because each really has two implementations: [`Directory`] (SCIM
//! over HTTP; a simulated one) and [`Log`] (Kafka; an in-memory one).

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use bytes::Bytes;
use futures::{Stream, join};

use crate::avro::{Codec, Stamp};
use crate::batch::{Batches, Bounds};
use crate::directory::status::{Reason, Settings};
use crate::directory::{
    AttributeList, Baseline, Changes, Diff, GroupPattern, HoldId, Id, Kind, Known, Limits, Observed, Position, RawHash,
    RemovalReason, Rules, Status, Strategy, SyncStatus,
};
use crate::failpoint::{self, Point};
use crate::record::{Record, Topic};
use crate::telemetry;
use crate::verify::{self, Refusal};

/// A SCIM directory that can be walked.
pub trait Directory: Sync {
    type Error: std::fmt::Display + ReadFailure + Send;

    /// All pages of one kind; ends complete or in an error. `since`, milliseconds since 1970-01-01 UTC: only what was
    /// modified since then, which says nothing about anybody else.
    fn list(&self, kind: Kind, since: Option<i64>) -> impl Stream<Item = Result<Page, Self::Error>> + Send;

    /// Parses a row whose bytes are not recognised.
    fn read(&self, kind: Kind, page: &Page, row: &RawRow) -> Parsed;

    /// Asks for one principal by its id.
    fn get(&self, kind: Kind, id: &Id) -> impl Future<Output = Answer> + Send;

    /// The first page of a list, asked for with room for `count` rows: whether pages overlap, or rows repeat, shows where
    /// there is one page only. `None`: it cannot be told.
    fn in_one_page(&self, kind: Kind, count: u64) -> impl Future<Output = Option<Vec<RawRow>>> + Send {
        let _ = (kind, count);
        async { None }
    }

    /// Ids of `kind` whose `attribute` is `id` (RFC 7644 §3.4.2.2). A filter is never proof of absence.
    ///
    /// # Errors
    /// The filter is refused, or the answer is no list.
    fn matching(
        &self,
        kind: Kind,
        attribute: &'static str,
        id: &Id,
    ) -> impl Future<Output = Result<Vec<Id>, Self::Error>> + Send;
}

/// What a row turned out to be.
#[derive(Clone, Debug)]
pub enum Parsed {
    Resource(Box<Observed>),
    /// It has no usable id, so that it is not known whose row it is.
    NoId,
    /// The server did not send its bytes again (HTTP 304), although they are not recognised any more. The directory has
    /// forgotten what it remembered of its pages: the walk begins again, once.
    Stale,
}

/// The code under which a failed read is recorded.
pub trait ReadFailure {
    fn code(&self) -> &'static str;
}

/// A row as the server sent it.
#[derive(Clone, Debug)]
pub struct RawRow {
    pub hash: RawHash,
    pub bytes: Bytes,
}

/// One page of a list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub rows: Vec<RawRow>,
    /// The walk began anew with this page (its cursor had expired, its paging was ignored).
    pub restarted: bool,
    /// The server offers more (RFC 9865 `nextCursor`), whatever this page brings.
    pub more: bool,
    /// Rows that stand on an earlier page of the walk with the same bytes; they are not among `rows`.
    pub repeated: usize,
    /// Rows that stand on this page twice with the same bytes; once among `rows`.
    pub doubled: usize,
    /// `totalResults`, where readable.
    pub total: Option<u64>,
    /// Of its body, decompressed.
    pub bytes: usize,
    /// The server's clock minus ours, milliseconds.
    pub skew: Option<i64>,
    /// Milliseconds since 1970-01-01 UTC.
    pub received_at: i64,
}

/// What a GET of one id says.
#[derive(Clone, Debug)]
pub enum Answer {
    Found(Box<Observed>),
    /// 404 or 410: gone, if a control GET of a listed id answers.
    NotFound,
    /// 405 or 501: this directory does not offer GET.
    NotOffered,
    /// 403: it may offer GET to others.
    Forbidden,
    /// Anything else proves nothing; says what it was, e.g. `HTTP 500`.
    Unproven(String),
}

/// A transactional log with one writer.
pub trait Log: Sync {
    /// Writes the records and then what `marker` makes of the positions reached, in one transaction.
    /// Returns only when the outcome is known.
    fn commit(&self, batch: Batch) -> impl Future<Output = Result<Positions, CommitError>> + Send;
}

/// What goes into one transaction. Bound to the acquisition under which it was computed: a diff against
/// yesterday's known on today's producer would double events.
pub struct Batch {
    pub acquisition: u64,
    pub records: Vec<Record>,
    pub marker: Marker,
}

/// Topic → offset after the last acknowledged record of the batch.
pub type Positions = BTreeMap<Topic, i64>;

/// Makes the `syncs` records, written last, once the positions are known.
pub type Marker = Box<dyn Fn(&Positions) -> Result<Vec<Record>, String> + Send>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The transaction was aborted; nothing of it is visible, the account's sync failed.
    #[error("{0}")]
    Aborted(String),
    /// The acquisition ended: fenced, fatal, or the outcome is unknown. Everything computed under it is void.
    #[error("{0}")]
    Ended(Ended),
}

/// Why an acquisition ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Ended {
    /// Another producer took the shard over.
    pub fenced: bool,
    pub reason: String,
}

/// Users and groups of one directory, unless the account says otherwise.
pub const MAX_PRINCIPALS: usize = 1_000_000;

/// What a sync needs to know of its account.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    pub name: String,
    pub provider: String,
    pub attributes: AttributeList,
    pub pattern: Option<GroupPattern>,
    pub profile_fingerprint: String,
    pub habits: Habits,
    pub baseline: Baseline,
    pub limits: Limits,
    pub batch: Bounds,
    /// Of [`Topic::OUTPUTS`], those that carry copies of the events.
    pub outputs: Vec<Topic>,
    /// Users and groups that the directory may have.
    pub max_principals: usize,
    pub topic_prefix: String,
    pub partition: i32,
}

/// How a directory behaves, as far as that decides what its answers prove. From its profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Habits {
    /// False where `totalResults` means something else than the number of matching rows.
    pub trust_total: bool,
    /// False where the directory serves no groups.
    pub groups: bool,
    /// How memberships are read; `None`: by whichever of list and GET shows members.
    pub memberships: Option<Strategy>,
    /// A group that shows no members has none; otherwise a directory that shows none at all leaves memberships unknown.
    pub empty_members_are_none: bool,
    /// A member list this long may be cut off.
    pub member_cap: Option<usize>,
    /// Members that no list shows, where GET is impossible: published all the same.
    pub publish_unlisted: bool,
    /// A filter for members finds direct members only.
    pub filter_is_direct: bool,
    /// Lists leave inactive users out; GET still finds them.
    pub hides_inactive: bool,
    /// GET by id says nothing here: absence is the rule.
    pub absence_only: bool,
    /// What it means here that a user disappears.
    pub removal_means: Option<String>,
    /// Between two full walks only what was modified is read; milliseconds. `None`: every walk is a full one.
    pub full_walk_every: Option<i64>,
}

impl Default for Habits {
    /// What RFC 7643 and RFC 7644 let one expect of everybody.
    fn default() -> Habits {
        Habits {
            trust_total: true,
            groups: true,
            memberships: None,
            empty_members_are_none: false,
            member_cap: None,
            publish_unlisted: false,
            filter_is_direct: false,
            hides_inactive: false,
            absence_only: false,
            removal_means: None,
            full_walk_every: None,
        }
    }
}

/// Syncs one account: reads its directory, publishes what changed, returns the newest `syncs` record.
/// A directory that cannot be read, a hold and an aborted batch are outcomes; only the end of the
/// acquisition is an error, because `known` is void with it.
pub async fn sync<D: Directory, L: Log>(
    account: &Account,
    directory: &D,
    log: &L,
    codec: &Codec,
    known: &mut Known,
    clock: fn() -> i64,
) -> Result<SyncStatus, Ended> {
    let now = never_back(known, clock);
    let mut attempt = begin(account, known, now());

    let since = modified_since(account, known, attempt.started_at);
    let mut diff = Diff::against(known, rules(account, known, attempt.started_at));
    let changes = match verify::observe(account, directory, &mut diff, known, &mut attempt, since, &now).await {
        Ok(vanishing) => {
            failpoint::hit(Point::DiffBefore);
            diff.finish(&vanishing, now())
        }
        Err(Refusal::Failed(reason)) => {
            // Whatever failed, the next attempt reads everything.
            known.walked_at = None;
            return conclude(account, log, codec, known, attempt, Status::Failed, reason, now()).await;
        }
        Err(Refusal::Held(reason, hold)) => {
            // A new hold replaces a release that does not fit.
            let attempt = SyncStatus { hold: Some(hold), release: None, ..attempt };
            return conclude(account, log, codec, known, attempt, Status::Held, reason, now()).await;
        }
    };

    failpoint::hit(Point::DiffAfter);
    let unread = attempt.clone();
    attempt.read(&changes);
    // Admitted without a release: the directory recovered, and the hold goes with that.
    attempt.hold = attempt.release.as_ref().map(|release| release.hold.clone());
    let mut bytes = changes.bytes;
    let stamp = Stamp::new(account, known, &attempt);
    let mut batches = Batches::new(changes.units, stamp, account, attempt);
    let mut next = batches.next(codec, known, now());
    while let Some(encoded) = next {
        let mut encoded = match encoded {
            Ok(encoded) => encoded,
            Err(text) => {
                let attempt = committed_so_far(known, &unread);
                let reason = Reason { code: "encoding_failed", text };
                return conclude(account, log, codec, known, attempt, Status::Failed, reason, now()).await;
            }
        };
        // Positions as far as committed: this transaction moves only those of the topics it writes.
        encoded.status.positions = committed_so_far(known, &unread).positions;
        let (marker, applied, is_last) = (encoded.marker(account, codec), encoded.applied, encoded.is_last);
        let batch = Batch { acquisition: known.acquisition, records: encoded.records, marker };
        // The next batch is encoded while this one is on its way: it looks at `known`, which moves only below.
        let (committed, following) = join!(log.commit(batch), async { batches.next(codec, known, now()) });
        let mut status = encoded.status;
        match committed {
            Ok(positions) => status.positions = merged(account, &status.positions, &positions),
            Err(CommitError::Ended(ended)) => return Err(ended),
            Err(CommitError::Aborted(text)) => {
                let attempt = committed_so_far(known, &unread);
                let reason = Reason { code: "commit_aborted", text };
                return conclude(account, log, codec, known, attempt, Status::Failed, reason, now()).await;
            }
        }
        // Only now: memory follows the log, never leads it.
        failpoint::hit(Point::ApplyBefore);
        for (unit, sequence, digest) in &applied {
            known.apply(unit, *sequence, *digest);
            failpoint::hit(Point::ApplyMiddle);
        }
        telemetry::committed(&account.name, status.sync, encoded.carried);
        if is_last {
            if since.is_none() {
                known.walked_at = Some(status.started_at);
            }
            known.complete(status, std::mem::take(&mut bytes));
        } else {
            known.latest = Some(status);
        }
        failpoint::hit(Point::ApplyAfter);
        next = following;
    }
    Ok(known.latest.clone().unwrap_or_else(|| begin(account, known, now())))
}

/// What a sync would do, without a log.
pub enum Planned {
    Changes(SyncStatus, Changes),
    Held(SyncStatus, HoldId, Reason, Changes),
    Failed(Reason),
}

/// Reads the directory and computes what [`sync`] would publish; writes nothing.
pub async fn plan<D: Directory>(account: &Account, directory: &D, known: &Known, clock: fn() -> i64) -> Planned {
    let now = never_back(known, clock);
    let mut attempt = begin(account, known, now());
    let mut diff = Diff::against(known, rules(account, known, attempt.started_at));
    match verify::observe(account, directory, &mut diff, known, &mut attempt, None, &now).await {
        Ok(vanishing) => {
            let changes = diff.finish(&vanishing, now());
            attempt.read(&changes);
            Planned::Changes(attempt, changes)
        }
        Err(Refusal::Held(reason, hold)) => {
            // Whoever looks at a hold wants to see what would go. Nothing of this is proven, nor published.
            for kind in Kind::BOTH {
                for id in diff.missing(kind) {
                    diff.gone(kind, id, RemovalReason::Absent);
                }
            }
            let changes = diff.finish(&BTreeSet::new(), now());
            attempt.read(&changes);
            Planned::Held(attempt, hold, reason, changes)
        }
        Err(Refusal::Failed(reason)) => Planned::Failed(reason),
    }
}

/// Modified that long before the last completed sync began is read once more: clocks differ, and servers state when a
/// change was made, not when it became visible. Milliseconds.
const OVERLAP_MS: i64 = 600_000;

/// Between two full walks, where the profile allows that: from when on modifications are read. Never after a restart,
/// because only this process remembers its last full walk.
fn modified_since(account: &Account, known: &Known, now: i64) -> Option<i64> {
    let (every, walked_at) = (account.habits.full_walk_every?, known.walked_at?);
    let last = known.completed.as_ref()?.started_at;
    (now - walked_at < every).then_some(last - OVERLAP_MS)
}

/// The attempt's record as far as it is committed: a later batch that failed left no trace.
fn committed_so_far(known: &Known, attempt: &SyncStatus) -> SyncStatus {
    known.latest.clone().filter(|latest| latest.sync == attempt.sync).unwrap_or_else(|| attempt.clone())
}

/// Our times never go backwards: each is at least the last recorded one.
pub fn never_back(known: &Known, clock: fn() -> i64) -> impl Fn() -> i64 + Sync + use<> {
    let times = [&known.latest, &known.completed].into_iter().flatten();
    let floor = times.map(|status| status.finished_at.unwrap_or(0).max(status.started_at)).max().unwrap_or(0);
    move || clock().max(floor)
}

/// Code of everything that is recorded while an account is in repair, whatever became of the attempt: by it the next
/// owner knows. It ends when a sync completes.
pub const REPAIR: &str = "repair";

fn begin(account: &Account, known: &Known, now: i64) -> SyncStatus {
    let attempt = match &known.latest {
        Some(latest) => latest.next_attempt(now, account.settings()),
        None => SyncStatus::initial(account.settings(), 0).next_attempt(now, account.settings()),
    };
    // Of completed syncs alone: an attempt that failed has read nothing that anybody relies on.
    let attempt = SyncStatus { kinds_read: known.kinds_read().names(), ..attempt };
    // What there is, not what there should be: the same, unless something was lost.
    let attempt =
        SyncStatus { state_records: known.state_records() as i64, state_digest: known.state_digest(), ..attempt };
    match &known.repair {
        None => attempt,
        // Numbers that any record bears are taken, also where the newest `syncs` record was lost.
        Some(reason) => SyncStatus {
            sync: attempt.sync.max(known.seen.sync + 1),
            sequence: attempt.sequence.max(known.seen.sequence),
            reason_code: Some(REPAIR.to_owned()),
            reason: Some(reason.clone()),
            ..attempt
        },
    }
}

fn rules(account: &Account, known: &Known, not_before: i64) -> Rules {
    // The lists of the newest *completed* sync: an attempt that failed has published nothing under its own.
    let previous = known.completed.as_ref().map(|completed| &completed.settings);
    let read = known.kinds_read();
    Rules {
        baseline: account.baseline,
        first: [!read.users, !read.groups],
        first_memberships: !read.memberships,
        shown_before: false,
        repair: known.repair.is_some(),
        previous_attributes: previous.map(|settings| AttributeList::new(settings.attributes.clone())),
        attributes: account.attributes.clone(),
        previous_pattern: previous
            .and_then(|settings| settings.group_pattern.as_deref())
            .and_then(|text| GroupPattern::parse(text).ok()),
        pattern: account.pattern.clone(),
        empty_members_are_none: account.habits.empty_members_are_none,
        member_cap: account.habits.member_cap,
        publish_unlisted: account.habits.publish_unlisted,
        window_start: known.completed.as_ref().map(|completed| completed.started_at),
        not_before,
    }
}

/// Records a sync that could not even begin to read.
///
/// # Errors
/// The end of the acquisition.
pub async fn fail<L: Log>(
    account: &Account,
    log: &L,
    codec: &Codec,
    known: &mut Known,
    clock: fn() -> i64,
    reason: Reason,
) -> Result<SyncStatus, Ended> {
    let now = never_back(known, clock)();
    let attempt = begin(account, known, now);
    conclude(account, log, codec, known, attempt, Status::Failed, reason, now).await
}

/// Records a sync that published nothing (more).
#[expect(clippy::too_many_arguments, reason = "each is one fact of the record")]
async fn conclude<L: Log>(
    account: &Account,
    log: &L,
    codec: &Codec,
    known: &mut Known,
    attempt: SyncStatus,
    outcome: Status,
    reason: Reason,
    now: i64,
) -> Result<SyncStatus, Ended> {
    let (code, text) = match &known.repair {
        None => (reason.code, reason.text),
        Some(_) => (REPAIR, format!("{} (the account is in repair)", reason.text)),
    };
    let status = SyncStatus {
        status: outcome,
        reason_code: Some(code.to_owned()),
        reason: Some(text),
        finished_at: Some(now),
        ..attempt
    };
    record_latest(account, log, codec, known, status).await
}

/// Rewrites `account/latest` alone, in a transaction of its own.
///
/// # Errors
/// The end of the acquisition. An aborted rewrite ends it too: known must not go on without its record.
pub async fn record_latest<L: Log>(
    account: &Account,
    log: &L,
    codec: &Codec,
    known: &mut Known,
    status: SyncStatus,
) -> Result<SyncStatus, Ended> {
    let latest = codec.status(account, &status, false).map_err(|reason| Ended { fenced: false, reason })?;
    let marker: Marker = Box::new(move |_| Ok(vec![latest.clone()]));
    let batch = Batch { acquisition: known.acquisition, records: Vec::new(), marker };
    match log.commit(batch).await {
        Ok(_) => {
            known.latest = Some(status.clone());
            Ok(status)
        }
        Err(CommitError::Ended(ended)) => Err(ended),
        Err(CommitError::Aborted(reason)) => Err(Ended { fenced: false, reason }),
    }
}

/// A topic that the transaction did not write keeps its earlier position.
pub fn merged(account: &Account, earlier: &[Position], reached: &Positions) -> Vec<Position> {
    let position = |topic: Topic| {
        let name = topic.name(&account.topic_prefix);
        let before = earlier.iter().find(|position| position.topic == name).map_or(0, |position| position.next_offset);
        let next_offset = reached.get(&topic).copied().unwrap_or(before);
        Position { topic: name, partition: account.partition, next_offset }
    };
    Topic::POSITIONED.into_iter().map(position).collect()
}

impl Account {
    /// By its name alone: enough to own and to remove what stands under it.
    pub fn unconfigured(name: &str, topic_prefix: &str, partition: i32) -> Account {
        Account {
            name: name.to_owned(),
            provider: "generic".to_owned(),
            attributes: AttributeList::default(),
            pattern: None,
            profile_fingerprint: String::new(),
            habits: Habits::default(),
            baseline: Baseline::State,
            limits: Limits::default(),
            batch: Bounds::default(),
            outputs: Vec::new(),
            max_principals: MAX_PRINCIPALS,
            topic_prefix: topic_prefix.to_owned(),
            partition,
        }
    }

    /// What of the account's settings its records carry.
    pub fn settings(&self) -> Settings {
        Settings {
            attributes: self.attributes.paths().to_vec(),
            group_pattern: self.pattern.as_ref().map(|pattern| pattern.text().to_owned()),
            profile_fingerprint: self.profile_fingerprint.clone(),
        }
    }
}
