//! What the directory holds, its pages, and what changes.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::people::{Group, Person, user_id};

/// Tries to find a group that does not list a user yet.
const JOIN_TRIES_MAX: usize = 100;

pub struct Directory {
    base_url: String,
    page: usize,
    /// By ascending number, in the order of `users.rows`.
    people: Vec<Person>,
    groups: Vec<Group>,
    next_number: usize,
    pub users: Listing,
    pub teams: Listing,
}

/// How many users change, and how. Each user changes in one way at most.
#[derive(Deserialize)]
pub struct Churn {
    seed: u64,
    #[serde(default)]
    updates: usize,
    #[serde(default)]
    disables: usize,
    #[serde(default)]
    removes: usize,
    #[serde(default)]
    adds: usize,
    #[serde(default)]
    joins: usize,
    #[serde(default)]
    leaves: usize,
}

/// What a churn has changed, by the names of the events that say so.
#[derive(Default, Serialize)]
pub struct Changed {
    #[serde(rename = "user.updated")]
    updated: Vec<uuid::Uuid>,
    #[serde(rename = "user.disabled")]
    disabled: Vec<uuid::Uuid>,
    #[serde(rename = "user.removed")]
    removed: Vec<uuid::Uuid>,
    #[serde(rename = "user.added")]
    added: Vec<uuid::Uuid>,
    /// Member and group.
    #[serde(rename = "membership.added")]
    joined: Vec<(uuid::Uuid, uuid::Uuid)>,
    #[serde(rename = "membership.removed")]
    left: Vec<(uuid::Uuid, uuid::Uuid)>,
}

impl Directory {
    /// Groups share `memberships` evenly, over users in turn.
    pub fn new(base_url: String, users: usize, groups: usize, memberships: usize, page: usize) -> Self {
        let people: Vec<Person> = (0..users).map(Person::new).collect();
        let share = |group: usize| memberships * group / groups..memberships * (group + 1) / groups;
        let groups: Vec<Group> = (0..groups)
            .map(|number| Group { number, members: share(number).map(|member| member % users).collect() })
            .collect();
        let users = Listing::new(people.iter().map(|person| (person.id(), person.rendered(&base_url))), page);
        let teams = Listing::new(groups.iter().map(|group| (group.id(), group.rendered(&base_url))), page);
        Self { next_number: people.len(), base_url, page, people, groups, users, teams }
    }

    pub fn churn(&mut self, churn: &Churn) -> Changed {
        let mut rng = fastrand::Rng::with_seed(churn.seed);
        let mut changed = Changed::default();
        let wanted = churn.updates + churn.disables + churn.removes + churn.joins + churn.leaves;
        // Only users who are active can be disabled.
        let active = (0..self.people.len()).filter(|&position| self.people[position].active);
        let mut chosen = rng.choose_multiple(active, wanted).into_iter();
        let mut take = |count: usize| -> Vec<usize> { chosen.by_ref().take(count).collect() };
        let (updates, disables, removes) = (take(churn.updates), take(churn.disables), take(churn.removes));
        let numbers = |positions: Vec<usize>| -> HashSet<usize> {
            positions.into_iter().map(|position| self.people[position].number).collect()
        };
        let (joins, leaves, removed) =
            (numbers(take(churn.joins)), numbers(take(churn.leaves)), numbers(removes.clone()));
        for &position in &updates {
            self.people[position].revision += 1;
            changed.updated.push(self.people[position].id());
        }
        for &position in &disables {
            self.people[position].active = false;
            changed.disabled.push(self.people[position].id());
        }
        let mut touched = self.leave(&leaves, &removed, &mut changed);
        touched.extend(self.join(&joins, &mut rng, &mut changed));
        for &group in &touched {
            self.teams.rows[group] = self.groups[group].rendered(&self.base_url);
        }
        self.teams.render(touched.iter().map(|group| group / self.page), self.page);

        let mut pages: HashSet<usize> = HashSet::new();
        for &position in updates.iter().chain(&disables) {
            self.users.rows[position] = self.people[position].rendered(&self.base_url);
            pages.insert(position / self.page);
        }
        if !removed.is_empty() || churn.adds > 0 {
            // The total is on every page.
            self.remove_and_add(&removed, churn.adds, &mut changed);
            pages = (0..self.people.len().div_ceil(self.page)).collect();
        }
        self.users.render(pages.into_iter(), self.page);
        changed
    }

    /// Takes members out of one group each, and those who are removed out of all. Returns the groups.
    fn leave(&mut self, leaves: &HashSet<usize>, removed: &HashSet<usize>, changed: &mut Changed) -> HashSet<usize> {
        let (mut touched, mut left) = (HashSet::new(), HashSet::new());
        for (position, group) in self.groups.iter_mut().enumerate() {
            let id = group.id();
            group.members.retain(|&member| {
                let goes = removed.contains(&member) || leaves.contains(&member) && left.insert(member);
                if goes {
                    touched.insert(position);
                    changed.left.push((user_id(member), id));
                }
                !goes
            });
        }
        touched
    }

