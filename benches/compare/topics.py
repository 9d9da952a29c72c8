"""An independent reader: what the topics hold, against what the directory holds.

It shares nothing with scimtail: it has clients of other libraries, the schemas of the registry,
and the manifest of the load server.
"""

import io
import json
import time
from collections import Counter
from dataclasses import dataclass, field

import fastavro
import services
from confluent_kafka import Consumer, KafkaError, TopicPartition
from processes import Failed

STATE = ("users", "groups", "memberships")
EVENTS = "events"
DEPARTMENT = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department"
READ_SECONDS_MAX = 120
AT_ONCE = 10_000
POLL_SECONDS = 1
FRAME_BYTES = 5
# The last field of an event that is compared with what is expected. Avro has no marks between
# fields, so what comes before can be read alone, in a fifth of the time. Every so many records are
# read whole.
LAST_COMPARED = "group_id"
WHOLE_EVERY = 20
NAMED_MAX = 3


@dataclass
class Seen:
    """What was read of the topics of a prefix so far."""

    prefix: str
    positions: dict = field(default_factory=dict)
    # By topic: key → what is compared.
    state: dict = field(default_factory=lambda: {topic: {} for topic in STATE})
    # Since the last `forget`.
    events: Counter = field(default_factory=Counter)
    written: Counter = field(default_factory=Counter)
    ids: set = field(default_factory=set)
    doubled_ids: int = 0
    # By account.
    sequences: dict = field(default_factory=dict)
    gaps: int = 0
    bytes: int = 0

    @property
    def records(self):
        return self.written.total()


@dataclass
class Verdict:
    records: int
    missed: int = 0
    doubled: int = 0
    reasons: list = field(default_factory=list)

    @property
    def void(self):
        return "; ".join(self.reasons)


def consumer(bootstrap, **more):
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "compare-reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 10,
            "fetch.queue.backoff.ms": 10,
            # Topics of a prefix that is done with are deleted while the reader lives.
            "log_level": 3,
            **more,
        }
    )


def read(stage, seen, topics=(*STATE, EVENTS), take=None):
    """Reads on from where the last call ended, up to the present end of each topic. `take`: what
    is done with a record."""
    stage.reader = stage.reader or consumer(stage.bootstrap)
    # Kafka answers a commit before every topic knows of it. A reader of committed records may see an end
    # before it.
    with consumer(stage.bootstrap, **{"isolation.level": "read_uncommitted"}) as asking:
        places = [TopicPartition(f"{seen.prefix}.{topic}", 0) for topic in topics]
        ends = [asking.get_watermark_offsets(place)[1] for place in places]
    for topic, end in zip(topics, ends):
        read_topic(stage, stage.reader, seen, topic, end, take)
    return seen


def read_topic(stage, reader, seen, topic, end, take):
    partition = TopicPartition(f"{seen.prefix}.{topic}", 0)
    partition.offset = seen.positions.get(topic, 0)
    reader.assign([partition])
    take = take or (take_event if topic == EVENTS else take_state)
    deadline = time.monotonic() + READ_SECONDS_MAX
    reached = partition.offset
    while reached < end:
        for message in reader.consume(AT_ONCE, POLL_SECONDS):
            if error := message.error():
                if error.code() != KafkaError._PARTITION_EOF:
                    raise Failed(f"{seen.prefix}.{topic} cannot be read: {error}")
            else:
                seen.written[topic] += 1
                seen.bytes += len(message.key()) + len(message.value() or b"")
                take(stage, seen, topic, message.key().decode(), message.value())
            # The end of a partition counts the marks of transactions too.
            reached = max(reached, message.offset())
        if time.monotonic() > deadline:
            raise Failed(
                f"{seen.prefix}.{topic} was read to {reached} of {end} in {READ_SECONDS_MAX} s"
            )
    seen.positions[topic] = reached


def decoded(stage, value, whole=True):
    number = int.from_bytes(value[1:FRAME_BYTES])
    if number not in stage.schemas:
        with services.http().open(f"{stage.registry}/schemas/ids/{number}") as answer:
            schema = json.loads(json.load(answer)["schema"])
        stage.schemas[number] = fastavro.parse_schema(schema), beginning(schema)
    schema = stage.schemas[number][0 if whole else 1]
    return fastavro.schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), schema, None)


def beginning(schema):
    names = [field["name"] for field in schema["fields"]]
    count = names.index(LAST_COMPARED) + 1 if LAST_COMPARED in names else len(names)
    return fastavro.parse_schema(schema | {"fields": schema["fields"][:count]})


