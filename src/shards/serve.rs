//! The service: shards that keep their accounts syncing until shutdown.

use crate::directory::{EventType, Kind, Known, ReasonCode, Status, SyncStatus};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::topic_partition_list::Offset;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, warn};

use super::acquisition::{Acquisition, acquire_unless};
use super::services::Services;
use super::shown::Shown;
use super::spans;
use super::writer::Writer;
use crate::avro::Decoder;
use crate::avro::decode::Undecodable;
use crate::avro::wire::ControlRequest;
use crate::config::AccountConfig;
use crate::connect::Connection;
use crate::control::{self, Request};
use crate::failpoint;
use crate::kafka::blocking::{blocking, on_its_own_thread};
use crate::kafka::offsets::{ends_of, watermarks};
use crate::kafka::read::{Progress, follow};
use crate::kafka::written::{Written, recreated, recreated_in_words};
use crate::log::{EndKind, Ended, Topic};
use crate::progress::{Board, Done, Work};
use crate::retry::Waits;
use crate::schedule::{FenceWait, Schedule};
use crate::service::ServiceError;
use crate::sync::observe::refusal::BLIND_SYNCS;
use crate::sync::{self, OwnedAccount};
use crate::telemetry::{self, Held, Kept, Metric, Refusal, needs_person};

/// Control requests that wait for an account in the middle of a sync. A full inbox holds up the requests of its whole
/// shard. One request a minute fits, for as long as any walk may take (24 h).
const REQUESTS: usize = 2_048;
/// Between two tries to read a request while the registry does not answer.
const REGISTRY_WAIT: Duration = Duration::from_secs(5);
/// Between two looks whether the topics still hold what was written.
const TOPICS_WATCH: Duration = Duration::from_secs(300);
/// Between two tries to acquire a shard.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// For the commit under way when the shard is given up. Shorter than a rebalance waits
/// (`kafka::consumer_group::REVOKE_WAIT`).
const LAST_COMMIT_WAIT: Duration = Duration::from_secs(5);

/// Between two lines about a restore that goes on.
const PROGRESS_LOG: Duration = Duration::from_secs(5);

/// Keeps one shard until `shutdown` (of the process, or of its ownership): acquires it, syncs its accounts, and starts
/// again when an acquisition ends.
///
/// # Errors
/// Kafka refuses the very first acquisition of the process (`owned_before` is its memory), e.g. the `transactional.id`:
/// a person has to act. Later refusals are waited out, because the others go on.
pub async fn shard(
    services: Services,
    partition: i32,
    accounts: Vec<Arc<AccountConfig>>,
    shutdown: CancellationToken,
    random: fastrand::Rng,
    owned_before: Arc<AtomicBool>,
) -> Result<(), ServiceError> {
    let span = spans::shard(partition);
    keep(services, partition, accounts, shutdown, random, owned_before).instrument(span).await
}

