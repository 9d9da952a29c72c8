"""Print every committed record of topics as one line of JSON: confluent-kafka and fastavro.

Reads each partition from its beginning to where its end was at the start. With --schemas the values
are decoded with those files by position, as readers do that never ask a registry (Vector).
"""

import argparse
import io
import json
import struct
import sys
from datetime import datetime
from pathlib import Path

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient

METADATA_SECONDS_MAX = 20
SILENCE_SECONDS_MAX = 30
# Confluent's prefix of every value: a zero byte and the schema's id.
PREFIX = struct.Struct(">bI")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--bootstrap", required=True)
    arguments.add_argument("--registry", required=True, help="base URL of its Confluent API")
    arguments.add_argument(
        "--schemas", type=Path, help="directory with TOPIC.avsc; instead of the registry's"
    )
    arguments.add_argument("topics", nargs="+", metavar="TOPIC")
    arguments = arguments.parse_args()
    decode = (
        by_position(arguments.schemas) if arguments.schemas else by_registry(arguments.registry)
    )
    for message in read(arguments.bootstrap, arguments.topics):
        record = {
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "key": message.key().decode(),
            "headers": {name: value.decode() for name, value in message.headers() or []},
            # A null value, a tombstone, says that the key is gone.
            "value": None if message.value() is None else decode(message.topic(), message.value()),
        }
        print(json.dumps(record, default=instant, ensure_ascii=False, sort_keys=True))


def by_registry(url):
    """Decode with the schema that each value was written with."""
    registry = SchemaRegistryClient({"url": url})
    schemas = {}

    def decode(_topic, value):
        zero, id = PREFIX.unpack_from(value)
        if zero != 0:
            raise ValueError("a value that no registry knows")
        if id not in schemas:
            schemas[id] = fastavro.parse_schema(json.loads(registry.get_schema(id).schema_str))
        rest = io.BytesIO(value[PREFIX.size :])
        record = fastavro.schemaless_reader(rest, schemas[id], None)
        if rest.read():
            raise ValueError("bytes follow the value")
        return record

    return decode


def by_position(directory):
    """Decode with a schema of one's own, whatever schema the value was written with, and ignore
    what follows. Right only because fields are never inserted, moved or removed."""
    schemas = {}

    def decode(topic, value):
        if topic not in schemas:
            schemas[topic] = fastavro.schema.load_schema(directory / f"{topic}.avsc")
        return fastavro.schemaless_reader(io.BytesIO(value[PREFIX.size :]), schemas[topic], None)

    return decode


def read(bootstrap, topics):
    """Yield the records of all partitions up to their present ends."""
    settings = {
        "bootstrap.servers": bootstrap,
        # Required, but never used: partitions are assigned, and no offset is committed.
        "group.id": "read",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    }
    # A partition ends where a reader of uncommitted records sees its end. Kafka answers a commit before
    # every partition knows of it. One that reads committed records may see an end before them.
    with Consumer(settings | {"isolation.level": "read_uncommitted"}) as asking:
        places = [
            TopicPartition(topic, partition)
            for topic in topics
            for partition in asking.list_topics(topic, METADATA_SECONDS_MAX).topics[topic].partitions
        ]
        bounds = [asking.get_watermark_offsets(place, METADATA_SECONDS_MAX) for place in places]
    unread = {
        (place.topic, place.partition): end
        for place, (start, end) in zip(places, bounds)
        if start < end
    }
    # librdkafka's default, and worth being said: the other one shows aborted records.
    with Consumer(settings | {"isolation.level": "read_committed"}) as consumer:
        consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in unread])
        while unread:
            message = consumer.poll(SILENCE_SECONDS_MAX)
            if message is None:
                sys.exit(f"nothing arrived for {SILENCE_SECONDS_MAX} s; not at the end: {unread}")
            place = message.topic(), message.partition()
            if message.error() is None:
                reached = message.offset() + 1
                if place in unread and reached <= unread[place]:
                    yield message
            elif message.error().code() == KafkaError._PARTITION_EOF:
                # The last offsets may be no record's: of an aborted one, or of a transaction's end.
                reached = message.offset()
            else:
                raise KafkaException(message.error())
            if reached >= unread.get(place, sys.maxsize):
                del unread[place]


def instant(value):
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"
    raise TypeError(f"{type(value)} has no JSON")


if __name__ == "__main__":
    main()
