"""The readers, one function each."""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

import builds
import recipes
import replay
import scenario
import services as real
from compare import by_place, compare_all, folded, group_key, markers, same, state_command, user_key
from processes import ROOT, Failed, Process, free_port, run
from scenario import RECORDS, STATE_TOPICS
from world import READ_SECONDS_MAX, lines


def python_part(world, checks):
    compare_all(world, checks, "confluent-kafka with fastavro", world.reference)
    checks("scimtail state says the same as the directories", state_command, world)
    checks("the markers name positions that hold everything", markers, world)


def position_part(world, checks):
    """Each record is read with every schema that is the beginning of today's, as if that was the one
    which a reader was configured with when it was the newest."""

    def shortened(schema, missing):
        return schema | {"fields": schema["fields"][: len(schema["fields"]) - missing]}

    def check(missing):
        schemas = world.work / f"schemas-{missing}"
        schemas.mkdir()
        fields = {}
        for topic, record in zip(world.topics, RECORDS.values()):
            schema = shortened(scenario.SCHEMAS[record], missing)
            fields[topic] = [field["name"] for field in schema["fields"]]
            (schemas / f"{topic}.avsc").write_text(json.dumps(schema))
        expected = [
            record
            | {
                "value": record["value"]
                and {name: record["value"][name] for name in fields[record["topic"]]}
            }
            for record in world.reference
        ]
        same(by_place(world.read_in_python("--schemas", schemas)), by_place(expected))

    for missing in [0, 1, 3, 5]:
        what = f"older by {missing} fields" if missing else "of today"
        checks(f"by position: every record is read with a fixed schema {what}", check, missing)


def connect_part(world, checks):
    records = connect(world)
    compare_all(world, checks, "Kafka Connect with Apicurio's converter", records)
    checks(
        "Kafka Connect: every record is as in Python",
        same,
        by_place(records),
        by_place(world.reference),
    )


def connect(world):
    """Run a worker with two file sinks until they have written as many lines as Python has read."""
    directory = world.work / "connect"
    directory.mkdir()
    worker = recipe("kafka-connect.md", "worker.properties") | {
        "bootstrap.servers": world.services.bootstrap,
        "offset.storage.file.filename": directory / "offsets",
        "value.converter.apicurio.registry.url": world.services.apicurio,
        "listeners": f"http://127.0.0.1:{free_port()}",
    }
    write_properties(directory / "worker.properties", worker)
    sinks = {"events": ["events"], "state": [*STATE_TOPICS, "syncs"]}
    for sink, names in sinks.items():
        settings = recipe("kafka-connect.md", "sink.properties") | {
            "name": f"{world.scimtail.prefix}-{sink}",
            "topics": ",".join(map(world.scimtail.topic, names)),
            "file": directory / f"{sink}.jsonl",
            # The recipe writes values only; this writes all that can be compared.
            "transforms": "json",
            "transforms.json.type": "readers.ToJson",
        }
        write_properties(directory / f"{sink}.properties", settings)
    worker = [
        *real.java(directory, 256), "-cp", builds.java() / "lib/*", "org.apache.kafka.connect.cli.ConnectStandalone",
        "worker.properties", *(f"{sink}.properties" for sink in sinks),
    ]  # fmt: skip
    process = Process("connect", worker, directory)
    files = [directory / f"{sink}.jsonl" for sink in sinks]

    def read():
        return "".join(file.read_text() for file in files if file.exists())

    def done():
        if "unrecoverable exception" in process.log.read_text():
            raise Failed(f"a sink has failed.{process.end_of_log()}")
        return read().count("\n") >= len(world.reference)

    try:
        process.wait_until(done, READ_SECONDS_MAX)
    finally:
        process.stop()
    return lines(read())


def recipe(page, name):
    """The properties that a page of docs/consumers shows under this name: the documented properties are run."""
    text = (ROOT / "docs/consumers" / page).read_text()
    block = text.partition(f"```properties\n# {name}\n")[2].partition("```")[0]
    if not block:
        raise Failed(f"docs/consumers/{page} has no properties named {name}")
    return dict(line.split("=", 1) for line in block.splitlines())


