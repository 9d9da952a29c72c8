"""The replay examples against directories that change at random, while consumers and scimtail are
killed again and again: in the end each consumer knows what the directories hold, and has applied
every event since it loaded exactly once. Then events and, after them, all topics are gone, and what
is done that makes no events is seen, too."""

import contextlib
import functools
import random
import sqlite3
import threading
import time

import builds
import directory
import recipes
import scenario
import services
from processes import ROOT, Failed, Process, run

EXAMPLES = ROOT / "examples/replay"
ACCOUNTS = {"acme": "state", "acme-eu": "events", "globex": "state"}
ROUNDS = 16
# Rounds before the first consumer starts: it has to find tombstones and events it must not apply.
HEAD_START = 3
# One consumer comes late, in the middle of a sync.
LATE = 8
# A kill comes this soon, or once events were applied, which it waits for no longer than this.
EARLY_SECONDS_MAX = 0.4
APPLY_SECONDS_MAX = 3
SYNC_SECONDS_MAX = 60
CATCH_UP_SECONDS_MAX = 60
# Exit code of scimtail if a person has to act.
CONFIGURATION = 78
# The account that is retired shares no partition.
RETIRED = "globex"
# Random changes must not hold a sync.
SETTINGS = "guard.max_ratio = 1.0\nguard.max_absolute = 1000000\nguard.min_losses = 1000000"


class Consumer:
    def __init__(self, name, command, work):
        self.name = name
        self.directory = work / name
        self.directory.mkdir()
        self.database = self.directory / "access.db"
        self.command = command(self.database)
        # The same program for other accounts, on a separate database.
        self.of = functools.partial(command, self.directory / "other.db")
        self.process = None

    def start(self):
        self.process = Process("consumer", self.command, self.directory)

    def kill_and_restart(self, early):
        """After that many seconds of its start and load, or, if None, while it applies events."""
        if early is not None:
            time.sleep(early)
        else:
            applied = self.applied()
            deadline = time.monotonic() + APPLY_SECONDS_MAX
            while self.applied() == applied and time.monotonic() < deadline:
                time.sleep(0.01)
        self.process.kill()
        self.start()

    def meddle(self, sql):
        """Change the database while the program does not run."""
        self.process.kill()
        with contextlib.closing(sqlite3.connect(self.database)) as database, database:
            database.execute(sql)
        self.start()

    def loads(self):
        return self.says("records as of sync")

    def says(self, text):
        return self.process.log.read_text().count(text)

    def applied(self):
        return self.query("SELECT count(*), total(sequence) FROM applied")

    def query(self, sql, *values):
        if not self.database.exists():
            return []
        with contextlib.closing(
            sqlite3.connect(f"file:{self.database}?mode=rw", uri=True)
        ) as database:
            try:
                return database.execute(sql, values).fetchall()
            except sqlite3.OperationalError as error:
                # Not created yet.
                if "no such table" in str(error):
                    return []
                raise


