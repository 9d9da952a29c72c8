//! Several instances of the service on one prefix: their shards, and the view of readers (who notice nothing).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use scimtail::kafka::partition_of;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::broker::directory::LargeDirectory;
use crate::program::Program;
use crate::reader::{ReadRecord, compacted, read};
use crate::services::{services, unique_prefix};

const TOKEN: &str = "scale-out-test-token";
const PARTITIONS: i32 = 6;
const USERS: usize = 30;
/// Bound on the wait for something that must happen.
const WAIT: Duration = Duration::from_secs(120);
/// The time that the service promises for SIGTERM.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// As small as brokers allow by default.
const SHORT_SESSION: Duration = Duration::from_secs(6);
/// Longer than any test waits for a takeover: no shard moves because of it.
const LONG_SESSION: Duration = Duration::from_secs(60);

/// Names of accounts, by the partitions they shall live in.
fn names(partitions: impl IntoIterator<Item = i32>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for partition in partitions {
        let name = (0..)
            .map(|number| format!("acct-{number}"))
            .find(|name| partition_of(name, PARTITIONS) == partition && !names.contains(name));
        names.push(name.expect("numbers do not end"));
    }
    names
}

fn configuration(prefix: &str, base_url: &str, session: Duration, accounts: &[String]) -> String {
    let mut text = format!(
        r#"
[kafka]
brokers = ["{}"]
topic_prefix = "{prefix}"
partitions = {PARTITIONS}
replication = 1
[kafka.properties]
"session.timeout.ms" = {}
"heartbeat.interval.ms" = 1000
[registry]
url = "{}"
[defaults]
interval = "1s"
"#,
        services().bootstrap,
        session.as_millis(),
        services().registry
    );
    for name in accounts {
        text.push_str(&account(name, base_url));
    }
    text
}

fn account(name: &str, base_url: &str) -> String {
    format!(
        "[[account]]\nname = \"{name}\"\nprovider = \"generic\"\nbase_url = \"{base_url}\"\ntoken_env = \"{}\"\n",
        crate::program::TOKEN_VARIABLE
    )
}

async fn program(test: &str, base_url: &str, session: Duration, accounts: &[String]) -> Program {
    let prefix = unique_prefix(test);
    let program = Program::with_text(&prefix, TOKEN, &configuration(&prefix, base_url, session, accounts));
    // The topics have to exist before they can be read.
    let created = program.run(&["topics", "--create"]).await;
    assert_eq!(created.code, 0, "{created:?}");
    program
}

/// One `scimtail run`, and what its log says of its shards.
struct Instance {
    child: Child,
    log: PathBuf,
}

impl Instance {
    fn start(program: &Program, name: &str) -> Instance {
        Instance::start_with(program, name, "")
    }

    fn start_with(program: &Program, name: &str, failpoints: &str) -> Instance {
        let log = program.file().with_file_name(format!("{name}.log"));
        let mut command = program.command(&["--log-format", "json", "run"]);
        command.env("FAILPOINTS", failpoints);
        command.stdout(Stdio::null()).stderr(File::create(&log).expect("a log file"));
        Instance { child: command.spawn().expect("the program starts"), log }
    }

