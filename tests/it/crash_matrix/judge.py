"""Properties that hold for the topics, whatever died while they were written.

No complaints is the verdict that:

  - every record is in its account's partition, under a key of its account, with headers that
    agree with it;
  - sequences are gapless and nothing is repeated, in partition order; event ids are unique;
    events are never null;
  - whatever a transaction's syncs record covers is complete: events and the state they lead to, each
    state record with the id and sequence of its event; nothing is outside;
  - at every transaction, folding the events gives the state, and each event fits the state
    before it;
  - number and digest of the state records are those that the syncs record states;
  - a completed sync's state is a version of the directory, and versions never go back; if the sync says that a
    directory which refuses proof has left it in doubt, the state may hold more, but only what it held before;
  - a removal is of something that the version does not have, and, for principals, of an id that a
    GET denied;
  - numbers of syncs and times never go back, an attempt is numbered once, control offsets never go
    back;
  - an account that is not touched stays as it is.
"""

import copy
import json
import urllib.parse
from collections import Counter

from versions import difference, facts, is_kept_beside

STATE = ("users", "groups", "memberships")
POSITIONED = ("events",) + STATE
TOPICS = POSITIONED + ("syncs",)
# Complaints of one check that are printed: those after the first are often its consequence.
COMPLAINTS_MAX = 20


class Complaint(Exception):
    pass


# Errors of the judgement on a record that is not as the schemas and README.md say.
MALFORMED = (Complaint, AttributeError, IndexError, KeyError, TypeError, ValueError)


def expect(truth, text):
    if not truth:
        raise Complaint(text)


class Judge:
    def __init__(self, world):
        self.partitions = world["partitions"]
        self.accounts = {
            name: Account(name, settings["baseline"], settings.get("refuses_proof", False))
            for name, settings in world["accounts"].items()
        }

    def take(self, order, content):
        if order == "version":
            # A copy: values derived from it are kept there.
            self.accounts[content["account"]].versions.append({**content})
            return {}
        if order == "untouched":
            self.accounts[content["account"]].untouched = content["from"]
            return {}
        return self.check(content)

    def check(self, content):
        complaints, counts = [], Counter()
        for record in content["records"]:
            try:
                self.account_of(record).enqueue(record)
            except MALFORMED as complaint:
                complaints.append(f"{place(record)}: {complaint}")
        for name, account in self.accounts.items():
            if account.broken:
                complaints.append(f"{name}: what follows an earlier complaint is not judged")
                continue
            account.denied = {tuple(who) for who in content["denied"].get(name, [])}
            try:
                account.advance(counts)
                account.settle(content["converged"])
            except MALFORMED as complaint:
                account.broken = True
                complaints.append(f"{name}: {complaint}")
        counts["records"] = len(content["records"])
        names = ("records", "events", "transactions", "completed")
        return {"complaints": complaints[:COMPLAINTS_MAX], **{name: counts[name] for name in names}}

    def account_of(self, record):
        expect(record["key"] is not None, "it has no key")
        name = record["key"].split("/")[0]
        expect(name in self.accounts, "its key names no account")
        expect(
            record["partition"] == partition(name, self.partitions),
            "it is in another account's partition",
        )
        value = record["value"]
        expect(value is None or value["account"] == name, "key and value name different accounts")
        return self.accounts[name]


