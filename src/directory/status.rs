//! What is known of an account's syncs: the content of the `syncs` topic.

use std::sync::Arc;

use super::changes::{Changes, EventType};
use super::guard::{HoldId, Losses};
use super::principal::AttributeList;
use super::reason::ReasonCode;
use super::strategy::Strategy;

/// The state of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// In a sync's transactions before its last.
    Running,
    Completed,
    Failed,
    Held,
}

impl Status {
    pub const ALL: [Status; 4] = [Status::Running, Status::Completed, Status::Failed, Status::Held];

    pub fn as_str(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Held => "held",
        }
    }

    pub fn parse(text: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// What the first sync of an account publishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Baseline {
    /// State only: ten thousand "user added" alerts on day one would be a defect.
    #[default]
    State,
    /// State, and events marked `snapshot`.
    Events,
}

/// How far a topic is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub topic: String,
    pub partition: i32,
    /// Last acknowledged offset of the account's records + 1; 0 before anything was written.
    pub next_offset: i64,
}

/// What a person let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub by: String,
    pub hold: HoldId,
    /// Reduced in every transaction; `None` once the sync that used it completed.
    pub left: Option<Losses>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    pub by: String,
    /// Milliseconds since 1970-01-01 UTC.
    pub at: i64,
    pub reason: Option<String>,
}

/// The settings that decide how an account's records look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub attributes: AttributeList,
    pub group_pattern: Option<String>,
    pub profile_fingerprint: String,
    /// What the vendor's SCIM does not show.
    pub not_read: Vec<String>,
}

/// What completed syncs have read. What was never read before is not news when it is read first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindsRead {
    pub users: bool,
    pub groups: bool,
    pub memberships: bool,
}

impl KindsRead {
    const NAMES: [&str; 3] = ["users", "groups", "memberships"];

    /// Names of later versions count as nothing.
    pub fn of(names: &[String]) -> KindsRead {
        let has = |name: &str| names.iter().any(|other| other == name);
        let [users, groups, memberships] = KindsRead::NAMES.map(has);
        KindsRead { users, groups, memberships }
    }

    pub fn names(self) -> Vec<String> {
        let read = [self.users, self.groups, self.memberships];
        KindsRead::NAMES.into_iter().zip(read).filter(|(_, read)| *read).map(|(name, _)| name.to_owned()).collect()
    }
}

/// Findings that one record names; each is a line for people.
pub const FINDINGS_MAX: usize = 20;

/// One `SyncStatus` record. Times are milliseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncStatus {
    pub sync: i64,
    pub status: Status,
    pub reason_code: Option<ReasonCode>,
    pub reason: Option<String>,
    pub started_at: i64,
    pub finished_at: Option<i64>,
    /// `None`: not read, never 0 for unread.
    pub users_read: Option<i64>,
    pub groups_read: Option<i64>,
    pub memberships_read: Option<i64>,
    /// Number of the sync that last read the memberships completely.
    pub memberships_as_of: Option<i64>,
    pub dangling: i64,
    pub hidden: i64,
    /// Events published by this sync so far, indexed by [`EventType`].
    pub published: [i64; EventType::ALL.len()],
    pub removals_suppressed: i64,
    /// Of the account's last committed event; 0 before the first.
    pub sequence: i64,
    pub state_records: i64,
    pub state_digest: u128,
    /// The current hold and what it would let through.
    pub hold: Option<HoldId>,
    pub release: Option<Release>,
    /// Next offset of the control partition to read.
    pub control_offset: i64,
    pub pause: Option<Pause>,
    /// Shared, as the positions are: an account has two records of mostly the same content, and each sync makes several more.
    pub settings: Arc<Settings>,
    pub positions: Arc<[Position]>,
    /// Rows of the lists that could not be read, or not in full.
    pub unreadable_rows: i64,
    pub kinds_read: KindsRead,
    /// By which strategy members were last seen.
    pub memberships_by: Option<Strategy>,
    /// What a person should know of this sync although it completed: ids and counts, never attributes of people.
    pub findings: Vec<String>,
}

