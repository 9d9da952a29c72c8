//! What the simulated Okta holds. The shapes of its users, groups and errors are those of public answers:
//!
//! - users: `okta/okta-sdk-golang: .generator/templates/user_test.go`, developer.okta.com/docs/reference/api/users
//! - groups: `okta/okta-sdk-dotnet: docs/Group.md`, developer.okta.com/docs/reference/api/groups
//! - members of a group, `[]` for none: `ConductorOne/baton-okta: pkg/connector/group_member_listing_test.go`
//! - errors: `ConductorOne/baton-okta: pkg/connector/oktaerrors/error.json`, okta/okta-sdk-golang issue 145

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// Before every change that a test makes.
const LONG_AGO: &str = "2020-02-19T09:01:32.000Z";

#[derive(Clone, Debug)]
pub struct Group {
    pub row: Value,
    pub members: BTreeSet<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Org {
    pub users: BTreeMap<String, Value>,
    pub groups: BTreeMap<String, Group>,
}

impl Org {
    /// One line a user or group: `user 00u1 ann ACTIVE title=Lead`, `group 00g1 OKTA_GROUP CB/acme.com/ROLE/Admin: 00u1`.
    pub fn parse(text: &str) -> Org {
        let mut org = Org::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (kind, rest) = line.split_once(' ').expect("user or group");
            if kind == "user" {
                let words: Vec<&str> = rest.split_whitespace().collect();
                org.add_user(words[0], words[1], words[2]);
                for field in &words[3..] {
                    let (name, value) = field.split_once('=').expect("name=value");
                    org.user(words[0])["profile"][name] = json!(value);
                }
            } else {
                let (head, members) = rest.split_once(':').expect("a group has a colon");
                let [id, kind, name] = head.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{head}") };
                org.add_group(id, kind, name, &members.split_whitespace().collect::<Vec<_>>());
            }
        }
        org
    }

    pub fn add_user(&mut self, id: &str, name: &str, status: &str) {
        let login = format!("{name}@acme.example");
        let user = json!({
            "id": id, "status": status, "created": LONG_AGO, "activated": LONG_AGO, "statusChanged": LONG_AGO,
            "lastLogin": null, "lastUpdated": LONG_AGO, "passwordChanged": null, "type": {"id": "otyfnjfba4ye7pgjB0g4"},
            "profile": {
                "firstName": name, "lastName": "Tester", "mobilePhone": null, "secondEmail": null, "login": login,
                "email": login,
            },
            "credentials": {"provider": {"type": "OKTA", "name": "OKTA"}},
            "_links": {"self": {"href": format!("https://acme.okta.com/api/v1/users/{id}")}},
        });
        self.users.insert(id.to_owned(), user);
    }

    pub fn add_group(&mut self, id: &str, kind: &str, name: &str, members: &[&str]) {
        let row = json!({
            "id": id, "created": LONG_AGO, "lastUpdated": LONG_AGO, "lastMembershipUpdated": LONG_AGO,
            "objectClass": ["okta:user_group"], "type": kind, "profile": {"name": name, "description": null},
            "_links": {"users": {"href": format!("https://acme.okta.com/api/v1/groups/{id}/users")}},
        });
        let members = members.iter().map(ToString::to_string).collect();
        self.groups.insert(id.to_owned(), Group { row, members });
    }

    pub fn user(&mut self, id: &str) -> &mut Value {
        self.users.get_mut(id).unwrap_or_else(|| panic!("there is no {id}"))
    }

    pub fn set_status(&mut self, id: &str, status: &str) {
        self.user(id)["status"] = json!(status);
        if status == "DEPROVISIONED" {
            self.leave_all(id);
        }
    }

    pub fn delete_user(&mut self, id: &str) {
        self.users.remove(id).unwrap_or_else(|| panic!("there is no {id}"));
        self.leave_all(id);
    }

    fn leave_all(&mut self, id: &str) {
        let of: Vec<String> =
            self.groups.iter().filter(|(_, group)| group.members.contains(id)).map(|(id, _)| id.clone()).collect();
        of.iter().for_each(|group| self.leave(group, id));
    }

    pub fn join(&mut self, group: &str, user: &str) {
        self.membership(group).insert(user.to_owned());
    }

    pub fn leave(&mut self, group: &str, user: &str) {
        assert!(self.membership(group).remove(user), "{user} is not in {group}");
    }

    fn membership(&mut self, group: &str) -> &mut BTreeSet<String> {
        let group = self.groups.get_mut(group).expect("a group");
        group.row["lastMembershipUpdated"] = json!(jiff::Timestamp::now().to_string());
        &mut group.members
    }

    pub fn rename(&mut self, group: &str, name: &str) {
        self.groups.get_mut(group).expect("a group").row["profile"]["name"] = json!(name);
    }
}
