//! What a sync needs to know of its account.

use std::sync::Arc;

use crate::directory::status::Settings;
use crate::directory::{AttributeList, Baseline, GroupPattern, Limits, Position, Strategy};
use crate::log::{Positions, Topic};

/// Users and groups of one directory, unless the account says otherwise.
pub const MAX_PRINCIPALS: usize = 1_000_000;

/// What a sync needs to know of its account.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    pub name: String,
    pub provider: String,
    pub attributes: AttributeList,
    /// Of the attributes, those whose change is a change of privilege.
    pub privileges: Vec<String>,
    pub pattern: Option<GroupPattern>,
    /// What the vendor's SCIM does not show, so that the state is complete without it.
    pub not_read: Vec<String>,
    pub profile_fingerprint: String,
    pub habits: Habits,
    pub baseline: Baseline,
    pub limits: Limits,
    pub batch: BatchBounds,
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
    /// The directory can be paged in one way only.
    pub paging_is_fixed: bool,
    /// False where the directory serves no groups.
    pub groups: bool,
    /// How memberships are read; `None`: by whichever of list and GET shows members.
    pub memberships: Option<Strategy>,
    /// A group that shows no members has none; otherwise a directory that shows none at all leaves memberships unknown.
    pub empty_members_are_none: bool,
    /// GET of a group shows all of its members, so that one which shows none has none.
    pub get_shows_members: bool,
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
    /// What to do where the list of users is empty, in the vendor's case.
    pub no_list_hint: Option<String>,
    /// Between two full walks only what was modified is read; milliseconds. `None`: every walk is a full one.
    pub full_walk_every: Option<i64>,
}

impl Default for Habits {
    /// What RFC 7643 and RFC 7644 let a client expect of every server.
    fn default() -> Habits {
        Habits {
            trust_total: true,
            paging_is_fixed: false,
            groups: true,
            memberships: None,
            empty_members_are_none: false,
            get_shows_members: false,
            member_cap: None,
            publish_unlisted: false,
            filter_is_direct: false,
            hides_inactive: false,
            absence_only: false,
            removal_means: None,
            no_list_hint: None,
            full_walk_every: None,
        }
    }
}

impl Account {
    /// By its name alone: enough to own it and to remove its records.
    pub fn unconfigured(name: &str, topic_prefix: &str, partition: i32) -> Account {
        Account {
            name: name.to_owned(),
            provider: "generic".to_owned(),
            attributes: AttributeList::default(),
            privileges: Vec::new(),
            not_read: Vec::new(),
            pattern: None,
            profile_fingerprint: String::new(),
            habits: Habits::default(),
            baseline: Baseline::State,
            limits: Limits::default(),
            batch: BatchBounds::default(),
            outputs: Vec::new(),
            max_principals: MAX_PRINCIPALS,
            topic_prefix: topic_prefix.to_owned(),
            partition,
        }
    }

    /// Positions after a transaction that reached `reached`. A topic that it did not write keeps its earlier position.
    pub fn positions(&self, earlier: &[Position], reached: &Positions) -> Arc<[Position]> {
        let position = |topic: Topic| {
            let name = topic.name(&self.topic_prefix);
            let before =
                earlier.iter().find(|position| position.topic == name).map_or(0, |position| position.next_offset);
            let next_offset = reached.get(&topic).copied().unwrap_or(before);
            Position { topic: name, partition: self.partition, next_offset }
        };
        Topic::POSITIONED.into_iter().map(position).collect()
    }

    /// What of the account's settings its records carry.
    pub fn settings(&self) -> Settings {
        Settings {
            attributes: self.attributes.clone(),
            group_pattern: self.pattern.as_ref().map(|pattern| pattern.text().to_owned()),
            profile_fingerprint: self.profile_fingerprint.clone(),
            not_read: self.not_read.clone(),
        }
    }
}

/// What one transaction may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchBounds {
    /// Users and groups.
    pub principals: usize,
    /// All units; memberships are small, so that the bytes bound them first.
    pub units: usize,
    /// Keys, values and headers.
    pub bytes: usize,
}

impl Default for BatchBounds {
    fn default() -> BatchBounds {
        BatchBounds { principals: 5_000, units: 20_000, bytes: 8 << 20 }
    }
}
