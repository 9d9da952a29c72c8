"""Shows that the checker notices: records that a part has left are doctored, one at a time.

By hand: tests/cluster/run --doctored FILE, where FILE is the records.jsonl of a part.
"""

import json
import random

from judge import Judge
from processes import Failed


class Dump:
    """What a checker was told and what it read, as it has written it to a file."""

    def __init__(self, file):
        orders = []
        with file.open() as lines:
            for line in lines:
                orders += json.loads(line).items()
        self.begin = orders[0][1]
        self.versions = [content for order, content in orders if order == "version"]
        self.denied, self.records = {}, []
        for order, content in orders:
            if order == "check":
                self.records += content["records"]
                for account, ids in content["denied"].items():
                    self.denied.setdefault(account, []).extend(ids)
        if not self.records:
            raise Failed(f"{file} holds no records")

    def complaints(self, records):
        judge = Judge(self.begin)
        for version in self.versions:
            judge.take("version", version)
        check = {"records": records, "denied": self.denied, "converged": True}
        return judge.take("check", check)["complaints"]


def dropped(records, at, rng):
    return records[:at] + records[at + 1 :]


def doubled(records, at, rng):
    """As a producer that repeats itself would write it: what follows in the partition is one further on."""
    record = records[at]
    again = {**record, "offset": record["offset"] + 1}
    later = [
        {**other, "offset": other["offset"] + 1} if place(other) == place(record) else other
        for other in records[at + 1 :]
    ]
    return [*records[: at + 1], again, *later]


def moved(records, at, rng, partitions):
    """To another partition, at the same offset."""
    others = [p for p in range(partitions) if p != records[at]["partition"]]
    return records[:at] + [{**records[at], "partition": rng.choice(others)}] + records[at + 1 :]


def delayed(records, at, rng):
    """Behind the next record of its partition."""
    one, other = records[at], records[at + 1]
    swapped = [{**other, "offset": one["offset"]}, {**one, "offset": other["offset"]}]
    return records[:at] + swapped + records[at + 2 :]


def is_latest(record):
    """A person's request writes the newest status once more, so a repeated one is not wrong."""
    return record["topic"] == "syncs" and record["key"].endswith("/latest")


def check(file, seed, times):
    """Doctors `times` records in each way. Returns a line about it."""
    if file is None:
        raise Failed("no part has left records: name another part before it")
    rng, dump = random.Random(seed), Dump(file)
    records, partitions = dump.records, dump.begin["partitions"]
    if honest := dump.complaints(records):
        raise Failed(f"nothing is doctored, but the checker complains: {honest}")
    every = range(len(records))
    neighbours = [
        at
        for at in every[:-1]
        if place(records[at]) == place(records[at + 1])
        # Two state records of one transaction have no order.
        and (
            records[at]["topic"] == "events"
            # The newest records of two accounts have none either.
            or (records[at]["topic"] == "syncs" and account(records[at]) == account(records[at + 1]))
        )
    ]
    ways = {
        "dropped": (every, lambda at: dropped(records, at, rng)),
        "doubled": (
            [at for at in every if not is_latest(records[at])],
            lambda at: doubled(records, at, rng),
        ),
        "moved": (every, lambda at: moved(records, at, rng, partitions)),
        "delayed": (neighbours, lambda at: delayed(records, at, rng)),
    }
    unnoticed, tried = [], 0
    for way, (places, doctor) in ways.items():
        for at in spread(places, records, rng, times):
            tried += 1
            if not dump.complaints(doctor(at)):
                record = records[at]
                where = f"{record['topic']}[{record['partition']}]@{record['offset']}"
                unnoticed.append(f"{where} {record['key']} is {way}")
    if unnoticed:
        raise Failed(f"{len(unnoticed)} of {tried} go unnoticed: " + "; ".join(unnoticed[:10]))
    return f"all {tried} doctored dumps of {len(records)} records are noticed ({', '.join(ways)})"


def place(record):
    return record["topic"], record["partition"]


def account(record):
    return record["key"].split("/")[0]


def spread(places, records, rng, times):
    """`times` places, from every topic in turn: most records are of few topics."""
    by_topic = {}
    for at in places:
        by_topic.setdefault(records[at]["topic"], []).append(at)
    for found in by_topic.values():
        rng.shuffle(found)
    chosen = []
    while len(chosen) < times and any(by_topic.values()):
        for found in by_topic.values():
            if found and len(chosen) < times:
                chosen.append(found.pop())
    return chosen
