"""Many small accounts in one process: memory of each, and all due at once."""

import io
import json
import time

import fastavro
import limits
import loads
import measure
import service
import services
import topics
import vendor as vendors
from confluent_kafka import Producer
from stage import drop, say

USERS_EACH = 100
COUNTS = (1, 10, 100, 1_000)
MANY = 1_000
CHURN = 0.1
SYNC_SECONDS_MAX = 120
FLUSH_SECONDS_MAX = 30
KB_PER_MB = 1_024
NO_ACCOUNTS = "idle memory without accounts"
# The least that scimtail runs with: it refuses a configuration without accounts.
ONE_USER = vendors.Size(1, 0, 0)
NO_ACCOUNTS_REMARK = "one account of one user; a configuration without accounts is refused"
PER_ACCOUNT = f"idle memory of each of {MANY:,} accounts of {USERS_EACH} users"


def run(stage, counts=(MANY,)):
    size = vendors.Size(USERS_EACH, 0, 0, USERS_EACH)
    for number in range(1, stage.rounds + 1):
        for name, binary in stage.binaries.items():
            with vendors.running(stage.tools, ONE_USER) as vendor:
                idle = without_accounts(stage, vendor, name, binary)
            with vendors.running(stage.tools, size) as vendor:
                if MANY in counts:
                    limits.fleet(stage, vendor, MANY)
                for count in counts:
                    accounts_round(stage, vendor, name, binary, count, idle, number)


def without_accounts(stage, vendor, name, binary):
    setup = service.prepared(stage, binary, vendor)
    with service.running(setup) as running:
        service.wait_for(running, "sync completed", 1, SYNC_SECONDS_MAX)
        idle = loads.idle_mb(stage, NO_ACCOUNTS, name, running.pid)
    drop(stage, setup.prefix)
    if idle is None:
        return None
    say(f"{name}: {NO_ACCOUNTS}: {idle:.0f} MB")
    stage.results.add(NO_ACCOUNTS, name, idle, unit="MB", idle=idle, remark=NO_ACCOUNTS_REMARK)
    return idle


def accounts_round(stage, vendor, name, binary, count, idle_without, number):
    accounts = [f"small-{number:04}" for number in range(count)]
    setup = service.prepared(stage, binary, vendor, accounts=accounts)
    vendors.reset(vendor)
    with service.running(setup) as running:
        ends = service.wait_for(running, "sync completed", count, SYNC_SECONDS_MAX)
        requests = vendors.statistics(vendor)
        cpu, peak = measure.cpu_seconds(running.pid), measure.peak_mb(running.pid)
        what = f"{count:,} account{'s' if count > 1 else ''} of {USERS_EACH} users"
        idle = loads.idle_mb(stage, f"first load, {what}", name, running.pid)
        seen = topics.read(stage, topics.Seen(setup.prefix))
        verdict = topics.judge(seen, vendors.manifest(vendor), accounts, topics.Counter())
        wall = (max(ends) - requests["first_request"]) / 1e9
        loads.told(name, f"first load, {what}", wall, verdict, cpu=cpu, peak=peak)
        add = stage.results.add
        more = {"cpu": cpu, "peak": peak, "idle": idle, "at": ("accounts", count, "first load")}
        add(f"first load, {what}", name, wall, verdict=verdict, **more)
        if count == MANY and idle is not None and idle_without is not None:
            each = (idle - idle_without) * KB_PER_MB / count
            add(PER_ACCOUNT, name, each, unit="kB", idle=idle, verdict=verdict)
        unchanged = f"unchanged poll, {what}, due at once"
        at = ("accounts", count, "unchanged poll")
        bound = (limits.FLEET,) if count == MANY else ()
        for _ in range(loads.polls_of(stage)):
            due(stage, setup, running, vendor, name, seen, unchanged, {}, bound, at)
        for turn in range(loads.churns_of(stage) if count == MANY else 0):
            changed = vendors.churn(vendor, CHURN, seed=number * loads.CHURNS + turn)
            figure = f"poll with 10 % churn, {what}, due at once"
            due(stage, setup, running, vendor, name, seen, figure, changed, bound)
    drop(stage, setup.prefix)


def due(stage, setup, running, vendor, name, seen, figure, changed, bound=(), at=None):
    """All accounts are asked to poll at once, by what `scimtail poll` writes for each of them."""
    topics.forget(seen)
    marked = service.mark(running, vendor)
    ask_all(stage, setup)
    count = len(setup.accounts)
    wall, cpu = service.finished(running, vendor, marked, count, SYNC_SECONDS_MAX)
    topics.read(stage, seen)
    events = topics.churn_events(changed, setup.accounts)
    manifest = vendors.manifest(vendor)
    verdict = topics.judge(seen, manifest, setup.accounts, events, rewritten=events.total())
    loads.told(name, figure, wall, verdict, cpu=cpu)
    stage.results.add(figure, name, wall, bound, cpu=cpu, verdict=verdict, at=at)


def ask_all(stage, setup):
    url = f"{stage.registry}/subjects/{setup.prefix}.control-value/versions/latest"
    with services.http().open(url) as answer:
        registered = json.load(answer)
    schema = fastavro.parse_schema(json.loads(registered["schema"]))
    producer = Producer({"bootstrap.servers": stage.bootstrap, "enable.idempotence": True})
    for account in setup.accounts:
        request = {
            "account": account,
            "action": "poll",
            "hold_id": None,
            "requested_by": "compare",
            "requested_at": int(time.time() * 1_000),
            "reason": None,
        }
        frame = io.BytesIO()
        frame.write(b"\0" + registered["id"].to_bytes(4))
        fastavro.schemaless_writer(frame, schema, request)
        producer.produce(f"{setup.prefix}.control", frame.getvalue(), account, partition=0)
    left = producer.flush(FLUSH_SECONDS_MAX)
    if left:
        raise service.Failed(f"Kafka did not take {left} requests in {FLUSH_SECONDS_MAX} s")