class Account:
    def __init__(self, name, baseline, refuses_proof):
        self.name, self.baseline = name, baseline
        # Its directory may show a whole list, and then not say whether something is gone.
        self.refuses_proof = refuses_proof
        self.versions, self.version = [], -1
        self.untouched, self.denied, self.broken = None, set(), False
        # Topic to records that no syncs record covered yet; the syncs records themselves.
        self.waiting = {topic: [] for topic in POSITIONED}
        self.syncs = []
        self.latest = self.completed = None
        self.positions = dict.fromkeys(POSITIONED, 0)
        self.sequence, self.ids = 0, set()
        # What the events say, and what the compacted topics say. Principals by (endpoint, id),
        # memberships by (endpoint, id, group).
        self.fold, self.state = {}, {}
        # The state at the last completed sync.
        self.before = {}

    def enqueue(self, record):
        topic, value = record["topic"], record["value"]
        if self.untouched == "everything" or (self.untouched == "state" and topic != "syncs"):
            raise Complaint("this account was not to be touched")
        if topic == "syncs":
            expect(value is not None, "the account was not retired")
            self.syncs.append(record)
            return
        if topic == "events":
            expect(value is not None, "an event is null")
            check_headers(self.name, record)
        self.waiting[topic].append(record)

    def advance(self, counts):
        """Judges every transaction that was read, each by its syncs record."""
        marker = None
        for record in self.syncs:
            if record["key"] == self.name:
                expect(marker is None, f"{place(record)}: two completed syncs in one transaction")
                marker = record
                continue
            expect(
                record["key"] == self.name + "/latest", f"{place(record)}: a key of no known form"
            )
            try:
                counts["events"] += self.transaction(record["value"], marker)
            except MALFORMED as complaint:
                raise Complaint(f"transaction of {place(record)}: {complaint}") from None
            counts["transactions"] += 1
            counts["completed"] += marker is not None
            marker = None
        expect(marker is None, "a completed sync without its latest record")
        self.syncs = []

    def transaction(self, status, marker):
        self.check_status(status, marker)
        events, writes = self.window(status)
        first = self.completed is None
        expect(
            not (first and self.baseline == "state" and events),
            "events before the baseline is complete",
        )
        before = copy.deepcopy(self.fold)
        touched = {}
        for event in events:
            key = self.apply(event["value"], first)
            touched[key] = event
        for record in writes:
            self.write(record, touched, status, first)
        expect(not touched, f"an event without its state record: {sorted(touched)[:3]}")
        check_changes(events, before, self.fold)
        if first and self.baseline == "state" and marker is not None:
            self.fold = {key: image for key, (image, _) in self.state.items()}
        if not (first and self.baseline == "state" and marker is None):
            different = difference(
                self.fold, {key: image for key, (image, _) in self.state.items()}
            )
            expect(not different, f"folding the events does not give the state: {different}")
        self.check_digest(status)
        if marker is not None:
            self.complete(status)
        self.latest = status
        return len(events)

    def check_status(self, status, marker):
        before, completed = self.latest, self.completed
        if marker is not None:
            expect(status["status"] == "completed", "the completed sync is not the latest")
            expect(marker["value"] == status, "the two records of a completed sync differ")
            expect(
                completed is None or status["sync"] > completed["sync"], "a sync completed twice"
            )
        elif status["status"] == "completed":
            # A person's request outside a sync rewrites the newest record.
            expect(
                before is not None and before["sync"] == status["sync"],
                "a completed sync without its marker",
            )
        if before is None:
            expect(status["sync"] in (0, 1), "the first attempt is not number 1")
            return
        expect(
            status["sync"] - before["sync"] in (0, 1),
            f"attempt {status['sync']} follows {before['sync']}",
        )
        if status["sync"] == before["sync"] and before["status"] != "running":
            expect(status["status"] == before["status"], "a sync that was over went on")
        for name in ("started_at", "control_offset", "sequence"):
            expect(status[name] >= before[name], f"{name} went back")
        if status["sync"] > before["sync"] and before["finished_at"] is not None:
            expect(
                status["started_at"] >= before["finished_at"],
                "started before the sync before it was finished",
            )

    def window(self, status):
        """Takes the records between the positions of the last transaction and those of this one."""
        positions = {
            position["topic"].rsplit(".", 1)[1]: position["next_offset"]
            for position in status["positions"]
        }
        expect(positions.keys() == self.positions.keys(), "positions name other topics")
        taken = {}
        for topic in POSITIONED:
            expect(positions[topic] >= self.positions[topic], f"the position in {topic} went back")
            end = positions[topic]
            taken[topic] = [record for record in self.waiting[topic] if record["offset"] < end]
            self.waiting[topic] = [
                record for record in self.waiting[topic] if record["offset"] >= end
            ]
            last = taken[topic][-1]["offset"] + 1 if taken[topic] else self.positions[topic]
            expect(
                last == end,
                f"the position in {topic} is {end}, the account's last record ends at {last}",
            )
        self.positions = positions
        return taken["events"], [record for topic in STATE for record in taken[topic]]

    def apply(self, event, first):
        """Folds one event; returns the key of the state record that has to come with it."""
        kind, what = event["event_type"].split(".")
        expect(
            event["sequence"] == self.sequence + 1,
            f"sequence {event['sequence']} follows {self.sequence}",
        )
        self.sequence += 1
        expect(
            event["event_id"] not in self.ids,
            f"event id of sequence {event['sequence']} is repeated",
        )
        self.ids.add(event["event_id"])
        expect(event["snapshot"] == first, "snapshot says something else than the baseline")
        where = f"{event['event_type']} of sequence {event['sequence']}"
        member = ("Users" if event["principal_type"] == "user" else "Groups", event["principal_id"])
        if kind == "membership":
            key = member + (event["group_id"],)
            group = ("Groups", event["group_id"])
            if what == "added":
                expect(key not in self.fold, f"{where}: it was a member already")
                expect(
                    member in self.fold and group in self.fold,
                    f"{where}: without a principal, or without a group",
                )
                self.fold[key] = True
            else:
                expect(key in self.fold, f"{where}: it was no member")
                self.check_removal(key, event, where)
                del self.fold[key]
            return key
        expect(kind == event["principal_type"], f"{where}: of another kind")
        image = image_of(event[kind])
        if what == "added":
            expect(member not in self.fold, f"{where}: it was there already")
            self.fold[member] = image
            return member
        expect(member in self.fold, f"{where}: it was not there")
        if what == "removed":
            left = [
                key
                for key in self.fold
                if len(key) == 3 and (key[:2] == member or ("Groups", key[2]) == member)
            ]
            expect(not left, f"{where}: memberships are left")
            self.check_removal(member, event, where)
            del self.fold[member]
            return member
        before = self.fold[member]
        if what in ("enabled", "disabled"):
            expect(image.get("active") is (what == "enabled"), f"{where}: the image says otherwise")
        expect(image != before or what in ("enabled", "disabled"), f"{where}: nothing changed")
        self.fold[member] = image
        return member

    def check_removal(self, key, event, where):
        """Nothing is removed that the directory still has, in a version that can have been read."""
        candidates = self.versions[max(self.version, 0) :]
        expect(
            any(key not in facts(version) for version in candidates),
            f"{where}: the directory still has it",
        )
        if len(key) == 2:
            expect(
                event["removal_reason"] == "not_found",
                f"{where}: removed as {event['removal_reason']}",
            )
            expect(key in self.denied, f"{where}: no GET said that it is gone")
        else:
            expect(
                event["removal_reason"] in ("not_listed", "not_found"),
                f"{where}: {event['removal_reason']}",
            )

    def write(self, record, touched, status, first):
        key = key_of(record)
        caused = "ce_sequence" in record["headers"]
        event = touched.pop(key, None)
        if event is not None:
            expect(caused, f"{place(record)} does not name its event")
            expect(
                record["headers"]["ce_id"] == event["value"]["event_id"],
                f"{place(record)} names another event",
            )
            expect(
                int(record["headers"]["ce_sequence"]) == event["value"]["sequence"],
                f"{place(record)} names another sequence",
            )
        else:
            expect(not caused, f"{place(record)} names an event that is not in its transaction")
        if record["value"] is None:
            expect(key in self.state, f"{place(record)}: a tombstone for an unknown key")
            del self.state[key]
            return
        value = record["value"]
        expect(value["sync"] == status["sync"], f"{place(record)} is of sync {value['sync']}")
        if event is not None:
            expect(
                value["sequence"] == event["value"]["sequence"],
                f"{place(record)} has another sequence",
            )
            expect(event["value"]["sync"] == status["sync"], f"{place(event)} is of another sync")
        elif first and self.baseline == "state":
            expect(value["sequence"] == 0, f"{place(record)} has a sequence, but no event")
        image = True if len(key) == 3 else image_of(value)
        self.state[key] = (image, record["digest"])

    def check_digest(self, status):
        total = sum(record_digest for _, record_digest in self.state.values()) % 2**128
        expect(
            status["state_records"] == len(self.state),
            f"state_records {status['state_records']}, {len(self.state)} there",
        )
        expect(status["state_digest"] == f"{total:032x}", "state_digest is another")
        expect(
            status["sequence"] == self.sequence,
            f"sequence {status['sequence']}, {self.sequence} there",
        )

    def complete(self, status):
        state = {key: image for key, (image, _) in self.state.items()}
        # A sync that is in doubt says so.
        doubts = self.refuses_proof and (status["removals_suppressed"] or status["findings"])
        for number, version in enumerate(self.versions):
            if number < self.version:
                continue
            if facts(version) == state or (doubts and is_kept_beside(state, self.before, version)):
                break
        else:
            known = f"since {self.version} of {len(self.versions)}"
            newest = difference(state, facts(self.versions[-1]))
            raise Complaint(f"the state is not a version {known}; newest: {newest}")
        # Versions never go back, so those before are not asked for again.
        passed = slice(max(self.version, 0), number)
        self.versions[passed] = [None] * (number - passed.start)
        self.version, self.completed, self.before = number, status, state
        version = self.versions[number]
        expect(status["users_read"] == len(version["users"]), f"users_read {status['users_read']}")
        expect(
            status["groups_read"] == len(version["groups"]), f"groups_read {status['groups_read']}"
        )

    def settle(self, converged):
        left = [place(record) for records in self.waiting.values() for record in records]
        expect(not left, f"no syncs record covers {left[:3]}")
        if converged and self.untouched != "everything":
            expect(self.latest is not None, "it never synced")
            expect(
                self.latest["status"] == "completed",
                f"its latest sync is {self.latest['status']}: {self.latest['reason']}",
            )
            newest = facts(self.versions[-1])
            expect(
                facts(self.versions[self.version]) == newest,
                "its state is not that of the newest version",
            )


