"""scimtail against three real Kafka brokers that are restarted, killed and moved. One command:

    tests/cluster/run [--short] [PART...]

For each version of Kafka it starts three brokers (KRaft, each is a controller too; topics have three
replicas) and the schema registry, runs the parts and stops everything. Two simulated directories change
with each poll. After each part an independent checker, that of the crash matrix, judges all records: nothing is lost,
doubled or stuck, and the state is what the directories hold.

  first-starts   first starts in a row, each on a new prefix: each ends with 0, and topics survive a lost broker
  rolling        brokers are restarted one after the other while the service polls every second
  kill           one broker is killed (SIGKILL), then two at once
  moves          leaders and coordinators move
  versions       a first sync, a takeover and a restore
  registries     the same with another schema registry, Apicurio 3.3, and each of its two APIs
  doctored       records that the other parts left are doctored, and the checker notices; so it does with a service
                 that hangs and a transaction that is left open

All parts run without any. It needs the built program (SCIMTAIL, else target/debug/scimtail), a JDK 17 or newer, Maven
and Python 3.11 or newer with venv. It fetches the jars once, below target/readers, and writes below target/cluster.
"""

import argparse
import contextlib
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import builds
import doctored
import faults
import program
import registries
import services as real
from checks import Checks
from cluster import Cluster
from processes import CACHE, Failed, require
from verdict import Checker

# The newest of each line that Maven Central serves, and the one that the other tests run against.
VERSIONS = ("3.9.2", "4.1.1", "4.4.0")
SHORT_VERSION = "4.1.1"
PARTS = ("first-starts", "rolling", "kill", "moves", "versions", "registries", "doctored")
SHORT_PARTS = ("first-starts", "rolling", "kill", "doctored")
# How often, in the long form and in the short one.
COUNTS = {
    "starts": (20, 3, "first starts"),
    "rounds": (2, 1, "rounds of rolling restarts"),
    "kills": (4, 1, "brokers that are killed"),
    "double-kills": (2, 0, "times that two brokers are killed at once"),
    "moves": (2, 1, "rounds of moves"),
    "doctorings": (40, 10, "records that are doctored, in each way"),
}
# Above the bounds of all waits of a part together, unless something hangs in a way of its own.
CHECK_SECONDS_MAX = 1_800
WORK = CACHE.parent / "cluster"


class Stage:
    """A cluster, and what all parts use on it."""

    def __init__(self, cluster, registry, checker, work, arguments, checks):
        self.cluster, self.registry, self.checker = cluster, registry, checker
        self.work, self.seed, self.checks = work, arguments.seed, checks
        # The records of the parts, as the checker keeps them.
        self.dumps = []
        self.part = ""

    def say(self, text):
        print(f"     {time.monotonic() - BEGAN:6.1f} s  {self.part}: {text}", flush=True)

    def check(self, sentence, function, *arguments):
        self.checks(f"{self.cluster.version} {sentence}", function, *arguments)


BEGAN = time.monotonic()


def parsed():
    parser = argparse.ArgumentParser(
        prog="tests/cluster/run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--short", action="store_true", help="at most 3 minutes, for CI")
    parser.add_argument("--kafka", action="append", metavar="VERSION", help=", ".join(VERSIONS))
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--keep", action="store_true", help="keep logs and records")
    for name, (long, short, what) in COUNTS.items():
        parser.add_argument(
            f"--{name}", type=int, metavar="N", help=f"{what} ({long}; short: {short})"
        )
    parser.add_argument("--doctored", type=Path, metavar="FILE", help="only doctor these records")
    arguments = parser.parse_intermixed_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}. There are: {', '.join(PARTS)}")
    arguments.parts = arguments.parts or list(SHORT_PARTS if arguments.short else PARTS)
    arguments.kafka = arguments.kafka or ([SHORT_VERSION] if arguments.short else list(VERSIONS))
    for name, (long, short, _) in COUNTS.items():
        name = name.replace("-", "_")
        if getattr(arguments, name) is None:
            setattr(arguments, name, short if arguments.short else long)
    return arguments


