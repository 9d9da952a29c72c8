//! A consumer group: its members, its generation, and what the leader assigned. No I/O; times are arguments.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::code::Code;

/// A member as it last joined.
struct Member {
    /// What it offers: the name of each way to assign, and what the leader has to know for it.
    protocols: Vec<(String, Bytes)>,
    session: Duration,
    rebalance: Duration,
    seen: Instant,
    /// True if it waits for the generation that is being made.
    joining: bool,
    assignment: Option<Bytes>,
}

/// A member's wish to join.
pub struct Join {
    pub protocols: Vec<(String, Bytes)>,
    pub session: Duration,
    pub rebalance: Duration,
}

/// The generation that a member has joined.
#[derive(Debug, PartialEq, Eq)]
pub struct Joined {
    pub generation: i32,
    pub protocol: String,
    pub leader: String,
    /// Id and metadata of each; only for the leader.
    pub members: Vec<(String, Bytes)>,
}

#[derive(Default)]
pub struct Group {
    generation: i32,
    members: BTreeMap<String, Member>,
    /// Since when a new generation is made.
    forming: Option<Instant>,
    named: u64,
}

impl Group {
    /// Enters a member, an old one or a new one, for the next generation. Returns its id.
    ///
    /// # Errors
    /// It says it is a member and is not.
    pub fn enter(&mut self, member: &str, join: Join, now: Instant) -> Result<String, Code> {
        self.expire(now);
        let id = if member.is_empty() {
            self.named += 1;
            format!("member-{}", self.named)
        } else if self.members.contains_key(member) {
            member.to_owned()
        } else {
            return Err(Code::UnknownMemberId);
        };
        let Join { protocols, session, rebalance } = join;
        let entered = Member { protocols, session, rebalance, seen: now, joining: true, assignment: None };
        self.members.insert(id.clone(), entered);
        self.forming.get_or_insert(now);
        Ok(id)
    }

    /// The generation that a member which has entered belongs to; `None` while others are waited for.
    pub fn joined(&mut self, member: &str, now: Instant) -> Option<Joined> {
        self.expire(now);
        if let Some(since) = self.forming {
            let longest = self.members.values().map(|member| member.rebalance).max().unwrap_or_default();
            let late = now.duration_since(since) >= longest;
            if !late && self.members.values().any(|member| !member.joining) {
                return None;
            }
            self.members.retain(|_, member| member.joining);
            self.forming = None;
            self.generation += 1;
            for member in self.members.values_mut() {
                member.joining = false;
                member.seen = now;
            }
        }
        let leader = self.members.keys().next()?.clone();
        let offered =
            |name: &str| self.members.values().all(|one| one.protocols.iter().any(|(other, _)| other == name));
        let own = self.members.get(member)?;
        let protocol = own.protocols.iter().map(|(name, _)| name).find(|name| offered(name))?.clone();
        let metadata =
            |one: &Member| one.protocols.iter().find(|(name, _)| *name == protocol).map(|(_, data)| data.clone());
        let members = match leader == member {
            true => self.members.iter().filter_map(|(id, one)| Some((id.clone(), metadata(one)?))).collect(),
            false => Vec::new(),
        };
        Some(Joined { generation: self.generation, protocol, leader, members })
    }

