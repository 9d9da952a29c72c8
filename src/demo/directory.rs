//! A simulated SCIM 2.0 directory that changes when told to, for `scimtail demo`.
//!
//! The demo needs directories that anybody can start without credentials, and whose true content is
//! known, so that what comes back from Kafka can be compared with it. Two vendors are imitated
//! because they differ where it matters to a reader:
//!
//! | | Stripe-like | Chargebee-like |
//! |---|---|---|
//! | attributes of a user | the five that Stripe documents | the core schema's usual ones |
//! | a deactivated user | is gone: GET answers 404 | stays listed with `active: false` |
//! | a removed user's memberships | are dropped | stay in the group's `members`, as on most servers |
//! | renaming a group | not supported | supported |
//! | group names | plain | `CB/<domain>/ROLE/<role>`, `CB/<domain>/BE/<business entity>` |
//!
//! Everything random comes from the seed and time from the clock given, so a demo can be repeated.
//! All people are invented, their domains reserved for examples.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;

use super::server::Server;

mod endpoints;

/// Nothing shrinks below the initial population divided by this: a demo left running over night
/// must not end with an empty directory.
const SHRINK_DIVISOR: usize = 3;
/// Nothing grows beyond the initial population times this: the embedded broker is small.
const GROWTH_FACTOR: usize = 2;
/// Removed users that a Chargebee-like group goes on listing; beyond it the oldest is cleared away,
/// so that a long demo does not serve ever longer groups.
const DANGLING_MAX: usize = 50;
/// The oldest account of the initial population, in days before the start.
const AGE_DAYS_MAX: i64 = 400;
/// The youngest account of the initial population, in days before the start.
const AGE_DAYS_MIN: i64 = 30;

const SECONDS_A_DAY: i64 = 24 * 60 * 60;

const BASE_PATH: &str = "/scim/v2";

/// The vendor whose behaviour is imitated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// Five attributes a user, and deactivating a user makes it vanish.
    Stripe,
    /// Full users that stay listed when deactivated; group names carry the entitlement.
    Chargebee,
}

/// A user that the directory has at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedUser {
    /// SCIM `id`.
    pub id: String,
    /// SCIM `userName`, an e-mail address.
    pub user_name: String,
    /// SCIM `displayName`.
    pub display_name: String,
    /// SCIM `active`.
    pub active: bool,
}

/// A group that the directory has at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedGroup {
    /// SCIM `id`.
    pub id: String,
    /// SCIM `displayName`.
    pub display_name: String,
    /// The `id`s of members that still exist, in ascending order; the served list may show more.
    pub members: Vec<String>,
}

/// A running directory. Clones share it; its server stops when the last one is dropped.
#[derive(Clone)]
pub struct SimulatedDirectory {
    shared: Arc<Shared>,
    _server: Arc<Server>,
}

impl SimulatedDirectory {
    /// Populates a directory from `seed` and serves it on a free loopback port to whoever sends
    /// `token` as bearer token. `now` stamps `meta.created` and `meta.lastModified`.
    pub async fn start(vendor: Vendor, token: &str, seed: u64, now: fn() -> SystemTime) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let shared = Arc::new(Shared {
            base_url: format!("http://{}{BASE_PATH}", listener.local_addr()?),
            authorization: format!("Bearer {token}"),
            directory: Mutex::new(Directory::populated(vendor, seed, timestamp(now()))),
            now,
            page_requests: AtomicU64::new(0),
        });
        let server = Server::start(listener, endpoints::router(&shared));
        Ok(Self { shared, _server: Arc::new(server) })
    }

    /// The SCIM base URL, `http://127.0.0.1:PORT/scim/v2`, without a slash at the end.
    pub fn base_url(&self) -> String {
        self.shared.base_url.clone()
    }

    /// Makes one random change and returns the event type by which a reader sees it first, such as
    /// `user.added`. At a Stripe-like directory deactivating and removing are both `user.removed`.
    pub fn change(&self) -> &'static str {
        let now = timestamp((self.shared.now)());
        self.shared.directory().change(now)
    }

    /// The users there are, in the order listed: the truth to compare with.
    pub fn users(&self) -> Vec<SimulatedUser> {
        let directory = self.shared.directory();
        directory
            .users
            .iter()
            .map(|user| SimulatedUser {
                id: user.id.clone(),
                user_name: user.user_name.clone(),
                display_name: user.display_name(),
                active: user.active,
            })
            .collect()
    }

    /// The groups there are, in the order listed, with their live members: the truth to compare with.
    pub fn groups(&self) -> Vec<SimulatedGroup> {
        let directory = self.shared.directory();
        directory
            .groups
            .iter()
            .map(|group| SimulatedGroup {
                id: group.id.clone(),
                display_name: group.display_name.clone(),
                members: directory.live_members(group),
            })
            .collect()
    }

    /// Pages of users or groups served so far.
    pub fn page_requests(&self) -> u64 {
        self.shared.page_requests.load(Ordering::Relaxed)
    }
}

/// What the handle and the request handlers share.
struct Shared {
    base_url: String,
    /// The only `Authorization` header accepted.
    authorization: String,
    directory: Mutex<Directory>,
    now: fn() -> SystemTime,
    page_requests: AtomicU64,
}

