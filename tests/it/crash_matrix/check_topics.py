"""Read the topics of a crash matrix and say whether a calm program would have left the same.

It shares no code with scimtail: it knows README.md, the schemas that the registry hands out, and
what the directories really held. It reads orders as lines of JSON on standard input and answers
each with a line:

  {"begin": {"prefix", "partitions", "accounts": {NAME: {"baseline", "refuses_proof"?}}}}
                                                              forget all that was read
  {"version": {"account", "users", "groups"}}                 a directory holds this from now on
  {"untouched": {"account", "from": "state" | "everything"}}  from now on, no such record of it
  {"check": {"denied": {NAME: [[ENDPOINT, ID], ...]}, "converged": BOOL}}  read and judge the new
  {"doctor": {}}                                              doctor the records: is it noticed?
  {"keep": {"file"}}                                          write the orders and the records
  {"forget": {"file"}}                                        append them to the file, and forget them

`refuses_proof`: after a whole list the directory may fail to say whether something is gone.
`denied` are the ids of which the directory said 404 since the check before. `converged`: faults have
stopped and the state has to be that of the newest version. A judgement is {"complaints": [...],
"records", "events", "transactions", "completed"}; judge.py says what no complaints means.
"""

import argparse
import json
import sys

import xxhash

import read_topics
from doctor import unnoticed
from judge import TOPICS, Judge


def main():
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--bootstrap", required=True, help="host:port of a broker")
    arguments.add_argument("--registry", required=True, help="base URL of the schema registry")
    arguments = arguments.parse_args()
    decode = read_topics.Decoder(arguments.registry)
    reader = read_topics.Reader(
        arguments.bootstrap,
        **{
            # The end of a partition is answered at once.
            "fetch.wait.max.ms": 10,
            "reconnect.backoff.max.ms": 500,
            # The matrix kills brokers on purpose.
            "log_level": 0,
        },
    )
    judge, unread, history = None, None, []
    for line in sys.stdin:
        [(order, content)] = json.loads(line).items()
        if order == "begin":
            judge, history = Judge(content), [(order, content)]
            unread = Unread(reader, decode, content)
            answer = {}
        elif order == "doctor":
            answer = {"unnoticed": unnoticed(history)}
        elif order == "keep":
            with open(content["file"], "w") as file:
                file.writelines(json.dumps({order: content}) + "\n" for order, content in history)
            answer = {}
        elif order == "forget":
            # What the judge needs of them it has taken; all of them would fill the memory in a long run.
            with open(content["file"], "a") as file:
                file.writelines(json.dumps({order: content}) + "\n" for order, content in history)
            history, answer = [], {}
        else:
            if order == "check":
                content["records"] = unread.records()
            history.append((order, content))
            answer = judge.take(order, content)
        print(json.dumps(answer), flush=True)


class Unread:
    """The records that were not read before."""

    def __init__(self, reader, decode, world):
        self.reader, self.decode = reader, decode
        self.prefix, self.next = world["prefix"] + ".", {}
        for topic in TOPICS:
            for partition in range(world["partitions"]):
                self.next[(self.prefix + topic, partition)] = 0

    def records(self):
        records = []
        for message in self.reader.read(self.next):
            self.next[message.topic(), message.partition()] = message.offset() + 1
            records.append(self.plain(message))
        records.sort(key=lambda record: (record["topic"], record["partition"], record["offset"]))
        return records

    def plain(self, message):
        described = read_topics.describe(message, self.decode)
        raw = message.value()
        return {
            "topic": described["topic"].removeprefix(self.prefix),
            "partition": described["partition"],
            "offset": described["offset"],
            "key": described["key"],
            "headers": described["headers"],
            "value": described["value"],
            "digest": None if raw is None else digest(message.key(), raw),
        }


def digest(key, value):
    """A record's share of `state_digest`."""
    return xxhash.xxh3_128_intdigest(len(key).to_bytes(4, "big") + key + value)


if __name__ == "__main__":
    main()
