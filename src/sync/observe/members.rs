//! Reading memberships by the directory's strategy, and asking about members that no list shows.

use crate::directory::{
    Diff, Id, Kind, Known, ListedGroup, ListedMember, NOBODY, Readable, ReasonCode, Strategy, SyncStatus,
};
use std::collections::{BTreeSet, HashSet};

use futures::StreamExt;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::ask::{GETS_AT_ONCE, ask};
use super::observation::{BUDGET, Control, Observation};
use super::proof;
use super::refusal::{Refusal, failed};
use super::walk::named;
use crate::source::{Answer, Directory};

/// If no answer says what an id is, it is asked for as a user and then as a group.
const GETS_OF_UNTYPED: usize = 2;
/// Groups of one sync that are asked whether they show members. Most groups of a directory may be empty: every sync
/// asks others, until one shows a member.
const GROUPS_ASKED: usize = 32;
/// Refusals after which no more groups are asked whether they show members.
const REFUSALS_MAX: usize = 3;
/// Reads in a row that fail before the rest is given up: a server in trouble is not asked a hundred thousand times.
const FAILURES_MAX: usize = 20;

/// How members were seen last, where the profile leaves it open; in the list until a sync found out.
pub(super) fn remembered(known: &Known) -> Strategy {
    let by = known.completed.as_ref().and_then(|completed| completed.memberships_by);
    if by == Some(Strategy::Get) { Strategy::Get } else { Strategy::List }
}

/// Where the list showed no member at all, GET of some groups may: then all of them are read so. Those that had members
/// are asked first, the others in an order that differs from sync to sync.
pub(super) async fn find_out<D: Directory>(seen: &mut Observation<'_, '_, '_, D>) {
    let (directory, sync) = (seen.directory, seen.attempt.sync);
    let diff = &mut *seen.diff;
    if diff.strategy() != Strategy::List || diff.shows_members() {
        return;
    }
    let mut groups = diff.seen(Kind::Group);
    let known = diff.known();
    let shown_before = known.has_shown_members_by(Strategy::Get);
    groups.sort_by_key(|id| (known.members(id).is_none(), xxh3_64_with_seed(id.as_bytes(), sync as u64)));
    groups.truncate(GROUPS_ASKED);
    let mut answers =
        futures::stream::iter(groups.into_iter().map(|id| async move { directory.get(Kind::Group, &id).await }))
            .buffered(GETS_AT_ONCE);
    let mut refusals = 0;
    while let Some(answer) = answers.next().await {
        match answer {
            Answer::Found(observed) if !observed.members.is_empty() => {
                diff.read_memberships_by(Strategy::Get, shown_before);
                return;
            }
            Answer::NotOffered | Answer::Forbidden => refusals += 1,
            _ => {}
        }
        // It will not be offered for the next one either.
        if refusals == REFUSALS_MAX {
            return;
        }
    }
}

/// Reads what the walks did not bring. What cannot be read stays as it was.
pub(super) async fn read_memberships<D: Directory>(
    seen: &mut Observation<'_, '_, '_, D>,
    now: impl Fn() -> i64,
) -> Result<(), Refusal> {
    let directory = seen.directory;
    let direct = seen.account.habits.filter_is_direct.then_some(true);
    let diff = &mut *seen.diff;
    match diff.strategy() {
        Strategy::List | Strategy::Never => {}
        Strategy::User => diff.settle_user_groups(),
        Strategy::Get => {
            let mut left: BTreeSet<Id> = diff.seen(Kind::Group).into_iter().collect();
            let mut answers = futures::stream::iter(left.clone().into_iter().map(|id| async move {
                let answer = directory.get(Kind::Group, &id).await;
                (id, answer)
            }))
            .buffered(GETS_AT_ONCE);
            let (mut failures, mut said) = (0, String::new());
            while let Some((group, answer)) = answers.next().await {
                match answer {
                    Answer::Found(observed) if shows_members(&observed.readable) => {
                        diff.take_members(&group, observed.members, observed.observed_at);
                        left.remove(&group);
                        failures = 0;
                    }
                    answer => {
                        said = words(&answer);
                        failures += 1;
                    }
                }
                if failures == FAILURES_MAX {
                    break;
                }
            }
            for group in &left {
                diff.mark_members_unread(group);
            }
            note_unread(seen.attempt, Kind::Group, &left, &said);
        }
        Strategy::GroupsFilter => {
            filters_work(directory, Kind::User, "groups.value").await?;
            filtered(seen, Kind::Group, |diff, group, users| {
                let member = |id| ListedMember { id, kind: Some(Kind::User), direct };
                diff.take_members(group, users.into_iter().map(member).collect(), now());
            })
            .await;
        }
        Strategy::MembersFilter => {
            filters_work(directory, Kind::Group, "members.value").await?;
            filtered(seen, Kind::User, |diff, user, groups| {
                let group = |id| ListedGroup { id: Some(id), name: None, direct };
                diff.take_groups_of(user, groups.into_iter().map(group).collect(), now());
            })
            .await;
            seen.diff.settle_user_groups();
        }
    }
    Ok(())
}