def take_state(stage, seen, topic, key, value):
    if value is None:
        seen.state[topic].pop(key, None)
        return
    if topic == "memberships":
        # All that is compared of it is in its key.
        seen.state[topic][key] = ()
        if seen.written[topic] % WHOLE_EVERY == 0:
            decoded(stage, value)
        return
    record = decoded(stage, value)
    if topic == "users":
        attributes = record["attributes"]
        facts = tuple(json.loads(attributes.get(path, "null")) for path in ("title", DEPARTMENT))
        seen.state[topic][key] = (record["user_name"], *facts, record["active"])
    else:
        seen.state[topic][key] = (record["display_name"],)


def take_event(stage, seen, topic, key, value):
    count_event(seen, decoded(stage, value, seen.written[topic] % WHOLE_EVERY == 0))


def count_event(seen, event):
    seen.events[
        event["account"], event["event_type"], event["principal_id"], event["group_id"]
    ] += 1
    seen.doubled_ids += event["event_id"] in seen.ids
    seen.ids.add(event["event_id"])
    sequence = seen.sequences.get(event["account"], 0)
    seen.gaps += event["sequence"] != sequence + 1
    seen.sequences[event["account"]] = event["sequence"]


def forget(seen):
    """Counts begin again at 0; the state is kept."""
    seen.events.clear()
    seen.written.clear()
    seen.bytes = 0


def expected_state(manifest, accounts):
    users, groups, memberships = {}, {}, {}
    for account in accounts:
        for user, *facts in manifest["users"]:
            users[f"{account}/Users/{user}"] = tuple(facts)
        for group, name, members in manifest["groups"]:
            groups[f"{account}/Groups/{group}"] = (name,)
            for member in members:
                user = manifest["users"][member][0]
                memberships[f"{account}/Users/{user}/Groups/{group}"] = ()
    return {"users": users, "groups": groups, "memberships": memberships}


def baseline_events(manifest, accounts):
    """The events of a first load with baseline "events"."""
    events = Counter()
    for account in accounts:
        for user, *_ in manifest["users"]:
            events[account, "user.added", user, None] = 1
        for group, _, members in manifest["groups"]:
            events[account, "group.added", group, group] = 1
            for member in members:
                user = manifest["users"][member][0]
                events[account, "membership.added", user, group] = 1
    return events


def churn_events(changed, accounts):
    """The events of what a churn has changed."""
    events = Counter()
    for account in accounts:
        for event_type, changes in changed.items():
            for change in changes:
                user, group = change if isinstance(change, list) else (change, None)
                events[account, event_type, user, group] += 1
    return events


def judge(seen, manifest, accounts, events, *, rewritten=None):
    """Compares the state with the manifest, and the events since `forget` with those expected.
    `rewritten`: records of the state that may be written since then [default: one a key]."""
    verdict = judge_events(seen, events)
    expected = expected_state(manifest, accounts)
    for topic in STATE:
        found, wanted = seen.state[topic], expected[topic]
        missing, foreign = wanted.keys() - found.keys(), found.keys() - wanted.keys()
        wrong = [key for key in wanted.keys() & found.keys() if wanted[key] != found[key]]
        verdict.missed += len(missing)
        complain(verdict, f"{topic} missing", missing)
        complain(verdict, f"{topic} that do not exist", foreign)
        complain(verdict, f"{topic} with other values", wrong)
    count = sum(seen.written[topic] for topic in STATE)
    allowed = sum(map(len, expected.values())) if rewritten is None else rewritten
    if count > allowed:
        verdict.doubled += count - allowed
        verdict.reasons.append(f"{count - allowed} records of state more than {allowed}")
    return verdict


def judge_events(seen, expected):
    """Compares the events since `forget` with those expected."""
    verdict = Verdict(seen.records)
    missing, more = expected - seen.events, seen.events - expected
    verdict.missed += missing.total()
    verdict.doubled += more.total()
    complain(verdict, "events missing", missing)
    complain(verdict, "events too many", more)
    if seen.doubled_ids:
        verdict.reasons.append(f"{seen.doubled_ids} event ids twice")
    if seen.gaps:
        verdict.reasons.append(f"{seen.gaps} gaps in the sequence")
    return verdict


def complain(verdict, what, things):
    if things:
        named = ", ".join(str(thing) for thing in list(things)[:NAMED_MAX])
        verdict.reasons.append(f"{len(things)} {what}: {named}")
