//! The content of a simulated directory and its random changes: no I/O, no clock.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::people::{FAMILY_NAMES, People, TITLES, USER_TYPES};
use super::resource::{Group, Member, User};
use super::vendor::{Change, Vendor};

/// No number falls below the initial one divided by this, so that a demo that runs over night does not end with an empty
/// directory.
const SHRINK_DIVISOR: usize = 3;
/// No number grows beyond the initial one times this, because the embedded broker is small.
const GROWTH_FACTOR: usize = 2;
/// The oldest account of the initial population, in days before the start.
const AGE_DAYS_MAX: i64 = 400;
/// The youngest account of the initial population, in days before the start.
const AGE_DAYS_MIN: i64 = 30;

const SECONDS_A_DAY: i64 = 24 * 60 * 60;

pub struct Directory {
    pub vendor: Vendor,
    rng: fastrand::Rng,
    people: People,
    pub users: Vec<User>,
    pub groups: Vec<Group>,
    /// So many users at the end of the list are left out of it, and of its total. A GET still finds them.
    pub unlisted: usize,
}

impl Directory {
    pub fn populated(vendor: Vendor, seed: u64, now: Timestamp) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let people = People::shuffled(&mut rng);
        let mut directory = Self { vendor, rng, people, users: Vec::new(), groups: Vec::new(), unlisted: 0 };
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
        // Every user has one group before any user has a second.
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

    /// Makes one random change, and returns its event type.
    pub fn change(&mut self, now: Timestamp) -> &'static str {
        let change = self.draw();
        if self.apply(change, now) {
            return change.event_type();
        }
        // The change that was drawn is impossible now: no user is inactive, or a bound is reached. An update is always
        // possible.
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

    /// Makes the change. False, and nothing happens, if it is impossible or would leave the bounds.
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

    /// Changes one attribute of one user to another value. The `userName` stays, because Stripe takes the e-mail address
    /// for the identity and cannot change it.
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
        self.remove_user(index, now);
        true
    }

    /// Removes all users but the first `left`, without regard to the bounds.
    pub fn remove_all_but(&mut self, left: usize, now: Timestamp) {
        while self.users.len() > left {
            self.remove_user(self.users.len() - 1, now);
        }
    }

    /// Adds users, each with one group, without regard to the bounds.
    pub fn add_users(&mut self, count: usize, now: Timestamp) {
        for _ in 0..count {
            self.add_user(now);
            let group = self.rng.usize(..self.groups.len());
            self.add_member(group, self.users.len() - 1, now);
        }
    }

    /// The users that the list shows.
    pub fn listed(&self) -> &[User] {
        &self.users[..self.users.len().saturating_sub(self.unlisted)]
    }

    fn remove_user(&mut self, index: usize, now: Timestamp) {
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

    pub fn live_members(&self, group: &Group) -> Vec<String> {
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

/// The lower bound of a number, from the initial one.
fn floor(initial: usize) -> usize {
    initial.div_ceil(SHRINK_DIVISOR)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::endpoints::{group_resource, user_resource};
    use super::super::resource::DANGLING_MAX;
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_700_000_000, 0);

    #[test]
    fn every_change_is_the_one_it_says_and_stays_within_the_bounds() {
        for vendor in [Vendor::Stripe, Vendor::Chargebee] {
            for seed in 0..3 {
                check_changes(vendor, seed);
            }
        }
    }

    fn check_changes(vendor: Vendor, seed: u64) {
        let initial = vendor.population();
        let mut directory = Directory::populated(vendor, seed, NOW);
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
            let kind = directory.change(NOW);
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
        for vendor in [Vendor::Stripe, Vendor::Chargebee] {
            let initial = vendor.population();
            let repeated = |change: Change| {
                let mut directory = Directory::populated(vendor, 1, NOW);
                let made = (0..1_000).filter(|_| directory.apply(change, NOW)).count();
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
        let mut directory = Directory::populated(Vendor::Chargebee, 1, NOW);
        // More memberships first, or their floor would end the removals.
        for change in [Change::MembershipAdded, Change::UserDisabled, Change::UserRemoved] {
            while directory.apply(change, NOW) {}
        }
        let least = floor(Vendor::Chargebee.population().users);
        assert_eq!(directory.users.len(), least);
        assert!(directory.users.iter().all(|user| user.active));
    }

    #[test]
    fn a_group_goes_on_listing_removed_users_up_to_a_bound() {
        let mut directory = Directory::populated(Vendor::Chargebee, 1, NOW);
        for _ in 0..10 * DANGLING_MAX {
            directory.add_user(NOW);
            directory.add_member(0, directory.users.len() - 1, NOW);
            assert!(directory.remove_random_user(NOW));
        }
        let group = &directory.groups[0];
        let dangling = group.members.len() - directory.live_members(group).len();
        assert_eq!(dangling, DANGLING_MAX);
    }
}
