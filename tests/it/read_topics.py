"""Print every record of Kafka topics as one line of JSON each.

An independent reader for the tests: it shares no code with scimtail. It reads the committed records of
each partition from its beginning to where its end was when the program started, and decodes the
values, which are Avro behind the prefix of a schema registry: a zero byte and the schema's id in
four bytes.

A line: topic, partition, offset, key (text or null), headers (name to text), value (decoded; null
for a tombstone), value_bytes (the value as stored, in base64, or null). Logical types are left as
the numbers that Avro stores: timestamps are milliseconds since 1970.
"""

import argparse
import base64
import io
import json
import struct
import sys
import time
import urllib.request

import fastavro
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

# How long the broker may take to describe topics or the end of a partition, and the wait until it is asked again
# while a leader moves.
METADATA_SECONDS_MAX = 20
METADATA_SECONDS_BETWEEN = 0.1
# How long nothing may arrive while a partition's end is not reached. As long as a transaction may stay open
# whose producer was killed.
SILENCE_SECONDS_MAX = 90
# How long the registry may take to answer.
REGISTRY_SECONDS_MAX = 10
# How many records are taken from the client at once, and how long it may wait for them.
BATCH_RECORDS_MAX = 1000
BATCH_SECONDS_MAX = 0.2

PREFIX = struct.Struct(">bI")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--bootstrap", required=True, help="host:port of a broker")
    arguments.add_argument("--registry", required=True, help="base URL of the schema registry")
    arguments.add_argument(
        "--stable", action="store_true", help="only what comes before the first open transaction"
    )
    arguments.add_argument("topics", nargs="+", metavar="TOPIC")
    arguments = arguments.parse_args()

    with Reader(arguments.bootstrap) as reader:
        partitions = reader.partitions_of(arguments.topics)
        messages = reader.read({place: OFFSET_BEGINNING for place in partitions}, arguments.stable)

    position = {topic: number for number, topic in enumerate(arguments.topics)}
    messages.sort(key=lambda m: (position[m.topic()], m.partition(), m.offset()))
    decode = Decoder(arguments.registry)
    for message in messages:
        print(json.dumps(describe(message, decode), allow_nan=False))


class Reader:
    """Reads committed records up to the present ends of partitions. A partition: topic and number."""

    def __init__(self, bootstrap, **more):
        settings = {
            "bootstrap.servers": bootstrap,
            # Required by the client, but never used: partitions are assigned, nothing is committed.
            "group.id": "read-topics",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            **more,
        }
        self.consumer = Consumer({**settings, "isolation.level": "read_committed"})
        self.uncommitted = Consumer({**settings, "isolation.level": "read_uncommitted"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.consumer.close()
        self.uncommitted.close()

    def partitions_of(self, topics):
        partitions = []
        for topic in topics:
            described = self.uncommitted.list_topics(topic, METADATA_SECONDS_MAX).topics[topic]
            if described.error is not None:
                sys.exit(f"{topic}: {described.error}")
            partitions += [(topic, number) for number in described.partitions]
        return partitions

    def read(self, starts, stable=False):
        """Return all messages between these offsets of partitions and their ends.

        A partition's end is that of a reader of uncommitted records. Kafka answers a commit before
        each partition knows of it, and a reader of committed records sees the end of a partition
        before the first transaction that is open there. So that end can come too early, in one
        topic of a transaction whose records are there in another. `stable`: that end is wanted.
        """
        ends = self.ends(self.consumer if stable else self.uncommitted, starts)
        unread = {place: end for place, end in ends.items() if end > max(starts[place], 0)}
        self.consumer.assign([TopicPartition(*place, start) for place, start in starts.items()])
        messages, last_error = [], None
        silent_since = time.monotonic()
        while unread:
            batch = self.consumer.consume(BATCH_RECORDS_MAX, BATCH_SECONDS_MAX)
            if any(message.error() is None for message in batch):
                silent_since = time.monotonic()
            elif time.monotonic() - silent_since > SILENCE_SECONDS_MAX:
                sys.exit(
                    f"nothing arrived for {SILENCE_SECONDS_MAX} s; unread: {unread}; {last_error}"
                )
            for message in batch:
                place, error = (message.topic(), message.partition()), message.error()
                # The last offsets may belong to no message: to the marker that ends a transaction,
                # or to an aborted one. Where a partition seems to end, all before it is read.
                if error is None:
                    reached = message.offset() + 1
                    if place in unread and message.offset() < unread[place]:
                        messages.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    reached = message.offset()
                elif error.fatal():
                    raise KafkaException(error)
                else:
                    # A broker that is away comes back, or nothing arrives for too long.
                    last_error = error
                    continue
                # If a producer goes on writing, the end is never met.
                if reached >= unread.get(place, sys.maxsize):
                    del unread[place]
        self.consumer.unassign()
        return messages

    def ends(self, consumer, partitions):
        """Return the offset behind the last record of each partition that this consumer sees."""
        deadline = time.monotonic() + METADATA_SECONDS_MAX
        asked = [TopicPartition(*place, OFFSET_END) for place in partitions]
        while True:
            try:
                answers = consumer.offsets_for_times(asked, METADATA_SECONDS_MAX)
                errors = [answer.error for answer in answers if answer.error is not None]
            except KafkaException as exception:
                answers, errors = [], [exception.args[0]]
            if not errors:
                return {(answer.topic, answer.partition): answer.offset for answer in answers}
            # The leaders of partitions may be moving.
            if time.monotonic() > deadline:
                raise KafkaException(errors[0])
            time.sleep(METADATA_SECONDS_BETWEEN)


def describe(message, decode):
    """Return the printed form of a message."""
    place = f"{message.topic()}[{message.partition()}]@{message.offset()}"
    key, value = message.key(), message.value()
    try:
        return {
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "key": None if key is None else key.decode(),
            "headers": {name: text.decode() for name, text in message.headers() or []},
            "value": None if value is None else decode(value),
            "value_bytes": None if value is None else base64.b64encode(value).decode(),
        }
    except Exception as error:
        raise ValueError(f"{place} is not what consumers expect: {error}") from error


class Decoder:
    """Decodes values, with the schemas of a registry."""

    def __init__(self, registry):
        self.registry = registry.rstrip("/")
        self.schemas = {}
        # The registry is a service of the tests: no proxy of the environment applies.
        self.http = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __call__(self, value):
        zero, identifier = PREFIX.unpack_from(value)
        if zero != 0:
            raise ValueError(f"the value starts with {zero}, not with a zero byte")
        rest = io.BytesIO(value[PREFIX.size :])
        decoded = fastavro.schemaless_reader(rest, self.schema(identifier), None)
        left = len(rest.read())
        if left:
            raise ValueError(f"{left} bytes follow the value")
        return decoded

    def schema(self, identifier):
        if identifier not in self.schemas:
            url = f"{self.registry}/schemas/ids/{identifier}"
            with self.http.open(url, timeout=REGISTRY_SECONDS_MAX) as response:
                answer = json.load(response)
            if answer.get("schemaType", "AVRO") != "AVRO":
                raise ValueError(f"schema {identifier} is not Avro")
            schema = without_logical_types(json.loads(answer["schema"]))
            self.schemas[identifier] = fastavro.parse_schema(schema)
        return self.schemas[identifier]


def without_logical_types(schema):
    """Return the schema with the plain types that Avro stores."""
    if isinstance(schema, list):
        return [without_logical_types(branch) for branch in schema]
    if isinstance(schema, dict):
        return {
            name: without_logical_types(part)
            for name, part in schema.items()
            if name != "logicalType"
        }
    return schema


if __name__ == "__main__":
    main()
