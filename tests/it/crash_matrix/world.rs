//! One round: a topic prefix, directories that change, processes that die, and the judgement of the checker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use scimtail::kafka::partition_of;
use serde_json::Value;
use tempfile::TempDir;

use super::checker::{Checker, Judgement};
use super::directory::{Directories, Version};
use super::plan::{CALM, Kind, Plan};
use super::process::{End, Process};
use crate::services::{Broker, services, unique_prefix};

pub const TOKEN: &str = "crash-matrix-token";
const PARTITIONS: i32 = 2;
/// Bound on the wait until a process has done its part, or is dead. Above the time that scimtail waits for a broker
/// that went away.
const WAIT: Duration = Duration::from_secs(150);
/// As short as the extra brokers allow: a takeover waits this long.
const SESSION_MS: u32 = 2_000;
/// The longest record under a bound in the configuration; less than a long title.
const NARROW_BYTES: usize = 4_000;
const ONCE: [&str; 2] = ["run", "--once"];

/// Accounts by their role in a run.
struct Accounts {
    /// Two in one shard, one of which publishes its baseline, and one in another.
    busy: [String; 3],
    /// Their neighbour, whose directory never changes.
    quiet: String,
    /// Another neighbour, which leaves the configuration after its first sync.
    gone: String,
}

impl Accounts {
    fn new() -> Accounts {
        let mut names: Vec<String> = Vec::new();
        for partition in [0, 0, 1, 0, 0] {
            let name = (0..)
                .map(|number| format!("acct-{number}"))
                .find(|name| partition_of(name, PARTITIONS) == partition && !names.contains(name));
            names.push(name.expect("numbers do not end"));
        }
        let [first, second, third, quiet, gone] = names.try_into().expect("five");
        Accounts { busy: [first, second, third], quiet, gone }
    }

    fn configured(&self, all: bool) -> Vec<&String> {
        let gone = all.then_some(&self.gone);
        self.busy.iter().chain([&self.quiet]).chain(gone).collect()
    }

    fn baseline(&self, name: &str) -> &'static str {
        if name == self.busy[1] || name == self.quiet { "events" } else { "state" }
    }
}

/// One round's topics, and the contents of the directories.
pub struct World<'a> {
    broker: &'a mut Broker,
    checker: &'a mut Checker,
    directories: &'a Directories,
    accounts: Accounts,
    versions: BTreeMap<String, Version>,
    folder: TempDir,
    prefix: String,
    processes: usize,
    /// The first sync of every account has completed.
    settled: bool,
}

/// The outcome of a run.
pub struct Run {
    /// The fault struck.
    pub struck: bool,
    /// The end of the process that the fault was for.
    pub end: End,
    /// Calm syncs until the state was the newest version.
    pub syncs: usize,
    pub judgement: Judgement,
}

