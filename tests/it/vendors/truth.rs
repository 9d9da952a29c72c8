//! What has to be known of the company through a vendor, and the events between two such states.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::company::{Company, Standing};
use super::vendor::{Fate, Vendor};

/// The paths of names that are published by default.
const NAMES: [&str; 4] = ["displayName", "name.familyName", "name.formatted", "name.givenName"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// As a vendor says it in `active`.
    active: Option<bool>,
    disabled: bool,
    user_name: String,
    display_name: String,
    email: Option<String>,
    /// Path → value, as far as the vendor shows it. A display name that is put together from these is no change of its own.
    names: BTreeMap<&'static str, String>,
    privileged: bool,
}

/// Users, groups and memberships (user, group) by the vendor's ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    pub users: BTreeMap<String, User>,
    pub groups: BTreeMap<String, String>,
    pub memberships: BTreeSet<(String, String)>,
}

impl Truth {
    /// `before`: what was known. A user who is hidden is only known if the user was known before.
    pub fn of(vendor: &Vendor, company: &Company, before: &Truth) -> Truth {
        let mut truth = Truth::default();
        for (n, person) in &company.people {
            let id = vendor.user_id(*n, person);
            let shown = match vendor.fate(person) {
                None | Some(Fate::Listed) => true,
                Some(Fate::Hidden) => before.users.contains_key(&id),
                Some(Fate::Gone) => false,
            };
            if shown {
                truth.users.insert(id, user(vendor, company, *n));
            }
        }
        if vendor.groups {
            for (n, team) in &company.teams {
                let group = vendor.group_id(*n);
                for (n, person) in vendor.members(company, team) {
                    truth.memberships.insert((vendor.user_id(n, person), group.clone()));
                }
                truth.groups.insert(group, vendor.group_name(team));
            }
        }
        truth
    }

    /// The state in Kafka, one line a record, sorted.
    pub fn lines(&self) -> BTreeSet<String> {
        let users = self.users.iter().map(|(id, user)| {
            let User { active, user_name, display_name, email, .. } = user;
            user_line(id, user_name, display_name, email.as_deref().unwrap_or("-"), &or_nothing(*active))
        });
        let groups = self.groups.iter().map(|(id, name)| format!("group {id} {name}"));
        let memberships = self.memberships.iter().map(|(user, group)| format!("membership {user} in {group}"));
        users.chain(groups).chain(memberships).collect()
    }

    /// The events from this to `after`, as [`event_line`] writes them, sorted.
    pub fn events(&self, after: &Truth, vendor: &Vendor) -> Vec<String> {
        let means = vendor.removal_means.as_ref().map(|means| format!(" {means}")).unwrap_or_default();
        let mut lines = Vec::new();
        for (id, user) in &after.users {
            let Some(was) = self.users.get(id) else {
                lines.push(format!("user.added {id}"));
                continue;
            };
            let changes = changes(was, user, vendor);
            if !changes.is_empty() {
                let decides = vendor.privilege.as_ref().filter(|_| was.privileged != user.privileged);
                let decides = decides.map(|it| it.named.as_ref().unwrap_or(&it.attribute).as_str()).unwrap_or_default();
                lines.push(format!("user.updated {id}{}{}", changes.concat(), privileges(decides)));
            }
            if let (Some(was), Some(now)) = (was.active, user.active)
                && was != now
            {
                let event = if now { "enabled" } else { "disabled" };
                lines.push(format!("user.{event} {id} active {was} → {now}"));
            }
        }
        let gone = self.users.keys().filter(|id| !after.users.contains_key(*id));
        lines.extend(gone.map(|id| format!("user.removed {id} (not_found{means})")));
        for (id, name) in &after.groups {
            match self.groups.get(id) {
                None => lines.push(format!("group.added {id}")),
                Some(was) if was != name => {
                    let json = |name: &str| Value::from(name).to_string();
                    let mut line = format!("group.updated {id} displayName {} → {}", json(was), json(name));
                    if vendor.entitlements {
                        let [was, name] = [was, name].map(|name| name.splitn(4, '/').last().unwrap_or_default());
                        line.push_str(&format!(" entitlement_name {} → {}", json(was), json(name)));
                    }
                    lines.push(line);
                }
                Some(_) => {}
            }
        }
        let gone = self.groups.keys().filter(|id| !after.groups.contains_key(*id));
        lines.extend(gone.map(|id| format!("group.removed {id} (not_found)")));
        let added = after.memberships.difference(&self.memberships);
        lines.extend(added.map(|(user, group)| format!("membership.added {user} in {group}")));
        lines.extend(self.memberships.difference(&after.memberships).map(|(user, group)| {
            let exist = after.users.contains_key(user) && after.groups.contains_key(group);
            let reason = if exist { "not_listed" } else { "not_found" };
            format!("membership.removed {user} in {group} ({reason})")
        }));
        lines.sort();
        lines
    }
}

