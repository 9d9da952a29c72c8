//! The demo as a story: chapters, each a heading and then rows that were read back from Kafka. What a chapter claims is
//! counted in what was read.

use std::collections::{BTreeMap, BTreeSet};

use super::seen::{Order, Seen, orders};
use super::stage::{Ending, Stage, failed};
use super::truth::size;
use crate::avro::wire::{ChangeEvent, SyncStatus};
use crate::cli::failure::Failure;
use crate::cli::time::exactly;
use crate::demo::SESSION_MS;
use crate::log::Topic;

/// Changes between two syncs stay below the guard's five losses.
pub const CHANGES_AT_ONCE: usize = 3;
/// Events that chapter 2 waits for.
const EVENTS_SHOWN: usize = 8;
/// Rows of one kind that are shown before the others are only counted.
const ROWS_SHOWN: usize = 4;
/// Users that stay when most of a directory vanishes.
const USERS_LEFT: usize = 5;
/// Users that join at once, each with one group: a transaction with twice as many events.
const USERS_JOIN: usize = 60;

/// The accounts by their place in the world.
const STRIPE: usize = 0;
const CHARGEBEE: usize = 1;

/// Tells the whole story.
pub async fn tell(stage: &mut Stage) -> Result<(), Ending> {
    stage.screen.say(&format!(
        "scimtail, in half a minute. A Kafka, a registry and two directories of made-up people are embedded. `scimtail run` \
         reads them in a process of its own (pid {}). Rows are read back from Kafka. A line after $ is a command that is run.",
        stage.service.id()
    ))?;
    addresses(stage)?;
    stage.screen.heading("1. Baseline: a first sync writes the state and raises no alarm")?;
    baseline(stage).await?;
    changes(stage).await?;
    let before = removal(stage).await?;
    short_list(stage).await?;
    kill(stage).await?;
    as_of(stage, before).await
}

/// Where the page and the configuration are.
pub fn addresses(stage: &Stage) -> Result<(), Failure> {
    stage.screen.say(&format!("status page    http://{}/", stage.world.pages))?;
    stage.screen.say(&format!("configuration  {}", stage.world.file.display()))
}

/// 1: state without events.
pub async fn baseline(stage: &mut Stage) -> Result<(), Ending> {
    let mut open: BTreeSet<String> = stage.world.accounts.iter().map(|one| one.name().to_owned()).collect();
    while !open.is_empty() {
        let Seen::Completed(status) = stage.next().await? else { continue };
        if open.remove(&status.account) {
            let words = format!(
                "{} users, {} groups, {} memberships; events: {}",
                status.users_read.unwrap_or(0),
                status.groups_read.unwrap_or(0),
                status.memberships_read.unwrap_or(0),
                stage.reached(&status.account).max(status.sequence)
            );
            stage.labelled("baseline", &status.account, &words)?;
        }
    }
    Ok(())
}

/// 2: changes arrive as events.
async fn changes(stage: &mut Stage) -> Result<(), Ending> {
    stage.screen.heading("2. Changes in the directories arrive as events")?;
    let mut shown = 0;
    while shown < EVENTS_SHOWN {
        match stage.next().await? {
            Seen::Event(event) => {
                stage.event(&event)?;
                shown += 1;
            }
            Seen::Completed(status) => change(stage, &status),
            Seen::Attempt(_) => {}
        }
    }
    settle(stage).await
}

/// Makes a few random changes in the directory of an account, once its last ones were read: the sync began after them.
/// If standard output stands still, syncs pile up here, and more changes at once would be held.
pub fn change(stage: &mut Stage, read: &SyncStatus) {
    let now = (stage.services.clock)();
    if let Some(one) = stage.world.accounts.iter_mut().find(|one| one.name() == read.account)
        && read.started_at > one.changed_at
    {
        one.changed_at = now;
        for _ in 0..one.random.usize(1..=CHANGES_AT_ONCE) {
            one.directory.change();
        }
    }
}

/// Prints events until each account has completed a sync that began after now.
pub async fn settle(stage: &mut Stage) -> Result<(), Ending> {
    let since = (stage.services.clock)();
    let mut open: BTreeSet<String> = stage.world.accounts.iter().map(|one| one.name().to_owned()).collect();
    while !open.is_empty() {
        match stage.next().await? {
            Seen::Event(event) => stage.event(&event)?,
            Seen::Completed(status) if status.started_at > since && open.contains(&status.account) => {
                stage.catch_up(&status, |stage, event| stage.event(&event)).await?;
                open.remove(&status.account);
            }
            Seen::Completed(_) | Seen::Attempt(_) => {}
        }
    }
    Ok(())
}