class Replay:
    """Directories, the program, and consumers of the examples."""

    def __init__(self, world, seed):
        self.rng = random.Random(seed)
        self.world = world
        self.work = world.work / "replay"
        self.work.mkdir()
        self.scimtail = scenario.Scimtail(world.services, self.work, ACCOUNTS, SETTINGS)
        common = [world.services.bootstrap, world.services.registry]

        def in_python(database, accounts=ACCOUNTS, prefix=self.scimtail.prefix):
            names = ["--bootstrap", "--registry", "--prefix", "--database"]
            options = [option for pair in zip(names, [*common, prefix, database]) for option in pair]
            return [
                builds.python() / "bin/python",
                EXAMPLES / "python/replay.py",
                *options,
                *(f"--account={account}" for account in accounts),
            ]

        def in_java(database, accounts=ACCOUNTS, prefix=self.scimtail.prefix):
            machine = services.java(self.work, 128)
            return [
                *machine,
                "-cp",
                builds.replay_java() / "lib/*",
                "replay.Replay",
                *common,
                prefix,
                database,
                *accounts,
            ]

        self.late = Consumer("python-late", in_python, self.work)
        self.consumers = [
            Consumer("python", in_python, self.work),
            Consumer("java", in_java, self.work),
            self.late,
        ]
        # As of the last time that consumers caught up; and each account's newest.
        self.events, self.last = [], {}
        # Of one consumer.
        self.loads = len(ACCOUNTS)

    def shake(self, times):
        for account, content in self.scimtail.directories.items():
            directory.shake(content, f"{account}.example", self.rng, times)

    def sync(self):
        return Process(
            "sync",
            self.scimtail.command("run", "--once"),
            self.work,
            READERS_TOKEN=self.scimtail.token,
        )

    def kills(self):
        """Change, sync, kill."""
        running = []
        for number in range(ROUNDS):
            # The first round brings most of the people.
            self.shake(200 if number == 0 else 40)
            if number == ROUNDS - 1:
                self.load(running)
            if number == HEAD_START:
                running = [consumer for consumer in self.consumers if consumer is not self.late]
                for consumer in running:
                    consumer.start()
            sync = self.sync()
            if number == LATE:
                self.late.start()
                running.append(self.late)
            # The last one, and those before the consumers start, are left in peace.
            if HEAD_START < number < ROUNDS - 1:
                self.kill_some(running)
                if self.rng.random() < 0.4:
                    time.sleep(self.rng.uniform(0, EARLY_SECONDS_MAX))
                    sync.kill()
                    continue
            sync.finish(SYNC_SECONDS_MAX)
        self.catch_up()

    def kill_some(self, running):
        """Each at a moment of its own, and none waits for the others."""
        killers = []
        for consumer in self.rng.sample(running, self.rng.randint(1, len(running))):
            early = self.rng.uniform(0, EARLY_SECONDS_MAX) if self.rng.random() < 0.5 else None
            killer = threading.Thread(target=consumer.kill_and_restart, args=[early], daemon=True)
            killers.append(killer)
        for killer in killers:
            killer.start()
        for killer in killers:
            killer.join()

    def load(self, consumers):
        """The consumers may have been killed any number of times; from here on each follows the syncs in peace."""
        for consumer in consumers:
            loaded = lambda consumer=consumer: (
                consumer.query("SELECT count(*) FROM progress") == [(len(ACCOUNTS),)]
            )
            consumer.process.wait_until(loaded, CATCH_UP_SECONDS_MAX)

    def forget(self):
        """Events go before the consumers, which do not run, have read them; then there are new ones."""
        for consumer in self.consumers:
            consumer.process.kill()
        self.shake(40)
        self.sync().finish(SYNC_SECONDS_MAX)
        command = self.world.python("forget.py", self.scimtail.topic("events"))
        run("forget", command, self.work, SYNC_SECONDS_MAX)
        for consumer in self.consumers:
            consumer.start()
        self.load_again()
        self.go_on()

    def begin_again(self):
        """All topics are deleted and created again while the consumers are down: their positions are beyond the end."""
        for consumer in self.consumers:
            consumer.process.kill()
        topics = [self.scimtail.topic(name) for name in [*scenario.RECORDS, "control"]]
        command = self.world.python("delete.py", *dict.fromkeys(topics))
        run("delete", command, self.work, SYNC_SECONDS_MAX)
        self.sync().finish(SYNC_SECONDS_MAX)
        for consumer in self.consumers:
            consumer.start()
        self.load_again()
        self.go_on()

    def repair(self):
        """The topic of users is lost, and then a user is removed whom no event ever names."""
        command = self.world.python("delete.py", self.scimtail.topic("users"))
        run("delete", command, self.work, SYNC_SECONDS_MAX)
        gone = {}
        for account, content in self.scimtail.directories.items():
            gone[account] = self.rng.choice(sorted(content.users))
            content.remove_user(gone[account])
            # As many users as before, but others: a count does not show it.
            content.put_user("instead", userName=f"instead@{account}.example", active=True)
        self.sync().finish(SYNC_SECONDS_MAX, codes=(CONFIGURATION,))
        for account in ACCOUNTS:
            self.scimtail.run("reseed", account)
        self.sync().finish(SYNC_SECONDS_MAX)
        self.load_again()
        for event in self.scimtail.lines("tail", "--from", "beginning", "--exit"):
            account = event["account"]
            if event["sequence"] > self.last[account] and event["principal_id"] == gone[account]:
                raise Failed(f"an event tells of {gone[account]}: that proves nothing")
        self.go_on()

    def configure(self):
        """Names of groups are read in another way. That writes all users again, and makes no events."""
        self.scimtail.configure(ACCOUNTS, SETTINGS, 'group_pattern = "{name}"')
        self.sync().finish(SYNC_SECONDS_MAX)
        self.load_again()
        self.go_on()

    def retire(self):
        """One account is retired, and taken up again later, when its events are gone."""
        others = {account: baseline for account, baseline in ACCOUNTS.items() if account != RETIRED}
        self.scimtail.configure(others, SETTINGS)
        self.scimtail.run("retire", RETIRED)
        for consumer in self.consumers:
            forgotten = lambda consumer=consumer: (
                consumer.query(
                    "SELECT account FROM users UNION SELECT account FROM groups UNION"
                    " SELECT account FROM memberships UNION SELECT account FROM progress ORDER BY 1"
                )
                == [(account,) for account in sorted(others)]
            )
            consumer.process.wait_until(forgotten, CATCH_UP_SECONDS_MAX)
            # The marker from before is still there, as long as nothing is compacted.
            consumer.process.kill()
            # One after the other: the events that go next must not go before a consumer has read them.
            consumer.start()
            waits = lambda consumer=consumer: consumer.says(f"{RETIRED}: no sync of this") == 2
            consumer.process.wait_until(waits, CATCH_UP_SECONDS_MAX)
        command = self.world.python("forget.py", self.scimtail.topic("events"))
        run("forget", command, self.work, SYNC_SECONDS_MAX)
        self.scimtail.configure(ACCOUNTS, SETTINGS)
        self.sync().finish(SYNC_SECONDS_MAX)
        self.load_again()
        self.go_on()
        for consumer in self.consumers:
            found = consumer.says(f"{RETIRED}: a sync is complete")
            if found != 1:
                raise Failed(f"{consumer.name} found {found} new syncs of {RETIRED} instead of one")

    def be_away(self):
        """A consumer that has read no marker for long cannot know the markers in between."""
        for consumer in self.consumers:
            consumer.meddle("UPDATE progress SET read_until = 0")
        self.sync().finish(SYNC_SECONDS_MAX)
        self.load_again()
        self.go_on()

    def miss_an_event(self):
        """The next event is not the one after the last that was applied."""
        for consumer in self.consumers:
            consumer.meddle("UPDATE progress SET next_sequence = next_sequence - 1")
        self.shake(40)
        self.sync().finish(SYNC_SECONDS_MAX)
        self.load_again()
        self.go_on()

    def lose_a_row(self):
        """A consumer's own database was altered: the next marker has another count."""
        for consumer in self.consumers:
            consumer.meddle(
                "DELETE FROM memberships WHERE rowid IN (SELECT min(rowid) FROM memberships GROUP BY account)"
            )
        # Nothing that happens to touch the row.
        for account, content in self.scimtail.directories.items():
            content.put_user("one-more", userName=f"one-more@{account}.example", active=True)
        self.sync().finish(SYNC_SECONDS_MAX)
        self.load_again()
        self.go_on()

    def load_again(self):
        """Every consumer loads every account once more."""
        self.loads += len(ACCOUNTS)
        for consumer in self.consumers:
            loaded = lambda consumer=consumer: consumer.loads() == self.loads
            consumer.process.wait_until(loaded, CATCH_UP_SECONDS_MAX)

    def go_on(self):
        self.shake(40)
        self.sync().finish(SYNC_SECONDS_MAX)
        self.catch_up()

    def ask_for_unknown(self, consumer):
        """A consumer says that it waits for an unknown account. An unknown prefix ends it."""
        said = "no sync of this account is complete"
        waiting = Process(f"{consumer.name}-nobody", consumer.of(["nobody"]), consumer.directory)
        try:
            waiting.wait_until(lambda: said in waiting.log.read_text(), CATCH_UP_SECONDS_MAX)
        finally:
            waiting.kill()
        command = consumer.of(["nobody"], prefix="no-such-prefix")
        ended = Process(f"{consumer.name}-nowhere", command, consumer.directory)
        ended.finish(CATCH_UP_SECONDS_MAX, codes=(1,))
        if "there is no topic no-such-prefix.syncs" not in ended.log.read_text():
            raise Failed(f"it ended without saying why: {ended.log.read_text()}")

    def catch_up(self):
        self.events = self.scimtail.lines("tail", "--from", "beginning", "--exit")
        self.last = {
            account: max(event["sequence"] for event in numbered(self.events, account))
            for account in ACCOUNTS
        }
        for consumer in self.consumers:

            def caught_up(consumer=consumer):
                return (
                    dict(consumer.query("SELECT account, next_sequence - 1 FROM progress"))
                    == self.last
                )

            consumer.process.wait_until(caught_up, CATCH_UP_SECONDS_MAX)

    def end(self):
        for consumer in self.consumers:
            if consumer.process:
                consumer.process.kill()


