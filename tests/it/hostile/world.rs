//! An account whose directory is the hostile server, read by the real client; only Kafka is in memory.

use scimtail::directory::{Kind, Member, ReasonCode, StateKey, Status, SyncStatus};
use std::collections::BTreeSet;
use std::time::Duration;

use scimtail::account::Account;
use scimtail::log::Topic;
use scimtail::scim::{Patience, Profile, ScimDirectory, Timeouts};

use super::checks;
use super::script::Rule;
use super::server::{HostileServer, TOKEN};
use super::truth::{Truth, text};
use crate::memory::{World, account, clock};

/// Time enough for large bodies on a busy machine; retries at once.
pub fn patient() -> Patience {
    Patience {
        timeouts: Timeouts {
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(20),
            request: Duration::from_secs(60),
        },
        tries: TRIES as u32,
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(5),
        throttled_tries: TRIES as u32,
        throttled_wait: Duration::from_millis(1),
        pages: 500,
        longest_pause: Duration::from_millis(5),
        rows: 100_000,
    }
}

/// For servers that are slow on purpose.
pub fn impatient() -> Patience {
    let timeouts =
        Timeouts { silence: Duration::from_millis(300), request: Duration::from_millis(900), ..patient().timeouts };
    Patience { timeouts, ..patient() }
}

/// Tries of one request.
pub const TRIES: usize = 3;

/// Three rows a page: a dozen users make several pages. They are asked for one after the other, because a script counts
/// requests.
const PROFILE: &str = "page_size = 3\npages_in_flight = 1\npaging = \"index\"\nmemberships = \"list\"";

pub struct HostileWorld {
    pub world: World,
    pub server: HostileServer,
    pub profile: Profile,
    pub patience: Patience,
}

impl HostileWorld {
    /// `overrides`: fields of the profile that differ from `generic`.
    pub async fn new(truth: Truth, overrides: &str) -> HostileWorld {
        let mut table: toml::Table = toml::from_str(PROFILE).expect("TOML");
        table.extend(toml::from_str::<toml::Table>(overrides).expect("overrides are TOML"));
        let profile = Profile::layered("generic", &Default::default(), table).expect("a profile");
        let account = Account { habits: profile.habits(), ..account("acme") };
        let server = HostileServer::start(truth).await;
        HostileWorld { world: World::new(account), server, profile, patience: patient() }
    }

    /// A directory of `users` users u00…, of whom the first three are in g1, and its completed baseline.
    pub async fn baseline(users: usize) -> HostileWorld {
        HostileWorld::baseline_with(users, "").await
    }

    pub async fn baseline_with(users: usize, overrides: &str) -> HostileWorld {
        let mut world = HostileWorld::new(directory(users), overrides).await;
        world.completed().await;
        assert_eq!(world.lines(), [""; 0], "the baseline is silent");
        world
    }

    pub fn with_patience(self, patience: Patience) -> HostileWorld {
        HostileWorld { patience, ..self }
    }

    /// The real client.
    pub fn directory(&self) -> ScimDirectory {
        checks::directory(self.server.base_url(), TOKEN, self.profile.clone(), self.patience, clock)
    }

    pub async fn sync(&mut self) -> SyncStatus {
        let directory = self.directory();
        let status = self.world.try_sync_with(&directory).await.expect("the log works");
        self.world.assert_known_is_the_log();
        status
    }

    pub async fn completed(&mut self) -> SyncStatus {
        let status = self.sync().await;
        assert_eq!(status.status, Status::Completed, "{:?}: {:?}", status.reason_code, status.reason);
        status
    }

    /// With this script a sync fails with `code`, publishes nothing and changes no state. A first sync may have written
    /// users that it read before it failed.
    pub async fn fails(&mut self, rules: impl Into<Vec<Rule>>, code: &str) -> SyncStatus {
        let rules = rules.into();
        let (events, state) = (self.lines(), self.world.log.state());
        self.server.script(rules.clone());
        let status = self.sync().await;
        let outcome = (status.status, status.reason_code.as_ref().map(ReasonCode::as_str));
        assert_eq!(outcome, (Status::Failed, Some(code)), "{:?} under {rules:?}", status.reason);
        assert_eq!(self.lines(), events, "under {rules:?}");
        let now = self.world.log.state();
        let kept = state.iter().all(|(key, value)| now.get(key) == Some(value));
        let is_first = self.world.known.completed.is_none();
        assert!(kept && (is_first || now.len() == state.len()), "the state changed under {rules:?}");
        status
    }

    /// With this script a sync completes, and publishes exactly `events`.
    pub async fn publishes(&mut self, rules: impl Into<Vec<Rule>>, events: &[&str]) -> SyncStatus {
        let rules = rules.into();
        let before = self.lines().len();
        self.server.script(rules.clone());
        let status = self.completed().await;
        assert_eq!(self.lines()[before..], *events, "under {rules:?}");
        status
    }

    /// Without any script a sync publishes exactly `events`: all is well again.
    pub async fn calm(&mut self, events: &[&str]) -> SyncStatus {
        self.publishes([], events).await
    }

    /// Kafka holds the users of the directory, and no others.
    pub fn assert_state_is_the_truth(&self) {
        let truth = self.server.change(|truth| truth.clone());
        let mut expected: BTreeSet<(Topic, String)> = BTreeSet::new();
        let key = |kind, id: &str| StateKey::Principal(kind, id.into()).text("acme");
        expected.extend(truth.users.keys().map(|id| (Topic::Users, key(Kind::User, id))));
        for (id, group) in &truth.groups {
            expected.insert((Topic::Groups, key(Kind::Group, id)));
            for member in group["members"].as_array().into_iter().flatten().map(|member| text(&member["value"])) {
                let kind = if truth.users.contains_key(member) { Kind::User } else { Kind::Group };
                if truth.users.contains_key(member) || truth.groups.contains_key(member) {
                    let membership =
                        StateKey::Membership { member: Member { kind, id: member.into() }, group: id.as_str().into() };
                    expected.insert((Topic::Memberships, membership.text("acme")));
                }
            }
        }
        let state: BTreeSet<(Topic, String)> = self.world.log.state().into_keys().collect();
        assert_eq!(state, expected);
    }

    /// All events so far, as short lines.
    pub fn lines(&self) -> Vec<String> {
        self.world.lines(0)
    }

    /// One user comes and one goes: what [`HISTORY`] publishes.
    pub fn make_history(&self) {
        self.server.change(|truth| {
            truth.users.remove("u05").expect("it was there");
            truth
                .users
                .insert("new".into(), serde_json::json!({ "id": "new", "userName": "newcomer", "active": true }));
        });
    }
}

pub const HISTORY: &[&str] = &["user.added new", "user.removed u05 (not_found)"];

pub fn directory(users: usize) -> Truth {
    let mut text: String = (0..users).map(|n| format!("user u{n:02} name{n} title=T\n")).collect();
    text.push_str("group g1 Admins: u00 u01 u02\ngroup g2 Readers: u00\n");
    Truth::parse(&text)
}