    /// Takes what the leader assigns.
    pub fn assign(&mut self, assignments: Vec<(String, Bytes)>) {
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = Some(assignment);
            }
        }
    }

    /// What the leader assigned to a member; `None` before that.
    ///
    /// # Errors
    /// As [`Group::beat`].
    pub fn assigned(&mut self, member: &str, generation: i32, now: Instant) -> Result<Option<Bytes>, Code> {
        self.beat(member, generation, now)?;
        Ok(self.members.get(member).and_then(|member| member.assignment.clone()))
    }

    /// A member is alive.
    ///
    /// # Errors
    /// It is no member, its generation is over, or it has to join the next one.
    pub fn beat(&mut self, member: &str, generation: i32, now: Instant) -> Result<(), Code> {
        self.expire(now);
        let Some(found) = self.members.get_mut(member) else { return Err(Code::UnknownMemberId) };
        found.seen = now;
        match self.forming {
            Some(_) => Err(Code::RebalanceInProgress),
            None if generation != self.generation => Err(Code::IllegalGeneration),
            None => Ok(()),
        }
    }

    /// The id of each member, and what it was assigned.
    pub fn members(&mut self, now: Instant) -> Vec<(String, Bytes)> {
        self.expire(now);
        let member = |(id, member): (&String, &Member)| (id.clone(), member.assignment.clone().unwrap_or_default());
        self.members.iter().map(member).collect()
    }

    /// A member goes; the others have to join again.
    pub fn leave(&mut self, member: &str, now: Instant) {
        if self.members.remove(member).is_some() && !self.members.is_empty() {
            self.forming.get_or_insert(now);
        }
    }

    /// Takes out members that were silent for longer than their session.
    fn expire(&mut self, now: Instant) {
        let silent = |member: &Member| !member.joining && now.duration_since(member.seen) > member.session;
        let before = self.members.len();
        self.members.retain(|_, member| !silent(member));
        if self.members.len() < before && !self.members.is_empty() {
            self.forming.get_or_insert(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(4);
    const REBALANCE: Duration = Duration::from_secs(60);

    fn wish(metadata: &'static str) -> Join {
        let protocols = vec![("sticky".to_owned(), Bytes::from_static(metadata.as_bytes()))];
        Join { protocols, session: SESSION, rebalance: REBALANCE }
    }

    #[test]
    fn a_member_that_is_silent_is_waited_for_until_its_session_ends() {
        let (mut group, start) = (Group::default(), Instant::now());
        let first = group.enter("", wish("a"), start).unwrap();
        let joined = group.joined(&first, start).unwrap();
        assert_eq!((joined.generation, &joined.leader), (1, &first));
        assert_eq!(joined.members, [(first.clone(), Bytes::from_static(b"a"))]);

        let second = group.enter("", wish("b"), start).unwrap();
        assert_eq!(group.joined(&second, start + SESSION / 2), None, "the first one has not joined again");
        let joined = group.joined(&second, start + SESSION * 2).unwrap();
        assert_eq!((joined.generation, &joined.leader, joined.members.len()), (2, &second, 1));
        assert_eq!(group.beat(&first, 1, start + SESSION * 2), Err(Code::UnknownMemberId));
    }

    #[test]
    fn members_join_together_and_get_what_the_leader_assigns() {
        let (mut group, start) = (Group::default(), Instant::now());
        let first = group.enter("", wish("a"), start).unwrap();
        group.joined(&first, start).unwrap();
        let second = group.enter("", wish("b"), start).unwrap();
        assert_eq!(group.beat(&first, 1, start), Err(Code::RebalanceInProgress));
        group.enter(&first, wish("a"), start).unwrap();
        let leads = group.joined(&first, start).unwrap();
        let follows = group.joined(&second, start).unwrap();
        assert_eq!((leads.generation, leads.members.len(), follows.members.len()), (2, 2, 0));
        assert_eq!(group.assigned(&second, 2, start), Ok(None));
        group.assign(vec![(second.clone(), Bytes::from_static(b"all"))]);
        assert_eq!(group.assigned(&second, 2, start), Ok(Some(Bytes::from_static(b"all"))));
        assert_eq!(group.members(start), [(first.clone(), Bytes::new()), (second.clone(), Bytes::from_static(b"all"))]);
        assert_eq!(group.beat(&second, 1, start), Err(Code::IllegalGeneration));
        group.leave(&first, start);
        assert_eq!(group.beat(&second, 2, start), Err(Code::RebalanceInProgress));
        assert_eq!(group.enter(&first, wish("a"), start), Err(Code::UnknownMemberId));
    }
}
