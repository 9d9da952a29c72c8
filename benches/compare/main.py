"""scimtail's speed and memory against physical limits and other programs, in one run. One command:

    benches/compare/run [--quick] [--only PART...] [--scimtail [NAME=]PATH]...

It starts a load server, Kafka and the schema registry, runs the parts, and prints one Markdown
table. Progress goes to standard error, and everything that was measured to
target/compare/result.json. A reader of other libraries compares the topics with what the load
server holds: a wrong result voids its figure.

  load      first loads with both baselines, first record, start, memory, and the limits L0 to L3
  polls     unchanged polls and polls with 0.1 % churn, after the first load
  restore   a fresh process against filled topics, after the first load, with the limit L4
  commits   the limit L5, small transactions
  peers     a hand-written Python poller and Bento: first load and polls
  kill      scimtail and the peers killed in the middle of the first load, and started again
  accounts  1,000 small accounts: memory of each, and all due at once
  walk      a slow vendor
  sizes     10,000 to 1,000,000 users
  fleets    1 to 1,000 accounts
  members   one group of 250,000 members
  listing   `scimtail state memberships` on a million memberships

All parts run without --only. --quick leaves out the last four, unless --only names them. It does
less of the rest: fewer polls, a third of the directory for kill, a fifth for walk.
"""

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import accounts
import builds
import doctored
import kill
import limits
import loads
import measure
import page
import peers
import report
import services as real
import shapes
import stage as stages
from confluent_kafka import KafkaException
from processes import Failed, require
from stage import say
from vendor import Size

PARTS = (
    *loads.PARTS, "commits", "peers", "kill",
    "accounts", "walk", "sizes", "fleets", "members", "listing",
)  # fmt: skip
SLOW_PARTS = ("sizes", "fleets", "members", "listing")
ROUNDS = 3
DEFAULT_SIZE = Size(100_000, 5_000, 300_000)


def parsed():
    parser = argparse.ArgumentParser(
        prog="benches/compare/run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one run of each, at most 4 minutes")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--scimtail", action="append", default=[], metavar="[NAME=]PATH",
        help="a binary to measure; several take turns [default: a release build of this source]",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, metavar="N", help=f"{ROUNDS}; quick: 1")
    parser.add_argument("--users", type=int, default=DEFAULT_SIZE.users, metavar="N")
    parser.add_argument("--groups", type=int, default=DEFAULT_SIZE.groups, metavar="N")
    parser.add_argument("--memberships", type=int, default=DEFAULT_SIZE.memberships, metavar="N")
    parser.add_argument("--page", type=int, default=DEFAULT_SIZE.page, metavar="N")
    parser.add_argument(
        "--write-docs", action="store_true", help="write docs/benchmarks.md and its plot"
    )
    parser.add_argument("--keep", action="store_true", help="keep logs and topics")
    arguments = parser.parse_args()
    arguments.only = [part for given in arguments.only for part in given.split(",")]
    if unknown := set(arguments.only) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}; → one of {', '.join(PARTS)}")
    quick = [part for part in PARTS if part not in SLOW_PARTS]
    arguments.parts = arguments.only or (quick if arguments.quick else list(PARTS))
    arguments.rounds = arguments.rounds or (1 if arguments.quick else ROUNDS)
    return arguments


def main():
    arguments = parsed()
    # Ends everything that was started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    output = stages.TARGET / "compare"
    output.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="run-", dir=output))
    results = report.Results()
    try:
        # Standard output is for the table; builds say there what they fetch.
        with contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as running:
            stage = started(arguments, work, results, running)
            facts = facts_of(stage, arguments)
            play(stage, arguments)
    except Failed as error:
        sys.exit(f"benches/compare/run: {error}")
    finally:
        if arguments.keep:
            say(f"logs and topics: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    (output / "result.json").write_text(report.document(results, facts) + "\n")
    print(report.table(results, list(stage.binaries)))
    if arguments.write_docs:
        page.write(results, facts, size_of(arguments), list(stage.binaries))
    # That other programs publish wrong results is a figure, not a failure.
    void = [figure for figure in results.figures.values() if figure.void]
    if results.failures or any(figure.program in stage.binaries for figure in void):
        sys.exit(1)


def facts_of(stage, arguments):
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": measure.machine(),
        "broker": "Apache Kafka " + broker_version(),
        "programs": {name: version(path) for name, path in stage.binaries.items()},
        "parts": arguments.parts,
        "rounds": arguments.rounds,
        "size": vars(size_of(arguments)),
    }


def size_of(arguments):
    return Size(arguments.users, arguments.groups, arguments.memberships, arguments.page)


def broker_version():
    """The version in the name of Kafka's jar."""
    jar = next((builds.services() / "kafka").glob("kafka-server-common-*.jar"))
    return jar.stem.rpartition("-")[2]


def version(binary):
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def started(arguments, work, results, running):
    """The programs and services; `running` stops them."""
    doctored.check()
    require("java", builds.JAVA_HINT, at_least=(17,))
    require("mvn", builds.JAVA_HINT)
    require("setpriv", "It is part of util-linux: apt-get install util-linux")
    tools = stages.tools()
    binaries = stages.binaries(arguments.scimtail, work)
    say("starting Kafka and the registry")
    real.java = optimised(real.java)
    services = real.start(work)
    running.callback(services.stop)
    stage = stages.Stage(
        services.bootstrap,
        services.registry,
        work,
        tools,
        binaries,
        arguments.rounds,
        arguments.quick,
        results,
    )
    # Before the broker stops: a consumer complains about one that is gone.
    running.callback(lambda: stage.reader and stage.reader.close())
    return stage


def optimised(java):
    """Java as the services of people run it, for which the tests' services live too shortly: with
    the optimising compiler."""
    return lambda *given: [part for part in java(*given) if part != "-XX:TieredStopAtLevel=1"]


def play(stage, arguments):
    """Runs the parts. One that fails is reported, and the others go on."""
    loads.warm_up(stage)
    of_loads = [part for part in arguments.parts if part in loads.PARTS]
    if of_loads:
        attempt(stage, ",".join(of_loads), loads.run, of_loads, size_of(arguments))
    size = size_of(arguments)
    # A comparison of builds of scimtail alone needs no other programs.
    others = list(peers.STARTS) if "peers" in arguments.parts else []
    # The part `accounts` has the largest fleet.
    fleets = accounts.COUNTS[:-1] if "accounts" in arguments.parts else accounts.COUNTS
    runs = {
        "commits": (limits.commits,),
        "peers": (peers.run, size),
        "kill": (kill.run, size, others),
        "accounts": (accounts.run,),
        "walk": (shapes.walk,),
        "sizes": (shapes.sizes,),
        "fleets": (accounts.run, fleets),
        "members": (shapes.members,),
        "listing": (shapes.listing,),
    }
    for part, run in runs.items():
        if part in arguments.parts:
            attempt(stage, part, *run)


def attempt(stage, part, function, *more):
    say(f"part {part}")
    try:
        function(stage, *more)
    except (Failed, OSError, KafkaException, subprocess.SubprocessError) as error:
        say(f"{part} failed: {error}")
        stage.results.fail(part, error)


if __name__ == "__main__":
    main()
