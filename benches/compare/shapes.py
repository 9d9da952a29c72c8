"""Directories of other shapes: slow vendors, sizes, one large group, a million memberships."""

import json
import subprocess
import sys
from urllib.request import Request

import loads
import measure
import service
import services
import topics
import vendor as vendors
from processes import Failed
from stage import drop, say

LATENCY_MS = 200
SLOW = vendors.Size(10_000, 500, 30_000, 100)
QUICK_SLOW = vendors.Size(2_000, 100, 6_000, 100)
# Requests each second that the second slow vendor states, as in its profile.
RATE = 20
RATE_PROFILE = f'rate_limits = [{{ requests = {RATE}, per = "1s" }}]\n'
SIZES = (10_000, 100_000, 1_000_000)
# With --quick, if asked for.
QUICK_SIZES = SIZES[:2]
USERS_PER_GROUP = 20
LARGE = vendors.Size(250_000, 1, 250_000)
SPREAD = vendors.Size(250_000, 12_500, 250_000)
LISTED = vendors.Size(100_000, 5_000, 1_000_000)
LISTING = "scimtail state memberships, a million memberships"
LIST_SECONDS_MAX = 120
MIB = 1 << 20


def first_load(stage, vendor, setup, running):
    """Waits for the load. Returns its seconds, memory, requests, what was read, and the verdict."""
    ends = service.wait_for(running, "sync completed", 1, loads.SYNC_SECONDS_MAX)
    requests = vendors.statistics(vendor)
    cpu, peak = measure.cpu_seconds(running.pid), measure.peak_mb(running.pid)
    seen = topics.read(stage, topics.Seen(setup.prefix))
    verdict = topics.judge(seen, vendors.manifest(vendor), setup.accounts, topics.Counter())
    wall = (ends[0] - requests["first_request"]) / 1e9
    return wall, cpu, peak, requests, seen, verdict


def walk(stage):
    """A vendor with 200 ms latency, without stated limits and with one."""
    with vendors.running(stage.tools, QUICK_SLOW if stage.quick else SLOW) as vendor:
        vendors.tell(vendor, "latency", ms=LATENCY_MS)
        for rate, profile in ((None, ""), (RATE, RATE_PROFILE))[: 1 if stage.quick else 2]:
            for name, binary in stage.binaries.items():
                walk_once(stage, vendor, name, binary, rate, profile)


def walk_once(stage, vendor, name, binary, rate, profile):
    setup = service.prepared(stage, binary, vendor, profile=profile)
    vendors.reset(vendor)
    with service.running(setup) as running:
        wall, cpu, peak, requests, _, verdict = first_load(stage, vendor, setup, running)
    drop(stage, setup.prefix)
    count, flight = requests["requests"], requests["in_flight_max"]
    bound = count * LATENCY_MS / 1_000 / flight
    bound = max(bound, count / rate) if rate else bound
    stated = f", {rate} requests/s stated" if rate else ""
    size = vendor.size
    figure = f"walk at {LATENCY_MS} ms latency, pages of {size.page}, {size.users:,} users{stated}"
    remark = (
        f"{count} requests, {flight} in flight at most; "
        "limit: max(requests ÷ rate, requests × latency ÷ in flight)"
    )
    loads.told(name, figure, wall, verdict, more=f"limit {bound:.1f} s, {remark}")
    more = {"cpu": cpu, "peak": peak}
    stage.results.add(figure, name, wall, verdict=verdict, remark=remark, bound=bound, **more)


