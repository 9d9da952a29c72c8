"""One soak: what it is made of, its rounds, and its end."""

import random
import secrets
import threading
import time
from collections import Counter

import cluster as brokers
import fleet as instances
import happenings
from cluster import Cluster
from fleet import ROLES, USER, Fleet, account_names, baseline
from gate import Registry
from happenings import Deck, Stage
from measure import Measurements
from onlooker import Onlooker
from processes import Failed
from program import once, run_status
from ticker import Ticker
from vendors import Account, Vendor, write_secret
from verdict import Checker
from weather import Weather

VERSION = "4.1.1"
VENDORS = 4
TOPICS = ("events", "users", "groups", "memberships", "syncs", "control")
# A sync each second or two makes in half an hour the records of days. Brokers remove the superseded ones of the last
# minutes only, so that a restore reads about as much at the end as after the warm-up.
SEGMENT_SECONDS = 30
KEPT_SECONDS = 300
COMPACTION = {
    "segment.ms": SEGMENT_SECONDS * 1000,
    "min.compaction.lag.ms": KEPT_SECONDS * 1000,
    "delete.retention.ms": SEGMENT_SECONDS * 1000,
    "min.cleanable.dirty.ratio": 0.01,
}
COMPACTED = ("users", "groups", "memberships", "syncs")
# The checker reads at the end of a round, and has to find all records.
ROUND_SECONDS_MAX = KEPT_SECONDS - 2 * SEGMENT_SECONDS
# The disturbed part of a round; what has begun by then goes on to its end.
DISTURBED_SECONDS = 30.0
# Between two things that happen.
QUIET_SECONDS_MAX = 3.0
# Completed syncs of each account that show that it has its newest version: a walk that is under way began before.
SETTLED_SYNCS = 2
# After the end of a disturbance: librdkafka lets go of the connections and clients that are not used any more.
REST_SECONDS = 4.0
CALM_SAMPLES = 4
CALM_SAMPLE_SECONDS = 1.0
# Paces of what goes on beside the rounds.
SAMPLE_SECONDS = 3.0
LOOK_SECONDS = 2.0
WEATHER_SECONDS = 0.25


