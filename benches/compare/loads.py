"""First loads, polls and restores of one account, each checked against what the directory holds."""

import statistics
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass

import limits
import measure
import service
import topics
import vendor as vendors
from processes import Failed
from stage import drop, say

SYNC_SECONDS_MAX = 300
RESTORE_SECONDS_MAX = 120
FIRST_SECONDS_MAX = 60
# An allocator gives memory back only after a while without work.
IDLE_SECONDS = 40
QUICK_IDLE_SECONDS = 3
POLLS, QUICK_POLLS = 5, 3
CHURNS, QUICK_CHURNS = 3, 1
CHURN = 0.001
WARM_UP = vendors.Size(20_000, 1_000, 60_000)
PARTS = ("load", "polls", "restore")

FIRST_LOAD = 'first load, baseline "{}"'
FIRST_RECORD = "first record readable after the first page"
START = "start of the process to the first request"
UNCHANGED = "unchanged poll"
CHURNED = "poll with 0.1 % churn"
RESTORE = "restore"
COLD = "first poll after a restore"


@dataclass
class Loaded:
    """A service with a completed first load, and what is known of it."""

    setup: service.Setup
    seen: topics.Seen


def run(stage, parts, size):
    """Rounds in which the programs take turns, with the limits in between."""
    with vendors.running(stage.tools, size) as vendor:
        for number in range(1, stage.rounds + 1):
            say(f"round {number} of {stage.rounds}")
            limits.walks(stage, vendor)
            for position, name in enumerate(turns(stage.binaries, number)):
                binary, first = stage.binaries[name], position == 0
                state_round(stage, parts, vendor, name, binary, number, first)
                if "load" in parts:
                    events_round(stage, vendor, name, binary, first)


def turns(programs, number):
    """Every other round goes backwards, so that no program is always the one after the limits."""
    names = list(programs)
    return names if number % 2 else names[::-1]


def warm_up(stage):
    """A load that does not count, because a broker that has just started is slow."""
    say("a load that does not count")
    binary = next(iter(stage.binaries.values()))
    with vendors.running(stage.tools, WARM_UP) as vendor:
        setup = service.prepared(stage, binary, vendor, baseline="events")
        with service.running(setup) as running:
            service.wait_for(running, "sync completed", 1, SYNC_SECONDS_MAX)
    drop(stage, setup.prefix)


def state_round(stage, parts, vendor, name, binary, number, with_limits):
    with loaded(stage, vendor, name, binary, "state") as (load, running):
        if "polls" in parts:
            polls(stage, load, running, vendor, name, number)
    if with_limits:
        limits.produce(stage, load.setup, vendor, "state")
        limits.consume(stage, load.setup)
    if "restore" in parts:
        restore(stage, load, vendor, name)
    drop(stage, load.setup.prefix)


def events_round(stage, vendor, name, binary, with_limits):
    with loaded(stage, vendor, name, binary, "events") as (load, _):
        pass
    if with_limits:
        limits.produce(stage, load.setup, vendor, "events")
    drop(stage, load.setup.prefix)


@contextmanager
def loaded(stage, vendor, name, binary, baseline):
    """A service whose first load is measured and checked; it runs until the end of the block."""
    setup = service.prepared(stage, binary, vendor, baseline=baseline)
    vendors.reset(vendor)
    first = FirstRecord(stage, f"{setup.prefix}.users")
    with service.running(setup) as running:
        ends = service.wait_for(running, "sync completed", 1, SYNC_SECONDS_MAX)
        cpu, peak = measure.cpu_seconds(running.pid), measure.peak_mb(running.pid)
        requests = vendors.statistics(vendor)
        figure = FIRST_LOAD.format(baseline)
        idle = idle_mb(stage, figure, name, running.pid)
        seen = topics.read(stage, topics.Seen(setup.prefix))
        manifest = vendors.manifest(vendor)
        events = baseline == "events" and topics.baseline_events(manifest, setup.accounts)
        verdict = topics.judge(seen, manifest, setup.accounts, events or topics.Counter())
        wall = (ends[0] - requests["first_request"]) / 1e9
        told(name, figure, wall, verdict, cpu=cpu, peak=peak)
        add = stage.results.add
        limit = ("L1 typed parse", f"L3 produce {baseline}")
        add(figure, name, wall, limit, cpu=cpu, peak=peak, idle=idle, verdict=verdict)
        readable = (first.time() - requests["first_page"]) / 1e9
        add(f"{FIRST_RECORD}, {baseline}", name, readable, verdict=verdict)
        add(START, name, (requests["first_request"] - running.started) / 1e9, verdict=verdict)
        yield Loaded(setup, seen), running


