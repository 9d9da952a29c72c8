"""A poller as a user would write it by hand: it reads a SCIM directory, and publishes what changed.

It keeps a hash of each user and group, and the members of each group. Events and the state of
users and groups go to Kafka as Avro. A line on standard input asks for a poll. A line on standard
output says that Kafka has it all.

    poller.py BOOTSTRAP REGISTRY BASE_URL TOKEN PREFIX PAGE
"""

import asyncio
import hashlib
import io
import json
import sys
import time

import aiohttp
import fastavro
import orjson
from confluent_kafka import Producer

TEXT = ["null", "string"]
EVENT = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "type", "type": "string"},
        {"name": "id", "type": "string"},
        {"name": "name", "type": TEXT},
        {"name": "group_id", "type": TEXT},
        {"name": "group_name", "type": TEXT},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "data", "type": TEXT},
    ],
}
STATE = {
    "type": "record",
    "name": "State",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "name", "type": TEXT},
        {"name": "active", "type": ["null", "boolean"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "data", "type": "string"},
    ],
}
# What of a user is published.
ATTRIBUTES = (
    "userName", "displayName", "name", "active", "externalId", "emails", "userType", "title",
    "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User",
)  # fmt: skip


class Kafka:
    def __init__(self, bootstrap, prefix, ids):
        self.prefix = prefix
        self.schemas = {
            "events": (b"\0" + ids["events"].to_bytes(4), fastavro.parse_schema(EVENT)),
            "state": (b"\0" + ids["state"].to_bytes(4), fastavro.parse_schema(STATE)),
        }
        self.producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        self.failed = None

    def send(self, topic, key, record):
        value = None
        if record is not None:
            frame, schema = self.schemas[topic]
            buffer = io.BytesIO()
            buffer.write(frame)
            fastavro.schemaless_writer(buffer, schema, record)
            value = buffer.getvalue()
        while True:
            try:
                self.producer.produce(
                    f"{self.prefix}.{topic}", value, key, on_delivery=self.delivered
                )
                break
            except BufferError:
                self.producer.poll(0.1)
        self.producer.poll(0)

    def delivered(self, error, _message):
        self.failed = self.failed or error

    def flush(self):
        self.producer.flush()
        if self.failed:
            sys.exit(f"Kafka did not take a record: {self.failed}")


class Poller:
    def __init__(self, session, kafka, base_url, page):
        self.session, self.kafka, self.base_url, self.page = session, kafka, base_url, page
        # Id → hash; group → its members.
        self.users, self.groups, self.members = {}, {}, {}
        self.names = {}

    async def walk(self, kind):
        start = 1
        while True:
            query = {"startIndex": start, "count": self.page}
            async with self.session.get(f"{self.base_url}/{kind}", params=query) as answer:
                answer.raise_for_status()
                page = orjson.loads(await answer.read())
            for resource in page["Resources"]:
                yield resource
            start += len(page["Resources"])
            if not page["Resources"] or start > page["totalResults"]:
                return

    def event(self, event_type, id, group=None, data=None):
        record = {
            "type": event_type,
            "id": id,
            "name": self.names.get(id),
            "group_id": group,
            "group_name": self.names.get(group),
            "at": self.now,
            "data": data,
        }
        self.kafka.send("events", id, record)

    def compare(self, kind, known, id, name, active, content):
        data = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
        digest = hashlib.blake2b(data, digest_size=8).digest()
        self.names[id] = name
        before = known.get(id)
        if before == digest:
            return
        known[id] = digest
        data = data.decode()
        self.event(f"{kind}.updated" if before else f"{kind}.added", id, None, data)
        state = {"id": id, "name": name, "active": active, "at": self.now, "data": data}
        self.kafka.send("state", f"{kind}/{id}", state)

    def gone(self, kind, known, seen):
        for id in known.keys() - seen:
            del known[id]
            self.event(f"{kind}.removed", id)
            self.kafka.send("state", f"{kind}/{id}", None)

    def compare_members(self, group, members):
        before = self.members.get(group, frozenset())
        self.members[group] = members
        for member in members - before:
            self.event("membership.added", member, group)
        for member in before - members:
            self.event("membership.removed", member, group)

    async def poll(self):
        self.now = int(time.time() * 1_000)
        seen = set()
        async for user in self.walk("Users"):
            seen.add(user["id"])
            content = {name: user.get(name) for name in ATTRIBUTES}
            self.compare(
                "user", self.users, user["id"], user["userName"], user.get("active"), content
            )
        groups = set()
        async for group in self.walk("Groups"):
            id = group["id"]
            groups.add(id)
            name = group.get("displayName")
            self.compare("group", self.groups, id, name, None, {"displayName": name})
            members = frozenset(member["value"] for member in group.get("members", ()))
            if members != self.members.get(id):
                self.compare_members(id, members)
        self.gone("user", self.users, seen)
        for group in self.groups.keys() - groups:
            self.compare_members(group, frozenset())
        self.gone("group", self.groups, groups)
        self.kafka.flush()


async def register(session, registry, prefix):
    ids = {}
    for topic, schema in (("events", EVENT), ("state", STATE)):
        url = f"{registry}/subjects/{prefix}.{topic}-value/versions"
        async with session.post(url, json={"schema": json.dumps(schema)}) as answer:
            answer.raise_for_status()
            ids[topic] = (await answer.json(content_type=None))["id"]
    return ids


async def main(bootstrap, registry, base_url, token, prefix, page):
    async with aiohttp.ClientSession() as session:
        ids = await register(session, registry, prefix)
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        poller = Poller(session, Kafka(bootstrap, prefix, ids), base_url, int(page))
        while True:
            await poller.poll()
            print(f"done {time.time_ns()}", flush=True)
            if not sys.stdin.readline():
                return


asyncio.run(main(*sys.argv[1:]))
