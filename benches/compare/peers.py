"""Other programs on the same services and directory: a hand-written Python poller, and Bento."""

import json
import os
import secrets
import select
import subprocess
import sys
import time
import urllib.error
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass

import loads
import measure
import services
import topics
import vendor as vendors
from confluent_kafka.admin import NewTopic
from processes import Failed, free_port, require
from stage import HERE, TARGET, admin, drop, say

POLL_SECONDS_MAX = 300
START_SECONDS_MAX = 30
BUILD_SECONDS_MAX = 1_800
ADMIN_SECONDS_MAX = 30
LOOK_SECONDS = 0.05
GO_HINT = "Bento needs Go 1.26.5 or newer; → https://go.dev/dl"
POLLER = "Python poller"
BENTO = "Bento"


@dataclass
class Peer:
    process: subprocess.Popen
    # Polls once, and returns when that was done, in nanoseconds since 1970.
    poll: object

    @property
    def pid(self):
        return self.process.pid


def bento_binary():
    """Bento, built once for each change of its module."""
    require("go", GO_HINT)
    module, binary = HERE / "peers/bento", TARGET / "compare/bento"
    say("building Bento")
    command = ["go", "build", "-C", module, "-trimpath", "-o", binary, "."]
    done = subprocess.run(
        command,
        env=os.environ | {"GOFLAGS": "-mod=readonly -buildvcs=false"},
        stdout=sys.stderr.fileno(),
        timeout=BUILD_SECONDS_MAX,
    )
    if done.returncode != 0:
        raise Failed(f"go build ended with {done.returncode} for Bento; → see its messages above")
    return binary


