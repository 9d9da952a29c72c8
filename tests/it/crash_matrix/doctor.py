"""Doctors records that were really read, to prove that the judge notices.

A judge that never complains proves nothing. Each doctoring breaks one promise.
"""

import copy

from judge import STATE, Judge


def doctored(records, pick, change):
    """The records with one of them changed: the last that `pick` takes; None where there is none."""
    at = next((at for at in reversed(range(len(records))) if pick(records[at])), None)
    if at is None:
        return None
    record = copy.deepcopy(records[at])
    return records[:at] + change(record, records[at]) + records[at + 1 :]


def is_event(*types):
    return lambda record: record["topic"] == "events" and record["value"]["event_type"] in types


def is_put(topic):
    return lambda record: record["topic"] == topic and record["value"] is not None


def is_latest(record):
    return record["topic"] == "syncs" and record["key"].endswith("/latest")


def is_tombstone(record):
    return record["topic"] in STATE and record["value"] is None


def names_event(record):
    return record["topic"] in STATE and "ce_sequence" in record["headers"]


def is_completed(record):
    return record["topic"] == "syncs" and "/" not in record["key"]


def changed(path, new):
    """Sets a field, which may be in a nested record."""

    def change(record, _):
        *outer, last = path
        part = record
        for name in outer:
            part = part[name]
        part[last] = new(part[last])
        return [record]

    return change


def drop(record, original):
    return []


def one_later(record, original):
    """The same record once more, as a producer that repeats itself would write it."""
    return [original, {**record, "offset": record["offset"] + 1}]


EVERY_EVENT = is_event(
    "user.added",
    "user.updated",
    "user.disabled",
    "user.enabled",
    "user.removed",
    "group.added",
    "group.updated",
    "group.removed",
    "membership.added",
    "membership.removed",
)
REMOVED = is_event("user.removed", "group.removed")
DOCTORINGS = {
    "an event is lost": (EVERY_EVENT, drop),
    "an event is repeated": (EVERY_EVENT, one_later),
    "a sequence is skipped": (EVERY_EVENT, changed(["value", "sequence"], lambda value: value + 1)),
    "an event has another id": (
        EVERY_EVENT,
        changed(["value", "event_id"], lambda value: value[::-1]),
    ),
    "an event is null": (EVERY_EVENT, changed(["value"], lambda value: None)),
    "an event has another type": (
        is_event("user.disabled"),
        changed(["value", "event_type"], lambda value: "user.updated"),
    ),
    "an update has another old value": (
        is_event("user.updated", "group.updated"),
        changed(["value", "changes", 0, "old_value"], lambda value: '"doctored"'),
    ),
    "an image is another": (
        is_event("user.updated"),
        changed(["value", "user", "user_name"], lambda value: "doctored"),
    ),
    "a removal has no reason": (REMOVED, changed(["value", "removal_reason"], lambda value: None)),
    "a user's state is lost": (is_put("users"), drop),
    "a user's state is another": (
        is_put("users"),
        changed(["value", "user_name"], lambda value: "doctored"),
    ),
    "a group's state is another": (
        is_put("groups"),
        changed(["value", "display_name"], lambda value: "doctored"),
    ),
    "a state's bytes are others": (is_put("users"), changed(["digest"], lambda value: value ^ 1)),
    "a membership is lost": (is_put("memberships"), drop),
    "a tombstone is lost": (is_tombstone, drop),
    "a state record names no event": (names_event, changed(["headers"], lambda value: {})),
    "a record is another account's": (
        is_put("users"),
        changed(["value", "account"], lambda value: "somebody-else"),
    ),
    "a record is in another partition": (
        is_put("groups"),
        changed(["partition"], lambda value: 1 - value),
    ),
    "a latest record is lost": (is_latest, drop),
    "a marker of completeness is lost": (is_completed, drop),
    "a sync is numbered twice": (is_latest, changed(["value", "sync"], lambda value: value - 1)),
    "a position is too small": (
        is_latest,
        changed(["value", "positions", 1, "next_offset"], lambda value: value - 1),
    ),
    "a digest is another": (
        is_latest,
        changed(["value", "state_digest"], lambda value: value[::-1]),
    ),
    "a count of records is another": (
        is_latest,
        changed(["value", "state_records"], lambda value: value + 1),
    ),
    "a control offset goes back": (
        is_latest,
        changed(["value", "control_offset"], lambda value: value - 1),
    ),
}


def unnoticed(history):
    """Which doctorings the judge does not notice, or could not be tried."""
    [begin], orders = [content for order, content in history if order == "begin"], history[1:]
    records = [
        record for order, content in orders if order == "check" for record in content["records"]
    ]
    denied = {}
    for order, content in orders:
        if order == "check":
            for name, who in content["denied"].items():
                denied.setdefault(name, []).extend(who)

    def complaints(records, versions=None, denied=denied, untouched=()):
        judge = Judge(begin)
        for order, content in versions or orders:
            if order == "version":
                judge.take(order, content)
        for name in untouched:
            judge.take("untouched", {"account": name, "from": "state"})
        return judge.check({"records": records, "denied": denied, "converged": True})["complaints"]

    missed = []
    honest = complaints(records)
    if honest:
        missed.append(f"nothing is doctored, but: {honest}")
    for name, (pick, change) in DOCTORINGS.items():
        altered = doctored(records, pick, change)
        if altered is None:
            missed.append(f"{name}: no such record to doctor was read")
        elif not complaints(altered):
            missed.append(name)
    busy = next(record["key"].split("/")[0] for record in records if EVERY_EVENT(record))
    others = {
        "a removal without proof": complaints(records, denied={}),
        "a directory that goes on": complaints(
            records, versions=[(o, c) for o, c in orders if o == "version"][:-1] + [ahead(orders)]
        ),
        "an account that was not to be touched": complaints(records, untouched=[busy]),
        "a version that was never served": complaints(records, versions=without_first(orders)),
    }
    missed.extend(name for name, noticed in others.items() if not noticed)
    return missed


def ahead(orders):
    """The newest version of some directory with one user more."""
    content = copy.deepcopy([content for order, content in orders if order == "version"][-1])
    content["users"]["doctored"] = {"userName": "doctored"}
    return ("version", content)


def without_first(orders):
    """All versions, the first of each account with one user less."""
    result, seen = [], set()
    for order, content in orders:
        if order == "version" and content["account"] not in seen:
            seen.add(content["account"])
            content = copy.deepcopy(content)
            content["users"].pop(next(iter(content["users"])))
        result.append((order, content))
    return result
