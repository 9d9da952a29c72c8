"""scimtail in long operation. One command:

    tests/soak/run [--minutes 30] [--seed N]

Three real Kafka brokers that ask for a password (SCRAM), a schema registry behind a gate that asks for one, four
simulated vendors with 24 accounts, and three instances of `scimtail run` that share them. It goes on in rounds. In each
round directories change with each poll and fail in each way that they can. Meanwhile instances end, die, come back and
visit, brokers and the registry are restarted, passwords and tokens change, accounts leave and return, and the pages of
the HTTP listeners are asked for. Then all of that rests. Everything has to converge, and the independent checker of the
crash matrix judges all records: nothing is lost, doubled or stuck, and the state is what the directories hold.

One instance is never restarted. At the end its memory, threads and descriptors have to be flat: flat.py has the bounds.
--doctored only shows that growth is noticed; each soak shows it too, of its own samples.

It needs the built program (SCIMTAIL, else target/debug/scimtail), Linux, a JDK 17 or newer, Maven and Python 3.11 or
newer with venv. It writes below target/soak: a picture, and on a failure the logs and the records.
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
import growth
import happenings
import onlooker
import picture
import program
import report
from checks import Checks
from fleet import ROLES
from flat import judge, long_lived
from processes import CACHE, Failed, require
from soak import Soak

MINUTES = 30.0
# Less has too few rounds.
MINUTES_MIN = 3.0
# Above the bounds of all waits of a round together, unless something hangs in a way of its own.
CHECK_SECONDS_MAX = 1_200
# Records that are doctored, in each way; tests/cluster does it more often.
DOCTORINGS = 3
WORK = CACHE.parent / "soak"
BEGAN = time.monotonic()


def say(text):
    print(f"     {time.monotonic() - BEGAN:7.1f} s  {text}", flush=True)


def parsed():
    parser = argparse.ArgumentParser(
        prog="tests/soak/run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=MINUTES,
        help=f"of the rounds together, and until everything has happened once ({MINUTES:.0f})",
    )
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--keep", action="store_true", help="keep logs and records")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="THING",
        choices=list(happenings.ALL),
        help=f"a thing that does not happen: {', '.join(happenings.ALL)}",
    )
    parser.add_argument("--doctored", action="store_true", help="only show that growth is noticed")
    arguments = parser.parse_args()
    if arguments.minutes < MINUTES_MIN:
        parser.error(f"{MINUTES_MIN:.0f} minutes at least: otherwise there are too few rounds")
    return arguments


def main():
    arguments = parsed()
    # Ends everything that was started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGALRM, too_long)
    checks = Checks(CHECK_SECONDS_MAX)
    print(f"     seed {arguments.seed}", flush=True)
    checks("growth is noticed in samples that are made", growth.check, arguments.seed)
    if not arguments.doctored:
        try:
            require("java", builds.JAVA_HINT, at_least=(17,))
            require("mvn", builds.JAVA_HINT)
            program.binary()
        except Failed as error:
            sys.exit(f"tests/soak/run: {error}")
        play(arguments, checks)
    print(f"{checks.passed} passed, {checks.failed} failed")
    sys.exit(1 if checks.failed else 0)


def too_long(*_):
    raise Failed(f"it still ran after {CHECK_SECONDS_MAX} s")


def play(arguments, checks):
    WORK.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="run-", dir=WORK))
    try:
        with contextlib.ExitStack() as running:
            soak = Soak(work, arguments.seed, arguments.without, say)
            if checks("everything starts", soak.start, running):
                lived = live(soak, arguments.minutes, checks)
                show(soak, arguments.seed)
                checks("each instance that is told to end ends with 0", soak.fleet.judge_ends)
                checks("no instance calls for a person in vain", soak.fleet.judge_logs)
                if lived:
                    judge_all(soak, checks, arguments.seed)
    finally:
        if sys.exc_info()[0] or checks.failed or arguments.keep:
            print(f"     logs: {work}", flush=True)
        else:
            shutil.rmtree(work)


def live(soak, minutes, checks):
    """The rounds and the end. Returns whether all was well."""
    while not soak.is_over(minutes):
        # What follows a round that failed would fail for the same reason.
        if not checks(f"round {soak.rounds + 1}", soak.round):
            return False
    return checks("all ends well", soak.finish)


def show(soak, seed):
    report.show(soak)
    file = WORK / f"soak-{seed}.svg"
    picture.draw(file, soak.measurements.samples, soak.happened, soak.elapsed())
    print(f"     picture: {file}", flush=True)


def judge_all(soak, checks, seed):
    checks("each thing happened, and each fault struck", report.judge_counts, soak)
    checks(f"all pages of {ROLES[0]} were there all the time", judge_pages, soak)
    samples = soak.measurements.samples
    for name in long_lived(samples, soak.rounds):
        own = [sample for sample in samples if sample.name == name]
        # What is not flat is refused without being doctored.
        if checks(f"{name} is flat", judge, own, soak.rounds):
            sentence = f"growth is noticed in the samples of {name}"
            checks(sentence, growth.refuse_doctored, own, soak.rounds)

    # Only those of the first round can be judged by themselves.
    first = (soak.records_file(1), seed, DOCTORINGS)
    checks("doctored records of the first round are noticed", doctored.check, *first)


def judge_pages(soak):
    if complaints := onlooker.complaints(soak.onlooker.answers, ROLES[0]):
        raise Failed("; ".join(complaints))
    return f"{sum(soak.onlooker.answers.values())} answers of all instances"


if __name__ == "__main__":
    main()
