"""Delete all records of a topic, as its retention does in time."""

import argparse

from confluent_kafka import OFFSET_END, TopicPartition
from confluent_kafka.admin import AdminClient

ADMIN_SECONDS_MAX = 30


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--bootstrap", required=True)
    arguments.add_argument("topic")
    arguments = arguments.parse_args()
    admin = AdminClient({"bootstrap.servers": arguments.bootstrap})
    partitions = (
        admin.list_topics(arguments.topic, ADMIN_SECONDS_MAX).topics[arguments.topic].partitions
    )
    ends = [TopicPartition(arguments.topic, partition, OFFSET_END) for partition in partitions]
    for done in admin.delete_records(ends, request_timeout=ADMIN_SECONDS_MAX).values():
        done.result()


if __name__ == "__main__":
    main()
