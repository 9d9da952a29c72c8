"""Who has access to what, in a database of one's own: loaded once, then followed event by event.

    python replay.py --bootstrap localhost:9092 --registry http://localhost:8081 --prefix scim \
        --database access.db --account acme-stripe --account acme-chargebee

For each account: state as of its newest completed sync (the marker) is read from the compacted
topics. From then on its events are applied, beginning with the first that the marker does not
cover. The tables and the number of the next event change in one transaction of the database, so a
restart, however sudden, goes on at the next event. Later markers are read, too: they say what
changed without an event, and how many records there must be. docs/consumers/replay.md explains
the pattern.

The view `access` has direct memberships: a user that is in a group through another group is not in it.
`scimtail state access` resolves nesting, and docs/consumers/replay.md has a query that does.
"""

import argparse
import io
import json
import logging
import sqlite3
import struct
import sys
import time

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient

# Events that are applied in one transaction of the database, and how long to wait for so many.
BATCH_EVENTS_MAX = 500
BATCH_SECONDS_MAX = 0.2
METADATA_SECONDS_MAX = 20
# A marker may be replaced by a newer one after `min.compaction.lag.ms` of the topic. A
# consumer that has read none for longer cannot know the markers in between.
UNREAD_SECONDS_MAX = 6 * 3600
# If one of these differs in a newer marker, state was written again without events.
SETTINGS = ["attributes", "group_pattern", "pseudonym_key_id"]
# Of a row of progress, what changes while events and markers are read.
NEXT = ["next_sequence", "next_event", "next_marker", "read_until"]

log = logging.getLogger("replay")

TABLES = """
CREATE TABLE IF NOT EXISTS progress (
    account TEXT PRIMARY KEY,
    partition INTEGER NOT NULL,      -- of the account, in every topic
    loaded_marker INTEGER NOT NULL,  -- offset behind the marker that state was loaded to
    loaded_sequence INTEGER NOT NULL, -- its sequence
    loaded_settings TEXT NOT NULL,   -- and what it says of SETTINGS
    next_sequence INTEGER NOT NULL,  -- of the event to apply next
    next_event INTEGER NOT NULL,     -- offset in the events topic to go on reading at
    next_marker INTEGER NOT NULL,    -- offset in the syncs topic to go on reading at
    read_until REAL NOT NULL         -- time of the last record read there, seconds since 1970
);
CREATE TABLE IF NOT EXISTS users (
    account TEXT, id TEXT, user_name TEXT, display_name TEXT, active INTEGER, PRIMARY KEY (account, id)
);
CREATE TABLE IF NOT EXISTS groups (
    account TEXT, id TEXT, display_name TEXT, PRIMARY KEY (account, id)
);
CREATE TABLE IF NOT EXISTS memberships (
    account TEXT, principal_type TEXT, principal_id TEXT, group_id TEXT,
    PRIMARY KEY (account, principal_type, principal_id, group_id)
);
-- Applied events: the primary key refuses to apply an event twice.
CREATE TABLE IF NOT EXISTS applied (
    account TEXT, sequence INTEGER, event_id TEXT, event_type TEXT, PRIMARY KEY (account, sequence)
);
-- Direct memberships; none through another group.
CREATE VIEW IF NOT EXISTS access AS
    SELECT m.account, u.user_name, u.active, g.display_name AS group_name
    FROM memberships m
    JOIN users u ON u.account = m.account AND u.id = m.principal_id AND m.principal_type = 'user'
    JOIN groups g ON g.account = m.account AND g.id = m.group_id;
"""


class LoadAgain(Exception):
    """Events do not lead from the tables of this account to its present state; a marker that ends
    behind `after` does."""

    def __init__(self, account, why, after=0):
        super().__init__(f"{account}: {why}; loading again")
        self.account, self.after = account, after


def main():
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--bootstrap", required=True, help="host:port of a broker")
    arguments.add_argument(
        "--registry", required=True, help="base URL of the registry's Confluent API"
    )
    arguments.add_argument("--prefix", default="scim", help="kafka.topic_prefix of scimtail")
    arguments.add_argument("--database", required=True, help="SQLite file")
    arguments.add_argument("--account", dest="accounts", action="append", required=True)
    arguments = arguments.parse_args()
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)

    topics = Topics(arguments.bootstrap, arguments.registry, arguments.prefix)
    # Autocommit: transactions begin only where this says BEGIN.
    database = sqlite3.connect(arguments.database, isolation_level=None)
    database.row_factory = sqlite3.Row
    database.executescript(TABLES)
    # Accounts that cannot be loaded yet, and the offset that their next marker has at least.
    waiting = {}
    while True:
        for account in arguments.accounts:
            if account not in waiting and not can_go_on(topics, database, account):
                load(topics, database, waiting, account)
        try:
            follow(topics, database, waiting, arguments.accounts)
        except LoadAgain as reason:
            log.warning("%s", reason)
            load(topics, database, waiting, reason.account, reason.after)