def compare(replay, consumer):
    """The consumer knows what the directories hold, and has loaded no account more often than it had to."""
    users, groups, memberships, access, through = [], [], [], [], []
    for account, content in replay.scimtail.directories.items():
        names = {}
        for user in content.list("users"):
            active = user.get("active")
            users.append(
                (account, user["id"], user.get("userName"), user.get("displayName"), active)
            )
            names["User", user["id"]] = user.get("userName"), active
        for group in content.list("groups"):
            groups.append((account, group["id"], group.get("displayName")))
            names["Group", group["id"]] = group.get("displayName")
        for kind, member, group in content.access():
            memberships.append((account, kind.lower(), member, group))
            if kind == "User":
                access.append((account, *names[kind, member], names["Group", group]))
        for user, group in through_groups(content.access()):
            through.append((account, *names["User", user], names["Group", group]))
    expected = {"users": users, "groups": groups, "memberships": memberships, "access": access}
    for table, rows in expected.items():
        known = consumer.query(f"SELECT * FROM {table}")
        if sorted(map(repr, known)) != sorted(map(repr, map(as_stored, rows))):
            missing = set(map(as_stored, rows)) - set(known)
            surplus = set(known) - set(map(as_stored, rows))
            raise Failed(
                f"{table}: {len(rows)} expected, {len(known)} known; missing {missing}, too much {surplus}"
            )
    if not access:
        raise Failed("no user has access to anything: that proves nothing")
    # The query of the page, as it stands there.
    known = consumer.query(recipes.block("replay.md", "sql", "WITH RECURSIVE"))
    if sorted(map(repr, known)) != sorted(map(repr, map(as_stored, through))):
        raise Failed(
            f"the query for groups in groups finds {len(known)} rows, there are {len(through)}"
        )
    if consumer.loads() != replay.loads:
        raise Failed(f"state was loaded {consumer.loads()} times instead of {replay.loads}")
    once(consumer, replay.events)