def idle_mb(stage, figure, program, pid):
    """Resident memory after a while without work. None if an earlier round has measured it, because
    the wait takes longer than all else."""
    before = stage.results.figures.get((figure, program))
    if before and "idle" in before.values:
        return None
    time.sleep(QUICK_IDLE_SECONDS if stage.quick else IDLE_SECONDS)
    return measure.resident_mb(pid)


def told(program, figure, wall, verdict, *, cpu=None, peak=None, more=""):
    """A line of progress."""
    used = [f"{cpu:.2f} CPU s"] if cpu is not None else []
    used += [f"{peak:.0f} MB"] if peak is not None else []
    right = f"void: {verdict.void}" if verdict.void else "right"
    parts = [f"{wall:.3f} s", *used, *([more] if more else []), right]
    say(f"{program}: {figure}: {', '.join(parts)}")


class FirstRecord:
    """When a reader of committed records sees the first one."""

    def __init__(self, stage, topic):
        self.seen = None
        self.reader = topics.consumer(stage.bootstrap, **{"enable.partition.eof": False})
        self.reader.assign([topics.TopicPartition(topic, 0, 0)])
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()

    def follow(self):
        deadline = time.monotonic() + FIRST_SECONDS_MAX
        while self.seen is None and time.monotonic() < deadline:
            message = self.reader.poll(1)
            if message is not None and not message.error():
                self.seen = time.time_ns()
        self.reader.close()

    def time(self):
        self.thread.join()
        if self.seen is None:
            raise Failed(f"no record was readable for {FIRST_SECONDS_MAX} s")
        return self.seen


def polls_of(stage):
    return QUICK_POLLS if stage.quick else POLLS


def churns_of(stage):
    return QUICK_CHURNS if stage.quick else CHURNS


def polls(stage, load, running, vendor, name, number):
    setup, seen = load.setup, load.seen
    topics.forget(seen)
    figures = [
        service.poll(setup, running, vendor, SYNC_SECONDS_MAX) for _ in range(polls_of(stage))
    ]
    topics.read(stage, seen)
    manifest = vendors.manifest(vendor)
    verdict = topics.judge(seen, manifest, setup.accounts, topics.Counter(), rewritten=0)
    note(stage, UNCHANGED, name, figures, verdict)

    figures = []
    topics.forget(seen)
    all_events = topics.Counter()
    for turn in range(churns_of(stage)):
        # All programs see the same changes in turn, so none has an easier round.
        changed = vendors.churn(vendor, CHURN, seed=number * CHURNS + turn)
        figures.append(service.poll(setup, running, vendor, SYNC_SECONDS_MAX))
        all_events += topics.churn_events(changed, setup.accounts)
    topics.read(stage, seen)
    manifest = vendors.manifest(vendor)
    verdict = topics.judge(seen, manifest, setup.accounts, all_events, rewritten=all_events.total())
    note(stage, CHURNED, name, figures, verdict)


def note(stage, figure, name, figures, verdict):
    """One figure of several polls: the median of wall times, and the mean of CPU times, because
    those count in steps of 10 ms."""
    wall = statistics.median(wall for wall, _ in figures)
    cpu = statistics.mean(cpu for _, cpu in figures)
    told(name, figure, wall, verdict, cpu=cpu)
    stage.results.add(figure, name, wall, ("L2 split and hash",), cpu=cpu, verdict=verdict)


def restore(stage, load, vendor, name):
    """A fresh process against filled topics: from the line `shards assigned` of the log to
    `shard acquired`. This includes the fence."""
    setup, seen = load.setup, load.seen
    topics.forget(seen)
    vendors.reset(vendor)
    with service.running(setup) as running:
        assigned = service.wait_for(running, "shards assigned", 1, RESTORE_SECONDS_MAX)
        acquired = service.wait_for(running, "shard acquired", 1, RESTORE_SECONDS_MAX)
        cpu, peak = measure.cpu_seconds(running.pid), measure.peak_mb(running.pid)
        ends = service.wait_for(running, "sync completed", 1, SYNC_SECONDS_MAX)
        first = vendors.statistics(vendor)["first_request"]
        idle = idle_mb(stage, RESTORE, name, running.pid)
    topics.read(stage, seen)
    manifest = vendors.manifest(vendor)
    verdict = topics.judge(seen, manifest, setup.accounts, topics.Counter(), rewritten=0)
    wall = (acquired[0] - assigned[0]) / 1e9
    told(name, RESTORE, wall, verdict, cpu=cpu, peak=peak)
    add = stage.results.add
    add(RESTORE, name, wall, ("L4 consume state",), cpu=cpu, peak=peak, idle=idle, verdict=verdict)
    add(COLD, name, (ends[0] - first) / 1e9, ("L1 typed parse",), verdict=verdict)