class Soak:
    def __init__(self, work, seed, without, say):
        self.work, self.say = work, say
        self.things = [name for name in happenings.ALL if name not in without]
        self.rng = random.Random(f"{seed} rounds")
        self.weather_rng = random.Random(f"{seed} weather")
        self.tenants_rng = random.Random(f"{seed} tenants")
        self.prefix = f"soak-{secrets.token_hex(4)}"
        self.stopping = threading.Event()
        self.rounds = 0
        # Time and name of what happened, and how often each.
        self.happened, self.counts = [], Counter()
        self.records = Counter()
        self.began = self.read_at = time.monotonic()

    # The beginning.

    def start(self, running):
        """Starts everything; `running` stops it."""
        taken = set()
        port = lambda: brokers.free_port(taken)
        instances.own_copy(self.work)
        running.callback(self.stopping.set)
        self.cluster = self.started_cluster(running)
        self.vendors = [Vendor(port(), self.stopping) for _ in range(VENDORS)]
        for vendor in self.vendors:
            running.callback(vendor.close)
        self.fleet = Fleet(self.work, self.prefix, self.vendors, port, self.say)
        running.callback(self.fleet.stop)
        self.populate()
        password_file = self.fleet.registry_password_file
        self.registry = Registry(self.work, port(), port(), password_file)
        running.callback(self.registry.stop)
        self.registry.begin()
        self.cluster.start()
        self.registry.wait_until_ready()
        self.cluster.wait_until_in_sync()
        write_secret(self.fleet.password_file, self.cluster.users[USER])
        self.fleet.configure(self.cluster.bootstrap_of_users, self.registry.url)
        log = self.work / "checker.log"
        self.checker = Checker(self.cluster.bootstrap, self.registry.inner_url, log)
        running.callback(self.checker.stop)
        baselines = {name: baseline(number) for number, name in enumerate(self.fleet.accounts)}
        self.checker.begin(self.prefix, instances.PARTITIONS, baselines, refuses_proof=True)
        self.stage = Stage(self.cluster, self.registry, self.fleet, self.rng)
        self.deck = Deck(self.things, self.rng)
        self.weather = Weather(self.vendors, self.weather_rng)
        self.onlooker = Onlooker(self.fleet)
        running.callback(self.onlooker.close)
        return self.first_syncs(running)

    def started_cluster(self, running):
        cluster = Cluster(VERSION, self.work, {USER: secrets.token_hex(16)})
        running.callback(cluster.stop)
        return cluster

    def populate(self):
        for number, name in enumerate(account_names()):
            account = Account(name, self.tenants_rng.random(), self.work / f"{name}.token")
            self.fleet.accounts[name] = account
            self.vendors[number % VENDORS].accounts[name] = account

    def first_syncs(self, running):
        # Before the instances: it creates the topics, and says what is wrong at once.
        code, said = once("once", self.fleet.file(ROLES[0]), self.work, "")
        if code != 0:
            raise Failed(f"the first sync ended with {code}: {said}")
        self.cluster.set([f"{self.prefix}.{topic}" for topic in COMPACTED], COMPACTION)
        for role in ROLES:
            self.fleet.start(role)
        for member in list(self.fleet.running.values()):
            self.fleet.wait_until_assigned(member)
        self.change(True)
        after = self.fleet.wait_for_syncs(1)
        self.began = self.read_at = time.monotonic()
        self.measurements = Measurements(self.fleet, self.began)
        self.tickers = [
            Ticker("samples", SAMPLE_SECONDS, self.measurements.take),
            Ticker("looks", LOOK_SECONDS, self.onlooker.look),
            Ticker("weather", WEATHER_SECONDS, self.weather.tick),
        ]
        for ticker in self.tickers:
            running.callback(ticker.stop)
        count = len(self.fleet.accounts)
        return f"{len(ROLES)} instances, {count} accounts; syncs after {after:.1f} s"

    def elapsed(self):
        return time.monotonic() - self.began

    def change(self, changing):
        for account in self.fleet.accounts.values():
            account.tenant.change(changing)

    # A round.

    def round(self):
        """A disturbance, and what it leaves behind once it is over. Returns a line about it."""
        self.rounds += 1
        self.measurements.round = self.rounds
        began = time.monotonic()
        self.change(True)
        self.weather.worsen()
        while time.monotonic() - began < DISTURBED_SECONDS:
            self.happen(self.deck.draw())
            self.stage.pause(QUIET_SECONDS_MAX)
        self.weather.clear()
        settled = self.settle()
        self.judge()
        self.measure_at_rest()
        for ticker in self.tickers:
            ticker.check()
        counts = self.checker.counts
        return f"settled after {settled:.1f} s; {counts['events']} events, {counts['completed']} syncs, {self.figures()}"

    def is_over(self, minutes):
        """A soak goes on until everything has happened at least once."""
        return self.elapsed() >= minutes * 60 and all(self.counts[name] for name in self.things)

    def happen(self, name):
        self.happened.append((self.elapsed(), name))
        self.counts[name] += 1
        said = happenings.ALL[name](self.stage)
        self.say(f"{name}: {said}; {self.figures()}")

    def settle(self):
        """Directories hold still, all is published, and the shards are spread evenly. Returns the seconds."""
        self.change(False)
        return self.fleet.wait_for_syncs(SETTLED_SYNCS) + self.fleet.wait_until_balanced()

    def judge(self):
        if (took := time.monotonic() - self.read_at) > ROUND_SECONDS_MAX:
            raise Failed(
                f"{took:.0f} s since records were read, {ROUND_SECONDS_MAX} s at most: brokers may have removed some"
            )
        self.read_at = time.monotonic()
        self.checker.counts.clear()
        tenants = {name: account.tenant for name, account in self.fleet.accounts.items()}
        self.checker.check(tenants)
        self.checker.forget(self.records_file(self.rounds))
        self.records.update(self.checker.counts)

    def records_file(self, number):
        """What the checker read in a round."""
        return self.work / f"records-{number}.jsonl"

    def measure_at_rest(self):
        time.sleep(REST_SECONDS)
        for _ in range(CALM_SAMPLES):
            self.measurements.take(calm=True)
            time.sleep(CALM_SAMPLE_SECONDS)

    def figures(self):
        newest = self.measurements.newest(self.fleet.running[ROLES[0]].name)
        if newest is None:
            return "not measured yet"
        return (
            f"{ROLES[0]}: {newest.memory_mb:.0f} MB, {newest.threads} threads, "
            f"{newest.descriptors} descriptors, {newest.cpu_s:.0f} s CPU"
        )

    # The end.

    def finish(self):
        """All is published, nothing needs a person, the instances end well, and no transaction is left open."""
        for ticker in self.tickers:
            ticker.stop()
            ticker.check()
        self.onlooker.close()
        said = run_status(self.fleet.file(ROLES[0]), self.work)
        for role in ROLES:
            self.fleet.terminate(role)
        self.judge()
        topics = [f"{self.prefix}.{topic}" for topic in TOPICS]
        if left := self.cluster.open_transactions(topics):
            raise Failed(f"a transaction is left open in {', '.join(left)}")
        if not self.records["events"]:
            raise Failed("nothing changed, so nothing is proven")
        return said
