#!/usr/bin/env python3
"""Runs the cases on a scimtail binary, a real Kafka and a real registry; README.md describes the cases.

    SCIMTAIL=target/debug/scimtail KAFKA_BOOTSTRAP=127.0.0.1:9092 SCHEMA_REGISTRY_URL=http://127.0.0.1:8081 \\
        tests/cases/run_cases.py [FILE...] [--agree] [--only TEXT] [--skip-kind KIND] [--work FOLDER] [-v]

Without a FILE, all cases beside this script are run. It prints a line a case (`ok`,
or `FAULT` and what differs) and a last line with the count, and ends with 0 only if every case is right.
All cases of a round are synced by one `run --once`: each is a separate account with a separate server,
under a topic prefix of this run. With --agree, `check` and `plan` are run before each sync, and
have to say what the sync does. It needs Python 3.11; the reason codes of syncs are compared where
confluent_kafka and fastavro are installed.
"""

import sys

sys.dont_write_bytecode = True

import argparse
import concurrent.futures
import importlib.util
import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import agreement
import expected
import okta_server
import program as scimtail
import server

FILES = [*server.FILES, *okta_server.FILES]
SERVED_BY = {"scim": server.Directory, "okta": okta_server.Organisation}
HERE = Path(__file__).resolve().parent
READ_TOPICS = HERE.parent / "it" / "read_topics.py"
# `check` and `plan` under way at once. They mostly wait, for the broker or for servers that break off.
LOOKS_AT_ONCE = 3


class CaseRun:
    """A case while it is run."""

    def __init__(self, number, case):
        self.case, self.name = case, case["id"]
        self.token_variable = f"TOKEN_{number}"
        self.directory = SERVED_BY[case["api"]](case)
        self.rounds = self.directory.rounds
        self.faults, self.outputs = [], []
        # Events of earlier rounds, and the state that later rounds expect where they do not say.
        self.events_seen, self.users, self.groups = 0, None, None
        # The configuration of its account is refused: nothing more can be tried.
        self.refused = False

    def round(self, number):
        return self.rounds[number - 1]

    def syncs(self, number):
        return self.round(number).get("syncs", 1)

    def account(self, number):
        """Its `[[account]]`; after its last round as it was then."""
        settings = self.rounds[min(number, len(self.rounds)) - 1]["account"]
        return self.directory.account(self.name, self.token_variable, settings)

    def fault(self, number, text):
        self.faults.append(f"round {number}: {text}")


class Suite:
    """All cases of one run of this script."""

    def __init__(self, program, runs, work, agree):
        self.program, self.runs, self.work, self.agree = program, runs, work, agree
        # Faults that belong to no single case.
        self.faults = []

    def play(self):
        for number in range(1, max((len(run.rounds) for run in self.runs), default=0) + 1):
            config = self.configure(number)
            due = [run for run in self.runs if number <= len(run.rounds) and not run.refused]
            outcomes, synced = {}, []
            for sync in range(1, max((run.syncs(number) for run in due), default=0) + 1):
                now = [run for run in due if sync <= run.syncs(number)]
                looked = self.look(config, now, number, sync)
                outcomes |= self.sync(config, now, number, sync)
                synced += [(run, looked.get(run), outcomes[run]) for run in now]
            self.compare(config, due, number, outcomes, synced)

    def configure(self, number):
        """A configuration of all accounts as of this round. One that is refused is a fault, and left out."""
        path = self.work / f"round-{number}.toml"
        while True:
            runs = {run.name: run for run in self.runs if not run.refused}
            text = self.program.configuration([run.account(number) for run in runs.values()])
            path.write_text(text, encoding="utf-8")
            ended = self.program(path, "topics", "--create")
            if ended.code == 0:
                return path
            refused = scimtail.refused(ended.errors, text, runs)
            if ended.code != scimtail.CONFIGURATION or not refused:
                sys.exit(f"scimtail topics --create ends with {ended.code}: {ended.errors.strip()}")
            for name in refused:
                runs[name].refused = True
                runs[name].fault(number, f"the account is refused: {ended.errors.strip()[:200]}")

    def look(self, config, runs, number, sync):
        """The outputs of `check` and `plan` on the runs before a sync, if a case asks for them."""

        def look(run):
            wanted = run.round(number).get("check") if sync == 1 else None
            if wanted is None and not self.agree:
                return None
            check = self.one(config, "check", run, number)
            lines = scimtail.lines_by_account(check.text, {run.name}).get(run.name, [])
            run.outputs.append(f"check, round {number}, exit {check.code}\n" + "\n".join(lines))
            for fault in expected.check(wanted or {}, check.code, lines, run.name):
                run.fault(number, fault)
            if not self.agree:
                return None
            plan = self.one(config, "plan", run, number)
            run.outputs.append(f"plan, round {number}, exit {plan.code}\n{plan.text}")
            return agreement.Looked(check, lines, plan)

        with concurrent.futures.ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
            return dict(zip(runs, pool.map(look, runs), strict=True))

    def one(self, config, command, run, number):
        """A command on one account. The server counts its answers from zero for each."""
        run.directory.turn(number)
        return self.program(config, command, run.name, seconds_max=scimtail.LOOK_SECONDS_MAX)

    def sync(self, config, runs, number, sync):
        """One `run --once` of the runs; what it says of each."""
        for run in runs:
            run.directory.turn(number)
        accounts = [word for run in runs for word in ("--account", run.name)]
        ended = self.program(config, "run", "--once", "--log-level", "error", *accounts)
        (self.work / f"round-{number}-sync-{sync}.txt").write_text(ended.text, encoding="utf-8")
        lines = scimtail.lines_by_account(ended.text, {run.name for run in runs})
        outcomes = {run: scimtail.outcome(lines.get(run.name, [])) for run in runs}
        all_completed = all(outcome.status == "completed" for outcome in outcomes.values())
        if (ended.code == 0) != all_completed:
            text = f"round {number}: run --once ends with {ended.code}, which does not fit what it says"
            self.faults.append(text)
        return outcomes

    def compare(self, config, runs, number, outcomes, synced):
        """Adds the faults of a round to its runs."""
        state = {what: self.of_accounts(config, "state", what) for what in STATE}
        events = self.of_accounts(config, "tail", "--from", "beginning", "--exit")
        codes = reason_codes(self.program)
        for run in runs:
            wanted = run.round(number).get("expect", {})
            records = events.get(run.name, [])
            new, run.events_seen = records[run.events_seen :], len(records)
            code = codes and codes.get(run.name)
            run.outputs.append(f"run, round {number}\n{outcomes[run].text}")
            faults = [
                *expected.outcome(wanted, outcomes[run], code, run.name),
                *expected.events(wanted, new),
                *expected.values(wanted, new),
            ]
            run.users = wanted.get("users", run.users)
            run.groups = wanted.get("groups", run.groups)
            of_run = {what: records.get(run.name, []) for what, records in state.items()}
            if run.users is not None:
                faults += expected.users(run.users, of_run["users"])
            if run.groups is not None:
                faults += expected.groups(run.groups, of_run["groups"], of_run["memberships"])
            for fault in faults:
                run.fault(number, fault)
        for run, looked, outcome in synced:
            if looked:
                published = sum(event["sync"] == outcome.sync for event in events.get(run.name, []))
                for fault in agreement.disagreements(looked, outcome, published):
                    run.fault(number, f"agreement: {fault}")

    def of_accounts(self, config, *arguments):
        """The records that a command prints, by account."""
        by_account = {}
        for record in self.program.records(config, *arguments):
            by_account.setdefault(record["account"], []).append(record)
        return by_account