def write_properties(file, settings):
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))


def streams_part(world, checks):
    directory = world.work / "streams"
    directory.mkdir()
    command = [
        *real.java(directory, 384), "-cp", builds.java() / "lib/*", "readers.Tables",
        world.services.bootstrap, world.services.apicurio, world.scimtail.prefix, directory / "state",
    ]  # fmt: skip
    stores = {}
    for line in lines(run("streams", command, directory, READ_SECONDS_MAX)):
        stores.setdefault(line["store"], {})[line["key"]] = json.loads(line["value"])
    state = folded(world, world.reference)
    # Every membership of a user, with the user and the group.
    access = {
        key: [[membership, state["users"][user_key(key)]], state["groups"][group_key(key)]]
        for key, membership in state["memberships"].items()
        if membership["principal_type"] == "user"
    }

    def naive():
        found = stores.get("access-naive", {})
        if not found.items() <= access.items():
            raise Failed("the naive join finds rows that are not there")
        if len(found) > len(access) / 2:
            raise Failed(
                f"the naive join finds {len(found)} of {len(access)}: the warning is out of date"
            )

    for topic in STATE_TOPICS:
        checks(
            f"Kafka Streams: the table of {topic} is the state",
            same,
            stores.get(topic),
            state[topic],
        )
    checks(
        "Kafka Streams: memberships joined with global tables give the access",
        same,
        stores.get("access-global"),
        access,
    )
    checks(
        "Kafka Streams: a foreign-key join that is told the partitioner gives the access",
        same,
        stores.get("access-partitioned"),
        access,
    )
    checks("Kafka Streams: the naive foreign-key join misses, as the documents say", naive)


def go_part(world, checks):
    command = [
        builds.go() / "read",
        "-bootstrap",
        world.services.bootstrap,
        "-registry",
        world.services.registry,
        *world.topics,
    ]
    records = lines(run("go-read", command, world.work, READ_SECONDS_MAX))
    compare_all(world, checks, "franz-go with hamba/avro", records)
    checks(
        "franz-go: every record is as in Python", same, by_place(records), by_place(world.reference)
    )


def replay_part(world, checks):
    seed = secrets.randbits(32)
    print(f"     replay: seed {seed}", flush=True)
    play = replay.Replay(world, seed)
    try:
        for what, act in [
            ("consumers are killed again and again while directories change", play.kills),
            ("events are gone before consumers have read them", play.forget),
            ("all topics are deleted and created again", play.begin_again),
            ("state is repaired after a loss", play.repair),
            ("groups are read by another pattern", play.configure),
            ("an account is retired and comes back", play.retire),
            ("consumers were away for long", play.be_away),
            ("consumers have missed an event", play.miss_an_event),
            ("consumers have lost a row", play.lose_a_row),
        ]:
            if not checks(f"replay: {what}, and consumers catch up", act):
                return
            for consumer in play.consumers:
                # Each event since it last loaded was applied once.
                checks(
                    f"replay: {what}, and {consumer.name} knows the directories",
                    replay.compare,
                    play,
                    consumer,
                )
        for consumer in play.consumers[:2]:
            checks(
                f"replay: {consumer.name} says what it waits for, and that the prefix is unknown",
                play.ask_for_unknown,
                consumer,
            )
    finally:
        play.end()


@dataclass
class Part:
    run: Callable
    # Beside the services and the environment of Python, which every part needs.
    builds: list = field(default_factory=list)
    # Whether it reads what scenario.py publishes.
    reads_world: bool = True


# The longest come first, because some run at once.
ALL = {
    "replay": Part(replay_part, [builds.replay_java], reads_world=False),
    "recipes": Part(recipes.recipes_part, [builds.java, recipes.environment]),
    "flink": Part(recipes.flink_part, [builds.flink]),
    "clickhouse": Part(recipes.clickhouse_part, [builds.clickhouse]),
    "tenzir": Part(recipes.tenzir_part, [builds.tenzir]),
    "connect": Part(connect_part, [builds.java]),
    "streams": Part(streams_part, [builds.java]),
    "position": Part(position_part),
    "python": Part(python_part),
    "go": Part(go_part, [builds.go]),
}
