//! Users, groups and members as a simulated directory keeps them.

use std::collections::BTreeSet;

use jiff::Timestamp;

/// Removed users that a Chargebee-like group still lists. Beyond that the oldest is dropped, so that the groups of a long
/// demo do not grow for ever.
pub const DANGLING_MAX: usize = 50;

pub struct User {
    pub id: String,
    pub user_name: String,
    pub given_name: &'static str,
    pub family_name: &'static str,
    pub external_id: String,
    pub user_type: &'static str,
    pub title: &'static str,
    pub active: bool,
    pub created: Timestamp,
    pub last_modified: Timestamp,
}

impl User {
    pub fn display_name(&self) -> String {
        format!("{} {}", self.given_name, self.family_name)
    }
}

pub struct Group {
    pub id: String,
    pub display_name: String,
    pub members: Vec<Member>,
    pub created: Timestamp,
    pub last_modified: Timestamp,
}

impl Group {
    pub fn has(&self, id: &str) -> bool {
        self.members.iter().any(|member| member.id == id)
    }

    /// Keeps the entry of a removed user with its name, which cannot be looked up any more.
    pub fn leave_dangling(&mut self, removed: &User, live: &BTreeSet<&str>) {
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

pub struct Member {
    pub id: String,
    /// The name to display after the user was removed.
    pub display_name: String,
}
