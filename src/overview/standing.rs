//! Where one account stands: a label, and what a person has to know and to do. Pure.

use std::time::Duration;

use super::seen::Seen;
use crate::config::AccountConfig;
use crate::directory::{Class, HoldId, ReasonCode, Status, SyncStatus};
use crate::duration::in_words;
use crate::kafka::group::Group;
use crate::schedule::wait_after;

/// Failing longer than this many intervals and [`GRACE`] needs a person; so does an account that no instance owns.
const INTERVALS_UNTIL_LATE: u32 = 2;
/// Beside the intervals, for what takes a moment: a restart, a move of a shard, the next try.
const GRACE: Duration = Duration::from_secs(600);
/// An owned account of which nothing is heard for so many intervals and [`LONG_WALK`] needs a person.
const INTERVALS_UNTIL_SILENT: u32 = 3;
/// A walk of a large directory takes so long, and no record says how far it is.
const LONG_WALK: Duration = Duration::from_secs(3_600);

/// An account is not doubted sooner after a sync is due, however short its interval.
const DOUBT_MIN: Duration = Duration::from_secs(60);

/// The state of an account in one word. The graver ones come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    /// Its records cannot be understood, so nothing of it is written.
    Stopped,
    /// A change is larger than the guard permits: nothing is published until a person releases it.
    Held,
    /// Records were lost or altered; one completed sync repairs them.
    Repair,
    /// The newest sync failed.
    Failing,
    /// No instance owns it, or a sync is overdue.
    Waiting,
    /// A person paused it.
    Paused,
    /// A first sync, or a large one, is under way.
    Syncing,
    /// The newest sync completed.
    Connected,
}

impl Label {
    pub const ALL: [Label; 8] = [
        Label::Stopped,
        Label::Held,
        Label::Repair,
        Label::Failing,
        Label::Waiting,
        Label::Paused,
        Label::Syncing,
        Label::Connected,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Label::Stopped => "Stopped",
            Label::Held => "Held",
            Label::Repair => "Repair",
            Label::Failing => "Failing",
            Label::Waiting => "Waiting",
            Label::Paused => "Paused",
            Label::Syncing => "Syncing",
            Label::Connected => "Connected",
        }
    }
}

/// The instance that owns the shard of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// At this address.
    Instance(String),
    /// Instances run, and none of them owns the shard.
    Unassigned,
    /// The group has no members.
    NoInstance,
    /// Kafka does not list the group.
    Unknown,
}

impl Owner {
    pub fn of(partition: i32, group: Option<&Group>) -> Owner {
        match group {
            None => Owner::Unknown,
            Some(group) => match group.owners.get(&partition) {
                Some(host) => Owner::Instance(host.clone()),
                None if group.instances == 0 => Owner::NoInstance,
                None => Owner::Unassigned,
            },
        }
    }

    /// The address, for programs and tables.
    pub fn host(&self) -> Option<&str> {
        match self {
            Owner::Instance(host) => Some(host),
            Owner::Unassigned | Owner::NoInstance | Owner::Unknown => None,
        }
    }
}

/// What the newest completed sync read; `None`: not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub users: Option<i64>,
    pub groups: Option<i64>,
    pub memberships: Option<i64>,
}

/// A command that a person may copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it is for: `look`, `release`, `resume`, …
    pub purpose: &'static str,
    /// The command and its arguments, without `--config`.
    pub command: String,
}

/// Where one account stands. Times are milliseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub account: String,
    pub provider: String,
    pub label: Label,
    pub needs_person: bool,
    /// Number and end of the newest completed sync.
    pub completed: Option<(i64, i64)>,
    /// Number of the newest attempt.
    pub sync: Option<i64>,
    /// About when the next sync begins; `None` if that is not known.
    pub next_at: Option<i64>,
    pub counts: Option<Counts>,
    pub owner: Owner,
    pub reason_code: Option<ReasonCode>,
    /// What is wrong, and what to do. Made of our own words and of what people wrote into requests.
    pub reason: Option<String>,
    pub hold: Option<HoldId>,
    pub steps: Vec<Step>,
    /// What a person should know although the newest completed sync completed.
    pub findings: Vec<String>,
    /// What the vendor's SCIM does not show.
    pub not_included: Vec<String>,
}