    fn join(&mut self, joins: &HashSet<usize>, rng: &mut fastrand::Rng, changed: &mut Changed) -> Vec<usize> {
        let mut touched = Vec::new();
        // A set has no order, and the same seed has to change the same.
        let mut joins: Vec<usize> = joins.iter().copied().collect();
        joins.sort_unstable();
        if self.groups.is_empty() {
            return touched;
        }
        for member in joins {
            let mut drawn = (0..JOIN_TRIES_MAX).map(|_| rng.usize(0..self.groups.len()));
            let free = drawn.find(|&group| !self.groups[group].members.contains(&member));
            let Some(position) = free else { continue };
            let group = &mut self.groups[position];
            group.members.push(member);
            changed.joined.push((user_id(member), group.id()));
            touched.push(position);
        }
        touched
    }

    fn remove_and_add(&mut self, removed: &HashSet<usize>, adds: usize, changed: &mut Changed) {
        changed.removed.extend(removed.iter().map(|&number| user_id(number)));
        let keep: Vec<bool> = self.people.iter().map(|person| !removed.contains(&person.number)).collect();
        let mut kept = keep.iter();
        self.people.retain(|_| *kept.next().expect("one for each"));
        let mut kept = keep.iter();
        self.users.rows.retain(|_| *kept.next().expect("one for each"));
        for _ in 0..adds {
            let person = Person::new(self.next_number);
            self.next_number += 1;
            changed.added.push(person.id());
            self.users.rows.push(person.rendered(&self.base_url));
            self.people.push(person);
        }
        self.users.index = self.people.iter().map(Person::id).zip(0..).collect();
    }

    /// All that the directory holds as JSON: users with id, user name, title, department and `active`; groups with id, name
    /// and the positions of their members among the users.
    pub fn manifest(&self) -> String {
        let mut text = String::from(r#"{"users":["#);
        for (position, person) in self.people.iter().enumerate() {
            let comma = if position > 0 { "," } else { "" };
            let (id, name, title, department) = (person.id(), person.user_name(), person.title(), person.department());
            write!(text, r#"{comma}["{id}","{name}","{title}","{department}",{}]"#, person.active)
                .expect("a string takes any length");
        }
        text.push_str(r#"],"groups":["#);
        let positions: HashMap<usize, usize> = self.people.iter().map(|person| person.number).zip(0..).collect();
        for (position, group) in self.groups.iter().enumerate() {
            let comma = if position > 0 { "," } else { "" };
            let members: Vec<usize> = group.members.iter().map(|member| positions[member]).collect();
            write!(text, r#"{comma}["{}","{}",{members:?}]"#, group.id(), group.display_name())
                .expect("a string takes any length");
        }
        text.push_str("]}");
        text
    }
}

/// The rows of one resource type and the pages made of them.
#[derive(Default)]
pub struct Listing {
    /// Slices of `pages`: a page and a GET share the bytes.
    pub rows: Vec<Bytes>,
    /// Whole bodies of the pages that start at a multiple of the page size.
    pages: Vec<Bytes>,
    pub index: HashMap<uuid::Uuid, usize>,
}

impl Listing {
    fn new(rows: impl ExactSizeIterator<Item = (uuid::Uuid, Bytes)>, page: usize) -> Self {
        let total = rows.len();
        let mut listing = Self { pages: vec![Bytes::new(); total.div_ceil(page)], ..Self::default() };
        for (position, (id, row)) in rows.enumerate() {
            listing.index.insert(id, position);
            listing.rows.push(row);
            // A page is made as soon as it is full: never two copies of everything.
            if listing.rows.len().is_multiple_of(page) || listing.rows.len() == total {
                listing.render_page(position / page, page, total);
            }
        }
        listing
    }

    fn render(&mut self, pages: impl Iterator<Item = usize>, page: usize) {
        self.pages.resize(self.rows.len().div_ceil(page), Bytes::new());
        for number in pages {
            self.render_page(number, page, self.rows.len());
        }
    }

    fn render_page(&mut self, number: usize, page: usize, total: usize) {
        let first = number * page;
        let range = first..self.rows.len().min(first + page);
        let (body, places) = list_body(&self.rows[range.clone()], first + 1, total);
        for (row, place) in range.zip(places) {
            self.rows[row] = body.slice(place);
        }
        self.pages[number] = body;
    }

    /// The body for rows from the 1-based `start_index`, `count` at most.
    pub fn page(&self, start_index: usize, count: usize, page: usize) -> Bytes {
        let first = start_index - 1;
        if count == page && first.is_multiple_of(page) && first / page < self.pages.len() {
            return self.pages[first / page].clone();
        }
        let first = first.min(self.rows.len());
        let end = first.saturating_add(count).min(self.rows.len());
        list_body(&self.rows[first..end], start_index, self.rows.len()).0
    }
}

/// A ListResponse, and where in it each row is.
fn list_body(rows: &[Bytes], start_index: usize, total: usize) -> (Bytes, Vec<Range<usize>>) {
    let head = format!(
        r#"{{"schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"],"totalResults":{total},"startIndex":{start_index},"itemsPerPage":{},"Resources":["#,
        rows.len()
    );
    let size = head.len() + rows.iter().map(|row| row.len() + 1).sum::<usize>() + 2;
    let mut body = Vec::with_capacity(size);
    let mut places = Vec::with_capacity(rows.len());
    body.extend_from_slice(head.as_bytes());
    for (position, row) in rows.iter().enumerate() {
        if position > 0 {
            body.push(b',');
        }
        let start = body.len();
        body.extend_from_slice(row);
        places.push(start..body.len());
    }
    body.extend_from_slice(b"]}");
    (Bytes::from(body), places)
}
