//! What the directories hold, to be compared with what a new reader finds in the compacted topics.

use std::collections::BTreeSet;

use crate::demo::Simulated;
use crate::demo::directory::SimulatedDirectory;
use crate::directory::{Kind, Known};

/// Users, groups and memberships, each as comparable lines.
pub type Contents = [BTreeSet<String>; 3];

pub const KINDS: [&str; 3] = ["users", "groups", "memberships"];

pub fn contents(known: &Known) -> Contents {
    let principals = |kind: Kind| known.table(kind).ids().filter_map(move |id| known.table(kind).principal(id));
    let users = principals(Kind::User).map(|user| {
        let (name, display) = (user.user_name.unwrap_or_default(), user.display_name.unwrap_or_default());
        format!("{} {name} {display} {:?}", user.id, user.active)
    });
    let groups =
        principals(Kind::Group).map(|group| format!("{} {}", group.id, group.display_name.unwrap_or_default()));
    let memberships = known.memberships().map(|(group, member, _)| format!("{group} {}", member.id));
    [users.collect(), groups.collect(), memberships.collect()]
}

pub fn truth(one: &Simulated) -> Contents {
    let users = one.directory.users();
    let users = users
        .iter()
        .map(|user| format!("{} {} {} {:?}", user.id, user.user_name, user.display_name, Some(user.active)));
    let groups = one.directory.groups();
    let memberships =
        groups.iter().flat_map(|group| group.members.iter().map(move |member| format!("{} {member}", group.id)));
    [
        users.collect(),
        groups.iter().map(|group| format!("{} {}", group.id, group.display_name)).collect(),
        memberships.collect(),
    ]
}

/// Users and memberships of a directory.
pub fn size(directory: &SimulatedDirectory) -> (usize, usize) {
    let memberships = directory.groups().iter().map(|group| group.members.len()).sum();
    (directory.users().len(), memberships)
}