fn user(vendor: &Vendor, company: &Company, n: usize) -> User {
    let (row, person) = (vendor.user(company, n), &company.people[&n]);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    // Some write the path as a key.
    let at = |path: &str| text(&row[path]).or_else(|| text(path.split('.').fold(&row, |value, key| &value[key])));
    let names = NAMES.iter().filter_map(|path| Some((*path, at(path)?))).collect();
    User {
        active: vendor.disabled_in.is_none().then_some(person.standing == Standing::Active),
        disabled: person.standing != Standing::Active,
        user_name: at("userName").expect("a user has a name"),
        display_name: vendor.display_name(n, person),
        email: vendor.email.then(|| format!("person{n:03}@example.org")),
        names,
        privileged: person.privileged,
    }
}

fn changes(was: &User, user: &User, vendor: &Vendor) -> Vec<String> {
    let mut changes: BTreeMap<&str, [String; 2]> = BTreeMap::new();
    for (path, name) in &user.names {
        if was.names[path] != *name {
            changes.insert(path, [&was.names[path], name].map(|name| Value::from(name.as_str()).to_string()));
        }
    }
    if let Some(privilege) = vendor.privilege.as_ref().filter(|_| was.privileged != user.privileged) {
        let published =
            privilege.published.clone().unwrap_or_else(|| [privilege.without.clone(), privilege.with.clone()]);
        changes.insert(&privilege.attribute, published);
    }
    if let Some(attribute) = vendor.disabled_in.as_ref().filter(|_| was.disabled != user.disabled) {
        changes.insert(attribute, [was, user].map(|user| user.disabled.to_string()));
    }
    changes.iter().map(|(path, [old, new])| format!(" {path} {old} → {new}")).collect()
}

fn privileges(named: &str) -> String {
    if named.is_empty() { String::new() } else { format!(", privilege {named}") }
}

pub fn or_nothing(active: Option<bool>) -> String {
    active.map_or("-".to_owned(), |active| active.to_string())
}

pub fn user_line(id: &str, user_name: &str, display_name: &str, email: &str, active: &str) -> String {
    format!("user {id} {user_name} {display_name} {email} {active}")
}

/// An event, of `plan` or of the topic: `user.updated u1 title "A" → "B"`, `user.removed u1 (not_found deactivated)`.
pub fn event_line(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    let mut line = format!("{} {}", text("event_type"), text("principal_id"));
    if text("event_type").starts_with("membership.") {
        line.push_str(&format!(" in {}", text("group_id")));
        if text("principal_type") != "user" {
            line.push_str(&format!(" as {}", text("principal_type")));
        }
    }
    for change in event["changes"].as_array().into_iter().flatten() {
        let side = |key: &str| change[key].as_str().unwrap_or("none").to_owned();
        let attribute = change["attribute"].as_str().unwrap_or_default();
        line.push_str(&format!(" {attribute} {} → {}", side("old_value"), side("new_value")));
    }
    if text("event_type") == "user.updated" {
        let named = event["privileges"].as_array().into_iter().flatten().filter_map(Value::as_str);
        line.push_str(&privileges(&named.collect::<Vec<_>>().join(",")));
    }
    if let Some(reason) = event["removal_reason"].as_str() {
        let means = event["removal_means"].as_str().map(|means| format!(" {means}")).unwrap_or_default();
        line.push_str(&format!(" ({reason}{means})"));
    }
    if event["snapshot"] == true {
        line.push_str(" snapshot");
    }
    line
}
