"""Who has access to what, in a database of one's own: loaded once, then followed event by event.

    python replay.py --bootstrap localhost:9092 --registry http://localhost:8081 --prefix scim \
        --database access.db --account acme-stripe --account acme-chargebee

For each account: state as of its newest completed sync (the marker) is read from the compacted
topics. From then on its events are applied, beginning with the first that the marker does not
cover. What is known and which event comes next change in one transaction of the database, so a
restart, however sudden, goes on at the next event. docs/consumers/replay.md explains the pattern.

The view `access` has direct memberships: whoever is in a group through another group is not in it.
`scimtail state access` resolves nesting, and docs/consumers/replay.md has a query that does.
"""

import argparse
import io
import json
import logging
import sqlite3
import struct
import sys

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient

# Events that are applied in one transaction of the database, and how long to wait for so many.
BATCH_EVENTS_MAX = 500
BATCH_SECONDS_MAX = 0.2
METADATA_SECONDS_MAX = 20

log = logging.getLogger("replay")

TABLES = """
CREATE TABLE IF NOT EXISTS progress (
    account TEXT PRIMARY KEY,
    partition INTEGER NOT NULL,      -- of the account, in every topic
    loaded_sequence INTEGER NOT NULL, -- of the marker that state was loaded to
    next_sequence INTEGER NOT NULL,  -- of the event to apply next
    next_offset INTEGER NOT NULL     -- where in the events topic to go on reading
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
-- What was applied: the primary key refuses to apply an event twice.
CREATE TABLE IF NOT EXISTS applied (
    account TEXT, sequence INTEGER, event_id TEXT, event_type TEXT, PRIMARY KEY (account, sequence)
);
-- Direct memberships; not who is in a group through another group.
CREATE VIEW IF NOT EXISTS access AS
    SELECT m.account, u.user_name, u.active, g.display_name AS group_name
    FROM memberships m
    JOIN users u ON u.account = m.account AND u.id = m.principal_id AND m.principal_type = 'user'
    JOIN groups g ON g.account = m.account AND g.id = m.group_id;
"""


class Gap(Exception):
    """The next event of this account is not the one after the last: load it again."""

    def __init__(self, account):
        self.account = account


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
    # Autocommit, so that transactions begin where this says BEGIN.
    database = sqlite3.connect(arguments.database, isolation_level=None)
    database.executescript(TABLES)
    while True:
        for account in arguments.accounts:
            if not can_go_on(topics, database, account):
                load(topics, database, account)
        try:
            follow(topics, database, arguments.accounts)
        except Gap as gap:
            log.warning("%s: events are missing; state is loaded again", gap.account)
            load(topics, database, gap.account)


def can_go_on(topics, database, account):
    """Whether state was loaded, and Kafka still has the events since, in the same topic as then."""
    row = database.execute(
        "SELECT partition, next_offset FROM progress WHERE account = ?", [account]
    ).fetchone()
    if row is None:
        return False
    start, end = topics.bounds_of_events(row[0])
    # Beyond the end, that one was deleted, and this is another by its name.
    return start <= row[1] <= end


def load(topics, database, account):
    """Replace what is known of the account by its state as of its newest completed sync."""
    marker = topics.marker(account)
    positions = {position["topic"]: position for position in marker["positions"]}
    users, groups, memberships = (
        topics.state(account, positions[topics.name(kind)])
        for kind in ["users", "groups", "memberships"]
    )
    loaded = len(users) + len(groups) + len(memberships)
    if loaded != marker["state_records"]:
        # Only if the marker is older than the compaction lag, and a newer sync has replaced records.
        raise RuntimeError(
            f"{account}: {loaded} records instead of {marker['state_records']}; try the next marker"
        )
    events = positions[topics.name("events")]
    # Events of other accounts may be all that Kafka still had there, and be gone by now.
    next_offset = max(events["next_offset"], topics.bounds_of_events(events["partition"])[0])
    database.execute("BEGIN IMMEDIATE")
    for table in ["users", "groups", "memberships", "applied"]:
        database.execute(f"DELETE FROM {table} WHERE account = ?", [account])
    for user in users:
        put_user(database, account, user)
    for group in groups:
        put_group(database, account, group)
    for membership in memberships:
        put_membership(database, membership)
    database.execute(
        "INSERT OR REPLACE INTO progress VALUES (?, ?, ?, ?, ?)",
        [account, events["partition"], marker["sequence"], marker["sequence"] + 1, next_offset],
    )
    database.execute("COMMIT")
    log.info("%s: %d records as of sync %d", account, loaded, marker["sync"])


