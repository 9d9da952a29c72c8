//! The rows that `state` lists of one account, sorted.

use clap::ValueEnum;

use super::filter::Chosen;
use crate::account::Account;
use crate::directory::{
    Entitlement, Id, Kind, Known, Map, Member, Membership, Nesting, Principal, UNKNOWN_TIME, later,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    Users,
    Groups,
    Memberships,
    /// Each principal with its groups and their entitlements, direct and through other groups
    Access,
}

/// One value of a row.
pub enum Cell<'a> {
    Text(&'a str),
    Flag(bool),
    Count(usize),
    /// Milliseconds since 1970-01-01 UTC.
    Since(i64),
    /// Id and name of each group on the way, first the one that the principal is a direct member of.
    Way(Vec<(&'a str, &'a str)>),
    Nothing,
}

/// Columns of each listing, in order, and whether the table for people has them.
pub fn columns(what: What) -> &'static [(&'static str, bool)] {
    match what {
        What::Users => &[
            ("account", true),
            ("id", true),
            ("user_name", true),
            ("display_name", true),
            ("active", true),
            ("email", true),
            ("since", true),
        ],
        What::Groups => &[
            ("account", true),
            ("id", true),
            ("display_name", true),
            ("domain", false),
            ("kind", true),
            ("name", true),
            ("members", true),
            ("since", true),
        ],
        What::Memberships => &[
            ("account", true),
            ("principal_type", true),
            ("principal_id", true),
            ("group_id", true),
            ("direct", true),
            ("since", true),
        ],
        What::Access => &[
            ("account", true),
            ("principal_type", false),
            ("principal_id", false),
            ("principal", true),
            ("active", true),
            ("group_id", false),
            ("group", true),
            ("domain", false),
            ("kind", true),
            ("name", true),
            ("access", true),
            ("via", true),
            ("since", true),
        ],
    }
}

pub struct Listing<'k> {
    account: &'k str,
    known: &'k Known,
    rows: Rows<'k>,
}