impl SyncStatus {
    /// Before an account's first attempt: sync 0, nothing read, nothing written.
    pub fn initial(settings: impl Into<Arc<Settings>>, control_offset: i64) -> SyncStatus {
        SyncStatus {
            sync: 0,
            status: Status::Running,
            reason_code: None,
            reason: None,
            started_at: 0,
            finished_at: None,
            users_read: None,
            groups_read: None,
            memberships_read: None,
            memberships_as_of: None,
            dangling: 0,
            hidden: 0,
            published: [0; EventType::ALL.len()],
            removals_suppressed: 0,
            sequence: 0,
            state_records: 0,
            state_digest: 0,
            hold: None,
            release: None,
            control_offset,
            pause: None,
            settings: settings.into(),
            positions: Arc::default(),
            unreadable_rows: 0,
            kinds_read: KindsRead::default(),
            memberships_by: None,
            findings: Vec::new(),
        }
    }

    /// The next attempt's record: what outlives a sync is carried over, the rest begins again. A hold stays
    /// until a sync completes or another hold replaces it: one that fails says nothing about it.
    pub fn next_attempt(&self, started_at: i64, settings: Settings) -> SyncStatus {
        let settings = if *self.settings == settings { self.settings.clone() } else { settings.into() };
        let release = self.release.clone().filter(|release| release.left.is_some());
        let used = self.release.is_some() && release.is_none();
        SyncStatus {
            sync: self.sync + 1,
            started_at,
            memberships_as_of: self.memberships_as_of,
            dangling: self.dangling,
            hidden: self.hidden,
            sequence: self.sequence,
            state_records: self.state_records,
            state_digest: self.state_digest,
            hold: self.hold.clone().filter(|_| !used),
            release,
            pause: self.pause.clone(),
            positions: self.positions.clone(),
            kinds_read: self.kinds_read,
            memberships_by: self.memberships_by,
            ..SyncStatus::initial(settings, self.control_offset)
        }
    }

    /// The same attempt with what `other` says was published in it.
    pub fn with_published_of(self, other: &SyncStatus) -> SyncStatus {
        SyncStatus {
            published: other.published,
            sequence: other.sequence,
            state_records: other.state_records,
            state_digest: other.state_digest,
            positions: other.positions.clone(),
            ..self
        }
    }

    /// Takes over what the sync read.
    pub fn read(&mut self, changes: &Changes) {
        self.users_read = changes.users_read;
        self.groups_read = changes.groups_read;
        self.memberships_read = changes.memberships_read;
        if changes.memberships_read.is_some() {
            self.memberships_as_of = Some(self.sync);
        }
        let before = self.kinds_read;
        let read = KindsRead {
            users: before.users || changes.users_read.is_some(),
            groups: before.groups || changes.groups_read.is_some(),
            memberships: before.memberships || changes.memberships_are_known,
        };
        if changes.memberships == 0 && changes.dangling > 0 {
            self.find(format!(
                "Groups: none of {} listed members is a user or group here (dangling), so there are no memberships; \
                 → compare the ids in `members` with the ids of both lists",
                changes.dangling
            ));
        }
        if changes.others > 0 {
            self.find(format!(
                "Groups: {} of their members are neither users nor groups (service principals, devices, …): not published",
                changes.others
            ));
        }
        self.kinds_read = read;
        self.memberships_by = changes.members_seen_by.or(self.memberships_by);
        self.dangling = changes.dangling;
        if changes.users_read.is_some() {
            self.hidden = changes.hidden;
            self.removals_suppressed = changes.removals_suppressed;
        }
    }

    /// Adds a line for people, once.
    pub fn find(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_MAX && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    pub fn events_published(&self) -> i64 {
        self.published.iter().sum()
    }
}
