//! One company, the same at every vendor, and what happens in it, round by round. No vendor's data: these people and
//! groups are made up.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Active,
    /// Deactivated, as an administrator does it.
    Disabled,
    /// Deleted, as an administrator does it.
    Removed,
}

#[derive(Clone, Debug)]
pub struct Person {
    pub given: &'static str,
    pub family: &'static str,
    pub standing: Standing,
    /// Has the right that the vendor shows in an attribute of its own.
    pub privileged: bool,
    /// Was disabled, and is active again.
    pub returned: bool,
}

#[derive(Clone, Debug)]
pub struct Team {
    pub name: &'static str,
    pub members: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
pub struct Company {
    pub people: BTreeMap<usize, Person>,
    pub teams: BTreeMap<usize, Team>,
}

const GIVEN: [&str; 13] =
    ["Ada", "Björn", "Chloé", "Daria", "Emil", "Fatou", "Gwen", "Hugo", "Inês", "Jonas", "Kim", "Liv", "Mia"];
const FAMILY: [&str; 10] = ["Alder", "Birch", "Cedar", "Elm", "Fir", "Hazel", "Linden", "Maple", "Oak", "Yew"];
/// Names hold what paths, lists and filters are written with.
const TEAMS: [(&str, usize); 7] = [
    ("Engineering", 40),
    ("Finance/AR Lead", 30),
    ("Sales, EMEA", 20),
    ("Research & Development", 10),
    ("EU, GmbH/Legal", 6),
    ("Support (\"24/7\")", 5),
    ("Nothing yet", 0),
];
/// People from here on are in no team.
const IN_TEAMS: usize = 120;
/// Disabled from the start.
const LEFT_EARLIER: usize = 125;

impl Company {
    /// 130 people, one of them disabled, and 7 teams with 111 memberships.
    pub fn new() -> Company {
        let person = |n: usize| Person {
            given: GIVEN[n % GIVEN.len()],
            family: FAMILY[n / GIVEN.len()],
            standing: if n == LEFT_EARLIER { Standing::Disabled } else { Standing::Active },
            privileged: false,
            returned: false,
        };
        let people = (0..GIVEN.len() * FAMILY.len()).map(|n| (n, person(n))).collect();
        // 7 and the number of people in teams have no common factor: each is in a team once.
        let member = |team: usize, n: usize| (7 * n + 13 * team) % IN_TEAMS;
        let teams = TEAMS
            .iter()
            .enumerate()
            .map(|(team, (name, size))| (team, Team { name, members: (0..*size).map(|n| member(team, n)).collect() }));
        Company { people, teams: teams.collect() }
    }

    fn person(&mut self, n: usize) -> &mut Person {
        self.people.get_mut(&n).expect("a person")
    }

    fn team(&mut self, n: usize) -> &mut Team {
        self.teams.get_mut(&n).expect("a team")
    }
}

/// The name of a round, and what happens in it.
type Round = (&'static str, fn(&mut Company));

pub const ROUNDS: [Round; 4] = [
    ("baseline", |_| {}),
    ("people and groups come and change, and a person is disabled", |company| {
        let newcomer = Person { given: "Noor", family: "Rowan", ..company.people[&0].clone() };
        company.people.insert(130, newcomer);
        company.team(1).members.insert(130);
        company.person(20).family = "Rowan";
        company.person(122).privileged = true;
        let leaver = *company.team(0).members.first().expect("a member");
        company.team(0).members.remove(&leaver);
        company.team(2).members.insert(121);
        company.team(3).name = "Research, Development/Design";
        company.teams.insert(7, Team { name: "Night/Day, shift", members: [121, 123].into() });
        company.person(DISABLED).standing = Standing::Disabled;
    }),
    ("that person returns, another leaves, and a group is dissolved", |company| {
        let person = company.person(DISABLED);
        (person.standing, person.returned) = (Standing::Active, true);
        company.person(REMOVED).standing = Standing::Removed;
        company.teams.remove(&4);
    }),
    ("nothing", |_| {}),
];

/// Both are in teams that stay: 13 + 7 n, and 26 + 7 n (modulo 120).
const DISABLED: usize = 13;
const REMOVED: usize = 26;
