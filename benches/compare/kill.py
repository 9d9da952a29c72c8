"""Each program is killed (SIGKILL) in the middle of its first load, and started again."""

import threading
import time

import loads
import peers
import service
import topics
import vendor as vendors
from processes import Failed
from stage import drop

FIGURE = "first load again, after SIGKILL in its middle"
# After the first record is readable: some is published, and much is not.
AFTER_SECONDS = 0.3
QUICK_PART = 3
# The broker waits for so long before it gives the shard of a killed process away; without it 45 s.
SESSION = """[kafka.properties]
"session.timeout.ms" = 6000
"heartbeat.interval.ms" = 2000
"""


def run(stage, size, others):
    if stage.quick:
        counts = (size.users, size.groups, size.memberships)
        size = vendors.Size(*(count // QUICK_PART for count in counts), size.page)
    with vendors.running(stage.tools, size) as vendor:
        for name, binary in stage.binaries.items():
            scimtail(stage, vendor, name, binary)
        for name in others:
            peer(stage, vendor, name)


def scimtail(stage, vendor, name, binary):
    setup = service.prepared(stage, binary, vendor, baseline="events", kafka=SESSION)
    first = loads.FirstRecord(stage, f"{setup.prefix}.{topics.EVENTS}")
    killed = service.start(setup)
    first.time()
    time.sleep(AFTER_SECONDS)
    service.follow(killed)
    service.kill(killed)
    if any(line["message"] == "sync completed" for line in killed.lines):
        raise Failed("the first load was over before it was killed; → a larger directory, --users")
    vendors.reset(vendor)
    with service.running(setup) as running:
        ends = service.wait_for(running, "sync completed", 1, loads.SYNC_SECONDS_MAX)
        requests = vendors.statistics(vendor)
    manifest = vendors.manifest(vendor)
    events = topics.baseline_events(manifest, setup.accounts)
    seen = topics.read(stage, topics.Seen(setup.prefix))
    verdict = topics.judge(seen, manifest, setup.accounts, events)
    note(stage, name, (max(ends) - requests["first_request"]) / 1e9, verdict)
    drop(stage, setup.prefix)


def peer(stage, vendor, name):
    prefix = peers.prepared(stage, name)
    seen = topics.Seen(prefix)
    first = loads.FirstRecord(stage, f"{prefix}.{topics.EVENTS}")
    with peers.running(stage, vendor, name, prefix) as killed:
        # Its answer never comes.
        threading.Thread(target=given_up, args=(killed.poll,), daemon=True).start()
        first.time()
        time.sleep(AFTER_SECONDS)
    vendors.reset(vendor)
    with peers.running(stage, vendor, name, prefix) as again:
        end = again.poll()
    wanted = peers.expected(topics.baseline_events(vendors.manifest(vendor), ["bench"]))
    verdict = peers.judged(peers.read_events(stage, seen), wanted)
    note(stage, name, (end - vendors.statistics(vendor)["first_request"]) / 1e9, verdict)
    drop(stage, prefix)


def given_up(poll):
    try:
        poll()
    except (Failed, OSError, ValueError):
        return


def note(stage, name, wall, verdict):
    loads.told(name, FIGURE, wall, verdict)
    stage.results.add(FIGURE, name, wall, verdict=verdict)
