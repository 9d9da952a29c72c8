"""Write a copy of each partition's first record, and a tombstone for it, in a transaction that is
then aborted. Only readers of uncommitted records see them."""

import argparse

from confluent_kafka import Producer

from read import read

TRANSACTION_SECONDS_MAX = 30


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--bootstrap", required=True)
    arguments.add_argument("topics", nargs="+", metavar="TOPIC")
    arguments = arguments.parse_args()
    first = {}
    for message in read(arguments.bootstrap, arguments.topics):
        first.setdefault((message.topic(), message.partition()), message)
    producer = Producer(
        {
            "bootstrap.servers": arguments.bootstrap,
            "transactional.id": f"abort-{arguments.topics[0]}",
        }
    )
    producer.init_transactions(TRANSACTION_SECONDS_MAX)
    producer.begin_transaction()
    for (topic, partition), message in first.items():
        producer.produce(topic, message.value(), message.key(), partition)
        producer.produce(topic, None, message.key(), partition)
    # Aborting drops records that were not sent yet.
    if producer.flush(TRANSACTION_SECONDS_MAX):
        raise TimeoutError("the broker does not take records")
    producer.abort_transaction(TRANSACTION_SECONDS_MAX)


if __name__ == "__main__":
    main()