    /// Whole lines of the log.
    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).expect("a log file");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
    }

    fn says(&self, message: &str) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line["message"] == message).collect()
    }

    /// How often it acquired each shard.
    fn acquired(&self) -> BTreeMap<i32, usize> {
        let mut times = BTreeMap::new();
        for line in self.says("shard acquired") {
            *times.entry(line["partition"].as_i64().expect("a number") as i32).or_default() += 1;
        }
        times
    }

    /// The shards that the group assigned to it.
    fn assigned(&self) -> BTreeSet<i32> {
        let mut assigned = BTreeSet::new();
        for line in self.lines() {
            match line["message"].as_str().unwrap_or_default() {
                "shards assigned" => assigned.extend(partitions(&line)),
                // Given away, or lost.
                other if other.starts_with("shards ") => assigned = &assigned - &partitions(&line),
                _ => {}
            }
        }
        assigned
    }

    /// Assigned, and acquired since then. A shard that is given away while it is being acquired may be acquired a
    /// moment later.
    fn has(&self) -> BTreeSet<i32> {
        let (mut assigned, mut has) = (BTreeSet::new(), BTreeSet::new());
        for line in self.lines() {
            match line["message"].as_str().unwrap_or_default() {
                "shards assigned" => assigned.extend(partitions(&line)),
                "shard acquired" => {
                    let partition = line["partition"].as_i64().map(|partition| partition as i32);
                    has.extend(partition.filter(|partition| assigned.contains(partition)));
                }
                other if other.starts_with("shards ") => {
                    let gone = partitions(&line);
                    (assigned, has) = (&assigned - &gone, &has - &gone);
                }
                _ => {}
            }
        }
        has
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = std::process::Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(status.expect("kill runs").success());
    }

    async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + STOP_WAIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                return status;
            }
            assert!(Instant::now() < deadline, "it did not end in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(mut self) {
        self.signal("TERM");
        assert_eq!(self.ended().await.code(), Some(0));
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let show = std::thread::panicking();
        if show {
            println!("{}:\n{}", self.log.display(), std::fs::read_to_string(&self.log).unwrap_or_default());
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn is_lost(line: &Value) -> bool {
    line["message"].as_str().is_some_and(|message| message.starts_with("shards lost"))
}

/// `[0, 3]` in a log line.
fn partitions(line: &Value) -> BTreeSet<i32> {
    let text = line["partitions"].as_str().unwrap_or_default();
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

fn all() -> BTreeSet<i32> {
    (0..PARTITIONS).collect()
}

/// Looks again and again, with a deadline.
async fn until(what: &str, done: impl Fn() -> bool) -> Duration {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < WAIT, "not within {} s: {what}", WAIT.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    started.elapsed()
}

/// The instances hold every shard between them, each has some, and no shard has two owners.
fn share(instances: &[&Instance]) -> bool {
    let held: Vec<BTreeSet<i32>> = instances.iter().map(|instance| instance.has()).collect();
    held.iter().all(|held| !held.is_empty())
        && held.iter().map(BTreeSet::len).sum::<usize>() == all().len()
        && held.iter().flatten().copied().collect::<BTreeSet<i32>>() == all()
}

/// Numbers of the newest completed sync of each account.
async fn completed(program: &Program) -> BTreeMap<String, i64> {
    let records = read(services(), &[program.topic("syncs")]).await;
    let markers = compacted(&records, &program.topic("syncs"));
    let markers = markers.into_iter().filter(|(key, _)| !key.contains('/'));
    markers.map(|(key, record)| (key, record.value["sync"].as_i64().expect("a number"))).collect()
}

/// Every account completes two syncs from now on: the second one began after this was asked.
async fn each_syncs_again(program: &Program, accounts: &[String]) {
    let before = completed(program).await;
    let started = Instant::now();
    loop {
        let now = completed(program).await;
        let number = |all: &BTreeMap<String, i64>, name: &String| all.get(name).copied().unwrap_or(0);
        if accounts.iter().all(|name| number(&now, name) >= number(&before, name) + 2) {
            return;
        }
        assert!(started.elapsed() < WAIT, "not every account goes on: {before:?}, {now:?}");
    }
}

/// Nothing lost, nothing doubled, and never two owners: every reader may rely on this, account by account.
async fn assert_exactly_once(program: &Program, accounts: &[String]) {
    let topics = ["events", "users", "syncs"].map(|suffix| program.topic(suffix));
    let records = read(services(), &topics).await;
    let state = compacted(&records, &topics[1]);
    for name in accounts {
        let own = |record: &&ReadRecord| record.value["account"] == name.as_str();
        let events: Vec<&ReadRecord> = records.iter().filter(|record| record.topic == topics[0]).filter(own).collect();
        assert!(!events.is_empty(), "{name} has seen changes");
        // Old and new values link up from the baseline to the state: an event too few or too many breaks the chain.
        let mut values: BTreeMap<(String, String), Value> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for (index, event) in events.iter().enumerate() {
            let (value, key) = (&event.value, event.key.clone().expect("a key"));
            assert_eq!(value["sequence"], Value::from(index + 1), "{name}: gapless");
            assert!(ids.insert(value["event_id"].to_string()), "{name}: {} twice", value["event_id"]);
            for change in value["changes"].as_array().expect("changes") {
                let attribute = change["attribute"].as_str().expect("a path").to_owned();
                if let Some(before) = values.insert((key.clone(), attribute), change["new_value"].clone()) {
                    assert_eq!(before, change["old_value"], "{name}: {key}");
                }
            }
            assert_eq!(value["account"], name.as_str());
        }
        for ((key, attribute), value) in &values {
            assert_eq!(&state[key].value["attributes"][attribute], value, "{key}: state is what the last event says");
        }
        let prefix = format!("{name}/");
        let users = state.iter().filter(|(key, _)| key.starts_with(&prefix));
        assert_eq!(users.count(), USERS, "{name}");
        // Two owners at once would number their syncs alike, or out of order.
        let latest = format!("{name}/latest");
        let mut last = (0, "completed".to_owned());
        let (mut sequence, mut markers) = (0, 0);
        for record in records.iter().filter(|record| record.topic == topics[2]).filter(own) {
            let sync = record.value["sync"].as_i64().expect("a number");
            let status = record.value["status"].as_str().expect("a status").to_owned();
            if record.key.as_deref() == Some(&latest) {
                let follows = sync == last.0 + 1 || (sync == last.0 && last.1 == "running");
                assert!(follows, "{name}: {status} sync {sync} after {last:?}");
                last = (sync, status);
                let reached = record.value["sequence"].as_i64().expect("a number");
                assert!(reached >= sequence, "{name}: sequence {reached} after {sequence}");
                sequence = reached;
            } else {
                assert!(sync > markers, "{name}: sync {sync} completed after {markers}");
                markers = sync;
            }
        }
        assert_eq!(sequence, events.len() as i64);
    }
    // All of them follow one directory, so they have to agree.
    let titles = |name: &String| -> Vec<Value> {
        let prefix = format!("{name}/");
        let own = state.iter().filter(|(key, _)| key.starts_with(&prefix));
        own.map(|(_, record)| record.value["attributes"].clone()).collect()
    };
    for name in accounts {
        assert_eq!(titles(name), titles(&accounts[0]), "{name} and {}", accounts[0]);
    }
}

/// Publishes the remaining changes, then finds nothing more.
async fn settle(program: &Program, accounts: &[String]) {
    for _ in 0..2 {
        let ended = program.run(&["run", "--once"]).await;
        assert_eq!(ended.code, 0, "{ended:?}");
    }
    let ended = program.run(&["run", "--once"]).await;
    let unchanged = ended.out.lines().filter(|line| line.contains("no change")).count();
    assert_eq!(unchanged, accounts.len(), "{ended:?}");
    assert_exactly_once(program, accounts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_instances_that_join_and_are_killed_lose_and_double_nothing() {
    let directory = LargeDirectory::start(USERS, 2, 20, 20, TOKEN).await;
    // One account a shard, and a second one in two of them.
    let accounts = names((0..PARTITIONS).chain([0, 3]));
    let program = program("takeover", &directory.base_url(), SHORT_SESSION, &accounts).await;

    let mut first = Instance::start(&program, "first");
    until("the first has everything", || first.has() == all()).await;
    let second = Instance::start(&program, "second");
    until("two share", || share(&[&first, &second])).await;
    assert_eq!(second.has().len(), 3, "evenly");
    let undisturbed = first.assigned();
    assert!(undisturbed.iter().all(|shard| first.acquired()[shard] == 1), "what stays is not acquired again");
    directory.churn(0.5, 1);
    each_syncs_again(&program, &accounts).await;

    directory.churn(0.5, 2);
    first.child.kill().expect("SIGKILL");
    first.ended().await;
    directory.churn(0.5, 3);
    let took = until("the second has everything", || second.has() == all()).await;
    println!("taken over {} ms after SIGKILL, session {} ms", took.as_millis(), SHORT_SESSION.as_millis());
    // The broker notices with its own clock, and an acquisition takes its time.
    assert!(took < SHORT_SESSION * 3, "{took:?}");
    directory.churn(0.5, 4);
    each_syncs_again(&program, &accounts).await;

    let before = second.acquired();
    let third = Instance::start(&program, "third");
    directory.churn(0.5, 5);
    until("two share again", || share(&[&second, &third])).await;
    assert_eq!(third.has().len(), 3, "only what must move");
    assert_eq!(second.acquired(), before, "what stays is not acquired again");
    directory.churn(0.5, 6);
    each_syncs_again(&program, &accounts).await;

    // A process that is paused beyond its session wakes up as a stranger: its next commit is fenced.
    third.signal("STOP");
    until("the second has everything again", || second.has() == all()).await;
    directory.churn(0.5, 7);
    third.signal("CONT");
    until("it has lost its shards", || third.lines().iter().any(is_lost)).await;
    until("two share once more", || share(&[&second, &third])).await;
    directory.churn(0.5, 8);
    each_syncs_again(&program, &accounts).await;
    assert!(second.says("acquisition ended; acquiring again").is_empty(), "a rebalance fences no instance");
    second.stop().await;
    third.stop().await;
    settle(&program, &accounts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_a_rolling_restart_loses_and_doubles_nothing_and_waits_for_no_session() {
    let directory = LargeDirectory::start(USERS, 2, 20, 20, TOKEN).await;
    let accounts = names((0..PARTITIONS).chain([2]));
    let program = program("rolling", &directory.base_url(), LONG_SESSION, &accounts).await;
    let mut instances = vec![Instance::start(&program, "one"), Instance::start(&program, "two")];
    until("two share", || share(&[&instances[0], &instances[1]])).await;
    each_syncs_again(&program, &accounts).await;
    for (round, name) in ["three", "four"].into_iter().enumerate() {
        directory.churn(0.5, round as u64);
        let leaving = instances.remove(0);
        let staying = &instances[0];
        let kept = staying.assigned();
        let before = staying.acquired();
        leaving.stop().await;
        let took = until("the remaining instance has every shard", || staying.has() == all()).await;
        println!("taken over {} ms after the other instance ended", took.as_millis());
        assert!(took < LONG_SESSION / 2, "{took:?}: it waited for the session");
        assert!(
            kept.iter().all(|shard| staying.acquired()[shard] == before[shard]),
            "what stays is not acquired again"
        );
        directory.churn(0.5, 10 + round as u64);
        instances.push(Instance::start(&program, name));
        until("two share again", || share(&[&instances[0], &instances[1]])).await;
        each_syncs_again(&program, &accounts).await;
    }
    for instance in instances {
        assert!(instance.says("acquisition ended; acquiring again").is_empty(), "a rebalance fences no instance");
        instance.stop().await;
    }
    settle(&program, &accounts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_come_and_go_with_the_file_and_others_are_not_disturbed() {
    let directory = LargeDirectory::start(USERS, 2, 20, 20, TOKEN).await;
    let accounts = names([0, 1, 1]);
    let [untouched, going, coming] = [&accounts[0], &accounts[1], &accounts[2]];
    let url = directory.base_url();
    let program = program("reload", &url, LONG_SESSION, &accounts[..2]).await;
    let write = |names: &[String]| {
        let text = configuration(&program.prefix, &url, LONG_SESSION, names);
        std::fs::write(program.file(), text).expect("the configuration is written");
    };
    let service = Instance::start(&program, "service");
    until("only shards with accounts are acquired", || service.has() == BTreeSet::from([0, 1])).await;
    assert_eq!(service.assigned(), all());
    each_syncs_again(&program, &accounts[..2]).await;

    // An invalid file changes nothing and says so in one line.
    let good = std::fs::read_to_string(program.file()).expect("the configuration");
    for (bad, words) in [
        (good.replacen("interval = \"1s\"", "intervall = \"1s\"", 1), "did you mean `interval`?"),
        (good.replacen("topic_prefix = \"", "topic_prefix = \"other-", 1), "restart"),
    ] {
        let before = service.says("the configuration stays as it was").len();
        std::fs::write(program.file(), bad).expect("the configuration is written");
        service.signal("HUP");
        until("it complains", || service.says("the configuration stays as it was").len() > before).await;
        let complaint = service.says("the configuration stays as it was").pop().expect("a line");
        let reason = complaint["reason"].as_str().expect("a reason");
        assert!(reason.contains(words) && reason.lines().count() == 1, "{reason}");
    }
    each_syncs_again(&program, &accounts[..2]).await;

    directory.churn(0.5, 1);
    write(&accounts);
    service.signal("HUP");
    each_syncs_again(&program, &accounts).await;
    assert_eq!(service.acquired(), BTreeMap::from([(0, 1), (1, 2)]), "only the shard with the new account");
    directory.churn(0.5, 2);
    each_syncs_again(&program, &accounts).await;

    // A new order of unchanged accounts changes nothing.
    write(&[going.clone(), coming.clone(), untouched.clone()]);
    service.signal("HUP");
    until("it has read the file", || {
        service.says("the configuration was read again; shards whose accounts changed start again").len() == 2
    })
    .await;
    assert_eq!(service.acquired(), BTreeMap::from([(0, 1), (1, 2)]));

    // The file alone is enough.
    write(&[untouched.clone(), coming.clone()]);
    until("the shard starts again", || service.acquired() == BTreeMap::from([(0, 1), (1, 3)])).await;
    let topics = ["users", "groups", "memberships", "syncs", "events"].map(|suffix| program.topic(suffix));
    let of_going = |records: Vec<ReadRecord>| -> Vec<ReadRecord> {
        let own = |record: &ReadRecord| record.key.as_deref().is_some_and(|key| key.split('/').next() == Some(going));
        records.into_iter().filter(own).collect()
    };
    let before = of_going(read(services(), &topics).await);
    directory.churn(0.5, 3);
    each_syncs_again(&program, &[untouched.clone(), coming.clone()]).await;
    let after = of_going(read(services(), &topics).await);
    assert_eq!(after, before, "nothing more of it, and nothing less");
    assert!(after.iter().all(|record| !record.is_tombstone()));
    service.stop().await;
    // It comes back and goes on from its last position.
    write(&accounts);
    settle(&program, &accounts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_come_and_go_with_their_files_in_accounts_d_and_a_broken_file_changes_nothing() {
    let directory = LargeDirectory::start(USERS, 2, 20, 20, TOKEN).await;
    let accounts = names([0, 1, 1]);
    let [main, first, second] = [&accounts[0], &accounts[1], &accounts[2]];
    let url = directory.base_url();
    let program = program("folder", &url, LONG_SESSION, &accounts[..1]).await;
    let folder = program.file().with_file_name("accounts.d");
    std::fs::create_dir(&folder).expect("the folder is made");
    let file = |name: &str| folder.join(format!("{name}.toml"));
    let write = |name: &str, text: &str| std::fs::write(file(name), text).expect("the file is written");
    write(first, &account(first, &url));
    let service = Instance::start(&program, "service");
    each_syncs_again(&program, &accounts[..2]).await;
    assert_eq!(service.acquired(), BTreeMap::from([(0, 1), (1, 1)]));

    // A new file alone is enough, without a signal.
    write(second, &account(second, &url));
    each_syncs_again(&program, &accounts).await;
    assert_eq!(service.acquired(), BTreeMap::from([(0, 1), (1, 2)]), "the account of the main file goes on");
    // Other commands see the same accounts.
    for (command, words) in [("check", second.as_str()), ("plan", "read 30 users")] {
        let ended = program.run(&[command, second]).await;
        assert!(ended.code == 0 && ended.out.contains(words), "{command}: {ended:?}");
    }

    // A file that is cut off keeps everything as it was.
    let whole = account(second, &url);
    write(second, &whole[..whole.find("provider").expect("a key")]);
    service.signal("HUP");
    until("it complains", || !service.says("the configuration stays as it was").is_empty()).await;
    let complaint = service.says("the configuration stays as it was").remove(0);
    let reason = complaint["reason"].as_str().expect("a reason");
    assert!(reason.contains(&format!("accounts.d/{second}.toml:1: missing field `provider`")), "{reason}");
    directory.churn(0.5, 1);
    each_syncs_again(&program, &accounts).await;
    assert_eq!(service.acquired(), BTreeMap::from([(0, 1), (1, 2)]));
    let refused = program.run(&["plan", main]).await;
    refused.refused(78, &[&format!("accounts.d/{second}.toml:1: missing field `provider`")]);

    // The account of a file that is removed stops, and its records stay.
    std::fs::remove_file(file(second)).expect("the file is removed");
    until("the shard starts again", || service.acquired() == BTreeMap::from([(0, 1), (1, 3)])).await;
    let topics = ["users", "groups", "memberships", "syncs", "events"].map(|suffix| program.topic(suffix));
    let of_second = |records: Vec<ReadRecord>| -> Vec<ReadRecord> {
        let own = |record: &ReadRecord| record.key.as_deref().is_some_and(|key| key.split('/').next() == Some(second));
        records.into_iter().filter(own).collect()
    };
    let before = of_second(read(services(), &topics).await);
    directory.churn(0.5, 2);
    each_syncs_again(&program, &accounts[..2]).await;
    let after = of_second(read(services(), &topics).await);
    assert_eq!(after, before, "nothing more of it, and nothing less");
    assert!(!after.is_empty() && after.iter().all(|record| !record.is_tombstone()));
    service.stop().await;
}

/// Lets connections through only while the gate is open.
async fn gate(to: &str) -> (String, watch::Sender<bool>) {
    let target: SocketAddr = to["http://".len()..].split('/').next().expect("a host").parse().expect("an address");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = to.replace(&target.to_string(), &listener.local_addr().expect("an address").to_string());
    let (gate, open) = watch::channel(true);
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let mut open = open.clone();
            tokio::spawn(async move {
                drop(open.wait_for(|open| *open).await);
                let mut to = TcpStream::connect(target).await.expect("the directory listens");
                drop(tokio::io::copy_bidirectional(&mut from, &mut to).await);
            });
        }
    });
    (url, gate)
}

#[tokio::test(flavor = "multi_thread")]
async fn run_once_beside_a_service_takes_each_shard_at_most_once() {
    let directory = LargeDirectory::start(USERS, 2, 20, 20, TOKEN).await;
    let accounts = names([0]);
    let (url, gate) = gate(&directory.base_url()).await;
    let program = program("once-beside", &url, LONG_SESSION, &accounts).await;

    // One that is reading when a service comes: the service takes the shard, and it does not take it back.
    gate.send_replace(false);
    let once = program.run(&["--log-level", "info", "run", "--once"]);
    let while_it_reads = async {
        // A record in `syncs` would come too late; the fence of the service has to come after that of `--once`.
        let service = loop {
            let waiting = gate.receiver_count() > 1;
            if waiting {
                break Instance::start(&program, "service");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        until("the service has the shard", || service.has() == BTreeSet::from([0])).await;
        gate.send_replace(true);
        service
    };
    let (once, service) = tokio::join!(once, while_it_reads);
    assert_eq!(once.code, 75, "{once:?}");
    assert!(once.out.contains("scimtail poll"), "{once:?}");
    directory.churn(0.5, 1);
    each_syncs_again(&program, &accounts).await;

    // One that comes while a service runs takes the shard, syncs, and the service goes on after its wait.
    directory.churn(0.5, 2);
    let once = program.run(&["run", "--once"]).await;
    assert_eq!(once.code, 0, "{once:?}");
    until("the service was fenced", || service.says("acquisition ended; acquiring again").len() == 1).await;
    let wait = service.says("acquisition ended; acquiring again")[0]["wait_s"].as_u64().expect("a number");
    assert!((27..=33).contains(&wait), "{wait} s");
    directory.churn(0.5, 3);
    until("the service has it again", || service.acquired() == BTreeMap::from([(0, 2)])).await;
    each_syncs_again(&program, &accounts).await;
    service.stop().await;
    settle(&program, &accounts).await;
}

/// One shard's writer is paused in the middle of a transaction for two sessions. The other shards sync on, the
/// membership stays, and the paused shard ends as if nothing had been.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_hangs_holds_up_neither_the_others_nor_the_membership() {
    let directory = LargeDirectory::start(USERS, 0, 0, 10, TOKEN).await;
    let accounts = names(0..3);
    let program = program("hangs", &directory.base_url(), SHORT_SESSION, &accounts).await;
    let hang = 2 * SHORT_SESSION;
    // The first shard to get there, while its first sync waits for its commit.
    let failpoints = format!("commit.before=1*sleep({})", hang.as_millis());
    let mut first = Instance::start_with(&program, "first", &failpoints);
    let synced = |instance: &Instance| {
        let mut times: BTreeMap<String, usize> = accounts.iter().map(|name| (name.clone(), 0)).collect();
        for line in instance.says("sync completed") {
            *times.entry(line["account"].as_str().expect("a name").to_owned()).or_default() += 1;
        }
        times
    };
    // Two others, longer than a session of syncs at 1 s, give or take a tenth.
    let beyond = SHORT_SESSION.as_secs() as usize + 2;
    until("the others sync on", || synced(&first).values().filter(|times| **times >= beyond).count() == 2).await;
    let hung: Vec<String> = synced(&first).into_iter().filter(|(_, times)| *times == 0).map(|(name, _)| name).collect();
    assert_eq!(hung.len(), 1, "it was paused all the while: {:?}", synced(&first));
    until("the paused shard goes on", || synced(&first)[&hung[0]] >= 2).await;
    assert_eq!(first.acquired(), BTreeMap::from([(0, 1), (1, 1), (2, 1)]), "no shard was taken over");
    assert!(!first.lines().iter().any(is_lost), "the membership stayed");
    first.signal("TERM");
    assert_eq!(first.ended().await.code(), Some(0));
}