def can_go_on(topics, database, account):
    """Whether state was loaded, and Kafka still has all that came since, in the same topics as then."""
    row = database.execute(
        "SELECT partition, next_event, next_marker FROM progress WHERE account = ?", [account]
    ).fetchone()
    if row is None:
        return False
    for kind, place in [("events", row["next_event"]), ("syncs", row["next_marker"])]:
        start, end = topics.bounds(kind, row["partition"])
        # Beyond the end: the topic was deleted, and this is another by its name.
        if not start <= place <= end:
            return False
    return True


def load(topics, database, waiting, account, after=0):
    """Replace the account's rows by its state as of its newest completed sync. If that cannot be
    read, it waits for the next one; the old rows stay, because old rows are better than none."""
    now = time.time()
    marker, next_marker = topics.marker(account)
    waiting[account] = next_marker
    if marker is None:
        # Retired, or never there.
        database.execute("BEGIN IMMEDIATE")
        forget(database, account)
        database.execute("COMMIT")
        log.info(
            "%s: no sync of this account is complete in %s; waiting for the first. Is the name right?",
            account,
            topics.name("syncs"),
        )
        return
    positions = {position["topic"]: position for position in marker["positions"]}
    if next_marker <= after or not all(map(topics.reaches, positions.values())):
        log.warning("%s: written records are gone; waiting for the next sync", account)
        return
    users, groups, memberships = (
        topics.state(account, positions[topics.name(kind)])
        for kind in ["users", "groups", "memberships"]
    )
    loaded = len(users) + len(groups) + len(memberships)
    if loaded != marker["state_records"]:
        # Only if the marker is older than the compaction lag, and a newer sync has replaced records.
        log.warning(
            "%s: %d records instead of %d; waiting for the next sync",
            account,
            loaded,
            marker["state_records"],
        )
        return
    events = positions[topics.name("events")]
    # Events of other accounts may be all that Kafka still had there, and be gone by now.
    next_event = max(events["next_offset"], topics.bounds("events", events["partition"])[0])
    progress = {
        "account": account,
        "partition": events["partition"],
        "loaded_marker": next_marker,
        "loaded_sequence": marker["sequence"],
        "loaded_settings": settings(marker),
        "next_sequence": marker["sequence"] + 1,
        "next_event": next_event,
        "next_marker": next_marker,
        "read_until": now,
    }
    database.execute("BEGIN IMMEDIATE")
    forget(database, account)
    for user in users:
        put_user(database, account, user)
    for group in groups:
        put_group(database, account, group)
    for membership in memberships:
        put_membership(database, membership)
    database.execute(
        f"INSERT INTO progress ({', '.join(progress)}) VALUES ({', '.join('?' * len(progress))})",
        list(progress.values()),
    )
    database.execute("COMMIT")
    del waiting[account]
    log.info("%s: %d records as of sync %d", account, loaded, marker["sync"])


def settings(marker):
    return json.dumps([marker[name] for name in SETTINGS])


def forget(database, account):
    for table in ["users", "groups", "memberships", "applied", "progress"]:
        database.execute(f"DELETE FROM {table} WHERE account = ?", [account])