/// False where the members of a resource could not be read.
fn shows_members(readable: &Readable) -> bool {
    match readable {
        Readable::Whole => true,
        Readable::Without(names) => names.iter().all(|name| name != "members"),
        Readable::IdOnly => false,
    }
}

/// After a walk that read only what was modified: memberships that its rows carry are settled, none is read completely.
pub(super) fn settle_rows(diff: &mut Diff<'_>) {
    if diff.strategy() == Strategy::User {
        diff.settle_user_groups();
    }
    diff.mark_memberships_unread();
}

/// A server that ignores filters would make every principal a member of every group.
async fn filters_work<D: Directory>(directory: &D, kind: Kind, attribute: &'static str) -> Result<(), Refusal> {
    match directory.matching(kind, attribute, &NOBODY.into()).await {
        Ok(ids) if !ids.is_empty() => {
            let text = format!(
                "{}: the filter `{attribute} eq` is ignored, so memberships cannot be read this way; \
                 → another [account.profile] memberships",
                kind.endpoint()
            );
            Err(failed(ReasonCode::FilterIgnored, text))
        }
        // A refusal because no principal has this id is as good as none found. A server in trouble shows itself below.
        _ => Ok(()),
    }
}

/// Asks about every principal of `kind` by a filter on the other kind.
async fn filtered<D: Directory>(
    seen: &mut Observation<'_, '_, '_, D>,
    kind: Kind,
    take: impl Fn(&mut Diff<'_>, &Id, Vec<Id>),
) {
    let (other, attribute) = match kind {
        Kind::Group => (Kind::User, "groups.value"),
        Kind::User => (Kind::Group, "members.value"),
    };
    let (directory, diff) = (seen.directory, &mut *seen.diff);
    let mut left: BTreeSet<Id> = diff.seen(kind).into_iter().collect();
    let mut answers = futures::stream::iter(left.clone().into_iter().map(|id| async move {
        let answer = directory.matching(other, attribute, &id).await;
        (id, answer)
    }))
    .buffered(GETS_AT_ONCE);
    let (mut failures, mut said) = (0, String::new());
    while let Some((id, answer)) = answers.next().await {
        match answer {
            Ok(ids) => {
                take(diff, &id, ids);
                left.remove(&id);
                failures = 0;
            }
            Err(error) => {
                said = error.to_string();
                failures += 1;
            }
        }
        if failures == FAILURES_MAX {
            break;
        }
    }
    for id in &left {
        match kind {
            Kind::Group => diff.mark_members_unread(id),
            Kind::User => diff.mark_memberships_unread(),
        }
    }
    note_unread(seen.attempt, kind, &left, &said);
}

/// What an answer that shows no members was.
fn words(answer: &Answer) -> String {
    match answer {
        Answer::Found(_) => "its members are unreadable".to_owned(),
        Answer::NotFound => "HTTP 404".to_owned(),
        Answer::NotOffered => "GET by id is not offered".to_owned(),
        Answer::Forbidden => "HTTP 403".to_owned(),
        Answer::Unproven(said) => said.clone(),
    }
}

/// Says whose memberships could not be read: they stay as last seen.
fn note_unread(attempt: &mut SyncStatus, kind: Kind, left: &BTreeSet<Id>, said: &str) {
    if left.is_empty() {
        return;
    }
    attempt.find(format!(
        "{}: {} of {} cannot be read ({said}) and stay as last seen: {}",
        kind.endpoint(),
        if kind == Kind::Group { "members" } else { "memberships" },
        left.len(),
        named(left)
    ));
}

/// Members known as dangling may have come back without being listed: each is asked for when its time comes.
pub(super) async fn recheck_dangling<D: Directory>(seen: &mut Observation<'_, '_, '_, D>) {
    let mut ids_left = BUDGET / GETS_OF_UNTYPED;
    let since = proof::last_completed(seen.diff.known());
    let mut ids = proof::due(seen.diff.dangling(), since, seen.attempt, &mut ids_left);
    for kind in Kind::BOTH {
        let mut left = Vec::new();
        for (id, answer) in ask(seen.directory, kind, ids).await {
            match answer {
                Answer::Found(observed) => seen.diff.take_found(kind, *observed),
                // It may be a group's id.
                _ => left.push(id),
            }
        }
        ids = left;
    }
}

/// Members that no list shows are published only if GET finds them. A member that is not asked for, or gets no answer,
/// is asked in the next sync.
pub(super) async fn ask_members<D: Directory>(seen: &mut Observation<'_, '_, '_, D>) {
    let mut members = seen.diff.unlisted_members();
    if members.is_empty() {
        return;
    }
    // Where GET is impossible, its 404 says nothing about a member either.
    let publish = seen.diff.publishes_unlisted() && {
        let control = match seen.controls[Kind::User as usize] {
            Some(control) => control,
            None => proof::control(seen, Kind::User).await,
        };
        control == Control::NotAvailable
    };
    if publish {
        for member in members {
            seen.diff.accept_unlisted(member.id);
        }
        return;
    }
    let gets = |member: &ListedMember| if member.kind.is_none() { GETS_OF_UNTYPED } else { 1 };
    if members.iter().map(gets).sum::<usize>() > BUDGET {
        // Others in each sync: those of whom no answer proves anything must not keep the rest from being asked for.
        members.sort_by_key(|member| xxh3_64_with_seed(member.id.as_bytes(), seen.attempt.sync as u64));
        let all = members.len();
        let mut left = BUDGET;
        members.retain(|member| left.checked_sub(gets(member)).inspect(|after| left = *after).is_some());
        // Until each was asked for, it is not known whether it is a member.
        seen.diff.mark_memberships_unread();
        seen.attempt.find(format!(
            "Groups: {} of {all} listed members that no list shows are not asked for yet; the next sync goes on",
            all - members.len()
        ));
    }
    let untyped: HashSet<Id> =
        members.iter().filter(|member| member.kind.is_none()).map(|member| member.id.clone()).collect();
    let mut groups = Vec::new();
    for kind in Kind::BOTH {
        let of_kind = members.iter().filter(|member| member.kind.unwrap_or(Kind::User) == kind);
        let mut ids: Vec<Id> = of_kind.map(|member| member.id.clone()).collect();
        if kind == Kind::Group {
            ids.append(&mut groups);
        }
        for (id, answer) in ask(seen.directory, kind, ids).await {
            match answer {
                Answer::Found(observed) => seen.diff.take_found(kind, *observed),
                // Where the type is not stated, it may still be a group.
                Answer::NotFound | Answer::NotOffered | Answer::Forbidden
                    if kind == Kind::User && untyped.contains(&id) =>
                {
                    groups.push(id)
                }
                Answer::NotFound | Answer::NotOffered | Answer::Forbidden => seen.diff.mark_without_principal(id),
                Answer::Unproven(_) => {}
            }
        }
    }
}

/// Groups whose dangling member appeared after they were listed are read again.
pub(super) async fn reread_groups<D: Directory>(seen: &mut Observation<'_, '_, '_, D>) {
    for (_, answer) in ask(seen.directory, Kind::Group, seen.diff.rereads()).await {
        if let Answer::Found(observed) = answer
            && shows_members(&observed.readable)
        {
            seen.diff.take_reread(*observed);
        }
    }
}

/// GET of a group has to agree that it lost members. Where it does not, they stay, and a person is told.
pub(super) async fn confirm_groups<D: Directory>(seen: &mut Observation<'_, '_, '_, D>) {
    let (directory, diff) = (seen.directory, &mut *seen.diff);
    let groups = diff.groups_that_lost_members().into_iter().map(|id| async move {
        let answer = directory.get(Kind::Group, &id).await;
        (id, answer)
    });
    let mut answers = futures::stream::iter(groups).buffered(GETS_AT_ONCE);
    let (mut refused, mut left, mut said, mut offered) = (BTreeSet::new(), BTreeSet::new(), String::new(), false);
    while let Some((group, answer)) = answers.next().await {
        let refusal = matches!(answer, Answer::NotOffered | Answer::Forbidden);
        offered |= !refusal;
        match answer {
            Answer::Found(observed) if shows_members(&observed.readable) => {
                diff.confirm_group(&group, Some(observed.members));
            }
            answer => {
                said = words(&answer);
                if refusal {
                    refused.insert(group)
                } else {
                    left.insert(group)
                };
            }
        }
    }
    // Where no group can be asked, the completely read list is all there is, if it shows members at all: a list that
    // has stopped to show them may only lack the permission. One that refuses while others answer proves nothing.
    if offered || !diff.list_shows_members() {
        left.extend(refused);
    }
    for group in &left {
        diff.confirm_group(group, None);
    }
    if !left.is_empty() {
        seen.attempt.find(format!(
            "Groups: members of {} are no longer listed, and GET of the group does not confirm it ({said}), so they stay: {}; \
             → if this directory shows no member where there is none: [account.profile] empty_members = \"none\"",
            left.len(),
            named(&left)
        ));
    }
}
