"""Print every record of Kafka topics as one line of JSON each.

An independent reader for the tests: it shares no code with scimtail. It reads each partition from
its beginning to where its end was when the program started, and decodes the values, which are Avro
behind the prefix of a schema registry: a zero byte and the schema's id in four bytes.

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
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

# How long the broker may take to describe topics or the end of a partition.
METADATA_SECONDS_MAX = 20
# How long nothing may arrive while a partition's end is not reached.
SILENCE_SECONDS_MAX = 30
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
        "--isolation", required=True, choices=["read_committed", "read_uncommitted"]
    )
    arguments.add_argument("topics", nargs="+", metavar="TOPIC")
    arguments = arguments.parse_args()

    consumer = Consumer(
        {
            "bootstrap.servers": arguments.bootstrap,
            "isolation.level": arguments.isolation,
            # Required by the client, but never used: partitions are assigned, nothing is committed.
            "group.id": "read-topics",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
    )
    try:
        messages = read(consumer, arguments.topics)
    finally:
        consumer.close()

    position = {topic: number for number, topic in enumerate(arguments.topics)}
    messages.sort(key=lambda m: (position[m.topic()], m.partition(), m.offset()))
    decode = Decoder(arguments.registry)
    for message in messages:
        print(json.dumps(describe(message, decode), allow_nan=False))


def read(consumer, topics):
    """Return all messages before the present ends of the topics' partitions."""
    ends = unread_partitions(consumer, topics)
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for topic, p in ends])
    messages = []
    silent_since = time.monotonic()
    while ends:
        batch = consumer.consume(BATCH_RECORDS_MAX, BATCH_SECONDS_MAX)
        if batch:
            silent_since = time.monotonic()
        elif time.monotonic() - silent_since > SILENCE_SECONDS_MAX:
            sys.exit(f"nothing arrived for {SILENCE_SECONDS_MAX} s; unread: {ends}")
        for message in batch:
            partition = (message.topic(), message.partition())
            if message.error():
                # The only error that is not a failure: the end of a partition. It is needed because the
                # last offsets may belong to no message: to the marker that ends a transaction,
                # to an aborted one, or, with read_committed, to one that is still open.
                if message.error().code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(message.error())
                ends.pop(partition, None)
            elif partition in ends:
                if message.offset() < ends[partition]:
                    messages.append(message)
                # If a producer goes on writing, the end is never met.
                if message.offset() + 1 >= ends[partition]:
                    del ends[partition]
    return messages


def unread_partitions(consumer, topics):
    """Return the end offset of each partition that is not empty."""
    ends = {}
    for topic in topics:
        described = consumer.list_topics(topic, METADATA_SECONDS_MAX).topics[topic]
        if described.error is not None:
            sys.exit(f"{topic}: {described.error}")
        for number in described.partitions:
            partition = TopicPartition(topic, number)
            low, high = consumer.get_watermark_offsets(partition, METADATA_SECONDS_MAX)
            if low < high:
                ends[(topic, number)] = high
    return ends


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
