"""The records that scimtail writes for the readers, and the truth that they are compared with.

The truth of state is the content of the simulated directories; the truth of events is what
`scimtail tail` prints, where every event type and marker is asserted to occur.
"""

import json
import os
import secrets
import urllib.parse
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import directory
from processes import CACHE, ROOT, Failed, run

SYNC_SECONDS_MAX = 120
PARTITIONS = 4
# Partitions 0, 0 and 3 of 4: two accounts share one, and one is apart.
ACCOUNTS = {"acme": "state", "acme-eu": "state", "globex": "events"}
STATE_TOPICS = ["users", "groups", "memberships"]
EVENT_TYPES = {
    f"{kind}.{what}"
    for kind, kinds in {
        "user": ["added", "updated", "disabled", "enabled", "removed"],
        "group": ["added", "updated", "removed"],
        "membership": ["added", "removed"],
    }.items()
    for what in kinds
}


def binary():
    path = Path(os.environ.get("SCIMTAIL") or CACHE.parent / "debug/scimtail").absolute()
    if not path.exists():
        raise Failed(
            f"{path} is missing. Build it with `cargo build`, or name another one in SCIMTAIL"
        )
    return path


class Scimtail:
    """The program with a separate configuration and simulated directories."""

    def __init__(self, services, work, accounts, settings=""):
        self.work = work
        self.prefix = f"readers-{secrets.token_hex(4)}"
        self.token = secrets.token_hex(16)
        self.server = directory.Server(self.token)
        self.directories = {account: self.server.add(account) for account in accounts}
        self.services = services
        self.file = work / "scimtail.toml"
        self.configure(accounts, settings)

    def configure(self, accounts, settings="", of_account=""):
        """`accounts` gives each one's baseline, `of_account` more lines of every one."""
        text = f"""
[kafka]
brokers = ["{self.services.bootstrap}"]
topic_prefix = "{self.prefix}"
partitions = {PARTITIONS}
replication = 1
[registry]
url = "{self.services.registry}"
[defaults]
interval = "1s"
{settings}
"""
        for account, baseline in accounts.items():
            text += f"""
[[account]]
name = "{account}"
provider = "generic"
base_url = "{self.server.base_url(account)}"
token_env = "READERS_TOKEN"
baseline = "{baseline}"
{of_account}
[account.profile]
page_size = {directory.PAGE_ROWS_MAX}
"""
        self.file.write_text(text)

    def topic(self, name):
        return f"{self.prefix}.{name}"

    def command(self, *arguments):
        return [binary(), "--config", self.file, *arguments]

    def run(self, *arguments, codes=(0,)):
        return run(
            # Parts that run at once call different commands, and each has an output of its own.
            f"scimtail-{arguments[0]}",
            self.command(*arguments),
            self.work,
            SYNC_SECONDS_MAX,
            codes,
            READERS_TOKEN=self.token,
        )

    def lines(self, *arguments):
        return [json.loads(line) for line in self.run(*arguments, "--format", "json").splitlines()]


@dataclass
class Truth:
    """By topic name without its prefix."""

    events: list
    # The fields that are known, by key.
    state: dict = field(default_factory=dict)
    # (key, ce_id, ce_sequence) of each.
    tombstones: dict = field(default_factory=dict)


def play(scimtail, abort):
    """Bring everything into the topics that a reader may meet. `abort()` leaves records of an
    aborted transaction in each of them."""
    steps = [directory.populate, directory.change, directory.remove, directory.bring_back]
    for number, step in enumerate(steps):
        for account, content in scimtail.directories.items():
            step(content, f"{account}.example")
        scimtail.run("run", "--once")
        if number == 1:
            abort()
    return truth(scimtail)


def truth(scimtail):
    events = [
        with_times(event, "ChangeEvent")
        for event in scimtail.lines("tail", "--from", "beginning", "--exit")
    ]
    missing = EVENT_TYPES - {event["event_type"] for event in events}
    missing |= {"snapshot"} if not any(event["snapshot"] for event in events) else set()
    if missing:
        raise Failed(f"the scenario lacks events: {missing}")
    for account in scimtail.directories:
        sequences = [event["sequence"] for event in events if event["account"] == account]
        if sequences != list(range(1, len(sequences) + 1)):
            raise Failed(f"{account}: tail shows the sequences {sequences}")
    return Truth(events, expected_state(scimtail), expected_tombstones(events))


def expected_state(scimtail):
    state = {topic: {} for topic in STATE_TOPICS}
    for account, content in scimtail.directories.items():
        head = {"account": account, "provider": "generic"}
        for resource in content.list("users"):
            state["users"][key(account, "Users", resource["id"])] = head | directory.user_fields(
                resource
            )
        for resource in content.list("groups"):
            state["groups"][key(account, "Groups", resource["id"])] = head | directory.group_fields(
                resource
            )
        for kind, member, group in content.access():
            membership = {"principal_type": kind.lower(), "principal_id": member, "group_id": group}
            state["memberships"][key(account, f"{kind}s", member, "Groups", group)] = (
                head | membership
            )
    return state


def expected_tombstones(events):
    """Every removal is an event and, of the same transaction, a tombstone that names it."""
    tombstones = {topic: Counter() for topic in STATE_TOPICS}
    for event in events:
        kind, _, what = event["event_type"].partition(".")
        if what == "removed":
            principal = f"{event['principal_type'].capitalize()}s"
            path = [principal, event["principal_id"]]
            if kind == "group":
                path = ["Groups", event["group_id"]]
            if kind == "membership":
                path += ["Groups", event["group_id"]]
            place = (key(event["account"], *path), event["event_id"], f"{event['sequence']:019}")
            tombstones[f"{kind}s"][place] += 1
    return tombstones


def key(account, *path):
    return "/".join(
        [account, *(urllib.parse.quote(part, safe="").replace("%20", " ") for part in path)]
    )


SCHEMAS = {path.stem: json.loads(path.read_text()) for path in (ROOT / "schemas").glob("*.avsc")}
RECORDS = {
    "events": "ChangeEvent",
    "users": "UserState",
    "groups": "GroupState",
    "memberships": "MembershipState",
    "syncs": "SyncStatus",
}


def with_times(value, schema):
    """Times, which scimtail prints as the numbers that they are in Kafka, as readers show them."""
    if isinstance(schema, str):
        schema = SCHEMAS.get(schema, schema)
    if isinstance(schema, list):
        return None if value is None else with_times(value, schema[1])
    if isinstance(schema, str) or value is None:
        return value
    if schema.get("logicalType") == "timestamp-millis":
        return directory.instant_of_millis(value)
    if schema["type"] == "record":
        return {
            part["name"]: with_times(value[part["name"]], part["type"]) for part in schema["fields"]
        }
    if schema["type"] == "array":
        return [with_times(element, schema["items"]) for element in value]
    return value