STATE = ("users", "groups", "memberships")


def reason_codes(program):
    """The reason code of each account's newest sync; None where Kafka cannot be read without scimtail."""
    if not all(importlib.util.find_spec(module) for module in ("confluent_kafka", "fastavro")):
        return None
    services = ("--bootstrap", program.brokers, "--registry", program.registry)
    command = [sys.executable, READ_TOPICS, *services, f"{program.prefix}.syncs"]
    read = subprocess.run(command, capture_output=True, text=True)
    if read.returncode != 0:
        sys.exit(f"{READ_TOPICS.name} ends with {read.returncode}: {read.stderr}")
    codes = {}
    for record in map(json.loads, read.stdout.splitlines()):
        account, is_latest, _ = record["key"].partition("/latest")
        if is_latest and record["value"]:
            codes[account] = record["value"]["reason_code"]
    return codes


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", default=FILES, metavar="FILE")
    parser.add_argument(
        "--agree", action="store_true", help="compare check and plan with each sync"
    )
    parser.add_argument("--only", metavar="TEXT", help="cases whose id or kind has this text")
    parser.add_argument(
        "--skip-kind", action="append", default=[], metavar="KIND", help="leave a kind out"
    )
    parser.add_argument(
        "--work", type=Path, help="folder for configurations and outputs, kept afterwards"
    )
    parser.add_argument("-v", action="store_true", help="show the outputs of faulty cases")
    return parser.parse_args()


def chosen(given):
    """The cases to run; says which kinds are left out."""
    cases = [case for file in given.files for case in server.load(file)]
    if given.only:
        cases = [case for case in cases if given.only in case["id"] or given.only in case["kind"]]
    for kind in given.skip_kind:
        count = sum(case["kind"] == kind for case in cases)
        print(f"skipped: {count} of kind {kind}")
    return [case for case in cases if case["kind"] not in given.skip_kind]


def report(suite, seconds, verbose):
    """Prints the faults; returns whether every case is right."""
    for run in suite.runs:
        if not run.faults:
            print(f"ok     {run.name}")
            continue
        print(f"FAULT  {run.name}  [{run.case['kind']}]")
        lines = run.faults
        if verbose:
            outputs = "\n".join(run.outputs).splitlines()
            lines = lines + [f"| {line}" for line in outputs]
        for line in lines:
            print(f"         {line}")
    for fault in suite.faults:
        print(f"FAULT  {fault}")
    wrong = Counter(run.case["kind"] for run in suite.runs if run.faults)
    right = sum(not run.faults for run in suite.runs)
    kinds = ", ".join(f"{kind} ({count})" for kind, count in sorted(wrong.items()))
    print(f"{right} of {len(suite.runs)} cases right in {seconds:.0f} s; wrong: {kinds or 'none'}")
    return right == len(suite.runs) and not suite.faults


def main():
    given = arguments()
    cases = chosen(given)
    environment = os.environ | {f"TOKEN_{n}": f"token-{n}" for n in range(len(cases))}
    program = scimtail.Program(
        os.environ.get("SCIMTAIL", "scimtail"),
        os.environ.get("KAFKA_BOOTSTRAP", "127.0.0.1:9092"),
        os.environ.get("SCHEMA_REGISTRY_URL", "http://127.0.0.1:8081"),
        f"cases-{time.strftime('%m%d%H%M%S')}-{os.getpid()}",
        environment,
    )
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cases-") as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        runs = [CaseRun(number, case) for number, case in enumerate(cases)]
        suite = Suite(program, runs, work, given.agree)
        suite.play()
    sys.exit(0 if report(suite, time.monotonic() - began, given.v) else 1)


if __name__ == "__main__":
    main()