/// Judges what was seen of an account. `now`: milliseconds since 1970-01-01 UTC.
pub fn standing(config: &AccountConfig, seen: &Seen, owner: Owner, now: i64) -> Standing {
    let name = &config.account.name;
    let (latest, completed) = (seen.latest.as_ref(), seen.completed.as_ref());
    let late = Lateness { completed, latest, interval: config.interval, now };
    let hold = latest.filter(|latest| latest.release.is_none()).and_then(|latest| latest.hold.clone());
    let step = |purpose, command: String| Step { purpose, command: format!("scimtail {command}") };
    let mut steps = Vec::new();
    let (label, needs_person, reason) = if let Some(problem) = seen.unreadable() {
        steps.push(step("look", format!("check {name}")));
        (Label::Stopped, true, Some(problem.to_string()))
    } else if let Some(hold) = &hold {
        steps.push(step("look", format!("plan {name}")));
        steps.push(step("release", format!("release {name} --hold {hold}")));
        (Label::Held, true, latest.and_then(|latest| held_in_words(latest, hold)))
    } else if let Some(repair) = latest.filter(|latest| is_in_repair(latest)) {
        steps.push(step("look", format!("check {name}")));
        (Label::Repair, true, repair.reason.clone())
    } else if let Some(pause) = latest.and_then(|latest| latest.pause.as_ref()) {
        steps.push(step("go on", format!("resume {name}")));
        let why = pause.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        (Label::Paused, false, Some(format!("by {}{why}", pause.by)))
    } else if let Some(failed) = latest.filter(|latest| latest.status == Status::Failed) {
        steps.push(step("look", format!("check {name}")));
        let passes = failed.reason_code.as_ref().is_some_and(|code| code.class() == Class::Retry);
        (Label::Failing, !passes || late.by(INTERVALS_UNTIL_LATE, GRACE), failed.reason.clone())
    } else if let Some((text, certain)) = unowned(&owner) {
        steps.push(step("start", "run".to_owned()));
        (Label::Waiting, certain || late.by(INTERVALS_UNTIL_LATE, GRACE), Some(text.to_owned()))
    } else if late.by(INTERVALS_UNTIL_SILENT, LONG_WALK) {
        steps.push(step("look", format!("check {name}")));
        (Label::Waiting, true, Some(late.in_words()))
    } else if completed.is_none() || latest.is_some_and(|latest| latest.status == Status::Running) {
        (Label::Syncing, false, None)
    } else {
        (Label::Connected, false, None)
    };
    Standing {
        account: name.clone(),
        provider: config.account.provider.clone(),
        label,
        needs_person,
        completed: completed.map(|completed| (completed.sync, ended_at(completed))),
        sync: latest.map(|latest| latest.sync),
        next_at: if matches!(label, Label::Stopped | Label::Paused | Label::Syncing) { None } else { late.next_at() },
        counts: completed.map(|completed| Counts {
            users: completed.users_read,
            groups: completed.groups_read,
            memberships: completed.memberships_read,
        }),
        owner,
        reason_code: latest.and_then(|latest| latest.reason_code.clone()).filter(|_| reason.is_some()),
        reason,
        hold,
        steps,
        findings: completed.map(|completed| completed.findings.clone()).unwrap_or_default(),
        not_included: completed.map(|completed| completed.settings.not_read.clone()).unwrap_or_default(),
    }
}

/// Whether an account that has an owner is due for longer than is usual. Its owner may be unable to sync it.
pub fn is_doubtful(config: &AccountConfig, seen: &Seen, owner: &Owner, now: i64) -> bool {
    let (latest, completed) = (seen.latest.as_ref(), seen.completed.as_ref());
    let paused = latest.is_some_and(|latest| latest.pause.is_some());
    let grace = i64::try_from(config.interval.max(DOUBT_MIN).as_millis()).unwrap_or(i64::MAX);
    let due = Lateness { completed, latest, interval: config.interval, now }.next_at();
    owner.host().is_some() && !paused && due.is_none_or(|due| now.saturating_sub(due) > grace)
}

/// While an account is in repair, every record of it says so, until a sync completes.
fn is_in_repair(latest: &SyncStatus) -> bool {
    latest.reason_code == Some(ReasonCode::Repair) && latest.status != Status::Completed
}

