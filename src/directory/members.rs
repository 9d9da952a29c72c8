//! The known members of one group, in one piece of memory: a directory has many times more memberships than principals,
//! and a hash map of them takes three times as much.

use std::collections::{BTreeMap, BTreeSet};

use super::principal::{Id, Member};

/// A membership as its state record in Kafka.
#[derive(Clone, Debug, PartialEq)]
pub struct Membership {
    pub direct: Option<bool>,
    pub first_seen_at: i64,
    pub sequence: i64,
    pub digest: Share,
}

/// A record's share of the account's state digest. As two halves it lies closer in memory than one number of 128 bits,
/// which begins at multiples of 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share([u64; 2]);

impl From<u128> for Share {
    fn from(share: u128) -> Share {
        Share([(share >> 64) as u64, share as u64])
    }
}

impl From<Share> for u128 {
    fn from(Share([high, low]): Share) -> u128 {
        u128::from(high) << 64 | u128::from(low)
    }
}

/// Room to grow and changes out of order, as a share of the members; so many more are always permitted.
const SLACK_SHARE: usize = 8;
const SLACK_MIN: usize = 4;

/// Members come mostly in their order, as a sync writes them. Others wait in `fresh`, and those that go in `gone`, until
/// there are enough of them to be worth moving the rest.
#[derive(Clone, Debug, Default)]
pub struct Members {
    /// Sorted by member.
    rows: Vec<(Member, Membership)>,
    /// Places in `rows` whose membership is gone.
    gone: BTreeSet<usize>,
    /// Not among `rows`, not even as one that is gone.
    fresh: BTreeMap<Member, Membership>,
}

impl Members {
    pub fn len(&self) -> usize {
        self.rows.len() - self.gone.len() + self.fresh.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, member: &Member) -> Option<&Membership> {
        match self.place(member) {
            Ok(place) => (!self.gone.contains(&place)).then(|| &self.rows[place].1),
            Err(_) => self.fresh.get(member),
        }
    }

    pub fn contains(&self, member: &Member) -> bool {
        self.get(member).is_some()
    }

    /// In no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&Member, &Membership)> {
        let rows = self.rows.iter().enumerate().filter(|(place, _)| !self.gone.contains(place));
        rows.map(|(_, (member, membership))| (member, membership)).chain(&self.fresh)
    }

    /// In no particular order.
    pub fn keys(&self) -> impl Iterator<Item = &Member> {
        self.iter().map(|(member, _)| member)
    }

    /// Returns what it replaces.
    pub fn insert(&mut self, member: Member, membership: Membership) -> Option<Membership> {
        self.insert_after(member, |_| membership)
    }

    /// As [`Members::insert`], of a membership that is made of the one that it replaces.
    pub fn insert_after(
        &mut self,
        member: Member,
        membership: impl FnOnce(Option<&Membership>) -> Membership,
    ) -> Option<Membership> {
        match self.place(&member) {
            Ok(place) => {
                let was_gone = self.gone.remove(&place);
                let there = &mut self.rows[place].1;
                let new = membership((!was_gone).then_some(&*there));
                let old = std::mem::replace(there, new);
                (!was_gone).then_some(old)
            }
            Err(place) if place == self.rows.len() && self.fresh.is_empty() => {
                if self.rows.len() == self.rows.capacity() {
                    // A vector doubles, and half of it would stay empty.
                    self.rows.reserve_exact(self.slack());
                }
                self.rows.push((member, membership(None)));
                None
            }
            Err(_) => {
                let new = membership(self.fresh.get(&member));
                let old = self.fresh.insert(member, new);
                self.settle();
                old
            }
        }
    }

    pub fn remove(&mut self, member: &Member) -> Option<Membership> {
        match self.place(member) {
            Ok(place) => {
                let old = self.gone.insert(place).then(|| self.rows[place].1.clone());
                self.settle();
                old
            }
            Err(_) => self.fresh.remove(member),
        }
    }

    /// Lets all members with an id share the one that `shared` has of it.
    pub fn share_ids(&mut self, shared: impl Fn(&Member) -> Option<Id>) {
        self.merge();
        for (member, _) in &mut self.rows {
            if let Some(id) = shared(member) {
                member.id = id;
            }
        }
    }

    /// Gives back the room to grow, for after a time in which most members came. They are moved, because an allocator
    /// may leave a block as large as it is when the vector in it becomes shorter.
    pub fn shrink(&mut self) {
        if self.rows.len() < self.rows.capacity() {
            let mut rows = Vec::with_capacity(self.rows.len());
            rows.append(&mut self.rows);
            self.rows = rows;
        }
    }

    fn place(&self, member: &Member) -> Result<usize, usize> {
        // Where they come in their order, each is behind the last one.
        match self.rows.last() {
            Some((last, _)) if last < member => Err(self.rows.len()),
            _ => self.rows.binary_search_by(|(there, _)| there.cmp(member)),
        }
    }

    fn slack(&self) -> usize {
        SLACK_MIN + self.rows.len() / SLACK_SHARE
    }

    fn settle(&mut self) {
        if self.fresh.len() + self.gone.len() > self.slack() {
            self.merge();
        }
    }

    /// Moves what came out of order to its place.
    fn merge(&mut self) {
        let (gone, fresh) = (std::mem::take(&mut self.gone), std::mem::take(&mut self.fresh));
        let mut rows = Vec::with_capacity(self.rows.len() - gone.len() + fresh.len());
        let mut fresh = fresh.into_iter().peekable();
        for (place, row) in std::mem::take(&mut self.rows).into_iter().enumerate() {
            while let Some(earlier) = fresh.next_if(|(member, _)| *member < row.0) {
                rows.push(earlier);
            }
            if !gone.contains(&place) {
                rows.push(row);
            }
        }
        rows.extend(fresh);
        self.rows = rows;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::principal::Kind;
    use super::*;

    fn membership(sequence: i64) -> Membership {
        Membership { direct: None, first_seen_at: 0, sequence, digest: u128::MAX.into() }
    }

    #[test]
    fn a_share_is_the_number_that_it_was_made_of() {
        for share in [0, 1, u128::from(u64::MAX) + 1, u128::MAX - 7] {
            assert_eq!(u128::from(Share::from(share)), share);
        }
    }

    proptest! {
        #[test]
        fn the_members_of_a_group_are_a_map(
            steps in proptest::collection::vec((0..60_u8, any::<bool>(), any::<bool>()), 0..300),
        ) {
            let (mut members, mut map) = (Members::default(), BTreeMap::new());
            for (step, (id, is_group, is_removal)) in steps.into_iter().enumerate() {
                let kind = if is_group { Kind::Group } else { Kind::User };
                let member = Member { kind, id: format!("{id:02}").as_str().into() };
                if is_removal {
                    prop_assert_eq!(members.remove(&member), map.remove(&member));
                } else {
                    let one = membership(step as i64);
                    prop_assert_eq!(members.insert(member.clone(), one.clone()), map.insert(member.clone(), one));
                }
                if step % 50 == 49 {
                    members.shrink();
                }
                prop_assert_eq!(members.get(&member), map.get(&member));
                prop_assert_eq!(members.len(), map.len());
            }
            let all: BTreeMap<&Member, &Membership> = members.iter().collect();
            prop_assert_eq!(all, map.iter().collect::<BTreeMap<_, _>>());
        }
    }
}