impl<'a> World<'a> {
    pub async fn new(
        broker: &'a mut Broker,
        checker: &'a mut Checker,
        directories: &'a Directories,
        random: &mut fastrand::Rng,
    ) -> World<'a> {
        let accounts = Accounts::new();
        let prefix = unique_prefix("crash");
        let names: Vec<(String, &str)> =
            accounts.configured(true).into_iter().map(|name| (name.clone(), accounts.baseline(name))).collect();
        checker.begin(&prefix, PARTITIONS, &names);
        let mut versions = BTreeMap::new();
        for (name, _) in &names {
            let version = Version::first(random);
            directories.set(name, version.clone());
            checker.version(name, version.json());
            versions.insert(name.clone(), version);
        }
        let folder = tempfile::tempdir().expect("a temporary directory");
        let mut world =
            World { broker, checker, directories, accounts, versions, folder, prefix, processes: 0, settled: false };
        world.configure();
        world.done(&["topics", "--create"]).await.expect("topics are created");
        world
    }

    /// Writes the configurations.
    fn configure(&self) {
        for (file, more) in [("calm", String::new()), ("narrow", format!("\"message.max.bytes\" = {NARROW_BYTES}\n"))] {
            let mut text = format!(
                r#"
[kafka]
brokers = ["{}"]
topic_prefix = "{}"
partitions = {PARTITIONS}
replication = 1
create_topics = {}
[kafka.properties]
"session.timeout.ms" = {SESSION_MS}
"heartbeat.interval.ms" = 300
{more}[registry]
url = "{}"
register = {}
[defaults]
interval = "60s"
[defaults.guard]
max_ratio = 1.0
"#,
                self.broker.bootstrap,
                self.prefix,
                // The records of the first sync are there: a start takes half as long.
                !self.settled,
                services().registry,
                !self.settled,
            );
            for name in self.accounts.configured(!self.settled) {
                text.push_str(&format!(
                    "[[account]]\nname = \"{name}\"\nprovider = \"generic\"\nbase_url = \"{}\"\ntoken_env = \"{}\"\n\
                     baseline = \"{}\"\n",
                    self.directories.base_url(name),
                    crate::program::TOKEN_VARIABLE,
                    self.accounts.baseline(name)
                ));
            }
            std::fs::write(self.config(file), text).expect("a configuration file");
        }
    }

    fn config(&self, file: &str) -> PathBuf {
        self.folder.path().join(format!("{file}.toml"))
    }

    fn start(&mut self, config: &str, arguments: &[&str], failpoints: &str) -> Process {
        self.processes += 1;
        let log = self.folder.path().join(format!("{}.log", self.processes));
        let config = self.config(config);
        Process::start(config.to_str().expect("a path in UTF-8"), TOKEN, arguments, failpoints, log)
    }

    /// Runs a command that has to succeed.
    async fn done(&mut self, arguments: &[&str]) -> Result<(), String> {
        let mut process = self.start("calm", arguments, CALM);
        match process.ended(WAIT).await? {
            End::Exited(0) => Ok(()),
            end => Err(format!("{arguments:?} ended with {end:?}: {}", process.tail())),
        }
    }

    /// A calm sync; false where it has to be tried once more.
    async fn calm(&mut self) -> Result<bool, String> {
        let end = self.start("calm", &["run", "--once"], CALM).ended_as_it_may(WAIT).await?;
        Ok(end == End::Exited(0))
    }

    /// New versions of the busy accounts, for one of them in any case. No process may be reading them.
    fn change(&mut self, random: &mut fastrand::Rng, lengthen: bool) {
        for (number, name) in self.accounts.busy.iter().enumerate() {
            if number > 0 && random.u8(0..5) == 0 {
                continue;
            }
            let version = self.versions.get_mut(name).expect("every account has one");
            version.change(random);
            if lengthen && number == 0 {
                version.lengthen(random);
            }
            self.directories.set(name, version.clone());
            self.checker.version(name, version.json());
        }
    }

    fn denied(&self) -> Value {
        let denied = self.versions.keys().map(|name| (name.clone(), self.directories.denied(name)));
        Value::Object(denied.collect())
    }

    pub async fn run(&mut self, plan: &Plan, random: &mut fastrand::Rng) -> Result<Run, String> {
        if self.settled {
            self.change(random, plan.kind == Kind::Aborted);
        }
        let (struck, end) = self.fault(plan, random).await?;
        let mut syncs = 1;
        if !self.calm().await? {
            syncs = 2;
            let again = self.done(&["run", "--once"]).await;
            again.map_err(|reason| format!("not converged after two calm syncs: {reason}"))?;
        }
        let mut judgement = self.judged()?;
        // Now and then one more: an unchanged directory writes its `syncs` records and nothing else.
        if syncs == 1 && random.u8(0..4) == 0 {
            self.done(&["run", "--once"]).await?;
            let again = self.judged()?;
            if again.records != again.transactions + again.completed {
                return Err(format!("a second calm sync wrote something: {again:?}"));
            }
            judgement += &again;
        }
        if !self.settled {
            self.settled = true;
            self.configure();
            self.checker.untouched(&self.accounts.quiet, "state");
            self.checker.untouched(&self.accounts.gone, "everything");
        }
        Ok(Run { struck, end, syncs, judgement })
    }

    fn judged(&mut self) -> Result<Judgement, String> {
        let judgement = self.checker.check(&self.denied(), true);
        if judgement.complaints.is_empty() { Ok(judgement) } else { Err(judgement.complaints.join("\n")) }
    }

    /// Keeps logs, and everything the checker knows, for a person who looks for the reason of a failure.
    pub fn keep(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.checker.keep(&self.folder.path().join("records.jsonl"));
        self.folder.path().to_owned()
    }

    /// Lets the fault strike. Returns whether it did, and how the process ended. It does not strike if the process did
    /// not get there.
    async fn fault(&mut self, plan: &Plan, random: &mut fastrand::Rng) -> Result<(bool, End), String> {
        let failpoints = plan.failpoints();
        match plan.kind {
            Kind::Once => self.once("calm", &failpoints).await,
            Kind::Aborted => self.once("narrow", &failpoints).await,
            Kind::Requested => {
                // An account that is still new has no record: nothing was asked of it.
                for name in self.accounts.busy.clone().iter().take(2) {
                    self.done(&["poll", name]).await?;
                }
                self.once("calm", &failpoints).await
            }
            Kind::BrokerToo => {
                let ended = self.once("calm", &failpoints).await?;
                self.broker.kill();
                self.broker.restart();
                Ok(ended)
            }
            Kind::Overtaken => {
                let mut process = self.start("calm", &ONCE, &failpoints);
                let stopped = process.until("it stops", WAIT, Process::is_stopped).await?.is_none();
                if stopped {
                    self.done(&ONCE).await?;
                    process.signal("CONT");
                }
                Ok((stopped, process.ended_as_it_may(WAIT).await?))
            }
            Kind::BrokerUnder => {
                let service = random.bool();
                let arguments = if service { &ONCE[..1] } else { &ONCE };
                let mut process = self.start("calm", arguments, &failpoints);
                let synced = self.all_synced(1);
                let reached = |process: &Process| process.is_stopped() || synced(process);
                let ended = process.until("it stops or has synced", WAIT, reached).await?.is_some();
                let stopped = !ended && process.is_stopped();
                self.broker.kill();
                if random.bool() {
                    // It meets a broker that is not there, and then one that is.
                    process.signal("CONT");
                }
                self.broker.restart();
                process.signal("CONT");
                if service && !ended {
                    // It goes on by itself, without a restart.
                    if let Some(end) = process.until("it syncs in spite of it", WAIT, self.all_synced(1)).await? {
                        return Err(format!("the service ended with {end:?}: {}", process.tail()));
                    }
                    process.signal("TERM");
                }
                Ok((stopped, process.ended_as_it_may(WAIT).await?))
            }
            Kind::Service => self.service(&failpoints, random).await,
            Kind::Joined => self.joined(&failpoints, random).await,
            Kind::Lost => self.lost(&failpoints).await,
        }
    }

    async fn once(&mut self, config: &str, failpoints: &str) -> Result<(bool, End), String> {
        let end = self.start(config, &ONCE, failpoints).ended_as_it_may(WAIT).await?;
        Ok((end == End::Killed, end))
    }

    /// Waits until every configured account has completed `syncs` syncs, or the process ended.
    async fn synced(&self, process: &mut Process, syncs: usize) -> Result<Option<End>, String> {
        process.until("every account syncs", WAIT, self.all_synced(syncs)).await
    }

    fn all_synced(&self, syncs: usize) -> impl Fn(&Process) -> bool + Send + use<> {
        let names: Vec<String> = self.accounts.configured(!self.settled).into_iter().cloned().collect();
        move |process: &Process| names.iter().all(|name| process.completed(name) >= syncs)
    }

    async fn service(&mut self, failpoints: &str, random: &mut fastrand::Rng) -> Result<(bool, End), String> {
        let mut service = self.start("calm", &["run"], failpoints);
        let mut ended = self.synced(&mut service, 1).await?.is_some();
        if self.settled && !ended {
            // No process reads a directory now or before the interval is over.
            self.change(random, false);
            let name = self.accounts.busy[0].clone();
            self.done(&["poll", &name]).await?;
            let polled = |service: &Process| service.completed(&name) >= 2;
            ended = service.until("it syncs when it is asked to", WAIT, polled).await?.is_some();
        }
        if !ended {
            service.signal("TERM");
        }
        let end = service.ended_as_it_may(WAIT).await?;
        Ok((end == End::Killed, end))
    }

    async fn joined(&mut self, failpoints: &str, random: &mut fastrand::Rng) -> Result<(bool, End), String> {
        let armed_first = random.bool();
        let (first, second) = if armed_first { (failpoints, CALM) } else { (CALM, failpoints) };
        let mut one = self.start("calm", &["run"], first);
        // The second comes while the first has everything, or while it is about to.
        if random.bool() {
            self.synced(&mut one, 1).await?;
        } else {
            one.until("it is assigned its shards", WAIT, |one| !one.says("shards assigned").is_empty()).await?;
        }
        let mut two = self.start("calm", &["run"], second);
        two.until("it is a member", WAIT, |two| !two.says("shards assigned").is_empty()).await?;
        let (mut armed, mut other) = if armed_first { (one, two) } else { (two, one) };
        // A living instance has every shard or its share of them, each acquired.
        let settled = |one: &Process, two: &Process| shares(one) + shares(two) >= PARTITIONS as usize;
        armed.until("the shards are shared", WAIT, |armed| settled(armed, &other)).await?;
        let struck = armed.end() == Some(End::Killed);
        if armed.end().is_none() {
            armed.signal("KILL");
        }
        let end = armed.ended_as_it_may(WAIT).await?;
        let alone = |other: &Process| shares(other) == PARTITIONS as usize;
        if let Some(end) = other.until("the remaining instance takes over", WAIT, alone).await? {
            return Err(format!("the remaining instance ended with {end:?}: {}", other.tail()));
        }
        other.signal("TERM");
        match other.ended(WAIT).await? {
            End::Exited(0) => Ok((struck, end)),
            end => Err(format!("the remaining instance ended with {end:?}: {}", other.tail())),
        }
    }

    async fn lost(&mut self, failpoints: &str) -> Result<(bool, End), String> {
        let mut one = self.start("calm", &["run"], failpoints);
        if self.synced(&mut one, 1).await?.is_some() {
            return Err(format!("it ended: {}", one.tail()));
        }
        one.signal("STOP");
        let mut two = self.start("calm", &["run"], CALM);
        if self.synced(&mut two, 1).await?.is_some() {
            return Err(format!("the new owner ended: {}", two.tail()));
        }
        one.signal("CONT");
        let lost = |one: &Process| !one.says("shards lost: the session in the consumer group ended").is_empty();
        one.until("it hears that it lost its shards", WAIT, lost).await?;
        let end = one.ended_as_it_may(WAIT).await.map_err(|reason| format!("it was not killed: {reason}"))?;
        two.signal("TERM");
        match two.ended(WAIT).await? {
            End::Exited(0) => Ok((end == End::Killed, end)),
            end => Err(format!("the new owner ended with {end:?}: {}", two.tail())),
        }
    }
}

/// How many shards a service has: assigned to it and acquired since.
fn shares(service: &Process) -> usize {
    service.shards().len()
}
