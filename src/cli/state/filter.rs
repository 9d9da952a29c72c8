//! `--user` and `--group`: which users and groups a listing is about.

use std::collections::HashSet;

use clap::Args;

use crate::cli::failure::{Exit, Failure};
use crate::directory::{Id, Kind, Known, Principal};
use crate::mapping::text::clean;

#[derive(Debug, Args)]
pub struct Filter {
    /// Only this user: user name, e-mail address, display name or id; upper and lower case are the same except in ids.
    /// May be given several times
    #[arg(long = "user", value_name = "USER")]
    pub users: Vec<String>,
    /// Only this group: display name or id, as for --user
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
}

/// What the filter selects in one account.
#[derive(Debug, Default)]
pub struct Chosen {
    users: Option<Matches>,
    groups: Option<Matches>,
}

#[derive(Debug, Default)]
struct Matches {
    ids: HashSet<Id>,
    /// The names that were found.
    names: HashSet<String>,
}

impl Filter {
    pub fn of(&self, known: &Known) -> Chosen {
        Chosen { users: matches(&self.users, known, Kind::User), groups: matches(&self.groups, known, Kind::Group) }
    }

    /// The names that no account has, as a failure. An empty listing would read as "no access".
    pub fn unmatched(&self, chosen: &[Chosen]) -> Option<Failure> {
        let found = |kind: Kind, name: &String| {
            chosen.iter().filter_map(|chosen| chosen.matches(kind)).any(|matches| matches.names.contains(name))
        };
        let mut missing = Vec::new();
        for (kind, word, names) in [(Kind::User, "user", &self.users), (Kind::Group, "group", &self.groups)] {
            let unknown = names.iter().filter(|name| !found(kind, name));
            missing.extend(unknown.map(|name| format!("no {word} `{}`", clean(name))));
        }
        let text = || format!("{}; → `state users` and `state groups` list all of them", missing.join(", "));
        (!missing.is_empty()).then(|| Failure::new(Exit::Failed, text()))
    }
}

impl Chosen {
    fn matches(&self, kind: Kind) -> Option<&Matches> {
        match kind {
            Kind::User => self.users.as_ref(),
            Kind::Group => self.groups.as_ref(),
        }
    }

    pub fn takes(&self, kind: Kind, id: &Id) -> bool {
        self.matches(kind).is_none_or(|matches| matches.ids.contains(id))
    }

    /// True for a row about a member of a group.
    pub fn takes_member(&self, kind: Kind, id: &Id, group: &Id) -> bool {
        let member = match (&self.users, kind) {
            (None, _) => true,
            (Some(users), Kind::User) => users.ids.contains(id),
            (Some(_), Kind::Group) => false,
        };
        member && self.takes(Kind::Group, group)
    }
}

/// `None` if everything matches.
fn matches(wanted: &[String], known: &Known, kind: Kind) -> Option<Matches> {
    if wanted.is_empty() {
        return None;
    }
    let wanted: Vec<(&String, String)> = wanted.iter().map(|name| (name, name.to_lowercase())).collect();
    let mut matches = Matches::default();
    for id in known.table(kind).ids() {
        let principal = known.table(kind).principal(id);
        for (name, lower) in &wanted {
            if name.as_str() == &**id || principal.as_ref().is_some_and(|principal| is_called(principal, lower)) {
                matches.ids.insert(id.clone());
                matches.names.insert((*name).clone());
            }
        }
    }
    // A member, or a group, whose own record does not exist has only an id.
    for (group, member, _) in known.memberships() {
        let of_kind = [(Kind::Group, group), (member.kind, &member.id)].into_iter().filter(|(of, _)| *of == kind);
        for (_, id) in of_kind {
            if let Some((name, _)) = wanted.iter().find(|(name, _)| name.as_str() == &**id) {
                matches.ids.insert(id.clone());
                matches.names.insert((*name).clone());
            }
        }
    }
    Some(matches)
}

fn is_called(principal: &Principal, lower: &str) -> bool {
    let names = [&principal.user_name, &principal.display_name, &principal.email];
    names.into_iter().flatten().any(|name| name.to_lowercase() == lower)
}