/// What is known of the account before a large removal.
struct Before {
    at: i64,
    /// Id and name of each user.
    users: BTreeSet<(String, String)>,
}

/// 3: a mass removal is held, shown, released and published.
async fn removal(stage: &mut Stage) -> Result<Before, Ending> {
    stage.screen.heading("3. A mass removal is held until a person releases it")?;
    let (account, directory) = account(stage, STRIPE);
    let users = directory.users().into_iter().map(|user| (user.id, user.user_name)).collect();
    let before = Before { at: (stage.services.clock)(), users };
    let ((users, memberships), newest) = (size(&directory), stage.reached(&account));
    directory.remove_all_but(USERS_LEFT);
    let since = (stage.services.clock)();
    let (left, memberships_left) = size(&directory);
    let (users, memberships) = (users - left, memberships - memberships_left);
    stage.screen.say(&format!("{users} of {} users vanish from the directory of {account}.", users + left))?;
    let held = attempt(stage, &account, "held", since).await?;
    stage.sync(&held, held.reason.as_deref().unwrap_or_default())?;
    let published = stage.reached(&account).max(held.sequence) - newest;
    stage
        .claim(published == 0, &format!("events of {account} since then: {published}. A person looks, and decides:"))?;
    stage.show(&["plan", &account], 3, 2).await?;
    let hold = held.hold_id.clone().unwrap_or_default();
    let since = (stage.services.clock)();
    stage.show(&["release", &account, "--hold", &hold], 2, 1).await?;
    let tally = published_after(stage, &account, since).await?;
    let of = |kind: &str| tally.get(kind).copied().unwrap_or(0);
    let (gone, left_groups) = (of("user.removed"), of("membership.removed"));
    stage.claim(
        (gone, left_groups) == (users, memberships),
        &format!(
            "user.removed: {gone}, membership.removed: {left_groups}; the directory has lost {users} users and \
             {memberships} memberships."
        ),
    )?;
    Ok(before)
}

/// 4: a list that leaves out users whom a GET still finds.
async fn short_list(stage: &mut Stage) -> Result<(), Ending> {
    stage.screen.heading("4. A list that leaves people out is not believed")?;
    let (account, directory) = account(stage, CHARGEBEE);
    let (users, newest) = (directory.users().len(), stage.reached(&account));
    let left_out = users / 2;
    directory.leave_out(left_out);
    let since = (stage.services.clock)();
    stage.screen.say(&format!(
        "The list of {account} now leaves out {left_out} of {users} users, as if they had gone. A GET still finds each of them."
    ))?;
    let refused = attempt(stage, &account, "failed", since).await?;
    stage.sync(&refused, refused.reason.as_deref().unwrap_or_default())?;
    directory.leave_out(0);
    let since = (stage.services.clock)();
    let whole = completed(stage, &account, since).await?;
    stage.screen.say("The list is whole again.")?;
    let read = whole.users_read.unwrap_or(0);
    stage.sync(&whole, &format!("sync {}, {read} users", whole.sync))?;
    let published = whole.sequence - newest;
    let is_so = published == 0 && usize::try_from(read) == Ok(users);
    stage.claim(is_so, &format!("events of {account} since the list was short: {published}."))?;
    Ok(())
}

/// 5: SIGKILL while the commit of a transaction is under way.
async fn kill(stage: &mut Stage) -> Result<(), Ending> {
    stage.screen.heading("5. kill -9 in the middle of a transaction: nothing is lost, nothing is doubled")?;
    let (account, directory) = account(stage, CHARGEBEE);
    let topic = stage.services.kafka.topic(Topic::Events);
    let caught = stage.world.kafka.catch_commit(&topic, USERS_JOIN as i64);
    directory.add_users(USERS_JOIN);
    let caught = stage.wait("the commit", caught).await?;
    let caught = caught.map_err(|_| failed("the commit was not caught".to_owned()))?;
    let pid = stage.service.id();
    stage.service.kill().await?;
    stage.screen.say(&format!(
        "{USERS_JOIN} people join {account}. Their {} events are in Kafka, their commit is asked for and not carried out.",
        caught.records
    ))?;
    stage.screen.say(&format!("Process {pid} gets kill -9."))?;
    let since = (stage.services.clock)();
    stage.restart()?;
    stage.screen.say(&format!(
        "scimtail run starts again (pid {}). The consumer group waits {} s for the dead process, then the new one fences it, \
         reads its state back and goes on.",
        stage.service.id(),
        SESSION_MS / 1_000
    ))?;
    let tally = published_after(stage, &account, since).await?;
    let of = |kind: &str| tally.get(kind).copied().unwrap_or(0);
    let (users, memberships) = (of("user.added"), of("membership.added"));
    stage.claim(
        (users, memberships) == (USERS_JOIN, USERS_JOIN) && tally.len() == 2,
        &format!(
            "user.added: {users}, membership.added: {memberships}; {USERS_JOIN} people have joined one group each."
        ),
    )?;
    let orders = orders(&stage.services, &stage.partitions()).await.map_err(Failure::from)?;
    for (account, Order { events, newest, missing, doubled }) in orders {
        let is_so = missing == 0 && doubled == 0 && events == newest && newest == stage.reached(&account);
        stage.claim(
            is_so,
            &format!("{account}: {events} events, numbers 1 to {newest}; missing {missing}, twice {doubled}."),
        )?;
    }
    Ok(())
}

