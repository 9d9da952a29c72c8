"""The records that a reader has to have read, and the messages if it has not."""

from collections import Counter

from processes import Failed
from scenario import STATE_TOPICS

DIFFERENCES_SHOWN = 5


def compare_all(world, checks, reader, records):
    """The events and state that any reader has to have read."""

    def events():
        read = [record["value"] for record in records if world.name(record) == "events"]
        place = lambda event: f"{event['account']} {event['sequence']:05}"
        if len(read) != len(world.truth.events):
            raise Failed(f"{len(read)} events instead of {len(world.truth.events)}")
        same(
            {place(event): event for event in read},
            {place(event): event for event in world.truth.events},
        )

    def state(topic):
        read = folded(world, records)[topic]
        expected = world.truth.state[topic]
        known = {
            key: {name: value.get(name) for name in expected.get(key, {})}
            for key, value in read.items()
        }
        same(known, expected)

    def tombstones():
        read = {topic: Counter() for topic in STATE_TOPICS}
        for record in records:
            if record["value"] is None:
                headers = record["headers"]
                read[world.name(record)][
                    record["key"], headers.get("ce_id"), headers.get("ce_sequence")
                ] += 1
        same(read, world.truth.tombstones)

    checks(f"{reader}: the events are those that scimtail tail shows", events)
    for topic in STATE_TOPICS:
        checks(f"{reader}: {topic} are those of the directories", state, topic)
    checks(f"{reader}: a tombstone for every removal, and no other", tombstones)


def folded(world, records):
    """The newest value of each key, by topic."""
    state = {topic: {} for topic in STATE_TOPICS}
    for record in sorted(records, key=place_of):
        topic = state.get(world.name(record))
        if topic is None:
            continue
        if record["value"] is None:
            topic.pop(record["key"], None)
        else:
            topic[record["key"]] = record["value"]
    return state


def state_command(world):
    for topic in STATE_TOPICS:
        shown = Counter()
        for row in world.scimtail.lines("state", topic):
            shown[tuple(row[name] for name in STATE_COLUMNS[topic])] += 1
        expected = Counter(
            tuple(row[name] for name in STATE_COLUMNS[topic])
            for row in world.truth.state[topic].values()
        )
        same(shown, expected)


STATE_COLUMNS = {
    "users": ["account", "id", "user_name", "display_name", "active", "email"],
    "groups": ["account", "id", "display_name"],
    "memberships": ["account", "principal_type", "principal_id", "group_id"],
}


def markers(world):
    """The newest completed `syncs` record of an account says where its records end."""
    newest, ends = {}, {}
    for record in sorted(world.reference, key=place_of):
        account = record["key"].split("/")[0]
        if world.name(record) == "syncs":
            newest[record["key"]] = record["value"]
        else:
            ends[account, record["topic"]] = (record["partition"], record["offset"] + 1)
    for account in world.scimtail.directories:
        marker = newest[account]
        positions = {
            (account, p["topic"]): (p["partition"], p["next_offset"]) for p in marker["positions"]
        }
        same(positions, {place: end for place, end in ends.items() if place[0] == account})
        if marker["status"] != "completed" or newest[f"{account}/latest"]["sync"] != marker["sync"]:
            raise Failed(f"{account}: the newest marker is {marker['status']}")


def same(read, expected):
    """Raise with the first differences of two dictionaries."""
    if read == expected:
        return
    if not isinstance(read, dict):
        raise Failed("nothing was read")
    differences = []
    for key in sorted(read.keys() | expected.keys(), key=str):
        if key not in read:
            differences.append(f"{key}: missing")
        elif key not in expected:
            differences.append(f"{key}: too much: {str(read[key])[:300]}")
        elif read[key] != expected[key]:
            differences.append(f"{key}: {difference(read[key], expected[key])}")
    shown = "\n  ".join(differences[:DIFFERENCES_SHOWN])
    raise Failed(f"{len(differences)} of {len(expected)} differ:\n  {shown}")


def difference(read, expected):
    if isinstance(read, dict) and isinstance(expected, dict):
        names = [
            name
            for name in sorted(read.keys() | expected.keys(), key=str)
            if read.get(name) != expected.get(name)
        ]
        return "; ".join(
            f"{name}: {difference(read.get(name), expected.get(name))}" for name in names
        )
    return f"{str(read)[:300]} instead of {str(expected)[:300]}"


def by_place(records):
    return {place_of(record): record for record in records}


def place_of(record):
    return record["topic"], record["partition"], record["offset"]


def user_key(membership):
    return "/".join(membership.split("/")[:3])


def group_key(membership):
    account, _, _, *group = membership.split("/")
    return "/".join([account, *group])