def start_poller(stage, vendor, prefix, errors):
    arguments = [stage.bootstrap, stage.registry, vendor.base_url, vendors.TOKEN, prefix]
    command = [sys.executable, HERE / "peers/poller.py", *arguments, vendor.size.page]
    process = subprocess.Popen(
        vendors.bound(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    polled = []

    def poll():
        # The first poll is the program's own start.
        if polled:
            process.stdin.write("\n")
            process.stdin.flush()
        polled.append(True)
        ready, _, _ = select.select([process.stdout], [], [], POLL_SECONDS_MAX)
        line = process.stdout.readline() if ready else ""
        if not line.startswith("done "):
            raise Failed(f"the {POLLER} did not poll: {line}; → see {errors.name}")
        return int(line.split()[1])

    return Peer(process, poll)


def start_bento(stage, vendor, prefix, errors):
    address = f"127.0.0.1:{free_port()}"
    more = {
        "LISTEN": address, "BASE_URL": vendor.base_url, "TOKEN": vendors.TOKEN, "PREFIX": prefix,
        "PAGE": str(vendor.size.page), "REGISTRY": stage.registry, "BOOTSTRAP": stage.bootstrap,
        "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    command = [TARGET / "compare/bento", "-c", HERE / "peers/bento/pipeline.yaml"]
    process = subprocess.Popen(
        vendors.bound(command),
        env=os.environ | more,
        stdin=subprocess.DEVNULL,
        stdout=errors,
        stderr=errors,
    )
    deadline = time.monotonic() + START_SECONDS_MAX
    while not listens(address):
        if process.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"{BENTO} does not answer; → see {errors.name}")
        time.sleep(LOOK_SECONDS)

    def poll():
        with services.http().open(f"http://{address}/poll", b"{}", POLL_SECONDS_MAX) as answer:
            answer.read()
        return time.time_ns()

    return Peer(process, poll)


def listens(address):
    try:
        services.http().open(f"http://{address}/poll", timeout=1).close()
    except urllib.error.HTTPError:
        # It takes POST only.
        return True
    except OSError:
        return False
    return True


STARTS = {POLLER: start_poller, BENTO: start_bento}


@contextmanager
def running(stage, vendor, name, prefix):
    with (stage.work / f"{prefix}.log").open("ab") as errors:
        peer = STARTS[name](stage, vendor, prefix, errors)
        try:
            yield peer
        finally:
            peer.process.kill()
            peer.process.wait()


def prepared(stage, name):
    """A fresh prefix; Bento does not register its schema itself."""
    prefix = f"compare-{secrets.token_hex(5)}"
    new = [
        NewTopic(f"{prefix}.events", 1, 1),
        NewTopic(f"{prefix}.state", 1, 1, config={"cleanup.policy": "compact"}),
    ]
    # Named, because the answers need the client.
    client = admin(stage)
    for created in client.create_topics(new, operation_timeout=ADMIN_SECONDS_MAX).values():
        created.result()
    if name == BENTO:
        schema = json.loads((HERE / "peers/bento/event.avsc").read_text())
        services.register(stage.registry, f"{prefix}.events-value", json.dumps(schema))
    return prefix


def read_events(stage, seen):
    """The events that are new since the last call, counted by kind of change, id and group."""
    topics.forget(seen)
    topics.read(stage, seen, (topics.EVENTS,), take=take_event)
    return seen.events


def take_event(stage, seen, topic, key, value):
    event = topics.decoded(stage, value, seen.written[topic] % topics.WHOLE_EVERY == 0)
    seen.events[change(event["type"]), event["id"], event["group_id"]] += 1


def change(event_type):
    """Peers do not tell additions of users and groups from updates as scimtail does."""
    kind, _, what = event_type.partition(".")
    return event_type if kind == "membership" or what == "removed" else f"{kind}.changed"


def expected(events):
    """The events that scimtail would publish, as these programs name them."""
    counted = Counter()
    for (_, event_type, id, group), count in events.items():
        group = None if event_type.startswith("group.") else group
        counted[change(event_type), id, group] += count
    return counted


def judged(events, wanted):
    missing, more = wanted - events, events - wanted
    verdict = topics.Verdict(events.total(), missing.total(), more.total())
    kinds = Counter()
    for (kind, *_), count in missing.items():
        kinds[f"{kind} missing"] += count
    for (kind, *_), count in more.items():
        kinds[f"{kind} too many"] += count
    verdict.reasons = [f"{count} {what}" for what, count in kinds.items()]
    return verdict


def run(stage, size):
    names = list(STARTS)
    bento_binary()
    with vendors.running(stage.tools, size) as vendor:
        for number in range(1, stage.rounds + 1):
            for name in names:
                peer_round(stage, vendor, name, number)


def peer_round(stage, vendor, name, number):
    prefix = prepared(stage, name)
    seen = topics.Seen(prefix)
    vendors.reset(vendor)
    first = loads.FirstRecord(stage, f"{prefix}.{topics.EVENTS}")
    with running(stage, vendor, name, prefix) as peer:
        cpu = measure.cpu_seconds(peer.pid) if name == BENTO else 0
        end = peer.poll()
        cpu, peak = measure.cpu_seconds(peer.pid) - cpu, measure.peak_mb(peer.pid)
        requests = vendors.statistics(vendor)
        figure = loads.FIRST_LOAD.format("events")
        idle = loads.idle_mb(stage, figure, name, peer.pid)
        wanted = expected(topics.baseline_events(vendors.manifest(vendor), ["bench"]))
        verdict = judged(read_events(stage, seen), wanted)
        wall = (end - requests["first_request"]) / 1e9
        add = stage.results.add
        loads.told(name, figure, wall, verdict, cpu=cpu, peak=peak)
        add(figure, name, wall, cpu=cpu, peak=peak, idle=idle, verdict=verdict)
        readable = (first.time() - requests["first_page"]) / 1e9
        add(f"{loads.FIRST_RECORD}, events", name, readable, verdict=verdict)
        polls(stage, vendor, name, peer, seen, number)
    drop(stage, prefix)


def polls(stage, vendor, name, peer, seen, number):
    # Theirs take long, and tell the same each time.
    count = 1 if stage.quick else loads.CHURNS
    figures = [timed(vendor, peer) for _ in range(count)]
    verdict = judged(read_events(stage, seen), Counter())
    loads.note(stage, loads.UNCHANGED, name, figures, verdict)
    figures, wanted = [], Counter()
    for turn in range(loads.churns_of(stage)):
        changed = vendors.churn(vendor, loads.CHURN, seed=number * loads.CHURNS + turn)
        figures.append(timed(vendor, peer))
        wanted += expected(topics.churn_events(changed, ["bench"]))
    verdict = judged(read_events(stage, seen), wanted)
    loads.note(stage, loads.CHURNED, name, figures, verdict)


def timed(vendor, peer):
    vendors.reset(vendor)
    cpu = measure.cpu_seconds(peer.pid)
    end = peer.poll()
    first = vendors.statistics(vendor)["first_request"]
    return (end - first) / 1e9, measure.cpu_seconds(peer.pid) - cpu