/// 6: the state before the removal.
async fn as_of(stage: &mut Stage, before: Before) -> Result<(), Ending> {
    stage.screen.heading("6. The state as it was, before the removal")?;
    let (account, directory) = account(stage, STRIPE);
    let at = exactly(before.at);
    let arguments = ["state", "users", "--account", &account, "--as-of", &at];
    stage.show(&arguments, ROWS_SHOWN, 0).await?;
    let (listed, _) = stage.run(&[&arguments[..], &["--format", "json"]].concat()).await?;
    let user = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).ok()?;
        Some((row["id"].as_str()?.to_owned(), row["user_name"].as_str()?.to_owned()))
    };
    let listed: BTreeSet<(String, String)> = listed.lines().filter_map(user).collect();
    let (then, now) = (before.users.len(), directory.users().len());
    stage.claim(
        listed == before.users,
        &format!(
            "users listed: {}; the directory had {then} of the same ids and names. Now it has {now}.",
            listed.len()
        ),
    )?;
    Ok(())
}

/// The name of an account, and its directory.
fn account(stage: &Stage, place: usize) -> (String, crate::demo::directory::SimulatedDirectory) {
    let one = &stage.world.accounts[place];
    (one.name().to_owned(), one.directory.clone())
}

/// Waits for an attempt of the account that began after `since` and became `wanted`. Prints what else comes.
async fn attempt(stage: &mut Stage, account: &str, wanted: &str, since: i64) -> Result<SyncStatus, Ending> {
    loop {
        match stage.next().await? {
            Seen::Event(event) => stage.event(&event)?,
            Seen::Attempt(status)
                if status.account == account && status.status == wanted && status.started_at >= since =>
            {
                return Ok(*status);
            }
            Seen::Attempt(_) | Seen::Completed(_) => {}
        }
    }
}

/// Waits for a completed sync of the account that began after `since`. Prints what else comes.
async fn completed(stage: &mut Stage, account: &str, since: i64) -> Result<SyncStatus, Ending> {
    loop {
        match stage.next().await? {
            Seen::Event(event) => stage.event(&event)?,
            Seen::Completed(status) if status.account == account && status.started_at >= since => {
                stage.catch_up(&status, |stage, event| stage.event(&event)).await?;
                return Ok(*status);
            }
            Seen::Attempt(_) | Seen::Completed(_) => {}
        }
    }
}

/// Reads the events of the account up to its next sync that began after `since` and completed. Shows the first rows,
/// and counts all by their type.
async fn published_after(stage: &mut Stage, account: &str, since: i64) -> Result<BTreeMap<String, usize>, Ending> {
    let mut tally: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = |stage: &Stage, event: ChangeEvent| -> Result<(), Failure> {
        if tally.values().sum::<usize>() < ROWS_SHOWN {
            stage.event(&event)?;
        }
        *tally.entry(event.event_type).or_default() += 1;
        Ok(())
    };
    loop {
        match stage.next().await? {
            Seen::Event(event) if event.account == account => count(stage, *event)?,
            Seen::Event(event) => stage.event(&event)?,
            Seen::Completed(status) if status.account == account && status.started_at >= since => {
                stage.catch_up(&status, &mut count).await?;
                break;
            }
            Seen::Attempt(_) | Seen::Completed(_) => {}
        }
    }
    let events: usize = tally.values().sum();
    if events > ROWS_SHOWN {
        stage.screen.row(&format!("  … {} more events", events - ROWS_SHOWN))?;
    }
    Ok(tally)
}