def follow(topics, database, waiting, accounts):
    """Apply the events of these accounts, and look at their markers, for ever."""
    following = {
        row["account"]: dict(row)
        for row in database.execute("SELECT * FROM progress")
        if row["account"] in accounts and row["account"] not in waiting
    }
    starts = {}
    for progress in following.values():
        for topic, place in [("events", "next_event"), ("syncs", "next_marker")]:
            partition = topics.name(topic), progress["partition"]
            starts[partition] = min(progress[place], starts.get(partition, progress[place]))
    if waiting:
        # Their next marker may come in any partition, and have come since it was looked for.
        for partition in topics.partitions("syncs"):
            starts[topics.name("syncs"), partition] = OFFSET_BEGINNING
    with topics.reading(starts) as consumer:
        while True:
            batch = consumer.consume(BATCH_EVENTS_MAX, BATCH_SECONDS_MAX)
            if not batch:
                continue
            database.execute("BEGIN IMMEDIATE")
            try:
                for message in batch:
                    if message.error():
                        if message.error().code() != KafkaError._PARTITION_EOF:
                            raise KafkaException(message.error())
                    elif message.topic() == topics.name("syncs"):
                        look_at(topics, database, following, waiting, message)
                    else:
                        apply(topics, database, following, message)
            except BaseException:
                database.execute("ROLLBACK")
                raise
            for progress in following.values():
                database.execute(
                    "UPDATE progress SET next_sequence = :next_sequence, next_event = :next_event,"
                    " next_marker = :next_marker, read_until = :read_until WHERE account = :account",
                    {name: progress[name] for name in ["account", *NEXT]},
                )
            database.execute("COMMIT")


def look_at(topics, database, following, waiting, message):
    """A newer marker says what events do not: that state was written without them, or is retired."""
    account, _, is_latest = message.key().decode().partition("/")
    if account in waiting:
        if message.offset() >= waiting[account] and not is_latest:
            raise LoadAgain(account, "a sync is complete" if message.value() else "retired")
        return
    progress = following.get(account)
    if progress is None or message.offset() < progress["next_marker"]:
        return
    is_unread = time.time() - progress["read_until"] > UNREAD_SECONDS_MAX
    progress["next_marker"] = message.offset() + 1
    if not is_unread:
        progress["read_until"] = message.timestamp()[1] / 1000
    # The record of the newest attempt, completed or not: one more that was not missed.
    if is_latest:
        return
    if message.value() is None:
        raise LoadAgain(account, "retired")
    if is_unread:
        raise LoadAgain(account, "markers may have gone unread")
    marker = topics.decode(message.value())
    if marker["reason_code"] == "repair":
        raise LoadAgain(account, "state was lost, and repaired without events")
    if settings(marker) != progress["loaded_settings"]:
        raise LoadAgain(account, "attributes were configured again, which makes no events")
    progress["marker"] = marker
    count(database, progress)


def count(database, progress):
    """With the last event that the newest marker covers, there must be as many records as it says."""
    marker = progress.get("marker")
    if marker is None or progress["next_sequence"] <= marker["sequence"]:
        return
    if progress["next_sequence"] == marker["sequence"] + 1:
        known = sum(
            database.execute(
                f"SELECT count(*) FROM {table} WHERE account = ?", [progress["account"]]
            ).fetchone()[0]
            for table in ["users", "groups", "memberships"]
        )
        if known != marker["state_records"]:
            raise LoadAgain(
                progress["account"], f"{known} records instead of {marker['state_records']}"
            )
    # Counted, or events of a later sync were read before the marker.
    del progress["marker"]


def apply(topics, database, following, message):
    event = topics.decode(message.value())
    account = event["account"]
    progress = following.get(account)
    # Several accounts share a partition: this one may be another's, or further than the others.
    if progress is None or message.offset() < progress["next_event"]:
        return
    if event["sequence"] != progress["next_sequence"]:
        raise LoadAgain(account, "events are missing", progress["loaded_marker"])
    match event["event_type"]:
        case "user.removed":
            database.execute(
                "DELETE FROM users WHERE account = ? AND id = ?", [account, event["principal_id"]]
            )
        case "group.removed":
            database.execute(
                "DELETE FROM groups WHERE account = ? AND id = ?", [account, event["group_id"]]
            )
        case "membership.added":
            put_membership(database, event)
        case "membership.removed":
            database.execute(
                "DELETE FROM memberships WHERE account = ? AND principal_type = ? AND principal_id = ? AND group_id = ?",
                [account, event["principal_type"], event["principal_id"], event["group_id"]],
            )
        case "user.added" | "user.updated" | "user.disabled" | "user.enabled":
            put_user(database, account, event["user"])
        case "group.added" | "group.updated":
            put_group(database, account, event["group"])
        case unknown:
            log.warning(
                "%s: event %d is of the unknown type %s", account, event["sequence"], unknown
            )
    database.execute(
        "INSERT INTO applied VALUES (?, ?, ?, ?)",
        [account, event["sequence"], event["event_id"], event["event_type"]],
    )
    progress["next_sequence"] = event["sequence"] + 1
    progress["next_event"] = message.offset() + 1
    count(database, progress)


