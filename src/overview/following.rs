//! What is seen of the accounts, kept up to date from the topics while people look.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::topic_partition_list::Offset;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::recent::{HOUR_MS, HOURS, LAST_MAX, Line, Recent};
use super::seen::{AllSeen, read_all, take};
use crate::avro::wire::ChangeEvent;
use crate::avro::{Decoder, Registry};
use crate::config::AccountConfig;
use crate::kafka::KafkaClient;
use crate::kafka::blocking::on_its_own_thread;
use crate::kafka::group::{self, Group};
use crate::kafka::offsets::{offsets_at, watermarks};
use crate::kafka::read::{ReadRecord, follow, read_from};
use crate::log::Topic;
use crate::service::ServiceError;

/// Before Kafka is read again after a failure, and between two questions about the consumer group.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What was read so far.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// `None` until `syncs` was read once.
    pub seen: Option<AllSeen>,
    /// `None` until the events of the last day were read once.
    pub recent: Option<Recent>,
    pub group: Option<Group>,
    /// Why the facts may be old.
    pub problem: Option<String>,
}

/// Facts that are kept up to date as long as this lives.
#[derive(Debug)]
pub struct Following {
    /// The accounts that are followed.
    pub accounts: Vec<Arc<AccountConfig>>,
    facts: Shared,
    _stop: DropGuard,
    _reading: JoinSet<()>,
}

#[derive(Clone, Debug)]
struct Shared {
    facts: Arc<Mutex<Facts>>,
    /// Counts the changes.
    changed: watch::Sender<u64>,
    stop: CancellationToken,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.lock());
        self.changed.send_modify(|count| *count += 1);
    }
}

impl Following {
    /// Begins to read, on threads of its own.
    pub fn start(kafka: &KafkaClient, registry: &Registry, accounts: Vec<Arc<AccountConfig>>, now: i64) -> Following {
        let stop = CancellationToken::new();
        let facts = Shared { facts: Arc::default(), changed: watch::Sender::new(0), stop: stop.clone() };
        let source = Source {
            kafka: kafka.clone(),
            names: accounts.iter().map(|config| config.account.name.clone()).collect(),
            accounts: accounts.clone(),
            facts: facts.clone(),
        };
        let mut reading = JoinSet::new();
        let (syncs, events, members) = (source.clone(), source.clone(), source);
        reading.spawn(keep_on(&facts, {
            let registry = registry.clone();
            move || syncs.clone().follow_syncs(Decoder::of_reader(registry.clone()))
        }));
        reading.spawn(keep_on(&facts, {
            let registry = registry.clone();
            move || events.clone().follow_events(Decoder::of_reader(registry.clone()), now)
        }));
        reading.spawn(keep_on(&facts, move || members.clone().follow_group()));
        Following { accounts, facts, _stop: stop.drop_guard(), _reading: reading }
    }

    /// The facts as they are now.
    pub fn now(&self) -> Facts {
        self.facts.lock().clone()
    }

