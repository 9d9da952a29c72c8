//! `demo`: the real pipeline between simulated directories and an embedded Kafka. A replay at the end proves that the
//! compacted topics equal the directories.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::Args;
use rdkafka::topic_partition_list::Offset;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::failure::{Exit, Failure};
use super::output::print;
use super::read::read_state;
use crate::avro::Decoder;
use crate::avro::wire::{ChangeEvent, SyncStatus};
use crate::demo::{Simulated, World};
use crate::directory::{Kind, Known};
use crate::kafka::read::follow;
use crate::log::Topic;
use crate::mapping::text;
use crate::shards::{Services, by_partition, serve};

/// The mock cluster keeps 5 MiB a partition and drops older records. This many syncs stay far below that.
const SYNCS_MAX: u32 = 1_000;
/// Changes between two syncs stay below the guard's five losses.
const CHANGES_AT_ONCE: usize = 3;
/// From the last change until every account has synced it.
const QUIET_WAIT: Duration = Duration::from_secs(30);
/// Records that were read back from Kafka and are not printed yet.
const BACKLOG: usize = 1_024;

#[derive(Debug, Args)]
pub struct Options {
    /// End after this many syncs of each account [default: until Ctrl-C, at most 1,000]
    #[arg(long, value_name = "N")]
    syncs: Option<u32>,
    /// Time between two syncs of an account
    #[arg(long, default_value = "1s")]
    interval: String,
    /// Repeat a demo; the same seed gives the same directories and changes [default: random]
    #[arg(long)]
    seed: Option<u64>,
}

/// What the demo reads back from Kafka.
enum Seen {
    Event(Box<ChangeEvent>),
    Completed(Box<SyncStatus>),
}

pub async fn demo(options: Options) -> Result<Exit, Failure> {
    let failed = |text: String| Failure::new(Exit::Failed, text);
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    let mut world = World::start(seed, &options.interval).await.map_err(failed)?;
    let World { services, accounts, .. } = &mut world;
    let width = accounts.iter().map(|one| one.config.account.name.len()).max().unwrap_or(0);
    print(
        "An embedded Kafka, a registry and two simulated directories are up; everything below is read back from Kafka.",
    )?;

    let shutdown = CancellationToken::new();
    let _ends_everything = shutdown.clone().drop_guard();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut tasks = JoinSet::new();
    for (partition, accounts) in by_partition(accounts.iter().map(|one| one.config.clone()).collect()) {
        let (services, shutdown) = (services.clone(), shutdown.clone());
        tasks.spawn(serve::shard(services, partition, accounts, shutdown, random.fork(), Arc::default()));
    }
    let mut seen = read_back(services, accounts, &shutdown);

    let wanted = options.syncs.unwrap_or(SYNCS_MAX).clamp(1, SYNCS_MAX);
    let mut completed: BTreeMap<String, u32> = BTreeMap::new();
    let mut enough = false;
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    while !enough {
        tokio::select! {
            _ = &mut interrupt => enough = true,
            next = seen.recv() => match next {
                None => return Err(failed("Kafka is no longer read".to_owned())),
                Some(Seen::Event(event)) => print(&text::line(&event, width))?,
                Some(Seen::Completed(status)) => {
                    let count = completed.entry(status.account.clone()).or_default();
                    *count += 1;
                    if *count == 1 {
                        print(&baseline(&status, width))?;
                    }
                    enough = accounts.iter().all(|one| completed.get(&one.config.account.name).is_some_and(|count| *count >= wanted));
                    if !enough && let Some(one) = accounts.iter_mut().find(|one| one.config.account.name == status.account) {
                        for _ in 0..one.random.usize(1..=CHANGES_AT_ONCE) {
                            one.directory.change();
                        }
                    }
                }
            },
        }
    }
    let settled = tokio::time::timeout(QUIET_WAIT, settle(&mut seen, accounts, (services.clock)(), width));
    settled
        .await
        .map_err(|_| failed(format!("the directories were not read again within {} s", QUIET_WAIT.as_secs())))??;
    shutdown.cancel();
    while tasks.join_next().await.is_some() {}
    replay(services, accounts).await
}