def place(record):
    return f"{record['topic']}[{record['partition']}]@{record['offset']}"


def key_of(record):
    """(endpoint, id) or (endpoint, id, group) of a state record."""
    parts = [urllib.parse.unquote(part) for part in record["key"].split("/")[1:]]
    topic, value = record["topic"], record["value"]
    if topic == "memberships":
        expect(
            len(parts) == 4 and parts[0] in ("Users", "Groups") and parts[2] == "Groups",
            "a key of no known form",
        )
        key = (parts[0], parts[1], parts[3])
        if value is not None:
            kind = "user" if parts[0] == "Users" else "group"
            expect(
                (value["principal_type"], value["principal_id"], value["group_id"])
                == (kind, *key[1:]),
                "key and value differ",
            )
        return key
    expect(len(parts) == 2 and parts[0].lower() == topic, "a key of no known form")
    expect(value is None or value["id"] == parts[1], "key and value name different principals")
    return tuple(parts)


def image_of(value):
    """The attributes that are compared, as Python values by SCIM path."""
    names = {
        "user_name": "userName",
        "display_name": "displayName",
        "active": "active",
        "external_id": "externalId",
    }
    image = {path: value[field] for field, path in names.items() if value.get(field) is not None}
    image.update((path, json.loads(text)) for path, text in value["attributes"].items())
    return image


