//! The plan for one account.

use std::sync::Arc;

use serde::Serialize;

use crate::avro::{EventContext, wire::ChangeEvent};
use crate::cli::failure::{Exit, Failure};
use crate::cli::read::read_state;
use crate::config::{AccountConfig, Config};
use crate::connect::{self, Connection};
use crate::directory::{Baseline, Changes, HoldId, Kind, Known, Problem, Reason, ReasonCode, StateWrite, SyncStatus};
use crate::kafka::topics::{Found, found};
use crate::log::Topic;
use crate::mapping::text;
use crate::schedule::now_millis;
use crate::sync::{self, Planned};

/// What a sync of one account would do.
pub(super) struct Plan {
    pub known: Known,
    pub attempt: SyncStatus,
    changes: Changes,
    /// In the order in which a sync would publish them.
    pub events: Vec<ChangeEvent>,
    pub held: Option<(HoldId, Reason)>,
    pub seconds: f64,
    pub baseline: Option<Contents>,
    detailed: bool,
}

/// Why an account cannot be planned.
pub(super) struct Unplanned {
    pub failure: Failure,
    pub code: Option<ReasonCode>,
}

impl From<Failure> for Unplanned {
    fn from(failure: Failure) -> Unplanned {
        Unplanned { failure, code: None }
    }
}

/// How many users, groups and memberships a first sync would write without events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Contents {
    pub users: usize,
    pub groups: usize,
    pub memberships: usize,
}

/// How many events there are of each mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tally {
    pub added: usize,
    pub updated: usize,
    pub disabled: usize,
    pub removed: usize,
}

impl Tally {
    pub fn of(events: &[ChangeEvent]) -> Tally {
        let [added, updated, disabled, removed] =
            text::MARKS.map(|mark| events.iter().filter(|event| text::mark(&event.event_type) == mark).count());
        Tally { added, updated, disabled, removed }
    }

    pub fn and(self, other: Tally) -> Tally {
        Tally {
            added: self.added + other.added,
            updated: self.updated + other.updated,
            disabled: self.disabled + other.disabled,
            removed: self.removed + other.removed,
        }
    }

    /// `+1 ~2 !1 -43   47 changes`.
    pub fn words(self) -> String {
        let counts = [self.added, self.updated, self.disabled, self.removed];
        let marked: Vec<String> =
            text::MARKS.iter().zip(counts).map(|(mark, count)| format!("{mark}{count}")).collect();
        let all: usize = counts.iter().sum();
        let noun = if all == 1 { "change" } else { "changes" };
        format!("{}   {all} {noun}", marked.join(" "))
    }
}

pub(super) async fn plan_one(config: &Config, account: &Arc<AccountConfig>, detailed: bool) -> Result<Plan, Unplanned> {
    let name = &account.account.name;
    let failed = |code: ReasonCode, problem: Problem| Unplanned {
        failure: Failure::new(Exit::from(&code), problem.of(name)),
        code: Some(code),
    };
    let known = known(config, account).await?;
    let started = tokio::time::Instant::now();
    let directory =
        Connection::new(account, now_millis).directory().map_err(|error| failed(error.code, error.problem))?;
    let planned = sync::plan(&account.account, &directory, &known, now_millis).await;
    let seconds = started.elapsed().as_secs_f64();
    let (attempt, held, changes) = match planned {
        Planned::Changes(attempt, changes) => (attempt, None, changes),
        Planned::Held(attempt, hold, reason, changes) => (attempt, Some((hold, reason)), changes),
        Planned::Failed(Reason { code, problem }) => return Err(failed(code, problem)),
    };
    let context = EventContext::new(&account.account, &known, &attempt);
    let mut sequence = attempt.sequence;
    let events = changes.units.iter().flat_map(|unit| context.change_events(&known, &unit, &mut sequence)).collect();
    let silent_first = known.is_first() && account.account.baseline == Baseline::State;
    let baseline = silent_first.then(|| Contents::of(&changes));
    Ok(Plan { known, attempt, changes, events, held, seconds, baseline, detailed })
}

/// What Kafka holds of the account; nothing if the topics do not exist yet.
async fn known(config: &Config, account: &AccountConfig) -> Result<Known, Failure> {
    if found(&config.kafka).await?.topics.iter().all(|topic| *topic == Found::Missing) {
        let mut known = Known::default();
        known.latest = Some(SyncStatus::initial(account.account.settings(), 0));
        return Ok(known);
    }
    read_state(&config.kafka, &connect::registry(&config.registry)?, &account.account).await
}

impl Contents {
    pub fn of(changes: &Changes) -> Contents {
        let put = |topic: Topic| {
            let of = |write: &StateWrite| match (topic, write) {
                (Topic::Users, StateWrite::Put(put)) => put.kind == Kind::User,
                (Topic::Groups, StateWrite::Put(put)) => put.kind == Kind::Group,
                (Topic::Memberships, StateWrite::PutMembership { .. }) => true,
                _ => false,
            };
            changes.units.iter().filter(|unit| of(&unit.write)).count()
        };
        Contents { users: put(Topic::Users), groups: put(Topic::Groups), memberships: put(Topic::Memberships) }
    }
}

impl Plan {
    /// Writes of state that no event tells of.
    pub fn silent_rewrites(&self) -> usize {
        match self.baseline {
            Some(_) => 0,
            None => self.changes.units.iter().filter(|unit| unit.events.is_empty()).count(),
        }
    }

    pub fn exit(&self) -> Exit {
        let changes = !self.events.is_empty() || self.baseline.is_some();
        match self.held {
            Some(_) => Exit::TryLater,
            None if changes && self.detailed => Exit::Changes,
            None => Exit::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted_by_their_marks() {
        let event = |event_type: &str| ChangeEvent { event_type: event_type.to_owned(), ..ChangeEvent::default() };
        let types =
            ["user.added", "user.enabled", "group.updated", "user.disabled", "membership.removed", "user.removed"];
        let tally = Tally::of(&types.map(event));
        assert_eq!(tally, Tally { added: 2, updated: 1, disabled: 1, removed: 2 });
        assert_eq!(tally.words(), "+2 ~1 !1 -2   6 changes");
        assert_eq!(tally.and(Tally::of(&[event("user.added")])).words(), "+3 ~1 !1 -2   7 changes");
        assert_eq!(Tally::of(&[event("user.added")]).words(), "+1 ~0 !0 -0   1 change");
    }
}