impl Shared {
    fn directory(&self) -> MutexGuard<'_, Directory> {
        // A panic elsewhere leaves plain data behind, at worst one change short.
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// ---------------------------------------------------------------------------------------------
// The directory itself: no I/O, no clock.

struct Directory {
    vendor: Vendor,
    rng: fastrand::Rng,
    people: People,
    users: Vec<User>,
    groups: Vec<Group>,
}

struct User {
    id: String,
    user_name: String,
    given_name: &'static str,
    family_name: &'static str,
    external_id: String,
    user_type: &'static str,
    title: &'static str,
    active: bool,
    created: Timestamp,
    last_modified: Timestamp,
}

impl User {
    fn display_name(&self) -> String {
        format!("{} {}", self.given_name, self.family_name)
    }
}

struct Group {
    id: String,
    display_name: String,
    members: Vec<Member>,
    created: Timestamp,
    last_modified: Timestamp,
}

impl Group {
    fn has(&self, id: &str) -> bool {
        self.members.iter().any(|member| member.id == id)
    }

    /// Keeps the entry of a removed user, and its name, which can no longer be looked up.
    fn leave_dangling(&mut self, removed: &User, live: &BTreeSet<&str>) {
        for member in &mut self.members {
            if member.id == removed.id {
                member.display_name = removed.display_name();
            }
        }
        let is_dangling = |member: &Member| !live.contains(&*member.id);
        if self.members.iter().filter(|m| is_dangling(m)).count() > DANGLING_MAX
            && let Some(oldest) = self.members.iter().position(is_dangling)
        {
            self.members.remove(oldest);
        }
    }
}

struct Member {
    id: String,
    /// What to display once the user is gone.
    display_name: String,
}

/// The population a directory starts with.
struct Population {
    users: usize,
    inactive: usize,
    groups: usize,
    memberships: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    UserAdded,
    UserUpdated,
    UserDisabled,
    UserEnabled,
    UserRemoved,
    MembershipAdded,
    MembershipRemoved,
    GroupAdded,
    GroupRenamed,
    GroupRemoved,
}

impl Change {
    fn event_type(self) -> &'static str {
        match self {
            Self::UserAdded => "user.added",
            Self::UserUpdated => "user.updated",
            Self::UserDisabled => "user.disabled",
            Self::UserEnabled => "user.enabled",
            Self::UserRemoved => "user.removed",
            Self::MembershipAdded => "membership.added",
            Self::MembershipRemoved => "membership.removed",
            Self::GroupAdded => "group.added",
            Self::GroupRenamed => "group.updated",
            Self::GroupRemoved => "group.removed",
        }
    }
}

impl Vendor {
    fn population(self) -> Population {
        match self {
            Self::Stripe => Population { users: 25, inactive: 0, groups: 4, memberships: 31 },
            Self::Chargebee => Population { users: 40, inactive: 2, groups: 9, memberships: 77 },
        }
    }

    /// What can happen here and how often: people move between groups more often than they join,
    /// and groups seldom change.
    fn changes(self) -> &'static [(Change, u32)] {
        match self {
            Self::Stripe => &[
                (Change::UserAdded, 4),
                (Change::UserUpdated, 4),
                (Change::UserRemoved, 4),
                (Change::MembershipAdded, 6),
                (Change::MembershipRemoved, 4),
                (Change::GroupAdded, 1),
                (Change::GroupRemoved, 1),
            ],
            Self::Chargebee => &[
                (Change::UserAdded, 3),
                (Change::UserUpdated, 5),
                (Change::UserDisabled, 3),
                (Change::UserEnabled, 2),
                (Change::UserRemoved, 2),
                (Change::MembershipAdded, 6),
                (Change::MembershipRemoved, 4),
                (Change::GroupAdded, 1),
                (Change::GroupRenamed, 1),
                (Change::GroupRemoved, 1),
            ],
        }
    }

    /// Names for groups; the first ones are those of the initial population. There are more than
    /// groups can become, so a new group always finds a free one.
    fn group_names(self) -> &'static [&'static str] {
        match self {
            Self::Stripe => &[
                "Administrators",
                "Developers",
                "Support Specialists",
                "Finance",
                "Dispute Analysts",
                "Refund Approvers",
                "Tax Analysts",
                "View Only",
                "Terminal Operators",
                "Billing Operations",
            ],
            Self::Chargebee => &[
                "CB/acme.com/ROLE/Admin",
                "CB/acme.com/ROLE/Finance Executive",
                "CB/acme.com/ROLE/Sales Manager",
                "CB/acme.com/ROLE/Customer Support",
                "CB/acme.com/ROLE/Analyst",
                "CB/acme.com/ROLE/Developer",
                // The slash belongs to the entity's name: readers split on the first three only.
                "CB/acme.com/BE/Europe/West",
                "CB/acme.com/BE/North America",
                "CB/acme.com/BE/Asia Pacific",
                "CB/acme.com/ROLE/Auditor",
                "CB/acme.com/ROLE/Billing Operations",
                "CB/acme.com/ROLE/Revenue Accountant",
                "CB/acme.com/ROLE/Product Catalog Editor",
                "CB/acme.com/ROLE/Tech Support",
                "CB/acme.com/ROLE/Sales Agent",
                "CB/acme.com/ROLE/Collections",
                "CB/acme.com/BE/Europe/North",
                "CB/acme.com/BE/Latin America",
                "CB/acme.com/BE/Middle East",
                "CB/acme.com/BE/Oceania",
            ],
        }
    }
}