/// Follows events and completed syncs, as any consumer can.
fn read_back(services: &Services, accounts: &[Simulated], shutdown: &CancellationToken) -> mpsc::Receiver<Seen> {
    let (sender, seen) = mpsc::channel(BACKLOG);
    let mut partitions: Vec<i32> = accounts.iter().map(|one| one.config.account.partition).collect();
    partitions.sort_unstable();
    partitions.dedup();
    for topic in [Topic::Events, Topic::Syncs] {
        let (kafka, sender, shutdown) = (services.kafka.clone(), sender.clone(), shutdown.clone());
        let mut decoder = Decoder::of_writer(services.codec.ids, services.registry.clone());
        let from: Vec<(i32, Offset)> = partitions.iter().map(|partition| (*partition, Offset::Beginning)).collect();
        tokio::task::spawn_blocking(move || {
            follow(&kafka, topic, &from, drop, |record| {
                let found = record.and_then(|record| {
                    let marker = record.key.is_some_and(|key| !key.contains(&b'/'));
                    match topic {
                        Topic::Events => Some(Seen::Event(Box::new(decoder.decode(topic, record.value?).ok()?))),
                        _ if marker => Some(Seen::Completed(Box::new(decoder.decode(topic, record.value?).ok()?))),
                        _ => None,
                    }
                });
                let closed = found.is_some_and(|found| sender.blocking_send(found).is_err());
                Ok(if closed || shutdown.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })
        });
    }
    seen
}

fn baseline(status: &SyncStatus, width: usize) -> String {
    let style = Style::new().fg_color(Some(AnsiColor::Cyan.into()));
    format!(
        "{style}{:19}{style:#}  {:width$}  {} users, {} groups, {} memberships   (state only, no events)",
        "baseline",
        status.account,
        status.users_read.unwrap_or(0),
        status.groups_read.unwrap_or(0),
        status.memberships_read.unwrap_or(0),
    )
}

/// Prints events until each account has completed a sync that began after the last change.
async fn settle(
    seen: &mut mpsc::Receiver<Seen>,
    accounts: &[Simulated],
    since: i64,
    width: usize,
) -> Result<(), Failure> {
    let mut open: BTreeSet<&str> = accounts.iter().map(|one| one.config.account.name.as_str()).collect();
    while !open.is_empty() {
        match seen.recv().await {
            None => return Err(Failure::new(Exit::Failed, "Kafka is no longer read")),
            Some(Seen::Event(event)) => print(&text::line(&event, width))?,
            Some(Seen::Completed(status)) if status.started_at > since => {
                open.remove(status.account.as_str());
            }
            Some(Seen::Completed(_)) => {}
        }
    }
    Ok(())
}

/// Compares the directories with what a new reader finds in the compacted topics. Nothing comes from memory.
async fn replay(services: &Services, accounts: &[Simulated]) -> Result<Exit, Failure> {
    let mut sides = [(0, 0); 3];
    let mut equal = true;
    for one in accounts {
        let known = read_state(&services.kafka, &services.registry, &one.config.account).await?;
        let (replayed, truth) = (contents(&known), truth(one));
        for (index, (replayed, truth)) in replayed.iter().zip(&truth).enumerate() {
            sides[index].0 += replayed.len();
            sides[index].1 += truth.len();
            equal &= replayed == truth;
        }
    }
    let parts = ["users", "groups", "memberships"].iter().zip(sides).map(|(what, (replayed, truth))| {
        format!("{what} {replayed} {} {truth}", if replayed == truth { "=" } else { "≠" })
    });
    let (color, verdict) = match equal {
        true => (AnsiColor::Green, "the compacted topics equal the directories"),
        false => (AnsiColor::Red, "the compacted topics DIFFER from the directories"),
    };
    let style = Style::new().fg_color(Some(color.into())).bold();
    print(&format!(
        "{style}{:19}{style:#}  {}: {style}{verdict}{style:#}",
        "replay",
        parts.collect::<Vec<_>>().join(", ")
    ))?;
    Ok(if equal { Exit::Done } else { Exit::Failed })
}

/// Users, groups and memberships, each as comparable lines.
type Contents = [BTreeSet<String>; 3];

fn contents(known: &Known) -> Contents {
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

fn truth(one: &Simulated) -> Contents {
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