enum Rows<'k> {
    Principals(Kind, Vec<Named<'k>>),
    Memberships(Vec<(&'k Id, &'k Member, &'k Membership)>),
    Access(Access<'k>),
}

/// A principal as a row needs it.
struct Named<'k> {
    kind: Kind,
    id: &'k Id,
    name: String,
    principal: Option<Principal>,
    entitlement: Entitlement,
    first_seen_at: i64,
}

/// Principals and groups sorted by name, and entries that refer to them by position.
struct Access<'k> {
    principals: Vec<Named<'k>>,
    groups: Vec<Named<'k>>,
    /// The position of each group in `groups`.
    places: Map<&'k Id, u32>,
    entries: Vec<Entry>,
    nesting: Nesting<'k>,
}

struct Entry {
    principal: u32,
    group: u32,
    since: i64,
    direct: bool,
    /// The group that the principal is a direct member of, and the position of `group` among the groups above that one.
    through: Option<(u32, u32)>,
}

impl<'k> Listing<'k> {
    pub fn of(what: What, account: &'k Account, known: &'k Known, chosen: &Chosen) -> Listing<'k> {
        let rows = match what {
            What::Users => Rows::Principals(Kind::User, by_id(account, known, Kind::User, chosen)),
            What::Groups => Rows::Principals(Kind::Group, by_id(account, known, Kind::Group, chosen)),
            What::Memberships => {
                let takes = |group: &Id, member: &Member| chosen.takes_member(member.kind, &member.id, group);
                let mut rows: Vec<_> = known.memberships().filter(|(group, member, _)| takes(group, member)).collect();
                rows.sort_unstable_by(|(one, member, _), (other, another, _)| (member, one).cmp(&(another, other)));
                Rows::Memberships(rows)
            }
            What::Access => {
                let mut access = Access::of(account, known);
                access.keep(chosen);
                Rows::Access(access)
            }
        };
        Listing { account: &account.name, known, rows }
    }

    /// Calls `each` with the cells of every row.
    ///
    /// # Errors
    /// That of `each`.
    pub fn each<E>(&self, mut each: impl FnMut(&[Cell<'_>]) -> Result<(), E>) -> Result<(), E> {
        let account = || text(self.account);
        match &self.rows {
            Rows::Principals(Kind::User, users) => {
                for Named { id, principal, first_seen_at, .. } in users {
                    let user = principal.as_ref();
                    each(&[
                        account(),
                        text(id),
                        optional(user.and_then(|user| user.user_name.as_deref())),
                        optional(user.and_then(|user| user.display_name.as_deref())),
                        flag(user.and_then(|user| user.active)),
                        optional(user.and_then(|user| user.email.as_deref())),
                        since(*first_seen_at),
                    ])?;
                }
            }
            Rows::Principals(Kind::Group, groups) => {
                for Named { id, principal, entitlement, first_seen_at, .. } in groups {
                    each(&[
                        account(),
                        text(id),
                        optional(principal.as_ref().and_then(|group| group.display_name.as_deref())),
                        some(&entitlement.domain),
                        some(&entitlement.kind),
                        some(&entitlement.name),
                        Cell::Count(self.known.members(id).map_or(0, |members| members.len())),
                        since(*first_seen_at),
                    ])?;
                }
            }
            Rows::Memberships(memberships) => {
                for (group, member, membership) in memberships {
                    each(&[
                        account(),
                        text(member.kind.principal_type()),
                        text(&member.id),
                        text(group),
                        flag(membership.direct),
                        since(membership.first_seen_at),
                    ])?;
                }
            }
            Rows::Access(access) => {
                for entry in &access.entries {
                    let principal = &access.principals[entry.principal as usize];
                    let group = &access.groups[entry.group as usize];
                    each(&[
                        account(),
                        text(principal.kind.principal_type()),
                        text(principal.id),
                        text(&principal.name),
                        flag(principal.principal.as_ref().and_then(|principal| principal.active)),
                        text(group.id),
                        text(&group.name),
                        some(&group.entitlement.domain),
                        some(&group.entitlement.kind),
                        some(&group.entitlement.name),
                        text(if entry.direct { "direct" } else { "nested" }),
                        access.via(entry),
                        since(entry.since),
                    ])?;
                }
            }
        }
        Ok(())
    }
}

fn text(text: &str) -> Cell<'_> {
    Cell::Text(text)
}

fn optional(found: Option<&str>) -> Cell<'_> {
    found.map_or(Cell::Nothing, text)
}

/// A text; an empty one counts as missing.
fn some(found: &str) -> Cell<'_> {
    optional((!found.is_empty()).then_some(found))
}

fn flag(flag: Option<bool>) -> Cell<'static> {
    flag.map_or(Cell::Nothing, Cell::Flag)
}

fn since(millis: i64) -> Cell<'static> {
    if millis == UNKNOWN_TIME { Cell::Nothing } else { Cell::Since(millis) }
}

fn by_id<'k>(account: &Account, known: &'k Known, kind: Kind, chosen: &Chosen) -> Vec<Named<'k>> {
    let ids = known.table(kind).ids().filter(|id| chosen.takes(kind, id));
    let mut all: Vec<Named<'k>> = ids.map(|id| named(account, known, kind, id)).collect();
    all.sort_unstable_by_key(|named| named.id);
    all
}

/// A principal that a group lists, but the directory does not, has only an id.
fn named<'k>(account: &Account, known: &'k Known, kind: Kind, id: &'k Id) -> Named<'k> {
    let principal = known.table(kind).principal(id);
    let decoded = |group: &Principal| account.pattern.as_ref()?.decode(group.display_name.as_deref()?);
    Named {
        kind,
        id,
        name: principal.as_ref().and_then(Principal::name).unwrap_or(id).to_owned(),
        entitlement: principal.as_ref().filter(|_| kind == Kind::Group).and_then(decoded).unwrap_or_default(),
        first_seen_at: known.table(kind).get(id).map_or(UNKNOWN_TIME, |entry| entry.first_seen_at),
        principal,
    }
}

