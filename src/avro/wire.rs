//! The records as structs, field by field as in the Avro schemas (`schemas/README.md`). Every field has a default, so
//! that records of an older schema can still be read.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::directory::status::{KindsRead, Pause, Release, Settings};
use crate::directory::{
    AttributeList, HoldId, Losses, Position as KnownPosition, Principal, ReasonCode, Status, Strategy,
    SyncStatus as Sync,
};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    pub id: String,
    pub user_name: Option<String>,
    pub display_name: Option<String>,
    pub active: Option<bool>,
    pub external_id: Option<String>,
    pub email: Option<String>,
    pub created: Option<i64>,
    pub last_modified: Option<i64>,
    pub attributes: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Group {
    pub id: String,
    pub display_name: Option<String>,
    pub external_id: Option<String>,
    pub created: Option<i64>,
    pub last_modified: Option<i64>,
    pub attributes: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttributeChange {
    pub attribute: String,
    pub old_value: Option<String>,
    pub new_value: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChangeEvent {
    pub event_id: String,
    pub event_type: String,
    pub account: String,
    pub provider: String,
    pub sequence: i64,
    pub sync: i64,
    pub snapshot: bool,
    pub principal_type: String,
    pub principal_id: String,
    pub principal_name: Option<String>,
    pub group_id: Option<String>,
    pub group_name: Option<String>,
    pub entitlement_domain: Option<String>,
    pub entitlement_kind: Option<String>,
    pub entitlement_name: Option<String>,
    pub observed_at: i64,
    pub window_start: Option<i64>,
    pub occurred_at: Option<i64>,
    pub removal_reason: Option<String>,
    pub removal_means: Option<String>,
    pub correlation_id: Option<String>,
    pub omitted_attributes: Vec<String>,
    pub changed_attributes: Vec<String>,
    pub changes: Vec<AttributeChange>,
    pub user: Option<User>,
    pub group: Option<Group>,
    pub privileges: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserState {
    pub account: String,
    pub provider: String,
    pub id: String,
    pub user_name: Option<String>,
    pub display_name: Option<String>,
    pub active: Option<bool>,
    pub external_id: Option<String>,
    pub email: Option<String>,
    pub created: Option<i64>,
    pub last_modified: Option<i64>,
    pub attributes: BTreeMap<String, String>,
    pub first_seen_at: i64,
    pub changed_at: i64,
    pub sequence: i64,
    pub sync: i64,
    pub missing_since: Option<i64>,
    pub missing_walks: i64,
    pub omitted_attributes: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupState {
    pub account: String,
    pub provider: String,
    pub id: String,
    pub display_name: Option<String>,
    pub external_id: Option<String>,
    pub created: Option<i64>,
    pub last_modified: Option<i64>,
    pub attributes: BTreeMap<String, String>,
    pub first_seen_at: i64,
    pub changed_at: i64,
    pub sequence: i64,
    pub sync: i64,
    pub missing_since: Option<i64>,
    pub missing_walks: i64,
    pub omitted_attributes: Vec<String>,
    pub entitlement_domain: Option<String>,
    pub entitlement_kind: Option<String>,
    pub entitlement_name: Option<String>,
    pub dangling: Vec<String>,
    pub members_unread: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MembershipState {
    pub account: String,
    pub provider: String,
    pub principal_type: String,
    pub principal_id: String,
    pub group_id: String,
    pub direct: Option<bool>,
    pub first_seen_at: i64,
    pub sequence: i64,
    pub sync: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Position {
    pub topic: String,
    pub partition: i32,
    pub next_offset: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncStatus {
    pub account: String,
    pub provider: String,
    pub sync: i64,
    pub status: String,
    pub reason_code: Option<String>,
    pub reason: Option<String>,
    pub started_at: i64,
    pub finished_at: Option<i64>,
    pub users_read: Option<i64>,
    pub groups_read: Option<i64>,
    pub memberships_read: Option<i64>,
    pub memberships_as_of: Option<i64>,
    pub dangling: i64,
    pub hidden: i64,
    pub published_user_added: i64,
    pub published_user_updated: i64,
    pub published_user_disabled: i64,
    pub published_user_enabled: i64,
    pub published_user_removed: i64,
    pub published_group_added: i64,
    pub published_group_updated: i64,
    pub published_group_removed: i64,
    pub published_membership_added: i64,
    pub published_membership_removed: i64,
    pub removals_suppressed: i64,
    pub sequence: i64,
    pub state_records: i64,
    pub state_digest: String,
    pub hold_id: Option<String>,
    pub hold_users: Option<i64>,
    pub hold_groups: Option<i64>,
    pub hold_memberships: Option<i64>,
    pub hold_disabled: Option<i64>,
    pub hold_attributes: Option<i64>,
    pub released_by: Option<String>,
    pub release_left_users: Option<i64>,
    pub release_left_groups: Option<i64>,
    pub release_left_memberships: Option<i64>,
    pub release_left_disabled: Option<i64>,
    pub release_left_attributes: Option<i64>,
    pub control_offset: i64,
    pub paused_by: Option<String>,
    pub paused_at: Option<i64>,
    pub pause_reason: Option<String>,
    pub attributes: Vec<String>,
    pub pseudonym_key_id: Option<String>,
    pub group_pattern: Option<String>,
    pub profile_fingerprint: String,
    pub scimtail_version: String,
    pub positions: Vec<Position>,
    pub unreadable_rows: i64,
    pub kinds_read: Vec<String>,
    pub memberships_by: Option<String>,
    pub findings: Vec<String>,
    pub hold_added: Option<i64>,
    pub release_left_added: Option<i64>,
    pub coverage: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControlRequest {
    pub account: String,
    pub action: String,
    pub hold_id: Option<String>,
    pub requested_by: String,
    pub requested_at: i64,
    pub reason: Option<String>,
}

impl From<Principal> for User {
    fn from(user: Principal) -> User {
        User {
            id: user.id.to_string(),
            user_name: user.user_name,
            display_name: user.display_name,
            active: user.active,
            external_id: user.external_id,
            email: user.email,
            created: user.created,
            last_modified: user.last_modified,
            attributes: user.attributes,
        }
    }
}

impl From<Principal> for Group {
    fn from(group: Principal) -> Group {
        Group {
            id: group.id.to_string(),
            display_name: group.display_name,
            external_id: group.external_id,
            created: group.created,
            last_modified: group.last_modified,
            attributes: group.attributes,
        }
    }
}

impl UserState {
    /// The principal in the record, e.g. on restore.
    pub fn into_principal(self) -> Principal {
        Principal {
            id: self.id.into(),
            user_name: self.user_name,
            display_name: self.display_name,
            active: self.active,
            external_id: self.external_id,
            email: self.email,
            created: self.created,
            last_modified: self.last_modified,
            attributes: self.attributes,
            omitted: self.omitted_attributes,
        }
    }
}

impl GroupState {
    /// The principal in the record, e.g. on restore.
    pub fn into_principal(self) -> Principal {
        Principal {
            id: self.id.into(),
            user_name: None,
            display_name: self.display_name,
            active: None,
            external_id: self.external_id,
            email: None,
            created: self.created,
            last_modified: self.last_modified,
            attributes: self.attributes,
            omitted: self.omitted_attributes,
        }
    }
}

impl SyncStatus {
    pub fn new(account: &Account, status: &Sync) -> SyncStatus {
        let held = status.hold.as_ref().map(|hold| hold.losses);
        let left = status.release.as_ref().and_then(|release| release.left);
        let count = |losses: Option<Losses>, of: fn(&Losses) -> u64| losses.map(|losses| of(&losses) as i64);
        let [
            user_added,
            user_updated,
            user_disabled,
            user_enabled,
            user_removed,
            group_added,
            group_updated,
            group_removed,
            membership_added,
            membership_removed,
        ] = status.published;
        SyncStatus {
            account: account.name.clone(),
            provider: account.provider.clone(),
            sync: status.sync,
            status: status.status.as_str().to_owned(),
            reason_code: status.reason_code.as_ref().map(ToString::to_string),
            reason: status.reason.clone(),
            started_at: status.started_at,
            finished_at: status.finished_at,
            users_read: status.users_read,
            groups_read: status.groups_read,
            memberships_read: status.memberships_read,
            memberships_as_of: status.memberships_as_of,
            dangling: status.dangling,
            hidden: status.hidden,
            published_user_added: user_added,
            published_user_updated: user_updated,
            published_user_disabled: user_disabled,
            published_user_enabled: user_enabled,
            published_user_removed: user_removed,
            published_group_added: group_added,
            published_group_updated: group_updated,
            published_group_removed: group_removed,
            published_membership_added: membership_added,
            published_membership_removed: membership_removed,
            removals_suppressed: status.removals_suppressed,
            sequence: status.sequence,
            state_records: status.state_records,
            state_digest: format!("{:032x}", status.state_digest),
            hold_id: status.hold.as_ref().map(ToString::to_string),
            hold_users: count(held, |losses| losses.users),
            hold_groups: count(held, |losses| losses.groups),
            hold_memberships: count(held, |losses| losses.memberships),
            hold_disabled: count(held, |losses| losses.disabled),
            hold_attributes: count(held, |losses| losses.attributes),
            released_by: status.release.as_ref().map(|release| release.by.clone()),
            release_left_users: count(left, |losses| losses.users),
            release_left_groups: count(left, |losses| losses.groups),
            release_left_memberships: count(left, |losses| losses.memberships),
            release_left_disabled: count(left, |losses| losses.disabled),
            release_left_attributes: count(left, |losses| losses.attributes),
            control_offset: status.control_offset,
            paused_by: status.pause.as_ref().map(|pause| pause.by.clone()),
            paused_at: status.pause.as_ref().map(|pause| pause.at),
            pause_reason: status.pause.as_ref().and_then(|pause| pause.reason.clone()),
            attributes: status.settings.attributes.paths().to_vec(),
            pseudonym_key_id: None,
            group_pattern: status.settings.group_pattern.clone(),
            profile_fingerprint: status.settings.profile_fingerprint.clone(),
            scimtail_version: env!("CARGO_PKG_VERSION").to_owned(),
            positions: status
                .positions
                .iter()
                .map(|position| Position {
                    topic: position.topic.clone(),
                    partition: position.partition,
                    next_offset: position.next_offset,
                })
                .collect(),
            unreadable_rows: status.unreadable_rows,
            kinds_read: status.kinds_read.names(),
            memberships_by: status.memberships_by.map(|strategy| strategy.as_str().to_owned()),
            findings: status.findings.clone(),
            hold_added: count(held, |losses| losses.added),
            release_left_added: count(left, |losses| losses.added),
            coverage: status.settings.not_read.clone(),
        }
    }

    /// # Errors
    /// Names the field whose value no version of scimtail writes.
    pub fn into_status(self) -> Result<Sync, String> {
        let status = Status::parse(&self.status).ok_or_else(|| format!("status `{}`", self.status))?;
        let state_digest =
            u128::from_str_radix(&self.state_digest, 16).map_err(|_| "state_digest is not hexadecimal".to_owned())?;
        let hold = match self.hold_id.as_deref() {
            Some(text) => Some(HoldId::parse(text).ok_or_else(|| format!("hold_id `{text}`"))?),
            None => None,
        };
        let left = self.release_left_users.map(|users| Losses {
            users: users as u64,
            groups: self.release_left_groups.unwrap_or(0) as u64,
            memberships: self.release_left_memberships.unwrap_or(0) as u64,
            disabled: self.release_left_disabled.unwrap_or(0) as u64,
            attributes: self.release_left_attributes.unwrap_or(0) as u64,
            added: self.release_left_added.unwrap_or(0) as u64,
        });
        let release = self.released_by.zip(hold.clone()).map(|(by, hold)| Release { by, hold, left });
        let pause = self.paused_by.map(|by| Pause { by, at: self.paused_at.unwrap_or(0), reason: self.pause_reason });
        Ok(Sync {
            sync: self.sync,
            status,
            reason_code: self.reason_code.as_deref().map(ReasonCode::parse),
            reason: self.reason,
            started_at: self.started_at,
            finished_at: self.finished_at,
            users_read: self.users_read,
            groups_read: self.groups_read,
            memberships_read: self.memberships_read,
            memberships_as_of: self.memberships_as_of,
            dangling: self.dangling,
            hidden: self.hidden,
            published: [
                self.published_user_added,
                self.published_user_updated,
                self.published_user_disabled,
                self.published_user_enabled,
                self.published_user_removed,
                self.published_group_added,
                self.published_group_updated,
                self.published_group_removed,
                self.published_membership_added,
                self.published_membership_removed,
            ],
            removals_suppressed: self.removals_suppressed,
            sequence: self.sequence,
            state_records: self.state_records,
            state_digest,
            hold,
            release,
            control_offset: self.control_offset,
            pause,
            settings: Arc::new(Settings {
                attributes: AttributeList::new(self.attributes),
                group_pattern: self.group_pattern,
                profile_fingerprint: self.profile_fingerprint,
                not_read: self.coverage,
            }),
            positions: self
                .positions
                .into_iter()
                .map(|position| KnownPosition {
                    topic: position.topic,
                    partition: position.partition,
                    next_offset: position.next_offset,
                })
                .collect(),
            unreadable_rows: self.unreadable_rows,
            kinds_read: KindsRead::of(&self.kinds_read),
            memberships_by: self.memberships_by.as_deref().and_then(Strategy::parse),
            findings: self.findings,
        })
    }
}