impl Directory {
    fn populated(vendor: Vendor, seed: u64, now: Timestamp) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let people = People::shuffled(&mut rng);
        let mut directory = Self { vendor, rng, people, users: Vec::new(), groups: Vec::new() };
        let population = vendor.population();

        for _ in 0..population.users {
            let (created, last_modified) = directory.past(now);
            directory.add_user(created);
            if let Some(user) = directory.users.last_mut() {
                user.last_modified = last_modified;
            }
        }
        for user in directory.users.iter_mut().take(population.inactive) {
            user.active = false;
        }
        for name in vendor.group_names().iter().take(population.groups) {
            let (created, _) = directory.past(now);
            directory.add_group(name, created);
        }
        // Everybody has one group before anybody has a second.
        for user in 0..population.users {
            let group = directory.rng.usize(..population.groups);
            directory.add_member(group, user, now);
        }
        for _ in population.users..population.memberships {
            directory.add_random_member(now);
        }
        for group in &mut directory.groups {
            group.last_modified = group.created;
        }
        directory
    }

    /// A time of creation and one of last change, both before `now`.
    fn past(&mut self, now: Timestamp) -> (Timestamp, Timestamp) {
        let age_s = self.rng.i64(AGE_DAYS_MIN * SECONDS_A_DAY..=AGE_DAYS_MAX * SECONDS_A_DAY);
        let changed_s = self.rng.i64(0..age_s);
        let before = |age_s| now.checked_sub(SignedDuration::from_secs(age_s)).unwrap_or(now);
        (before(age_s), before(changed_s))
    }

    fn change(&mut self, now: Timestamp) -> &'static str {
        let change = self.draw();
        if self.apply(change, now) {
            return change.event_type();
        }
        // What was drawn is impossible just now (nobody is inactive, a bound is reached), while
        // updating somebody always is possible.
        self.update_user(now);
        Change::UserUpdated.event_type()
    }

    fn draw(&mut self) -> Change {
        let changes = self.vendor.changes();
        let weights: u32 = changes.iter().map(|(_, weight)| weight).sum();
        let mut ticket = self.rng.u32(..weights);
        for &(change, weight) in changes {
            match ticket.checked_sub(weight) {
                Some(rest) => ticket = rest,
                None => return change,
            }
        }
        Change::UserUpdated
    }

    /// Makes the change unless it is impossible or would leave the bounds; says whether it did.
    fn apply(&mut self, change: Change, now: Timestamp) -> bool {
        let initial = self.vendor.population();
        match change {
            Change::UserAdded => {
                let fits = self.users.len() < initial.users * GROWTH_FACTOR;
                if fits {
                    self.add_user(now);
                }
                fits
            }
            Change::UserUpdated => {
                self.update_user(now);
                true
            }
            Change::UserDisabled => {
                let active = self.users.iter().filter(|user| user.active).count();
                active > floor(initial.users) && self.switch_random_user(false, now)
            }
            Change::UserEnabled => self.switch_random_user(true, now),
            Change::UserRemoved => self.remove_random_user(now),
            Change::MembershipAdded => {
                self.memberships() < initial.memberships * GROWTH_FACTOR && self.add_random_member(now)
            }
            Change::MembershipRemoved => {
                self.memberships() > floor(initial.memberships) && self.remove_random_member(now)
            }
            Change::GroupAdded => self.groups.len() < initial.groups * GROWTH_FACTOR && self.add_random_group(now),
            Change::GroupRenamed => self.rename_random_group(now),
            Change::GroupRemoved => self.remove_random_group(),
        }
    }

    fn add_user(&mut self, now: Timestamp) {
        let person = self.people.next();
        let user_type = self.pick(&USER_TYPES);
        let domain = match user_type {
            "Contractor" => "example.com",
            _ => "acme.example",
        };
        let user = User {
            id: self.new_id("usr_"),
            user_name: format!("{}@{domain}", person.mailbox),
            given_name: person.given_name,
            family_name: person.family_name,
            external_id: format!("00u{}", self.alphanumeric(17)),
            user_type,
            title: self.pick(&TITLES),
            active: true,
            created: now,
            last_modified: now,
        };
        self.users.push(user);
    }

    /// Changes one attribute of one user to a value it does not have. The `userName` stays: Stripe
    /// takes the e-mail address for the identity and cannot change it.
    fn update_user(&mut self, now: Timestamp) {
        if self.users.is_empty() {
            return;
        }
        let index = self.rng.usize(..self.users.len());
        let attribute = match self.vendor {
            Vendor::Stripe => 0,
            Vendor::Chargebee => self.rng.u8(..4),
        };
        let user = &self.users[index];
        let (family_name, title, user_type) = (user.family_name, user.title, user.user_type);
        match attribute {
            0 => self.users[index].family_name = self.pick_other(&FAMILY_NAMES, family_name),
            1 => self.users[index].user_type = self.pick_other(&USER_TYPES, user_type),
            _ => self.users[index].title = self.pick_other(&TITLES, title),
        }
        self.users[index].last_modified = now;
    }

    fn switch_random_user(&mut self, active: bool, now: Timestamp) -> bool {
        let candidates: Vec<usize> =
            (0..self.users.len()).filter(|&index| self.users[index].active != active).collect();
        let Some(index) = self.rng.choice(candidates) else {
            return false;
        };
        self.users[index].active = active;
        self.users[index].last_modified = now;
        true
    }

    fn remove_random_user(&mut self, now: Timestamp) -> bool {
        let initial = self.vendor.population();
        let spare = self.memberships().saturating_sub(floor(initial.memberships));
        // Keeping enough active users keeps enough users.
        let active = self.users.iter().filter(|user| user.active).count();
        let candidates: Vec<usize> = (0..self.users.len())
            .filter(|&index| {
                let user = &self.users[index];
                let memberships = self.groups.iter().filter(|group| group.has(&user.id));
                memberships.count() <= spare && (!user.active || active > floor(initial.users))
            })
            .collect();
        let Some(index) = self.rng.choice(candidates) else {
            return false;
        };
        let removed = self.users.remove(index);
        match self.vendor {
            Vendor::Stripe => {
                for group in self.groups.iter_mut().filter(|g| g.has(&removed.id)) {
                    group.members.retain(|member| member.id != removed.id);
                    group.last_modified = now;
                }
            }
            Vendor::Chargebee => {
                let live: BTreeSet<&str> = self.users.iter().map(|user| &*user.id).collect();
                for group in self.groups.iter_mut().filter(|g| g.has(&removed.id)) {
                    group.leave_dangling(&removed, &live);
                }
            }
        }
        true
    }

    fn add_member(&mut self, group: usize, user: usize, now: Timestamp) {
        let user = &self.users[user];
        let group = &mut self.groups[group];
        group.members.push(Member { id: user.id.clone(), display_name: user.display_name() });
        group.last_modified = now;
    }

    fn add_random_member(&mut self, now: Timestamp) -> bool {
        let candidates: Vec<(usize, usize)> = (0..self.groups.len())
            .flat_map(|group| (0..self.users.len()).map(move |user| (group, user)))
            .filter(|&(group, user)| {
                let user = &self.users[user];
                user.active && !self.groups[group].has(&user.id)
            })
            .collect();
        let Some((group, user)) = self.rng.choice(candidates) else {
            return false;
        };
        self.add_member(group, user, now);
        true
    }

    fn remove_random_member(&mut self, now: Timestamp) -> bool {
        let live = self.live_ids();
        let candidates: Vec<(usize, usize)> = self
            .groups
            .iter()
            .enumerate()
            .flat_map(|(group, g)| (0..g.members.len()).map(move |member| (group, member)))
            .filter(|&(group, member)| live.contains(&*self.groups[group].members[member].id))
            .collect();
        let Some((group, member)) = self.rng.choice(candidates) else {
            return false;
        };
        self.groups[group].members.remove(member);
        self.groups[group].last_modified = now;
        true
    }

    fn add_group(&mut self, display_name: &str, now: Timestamp) {
        let id = self.new_id("grp_");
        self.groups.push(Group {
            id,
            display_name: display_name.to_owned(),
            members: Vec::new(),
            created: now,
            last_modified: now,
        });
    }

    fn add_random_group(&mut self, now: Timestamp) -> bool {
        let Some(name) = self.rng.choice(self.free_group_names()) else {
            return false;
        };
        self.add_group(name, now);
        true
    }

    fn rename_random_group(&mut self, now: Timestamp) -> bool {
        let group = self.rng.usize(..self.groups.len());
        // A role stays a role: only the part after the third slash changes.
        let kind = |name: &str| name.split('/').nth(2).map(str::to_owned);
        let own_kind = kind(&self.groups[group].display_name);
        let candidates: Vec<&str> = self.free_group_names().into_iter().filter(|name| kind(name) == own_kind).collect();
        let Some(name) = self.rng.choice(candidates) else {
            return false;
        };
        self.groups[group].display_name = name.to_owned();
        self.groups[group].last_modified = now;
        true
    }

    fn remove_random_group(&mut self) -> bool {
        let initial = self.vendor.population();
        if self.groups.len() <= floor(initial.groups) {
            return false;
        }
        let spare = self.memberships().saturating_sub(floor(initial.memberships));
        let candidates: Vec<usize> =
            (0..self.groups.len()).filter(|&index| self.live_members(&self.groups[index]).len() <= spare).collect();
        let Some(index) = self.rng.choice(candidates) else {
            return false;
        };
        self.groups.remove(index);
        true
    }

    fn free_group_names(&self) -> Vec<&'static str> {
        self.vendor
            .group_names()
            .iter()
            .filter(|name| self.groups.iter().all(|group| group.display_name != **name))
            .copied()
            .collect()
    }

    fn live_ids(&self) -> BTreeSet<&str> {
        self.users.iter().map(|user| &*user.id).collect()
    }

    fn live_members(&self, group: &Group) -> Vec<String> {
        let live = self.live_ids();
        let members: BTreeSet<&str> = group.members.iter().map(|member| &*member.id).collect();
        members.intersection(&live).map(|&id| id.to_owned()).collect()
    }

    fn memberships(&self) -> usize {
        self.groups.iter().map(|group| self.live_members(group).len()).sum()
    }

    fn new_id(&mut self, stripe_prefix: &str) -> String {
        match self.vendor {
            Vendor::Stripe => format!("{stripe_prefix}{}", self.alphanumeric(24)),
            Vendor::Chargebee => {
                let bytes = self.rng.u128(..).to_be_bytes();
                uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
            }
        }
    }

    fn alphanumeric(&mut self, length: usize) -> String {
        (0..length).map(|_| self.rng.alphanumeric()).collect()
    }

    fn pick(&mut self, values: &[&'static str]) -> &'static str {
        values[self.rng.usize(..values.len())]
    }

    fn pick_other(&mut self, values: &[&'static str], current: &str) -> &'static str {
        let position = values.iter().position(|&value| value == current);
        let step = self.rng.usize(1..values.len());
        values[(position.unwrap_or(0) + step) % values.len()]
    }
}

/// The least that is left of an initial number.
fn floor(initial: usize) -> usize {
    initial.div_ceil(SHRINK_DIVISOR)
}

fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Invented people, none twice.
struct People {
    given_names: [&'static str; GIVEN_NAMES.len()],
    family_names: [&'static str; FAMILY_NAMES.len()],
    drawn: usize,
}

struct Person {
    given_name: &'static str,
    family_name: &'static str,
    /// The part of the e-mail address before the `@`; never handed out again, so that a new user is
    /// never mistaken for the return of an old one.
    mailbox: String,
}

impl People {
    fn shuffled(rng: &mut fastrand::Rng) -> Self {
        let (mut given_names, mut family_names) = (GIVEN_NAMES, FAMILY_NAMES);
        rng.shuffle(&mut given_names);
        rng.shuffle(&mut family_names);
        Self { given_names, family_names, drawn: 0 }
    }

    fn next(&mut self) -> Person {
        // The two lists have coprime lengths, so walking both meets every pair before any repeats.
        let given_name = self.given_names[self.drawn % self.given_names.len()];
        let family_name = self.family_names[self.drawn % self.family_names.len()];
        let round = self.drawn / (self.given_names.len() * self.family_names.len());
        self.drawn += 1;
        let suffix = match round {
            0 => String::new(),
            round => (round + 1).to_string(),
        };
        Person { given_name, family_name, mailbox: format!("{given_name}.{family_name}{suffix}").to_lowercase() }
    }
}

const GIVEN_NAMES: [&str; 23] = [
    "Avery", "Blair", "Casey", "Dana", "Ellis", "Farah", "Gale", "Hanna", "Imre", "Jules", "Kiran", "Lior", "Mika",
    "Noor", "Oona", "Perry", "Quinn", "Remy", "Sami", "Tove", "Uma", "Vesna", "Wren",
];

const FAMILY_NAMES: [&str; 31] = [
    "Alderwick",
    "Ashquarry",
    "Birchlantern",
    "Brackenfell",
    "Cindermoor",
    "Copperfen",
    "Dapplegate",
    "Driftholm",
    "Emberlane",
    "Eskerdale",
    "Fernhollow",
    "Foxglade",
    "Glassbrook",
    "Heatherlow",
    "Inkberry",
    "Juniperson",
    "Kestrelby",
    "Larkmere",
    "Mossgrove",
    "Nettlewood",
    "Oatfield",
    "Pebblestone",
    "Quillmark",
    "Rushwater",
    "Saltmere",
    "Thistleby",
    "Umberfield",
    "Vellumore",
    "Willowhurst",
    "Yarrowdale",
    "Zephyrton",
];

const USER_TYPES: [&str; 4] = ["Employee", "Employee (part-time)", "Contractor", "Intern"];

const TITLES: [&str; 10] = [
    "Accountant",
    "Analyst",
    "Billing Specialist",
    "Customer Success Manager",
    "Finance Manager",
    "Product Manager",
    "Revenue Analyst",
    "Sales Representative",
    "Software Engineer",
    "Support Engineer",
];

// ---------------------------------------------------------------------------------------------
// The protocol: RFC 7643 resources, RFC 7644 lists and errors.

#[cfg(test)]
mod tests {
    use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
    use serde_json::{Value, json};

    use std::time::Duration;

    use super::endpoints::*;
    use super::*;

    const TOKEN: &str = "a-token-for-tests";

    fn long_ago() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    async fn started(vendor: Vendor, seed: u64) -> SimulatedDirectory {
        SimulatedDirectory::start(vendor, TOKEN, seed, long_ago).await.unwrap()
    }

    /// A client that keeps its connections and knows the token.
    fn client() -> reqwest::Client {
        reqwest::Client::builder().no_proxy().build().unwrap()
    }

    async fn ask(client: &reqwest::Client, url: String) -> (u16, Value) {
        let answer = client.get(url).bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/scim+json");
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// All rows of `endpoint`, read by pages of 7.
    async fn walk(client: &reqwest::Client, base_url: &str, endpoint: &str) -> Vec<Value> {
        let mut rows = Vec::new();
        loop {
            let start = rows.len() + 1;
            let url = format!("{base_url}/{endpoint}?startIndex={start}&count=7");
            let (status, page) = ask(client, url).await;
            assert_eq!((status, &page["startIndex"]), (200, &json!(start)));
            let resources = page["Resources"].as_array().unwrap();
            assert_eq!(page["itemsPerPage"], resources.len());
            if resources.is_empty() {
                assert_eq!(page["totalResults"], rows.len());
                return rows;
            }
            rows.extend_from_slice(resources);
        }
    }

    fn text(value: &Value) -> String {
        value.as_str().unwrap().to_owned()
    }

    fn listed_members(group: &Value) -> BTreeSet<String> {
        let members = group["members"].as_array().unwrap();
        members.iter().map(|member| text(&member["value"])).collect()
    }

    fn memberships(groups: &[SimulatedGroup]) -> usize {
        groups.iter().map(|group| group.members.len()).sum()
    }

    #[tokio::test]
    async fn each_vendor_starts_with_its_population() {
        for (vendor, expected) in [(Vendor::Stripe, (25, 4, 31)), (Vendor::Chargebee, (40, 9, 77))] {
            for seed in 0..20 {
                let directory = started(vendor, seed).await;
                let (users, groups) = (directory.users(), directory.groups());
                let counts = (users.len(), groups.len(), memberships(&groups));
                assert_eq!(counts, expected, "{vendor:?}, seed {seed}");
            }
        }
    }

    #[tokio::test]
    async fn a_walk_sees_the_truth_after_every_change() {
        let client = client();
        for vendor in [Vendor::Stripe, Vendor::Chargebee] {
            let directory = started(vendor, 7).await;
            let base_url = directory.base_url();
            for _ in 0..60 {
                directory.change();
                let users = walk(&client, &base_url, "Users").await;
                let users: Vec<SimulatedUser> = users
                    .iter()
                    .map(|user| SimulatedUser {
                        id: text(&user["id"]),
                        user_name: text(&user["userName"]),
                        display_name: text(&user["displayName"]),
                        active: user["active"].as_bool().unwrap(),
                    })
                    .collect();
                assert_eq!(users, directory.users());

                let live: BTreeSet<String> = users.into_iter().map(|user| user.id).collect();
                let groups = walk(&client, &base_url, "Groups").await;
                let groups: Vec<SimulatedGroup> = groups
                    .iter()
                    .map(|group| SimulatedGroup {
                        id: text(&group["id"]),
                        display_name: text(&group["displayName"]),
                        members: match vendor {
                            Vendor::Stripe => listed_members(group).into_iter().collect(),
                            Vendor::Chargebee => listed_members(group).intersection(&live).cloned().collect(),
                        },
                    })
                    .collect();
                assert_eq!(groups, directory.groups());
            }
        }
    }

    #[test]
    fn every_change_is_the_one_it_says_and_stays_within_the_bounds() {
        for vendor in [Vendor::Stripe, Vendor::Chargebee] {
            for seed in 0..3 {
                check_changes(vendor, seed);
            }
        }
    }

    fn check_changes(vendor: Vendor, seed: u64) {
        let now = timestamp(long_ago());
        let initial = vendor.population();
        let mut directory = Directory::populated(vendor, seed, now);
        let counts = |directory: &Directory| {
            let inactive = directory.users.iter().filter(|user| !user.active);
            [directory.users.len(), inactive.count(), directory.groups.len(), directory.memberships()]
                .map(|count| i64::try_from(count).unwrap())
        };
        let served = |directory: &Directory| {
            let users = directory.users.iter();
            let users = users.map(|user| user_resource(vendor, user, ""));
            let groups = directory.groups.iter();
            let groups = groups.map(|group| group_resource(directory, group, ""));
            users.chain(groups).collect::<Vec<Value>>()
        };
        let mut seen = BTreeSet::new();
        let mut addresses: BTreeSet<String> = BTreeSet::new();
        addresses.extend(directory.users.iter().map(|user| user.user_name.clone()));
        let (mut before, mut served_before) = (counts(&directory), served(&directory));
        for step in 0..800 {
            let kind = directory.change(now);
            let context = format!("{vendor:?}, seed {seed}, change {step}: {kind}");
            seen.insert(kind);
            let (after, served_after) = (counts(&directory), served(&directory));
            assert_ne!(served_before, served_after, "{context}");

            let [users, inactive, groups, memberships] = [0, 1, 2, 3].map(|i| after[i] - before[i]);
            let as_named = match kind {
                "user.added" => (users, inactive, groups, memberships) == (1, 0, 0, 0),
                "user.updated" | "group.updated" => after == before,
                "user.disabled" => (users, inactive, groups, memberships) == (0, 1, 0, 0),
                "user.enabled" => (users, inactive, groups, memberships) == (0, -1, 0, 0),
                "user.removed" => users == -1 && groups == 0 && memberships <= 0,
                "membership.added" => (users, inactive, groups, memberships) == (0, 0, 0, 1),
                "membership.removed" => (users, inactive, groups, memberships) == (0, 0, 0, -1),
                "group.added" => (users, inactive, groups, memberships) == (0, 0, 1, 0),
                "group.removed" => users == 0 && groups == -1 && memberships <= 0,
                _ => false,
            };
            assert!(as_named, "{context}: {before:?} became {after:?}");
            if kind == "user.added" {
                let address = directory.users.last().unwrap().user_name.clone();
                assert!(addresses.insert(address), "{context}: an address returned");
            }

            let [users, inactive, groups, memberships] = after.map(|count| usize::try_from(count).unwrap());
            for (count, initial) in
                [(users, initial.users), (groups, initial.groups), (memberships, initial.memberships)]
            {
                let allowed = floor(initial)..=initial * GROWTH_FACTOR;
                assert!(allowed.contains(&count), "{context}: {count} of {allowed:?}");
            }
            assert!(users - inactive >= floor(initial.users), "{context}");
            (before, served_before) = (after, served_after);
        }
        let possible: BTreeSet<&str> = vendor.changes().iter().map(|(change, _)| change.event_type()).collect();
        assert_eq!(seen, possible, "{vendor:?}, seed {seed}: every kind happens");
    }

    #[test]
    fn no_change_repeated_for_ever_leaves_the_bounds() {
        let now = timestamp(long_ago());
        for vendor in [Vendor::Stripe, Vendor::Chargebee] {
            let initial = vendor.population();
            let repeated = |change: Change| {
                let mut directory = Directory::populated(vendor, 1, now);
                let made = (0..1_000).filter(|_| directory.apply(change, now)).count();
                assert!(made < 1_000, "{vendor:?}: {change:?} is bounded");
                directory
            };
            let users = repeated(Change::UserRemoved);
            assert!(users.users.len() >= floor(initial.users));
            assert!(users.memberships() >= floor(initial.memberships));
            let groups = repeated(Change::GroupRemoved);
            assert!(groups.groups.len() >= floor(initial.groups));
            assert!(groups.memberships() >= floor(initial.memberships));
            let members = repeated(Change::MembershipRemoved).memberships();
            assert_eq!(members, floor(initial.memberships));

            let users = repeated(Change::UserAdded).users.len();
            assert_eq!(users, initial.users * GROWTH_FACTOR);
            let groups = repeated(Change::GroupAdded).groups.len();
            assert_eq!(groups, initial.groups * GROWTH_FACTOR);
            let members = repeated(Change::MembershipAdded).memberships();
            assert_eq!(members, initial.memberships * GROWTH_FACTOR);
        }
    }

    #[test]
    fn a_third_of_the_users_stays_active() {
        let now = timestamp(long_ago());
        let mut directory = Directory::populated(Vendor::Chargebee, 1, now);
        // More memberships first, or their floor would end the removals.
        for change in [Change::MembershipAdded, Change::UserDisabled, Change::UserRemoved] {
            while directory.apply(change, now) {}
        }
        let least = floor(Vendor::Chargebee.population().users);
        assert_eq!(directory.users.len(), least);
        assert!(directory.users.iter().all(|user| user.active));
    }

    #[test]
    fn a_group_goes_on_listing_removed_users_up_to_a_bound() {
        let now = timestamp(long_ago());
        let mut directory = Directory::populated(Vendor::Chargebee, 1, now);
        for _ in 0..10 * DANGLING_MAX {
            directory.add_user(now);
            directory.add_member(0, directory.users.len() - 1, now);
            assert!(directory.remove_random_user(now));
        }
        let group = &directory.groups[0];
        let dangling = group.members.len() - directory.live_members(group).len();
        assert_eq!(dangling, DANGLING_MAX);
    }

    #[test]
    fn stripe_shows_five_attributes_and_nobody_inactive() {
        let now = timestamp(long_ago());
        let mut directory = Directory::populated(Vendor::Stripe, 1, now);
        for _ in 0..500 {
            directory.change(now);
        }
        for user in &directory.users {
            let resource = user_resource(Vendor::Stripe, user, "http://unused");
            let attributes: Vec<&String> = resource.as_object().unwrap().keys().collect();
            assert_eq!(attributes, ["active", "displayName", "id", "meta", "schemas", "userName"]);
            let meta: Vec<&String> = resource["meta"].as_object().unwrap().keys().collect();
            assert_eq!(meta, ["created", "lastModified", "resourceType"]);
            assert_eq!(resource["active"], true);
            assert!(user.id.starts_with("usr_"));
        }
    }

    #[tokio::test]
    async fn a_removed_user_answers_404_and_is_left_dangling_only_at_chargebee() {
        let client = client();
        for vendor in [Vendor::Stripe, Vendor::Chargebee] {
            let directory = started(vendor, 3).await;
            let base_url = directory.base_url();
            let members_before: BTreeSet<String> = directory.groups().into_iter().flat_map(|g| g.members).collect();
            let removed = loop {
                let before = directory.users();
                if directory.change() == "user.removed" {
                    let after = directory.users();
                    let gone = before.into_iter().find(|user| !after.contains(user)).unwrap();
                    if members_before.contains(&gone.id) {
                        break gone.id;
                    }
                }
            };
            let (status, error) = ask(&client, format!("{base_url}/Users/{removed}")).await;
            assert_eq!((status, &error["status"]), (404, &json!("404")));
            assert_eq!(error["schemas"], json!([ERROR_SCHEMA]));

            let groups = walk(&client, &base_url, "Groups").await;
            let dangling = groups.iter().any(|group| listed_members(group).contains(&removed));
            assert_eq!(dangling, vendor == Vendor::Chargebee, "{vendor:?}");
            let truth = directory.groups();
            assert!(truth.iter().all(|group| !group.members.contains(&removed)));
        }
    }

    #[tokio::test]
    async fn a_resource_is_the_same_by_list_and_by_id() {
        let client = client();
        let directory = started(Vendor::Chargebee, 11).await;
        let base_url = directory.base_url();
        for endpoint in ["Users", "Groups"] {
            for row in walk(&client, &base_url, endpoint).await {
                let id = text(&row["id"]);
                assert_eq!(ask(&client, format!("{base_url}/{endpoint}/{id}")).await, (200, row));
            }
        }
        let names: Vec<String> = directory.groups().into_iter().map(|g| g.display_name).collect();
        assert!(names.contains(&"CB/acme.com/BE/Europe/West".to_owned()));
    }

    #[tokio::test]
    async fn a_wrong_token_is_challenged_and_nothing_else_is_said() {
        let directory = started(Vendor::Stripe, 1).await;
        let url = format!("{}/Users", directory.base_url());
        let bare = client().get(&url).send().await.unwrap();
        let wrong = client().get(&url).bearer_auth("wrong").send().await.unwrap();
        let unknown = format!("{}/Secrets", directory.base_url());
        let elsewhere = client().get(&unknown).send().await.unwrap();
        for (answer, challenge) in [
            (bare, r#"Bearer realm="scim""#),
            (wrong, r#"Bearer realm="scim", error="invalid_token""#),
            (elsewhere, r#"Bearer realm="scim""#),
        ] {
            assert_eq!(answer.status(), 401);
            assert_eq!(answer.headers()[WWW_AUTHENTICATE], challenge);
            let body: Value = answer.json().await.unwrap();
            assert_eq!(body["status"], "401");
        }
        assert_eq!(directory.page_requests(), 0);
    }

    #[tokio::test]
    async fn what_is_not_supported_is_refused_as_scim_says() {
        let directory = started(Vendor::Stripe, 1).await;
        let client = client();
        let base_url = directory.base_url();
        for (path, status, scim_type) in [
            ("Devices", 404, Value::Null),
            ("Groups/unknown", 404, Value::Null),
            ("Users?startIndex=one", 400, json!("invalidValue")),
            ("Users?filter=active%20eq%20true", 400, json!("invalidFilter")),
        ] {
            let (answered, error) = ask(&client, format!("{base_url}/{path}")).await;
            assert_eq!((answered, &error["scimType"]), (status, &scim_type), "{path}");
        }
        let url = format!("{base_url}/Users");
        let post = client.post(url).bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(post.status(), 405);
        let (status, provider) = ask(&client, format!("{base_url}/ServiceProviderConfig")).await;
        assert_eq!((status, &provider["filter"]["supported"]), (200, &json!(false)));
        assert_eq!(directory.page_requests(), 2);
    }

    #[test]
    fn odd_paging_parameters_mean_what_the_rfc_says() {
        for (start_index, count, skip, take) in [
            (None, None, 0, PAGE_DEFAULT),
            (Some(0), Some(5), 0, 5),
            (Some(-3), Some(-1), 0, 0),
            (Some(21), Some(1_000), 20, PAGE_MAX),
            (Some(2), Some(0), 1, 0),
        ] {
            let query = ListQuery { start_index, count, filter: None };
            assert_eq!(query.window(), Window { skip, take });
        }
    }

    #[tokio::test]
    async fn last_modified_follows_the_clock() {
        static SECONDS: AtomicU64 = AtomicU64::new(1_700_000_000);
        fn clock() -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_secs(SECONDS.load(Ordering::Relaxed))
        }
        let directory = SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 5, clock).await.unwrap();
        let newest = || {
            let directory = directory.shared.directory();
            let users = directory.users.iter().map(|user| user.last_modified);
            users.max().unwrap()
        };
        assert!(newest() <= timestamp(clock()));
        SECONDS.fetch_add(3_600, Ordering::Relaxed);
        while directory.change() != "user.updated" {}
        assert_eq!(newest(), timestamp(clock()));
        assert_eq!(date_time(newest()), "2023-11-14T23:13:20.000Z");
    }

    #[tokio::test]
    async fn the_same_seed_gives_the_same_story() {
        for vendor in [Vendor::Stripe, Vendor::Chargebee] {
            let (one, other) = (started(vendor, 42).await, started(vendor, 42).await);
            for _ in 0..200 {
                assert_eq!(one.change(), other.change());
            }
            assert_eq!(one.users(), other.users());
            assert_eq!(one.groups(), other.groups());
            assert_ne!(one.users(), started(vendor, 43).await.users());
        }
    }

    #[tokio::test]
    async fn the_last_clone_takes_the_server_and_its_connections_along() {
        let directory = started(Vendor::Stripe, 1).await;
        let (client, url) = (client(), format!("{}/Users", directory.base_url()));
        let clone = directory.clone();
        drop(directory);
        assert_eq!(ask(&client, url.clone()).await.0, 200);
        drop(clone);
        // The client would reuse its connection, so this succeeds only if that is closed as well.
        for _ in 0..1_000 {
            if client.get(&url).bearer_auth(TOKEN).send().await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("a kept-alive connection is still served");
    }
}