def check_headers(name, record):
    event, headers = record["value"], record["headers"]
    endpoint = "Users" if event["principal_type"] == "user" else "Groups"
    expect(
        record["key"] == f"{name}/{endpoint}/{urllib.parse.quote(event['principal_id'])}",
        "the key is not the principal",
    )
    wanted = {
        "ce_specversion": "1.0",
        "ce_id": event["event_id"],
        "ce_source": f"scimtail/{name}",
        "ce_type": f"scimtail.{event['event_type']}",
        "ce_sequence": f"{event['sequence']:019}",
    }
    for header, value in wanted.items():
        expect(headers.get(header) == value, f"header {header} is {headers.get(header)}")


def check_changes(events, before, after):
    """Old and new values of a principal's events in a transaction lead from the old state to the new one."""
    changes = {}
    for event in (record["value"] for record in events):
        kind, what = event["event_type"].split(".")
        if kind != "membership" and what not in ("added", "removed"):
            key = ("Users" if kind == "user" else "Groups", event["principal_id"])
            changes.setdefault(key, []).extend(event["changes"])
            # Several events of one sync show the same person.
            expect(
                image_of(event[kind]) == after.get(key),
                f"an event of {key} shows something else than the last one",
            )
            listed = [change["attribute"] for change in event["changes"]]
            expect(
                sorted(listed) == sorted(event["changed_attributes"]),
                f"changed_attributes of {key}",
            )
    for key, listed in changes.items():
        old, new = before.get(key), after.get(key)
        # Added, updated and removed can only be told apart within one sync.
        expect(old is not None and new is not None, f"{key} is added and changed at once")
        wanted = {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}
        expect(
            {change["attribute"] for change in listed} == wanted,
            f"the events of {key} name other attributes",
        )
        expect(len(listed) == len(wanted), f"the events of {key} name an attribute twice")
        for change in listed:
            path = change["attribute"]
            for field, image in (("old_value", old), ("new_value", new)):
                value = None if change[field] is None else json.loads(change[field])
                expect(value == image.get(path), f"{field} of {path} of {key}")


def partition(name, partitions):
    """org.apache.kafka.common.utils.Utils.murmur2 of the account's name, as README.md says."""
    data, mask, mix = name.encode(), 0xFFFFFFFF, 0x5BD1E995
    value = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * mix & mask
        word = (word ^ word >> 24) * mix & mask
        value = (value * mix & mask) ^ word
    tail = data[whole:]
    if tail:
        value = (value ^ int.from_bytes(tail, "little")) * mix & mask
    value = (value ^ value >> 13) * mix & mask
    value ^= value >> 15
    return (value & 0x7FFFFFFF) % partitions