def through_groups(access):
    """Each user with each group, also those that the user is in through other groups."""
    above = {}
    for kind, member, group in access:
        above.setdefault((kind, member), set()).add(group)
    found = set()
    for (kind, user), groups in above.items():
        reached, left = set(), list(groups) if kind == "User" else []
        while left:
            group = left.pop()
            if group not in reached:
                reached.add(group)
                left += above.get(("Group", group), ())
        found |= {(user, group) for group in reached}
    return found


def once(consumer, events):
    """Every event since it loaded was applied, once."""
    for account, loaded in consumer.query("SELECT account, loaded_sequence FROM progress"):
        applied = consumer.query(
            "SELECT sequence, event_id, event_type FROM applied WHERE account = ? ORDER BY sequence",
            account,
        )
        expected = [
            (event["sequence"], event["event_id"], event["event_type"])
            for event in numbered(events, account)
            if event["sequence"] > loaded
        ]
        if applied != expected:
            raise Failed(
                f"{account}: {len(applied)} events applied since {loaded}, {len(expected)} expected"
            )
        if not expected:
            raise Failed(f"{account}: nothing was left to follow: that proves nothing")


def numbered(events, account):
    """The account's events by their number."""
    own = [event for event in events if event["account"] == account]
    return sorted(own, key=lambda event: event["sequence"])


def as_stored(row):
    return tuple(int(value) if isinstance(value, bool) else value for value in row)