def sizes(stage):
    """As many memberships as users. The limit of a size is ten times the figure of the size that
    is a tenth as large."""
    walls = {}
    for users in QUICK_SIZES if stage.quick else SIZES:
        size = vendors.Size(users, users // USERS_PER_GROUP, users)
        with vendors.running(stage.tools, size) as vendor:
            for name, binary in stage.binaries.items():
                size_once(stage, vendor, name, binary, walls)


def size_once(stage, vendor, name, binary, walls):
    users = vendor.size.users
    setup = service.prepared(stage, binary, vendor)
    vendors.reset(vendor)
    with service.running(setup) as running:
        wall, cpu, peak, _, seen, verdict = first_load(stage, vendor, setup, running)
        what = f"{users:,} users, as many memberships"
        figure = f"first load, {what}"
        idle = loads.idle_mb(stage, figure, name, running.pid)
        topics.forget(seen)
        polled = service.poll(setup, running, vendor, loads.SYNC_SECONDS_MAX)
        topics.read(stage, seen)
        unchanged = topics.judge_events(seen, topics.Counter())
    drop(stage, setup.prefix)
    walls[name, users] = (wall, polled[0])
    smaller = walls.get((name, users // 10))
    bounds = [10 * seconds for seconds in smaller] if smaller else (None, None)
    told = f"poll {polled[0]:.2f} s"
    loads.told(name, figure, wall, verdict, cpu=cpu, peak=peak, more=told)
    add = stage.results.add
    more = {"cpu": cpu, "peak": peak, "idle": idle}
    at = ("users", users)
    add(figure, name, wall, verdict=verdict, bound=bounds[0], at=(*at, "first load"), **more)
    figure = f"unchanged poll, {what}"
    more = {"cpu": polled[1], "at": (*at, "unchanged poll")}
    add(figure, name, polled[0], verdict=unchanged, bound=bounds[1], **more)


def members(stage):
    """One group of 250,000 members: what the process takes at its peak beyond the same users and as
    many memberships in small groups, against the body of the group."""
    peaks = {}
    for size in (SPREAD, LARGE):
        with vendors.running(stage.tools, size) as vendor:
            body = body_bytes(vendor) / MIB
            for name, binary in stage.binaries.items():
                peaks[name, size] = members_once(stage, vendor, name, binary)
    for name in stage.binaries:
        more = peaks[name, LARGE] - peaks[name, SPREAD]
        figure = (
            f"peak memory beyond that of {SPREAD.groups:,} groups, one of {LARGE.users:,} members"
        )
        say(f"{name}: {figure}: {more:.0f} MB; the body is {body:.0f} MB")
        stage.results.add(figure, name, more, unit="MB", bound=body, remark="limit: the body, MB")


def members_once(stage, vendor, name, binary):
    setup = service.prepared(stage, binary, vendor)
    vendors.reset(vendor)
    with service.running(setup) as running:
        wall, cpu, peak, _, seen, verdict = first_load(stage, vendor, setup, running)
        figure = f"first load, {vendor.size}"
        idle = loads.idle_mb(stage, figure, name, running.pid)
        topics.forget(seen)
        polled = service.poll(setup, running, vendor, loads.SYNC_SECONDS_MAX)
        topics.read(stage, seen)
        unchanged = topics.judge_events(seen, topics.Counter())
    drop(stage, setup.prefix)
    loads.told(name, figure, wall, verdict, cpu=cpu, peak=peak)
    add = stage.results.add
    add(figure, name, wall, cpu=cpu, peak=peak, idle=idle, verdict=verdict)
    add(f"unchanged poll, {vendor.size}", name, polled[0], cpu=polled[1], verdict=unchanged)
    return peak


def body_bytes(vendor):
    request = Request(f"{vendor.base_url}/Groups?startIndex=1&count=1")
    request.add_header("Authorization", f"Bearer {vendors.TOKEN}")
    with services.http().open(request) as answer:
        return len(answer.read())


def listing(stage):
    """`scimtail state memberships` as a whole process. It writes a file, which is then compared
    with the manifest."""
    with vendors.running(stage.tools, LISTED) as vendor:
        first = next(iter(stage.binaries.values()))
        setup = service.prepared(stage, first, vendor)
        vendors.reset(vendor)
        with service.running(setup) as running:
            service.wait_for(running, "sync completed", 1, loads.SYNC_SECONDS_MAX)
        manifest = vendors.manifest(vendor)
        for _ in range(stage.rounds):
            for name, binary in stage.binaries.items():
                list_once(stage, setup, name, binary, manifest)
        drop(stage, setup.prefix)


# Runs a command and says what it took: wall and CPU seconds, and peak memory in MB. A process begins with the peak of the
# one that starts it, so that has to be a small one.
OBSERVER = """
import json, resource, subprocess, sys, time
began = time.monotonic()
code = subprocess.call(sys.argv[1:])
wall, used = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]), file=sys.stderr)
sys.exit(code)
"""


def list_once(stage, setup, name, binary, manifest):
    output = setup.directory / "memberships.jsonl"
    command = [binary, "--config", setup.file, "state", "memberships", "--format", "json"]
    with output.open("wb") as out, (setup.directory / "state.log").open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", OBSERVER, *vendors.bound(command)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            env=service.environment(),
        )
        said = process.communicate()[1]
        errors.write(said)
    if process.returncode != 0:
        raise Failed(f"scimtail state ended with {process.returncode}; → see {errors.name}")
    verdict = listed(output, manifest)
    wall, cpu, peak = json.loads(said.splitlines()[-1])
    loads.told(name, LISTING, wall, verdict, cpu=cpu, peak=peak)
    stage.results.add(LISTING, name, wall, cpu=cpu, peak=peak, verdict=verdict)


def listed(output, manifest):
    wanted = {
        (manifest["users"][member][0], group)
        for group, _, members in manifest["groups"]
        for member in members
    }
    found, count = set(), 0
    with output.open() as lines:
        for line in lines:
            row = json.loads(line)
            found.add((row["principal_id"], row["group_id"]))
            count += 1
    verdict = topics.Verdict(count, len(wanted - found), count - len(found))
    topics.complain(verdict, "memberships missing", wanted - found)
    topics.complain(verdict, "memberships that do not exist", found - wanted)
    if count > len(found):
        verdict.reasons.append(f"{count - len(found)} memberships twice")
    return verdict