def put_user(database, account, user):
    values = [account, user["id"], user["user_name"], user["display_name"], user["active"]]
    database.execute("INSERT OR REPLACE INTO users VALUES (?, ?, ?, ?, ?)", values)


def put_group(database, account, group):
    database.execute(
        "INSERT OR REPLACE INTO groups VALUES (?, ?, ?)",
        [account, group["id"], group["display_name"]],
    )


def put_membership(database, membership):
    values = [
        membership[name] for name in ["account", "principal_type", "principal_id", "group_id"]
    ]
    database.execute("INSERT OR REPLACE INTO memberships VALUES (?, ?, ?, ?)", values)


class Topics:
    """Scimtail's topics, read by partition: without a consumer group or offsets in Kafka."""

    def __init__(self, bootstrap, registry, prefix):
        self.prefix = prefix
        self.registry = SchemaRegistryClient({"url": registry})
        self.schemas = {}
        self.settings = {
            "bootstrap.servers": bootstrap,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            # So long the broker waits before it says that a partition has ended: 500 ms by default.
            "fetch.wait.max.ms": 100,
            # The next event is gone: better ended than passed over. The restart loads state again.
            "auto.offset.reset": "error",
            # Required, but not used.
            "group.id": "replay",
            "enable.auto.commit": False,
        }

    def name(self, kind):
        return f"{self.prefix}.{kind}"

    def reading(self, starts):
        """A consumer of partitions, (topic, number), from these offsets."""
        consumer = Consumer(self.settings)
        consumer.assign([TopicPartition(*place, start) for place, start in starts.items()])
        return consumer

    def bounds(self, kind, partition):
        """The first offset there is, and the one behind the last, which may not be committed yet."""
        with Consumer(self.settings | {"isolation.level": "read_uncommitted"}) as consumer:
            place = TopicPartition(self.name(kind), partition)
            return consumer.get_watermark_offsets(place, METADATA_SECONDS_MAX)

    def reaches(self, position):
        """Whether the topic goes so far, and is not another by its name."""
        kind = position["topic"].removeprefix(f"{self.prefix}.")
        return self.bounds(kind, position["partition"])[1] >= position["next_offset"]

    def partitions(self, kind):
        with Consumer(self.settings) as consumer:
            topics = consumer.list_topics(self.name(kind), METADATA_SECONDS_MAX).topics
        if not topics[self.name(kind)].partitions:
            sys.exit(f"there is no topic {self.name(kind)}; is the prefix right?")
        return list(topics[self.name(kind)].partitions)

    def marker(self, account):
        """The record of the account's newest completed sync, or None, and the offset behind it."""
        unread = set(self.partitions("syncs"))
        marker, next_marker = None, 0
        starts = {(self.name("syncs"), partition): OFFSET_BEGINNING for partition in unread}
        with self.reading(starts) as consumer:
            while unread:
                message = consumer.poll()
                if message.error():
                    if message.error().code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(message.error())
                    unread.discard(message.partition())
                elif message.key().decode() == account:
                    # A tombstone: the account was retired.
                    marker = message.value() and self.decode(message.value())
                    next_marker = message.offset() + 1
        return marker, next_marker

    def state(self, account, position):
        """The account's live records of a compacted topic up to the marker's position."""
        records, end = {}, position["next_offset"]
        start = {(position["topic"], position["partition"]): OFFSET_BEGINNING}
        with self.reading(start) as consumer:
            at = 0
            while at < end:
                message = consumer.poll()
                if message.error():
                    if message.error().code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(message.error())
                    # It may be before the position: a transaction ends in one partition a moment
                    # after it ended in another. And behind it there may be nothing but its end.
                    at = message.offset()
                    continue
                at = message.offset() + 1
                key = message.key().decode()
                # Records behind the position belong to a sync that the marker does not cover.
                if at <= end and key.startswith(f"{account}/"):
                    if message.value() is None:
                        records.pop(key, None)
                    else:
                        records[key] = self.decode(message.value())
        return list(records.values())

    def decode(self, value):
        zero, id = struct.unpack_from(">bI", value)
        if zero != 0:
            raise ValueError("the value does not begin with the id of a schema")
        if id not in self.schemas:
            self.schemas[id] = fastavro.parse_schema(
                json.loads(self.registry.get_schema(id).schema_str)
            )
        return fastavro.schemaless_reader(io.BytesIO(value[5:]), self.schemas[id], None)


if __name__ == "__main__":
    main()