    /// Resolves at each change of the facts.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.facts.changed.subscribe()
    }

    /// Waits until everything was read once, or until Kafka or the registry cannot be read; `wait` at most.
    pub async fn first(&self, wait: Duration) {
        let mut changes = self.changes();
        let known = async {
            loop {
                let facts = self.facts.lock().clone();
                if facts.problem.is_some() || (facts.seen.is_some() && facts.recent.is_some()) {
                    return;
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        drop(tokio::time::timeout(wait, known).await);
    }
}

/// Runs what `make` makes, again and again, until `facts.stop`. What it made blocks.
fn keep_on<W, M>(facts: &Shared, mut make: M) -> impl Future<Output = ()> + Send + use<W, M>
where
    M: FnMut() -> W + Send + 'static,
    W: FnOnce() -> Result<(), ServiceError> + Send + 'static,
{
    let facts = facts.clone();
    async move {
        while !facts.stop.is_cancelled() {
            if let Err(error) = on_its_own_thread(make()).await {
                facts.update(|facts| facts.problem = Some(error.to_string()));
            }
            tokio::select! {
                () = facts.stop.cancelled() => {}
                () = tokio::time::sleep(AGAIN_AFTER) => {}
            }
        }
    }
}

#[derive(Clone)]
struct Source {
    kafka: KafkaClient,
    accounts: Vec<Arc<AccountConfig>>,
    names: BTreeSet<String>,
    facts: Shared,
}

impl Source {
    fn partitions(&self) -> BTreeSet<i32> {
        self.accounts.iter().map(|config| config.account.partition).collect()
    }

    /// Where the topic ends now. What is written after that is read again by what follows from here.
    fn ends(&self, topic: Topic) -> Result<Vec<(i32, i64)>, ServiceError> {
        let end = |partition| Ok((partition, watermarks(&self.kafka, topic, partition)?.1));
        self.partitions().into_iter().map(end).collect()
    }

    fn answered(&self) -> impl FnMut(bool) + use<> {
        let (facts, kafka) = (self.facts.clone(), self.kafka.clone());
        move |answers| {
            let problem = (!answers).then(|| kafka.unreachable().to_string());
            facts.update(|facts| facts.problem = problem);
        }
    }

    fn go_on(&self) -> ControlFlow<()> {
        if self.facts.stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn follow_syncs(self, mut decoder: Decoder) -> impl FnOnce() -> Result<(), ServiceError> + Send + 'static {
        move || {
            // A record that is read twice changes nothing.
            let from = self.ends(Topic::Syncs)?;
            let mut all = read_all(&self.kafka, &mut decoder, &self.accounts)?;
            self.facts.update(|facts| (facts.seen, facts.problem) = (Some(all.clone()), None));
            follow(&self.kafka, Topic::Syncs, &offsets(&from), self.answered(), |record| {
                if let Some(record) = record
                    && let Some(account) = take(&mut all, &mut decoder, &self.names, &record)?
                {
                    let seen = all.get(&account).cloned().unwrap_or_default();
                    self.facts.update(|facts| drop(facts.seen.get_or_insert_default().insert(account, seen)));
                }
                Ok(self.go_on())
            })
        }
    }

    fn follow_events(
        self,
        mut decoder: Decoder,
        now: i64,
    ) -> impl FnOnce() -> Result<(), ServiceError> + Send + 'static {
        move || {
            let partitions: Vec<i32> = self.partitions().into_iter().collect();
            let from = self.ends(Topic::Events)?;
            let since = offsets_at(&self.kafka, Topic::Events, &partitions, now - HOURS as i64 * HOUR_MS)?;
            let (mut recent, mut newest, mut next) = (Recent::default(), Newest::default(), from);
            read_from(&self.kafka, Topic::Events, &since, |record| {
                if let Some((account, at)) = self.event(&record) {
                    recent.count(account, at);
                    newest.take(at, record.value);
                }
                // What follows begins behind what is read here.
                for (partition, offset) in &mut next {
                    if *partition == record.partition {
                        *offset = (*offset).max(record.offset + 1);
                    }
                }
                if self.facts.stop.is_cancelled() { Err(ServiceError::cancelled("no page is open")) } else { Ok(()) }
            })?;
            for (_, value) in newest.values {
                line(&mut decoder, &value).into_iter().for_each(|line| recent.show(line));
            }
            self.facts.update(|facts| facts.recent = Some(recent));
            follow(&self.kafka, Topic::Events, &offsets(&next), drop, |record| {
                if let Some(record) = record
                    && let Some((account, at)) = self.event(&record)
                {
                    let line = record.value.and_then(|value| line(&mut decoder, value));
                    self.facts.update(|facts| {
                        let recent = facts.recent.get_or_insert_default();
                        recent.count(account, at);
                        line.into_iter().for_each(|line| recent.show(line));
                    });
                }
                Ok(self.go_on())
            })
        }
    }

    /// Account and time of an event, from its key; `None` for a record of no account here.
    fn event<'r>(&self, record: &'r ReadRecord<'_>) -> Option<(&'r str, i64)> {
        let key = std::str::from_utf8(record.key?).ok()?;
        let account = key.split('/').next().filter(|account| self.names.contains(*account))?;
        Some((account, record.written_at()?))
    }

    fn follow_group(self) -> impl FnOnce() -> Result<(), ServiceError> + Send + 'static {
        move || {
            // If no broker answers, the thread that follows `syncs` says so.
            let group = group::describe(&self.kafka).unwrap_or_default();
            if self.facts.lock().group != group {
                self.facts.update(|facts| facts.group = group);
            }
            Ok(())
        }
    }
}

fn offsets(from: &[(i32, i64)]) -> Vec<(i32, Offset)> {
    from.iter().map(|(partition, offset)| (*partition, Offset::Offset(*offset))).collect()
}

/// An event for people. What cannot be understood is counted only.
fn line(decoder: &mut Decoder, value: &[u8]) -> Option<Line> {
    decoder.decode::<ChangeEvent>(Topic::Events, value).ok().map(|event| Line::of(&event))
}

/// The newest events of a long read, undecoded.
#[derive(Default)]
struct Newest {
    /// Time and value.
    values: Vec<(i64, Vec<u8>)>,
}

impl Newest {
    fn take(&mut self, at: i64, value: Option<&[u8]>) {
        let Some(value) = value else { return };
        let oldest = self.values.iter().enumerate().min_by_key(|(_, (at, _))| *at).map(|(index, (at, _))| (index, *at));
        match oldest {
            Some((index, oldest)) if self.values.len() >= LAST_MAX => {
                if at >= oldest {
                    self.values[index] = (at, value.to_owned());
                }
            }
            _ => self.values.push((at, value.to_owned())),
        }
    }
}