async fn keep(
    services: Services,
    partition: i32,
    accounts: Vec<Arc<AccountConfig>>,
    shutdown: CancellationToken,
    mut random: fastrand::Rng,
    owned_before: Arc<AtomicBool>,
) -> Result<(), ServiceError> {
    let mut waits = Waits::endless(FIRST_WAIT, LONGEST_WAIT);
    let mut fenced = FenceWait::new(random.fork());
    let label = partition.to_string();
    let kept = Kept::new(&label, accounts.iter().map(|config| config.account.name.clone()).collect());
    while !shutdown.is_cancelled() {
        let wait = match take(&services, partition, &accounts, &shutdown).await {
            Ok((control_end, acquisition)) => {
                owned_before.store(true, Ordering::Relaxed);
                let acquired = Instant::now();
                Metric::Acquisitions.add(1, [("partition", &label)]);
                let owned = kept.own();
                let owning = own(&services, acquisition, control_end, &accounts, &shutdown, &mut random, &kept.refusal);
                let ended = owning.await;
                drop(owned);
                match ended {
                    None => return Ok(()),
                    Some(ended) => {
                        let reason = if ended.is_fenced() { "fenced" } else { "failed" };
                        Metric::AcquisitionsEnded.add(1, [("partition", &label), ("reason", reason)]);
                        // Only an acquisition that lasted is a success: one that ends at once must not become a loop.
                        if acquired.elapsed() > LONGEST_WAIT {
                            waits.reset();
                        }
                        let wait = if ended.is_fenced() {
                            fenced.next((services.clock)())
                        } else {
                            waits.next_wait().unwrap_or(LONGEST_WAIT)
                        };
                        let wait_s = wait.as_secs();
                        if ended.kind == EndKind::Refused {
                            kept.refusal.begin();
                            error!(reason = ended.reason, wait_s, "acquisition ended: refused");
                        } else {
                            warn!(reason = ended.reason, wait_s, "acquisition ended; acquiring again");
                        }
                        wait
                    }
                }
            }
            Err(_) if shutdown.is_cancelled() => return Ok(()),
            Err(refusal @ ServiceError::Refused(_)) if !owned_before.load(Ordering::Relaxed) => return Err(refusal),
            Err(failure) => {
                let wait = waits.next_wait().unwrap_or(LONGEST_WAIT);
                let (reason, wait_s) = (failure.to_string(), wait.as_secs());
                if failure.is_refused() {
                    // These accounts are not synced until a person acts.
                    kept.refusal.begin();
                    error!(reason, wait_s, "shard not acquired: refused");
                } else {
                    warn!(reason, wait_s, "shard not acquired");
                }
                wait
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = sleep(wait) => {}
        }
    }
    Ok(())
}

/// Acquires the shard. Returns with it where the control partition ended before that.
///
/// **Safety argument.** A reseed takes the shard before it writes its request. If the restore does not show what the
/// reseed left, either the reseed's fence came after ours, and its request is written beyond that end; or ours came
/// after the reseed's, and the reseed fails. So [`listen`] misses none, however long it takes until it begins.
async fn take(
    services: &Services,
    partition: i32,
    accounts: &[Arc<AccountConfig>],
    shutdown: &CancellationToken,
) -> Result<(i64, Acquisition), ServiceError> {
    let kafka = services.kafka.clone();
    let asking = blocking(move || ends_of(&kafka, &[Topic::Control], partition));
    let ends = shutdown.run_until_cancelled(asking).await;
    let control_end = ends.unwrap_or_else(|| Err(ServiceError::cancelled("called off")))?[0];
    let progress = show_progress(&services.progress, partition);
    let acquisition = acquire_unless(shutdown, services, partition, accounts, progress).await?;
    Ok((control_end, acquisition))
}

/// Shows how far a restore has come, and logs it if the restore takes long.
fn show_progress(board: &Board, partition: i32) -> impl FnMut(Progress) + Send + use<> {
    let entry = board.begin(Work::Restore { partition });
    let mut said = Instant::now();
    move |Progress { read, total }| {
        entry.set(Done { what: "records", done: read.unsigned_abs(), total: Some(total.unsigned_abs()) });
        if said.elapsed() >= PROGRESS_LOG {
            said = Instant::now();
            info!(read, total, "restoring");
        }
    }
}

/// Syncs the shard's accounts under one acquisition. `None`: shutdown.
async fn own(
    services: &Services,
    acquisition: Acquisition,
    control_end: i64,
    accounts: &[Arc<AccountConfig>],
    shutdown: &CancellationToken,
    random: &mut fastrand::Rng,
    refusal: &Arc<Refusal>,
) -> Option<Ended> {
    let Acquisition { partition, writer, writer_ended, written, known: mut all, .. } = acquisition;
    // Dropping the set cancels every walk of the acquisition; a commit under way is the writer's to end.
    let mut tasks: JoinSet<Ended> = JoinSet::new();
    let (mut inboxes, mut stopped) = (Vec::new(), Vec::new());
    for config in accounts {
        let name = &config.account.name;
        let known = all.remove(name);
        Metric::Interval.set(config.interval.as_secs_f64(), [("account", name)]);
        measure(name, known.as_ref().and_then(|known| known.as_ref().ok()), false);
        match &known {
            Some(Ok(Known { repair: Some(reason), .. })) => {
                error!(
                    account = name,
                    reason, "in repair: what is missing is written silently, no removal is published"
                );
            }
            Some(Err(reasons)) => {
                error!(account = name, reason = reasons.reason.to_string(), "account stopped");
                stopped.push((name.clone(), reasons.reason.clone()));
            }
            Some(Ok(_)) | None => {}
        }
        if let Some(Ok(known)) = known {
            telemetry::begin(name, EventType::ALL.map(EventType::as_str));
            let (inbox, requests) = mpsc::channel(REQUESTS);
            let from = known.latest.as_ref().map_or(0, |latest| latest.control_offset);
            inboxes.push((config.account.name.clone(), from, inbox));
            let schedule = Schedule::new(config.interval, random.fork());
            let owned = services.owned(&config.account, known, &writer);
            let connection = Connection::new(config, owned.clock);
            let (refusal, progress) = (refusal.clone(), services.progress.clone());
            let syncing = account(Box::new(owned), Box::new(connection), schedule, requests, refusal, progress);
            tasks.spawn(syncing.instrument(spans::account(name)));
        }
    }
    drop(writer);
    // Room for all accounts of the shard, as long as the acquisition lasts.
    drop(all);
    let _shown = services.progress.stop(stopped.clone());
    let stopped = stopped.into_iter().map(|(name, _)| name).collect();
    let stopping = CancellationToken::new();
    let _stops_the_reader = stopping.clone().drop_guard();
    let listening = listen(services.clone(), partition, inboxes, stopped, control_end, stopping.clone());
    tasks.spawn(listening.in_current_span());
    tasks.spawn(watch(services.clone(), partition, written).in_current_span());
    tokio::select! {
        () = shutdown.cancelled() => {
            stopping.cancel();
            tasks.shutdown().await;
            // A commit under way ends by itself. If it is cut off, the next fence ends it, and readers wait until then.
            drop(tokio::time::timeout(LAST_COMMIT_WAIT, writer_ended).await);
            None
        }
        ended = tasks.join_next() => match ended {
            Some(Ok(ended)) => Some(ended),
            _ => Some(Ended { kind: EndKind::Failed, reason: "a task of the shard ended unexpectedly".to_owned() }),
        },
    }
}

/// Follows the control partition and hands every request to its account. A `reseed` of one of those that are `stopped`
/// ends the acquisition, so that the next one begins with what the reseed left. A reseed before `control_end` failed, or
/// the restore showed what it left.
async fn listen(
    services: Services,
    partition: i32,
    inboxes: Vec<(String, i64, mpsc::Sender<Box<Request>>)>,
    stopped: Vec<String>,
    control_end: i64,
    stop: CancellationToken,
) -> Ended {
    let from = inboxes.iter().map(|(_, from, _)| *from).min();
    let reseeded = Arc::new(AtomicBool::new(false));
    let seen = reseeded.clone();
    let mut decoder = Decoder::of_writer(services.codec.ids, services.registry.clone());
    let kafka = services.kafka.clone();
    let reading = on_its_own_thread(move || {
        // Requests that retention has deleted are beyond reading; an offset before the log would be an error.
        let (low, high) = watermarks(&kafka, Topic::Control, partition)?;
        // No reseed since `control_end` may be missed, wherever the accounts that go on begin.
        let from = from.unwrap_or(control_end).min(control_end).clamp(low, high.max(low));
        // The writer of the shard notices when no broker answers.
        follow(&kafka, Topic::Control, &[(partition, Offset::Offset(from))], drop, |record| {
            if let Some(record) = record
                && let Some(value) = record.value
            {
                let decoded = loop {
                    match decoder.decode::<ControlRequest>(Topic::Control, value) {
                        // Nothing is wrong with the request. Passed over, it would be lost for good.
                        Err(Undecodable::Unreachable(problem)) if !stop.is_cancelled() => {
                            let reason = problem.to_string();
                            warn!(record = record.address(), reason, "a request waits for the registry");
                            std::thread::sleep(REGISTRY_WAIT);
                        }
                        decoded => break decoded,
                    }
                };
                match decoded {
                    Ok(content) => {
                        let of_stopped = || stopped.contains(&content.account);
                        if content.action == "reseed" && record.offset >= control_end && of_stopped() {
                            seen.store(true, Ordering::Relaxed);
                            return Ok(ControlFlow::Break(()));
                        }
                        let inbox = inboxes.iter().find(|(account, _, _)| *account == content.account);
                        if let Some((_, _, inbox)) = inbox {
                            // A full inbox blocks here: requests wait, none is lost.
                            drop(inbox.blocking_send(Box::new(Request::read(record.offset, content))));
                        }
                    }
                    Err(complaint) => warn!(record = record.address(), %complaint, "control record skipped"),
                }
            }
            Ok(if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    });
    let reason = match reading.await {
        // The reseed owns the shard for a moment. As after any fence, this instance waits before it takes the shard
        // back.
        Ok(()) if reseeded.load(Ordering::Relaxed) => {
            return Ended { kind: EndKind::Fenced, reason: "a stopped account is being reseeded".to_owned() };
        }
        Ok(()) => "the control partition is no longer followed".to_owned(),
        Err(error) => error.to_string(),
    };
    Ended { kind: EndKind::Failed, reason }
}

/// Looks now and then whether the topics end before what was written to them. A commit notices that at once
/// (`kafka::producer`). The account of a directory that does not change writes nothing, and would go on to vouch for
/// state that is gone.
async fn watch(services: Services, partition: i32, written: Written) -> Ended {
    let millis = failpoint::number("topics.watch_ms").and_then(|millis| u64::try_from(millis).ok());
    let pause = millis.map_or(TOPICS_WATCH, Duration::from_millis);
    loop {
        sleep(pause).await;
        // Taken before the topics are asked: what is written meanwhile only makes them longer.
        let before = written.up_to();
        let kafka = services.kafka.clone();
        let ends = blocking(move || ends_of(&kafka, &Topic::ALL, partition)).await;
        let reason = match ends.map(|ends| recreated(&before, &Topic::ALL.into_iter().zip(ends).collect())) {
            Ok(None) => continue,
            Ok(Some(topic)) => recreated_in_words(&services.kafka.topic(topic)),
            Err(ServiceError::Refused(problem)) => problem.to_string(),
            // The writer finds out, or it passes.
            Err(ServiceError::Unreachable(_) | ServiceError::Cancelled(_)) => continue,
        };
        return Ended { kind: EndKind::Failed, reason };
    }
}

/// One account under one acquisition: syncs at its interval, takes requests in between.
///
/// An account mostly waits, and there may be a thousand of them. So what is large is on the heap: an `async fn` has room
/// for its arguments twice, and for the largest of what it calls.
async fn account(
    mut owned: Box<OwnedAccount<Writer>>,
    mut connection: Box<Connection>,
    mut schedule: Schedule,
    mut requests: mpsc::Receiver<Box<Request>>,
    refusal: Arc<Refusal>,
    progress: Board,
) -> Ended {
    let mut due = Instant::now() + schedule.first();
    // Syncs in a row whose lists stayed short of their totals.
    let mut short = 0;
    loop {
        let paused = owned.known.latest.as_ref().is_some_and(|latest| latest.pause.is_some());
        tokio::select! {
            biased;
            request = requests.recv() => {
                // The reader of requests has ended, and with it the acquisition: nothing is left to do.
                let Some(request) = request else { return std::future::pending().await };
                match Box::pin(control::carry_out(&mut owned, &request)).await {
                    Ok(true) => due = Instant::now(),
                    Ok(false) => {}
                    Err(ended) => return ended,
                }
                measure(&owned.account.name, Some(&owned.known), short >= BLIND_SYNCS);
            }
            () = sleep_until(due), if !paused => {
                let begun = Instant::now();
                let status = match Box::pin(sync_shown(&mut owned, &mut connection, &progress)).await {
                    Ok(status) => status,
                    Err(ended) => return ended,
                };
                refusal.end();
                let labels = [("account", owned.account.name.as_str()), ("status", status.status.as_str())];
                Metric::SyncDuration.took(begun.elapsed(), labels);
                let wait = match status.status {
                    Status::Failed | Status::Running => schedule.after_failure(),
                    Status::Completed | Status::Held => schedule.after_success(),
                };
                short = if blind(&status) { short + 1 } else { 0 };
                report(&owned.account.name, &status, wait, short >= BLIND_SYNCS);
                measure(&owned.account.name, Some(&owned.known), short >= BLIND_SYNCS);
                due = Instant::now() + wait;
            }
        }
    }
}

/// Whether removals could not be seen in this sync: its lists stayed short, or it was to repair and failed.
fn blind(status: &SyncStatus) -> bool {
    status.status == Status::Failed
        && matches!(status.reason_code, Some(ReasonCode::WalkIncomplete | ReasonCode::Repair))
}

/// One sync with the credential as it is now.
///
/// # Errors
/// The end of the acquisition.
pub async fn sync_once(owned: &mut OwnedAccount<Writer>, connection: &mut Connection) -> Result<SyncStatus, Ended> {
    match connection.directory() {
        Ok(directory) => sync::sync(owned, &directory).await,
        Err(error) => sync::attempt::fail(owned, error.into()).await,
    }
}

/// As [`sync_once`]; shows how far the lists are read.
async fn sync_shown(
    owned: &mut OwnedAccount<Writer>,
    connection: &mut Connection,
    progress: &Board,
) -> Result<SyncStatus, Ended> {
    match connection.directory() {
        Ok(directory) => {
            let entry = progress.begin(Work::Sync { account: owned.account.name.clone() });
            sync::sync(owned, &Shown { directory: &directory, entry }).await
        }
        Err(error) => sync::attempt::fail(owned, error.into()).await,
    }
}

/// Sets the account's gauges. `known` is `None` while the account is stopped.
fn measure(account: &str, known: Option<&Known>, blind: bool) {
    let latest = known.and_then(|known| known.latest.as_ref());
    let holding = [
        ("stopped", known.is_none()),
        ("repair", known.is_some_and(|known| known.repair.is_some())),
        // A hold lasts until it is released or the directory recovers, no matter what fails in between.
        ("held", latest.is_some_and(|latest| latest.hold.is_some() && latest.release.is_none())),
        ("blind", blind),
    ];
    needs_person(
        account,
        &holding.into_iter().filter_map(|(reason, holds)| holds.then_some(reason)).collect::<Vec<_>>(),
    );
    let held = known.map(|known| Held {
        users: known.table(Kind::User).len(),
        groups: known.table(Kind::Group).len(),
        memberships: known.memberships_len(),
    });
    telemetry::holds(account, held);
    // Never 0 while it is paused, whatever time the request states.
    let paused = latest.and_then(|latest| latest.pause.as_ref()).map_or(0, |pause| pause.at.max(1));
    Metric::PausedSince.set(paused as f64 / 1_000.0, [("account", account)]);
    if let Some(completed) = known.and_then(|known| known.completed.as_ref()) {
        Metric::LastCompleted.set(completed.started_at as f64 / 1_000.0, [("account", account)]);
        // A sync that read modifications only does not know which principals are missing.
        if completed.users_read.is_some() {
            Metric::RemovalsSuppressed.set(completed.removals_suppressed as f64, [("account", account)]);
        }
    }
}

fn report(account: &str, status: &SyncStatus, wait: Duration, blind: bool) {
    let sync = status.sync;
    let (users, groups, memberships) = (status.users_read, status.groups_read, status.memberships_read);
    let (changes, next_s) = (status.events_published(), wait.as_secs());
    let code = status.reason_code.as_ref().map(ReasonCode::as_str).unwrap_or_default();
    let reason = status.reason.as_deref().unwrap_or_default();
    Metric::Syncs.add(1, [("account", account), ("status", status.status.as_str())]);
    for finding in &status.findings {
        warn!(sync, "{finding}");
    }
    match status.status {
        Status::Completed => info!(sync, users, groups, memberships, changes, next_s, "sync completed"),
        Status::Held => {
            let hold = status.hold.as_ref().map(ToString::to_string);
            warn!(sync, hold, reason, "sync held: a person has to look");
        }
        Status::Failed if blind => {
            error!(sync, code, reason, next_s, "sync failed again: a person has to look")
        }
        Status::Failed | Status::Running => warn!(sync, code, reason, next_s, "sync failed"),
    }
}