def main():
    arguments = parsed()
    # Ends everything that was started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGALRM, too_long)
    checks = Checks(CHECK_SECONDS_MAX)
    print(f"     seed {arguments.seed}", flush=True)
    if arguments.doctored:
        checks("doctored", doctored.check, arguments.doctored, arguments.seed, arguments.doctorings)
        end(checks)
    try:
        require("java", builds.JAVA_HINT, at_least=(17,))
        require("mvn", builds.JAVA_HINT)
        program.binary()
    except Failed as error:
        sys.exit(f"tests/cluster/run: {error}")
    WORK.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="run-", dir=WORK))
    try:
        for version in arguments.kafka:
            on_version(version, work, arguments, checks)
    finally:
        if sys.exc_info()[0] or checks.failed or arguments.keep:
            print(f"     logs: {work}", flush=True)
        else:
            shutil.rmtree(work)
    end(checks)


def too_long(*_):
    raise Failed(f"it still ran after {CHECK_SECONDS_MAX} s")


def end(checks):
    print(f"{checks.passed} passed, {checks.failed} failed, {time.monotonic() - BEGAN:.0f} s")
    sys.exit(1 if checks.failed else 0)


def on_version(version, work, arguments, checks):
    """Runs the parts on a cluster of this version."""
    directory = work / version
    directory.mkdir()
    with contextlib.ExitStack() as running:
        stages = []

        def start():
            began = time.monotonic()
            stages.append(started(version, directory, arguments, checks, running))
            return f"{time.monotonic() - began:.1f} s"

        checks(f"{version} three brokers start", start)
        for stage in stages:
            for part in arguments.parts:
                play(stage, part, arguments)


def started(version, directory, arguments, checks, running):
    """A stage with all that it needs; `running` stops it."""
    services = real.Services(None, None, None, [])
    cluster = Cluster(version, directory)
    running.callback(services.stop)
    running.callback(cluster.stop)
    registry = real.start_registry(services, directory)
    cluster.start()
    subjects = f"{services.registry}/subjects"
    registry.wait_until(lambda: real.answers(subjects), real.READY_SECONDS_MAX)
    cluster.wait_until_in_sync()
    checker = Checker(cluster.bootstrap, services.registry, directory / "checker.log")
    running.callback(checker.stop)
    return Stage(cluster, services.registry, checker, directory, arguments, checks)


def play(stage, part, arguments):
    def check(sentence, function, *more):
        def on_whole_cluster():
            # A broker that an earlier part has left dead is not this one's affair.
            stage.cluster.mend()
            return function(stage, *more)

        stage.check(sentence, on_whole_cluster)

    stage.part = part
    match part:
        case "first-starts":
            topics = faults.Topics()
            check("first-starts end with 0", faults.first_starts, arguments.starts, topics)
            stage.check("topics survive a lost broker", faults.no_topic_is_wrong, topics)
        case "rolling":
            check("rolling", faults.rolling, arguments.rounds)
        case "kill":
            check("kill", faults.kill, arguments.kills, arguments.double_kills)
        case "moves":
            check("moves", faults.moves, arguments.moves)
        case "versions":
            check("versions", faults.versions)
        case "registries":
            for api in registries.APIS:
                check(f"registries: Apicurio {registries.VERSION}, {api}", registries.versions, api)
        case "doctored":
            # The largest file has most kinds of records.
            largest = max(stage.dumps, key=lambda file: file.stat().st_size, default=None)
            counts = (arguments.seed, arguments.doctorings)
            stage.check("doctored records are noticed", doctored.check, largest, *counts)
            check("a service that hangs is noticed", faults.hanging_service)
            check("an open transaction is noticed", faults.open_transaction)


if __name__ == "__main__":
    main()