/// A hold outlives attempts that fail in between, and the newest record then has their reason.
fn held_in_words(latest: &SyncStatus, hold: &HoldId) -> Option<String> {
    match latest.status {
        Status::Held => latest.reason.clone(),
        _ => Some(format!(
            "the change {hold} is held; the newest attempt failed{}",
            latest.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
        )),
    }
}

/// Why no instance syncs the account, and whether that is certain to last until a person acts.
fn unowned(owner: &Owner) -> Option<(&'static str, bool)> {
    match owner {
        Owner::Instance(_) | Owner::Unknown => None,
        Owner::Unassigned => Some(("no instance owns its shard at the moment", false)),
        Owner::NoInstance => Some(("no instance of scimtail runs", true)),
    }
}

fn ended_at(status: &SyncStatus) -> i64 {
    status.finished_at.unwrap_or(status.started_at)
}

/// How long ago an account was heard of.
struct Lateness<'a> {
    completed: Option<&'a SyncStatus>,
    latest: Option<&'a SyncStatus>,
    interval: Duration,
    now: i64,
}

impl Lateness<'_> {
    /// Whether the newest completed sync began longer ago than so many intervals and `grace`. Without one, it is the
    /// first attempt that is too long ago, as far as that is known.
    fn by(&self, intervals: u32, grace: Duration) -> bool {
        let Some(since) = self.completed.or(self.latest).map(|status| status.started_at) else { return false };
        let limit = self.interval.saturating_mul(intervals).saturating_add(grace);
        self.now.saturating_sub(since) > i64::try_from(limit.as_millis()).unwrap_or(i64::MAX)
    }

    fn in_words(&self) -> String {
        format!("no sync has ended for {}", in_words(self.silent_for()))
    }

    fn silent_for(&self) -> Duration {
        let last = self.latest.map_or(0, ended_at).max(self.completed.map_or(0, ended_at));
        Duration::from_millis(u64::try_from(self.now.saturating_sub(last)).unwrap_or(0))
    }

    /// After the end of the newest attempt, as the owner waits, without its jitter.
    fn next_at(&self) -> Option<i64> {
        let latest = self.latest?;
        let failures = match latest.status {
            Status::Failed => latest.sync - self.completed.map_or(0, |completed| completed.sync),
            Status::Running | Status::Completed | Status::Held => 0,
        };
        let wait = wait_after(self.interval, u32::try_from(failures).unwrap_or(u32::MAX));
        Some(ended_at(latest).saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::directory::status::{Pause, Settings};
    use crate::directory::{Losses, Problem};

    const MINUTE: i64 = 60_000;
    const NOW: i64 = 1_795_435_471_000;

    /// An account with an interval of five minutes.
    fn config() -> std::sync::Arc<AccountConfig> {
        let text = "[kafka]\nbrokers = [\"localhost:9092\"]\n[registry]\nurl = \"http://localhost:8081\"\n\
                    [[account]]\nname = \"acme\"\nprovider = \"stripe\"\ntoken_env = \"TOKEN\"\n";
        Config::parse("scimtail.toml", text).unwrap().accounts.remove(0)
    }

    /// A record of a sync that ended so many minutes ago.
    fn record(status: Status, sync: i64, minutes_ago: i64) -> SyncStatus {
        let at = NOW - minutes_ago * MINUTE;
        SyncStatus {
            sync,
            status,
            started_at: at,
            finished_at: Some(at),
            ..SyncStatus::initial(Settings::default(), 0)
        }
    }

    fn seen(completed: Option<SyncStatus>, latest: Option<SyncStatus>) -> Seen {
        let mut seen = Seen::default();
        (seen.completed, seen.latest) = (completed, latest);
        seen
    }

    fn judge(seen: &Seen, owner: Owner) -> Standing {
        standing(&config(), seen, owner, NOW)
    }

    fn here() -> Owner {
        Owner::Instance("10.0.0.1".to_owned())
    }

    fn of(seen: &Seen) -> (Label, bool) {
        let standing = judge(seen, here());
        (standing.label, standing.needs_person)
    }

    #[test]
    fn a_completed_account_is_connected_until_nothing_is_heard_of_it_for_long() {
        let done = |minutes| {
            let completed = record(Status::Completed, 7, minutes);
            seen(Some(completed.clone()), Some(completed))
        };
        assert_eq!(of(&done(2)), (Label::Connected, false));
        assert_eq!(of(&done(70)), (Label::Connected, false), "a walk of a large directory may take an hour");
        assert_eq!(of(&done(80)), (Label::Waiting, true));
        assert_eq!(judge(&done(80), here()).reason.as_deref(), Some("no sync has ended for 1 h"));
        assert_eq!(judge(&done(2), here()).next_at, Some(NOW + 3 * MINUTE));
        assert!(!is_doubtful(&config(), &done(9), &here(), NOW) && is_doubtful(&config(), &done(11), &here(), NOW));
    }

    #[test]
    fn a_failure_that_passes_by_itself_needs_a_person_only_if_it_lasts() {
        let failing = |code, failures: i64, minutes| {
            let failed = SyncStatus { reason_code: Some(code), ..record(Status::Failed, 7 + failures, 1) };
            seen(Some(record(Status::Completed, 7, minutes)), Some(failed))
        };
        assert_eq!(of(&failing(ReasonCode::Unreachable, 1, 6)), (Label::Failing, false));
        assert_eq!(of(&failing(ReasonCode::Unreachable, 5, 25)), (Label::Failing, true));
        assert_eq!(of(&failing(ReasonCode::CredentialsRefused, 1, 6)), (Label::Failing, true));
        // Thirty seconds, one minute, two minutes, …
        let next = |failures| judge(&failing(ReasonCode::Unreachable, failures, 6), here()).next_at.unwrap() - NOW;
        assert_eq!([1, 2, 3].map(next), [-MINUTE / 2, 0, MINUTE]);
    }

    #[test]
    fn what_is_graver_is_said_first() {
        let hold = HoldId { base: 7, losses: Losses { users: 31, ..Losses::default() } };
        let pause = Pause { by: "ops".to_owned(), at: NOW, reason: Some("audit".to_owned()) };
        let completed = record(Status::Completed, 7, 6);
        let mut latest = record(Status::Failed, 9, 1);
        (latest.hold, latest.pause) = (Some(hold), Some(pause));
        latest.reason = Some("Users: HTTP 500".to_owned());
        let mut all = seen(Some(completed), Some(latest));
        all.stop(Problem::new("scim.users [0] @ 1: cut off"));
        assert_eq!(of(&all), (Label::Stopped, true));
        let mut all = seen(all.completed, all.latest);
        assert_eq!(of(&all), (Label::Held, true));
        let held = judge(&all, here());
        assert!(held.reason.as_deref().is_some_and(|reason| reason.contains("7-u31-g0-m0-d0-a0 is held; the newest")));
        assert_eq!(held.steps[1].command, "scimtail release acme --hold 7-u31-g0-m0-d0-a0");
        let latest = all.latest.as_mut().unwrap();
        latest.hold = None;
        assert_eq!(of(&all), (Label::Paused, false));
        assert_eq!(judge(&all, here()).reason.as_deref(), Some("by ops: audit"));
        let latest = all.latest.as_mut().unwrap();
        (latest.pause, latest.reason_code) = (None, Some(ReasonCode::Repair));
        assert_eq!(of(&all), (Label::Repair, true));
    }

    #[test]
    fn an_account_without_an_instance_waits() {
        let completed = record(Status::Completed, 7, 6);
        let calm = seen(Some(completed.clone()), Some(completed));
        let with = |owner: Owner| (judge(&calm, owner.clone()).label, judge(&calm, owner).needs_person);
        assert_eq!(with(Owner::NoInstance), (Label::Waiting, true));
        assert_eq!(with(Owner::Unassigned), (Label::Waiting, false), "shards move for a moment");
        assert_eq!(with(Owner::Unknown), (Label::Connected, false));
        assert_eq!(of(&Seen::default()), (Label::Syncing, false), "the first sync");
        assert_eq!(judge(&Seen::default(), Owner::NoInstance).label, Label::Waiting);
        let group = Group { instances: 2, owners: [(config().account.partition, "10.0.0.9".to_owned())].into() };
        assert_eq!(Owner::of(config().account.partition, Some(&group)).host(), Some("10.0.0.9"));
        assert_eq!(Owner::of(-1, Some(&group)), Owner::Unassigned);
        assert_eq!(Owner::of(-1, Some(&Group::default())), Owner::NoInstance);
    }
}