def follow(topics, database, accounts):
    """Apply the events of these accounts, for ever."""
    # next_sequence and next_offset of each account.
    following, starts = {}, {}
    for account, partition, *next in database.execute(
        "SELECT account, partition, next_sequence, next_offset FROM progress"
    ):
        if account in accounts:
            following[account] = next
            starts[partition] = min(next[1], starts.get(partition, next[1]))
    with topics.reading("events", starts) as consumer:
        while True:
            batch = consumer.consume(BATCH_EVENTS_MAX, BATCH_SECONDS_MAX)
            if not batch:
                continue
            database.execute("BEGIN IMMEDIATE")
            try:
                for message in batch:
                    apply(topics, database, following, message)
            except BaseException:
                database.execute("ROLLBACK")
                raise
            for account, (next_sequence, next_offset) in following.items():
                database.execute(
                    "UPDATE progress SET next_sequence = ?, next_offset = ? WHERE account = ?",
                    [next_sequence, next_offset, account],
                )
            database.execute("COMMIT")


def apply(topics, database, following, message):
    if message.error():
        if message.error().code() == KafkaError._PARTITION_EOF:
            return
        raise KafkaException(message.error())
    event = topics.decode(message.value())
    account = event["account"]
    # Several accounts share a partition: this one may be another's, or further than the others.
    if account not in following or message.offset() < following[account][1]:
        return
    if event["sequence"] != following[account][0]:
        raise Gap(account)
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
    following[account] = [event["sequence"] + 1, message.offset() + 1]


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
    """Scimtail's topics, read by partition: there is no consumer group, and no offset in Kafka."""

    def __init__(self, bootstrap, registry, prefix):
        self.prefix = prefix
        self.registry = SchemaRegistryClient({"url": registry})
        self.schemas = {}
        self.settings = {
            "bootstrap.servers": bootstrap,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            # The next event is gone: better ended than passed over. The restart loads state again.
            "auto.offset.reset": "error",
            # Required, but not used.
            "group.id": "replay",
            "enable.auto.commit": False,
        }

    def name(self, kind):
        return f"{self.prefix}.{kind}"

    def reading(self, kind, starts):
        """A consumer of partitions, from these offsets."""
        consumer = Consumer(self.settings)
        consumer.assign(
            [
                TopicPartition(self.name(kind), partition, start)
                for partition, start in starts.items()
            ]
        )
        return consumer

    def bounds_of_events(self, partition):
        """The first offset there is, and the one behind the last, which may not be committed yet."""
        with Consumer(self.settings | {"isolation.level": "read_uncommitted"}) as consumer:
            place = TopicPartition(self.name("events"), partition)
            return consumer.get_watermark_offsets(place, METADATA_SECONDS_MAX)

    def marker(self, account):
        """The record of the account's newest completed sync; waits for the first one."""
        with Consumer(self.settings) as consumer:
            partitions = (
                consumer.list_topics(self.name("syncs"), METADATA_SECONDS_MAX)
                .topics[self.name("syncs")]
                .partitions
            )
        if not partitions:
            sys.exit(f"there is no topic {self.name('syncs')}; is the prefix right?")
        marker, unread, is_waiting = None, set(partitions), False
        with self.reading(
            "syncs", {partition: OFFSET_BEGINNING for partition in partitions}
        ) as consumer:
            while unread or marker is None:
                if not unread and not is_waiting:
                    is_waiting = True
                    log.info(
                        "%s: no sync of this account is complete in %s; waiting for the first. Is the name right?",
                        account,
                        self.name("syncs"),
                    )
                message = consumer.poll()
                if message.error():
                    if message.error().code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(message.error())
                    unread.discard(message.partition())
                elif message.key().decode() == account:
                    # A tombstone: the account was retired.
                    marker = message.value() and self.decode(message.value())
        return marker

    def state(self, account, position):
        """The account's live records of a compacted topic up to the marker's position."""
        records, end = {}, position["next_offset"]
        kind = position["topic"].removeprefix(f"{self.prefix}.")
        with self.reading(kind, {position["partition"]: OFFSET_BEGINNING}) as consumer:
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
                # What lies behind the position belongs to a sync that the marker does not cover.
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
