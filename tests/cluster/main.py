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
  doctored       the records that the other parts left are doctored, and the checker notices

All parts run without any. It needs the built program (SCIMTAIL, else target/debug/scimtail), a JDK 17 or newer, Maven
and Python 3.11 or newer with venv. It fetches the jars once, below target/readers, and writes below target/cluster.
"""

import sys

if sys.version_info < (3, 11):
    sys.exit("tests/cluster/run needs Python 3.11 or newer with venv")

import argparse
import builds
import secrets
import shutil
import signal
import tempfile
import time
import traceback
from pathlib import Path

import doctored
import faults
import program
import services as real
from cluster import Cluster
from processes import CACHE, Failed, require
from verdict import Checker

# The newest of each line that Maven Central serves, and the one that the other tests run against.
VERSIONS = ("3.9.2", "4.1.1", "4.4.0")
SHORT_VERSION = "4.1.1"
PARTS = ("first-starts", "rolling", "kill", "moves", "versions", "doctored")
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


class Checks:
    def __init__(self):
        self.passed = self.failed = 0

    def __call__(self, sentence, function, *arguments):
        """Runs one check, which raises Failed or returns, and prints how it ended."""
        try:
            said = function(*arguments)
        except Failed as error:
            self.failed += 1
            print(f"FAIL {sentence}\n  {error}", flush=True)
        except Exception:
            self.failed += 1
            print(f"FAIL {sentence}\n{traceback.format_exc()}", flush=True)
        else:
            self.passed += 1
            print(f"ok   {sentence}" + (f": {said}" if said else ""), flush=True)


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
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"{what} ({long}; short: {short})")
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
    checks = Checks()
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
            checks(f"{version} everything was started", on_version, version, work, arguments, checks)
    finally:
        if sys.exc_info()[0] or checks.failed or arguments.keep:
            print(f"     logs: {work}", flush=True)
        else:
            shutil.rmtree(work)
    end(checks)


def end(checks):
    print(f"{checks.passed} passed, {checks.failed} failed, {time.monotonic() - BEGAN:.0f} s")
    sys.exit(1 if checks.failed else 0)


def on_version(version, work, arguments, checks):
    """Runs the parts on a cluster of this version."""
    began = time.monotonic()
    directory = work / version
    directory.mkdir()
    services = real.Services(None, None, None, [])
    cluster = checker = None
    try:
        cluster = Cluster(version, directory)
        registry = real.start_registry(services, directory)
        cluster.start()
        address = f"{services.registry}/subjects"
        registry.wait_until(lambda: real.answers(address), real.READY_SECONDS_MAX)
        cluster.wait_until_in_sync()
        checker = Checker(cluster.bootstrap, services.registry, directory / "checker.log")
        stage = Stage(cluster, services.registry, checker, directory, arguments, checks)
        ready = f"three brokers after {time.monotonic() - began:.1f} s"
        print(f"     {time.monotonic() - BEGAN:6.1f} s  Kafka {version}: {ready}", flush=True)
        for part in arguments.parts:
            stage.part = part
            play(stage, part, arguments)
        return ready
    finally:
        if checker:
            checker.stop()
        if cluster:
            cluster.stop()
        services.stop()


def play(stage, part, arguments):
    if part == "doctored":
        if not stage.dumps:
            stage.check("doctored", no_records)
            return
        # The largest has most kinds of records.
        largest = max(stage.dumps, key=lambda file: file.stat().st_size)
        stage.check("doctored", doctored.check, largest, arguments.seed, arguments.doctorings)
        return
    # What the part before has broken is not this one's.
    stage.check("the cluster is whole before " + part, stage.cluster.mend)
    match part:
        case "first-starts":
            topics = faults.Topics()
            starts = arguments.starts
            stage.check("first-starts end with 0", faults.first_starts, stage, starts, topics)
            stage.check("topics survive a lost broker", faults.no_topic_is_wrong, topics)
        case "rolling":
            stage.check("rolling", faults.rolling, stage, arguments.rounds)
        case "kill":
            counts = (arguments.kills, arguments.double_kills)
            stage.check("kill", faults.kill, stage, *counts)
        case "moves":
            stage.check("moves", faults.moves, stage, arguments.moves)
        case "versions":
            stage.check("versions", faults.versions, stage)


def no_records():
    raise Failed("no part has left records: name another part before it")


if __name__ == "__main__":
    main()