impl<'k> Access<'k> {
    fn of(account: &Account, known: &'k Known) -> Access<'k> {
        let nesting = Nesting::of(known);
        let mut members: Map<(Kind, &Id), u32> = Map::default();
        let mut places: Map<&Id, u32> = Map::default();
        for (group, member, _) in known.memberships() {
            members.entry((member.kind, &member.id)).or_default();
            places.entry(group).or_default();
        }
        let by_name = |mut all: Vec<Named<'k>>| {
            all.sort_unstable_by(|one, other| (&one.name, one.kind, one.id).cmp(&(&other.name, other.kind, other.id)));
            all
        };
        let principals = by_name(members.keys().map(|(kind, id)| named(account, known, *kind, id)).collect());
        let groups = by_name(places.keys().map(|id| named(account, known, Kind::Group, id)).collect());
        for (place, Named { kind, id, .. }) in (0..).zip(&principals) {
            members.insert((*kind, id), place);
        }
        for (place, Named { id, .. }) in (0..).zip(&groups) {
            places.insert(id, place);
        }
        let mut entries: Vec<Entry> = known
            .memberships()
            .map(|(group, member, membership)| Entry {
                principal: members[&(member.kind, &member.id)],
                group: places[group],
                since: membership.first_seen_at,
                direct: membership.direct != Some(false),
                through: None,
            })
            .collect();
        entries.sort_unstable_by_key(|entry| (entry.principal, entry.group));
        let mut access = Access { principals, groups, places, entries: Vec::new(), nesting };
        let mut nested = Vec::new();
        for of_one in entries.chunk_by_mut(|one, other| one.principal == other.principal) {
            access.resolve(of_one, &mut nested);
        }
        entries.append(&mut nested);
        entries.sort_by_key(|entry| (entry.principal, entry.group));
        access.entries = entries;
        access
    }

    /// Drops the rows that the filter does not take. Only now, because the way to a group leads through others.
    fn keep(&mut self, chosen: &Chosen) {
        let (principals, groups) = (&self.principals, &self.groups);
        self.entries.retain(|entry| {
            let Named { kind, id, .. } = &principals[entry.principal as usize];
            chosen.takes_member(*kind, id, groups[entry.group as usize].id)
        });
    }

    /// Finds the groups above the direct groups of one principal, by the shortest way. They are added to `nested`. If
    /// the server itself lists such a group as indirect, the way is added to that entry instead.
    fn resolve(&self, own: &mut [Entry], nested: &mut Vec<Entry>) {
        let mut found: Map<u32, (u32, Entry)> = Map::default();
        for entry in own.iter().filter(|entry| entry.direct) {
            let principal = &self.principals[entry.principal as usize];
            for (place, above) in (0..).zip(self.nesting.above(self.groups[entry.group as usize].id)) {
                // In a cycle of groups, each group is above itself.
                if principal.kind == Kind::Group && principal.id == above.group {
                    continue;
                }
                let since = later(entry.since, above.since);
                let through = Some((entry.group, place));
                let group = self.places[above.group];
                let new = Entry { principal: entry.principal, group, since, direct: false, through };
                let shorter =
                    found.get(&group).is_none_or(|(steps, old)| (above.steps, new.through) < (*steps, old.through));
                if shorter {
                    found.insert(group, (above.steps, new));
                }
            }
        }
        if found.is_empty() {
            return;
        }
        for entry in own.iter_mut() {
            let way = found.remove(&entry.group);
            if !entry.direct {
                entry.through = way.and_then(|(_, way)| way.through);
            }
        }
        nested.extend(found.into_values().map(|(_, entry)| entry));
    }

    /// The groups between the principal and the group of the entry, first the one that it is a direct member of.
    fn via(&self, entry: &Entry) -> Cell<'_> {
        let Some((own, place)) = entry.through else { return Cell::Nothing };
        let own = self.groups[own as usize].id;
        let way = self.nesting.way(own, &self.nesting.above(own)[place as usize]);
        let group = |id: &&Id| &self.groups[self.places[*id] as usize];
        Cell::Way(way.iter().map(group).map(|group| (&**group.id, group.name.as_str())).collect())
    }
}
